/*
 * coactivation and affinity: planted groups are found, small cases are near the best of all, caps are kept.
 */
#include <criterion/criterion.h>
#include <math.h>

#include <moesim/random.h>

#include "tests/sim/placement/ruled.h"

enum { MOST = 64, MOST_LAYERS = 4 };

static double load[MOST], together[MOST * MOST], next[MOST_LAYERS * MOST * MOST];

static double inside(const struct moesim_placement *p, const double *weight, uint32_t per_part)
{
    double sum = 0;
    for (uint32_t i = 0; i < p->n_experts; i++)
        for (uint32_t j = 0; j < i; j++)
            sum += p->primary[i] / per_part == p->primary[j] / per_part ? weight[i * p->n_experts + j] : 0;
    return sum;
}

static double device_most(const struct moesim_placement *p)
{
    return ruled_most(p, load);
}

/* A random order of n numbers. */
static void shuffle(const struct moesim_random *random, uint64_t at, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        const uint32_t j = moesim_random_below(random, at + i, i), x = order[i - 1];
        order[i - 1] = order[j];
        order[j] = x;
    }
}

static void set_random_weights(uint64_t seed, uint32_t n)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    for (uint32_t i = 0; i < n; i++) {
        load[i] = 1 + moesim_random_below(&random, i, 50);
        for (uint32_t j = 0; j < i; j++)
            together[i * n + j] = together[j * n + i] = moesim_random_below(&random, 1000 + i * n + j, 100);
    }
}

static void place(struct ruled *r, const char *spec, uint32_t n_layers, uint32_t n, uint32_t nodes,
                  uint32_t devices_per_node)
{
    const struct moesim_placement_stats stats = {
        .n_layers = n_layers, .n_experts = n, .load = load, .together = together, .next = next};
    cr_assert_eq(ruled_place(r, spec, &stats, nodes, devices_per_node), MOESIM_OK, "%s", r->err.text);
}

/* Eight hidden groups of eight experts, chosen together ten times as often as others: found whole, at even loads. */
Test(coactivation, finds_planted_groups)
{
    for (uint64_t seed = 0; seed < 20; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        uint32_t order[MOST];
        shuffle(&random, 0, MOST, order);
        for (uint32_t i = 0; i < MOST; i++) {
            load[i] = 100;
            for (uint32_t j = 0; j < i; j++)
                together[i * MOST + j] = together[j * MOST + i] =
                    (order[i] / 8 == order[j] / 8 ? 100 : 10) + moesim_random_below(&random, 1000 + i * MOST + j, 10);
        }
        struct ruled r;
        place(&r, "coactivation", 1, MOST, 2, 4);
        for (uint32_t i = 0; i < MOST; i++)
            for (uint32_t j = 0; j < i; j++)
                cr_assert_eq(r.placement[0].primary[i] == r.placement[0].primary[j], order[i] / 8 == order[j] / 8);
        ruled_close(&r);
    }
}

/* The same by nodes: what one device cannot hold is on the node. */
Test(coactivation, finds_groups_of_a_node)
{
    const struct moesim_random random = {.seed = 9, .stream = MOESIM_STREAM_TEST};
    uint32_t order[MOST];
    shuffle(&random, 0, MOST, order);
    for (uint32_t i = 0; i < MOST; i++) {
        load[i] = 100;
        for (uint32_t j = 0; j < i; j++)
            together[i * MOST + j] = together[j * MOST + i] = order[i] / 32 == order[j] / 32 ? 20 : 10;
    }
    struct ruled r;
    place(&r, "coactivation:objective=node", 1, MOST, 2, 4);
    for (uint32_t i = 0; i < MOST; i++)
        for (uint32_t j = 0; j < i; j++)
            cr_assert_eq(r.placement[0].primary[i] / 4 == r.placement[0].primary[j] / 4,
                         order[i] / 32 == order[j] / 32);
    ruled_close(&r);
}

/* The most weight inside equal devices whose loads keep the cap, by trying all; -1 where none does. */
static double best_inside(uint32_t n, uint32_t n_devices, double cap, uint32_t *owner, double *sum, uint32_t i)
{
    if (i == n) {
        double weight = 0;
        for (uint32_t a = 0; a < n; a++)
            for (uint32_t b = 0; b < a; b++)
                weight += owner[a] == owner[b] ? together[a * n + b] : 0;
        return weight;
    }
    double best = -1;
    for (uint32_t d = 0; d < n_devices; d++) {
        uint32_t items = 0;
        for (uint32_t j = 0; j < i; j++)
            items += owner[j] == d;
        if (items == n / n_devices || sum[d] + load[i] > cap)
            continue;
        owner[i] = d;
        sum[d] += load[i];
        best = fmax(best, best_inside(n, n_devices, cap, owner, sum, i + 1));
        sum[d] -= load[i];
    }
    return best;
}

