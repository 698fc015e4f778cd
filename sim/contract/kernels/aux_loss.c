/* SPDX-License-Identifier: MIT
 *
 * Auxiliary losses that keep experts evenly loaded, and their gradients.
 */
#include <math.h>

#include <moesim/kernels.h>

#include "sim/contract/kernels/rows.h"

/* Rows are added up by parts, the same on any number of threads. */
#define N_PARTS 64

static uint32_t part_start(uint32_t n_tokens, uint32_t i)
{
    return (uint32_t)((uint64_t)n_tokens * i / N_PARTS);
}

static bool left_out(const uint8_t *skip, const float *row, uint32_t t, uint32_t n)
{
    return (skip && skip[t]) || !rows_any_finite(row, n);
}

/* P_e in double: the mean over rows, one expert at a time in row order. */
double moesim_aux_switch(const float *scores, uint32_t n_tokens, uint32_t n_experts, const uint8_t *skip,
                         const uint64_t *n, double coef, float *d_scores)
{
    uint64_t n_pairs = 0;
    uint32_t n_rows = 0;
    double sum = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        n_pairs += n[e];
    if (n_pairs == 0)
        return 0;
    for (uint32_t t = 0; t < n_tokens; t++) {
        const float *row = scores + (size_t)t * n_experts;
        if (left_out(skip, row, t, n_experts))
            continue;
        n_rows++;
        for (uint32_t e = 0; e < n_experts; e++)
            if (row[e] == row[e])
                sum += (double)n[e] * row[e];
    }
    const double factor = coef * n_experts / (double)n_pairs / (n_rows > 0 ? n_rows : 1);
    for (uint32_t t = 0; d_scores && t < n_tokens; t++) {
        const float *row = scores + (size_t)t * n_experts;
        if (left_out(skip, row, t, n_experts))
            continue;
        for (uint32_t e = 0; e < n_experts; e++)
            d_scores[(size_t)t * n_experts + e] += (float)(factor * (double)n[e]);
    }
    return factor * sum;
}

double moesim_aux_cv2(const double *x, uint32_t n, double coef, double *d_x)
{
    double mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += x[i];
    mean /= n;
    for (uint32_t i = 0; i < n; i++)
        var += (x[i] - mean) * (x[i] - mean);
    var /= n;
    const double square = mean * mean + 1e-10;
    for (uint32_t i = 0; d_x && i < n; i++)
        d_x[i] += coef * 2 / n * ((x[i] - mean) / square - var * mean / (square * square));
    return coef * var / square;
}

/* Adds the gradient of coef / n_rows * z^2 of one row. */
static void z_backward(const float *row, uint32_t n, double z, double factor, float *d_row)
{
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(row[e]))
            d_row[e] += (float)(factor * 2 * z * exp(row[e] - z));
}

double moesim_aux_z(const float *logits, size_t stride, uint32_t n_tokens, uint32_t n_experts, const uint8_t *skip,
                    double coef, float *d_logits)
{
    double sum[N_PARTS] = {0}, all = 0;
    uint32_t n[N_PARTS] = {0}, n_rows = 0;
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t i = 0; i < N_PARTS; i++)
        for (uint32_t t = part_start(n_tokens, i); t < part_start(n_tokens, i + 1); t++) {
            const double z = skip && skip[t] ? NAN : moesim_rows()->size(logits + t * stride, n_experts);
            sum[i] += z == z ? z * z : 0;
            n[i] += z == z;
        }
    for (uint32_t i = 0; i < N_PARTS; i++) {
        all += sum[i];
        n_rows += n[i];
    }
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t t = 0; t < (d_logits ? n_tokens : 0); t++) {
        const double z = skip && skip[t] ? NAN : moesim_rows()->size(logits + t * stride, n_experts);
        if (z == z)
            z_backward(logits + t * stride, n_experts, z, coef / n_rows, d_logits + t * stride);
    }
    return n_rows > 0 ? coef * all / n_rows : 0;
}
