/*
 * A seeded permutation of 0 .. n - 1, one value at a time and without memory.
 */
#ifndef MOESIM_WORKLOADS_PERMUTATION_H
#define MOESIM_WORKLOADS_PERMUTATION_H

#include <moesim/random.h>

struct permutation {
    uint64_t n; /* 1 to 2^48 */
    uint64_t seed;
    uint32_t stream, round; /* another permutation for each round */
};

/* Where i < n goes: four rounds of a Feistel network on the next larger power of 4, walked until the value is below n
 * (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). */
uint64_t permutation_at(const struct permutation *permutation, uint64_t i);

#endif
