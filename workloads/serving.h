/*
 * A server's queue, step by step: sequences arrive, bring their prompts in chunks, then a token a step each.
 */
#ifndef MOESIM_WORKLOADS_SERVING_H
#define MOESIM_WORKLOADS_SERVING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/random.h>
#include <moesim/status.h>

struct serving_params {
    struct moesim_random random;
    bool steady;              /* the same gap between all arrivals instead of exponential ones */
    double rate;              /* sequences a step, mean */
    double burst_factor;      /* 1 = the rate is always the mean */
    double burst_steps;       /* mean length of a burst */
    double prompt;            /* part of a sequence that is its prompt, at least its first token */
    uint32_t chunk, n_tokens; /* most prompt tokens of a sequence, and tokens of all, in a step */
    /* The sequence that arrives as number `ordinal`, and its length (>= 1). */
    uint64_t (*arriving)(const void *source, uint64_t ordinal, uint64_t *length);
    const void *source;
};

struct serving; /* in the arena */

MOESIM_MUST_CHECK enum moesim_status serving_create(const struct serving_params *params, struct moesim_arena *arena,
                                                    struct serving **serving, struct moesim_error *err);

/* What a step takes: first one token of each sequence past its prompt, then prompts, both in the order of arrival. */
struct serving_tokens {
    uint32_t n;
    const uint64_t *sequence, *position; /* [n] */
};

/* Steps in rising order cost one step each; any other starts again from step 0, where nothing has arrived yet. */
struct serving_tokens serving_step(struct serving *serving, uint32_t step);

#endif
