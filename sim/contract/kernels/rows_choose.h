/* SPDX-License-Identifier: MIT
 *
 * The k best of each of eight rows, among all columns or by groups of them, for the two builds of rows.c.
 */
#ifndef MOESIM_KERNELS_ROWS_CHOOSE_H
#define MOESIM_KERNELS_ROWS_CHOOSE_H

#include <math.h>
#include <string.h>

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/rows_best.h"

/* The best k of each lane so far, best first; an equal value never displaces an earlier one. */
struct best {
    v8f top[BLOCK_K];
    v8i id[BLOCK_K];
};

static inline __attribute__((always_inline)) void best_insert(struct best *b, const uint32_t k, v8f x, v8i expert)
{
    v8i here = x > b->top[k - 1];
    if (k > 2 && !any(here))
        return;
    for (uint32_t c = k - 1; c > 0; c--) {
        const v8i above = x > b->top[c - 1];
        b->id[c] = pick_id(above, b->id[c - 1], pick_id(here, expert, b->id[c]));
        b->top[c] = larger(smaller(x, b->top[c - 1]), b->top[c]);
        here = above;
    }
    b->id[0] = pick_id(here, expert, b->id[0]);
    b->top[0] = larger(x, b->top[0]);
}

/* Chooses in eight rows at once; top[k] (NULL = not wanted) gets the chosen values. Right for rows of finite values;
 * any other row may come out wrong. */
static inline __attribute__((always_inline)) void choose8(const float *const v[8], uint32_t n, const uint32_t k,
                                                          uint32_t *const expert[8], v8f *top)
{
    struct best b;
    v8f x[8];
    v8i id = splat_id(0);
    for (uint32_t c = 0; c < k; c++) {
        b.top[c] = splat(-INFINITY);
        b.id[c] = splat_id(-1);
    }
    uint32_t e = 0;
    for (; e + 8 <= n; e += 8) {
        for (int l = 0; l < 8; l++)
            x[l] = load8(v[l] + e);
        transpose8(x);
        for (int j = 0; j < 8; j++)
            best_insert(&b, k, x[j], id + j);
        id += 8;
    }
    if (e < n) {
        for (int l = 0; l < 8; l++)
            x[l] = load_tail(v[l] + e, n - e);
        transpose8(x);
        for (uint32_t j = 0; j < n - e; j++)
            best_insert(&b, k, x[j], id + (int32_t)j);
    }
    for (uint32_t c = 0; c < k; c++)
        for (int l = 0; l < 8; l++)
            expert[l][c] = (uint32_t)b.id[c][l];
    for (uint32_t c = 0; top && c < k; c++)
        top[c] = b.top[c];
}

/* Whether the row has NaN or infinities. */
static bool is_odd(const float *row, uint32_t n)
{
    v8f zero = splat(0.0f);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        zero += load8(row + i) * splat(0.0f);
    for (; i < n; i++)
        zero[0] += row[i] * 0.0f;
    const v8i clean = zero == splat(0.0f);
    return any(~clean);
}

/* Whether any of eight rows has. */
static inline bool any_odd(const float *const v[8], uint32_t n)
{
    v8f zero = splat(0.0f);
    for (uint32_t i = 0; i < n; i += 8)
        for (int l = 0; l < 8; l++)
            if (n - i >= 8)
                zero += load8(v[l] + i) * splat(0.0f);
            else
                for (uint32_t j = i; j < n; j++)
                    zero[0] += v[l][j] * 0.0f;
    return any(~(v8i)(zero == splat(0.0f)));
}

/* By choose8() for a few columns or more than best8() takes; returns the lanes that may have come out wrong. */
static uint32_t choose_tiles(const float *const v[8], uint32_t n, uint32_t k, uint32_t *const expert[8], v8f *top)
{
    if (k == 1)
        choose8(v, n, 1, expert, top);
    else if (k == 2)
        choose8(v, n, 2, expert, top);
    else
        choose8(v, n, k, expert, top);
    uint32_t odd = 0;
    for (uint32_t l = 0; l < 8 && any_odd(v, n); l++)
        odd |= (uint32_t)is_odd(v[l], n) << l;
    return odd;
}

/* The k best of eight rows. Whether they are all of finite values and top[k] (NULL = not wanted) holds the chosen ones.
 */
static bool choose(const float *const v[8], uint32_t n, uint32_t k, uint32_t *const expert[8], v8f *top)
{
    v8f own[BLOCK_K];
    uint32_t odd = UINT8_MAX;
    if (k <= BLOCK_K)
        odd = n <= 8 || n > BEST_COLUMNS ? choose_tiles(v, n, k, expert, top)
                                         : best8(v, n, k, expert, top ? top : own, NULL, NULL);
    for (int l = 0; odd != 0 && l < 8; l++)
        if (odd >> l & 1)
            choose_row(v[l], n, k, expert[l]);
    return odd == 0;
}

/* ---- groups of experts ---- */

