/* SPDX-License-Identifier: MIT
 *
 * Order statistics of columns: the value of a given rank among a batch's rows, for many columns at once.
 */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/contract/kernels/orders.h"
#include "sim/contract/kernels/rows.h"

#define COLUMNS 8     /* gathered together: a cache line of a row serves them all */
#define MAX_THREADS 8 /* that share the columns */
/* The caller's work, cut up. */
struct work {
    struct rows_norm *norm; /* [n_tokens] */
    uint32_t *order;        /* [MAX_THREADS][COLUMNS][n_tokens] */
};

size_t moesim_column_rank_work(uint32_t max_tokens)
{
    return max_tokens * (sizeof(struct rows_norm) + MAX_THREADS * COLUMNS * sizeof(uint32_t));
}

static void rank_columns(struct rows_orders o, uint32_t first, uint32_t rank, float *out)
{
    o.logits += first;
    const uint32_t n = moesim_rows()->orders(&o);
    assert(rank < n);
    for (uint32_t j = 0; j < o.n_columns; j++)
        out[first + j] = from_order(orders_nth_largest(o.order + (size_t)j * o.n_rows, n, rank));
}

void moesim_column_rank(enum moesim_score score, const float *columns, size_t stride, uint32_t n_tokens,
                        uint32_t n_columns, const float *base, uint32_t rank, void *work, float *out)
{
    const int n_threads = omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS;
    struct work w = {.norm = work};
    w.order = (uint32_t *)(w.norm + n_tokens);
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t t = 0; t < (score == MOESIM_SOFTMAX ? n_tokens : 0); t += ROWS_LANES) {
        const uint32_t n = n_tokens - t < ROWS_LANES ? n_tokens - t : ROWS_LANES;
        struct rows_norm norm[ROWS_LANES];
        const float *row[ROWS_LANES];
        for (uint32_t l = 0; l < ROWS_LANES; l++)
            row[l] = columns + (t + (l < n ? l : n - 1)) * stride;
        moesim_rows()->norms(score, row, n_columns, norm, NULL);
        memcpy(w.norm + t, norm, n * sizeof *norm);
    }
#pragma omp parallel for schedule(static) num_threads(n_threads) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t c = 0; c < n_columns; c += COLUMNS) {
        const struct rows_orders o = {score,
                                      columns,
                                      stride,
                                      n_tokens,
                                      n_columns - c < COLUMNS ? n_columns - c : COLUMNS,
                                      w.norm,
                                      base,
                                      w.order + (size_t)omp_get_thread_num() * COLUMNS * n_tokens};
        rank_columns(o, c, rank, out);
    }
}
