/*
 * Soft mixtures (Puigcerver et al. 2024): an expert's slots hold weighted means of a group's tokens, and a token gets a
 * weighted mean of all its group's slots. With the plan's D (dispatch) and C (combine) of a group:
 * slots = D^T hidden, output += C experts(slots).
 */
#ifndef MOESIM_SIM_TRAIN_SOFT_H
#define MOESIM_SIM_TRAIN_SOFT_H

#include <moesim/batch.h>
#include <moesim/plan.h>

#include "sim/layer/layer.h"
#include "sim/train/config.h"

struct moesim_soft {
    uint32_t n_slots, n_experts, d_model, max_slots; /* of a group; of all groups together */
    struct moesim_plan plan;                         /* slot -> its expert */
    float *slots, *made, *d_slots, *d_made;          /* [max_slots][d_model] */
    float *d_weight;                                 /* [max_slots] not used further */
    float *d_dispatch, *d_combine;                   /* [n_tokens][n_slots] */
};

MOESIM_MUST_CHECK enum moesim_status moesim_soft_create(struct moesim_soft **soft,
                                                        const struct moesim_transformer_config *config,
                                                        const struct moesim_shape *shape, uint32_t max_groups,
                                                        struct moesim_arena *arena, struct moesim_error *err);

/* output [n_tokens][d_model] += what the slots give to the batch's hidden states. */
void moesim_soft_forward(struct moesim_soft *soft, struct moesim_layer *layer, const struct moesim_batch *batch,
                         const struct moesim_plan *plan, float *output);

/* From d_output: d_hidden += the gradient by the hidden states but for that through D and C, whose gradients are left
 * in d_dispatch and d_combine; the layer's gradients as by moesim_layer_backward. */
void moesim_soft_backward(struct moesim_soft *soft, struct moesim_layer *layer, const struct moesim_batch *batch,
                          const struct moesim_plan *plan, const float *d_output, bool add, float *d_hidden);

#endif
