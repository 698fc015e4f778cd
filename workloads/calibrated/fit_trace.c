/*
 * From a recording to a task for the fit.
 */
#include "workloads/calibrated/fit_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>

#include "workloads/gumbel.h"

enum {
    MOST_DOMAINS = 24,   /* of a sample */
    MOST_SEQUENCES = 16, /* of each of them */
    MOST_LENGTH = 512,   /* tokens of a sequence */
    LOAD_SEQUENCES = 4,  /* of loads, which know no sequences: enough tokens to count */
    LEAST_LAYERS = 8,    /* of a sample, whatever the recording has: chance falls with their number */
    MOST_LAYERS = 24,
    MOST_NUMBERS = 1 << 24, /* logits of a sample during the fit, about: sets the number of layers */
    ROUNDS = 3,             /* simplexes, each from where the last one ended */
    LABELS_AT_A_TIME = 4096,
};

/* ---- token types ---- */

/* How likely two tokens of the recording are of one type, and how many types there are. */
static enum moesim_status count_types(struct trace *trace, uint32_t vocabulary, double *same, uint32_t *n_types,
                                      struct moesim_error *err)
{
    const uint64_t n_tokens = trace_shape(trace)->n_tokens;
    uint32_t id[LABELS_AT_A_TIME];
    uint64_t *count = calloc(vocabulary, sizeof *count), counted = 0;
    enum moesim_status status =
        count ? MOESIM_OK
              : moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory for %u token ids", trace_path(trace), vocabulary);
    for (uint64_t at = 0; !status && at < n_tokens; at += LABELS_AT_A_TIME) {
        const uint32_t n = n_tokens - at < LABELS_AT_A_TIME ? (uint32_t)(n_tokens - at) : LABELS_AT_A_TIME;
        status = trace_read_labels(trace, TRACE_TOKEN_ID, at, n, id, err);
        for (uint32_t i = 0; !status && i < n; i++)
            if (id[i] < vocabulary) {
                count[id[i]]++;
                counted++;
            }
    }
    *same = 0;
    *n_types = 0;
    for (uint32_t w = 0; !status && w < vocabulary; w++) {
        const double p = (double)count[w] / (double)counted;
        *same += p * p;
        *n_types += count[w] > 0;
    }
    free(count);
    return status;
}

/* The exponent of a law r^-zipf over n types under which two tokens are of one type that often. */
static double zipf_for(double same, uint32_t n)
{
    double low = 0, high = 4;
    for (int i = 0; i < 40; i++) {
        const double zipf = (low + high) / 2;
        double sum = 0, squares = 0;
        for (uint32_t r = 1; r <= n; r++) {
            const double p = (double)moesim_expf((float)(-zipf * gumbel_ln(r)));
            sum += p;
            squares += p * p;
        }
        if (squares / (sum * sum) < same)
            low = zipf;
        else
            high = zipf;
    }
    return (low + high) / 2;
}

/* ---- what is aimed at ---- */

/* Figures that say the same as others, or hang on the size of the recording, are no targets. */
static bool is_aimed_at(enum calibrated_figure figure)
{
    return figure != CALIBRATED_LOG_SIGMA && figure != CALIBRATED_ANY_AGAIN && figure != CALIBRATED_MIXED_MAX;
}

static void set_targets(struct fit_trace_result *r, const double *mean)
{
    for (uint32_t i = 0; i < CALIBRATED_N_FIGURES; i++)
        if (is_aimed_at(i) && isfinite(mean[i]) && mean[i] > 0)
            r->target[r->n_targets++] = (struct calibrated_target){.figure = i, .value = mean[i]};
}

static void set_known(struct fit_trace_result *r, const double *mean)
{
    bool *known = r->is_known;
    const bool has_domains = isfinite(mean[CALIBRATED_DIVERGENCE]), has_order = isfinite(mean[CALIBRATED_LAG1]);
    const bool has_types = isfinite(mean[CALIBRATED_TOKEN_BITS]);
    known[FIT_POPULARITY] = known[FIT_POPULARITY_SKEW] = true;
    known[FIT_DOMAIN_EFFECT] = known[FIT_DOMAIN_TAIL] = has_domains;
    known[FIT_SEQUENCE_EFFECT] = has_order && isfinite(mean[CALIBRATED_LAG64]);
    known[FIT_SLOW_EFFECT] = known[FIT_SLOW_RHO] = has_order && isfinite(mean[CALIBRATED_LAG8]);
    known[FIT_FAST_EFFECT] = known[FIT_FAST_RHO] = has_order;
    known[FIT_TOKEN_EFFECT] = has_types;
    known[FIT_TOKEN_ECHO] = has_types && has_order;
}

