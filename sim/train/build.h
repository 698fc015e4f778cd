/*
 * The weights of a model: their place in memory, names and first values.
 */
#ifndef MOESIM_SIM_TRAIN_BUILD_H
#define MOESIM_SIM_TRAIN_BUILD_H

#include "sim/train/transformer.h"

/* Tensors of a model, at most. */
uint32_t moesim_transformer_most_tensors(const struct moesim_transformer_config *config);

/* Allocates the weights outside the FFNs, lists all tensors and draws those that gate and layer have not drawn:
 * normal, of standard deviation 1 / sqrt(rows); 0.02 for embeddings; what ends a branch of the residual stream is
 * divided by sqrt(2 n_blocks) (Radford et al. 2019). */
MOESIM_MUST_CHECK enum moesim_status moesim_transformer_weights(struct moesim_transformer *model,
                                                                struct moesim_arena *arena, struct moesim_error *err);

#endif
