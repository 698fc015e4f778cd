/* SPDX-License-Identifier: MIT
 *
 * Philox4x32-10 and the numbers made from it. Four consecutive elements come from one block: counter = (block's low
 * 32 bits, step, layer << 16 | block's high 16 bits, stream), key = seed. In bulk they are drawn by the
 * kernels of draws.c, which have the same bits.
 */
#include <moesim/random.h>

#include <math.h>
#include <string.h>

#include "sim/contract/kernels/draws.h"
#include "sim/contract/logarithm.h"

void moesim_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t a = counter[0], b = counter[1], c = counter[2], d = counter[3];
    for (uint32_t round = 0; round < 10; round++) {
        const uint64_t x = (uint64_t)a * PHILOX_MULTIPLY_0, y = (uint64_t)c * PHILOX_MULTIPLY_1;
        a = (uint32_t)(y >> 32) ^ b ^ (key[0] + round * PHILOX_WEYL_0);
        c = (uint32_t)(x >> 32) ^ d ^ (key[1] + round * PHILOX_WEYL_1);
        b = (uint32_t)y;
        d = (uint32_t)x;
    }
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
}

/* ---- words to numbers ---- */

static inline float to_uniform(uint32_t word)
{
    return (float)(int32_t)(word >> 8) * 0x1p-24f;
}

/* The radius of Box-Muller, sqrt(-2 ln u) for u = (word / 2 + 1/2) / 2^31 in (0, 1]. */
static inline float to_radius(uint32_t word)
{
    const float u = ((float)(int32_t)(word >> 1) + 0.5f) * 0x1p-31f;
    const float square = -2.0f * moesim_ln(u);
    return sqrtf(square > 0 ? square : 0);
}

static inline float flip_sign(float x, uint32_t sign_bit)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits ^= sign_bit;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Cosine and sine of word / 2^32 turns: the nearest quarter turn is split off in whole numbers, the rest is in
 * [-pi/4, pi/4). Polynomials of Cephes' sinf and cosf. */
static inline void to_circle(uint32_t word, float *cosine, float *sine)
{
    const uint32_t quarter = (word + (1u << 29)) >> 30;
    const float x = (float)(int32_t)(word - (quarter << 30)) * 1.4629180792671596e-9f; /* 2 pi / 2^32 */
    const float z = x * x;
    const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    const float c =
        ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
    *cosine = flip_sign(quarter & 1 ? s : c, ((quarter + 1) & 2) << 30);
    *sine = flip_sign(quarter & 1 ? c : s, (quarter & 2) << 30);
}

/* ---- single elements ---- */

static void block_of(const struct moesim_random *r, uint64_t index, uint32_t out[4])
{
    const uint64_t block = index / 4;
    const uint32_t counter[4] = {(uint32_t)block, r->step, r->layer << 16 | (uint32_t)(block >> 32), r->stream};
    const uint32_t key[2] = {(uint32_t)r->seed, (uint32_t)(r->seed >> 32)};
    moesim_philox4x32(counter, key, out);
}

uint32_t moesim_random_bits(const struct moesim_random *r, uint64_t index)
{
    uint32_t words[4];
    block_of(r, index, words);
    return words[index % 4];
}

float moesim_random_uniform(const struct moesim_random *r, uint64_t index)
{
    return to_uniform(moesim_random_bits(r, index));
}

uint32_t moesim_random_below(const struct moesim_random *r, uint64_t index, uint32_t n)
{
    return (uint32_t)((uint64_t)moesim_random_bits(r, index) * n >> 32);
}

float moesim_random_normal(const struct moesim_random *r, uint64_t index)
{
    uint32_t words[4];
    block_of(r, index, words);
    const uint32_t *pair = words + (index & 2);
    float cosine, sine;
    to_circle(pair[1], &cosine, &sine);
    return to_radius(pair[0]) * (index & 1 ? sine : cosine);
}

/* ---- bulk ---- */

/* The fastest that this processor runs. */
static const struct draws_kernels *draws(void)
{
#ifdef MOESIM_HAVE_AVX2
    if (__builtin_cpu_supports("avx512f"))
        return &moesim_draws_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &moesim_draws_avx2;
#endif
    return &moesim_draws_baseline;
}

void moesim_random_uniforms(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draws()->uniforms(r, first, n, out);
}

void moesim_random_normals(const struct moesim_random *r, uint64_t first, size_t n, float *out)
{
    draws()->normals(r, first, n, out);
}
