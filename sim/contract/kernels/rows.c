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
#include "sim/contract/kernels/rows_follow.h"
#include "sim/contract/kernels/rows_pairs.h"
#include "sim/contract/kernels/rows_project.h"
#include "sim/contract/kernels/rows_scores.h"
#include "sim/contract/kernels/rows_confidence.h"

#define SCAN_AHEAD 24 /* rows that are asked for before they are needed: orders take one cache line of each */

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

/* out[i] = f(x[i]), sixteen at a time. */
SIDE_BY_SIDE void apply(void (*f)(int n_vectors, const v8f *x, v8f *y), const float *x, size_t n, float *out)
{
    size_t i = 0;
    v8f v[2];
    for (; i + 16 <= n; i += 16) {
        v[0] = load8(x + i);
        v[1] = load8(x + i + 8);
        f(2, v, v);
        store_some(out + i, 8, v[0]);
        store_some(out + i + 8, 8, v[1]);
    }
    for (; i < n; i += 8) {
        v[0] = load_some(x + i, n - i < 8 ? (uint32_t)(n - i) : 8);
        f(1, v, v);
        store_some(out + i, n - i < 8 ? (uint32_t)(n - i) : 8, v[0]);
    }
}

static void rows_softplus(const float *x, size_t n, float *out)
{
    apply(softpluses, x, n, out);
}

/* ---- scores ---- */

static void rows_scores(enum moesim_score score, const float *row, uint32_t n, float *out)
{
    score_row(score, row, n, out);
}

/* ln sum exp l over the finite logits; NaN where there are none. */
static double size_of(const struct rows_norm *s, const float *row, uint32_t n)
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
    const struct rows_norm s = softmax_of(row, n, row_max(row, n), NULL);
    return size_of(&s, row, n);
}

/* ---- scores of columns ---- */

/* The largest of each of eight rows; NaN takes no part. */
static inline v8f largest8(const float *const row[8], uint32_t n)
{
    v8f part[8];
    for (uint32_t l = 0; l < 8; l++)
        largest_lanes(row[l], n, 1, &part[l]);
    transpose8(part);
    for (uint32_t i = 1; i < 8; i++)
        part[0] = larger(part[i], part[0]);
    return part[0];
}

/* norm[8] from the largest values and sums of rows, shares[8][n] (NULL = not wanted) put right in odd ones. Whether
 * there is such a row. */
static bool norms_of(const float *const row[8], uint32_t n, v8f max, v8f sum, float *shares, struct rows_norm norm[8])
{
    bool any_odd_row = false;
    for (uint32_t l = 0; l < 8; l++) {
        norm[l] = (struct rows_norm){.max = max[l], .sum = sum[l]};
        if (sum[l] == sum[l])
            continue;
        norm[l] = softmax_odd(row[l], n, shares ? shares + l * (size_t)n : NULL);
        any_odd_row = true;
    }
    return any_odd_row;
}

static void rows_norms(enum moesim_score score, const float *const row[8], uint32_t n, struct rows_norm norm[8],
                       float *size)
{
    if (score != MOESIM_SOFTMAX) {
        for (uint32_t l = 0; l < 8; l++) {
            const bool bad = !rows_any_finite(row[l], n);
            norm[l] = (struct rows_norm){.sum = bad ? NAN : 1, .odd = bad};
        }
        return;
    }
    const v8f max = largest8(row, n), sum = plain_sums(row, n, max, NULL, NULL), sizes = max + ln8(sum);
    norms_of(row, n, max, sum, NULL, norm);
    if (size)
        memcpy(size, &sizes, sizeof sizes);
}

