/*
 * Synchronisation: the gradients of a training step, summed over the devices that hold a copy of the weights.
 */
#ifndef MOESIM_SIM_SYNC_H
#define MOESIM_SIM_SYNC_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/cost/cost.h"

/* The devices that sum one buffer. */
struct moesim_ring {
    uint32_t n;        /* copies, each on another device */
    uint32_t per_node; /* the fewest of them on a node that has one: as many rings can cross nodes side by side */
    bool crosses;      /* they are on several nodes */
};

/* An all-reduce of `bytes`: ring 2(n - 1)/n bytes in 2(n - 1) steps; double binary tree 2 bytes in 2 ceil(log2 n)
 * steps (NCCL). One byte in per_node crosses nodes. Zero for n = 1. */
struct moesim_all_reduce_load moesim_all_reduce(enum moesim_all_reduce_form form, const struct moesim_ring *ring,
                                                double bytes);

/* Seconds of that by the slower port: steps * latency + bytes / rate. */
double moesim_all_reduce_time(const struct moesim_cluster *cluster, const struct moesim_all_reduce_load *load);

/* Distinct devices of one EP group that hold expert e. */
uint32_t moesim_expert_devices(const struct moesim_placement *placement, uint32_t expert);

/* Seconds to sum one layer's gradients: the dense ones over the data-parallel copies, then each expert's over all its
 * copies, in all EP groups, on the busiest device. 0 where nothing has a second copy. `expert_kind` (NULL = all FFN):
 * the others have no weights. */
double moesim_sync_time(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        const struct moesim_model *model, uint32_t gate_columns, enum moesim_all_reduce_form form,
                        const uint8_t *expert_kind, struct moesim_cost_work *work);

#endif
