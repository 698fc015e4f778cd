/*
 * Tokens through a trained model: what its MoE layers see is what the routers of a study route.
 *
 * A step's tokens go through the whole model, in which its own router chooses; so all routers of a study see the same
 * hidden states. They route by the model's gates.
 */
#ifndef MOESIM_SIM_EXPERIMENT_TRAINED_H
#define MOESIM_SIM_EXPERIMENT_TRAINED_H

#include <stdint.h>

#include <moesim/batch.h>
#include <moesim/status.h>

#include "sim/study/point.h"

struct moesim_experiment;

/* Bytes of the point's trained model and its pass; an upper estimate. 0 where there is none. */
uint64_t experiment_trained_bytes(const struct moesim_point *point);

/* A hash of what the workload's token ids stand for; 0 where it does not tell. */
uint64_t experiment_vocabulary_hash(const struct moesim_experiment *e);

/* Reads the point's checkpoint, if it names one. EINVAL where its token ids stand for other words than the workload's.
 */
MOESIM_MUST_CHECK enum moesim_status experiment_trained_create(struct moesim_experiment *e, struct moesim_error *err);
void experiment_trained_destroy(struct moesim_experiment *e);

/* A layer that was just set up takes over the model's gate and, where its router is the model's own, what that learned
 * and remembers. */
MOESIM_MUST_CHECK enum moesim_status experiment_trained_layer(struct moesim_experiment *e, uint32_t layer,
                                                              struct moesim_error *err);

/* Fills in the hidden states of a batch of tokens; on layer 0 they go through the model. */
MOESIM_MUST_CHECK enum moesim_status experiment_trained_batch(struct moesim_experiment *e, struct moesim_batch *batch,
                                                              struct moesim_error *err);

#endif
