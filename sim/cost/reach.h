/*
 * What the tokens of one home reach in an EP group of at most 64 devices, where each expert has one replica for them,
 * or they take turns among all.
 */
#ifndef MOESIM_SIM_REACH_H
#define MOESIM_SIM_REACH_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/plan.h>

#include "sim/cost/cost.h"
#include "sim/placement/placement.h"

/* Tokens [begin, end) of one home, which is device `local` of the EP group that starts at `base`. */
struct moesim_reach {
    const struct moesim_plan *plan;
    const struct moesim_placement *placement;
    const uint8_t *expert_kind;
    const uint32_t *node; /* [n_devices] */
    uint32_t ep, base, local, begin, end;
};

/* Whether that is worth a table of all experts, and one can be made. */
bool moesim_reach_fits(const struct moesim_reach *reach);

/* Adds to part->reach, node_reach, sent and touched, and to `rows` [n_replicas], as counting pair by pair would; sets
 * *n_touched. Returns the tokens that are served. */
uint32_t moesim_reach_count(const struct moesim_reach *reach, struct moesim_cost_part *part, uint64_t *rows,
                            uint32_t *n_touched);

#endif
