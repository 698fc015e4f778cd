/* SPDX-License-Identifier: MIT
 *
 * Softmax scores of the k best logits, which is what most routers ask for, of a run of rows one after the other, whose
 * choices are counted on the way. For the two builds of rows.c, after its find_norms() and chosen_scores(), which know
 * what to do with rows that are not finite.
 */
#ifndef MOESIM_KERNELS_ROWS_RUN_H
#define MOESIM_KERNELS_ROWS_RUN_H

#include <string.h>

#include "sim/contract/kernels/rows_best.h"
#include "sim/contract/kernels/rows_choose.h"
#include "sim/contract/kernels/rows_confidence.h"
#include "sim/contract/kernels/rows_few.h"
#include "sim/contract/confidence.h"

/* The k best of eight rows of at most eight columns, and what softmax divides by: a lane is a row all the way, and
 * columns are added up as sum_lanes() does. Wrong in the lanes where the sum is 0 or the k-th best -inf. */
static inline __attribute__((always_inline)) void best8_small(const float *const row[8], uint32_t n, const uint32_t k,
                                                              struct best *b, v8f *sum, v8f *dot)
{
    v8f x[8], e[8], d[8];
    for (int l = 0; l < 8; l++)
        x[l] = larger(n == 8 ? load8(row[l]) : load_tail(row[l], n), splat(-INFINITY)); /* NaN takes no part */
    transpose8(x);
    b->top[0] = x[0];
    b->id[0] = splat_id(0);
    for (uint32_t c = 1; c < k; c++) {
        b->top[c] = splat(-INFINITY);
        b->id[c] = splat_id(-1);
    }
#pragma GCC unroll 7
    for (int j = 1; j < 8; j++)
        best_insert(b, k, x[j], splat_id(j));
    for (int j = 0; j < 8; j++)
        e[j] = x[j] - b->top[0];
    for (int j = 0; dot && j < 8; j++)
        d[j] = larger(e[j], splat(-88.0f)); /* also where there is no column */
    exps_or_0(4, e, e);
    exps_or_0(4, e + 4, e + 4);
    for (int j = 0; dot && j < 8; j++)
        d[j] *= e[j];
    if (dot)
        *dot = ((d[0] + d[4]) + (d[2] + d[6])) + ((d[1] + d[5]) + (d[3] + d[7]));
    *sum = ((e[0] + e[4]) + (e[2] + e[6])) + ((e[1] + e[5]) + (e[3] + e[7]));
}

/* out[8][k] = the columns' lanes. */
static inline __attribute__((always_inline)) void store_columns(const v8f *column, const uint32_t k, float *out)
{
    if (k == 1) {
        memcpy(out, column, sizeof *column);
    } else if (k == 2) {
        const v8f a = column[0], b = column[1];
        const v8f low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13);
        const v8f high = __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
        const v8f first = __builtin_shufflevector(low, high, 0, 1, 2, 3, 8, 9, 10, 11);
        const v8f second = __builtin_shufflevector(low, high, 4, 5, 6, 7, 12, 13, 14, 15);
        memcpy(out, &first, sizeof first);
        memcpy(out + 8, &second, sizeof second);
    } else {
        for (uint32_t c = 0; c < k; c++)
            for (uint32_t l = 0; l < 8; l++)
                out[l * k + c] = column[c][l];
    }
}

/* score[8][k] = exp(top - the largest) / sum. */
static inline __attribute__((always_inline)) void plain_scores(const v8f *top, v8f sum, const uint32_t k, float *score)
{
    v8f y[BLOCK_K];
    y[0] = splat(1.0f) / sum; /* exp8_below_0(0) is 1 */
    for (uint32_t c = 1; c < k; c++)
        y[c] = top[c] - top[0];
    for (uint32_t c = 1; c < k; c++)
        exps_or_0(1, y + c, y + c);
    for (uint32_t c = 1; c < k; c++)
        y[c] /= sum;
    store_columns(y, k, score);
}

/* A block of a run: expert[8][k], score[8][k]. False where a row is out of the ordinary. */
static inline __attribute__((always_inline)) bool run_block_small(const float *const row[8], uint32_t n,
                                                                  const uint32_t k, uint32_t *expert, float *score,
                                                                  struct rows_confidence *confidence)
{
    struct best b;
    v8f sum, dot;
    best8_small(row, n, k, &b, &sum, confidence ? &dot : NULL);
    if (any(~((v8i)(sum > splat(0.0f)) & (v8i)(b.top[k - 1] > splat(-INFINITY)))))
        return false;
    store_columns((const v8f *)b.id, k, (float *)expert);
    plain_scores(b.top, sum, k, score);
    if (confidence)
        set_confidence(b.top[0], sum, dot, confidence);
    return true;
}

static inline void lanes_of(uint32_t *expert, uint32_t k, uint32_t *lane[8])
{
    for (uint32_t l = 0; l < 8; l++)
        lane[l] = expert + (size_t)l * k;
}

