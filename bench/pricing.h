/*
 * A routed layer of a DeepSeek-V3-sized model (256 experts, 8 a token, nodes of 8 devices) on a cluster, ready to be
 * priced.
 */
#ifndef BENCH_PRICING_H
#define BENCH_PRICING_H

#include "sim/cost/cost.h"

struct pricing {
    struct moesim_arena *arena;
    struct moesim_cluster cluster;
    struct moesim_model model;
    struct moesim_placement placement;
    struct moesim_plan plan;
    struct moesim_batch batch; /* of one EP group */
    struct moesim_cost_work work;
    struct moesim_cost_options options;
    struct moesim_cost cost;
    uint32_t ep, n_groups, tokens_per_device;
    uint32_t *device, group_start[2];
};

/* `ep` devices of each group hold the experts. `leaf` is the oversubscription of the leaf switches' uplinks, 1 = none;
 * with more than one EP group all of them decide alike. Ends the program with a sentence when that fails. */
void pricing_open(struct pricing *p, uint32_t ep, uint32_t n_groups, uint32_t tokens_per_device,
                  enum moesim_dispatch form, double leaf);

/* Prices the layer of all groups, one after the other; `pricing` is a struct pricing. */
void pricing_run(void *pricing);

void pricing_close(struct pricing *p);

#endif
