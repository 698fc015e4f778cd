/*
 * The MoE layer forward: rows are gathered by expert into panels, tasks of (block of rows, panels of weights) run
 * through the experts' matrices, and each token adds up its experts' outputs by rank. Tasks have one shape for any
 * number of threads, and their outputs are disjoint, so the bits do not depend on it.
 */
#include "sim/layer/layer.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/layer/activation.h"
#include "sim/layer/scratch.h"

enum moesim_status moesim_layer_init(struct moesim_layer *layer, uint64_t seed, uint32_t index,
                                     const struct moesim_model *model, uint32_t n_experts, const uint8_t *expert_kind,
                                     uint32_t max_tokens, uint64_t max_pairs, bool backward,
                                     const struct moesim_products *products, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    assert(model->d_model > 0 && model->d_ff > 0);
    *layer = (struct moesim_layer){
        .n_experts = n_experts,
        .n_shared = model->shared_experts,
        .d_model = model->d_model,
        .d_ff = model->d_ff,
        .activation = model->activation,
        .max_tokens = max_tokens,
        .expert_kind = expert_kind,
        .products = products,
    };
    for (uint32_t e = 0; expert_kind && e < n_experts; e++)
        if (expert_kind[e] == MOESIM_EXPERT_CONSTANT)
            return moesim_fail(err, MOESIM_EINVAL,
                               "expert %u is a constant expert, which the layer does not run; use mode: route", e);
    enum moesim_status status = layer_init_weights(layer, seed, index, backward, arena, err);
    return status == MOESIM_OK ? layer_init_scratch(layer, max_pairs, backward, arena, err) : status;
}

uint64_t moesim_layer_bytes(const struct moesim_model *model, uint32_t n_experts, uint32_t max_tokens,
                            uint64_t max_pairs)
{
    const uint64_t d = model->d_model, ff = model->d_ff;
    const uint64_t weights = moesim_model_matrices(model) * ((uint64_t)n_experts + model->shared_experts) * d * ff;
    const uint64_t rows = max_pairs + (uint64_t)model->shared_experts * max_tokens;
    return (weights + rows * (d + ff)) * sizeof(float);
}

/* Where the weights of the task after a block's tile i begin: the expert's next tile, or the next block's first; NULL
 * after the last one. */
static const float *next_weights(const struct moesim_layer *layer, const struct layer_block *block,
                                 enum moesim_layer_matrix matrix, const float *weights, uint32_t i)
{
    const struct moesim_layer_scratch *s = layer->scratch;
    const bool out = matrix == MOESIM_W_OUT;
    const uint32_t n_rows = out ? layer->d_ff : layer->d_model, n_columns = out ? layer->d_model : layer->d_ff;
    const size_t size = moesim_layer_matrix_size(layer, matrix);
    if (i + 1 < layer_n_tiles(layer, n_columns)) {
        const struct layer_tile tile = layer_tile(layer, n_columns, i + 1);
        return weights + block->expert * size + (size_t)tile.first * n_rows * tile.width;
    }
    return block + 1 < s->block + s->n_blocks ? weights + block[1].expert * size : NULL;
}

/* Some panels of x w_in and x w_gate for a block, and what the activation makes of them. */
static void run_inner(const struct moesim_layer *layer, const struct layer_block *block, uint32_t i, float *work)
{
    const struct moesim_layer_scratch *s = layer->scratch;
    const struct layer_tile tile = layer_tile(layer, layer->d_ff, i);
    const size_t place = layer_block_place(layer, block, layer->d_ff, tile.first);
    const size_t weights =
        block->expert * moesim_layer_matrix_size(layer, MOESIM_W_IN) + (size_t)tile.first * layer->d_model * tile.width;
    const size_t size = (size_t)tile.n * block->n_rows * tile.width;
    float *inner = s->inner + place, *up = s->up ? s->up + place : inner, *gate = s->gate ? s->gate + place : work;
    struct moesim_product product = {.n_rows = block->n_rows,
                                     .n_terms = layer->d_model,
                                     .n_panels = tile.n,
                                     .width = tile.width,
                                     .a = s->input + layer_block_place(layer, block, layer->d_model, 0)};
    if (layer->w_gate) {
        product.b = layer->w_gate + weights;
        product.next = layer->w_in + weights;
        product.out = gate;
        layer->products->multiply(&product);
    }
    product.b = layer->w_in + weights;
    product.next = next_weights(layer, block, MOESIM_W_IN, layer->w_gate ? layer->w_gate : layer->w_in, i);
    product.out = up;
    layer->products->multiply(&product);
    moesim_activate((enum moesim_activation)layer->activation, layer->w_gate ? gate : NULL, up, size, inner);
}

