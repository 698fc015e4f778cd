/* SPDX-License-Identifier: MIT
 *
 * Random numbers in bulk: those of random.c, element for element. draws.c is built for the baseline, for AVX2 and for
 * AVX-512, none with FMA, so that all give the same bits.
 */
#ifndef MOESIM_KERNELS_DRAWS_H
#define MOESIM_KERNELS_DRAWS_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/random.h>

/* Multipliers and key increments of Salmon et al., table 2. */
#define PHILOX_MULTIPLY_0 0xd2511f53u
#define PHILOX_MULTIPLY_1 0xcd9e8d57u
#define PHILOX_WEYL_0 0x9e3779b9u
#define PHILOX_WEYL_1 0xbb67ae85u

/* Elements [first, first + n) of the sequence. */
struct draws_kernels {
    void (*uniforms)(const struct moesim_random *r, uint64_t first, size_t n, float *out);
    void (*normals)(const struct moesim_random *r, uint64_t first, size_t n, float *out);
};

extern const struct draws_kernels moesim_draws_baseline, moesim_draws_avx2, moesim_draws_avx512;

#endif
