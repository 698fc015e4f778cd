/*
 * The header of a .npy file: magic, version, length and a Python dictionary, read by hand from untrusted bytes.
 */
#ifndef MOESIM_WORKLOADS_NPY_HEADER_H
#define MOESIM_WORKLOADS_NPY_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "workloads/npy.h"

/* Fills type, dimensions, shape and n of `npy` from the `size` bytes of a whole file and gives where its data starts.
 * MOESIM_EIO says what is wrong at which byte; what passes has all its elements inside the file. `path` is for the
 * sentence only. */
MOESIM_MUST_CHECK enum moesim_status npy_header_parse(const char *path, const uint8_t *bytes, size_t size,
                                                      struct npy *npy, size_t *data_offset, struct moesim_error *err);

/* Writes a header of format 1.0, data from a multiple of 64 on; returns its length. At most 4 dimensions. */
#define NPY_HEADER_ROOM 512
size_t npy_header_make(char header[NPY_HEADER_ROOM], enum npy_type type, const uint64_t *shape, uint32_t n_dimensions);

/* Bytes of one element. */
size_t npy_type_size(enum npy_type type);

/* The type as NumPy spells it ("<f4"). */
const char *npy_type_name(enum npy_type type);

#endif
