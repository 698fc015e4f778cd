/*
 * A learned tensor of the model: its name, shape, where its numbers are, and how it is optimised.
 */
#ifndef MOESIM_SIM_TRAIN_TENSOR_H
#define MOESIM_SIM_TRAIN_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n_parts matrices [rows][columns] one after the other, each in panels of `width` columns, the last of which is filled
 * up with zeros that stay zeros. */
struct moesim_tensor {
    char name[56];
    uint32_t block; /* that it belongs to; UINT32_MAX = none */
    uint32_t n_parts, rows, columns, width;
    bool decays;  /* takes part in weight decay: matrices do, norms, biases and embeddings do not */
    bool is_gate; /* belongs to a gate or a router */
    float *value, *gradient;
};

/* Floats of one part, and of all, fill included. */
static inline size_t moesim_tensor_part(const struct moesim_tensor *t)
{
    return t->width ? (size_t)t->rows * ((t->columns + t->width - 1) / t->width) * t->width : 0;
}

static inline size_t moesim_tensor_size(const struct moesim_tensor *t)
{
    return t->n_parts * moesim_tensor_part(t);
}

/* Where an element is. */
static inline size_t moesim_tensor_place(const struct moesim_tensor *t, uint32_t part, uint32_t row, uint32_t column)
{
    const size_t width = t->width;
    return part * moesim_tensor_part(t) + column / width * t->rows * width + row * width + column % width;
}

/* Learned numbers, without the fill. */
static inline uint64_t moesim_tensor_count(const struct moesim_tensor *t)
{
    return (uint64_t)t->n_parts * t->rows * t->columns;
}

#endif
