/*
 * Training: a model, its optimizer and its routers, stepped together. The caller owns the loop and the text: create,
 * step with one micro-batch after the other, evaluate as often as it likes, destroy.
 *
 * Micro-batches go forward and backward through gate, router, layer and loss; after `micro_batches` of them the
 * gradient is clipped and the optimizer and then every MoE layer's router are updated. Everything is a function of
 * (config, samples): same bits on any number of threads, and after a checkpoint.
 */
#ifndef MOESIM_SIM_TRAINING_H
#define MOESIM_SIM_TRAINING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/status.h>

#include "sim/train/config.h"
#include "sim/train/optimizer.h"
#include "sim/train/transformer.h"

struct moesim_training_config {
    struct moesim_transformer_config model;
    struct moesim_router_choice choice; /* what it refers to is borrowed while the training lives */
    struct moesim_optimizer_config optimizer;
    uint32_t micro_batches; /* of a step */
    uint64_t seed;
    uint64_t vocabulary_hash; /* of what its token ids stand for; 0 = not known. Only checkpoints keep it */
};

/* What the last pass left of one MoE layer; borrowed until the next call. */
struct moesim_training_layer {
    uint32_t block;
    const struct moesim_batch *batch; /* its columns are the gate's, before the router's noise */
    const struct moesim_plan *plan;
    double aux_loss;                               /* coefficients applied */
    const uint64_t *assigned, *kept;               /* [n_experts] of this micro-batch */
    const uint64_t *global_assigned, *global_kept; /* [n_experts] of the step's micro-batches so far */
    double gate_norm;                              /* of the gradient of gate and router; when `updated` */
};

struct moesim_training_figures {
    uint32_t step, micro_batch; /* of this pass; the step counts updates */
    uint32_t n_tokens, n_targets;
    double loss;             /* mean over the targets, in nats */
    double aux_loss;         /* sum over the layers */
    const float *token_loss; /* [n_tokens] in nats, 0 without a target */
    uint32_t n_layers;
    const struct moesim_training_layer *layer; /* [n_layers] the MoE layers */

    bool updated;                    /* this micro-batch ended a step, of which: */
    double step_loss, step_aux_loss; /* means over micro-batches */
    double gradient_norm, gate_norm; /* before clipping: of everything, of gates and routers */
    double learning_rate;
};

struct moesim_training;

/* `memory_limit_bytes` 0 = none. On failure nothing is left behind. */
MOESIM_MUST_CHECK enum moesim_status moesim_training_create(const struct moesim_training_config *config,
                                                            uint64_t memory_limit_bytes,
                                                            struct moesim_training **training,
                                                            struct moesim_error *err);
void moesim_training_destroy(struct moesim_training *training);

/* One micro-batch of training. MOESIM_EDIVERGED, naming step and layer, when a loss or gradient is no finite number:
 * the weights are then those of the step before. */
MOESIM_MUST_CHECK enum moesim_status moesim_training_step(struct moesim_training *training,
                                                          const struct moesim_sequences *sample,
                                                          struct moesim_training_figures *figures,
                                                          struct moesim_error *err);

/* One micro-batch in phase eval, between two steps: nothing is learned or counted. */
MOESIM_MUST_CHECK enum moesim_status moesim_training_evaluate(struct moesim_training *training,
                                                              const struct moesim_sequences *sample,
                                                              struct moesim_training_figures *figures,
                                                              struct moesim_error *err);

/* Steps that were done, and whether all were. */
uint32_t moesim_training_steps_done(const struct moesim_training *training);
bool moesim_training_done(const struct moesim_training *training);

/* The model as it stands. */
const struct moesim_transformer *moesim_training_model(const struct moesim_training *training);

/* What the run will take, before it is created. */
MOESIM_MUST_CHECK enum moesim_status moesim_training_count(const struct moesim_training_config *config,
                                                           struct moesim_transformer_counts *counts,
                                                           struct moesim_error *err);

#endif
