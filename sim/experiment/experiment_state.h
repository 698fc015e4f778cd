/*
 * The parts of a running experiment, shared by its set-up, its step and its close.
 */
#ifndef MOESIM_SIM_EXPERIMENT_STATE_H
#define MOESIM_SIM_EXPERIMENT_STATE_H

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/plan.h>
#include <moesim/router.h>

#include "sim/cost/cost.h"
#include "sim/cost/carried.h"
#include "sim/cost/memory.h"
#include "sim/experiment/placing.h"
#include "sim/experiment/tally.h"
#include "sim/experiment/trained.h"
#include "sim/experiment/training.h"
#include "sim/gate/gate.h"
#include "sim/layer/layer.h"
#include "sim/study/point.h"

/* One MoE layer: its router instance and what the host keeps for it. */
struct experiment_layer {
    void *router_state;
    float *weights, *memory;
    struct moesim_gate gate;               /* where the workload gives hidden states */
    const float *gate_bias;                /* [n_columns] of a trained model's gate; NULL = none */
    struct moesim_layer experts;           /* mode execute */
    uint64_t *batch_assigned, *batch_kept; /* [n_experts] of the global batch so far */
    double *load, *previous_load;          /* [n_experts] assigned in this and the last step */
    bool router_ready;
};

/* One point's pricing and figures; its routing is shared. */
struct experiment_pricing {
    const struct moesim_point *point;
    struct moesim_placing placing; /* with a cluster */
    struct moesim_cost_work work;
    struct moesim_tally tally;
    struct moesim_memory *memory;   /* [n_devices] of the layers priced in this step */
    struct moesim_memory fullest;   /* the device that ever needed most */
    struct moesim_carried *traffic; /* over the run; NULL when not recorded */
    double layers_s;                /* of the layers priced in this step */
};

struct moesim_experiment {
    struct moesim_arena *arena;
    const struct moesim_point *first; /* the point whose routing stands for all */
    struct moesim_shape shape;
    struct moesim_env env;
    uint32_t n_layers, step, batch_in_global;
    uint32_t next_layer;       /* of this step */
    struct moesim_batch batch; /* of the layer before that */
    uint64_t global_tokens;

    void *workload_state;
    bool workload_ready;
    bool gated;       /* hidden states go through our gate */
    bool made_hidden; /* mode execute on a workload without hidden states */
    float *hidden, *output, *previous_columns;
    uint32_t *device, *group_start;
    uint32_t n_homed; /* tokens that `device` stands for */
    double *mean_assigned, *mean_kept, *gini_scratch;
    void *plan_scratch;
    struct moesim_plan plan;
    struct moesim_survey *survey;
    uint32_t survey_wants;                /* enum moesim_survey_wants */
    struct moesim_survey_result found;    /* in `plan` */
    struct experiment_layer *layer;       /* [n_layers] */
    struct moesim_transformer *trained;   /* that the tokens go through; NULL = none */
    struct experiment_training *training; /* mode train; NULL = routing only */
    struct experiment_pricing *pricing;   /* [n_points] */
    uint32_t n_points;
    struct moesim_outcome *outcome; /* [n_points] while finishing */
    double seconds;
    const char *plan_note; /* the last that a router wrote into its plan; static text */
    uint32_t n_plan_notes; /* layer steps that had one */
};

/* What an instance of the workload is set up for. */
struct moesim_workload_env experiment_workload_env(const struct moesim_experiment *e, enum moesim_part part);

/* What any point's metrics want counted of a plan. */
uint32_t experiment_survey_wants(const struct moesim_experiment *e);

/* Notes the metrics of one routed and surveyed layer that do not depend on the cluster, in every point's tally. */
void experiment_note_routing(struct moesim_experiment *e, uint32_t layer);

/* Before a step: makes the placements that are due and notes what moving the experts costs, on layer 0 for all. */
MOESIM_MUST_CHECK enum moesim_status experiment_place(struct moesim_experiment *e, struct moesim_error *err);

/* Prices one routed layer for every point and notes the result. */
MOESIM_MUST_CHECK enum moesim_status experiment_price(struct moesim_experiment *e, const struct moesim_batch *batch,
                                                      uint32_t layer, struct moesim_error *err);

/* Notes a value in every point's tally. */
void experiment_note(struct moesim_experiment *e, uint32_t metric, uint32_t layer, double value);

#endif
