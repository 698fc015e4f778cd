/* SPDX-License-Identifier: MIT
 *
 * Scores and top-k over rows, eight floats at a time. Selection works on eight rows at once: tiles of 8 x 8 columns are
 * transposed so that a lane is a token and a compare serves eight of them; sums run along a row, so that lane j holds
 * the partial sum of columns j, j + 8, ... Rows with a value that is not finite take a slow path of their own.
 *
 * Built twice, with ROWS_KERNELS naming the table: plain, and with -mavx2. There is no FMA in either.
 */
#include "sim/contract/kernels/rows.h"

#include <math.h>
#include <string.h>

#include "sim/contract/kernels/rows_choose.h"
#include "sim/contract/kernels/rows_scores.h"

/* ---- elementary functions ---- */

static float rows_exp(float x)
{
    return exp8(splat(x))[0];
}

static float rows_sum(const float *x, size_t n)
{
    v8f acc = splat(0.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        acc += load8(x + i);
    for (; i < n; i++)
        acc[i % 8] += x[i];
    return sum_lanes(acc);
}

static void rows_softplus(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 8) {
        const uint32_t m = n - i < 8 ? (uint32_t)(n - i) : 8;
        const v8f y = softplus8(m == 8 ? load8(x + i) : load_tail(x + i, m));
        memcpy(out + i, &y, m * sizeof *out);
    }
}

static void rows_normal_cdf(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i += 8) {
        const uint32_t m = n - i < 8 ? (uint32_t)(n - i) : 8;
        const v8f y = normal_cdf8(m == 8 ? load8(x + i) : load_tail(x + i, m));
        memcpy(out + i, &y, m * sizeof *out);
    }
}

/* ---- scores ---- */

static void rows_scores(enum moesim_score score, const float *row, uint32_t n, float *out)
{
    score_row(score, row, n, out);
}

static void rows_add_scores(enum moesim_score score, const float *scores, uint32_t n, double *sum)
{
    const float *const row[8] = {scores}, factor[8] = {factor_of(score, scores, n)};
    if (factor[0] == factor[0])
        add_rows(row, factor, 1, n, sum);
    else
        add_odd_row(score, scores, 1, n, sum);
}

/* ln sum exp l over the finite logits; NaN where there are none. */
static double size_of(const struct softmax *s, const float *row, uint32_t n)
{
    float sum = s->sum;
    if (s->infinite) {
        v8f acc = splat(0.0f);
        for (uint32_t i = 0; i < n; i += 8) {
            const v8f x = load_some(row + i, n - i), e = exp8(x - splat(s->max));
            acc += pick(x < splat(INFINITY), e, splat(0.0f));
        }
        sum = sum_lanes(acc);
    }
    return (double)s->max + log((double)sum);
}

static double rows_size(const float *row, uint32_t n)
{
    const struct softmax s = softmax_of(row, n, row_max(row, n), NULL);
    return size_of(&s, row, n);
}

/* ---- selection ---- */

/* s->sum += the scores of eight rows, given as values[l] over norm[l].sum (norm NULL: as they are). A row without a
 * finite value adds nothing. */
static void add_scores(const struct rows_select *s, const float *values, const struct softmax *norm,
                       uint32_t *const expert[8])
{
    const float *row[8];
    float factor[8];
    uint32_t n = 0;
    for (uint32_t l = 0; l < 8 && !repeats(expert, l); l++) {
        row[n] = values + l * (size_t)s->n;
        factor[n] = !norm ? factor_of(s->score, row[n], s->n) : norm[l].odd ? NAN : 1 / norm[l].sum;
        if (factor[n] == factor[n])
            n++;
        else
            add_odd_row(s->score, row[n], norm ? norm[l].sum : 1, s->n, s->sum);
    }
    add_rows(row, factor, n, s->n, s->sum);
}

static void add_sizes(const struct rows_select *s, const float *const row[8], const struct softmax norm[8],
                      uint32_t *const expert[8])
{
    for (uint32_t l = 0; l < 8 && !repeats(expert, l); l++) {
        const double size = size_of(&norm[l], row[l], s->n);
        *s->squares += size == size ? size * size : 0;
    }
}

