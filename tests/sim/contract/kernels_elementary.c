/*
 * The elementary functions: accuracy against libm in double, hostile arguments, equal bits from both builds of the
 * rows.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

#include "sim/contract/kernels/rows.h"

TestSuite(kernels_elementary, .timeout = 60);

static const struct moesim_random normal = {.seed = 3, .stream = MOESIM_STREAM_TEST};

static double ulps(float x, double exact)
{
    const float near = (float)exact;
    return fabs(x - exact) / (nextafterf(fabsf(near), INFINITY) - fabsf(near));
}

Test(kernels_elementary, exp)
{
    double worst = 0;
    for (float x = -87.3f; x <= 88.0f; x += .00037f) /* half a million points */
        worst = fmax(worst, ulps(moesim_expf(x), exp(x)));
    cr_assert_lt(worst, 2, "%g ulp", worst);
    cr_assert_eq(moesim_expf(0), 1);
    cr_assert_eq(moesim_expf(-0.0f), 1);
    cr_assert(moesim_expf(-87.4f) == 0 && moesim_expf(-INFINITY) == 0 && moesim_expf(-1e30f) == 0);
    cr_assert(isinf(moesim_expf(88.8f)) && isinf(moesim_expf(INFINITY)) && isinf(moesim_expf(1e30f)));
    cr_assert(isfinite(moesim_expf(88.7f)) && moesim_expf(88.7f) > 3.3e38f);
    cr_assert(isnan(moesim_expf(NAN)));
}

Test(kernels_elementary, softplus)
{
    float x[1001], y[1001];
    double worst = 0;
    for (int i = 0; i < 1001; i++)
        x[i] = (float)(i - 500) / 20;
    moesim_softplus(x, 1001, y);
    for (int i = 0; i < 1001; i++)
        worst = fmax(worst, fabs(y[i] / log1p(exp(x[i])) - 1));
    cr_assert_lt(worst, 4e-7, "%g", worst);

    float odd[] = {1000, -1000, INFINITY, -INFINITY, NAN};
    moesim_softplus(odd, 5, y);
    cr_assert(y[0] == 1000 && y[1] == 0 && isinf(y[2]) && y[3] == 0 && isnan(y[4]));
}

/* The distribution function is .5 erfc(-x / sqrt 2); who is above `inside` has that for a rival, all others `outside`.
 */
Test(kernels_elementary, chances)
{
    static float clean[1001], noisy[1001], width[1001];
    static double sum[1001];
    double worst = 0;
    for (int i = 0; i < 1001; i++) {
        clean[i] = (float)(i - 500) / 20;
        noisy[i] = (float)(i % 7);
        width[i] = (float)(1 + i % 3) / 2;
        sum[i] = i;
    }
    cr_assert(moesim_add_chances(clean, noisy, 4, 5, width, 1001, sum));
    for (int i = 0; i < 1001; i++) {
        const double x = (clean[i] - (noisy[i] > 4 ? 4.0 : 5.0)) / width[i];
        worst = fmax(worst, fabs(sum[i] - i - .5 * erfc(-x / sqrt(2))));
    }
    cr_assert_lt(worst, 3e-7, "%g", worst);

    const float odd[] = {INFINITY, -INFINITY, NAN};
    for (int i = 0; i < 6; i++) {
        float *at = i % 2 ? &clean[1000 - i] : &noisy[i * 100], was = *at;
        *at = odd[i / 2];
        cr_assert_not(moesim_add_chances(clean, noisy, 4, 5, width, 1001, sum), "%d", i);
        *at = was;
    }
    cr_assert_eq(sum[0], .5 * erfc(-(clean[0] - 5) / width[0] / sqrt(2))); /* both 0: nothing was added */
}

