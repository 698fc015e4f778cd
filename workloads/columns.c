/*
 * Bulk drawing of gate columns: rows in fixed chunks over the threads, numbers in pieces that stay in the cache until
 * scale and offset are on them.
 */
#include "workloads/columns.h"

#include <stdbool.h>

#include "workloads/gumbel.h"

enum { CHUNK_ROWS = 256, PIECE = 2048 };

/* Some neighbouring columns that share one law. */
struct block {
    struct moesim_random random;
    enum columns_noise noise;
    float scale;
    const float *offset; /* [n] or NULL */
    uint32_t first, n;   /* columns */
    uint32_t stride;     /* floats from row to row */
};

enum moesim_status columns_init(struct columns *columns, const struct moesim_workload_env *env,
                                struct moesim_error *err)
{
    columns->seed = env->seed;
    columns->n_tokens = env->n_tokens;
    columns->n_experts = env->n_experts;
    columns->n_columns = env->n_columns;
    columns->stride = env->n_columns > env->n_experts ? env->n_columns : env->n_experts;
    columns->values = moesim_alloc_unset(env->arena, (size_t)env->n_tokens * columns->stride, sizeof *columns->values);
    columns->offset = moesim_alloc(env->arena, env->n_experts, sizeof *columns->offset);
    if (!columns->values || !columns->offset)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u tokens of %u gate columns", env->n_tokens,
                           env->n_columns);
    return MOESIM_OK;
}

struct moesim_random columns_offset_random(const struct columns *columns, uint32_t layer)
{
    return (struct moesim_random){columns->seed, MOESIM_STREAM_WORKLOAD, layer, 0};
}

static void draw(const struct block *block, uint64_t first, size_t n, float *out)
{
    if (block->noise == COLUMNS_NORMAL) {
        moesim_random_normals(&block->random, first, n, out);
    } else {
        moesim_random_uniforms(&block->random, first, n, out);
        gumbel_from_uniforms(out, n);
    }
}

static void finish(const struct block *block, uint32_t column, uint32_t n, const float *noise, float *out)
{
    const float *offset = block->offset ? block->offset + column : NULL;
    if (offset)
        for (uint32_t j = 0; j < n; j++)
            out[j] = offset[j] + block->scale * noise[j];
    else
        for (uint32_t j = 0; j < n; j++)
            out[j] = block->scale * noise[j];
}

/* Rows of nothing but the block: the numbers are drawn in their place. */
static void fill_whole_rows(const struct block *block, uint32_t first_row, uint32_t last_row, float *values)
{
    const uint32_t step = block->n < PIECE ? PIECE / block->n : 1;
    for (uint32_t row = first_row, n; row < last_row; row += n) {
        n = last_row - row < step ? last_row - row : step;
        float *out = values + (size_t)row * block->n;
        draw(block, (uint64_t)row * block->n, (size_t)n * block->n, out);
        for (uint32_t i = 0; (block->offset || block->scale != 1) && i < n; i++)
            finish(block, 0, block->n, out + (size_t)i * block->n, out + (size_t)i * block->n);
    }
}

/* Element row * n + column of the block's sequence belongs at values[row][first + column]. */
static void fill_parts_of_rows(const struct block *block, uint32_t first_row, uint32_t last_row, float *values)
{
    float piece[PIECE];
    const uint64_t end = (uint64_t)last_row * block->n;
    uint64_t at = (uint64_t)first_row * block->n;
    float *row = values + (size_t)first_row * block->stride + block->first;
    uint32_t column = 0;
    while (at < end) {
        const uint32_t n = end - at < PIECE ? (uint32_t)(end - at) : PIECE;
        draw(block, at, n, piece);
        for (uint32_t i = 0; i < n;) {
            const uint32_t left = block->n - column, run = left < n - i ? left : n - i;
            finish(block, column, run, piece + i, row + column);
            i += run;
            column += run;
            if (column == block->n) {
                column = 0;
                row += block->stride;
            }
        }
        at += n;
    }
}

static void fill_rows(const struct block *block, uint32_t first_row, uint32_t last_row, float *values)
{
    if (block->n == block->stride)
        fill_whole_rows(block, first_row, last_row, values);
    else if (block->n)
        fill_parts_of_rows(block, first_row, last_row, values);
}

/* Whether adding them changes anything but the sign of a 0. */
static bool has_offsets(const struct columns *columns)
{
    for (uint32_t e = 0; e < columns->n_experts; e++)
        if (columns->offset[e] != 0)
            return true;
    return false;
}

void columns_draw(struct columns *columns, enum columns_noise noise, double scale, uint32_t step, uint32_t layer,
                  struct moesim_batch *batch)
{
    const uint32_t n_experts = columns->n_experts, n_rows = columns->n_tokens;
    const struct block experts = {{columns->seed, MOESIM_STREAM_COLUMNS, layer, step},
                                  noise,
                                  (float)scale,
                                  has_offsets(columns) ? columns->offset : NULL,
                                  0,
                                  n_experts,
                                  columns->stride};
    const struct block extra = {{columns->seed, MOESIM_STREAM_COLUMNS_EXTRA, layer, step},
                                COLUMNS_NORMAL,
                                (float)scale,
                                NULL,
                                n_experts,
                                columns->stride - n_experts,
                                columns->stride};
    const uint32_t n_chunks = n_rows / CHUNK_ROWS + (n_rows % CHUNK_ROWS != 0);
#pragma omp parallel for schedule(static)
    for (uint32_t chunk = 0; chunk < n_chunks; chunk++) {
        const uint32_t first = chunk * CHUNK_ROWS;
        const uint32_t last = n_rows - first < CHUNK_ROWS ? n_rows : first + CHUNK_ROWS;
        fill_rows(&experts, first, last, columns->values);
        fill_rows(&extra, first, last, columns->values);
    }
    batch->n_tokens = n_rows;
    batch->n_columns = columns->n_columns;
    batch->stride = columns->stride;
    batch->columns = columns->values;
}