/* The softmax of each row where nothing was compared by it; with s->sum what the rows share out goes to `values`. */
static void find_softmax(const struct rows_select *s, const float *const row[8], float *values,
                         uint32_t *const expert[8], struct softmax norm[8])
{
    for (uint32_t l = 0; l < 8; l++) {
        const uint32_t best = expert[l][0];
        const float max = !s->shift && best != MOESIM_NO_EXPERT ? row[l][best] : row_max(row[l], s->n);
        norm[l] =
            s->sum ? softmax_of(row[l], s->n, max, values + l * (size_t)s->n) : softmax_of(row[l], s->n, max, NULL);
    }
    if (s->sum)
        add_scores(s, values, norm, expert);
}

/* The scores of what was chosen, lane by lane in a vector. */
static void chosen_scores(const struct rows_select *s, const float *const row[8], const struct softmax norm[8],
                          uint32_t *const expert[8], float *const score[8])
{
    v8f max, sum;
    bool infinite = false;
    for (int l = 0; l < 8; l++) {
        max[l] = norm[l].max;
        sum[l] = norm[l].sum;
        infinite |= norm[l].infinite;
    }
    for (uint32_t c = 0; c < s->k; c++) {
        v8f x, y;
        for (int l = 0; l < 8; l++)
            x[l] = expert[l][c] == MOESIM_NO_EXPERT ? 0.0f : row[l][expert[l][c]];
        y = s->score == MOESIM_SOFTMAX ? exp8(x - max) / sum : score8(s->score, x);
        for (int l = 0; l < 8; l++)
            score[l][c] = infinite && norm[l].infinite ? softmax8(&norm[l], x)[l] : y[l];
        for (int l = 0; l < 8; l++)
            if (expert[l][c] == MOESIM_NO_EXPERT)
                score[l][c] = 0;
    }
}

/* What the rows are compared by, where that is not the logits themselves: v[l] in `values`. Scores are added up on the
 * way, before the bias. */
static void set_values(const struct rows_select *s, const float *const row[8], float *values, uint32_t *const expert[8],
                       struct softmax norm[8], const float *v[8])
{
    const uint32_t n = s->n;
    for (uint32_t l = 0; l < 8; l++) {
        float *own = values + l * (size_t)n;
        if (s->shift || s->by_score)
            v[l] = own;
        for (uint32_t e = 0; s->shift && e < n; e++)
            own[e] = row[l][e] + s->shift[e];
        if (!s->shift)
            norm[l] = score_row(s->score, row[l], n, own);
    }
    if (s->sum)
        add_scores(s, values, NULL, expert);
    for (uint32_t l = 0; s->bias && l < 8; l++)
        for (uint32_t e = 0; e < n; e++)
            values[l * (size_t)n + e] += s->bias[e];
}

static void rows_select8(const struct rows_select *s, const float *const row[8], float *values,
                         uint32_t *const expert[8], float *const score[8])
{
    const bool softmax = s->score == MOESIM_SOFTMAX, scored = s->by_score || (s->sum && !softmax);
    struct softmax norm[8] = {0};
    const float *v[8];
    memcpy(v, row, sizeof v);
    if (s->shift || scored)
        set_values(s, row, values, expert, norm, v);
    if (s->n_groups <= 1)
        choose(v, s->n, s->k, expert);
    else if (s->topk_groups > 0)
        choose_in_kept_groups(s, values, expert);
    else
        choose_in_every_group(s, values, expert);
    if (softmax && !scored && (s->want_score || s->sum || s->squares))
        find_softmax(s, row, values, expert, norm);
    if (s->squares)
        add_sizes(s, row, norm, expert);
    if (s->want_score)
        chosen_scores(s, row, norm, expert, score);
}

static void rows_keep_groups(const struct rows_select *s, const float *values, float *scratch, uint32_t *kept)
{
    const float *v[8];
    uint32_t *out[8];
    for (uint32_t l = 0; l < 8; l++) {
        v[l] = values;
        out[l] = kept;
    }
    keep_groups8(s, v, scratch, out);
}

const struct rows_kernels ROWS_KERNELS = {
#ifdef __AVX2__
    .name = "avx2",
#else
    .name = "baseline",
#endif
    .exp = rows_exp,
    .sum = rows_sum,
    .softplus = rows_softplus,
    .normal_cdf = rows_normal_cdf,
    .scores = rows_scores,
    .add_scores = rows_add_scores,
    .size = rows_size,
    .select = rows_select8,
    .keep_groups = rows_keep_groups,
};
