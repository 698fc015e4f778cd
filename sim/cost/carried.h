/*
 * What the links of a cluster carried over a run, for the traffic of an outcome.
 */
#ifndef MOESIM_SIM_COST_CARRIED_H
#define MOESIM_SIM_COST_CARRIED_H

#include <moesim/outcome.h>

#include "sim/cost/cost.h"

/* Above this many devices ports are left out. */
#define MOESIM_MAX_TRAFFIC_PORTS 4096

/* Copies of dispatch, summed over layers and steps. */
struct moesim_carried {
    struct moesim_hops hops;   /* between devices, or nodes above MOESIM_MAX_TRAFFIC_DEVICES */
    struct moesim_ports *port; /* [n_devices] */
    struct moesim_leaf *leaf;  /* [n_leaves] */
};

MOESIM_MUST_CHECK enum moesim_status moesim_carried_init(struct moesim_carried *carried,
                                                         const struct moesim_cluster *cluster,
                                                         struct moesim_arena *arena, struct moesim_error *err);

/* Adds the layer that was priced last; its work counts hops. */
void moesim_carried_add(struct moesim_carried *carried, const struct moesim_cluster *cluster,
                        const struct moesim_cost_work *work);

/* The bytes of dispatch and combine by link, as rows [*n] from the arena: pairs of ends, then each device's ports, then
 * uplinks where there are several leaf switches. Links that carried nothing are left out. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status
moesim_carried_rows(const struct moesim_carried *carried, const struct moesim_cluster *cluster,
                    const struct moesim_model *model, const struct moesim_cost_options *options,
                    struct moesim_arena *arena, struct moesim_traffic **rows, uint64_t *n, struct moesim_error *err);

#endif
