/*
 * What a model costs, by arithmetic alone.
 */
#include <omp.h>

#include "sim/models/model.h"
#include "sim/train/config.h"
#include "sim/transformer/attention.h"
#include "sim/transformer/head.h"
#include "sim/transformer/linear.h"
#include "sim/transformer/norm.h"

#define ROW_BLOCK 192 /* the layer's rows of one task */

static uint64_t up(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

/* Weights of n experts. */
static uint64_t expert_weights(const struct moesim_transformer_config *c, uint64_t n, uint64_t d_ff)
{
    return n * (c->activation == MOESIM_SWIGLU ? 3 : 2) * c->d_model * d_ff;
}

/* Floats that a layer works in: rows of d_model and d_ff, and one task's panels for each thread. */
static uint64_t layer_floats(const struct moesim_transformer_config *c, uint64_t n_rows, uint64_t d_ff,
                             uint64_t n_threads)
{
    const uint64_t d = up(c->d_model, 16), ff = up(d_ff, 16), wide = 64;
    const uint64_t inner = (c->activation == MOESIM_SWIGLU ? 3 : 2) * ff + ff / 16;
    const uint64_t by_ff = wide * (ROW_BLOCK + d), by_d = wide * (ROW_BLOCK + 2 * ff);
    return n_rows * (3 * d + inner) + n_threads * (by_ff > by_d ? by_ff : by_d);
}

/* Of one MoE layer besides its weights: gate, plan, rows. */
static uint64_t moe_floats(const struct moesim_transformer_config *c, const struct moesim_shape *s, uint64_t n_threads)
{
    const uint64_t n = moesim_transformer_tokens(c), columns = up(s->n_columns, 8);
    const uint64_t slots = (uint64_t)s->n_slots * moesim_transformer_max_groups(c, s);
    const uint64_t rows = s->n_slots ? slots : s->max_pairs + (uint64_t)c->n_shared * n;
    const uint64_t gate = 2 * n * columns + columns * up(c->d_model, 8) +
                          (s->needs & MOESIM_NEEDS_PREVIOUS_LOGITS ? n * s->n_columns : 0);
    const uint64_t soft = s->n_slots ? 4 * n * s->n_slots + slots * (4 * c->d_model + 6) : 0;
    const uint64_t plan = s->max_pairs * 12 + 2 * n; /* pairs, the experts' view of them, gradients, checks */
    return gate + soft + plan + layer_floats(c, rows, c->d_ff, n_threads);
}

/* Of the Transformer outside its FFNs. */
static uint64_t stream_floats(const struct moesim_transformer_config *c)
{
    const uint64_t n = moesim_transformer_tokens(c), d = c->d_model;
    const uint64_t block = n * (8 * d + 2 + c->n_heads);
    return c->n_blocks * block + n * (7 * d + 4) + (n / NORM_RUN_ROWS + 1) * d;
}

static uint64_t activation_bytes(const struct moesim_transformer_config *c, const struct moesim_shape *s)
{
    const uint32_t n = moesim_transformer_tokens(c), n_threads = (uint32_t)omp_get_max_threads();
    const uint32_t n_moe = moesim_transformer_n_moe(c);
    uint64_t floats = stream_floats(c);
    if (n_moe > 0)
        floats += n_moe * moe_floats(c, s, n_threads);
    floats += (c->n_blocks - n_moe) * layer_floats(c, n, moesim_transformer_dense_d_ff(c), n_threads);
    return floats * sizeof(float) + moesim_attention_bytes(c->d_model, c->n_heads, c->sequence, n_threads) +
           moesim_linear_work_bytes(n, c->d_model, 3 * c->d_model, n_threads) +
           moesim_head_bytes(c->d_model, c->vocabulary, n, n_threads);
}

/* Multiplications of one token in attention: scores and values over the keys that it sees in the mean. */
static double attention_terms(const struct moesim_transformer_config *c)
{
    return (c->sequence + 1) * (double)c->d_model;
}

void moesim_transformer_count(const struct moesim_transformer_config *config, const struct moesim_shape *shape,
                              struct moesim_transformer_counts *counts)
{
    const struct moesim_transformer_config *c = config;
    const uint64_t d = c->d_model, n_moe = moesim_transformer_n_moe(c), n_dense = c->n_blocks - n_moe;
    const uint64_t words = d * c->vocabulary;
    const uint64_t dense = expert_weights(c, 1, moesim_transformer_dense_d_ff(c));
    const uint64_t gate = n_moe ? (d + c->gate_bias) * shape->n_columns + shape->n_weights : 0;
    uint64_t n_ffn = 0; /* experts that compute */
    for (uint32_t e = 0; n_moe && e < shape->n_experts; e++)
        n_ffn += !shape->expert_kind || shape->expert_kind[e] == MOESIM_EXPERT_FFN;
    const uint64_t all = n_moe ? expert_weights(c, shape->n_experts + (uint64_t)c->n_shared, c->d_ff) : 0;
    const uint64_t most = n_ffn < c->top_k ? n_ffn : c->top_k;
    const uint64_t active = n_moe ? expert_weights(c, most + c->n_shared, c->d_ff) : 0;
    const uint64_t common = c->n_blocks * (4 * d * d + 2 * d) + d + n_moe * gate + n_dense * dense +
                            (c->positions == MOESIM_LEARNED ? c->sequence * d : 0);
    *counts = (struct moesim_transformer_counts){.n_parameters = common + n_moe * all + words * (c->tied_head ? 1 : 2),
                                                 .n_active_parameters =
                                                     common + n_moe * active + words * (c->tied_head ? 1 : 2),
                                                 .activation_bytes = activation_bytes(c, shape)};
    const double products =
        (double)(c->n_blocks * 4 * d * d + n_moe * (active + d * shape->n_columns) + n_dense * dense + words);
    counts->flop_per_token = 2 * (products + c->n_blocks * attention_terms(c));
    counts->training_flop_per_token = 3 * counts->flop_per_token;
    counts->parameter_bytes = counts->n_parameters * 4 * sizeof(float);
    counts->memory_bytes = counts->parameter_bytes + counts->activation_bytes;
}
