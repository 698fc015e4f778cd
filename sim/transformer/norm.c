#include "sim/transformer/norm.h"

#include <string.h>

void moesim_norm_forward(const struct moesim_norm *norm, const float *x, uint32_t n_rows, float *r, float *y)
{
    const size_t d = norm->d;
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_rows; t++)
        r[t] = norm->rows->norm(x + t * d, norm->gain, norm->d, y + t * d);
}

void moesim_norm_backward(const struct moesim_norm *norm, const float *x, const float *r, const float *d_y,
                          uint32_t n_rows, bool add, float *parts, float *d_x)
{
    const size_t d = norm->d;
    const uint32_t n_runs = (n_rows + NORM_RUN_ROWS - 1) / NORM_RUN_ROWS;
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < n_runs; i++) {
        float *part = parts + i * d;
        memset(part, 0, d * sizeof *part);
        for (uint32_t t = i * NORM_RUN_ROWS; t < n_rows && t < (i + 1) * NORM_RUN_ROWS; t++)
            norm->rows->norm_backward(x + t * d, norm->gain, r[t], d_y + t * d, norm->d, d_x + t * d, part);
    }
    if (!add)
        memset(norm->d_gain, 0, d * sizeof(float));
    for (uint32_t i = 0; i < n_runs; i++)
        for (size_t k = 0; k < d; k++)
            norm->d_gain[k] += parts[i * d + k];
}
