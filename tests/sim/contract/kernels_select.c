/*
 * Top-k along rows and columns, and selection with a bias.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>
#include <moesim/router.h>

#include "tests/vectors.h"

TestSuite(kernels_select, .timeout = 60);

/* Gates (0.8, 0.1, 0.1) with k = 2 choose the first two experts; ties go to the lower id; NaN is never chosen. */
Test(kernels_select, tie_rule_and_bad_values)
{
    uint32_t e[4];
    moesim_topk((float[]){.8f, .1f, .1f}, 3, 1, 3, 2, e);
    cr_assert(e[0] == 0 && e[1] == 1);
    moesim_topk((float[]){1, 1, 0, 1, 1}, 5, 1, 5, 4, e);
    cr_assert_arr_eq(e, ((uint32_t[]){0, 1, 3, 4}), sizeof e);
    moesim_topk((float[]){0, -0.0f, 0, -0.0f}, 4, 1, 4, 3, e);
    cr_assert(e[0] == 0 && e[1] == 1 && e[2] == 2, "zeros of both signs are equal");
    moesim_topk((float[]){NAN, 2, NAN, INFINITY, -INFINITY}, 5, 1, 5, 4, e);
    cr_assert_arr_eq(e, ((uint32_t[]){3, 1, 4, MOESIM_NO_EXPERT}), sizeof e);
    moesim_topk((float[]){NAN, INFINITY, -INFINITY, NAN}, 4, 1, 4, 2, e);
    cr_assert(e[0] == MOESIM_NO_EXPERT && e[1] == MOESIM_NO_EXPERT, "no finite value");
    moesim_topk(NULL, 4, 0, 4, 2, e);
}

/* Every k on rows with many ties, against counting how many are better. */
Test(kernels_select, rows_against_counting)
{
    enum { T = 37, E = 45 };
    static float x[T * E];
    static uint32_t expert[T * E];
    const struct moesim_random d = {.seed = 5, .stream = MOESIM_STREAM_TEST};
    moesim_random_normals(&d, 0, T * E, x);
    for (int i = 0; i < T * E; i++)
        x[i] = i % 3 ? rintf(x[i] * 3) : x[i];
    for (uint32_t n = 1; n <= E; n += n < 10 ? 1 : 7)
        for (uint32_t k = 1; k <= n; k++) {
            moesim_topk(x, E, T, n, k, expert);
            for (uint32_t t = 0; t < T; t++)
                for (uint32_t e = 0; e < n; e++) {
                    uint32_t rank = 0;
                    for (uint32_t o = 0; o < n; o++)
                        rank += x[t * E + o] > x[t * E + e] || (x[t * E + o] == x[t * E + e] && o < e);
                    cr_assert(rank >= k || expert[t * k + rank] == e, "n %u, k %u, token %u", n, k, t);
                }
        }
}

/* What stands above a bound, best first, for few and for more values than are ranked in registers. */
Test(kernels_select, above_a_bound_against_counting)
{
    enum { N = 700 };
    static float x[N];
    static uint32_t expert[N];
    for (uint32_t i = 0; i < 300; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST};
        const uint32_t n = i % 3 ? 1 + moesim_random_below(&d, N, 60) : 1 + moesim_random_below(&d, N, N - 1);
        const float cut = i % 7 == 0 ? -INFINITY : moesim_random_normal(&d, N + 4);
        uint32_t n_above = 0;
        moesim_random_normals(&d, 0, n, x);
        for (uint32_t e = 0; e < n; e++)
            x[e] = (e + i) % 41 == 7 ? NAN : (e + i) % 47 == 5 ? INFINITY : i % 2 ? rintf(x[e] * 3) : x[e];
        const uint32_t found = moesim_rank_above(x, n, cut, expert);
        for (uint32_t e = 0; e < n; e++) {
            uint32_t rank = 0;
            for (uint32_t o = 0; o < n; o++)
                rank += x[o] > x[e] || (x[o] == x[e] && o < e);
            n_above += x[e] > cut;
            cr_assert(!(x[e] > cut) || expert[rank] == e, "case %u, value %u", i, e);
        }
        cr_assert_eq(found, n_above);
    }
}

/* What is above the cut holds enough, and is found where it exists. */
Test(kernels_select, cut_by_mass)
{
    enum { N = 90 };
    float x[N], s[N];
    for (uint32_t i = 0; i < 500; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST};
        const uint32_t n = 1 + moesim_random_below(&d, N, N);
        const float enough = i % 5 ? moesim_random_uniform(&d, N + 1) : 0.999f;
        double above = 0, all = 0;
        uint32_t n_above = 0, n_needed = 0;
        moesim_random_normals(&d, 0, n, x);
        for (uint32_t e = 0; e < n; e++)
            x[e] = i % 7 == 1 && e % 5 == 2 ? NAN : i % 3 ? x[e] * 4 : rintf(x[e]);
        moesim_scores(MOESIM_SOFTMAX, x, n, 1, n, s);
        const float cut = moesim_cut_by_mass(x, s, n, enough);
        for (uint32_t e = 0; e < n; e++)
            if (x[e] > cut) {
                n_above++;
                above += s[e];
            }
        cr_assert(cut == -INFINITY || above > enough - 1e-6, "case %u: %g of %g", i, above, enough);
        uint32_t best[N];
        moesim_topk(x, n, 1, n, n, best);
        for (; n_needed < n && best[n_needed] != MOESIM_NO_EXPERT && all <= enough; n_needed++)
            all += s[best[n_needed]];
        cr_assert(all < enough + 1e-5 || cut > -INFINITY, "case %u", i);
        cr_assert(cut == -INFINITY || i % 3 == 0 || n_above <= 3 * n_needed + 8, "case %u: %u, %u are needed", i,
                  n_above, n_needed);
    }
}