static void rows_scores_at(enum moesim_score score, const struct rows_norm *norm, const uint32_t *token, uint32_t n,
                           float *values)
{
    for (uint32_t i = 0; i < n; i += 8) {
        const uint32_t m = n - i < 8 ? n - i : 8;
        const v8f x = load_some(values + i, n - i);
        v8f max = splat(0.0f), sum = splat(1.0f), y;
        bool odd = false;
        for (uint32_t l = 0; l < m; l++) {
            max[l] = norm[token[i + l]].max;
            sum[l] = norm[token[i + l]].sum;
            odd |= norm[token[i + l]].odd;
        }
        y = score == MOESIM_SOFTMAX ? exp8(x - max) / sum : score == MOESIM_IDENTITY ? x : score8(score, x);
        for (uint32_t l = 0; odd && l < m; l++) {
            const struct rows_norm *own = &norm[token[i + l]];
            if (own->odd)
                y[l] = own->sum != own->sum ? NAN : softmax8(own, x)[l];
        }
        store_some(values + i, m, y);
    }
}

/* Which of up to 64 columns are not at most shift + cut. */
static inline uint64_t passing(const float *row, const float *cut, v8f shift, uint32_t n)
{
    uint64_t bits = 0;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        bits |= (uint64_t)bits_of(~(load8(row + i) - shift <= load8(cut + i))) << i;
    if (i < n) {
        const v8i below = load_some(row + i, n - i) - shift <= load_some(cut + i, n - i);
        bits |= (uint64_t)(bits_of(~below) & ((1u << (n - i)) - 1)) << i;
    }
    return bits;
}

/* Adds the columns of the bits, four at a time whether there are as many or not: how many is chance, and a branch on it
 * would be guessed wrong. */
static inline uint32_t add_candidates(const struct rows_scan *s, uint32_t n_found, uint32_t token, const float *row,
                                      uint32_t first, uint64_t bits)
{
    const uint32_t end = n_found + (uint32_t)__builtin_popcountll(bits);
    for (; n_found < end && n_found < s->room; n_found += ROWS_SCAN_SPARE)
        for (uint32_t i = 0; i < ROWS_SCAN_SPARE; i++) {
            const uint32_t none = bits == 0, e = first + (uint32_t)__builtin_ctzll(bits | none);
            s->token[n_found + i] = token;
            s->column[n_found + i] = e;
            s->value[n_found + i] = row[e];
            s->count[e] += 1 - none;
            bits &= bits - 1 + none;
        }
    return end;
}

static void rows_scan(struct rows_scan *s)
{
    const struct rows_scan own = *s;
    uint32_t n_found = s->n_found;
    for (uint32_t t = own.first; t < own.last; t++) {
        const float *row = own.logits + t * own.stride, shift = own.shift[t];
        for (uint32_t e = 0; shift == shift && e < own.n_columns; e += 64) {
            const uint32_t n = own.n_columns - e < 64 ? own.n_columns - e : 64;
            n_found = add_candidates(&own, n_found, t, row, e, passing(row + e, own.cut + e, splat(shift), n));
        }
    }
    s->n_found = n_found;
}

/* to_order() of orders.h. */
static inline v8i order8(v8f x)
{
    const v8i bits = (v8i)(x + splat(0.0f)), negative = bits >> 31;
    const v8i number = x == x;
    return (bits ^ (negative | splat_id(INT32_MIN))) & number;
}

/* Scores less base of eight rows, spare ones repeated, become columns from place `at` on. */
static void orders_of(const struct rows_orders *o, const uint32_t token[8], uint32_t at, uint32_t n)
{
    v8f x[8];
    for (uint32_t l = 0; l < 8; l++) {
        const uint32_t t = token[l];
        const v8f y = load_some(o->logits + t * o->stride, o->n_columns);
        x[l] = o->score == MOESIM_SOFTMAX ? softmax8(&o->norm[t], y) : score8(o->score, y);
        x[l] -= splat(o->base[t]);
    }
    transpose8(x);
    for (uint32_t j = 0; j < o->n_columns; j++) {
        const v8i order = order8(x[j]);
        memcpy(o->order + (size_t)j * o->n_rows + at, &order, n * sizeof *o->order);
    }
}

static uint32_t rows_orders(const struct rows_orders *o)
{
    uint32_t token[8], n = 0, at = 0;
    for (uint32_t t = 0; t < o->n_rows; t++) {
        __builtin_prefetch(o->logits + (t + SCAN_AHEAD) * o->stride);
        if (o->base[t] == o->base[t])
            token[n++] = t;
        if (n == 0 || (n < 8 && t + 1 < o->n_rows))
            continue;
        for (uint32_t l = n; l < 8; l++)
            token[l] = token[l - 1];
        orders_of(o, token, at, n);
        at += n;
        n = 0;
    }
    return at;
}