static int falling(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Against sorting, with few distinct values and with many. */
Test(kernels_elementary, next_best)
{
    const struct moesim_random r = {.seed = 5, .stream = MOESIM_STREAM_TEST};
    for (uint32_t i = 0; i < 2000; i++) {
        float x[70], sorted[70];
        const uint32_t n = 2 + moesim_random_below(&r, 100 * i, 69),
                       k = 1 + moesim_random_below(&r, 100 * i + 1, n - 1);
        for (uint32_t e = 0; e < n; e++)
            x[e] = sorted[e] = (float)moesim_random_below(&r, 100 * i + 2 + e, i % 2 ? 4 : 1000) - 2;
        qsort(sorted, n, sizeof *sorted, falling);
        cr_assert_eq(moesim_next_best(x, n, k, sorted[k - 1]), sorted[k], "case %u", i);
    }
}

/* Eight interleaved partial sums and the tree ((0+4)+(2+6)) + ((1+5)+(3+7)), in plain C. */
static float sum_as_described(const float *x, size_t n)
{
    float part[8] = {0};
    for (size_t i = 0; i < n; i++)
        part[i % 8] += x[i];
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
}

Test(kernels_elementary, sum)
{
    float x[1000];
    moesim_random_normals(&normal, 0, 1000, x);
    for (size_t n = 0; n <= 1000; n = n < 40 ? n + 1 : n + 37)
        cr_assert_eq(moesim_sum(x, n), sum_as_described(x, n), "%zu values", n);
    cr_assert_eq(moesim_sum((float[]){1e8f, 1, 1, 1, -1e8f, 1, 1, 1}, 8), 6, "the large values meet in the tree");
}

/* softmax(0.4, 0.3, 0.3) = (0.3559, 0.3220, 0.3220), and what becomes of values that are not finite. */
Test(kernels_elementary, scores)
{
    float s[5];
    moesim_scores(MOESIM_SOFTMAX, (float[]){.4f, .3f, .3f}, 3, 1, 3, s);
    cr_assert(fabsf(s[0] - .3559f) < 6e-5f && fabsf(s[1] - .3220f) < 6e-5f && s[1] == s[2]);
    const float odd[5] = {1, INFINITY, -INFINITY, INFINITY, NAN};
    moesim_scores(MOESIM_SOFTMAX, odd, 5, 1, 5, s);
    cr_assert(s[0] == 0 && s[1] == .5f && s[2] == 0 && s[3] == .5f && isnan(s[4]));
    moesim_scores(MOESIM_SOFTMAX, (float[]){1, -INFINITY, NAN, 1, 1e38f}, 5, 1, 4, s);
    cr_assert(s[0] == .5f && s[1] == 0 && isnan(s[2]) && s[3] == .5f);
    moesim_scores(MOESIM_SIGMOID, odd, 5, 1, 5, s);
    cr_assert(s[1] == 1 && s[2] == 0 && isnan(s[4]));
    moesim_scores(MOESIM_RELU, odd, 5, 1, 5, s);
    cr_assert(s[0] == 1 && isfinite(s[1]) && s[1] > 3e38f && s[2] == 0 && isnan(s[4]));
    for (int f = MOESIM_SOFTMAX; f <= MOESIM_RELU; f++) { /* no finite value: NaN throughout */
        moesim_scores((enum moesim_score)f, odd + 1, 4, 1, 4, s);
        for (int e = 0; e < 4; e++)
            cr_assert(isnan(s[e]), "function %d", f);
    }
}

#ifdef MOESIM_HAVE_AVX2
enum { MOST = 70, MOST_K = 20 };

/* What one build makes of eight rows of n values. */
struct built {
    uint32_t expert[8 * MOST_K];
    float score[8 * MOST_K], out[3 * MOST];
    double sum[3 * MOST], size, squares, entropy;
    double chances[MOST];
    float cut, width[MOST], next_best;
    struct rows_confidence confidence, beside; /* of the rows, and from the pass that chooses */
    uint64_t shared[3];
    bool is_added;
    uint32_t n_above, above[MOST];
    uint32_t n_found, n_passed[MOST], n_ordered, order[8 * 8];
    uint32_t found[8 * MOST], column[8 * MOST];
    float value[8 * MOST];
};

static bool all_below(const uint32_t *expert, uint32_t n, uint32_t end)
{
    for (uint32_t i = 0; i < n; i++)
        if (expert[i] >= end)
            return false;
    return true;
}

/* What looks at the first columns of the rows. */
static void build_columns(const struct rows_kernels *rows, struct rows_select select, const float *x, struct built *b)
{
    struct rows_norm norm[8];
    const float *row[8];
    float shift[8], base[8], cut[MOST];
    for (uint32_t l = 0; l < 8; l++)
        row[l] = x + l * select.n;
    rows->norms(select.score, row, select.n, norm, NULL);
    for (uint32_t l = 0; l < 8; l++) {
        shift[l] = l == 5 ? NAN : l == 3 ? -INFINITY : x[l] - x[l] == 0 ? x[l] : 0;
        base[l] = l == 2 ? NAN : (float)l / 4;
    }
    for (uint32_t j = 0; j < select.n; j++)
        cut[j] = j % 5 == 4 ? NAN : (float)(j % 16) / 8 - 1;
    struct rows_scan scan = {.logits = x,
                             .stride = select.n,
                             .last = 8,
                             .n_columns = select.n,
                             .shift = shift,
                             .cut = cut,
                             .room = 8 * MOST - 200,
                             .token = b->found,
                             .column = b->column,
                             .value = b->value,
                             .count = b->n_passed};
    rows->scan(&scan);
    b->n_found = scan.n_found;
    if (scan.n_found < scan.room)
        rows->scores_at(select.score, norm, b->found, scan.n_found, b->value);
    for (uint32_t i = 0; i < 8 * MOST; i++)
        b->value[i] = isnan(b->value[i]) ? 99 : b->value[i];
    b->n_ordered = rows->orders(
        &(struct rows_orders){select.score, x, select.n, 8, select.n < 8 ? select.n : 8, norm, base, b->order});
}

static void build_all(const struct rows_kernels *rows, struct rows_select select, const float *x, struct built *b)
{
    static float values[8 * (MOST + 2 * MOST) + MOST];
    const uint32_t n = select.n;
    const float *row[8];
    uint32_t *expert[8];
    float *score[8];
    memset(b, 0, sizeof *b);
    for (uint32_t l = 0; l < 8; l++) {
        row[l] = x + l * n;
        expert[l] = b->expert + l * select.k;
        score[l] = b->score + l * select.k;
    }
    if (select.sum) {
        select.sum = b->sum;
        select.squares = &b->squares;
    }
    if (rows_tells_confidence(&select, select.sum != NULL))
        select.confidence = &b->beside;
    rows->select(&select, row, values, expert, score);
    rows->confidence(row, n, &b->confidence);
    for (uint32_t l = 0; l < 8; l++) {
        b->confidence.entropy[l] = isnan(b->confidence.entropy[l]) ? 99 : b->confidence.entropy[l];
        b->confidence.size[l] = isnan(b->confidence.size[l]) ? 99 : b->confidence.size[l];
        b->beside.entropy[l] = isnan(b->beside.entropy[l]) ? 99 : b->beside.entropy[l];
        b->beside.size[l] = isnan(b->beside.size[l]) ? 99 : b->beside.size[l];
    }
    cr_assert(!select.confidence || memcmp(&b->beside, &b->confidence, sizeof b->beside) == 0);
    for (uint32_t lag = 1; all_below(b->expert, 8 * select.k, n) && lag <= 3; lag++)
        b->shared[lag - 1] = rows->shared(b->expert + lag * select.k, 8 - lag, select.k, lag);
    uint64_t word[8];
    const bool words = all_below(b->expert, 8 * select.k, n < ROWS_WORD_EXPERTS ? n : ROWS_WORD_EXPERTS);
    if (words)
        rows->words(b->expert, 8, select.k, word);
    for (uint32_t lag = 1; words && lag <= 3; lag++)
        cr_assert_eq(rows->shared_words(word + lag, 8 - lag, lag), b->shared[lag - 1]);
    build_columns(rows, select, x, b);
    rows->scores(select.score, x, n, b->out);
    rows->add_scores(select.score, b->out, n, b->sum + MOST);
    rows->softplus(x, n, b->out + n);
    for (uint32_t j = 0; j < n; j++)
        b->width[j] = 1 + (float)(j % 3);
    b->is_added = rows->add_chances(x, x, 0.5f, 0.25f, b->width, n, b->chances);
    b->next_best = rows->next_best(x, n, n / 2, x[0]);
    b->next_best = isnan(b->next_best) ? 99 : b->next_best;
    for (uint32_t j = 0; j < n; j++)
        b->out[2 * n + j] = rows->exp(x[j]);
    rows->sum_scores(select.score, row, 1 + n % 8, n, values, b->sum + 2 * MOST);
    b->size = rows->size(x, n);
    b->entropy = rows->entropy(x, b->out, n);
    b->entropy = isnan(b->entropy) ? 99 : b->entropy;
    b->cut = rows->cut_by_mass(x, b->out, n, 0.4f);
    b->n_above = rows->rank_above(x, n, 0.25f, b->above);
    for (uint32_t j = 0; j < 3 * n; j++)
        b->out[j] = isnan(b->out[j]) ? 99 : b->out[j]; /* the sign of a NaN is free */
    b->size = isnan(b->size) ? 99 : b->size;
}
#endif

/* The builds that this processor runs, the baseline first. */
static uint32_t builds(const struct rows_kernels *build[3])
{
    uint32_t n = 0;
    build[n++] = &moesim_rows_baseline;
#ifdef MOESIM_HAVE_AVX2
    if (__builtin_cpu_supports("avx2"))
        build[n++] = &moesim_rows_avx2;
    if (rows_run_avx512())
        build[n++] = &moesim_rows_avx512;
#endif
    return n;
}

/* Rows of random numbers, ties and hostile values: the builds for AVX2 and AVX-512 have the bits of the one without. */
Test(kernels_elementary, builds_have_equal_bits)
{
#ifdef MOESIM_HAVE_AVX2
    const struct rows_kernels *build[3];
    const uint32_t n_builds = builds(build);
    if (n_builds == 1)
        cr_skip("no AVX2 here");
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f, 0, 88, -88};
    static float x[8 * MOST], bias[MOST];
    static struct built built[2];
    for (uint32_t i = 0; i < 4000; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST + 1};
        const uint32_t n_groups = i % 7 == 0 ? 1 + moesim_random_below(&d, 2, 11) : 1;
        const uint32_t n = (1 + moesim_random_below(&d, 0, MOST / n_groups - 1)) * n_groups;
        const uint32_t kept = n_groups > 1 ? 1 + moesim_random_below(&d, 3, n_groups) : 1, most = n / n_groups * kept;
        const bool by_score = i % 5 == 0 || i % 4 == MOESIM_RELU || n_groups > 1;
        struct rows_select select = {.score = (enum moesim_score)(i % 4),
                                     .want_score = i % 3 > 0,
                                     .n = n,
                                     .k = 1 + moesim_random_below(&d, 1, most < MOST_K ? most : MOST_K),
                                     .bias = i % 5 == 0 ? bias : NULL,
                                     .by_score = by_score,
                                     .sum = i % 2 ? built->sum : NULL,
                                     .n_groups = n_groups,
                                     .topk_groups = kept,
                                     .group_score = (enum moesim_group_score)(i % 3)};
        if (!by_score && i % 11 == 3)
            select.shift = bias;
        if (select.group_score == MOESIM_GROUP_TOPK && select.k < kept)
            select.group_score = MOESIM_GROUP_MAX;
        select.group_best = select.k / kept;
        moesim_random_normals(&d, 100, 8 * n, x);
        moesim_random_normals(&d, 5000, n, bias);
        for (uint32_t j = 0; i % 2 && j < 8 * n; j++)
            if (moesim_random_below(&d, 10000 + j, 8) == 0)
                x[j] = odd[moesim_random_below(&d, 20000 + j, 8)];
        build_all(build[0], select, x, &built[0]);
        for (uint32_t b = 1; b < n_builds; b++) {
            build_all(build[b], select, x, &built[1]);
            cr_assert_arr_eq(&built[0], &built[1], sizeof *built, "%s, case %u", build[b]->name, i);
            cr_assert_eq(build[0]->sum(bias, n), build[b]->sum(bias, n));
        }
    }
