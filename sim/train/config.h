/*
 * The sizes of a decoder-only Transformer language model with MoE layers, and what they come to.
 *
 * Tokens and their places are embedded; every block adds attention(norm(x)) and then FFN(norm(x)) to x; a last norm and
 * the head give logits over the vocabulary. Every `moe_every`-th block's FFN is an MoE layer, the others' is dense.
 */
#ifndef MOESIM_SIM_TRAIN_CONFIG_H
#define MOESIM_SIM_TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/router.h>

enum moesim_positions { MOESIM_ROTARY, MOESIM_LEARNED };
#define MOESIM_POSITIONS_CHOICES "rotary|learned"

struct moesim_transformer_config {
    uint32_t vocabulary; /* words; 256 for bytes */
    uint32_t n_blocks, d_model, n_heads;
    uint32_t sequence;                         /* tokens of one sequence */
    uint32_t n_sequences;                      /* of a micro-batch */
    uint32_t moe_every;                        /* blocks n - 1, 2n - 1, ... have MoE layers; 0 = none */
    uint32_t n_experts, top_k, n_shared, d_ff; /* of an MoE layer and of one expert */
    uint32_t dense_d_ff;                       /* 0 = (top_k + n_shared) * d_ff: as many active FLOPs as an MoE layer */
    uint32_t activation;                       /* enum moesim_activation */
    uint32_t positions;                        /* enum moesim_positions */
    bool tied_head;                            /* the head's weight is the embedding's */
    bool gate_bias;                            /* logits = W x + b */
    double gate_std;                           /* of the logits at the start; 0 = 0.3 */
    uint32_t n_devices; /* the micro-batch's tokens are spread over, for routers that group by device; 0 = 1 */
};

/* The router of the MoE layers; everything is borrowed for as long as the model lives. */
struct moesim_router_choice {
    const struct moesim_router *router;
    const void *params;
    const char *spec; /* for messages */
    const struct moesim_file_array *files;
    uint32_t n_files;
};

/* EINVAL with a sentence when the sizes do not go together. */
MOESIM_MUST_CHECK enum moesim_status moesim_transformer_check(const struct moesim_transformer_config *config,
                                                              struct moesim_error *err);

/* What a router asks for in such a model; REFUSE or EINVAL when the model cannot serve it. `arena` holds what the
 * answer refers to. */
MOESIM_MUST_CHECK enum moesim_status moesim_transformer_shape(const struct moesim_transformer_config *config,
                                                              const struct moesim_router_choice *choice, uint64_t seed,
                                                              struct moesim_arena *arena, struct moesim_shape *shape,
                                                              struct moesim_error *err);

static inline uint32_t moesim_transformer_tokens(const struct moesim_transformer_config *config)
{
    return config->sequence * config->n_sequences;
}

static inline bool moesim_transformer_is_moe(const struct moesim_transformer_config *config, uint32_t block)
{
    return config->moe_every > 0 && (block + 1) % config->moe_every == 0;
}

static inline uint32_t moesim_transformer_n_moe(const struct moesim_transformer_config *config)
{
    return config->moe_every > 0 ? config->n_blocks / config->moe_every : 0;
}

static inline uint32_t moesim_transformer_devices(const struct moesim_transformer_config *config)
{
    return config->n_devices ? config->n_devices : 1;
}

static inline uint32_t moesim_transformer_dense_d_ff(const struct moesim_transformer_config *config)
{
    return config->dense_d_ff ? config->dense_d_ff : (config->top_k + config->n_shared) * config->d_ff;
}

/* Token groups of a micro-batch, at most. */
uint32_t moesim_transformer_max_groups(const struct moesim_transformer_config *config,
                                       const struct moesim_shape *shape);

/* What a model of these sizes costs. FLOP count two for a multiplication and addition, attention the keys that a query
 * sees; active are those that one token passes with top_k experts; training is three times the forward pass. */
struct moesim_transformer_counts {
    uint64_t n_parameters, n_active_parameters; /* without the router's memory */
    double flop_per_token, training_flop_per_token;
    uint64_t parameter_bytes;  /* weights, gradients and both moments */
    uint64_t activation_bytes; /* all that one micro-batch needs besides */
    uint64_t memory_bytes;     /* of a training run, at most */
};

void moesim_transformer_count(const struct moesim_transformer_config *config, const struct moesim_shape *shape,
                              struct moesim_transformer_counts *counts);

#endif
