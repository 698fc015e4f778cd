/*
 * Tokens into vectors: a token's column of the embedding [d_model][vocabulary], which is in panels so that a tied head
 * multiplies by it as it is, plus a learned vector of its place in the sequence.
 */
#ifndef MOESIM_SIM_EMBEDDING_H
#define MOESIM_SIM_EMBEDDING_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/layer/products.h"

struct moesim_embedding {
    uint32_t vocabulary, d_model, sequence;
    const struct moesim_products *products;
    float *w, *d_w;               /* [d_model][vocabulary] in panels */
    float *position, *d_position; /* [sequence][d_model]; NULL = none */
};

/* out [n_tokens][d_model]; token ids are below the vocabulary, sequences follow each other. */
void moesim_embedding_forward(const struct moesim_embedding *embedding, const uint32_t *token, uint32_t n_tokens,
                              float *out);

/* From d_out: d_w += (the head comes first) and d_position overwritten or, with `add`, added to. */
void moesim_embedding_backward(const struct moesim_embedding *embedding, const uint32_t *token, uint32_t n_tokens,
                               const float *d_out, bool add);

#endif
