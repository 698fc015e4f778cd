/*
 * The gate: columns = (hidden * jitter) W, by our own fixed-order kernel so that counted metrics have the same bits on
 * any number of threads.
 */
#ifndef MOESIM_SIM_GATE_H
#define MOESIM_SIM_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/random.h>
#include <moesim/status.h>

struct moesim_gate {
    uint32_t d_model, n_columns, stride; /* stride: n_columns rounded up to a multiple of 8 */
    float *weight;                       /* [d_model][stride] */
    float *columns;                      /* [max_tokens][stride] the last result */
    float *turned;                       /* [n_columns][d_model up to a multiple of 8] for the backward pass, or NULL */
};

/* Seeded normal weights of standard deviation logit_std / sqrt(d_model), so that hidden states of unit mean square give
 * logits of logit_std; the first n_experts columns do not depend on n_columns. */
MOESIM_MUST_CHECK enum moesim_status moesim_gate_init(struct moesim_gate *gate, uint64_t seed, uint32_t layer,
                                                      uint32_t d_model, uint32_t n_experts, uint32_t n_columns,
                                                      uint32_t max_tokens, double logit_std, struct moesim_arena *arena,
                                                      struct moesim_error *err);

/* gate->columns [n_tokens][stride] = hidden [n_tokens][d_model] times the weights; with jitter > 0 each element of the
 * input is first multiplied by U(1 - jitter, 1 + jitter) drawn from `random`. */
void moesim_gate_forward(struct moesim_gate *gate, const float *hidden, uint32_t n_tokens, float jitter,
                         const struct moesim_random *random);

/* Adds bias [n_columns] to each row of the last result. */
void moesim_gate_add_bias(struct moesim_gate *gate, const float *bias, uint32_t n_tokens);

/* Room for moesim_gate_backward. */
MOESIM_MUST_CHECK enum moesim_status moesim_gate_init_backward(struct moesim_gate *gate, struct moesim_arena *arena,
                                                               struct moesim_error *err);

/* From d_columns [n_tokens][stride] = d loss / d columns of a forward pass with the same input: d_weight
 * [d_model][stride] is overwritten or, with `add`, added to; to d_hidden [n_tokens][d_model], unless NULL, the gradient
 * by the input is added. Same bits on any number of threads and with any vectors; allocates nothing. */
void moesim_gate_backward(struct moesim_gate *gate, const float *hidden, uint32_t n_tokens, float jitter,
                          const struct moesim_random *random, const float *d_columns, bool add, float *d_weight,
                          float *d_hidden);

#endif
