/*
 * The experts' weights: drawn once, straight into panels.
 */
#include <math.h>

#include <moesim/random.h>

#include "sim/layer/scratch.h"

#define CHUNK 1024

static uint32_t rows_of(const struct moesim_layer *layer, enum moesim_layer_matrix matrix)
{
    return matrix == MOESIM_W_OUT ? layer->d_ff : layer->d_model;
}

static uint32_t columns_of(const struct moesim_layer *layer, enum moesim_layer_matrix matrix)
{
    return matrix == MOESIM_W_OUT ? layer->d_model : layer->d_ff;
}

size_t moesim_layer_matrix_size(const struct moesim_layer *layer, enum moesim_layer_matrix matrix)
{
    return (size_t)rows_of(layer, matrix) * moesim_panel_columns(layer->products, columns_of(layer, matrix));
}

size_t moesim_layer_place(const struct moesim_layer *layer, enum moesim_layer_matrix matrix, uint32_t expert,
                          uint32_t row, uint32_t column)
{
    const size_t width = moesim_panel_width(layer->products, columns_of(layer, matrix));
    return expert * moesim_layer_matrix_size(layer, matrix) + column / width * rows_of(layer, matrix) * width +
           row * width + column % width;
}

/* Columns [first, first + n) of one row into their panels, times std. */
static void put(const struct moesim_layer *layer, enum moesim_layer_matrix matrix, uint32_t expert, uint32_t row,
                uint32_t first, uint32_t n, const float *from, float std, float *weights)
{
    const uint32_t width = moesim_panel_width(layer->products, columns_of(layer, matrix));
    for (uint32_t c = first; c < first + n;) {
        const uint32_t left = width - c % width, count = left < first + n - c ? left : first + n - c;
        float *place = weights + moesim_layer_place(layer, matrix, expert, row, c);
        for (uint32_t i = 0; i < count; i++)
            place[i] = from[c - first + i] * std;
        c += count;
    }
}

/* Row-major element i of all experts' matrices together is element first + i of the sequence, times std. */
static void draw(const struct moesim_layer *layer, enum moesim_layer_matrix matrix, const struct moesim_random *random,
                 uint64_t first, float std, float *weights)
{
    const uint32_t n_rows = rows_of(layer, matrix), n_columns = columns_of(layer, matrix);
    const uint32_t n_experts = layer->n_experts + layer->n_shared;
#pragma omp parallel for collapse(2) schedule(static)
    for (uint32_t e = 0; e < n_experts; e++)
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t c = 0; c < n_columns; c += CHUNK) {
                float chunk[CHUNK];
                const uint32_t n = n_columns - c < CHUNK ? n_columns - c : CHUNK;
                moesim_random_normals(random, first + ((uint64_t)e * n_rows + r) * n_columns + c, n, chunk);
                put(layer, matrix, e, r, c, n, chunk, std, weights);
            }
}

enum moesim_status layer_init_weights(struct moesim_layer *layer, uint64_t seed, uint32_t index, bool backward,
                                      struct moesim_arena *arena, struct moesim_error *err)
{
    const uint64_t n_experts = (uint64_t)layer->n_experts + layer->n_shared;
    const uint64_t n = n_experts * layer->d_model * layer->d_ff;
    float **const weights[] = {&layer->w_in, &layer->w_gate, &layer->w_out};
    float **const gradients[] = {&layer->d_in, &layer->d_gate, &layer->d_out};
    bool ok = true;
    for (int m = MOESIM_W_IN; m <= MOESIM_W_OUT; m++) {
        if (m == MOESIM_W_GATE && layer->activation != MOESIM_SWIGLU)
            continue;
        const size_t size = n_experts * moesim_layer_matrix_size(layer, (enum moesim_layer_matrix)m);
        *weights[m] = moesim_alloc(arena, size, sizeof(float));
        if (backward)
            *gradients[m] = moesim_alloc(arena, size, sizeof(float));
        ok = ok && *weights[m] && (*gradients[m] || !backward);
    }
    if (!ok)
        return moesim_fail(
            err, MOESIM_ENOMEM, "no memory for the weights of %u experts of d_model %u and d_ff %u: %.3g GB a layer",
            (uint32_t)n_experts, layer->d_model, layer->d_ff,
            (layer->activation == MOESIM_SWIGLU ? 3e-9 : 2e-9) * (double)n * sizeof(float) * (backward ? 2 : 1));
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_EXPERT, .layer = index};
    const float std_in = (float)(1 / sqrt(layer->d_model)), std_out = (float)(1 / sqrt(layer->d_ff));
    draw(layer, MOESIM_W_IN, &random, 0, std_in, layer->w_in);
    draw(layer, MOESIM_W_OUT, &random, n, std_out, layer->w_out);
    if (layer->w_gate)
        draw(layer, MOESIM_W_GATE, &random, 2 * n, std_in, layer->w_gate);
    return MOESIM_OK;
}
