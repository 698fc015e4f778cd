/*
 * The experts' activation functions and their gradients.
 */
#ifndef MOESIM_SIM_LAYER_ACTIVATION_H
#define MOESIM_SIM_LAYER_ACTIVATION_H

#include <stddef.h>

#include "sim/models/model.h"

/* inner[i] = f(x[i]) for GELU (tanh form) and ReLU; silu(gate[i]) * x[i] for SwiGLU. `gate` is NULL otherwise; inner
 * may be x. */
void moesim_activate(enum moesim_activation activation, const float *gate, const float *x, size_t n, float *inner);

/* gate and x become the gradients by them, from d[n], the gradient by the result. */
void moesim_activate_backward(enum moesim_activation activation, const float *d, size_t n, float *gate, float *x);

#endif
