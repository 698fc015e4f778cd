/* SPDX-License-Identifier: MIT
 *
 * The k best of each of eight rows of more than eight columns, for the two builds of rows.c. A lane's largest value
 * over a row's vectors is one of the row's values, so the k-th best of the lanes' largest is a bound that at least k
 * values reach and few others: those are picked out and put in order.
 */
#ifndef MOESIM_KERNELS_ROWS_BEST_H
#define MOESIM_KERNELS_ROWS_BEST_H

#include <math.h>
#include <string.h>

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/rows_scores.h"

#define BEST_COLUMNS ROWS_RUN_COLUMNS /* most columns: a bit for each of eight rows on the stack */
#define BEST_CANDIDATES 64            /* more values that reach the bound are ties, for choose_row() */

/* One row, any k, any values. */
static void choose_row(const float *v, uint32_t n, uint32_t k, uint32_t *expert)
{
    uint32_t count = 0;
    if (rows_any_finite(v, n)) {
        for (uint32_t e = 0; e < n; e++) {
            const float x = v[e];
            if (x != x || (count == k && !(x > v[expert[k - 1]])))
                continue;
            uint32_t c = count < k ? count++ : k - 1;
            for (; c > 0 && x > v[expert[c - 1]]; c--)
                expert[c] = expert[c - 1];
            expert[c] = e;
        }
    }
    for (; count < k; count++)
        expert[count] = MOESIM_NO_EXPERT;
}