/* Entropy of one row against its definition in double. */
Test(kernels_select, entropy_of_rows)
{
    enum { N = 70 };
    float x[N], s[N];
    for (uint32_t i = 0; i < 200; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST + 1};
        const uint32_t n = 1 + moesim_random_below(&d, N, N);
        double sum = 0;
        moesim_random_normals(&d, 0, n, x);
        for (uint32_t e = 0; e < n; e++)
            x[e] = e % 9 == 4 && i % 4 == 1   ? NAN
                   : e % 9 == 5 && i % 4 == 2 ? INFINITY
                   : e % 9 == 6               ? -INFINITY
                                              : x[e] * 3;
        x[0] = 1;
        moesim_scores(MOESIM_SOFTMAX, x, n, 1, n, s);
        for (uint32_t e = 0; e < n; e++)
            sum -= s[e] > 0 ? s[e] * log(s[e]) : 0;
        cr_assert_float_eq(moesim_entropy_row(x, s, n), sum, 2e-6, "case %u", i);
    }
    const float bad[] = {NAN, -INFINITY};
    cr_assert(isnan(moesim_entropy_row(bad, (float[]){NAN, NAN}, 2)));
}

Test(kernels_select, columns_against_counting)
{
    enum { T = 200 };
    static float x[T * 3];
    uint32_t row[T];
    uint8_t skip[T] = {0};
    const struct moesim_random d = {.seed = 6, .stream = MOESIM_STREAM_TEST};
    moesim_random_normals(&d, 0, T * 3, x);
    for (uint32_t t = 0; t < T; t++) {
        x[3 * t + 1] = rintf(x[3 * t + 1] * 4);
        skip[t] = t % 11 == 3;
        if (t % 13 == 5)
            x[3 * t + 1] = NAN;
    }
    for (uint32_t count = 0; count <= T; count += 9) {
        const uint32_t n = moesim_topk_column(x, 3, 20, T, 1, count, skip, row);
        uint32_t n_there = 0;
        for (uint32_t t = 20; t < T; t++) {
            if (skip[t] || isnan(x[3 * t + 1]))
                continue;
            n_there++;
            uint32_t rank = 0;
            for (uint32_t o = 20; o < T; o++)
                rank += !skip[o] && (x[3 * o + 1] > x[3 * t + 1] || (x[3 * o + 1] == x[3 * t + 1] && o < t));
            cr_assert(rank >= count || row[rank] == t, "count %u, row %u", count, t);
        }
        cr_assert_eq(n, count < n_there ? count : n_there);
    }
}

/* Routes the 8 x 4 logits with a bias for selection. */
static void expect_biased(uint32_t score, double scale, const uint32_t expert[8][2], const double weight[8][2])
{
    static const float bias[] = {-.3f, .05f, .2f, .1f};
    static const uint32_t group_start[] = {0, 8};
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_token_choice p = {
        .k = 2, .score = score, .weight = MOESIM_WEIGHT_SUM, .group = "batch", .scale = scale};
    const struct moesim_env env = {.n_experts = 4, .max_tokens = 8, .max_groups = 1, .arena = arena};
    const struct moesim_batch batch = {.n_tokens = 8, .n_experts = 4, .n_groups = 1, .group_start = group_start};
    struct moesim_token_choice_scratch *scratch;
    struct moesim_plan plan;
    cr_assert_eq(moesim_token_choice_init(&p, &env, &scratch, &err), MOESIM_OK);
    cr_assert_eq(moesim_plan_init(&plan, 8, 4, 1, 16, 0, arena, &err), MOESIM_OK);
    moesim_plan_reset(&plan, &batch);
    cr_assert_eq(moesim_token_choice_route(&p, &batch, logits_8x4[0], 4, bias, scratch, &plan, &err), MOESIM_OK);
    for (int t = 0; t < 8; t++)
        for (int c = 0; c < 2; c++) {
            cr_assert_eq(plan.expert[2 * t + c], expert[t][c], "token %d", t);
            cr_assert_float_eq(plan.weight[2 * t + c], weight[t][c], 2e-6);
        }
    moesim_arena_destroy(arena);
}

/* Origin: Megatron-LM's and DeepSeek-V3's gates: the bias chooses, the weights are the unbiased scores over their sum.
 */
Test(kernels_select, bias_is_for_selection_only)
{
    static const uint32_t sigmoid[8][2] = {{3, 1}, {1, 2}, {2, 3}, {1, 2}, {2, 1}, {2, 3}, {2, 3}, {1, 3}};
    static const double sigmoid_weight[8][2] = {{1.1937621, 1.3062379}, {1.4427035, 1.0572965}, {1.2028178, 1.2971821},
                                                {1.424839, 1.0751607},  {1.448858, 1.051142},   {1.3785598, 1.1214401},
                                                {1.1642699, 1.3357301}, {1.3616064, 1.1383936}};
    static const uint32_t softplus[8][2] = {{1, 3}, {1, 2}, {2, 3}, {1, 2}, {2, 0}, {2, 1}, {3, 2}, {1, 3}};
    static const double softplus_weight[8][2] = {{.5172148, .4827852}, {.5686705, .4313295}, {.4840298, .5159702},
                                                 {.5571153, .4428847}, {.4434269, .5565731}, {.5298398, .4701602},
                                                 {.5306643, .4693358}, {.5454649, .4545351}};
    expect_biased(MOESIM_SIGMOID, 2.5, sigmoid, sigmoid_weight);
    expect_biased(MOESIM_SQRT_SOFTPLUS, 1, softplus, softplus_weight);
}
