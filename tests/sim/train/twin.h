/*
 * The whole model in double precision on a tape, given the model's weights and the experts that its routers chose: what
 * is chosen carries no gradient, the weights of the choices and the auxiliary losses do.
 */
#ifndef TESTS_SIM_TRAIN_TWIN_H
#define TESTS_SIM_TRAIN_TWIN_H

#include <moesim/kernels.h>

#include "sim/train/transformer.h"
#include "tests/sim/transformer/tape.h"

/* How the router under test makes weights of logits, and its losses. */
struct twin_router {
    enum moesim_score score;
    bool is_normed; /* weights are divided by their sum over a token's choices */
    double scale;
    double aux_coef, z_coef; /* of the Switch loss before the drop, and the z-loss */
    bool is_soft;            /* the rest is not used: tokens of the batch are mixed into slots */
};

struct twin {
    const struct moesim_transformer *model;
    struct twin_router router;
    struct tape tape;
    node **leaf; /* [n_tensors] row-major elements, parts one after the other */
    node loss;   /* loss_scale * sum of token losses + aux_scale * auxiliary losses */
    double token_loss, aux_loss;

    /* one element that is moved, for central differences */
    uint32_t moved_tensor;
    size_t moved_element;
    double by;
};

void twin_init(struct twin *twin, const struct moesim_transformer *model, const struct twin_router *router);
void twin_finish(struct twin *twin);

/* Runs the forward pass anew with the plans that the model holds. */
void twin_run(struct twin *twin, const struct moesim_sequences *sample, double loss_scale, double aux_scale);

/* Where row-major element i of a tensor is among the model's numbers. */
size_t twin_place(const struct moesim_tensor *tensor, size_t i);

#endif
