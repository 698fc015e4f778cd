/*
 * The MoE layer backward. With h = activation(x w_in), y = h w_out and a token's sum of weight * y:
 *
 *   d h = d output w_out^T (unscaled), d weight = <d h, h>, d w_out = (weight h)^T d output,
 *   d u = weight d h activation'(u) for u = x w_in (and x w_gate), d w_in = x^T d u, d x = d u w_in^T.
 *
 * Tasks are (expert, panels), so that a panel of transposed weights is made once for all the expert's rows, and a
 * gradient is summed by one thread in the order of the rows: the bits do not depend on the number of threads.
 */
#include <assert.h>
#include <omp.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/layer/activation.h"
#include "sim/layer/scratch.h"

/* What all tasks need. */
struct backward {
    const struct moesim_layer *layer;
    const struct moesim_plan *plan;
    bool add; /* to the gradients of the weights */
};

static float weight_of(const struct backward *b, const struct layer_block *block, uint32_t r)
{
    return block->token ? b->plan->weight[b->layer->view.pair[block->first + r]] : 1;
}

/* Sum of x[i] * y[i] as LANES interleaved sums. */
static float dot(const float *x, const float *y, uint32_t n)
{
    enum { LANES = 8 };
    float sum[LANES] = {0};
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            sum[l] += x[i + l] * y[i + l];
    for (int l = 0; i < n; i++, l++)
        sum[l] += x[i] * y[i];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

static void scale(float *x, float by, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] *= by;
}

/* Adds up the weights' gradients, and scales d h and h by the weights. */
static void weigh(const struct backward *b, const struct layer_block *block, struct layer_tile tile, float *d_inner)
{
    const struct moesim_layer_scratch *s = b->layer->scratch;
    float *inner = s->inner + layer_block_place(b->layer, block, b->layer->d_ff, tile.first);
    for (uint32_t p = tile.first; p < tile.first + tile.n; p++)
        for (uint32_t r = 0; r < block->n_rows; r++, inner += tile.width, d_inner += tile.width) {
            const float weight = weight_of(b, block, r);
            s->d_weight[p * s->max_rows + block->first + r] = dot(d_inner, inner, tile.width);
            scale(d_inner, weight, tile.width);
            scale(inner, weight, tile.width);
        }
}

/* Some panels of d u of an expert's rows; h becomes weight * h. */
static void run_d_inner(const struct backward *b, const struct layer_group *group, uint32_t i, float *work)
{
    const struct moesim_layer *layer = b->layer;
    const struct moesim_layer_scratch *s = layer->scratch;
    const struct layer_tile tile = layer_tile(layer, layer->d_ff, i);
    const uint32_t d = layer->d_model, ff = layer->d_ff;
    const size_t matrix = s->block[group->first_block].expert * moesim_layer_matrix_size(layer, MOESIM_W_OUT);
    float *d_inner = work + (size_t)tile.n * d * tile.width;
    layer->products->transpose(ff, d, layer->w_out + matrix, tile.first, tile.n, work);
    for (uint32_t j = 0; j < group->n_blocks; j++) {
        const struct layer_block *block = &s->block[group->first_block + j];
        const size_t place = layer_block_place(layer, block, ff, tile.first);
        const struct moesim_product product = {.n_rows = block->n_rows,
                                               .n_terms = d,
                                               .n_panels = tile.n,
                                               .width = tile.width,
                                               .a = s->d_output + layer_block_place(layer, block, d, 0),
                                               .b = work,
                                               .out = d_inner};
        layer->products->multiply(&product);
        weigh(b, block, tile, d_inner);
        moesim_activate_backward((enum moesim_activation)layer->activation, d_inner,
                                 (size_t)tile.n * block->n_rows * tile.width, s->gate ? s->gate + place : NULL,
                                 s->up + place);
    }
}

