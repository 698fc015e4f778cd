#include "sample_training.h"

#include <math.h>
#include <stdlib.h>

#include <moesim/hash.h>

const char *const sample_domain[SAMPLE_DOMAINS] = {"c-code", "chat", "german", "news", "python", "wiki & more"};
const char *const sample_token[SAMPLE_TOKENS] = {"the",    "of", "and", "to",     "in",  "a",   "is",  "that",
                                                 "\u2423", ",",  ".",   "\\n",    "(",   ")",   "{",   "}",
                                                 ";",      "=",  "def", "return", "der", "die", "und", "<b>"};

static double noise(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t key[] = {a, b, c, 7};
    return (double)(moesim_hash(MOESIM_HASH_START, key, sizeof key) >> 40) / 16777216.0;
}

double sample_bits(uint32_t router, uint32_t seed, uint32_t v, uint32_t domain)
{
    const double floor = 1.9 + 0.06 * (router * 5 % 7), batches = (v + 1.0) * SAMPLE_EVERY;
    const double bits = floor + 4.2 * pow(1.0 + batches / 30.0, -0.75) + 0.05 * noise(router, seed, 999) +
                        0.02 * noise(router, seed, v);
    return domain == SAMPLE_DOMAINS ? bits : bits * (0.8 + 0.08 * domain) + 0.02 * noise(router, seed, 100 + domain);
}

static double value_of(uint32_t metric, uint32_t router, uint32_t seed, uint32_t v)
{
    const double done = (v + 1.0) / SAMPLE_VALIDATIONS, jitter = noise(router * 64 + metric, seed, v);
    switch (metric) {
    case MOESIM_BITS_PER_BYTE:
        return sample_bits(router, seed, v, SAMPLE_DOMAINS);
    case MOESIM_TRAIN_LOSS:
        return 0.69 * sample_bits(router, seed, v, SAMPLE_DOMAINS);
    case MOESIM_MAX_VIO:
        if (router == 3) /* even by construction */
            return 0.0;
        return router == 0 ? 1.0 + 5.0 * done + 0.3 * jitter : 1.5 / (1.0 + router) + exp(-8.0 * done) + 0.1 * jitter;
    case MOESIM_MAX_VIO_GLOBAL:
        return 0.8 * value_of(MOESIM_MAX_VIO, router, seed, v);
    case MOESIM_DEAD_EXPERTS:
        return router == 0 ? floor(9.0 * done) : 0.0;
    case MOESIM_ROUTING_FLUCTUATION:
        return 0.6 * exp(-3.0 * done) + 0.05 * router / 7.0 + 0.03 * jitter;
    case MOESIM_ROUTER_SATURATION:
        return 1.0 - 0.7 * exp(-3.0 * done) - 0.02 * jitter;
    case MOESIM_DOMAIN_SPECIALISATION:
        return 0.1 + 0.05 * router * done;
    case MOESIM_FLOP_TRAIN:
        return 3.1e11 * (1.0 + 0.2 * (router % 3));
    default:
        return 0.02 * (1.0 + 0.3 * (router % 4)); /* time_step */
    }
}

/* At the validation; of batches another one before it, so that their mean is the value. */
static void add_value(struct moesim_outcome *o, uint32_t metric, uint32_t layer, uint32_t v, double value)
{
    const bool of_batches = metric == MOESIM_MAX_VIO || metric == MOESIM_FLOP_TRAIN || metric == MOESIM_TIME_STEP;
    if (of_batches)
        o->series[o->n_series++] = (struct moesim_sample){v * SAMPLE_EVERY, layer, metric, 1.5 * value};
    o->series[o->n_series++] =
        (struct moesim_sample){(v + 1) * SAMPLE_EVERY - 1, layer, metric, of_batches ? 0.5 * value : value};
}

