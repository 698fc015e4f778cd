/*
 * Time and mixture: which tokens of which sequences make up a step. One mechanism for every workload whose tokens come
 * in sequences; it shares the parameters below with each of them.
 *
 * contiguous: sequences one after the other, as prompts or packed training text are. shuffled: single tokens of all
 * sequences. decode: as many running sequences as a step has tokens, each giving its next one; where one ends another
 * begins. serving: sequences arrive, wait, bring their prompt in chunks and then a token a step, as continuous batching
 * does (Yu et al., "Orca", OSDI 2022; chunks: Agrawal et al., "Sarathi-Serve", OSDI 2024); what a step does not use is
 * padding.
 */
#ifndef MOESIM_WORKLOADS_BATCHING_H
#define MOESIM_WORKLOADS_BATCHING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/workload.h>

#define BATCHING_CHOICES "contiguous|shuffled|decode|serving"
enum batching_kind { BATCHING_CONTIGUOUS, BATCHING_SHUFFLED, BATCHING_DECODE, BATCHING_SERVING };

#define ARRIVAL_CHOICES "poisson|steady|bursty"
enum batching_arrival { ARRIVAL_POISSON, ARRIVAL_STEADY, ARRIVAL_BURSTY };

struct batching_params {
    uint32_t batching, arrival; /* the enums above */
    double demand, burst_factor, burst_steps, prompt;
    uint32_t chunk;
};

/* The rows of a workload's schema, for a struct batching_params embedded as `member`. */
#define BATCHING_PARAMS(struct_type, member)                                                                           \
    MOESIM_CHOICE_IN(struct_type, member, batching, "contiguous", BATCHING_CHOICES,                                    \
                     "what shares a step: sequences one after the other; single tokens of all; the next token of as "  \
                     "many running sequences; arriving ones, prompt first, then a token a step"),                      \
        MOESIM_CHOICE_IN(struct_type, member, arrival, "poisson", ARRIVAL_CHOICES,                                     \
                         "serving: how sequences arrive; bursty = Poisson whose rate jumps up and down"),              \
        MOESIM_PARAM_IN(struct_type, member, demand, "0.8", 1e-3, 1e3,                                                 \
                        "serving: tokens that arrive in a step, over those that fit; from 1 on a queue grows"),        \
        MOESIM_PARAM_IN(struct_type, member, burst_factor, "4", 1, 1e3,                                                \
                        "bursty: rate in a burst over the mean rate; between bursts nothing arrives"),                 \
        MOESIM_PARAM_IN(struct_type, member, burst_steps, "16", 1, 1e6, "bursty: mean length of a burst, steps"),      \
        MOESIM_PARAM_IN(struct_type, member, prompt, "0.5", 0, 1, "serving: part of a sequence that is its prompt"),   \
        MOESIM_PARAM_IN(struct_type, member, chunk, "512", 1, 1 << 20,                                                 \
                        "serving: most prompt tokens of one sequence in a step")

/* Where the tokens come from. */
struct batching_source {
    uint32_t n_sequences;  /* 0 = without end */
    const uint64_t *start; /* [n_sequences + 1] first token of each, rising; NULL = all are `length` long */
    uint32_t length;
};

struct batching; /* in the arena */

/* MOESIM_EINVAL where a parameter of serving or of bursty arrival is set without it. */
MOESIM_MUST_CHECK enum moesim_status batching_check(const struct batching_params *params, struct moesim_error *err);

/* `start` is borrowed for the batching's life. */
MOESIM_MUST_CHECK enum moesim_status batching_create(const struct batching_params *params,
                                                     const struct batching_source *source, uint64_t seed,
                                                     uint32_t n_tokens, struct moesim_arena *arena,
                                                     struct batching **batching, struct moesim_error *err);

/* The tokens of a step: a pure function of (seed, step). Valid until the next call. */
struct batching_step {
    const uint64_t *sequence; /* [n_tokens] number of the source's sequence, or of one without end: rising for ever */
    const uint64_t *position; /* [n_tokens] place in it */
    const uint8_t *padding;   /* [n_tokens] 1 = no token here, sequence and position are 0; NULL = none */
};
struct batching_step batching_step(struct batching *batching, uint32_t step);

#endif
