/* SPDX-License-Identifier: MIT
 *
 * Philox4x32-10 and the numbers made of it, many blocks at a time: a vector of 64-bit lanes holds one word of LANES / 2
 * blocks. A chunk's words are drawn first, four vectors side by side, since each is one long chain of products; then
 * they are turned into numbers, vector by vector, with the operations of random.c in their order.
 *
 * Built with DRAWS_KERNELS naming the table: plain, with -mavx2, and with -mavx512f.
 */
#include "sim/contract/kernels/draws.h"

#include <math.h>
#include <string.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#define NUMBERS_OF_BLOCKS                                                                                              \
    {                                                                                                                  \
        0, 1, 2, 3, 4, 5, 6, 7                                                                                         \
    }
#else
#define LANES 8
#define NUMBERS_OF_BLOCKS                                                                                              \
    {                                                                                                                  \
        0, 1, 2, 3                                                                                                     \
    }
#endif

typedef float vf __attribute__((vector_size(4 * LANES)));
typedef int32_t vi __attribute__((vector_size(4 * LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * LANES)));
typedef uint64_t vq __attribute__((vector_size(4 * LANES)));

enum {
    NUMBERS = 2 * LANES, /* of the blocks in a vector */
    CHUNK = 16,          /* vectors */
    SIDE_BY_SIDE = 4,
};

#define INLINE static inline __attribute__((always_inline))

INLINE vf splat(float x)
{
    return x - (vf){0};
}

INLINE vq splat_q(uint64_t x)
{
    return x - (vq){0};
}

#if defined __AVX512F__
/* The products of the lanes' lower halves. */
INLINE vq multiply_low(vq a, vq b)
{
    return (vq)_mm512_mul_epu32((__m512i)a, (__m512i)b);
}
/* The upper half of `product`, exclusive or the others. */
INLINE vq mix(vq product, vq word, vq key)
{
    return (vq)_mm512_ternarylogic_epi64((__m512i)(product >> 32), (__m512i)word, (__m512i)key, 0x96);
}
/* The lower halves of both, in turns. */
INLINE vu pair_up(vq first, vq second)
{
    return (vu)_mm512_mask_blend_epi32(0xaaaa, (__m512i)first, (__m512i)(second << 32));
}
/* By the sign of the mask's lanes. */
INLINE vf pick(vi mask, vf negative, vf other)
{
    return (vf)_mm512_mask_blend_ps(_mm512_cmplt_epi32_mask((__m512i)mask, _mm512_setzero_si512()), (__m512)other,
                                    (__m512)negative);
}
INLINE vf root_of_positive(vf x)
{
    return (vf)_mm512_sqrt_ps(_mm512_max_ps((__m512)x, _mm512_setzero_ps()));
}
INLINE vf first_in_turns(vf x, vf y)
{
    return __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
INLINE vf last_in_turns(vf x, vf y)
{
    return __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#else
INLINE vf first_in_turns(vf x, vf y)
{
    return __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11);
}
INLINE vf last_in_turns(vf x, vf y)
{
    return __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15);
}
INLINE vq mix(vq product, vq word, vq key)
{
    return product >> 32 ^ (word ^ key);
}
#if defined __AVX2__
INLINE vq multiply_low(vq a, vq b)
{
    return (vq)_mm256_mul_epu32((__m256i)a, (__m256i)b);
}
INLINE vu pair_up(vq first, vq second)
{
    return (vu)_mm256_blend_epi32((__m256i)first, (__m256i)(second << 32), 0xaa);
}
INLINE vf pick(vi mask, vf negative, vf other)
{
    return (vf)_mm256_blendv_ps((__m256)other, (__m256)negative, (__m256)mask);
}
INLINE vf root_of_positive(vf x)
{
    return (vf)_mm256_sqrt_ps(_mm256_max_ps((__m256)x, _mm256_setzero_ps()));
}
#else
INLINE vq multiply_low(vq a, vq b)
{
    return (a & splat_q(UINT32_MAX)) * (b & splat_q(UINT32_MAX));
}
INLINE vu pair_up(vq first, vq second)
{
    return (vu)((first & splat_q(UINT32_MAX)) | second << 32);
}
INLINE vf pick(vi mask, vf negative, vf other)
{
    const vi all = mask >> 31;
    return (vf)((all & (vi)negative) | (~all & (vi)other));
}
INLINE vf root_of_positive(vf x)
{
    for (int i = 0; i < LANES; i++)
        x[i] = sqrtf(x[i] > 0 ? x[i] : 0);
    return x;
}
#endif
#endif

