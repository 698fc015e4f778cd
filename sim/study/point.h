/*
 * A point: one resolved run of a study, with nothing left to decide.
 */
#ifndef MOESIM_SIM_POINT_H
#define MOESIM_SIM_POINT_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/metric.h>
#include <moesim/router.h>
#include <moesim/workload.h>

#include "sim/cluster/cluster.h"
#include "sim/placement/placement.h"
#include "sim/cost/cost.h"
#include "sim/models/model.h"
#include "sim/train/options.h"
#include "sim/study/registry.h"

enum moesim_mode { MOESIM_MODE_ROUTE, MOESIM_MODE_EXECUTE, MOESIM_MODE_TRAIN };
#define MOESIM_MODE_CHOICES "route|execute|train"

/* A model that a device has no room for: told with the run, or no run at all. */
enum moesim_oversize { MOESIM_OVERSIZE_FLAG, MOESIM_OVERSIZE_REFUSE };
#define MOESIM_OVERSIZE_CHOICES "flag|refuse"

/* One resolved parameter by its path ("router.capacity_factor"), for run_param and the plots. */
struct moesim_label {
    const char *path, *value;
    bool is_number;
    double number;
};

/* The trained model that a workload's tokens go through, as its checkpoint tells. */
struct moesim_trained {
    const char *path;
    struct moesim_transformer_config model; /* as it was trained */
    struct moesim_router_choice choice;
    uint32_t n_columns;             /* of its gates, as far as they learned: 0 where its router does not look at them */
    uint32_t n_logits;              /* of them, as its router's shape says */
    uint64_t seed, vocabulary_hash; /* the latter of what its token ids stand for; 0 = not known */
    uint32_t step;
};

/* Everything belongs to the study's arena. */
struct moesim_point {
    uint64_t hash; /* of all that determines the counted and modelled results, seed included */
    uint64_t
        route_hash;   /* of all that determines the routing: points with equal ones are routed once, priced together */
    const char *json; /* every resolved parameter as a JSON object */
    const struct moesim_label *labels;
    uint32_t n_labels;

    uint32_t mode, phase; /* enum moesim_mode, enum moesim_phase */
    uint64_t seed;
    uint32_t steps, micro_batches;
    uint32_t warm_up; /* the first steps, which no figure counts; below steps */

    const struct moesim_router_entry *router;
    const void *router_params;
    const char *router_spec;                      /* canonical: the name and the keys the study set */
    const struct moesim_file_array *router_files; /* what its parameters of type file name */
    uint32_t n_router_files;
    const struct moesim_workload *workload;
    const void *workload_params;
    struct moesim_workload_shape workload_shape;
    const char *workload_spec;
    const struct moesim_trained *trained; /* whose MoE layers see the batches; NULL = there is no such model */
    uint32_t n_tokens;                    /* of a step over all devices */
    struct moesim_model model;            /* layers, experts, top_k, d_model and d_ff are set */
    struct moesim_train_options train;    /* mode train */

    bool has_cluster;
    struct moesim_cluster cluster;
    const char *cluster_spec;
    const struct moesim_placement_rule *placement;
    const void *placement_params;
    const char *placement_spec;
    struct moesim_file_array placement_loads; /* what its `from` names: [E] or [L, E]; values NULL = no file */
    struct moesim_cost_options options;
    uint32_t oversize; /* enum moesim_oversize */

    bool record_expert_load, record_traffic;
    bool record[MOESIM_N_METRICS];  /* metrics whose every step and layer goes into `series` */
    bool measure[MOESIM_N_METRICS]; /* metrics that are computed at all */
};

/* The trained model's sizes for the point's batches, which are whole sequences. */
struct moesim_transformer_config moesim_trained_config(const struct moesim_point *point);

/* How many columns the gate of a router of that shape takes over, from the first on. */
uint32_t moesim_trained_columns(const struct moesim_point *point, const struct moesim_shape *shape);

/* EINVAL where that router needs more. */
MOESIM_MUST_CHECK enum moesim_status moesim_trained_check_columns(const struct moesim_point *point,
                                                                  const struct moesim_shape *shape,
                                                                  struct moesim_error *err);

#endif
