/*
 * Files of float32 tensors in the safetensors format: eight bytes that tell the length of a JSON header, the header
 * with each tensor's type, shape and place, and the numbers, row-major and little-endian.
 *
 * Ours have a checksum in their metadata, FNV-1a of the header (with zeros in the checksum's place) and all numbers, so
 * that a changed bit anywhere shows. They are written beside their name and renamed when they are on the disk.
 */
#ifndef MOESIM_SIM_SAFETENSORS_H
#define MOESIM_SIM_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

enum { MOESIM_MOST_DIMENSIONS = 3, MOESIM_TENSOR_NAME = 80 };

/* A tensor to write or read; its numbers go by rows of shape[n_dimensions - 1]. */
struct moesim_stored_tensor {
    char name[MOESIM_TENSOR_NAME];
    uint32_t n_dimensions;
    uint64_t shape[MOESIM_MOST_DIMENSIONS];
    const void *owner; /* what row() gets */
    float *values;
    /* Copies row i between `values` and `row`: into `row` when `out`, else from it. */
    void (*copy_row)(const void *owner, float *values, uint64_t i, bool out, float *row);
};

struct moesim_metadata {
    const char *key, *value;
};

/* Writes all tensors, in order. EIO with the reason when that fails; the file of that name is then as it was. */
MOESIM_MUST_CHECK enum moesim_status moesim_safetensors_write(const char *path, const struct moesim_metadata *metadata,
                                                              uint32_t n_metadata,
                                                              const struct moesim_stored_tensor *tensor,
                                                              uint32_t n_tensors, struct moesim_error *err);

struct moesim_safetensors; /* an open file */

/* Opens a file and checks it whole: EIO when it cannot be read, is cut short, or has another checksum. */
MOESIM_MUST_CHECK enum moesim_status moesim_safetensors_open(const char *path, struct moesim_safetensors **file,
                                                             struct moesim_error *err);
void moesim_safetensors_close(struct moesim_safetensors *file);

/* A value of the metadata, or NULL; lives as long as the file is open. */
const char *moesim_safetensors_metadata(const struct moesim_safetensors *file, const char *key);

uint32_t moesim_safetensors_count(const struct moesim_safetensors *file);

/* EINVAL, naming the tensor and both shapes, unless the file has it in this shape. */
MOESIM_MUST_CHECK enum moesim_status moesim_safetensors_check(const struct moesim_safetensors *file,
                                                              const struct moesim_stored_tensor *tensor,
                                                              struct moesim_error *err);

/* Reads its numbers, after moesim_safetensors_check. */
MOESIM_MUST_CHECK enum moesim_status moesim_safetensors_read(const struct moesim_safetensors *file,
                                                             const struct moesim_stored_tensor *tensor,
                                                             struct moesim_error *err);

/* "[4, 12, 16]" */
const char *moesim_shape_text(const uint64_t *shape, uint32_t n_dimensions, char text[64]);

/* Rows, and numbers of a row. */
static inline uint64_t moesim_stored_width(const struct moesim_stored_tensor *t)
{
    return t->shape[t->n_dimensions - 1];
}

static inline uint64_t moesim_stored_rows(const struct moesim_stored_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i + 1 < t->n_dimensions; i++)
        n *= t->shape[i];
    return n;
}

#endif
