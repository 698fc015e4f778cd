/*
 * Mode train: a step's tokens go through the language model, whose MoE layers hand their batches and plans to the
 * metrics and the cost; validations on held-out text in between.
 */
#ifndef MOESIM_SIM_EXPERIMENT_TRAINING_H
#define MOESIM_SIM_EXPERIMENT_TRAINING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/outcome.h>

#include "sim/study/point.h"
#include "sim/train/observation.h"
#include "sim/train/training.h"

struct moesim_experiment;

struct experiment_training {
    struct moesim_training_config config;
    struct moesim_training *engine;
    struct moesim_training_figures figures; /* of the last batch */
    double flop_outside;                    /* of a token, forward, outside the routed experts */
    double flop_dense;                      /* the same outside the MoE layers */

    uint32_t *target;   /* [n_tokens] */
    double loss_sum;    /* nats since the last validation, over */
    uint64_t n_targets; /* so many tokens */
    void *held_out;     /* state of the workload that validates */
    bool held_out_ready;
    uint32_t n_validations, most_validations; /* so far, of a run */
    uint32_t *validated_after;                /* [most_validations] the step each came after */
    double *bits_per_byte;                    /* [most_validations][n_domains] */
    uint64_t *predicted;                      /* [most_validations][n_domains] tokens; 0 = none of the domain */
    double *nats;                             /* [n_domains] of one validation */
    struct moesim_observation observation;
};

/* What a point asks the engine to train. `n_devices` are the cluster's, 1 without. */
struct moesim_training_config experiment_training_config(const struct moesim_point *point, uint32_t n_devices);

/* Bytes of the model's training and of its validations; an upper estimate. */
uint64_t experiment_training_bytes(const struct moesim_point *point);

/* Sets the model, its optimizer and the held-out text up; the workload of training is the experiment's own. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_create(struct moesim_experiment *e, struct moesim_error *err);
void experiment_training_destroy(struct moesim_experiment *e);

/* One batch through model and optimizer. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_batch(struct moesim_experiment *e, struct moesim_error *err);

/* Batch and plan of one MoE layer of it become the experiment's; false where the model has no such layer. */
bool experiment_training_layer(struct moesim_experiment *e, uint32_t layer);

/* After the last layer: the figures of the whole model, and a validation when one is due. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_end(struct moesim_experiment *e, struct moesim_error *err);

/* The batch as the model takes it: every token predicts the next one of its sequence. Valid until the next call. */
struct moesim_sequences experiment_training_sequences(struct moesim_experiment *e, const struct moesim_batch *batch);

/* The model on the held-out text as it stands, noted in this step. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_validate(struct moesim_experiment *e,
                                                                  struct moesim_error *err);

/* Goes on from the point's unfinished training, where there is one. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_resume(struct moesim_experiment *e, struct moesim_error *err);

/* After a step: the checkpoints that are due. */
MOESIM_MUST_CHECK enum moesim_status experiment_training_keep(struct moesim_experiment *e, struct moesim_error *err);

/* The sentence about a training that diverged says where its last good model is: the one that it has, which is saved,
 * or the last that was kept. */
void experiment_training_diverged(struct moesim_experiment *e, bool model_is_good, struct moesim_error *err);

/* Once at the end: figures that look back from the last validation; then, for each point, what validations told of
 * domains and tokens. */
void experiment_training_close(struct moesim_experiment *e);
MOESIM_MUST_CHECK enum moesim_status
experiment_training_outcome(struct moesim_experiment *e, struct moesim_outcome *outcome, struct moesim_error *err);

#endif