Test(coactivation, is_near_the_best_of_all_below_the_cap)
{
    double ratio = 0;
    uint32_t n_possible = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        const uint32_t n = 9, n_devices = 3;
        set_random_weights(seed, n);
        double total = 0, sum[3] = {0};
        uint32_t owner[9];
        for (uint32_t e = 0; e < n; e++)
            total += load[e];
        struct ruled r;
        place(&r, "coactivation:load_cap=1.2", 1, n, 1, n_devices);
        const double best = best_inside(n, n_devices, 1.2 * total / n_devices, owner, sum, 0);
        const double found = inside(&r.placement[0], together, 1);
        if (best >= 0) {
            cr_assert_leq(device_most(&r.placement[0]), 1.2 * total / n_devices + 1e-9, "seed %lu", seed);
            cr_assert_leq(found, best);
            ratio += found / best;
            n_possible++;
        }
        ruled_close(&r);
    }
    cr_assert_gt(n_possible, 80);
    cr_assert_gt(ratio / n_possible, 0.99);
}

/* With one expert above the cap, it is only as bad as it has to be. */
Test(coactivation, a_cap_that_cannot_be_kept)
{
    set_random_weights(1, 8);
    load[0] = 1000;
    struct ruled r, best;
    place(&r, "coactivation", 1, 8, 1, 2);
    place(&best, "optimal", 1, 8, 1, 2);
    cr_assert_eq(device_most(&r.placement[0]), device_most(&best.placement[0]));
    ruled_close(&r);
    ruled_close(&best);
}

/* ---- affinity ---- */

static double stays(const struct ruled *r, uint32_t n_layers, uint32_t n, uint32_t per_part)
{
    double sum = 0;
    for (uint32_t l = 0; l + 1 < n_layers; l++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                if (r->placement[l].primary[i] / per_part == r->placement[l + 1].primary[j] / per_part)
                    sum += next[(l * n + i) * n + j];
    return sum;
}

/* Tokens of one of eight kinds stay with its experts, which every layer numbers otherwise: all of them can stay. */
Test(affinity, finds_planted_paths)
{
    for (uint64_t seed = 0; seed < 10; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        uint32_t order[MOST_LAYERS][MOST];
        double total = 0;
        for (uint32_t l = 0; l < MOST_LAYERS; l++)
            shuffle(&random, 100 * l, MOST, order[l]);
        for (uint32_t l = 0; l + 1 < MOST_LAYERS; l++)
            for (uint32_t i = 0; i < MOST; i++)
                for (uint32_t j = 0; j < MOST; j++)
                    total += next[(l * MOST + i) * MOST + j] =
                        order[l][i] / 8 == order[l + 1][j] / 8
                            ? 1 + moesim_random_below(&random, 1000 + (l * MOST + i) * MOST + j, 9)
                            : 0;
        struct ruled r, c;
        place(&r, "affinity", MOST_LAYERS, MOST, 2, 4);
        place(&c, "contiguous", MOST_LAYERS, MOST, 2, 4);
        cr_assert_eq(stays(&r, MOST_LAYERS, MOST, 1), total);
        cr_assert_lt(stays(&c, MOST_LAYERS, MOST, 1), 0.25 * total);
        ruled_close(&r);
        ruled_close(&c);
    }
}

/* Three layers of six experts on two devices: the twenty splits of the layers tried all. */
static double best_stay(void)
{
    uint32_t split[20], n_splits = 0;
    for (uint32_t s = 0; s < 64; s++)
        if (__builtin_popcount(s) == 3)
            split[n_splits++] = s;
    double best = 0;
    for (uint32_t a = 0; a < 20; a++)
        for (uint32_t b = 0; b < 20; b++)
            for (uint32_t c = 0; c < 20; c++) {
                double sum = 0;
                for (uint32_t i = 0; i < 6; i++)
                    for (uint32_t j = 0; j < 6; j++) {
                        sum += (split[a] >> i & 1) == (split[b] >> j & 1) ? next[i * 6 + j] : 0;
                        sum += (split[b] >> i & 1) == (split[c] >> j & 1) ? next[36 + i * 6 + j] : 0;
                    }
                best = fmax(best, sum);
            }
    return best;
}

Test(affinity, is_near_the_best_of_all)
{
    double ratio = 0;
    for (uint64_t seed = 0; seed < 100; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        for (uint32_t i = 0; i < 72; i++)
            next[i] = floor(10 * exp((double)moesim_random_normal(&random, i)));
        struct ruled r;
        place(&r, "affinity", 3, 6, 1, 2);
        const double found = stays(&r, 3, 6, 1), best = best_stay();
        cr_assert_leq(found, best);
        ratio += found / best / 100;
        ruled_close(&r);
    }
    cr_assert_gt(ratio, 0.97);
}

/* Two nodes of one device each, and two devices of one node, are one problem. */
Test(affinity, nodes_come_first)
{
    const struct moesim_random random = {.seed = 3, .stream = MOESIM_STREAM_TEST};
    for (uint32_t i = 0; i < 3 * 256; i++)
        next[i] = moesim_random_below(&random, i, 100);
    struct ruled a, b, c;
    place(&a, "affinity", 3, 16, 2, 1);
    place(&b, "affinity", 3, 16, 1, 2);
    place(&c, "affinity", 3, 16, 2, 2);
    cr_assert_eq(stays(&a, 3, 16, 1), stays(&b, 3, 16, 1));
    cr_assert_eq(stays(&a, 3, 16, 1), stays(&c, 3, 16, 2)); /* between nodes as good as without devices */
    cr_assert_leq(stays(&c, 3, 16, 1), stays(&c, 3, 16, 2));
    ruled_close(&a);
    ruled_close(&b);
    ruled_close(&c);
}
