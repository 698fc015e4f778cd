/*
 * What is done to one row of numbers: softmax, RMSNorm, sums, the optimizer's step. Two builds, for AVX2 and for any
 * processor, compute the same bits: eight lanes, a fixed tree, no FMA. For one thread.
 */
#ifndef MOESIM_SIM_ROWS_H
#define MOESIM_SIM_ROWS_H

#include <stdint.h>
#include <stddef.h>

/* One step of AdamW: what depends on the step and not on the weight. */
struct moesim_adamw_step {
    float gradient_scale; /* of clipping */
    float rate;           /* the learning rate over 1 - beta1^step */
    float decay;          /* the learning rate times the weight decay */
    float beta1, beta2;
    float second_scale; /* 1 / (1 - beta2^step) */
    float epsilon;
};

struct moesim_rows {
    /* x [n] becomes its softmax; returns the log of the sum of e^x. */
    float (*softmax)(float *x, uint32_t n);
    /* x [n] becomes e^(x - log_sum). */
    void (*exponents)(float *x, uint32_t n, float log_sum);
    /* x [n] becomes x * (d - mean). */
    void (*softmax_backward)(const float *d, float mean, uint32_t n, float *x);
    float (*dot)(const float *x, const float *y, uint32_t n);
    double (*square_sum)(const float *x, size_t n);
    /* y [n] = x * r * gain with r = 1 / sqrt(mean of x^2 + 1e-6), which it returns (Zhang and Sennrich 2019). */
    float (*norm)(const float *x, const float *gain, uint32_t n, float *y);
    /* d_x += the gradient by x, d_gain += that by gain, of d_y. */
    void (*norm_backward)(const float *x, const float *gain, float r, const float *d_y, uint32_t n, float *d_x,
                          float *d_gain);
    /* One step of n weights with their moments (Loshchilov and Hutter 2019). */
    void (*adamw)(const struct moesim_adamw_step *step, size_t n, const float *gradient, float *first, float *second,
                  float *weight);
};

/* The build that runs on this processor. */
const struct moesim_rows *moesim_rows_find(void);

extern const struct moesim_rows moesim_transformer_rows_avx2, moesim_transformer_rows_portable;

#endif
