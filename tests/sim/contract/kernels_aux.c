/*
 * Auxiliary losses against published figures, and their gradients against central differences.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>
#include <moesim/router.h>

#include "tests/vectors.h"

TestSuite(kernels_aux, .timeout = 60);

/* Origin: Megatron-LM's switch_load_balancing_loss_func on the 8 x 4 logits; sigmoid scores are first divided by their
 * sum. */
Test(kernels_aux, switch_on_the_vectors)
{
    static const uint64_t top2[] = {6, 5, 2, 3}, top1[] = {5, 2, 1, 0};
    float p[8][4], s[8][4];
    moesim_scores(MOESIM_SOFTMAX, logits_8x4[0], 4, 8, 4, p[0]);
    moesim_scores(MOESIM_SIGMOID, logits_8x4[0], 4, 8, 4, s[0]);
    for (int t = 0; t < 8; t++) {
        const float sum = moesim_sum(s[t], 4);
        for (int e = 0; e < 4; e++)
            s[t][e] /= sum;
    }
    cr_assert_float_eq(moesim_aux_switch(p[0], 8, 4, NULL, top2, 1, NULL), 1.1097536, 2e-6);
    cr_assert_float_eq(moesim_aux_switch(p[0], 8, 4, NULL, top1, 1, NULL), 1.2980988, 2e-6);
    cr_assert_float_eq(moesim_aux_switch(s[0], 8, 4, NULL, top2, 1, NULL), 1.0351577, 2e-6);
    cr_assert_float_eq(moesim_aux_switch(p[0], 8, 4, NULL, top2, .01, NULL), .011097536, 2e-8);
    /* two sequences of four tokens, the mean of their losses */
    static const uint64_t first[] = {4, 3, 0, 1}, second[] = {2, 2, 2, 2};
    cr_assert_float_eq(
        (moesim_aux_switch(p[0], 4, 4, NULL, first, 1, NULL) + moesim_aux_switch(p[4], 4, 4, NULL, second, 1, NULL)) /
            2,
        1.176206, 2e-6);
}

/* Origin: google-research/vmoe routing_test.py:39-80 (GShard loss, importance) and Hugging Face's switch_transformers
 * tests. */
Test(kernels_aux, published_figures)
{
    static const float gates[] = {.5f, .4f, .1f, .3f, .3f, .4f, .1f, .2f, .7f, .8f, .2f, 0};
    static const uint64_t first_choice[] = {2, 0, 2};
    cr_assert_float_eq(moesim_aux_switch(gates, 4, 3, NULL, first_choice, 1, NULL), 1.0875, 1e-6);
    double importance[3] = {0};
    for (int i = 0; i < 12; i++)
        importance[i % 3] += gates[i];
    cr_assert_float_eq(moesim_aux_cv2(importance, 3, 1, NULL), .03874999, 1e-7);

    static const float probs[] = {.35490513f, .60419905f, .4275843f,  .23061597f, .32985854f,
                                  .43953657f, .25099766f, .27730572f, .7678207f,  .71474564f};
    static const uint64_t n[] = {3, 2};
    cr_assert_float_eq(moesim_aux_switch(probs, 5, 2, NULL, n, 1, NULL), .8741045, 1e-6);

    /* counts (6,4,4,2) and (8,0,0,0): CV^2 .125 and 3 */
    cr_assert_float_eq(moesim_aux_cv2((double[]){6, 4, 4, 2}, 4, 1, NULL), .125, 1e-10);
    cr_assert_float_eq(moesim_aux_cv2((double[]){8, 0, 0, 0}, 4, 2, NULL), 6, 1e-9);
    cr_assert_eq(moesim_aux_cv2((double[]){0, 0}, 2, 1, NULL), 0);
}