/* ---- sums over rows ---- */

/* Adds n_rows rows, values[l]: their scores, or with `parts` what softmax shares out. A row without a finite value adds
 * nothing. */
static void add_scores(enum moesim_score score, const float *values, bool parts, const struct rows_norm *norm,
                       uint32_t n_rows, uint32_t n, double *sum)
{
    const float *row[8];
    float factor[8];
    uint32_t n_fit = 0;
    for (uint32_t l = 0; l < n_rows; l++) {
        row[n_fit] = values + l * (size_t)n;
        factor[n_fit] = parts || is_shared_out(score) ? 1 / norm[l].sum : 1;
        if (!norm[l].odd)
            n_fit++;
        else
            add_odd_row(score, row[n_fit], parts ? norm[l].sum : 1, n, sum);
    }
    add_rows(row, factor, n_fit, n, sum);
}

static void rows_add_scores(enum moesim_score score, const float *scores, uint32_t n, double *sum)
{
    const float all = rows_sum(scores, n);
    const struct rows_norm norm = {.sum = all, .odd = is_odd_sum(score, all)};
    add_scores(score, scores, false, &norm, 1, n, sum);
}

static void rows_sum_scores(enum moesim_score score, const float *const row[8], uint32_t n_rows, uint32_t n,
                            float *values, double *sum)
{
    const bool softmax = score == MOESIM_SOFTMAX;
    struct rows_norm norm[8];
    for (uint32_t l = 0; l < n_rows; l++) {
        float *own = values + l * (size_t)n;
        norm[l] = softmax ? softmax_of(row[l], n, row_max(row[l], n), own) : score_row(score, row[l], n, own);
    }
    add_scores(score, values, softmax, norm, n_rows, n, sum);
}

/* H = sum s (ln sum exp l - l), and ln s = l - ln sum exp l at the largest. */
static double rows_entropy(const float *logits, const float *scores, uint32_t n)
{
    const float largest = row_max(logits, n);
    v8f below = splat(0.0f);
    for (uint32_t i = 0; largest < INFINITY && i < n; i += 8) {
        const v8f s = load_some(scores + i, n - i);
        below += pick(s > splat(0.0f), s * (splat(largest) - load_some(logits + i, n - i)), splat(0.0f));
    }
    return (double)sum_lanes(below) - log((double)row_max(scores, n));
}

/* ---- the best that hold a given mass ---- */

static inline float mass_above(const float *v, const float *mass, uint32_t n, float cut)
{
    v8f sum = splat(0.0f);
    for (uint32_t i = 0; i < n; i += 8) {
        const bool whole = n - i >= 8;
        const v8f x = whole ? load8(v + i) : load_tail(v + i, n - i);
        const v8f m = whole ? load8(mass + i) : load_tail(mass + i, n - i);
        sum += pick(x > splat(cut), m, splat(0.0f));
    }
    return sum_lanes(sum);
}

/* Halves what lies below the largest value until what is above the cut has little more than enough. */
static float rows_cut_by_mass(const float *v, const float *mass, uint32_t n, float enough)
{
    float high = row_max(v, n), low = high - 8;
    if (!(mass_above(v, mass, n, low) > enough)) {
        high = low;
        low = high - 32;
        if (!(mass_above(v, mass, n, low) > enough))
            return -INFINITY;
    }
    for (int i = 0; i < 12; i++) {
        const float middle = (low + high) / 2, above = mass_above(v, mass, n, middle);
        if (!(above > enough)) {
            high = middle;
            continue;
        }
        low = middle;
        if (above - enough < 0.5f * (enough < 0.5f ? enough : 1 - enough))
            break;
    }
    return low;
}

/* ---- chances to be among the best ---- */