#else
    cr_skip("one build only");
#endif
}

/* The place of expert e in a row by falling value, of equal ones the lower id first; n where it cannot be chosen. */
static uint32_t rank_of(const float *row, uint32_t n, uint32_t e)
{
    uint32_t rank = 0;
    bool any = false;
    for (uint32_t o = 0; o < n; o++) {
        any |= isfinite(row[o]);
        rank += row[o] > row[e] || (row[o] == row[e] && o < e);
    }
    return any && !isnan(row[e]) ? rank : n;
}

/* One run of rows by a build against one row after the other: choices, scores (whose bits are those of all scores of
 * the row), and each choice's place among those of its expert. */
static void check_run(const struct rows_kernels *rows, const float *x, size_t stride, uint32_t n_rows, uint32_t n,
                      uint32_t k, bool want_score)
{
    static uint32_t expert[40 * 16], count[700], before[700];
    static float score[40 * 16], s[700];
    static int32_t slot[40 * 16];
    const struct rows_select select = {.score = MOESIM_SOFTMAX, .want_score = want_score, .n = n, .k = k};
    bool all = true;
    for (uint32_t e = 0; e < n; e++)
        before[e] = count[e] = e % 3;
    cr_assert(rows_can_run(&select));
    const struct rows_run run = {.logits = x,
                                 .stride = stride,
                                 .n_rows = n_rows,
                                 .expert = expert,
                                 .score = want_score ? score : NULL,
                                 .count = count,
                                 .slot = slot};
    const bool ran = rows->select_run(&select, &run);
    for (uint32_t t = 0; t < n_rows; t++) {
        const float *row = x + t * stride;
        uint32_t found = 0;
        moesim_scores(MOESIM_SOFTMAX, row, n, 1, n, s);
        for (uint32_t e = 0; e < n; e++) {
            const uint32_t c = rank_of(row, n, e);
            if (c >= k)
                continue;
            found++;
            cr_assert_eq(expert[t * k + c], e, "%s: n %u, k %u, row %u", rows->name, n, k, t);
            cr_assert(!want_score || memcmp(&score[t * k + c], &s[e], sizeof *s) == 0 ||
                          (s[e] == 0 && score[t * k + c] == 0),
                      "%s: n %u, k %u, row %u: %g, not %g", rows->name, n, k, t, score[t * k + c], s[e]);
        }
        for (uint32_t c = found; c < k; c++)
            cr_assert_eq(expert[t * k + c], MOESIM_NO_EXPERT);
        all &= found == k;
        for (uint32_t c = 0; ran && c < k; c++)
            cr_assert_eq(slot[t * k + c], (int32_t)before[expert[t * k + c]]++);
    }
    cr_assert_eq(ran, all);
    cr_assert(!ran || memcmp(count, before, n * sizeof *count) == 0);
    for (uint32_t i = 0; ran && i < n_rows * k; i++)
        count[expert[i]] = 1000 + i % 7, before[expert[i]] = (uint32_t)slot[i];
    if (ran) {
        rows->move_slots(expert, n_rows * k, count, n, slot);
        cr_assert_eq(slot[n_rows * k - 1], (int32_t)(before[expert[n_rows * k - 1]] + count[expert[n_rows * k - 1]]));
    }
}

