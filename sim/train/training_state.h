/*
 * The parts of a training run, shared by its steps and its checkpoints.
 */
#ifndef MOESIM_SIM_TRAINING_STATE_H
#define MOESIM_SIM_TRAINING_STATE_H

#include "sim/train/training.h"

struct moesim_training {
    struct moesim_arena *arena;
    struct moesim_training_config config;
    struct moesim_transformer model;
    struct moesim_adamw adamw;
    uint32_t step, micro_batch;
    double loss_sum, aux_sum; /* over the step's micro-batches so far */
    float *token_loss;
    struct moesim_training_layer *layer; /* [n_moe] */
    double *mean_assigned, *mean_kept;   /* [n_experts] over layers */
};

#endif
