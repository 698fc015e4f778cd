/* SPDX-License-Identifier: MIT
 *
 * The bias that steers selection without a gradient: rules that follow counts, and the dual step of quantile balancing.
 */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/contract/kernels/rows.h"

/* 1, 0 or -1 as expert e has less than, exactly or more than its even share; whole numbers, so that no rounding can
 * turn the sign. */
static int lack(uint64_t n, uint32_t n_experts, uint64_t total)
{
    const __uint128_t own = (__uint128_t)n * n_experts;
    return own < total ? 1 : own > total ? -1 : 0;
}

void moesim_bias_step(enum moesim_bias_update rule, double gamma, const uint64_t *n, uint32_t n_experts, float *bias)
{
    uint64_t total = 0;
    int64_t sum = 0;
    for (uint32_t e = 0; e < n_experts; e++)
        total += n[e];
    for (uint32_t e = 0; e < n_experts; e++)
        sum += lack(n[e], n_experts, total);
    const double mean = (double)total / n_experts;
    const double centre = rule == MOESIM_BIAS_SIGN_CENTRED ? (double)sum / n_experts : 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        double change = 0;
        if (rule == MOESIM_BIAS_SIGN || rule == MOESIM_BIAS_SIGN_CENTRED)
            change = lack(n[e], n_experts, total) - centre;
        else if (rule == MOESIM_BIAS_PROPORTIONAL && total > 0)
            change = (mean - (double)n[e]) / mean;
        bias[e] = (float)(bias[e] + gamma * change);
    }
}

/* ---- quantile balancing ---- */

#define MAX_THREADS 8 /* that share the rows */

/* The caller's work, cut up. */
struct work {
    float *alpha; /* [n_tokens]; NaN = the row takes no part */
    float *rows;  /* [MAX_THREADS][2][ROWS_LANES][n_experts]: values plus bias, then the best experts */
    void *rank;   /* of moesim_column_rank() */
};

static size_t rows_size(uint32_t n_experts)
{
    return (size_t)MAX_THREADS * 2 * ROWS_LANES * n_experts;
}

size_t moesim_quantile_bias_work(uint32_t max_tokens, uint32_t n_experts)
{
    return sizeof(float) * (max_tokens + rows_size(n_experts)) + moesim_column_rank_work(max_tokens);
}

static int n_threads(void)
{
    return omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS;
}

static bool all_finite(const float *row, uint32_t n)
{
    float zero = 0;
    for (uint32_t e = 0; e < n; e++)
        zero += row[e] * 0;
    return zero == 0;
}

/* alpha of eight rows, the last ones repeated at the end of the batch: the (k + 1)-th largest of scores plus bias. */
static void find_alpha(enum moesim_score score, const float *columns, size_t stride, uint32_t first, uint32_t last,
                       uint32_t n, uint32_t k, const float *bias, const uint8_t *skip, float *scratch, float *alpha)
{
    const struct rows_select select = {.n = n, .k = k + 1};
    const float *row[ROWS_LANES];
    uint32_t *best[ROWS_LANES];
    bool counts[ROWS_LANES];
    for (uint32_t l = 0; l < ROWS_LANES; l++) {
        const uint32_t t = first + l < last ? first + l : last - 1;
        float *own = scratch + (size_t)l * n;
        moesim_rows()->scores(score, columns + t * stride, n, own);
        counts[l] = !(skip && skip[t]) && all_finite(own, n);
        for (uint32_t e = 0; e < n; e++)
            own[e] += bias[e];
        row[l] = own;
        best[l] = (uint32_t *)(scratch + (ROWS_LANES + (size_t)l) * n);
    }
    moesim_rows()->select(&select, row, NULL, best, NULL);
    for (uint32_t l = 0; l < ROWS_LANES && first + l < last; l++)
        alpha[first + l] = counts[l] ? row[l][best[l][k]] : NAN;
}

void moesim_quantile_bias(enum moesim_score score, const float *columns, size_t stride, uint32_t n_tokens,
                          uint32_t n_experts, uint32_t k, const float *bias, const uint8_t *skip, void *work,
                          float *asked)
{
    struct work w = {.alpha = work};
    uint32_t n = 0;
    w.rows = w.alpha + n_tokens;
    w.rank = w.rows + rows_size(n_experts);
    assert(k < n_experts);
    memset(asked, 0, n_experts * sizeof *asked);
#pragma omp parallel for schedule(static) num_threads(n_threads()) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t t = 0; t < n_tokens; t += ROWS_LANES)
        find_alpha(score, columns, stride, t, n_tokens, n_experts, k, bias, skip,
                   w.rows + (size_t)omp_get_thread_num() * 2 * ROWS_LANES * n_experts, w.alpha);
    for (uint32_t t = 0; t < n_tokens; t++)
        n += w.alpha[t] == w.alpha[t];
    if (n == 0)
        return;
    moesim_column_rank(score, columns, stride, n_tokens, n_experts, w.alpha, (uint32_t)((uint64_t)n * k / n_experts),
                       w.rank, asked);
    for (uint32_t e = 0; e < n_experts; e++)
        asked[e] = -asked[e];
}