/* The layers' load_cv as text; "flat" where one has none. */
static enum moesim_status write_profile(struct fit_trace_result *r, const double *layers, struct moesim_error *err)
{
    enum { DIGITS = 12 };
    r->profile = malloc((size_t)r->n_layers * DIGITS + DIGITS);
    if (!r->profile)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the profile of %u layers", r->n_layers);
    char *at = r->profile;
    bool flat = r->n_layers > PROFILE_MOST;
    for (uint32_t l = 0; !flat && l < r->n_layers; l++) {
        const double cv = layers[(size_t)l * CALIBRATED_N_FIGURES + CALIBRATED_LOAD_CV];
        flat = !(cv >= 0.0005 && cv < 1e4);
        at += flat ? 0 : snprintf(at, DIGITS, "%s%.3f", l ? " " : "", cv);
    }
    if (flat)
        strcpy(r->profile, "flat");
    r->params.profile = r->profile;
    return MOESIM_OK;
}

/* ---- the sample ---- */

static uint32_t at_most(uint64_t n, uint32_t most)
{
    return n < most ? (uint32_t)n : most;
}

/* As long and as many sequences of each domain as the recording has, within limits: few sequences make domains look
 * less alike than they are, in both. */
static void plan_sample(struct fit_trace_result *r, const struct trace *trace, const struct recorded_labels *labels,
                        struct sample_plan *plan)
{
    const struct trace_shape *s = trace_shape(trace);
    const bool loads = s->kind == TRACE_LOADS;
    const uint32_t n_domains = loads ? s->n_steps : labels->n_domains;
    const uint64_t n_sequences = labels->n_sequences ? labels->n_sequences : 1;
    const uint64_t length = loads ? MOST_LENGTH : labels->n_sequences ? s->n_tokens / n_sequences : s->n_tokens;
    r->params.sequence = length ? at_most(length, MOST_LENGTH) : 1;
    r->params.domains = n_domains > 1 && r->is_known[FIT_DOMAIN_EFFECT] ? at_most(n_domains, MOST_DOMAINS) : 1;
    const uint64_t each = loads ? LOAD_SEQUENCES : s->n_tokens / r->params.sequence / r->params.domains;
    plan->sequences_each = each ? at_most(each, MOST_SEQUENCES) : 1;
    const double numbers = (double)plan->sequences_each * r->params.domains * r->params.sequence * r->n_experts;
    const uint32_t n_layers = at_most((uint64_t)(MOST_NUMBERS / numbers), MOST_LAYERS);
    plan->n_experts = r->n_experts;
    plan->top_k = r->top_k;
    plan->n_layers = n_layers > LEAST_LAYERS ? n_layers : LEAST_LAYERS;
}

/* ---- the start ---- */

static double *effect_at(struct effects *effects, uint32_t i)
{
    return (double *)(void *)((char *)effects + fit_fields[i].offset);
}

/* What the recording tells nothing of has no effect. */
static struct effects known_effects(const struct fit_trace_result *r, struct effects e)
{
    for (uint32_t i = 0; i < FIT_N_FREE; i++)
        if (!r->is_known[i])
            *effect_at(&e, i) = i == FIT_DOMAIN_TAIL ? 1 : 0;
    return e;
}

/* The preset that comes nearest to the targets. */
static enum moesim_status find_start(const struct fit_task *task, struct fit_trace_result *r, struct moesim_error *err)
{
    struct effects best = r->params.effects;
    double least = HUGE_VAL, value[CALIBRATED_N_FIGURES];
    for (uint32_t i = 0; i < CALIBRATED_N_PRESETS; i++) {
        r->params.effects = known_effects(r, calibrated_presets[i].effects);
        const enum moesim_status status = sample_take(&r->params, &task->sample, NULL, value, err);
        if (status)
            return status;
        const double miss = fit_miss(r->target, r->n_targets, value);
        if (miss < least) {
            least = miss;
            best = r->params.effects;
        }
    }
    r->params.effects = best;
    return MOESIM_OK;
}