/* Some panels of d x of an expert's rows. */
static void run_d_input(const struct backward *b, const struct layer_group *group, uint32_t i, float *work)
{
    const struct moesim_layer *layer = b->layer;
    const struct moesim_products *products = layer->products;
    const struct moesim_layer_scratch *s = layer->scratch;
    const struct layer_tile tile = layer_tile(layer, layer->d_model, i);
    const uint32_t d = layer->d_model, ff = layer->d_ff;
    const size_t matrix = s->block[group->first_block].expert * moesim_layer_matrix_size(layer, MOESIM_W_IN);
    const size_t panels = (size_t)tile.n * ff * tile.width;
    float *w_in = work, *w_gate = work + panels, *d_input = w_gate + panels;
    products->transpose(d, ff, layer->w_in + matrix, tile.first, tile.n, w_in);
    if (layer->w_gate)
        products->transpose(d, ff, layer->w_gate + matrix, tile.first, tile.n, w_gate);
    for (uint32_t j = 0; j < group->n_blocks; j++) {
        const struct layer_block *block = &s->block[group->first_block + j];
        const size_t place = layer_block_place(layer, block, ff, 0);
        struct moesim_product product = {.n_rows = block->n_rows,
                                         .n_terms = ff,
                                         .n_panels = tile.n,
                                         .width = tile.width,
                                         .a = s->up + place,
                                         .b = w_in,
                                         .out = d_input};
        products->multiply(&product);
        if (layer->w_gate) {
            product.a = s->gate + place;
            product.b = w_gate;
            product.add = true;
            products->multiply(&product);
        }
        layer_put_rows(layer, block, tile, d_input, s->d_input);
    }
}

/* Some panels of an expert's gradient, the product of `left` [rows][n_left] transposed and `right` [rows][n_right]. */
static void run_d_matrix(const struct backward *b, const struct layer_group *group, uint32_t i, const float *left,
                         uint32_t n_left, const float *right, uint32_t n_right, float *gradient)
{
    const struct moesim_layer *layer = b->layer;
    const struct layer_tile tile = layer_tile(layer, n_right, i);
    const struct layer_block *block = &layer->scratch->block[group->first_block];
    const size_t size = (size_t)n_left * moesim_panel_columns(layer->products, n_right);
    float *out = gradient + block->expert * size + (size_t)tile.first * n_left * tile.width;
    for (uint32_t j = 0; j < group->n_blocks; j++, block++) {
        const struct moesim_product product = {.n_rows = n_left,
                                               .n_terms = block->n_rows,
                                               .n_panels = tile.n,
                                               .width = tile.width,
                                               .a = left + layer_block_place(layer, block, n_left, 0),
                                               .b = right + layer_block_place(layer, block, n_right, tile.first),
                                               .add = b->add || j > 0,
                                               .out = out};
        layer->products->multiply_transposed(&product);
    }
}

/* Tasks of one expert once d u is known: d x and d w_out by panels of d_model, d w_in and d w_gate by those of d_ff. */
static uint32_t n_outer_tasks(const struct moesim_layer *layer)
{
    return 2 * layer_n_tiles(layer, layer->d_model) + (layer->w_gate ? 2 : 1) * layer_n_tiles(layer, layer->d_ff);
}

static void run_outer_task(const struct backward *b, const struct layer_group *group, uint32_t i, float *work)
{
    const struct moesim_layer *layer = b->layer;
    const struct moesim_layer_scratch *s = layer->scratch;
    const uint32_t d = layer->d_model, ff = layer->d_ff, by_d = layer_n_tiles(layer, d),
                   by_ff = layer_n_tiles(layer, ff);
    if (i < by_d)
        run_d_input(b, group, i, work);
    else if ((i -= by_d) < by_d)
        run_d_matrix(b, group, i, s->inner, ff, s->d_output, d, layer->d_out);
    else if ((i -= by_d) < by_ff)
        run_d_matrix(b, group, i, s->input, d, s->up, ff, layer->d_in);
    else
        run_d_matrix(b, group, i - by_ff, s->input, d, s->gate, ff, layer->d_gate);
}

