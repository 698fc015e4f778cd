/* SPDX-License-Identifier: MIT
 *
 * Choices among at most eight experts, whose counts are lanes of one register, for the two builds of rows.c.
 */
#ifndef MOESIM_KERNELS_ROWS_FEW_H
#define MOESIM_KERNELS_ROWS_FEW_H

#include <string.h>

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"

#ifdef __AVX2__
/* Sums of the quarters up to each; a quarter has a byte for every expert. */
static inline __m256i running_sums(__m256i x)
{
    const __m256i upper = _mm256_setr_epi64x(0, 0, -1, -1);
    x = _mm256_add_epi64(x, _mm256_slli_si256(x, 8));
    return _mm256_add_epi64(x, _mm256_and_si256(_mm256_permute4x64_epi64(x, 0x50), upper));
}

/* The places of eight choices one after the other, of experts below eight; count[expert] goes up by as many. */
static inline __m256i places8(__m256i expert, __m256i *count)
{
    const __m256i one = _mm256_set1_epi64x(1), byte = _mm256_slli_epi32(expert, 3);
    const __m256i low = _mm256_cvtepu32_epi64(_mm256_castsi256_si128(byte));
    const __m256i high = _mm256_cvtepu32_epi64(_mm256_extracti128_si256(byte, 1));
    const __m256i first = running_sums(_mm256_sllv_epi64(one, low));
    const __m256i half = _mm256_permute4x64_epi64(first, 0xff);
    const __m256i second = _mm256_add_epi64(running_sums(_mm256_sllv_epi64(one, high)), half);
    const __m256i all = _mm256_permute4x64_epi64(second, 0xff);
    /* of each quarter the byte of its own expert; the lower halves of both, in order */
    const __m256 own_low = _mm256_castsi256_ps(_mm256_srlv_epi64(first, low));
    const __m256 own_high = _mm256_castsi256_ps(_mm256_srlv_epi64(second, high));
    const __m256i mixed = _mm256_castps_si256(_mm256_shuffle_ps(own_low, own_high, 0x88));
    const __m256i own = _mm256_and_si256(_mm256_permute4x64_epi64(mixed, 0xd8), _mm256_set1_epi32(0xff));
    const __m256i before = _mm256_permutevar8x32_epi32(*count, expert);
    *count = _mm256_add_epi32(*count, _mm256_cvtepu8_epi32(_mm256_castsi256_si128(all)));
    return _mm256_add_epi32(_mm256_add_epi32(before, own), _mm256_set1_epi32(-1));
}

static inline __m256i load_eight(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

/* slot[n] and count[8] of n choices, a multiple of eight, all of experts below eight. */
static inline void place_few(const uint32_t *expert, uint32_t n, uint32_t *count, int32_t *slot)
{
    __m256i all = load_eight(count);
    for (uint32_t i = 0; i < n; i += 8)
        _mm256_storeu_si256((__m256i *)(slot + i), places8(load_eight(expert + i), &all));
    _mm256_storeu_si256((__m256i *)count, all);
}

/* Eight choices at a time where the starts fit one register; returns how many were done. */
static inline uint32_t move_few(const uint32_t *expert, uint32_t n, const uint32_t *start, uint32_t n_experts,
                                int32_t *slot)
{
    uint32_t own[ROWS_FEW_EXPERTS] = {0}, i = 0;
    memcpy(own, start, n_experts * sizeof *own);
    const __m256i all = load_eight(own);
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_si256(
            (__m256i *)(slot + i),
            _mm256_add_epi32(load_eight(slot + i), _mm256_permutevar8x32_epi32(all, load_eight(expert + i))));
    return i;
}

/* Whether the slots of n choices, a multiple of eight, are those that place_few() gives. */
static inline bool follow_few(const uint32_t *expert, const int32_t *slot, uint32_t n, uint32_t *next)
{
    __m256i all = load_eight(next), odd = _mm256_setzero_si256();
    for (uint32_t i = 0; i < n; i += 8)
        odd = _mm256_or_si256(odd, _mm256_xor_si256(places8(load_eight(expert + i), &all), load_eight(slot + i)));
    _mm256_storeu_si256((__m256i *)next, all);
    return _mm256_testz_si256(odd, odd);
}
#endif

static void rows_move_slots(const uint32_t *expert, uint32_t n, const uint32_t *start, uint32_t n_experts,
                            int32_t *slot)
{
    uint32_t i = 0;
#ifdef __AVX2__
    if (n_experts <= ROWS_FEW_EXPERTS)
        i = move_few(expert, n, start, n_experts, slot);
#endif
    (void)n_experts;
    expert += i, slot += i;
    for (; i + 8 <= n; i += 8, expert += 8, slot += 8)
        for (int j = 0; j < 8; j++)
            slot[j] += (int32_t)start[expert[j]];
    for (int j = 0; i < n; i++, j++)
        slot[j] += (int32_t)start[expert[j]];
}

#endif
