#include "sim/train/observation.h"

#include <math.h>
#include <string.h>

#include <moesim/metric.h>

static uint32_t words_of(const struct moesim_observation_shape *s)
{
    return (s->n_experts + 63) / 64;
}

static uint64_t n_words_of(const struct moesim_observation_shape *s)
{
    return (uint64_t)s->n_validations * s->n_layers * s->n_tokens * words_of(s);
}

uint64_t moesim_observation_bytes(const struct moesim_observation_shape *s)
{
    const uint64_t loads = (uint64_t)s->n_layers * s->n_experts;
    return n_words_of(s) * sizeof(uint64_t) + loads * s->n_domains * sizeof(uint64_t) +
           loads * s->vocabulary * sizeof(uint32_t) + s->n_domains * sizeof(uint64_t) +
           s->vocabulary * sizeof(uint32_t) + s->n_experts * sizeof(double);
}

enum moesim_status moesim_observation_init(struct moesim_observation *o, const struct moesim_observation_shape *shape,
                                           struct moesim_arena *arena, struct moesim_error *err)
{
    const uint64_t loads = (uint64_t)shape->n_layers * shape->n_experts;
    *o = (struct moesim_observation){.shape = *shape, .n_words = words_of(shape)};
    o->set = moesim_alloc(arena, n_words_of(shape), sizeof *o->set);
    o->domain_load = moesim_alloc(arena, loads * shape->n_domains, sizeof *o->domain_load);
    o->token_load = moesim_alloc(arena, loads * shape->vocabulary, sizeof *o->token_load);
    o->domain_tokens = moesim_alloc(arena, shape->n_domains, sizeof *o->domain_tokens);
    o->seen = moesim_alloc(arena, shape->vocabulary, sizeof *o->seen);
    o->load = moesim_alloc(arena, shape->n_experts, sizeof *o->load);
    if (o->set && o->domain_load && o->token_load && o->domain_tokens && o->seen && o->load)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_ENOMEM,
                       "no memory for the routing of %u validations of %u tokens; validate less often",
                       shape->n_validations, shape->n_tokens);
}

void moesim_observation_begin(struct moesim_observation *o)
{
    const struct moesim_observation_shape *s = &o->shape;
    const uint64_t loads = (uint64_t)s->n_layers * s->n_experts;
    o->n_begun++;
    memset(o->domain_load, 0, loads * s->n_domains * sizeof *o->domain_load);
    memset(o->token_load, 0, loads * s->vocabulary * sizeof *o->token_load);
    memset(o->domain_tokens, 0, s->n_domains * sizeof *o->domain_tokens);
    memset(o->seen, 0, s->vocabulary * sizeof *o->seen);
}

/* [n_tokens][n_words] of one validation's layer. */
static uint64_t *sets(const struct moesim_observation *o, uint32_t validation, uint32_t layer)
{
    return o->set + ((uint64_t)validation * o->shape.n_layers + layer) * o->shape.n_tokens * o->n_words;
}

void moesim_observation_add(struct moesim_observation *o, uint32_t layer, uint32_t first_token,
                            const struct moesim_batch *batch, const struct moesim_plan *plan)
{
    const struct moesim_observation_shape *s = &o->shape;
    uint64_t *set = sets(o, o->n_begun - 1, layer) + (size_t)first_token * o->n_words;
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        const uint32_t domain = batch->domain ? batch->domain[t] : 0, id = batch->token_id[t];
        uint64_t *by_domain = o->domain_load + ((size_t)layer * s->n_domains + domain) * s->n_experts;
        uint32_t *by_token = o->token_load + ((size_t)layer * s->vocabulary + id) * s->n_experts;
        if (layer == 0) {
            o->domain_tokens[domain]++;
            o->seen[id]++;
        }
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const uint32_t e = plan->expert[i];
            if (e >= s->n_experts) /* a bad row's */
                continue;
            set[(size_t)t * o->n_words + e / 64] |= UINT64_C(1) << e % 64;
            by_domain[e]++;
            by_token[e]++;
        }
    }
}

/* ---- figures ---- */