/* Random rows, many ties, and values that are not finite. */
Test(kernels_elementary, runs_against_rows)
{
    static const uint32_t columns[] = {1, 2, 3, 7, 8, 9, 15, 16, 24, 33, 64, 100, 256, 300, 640};
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -3e38f, 0, -0.0f, -88};
    static float x[40 * 700];
    const struct rows_kernels *build[3];
    const uint32_t n_builds = builds(build);
    for (uint32_t i = 0; i < 600; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST + 3};
        const uint32_t n = columns[i % 15], most = n < 16 ? n : 16, n_rows = 1 + moesim_random_below(&d, 0, 39);
        const uint32_t k = 1 + moesim_random_below(&d, 1, most), stride = n + i % 2 * 3;
        moesim_random_normals(&d, 100, (size_t)n_rows * stride, x);
        for (uint32_t j = 0; i % 4 != 0 && j < n_rows * stride; j++)
            if (i % 4 == 1)
                x[j] = rintf(x[j]);
            else if (moesim_random_below(&d, 100000 + j, i % 4 == 2 ? 2 : 50) == 0)
                x[j] = odd[moesim_random_below(&d, 200000 + j, 8)];
        for (uint32_t b = 0; b < n_builds; b++)
            check_run(build[b], x, stride, n_rows, n, k, i % 3 > 0);
    }
}