/* Every metric at every validation; a whole-model one is noted on layer 0. */
static void add_series(struct moesim_outcome *o, uint32_t router, uint32_t seed, bool with_cluster)
{
    static const struct {
        uint32_t metric, n_layers;
    } wanted[] = {{MOESIM_BITS_PER_BYTE, 1},
                  {MOESIM_TRAIN_LOSS, 1},
                  {MOESIM_MAX_VIO, SAMPLE_LAYERS},
                  {MOESIM_MAX_VIO_GLOBAL, SAMPLE_LAYERS},
                  {MOESIM_DEAD_EXPERTS, SAMPLE_LAYERS},
                  {MOESIM_ROUTING_FLUCTUATION, SAMPLE_LAYERS},
                  {MOESIM_ROUTER_SATURATION, SAMPLE_LAYERS},
                  {MOESIM_DOMAIN_SPECIALISATION, SAMPLE_LAYERS},
                  {MOESIM_FLOP_TRAIN, 1},
                  {MOESIM_TIME_STEP, 1}};
    enum { N_WANTED = sizeof wanted / sizeof *wanted };
    o->series = moesim_alloc(o->arena, 2u * N_WANTED * SAMPLE_LAYERS * SAMPLE_VALIDATIONS, sizeof *o->series);
    for (uint32_t i = 0; i < N_WANTED; i++) {
        const uint32_t metric = wanted[i].metric;
        if (metric == MOESIM_TIME_STEP && !with_cluster)
            continue;
        double last = 0.0;
        for (uint32_t v = 0; v < SAMPLE_VALIDATIONS; v++) {
            last = value_of(metric, router, seed, v);
            if ((metric == MOESIM_ROUTING_FLUCTUATION && v == 0) ||
                (metric == MOESIM_ROUTER_SATURATION && v + 1 == SAMPLE_VALIDATIONS))
                continue;
            for (uint32_t l = 0; l < wanted[i].n_layers; l++)
                add_value(o, metric, l, v, last * (wanted[i].n_layers > 1 ? l ? 1.1 : 0.9 : 1.0));
        }
        if (metric != MOESIM_MAX_VIO) /* the sample has it */
            o->summary[o->n_summaries++] = (struct moesim_summary){
                .layer = MOESIM_ALL_LAYERS, .metric = metric, .value = last, .mean = last, .n = SAMPLE_VALIDATIONS};
    }
}

static void add_domains(struct moesim_outcome *o, uint32_t router, uint32_t seed)
{
    o->domain_loss = moesim_alloc(o->arena, SAMPLE_VALIDATIONS * SAMPLE_DOMAINS, sizeof *o->domain_loss);
    for (uint32_t v = 0; v < SAMPLE_VALIDATIONS; v++)
        for (uint32_t d = 0; d < SAMPLE_DOMAINS; d++)
            o->domain_loss[o->n_domain_losses++] =
                (struct moesim_domain_loss){.step = (v + 1) * SAMPLE_EVERY - 1,
                                            .domain = moesim_strdup(o->arena, sample_domain[d]),
                                            .tokens = 2048,
                                            .bits_per_byte = sample_bits(router, seed, v, d)};
}

/* Two experts a token, which lean to some: the first router to the first experts, later ones to one a subject. */
static void add_routing(struct moesim_outcome *o, uint32_t router, uint32_t layer, uint32_t kind, uint32_t subject,
                        uint32_t n_experts)
{
    struct moesim_specialisation *s = &o->specialisation[o->n_specialisations++];
    const uint64_t tokens = kind == MOESIM_SUBJECT_DOMAIN ? 2048 : 900 - 30 * subject;
    *s = (struct moesim_specialisation){
        .layer = layer,
        .kind = kind,
        .subject =
            moesim_strdup(o->arena, kind == MOESIM_SUBJECT_DOMAIN ? sample_domain[subject] : sample_token[subject]),
        .tokens = tokens,
        .n_experts = n_experts,
        .assigned = moesim_alloc(o->arena, n_experts, sizeof(uint64_t))};
    double sum = 0.0, *weight = moesim_alloc(o->arena, n_experts, sizeof *weight);
    for (uint32_t e = 0; e < n_experts; e++) {
        const double at = (double)((e * 7 + subject * 3 + layer) % n_experts) / n_experts;
        weight[e] = router == 0 ? exp(-0.9 * e) : exp(-(1.0 + router) * at) + 0.3 * noise(router, subject, e);
        sum += weight[e];
    }
    for (uint32_t e = 0; e < n_experts; e++)
        s->assigned[e] = (uint64_t)(fmin(2.0 * weight[e] / sum, 1.0) * (double)tokens);
}

void sample_train(struct moesim_outcome *outcome, uint32_t router, uint32_t seed, uint32_t n_experts, bool with_cluster)
{
    add_series(outcome, router, seed, with_cluster);
    add_domains(outcome, router, seed);
    outcome->specialisation =
        moesim_alloc(outcome->arena, SAMPLE_LAYERS * (SAMPLE_DOMAINS + SAMPLE_TOKENS), sizeof *outcome->specialisation);
    for (uint32_t l = 0; l < SAMPLE_LAYERS; l++) {
        for (uint32_t d = 0; d < SAMPLE_DOMAINS; d++)
            add_routing(outcome, router, l, MOESIM_SUBJECT_DOMAIN, d, n_experts);
        for (uint32_t t = 0; t < SAMPLE_TOKENS; t++)
            add_routing(outcome, router, l, MOESIM_SUBJECT_TOKEN, t, n_experts);
    }
}
