/* SPDX-License-Identifier: MIT
 *
 * Floats as whole numbers of the same order, which can be sorted by their digits.
 */
#ifndef MOESIM_KERNELS_ORDERS_H
#define MOESIM_KERNELS_ORDERS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* NaN is the last of all; zeros of both signs are equal. */
static inline uint32_t to_order(float x)
{
    uint32_t bits;
    const float y = x + 0.0f;
    memcpy(&bits, &y, sizeof bits);
    return x != x ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static inline float from_order(uint32_t order)
{
    const uint32_t bits = order & 0x80000000u ? order & 0x7fffffffu : ~order;
    float x;
    memcpy(&x, &bits, sizeof x);
    return order == 0 ? NAN : x;
}

/* The rank-th largest (from 0) of n orders. Uses the array up. */
uint32_t orders_nth_largest(uint32_t *order, uint32_t n, uint32_t rank);

struct order_item {
    uint32_t order, index;
};

/* Sorts by falling order; equals stay as they stand. `room` has n items too. Which of the two holds the result is
 * returned. */
struct order_item *orders_sort(struct order_item *item, uint32_t n, struct order_item *room);

#endif