static float rows_next_best(const float *v, uint32_t n, uint32_t k, float kth)
{
    v8f best = splat(-INFINITY);
    v8i n_inside = splat_id(0);
    for (uint32_t i = 0; i < n; i += 8) {
        const v8f x = load_some(v + i, n - i);
        const v8i inside = x >= splat(kth);
        n_inside -= inside;
        best = larger(pick(inside, splat(-INFINITY), x), best);
    }
    int32_t all = 0;
    for (int l = 0; l < 8; l++)
        all += n_inside[l];
    return all > (int32_t)k ? kth : row_max((const float *)&best, 8);
}

static bool all_finite(const float *a, const float *b, uint32_t n)
{
    v8f odd = splat(0.0f); /* stays 0 while values are finite */
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8f x = load8(a + i), y = load8(b + i);
        odd += (x - x) + (y - y);
    }
    for (; i < n; i++)
        odd[i % 8] += (a[i] - a[i]) + (b[i] - b[i]);
    return !any(odd != splat(0.0f));
}

SIDE_BY_SIDE void add_chances(const int n_vectors, const float *clean, const float *noisy, float inside, float outside,
                              const float *width, uint32_t n, double *sum)
{
    v8f x[MOST_VECTORS];
    EACH
    {
        const uint32_t left = n - 8 * j;
        const v8f rival = pick(load_some(noisy + 8 * j, left) > splat(inside), splat(inside), splat(outside));
        x[j] = (load_some(clean + 8 * j, left) - rival) / load_some(width + 8 * j, left);
    }
    normal_cdfs(n_vectors, x, x);
    EACH add_doubles(x[j], n - 8 * j, sum + 8 * j);
}

static bool rows_add_chances(const float *clean, const float *noisy, float inside, float outside, const float *width,
                             uint32_t n, double *sum)
{
    if (!all_finite(clean, noisy, n))
        return false;
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        add_chances(2, clean + i, noisy + i, inside, outside, width + i, 16, sum + i);
    for (; i < n; i += 8)
        add_chances(1, clean + i, noisy + i, inside, outside, width + i, n - i, sum + i);
    return true;
}

/* ---- selection ---- */

/* Lanes that do not repeat the one before. */
static uint32_t count_lanes(uint32_t *const expert[8])
{
    uint32_t n = 1;
    while (n < 8 && !repeats(expert, n))
        n++;
    return n;
}

static void add_sizes(const struct rows_select *s, const float *const row[8], const struct rows_norm norm[8],
                      uint32_t *const expert[8])
{
    const uint32_t n_rows = count_lanes(expert);
    for (uint32_t l = 0; l < n_rows; l++) {
        const double size = size_of(&norm[l], row[l], s->n);
        *s->squares += size == size ? size * size : 0;
    }
}

/* Eight rows' softmax, which shares shares[8][n] out unless that is NULL. */
static void find_softmax(const struct rows_select *s, const float *const row[8], float *shares,
                         uint32_t *const expert[8], struct rows_norm norm[8])
{
    v8f max;
    for (uint32_t l = 0; l < 8; l++) {
        const uint32_t best = expert[l][0];
        max[l] = !s->shift && best != MOESIM_NO_EXPERT ? row[l][best] : row_max(row[l], s->n);
    }
    const v8f sum = plain_sums(row, s->n, max, shares, NULL);
    const bool any_odd_row = norms_of(row, s->n, max, sum, shares, norm);
    if (!s->confidence || !shares)
        return;
    if (any_odd_row || s->n > SUM_COLUMNS)
        rows_confidence(row, s->n, s->confidence);
    else
        confidence_of_shares(row, shares, s->n, max, sum, s->confidence);
}

/* What rows that were compared by logits have as scores, as far as that is wanted; s->sum is added to by way of
 * `values`. */
static void find_norms(const struct rows_select *s, const float *const row[8], float *values, uint32_t *const expert[8],
                       struct rows_norm norm[8])
{
    if (s->score == MOESIM_SOFTMAX)
        find_softmax(s, row, s->sum ? values : NULL, expert, norm);
    else if (s->sum)
        for (uint32_t l = 0; l < 8; l++)
            norm[l] = score_row(s->score, row[l], s->n, values + l * (size_t)s->n);
    if (s->sum)
        add_scores(s->score, values, s->score == MOESIM_SOFTMAX, norm, count_lanes(expert), s->n, s->sum);
}