static bool is_idle(const struct backward *b, uint32_t expert)
{
    const struct moesim_layer *layer = b->layer;
    if (expert >= layer->n_experts)
        return b->plan->n_tokens == 0;
    return !layer_is_ffn(layer, expert) || layer->view.start[expert] == layer->view.start[expert + 1];
}

/* The gradients of an expert that no row went to. */
static void clear(const struct moesim_layer *layer, uint32_t expert)
{
    const size_t in = moesim_layer_matrix_size(layer, MOESIM_W_IN), out = moesim_layer_matrix_size(layer, MOESIM_W_OUT);
    memset(layer->d_in + expert * in, 0, in * sizeof(float));
    memset(layer->d_out + expert * out, 0, out * sizeof(float));
    if (layer->d_gate)
        memset(layer->d_gate + expert * in, 0, in * sizeof(float));
}

static float d_weight_of(const struct moesim_layer *layer, uint32_t row)
{
    const struct moesim_layer_scratch *s = layer->scratch;
    double sum = 0;
    for (uint32_t p = 0; p < moesim_panel_count(layer->products, layer->d_ff); p++)
        sum += s->d_weight[p * s->max_rows + row];
    return (float)sum;
}

static void combine_token(const struct backward *b, const float *hidden, const float *d_output, uint32_t t,
                          float *d_hidden, float *d_weight)
{
    const struct moesim_layer *layer = b->layer;
    const struct moesim_plan *plan = b->plan;
    const size_t d = layer->d_model;
    const float *rows = layer->scratch->d_input, *own = d_output + t * d;
    float *sum = d_hidden + t * d;
    if (!layer->adds)
        memcpy(sum, own, d * sizeof(float));
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        const uint32_t e = plan->expert[i];
        d_weight[i] = 0;
        if (plan->fate[i] != MOESIM_KEPT)
            continue;
        if (layer_is_ffn(layer, e)) {
            layer_add_scaled(rows + layer->scratch->row[i] * d, 1, d, sum);
            d_weight[i] = d_weight_of(layer, layer->scratch->row[i]);
        } else if (layer->expert_kind[e] == MOESIM_EXPERT_COPY) {
            layer_add_scaled(own, plan->weight[i], d, sum);
            d_weight[i] = dot(own, hidden + t * d, layer->d_model);
        }
    }
    for (uint32_t i = 0; i < layer->n_shared; i++)
        layer_add_scaled(rows + (layer_shared_row(layer, i, plan->n_tokens) + t) * d, 1, d, sum);
}

void moesim_layer_backward(struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                           const float *d_output, bool add, float *d_hidden, float *d_weight)
{
    const struct moesim_layer_scratch *s = layer->scratch;
    assert(layer->d_in && plan->n_experts == layer->n_experts && plan->n_tokens <= layer->max_tokens);
    const struct backward b = {layer, plan, add};
    const uint32_t inner = layer_n_tiles(layer, layer->d_ff), outer = n_outer_tasks(layer);
    const uint32_t n_experts = layer->n_experts + layer->n_shared;
#pragma omp parallel num_threads(layer_threads(layer))
    {
        float *work = s->work[omp_get_thread_num()];
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < s->n_blocks; i++)
            layer_gather(layer, &s->block[i], d_output, s->d_output);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < s->n_groups * inner; i++)
            run_d_inner(&b, &s->group[i / inner], i % inner, work);
#pragma omp for schedule(dynamic, 1) nowait
        for (uint32_t e = 0; e < n_experts; e++)
            if (!add && is_idle(&b, e))
                clear(layer, e);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < s->n_groups * outer; i++)
            run_outer_task(&b, &s->group[i / outer], i % outer, work);
#pragma omp for schedule(static)
        for (uint32_t t = 0; t < plan->n_tokens; t++)
            combine_token(&b, hidden, d_output, t, d_hidden, d_weight);
    }
}
