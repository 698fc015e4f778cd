/*
 * Where the kept pairs of a plan go: counts by device and port, the part of the cost that looks at every pair.
 */
#ifndef MOESIM_SIM_COST_TRAFFIC_H
#define MOESIM_SIM_COST_TRAFFIC_H

#include <stdint.h>

#include "sim/cost/cost.h"

/* Sums over tokens with an FFN expert. */
struct moesim_fanout {
    uint64_t tokens, devices, nodes;
};

/* Fills work's counts: tokens, received, pairs, node_pairs, ports, rows (kept pairs of each physical expert) and, in
 * copies of a token, traffic in the direction of dispatch. */
void moesim_traffic_count(const struct moesim_plan *plan, const struct moesim_batch *batch,
                          const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                          const uint8_t *expert_kind, struct moesim_cost_work *work, struct moesim_fanout *fanout);

/* Seconds of an all-to-all by the port bound: max over ports of bytes / rate + latency, 0 when nothing moves. */
double moesim_traffic_time(const struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                           double token_bytes);

#endif
