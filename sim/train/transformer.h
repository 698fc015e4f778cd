/*
 * The model: all its weights and gradients, and one micro-batch forward and backward. Same bits on any number of
 * threads; the passes allocate nothing.
 */
#ifndef MOESIM_SIM_TRAIN_TRANSFORMER_H
#define MOESIM_SIM_TRAIN_TRANSFORMER_H

#include "sim/train/config.h"
#include "sim/train/moe.h"
#include "sim/train/tensor.h"
#include "sim/transformer/attention.h"
#include "sim/transformer/embedding.h"
#include "sim/transformer/head.h"
#include "sim/transformer/linear.h"
#include "sim/transformer/norm.h"

/* Tokens of some whole sequences one after the other, and what each is to predict. Borrowed for the call. */
struct moesim_sequences {
    uint32_t n_sequences;   /* at most the config's */
    const uint32_t *token;  /* [n_sequences * sequence] below the vocabulary */
    const uint32_t *target; /* the same; MOESIM_NO_TARGET = no loss */
    const uint32_t *domain; /* the same, or NULL: a label that figures are split by */
};

struct moesim_transformer_block {
    struct moesim_norm before_attention, before_ffn;
    struct moesim_linear qkv, out;
    struct moesim_moe *moe;     /* NULL: the FFN is dense */
    struct moesim_layer *dense; /* its one expert, which every token passes; NULL: MoE */

    /* of the last forward pass, [n_tokens] each */
    float *input, *middle;        /* [d_model] the residual stream before attention and before the FFN */
    float *attention_in, *ffn_in; /* [d_model] the same after the norms */
    float *attention_r, *ffn_r;   /* what the norms keep */
    float *qkv_out, *attended;    /* [3 d_model], [d_model] */
    float *log_sum;               /* [n_heads] */
};

struct moesim_transformer {
    struct moesim_transformer_config config;
    struct moesim_router_choice choice;
    struct moesim_shape shape; /* the router's */
    uint64_t seed;
    const struct moesim_products *products;
    struct moesim_embedding embedding;
    struct moesim_attention attention;
    struct moesim_linear_work work;
    struct moesim_head head;
    struct moesim_norm last_norm;
    struct moesim_transformer_block *block; /* [n_blocks] */
    struct moesim_moe *moe;                 /* [n_moe] */
    uint32_t n_moe;
    struct moesim_plan dense_plan; /* of dense layers: no pairs */

    struct moesim_tensor *tensor; /* [n_tensors] all that is learned */
    uint32_t n_tensors;

    uint32_t n_tokens;     /* of the last pass */
    uint32_t *sequence_id; /* [n_tokens] */
    uint32_t *device;
    float *stream, *last, *last_r;              /* the residual stream's end, after the last norm, what that keeps */
    float *d_stream, *d_normed, *d_qkv, *parts; /* of the backward pass */
};

/* Draws the weights of `seed` and makes the routers' states; memory comes from `arena`, `choice` and what it refers to
 * is borrowed; a model without MoE layers needs none. Finish it even when it failed. */
MOESIM_MUST_CHECK enum moesim_status moesim_transformer_init(struct moesim_transformer *model,
                                                             const struct moesim_transformer_config *config,
                                                             const struct moesim_router_choice *choice, uint64_t seed,
                                                             struct moesim_arena *arena, struct moesim_error *err);
void moesim_transformer_finish(struct moesim_transformer *model);

/* Runs a sample up to the last norm. `step` counts micro-batches; noise and jitter are on in phase train only. */
MOESIM_MUST_CHECK enum moesim_status
moesim_transformer_forward(struct moesim_transformer *model, enum moesim_phase phase, uint32_t step,
                           uint32_t micro_batch, const struct moesim_sequences *sample, struct moesim_error *err);

/* token_loss [n_tokens] in nats of what was run forward. */
void moesim_transformer_losses(const struct moesim_transformer *model, const struct moesim_sequences *sample,
                               float *token_loss);

/* The same, and the gradients of loss_scale * sum of the token losses + aux_scale * the auxiliary losses of all layers,
 * overwritten or, with `add`, added to. */
MOESIM_MUST_CHECK enum moesim_status moesim_transformer_backward(struct moesim_transformer *model,
                                                                 const struct moesim_sequences *sample,
                                                                 float loss_scale, float aux_scale, bool add,
                                                                 float *token_loss, struct moesim_error *err);

/* Where in the model the last forward pass first made something that is no finite number, in words. */
void moesim_transformer_blame(const struct moesim_transformer *model, char *text, size_t size);

#endif
