/*
 * The placement rules, and what they share.
 */
#ifndef MOESIM_SIM_PLACEMENT_RULES_H
#define MOESIM_SIM_PLACEMENT_RULES_H

#include "sim/placement/placement.h"

extern const struct moesim_placement_rule moesim_place_contiguous;
extern const struct moesim_placement_rule moesim_place_round_robin;
extern const struct moesim_placement_rule moesim_place_random;
extern const struct moesim_placement_rule moesim_place_lpt;
extern const struct moesim_placement_rule moesim_place_eplb;
extern const struct moesim_placement_rule moesim_place_coactivation;
extern const struct moesim_placement_rule moesim_place_affinity;
extern const struct moesim_placement_rule moesim_place_optimal;
extern const struct moesim_placement_rule moesim_place_file;

/* Nodes of an EP group; 1 where it is a part of a node, or its groups are not whole nodes. */
static inline uint32_t moesim_placement_nodes(const struct moesim_placement *placement,
                                              const struct moesim_cluster *cluster)
{
    const uint32_t per_node = cluster->devices_per_node;
    return placement->n_devices % per_node ? 1 : placement->n_devices / per_node;
}

/* Device of the expert in position `i` of E: floor(i * R / E). */
static inline uint32_t moesim_block_owner(const struct moesim_placement *placement, uint32_t i)
{
    return (uint32_t)((uint64_t)i * placement->n_devices / placement->n_experts);
}

#endif
