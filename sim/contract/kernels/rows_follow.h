/* SPDX-License-Identifier: MIT
 *
 * Whether pairs of tokens, one after the other, are as most routers make them, for the two builds of rows.c.
 */
#ifndef MOESIM_KERNELS_ROWS_FOLLOW_H
#define MOESIM_KERNELS_ROWS_FOLLOW_H

#include <string.h>

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/rows_few.h"

/* Bits are gathered by OR, so that no pair waits for another. */
static bool rows_plain_pairs(const uint32_t *expert, const float *weight, const uint8_t *fate, uint32_t n,
                             uint32_t n_experts)
{
    const uint32_t most = n_experts - 1;
    uint32_t sign = 0;
    uint8_t fates = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, weight + i, sizeof bits);
        sign |= (0x7f7fffffu - (bits & 0x7fffffffu)) | expert[i] | (most - expert[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        fates |= fate[i];
    return sign >> 31 == 0 && fates == MOESIM_KEPT;
}

/* Whether a token of k has an expert twice, k a divisor of eight: each lane beside those that are 1 to k / 2 behind it
 * in the same token. */
static inline __attribute__((always_inline)) v8i repeats_of(v8i x, const uint32_t k)
{
    if (k == 2)
        return x == __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6);
    if (k == 4)
        return (x == __builtin_shufflevector(x, x, 1, 2, 3, 0, 5, 6, 7, 4)) |
               (x == __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
    return (x == __builtin_shufflevector(x, x, 1, 2, 3, 4, 5, 6, 7, 0)) |
           (x == __builtin_shufflevector(x, x, 2, 3, 4, 5, 6, 7, 0, 1)) |
           (x == __builtin_shufflevector(x, x, 3, 4, 5, 6, 7, 0, 1, 2)) |
           (x == __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
}

static inline __attribute__((always_inline)) bool any_repeats(const uint32_t *expert, uint32_t n, const uint32_t k)
{
    v8i repeats = {0}, x;
    uint32_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&x, expert + i, sizeof x);
        repeats |= repeats_of(x, k);
    }
    bool more = false;
    for (; i < n; i++)
        for (uint32_t j = i - i % k; j < i; j++)
            more |= expert[i] == expert[j];
    return more || any(repeats);
}

static bool repeats_an_expert(const uint32_t *expert, uint32_t n, uint32_t k)
{
    return k == 2   ? any_repeats(expert, n, 2)
           : k == 4 ? any_repeats(expert, n, 4)
           : k == 8 ? any_repeats(expert, n, 8)
                    : false;
}

/* A word has fewer bits than its token has pairs where one of them repeats another. */
static bool repeats_a_bit(const uint64_t *word, uint32_t n_tokens, uint32_t n)
{
    uint64_t n_bits = 0;
    for (uint32_t t = 0; t < n_tokens; t++)
        n_bits += (uint64_t)__builtin_popcountll(word[t]);
    return n_bits != n;
}

static bool rows_follow(const uint32_t *expert, const int32_t *slot, const uint64_t *word, uint32_t n, uint32_t k,
                        uint32_t n_experts, uint32_t *next)
{
    uint32_t i = 0, odd = word ? repeats_a_bit(word, n / k, n) : repeats_an_expert(expert, n, k);
#ifdef __AVX2__
    if (n_experts <= ROWS_FEW_EXPERTS) {
        uint32_t own[ROWS_FEW_EXPERTS] = {0};
        memcpy(own, next, n_experts * sizeof *own);
        i = n / 8 * 8;
        odd |= !follow_few(expert, slot, i, own);
        memcpy(next, own, n_experts * sizeof *own);
    }
#endif
    (void)n_experts;
    expert += i, slot += i;
    for (; i + 8 <= n; i += 8, expert += 8, slot += 8)
        for (int j = 0; j < 8; j++)
            odd |= next[expert[j]]++ ^ (uint32_t)slot[j];
    for (int j = 0; i < n; i++, j++)
        odd |= next[expert[j]]++ ^ (uint32_t)slot[j];
    return odd == 0;
}

#endif
