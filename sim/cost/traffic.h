/*
 * Where the kept pairs of a plan go: counts by device and port, the part of the cost that looks at every pair.
 */
#ifndef MOESIM_SIM_COST_TRAFFIC_H
#define MOESIM_SIM_COST_TRAFFIC_H

#include <stdint.h>

#include "sim/cost/cost.h"

/* Room for the counts of `n_parts` threads. */
MOESIM_MUST_CHECK enum moesim_status moesim_traffic_init(struct moesim_cost_work *work,
                                                         const struct moesim_cluster *cluster, uint32_t n_parts,
                                                         struct moesim_arena *arena, struct moesim_error *err);

/* Sets all counts to 0. */
void moesim_traffic_begin(struct moesim_cost_work *work);

/* Adds a plan's counts: tokens, received, pairs, ports, hops and rows (kept pairs of each physical expert). Uses the
 * host's threads; integer sums, so the same on any number of them. */
void moesim_traffic_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                        const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        enum moesim_dispatch dispatch, const uint8_t *expert_kind, struct moesim_cost_work *work);

/* Ends the counting: the threads' counts together, and what goes everywhere whatever the routing (all-gather). */
void moesim_traffic_end(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        enum moesim_dispatch dispatch, struct moesim_cost_work *work);

#endif
