/* SPDX-License-Identifier: MIT
 *
 * Arithmetic on eight floats at a time, for the two builds of rows.c: the same operations in the same order, without
 * FMA, so that a processor with AVX2 and one without compute the same bits.
 */
#ifndef MOESIM_KERNELS_LANES_H
#define MOESIM_KERNELS_LANES_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <moesim/kernels.h>

#ifdef __AVX2__
#include <immintrin.h>
#endif

typedef float v8f __attribute__((vector_size(32)));
typedef int32_t v8i __attribute__((vector_size(32)));
typedef uint32_t v8u __attribute__((vector_size(32))); /* for what wraps where the result is not used */

static inline v8f splat(float x)
{
    return (v8f){x, x, x, x, x, x, x, x};
}

static inline v8f load8(const float *p)
{
    v8f v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Up to eight floats; the missing ones are -inf, which scores nothing and is never chosen. */
static inline v8f load_tail(const float *p, uint32_t n)
{
    v8f v = splat(-INFINITY);
    memcpy(&v, p, n * sizeof *p);
    return v;
}

#ifdef __AVX2__
static inline v8f pick(v8i mask, v8f yes, v8f no)
{
    return (v8f)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)mask);
}
static inline v8f larger(v8f a, v8f b)
{
    return (v8f)_mm256_max_ps((__m256)a, (__m256)b);
}
static inline v8f smaller(v8f a, v8f b)
{
    return (v8f)_mm256_min_ps((__m256)a, (__m256)b);
}
static inline uint32_t bits_of(v8i mask)
{
    return (uint32_t)_mm256_movemask_ps((__m256)mask);
}
#else
static inline v8f pick(v8i mask, v8f yes, v8f no)
{
    return (v8f)((mask & (v8i)yes) | (~mask & (v8i)no));
}
static inline v8f larger(v8f a, v8f b) /* b where either is NaN, as in hardware */
{
    return pick(a > b, a, b);
}
static inline v8f smaller(v8f a, v8f b)
{
    return pick(a < b, a, b);
}
/* Bit i tells whether lane i is set. */
static inline uint32_t bits_of(v8i mask)
{
    uint32_t bits = 0;
    for (int i = 0; i < 8; i++)
        bits |= (uint32_t)(mask[i] & 1) << i;
    return bits;
}
#endif

static inline bool any(v8i mask)
{
    return bits_of(mask) != 0;
}

static inline v8i pick_id(v8i mask, v8i yes, v8i no)
{
    return (v8i)pick(mask, (v8f)yes, (v8f)no);
}

/* The fixed tree of a sum of eight. */
static inline float sum_lanes(v8f a)
{
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}

/* e^x = 2^n p by the Cephes polynomial: x = n ln 2 + r, |r| <= ln 2 / 2, ln 2 in two parts so that n times the first is
 * exact. */
static inline v8f exp_parts(v8f x, v8i *n)
{
    const v8f magic = splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to a whole number */
    const v8f t = x * splat(1.44269504088896341f) + magic;
    const v8f whole = t - magic;
    const v8f r = (x - whole * splat(0.693359375f)) - whole * splat(-2.12194440e-4f);

    v8f p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    *n = (v8i)((v8u)t - (v8u)magic);
    return (p * (r * r) + r) + splat(1.0f);
}

static inline v8f exp8(v8f x)
{
    v8i n;
    const v8f p = exp_parts(x, &n);
    /* 2^n in two halves: n reaches 128, one above the largest exponent */
    const v8i half = n >> 1;
    const v8f y = (p * (v8f)(((v8u)half + 127) << 23)) * (v8f)(((v8u)(n - half) + 127) << 23);
    return pick(x < splat(-87.3f), splat(0.0f), pick(x > splat(88.7f), splat(INFINITY), y));
}

/* The same bits as exp8 for x <= 0, and NaN for NaN. */
static inline v8f exp8_below_0(v8f x)
{
    v8i n;
    const v8f p = exp_parts(x, &n);
    const v8i small = x < splat(-87.3f);
    return (v8f)(~small & (v8i)(p * (v8f)(((v8u)n + 127) << 23)));
}

/* ln(1 + u) for u in [0, 1], by Cephes' logf over 1 + u and a correction for the bits that the sum lost. */
static inline v8f log1p8(v8f u)
{
    const v8f y = splat(1.0f) + u, lost = u - (y - splat(1.0f));
    const v8i upper = y > splat(1.41421356f);
    const v8f x = pick(upper, splat(0.5f) * y, y) - splat(1.0f), e = pick(upper, splat(1.0f), splat(0.0f));

    v8f p = splat(7.0376836292e-2f);
    p = p * x + splat(-1.1514610310e-1f);
    p = p * x + splat(1.1676998740e-1f);
    p = p * x + splat(-1.2420140846e-1f);
    p = p * x + splat(1.4249322787e-1f);
    p = p * x + splat(-1.6668057665e-1f);
    p = p * x + splat(2.0000714765e-1f);
    p = p * x + splat(-2.4999993993e-1f);
    p = p * x + splat(3.3333331174e-1f);
    const v8f z = x * x;
    v8f log = (p * x) * z + e * splat(-2.12194440e-4f);
    log = (x + (log - splat(0.5f) * z)) + e * splat(0.693359375f);
    return log + lost / y;
}

static inline v8f softplus8(v8f x)
{
    const v8i positive = x > splat(0.0f);
    return pick(positive, x, splat(0.0f)) + log1p8(exp8(pick(positive, -x, x)));
}

/* The standard normal distribution function by erfc's rational Chebyshev fit (Press et al., Numerical Recipes, 6.2). */
static inline v8f normal_cdf8(v8f x)
{
    const v8i positive = x > splat(0.0f);
    const v8f z = pick(positive, x, -x) * splat(0.70710678f); /* the tail beyond |x| is erfc(z) / 2 */
    const v8f t = splat(1.0f) / (splat(1.0f) + splat(0.5f) * z);
    v8f p = splat(0.17087277f);
    p = p * t + splat(-0.82215223f);
    p = p * t + splat(1.48851587f);
    p = p * t + splat(-1.13520398f);
    p = p * t + splat(0.27886807f);
    p = p * t + splat(-0.18628806f);
    p = p * t + splat(0.09678418f);
    p = p * t + splat(0.37409196f);
    p = p * t + splat(1.00002368f);
    p = p * t + splat(-1.26551223f);
    const v8f tail = splat(0.5f) * t * exp8(p - z * z);
    return pick(positive, splat(1.0f) - tail, tail);
}

/* The scores that need no more than their own logit; +inf scores as the largest finite number. */
static inline v8f score8(enum moesim_score score, v8f x)
{
    switch (score) {
    case MOESIM_SIGMOID:
        return splat(1.0f) / (splat(1.0f) + exp8(-x));
    case MOESIM_SQRT_SOFTPLUS: {
        v8f y = softplus8(x);
        y = pick(y > splat(FLT_MAX), splat(FLT_MAX), y);
        for (int i = 0; i < 8; i++)
            y[i] = sqrtf(y[i]);
        return y;
    }
    case MOESIM_IDENTITY:
        return x;
    default: /* MOESIM_RELU; NaN stays */
        return pick(x <= splat(0.0f), splat(0.0f), pick(x > splat(FLT_MAX), splat(FLT_MAX), x));
    }
}

#endif
