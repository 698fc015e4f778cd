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
static inline v8f root8(v8f x)
{
    return (v8f)_mm256_sqrt_ps((__m256)x);
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
static inline v8f root8(v8f x)
{
    for (int i = 0; i < 8; i++)
        x[i] = sqrtf(x[i]);
    return x;
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

/* The functions below work on N vectors side by side, N = 1, 2 or 4 and known where they are inlined: the long chains
 * of operations of one would leave the processor waiting. */
#define MOST_VECTORS 4
#define SIDE_BY_SIDE static inline __attribute__((always_inline))
#define EACH for (int j = 0; j < n_vectors; j++)

/* table[n mod 8], lane by lane. */
#ifdef __AVX2__
static inline v8f look_up8(const float table[8], v8i n)
{
    return (v8f)_mm256_permutevar8x32_ps((__m256)load8(table), (__m256i)n);
}
#else
static inline v8f look_up8(const float table[8], v8i n)
{
    v8f y;
    for (int i = 0; i < 8; i++)
        y[i] = table[n[i] & 7];
    return y;
}
#endif

/* e^x = s + s r q(r), s = 2^(n / 8), for x = n ln 2 / 8 + r and |r| <= ln 2 / 16. ln 2 / 8 is in two parts, so that n
 * times the first is exact; 1 + r q(r) is within 2.6e-8 of e^r. t = magic + n, whose lowest bits hold n: shifted into
 * the exponent, n / 8 comes with n mod 8 behind it, which the table's entries lack. */
#define EXP_MAGIC 12582912.0f /* 1.5 * 2^23: adding it rounds to a whole number */
SIDE_BY_SIDE void exp_parts(const int n_vectors, const v8f *x, v8f *s, v8f *r)
{
    static const union {
        uint32_t bits[8];
        float number[8];
    } root = {{0x3f800000 - (0 << 20), 0x3f8b95c2 - (1 << 20), 0x3f9837f0 - (2 << 20), 0x3fa5fed7 - (3 << 20),
               0x3fb504f3 - (4 << 20), 0x3fc5672a - (5 << 20), 0x3fd744fd - (6 << 20), 0x3feac0c7 - (7 << 20)}};
    v8f t[MOST_VECTORS], n[MOST_VECTORS];
    EACH t[j] = x[j] * splat(11.541560327f) + splat(EXP_MAGIC); /* 8 / ln 2 */
    EACH n[j] = t[j] - splat(EXP_MAGIC);
    EACH r[j] = (x[j] - n[j] * splat(0.086669921875f)) - n[j] * splat(-2.6524305e-5f);
    EACH s[j] = (v8f)((v8u)look_up8(root.number, (v8i)t[j]) + ((v8u)t[j] << 20));
}

SIDE_BY_SIDE void exp_whole(const int n_vectors, const v8f *s, const v8f *r, v8f *y)
{
    v8f q[MOST_VECTORS];
    EACH q[j] = (r[j] * splat(1.6666859388e-1f) + splat(5.0006455183e-1f)) * r[j] + splat(1.0f);
    EACH y[j] = (s[j] * r[j]) * q[j] + s[j];
}

static inline v8f exp8(v8f x)
{
    /* above 0 the exponent waits for its last 64: n / 8 reaches 128, one more than there is */
    const v8i above = x > splat(0.0f);
    v8f s, r, y;
    exp_parts(1, &x, &s, &r);
    s = (v8f)((v8u)s - ((v8u)above & (64u << 23)));
    exp_whole(1, &s, &r, &y);
    y *= pick(above, splat(0x1p64f), splat(1.0f));
    return pick(x < splat(-87.3f), splat(0.0f), pick(x > splat(88.7f), splat(INFINITY), y));
}

/* The same bits as exp8 for x <= 0, and NaN for NaN. */
SIDE_BY_SIDE void exps_below_0(const int n_vectors, const v8f *x, v8f *y)
{
    v8f s[MOST_VECTORS], r[MOST_VECTORS];
    exp_parts(n_vectors, x, s, r);
    exp_whole(n_vectors, s, r, s);
    EACH y[j] = (v8f)(~(x[j] < splat(-87.3f)) & (v8i)s[j]);
}

/* The same bits for x <= 0, and 0 for NaN. */
SIDE_BY_SIDE void exps_or_0(const int n_vectors, const v8f *x, v8f *y)
{
    v8f s[MOST_VECTORS], r[MOST_VECTORS];
    exp_parts(n_vectors, x, s, r);
    exp_whole(n_vectors, s, r, s);
    EACH y[j] = (v8f)((x[j] >= splat(-87.3f)) & (v8i)s[j]);
}

static inline v8f exp8_below_0(v8f x)
{
    v8f y;
    exps_below_0(1, &x, &y);
    return y;
}

/* ln(1 + u) for u in [0, 1]: 2 atanh(s) with s = u / (2 + u), and atanh(s) = s + s z q(z) with z = s^2 <= 1/9, where q
 * goes through its function at the four Chebyshev nodes (within 2e-8 of the whole). */
SIDE_BY_SIDE void log1ps(const int n_vectors, const v8f *u, v8f *log)
{
    static const float coefficient[] = {1.4118309319e-1f, 2.0003780723e-1f, 3.3333319426e-1f};
    v8f twice[MOST_VECTORS], z[MOST_VECTORS], q[MOST_VECTORS];
    EACH twice[j] = (u[j] + u[j]) / (splat(2.0f) + u[j]);
    EACH z[j] = twice[j] * twice[j] * splat(0.25f);
    EACH q[j] = splat(1.3425749540e-1f);
    for (int i = 0; i < 3; i++)
        EACH q[j] = q[j] * z[j] + splat(coefficient[i]);
    EACH log[j] = twice[j] + twice[j] * (z[j] * q[j]);
}

SIDE_BY_SIDE void softpluses(const int n_vectors, const v8f *x, v8f *y)
{
    v8f u[MOST_VECTORS], positive[MOST_VECTORS];
    EACH
    {
        const v8i above = x[j] > splat(0.0f);
        positive[j] = pick(above, x[j], splat(0.0f));
        u[j] = pick(above, -x[j], x[j]);
    }
    exps_below_0(n_vectors, u, u);
    log1ps(n_vectors, u, y);
    EACH y[j] = positive[j] + y[j];
}

static inline v8f softplus8(v8f x)
{
    v8f y;
    softpluses(1, &x, &y);
    return y;
}

/* The standard normal distribution function by a polynomial for erfc in t = 1 / (1 + p z), within 1.5e-7 of it
 * (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26). */
SIDE_BY_SIDE void normal_cdfs(const int n_vectors, const v8f *x, v8f *y)
{
    static const float coefficient[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    v8i positive[MOST_VECTORS];
    v8f z[MOST_VECTORS], t[MOST_VECTORS], p[MOST_VECTORS];
    EACH positive[j] = x[j] > splat(0.0f);
    EACH z[j] = pick(positive[j], x[j], -x[j]) * splat(0.70710678f); /* the tail beyond |x| is erfc(z) / 2 */
    EACH t[j] = splat(1.0f) / (splat(1.0f) + splat(0.3275911f) * z[j]);
    EACH z[j] = -(z[j] * z[j]);
    EACH p[j] = splat(1.061405429f);
    for (int i = 0; i < 4; i++)
        EACH p[j] = p[j] * t[j] + splat(coefficient[i]);
    exps_below_0(n_vectors, z, z);
    EACH p[j] = splat(0.5f) * (p[j] * t[j]) * z[j];
    EACH y[j] = pick(positive[j], splat(1.0f) - p[j], p[j]);
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
        return root8(y);
    }
    case MOESIM_IDENTITY:
        return x;
    default: /* MOESIM_RELU; NaN stays */
        return pick(x <= splat(0.0f), splat(0.0f), pick(x > splat(FLT_MAX), splat(FLT_MAX), x));
    }
}

#endif
