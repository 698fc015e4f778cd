/* SPDX-License-Identifier: MIT
 *
 * Sums of softmax over eight rows side by side, and how sure the rows are, for the two builds of rows.c. With
 * d = l - l_max and S = sum e^d, a row's entropy is ln S - sum e^d d / S, and ln sum e^l = l_max + ln S.
 */
#ifndef MOESIM_KERNELS_ROWS_CONFIDENCE_H
#define MOESIM_KERNELS_ROWS_CONFIDENCE_H

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/rows_choose.h"
#include "sim/contract/kernels/rows_scores.h"

/* sum_exps_part() of two rows side by side, from column `first` on, the parts of which go to out[2][n] unless that is
 * NULL; with `dot` (else NULL) the sums of e^d d too, to which NaN and what is below e^-87 add nothing. */
static inline __attribute__((always_inline)) void sum_two_parts(const float *const row[2], uint32_t first, uint32_t n,
                                                                float max_0, float max_1, float *out, v8f part[2],
                                                                v8f *dot)
{
    const uint32_t last = n - first < SUM_COLUMNS ? n : first + SUM_COLUMNS;
    v8f d[2], e[2];
    part[0] = part[1] = splat(0.0f);
    if (dot)
        dot[0] = dot[1] = splat(0.0f);
    for (uint32_t i = first; i < last; i += 8) {
        d[0] = load_some(row[0] + i, last - i) - splat(max_0);
        d[1] = load_some(row[1] + i, last - i) - splat(max_1);
        for (int j = 0; dot && j < 2; j++)
            d[j] = larger(d[j], splat(-88.0f)); /* NaN becomes -88 */
        exps_below_0(2, d, e);
        for (uint32_t j = 0; out && j < 2; j++)
            store_some(out + j * (size_t)n + i, last - i, e[j]);
        for (int j = 0; j < 2; j++)
            part[j] += e[j];
        for (int j = 0; dot && j < 2; j++)
            dot[j] += e[j] * d[j];
    }
}

/* The sums of softmax over eight rows, the parts of which go to out[8][n] unless that is NULL; with `dot` (else NULL)
 * those of e^d d, and 0 for both in a row with +inf or without a number. */
static inline __attribute__((always_inline)) v8f plain_sums(const float *const row[8], uint32_t n, v8f max, float *out,
                                                            v8f *dot)
{
    v8f part[8], dots[8];
    for (int l = 0; l < 8; l += 2) {
        float *own = out ? out + (size_t)l * n : NULL;
        sum_two_parts(row + l, 0, n, max[l], max[l + 1], own, part + l, dot ? dots + l : NULL);
        for (uint32_t i = SUM_COLUMNS; i < n; i += SUM_COLUMNS) {
            v8f more[2], more_dots[2];
            sum_two_parts(row + l, i, n, max[l], max[l + 1], own, more, dot ? more_dots : NULL);
            for (int j = 0; j < 2; j++)
                part[l + j] += more[j];
            for (int j = 0; dot && j < 2; j++)
                dots[l + j] += more_dots[j];
        }
    }
    if (dot)
        *dot = sum_eight(dots);
    return sum_eight(part);
}

static inline v8f load_or_0(const float *p, uint32_t n)
{
    v8f v = splat(0.0f);
    memcpy(&v, p, n * sizeof *p);
    return v;
}

/* moesim_ln(), the same bits. */
static inline v8f ln8(v8f x)
{
    static const float coefficient[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    const v8i above = (v8i)x - splat_id(0x3f3504f3);
    const v8f exponent = __builtin_convertvector(above >> 23, v8f);
    const v8f m = (v8f)((above & splat_id(0x007fffff)) + splat_id(0x3f3504f3)) - splat(1.0f), z = m * m;
    v8f y = splat(7.0376836292e-2f);
    for (int i = 0; i < 8; i++)
        y = y * m + splat(coefficient[i]);
    y = y * m * z;
    y += exponent * splat(-2.12194440e-4f);
    y -= splat(0.5f) * z;
    return m + y + exponent * splat(0.693359375f);
}

/* How sure rows are, from their largest values and sums. */
static inline __attribute__((always_inline)) void set_confidence(v8f max, v8f sum, v8f dot,
                                                                 struct rows_confidence *confidence)
{
    const v8f log_sum = ln8(sum), entropy = log_sum - dot / sum, size = max + log_sum;
    memcpy(confidence->entropy, &entropy, sizeof entropy);
    memcpy(confidence->size, &size, sizeof size);
}

/* plain_sums(), and how sure the rows are. */
static inline v8f sums_and_confidence(const float *const row[8], uint32_t n, v8f max,
                                      struct rows_confidence *confidence)
{
    v8f dot;
    const v8f sum = plain_sums(row, n, max, NULL, &dot);
    set_confidence(max, sum, dot, confidence);
    return sum;
}

/* The same from what softmax shares out, shares[8][n], in rows of at most SUM_COLUMNS numbers. */
static void confidence_of_shares(const float *const row[8], const float *shares, uint32_t n, v8f max, v8f sum,
                                 struct rows_confidence *confidence)
{
    v8f dot[8];
    for (int l = 0; l < 8; l++) {
        const float *own = shares + (size_t)l * n;
        dot[l] = splat(0.0f);
        for (uint32_t i = 0; i < n; i += 8) {
            const v8f e = n - i < 8 ? load_or_0(own + i, n - i) : load8(own + i);
            dot[l] += e * larger(load_some(row[l] + i, n - i) - splat(max[l]), splat(-88.0f));
        }
    }
    set_confidence(max, sum, sum_eight(dot), confidence);
}

/* A row with +inf, or without a finite value. */
static void odd_confidence(const float *row, uint32_t n, float *entropy, float *size)
{
    double largest = -INFINITY, sum = 0, dot = 0;
    uint32_t n_infinite = 0;
    for (uint32_t e = 0; e < n; e++) {
        n_infinite += row[e] == INFINITY;
        largest = isfinite(row[e]) && row[e] > largest ? row[e] : largest;
    }
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(row[e])) {
            sum += exp(row[e] - largest);
            dot += exp(row[e] - largest) * (row[e] - largest);
        }
    const bool bad = largest == -INFINITY;
    *entropy = bad ? NAN : (float)(n_infinite > 0 ? log(n_infinite) : log(sum) - dot / sum);
    *size = bad ? NAN : (float)(largest + log(sum));
}

/* Of any eight rows. */
static void rows_confidence(const float *const row[8], uint32_t n, struct rows_confidence *confidence)
{
    v8f max;
    for (int l = 0; l < 8; l++)
        max[l] = row_max(row[l], n);
    const v8f sum = sums_and_confidence(row, n, max, confidence);
    for (int l = 0; l < 8; l++)
        if (!(sum[l] > 0))
            odd_confidence(row[l], n, &confidence->entropy[l], &confidence->size[l]);
}

#endif
