/* SPDX-License-Identifier: MIT
 *
 * Scores of one row, and their sums over rows, for the two builds of rows.c.
 */
#ifndef MOESIM_KERNELS_ROWS_SCORES_H
#define MOESIM_KERNELS_ROWS_SCORES_H

#include <math.h>
#include <string.h>

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"

static inline v8f load_some(const float *p, uint32_t n)
{
    return n >= 8 ? load8(p) : load_tail(p, n);
}

static inline void store_some(float *p, uint32_t n, v8f x)
{
    if (n >= 8)
        memcpy(p, &x, sizeof x);
    else
        memcpy(p, &x, n * sizeof *p);
}

static inline float row_max(const float *row, uint32_t n)
{
    v8f m = splat(-INFINITY);
    for (uint32_t i = 0; i < n; i += 8) {
        const v8f x = load_some(row + i, n - i);
        m = larger(x, m); /* m where x is NaN */
    }
    float max = m[0];
    for (int j = 1; j < 8; j++)
        max = m[j] > max ? m[j] : max;
    return max;
}

#define SUM_COLUMNS 4096u /* a sum of more is a sum of such sums: a float that grows too long loses what is added */

static inline __attribute__((always_inline)) v8f sum_exps_part(const float *row, uint32_t n, float max, float *out)
{
    v8f acc = splat(0.0f);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8f e = exp8_below_0(load8(row + i) - splat(max));
        if (out)
            memcpy(out + i, &e, sizeof e);
        acc += e;
    }
    if (i < n) {
        const v8f e = exp8_below_0(load_tail(row + i, n - i) - splat(max));
        if (out)
            store_some(out + i, n - i, e);
        acc += e;
    }
    return acc;
}

/* The sum of exp(row - max), the parts of which go to `out` unless that is NULL. */
static inline __attribute__((always_inline)) float sum_exps(const float *row, uint32_t n, float max, float *out)
{
    v8f acc = sum_exps_part(row, n < SUM_COLUMNS ? n : SUM_COLUMNS, max, out);
    for (uint32_t i = SUM_COLUMNS; i < n; i += SUM_COLUMNS)
        acc += sum_exps_part(row + i, n - i < SUM_COLUMNS ? n - i : SUM_COLUMNS, max, out ? out + i : NULL);
    return sum_lanes(acc);
}

/* +inf: 1 of sum, finite or -inf: 0, NaN: NaN. */
static inline v8f share_beside_infinity(v8f x)
{
    return pick(x == splat(INFINITY), splat(1.0f), pick(x == x, splat(0.0f), x));
}

/* A row with NaN or +inf: NaN takes no part. */
static struct rows_norm softmax_odd(const float *row, uint32_t n, float *out)
{
    struct rows_norm s = {.max = -INFINITY, .odd = true};
    uint32_t n_infinite = 0;
    for (uint32_t i = 0; i < n; i++) {
        const bool finite = row[i] - row[i] == 0;
        if (finite && row[i] > s.max)
            s.max = row[i];
        n_infinite += row[i] == INFINITY;
    }
    s.infinite = n_infinite > 0;
    v8f acc = splat(0.0f);
    for (uint32_t i = 0; i < n; i += 8) {
        const v8f x = load_some(row + i, n - i);
        const v8f e = s.infinite ? share_beside_infinity(x) : exp8(x - splat(s.max));
        acc += pick(e == e, e, splat(0.0f));
        if (out)
            store_some(out + i, n - i, e);
    }
    s.sum = s.max == -INFINITY ? NAN : s.infinite ? (float)n_infinite : sum_lanes(acc);
    return s;
}

/* The row's softmax; `out` (NULL = not wanted) gets what it shares out: score = out / sum. */
static inline __attribute__((always_inline)) struct rows_norm softmax_of(const float *row, uint32_t n, float max,
                                                                         float *out)
{
    const struct rows_norm s = {.max = max, .sum = sum_exps(row, n, max, out)};
    return s.sum == s.sum ? s : softmax_odd(row, n, out);
}

