/*
 * A layer with a random plan to test, and the naive layer in double precision, written from the definition.
 */
#ifndef TESTS_SIM_LAYER_BED_H
#define TESTS_SIM_LAYER_BED_H

#include "sim/layer/layer.h"

struct shape {
    uint32_t d_model, d_ff, n_experts, shared, n_tokens, k;
    bool kinds; /* experts are FFN, zero and copy by turns */
};

struct bed {
    struct moesim_arena *arena;
    struct moesim_model model;
    struct moesim_layer layer;
    struct moesim_plan plan;
    uint8_t *kind;
    uint32_t *group_start;
    float *hidden, *output, *d_output, *d_hidden, *d_weight;
};

/* What the naive layer makes of a bed. */
struct naive {
    double *output, *d_hidden; /* [n_tokens][d_model] */
    double *d_weight;          /* [n_pairs] */
    double *d[3];              /* by matrix, row-major, experts one after the other */
};

/* A third of the tokens begins with expert 0, a quarter of the pairs is refused. */
void bed_init(struct bed *b, uint32_t seed, enum moesim_activation activation, const struct shape *shape,
              const struct moesim_products *products);
void bed_finish(struct bed *b);

void naive_init(struct naive *naive, const struct bed *b);

/* Largest distance of a row of n from the naive one, relative to the naive one's norm. */
double worst_row(const float *rows, const double *naive, uint32_t n_rows, uint32_t n);

/* The same of all experts' gradients of one matrix, by expert. */
double worst_gradient(const struct bed *b, const struct naive *naive, enum moesim_layer_matrix matrix);

#endif
