/*
 * AdamW over all tensors of a model (Loshchilov and Hutter 2019), with the norm of the whole gradient clipped and a
 * learning rate that rises linearly and falls as a cosine. Same bits on any number of threads.
 */
#ifndef MOESIM_SIM_TRAIN_OPTIMIZER_H
#define MOESIM_SIM_TRAIN_OPTIMIZER_H

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/train/tensor.h"
#include "sim/transformer/rows.h"

struct moesim_optimizer_config {
    double learning_rate, min_learning_rate; /* at its highest, and at the end */
    uint32_t warm_up, steps;                 /* steps until the highest, and in all */
    double beta1, beta2, epsilon;
    double weight_decay; /* decoupled: a step takes learning_rate * weight_decay of a weight */
    double clip;         /* the largest norm of the gradient; 0 = no limit */
};

struct moesim_adamw {
    struct moesim_optimizer_config config;
    const struct moesim_rows *rows;
    const struct moesim_tensor *tensor; /* [n_tensors] */
    uint32_t n_tensors;
    float **first, **second; /* [n_tensors] moments, in the layout of the tensor */
    double *square;          /* [n_tensors] of the gradient */
    struct moesim_run *run;  /* [n_runs] pieces of tensors that one task takes */
    uint32_t n_runs;
    double *run_square; /* [n_runs] */
};

MOESIM_MUST_CHECK enum moesim_status moesim_adamw_init(struct moesim_adamw *adamw,
                                                       const struct moesim_optimizer_config *config,
                                                       const struct moesim_tensor *tensor, uint32_t n_tensors,
                                                       struct moesim_arena *arena, struct moesim_error *err);

/* The learning rate of step `step`, from 0: linear up to warm_up, then
 * min + (max - min) (1 + cos(pi progress)) / 2. */
double moesim_learning_rate(const struct moesim_optimizer_config *config, uint32_t step);

/* Norms of the gradient: of all tensors, and of those of gates and routers; `square` by tensor is left behind. */
struct moesim_gradient_norm {
    double all, gates;
};
struct moesim_gradient_norm moesim_gradient_norm(struct moesim_adamw *adamw);

/* Step `step`, from 0, with a gradient of that norm. */
void moesim_adamw_step(struct moesim_adamw *adamw, uint32_t step, double norm);

#endif
