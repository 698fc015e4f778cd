/* SPDX-License-Identifier: MIT
 *
 * Products of token rows with a router's own weights, in a fixed order of sums.
 */
#include <omp.h>

#include <moesim/kernels.h>

#include "sim/contract/kernels/rows.h"

#define BLOCK_ROWS 32 /* tokens of one thread at a time */
#define TILE_COLUMNS 32

/* Rows [first, last) of out = x w, columns [from, to): a few columns of the matrix stay at hand for all of them. */
static void project_block(const float *x, uint32_t first, uint32_t last, uint32_t d, const float *w, uint32_t n,
                          uint32_t from, uint32_t to, float *out)
{
    for (uint32_t t = first; t < last; t += ROWS_PROJECTED) {
        const float *row[ROWS_PROJECTED];
        float *own[ROWS_PROJECTED];
        for (uint32_t r = 0; r < ROWS_PROJECTED; r++) {
            const size_t token = t + r < last ? t + r : last - 1; /* spare ones repeat the last row */
            row[r] = x + token * d;
            own[r] = out + token * n;
        }
        moesim_rows()->project(row, d, w, n, from, to, own);
    }
}

void moesim_project(const float *x, uint32_t n_tokens, uint32_t d, const float *w, uint32_t n, float *out)
{
    const uint32_t n_blocks = n_tokens / BLOCK_ROWS + (n_tokens % BLOCK_ROWS > 0);
#pragma omp parallel for schedule(static) if (n_tokens >= BLOCK_ROWS * 2)
    for (uint32_t b = 0; b < n_blocks; b++) {
        const uint32_t first = b * BLOCK_ROWS, rest = n_tokens - first;
        for (uint32_t j = 0; j < n; j += TILE_COLUMNS)
            project_block(x, first, first + (rest < BLOCK_ROWS ? rest : BLOCK_ROWS), d, w, n, j,
                          n - j < TILE_COLUMNS ? n : j + TILE_COLUMNS, out);
    }
}

/* sum[0 .. n) += x * w[0 .. n) */
static inline void add_row(float x, const float *restrict w, uint32_t n, float *restrict sum)
{
    for (uint32_t j = 0; j < n; j++)
        sum[j] += x * w[j];
}

void moesim_project_backward(const float *x, const float *w, const float *d_out, uint32_t n_tokens, uint32_t d,
                             uint32_t n, float *d_x, float *d_w)
{
#pragma omp parallel for schedule(static) if (n_tokens >= BLOCK_ROWS * 2)
    for (uint32_t t = 0; t < (d_x ? n_tokens : 0); t++)
        for (uint32_t i = 0; i < d; i++) {
            float sum = 0;
            for (uint32_t j = 0; j < n; j++)
                sum += d_out[(size_t)t * n + j] * w[(size_t)i * n + j];
            d_x[(size_t)t * d + i] += sum;
        }
#pragma omp parallel for schedule(static) if (n_tokens >= BLOCK_ROWS * 2)
    for (uint32_t i = 0; i < (d_w ? d : 0); i++)
        for (uint32_t t = 0; t < n_tokens; t++)
            if (x[(size_t)t * d + i] - x[(size_t)t * d + i] == 0)
                add_row(x[(size_t)t * d + i], d_out + (size_t)t * n, n, d_w + (size_t)i * n);
}
