/*
 * The layer's memory, and how a plan is split into blocks of rows. Blocks have one shape for any number of threads.
 */
#include "sim/layer/scratch.h"

#include <omp.h>
#include <string.h>

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Floats that one task works in. */
static size_t work_size(const struct moesim_layer *layer, bool backward)
{
    const size_t d = layer->d_model, ff = layer->d_ff;
    const size_t wide_d =
        (size_t)layer_tile_panels(layer, layer->d_model) * moesim_panel_width(layer->products, (uint32_t)d);
    const size_t wide_ff =
        (size_t)layer_tile_panels(layer, layer->d_ff) * moesim_panel_width(layer->products, (uint32_t)ff);
    const size_t inner = BLOCK_ROWS * wide_ff + (backward ? d * wide_ff : 0);
    const size_t outer = BLOCK_ROWS * wide_d + (backward ? 2 * ff * wide_d : 0);
    return larger(inner, outer);
}

static bool init_work(struct moesim_layer *layer, bool backward, struct moesim_arena *arena)
{
    struct moesim_layer_scratch *s = layer->scratch;
    const size_t size = work_size(layer, backward);
    s->n_threads = (uint32_t)omp_get_max_threads();
    s->work = moesim_alloc(arena, s->n_threads, sizeof *s->work);
    bool ok = s->work != NULL;
    for (uint32_t i = 0; ok && i < s->n_threads; i++)
        ok = (s->work[i] = moesim_alloc(arena, size, sizeof(float))) != NULL;
    return ok;
}

static bool init_rows(struct moesim_layer *layer, bool backward, struct moesim_arena *arena)
{
    struct moesim_layer_scratch *s = layer->scratch;
    const size_t model = s->max_rows * moesim_panel_columns(layer->products, layer->d_model);
    const size_t inner = s->max_rows * moesim_panel_columns(layer->products, layer->d_ff);
    s->input = moesim_alloc(arena, model, sizeof(float));
    s->inner = moesim_alloc(arena, inner, sizeof(float));
    s->output = s->input;
    if (!backward)
        return s->input && s->inner;
    s->output = s->d_input = moesim_alloc(arena, model, sizeof(float));
    s->d_output = moesim_alloc(arena, model, sizeof(float));
    s->up = moesim_alloc(arena, inner, sizeof(float));
    s->gate = layer->w_gate ? moesim_alloc(arena, inner, sizeof(float)) : NULL;
    s->d_weight = moesim_alloc(arena, s->max_rows, moesim_panel_count(layer->products, layer->d_ff) * sizeof(float));
    return s->input && s->inner && s->output && s->d_output && s->up && (s->gate || !layer->w_gate) && s->d_weight;
}

enum moesim_status layer_init_scratch(struct moesim_layer *layer, uint64_t max_pairs, bool backward,
                                      struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n_experts = layer->n_experts + layer->n_shared;
    struct moesim_layer_scratch *s = moesim_alloc(arena, 1, sizeof *s);
    layer->scratch = s;
    bool ok = s != NULL;
    if (ok) {
        s->max_rows = max_pairs + (size_t)layer->n_shared * layer->max_tokens;
        s->block = moesim_alloc(arena, s->max_rows / BLOCK_ROWS + n_experts, sizeof *s->block);
        s->group = moesim_alloc(arena, n_experts, sizeof *s->group);
        s->order = moesim_alloc(arena, layer->n_experts, sizeof *s->order);
        s->row = moesim_alloc(arena, max_pairs, sizeof *s->row);
        ok = s->block && s->group && s->order && s->row && init_rows(layer, backward, arena) &&
             init_work(layer, backward, arena);
    }
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the rows of %llu pairs of d_model %u and d_ff %u",
                           (unsigned long long)max_pairs, layer->d_model, layer->d_ff);
    return moesim_expert_view_init(&layer->view, layer->n_experts, max_pairs, arena, err);
}

int layer_threads(const struct moesim_layer *layer)
{
    const int limit = omp_get_max_threads(), room = (int)layer->scratch->n_threads;
    return limit < room ? limit : room;
}

uint32_t layer_share(const struct moesim_layer *layer, uint32_t n_tasks)
{
    const uint32_t share = n_tasks / (64 * (uint32_t)layer_threads(layer));
    return share > 0 ? share : 1;
}

/* ---- blocks ---- */

static uint32_t load(const struct moesim_layer *layer, uint32_t expert)
{
    return layer->view.start[expert + 1] - layer->view.start[expert];
}