/* ---- words ---- */

/* The words of a vector of blocks: 0 and 2 in turns, 1 and 3 in turns. */
struct words {
    vu even, odd;
};

struct round_keys {
    uint32_t key[10][2];
};

static struct round_keys keys_of(uint64_t seed)
{
    struct round_keys keys;
    for (uint32_t round = 0; round < 10; round++) {
        keys.key[round][0] = (uint32_t)seed + round * PHILOX_WEYL_0;
        keys.key[round][1] = (uint32_t)(seed >> 32) + round * PHILOX_WEYL_1;
    }
    return keys;
}

/* n vectors, known where this is inlined. What is in the upper halves of a lane is never looked at. */
INLINE void philox(const int n, const struct moesim_random *r, const struct round_keys *keys, uint64_t block,
                   struct words *out)
{
    vq a[SIDE_BY_SIDE], b[SIDE_BY_SIDE], c[SIDE_BY_SIDE], d[SIDE_BY_SIDE];
    for (int j = 0; j < n; j++) {
        a[j] = splat_q(block + (uint64_t)j * (LANES / 2)) + (vq)NUMBERS_OF_BLOCKS;
        b[j] = splat_q(r->step);
        c[j] = a[j] >> 32 | splat_q((uint32_t)(r->layer << 16));
        d[j] = splat_q(r->stream);
    }
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        const vq key_0 = splat_q(keys->key[round][0]), key_1 = splat_q(keys->key[round][1]);
        for (int j = 0; j < n; j++) {
            const vq x = multiply_low(a[j], splat_q(PHILOX_MULTIPLY_0)),
                     y = multiply_low(c[j], splat_q(PHILOX_MULTIPLY_1));
            a[j] = mix(y, b[j], key_0);
            c[j] = mix(x, d[j], key_1);
            b[j] = y;
            d[j] = x;
        }
    }
    for (int j = 0; j < n; j++)
        out[j] = (struct words){pair_up(a[j], c[j]), pair_up(b[j], d[j])};
}

static void draw_words(const struct moesim_random *r, const struct round_keys *keys, uint64_t block, uint32_t n,
                       struct words *out)
{
    uint32_t i = 0;
    for (; i + SIDE_BY_SIDE <= n; i += SIDE_BY_SIDE)
        philox(SIDE_BY_SIDE, r, keys, block + (uint64_t)i * (LANES / 2), out + i);
    for (; i < n; i++)
        philox(1, r, keys, block + (uint64_t)i * (LANES / 2), out + i);
}

/* ---- numbers ---- */

/* sqrt(-2 ln u) for u = (word / 2 + 1/2) / 2^31, ln as in logarithm.h. The factors 2^-31 and -2 are put into the
 * constants, which changes no bit: they are powers of two. */
INLINE vf radius(vu word)
{
    const vf u = __builtin_convertvector((vi)(word >> 1), vf) + splat(0.5f); /* times 2^31 */
    const vi above = (vi)u - (0x3f3504f3 + (31 << 23));
    const vf exponent = __builtin_convertvector(above >> 23, vf);
    const vf m = (vf)((above & 0x007fffff) + 0x3f3504f3) - splat(1.0f), z = m * m;
    vf y = splat(-2 * 7.0376836292e-2f);
    y = y * m + splat(-2 * -1.1514610310e-1f);
    y = y * m + splat(-2 * 1.1676998740e-1f);
    y = y * m + splat(-2 * -1.2420140846e-1f);
    y = y * m + splat(-2 * 1.4249322787e-1f);
    y = y * m + splat(-2 * -1.6668057665e-1f);
    y = y * m + splat(-2 * 2.0000714765e-1f);
    y = y * m + splat(-2 * -2.4999993993e-1f);
    y = y * m + splat(-2 * 3.3333331174e-1f);
    y = y * m * z;
    y += exponent * splat(-2 * -2.12194440e-4f);
    y += z;
    return root_of_positive(y - (m + m) + exponent * splat(-2 * 0.693359375f));
}

