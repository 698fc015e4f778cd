/*
 * GELU in its tanh form (Hendrycks and Gimpel 2016), ReLU, and SwiGLU's gate (Shazeer 2020). (1 + tanh(z / 2)) / 2 is
 * the logistic function of z.
 */
#include "sim/layer/activation.h"

#include <moesim/kernels.h>

#define CHUNK 256
#define GELU_SCALE 1.5957691216f /* 2 sqrt(2 / pi) */
#define GELU_CUBE 0.044715f

/* By the kernel that computes sigmoid scores. */
static void logistic(const float *z, uint32_t n, float *out)
{
    moesim_score_row(MOESIM_SIGMOID, z, n, out);
}

static void gelu_logistic(const float *x, uint32_t n, float *out)
{
    float z[CHUNK];
    for (uint32_t i = 0; i < n; i++)
        z[i] = GELU_SCALE * (x[i] + GELU_CUBE * x[i] * x[i] * x[i]);
    logistic(z, n, out);
}

static void gelu(const float *x, uint32_t n, float *out)
{
    float s[CHUNK];
    gelu_logistic(x, n, s);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * s[i];
}

static void gelu_backward(const float *d, uint32_t n, float *x)
{
    float s[CHUNK];
    gelu_logistic(x, n, s);
    for (uint32_t i = 0; i < n; i++) {
        const float slope = GELU_SCALE * (1 + 3 * GELU_CUBE * x[i] * x[i]);
        x[i] = d[i] * (s[i] + x[i] * s[i] * (1 - s[i]) * slope);
    }
}

static void silu_times(const float *gate, const float *x, uint32_t n, float *out)
{
    float s[CHUNK];
    logistic(gate, n, s);
    for (uint32_t i = 0; i < n; i++)
        out[i] = x[i] * (s[i] * gate[i]);
}

static void silu_times_backward(const float *d, uint32_t n, float *gate, float *x)
{
    float s[CHUNK];
    logistic(gate, n, s);
    for (uint32_t i = 0; i < n; i++) {
        const float silu = s[i] * gate[i];
        gate[i] = d[i] * x[i] * (s[i] + silu * (1 - s[i]));
        x[i] = d[i] * silu;
    }
}

void moesim_activate(enum moesim_activation activation, const float *gate, const float *x, size_t n, float *inner)
{
    for (size_t i = 0; activation == MOESIM_RELU_MLP && i < n; i++)
        inner[i] = x[i] > 0 ? x[i] : 0;
    for (size_t i = 0; activation != MOESIM_RELU_MLP && i < n; i += CHUNK) {
        const uint32_t count = (uint32_t)(n - i < CHUNK ? n - i : CHUNK);
        if (activation == MOESIM_GELU)
            gelu(x + i, count, inner + i);
        else
            silu_times(gate + i, x + i, count, inner + i);
    }
}

void moesim_activate_backward(enum moesim_activation activation, const float *d, size_t n, float *gate, float *inner)
{
    for (size_t i = 0; activation == MOESIM_RELU_MLP && i < n; i++)
        inner[i] = inner[i] > 0 ? d[i] : 0;
    for (size_t i = 0; activation != MOESIM_RELU_MLP && i < n; i += CHUNK) {
        const uint32_t count = (uint32_t)(n - i < CHUNK ? n - i : CHUNK);
        if (activation == MOESIM_GELU)
            gelu_backward(d + i, count, inner + i);
        else
            silu_times_backward(d + i, count, gate + i, inner + i);
    }
}