/* The largest experts first, so that no thread is left with one at the end. By Shell's method: qsort would allocate. */
static void sort_experts(const struct moesim_layer *layer, uint64_t *order)
{
    const uint32_t n = layer->n_experts;
    for (uint32_t e = 0; e < n; e++)
        order[e] = (uint64_t)load(layer, e) << 32 | (UINT32_MAX - e);
    for (uint32_t gap = n / 2; gap > 0; gap /= 2)
        for (uint32_t i = gap; i < n; i++) {
            const uint64_t moved = order[i];
            uint32_t place = i;
            for (; place >= gap && order[place - gap] < moved; place -= gap)
                order[place] = order[place - gap];
            order[place] = moved;
        }
}

/* Splits an expert's rows evenly. */
static void add_group(struct moesim_layer_scratch *s, uint32_t expert, uint32_t first, uint32_t n_rows,
                      const uint32_t *token)
{
    const uint32_t n = (n_rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
    if (n == 0)
        return;
    s->group[s->n_groups++] = (struct layer_group){s->n_blocks, n};
    for (uint32_t i = 0, done = 0; i < n; i++) {
        const uint32_t rows = n_rows / n + (i < n_rows % n);
        s->block[s->n_blocks++] =
            (struct layer_block){expert, rows, first + done, token ? token + done : NULL, token ? 0 : done};
        done += rows;
    }
}

void layer_split(struct moesim_layer *layer, const struct moesim_plan *plan)
{
    struct moesim_layer_scratch *s = layer->scratch;
    moesim_expert_view_build(&layer->view, plan);
    s->n_blocks = s->n_groups = 0;
    for (uint32_t i = 0; i < layer->n_shared; i++)
        add_group(s, layer->n_experts + i, (uint32_t)layer_shared_row(layer, i, plan->n_tokens), plan->n_tokens, NULL);
    sort_experts(layer, s->order);
    for (uint32_t i = 0; i < layer->n_experts; i++) {
        const uint32_t e = UINT32_MAX - (uint32_t)s->order[i], first = layer->view.start[e];
        if (layer_is_ffn(layer, e))
            add_group(s, e, first, load(layer, e), layer->view.token + first);
    }
    for (uint32_t i = 0; i < layer->view.start[layer->n_experts]; i++)
        s->row[layer->view.pair[i]] = i;
}

/* ---- rows in and out ---- */

/* A row's part in one panel: whole panels by moves of a fixed size, which the compiler writes out. */
static inline void copy_part(const float *from, size_t n, float *to)
{
    if (n == 32)
        memcpy(to, from, 32 * sizeof *to);
    else if (n == 16)
        memcpy(to, from, 16 * sizeof *to);
    else
        memcpy(to, from, n * sizeof *to);
}

/* Up to eight rows at a time: their streams are read ahead, and a panel is written by more than a line. */
void layer_gather(const struct moesim_layer *layer, const struct layer_block *block, const float *source, float *rows)
{
    const uint32_t d = layer->d_model, width = moesim_panel_width(layer->products, d), n = block->n_rows;
    float *panels = rows + layer_block_place(layer, block, d, 0);
    for (uint32_t r = 0; r < n; r += 8) {
        const uint32_t n_rows = n - r < 8 ? n - r : 8;
        const float *row[8];
        for (uint32_t i = 0; i < n_rows; i++)
            row[i] = source + (size_t)(block->token ? block->token[r + i] : block->first_token + r + i) * d;
        for (uint32_t c = 0; c < d; c += width) {
            const uint32_t count = d - c < width ? d - c : width;
            float *place = panels + (size_t)c * n + (size_t)r * width;
            for (uint32_t i = 0; i < n_rows; i++, place += width) {
                copy_part(row[i] + c, count, place);
                if (count < width)
                    memset(place + count, 0, (width - count) * sizeof *place);
            }
        }
    }
}

/* Row by row, so that lines follow each other. */
void layer_put_rows(const struct moesim_layer *layer, const struct layer_block *block, struct layer_tile tile,
                    const float *panels, float *rows)
{
    const size_t d = layer->d_model, panel = (size_t)block->n_rows * tile.width;
    const size_t first = (size_t)tile.first * tile.width;
    for (uint32_t r = 0; r < block->n_rows; r++, panels += tile.width) {
        float *row = rows + (block->first + r) * d + first;
        for (size_t p = 0; p < tile.n; p++, row += tile.width) {
            const size_t left = d - first - p * tile.width;
            copy_part(panels + p * panel, left < tile.width ? left : tile.width, row);
        }
    }
}