/* The same of any number of columns; score NULL = not wanted. */
static bool run_block(const float *const row[8], uint32_t n, uint32_t k, uint32_t *expert, float *score,
                      struct rows_confidence *confidence)
{
    v8f top[BLOCK_K], sum, dot;
    uint32_t *lane[8];
    if (n <= 8 && score)
        return run_block_small(row, n, k, expert, score, confidence);
    lanes_of(expert, k, lane);
    if (!score)
        return choose(row, n, k, lane, NULL);
    if (best8(row, n, k, lane, top, &sum, confidence ? &dot : NULL) != 0)
        return false;
    plain_scores(top, sum, k, score);
    if (confidence)
        set_confidence(top[0], sum, dot, confidence);
    return true;
}

/* What run_block() left. */
static void run_block_odd(const struct rows_select *s, const float *const row[8], uint32_t *expert, float *score)
{
    struct rows_norm norm[8];
    uint32_t *lane[8];
    float *scores[8];
    lanes_of(expert, s->k, lane);
    choose(row, s->n, s->k, lane, NULL);
    for (uint32_t l = 0; score && l < 8; l++)
        scores[l] = score + (size_t)l * s->k;
    if (score) {
        find_norms(s, row, NULL, lane, norm);
        chosen_scores(s, row, norm, lane, scores);
    }
    if (s->confidence)
        rows_confidence(row, s->n, s->confidence);
}

/* Adds the confidence of n rows from row r of the run on. */
static void add_confidence(const struct rows_run *run, uint32_t r, uint32_t n, const struct rows_confidence *of)
{
    uint32_t token[ROWS_LANES];
    for (uint32_t l = 0; l < n; l++)
        token[l] = run->token + r + l;
    confidence_add(run->confidence, token, n, of);
}

/* The places of n choices among those of their experts; false where one has no expert, unless all are known to have
 * one. */
static inline __attribute__((always_inline)) bool place_choices(const uint32_t *expert, uint32_t n, uint32_t n_experts,
                                                                bool is_known, uint32_t *count, int32_t *slot)
{
#ifdef __AVX2__
    if (n_experts == FEW_EXPERTS && n % 8 == 0 && is_known) {
        place_few(expert, n, count, slot);
        return true;
    }
#endif
    (void)is_known;
    for (uint32_t i = 0; i < n; i++) {
        if (expert[i] >= n_experts)
            return false;
        slot[i] = (int32_t)count[expert[i]]++;
    }
    return true;
}

/* Asks for a row that is needed two blocks later: the rows of a block are read side by side, which hides the stream
 * from the hardware's own prefetcher. */
static inline void prefetch_row(const float *row, uint32_t n)
{
    for (uint32_t i = 0; n > 16 && i < n; i += 16)
        __builtin_prefetch(row + i);
}

/* Blocks of eight rows; a last one of fewer repeats its last row and is copied. */
static inline __attribute__((always_inline)) bool run_of(const struct rows_select *s, const struct rows_run *run,
                                                         uint32_t n, const uint32_t k)
{
    struct rows_confidence confidence;
    struct rows_select own_s = *s;
    own_s.confidence = run->confidence ? &confidence : NULL;
    bool all = true;
    for (uint32_t r = 0; r < run->n_rows; r += 8) {
        const uint32_t n_own = run->n_rows - r < 8 ? run->n_rows - r : 8;
        uint32_t own[8 * BLOCK_K];
        float own_score[8 * BLOCK_K];
        uint32_t *expert = n_own == 8 ? run->expert + (size_t)r * k : own;
        float *score = !run->score ? NULL : n_own == 8 ? run->score + (size_t)r * k : own_score;
        const float *row[8];
        for (uint32_t l = 0; l < 8; l++) {
            row[l] = run->logits + (r + (l < n_own ? l : n_own - 1)) * run->stride;
            if (run->n_rows - r > 24)
                prefetch_row(row[l] + 16 * run->stride, n);
        }
        const bool is_plain = n <= 8 && score ? run_block_small(row, n, k, expert, score, own_s.confidence)
                                              : run_block(row, n, k, expert, score, own_s.confidence);
        if (!is_plain)
            run_block_odd(&own_s, row, expert, score);
        if (run->confidence)
            add_confidence(run, r, n_own, &confidence);
        if (n_own < 8) {
            memcpy(run->expert + (size_t)r * k, own, n_own * k * sizeof *own);
            if (run->score)
                memcpy(run->score + (size_t)r * k, own_score, n_own * k * sizeof *own_score);
        }
        all = all && place_choices(expert, n_own * k, n, is_plain, run->count, run->slot + (size_t)r * k);
    }
    return all;
}

static bool rows_select_run(const struct rows_select *s, const struct rows_run *run)
{
#ifdef __AVX2__
    if (s->n == 8 && s->k == 2)
        return run_of(s, run, 8, 2);
    if (s->n == 8 && s->k == 1)
        return run_of(s, run, 8, 1);
#endif
    return run_of(s, run, s->n, s->k);
}

#endif