/* The two largest of eight groups' values each, a lane for each group. */
static inline struct best_two best_two_of(const float *values, uint32_t size, uint32_t n_groups)
{
    const float *group[8];
    for (uint32_t g = 0; g < 8; g++)
        group[g] = values + (size_t)(g < n_groups ? g : 0) * size;
    return best_two8(group, size);
}

/* The sum of the n best of a group, fewer where fewer are numbers; -inf where none is. `best` is [n]. */
static float sum_best(const float *v, uint32_t size, uint32_t n, uint32_t *best)
{
    float sum = -INFINITY;
    choose_row(v, size, n, best);
    for (uint32_t c = 0; c < n && best[c] != MOESIM_NO_EXPERT; c++)
        sum = c == 0 ? v[best[c]] : sum + v[best[c]];
    return sum;
}

/* score[n_groups]: NaN for a group without a number, which is never kept; no more than the largest number. `best` is
 * [n]. */
static void score_groups(const struct rows_select *s, const float *values, uint32_t *best, float *score)
{
    const uint32_t size = s->n / s->n_groups;
    for (uint32_t g = 0; g < s->n_groups; g += 8) {
        const uint32_t n = s->n_groups - g < 8 ? s->n_groups - g : 8;
        v8f x;
        if (s->group_score == MOESIM_GROUP_TOPK) {
            x = splat(-INFINITY);
            for (uint32_t i = 0; i < n; i++)
                x[i] = sum_best(values + (size_t)(g + i) * size, size, s->group_best, best);
        } else {
            const struct best_two two = best_two_of(values + (size_t)g * size, size, n);
            const v8i both = two.second > splat(-INFINITY);
            x = s->group_score == MOESIM_GROUP_TOP2 ? pick(both, two.first + two.second, two.first) : two.first;
        }
        x = pick(x > splat(FLT_MAX), splat(FLT_MAX), x);
        x = pick(x == splat(-INFINITY), splat(NAN), x);
        memcpy(score + g, &x, n * sizeof *score);
    }
}

/* The kept groups of eight rows of values, by rising id; MOESIM_NO_EXPERT where there are fewer. */
static void keep_groups8(const struct rows_select *s, const float *const values[8], float *scratch,
                         uint32_t *const kept[8])
{
    const uint32_t n = s->n_groups, n_kept = s->topk_groups;
    const float *score[8];
    uint8_t *keep = (uint8_t *)(scratch + 8 * (size_t)n);
    for (uint32_t l = 0; l < 8; l++) {
        score[l] = scratch + l * (size_t)n;
        score_groups(s, values[l], (uint32_t *)(scratch + 8 * (size_t)n), scratch + l * (size_t)n);
    }
    choose(score, n, n_kept, kept, NULL);
    for (uint32_t l = 0; l < 8; l++) {
        memset(keep, 0, n);
        for (uint32_t i = 0; i < n_kept; i++)
            if (kept[l][i] != MOESIM_NO_EXPERT)
                keep[kept[l][i]] = 1;
        uint32_t n_sorted = 0;
        for (uint32_t g = 0; n_sorted < n_kept && g < n; g++) {
            kept[l][n_sorted] = g;
            n_sorted += keep[g];
        }
        for (; n_sorted < n_kept; n_sorted++)
            kept[l][n_sorted] = MOESIM_NO_EXPERT;
    }
}

/* Whether this lane and those after it are spare: they repeat the one before. */
static inline bool repeats(uint32_t *const expert[8], uint32_t l)
{
    return l > 0 && expert[l] == expert[l - 1];
}

/* The k best experts of the kept groups: their values move to the front of the row, in order, so that ties still go to
 * the lower id. A row with fewer groups than asked for is filled up with NaN, which is never chosen. */
static void choose_in_kept_groups(const struct rows_select *s, float *values, uint32_t *const expert[8])
{
    const uint32_t size = s->n / s->n_groups, n = s->topk_groups * size;
    float *scratch = values + 8 * (size_t)s->n;
    const float *v[8];
    uint32_t *kept[8];
    for (uint32_t l = 0; l < 8; l++) {
        v[l] = values + l * (size_t)s->n;
        kept[l] = (uint32_t *)(scratch + 8 * (size_t)s->n_groups + s->n) + l * (size_t)s->n_groups;
    }
    keep_groups8(s, v, scratch, kept);
    for (uint32_t l = 0; l < 8; l++) {
        float *own = values + l * (size_t)s->n;
        for (uint32_t j = 0; j < s->topk_groups; j++) {
            if (kept[l][j] != MOESIM_NO_EXPERT && kept[l][j] != j)
                memcpy(own + j * size, own + kept[l][j] * size, size * sizeof *own);
            for (uint32_t e = j * size; kept[l][j] == MOESIM_NO_EXPERT && e < n; e++)
                own[e] = NAN;
        }
    }
    choose(v, n, s->k, expert, NULL);
    for (uint32_t l = 0; l < 8 && !repeats(expert, l); l++)
        for (uint32_t c = 0; c < s->k; c++) {
            const uint32_t place = expert[l][c], j = place / size;
            if (place != MOESIM_NO_EXPERT)
                expert[l][c] = place + (kept[l][j] - j) * size;
        }
}

