/*
 * The experts' activation functions and their gradients, in place.
 */
#ifndef MOESIM_SIM_LAYER_ACTIVATION_H
#define MOESIM_SIM_LAYER_ACTIVATION_H

#include <stddef.h>

#include "sim/models/model.h"

/* inner[i] = f(inner[i]) for GELU (tanh form) and ReLU; silu(gate[i]) * inner[i] for SwiGLU. `gate` is NULL otherwise.
 */
void moesim_activate(enum moesim_activation activation, const float *gate, size_t n, float *inner);

/* The inputs of moesim_activate become the gradients by them, from d[n], the gradient by its result. */
void moesim_activate_backward(enum moesim_activation activation, const float *d, size_t n, float *gate, float *inner);

#endif
