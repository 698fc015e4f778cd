/*
 * Memory of a device: what it holds of the whole model, and what its tokens need.
 */
#ifndef MOESIM_SIM_MEMORY_H
#define MOESIM_SIM_MEMORY_H

#include <stdint.h>

#include "sim/cost/cost.h"

/* Bytes of one device. Gradients and optimizer state are there with the backward pass only. */
struct moesim_memory {
    double weights, gradients, optimizer;
    double activations; /* of the layers so far: kept for the backward pass, else those of the largest layer */
    double buffers;     /* of the exchanges, for the layer that needs most */
};

static inline double moesim_memory_total(const struct moesim_memory *m)
{
    return m->weights + m->gradients + m->optimizer + m->activations + m->buffers;
}

/* Adds one layer's weights to every device of the cluster, memory[n_devices]. `expert_kind` NULL = all FFN. */
void moesim_memory_add_weights(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                               const struct moesim_model *model, const struct moesim_cost_options *options,
                               uint32_t gate_columns, const uint8_t *expert_kind, struct moesim_memory *memory);

/* Adds one layer's activations and buffers to one device: `tokens` live there, its experts receive `received` tokens
 * and compute `rows`. */
void moesim_memory_add_tokens(const struct moesim_model *model, const struct moesim_cost_options *options,
                              double tokens, double received, double rows, struct moesim_memory *memory);

/* The device that needs most. */
uint32_t moesim_memory_fullest(const struct moesim_memory *memory, uint32_t n_devices);

#endif
