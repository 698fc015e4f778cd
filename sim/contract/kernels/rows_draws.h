/* SPDX-License-Identifier: MIT
 *
 * Random numbers in bulk, for the two builds of rows.c: those of random.c, with the same operations in the same order.
 * A group is four consecutive Philox blocks, sixteen numbers; a few groups are worked on side by side.
 */
#ifndef MOESIM_KERNELS_ROWS_DRAWS_H
#define MOESIM_KERNELS_ROWS_DRAWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/contract/kernels/lanes.h"

typedef uint64_t v4u __attribute__((vector_size(32)));

#define GROUP_NUMBERS 16
#define PHILOX_MULTIPLY_0 0xd2511f53u
#define PHILOX_MULTIPLY_1 0xcd9e8d57u
#define PHILOX_WEYL_0 0x9e3779b9u
#define PHILOX_WEYL_1 0xbb67ae85u

static inline v4u splat_u(uint64_t x)
{
    return (v4u){x, x, x, x};
}

/* The products of the lanes' lower halves. */
static inline v4u multiply_low(v4u a, v4u b)
{
#ifdef __AVX2__
    return (v4u)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
    return (a & splat_u(UINT32_MAX)) * (b & splat_u(UINT32_MAX));
#endif
}

/* One group of blocks: word w of block i is the lower half of word[w][i]. */
struct philox_words {
    v4u word[4];
};

SIDE_BY_SIDE void philox_groups(const int n_vectors, const struct moesim_random *r, uint64_t block,
                                struct philox_words *out)
{
    v4u a[MOST_VECTORS], b[MOST_VECTORS], c[MOST_VECTORS], d[MOST_VECTORS], x[MOST_VECTORS], y[MOST_VECTORS];
    v4u key_0 = splat_u((uint32_t)r->seed), key_1 = splat_u(r->seed >> 32);
    EACH a[j] = splat_u(block + 4 * (uint64_t)j) + (v4u){0, 1, 2, 3};
    EACH b[j] = splat_u(r->step);
    EACH c[j] = a[j] >> 32 | splat_u((uint32_t)(r->layer << 16));
    EACH d[j] = splat_u(r->stream);
    for (int round = 0; round < 10; round++) {
        EACH x[j] = multiply_low(a[j], splat_u(PHILOX_MULTIPLY_0));
        EACH y[j] = multiply_low(c[j], splat_u(PHILOX_MULTIPLY_1));
        EACH a[j] = y[j] >> 32 ^ b[j] ^ key_0;
        EACH c[j] = x[j] >> 32 ^ d[j] ^ key_1;
        EACH b[j] = y[j];
        EACH d[j] = x[j];
        key_0 += splat_u(PHILOX_WEYL_0); /* what runs over into the upper half is never looked at */
        key_1 += splat_u(PHILOX_WEYL_1);
    }
    EACH out[j] = (struct philox_words){{a[j], b[j], c[j], d[j]}};
}

/* The lower halves of both, in turns. */
static inline v4u pair_up(v4u first, v4u second)
{
    return (first & splat_u(UINT32_MAX)) | second << 32;
}

/* ---- uniforms ---- */

SIDE_BY_SIDE void uniform_groups(const int n_vectors, const struct moesim_random *r, uint64_t block, float *out)
{
    struct philox_words w[MOST_VECTORS];
    philox_groups(n_vectors, r, block, w);
    EACH
    {
        const v4u low = pair_up(w[j].word[0], w[j].word[1]), high = pair_up(w[j].word[2], w[j].word[3]);
        const v4u half[2] = {__builtin_shufflevector(low, high, 0, 4, 1, 5),
                             __builtin_shufflevector(low, high, 2, 6, 3, 7)};
        for (int i = 0; i < 2; i++) {
            const v8f u = __builtin_convertvector((v8i)((v8u)half[i] >> 8), v8f) * splat(0x1p-24f);
            memcpy(out + j * GROUP_NUMBERS + 8 * i, &u, sizeof u);
        }
    }
}

/* ---- normals ---- */

