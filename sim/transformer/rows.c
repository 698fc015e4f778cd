/*
 * One source for two builds: see rows.h.
 */
#include "sim/transformer/rows.h"

#include <math.h>

#include "sim/contract/kernels/lanes.h"

#define NORM_EPSILON 1e-6f

/* Up to eight floats; the missing ones are `fill`. */
static inline v8f load_part(const float *x, uint32_t n, float fill)
{
    v8f v = splat(fill);
    memcpy(&v, x, (n < 8 ? n : 8) * sizeof *x);
    return v;
}

static inline void store_part(float *x, uint32_t n, v8f v)
{
    memcpy(x, &v, (n < 8 ? n : 8) * sizeof *x);
}

static float largest(const float *x, uint32_t n)
{
    v8f most = splat(-INFINITY);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        most = larger(most, load8(x + i));
    if (i < n)
        most = larger(most, load_part(x + i, n - i, -INFINITY));
    float max = most[0];
    for (int l = 1; l < 8; l++)
        max = most[l] > max ? most[l] : max;
    return max;
}

static float softmax(float *x, uint32_t n)
{
    const float max = largest(x, n);
    v8f total = splat(0);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8f y = exp8(load8(x + i) - splat(max));
        memcpy(x + i, &y, sizeof y);
        total += y;
    }
    if (i < n) {
        const v8f y = exp8(load_part(x + i, n - i, -INFINITY) - splat(max));
        store_part(x + i, n - i, y);
        total += y;
    }
    const float sum = sum_lanes(total), scale = 1 / sum;
    for (i = 0; i < n; i++)
        x[i] *= scale;
    return max + logf(sum);
}

static void exponents(float *x, uint32_t n, float log_sum)
{
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const v8f y = exp8(load8(x + i) - splat(log_sum));
        memcpy(x + i, &y, sizeof y);
    }
    if (i < n)
        store_part(x + i, n - i, exp8(load_part(x + i, n - i, -INFINITY) - splat(log_sum)));
}

static void softmax_backward(const float *d, float mean, uint32_t n, float *x)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] *= d[i] - mean;
}

static float dot(const float *x, const float *y, uint32_t n)
{
    v8f sum = splat(0);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load8(x + i) * load8(y + i);
    if (i < n)
        sum += load_part(x + i, n - i, 0) * load_part(y + i, n - i, 0);
    return sum_lanes(sum);
}

/* Floats that are added up in single precision. */
#define RUN 512

static double square_sum(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += RUN) {
        const uint32_t count = (uint32_t)(n - i < RUN ? n - i : RUN);
        sum += (double)dot(x + i, x + i, count);
    }
    return sum;
}

static float norm(const float *x, const float *gain, uint32_t n, float *y)
{
    const float r = 1 / sqrtf(dot(x, x, n) / (float)n + NORM_EPSILON);
    for (uint32_t i = 0; i < n; i++)
        y[i] = x[i] * r * gain[i];
    return r;
}

/* With y = x r gain: d_x = r (gain d_y - x r^2 mean(gain d_y x)). */
static void norm_backward(const float *x, const float *gain, float r, const float *d_y, uint32_t n, float *d_x,
                          float *d_gain)
{
    v8f sum = splat(0);
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8)
        sum += load8(gain + i) * load8(d_y + i) * load8(x + i);
    if (i < n)
        sum += load_part(gain + i, n - i, 0) * load_part(d_y + i, n - i, 0) * load_part(x + i, n - i, 0);
    const float mean = sum_lanes(sum) / (float)n * r * r;
    for (i = 0; i < n; i++) {
        d_gain[i] += d_y[i] * x[i] * r;
        d_x[i] += r * (gain[i] * d_y[i] - x[i] * mean);
    }
}

static void adamw(const struct moesim_adamw_step *step, size_t n, const float *restrict gradient, float *restrict first,
                  float *restrict second, float *restrict weight)
{
    const struct moesim_adamw_step s = *step;
    for (size_t i = 0; i < n; i++) {
        const float g = gradient[i] * s.gradient_scale;
        const float m = s.beta1 * first[i] + (1 - s.beta1) * g;
        const float v = s.beta2 * second[i] + (1 - s.beta2) * g * g;
        first[i] = m;
        second[i] = v;
        weight[i] -= s.rate * m / (sqrtf(v * s.second_scale) + s.epsilon) + s.decay * weight[i];
    }
}

const struct moesim_rows ROWS = {
    .softmax = softmax,
    .exponents = exponents,
    .softmax_backward = softmax_backward,
    .dot = dot,
    .square_sum = square_sum,
    .norm = norm,
    .norm_backward = norm_backward,
    .adamw = adamw,
};