static inline v8f softmax8(const struct rows_norm *s, v8f x)
{
    return (s->infinite ? share_beside_infinity(x) : exp8(x - splat(s->max))) / splat(s->sum);
}

/* Whether scores are divided by their sum over experts before they are added up over rows: those that do not
 * add up to 1. */
static inline bool is_shared_out(enum moesim_score score)
{
    return score == MOESIM_SIGMOID || score == MOESIM_SQRT_SOFTPLUS;
}

/* Whether that sum is no number to divide by, or NaN is in it. */
static inline bool is_odd_sum(enum moesim_score score, float sum)
{
    return !(sum - sum == 0) || (is_shared_out(score) && !(1 / sum < INFINITY));
}

/* out[n] = the scores of the row by a function of one logit; returns their sum. */
static inline __attribute__((always_inline)) float score_each(const enum moesim_score score, const float *row,
                                                              uint32_t n, float *out)
{
    v8f acc = splat(0.0f);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8f y = score8(score, load8(row + i));
        memcpy(out + i, &y, sizeof y);
        acc += y;
    }
    if (i < n) { /* what is missing scores 0 */
        const v8f y = score8(score, load_tail(row + i, n - i));
        store_some(out + i, n - i, y);
        acc += y;
    }
    return sum_lanes(acc);
}

/* out[n] = the scores of the row. */
static inline struct rows_norm score_row(enum moesim_score score, const float *row, uint32_t n, float *out)
{
    struct rows_norm s = {0};
    switch (score) {
    case MOESIM_SOFTMAX:
        s = softmax_of(row, n, row_max(row, n), out);
        for (uint32_t i = 0; i < n; i += 8)
            store_some(out + i, n - i, load_some(out + i, n - i) / splat(s.sum));
        return s;
    case MOESIM_SIGMOID:
        s.sum = score_each(MOESIM_SIGMOID, row, n, out);
        break;
    case MOESIM_SQRT_SOFTPLUS:
        s.sum = score_each(MOESIM_SQRT_SOFTPLUS, row, n, out);
        break;
    case MOESIM_RELU:
        s.sum = score_each(MOESIM_RELU, row, n, out);
        break;
    case MOESIM_IDENTITY:
        s.sum = score_each(MOESIM_IDENTITY, row, n, out);
        break;
    }
    const bool bad = !rows_any_finite(row, n);
    for (uint32_t i = 0; bad && i < n; i++)
        out[i] = NAN;
    s.odd = bad || is_odd_sum(score, s.sum);
    return s;
}

/* ---- sums over rows ---- */

/* sum += a row of scores, each divided by `norm`, with NaN, which count as 0, or with a sum beyond float. */
static void add_odd_row(enum moesim_score score, const float *scores, float norm, uint32_t n, double *sum)
{
    double total = 1e-20;
    for (uint32_t i = 0; i < n; i++)
        total += scores[i] == scores[i] ? (double)scores[i] : 0;
    for (uint32_t i = 0; norm == norm && i < n; i++)
        sum[i] += scores[i] == scores[i] ? (double)scores[i] / (is_shared_out(score) ? total : norm) : 0;
}

typedef double v8d __attribute__((vector_size(64)));

/* sum += the first n of x. */
static inline void add_doubles(v8f x, uint32_t n, double *sum)
{
    if (n >= 8) {
        v8d all;
        memcpy(&all, sum, sizeof all);
        all += __builtin_convertvector(x, v8d);
        memcpy(sum, &all, sizeof all);
    } else {
        for (uint32_t j = 0; j < n; j++)
            sum[j] += (double)x[j];
    }
}

/* sum += the rows times their factors, added up in float first: there are at most eight. */
static inline void add_rows(const float *const row[8], const float factor[8], uint32_t n_rows, uint32_t n, double *sum)
{
    for (uint32_t i = 0; i < n; i += 8) {
        v8f part = splat(0.0f);
        for (uint32_t l = 0; l < n_rows; l++)
            part += load_some(row[l] + i, n - i) * splat(factor[l]);
        add_doubles(part, n - i, sum + i);
    }
}

#endif