/* ln x as in logarithm.h. */
SIDE_BY_SIDE void logarithms(const int n_vectors, const v8f *x, v8f *log)
{
    static const float coefficient[] = {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                                        -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
    v8i above[MOST_VECTORS];
    v8f exponent[MOST_VECTORS], m[MOST_VECTORS], z[MOST_VECTORS], y[MOST_VECTORS];
    EACH above[j] = (v8i)x[j] - 0x3f3504f3;
    EACH exponent[j] = __builtin_convertvector(above[j] >> 23, v8f);
    EACH m[j] = (v8f)((above[j] & 0x007fffff) + 0x3f3504f3) - splat(1.0f);
    EACH z[j] = m[j] * m[j];
    EACH y[j] = splat(7.0376836292e-2f);
    for (int i = 0; i < 8; i++)
        EACH y[j] = y[j] * m[j] + splat(coefficient[i]);
    EACH y[j] = y[j] * m[j] * z[j];
    EACH y[j] += exponent[j] * splat(-2.12194440e-4f);
    EACH y[j] -= splat(0.5f) * z[j];
    EACH log[j] = m[j] + y[j] + exponent[j] * splat(0.693359375f);
}

/* sqrt(-2 ln u) for u = (word / 2 + 1/2) / 2^31. */
SIDE_BY_SIDE void radii(const int n_vectors, const v8u *word, v8f *radius)
{
    v8f u[MOST_VECTORS];
    EACH u[j] = (__builtin_convertvector((v8i)(word[j] >> 1), v8f) + splat(0.5f)) * splat(0x1p-31f);
    logarithms(n_vectors, u, u);
    EACH u[j] = splat(-2.0f) * u[j];
    EACH radius[j] = root8(larger(u[j], splat(0.0f)));
}

/* Cosine and sine of word / 2^32 turns. */
SIDE_BY_SIDE void circles(const int n_vectors, const v8u *word, v8f *cosine, v8f *sine)
{
    v8u quarter[MOST_VECTORS];
    v8f x[MOST_VECTORS], z[MOST_VECTORS], s[MOST_VECTORS], c[MOST_VECTORS];
    EACH quarter[j] = (word[j] + (1u << 29)) >> 30;
    EACH x[j] = __builtin_convertvector((v8i)(word[j] - (quarter[j] << 30)), v8f) * splat(1.4629180792671596e-9f);
    EACH z[j] = x[j] * x[j];
    EACH s[j] = (splat(-1.9515295891e-4f) * z[j] + splat(8.3321608736e-3f)) * z[j] - splat(1.6666654611e-1f);
    EACH c[j] =
        (splat(2.443315711809948e-5f) * z[j] - splat(1.388731625493765e-3f)) * z[j] + splat(4.166664568298827e-2f);
    EACH s[j] = s[j] * z[j] * x[j] + x[j];
    EACH c[j] = c[j] * z[j] * z[j] - splat(0.5f) * z[j] + splat(1.0f);
    EACH
    {
        const v8i odd = (v8i)(quarter[j] << 31) >> 31;
        cosine[j] = (v8f)((v8u)pick(odd, s[j], c[j]) ^ ((quarter[j] + 1) & 2) << 30);
        sine[j] = (v8f)((v8u)pick(odd, c[j], s[j]) ^ (quarter[j] & 2) << 30);
    }
}

SIDE_BY_SIDE void normal_groups(const int n_vectors, const struct moesim_random *r, uint64_t block, float *out)
{
    struct philox_words w[MOST_VECTORS];
    v8u even[MOST_VECTORS], odd[MOST_VECTORS];
    v8f radius[MOST_VECTORS], cosine[MOST_VECTORS], sine[MOST_VECTORS];
    philox_groups(n_vectors, r, block, w);
    EACH even[j] = (v8u)pair_up(w[j].word[0], w[j].word[2]);
    EACH odd[j] = (v8u)pair_up(w[j].word[1], w[j].word[3]);
    radii(n_vectors, even, radius);
    circles(n_vectors, odd, cosine, sine);
    EACH
    {
        const v8f x = radius[j] * cosine[j], y = radius[j] * sine[j];
        const v8f low = __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
        const v8f high = __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(out + j * GROUP_NUMBERS, &low, sizeof low);
        memcpy(out + j * GROUP_NUMBERS + 8, &high, sizeof high);
    }
}

/* ---- any range ---- */

typedef void draw_groups(int n_vectors, const struct moesim_random *r, uint64_t block, float *out);

/* Whole groups go straight to `out`, the ends through a buffer. */
SIDE_BY_SIDE void draw(draw_groups *groups, const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    float buffer[GROUP_NUMBERS];
    size_t skip = (size_t)(first % 4), done = 0;
    uint64_t block = first / 4;
    while (done < n) {
        if (skip == 0 && n - done >= 2 * GROUP_NUMBERS) {
            groups(2, r, block, out + done);
            block += 2 * GROUP_NUMBERS / 4;
            done += 2 * GROUP_NUMBERS;
            continue;
        }
        const size_t take = n - done < GROUP_NUMBERS - skip ? n - done : GROUP_NUMBERS - skip;
        groups(1, r, block, buffer);
        memcpy(out + done, buffer + skip, take * sizeof *out);
        block += GROUP_NUMBERS / 4;
        done += take;
        skip = 0;
    }
}

static void rows_uniforms(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draw(uniform_groups, r, first, n, out);
}

static void rows_normals(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draw(normal_groups, r, first, n, out);
}

#endif
