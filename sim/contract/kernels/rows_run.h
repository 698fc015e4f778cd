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

/* e^x of n vectors. Of nine, three times three side by side need the fewest registers for the time that they wait. */
static inline __attribute__((always_inline)) void exps_of(const uint32_t n, v8f *x)
{
    if (n == 9)
        for (uint32_t j = 0; j < 9; j += 3)
            exps_or_0(3, x + j, x + j);
    else
        for (uint32_t j = 0; j < n; j += MOST_VECTORS)
            exps_or_0(MOST_VECTORS, x + j, x + j);
}

/* The k best of eight rows of at most eight columns, what softmax divides by and, in score[k], what it shares out to
 * them: a lane is a row all the way, and columns are added up as sum_lanes() does. Wrong in the lanes where the sum is
 * 0 or the k-th best -inf. */
static inline __attribute__((always_inline)) void best8_small(const float *const row[8], uint32_t n, const uint32_t k,
                                                              struct best *b, v8f *score, v8f *sum, v8f *dot)
{
    v8f x[8], e[8 + BLOCK_K + MOST_VECTORS], d[8];
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
    for (uint32_t c = 1; c < k; c++)
        e[7 + c] = b->top[c] - b->top[0];
    exps_of(7 + k, e);
    score[0] = splat(1.0f); /* e^0 */
    for (uint32_t c = 1; c < k; c++)
        score[c] = e[7 + c];
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

/* out[8][k] = share / sum. */
static inline __attribute__((always_inline)) void store_scores(v8f *share, v8f sum, const uint32_t k, float *out)
{
    for (uint32_t c = 0; c < k; c++)
        share[c] /= sum;
    store_columns(share, k, out);
}

/* A block of a run: expert[8][k], score[8][k]. False where a row is out of the ordinary. */
static inline __attribute__((always_inline)) bool run_block_small(const float *const row[8], uint32_t n,
                                                                  const uint32_t k, uint32_t *expert, float *score,
                                                                  struct rows_confidence *confidence)
{
    struct best b;
    v8f share[BLOCK_K], sum, dot;
    best8_small(row, n, k, &b, share, &sum, confidence ? &dot : NULL);
    if (any(~((v8i)(sum > splat(0.0f)) & (v8i)(b.top[k - 1] > splat(-INFINITY)))))
        return false;
    store_columns((const v8f *)b.id, k, (float *)expert);
    store_scores(share, sum, k, score);
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
    v8f top[BLOCK_K], share[BLOCK_K + MOST_VECTORS], sum, dot;
    uint32_t *lane[8];
    if (n <= 8 && score)
        return run_block_small(row, n, k, expert, score, confidence);
    lanes_of(expert, k, lane);
    if (!score)
        return choose(row, n, k, lane, NULL);
    if (best8(row, n, k, lane, top, &sum, confidence ? &dot : NULL) != 0)
        return false;
    for (uint32_t c = 1; c < k; c++)
        share[c] = top[c] - top[0];
    share[0] = splat(1.0f); /* e^0 */
    exps_of(k - 1, share + 1);
    store_scores(share, sum, k, score);
    if (confidence && any(dot != dot)) /* a value is not finite */
        rows_confidence(row, n, confidence);
    else if (confidence)
        set_confidence(top[0], sum, dot, confidence);
    return true;
}

/* What run_block() left. */
static void run_block_odd(const struct rows_select *s, const float *const row[8], uint32_t *expert, float *score,
                          struct rows_confidence *confidence)
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
    if (confidence)
        rows_confidence(row, s->n, confidence);
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
    if (n_experts == ROWS_FEW_EXPERTS && n % 8 == 0 && is_known) {
        place_few(expert, n, count, slot);
        return true;
    }
#endif
    for (uint32_t i = 0; is_known && i < n; i++)
        slot[i] = (int32_t)count[expert[i]]++;
    for (uint32_t i = 0; !is_known && i < n; i++) {
        if (expert[i] >= n_experts)
            return false;
        slot[i] = (int32_t)count[expert[i]]++;
    }
    return true;
}

/* Eight rows: expert[8][k] and score[8][k] (NULL = not wanted). Whether they are all of the ordinary kind, in which
 * every choice is an expert. */
static inline __attribute__((always_inline)) bool run_rows(const struct rows_select *s, const float *const row[8],
                                                           uint32_t n, const uint32_t k, uint32_t *expert, float *score,
                                                           struct rows_confidence *confidence)
{
    const bool is_plain = n <= 8 && score ? run_block_small(row, n, k, expert, score, confidence)
                                          : run_block(row, n, k, expert, score, confidence);
    if (!is_plain)
        run_block_odd(s, row, expert, score, confidence);
    return is_plain;
}

/* The rows from r on, fewer than eight: the last one is repeated, and what comes out is copied. */
static bool run_rest(const struct rows_select *s, const struct rows_run *run, uint32_t r)
{
    const uint32_t n_own = run->n_rows - r, k = s->k;
    struct rows_confidence confidence;
    uint32_t expert[8 * BLOCK_K];
    float score[8 * BLOCK_K];
    const float *row[8];
    for (uint32_t l = 0; l < 8; l++)
        row[l] = run->logits + (r + (l < n_own ? l : n_own - 1)) * run->stride;
    run_rows(s, row, s->n, k, expert, run->score ? score : NULL, run->confidence ? &confidence : NULL);
    if (run->confidence)
        add_confidence(run, r, n_own, &confidence);
    memcpy(run->expert + (size_t)r * k, expert, n_own * k * sizeof *expert);
    if (run->score)
        memcpy(run->score + (size_t)r * k, score, n_own * k * sizeof *score);
    return place_choices(expert, n_own * k, s->n, false, run->count, run->slot + (size_t)r * k);
}

static inline __attribute__((always_inline)) bool run_of(const struct rows_select *s, const struct rows_run *run,
                                                         uint32_t n, const uint32_t k)
{
    const size_t stride = run->stride;
    struct rows_confidence confidence;
    bool all = true;
    uint32_t r = 0;
    for (; r + 8 <= run->n_rows; r += 8) {
        const float *first = run->logits + r * stride, *row[8];
        uint32_t *expert = run->expert + (size_t)r * k;
        for (uint32_t l = 0; l < 8; l++)
            row[l] = first + l * stride;
        for (uint32_t l = 0; run->n_rows - r > 24 && l < 8; l++)
            rows_prefetch(row[l] + 16 * stride, n);
        const bool is_plain = run_rows(s, row, n, k, expert, run->score ? run->score + (size_t)r * k : NULL,
                                       run->confidence ? &confidence : NULL);
        if (run->confidence && is_plain && (run->token + r) % 8 == 0)
            confidence_add_eight(run->confidence, &confidence);
        else if (run->confidence)
            add_confidence(run, r, 8, &confidence);
        all = all && place_choices(expert, 8 * k, n, is_plain, run->count, run->slot + (size_t)r * k);
    }
    return (r == run->n_rows || run_rest(s, run, r)) && all;
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