/* ---- all ---- */

static enum moesim_status measure(struct trace *trace, const struct recorded_labels *labels, struct fit_trace_result *r,
                                  struct moesim_error *err)
{
    double mean[CALIBRATED_N_FIGURES];
    double *layers = malloc((size_t)r->n_layers * CALIBRATED_N_FIGURES * sizeof *layers);
    enum moesim_status status = layers ? recorded_figures(trace, labels, layers, mean, err)
                                       : moesim_fail(err, MOESIM_ENOMEM, "no memory for %u layers", r->n_layers);
    if (!status && !(mean[CALIBRATED_LOAD_CV] >= 0))
        status = moesim_fail(err, MOESIM_EIO, "%.300s: no layer has any load", trace_path(trace));
    if (!status) {
        set_targets(r, mean);
        set_known(r, mean);
        status = write_profile(r, layers, err);
    }
    free(layers);
    return status;
}

static enum moesim_status set_types(struct trace *trace, const struct recorded_labels *labels,
                                    struct fit_trace_result *r, struct moesim_error *err)
{
    double same;
    uint32_t n_types;
    if (!r->is_known[FIT_TOKEN_EFFECT])
        return MOESIM_OK;
    const enum moesim_status status = count_types(trace, labels->vocabulary, &same, &n_types, err);
    if (!status) {
        r->params.vocabulary = n_types;
        r->params.zipf = zipf_for(same, n_types);
    }
    return status;
}

/* Wide steps first, since the nearest preset may be far; then again from where that ended. */
static const double strides[ROUNDS] = {3, 1.5, 0.75};

static enum moesim_status search(const struct fit_trace_options *o, struct fit_trace_result *r,
                                 const struct sample_plan *plan, struct moesim_error *err)
{
    struct fit_task task = {.target = r->target,
                            .n_targets = r->n_targets,
                            .sample = *plan,
                            .n_evaluations = o->n_samples / ROUNDS + 1,
                            .progress = o->progress,
                            .context = o->context};
    memcpy(task.free, r->is_known, sizeof task.free);
    enum moesim_status status = find_start(&task, r, err);
    for (uint32_t i = 0; !status && i < ROUNDS; i++) {
        task.stride = strides[i];
        status = fit_effects(&task, &r->params, err);
    }
    if (status && status != MOESIM_ESTOP)
        return status;
    struct sample_plan other = *plan;
    other.seed++;
    other.n_layers = r->n_layers > plan->n_layers ? r->n_layers : plan->n_layers;
    const enum moesim_status sampled = sample_take(&r->params, &other, NULL, r->got, err);
    return sampled ? sampled : status;
}

enum moesim_status fit_trace(struct trace *trace, const struct fit_trace_options *o, struct fit_trace_result *r,
                             struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    struct recorded_labels labels;
    struct sample_plan plan = {.seed = o->seed};
    *r = (struct fit_trace_result){.n_layers = s->n_layers,
                                   .n_experts = s->n_experts,
                                   .top_k = o->top_k ? o->top_k : s->top_k,
                                   .params = {.preset = CALIBRATED_N_PRESETS - 1, .vocabulary = 1, .zipf = 1}};
    if (r->top_k == 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "%.300s holds loads, which do not tell how many experts a token has: "
                           "give --top-k",
                           trace_path(trace));
    if (r->top_k > r->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "--top-k %u: the recording has %u experts", r->top_k, r->n_experts);
    enum moesim_status status = recorded_labels(trace, &labels, err);
    if (!status)
        status = measure(trace, &labels, r, err);
    if (!status)
        status = set_types(trace, &labels, r, err);
    if (status)
        return status;
    plan_sample(r, trace, &labels, &plan);
    return search(o, r, &plan, err);
}

void fit_trace_free(struct fit_trace_result *r)
{
    free(r->profile);
    r->profile = NULL;
}
