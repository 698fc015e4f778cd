/* SPDX-License-Identifier: MIT
 *
 * Score functions over the gate's logits, their gradients, and the elementary functions they are made of.
 */
#include <moesim/kernels.h>

#include <math.h>
#include <omp.h>

#include "sim/contract/kernels/rows.h"

const struct rows_kernels *moesim_rows(void)
{
#ifdef MOESIM_HAVE_AVX2
    if (rows_run_avx512())
        return &moesim_rows_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &moesim_rows_avx2;
#endif
    return &moesim_rows_baseline;
}

const char *moesim_kernel_path(void)
{
    return moesim_rows()->name;
}

float moesim_expf(float x)
{
    return moesim_rows()->exp(x);
}

float moesim_sum(const float *x, size_t n)
{
    return moesim_rows()->sum(x, n);
}

void moesim_softplus(const float *x, size_t n, float *out)
{
    moesim_rows()->softplus(x, n, out);
}

float moesim_next_best(const float *values, uint32_t n, uint32_t k, float kth)
{
    return moesim_rows()->next_best(values, n, k, kth);
}

bool moesim_add_chances(const float *clean, const float *noisy, float inside, float outside, const float *width,
                        uint32_t n, double *sum)
{
    return moesim_rows()->add_chances(clean, noisy, inside, outside, width, n, sum);
}

void moesim_scores(enum moesim_score score, const float *logits, size_t stride, uint32_t n_tokens, uint32_t n_experts,
                   float *scores)
{
    const struct rows_kernels *rows = moesim_rows();
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t t = 0; t < n_tokens; t++)
        rows->scores(score, logits + t * stride, n_experts, scores + (size_t)t * n_experts);
}

void moesim_score_row(enum moesim_score score, const float *logits, uint32_t n_experts, float *scores)
{
    moesim_rows()->scores(score, logits, n_experts, scores);
}

double moesim_entropy_row(const float *logits, const float *scores, uint32_t n_experts)
{
    return moesim_rows()->entropy(logits, scores, n_experts);
}

/* d score / d logit of the functions of one logit, s = f(l). */
static float slope(enum moesim_score score, float l, float s)
{
    switch (score) {
    case MOESIM_SIGMOID:
        return s * (1 - s);
    case MOESIM_SQRT_SOFTPLUS:
        return s > 0 ? 1 / (1 + moesim_expf(-l)) / (2 * s) : 0;
    default:
        return l > 0 ? 1.0f : 0.0f;
    }
}

void moesim_scores_backward(enum moesim_score score, const float *logits, size_t stride, const float *scores,
                            const float *d_scores, uint32_t n_tokens, uint32_t n_experts, float *d_logits)
{
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t t = 0; t < n_tokens; t++)
        moesim_score_row_backward(score, logits + t * stride, scores + (size_t)t * n_experts,
                                  d_scores + (size_t)t * n_experts, n_experts, d_logits + t * stride);
}

void moesim_score_row_backward(enum moesim_score score, const float *logits, const float *s, const float *d_s,
                               uint32_t n, float *d_logits)
{
    double mean = 0; /* of d_s under the softmax */
    for (uint32_t e = 0; score == MOESIM_SOFTMAX && e < n; e++)
        if (s[e] == s[e])
            mean += (double)d_s[e] * s[e];
    for (uint32_t e = 0; e < n; e++) {
        if (s[e] != s[e])
            continue; /* a NaN logit takes no part */
        const float by_logit =
            score == MOESIM_SOFTMAX ? s[e] * (float)(d_s[e] - mean) : d_s[e] * slope(score, logits[e], s[e]);
        d_logits[e] += by_logit;
    }
}
