/*
 * A plan on a cluster, small enough to count by hand.
 */
#ifndef TESTS_SIM_COST_SCENE_H
#define TESTS_SIM_COST_SCENE_H

#include <stdint.h>

#include "sim/cost/cost.h"

struct scene {
    struct moesim_arena *arena;
    struct moesim_cluster cluster;
    struct moesim_model model;
    struct moesim_placement placement;
    struct moesim_batch batch;
    struct moesim_plan plan;
    struct moesim_cost_work work;
    struct moesim_cost_options options; /* of scene_price, but the padding */
    struct moesim_cost cost;
    uint32_t *device, *group_start;
};

/* A cluster of easy rates and a model of easy sizes: 200 bytes a token to the expert, 400 back, 6000 FLOP a pair. */
struct moesim_cluster scene_cluster(uint32_t nodes, uint32_t devices_per_node, uint32_t ep);
struct moesim_model scene_model(void);

/* k of n_experts (at most 256) for each token, without replacement, all alike: [n_tokens][k]. */
void scene_choices(uint32_t seed, uint32_t n_experts, uint32_t n_tokens, uint32_t k, uint32_t *expert);

/* n_tokens tokens on their home devices, one group a device; expert[t][k] with MOESIM_NO_EXPERT for a pair that is not
 * there. The placement is contiguous. */
void scene_init(struct scene *scene, const struct moesim_cluster *cluster, uint32_t n_experts, uint32_t n_tokens,
                uint32_t k, const uint32_t *expert);
void scene_finish(struct scene *scene);

/* Prices the scene; fails the test when that fails. */
void scene_price(struct scene *scene, enum moesim_padding padding, const uint8_t *expert_kind);

/* The traffic of the scene priced last, bytes [n_ends][n_ends] with n_ends devices or nodes; valid until the scene is
 * finished. Fails the test when an end is out of range. */
double *scene_traffic(struct scene *scene, uint32_t n_ends);

#endif