enum { MOST_PAIRS = 64, MOST_EXPERTS = 40 };

/* follow() by words, and without them where it can, which is the same. */
static bool follows(const struct rows_kernels *rows, const uint32_t *expert, const int32_t *slot, uint32_t n,
                    uint32_t k, uint32_t n_experts, uint32_t *next)
{
    uint32_t other[MOST_EXPERTS];
    uint64_t word[MOST_PAIRS];
    memcpy(other, next, n_experts * sizeof *other);
    rows->words(expert, n / k, k, word);
    const bool own = rows->follow(expert, slot, word, n, k, n_experts, next);
    if (rows_can_follow(k)) {
        cr_assert_eq(own, rows->follow(expert, slot, NULL, n, k, n_experts, other));
        cr_assert(!own || memcmp(other, next, n_experts * sizeof *other) == 0);
    }
    return own;
}

/* Pairs that follow, and the same with one thing wrong. */
static void check_follow(const struct rows_kernels *rows, uint32_t seed)
{
    const struct moesim_random d = {.seed = seed, .stream = MOESIM_STREAM_TEST + 5};
    const uint32_t k = seed % 7 == 6 ? 6 : 1u << seed % 4, n = k * moesim_random_below(&d, 0, MOST_PAIRS / k + 1);
    const uint32_t n_experts = seed % 3 ? 8 + moesim_random_below(&d, 1, MOST_EXPERTS - 7) : 8;
    uint32_t expert[MOST_PAIRS], next[MOST_EXPERTS], start[MOST_EXPERTS], n_wrong = 0;
    int32_t slot[MOST_PAIRS];
    for (uint32_t e = 0; e < n_experts; e++)
        start[e] = next[e] = 1000 * e;
    for (uint32_t i = 0; i < n; i++) { /* a walk by a step that meets no expert twice in eight */
        const uint32_t first = moesim_random_below(&d, 2 + i / k, n_experts);
        expert[i] = (first + i % k) % n_experts;
        slot[i] = (int32_t)next[expert[i]]++;
    }
    cr_assert(follows(rows, expert, slot, n, k, n_experts, start));
    cr_assert_arr_eq(start, next, n_experts * sizeof *next);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t was = expert[i];
        for (uint32_t e = 0; e < n_experts; e++)
            start[e] = 1000 * e;
        slot[i] ^= 1 << i % 20;
        n_wrong += !follows(rows, expert, slot, n, k, n_experts, start);
        slot[i] ^= 1 << i % 20;
        for (uint32_t e = 0; e < n_experts; e++)
            start[e] = 1000 * e;
        expert[i] = k > 1 ? expert[i / k * k + (i + 1 + seed / 4 % (k - 1)) % k] : (was + 1) % n_experts;
        n_wrong += !follows(rows, expert, slot, n, k, n_experts, start);
        expert[i] = was;
    }
    cr_assert_eq(n_wrong, 2 * n, "%s: seed %u", rows->name, seed);

    /* twice in a token, with slots that follow */
    for (uint32_t i = 0; k > 1 && i < n; i++) {
        const uint32_t was = expert[i];
        expert[i] = expert[i / k * k + (i + 1 + seed / 4 % (k - 1)) % k];
        int32_t own[MOST_PAIRS];
        for (uint32_t e = 0; e < n_experts; e++)
            start[e] = next[e] = 0;
        for (uint32_t j = 0; j < n; j++)
            own[j] = (int32_t)next[expert[j]]++;
        cr_assert_not(follows(rows, expert, own, n, k, n_experts, start), "%s: seed %u, pair %u", rows->name, seed, i);
        expert[i] = was;
    }
}