/* The scores of what was chosen, lane by lane in a vector. */
static void chosen_scores(const struct rows_select *s, const float *const row[8], const struct rows_norm norm[8],
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
                       struct rows_norm norm[8], const float *v[8])
{
    const uint32_t n = s->n;
    for (uint32_t l = 0; l < 8; l++) {
        float *own = values + l * (size_t)n;
        v[l] = own;
        for (uint32_t e = 0; s->shift && e < n; e++)
            own[e] = row[l][e] + s->shift[e];
        if (!s->shift)
            norm[l] = score_row(s->score, row[l], n, own);
    }
    if (s->by_score && s->sum)
        add_scores(s->score, values, false, norm, count_lanes(expert), n, s->sum);
    for (uint32_t l = 0; s->bias && l < 8; l++)
        for (uint32_t e = 0; e < n; e++)
            values[l * (size_t)n + e] += s->bias[e];
}

static void select_plain(const struct rows_select *s, const float *const row[8], uint32_t *const expert[8],
                         float *const score[8])
{
    v8f top[BLOCK_K];
    if (!choose(row, s->n, s->k, expert, top)) {
        struct rows_norm norm[8];
        find_norms(s, row, NULL, expert, norm);
        chosen_scores(s, row, norm, expert, score);
        if (s->confidence)
            rows_confidence(row, s->n, s->confidence);
        return;
    }
    const v8f sum = s->confidence ? sums_and_confidence(row, s->n, top[0], s->confidence)
                                  : plain_sums(row, s->n, top[0], NULL, NULL);
    for (uint32_t c = 0; c < s->k; c++) {
        const v8f y = exp8_below_0(top[c] - top[0]) / sum;
        for (int l = 0; l < 8; l++)
            score[l][c] = y[l];
    }
}

static void rows_select8(const struct rows_select *s, const float *const row[8], float *values,
                         uint32_t *const expert[8], float *const score[8])
{
    const bool softmax = s->score == MOESIM_SOFTMAX;
    struct rows_norm norm[8] = {0};
    const float *v[8];
    memcpy(v, row, sizeof v);
    if (rows_is_plain(s)) {
        select_plain(s, row, expert, score);
        return;
    }
    if (s->shift || s->by_score)
        set_values(s, row, values, expert, norm, v);
    if (s->n_groups <= 1)
        choose(v, s->n, s->k, expert, NULL);
    else if (s->topk_groups > 0)
        choose_in_kept_groups(s, values, expert);
    else
        choose_in_every_group(s, values, expert);
    if (!s->by_score && (s->sum || (softmax && (s->want_score || s->squares))))
        find_norms(s, row, values, expert, norm);
    if (s->squares)
        add_sizes(s, row, norm, expert);
    if (s->want_score)
        chosen_scores(s, row, norm, expert, score);
}

/* after what it builds on */
#include "sim/contract/kernels/rows_run.h"

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
#if defined __AVX512VL__
    .name = "avx512",
#elif defined __AVX2__
    .name = "avx2",
#else
    .name = "baseline",
#endif
    .exp = rows_exp,
    .sum = rows_sum,
    .softplus = rows_softplus,
    .scores = rows_scores,
    .add_scores = rows_add_scores,
    .sum_scores = rows_sum_scores,
    .size = rows_size,
    .confidence = rows_confidence,
    .shared = rows_shared,
    .words = rows_words,
    .shared_words = rows_shared_words,
    .norms = rows_norms,
    .scores_at = rows_scores_at,
    .scan = rows_scan,
    .orders = rows_orders,
    .select = rows_select8,
    .select_run = rows_select_run,
    .move_slots = rows_move_slots,
    .plain_pairs = rows_plain_pairs,
    .follow = rows_follow,
    .project = rows_project,
    .rank_above = rows_rank_above,
    .next_best = rows_next_best,
    .add_chances = rows_add_chances,
    .keep_groups = rows_keep_groups,
    .cut_by_mass = rows_cut_by_mass,
    .entropy = rows_entropy,
};
