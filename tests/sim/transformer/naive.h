/*
 * The Transformer's layers in double precision, written from their definitions on a tape. Matrices are row-major arrays
 * of nodes.
 */
#ifndef TESTS_SIM_TRANSFORMER_NAIVE_H
#define TESTS_SIM_TRANSFORMER_NAIVE_H

#include "sim/models/model.h"
#include "tests/sim/transformer/tape.h"

/* out [n][n_out] = x [n][n_in] w [n_in][n_out]. */
void naive_linear(struct tape *t, const node *x, const node *w, uint32_t n, uint32_t n_in, uint32_t n_out, node *out);

/* out [n][d] = x / sqrt(mean(x^2) + 1e-6) * gain. */
void naive_norm(struct tape *t, const node *x, const node *gain, uint32_t n, uint32_t d, node *out);

/* Queries and keys of qkv [n_sequences * sequence][3 d] turned in place. */
void naive_rotate(struct tape *t, uint32_t n_sequences, uint32_t sequence, uint32_t d, uint32_t n_heads, node *qkv);

/* out [n_sequences * sequence][d] of qkv [n_sequences * sequence][3 d]. */
void naive_attention(struct tape *t, const node *qkv, uint32_t n_sequences, uint32_t sequence, uint32_t d,
                     uint32_t n_heads, node *out);

/* -ln softmax(logits)[target]. */
node naive_cross_entropy(struct tape *t, const node *logits, uint32_t n, uint32_t target);

/* p [n] = softmax(x); returns ln sum e^x. */
node naive_softmax(struct tape *t, const node *x, uint32_t n, node *p);

/* out [d] of x [d]; w_gate is NULL but for SwiGLU. */
void naive_expert(struct tape *t, enum moesim_activation activation, const node *x, const node *w_in,
                  const node *w_gate, const node *w_out, uint32_t d, uint32_t d_ff, node *out);

#endif