Test(kernels_elementary, pairs_that_follow)
{
    const struct rows_kernels *build[3];
    const uint32_t n_builds = builds(build);
    for (uint32_t seed = 0; seed < 200; seed++) {
        for (uint32_t b = 0; b < n_builds; b++)
            check_follow(build[b], seed);
    }
}

/* Scores and sizes of rows added up by the eight, against one row at a time in double; rows that are repeated to fill
 * up the eight count once. */
Test(kernels_elementary, sums_over_rows)
{
    enum { N = 37, K = 3 };
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -1e38f, -88};
    static float x[8 * N], values[9 * N], score[8 * K], shift[N] = {1, -2, 3};
    static uint32_t chosen[8 * K];
    for (uint32_t i = 0; i < 400; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST + 2};
        const enum moesim_score f = (enum moesim_score)(i % 4);
        const uint32_t n_rows = 1 + i % 8;
        double sum[N] = {0}, squares = 0, expected[N] = {0}, expected_squares = 0;
        const struct rows_select select = {.score = f,
                                           .n = N,
                                           .k = K,
                                           .by_score = i % 3 == 0 || f == MOESIM_RELU,
                                           .shift = i % 3 == 1 && f != MOESIM_RELU ? shift : NULL,
                                           .sum = sum,
                                           .squares = f == MOESIM_SOFTMAX ? &squares : NULL};
        const float *row[8];
        uint32_t *expert[8];
        float *to[8];
        moesim_random_normals(&d, 0, 8 * N, x);
        for (uint32_t j = 0; i % 5 == 0 && j < 8 * N; j++)
            if (moesim_random_below(&d, 1000 + j, 20) == 0)
                x[j] = odd[moesim_random_below(&d, 2000 + j, 6)];
        for (uint32_t l = 0; l < 8; l++) {
            const uint32_t own = l < n_rows ? l : n_rows - 1;
            row[l] = x + own * N;
            expert[l] = chosen + own * K;
            to[l] = score + own * K;
        }
        moesim_rows_baseline.select(&select, row, values, expert, to); /* that of AVX2 has equal bits */
        for (uint32_t l = 0; l < n_rows; l++) {
            float s[N];
            double total = 0, size = 0, max = -INFINITY;
            moesim_scores(f, row[l], N, 1, N, s);
            for (int e = 0; e < N; e++) {
                total += isnan(s[e]) ? 0 : s[e];
                max = isfinite(row[l][e]) ? fmax(max, row[l][e]) : max;
            }
            for (int e = 0; e < N; e++) {
                const bool shared = f == MOESIM_SIGMOID || f == MOESIM_SQRT_SOFTPLUS;
                expected[e] += isnan(s[e]) || total == 0 ? 0 : shared ? s[e] / total : s[e];
                size += isfinite(row[l][e]) ? exp(row[l][e] - max) : 0;
            }
            expected_squares += size > 0 ? (max + log(size)) * (max + log(size)) : 0;
        }
        for (int e = 0; e < N; e++)
            cr_assert_float_eq(sum[e], expected[e], 1e-6 * (1 + expected[e]), "case %u, expert %d", i, e);
        cr_assert(!select.squares || fabs(squares - expected_squares) <= 1e-6 * (1 + expected_squares), "case %u", i);
    }
}

/* A softmax over more columns than a float can count one by one still sums to 1. */
Test(kernels_elementary, softmax_of_very_long_rows)
{
    static const uint32_t n_columns[] = {4095, 4096, 4097, 100003, 1u << 20};
    float *row = calloc(1u << 20, sizeof *row), *score = calloc(1u << 20, sizeof *score);
    for (uint32_t i = 0; i < 1u << 20; i++)
        row[i] = 1e-3f * (float)(i % 7);
    for (int i = 0; i < 5; i++) {
        double sum = 0, exact = 0;
        moesim_score_row(MOESIM_SOFTMAX, row, n_columns[i], score);
        for (uint32_t e = 0; e < n_columns[i]; e++) {
            sum += (double)score[e];
            exact += exp((double)row[e]);
        }
        cr_expect(fabs(sum - 1) < 1e-5, "%u columns: %.9g", n_columns[i], sum);
        cr_expect(fabs(score[0] * exact / exp((double)row[0]) - 1) < 1e-5, "%u columns", n_columns[i]);
    }
    free(row);
    free(score);
}
