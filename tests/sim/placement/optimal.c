/*
 * optimal against every placement there is, and every other rule against optimal.
 */
#include <criterion/criterion.h>
#include <math.h>

#include <moesim/random.h>

#include "tests/sim/placement/ruled.h"

/* The least maximum over all assignments of n experts to equal devices, by trying all. */
static double least_maximum(const double *load, uint32_t n, uint32_t n_devices, double *sum, uint32_t *items,
                            uint32_t i)
{
    double least = INFINITY;
    if (i == n) {
        least = 0;
        for (uint32_t d = 0; d < n_devices; d++)
            least = fmax(least, sum[d]);
        return least;
    }
    for (uint32_t d = 0; d < n_devices; d++) {
        if (items[d] == n / n_devices)
            continue;
        sum[d] += load[i];
        items[d]++;
        least = fmin(least, least_maximum(load, n, n_devices, sum, items, i + 1));
        sum[d] -= load[i];
        items[d]--;
    }
    return least;
}

static void draw_loads(uint64_t seed, uint32_t n, double *load)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    for (uint32_t e = 0; e < n; e++)
        switch (seed % 3) {
        case 0:
            load[e] = moesim_random_below(&random, e, 4);
            break;
        case 1:
            load[e] = moesim_random_below(&random, e, 1000);
            break;
        default:
            load[e] = floor(100 * exp((double)moesim_random_normal(&random, e)));
        }
}

Test(optimal, equals_trying_all)
{
    const uint32_t shape[][2] = {{4, 2}, {6, 2}, {6, 3}, {8, 2}, {8, 4}, {9, 3}, {4, 4}, {5, 1}};
    for (uint64_t seed = 0; seed < 160; seed++) {
        const uint32_t n = shape[seed % 8][0], n_devices = shape[seed % 8][1];
        double load[16], sum[4] = {0};
        uint32_t items[4] = {0};
        draw_loads(seed, n, load);
        struct ruled r;
        ruled_layer(&r, "optimal", load, n, 1, n_devices);
        cr_assert_eq(ruled_most(&r.placement[0], load), least_maximum(load, n, n_devices, sum, items, 0));
        ruled_close(&r);
    }
}

Test(optimal, no_rule_is_better_on_a_thousand_small_cases)
{
    uint32_t lpt_equal = 0, contiguous_equal = 0;
    for (uint64_t seed = 0; seed < 1000; seed++) {
        const uint32_t n_devices = 2 + (uint32_t)(seed % 3), n = n_devices * (1 + (uint32_t)(seed / 3 % 4));
        double load[16];
        draw_loads(seed, n, load);
        struct ruled best;
        ruled_layer(&best, "optimal", load, n, 1, n_devices);
        const double least = ruled_most(&best.placement[0], load);
        static const char *const others[] = {"contiguous", "round-robin", "random", "lpt", "eplb"};
        for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
            struct ruled r;
            ruled_layer(&r, others[i], load, n, 1, n_devices);
            const double most = ruled_most(&r.placement[0], load);
            cr_assert_geq(most, least, "%s, seed %lu", others[i], seed);
            contiguous_equal += i == 0 && most == least;
            lpt_equal += i == 3 && most == least;
            ruled_close(&r);
        }
        ruled_close(&best);
    }
    /* The oracle tells them apart. In a quarter of the cases every device has one expert, and all are alike. */
    cr_assert_gt(lpt_equal, 600);
    cr_assert_lt(contiguous_equal, 500);
}

/* 16 experts on 4 devices, where no bound cuts the search short: all loads differ in their low digits. */
Test(optimal, largest_shape)
{
    double load[16];
    for (uint32_t e = 0; e < 16; e++)
        load[e] = 1e6 + 1009 * e * e % 4093;
    struct ruled r, l;
    ruled_layer(&r, "optimal", load, 16, 2, 2);
    ruled_layer(&l, "lpt", load, 16, 2, 2);
    cr_assert_leq(ruled_most(&r.placement[0], load), ruled_most(&l.placement[0], load));
    ruled_close(&r);
    ruled_close(&l);
}

Test(optimal, refuses_what_it_cannot_search)
{
    double load[32] = {1};
    struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = 32, .load = load};
    struct ruled r;
    cr_assert_eq(ruled_place(&r, "optimal", &stats, 1, 4), MOESIM_EINVAL);
    cr_assert_str_eq(r.err.text,
                     "every placement is searched, which takes too long for 32 experts on 4 devices; at most 16 on 4 "
                     "can be placed so, lpt places any number");
    ruled_close(&r);
    stats.n_experts = 10;
    cr_assert_eq(ruled_place(&r, "optimal", &stats, 1, 4), MOESIM_EINVAL);
    cr_assert_str_eq(r.err.text,
                     "10 experts do not divide by the 4 devices of an EP group, and every device holds as many");
    ruled_close(&r);
}
