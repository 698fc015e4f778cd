/*
 * What a study says about training: the keys of its `train:` mapping. Sizes of the MoE layers come from `model:`, the
 * tokens from the workload, batches and their accumulation from `steps:` and `micro_batches:`.
 */
#ifndef MOESIM_SIM_TRAIN_OPTIONS_H
#define MOESIM_SIM_TRAIN_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/param.h>

#include "sim/train/config.h"

struct moesim_train_options {
    /* the model around the MoE layers */
    uint32_t heads, positions; /* enum moesim_positions */
    uint32_t moe_every;        /* 0 = every block is dense */
    bool tied_head, gate_bias;
    /* the optimizer, in optimizer steps: one for every micro_batches batches */
    double learning_rate, final_rate, weight_decay, beta1, beta2, clip;
    uint32_t rate_warm_up;
    /* what is looked at on the way, in batches */
    uint32_t validate_every, validation_batches, checkpoint_every;
    const char *checkpoint;
};

extern const struct moesim_param moesim_train_params[];

#endif
