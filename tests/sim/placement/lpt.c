/*
 * lpt by hand, and its promises on random loads.
 */
#include <criterion/criterion.h>
#include <math.h>

#include <moesim/random.h>

#include "tests/sim/placement/ruled.h"

/* 9 to device 0, 8 to 1, 7 to 2, 6 to 2 (7 < 8 < 9), which is then full; 5 to 1 (8), 1 to 0 (9). */
Test(lpt, by_hand)
{
    const double load[] = {1, 9, 8, 5, 7, 6};
    struct ruled r;
    ruled_layer(&r, "lpt", load, 6, 1, 3);
    const uint32_t slots[] = {1, 0, 2, 3, 4, 5};
    cr_assert_arr_eq(r.placement[0].expert, slots, sizeof slots);
    ruled_close(&r);
}

/* 12 twice is 6 each; then 7, 6, 6, 5 over two devices of three slots: 7 to 0, a copy to 1, the other to 0. */
Test(lpt, copies_go_to_different_devices)
{
    const double load[] = {12, 7, 5, 0, 0};
    struct ruled r;
    ruled_layer(&r, "lpt:redundant=1", load, 5, 1, 2);
    const struct moesim_placement *p = &r.placement[0];
    cr_assert_eq(p->first[1] - p->first[0], 2);
    cr_assert_neq(p->replica[0], p->replica[1]);
    cr_assert_eq(p->primary[1], 0);
    cr_assert_eq(p->primary[2], 1);
    ruled_close(&r);
}

Test(lpt, no_expert_twice_on_a_device_while_another_can_be_copied)
{
    for (uint64_t seed = 0; seed < 200; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        double load[24];
        for (uint32_t e = 0; e < 24; e++)
            load[e] = exp(2 * (double)moesim_random_normal(&random, e));
        struct ruled r;
        ruled_layer(&r, seed % 2 ? "lpt:redundant=8" : "lpt:redundant=40", load, 24, 1, 8);
        const struct moesim_placement *p = &r.placement[0];
        for (uint32_t e = 0; e < 24; e++)
            cr_assert_leq(p->first[e + 1] - p->first[e], 8);
        for (uint32_t e = 0; e < 24 && seed % 2; e++)
            for (uint32_t i = p->first[e]; i + 1 < p->first[e + 1]; i++)
                cr_assert_neq(p->replica[i], p->replica[i + 1]);
        ruled_close(&r);
    }
}

/* Skewed loads of 256 experts on 32 devices, in multiples of the mean device load. */
Test(lpt, balances_better_than_contiguous_and_eplb_better_still)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        double load[256], mean = 0;
        for (uint32_t e = 0; e < 256; e++)
            mean += (load[e] = floor(100 * exp(0.5 * (double)moesim_random_normal(&random, e)))) / 32;
        struct ruled c, l, m, b;
        ruled_layer(&c, "contiguous", load, 256, 4, 8);
        ruled_layer(&l, "lpt", load, 256, 4, 8);
        ruled_layer(&m, "lpt:redundant=32", load, 256, 4, 8);
        ruled_layer(&b, "eplb:redundant=32", load, 256, 4, 8);
        cr_assert_gt(ruled_most(&c.placement[0], load), 1.15 * mean);
        cr_assert_lt(ruled_most(&l.placement[0], load), 1.08 * mean);
        cr_assert_lt(ruled_most(&m.placement[0], load), 1.02 * mean);
        cr_assert_lt(ruled_most(&b.placement[0], load), 1.02 * mean);
        ruled_close(&c);
        ruled_close(&l);
        ruled_close(&m);
        ruled_close(&b);
    }
}
