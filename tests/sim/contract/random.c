/*
 * Philox and the numbers made from it.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/contract/kernels/draws.h"

TestSuite(random, .timeout = 60);

/* Random123, tests/kat_vectors, philox4x32 10 rounds. */
Test(random, philox_known_answers)
{
    const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        moesim_philox4x32(known[i], known[i] + 4, out);
        cr_assert_arr_eq(out, known[i] + 6, sizeof out);
    }
}

/* Every part of the name changes the numbers, and where each part goes is fixed. */
Test(random, counter_layout)
{
    const struct moesim_random r = {UINT64_C(0x1122334455667788), 0x201, 7, 9};
    const uint64_t indices[] = {0, 1, 6, (UINT64_C(1) << 36) + 3, (UINT64_C(1) << 48) - 1};
    for (int i = 0; i < 5; i++) {
        const uint64_t block = indices[i] / 4;
        const uint32_t counter[4] = {(uint32_t)block, 9, 7u << 16 | (uint32_t)(block >> 32), 0x201};
        const uint32_t key[2] = {0x55667788, 0x11223344};
        uint32_t out[4];
        moesim_philox4x32(counter, key, out);
        cr_assert_eq(moesim_random_bits(&r, indices[i]), out[indices[i] % 4]);
    }
}

static const size_t starts[] = {0, 1, 2, 3, 5, 62, 63, 64, 65, 1000003};
static const size_t lengths[] = {0, 1, 2, 3, 4, 5, 63, 64, 65, 127, 128, 129, 1000};
static const uint64_t far = (UINT64_C(1) << 34) - 500; /* the block number passes 32 bits */

Test(random, bulk_equals_single_at_any_offset)
{
    const struct moesim_random r = {42, MOESIM_STREAM_TEST, 3, 1};
    static float bulk[1002];
    for (size_t s = 0; s < 11; s++)
        for (size_t l = 0; l < 13; l++) {
            const uint64_t first = s < 10 ? starts[s] : far;
            const size_t n = lengths[l];
            bulk[n] = bulk[n + 1] = 99;
            moesim_random_normals(&r, first, n, bulk);
            for (size_t i = 0; i < n; i++)
                cr_assert_eq(bulk[i], moesim_random_normal(&r, first + i));
            moesim_random_uniforms(&r, first, n, bulk);
            for (size_t i = 0; i < n; i++)
                cr_assert_eq(bulk[i], moesim_random_uniform(&r, first + i));
            cr_assert(bulk[n] == 99 && bulk[n + 1] == 99);
        }
}

/* The builds that this processor runs. */
static uint32_t builds(const struct draws_kernels *build[3])
{
    uint32_t n = 0;
    build[n++] = &moesim_draws_baseline;
#ifdef MOESIM_HAVE_AVX2
    if (__builtin_cpu_supports("avx2"))
        build[n++] = &moesim_draws_avx2;
    if (__builtin_cpu_supports("avx512f"))
        build[n++] = &moesim_draws_avx512;
#endif
    return n;
}

/* Every build has the bits of single elements, for pieces and for a range over several chunks. */
Test(random, builds_have_equal_bits)
{
    enum { N = 3000, MANY = 1 << 20 };
    static float bulk[N + 1], many[2][MANY];
    const struct draws_kernels *build[3];
    const uint32_t n_builds = builds(build);
    for (uint32_t b = 0; b < n_builds; b++) {
        for (uint32_t i = 0; i < 60; i++) {
            const struct moesim_random r = {UINT64_C(0x123456789abcdef) * i, MOESIM_STREAM_TEST + i, 65535 * (i % 2),
                                            i};
            const uint64_t first = i % 3 ? far + i : 0;
            const size_t n = moesim_random_below(&r, 0, i % 4 ? N : 70);
            bulk[n] = 99;
            build[b]->normals(&r, first, n, bulk);
            for (size_t j = 0; j < n; j++) {
                const float one = moesim_random_normal(&r, first + j);
                cr_assert_arr_eq(&bulk[j], &one, sizeof one);
            }
            build[b]->uniforms(&r, first, n, bulk);
            for (size_t j = 0; j < n; j++)
                cr_assert_eq(bulk[j], moesim_random_uniform(&r, first + j));
            cr_assert_eq(bulk[n], 99);
        }
        const struct moesim_random r = {7, MOESIM_STREAM_TEST, 1, 2};
        build[b]->normals(&r, 3, MANY, many[b > 0]);
        if (b)
            cr_assert_arr_eq(many[0], many[1], sizeof many[0]);
    }
}

/* Box-Muller in double with the C library, from the same bits. */
Test(random, normals_match_a_double_reference)
{
    const struct moesim_random r = {5, MOESIM_STREAM_TEST, 0, 0};
    for (uint64_t i = 0; i < 20000; i += 2) {
        const double u = ((float)(moesim_random_bits(&r, i) >> 1) + .5f) * 0x1p-31f;
        const double angle = moesim_random_bits(&r, i + 1) * 0x1p-32 * 2 * acos(-1.0);
        const double radius = sqrt(-2 * log(u));
        cr_assert_float_eq(moesim_random_normal(&r, i), radius * cos(angle), 4e-7 * (1 + radius));
        cr_assert_float_eq(moesim_random_normal(&r, i + 1), radius * sin(angle), 4e-7 * (1 + radius));
    }
}

Test(random, moments_and_bounds)
{
    enum { N = 1 << 20 };
    static float x[N];
    const struct moesim_random r = {2024, MOESIM_STREAM_TEST, 0, 0};
    moesim_random_normals(&r, 0, N, x);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, product = 0;
    for (size_t i = 0; i < N; i++) {
        cr_assert(isfinite(x[i]) && fabsf(x[i]) < 6.7f);
        m1 += x[i];
        m2 += x[i] * (double)x[i];
        m3 += x[i] * (double)x[i] * x[i];
        m4 += x[i] * (double)x[i] * x[i] * x[i];
        product += i ? x[i] * (double)x[i - 1] : 0;
    }
    /* five standard errors: 1, sqrt 2, sqrt 15, sqrt 96, 1 over sqrt N = 1024 */
    cr_assert_float_eq(m1 / N, 0, 5 / 1024.0);
    cr_assert_float_eq(m2 / N, 1, 5 * 1.414 / 1024.0);
    cr_assert_float_eq(m3 / N, 0, 5 * 3.873 / 1024.0);
    cr_assert_float_eq(m4 / N, 3, 5 * 9.798 / 1024.0);
    cr_assert_float_eq(product / N, 0, 5 / 1024.0);

    moesim_random_uniforms(&r, 0, N, x);
    uint32_t bucket[16] = {0};
    for (size_t i = 0; i < N; i++) {
        cr_assert(x[i] >= 0 && x[i] < 1);
        bucket[(int)(x[i] * 16)]++;
    }
    for (int b = 0; b < 16; b++)
        cr_assert_float_eq((double)bucket[b], N / 16.0, 5 * sqrt(N / 16.0));
}

Test(random, below)
{
    const struct moesim_random r = {1, MOESIM_STREAM_TEST, 0, 0};
    uint32_t count[7] = {0};
    for (uint64_t i = 0; i < 70000; i++) {
        const uint32_t n = moesim_random_below(&r, i, 7);
        cr_assert(n < 7);
        count[n]++;
        cr_assert_eq(moesim_random_below(&r, i, 1), 0);
        cr_assert_eq(moesim_random_below(&r, i, 1u << 31), moesim_random_bits(&r, i) >> 1);
    }
    for (int i = 0; i < 7; i++)
        cr_assert_float_eq((double)count[i], 10000.0, 5 * 93.0);
}