/* Some panels of a block's outputs. */
static void run_outer(const struct moesim_layer *layer, const struct layer_block *block, uint32_t i, float *work)
{
    const struct moesim_layer_scratch *s = layer->scratch;
    const struct layer_tile tile = layer_tile(layer, layer->d_model, i);
    const float *weights = layer->w_out + block->expert * moesim_layer_matrix_size(layer, MOESIM_W_OUT) +
                           (size_t)tile.first * layer->d_ff * tile.width;
    const struct moesim_product product = {.n_rows = block->n_rows,
                                           .n_terms = layer->d_ff,
                                           .n_panels = tile.n,
                                           .width = tile.width,
                                           .a = s->inner + layer_block_place(layer, block, layer->d_ff, 0),
                                           .b = weights,
                                           .next = next_weights(layer, block, MOESIM_W_OUT, layer->w_out, i),
                                           .out = work};
    layer->products->multiply(&product);
    layer_put_rows(layer, block, tile, work, s->output);
}

void layer_combine_token(const struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                         uint32_t t, float *output)
{
    const size_t d = layer->d_model;
    const float *rows = layer->scratch->output, *own = hidden + t * d;
    float *sum = output + t * d;
    if (!layer->adds)
        memcpy(sum, own, d * sizeof(float));
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        if (plan->fate[i] != MOESIM_KEPT)
            continue;
        const uint32_t e = plan->expert[i];
        if (layer_is_ffn(layer, e))
            layer_add_scaled(rows + layer->scratch->row[i] * d, plan->weight[i], d, sum);
        else if (layer->expert_kind[e] == MOESIM_EXPERT_COPY)
            layer_add_scaled(own, plan->weight[i], d, sum);
    }
    for (uint32_t i = 0; i < layer->n_shared; i++)
        layer_add_scaled(rows + (layer_shared_row(layer, i, plan->n_tokens) + t) * d, 1, d, sum);
}

void moesim_layer_forward(struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                          float *output)
{
    assert(plan->n_slots == 0 && plan->n_experts == layer->n_experts && plan->n_tokens <= layer->max_tokens);
    layer_split(layer, plan);
    const struct moesim_layer_scratch *s = layer->scratch;
    const uint32_t n_blocks = s->n_blocks;
    const uint32_t inner = layer_n_tiles(layer, layer->d_ff), outer = layer_n_tiles(layer, layer->d_model);
    const uint32_t inner_share = layer_share(layer, n_blocks * inner),
                   outer_share = layer_share(layer, n_blocks * outer);
#pragma omp parallel num_threads(layer_threads(layer))
    {
        float *work = s->work[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < n_blocks; i++)
            layer_gather(layer, &s->block[i], hidden, s->input);
#pragma omp for schedule(dynamic, inner_share)
        for (uint32_t i = 0; i < n_blocks * inner; i++)
            run_inner(layer, &s->block[i / inner], i % inner, work);
#pragma omp for schedule(dynamic, outer_share)
        for (uint32_t i = 0; i < n_blocks * outer; i++)
            run_outer(layer, &s->block[i / outer], i % outer, work);
#pragma omp for schedule(static)
        for (uint32_t t = 0; t < plan->n_tokens; t++)
            layer_combine_token(layer, plan, hidden, t, output);
    }
}