Test(kernels_aux, z_loss)
{
    static const float logits[12][4] = {
        {-4.2124424f, 3.891939f, -3.6481273f, 1.8849981f},  {.32625437f, 2.918651f, .84758997f, -4.556842f},
        {-3.32062f, 4.6977115f, -.15439987f, .44086337f},   {3.4467149f, 4.3436565f, -4.7224274f, -4.264637f},
        {-2.224406f, -2.5318158f, -1.3832569f, 1.1891162f}, {-2.320062f, -.44705987f, 4.289819f, -.00662684f},
        {.99470854f, -.6992364f, .25503993f, 4.2952085f},   {3.5937333f, -3.2408535f, -4.298278f, 4.426601f},
        {.7669008f, 2.6588762f, 2.4505413f, 4.6051874f},    {.23330331f, -3.0845237f, .6262374f, -2.9865491f},
        {.7595146f, -2.1099675f, -4.155346f, -2.8326452f},  {2.3771453f, 1.004138f, -3.1781673f, .7581556f}};
    cr_assert_float_eq(moesim_aux_z(logits[0], 4, 12, 4, NULL, 1, NULL), 13.786719, 1e-5);
    cr_assert_float_eq(moesim_aux_z(logits_8x4[0], 4, 8, 4, NULL, 1, NULL), 4.1254926, 2e-6);
}

/* Rows left out change neither value nor gradient of the others. */
Test(kernels_aux, rows_left_out)
{
    float x[10][4], p[10][4], d[10][4] = {{0}}, all[8][4] = {{0}};
    uint8_t skip[10] = {[9] = 1};
    static const uint64_t n[] = {6, 5, 2, 3};
    memcpy(x, logits_8x4, sizeof logits_8x4);
    for (int e = 0; e < 4; e++) {
        x[8][e] = NAN;
        x[9][e] = 5;
    }
    moesim_scores(MOESIM_SOFTMAX, x[0], 4, 10, 4, p[0]);
    const double balance = moesim_aux_switch(p[0], 10, 4, skip, n, 1, d[0]);
    cr_assert_float_eq(balance, 1.1097536, 2e-6);
    moesim_aux_switch(p[0], 8, 4, NULL, n, 1, all[0]);
    cr_assert_arr_eq(d, all, sizeof all);
    const double z = moesim_aux_z(x[0], 4, 10, 4, skip, 1, d[0]);
    cr_assert_float_eq(z, 4.1254926, 2e-6);
    for (int e = 0; e < 4; e++)
        cr_assert(d[8][e] == 0 && d[9][e] == 0);
    cr_assert_eq(moesim_aux_switch(p[8], 1, 4, NULL, n, 1, NULL), 0);
    cr_assert_eq(moesim_aux_switch(p[0], 8, 4, NULL, (uint64_t[4]){0}, 1, NULL), 0);
    cr_assert_eq(moesim_aux_z(x[8], 4, 1, 4, NULL, 1, d[8]), 0);
}

Test(kernels_aux, gradients)
{
    enum { T = 5, E = 6 };
    const struct moesim_random d = {.seed = 8, .stream = MOESIM_STREAM_TEST};
    float x[T * E], p[T * E], d_p[T * E] = {0}, d_x[T * E] = {0};
    double c[E], d_c[E] = {0};
    static const uint64_t n[E] = {3, 0, 1, 4, 1, 1};
    moesim_random_normals(&d, 0, T * E, x);
    for (int e = 0; e < E; e++)
        c[e] = 2 + x[e];
    /* the switch loss through softmax, sigmoid and softplus scores; the z-loss; CV^2 */
    for (int f = MOESIM_SOFTMAX; f <= MOESIM_SQRT_SOFTPLUS; f++) {
        memset(d_p, 0, sizeof d_p);
        memset(d_x, 0, sizeof d_x);
        moesim_scores((enum moesim_score)f, x, E, T, E, p);
        moesim_aux_switch(p, T, E, NULL, n, 2, d_p);
        moesim_scores_backward((enum moesim_score)f, x, E, p, d_p, T, E, d_x);
        moesim_aux_z(x, E, T, E, NULL, 3, d_x);
        for (int i = 0; i < T * E; i++) {
            double value[2];
            const float at = x[i];
            for (int side = 0; side < 2; side++) {
                x[i] = at + (side ? 1.0f : -1.0f) / 128;
                moesim_scores((enum moesim_score)f, x, E, T, E, p);
                value[side] = moesim_aux_switch(p, T, E, NULL, n, 2, NULL) + moesim_aux_z(x, E, T, E, NULL, 3, NULL);
            }
            x[i] = at;
            cr_assert_float_eq(d_x[i], (value[1] - value[0]) * 64, 1e-3, "function %d, %d", f, i);
        }
    }
    moesim_aux_cv2(c, E, 2, d_c);
    for (int e = 0; e < E; e++) {
        const double at = c[e];
        c[e] = at + 1e-5;
        const double above = moesim_aux_cv2(c, E, 2, NULL);
        c[e] = at - 1e-5;
        const double below = moesim_aux_cv2(c, E, 2, NULL);
        c[e] = at;
        cr_assert_float_eq(d_c[e], (above - below) / 2e-5, 1e-7);
    }
}