static double max_vio(struct moesim_observation *o, uint32_t layer)
{
    const struct moesim_observation_shape *s = &o->shape;
    memset(o->load, 0, s->n_experts * sizeof *o->load);
    for (uint32_t d = 0; d < s->n_domains; d++)
        for (uint32_t e = 0; e < s->n_experts; e++)
            o->load[e] += (double)o->domain_load[((size_t)layer * s->n_domains + d) * s->n_experts + e];
    return moesim_max_vio(o->load, s->n_experts);
}

static double fluctuation(const struct moesim_observation *o, uint32_t layer)
{
    if (o->n_begun < 2)
        return NAN;
    const uint64_t *now = sets(o, o->n_begun - 1, layer), *before = sets(o, o->n_begun - 2, layer);
    const size_t bytes = o->n_words * sizeof *now;
    uint32_t n = 0;
    for (uint32_t t = 0; t < o->shape.n_tokens; t++)
        n += memcmp(now + (size_t)t * o->n_words, before + (size_t)t * o->n_words, bytes) != 0;
    return (double)n / o->shape.n_tokens;
}

static double of_domains(const struct moesim_observation *o, uint32_t layer)
{
    const struct moesim_observation_shape *s = &o->shape;
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t d = 0; d < s->n_domains; d++) {
        const uint64_t *load = o->domain_load + ((size_t)layer * s->n_domains + d) * s->n_experts;
        uint64_t most = 0;
        for (uint32_t e = 0; e < s->n_experts; e++)
            most = load[e] > most ? load[e] : most;
        sum += o->domain_tokens[d] ? (double)most / (double)o->domain_tokens[d] : 0;
        n += o->domain_tokens[d] > 0;
    }
    return n ? sum / n : (double)NAN;
}

static double of_vocabulary(const struct moesim_observation *o, uint32_t layer)
{
    const struct moesim_observation_shape *s = &o->shape;
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t id = 0; id < s->vocabulary; id++) {
        const uint32_t *load = o->token_load + ((size_t)layer * s->vocabulary + id) * s->n_experts;
        uint32_t most = 0;
        if (o->seen[id] < MOESIM_SEEN_OFTEN)
            continue;
        for (uint32_t e = 0; e < s->n_experts; e++)
            most = load[e] > most ? load[e] : most;
        sum += (double)most / o->seen[id];
        n++;
    }
    return n ? sum / n : (double)NAN;
}

struct moesim_observed moesim_observation_figures(struct moesim_observation *o, uint32_t layer)
{
    return (struct moesim_observed){.max_vio = max_vio(o, layer),
                                    .fluctuation = fluctuation(o, layer),
                                    .of_domains = of_domains(o, layer),
                                    .of_vocabulary = of_vocabulary(o, layer)};
}

double moesim_observation_saturation(const struct moesim_observation *o, uint32_t validation, uint32_t layer)
{
    const uint64_t *then = sets(o, validation, layer), *end = sets(o, o->n_begun - 1, layer);
    double sum = 0;
    uint32_t n = 0;
    for (size_t t = 0; t < o->shape.n_tokens; t++) {
        uint32_t both = 0, all = 0;
        for (size_t w = t * o->n_words; w < (t + 1) * o->n_words; w++) {
            both += (uint32_t)__builtin_popcountll(then[w] & end[w]);
            all += (uint32_t)__builtin_popcountll(end[w]);
        }
        sum += all ? (double)both / all : 0;
        n += all > 0;
    }
    return n ? sum / n : (double)NAN;
}

uint32_t moesim_observation_frequent(const struct moesim_observation *o, uint32_t n, uint32_t *token_id)
{
    uint32_t found = 0;
    for (uint32_t id = 0; id < o->shape.vocabulary; id++) {
        uint32_t at = found < n ? found : n;
        if (!o->seen[id])
            continue;
        while (at > 0 && o->seen[token_id[at - 1]] < o->seen[id])
            at--;
        if (at == n)
            continue;
        found += found < n;
        memmove(token_id + at + 1, token_id + at, (found - 1 - at) * sizeof *token_id);
        token_id[at] = id;
    }
    return found;
}