static inline void transpose8(v8f r[8])
{
    v8f t[8], u[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = __builtin_shufflevector(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        t[i + 1] = __builtin_shufflevector(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4) {
        u[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        u[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        u[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        r[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

static inline v8i splat_id(int32_t i)
{
    return (v8i){i, i, i, i, i, i, i, i};
}

/* expert[n] = the ids by falling value, of equal ones as they stand: each goes to the place of the number of those
 * before it. `value` has
 * room for eight more. */
static void rank_by_counting(const float *value, const uint32_t *id, uint32_t n, uint32_t *expert)
{
    const v8i lane = {0, 1, 2, 3, 4, 5, 6, 7};
    for (uint32_t i = 0; i < n; i += 8) {
        const v8f x = load8(value + i);
        const uint32_t end = n - i < 8 ? n : i + 8;
        v8i place = splat_id(0);
        uint32_t j = 0;
        for (; j < i; j++)
            place -= splat(value[j]) >= x;
        for (; j < end; j++)
            place -= pick_id(lane > splat_id((int32_t)(j - i)), splat(value[j]) >= x, splat(value[j]) > x);
        for (; j < n; j++)
            place -= splat(value[j]) > x;
        for (uint32_t l = 0; l < end - i; l++)
            expert[place[l]] = id[i + l];
    }
}

/* The fixed tree over the lanes of each of eight vectors. */
static inline v8f sum_eight(v8f part[8])
{
    transpose8(part);
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

/* Bit e tells whether column e reaches its row's bound. */
struct marks {
    union {
        uint8_t byte[BEST_COLUMNS / 8];
        uint64_t word[BEST_COLUMNS / 64];
    } row[8];
};

static inline void compare_exchange(v8f *a, v8f *b)
{
    const v8f x = larger(*a, *b);
    *b = smaller(*a, *b);
    *a = x;
}

/* Batcher's odd-even merge sort of eight. */
static const uint8_t sort8_pair[19][2] = {{0, 1}, {2, 3}, {4, 5}, {6, 7}, {0, 2}, {1, 3}, {4, 6},
                                          {5, 7}, {1, 2}, {5, 6}, {0, 4}, {1, 5}, {2, 6}, {3, 7},
                                          {2, 4}, {3, 5}, {1, 2}, {3, 4}, {5, 6}};

/* Eight values of each lane by falling value. */
static inline void sort8(v8f x[8])
{
#pragma GCC unroll 19
    for (int i = 0; i < 19; i++)
        compare_exchange(&x[sort8_pair[i][0]], &x[sort8_pair[i][1]]);
}

/* The largest of a row's vectors i with i % n_parts == j, lane by lane, into part[j]. */
static inline __attribute__((always_inline)) void largest_lanes(const float *row, uint32_t n, const uint32_t n_parts,
                                                                v8f *part)
{
    uint32_t i = 0;
    for (uint32_t j = 0; j < n_parts; j++)
        part[j] = splat(-INFINITY);
    for (; i + 8 * n_parts <= n; i += 8 * n_parts)
        for (uint32_t j = 0; j < n_parts; j++)
            part[j] = larger(load8(row + i + 8 * j), part[j]);
    for (uint32_t j = 0; i < n; i += 8, j++)
        part[j] = larger(load_some(row + i, n - i), part[j]);
}

/* Of eight rows, lane by lane: the largest value, and a bound that k values reach, k at most 4 n_parts, or 16 with four
 * parts. */
static inline __attribute__((always_inline)) void bound8(const float *const row[8], uint32_t n, uint32_t k,
                                                         const uint32_t n_parts, float *max, float *cut)
{
    v8f part[4][8];
    for (uint32_t l = 0; l < 8; l++) {
        v8f own[4];
        largest_lanes(row[l], n, n_parts, own);
        for (uint32_t j = 0; j < n_parts; j++)
            part[j][l] = own[j];
    }
    for (uint32_t j = 0; j < n_parts; j++) {
        transpose8(part[j]);
        sort8(part[j]);
    }
    v8f most = part[0][0], least = n_parts == 1 ? part[0][k - 1] : splat(INFINITY);
    for (uint32_t j = 0; j + 1 < n_parts; j += 2) { /* the eight best of two parts are the larger of these pairs */
        most = larger(most, larger(part[j][0], part[j + 1][0]));
        for (int i = 0; i < 8; i++)
            least = smaller(least, larger(part[j][i], part[j + 1][7 - i]));
    }
    memcpy(max, &most, sizeof most);
    memcpy(cut, &least, sizeof least);
}

static inline __attribute__((always_inline)) void find_bound(const float *const row[8], uint32_t n, const uint32_t k,
                                                             float max[8], float cut[8])
{
    if (k <= 4)
        bound8(row, n, k, 1, max, cut);
    else if (k <= 8)
        bound8(row, n, k, 2, max, cut);
    else
        bound8(row, n, k, 4, max, cut);
}

#define MARKED_ROWS 4 /* rows that are marked side by side */

/* What is added up over the columns of four rows; NULL = not wanted. */
struct mark_sums {
    v8f *sum; /* [MARKED_ROWS] */
    v8f *dot; /* [MARKED_ROWS] */
};

/* Marks what reaches the bounds in eight columns of four rows, from column i on; adds to sum[j] e^d with d = row[j] -
 * max[j] and to dot[j] e^d d, or without `with_sum` to sum[j] what is not 0 where a value is not finite. */
static inline __attribute__((always_inline)) void mark_columns(const v8f x[MARKED_ROWS], const float *max,
                                                               const float *cut, const bool with_sum,
                                                               uint8_t *const byte[MARKED_ROWS], uint32_t i,
                                                               struct mark_sums to)
{
    v8f y[MARKED_ROWS], d[MARKED_ROWS];
    for (int j = 0; j < MARKED_ROWS; j++) {
        byte[j][i / 8] = (uint8_t)bits_of(x[j] >= splat(cut[j]));
        y[j] = with_sum ? x[j] - splat(max[j]) : x[j] * splat(0.0f);
    }
    for (int j = 0; to.dot && j < MARKED_ROWS; j++)
        d[j] = larger(y[j], splat(-88.0f)); /* also for NaN */
    if (with_sum)
        exps_or_0(MARKED_ROWS, y, y);
    for (int j = 0; j < MARKED_ROWS; j++)
        to.sum[j] += y[j];
    for (int j = 0; to.dot && j < MARKED_ROWS; j++)
        to.dot[j] += y[j] * d[j];
}

static inline __attribute__((always_inline)) void mark_rows(const float *const row[MARKED_ROWS], uint32_t n,
                                                            const float *max, const float *cut, const bool with_sum,
                                                            uint8_t *const byte[MARKED_ROWS], struct mark_sums to)
{
    uint32_t i = 0;
    v8f x[MARKED_ROWS];
    for (int j = 0; j < MARKED_ROWS; j++)
        to.sum[j] = splat(0.0f);
    for (int j = 0; to.dot && j < MARKED_ROWS; j++)
        to.dot[j] = splat(0.0f);
    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < MARKED_ROWS; j++)
            x[j] = load8(row[j] + i);
        mark_columns(x, max, cut, with_sum, byte, i, to);
    }
    if (i == n)
        return;
    for (int j = 0; j < MARKED_ROWS; j++) {
        x[j] = with_sum ? splat(-INFINITY) : splat(0.0f); /* what adds nothing */
        memcpy(&x[j], row[j] + i, (n - i) * sizeof **row);
    }
    mark_columns(x, max, cut, with_sum, byte, i, to);
    for (int j = 0; j < MARKED_ROWS; j++)
        byte[j][i / 8] &= (uint8_t)((1u << (n - i)) - 1);
}

/* The k best of a row's marked columns; of a row with too few of them or too many ties, by choose_row(). */
static inline __attribute__((always_inline)) void rank_marked(const float *row, uint32_t n, const uint32_t k,
                                                              const uint64_t *word, uint32_t *expert)
{
    float value[BEST_CANDIDATES + 8];
    uint32_t id[BEST_CANDIDATES + 8], sorted[BEST_CANDIDATES + 8], count = 0;
    for (uint32_t i = 0; i < n; i += 64)
        for (uint64_t bits = word[i / 64]; bits != 0 && count <= BEST_CANDIDATES; bits &= bits - 1) {
            id[count] = i + (uint32_t)__builtin_ctzll(bits);
            value[count] = row[id[count]];
            count++;
        }
    if (count < k || count > BEST_CANDIDATES) {
        choose_row(row, n, k, expert);
        return;
    }
    rank_by_counting(value, id, count, sorted);
    for (uint32_t c = 0; c < k; c++)
        expert[c] = sorted[c];
}

/* ---- marked columns in order, eight rows at once ---- */

#define FEW_MARKED 8   /* of a row, with at most four choices; */
#define MOST_MARKED 16 /* with more. Other rows are ranked one by one. */

/* Values of eight rows, a lane each, with their columns. */
struct ranked {
    v8f value[8];
    v8i id[8];
};

/* The larger value to place a, unless they are equal. */
static inline __attribute__((always_inline)) void put_in_order(struct ranked *r, int a, int b)
{
    const v8i swap = r->value[b] > r->value[a];
    const v8i id = pick_id(swap, r->id[b], r->id[a]);
    r->id[b] = pick_id(swap, r->id[a], r->id[b]);
    r->id[a] = id;
    compare_exchange(&r->value[a], &r->value[b]);
}

static inline __attribute__((always_inline)) void sort_ranked(struct ranked *r)
{
#pragma GCC unroll 19
    for (int i = 0; i < 19; i++)
        put_in_order(r, sort8_pair[i][0], sort8_pair[i][1]);
}

/* The eight best of both, which are sorted, in order; returns the largest of the others. */
static inline __attribute__((always_inline)) v8f merge_ranked(struct ranked *a, const struct ranked *b)
{
    static const uint8_t pair[12][2] = {{0, 4}, {1, 5}, {2, 6}, {3, 7}, {0, 2}, {1, 3},
                                        {4, 6}, {5, 7}, {0, 1}, {2, 3}, {4, 5}, {6, 7}};
    v8f other = splat(-INFINITY);
    for (int i = 0; i < 8; i++) {
        const v8i swap = b->value[7 - i] > a->value[i];
        other = larger(smaller(a->value[i], b->value[7 - i]), other);
        a->id[i] = pick_id(swap, b->id[7 - i], a->id[i]);
        a->value[i] = larger(a->value[i], b->value[7 - i]);
    }
#pragma GCC unroll 12
    for (int i = 0; i < 12; i++)
        put_in_order(a, pair[i][0], pair[i][1]);
    return other;
}

/* A row's marked columns, at most `most`: values, -inf where there are no more, and ids. False where there are more. */
static inline bool list_marked(const float *row, uint32_t n, const uint64_t *word, const uint32_t most, float *value,
                               uint32_t *id)
{
    uint32_t count = 0, at = 0;
    for (uint32_t i = 0; i < n; i += 64)
        count += (uint32_t)__builtin_popcountll(word[i / 64]);
    for (uint32_t i = 0; i < most; i += 8) {
        const v8f none = splat(-INFINITY);
        memcpy(value + i, &none, sizeof none);
    }
    for (uint32_t i = 0; count <= most && i < n; i += 64)
        for (uint64_t bits = word[i / 64]; bits != 0; bits &= bits - 1) {
            const uint32_t column = i + (uint32_t)__builtin_ctzll(bits);
            id[at] = column;
            value[at++] = row[column];
        }
    return count <= most;
}

static inline void load_ranked(float value[8][MOST_MARKED], uint32_t id[8][MOST_MARKED], uint32_t from,
                               struct ranked *r)
{
    v8f ids[8];
    for (int l = 0; l < 8; l++) {
        r->value[l] = load8(value[l] + from);
        memcpy(&ids[l], id[l] + from, sizeof ids[l]);
    }
    transpose8(r->value);
    transpose8(ids);
    for (int l = 0; l < 8; l++)
        r->id[l] = (v8i)ids[l];
}

/* The k best of each row's marked columns, k at most eight, and their values; a lane whose bit is set in the result has
 * equal values, too few or too many: what it got may be wrong. */
static inline __attribute__((always_inline)) uint32_t rank_lanes(const float *const row[8], uint32_t n, uint32_t k,
                                                                 const uint32_t most, const struct marks *marks,
                                                                 uint32_t *const expert[8], v8f *top)
{
    float value[8][MOST_MARKED];
    uint32_t id[8][MOST_MARKED] = {{0}}, odd = 0;
    struct ranked best;
    v8f next = splat(-INFINITY);
    for (uint32_t l = 0; l < 8; l++)
        odd |= (uint32_t)!list_marked(row[l], n, marks->row[l].word, most, value[l], id[l]) << l;
    load_ranked(value, id, 0, &best);
    sort_ranked(&best);
    if (most > 8) {
        struct ranked more;
        load_ranked(value, id, 8, &more);
        sort_ranked(&more);
        next = merge_ranked(&best, &more);
    }
    v8i equal = best.value[k - 1] == (k < 8 ? best.value[k] : next);
    for (uint32_t c = 0; c + 1 < k; c++)
        equal |= best.value[c] == best.value[c + 1];
    for (uint32_t c = 0; c < k; c++) {
        top[c] = best.value[c];
        for (uint32_t l = 0; l < 8; l++)
            expert[l][c] = (uint32_t)best.id[c][l];
    }
    equal |= best.value[k - 1] == splat(-INFINITY);
    return odd | bits_of(equal);
}

static uint32_t rank_few(const float *const row[8], uint32_t n, uint32_t k, const struct marks *marks,
                         uint32_t *const expert[8], v8f *top)
{
    return rank_lanes(row, n, k, FEW_MARKED, marks, expert, top);
}

static uint32_t rank_many(const float *const row[8], uint32_t n, uint32_t k, const struct marks *marks,
                          uint32_t *const expert[8], v8f *top)
{
    return rank_lanes(row, n, k, MOST_MARKED, marks, expert, top);
}

static inline __attribute__((always_inline)) uint32_t best8_of(const float *const row[8], uint32_t n, const uint32_t k,
                                                               const bool with_sum, uint32_t *const expert[8], v8f *top,
                                                               v8f *sum, v8f *dot)
{
    struct marks marks;
    float max[8], cut[8];
    v8f part[8], dots[8];
    find_bound(row, n, k, max, cut);
    for (uint32_t l = 0; l < 8; l += MARKED_ROWS) {
        uint8_t *byte[MARKED_ROWS];
        for (uint32_t j = 0; j < MARKED_ROWS; j++) {
            byte[j] = marks.row[l + j].byte;
            marks.row[l + j].word[(n - 1) / 64] = 0;
        }
        mark_rows(row + l, n, max + l, cut + l, with_sum, byte, (struct mark_sums){part + l, dot ? dots + l : NULL});
    }
    const uint32_t left = k > 8    ? UINT8_MAX
                          : k <= 4 ? rank_few(row, n, k, &marks, expert, top)
                                   : rank_many(row, n, k, &marks, expert, top);
    for (uint32_t l = 0; left != 0 && l < 8; l++) {
        if (!(left >> l & 1))
            continue;
        rank_marked(row[l], n, k, marks.row[l].word, expert[l]);
        for (uint32_t c = 0; c < k; c++)
            top[c][l] = expert[l][c] == MOESIM_NO_EXPERT ? -INFINITY : row[l][expert[l][c]];
    }
    *sum = sum_eight(part);
    if (dot)
        *dot = sum_eight(dots);
    const v8i clean =
        with_sum ? (v8i)(*sum > splat(0.0f)) & (v8i)(top[k - 1] > splat(-INFINITY)) : (v8i)(*sum == splat(0.0f));
    return bits_of(~clean);
}

/* Chooses in eight rows of n <= BEST_COLUMNS columns, k <= BLOCK_K: top[k] gets the chosen values; sum (NULL = not
 * wanted) what softmax divides by, and dot (NULL = not wanted) the sums of e^d d with d the distance from the largest.
 * Returns the lanes, as bits, of rows that may have come out wrong: those with +inf, or with -inf among the best or too
 * few numbers; without `sum` every row with a value that is not finite. */
static uint32_t best8(const float *const row[8], uint32_t n, uint32_t k, uint32_t *const expert[8], v8f *top, v8f *sum,
                      v8f *dot)
{
    v8f odd;
    if (!sum)
        return best8_of(row, n, k, false, expert, top, &odd, NULL);
#ifdef __AVX2__
    if (k == 1 && !dot)
        return best8_of(row, n, 1, true, expert, top, sum, NULL);
    if (k == 2 && !dot)
        return best8_of(row, n, 2, true, expert, top, sum, NULL);
    if (k == 8 && !dot)
        return best8_of(row, n, 8, true, expert, top, sum, NULL);
    if (k == 2)
        return best8_of(row, n, 2, true, expert, top, sum, dot);
    if (k == 8)
        return best8_of(row, n, 8, true, expert, top, sum, dot);
#endif
    return dot ? best8_of(row, n, k, true, expert, top, sum, dot) : best8_of(row, n, k, true, expert, top, sum, NULL);
}

#endif
