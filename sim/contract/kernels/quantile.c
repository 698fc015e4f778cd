/* SPDX-License-Identifier: MIT
 *
 * Order statistics of columns: the value of a given rank among a batch's rows, for many columns at once.
 */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/contract/kernels/rows.h"

#define COLUMNS 8     /* gathered together: a cache line of a row serves them all */
#define MAX_THREADS 8 /* that share the columns */
#define DIGIT_BITS 11
#define N_DIGITS (1u << DIGIT_BITS)

/* Whole numbers in the order of the floats they stand for; NaN is the last of all. */
static uint32_t to_order(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return x != x ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static float from_order(uint32_t order)
{
    const uint32_t bits = order & 0x80000000u ? order & 0x7fffffffu : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return order == 0 ? NAN : x;
}

/* The rank-th largest (from 0) of n orders: digit by digit from the top, those that share the digits so far are kept at
 * the front. Uses the array up. */
static uint32_t nth_largest(uint32_t *order, uint32_t n, uint32_t rank)
{
    static const int shifts[] = {32 - DIGIT_BITS, 32 - 2 * DIGIT_BITS, 0};
    uint32_t count[N_DIGITS];
    for (int i = 0; i < 3 && n > 1; i++) {
        const uint32_t mask = i < 2 ? N_DIGITS - 1 : (1u << (32 - 2 * DIGIT_BITS)) - 1;
        uint32_t digit = mask, n_kept = 0;
        memset(count, 0, sizeof count);
        for (uint32_t j = 0; j < n; j++)
            count[order[j] >> shifts[i] & mask]++;
        for (; rank >= count[digit]; digit--)
            rank -= count[digit];
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t x = order[j];
            order[n_kept] = x;
            n_kept += (x >> shifts[i] & mask) == digit;
        }
        n = n_kept;
    }
    return order[0];
}

static void rank_columns(const float *values, size_t stride, uint32_t n_tokens, uint32_t first, uint32_t n_columns,
                         const float *base, uint32_t rank, uint32_t *order, float *out)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < n_tokens; t++) {
        if (base[t] != base[t])
            continue;
        for (uint32_t j = 0; j < n_columns; j++)
            order[(size_t)j * n_tokens + n] = to_order(values[t * stride + first + j] - base[t]);
        n++;
    }
    assert(rank < n);
    for (uint32_t j = 0; j < n_columns; j++)
        out[first + j] = from_order(nth_largest(order + (size_t)j * n_tokens, n, rank));
}

size_t moesim_column_rank_work(uint32_t max_tokens)
{
    return (size_t)MAX_THREADS * COLUMNS * max_tokens * sizeof(uint32_t);
}

void moesim_column_rank(const float *values, size_t stride, uint32_t n_tokens, uint32_t n_columns, const float *base,
                        uint32_t rank, void *work, float *out)
{
    const int n_threads = omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS;
#pragma omp parallel for schedule(static) num_threads(n_threads) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t c = 0; c < n_columns; c += COLUMNS)
        rank_columns(values, stride, n_tokens, c, n_columns - c < COLUMNS ? n_columns - c : COLUMNS, base, rank,
                     (uint32_t *)work + (size_t)omp_get_thread_num() * COLUMNS * n_tokens, out);
}
