/*
 * An experiment: the points of one routing, stepped together. The caller owns the loop:
 * create, step until done, finish, destroy.
 */
#ifndef MOESIM_SIM_EXPERIMENT_H
#define MOESIM_SIM_EXPERIMENT_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/outcome.h>
#include <moesim/status.h>

#include "sim/study/point.h"
#include "sim/train/config.h"

struct moesim_experiment;

/* Sets up workload, gate, router states, layers and one pricing per point. The points must have equal route_hash.
 * `memory_limit_bytes` 0 = none. On failure nothing is left behind. */
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_create(const struct moesim_point *const *points,
                                                              uint32_t n_points, uint64_t memory_limit_bytes,
                                                              struct moesim_experiment **experiment,
                                                              struct moesim_error *err);

uint32_t moesim_experiment_steps_done(const struct moesim_experiment *experiment);
bool moesim_experiment_done(const struct moesim_experiment *experiment);

/* One step of all layers: batch, gate, route, validate, layer (mode execute), cost, metrics; update after each global
 * batch. */
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_step(struct moesim_experiment *experiment,
                                                            struct moesim_error *err);

/* What the devices did in the layer that was priced last, for a point with a cluster; changes with the next step. */
const struct moesim_cost_work *moesim_experiment_work(const struct moesim_experiment *experiment, uint32_t point);

/* The same one layer at a time, for callers that look at the decisions: what they were stays valid until the next
 * layer. */
struct moesim_routed {
    const struct moesim_batch *batch;
    const struct moesim_plan *plan;
};
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_step_layer(struct moesim_experiment *experiment,
                                                                  struct moesim_routed *routed,
                                                                  struct moesim_error *err);

/* Keeps a training that will go on: the next experiment of the point begins there, with the same bits. Only between two
 * updates of the model, as can_save tells; a run whose placements follow its loads, or that records traffic, is not
 * kept. */
bool moesim_experiment_can_save(const struct moesim_experiment *experiment);
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_save(struct moesim_experiment *experiment,
                                                            struct moesim_error *err);
/* Where the point's unfinished training is, or would be; true when it is there. */
bool moesim_experiment_unfinished(const struct moesim_point *point, char *path, size_t size);

/* Closes the metrics; outcomes [n_points] live until destroy. */
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_finish(struct moesim_experiment *experiment,
                                                              struct moesim_outcome *outcomes,
                                                              struct moesim_error *err);

void moesim_experiment_destroy(struct moesim_experiment *experiment);

/* What the language model of a point in mode train comes to. A plugin's router is taken to be as large as top-k's. */
MOESIM_MUST_CHECK enum moesim_status moesim_experiment_count(const struct moesim_point *point,
                                                             struct moesim_transformer_counts *counts,
                                                             struct moesim_error *err);

/* Bytes an experiment of this point will allocate, for --dry-run; an upper estimate. */
uint64_t moesim_experiment_memory(const struct moesim_point *point);

/* One outcome as `size` bytes (malloc'd, NULL without memory) and back (into an arena), for worker processes of the
 * same program. Finite doubles keep their bits, others become NaN. MOESIM_EBROKEN for bytes that are no outcome. */
char *moesim_outcome_pack(const struct moesim_outcome *outcome, size_t *size);
MOESIM_MUST_CHECK enum moesim_status moesim_outcome_unpack(const char *bytes, size_t size, struct moesim_arena *arena,
                                                           struct moesim_outcome *outcome, struct moesim_error *err);

#endif
