/*
 * The placement rules, and what they share.
 */
#ifndef MOESIM_SIM_PLACEMENT_RULES_H
#define MOESIM_SIM_PLACEMENT_RULES_H

#include "sim/placement/placement.h"

extern const struct moesim_placement_rule moesim_place_contiguous;
extern const struct moesim_placement_rule moesim_place_round_robin;
extern const struct moesim_placement_rule moesim_place_random;

/* Device of the expert in position `i` of E: floor(i * R / E). */
static inline uint32_t moesim_block_owner(const struct moesim_placement *placement, uint32_t i)
{
    return (uint32_t)((uint64_t)i * placement->n_devices / placement->n_experts);
}

#endif
