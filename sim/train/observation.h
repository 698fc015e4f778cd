/*
 * What validations on the same held-out tokens show of the routing: how it changes from one to the next, what it has in
 * common with the last one, and which experts domains and tokens go to. A token's experts are those it named, served or
 * not.
 */
#ifndef MOESIM_SIM_TRAIN_OBSERVATION_H
#define MOESIM_SIM_TRAIN_OBSERVATION_H

#include <stdint.h>

#include <moesim/batch.h>
#include <moesim/plan.h>

/* Appearances from which on a token id counts for vocabulary specialisation. */
#define MOESIM_SEEN_OFTEN 32

struct moesim_observation_shape {
    uint32_t n_layers, n_experts, n_domains, vocabulary;
    uint32_t n_tokens;      /* of a validation */
    uint32_t n_validations; /* of a run, at most */
};

struct moesim_observation {
    struct moesim_observation_shape shape;
    uint32_t n_words; /* 64-bit words of a set of experts */
    uint32_t n_begun; /* validations so far */
    uint64_t *set;    /* [n_validations][n_layers][n_tokens][n_words] experts of a token */
    /* of the last validation */
    uint64_t *domain_load;   /* [n_layers][n_domains][n_experts] pairs */
    uint32_t *token_load;    /* [n_layers][vocabulary][n_experts] pairs */
    uint64_t *domain_tokens; /* [n_domains] */
    uint32_t *seen;          /* [vocabulary] appearances */
    double *load;            /* [n_experts] scratch */
};

MOESIM_MUST_CHECK enum moesim_status moesim_observation_init(struct moesim_observation *observation,
                                                             const struct moesim_observation_shape *shape,
                                                             struct moesim_arena *arena, struct moesim_error *err);
uint64_t moesim_observation_bytes(const struct moesim_observation_shape *shape);

/* Begins a validation. */
void moesim_observation_begin(struct moesim_observation *observation);

/* Takes one layer's plan of one batch, whose tokens come `first_token` after the validation's first. */
void moesim_observation_add(struct moesim_observation *observation, uint32_t layer, uint32_t first_token,
                            const struct moesim_batch *batch, const struct moesim_plan *plan);

/* Figures of the last validation in one layer; NaN where undefined. */
struct moesim_observed {
    double max_vio;     /* of all its tokens together */
    double fluctuation; /* share of tokens whose experts are not those of the validation before (Dai et al. 2022) */
    double of_domains; /* mean over domains of the favourite expert's share of their tokens (Muennighoff et al. 2024) */
    double of_vocabulary; /* the same over token ids that are seen often */
};
struct moesim_observed moesim_observation_figures(struct moesim_observation *observation, uint32_t layer);

/* mean over tokens of |experts at that validation and at the last| / |experts at the last| (Muennighoff et al. 2024).
 */
double moesim_observation_saturation(const struct moesim_observation *observation, uint32_t validation, uint32_t layer);

/* The ids seen most often in the last validation, falling, lower ids first among equals; returns how many, at most
 * `n`. */
uint32_t moesim_observation_frequent(const struct moesim_observation *observation, uint32_t n, uint32_t *token_id);

#endif
