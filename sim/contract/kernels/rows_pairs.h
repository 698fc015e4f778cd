/* SPDX-License-Identifier: MIT
 *
 * Experts that nearby tokens have in common, for the two builds of rows.c: ids are compared without branches, one
 * token's with each of another's.
 */
#ifndef MOESIM_KERNELS_ROWS_PAIRS_H
#define MOESIM_KERNELS_ROWS_PAIRS_H

#include "sim/contract/kernels/lanes.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/rows_choose.h"

static inline v8i load_ids(const uint32_t *p)
{
    v8i v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t shared_of_token(const uint32_t *a, const uint32_t *b, uint32_t k)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < k; i++)
        for (uint32_t j = 0; j < k; j++)
            n += a[i] == b[j];
    return n;
}

static inline uint64_t sum_ids(v8i x)
{
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += (uint32_t)x[i];
    return sum;
}

/* Of one or two experts a token, eight pairs at a time: with those as many tokens before, and those exchanged. */
static inline __attribute__((always_inline)) uint64_t shared_of_few(const uint32_t *expert, uint32_t n,
                                                                    const uint32_t k, size_t lag)
{
    v8i count = splat_id(0);
    uint32_t t = 0;
    for (; t + 8 / k <= n; t += 8 / k) {
        const v8i own = load_ids(expert + (size_t)t * k), other = load_ids(expert + (size_t)t * k - lag * k);
        count -= own == other;
        if (k == 2)
            count -= own == __builtin_shufflevector(other, other, 1, 0, 3, 2, 5, 4, 7, 6);
    }
    uint64_t sum = sum_ids(count);
    for (; t < n; t++)
        sum += shared_of_token(expert + (size_t)t * k, expert + (size_t)t * k - lag * k, k);
    return sum;
}

/* Of three to eight: a token's in one vector, beside each of the other's. */
static inline __attribute__((always_inline)) uint64_t shared_of_several(const uint32_t *expert, uint32_t n,
                                                                        const uint32_t k, size_t lag)
{
    v8i count = splat_id(0);
    uint32_t t = 0;
    for (; (size_t)t * k + 8 <= (size_t)n * k; t++) {
        const uint32_t *other = expert + (size_t)t * k - lag * k;
        const v8i own = load_ids(expert + (size_t)t * k);
        for (uint32_t j = 0; j < k; j++)
            count -= own == splat_id((int32_t)other[j]);
    }
    for (uint32_t i = k; i < 8; i++) /* of the tokens after */
        count[i] = 0;
    uint64_t sum = sum_ids(count);
    for (; t < n; t++)
        sum += shared_of_token(expert + (size_t)t * k, expert + (size_t)t * k - lag * k, k);
    return sum;
}

#ifdef __AVX2__
/* A token's experts, eight of 64, as bits of a word. */
static inline uint64_t bits_of_eight(const uint32_t *expert)
{
    const __m256i one = _mm256_set1_epi64x(1), id = (__m256i)load_ids(expert);
    const __m256i low = _mm256_sllv_epi64(one, _mm256_cvtepu32_epi64(_mm256_castsi256_si128(id)));
    const __m256i high = _mm256_sllv_epi64(one, _mm256_cvtepu32_epi64(_mm256_extracti128_si256(id, 1)));
    const __m256i four = _mm256_or_si256(low, high);
    const __m128i two = _mm_or_si128(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return (uint64_t)_mm_cvtsi128_si64(_mm_or_si128(two, _mm_unpackhi_epi64(two, two)));
}

#endif

static void rows_words(const uint32_t *expert, uint32_t n, uint32_t k, uint64_t *word)
{
    for (uint32_t t = 0; t < n; t++, expert += k) {
#ifdef __AVX2__
        if (k == 8) {
            word[t] = bits_of_eight(expert);
            continue;
        }
#endif
        word[t] = 0;
        for (uint32_t c = 0; c < k; c++)
            word[t] |= UINT64_C(1) << expert[c];
    }
}

static uint64_t rows_shared_words(const uint64_t *word, uint32_t n, uint32_t lag)
{
    uint64_t sum = 0;
    for (uint32_t t = 0; t < n; t++)
        sum += (uint64_t)__builtin_popcountll(word[t] & word[(size_t)t - lag]);
    return sum;
}

static uint64_t rows_shared(const uint32_t *expert, uint32_t n, uint32_t k, uint32_t lag)
{
    uint64_t sum = 0;
    switch (k) {
    case 1:
        return shared_of_few(expert, n, 1, lag);
    case 2:
        return shared_of_few(expert, n, 2, lag);
    case 4:
        return shared_of_several(expert, n, 4, lag);
    case 8:
        return shared_of_several(expert, n, 8, lag);
    default:
        if (k < 8)
            return shared_of_several(expert, n, k, lag);
        for (uint32_t t = 0; t < n; t++)
            sum += shared_of_token(expert + (size_t)t * k, expert + (size_t)t * k - (size_t)lag * k, k);
        return sum;
    }
}

#endif
