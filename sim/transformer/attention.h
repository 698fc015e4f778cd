/*
 * Causal multi-head self-attention (Vaswani et al. 2017) and rotary positions (Su et al. 2021).
 *
 * A task is one head of one sequence: its keys and values are turned into panels once, blocks of queries pass over
 * them. The backward pass makes the probabilities again from the log of the sum of exponents that the forward pass kept
 * (Dao et al. 2022), so that nothing of the square of the sequence is stored.
 */
#ifndef MOESIM_SIM_ATTENTION_H
#define MOESIM_SIM_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/layer/products.h"
#include "sim/transformer/rows.h"

struct moesim_attention {
    uint32_t d_model, n_heads, sequence; /* n_heads divides d_model; tokens of a sequence */
    const struct moesim_products *products;
    const struct moesim_rows *rows;
    uint32_t n_threads;
    float **work;     /* [n_threads] */
    float *cos, *sin; /* [sequence][d_model / n_heads / 2] rotary; NULL = positions are learned */
};

MOESIM_MUST_CHECK enum moesim_status moesim_attention_init(struct moesim_attention *attention, uint32_t d_model,
                                                           uint32_t n_heads, uint32_t sequence, bool rotary,
                                                           const struct moesim_products *products,
                                                           struct moesim_arena *arena, struct moesim_error *err);

/* Bytes of the above. */
uint64_t moesim_attention_bytes(uint32_t d_model, uint32_t n_heads, uint32_t sequence, uint32_t n_threads);

/* qkv [n_sequences * sequence][3 d_model], queries, keys and values side by side, heads side by side in each: queries
 * and keys are turned by their positions; with `back` the other way, which makes gradients of the results gradients of
 * what was given. Nothing where positions are learned. */
void moesim_attention_rotate(const struct moesim_attention *attention, uint32_t n_sequences, bool back, float *qkv);

/* out [n_sequences * sequence][d_model] and log_sum [n_sequences][n_heads][sequence] of (turned) qkv. */
void moesim_attention_forward(const struct moesim_attention *attention, uint32_t n_sequences, const float *qkv,
                              float *log_sum, float *out);

/* d_qkv is overwritten with the gradient of a forward pass, from d_out. */
void moesim_attention_backward(const struct moesim_attention *attention, uint32_t n_sequences, const float *qkv,
                               const float *log_sum, const float *out, const float *d_out, float *d_qkv);

#endif
