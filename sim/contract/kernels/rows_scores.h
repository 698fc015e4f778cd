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

/* What turns a logit of the row into its share: exp(x - max) / sum. With `infinite`, sum counts the +inf logits, which
 * share everything. The sum is NaN in a row without a finite value. An `odd` row has NaN or +inf. */
struct softmax {
    float max, sum;
    bool odd, infinite;
};

static inline v8f load_some(const float *p, uint32_t n)
{
    return n >= 8 ? load8(p) : load_tail(p, n);
}

static inline void store_some(float *p, uint32_t n, v8f x)
{
    memcpy(p, &x, (n < 8 ? n : 8) * sizeof *p);
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

/* The sum of exp(row - max), the parts of which go to `out` unless that is NULL. */
static inline __attribute__((always_inline)) float sum_exps(const float *row, uint32_t n, float max, float *out)
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
    return sum_lanes(acc);
}

/* +inf: 1 of sum, finite or -inf: 0, NaN: NaN. */
static inline v8f share_beside_infinity(v8f x)
{
    return pick(x == splat(INFINITY), splat(1.0f), pick(x == x, splat(0.0f), x));
}

/* A row with NaN or +inf: NaN takes no part. */
static struct softmax softmax_odd(const float *row, uint32_t n, float *out)
{
    struct softmax s = {.max = -INFINITY, .odd = true};
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
static inline __attribute__((always_inline)) struct softmax softmax_of(const float *row, uint32_t n, float max,
                                                                       float *out)
{
    const struct softmax s = {.max = max, .sum = sum_exps(row, n, max, out)};
    return s.sum == s.sum ? s : softmax_odd(row, n, out);
}

static inline v8f softmax8(const struct softmax *s, v8f x)
{
    return (s->infinite ? share_beside_infinity(x) : exp8(x - splat(s->max))) / splat(s->sum);
}

/* out[n] = the scores of the row; what they were made of, for softmax. */
static inline struct softmax score_row(enum moesim_score score, const float *row, uint32_t n, float *out)
{
    struct softmax s = {0};
    if (score == MOESIM_SOFTMAX) {
        s = softmax_of(row, n, row_max(row, n), out);
        for (uint32_t i = 0; i < n; i += 8)
            store_some(out + i, n - i, load_some(out + i, n - i) / splat(s.sum));
        return s;
    }
    const bool bad = !rows_any_finite(row, n);
    for (uint32_t i = 0; i < n; i += 8)
        store_some(out + i, n - i, bad ? splat(NAN) : score8(score, load_some(row + i, n - i)));
    return s;
}

/* ---- sums over rows ---- */

/* Whether scores are divided by their sum over experts before they are added up: those that do not add up to 1. */
static inline bool is_shared_out(enum moesim_score score)
{
    return score == MOESIM_SIGMOID || score == MOESIM_SQRT_SOFTPLUS;
}

/* What scores or parts of them are multiplied by before they are added up; NaN for a row that needs care, one with NaN
 * or with a sum that is no number. */
static inline float factor_of(enum moesim_score score, const float *scores, uint32_t n)
{
    v8f acc = splat(0.0f);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        acc += load8(scores + i);
    for (; i < n; i++)
        acc[0] += scores[i];
    const float sum = sum_lanes(acc), factor = is_shared_out(score) ? 1 / sum : 1;
    return sum - sum == 0 && factor - factor == 0 ? factor : NAN;
}

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

/* sum += the rows times their factors, added up in float first: there are at most eight. */
static inline void add_rows(const float *const row[8], const float factor[8], uint32_t n_rows, uint32_t n, double *sum)
{
    for (uint32_t i = 0; i < n; i += 8) {
        v8f part = splat(0.0f);
        for (uint32_t l = 0; l < n_rows; l++)
            part += load_some(row[l] + i, n - i) * splat(factor[l]);
        if (n - i >= 8) {
            v8d all;
            memcpy(&all, sum + i, sizeof all);
            all += __builtin_convertvector(part, v8d);
            memcpy(sum + i, &all, sizeof all);
        } else {
            for (uint32_t j = 0; j < n - i; j++)
                sum[i + j] += (double)part[j];
        }
    }
}

#endif
