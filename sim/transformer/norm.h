/*
 * RMSNorm over the rows of a matrix (Zhang and Sennrich 2019): y = x / sqrt(mean(x^2) + 1e-6) * gain.
 */
#ifndef MOESIM_SIM_NORM_H
#define MOESIM_SIM_NORM_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/transformer/rows.h"

/* Rows whose share of the gain's gradient is summed up apart. */
#define NORM_RUN_ROWS 64

struct moesim_norm {
    uint32_t d;
    const struct moesim_rows *rows;
    float *gain, *d_gain; /* [d] */
};

/* y [n_rows][d] of x [n_rows][d]; r [n_rows] is what the backward pass needs. */
void moesim_norm_forward(const struct moesim_norm *norm, const float *x, uint32_t n_rows, float *r, float *y);

/* From d_y: d_x += the gradient by x; d_gain overwritten or, with `add`, added to. `parts` holds
 * ceil(n_rows / NORM_RUN_ROWS) rows of d floats. */
void moesim_norm_backward(const struct moesim_norm *norm, const float *x, const float *r, const float *d_y,
                          uint32_t n_rows, bool add, float *parts, float *d_x);

#endif
