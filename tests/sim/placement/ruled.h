/*
 * A placement rule applied to loads, as a study or `moesim place` would.
 */
#ifndef TESTS_SIM_PLACEMENT_RULED_H
#define TESTS_SIM_PLACEMENT_RULED_H

#include <stdint.h>

#include "sim/placement/placement.h"

struct ruled {
    struct moesim_arena *arena;
    struct moesim_placement *placement; /* [stats.n_layers] */
    struct moesim_error err;
};

/* Places by a SPEC on nodes x devices_per_node devices; opens `ruled` whatever the status. */
enum moesim_status ruled_place(struct ruled *ruled, const char *spec, const struct moesim_placement_stats *stats,
                               uint32_t nodes, uint32_t devices_per_node);
void ruled_close(struct ruled *ruled);

/* The same for one layer's loads; fails the test when that fails, or when the placement is not one: every expert at
 * least once, equal slots on all devices, both views alike. */
void ruled_layer(struct ruled *ruled, const char *spec, const double *load, uint32_t n_experts, uint32_t nodes,
                 uint32_t devices_per_node);

/* Load of the fullest device when replicas share evenly. */
double ruled_most(const struct moesim_placement *placement, const double *load);

#endif
