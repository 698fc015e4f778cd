/*
 * Reading and writing .npy arrays (NumPy format 1.0 to 3.0), memory-mapped where the type is float32.
 */
#ifndef MOESIM_WORKLOADS_NPY_H
#define MOESIM_WORKLOADS_NPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/router.h>

/* NumPy itself has no bfloat16; tensors of other formats do. */
enum npy_type { NPY_U1, NPY_I1, NPY_U2, NPY_I2, NPY_U4, NPY_I4, NPY_U8, NPY_I8, NPY_F2, NPY_F4, NPY_F8, NPY_BF16 };

#define NPY_MAX_DIMENSIONS 4

/* A little-endian C-order array in a mapped file. */
struct npy {
    enum npy_type type;
    uint32_t n_dimensions;
    uint64_t shape[NPY_MAX_DIMENSIONS];
    uint64_t n; /* elements */
    const void *data;
    void *map; /* whole file */
    size_t map_size;
};

/* Maps the file and checks the header against its size before anything is allocated. MOESIM_EIO with path, what is
 * wrong at which byte and what would be right: unreadable, not a regular file, truncated, empty, Fortran order,
 * big-endian, structured or other dtype, a shape whose product overflows or passes the file. */
MOESIM_MUST_CHECK enum moesim_status npy_open(const char *path, struct npy *npy, struct moesim_error *err);
void npy_close(struct npy *npy);

/* Elements [first, first + n) as float; exact for all types up to 2^24 and rounded above. */
void npy_read_float(const struct npy *npy, uint64_t first, uint64_t n, float *out);
/* The same as unsigned numbers; MOESIM_EIO names the element that is negative, fractional or too large. */
MOESIM_MUST_CHECK enum moesim_status npy_read_u32(const struct npy *npy, uint64_t first, uint64_t n, uint32_t *out,
                                                  struct moesim_error *err);

/* Elements [first, first + n) as double; exact but for integers above 2^53. */
void npy_read_double(const struct npy *npy, uint64_t first, uint64_t n, double *out);

/* Smallest and largest of elements [first, first + n), clamped to -2^62..2^62; false when one is no whole number. */
bool npy_whole_range(const struct npy *npy, uint64_t first, uint64_t n, int64_t *smallest, int64_t *largest);

/* `n_rows` runs of `n` elements, `stride` elements apart, as ids side by side: below 2^32, or UINT32_MAX for -1, as
 * npy_whole_range has made sure. */
void npy_gather_ids(const struct npy *npy, uint64_t first, uint64_t n_rows, uint32_t n, uint64_t stride, uint32_t *out);

/* A whole file of numbers, copied to the arena, with its shape; the key is left alone. */
MOESIM_MUST_CHECK enum moesim_status npy_read_array(const char *path, struct moesim_arena *arena,
                                                    struct moesim_file_array *array, struct moesim_error *err);

/* Writes a float32 array beside `path` and renames it. */
MOESIM_MUST_CHECK enum moesim_status npy_write_float(const char *path, const float *data, const uint64_t *shape,
                                                     uint32_t n_dimensions, struct moesim_error *err);

#endif
