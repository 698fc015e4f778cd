/*
 * Dense products of the Transformer, on the layer's kernels: rows are gathered into panels block by block, tasks of
 * (block, panels) have one shape for any number of threads, and so the bits do not depend on it.
 */
#ifndef MOESIM_SIM_LINEAR_H
#define MOESIM_SIM_LINEAR_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/layer/products.h"

/* A weight [n_in][n_out] in panels, and its gradient in the same layout. */
struct moesim_linear {
    uint32_t n_in, n_out;
    float *w, *d_w;
};

/* What all the dense products of a model share, one at a time. */
struct moesim_linear_work {
    const struct moesim_products *products;
    uint32_t n_threads;
    float *left, *right; /* [max_rows] of up to max_in and max_out columns, in panels by block of rows */
    float *turned;       /* a weight transposed */
    float **tile;        /* [n_threads] one task's result */
};

/* Room for products of up to max_rows rows with up to max_in columns on the left and max_out on the right. */
MOESIM_MUST_CHECK enum moesim_status moesim_linear_work_init(struct moesim_linear_work *work, uint32_t max_rows,
                                                             uint32_t max_in, uint32_t max_out,
                                                             const struct moesim_products *products,
                                                             struct moesim_arena *arena, struct moesim_error *err);

/* Bytes of the above with `n_threads` threads. */
uint64_t moesim_linear_work_bytes(uint32_t max_rows, uint32_t max_in, uint32_t max_out, uint32_t n_threads);

/* out [n_rows][n_out] = x [n_rows][n_in] w, plus base [n_rows][n_out] where that is not NULL. */
void moesim_linear_forward(const struct moesim_linear *linear, const struct moesim_linear_work *work, const float *x,
                           uint32_t n_rows, const float *base, float *out);

/* From d_out [n_rows][n_out]: d_x [n_rows][n_in] is overwritten, d_w overwritten or, with `add`, added to. */
void moesim_linear_backward(const struct moesim_linear *linear, const struct moesim_linear_work *work, const float *x,
                            const float *d_out, uint32_t n_rows, bool add, float *d_x);

/* Rows of one block, and panels of one task. */
#define LINEAR_BLOCK_ROWS 128
#define LINEAR_TILE_PANELS 8

/* Rows [n_rows] of `source`, n_columns of each and `stride` floats apart, into panels, times `scale`; the last panel is
 * filled up with zeros. And panels back into rows, times `scale`, added to what is there with `add`. */
void moesim_panels_gather(const struct moesim_products *products, const float *source, size_t stride, uint32_t n_rows,
                          uint32_t n_columns, float scale, float *panels);
void moesim_panels_put(const struct moesim_products *products, const float *panels, uint32_t n_rows, uint32_t n_columns,
                       float scale, bool add, size_t stride, float *rows);

#endif