/* Sums over groups, sequences and the batch, more of them than are kept at hand, added by the caller or worked out. */
Test(kernels_aux, sums_of_scores)
{
    enum { T = 3000, E = 5 };
    static float x[T * E], s[T * E];
    static uint8_t padding[T];
    static uint32_t sequence[T];
    static const uint32_t group_start[] = {0, 1500, 1500, T};
    const struct moesim_random d = {.seed = 9, .stream = MOESIM_STREAM_TEST};
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_env env = {.max_tokens = T, .arena = arena};
    struct moesim_score_sums *sums;
    struct moesim_error err;
    moesim_random_normals(&d, 0, T * E, x);
    for (uint32_t t = 0; t < T; t++) {
        sequence[t] = t < 1400 ? t / 7 : t / 1000 + 1000; /* 200 short ones, then long ones */
        padding[t] = t % 13 == 4;
        x[t * E + t % E] = t % 100 == 9 ? NAN : x[t * E + t % E];
    }
    struct moesim_batch batch = {.n_tokens = T, .n_groups = 3, .group_start = group_start, .padding = padding};
    batch.sequence_id = sequence;
    static const uint32_t range[][2] = {{0, 1500}, {1500, 1500}, {1500, T}, {0, 7}, {7, 14}, {1393, 1400}, {0, T}};
    for (int f = MOESIM_SOFTMAX; f <= MOESIM_RELU; f++) {
        const bool shared = f == MOESIM_SIGMOID || f == MOESIM_SQRT_SOFTPLUS;
        moesim_scores((enum moesim_score)f, x, E, T, E, s);
        for (int by_sequence = 0; by_sequence < 2; by_sequence++)
            for (int added = 0; added < 2; added++) {
                cr_assert_eq(
                    moesim_score_sums_init((enum moesim_score)f, E, added ? 256 : 0, by_sequence, &env, &sums, &err),
                    MOESIM_OK);
                moesim_score_sums_begin(sums, &batch, x, E, added);
                for (uint32_t t = 0; added && t < T; t++)
                    if (!padding[t])
                        moesim_score_sums_add(sums, t, s + t * E);
                for (size_t r = 0; r < sizeof range / sizeof *range; r++) {
                    double sum[E], expected[E] = {0};
                    if (!by_sequence && r >= 3 && r < 6)
                        continue;
                    moesim_score_sums_of(sums, range[r][0], range[r][1], sum);
                    for (uint32_t t = range[r][0]; t < range[r][1]; t++) {
                        double all = 0;
                        for (int e = 0; e < E; e++)
                            all += isnan(s[t * E + e]) ? 0 : s[t * E + e];
                        for (int e = 0; e < E; e++)
                            expected[e] += padding[t] || isnan(s[t * E + e]) ? 0 : s[t * E + e] / (shared ? all : 1);
                    }
                    for (int e = 0; e < E; e++)
                        cr_assert_float_eq(sum[e], expected[e], 1e-6 * (1 + expected[e]), "function %d, range %zu", f,
                                           r);
                }
            }
    }
    moesim_arena_destroy(arena);
}