/* k / n_groups experts of every group, then all of them best first. */
static void choose_in_every_group(const struct rows_select *s, const float *values, uint32_t *const expert[8])
{
    const uint32_t size = s->n / s->n_groups, own_k = s->k / s->n_groups;
    for (uint32_t g = 0; g < s->n_groups; g++) {
        const float *v[8];
        uint32_t *out[8];
        for (uint32_t l = 0; l < 8; l++) {
            v[l] = values + l * (size_t)s->n + g * size;
            out[l] = expert[l] + g * own_k;
        }
        choose(v, size, own_k, out, NULL);
        for (uint32_t l = 0; l < 8 && !repeats(expert, l); l++)
            for (uint32_t c = 0; c < own_k; c++)
                out[l][c] += out[l][c] != MOESIM_NO_EXPERT ? g * size : 0;
    }
    for (uint32_t l = 0; l < 8 && !repeats(expert, l); l++) {
        const float *v = values + l * (size_t)s->n;
        for (uint32_t i = 1; i < s->k; i++) {
            const uint32_t moved = expert[l][i];
            uint32_t j = i;
            for (; j > 0 && moved != MOESIM_NO_EXPERT &&
                   (expert[l][j - 1] == MOESIM_NO_EXPERT || v[moved] > v[expert[l][j - 1]]);
                 j--)
                expert[l][j] = expert[l][j - 1];
            expert[l][j] = moved;
        }
    }
}

/* ---- all values above a bound ---- */

#ifdef __AVX2__
/* Entry m lists the bits that are set in m, lowest first, four bits each: acc = 16 acc + b for each of them from the
 * highest down. */
#define TAKE(acc, m, b) ((acc) * (1 + 15 * ((m) >> (b)&1u)) + (b) * ((m) >> (b)&1u))
#define LIST(m) TAKE(TAKE(TAKE(TAKE(TAKE(TAKE(TAKE(TAKE(0u, m, 7), m, 6), m, 5), m, 4), m, 3), m, 2), m, 1), m, 0)
#define LIST_4(m) LIST(m), LIST((m) + 1u), LIST((m) + 2u), LIST((m) + 3u)
#define LIST_16(m) LIST_4(m), LIST_4((m) + 4u), LIST_4((m) + 8u), LIST_4((m) + 12u)
#define LIST_64(m) LIST_16(m), LIST_16((m) + 16u), LIST_16((m) + 32u), LIST_16((m) + 48u)
static const uint32_t set_bits[256] = {LIST_64(0u), LIST_64(64u), LIST_64(128u), LIST_64(192u)};

/* Writes the lanes whose bits are set, and their numbers from `first`, one after the other; room for eight is used. */
static inline void write_lanes(uint32_t bits, v8f x, uint32_t first, float *value, uint32_t *id)
{
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i lane = _mm256_srlv_epi32(_mm256_set1_epi32((int32_t)set_bits[bits]), shift); /* its lowest 3 bits */
    const __m256i number = _mm256_and_si256(lane, _mm256_set1_epi32(7));
    _mm256_storeu_ps(value, _mm256_permutevar8x32_ps((__m256)x, lane));
    _mm256_storeu_si256((__m256i *)id, _mm256_add_epi32(number, _mm256_set1_epi32((int32_t)first)));
}
#else
static inline void write_lanes(uint32_t bits, v8f x, uint32_t first, float *value, uint32_t *id)
{
    for (; bits != 0; bits &= bits - 1) {
        const uint32_t lane = (uint32_t)__builtin_ctz(bits);
        *value++ = x[lane];
        *id++ = first + lane;
    }
}
#endif

/* The values above `cut` and where they stand, as long as there are no more than ROWS_RANKED; returns how many there
 * are. Both arrays have room for eight more. */
static uint32_t gather_above(const float *v, uint32_t n, float cut, float *value, uint32_t *id)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < n; i += 8) {
        const v8f x = n - i >= 8 ? load8(v + i) : load_tail(v + i, n - i);
        const uint32_t bits = bits_of(x > splat(cut));
        if (count <= ROWS_RANKED)
            write_lanes(bits, x, i, value + count, id + count);
        count += (uint32_t)__builtin_popcount(bits);
    }
    return count;
}

static uint32_t rows_rank_above(const float *v, uint32_t n, float cut, uint32_t *expert)
{
    float value[ROWS_RANKED + 8];
    uint32_t id[ROWS_RANKED + 8];
    const uint32_t count = gather_above(v, n, cut, value, id);
    if (count <= ROWS_RANKED) {
        memset(value + count, 0, 8 * sizeof *value);
        rank_by_counting(value, id, count, expert);
    }
    return count;
}

#endif
