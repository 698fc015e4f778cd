/* SPDX-License-Identifier: MIT
 *
 * Selection and sorting by digits.
 */
#include "sim/contract/kernels/orders.h"

#define DIGIT_BITS 11
#define N_DIGITS (1u << DIGIT_BITS)

/* The rank-th largest (from 0) of n orders: digit by digit from the top, those that share the digits so far are kept at
 * the front. Uses the array up. */
uint32_t orders_nth_largest(uint32_t *order, uint32_t n, uint32_t rank)
{
    static const int shifts[] = {32 - DIGIT_BITS, 32 - 2 * DIGIT_BITS, 0};
    uint32_t count[N_DIGITS];
    for (int i = 0; i < 3 && n > 1; i++) {
        const uint32_t mask = i < 2 ? N_DIGITS - 1 : (1u << (32 - 2 * DIGIT_BITS)) - 1;
        uint32_t digit = mask, n_kept = 0;
        memset(count, 0, sizeof count);
        for (uint32_t j = 0; j < n; j++)
            count[order[j] >> shifts[i] & mask]++;
        for (; rank >= count[digit]; digit--)
            rank -= count[digit];
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t x = order[j];
            order[n_kept] = x;
            n_kept += (x >> shifts[i] & mask) == digit;
        }
        n = n_kept;
    }
    return order[0];
}

struct order_item *orders_sort(struct order_item *item, uint32_t n, struct order_item *room)
{
    uint32_t start[3][N_DIGITS] = {{0}};
    for (uint32_t i = 0; i < n; i++)
        for (int d = 0; d < 3; d++)
            start[d][~item[i].order >> d * DIGIT_BITS & (N_DIGITS - 1)]++;
    for (int d = 0; d < 3; d++) {
        if (n > 0 && start[d][~item[0].order >> d * DIGIT_BITS & (N_DIGITS - 1)] == n)
            continue; /* all share the digit */
        uint32_t sum = 0;
        for (uint32_t i = 0; i < N_DIGITS; i++) {
            const uint32_t count = start[d][i];
            start[d][i] = sum;
            sum += count;
        }
        for (uint32_t i = 0; i < n; i++)
            room[start[d][~item[i].order >> d * DIGIT_BITS & (N_DIGITS - 1)]++] = item[i];
        struct order_item *sorted = room;
        room = item;
        item = sorted;
    }
    return item;
}
