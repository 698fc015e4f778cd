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

/* Bit e tells whether column e reaches the row's bound. */
struct marked_row {
    union {
        uint8_t byte[BEST_COLUMNS / 8];
        uint64_t word[BEST_COLUMNS / 64];
    };
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

/* The two largest of each lane so far; -inf where there are none. NaN takes no part. */
struct best_two {
    v8f first, second;
};

static inline struct best_two keep_two(struct best_two b, v8f x)
{
    return (struct best_two){larger(x, b.first), larger(smaller(b.first, x), b.second)};
}

/* The two best values of eight rows, a lane for each. */
static inline __attribute__((always_inline)) struct best_two best_two8(const float *const row[8], uint32_t n)
{
    v8f first[8], second[8];
    struct best_two all = {splat(-INFINITY), splat(-INFINITY)};
    for (uint32_t l = 0; l < 8; l++) {
        struct best_two own = {splat(-INFINITY), splat(-INFINITY)};
        uint32_t i = 0;
        for (; i + 16 <= n; i += 16)
            own = keep_two(keep_two(own, load8(row[l] + i)), load8(row[l] + i + 8));
        for (; i < n; i += 8)
            own = keep_two(own, load_some(row[l] + i, n - i));
        first[l] = own.first;
        second[l] = own.second;
    }
    transpose8(first);
    transpose8(second);
    for (int i = 0; i < 8; i++) {
        all = keep_two(all, first[i]);
        all.second = larger(second[i], all.second);
    }
    return all;
}

/* Of eight rows, lane by lane: the largest value, and a bound that k values reach; of k <= 2 it is the k-th best. */
static inline __attribute__((always_inline)) void find_bound(const float *const row[8], uint32_t n, const uint32_t k,
                                                             float max[8], float cut[8])
{
    if (k > 8) {
        bound8(row, n, k, 4, max, cut);
    } else if (k > 4) {
        bound8(row, n, k, 2, max, cut);
    } else if (k > 2) {
        bound8(row, n, k, 1, max, cut);
    } else {
        const struct best_two best = best_two8(row, n);
        memcpy(max, &best.first, sizeof best.first);
        memcpy(cut, k == 1 ? &best.first : &best.second, sizeof best.first);
    }
}

#define MARKED_ROWS 2 /* rows that are marked side by side, two vectors of each */

/* What is added up over the columns of such rows; NULL = not wanted. */
struct mark_sums {
    v8f *sum; /* [MARKED_ROWS] */
    v8f *dot; /* [MARKED_ROWS] */
};

/* Marks what reaches the bounds in `wide` vectors of each row, x[MARKED_ROWS][wide], from column i on; adds to sum[j]
 * e^d with d = row[j] - max[j] and to dot[j] e^d d, which is NaN where a value is not finite and the vector is not the
 * `last`; or without `with_sum` to sum[j] what is not 0 where a value is not finite. */
static inline __attribute__((always_inline)) void mark_columns(const v8f *x, const int wide, const float *max,
                                                               const float *cut, const bool with_sum, const bool last,
                                                               struct marked_row *mark, uint32_t i, struct mark_sums to)
{
    const int n_vectors = MARKED_ROWS * wide;
    v8f y[MOST_VECTORS], d[MOST_VECTORS];
    EACH
    {
        mark[j / wide].byte[i / 8 + (uint32_t)(j % wide)] = (uint8_t)bits_of(x[j] >= splat(cut[j / wide]));
        y[j] = with_sum ? x[j] - splat(max[j / wide]) : x[j] * splat(0.0f);
    }
    for (int j = 0; to.dot && j < n_vectors; j++)
        d[j] = last ? larger(y[j], splat(-88.0f)) : y[j]; /* of no column it is -inf */
    if (with_sum)
        exps_or_0(n_vectors, y, y);
    EACH to.sum[j / wide] += y[j];
    for (int j = 0; to.dot && j < n_vectors; j++)
        to.dot[j / wide] += y[j] * d[j];
}

static inline __attribute__((always_inline)) void mark_rows(const float *const row[MARKED_ROWS], uint32_t n,
                                                            const float *max, const float *cut, const bool with_sum,
                                                            struct marked_row *mark, struct mark_sums to)
{
    uint32_t i = 0;
    for (int j = 0; j < MARKED_ROWS; j++)
        to.sum[j] = splat(0.0f);
    for (int j = 0; to.dot && j < MARKED_ROWS; j++)
        to.dot[j] = splat(0.0f);
    for (; i + 16 <= n; i += 16) {
        const v8f x[] = {load8(row[0] + i), load8(row[0] + i + 8), load8(row[1] + i), load8(row[1] + i + 8)};
        mark_columns(x, 2, max, cut, with_sum, false, mark, i, to);
    }
    for (; i < n; i += 8) {
        v8f x[MARKED_ROWS];
        for (int j = 0; j < MARKED_ROWS; j++) {
            x[j] = with_sum ? splat(-INFINITY) : splat(0.0f); /* what adds nothing */
            memcpy(&x[j], row[j] + i, (n - i < 8 ? n - i : 8) * sizeof **row);
        }
        mark_columns(x, 1, max, cut, with_sum, true, mark, i, to);
    }
    for (int j = 0; n % 8 != 0 && j < MARKED_ROWS; j++)
        mark[j].byte[n / 8] &= (uint8_t)((1u << n % 8) - 1);
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

/* A row's marked columns, at most `most`: values and ids, -inf and 0 where there are no more. False where there are
 * more. */
static inline bool list_marked(const float *row, uint32_t n, const uint64_t *word, const uint32_t most, float *value,
                               uint32_t *id)
{
    uint32_t count = 0, at = 0;
    for (uint32_t i = 0; i < n; i += 64)
        count += (uint32_t)__builtin_popcountll(word[i / 64]);
    for (uint32_t i = 0; i < most; i += 8) {
        const v8f none = splat(-INFINITY);
        const v8i first = splat_id(0);
        memcpy(value + i, &none, sizeof none);
        memcpy(id + i, &first, sizeof first);
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
                                                                 const uint32_t most, const struct marked_row *marks,
                                                                 uint32_t *const expert[8], v8f *top)
{
    float value[8][MOST_MARKED];
    uint32_t id[8][MOST_MARKED], odd = 0;
    struct ranked best;
    v8f next = splat(-INFINITY);
    for (uint32_t l = 0; l < 8; l++)
        odd |= (uint32_t)!list_marked(row[l], n, marks[l].word, most, value[l], id[l]) << l;
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

/* The same of k <= 2 that are known: largest value and bound of each row. */
static inline __attribute__((always_inline)) uint32_t rank_known(const float *const row[8], uint32_t n,
                                                                 const uint32_t k, const struct marked_row *marks,
                                                                 const float max[8], const float cut[8],
                                                                 uint32_t *const expert[8], v8f *top)
{
    uint32_t odd = 0;
    for (uint32_t l = 0; l < 8; l++) {
        uint32_t id[3] = {0}, count = 0;
        for (uint32_t i = 0; i < n; i += 64)
            for (uint64_t bits = marks[l].word[i / 64]; bits != 0 && count <= k; bits &= bits - 1)
                id[count++] = i + (uint32_t)__builtin_ctzll(bits);
        const bool swap = k == 2 && row[l][id[1]] > row[l][id[0]];
        expert[l][0] = id[swap];
        if (k == 2)
            expert[l][1] = id[!swap];
        odd |= (uint32_t)(count != k) << l;
    }
    top[0] = load8(max);
    if (k == 2)
        top[1] = load8(cut);
    return odd;
}

static uint32_t rank_few(const float *const row[8], uint32_t n, uint32_t k, const struct marked_row *marks,
                         uint32_t *const expert[8], v8f *top)
{
    return rank_lanes(row, n, k, FEW_MARKED, marks, expert, top);
}

static uint32_t rank_many(const float *const row[8], uint32_t n, uint32_t k, const struct marked_row *marks,
                          uint32_t *const expert[8], v8f *top)
{
    return rank_lanes(row, n, k, MOST_MARKED, marks, expert, top);
}

static inline __attribute__((always_inline)) uint32_t best8_of(const float *const row[8], uint32_t n, const uint32_t k,
                                                               const bool with_sum, uint32_t *const expert[8], v8f *top,
                                                               v8f *sum, v8f *dot)
{
    struct marked_row marks[8];
    float max[8], cut[8];
    v8f part[8], dots[8];
    find_bound(row, n, k, max, cut);
    for (uint32_t l = 0; l < 8; l++)
        marks[l].word[(n - 1) / 64] = 0;
    for (uint32_t l = 0; l < 8; l += MARKED_ROWS)
        mark_rows(row + l, n, max + l, cut + l, with_sum, marks + l,
                  (struct mark_sums){part + l, dot ? dots + l : NULL});
    const uint32_t left = k > 8   ? UINT8_MAX
                          : k > 4 ? rank_many(row, n, k, marks, expert, top)
                          : k > 2 ? rank_few(row, n, k, marks, expert, top)
                                  : rank_known(row, n, k, marks, max, cut, expert, top);
    for (uint32_t l = 0; left != 0 && l < 8; l++) {
        if (!(left >> l & 1))
            continue;
        rank_marked(row[l], n, k, marks[l].word, expert[l]);
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
 * wanted) what softmax divides by, and dot (NULL = not wanted) the sums of e^d d with d the distance from the largest,
 * NaN or not in a row with a value that is not finite.
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
