/* SPDX-License-Identifier: MIT
 *
 * Products of a few token rows with a matrix, for the two builds of rows.c.
 */
#ifndef MOESIM_KERNELS_ROWS_PROJECT_H
#define MOESIM_KERNELS_ROWS_PROJECT_H

#include <string.h>

#include "sim/contract/kernels/rows.h"

typedef float v4f __attribute__((vector_size(16)));
typedef double v4d __attribute__((vector_size(32)));

/* Eight columns of ROWS_PROJECTED rows, which share what is read of the matrix. Sums in double, of products that double
 * holds exactly, in the order of i. */
static inline void project_eight(const float *const x[ROWS_PROJECTED], uint32_t d, const float *w, size_t n,
                                 float *const out[ROWS_PROJECTED])
{
    v4d sum[ROWS_PROJECTED][2] = {{{0}}};
    for (uint32_t i = 0; i < d; i++) {
        v4f part[2];
        memcpy(part, w + i * n, sizeof part);
        const v4d low = __builtin_convertvector(part[0], v4d), high = __builtin_convertvector(part[1], v4d);
        for (int r = 0; r < ROWS_PROJECTED; r++) {
            const double f = x[r][i];
            const v4d factor = {f, f, f, f};
            sum[r][0] += factor * low;
            sum[r][1] += factor * high;
        }
    }
    for (int r = 0; r < ROWS_PROJECTED; r++)
        for (int half = 0; half < 2; half++) {
            const v4f value = __builtin_convertvector(sum[r][half], v4f);
            memcpy(out[r] + 4 * half, &value, sizeof value);
        }
}

static void rows_project(const float *const x[ROWS_PROJECTED], uint32_t d, const float *w, uint32_t n, uint32_t first,
                         uint32_t last, float *const out[ROWS_PROJECTED])
{
    uint32_t j = first;
    for (; j + 8 <= last; j += 8) {
        float *const own[ROWS_PROJECTED] = {out[0] + j, out[1] + j, out[2] + j, out[3] + j};
        project_eight(x, d, w + j, n, own);
    }
    for (; j < last; j++)
        for (int r = 0; r < ROWS_PROJECTED; r++) {
            double sum = 0;
            for (uint32_t i = 0; i < d; i++)
                sum += (double)x[r][i] * w[(size_t)i * n + j];
            out[r][j] = (float)sum;
        }
}

#endif
