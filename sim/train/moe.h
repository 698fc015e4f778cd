/*
 * One MoE layer in training: gate, router, experts, and back through all three.
 */
#ifndef MOESIM_SIM_TRAIN_MOE_H
#define MOESIM_SIM_TRAIN_MOE_H

#include <moesim/batch.h>
#include <moesim/plan.h>

#include "sim/gate/gate.h"
#include "sim/layer/layer.h"
#include "sim/train/config.h"

/* What all layers of a micro-batch share; borrowed for the call. */
struct moesim_moe_pass {
    uint32_t phase; /* enum moesim_phase */
    uint64_t seed;
    uint32_t step, micro_batch; /* step counts micro-batches */
    uint32_t n_tokens;
    const uint32_t *token_id, *sequence_id, *device, *domain; /* [n_tokens]; domain may be NULL */
    const float *previous_logits;                             /* of the MoE layer before, or NULL */
};

struct moesim_soft;

struct moesim_moe {
    const struct moesim_transformer_config *config;
    const struct moesim_router_choice *choice;
    struct moesim_shape shape;
    uint32_t index; /* among the MoE layers */
    struct moesim_gate gate;
    float *d_gate;        /* [d_model][stride] */
    float *bias, *d_bias; /* [n_columns] of the gate; NULL = none */
    void *state;          /* the router's */
    bool is_ready;        /* the state was made */
    float *weights;       /* [n_weights] that the router learns, with gradient */
    float *d_weights;
    float *memory; /* [n_memory] that it keeps */
    struct moesim_layer layer;
    struct moesim_soft *soft; /* of routers with slots; else NULL */

    struct moesim_batch batch; /* of the last pass, and what was made of it */
    struct moesim_plan plan;
    uint32_t *group_start;
    float *columns;   /* [n_tokens][n_columns] without gaps, for the next layer; NULL = it does not ask */
    float *d_columns; /* [n_tokens][stride] */
    float *d_weight;  /* [max_pairs] */
    void *plan_scratch;
    uint64_t *assigned, *kept;               /* [n_experts] of the last pass */
    uint64_t *global_assigned, *global_kept; /* [n_experts] of the training passes from micro-batch 0 on */
    uint64_t global_tokens;
};

/* Sets everything up but the router's state. `config` and `choice` are borrowed. */
MOESIM_MUST_CHECK enum moesim_status moesim_moe_init(struct moesim_moe *moe,
                                                     const struct moesim_transformer_config *config,
                                                     const struct moesim_router_choice *choice,
                                                     const struct moesim_shape *shape, uint32_t index, uint64_t seed,
                                                     const struct moesim_products *products, struct moesim_arena *arena,
                                                     struct moesim_error *err);

/* Makes the router's state; `env` is the model's, the layer's parts are filled in. */
MOESIM_MUST_CHECK enum moesim_status moesim_moe_init_router(struct moesim_moe *moe, const struct moesim_env *env,
                                                            struct moesim_error *err);
void moesim_moe_finish(struct moesim_moe *moe);

/* output [n_tokens][d_model] += what the experts make of hidden [n_tokens][d_model]. Counts are the pass's; in training
 * they also go into the global batch's. */
MOESIM_MUST_CHECK enum moesim_status moesim_moe_forward(struct moesim_moe *moe, const struct moesim_moe_pass *pass,
                                                        const float *hidden, float *output, struct moesim_error *err);

/* After a forward pass of the same hidden states, from d_output: d_hidden += the gradient by hidden, that of the
 * auxiliary losses times loss_scale included; gradients of the weights are overwritten or, with `add`, added to. */
MOESIM_MUST_CHECK enum moesim_status moesim_moe_backward(struct moesim_moe *moe, const float *hidden,
                                                         const float *d_output, float loss_scale, bool add,
                                                         float *d_hidden, struct moesim_error *err);

#endif