/* Cosine and sine of word / 2^32 turns: the two highest bits of `turn` count quarters, the rest lies around 0. */
INLINE void circle(vu word, vf *cosine, vf *sine)
{
    const vu turn = word + (1u << 29), sign = {0};
    const vf x = __builtin_convertvector((vi)((turn & 0x3fffffffu) - (1u << 29)), vf) * splat(1.4629180792671596e-9f);
    const vf z = x * x;
    vf s = (splat(-1.9515295891e-4f) * z + splat(8.3321608736e-3f)) * z - splat(1.6666654611e-1f);
    vf c = (splat(2.443315711809948e-5f) * z - splat(1.388731625493765e-3f)) * z + splat(4.166664568298827e-2f);
    s = s * z * x + x;
    c = c * z * z - splat(0.5f) * z + splat(1.0f);
    const vi odd = (vi)(turn << 1);
    *cosine = (vf)((vu)pick(odd, s, c) ^ ((turn + (1u << 30)) & (sign + (1u << 31))));
    *sine = (vf)((vu)pick(odd, c, s) ^ (turn & (sign + (1u << 31))));
}

INLINE void normals_of(struct words w, float *out)
{
    vf cosine, sine;
    const vf length = radius(w.even);
    circle(w.odd, &cosine, &sine);
    const vf x = length * cosine, y = length * sine;
    const vf half[2] = {first_in_turns(x, y), last_in_turns(x, y)};
    memcpy(out, half, sizeof half);
}

INLINE void uniforms_of(struct words w, float *out)
{
    const vf x = __builtin_convertvector((vi)(w.even >> 8), vf) * splat(0x1p-24f);
    const vf y = __builtin_convertvector((vi)(w.odd >> 8), vf) * splat(0x1p-24f);
    const vf half[2] = {first_in_turns(x, y), last_in_turns(x, y)};
    memcpy(out, half, sizeof half);
}

/* ---- any range ---- */

typedef void numbers_of(struct words w, float *out);

/* The numbers of a vector, of which out holds those from skip to end. */
INLINE void put_part(numbers_of *make, struct words w, size_t skip, size_t end, float *out)
{
    float number[NUMBERS];
    make(w, number);
    memcpy(out, number + skip, (end - skip) * sizeof *out);
}

/* Whole vectors go straight to `out`; the first begins at a block, up to three numbers before it. */
INLINE void draw(numbers_of *make, const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    const struct round_keys keys = keys_of(r->seed);
    struct words w[CHUNK];
    size_t skip = (size_t)(first % 4);
    uint64_t block = first / 4;
    while (n) {
        const size_t left = skip + n; /* from the first block on */
        const uint32_t vectors = left < CHUNK * NUMBERS ? (uint32_t)((left + NUMBERS - 1) / NUMBERS) : CHUNK;
        draw_words(r, &keys, block, vectors, w);
        for (uint32_t i = 0; i < vectors; i++) {
            const size_t end = skip + n < NUMBERS ? skip + n : NUMBERS;
            if (end - skip == NUMBERS)
                make(w[i], out);
            else
                put_part(make, w[i], skip, end, out);
            out += end - skip;
            n -= end - skip;
            skip = 0;
        }
        block += (uint64_t)vectors * (LANES / 2);
    }
}

static void uniforms(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draw(uniforms_of, r, first, n, out);
}

static void normals(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draw(normals_of, r, first, n, out);
}

const struct draws_kernels DRAWS_KERNELS = {.uniforms = uniforms, .normals = normals};
