#include "workloads/permutation.h"

enum { ROUNDS = 4 };

uint64_t permutation_at(const struct permutation *p, uint64_t i)
{
    uint32_t half = 1; /* bits of one half */
    while (half < 24 && p->n > 1ull << 2 * half)
        half++;
    const uint64_t mask = (1ull << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            const struct moesim_random random = {p->seed, p->stream, round, p->round};
            const uint64_t mixed = left ^ (moesim_random_bits(&random, right) & mask);
            left = right;
            right = mixed;
        }
        i = left << half | right;
    } while (i >= p->n);
    return i;
}
