/*
 * The MoE layer for real: dispatch, expert FFN, combine on this CPU, forward and backward.
 */
#ifndef MOESIM_SIM_LAYER_H
#define MOESIM_SIM_LAYER_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/plan.h>
#include <moesim/status.h>

#include "sim/layer/products.h"
#include "sim/models/model.h"

/* Weights are float32, for each of n_experts + n_shared experts w_in [d_model][d_ff] (SwiGLU: also w_gate of the same
 * shape) and w_out [d_ff][d_model], each in panels; activation(x w_in) w_out, or (silu(x w_gate) * (x w_in)) w_out.
 * GELU is the tanh form. The arrays and their gradients are flat, n_experts + n_shared times moesim_layer_matrix_size
 * floats; the columns that fill a panel up are zero in both and stay so, so that an optimizer may walk through them
 * from end to end. moesim_layer_place finds an element, for what must not depend on the panels' width. */
struct moesim_layer {
    uint32_t n_experts, n_shared, d_model, d_ff, activation, max_tokens;
    const uint8_t *expert_kind; /* [n_experts] or NULL */
    const struct moesim_products *products;
    float *w_in, *w_gate, *w_out;
    float *d_in, *d_gate, *d_out; /* gradients in the weights' layout; NULL unless the backward pass was asked for */
    bool adds; /* output and d_hidden are added to; false = they begin with the residual path, hidden and d_output */
    struct moesim_expert_view view;
    struct moesim_layer_scratch *scratch;
};

enum moesim_layer_matrix { MOESIM_W_IN, MOESIM_W_GATE, MOESIM_W_OUT };

/* Seeded normal weights of standard deviation 1/sqrt(fan-in), the same numbers with any products; scratch for plans of
 * up to max_pairs pairs, with `backward` also what the backward pass needs. `expert_kind` [n_experts] (NULL = all FFN)
 * is borrowed for the layer's life; EINVAL for constant experts, which the layer does not run. */
MOESIM_MUST_CHECK enum moesim_status moesim_layer_init(struct moesim_layer *layer, uint64_t seed, uint32_t index,
                                                       const struct moesim_model *model, uint32_t n_experts,
                                                       const uint8_t *expert_kind, uint32_t max_tokens,
                                                       uint64_t max_pairs, bool backward,
                                                       const struct moesim_products *products,
                                                       struct moesim_arena *arena, struct moesim_error *err);

/* output [n_tokens][d_model] = hidden + sum over kept pairs, by rank, of weight * expert(hidden) + the shared experts;
 * a token without any passes through the residual unchanged. Zero experts add nothing, copy experts weight * hidden.
 * Same bits on any number of threads; allocates nothing. */
void moesim_layer_forward(struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                          float *output);

/* After moesim_layer_forward of the same plan and hidden states, d_output [n_tokens][d_model] = d loss / d output:
 * fills d_hidden [n_tokens][d_model], d_weight [n_pairs] (0 for pairs that were not kept), and the layer's d_in, d_gate
 * and d_out, to which it adds if `add`. Same bits on any number of threads; allocates nothing. */
void moesim_layer_backward(struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                           const float *d_output, bool add, float *d_hidden, float *d_weight);

/* Floats of one matrix in the weights' arrays, and where element (row, column) of an expert's matrix is in its array.
 */
size_t moesim_layer_matrix_size(const struct moesim_layer *layer, enum moesim_layer_matrix matrix);
size_t moesim_layer_place(const struct moesim_layer *layer, enum moesim_layer_matrix matrix, uint32_t expert,
                          uint32_t row, uint32_t column);

/* Bytes of weights and scratch of a layer, for estimates. */
uint64_t moesim_layer_bytes(const struct moesim_model *model, uint32_t n_experts, uint32_t max_tokens,
                            uint64_t max_pairs);

#endif
