/*
 * Max-min fair flows: small cases by hand, the port bound on a core that never blocks, and random flows against filling
 * done the slow way.
 */
#include <criterion/criterion.h>
#include <math.h>

#include <moesim/random.h>

#include "sim/cost/flows.h"

TestSuite(flows, .timeout = 60);

enum { MOST_FLOWS = 4096, MOST_LINKS = 256 };

static void run(const struct moesim_flow *flow, size_t n, const double *rate, uint32_t n_links, double resolution_s,
                double *end_s)
{
    struct moesim_error err = {""};
    cr_assert_eq(moesim_flows_run(flow, n, rate, n_links, resolution_s, end_s, &err), MOESIM_OK, "%s", err.text);
}

/* Link 0 (rate 1) is shared by flows 0 and 1: half each. Flow 2 gets the rest of link 1 (rate 2), 3/2, and is done at
 * 2/3; flow 3 has link 2 for itself. */
Test(flows, by_hand)
{
    const struct moesim_flow flow[] = {{{0}, 1, 1}, {{0, 1}, 2, 1}, {{1}, 1, 1}, {{2}, 1, 12}};
    const double rate[] = {1, 2, 4};
    double end[4];
    run(flow, 4, rate, 3, 0, end);
    const double expected[] = {2, 2, 2 / 3., 3};
    for (int i = 0; i < 4; i++)
        cr_assert_float_eq(end[i], expected[i], 1e-12, "flow %d: %g", i, end[i]);

    /* When a flow ends the others speed up: 1/3 each until 3, then 1/2 each until 5, then alone. */
    const struct moesim_flow same[] = {{{0}, 1, 1}, {{0}, 1, 2}, {{0}, 1, 5}};
    run(same, 3, rate, 3, 0, end);
    cr_assert_float_eq(end[0], 3, 1e-12);
    cr_assert_float_eq(end[1], 5, 1e-12);
    cr_assert_float_eq(end[2], 8, 1e-12);

    /* What ends within the resolution is one event: flow 1 keeps its half until 4, flow 2 goes on alone from there. */
    run(same, 3, rate, 3, 3, end);
    cr_assert_float_eq(end[0], 3, 1e-12);
    cr_assert_float_eq(end[1], 6, 1e-12); /* at its own third of the rate */
    cr_assert_float_eq(end[2], 9, 1e-12);

    run(same, 0, rate, 3, 0, end); /* nothing to do */
}

/* ---- a core that never blocks ---- */

enum matrix { EVEN, POPULAR, DENSE, SPARSE, LOGNORMAL };

static double draw_bytes(const struct moesim_random *random, enum matrix kind, uint32_t s, uint32_t t)
{
    const uint64_t at = 1000 + (uint64_t)s * 64 + t;
    const double u = (1 + moesim_random_below(random, at, 1000000)) / 1e6;
    switch (kind) {
    case EVEN:
        return 7;
    case POPULAR: /* senders and receivers of their own weight each */
        return exp(2. * moesim_random_below(random, s, 1000) / 1000) / (1 + t);
    case DENSE:
        return u;
    case SPARSE:
        return u < 0.25 ? u : 0;
    case LOGNORMAL:
        break;
    }
    return exp(sqrt(-2 * log(u)) * cos(6.2831853 * moesim_random_below(random, at + 10000, 1000) / 1e3));
}

/* Runs a random matrix from port to port; returns what it takes over the port bound. */
static double over_bound(uint32_t seed, enum matrix kind, uint32_t ranks)
{
    static struct moesim_flow flow[MOST_FLOWS];
    static double end[MOST_FLOWS];
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    double rate[2 * 64], load[2 * 64] = {0}, bound = 0, last = 0;
    size_t n = 0;
    for (uint32_t i = 0; i < 2 * ranks; i++)
        rate[i] = 3;
    for (uint32_t s = 0; s < ranks; s++)
        for (uint32_t t = 0; t < ranks; t++) {
            const double bytes = s == t ? 0 : draw_bytes(&random, kind, s, t);
            if (!(bytes > 0))
                continue;
            flow[n++] = (struct moesim_flow){{2 * s, 2 * t + 1}, 2, bytes};
            load[2 * s] += bytes / 3;
            load[2 * t + 1] += bytes / 3;
        }
    run(flow, n, rate, 2 * ranks, 0, end);
    for (uint32_t i = 0; i < 2 * ranks; i++)
        bound = fmax(bound, load[i]);
    for (size_t i = 0; i < n; i++)
        last = fmax(last, end[i]);
    return last / bound;
}

/* The fullest port is never idle where traffic is even, or a product of senders and receivers, or dense. */
Test(flows, port_bound_without_blocking)
{
    for (uint32_t seed = 0; seed < 40; seed++) {
        const uint32_t ranks = 8 + 8 * (seed % 4);
        cr_expect_float_eq(over_bound(seed, EVEN, ranks), 1, 1e-9);
        cr_expect_float_eq(over_bound(seed, POPULAR, ranks), 1, 1e-9, "popular, seed %u", seed);
    }
    for (uint32_t seed = 0; seed < 5; seed++)
        cr_expect_float_eq(over_bound(seed, DENSE, 64), 1, 1e-9, "dense, seed %u", seed);
}

/* Elsewhere fair sharing may leave it idle for a while, which a schedule need not: the bound is below, and close. */
Test(flows, port_bound_is_a_lower_bound)
{
    for (uint32_t seed = 0; seed < 100; seed++) {
        const double sparse = over_bound(seed, SPARSE, 4u << seed % 4);
        const double lognormal = over_bound(seed, LOGNORMAL, 4u << seed % 4);
        cr_expect(!(sparse < 1 - 1e-9) && !(sparse > 1.2), "seed %u: %g", seed, sparse); /* NaN without a flow */
        cr_expect(lognormal >= 1 - 1e-9 && lognormal < 1.2, "seed %u: %g", seed, lognormal);
    }
}

/* ---- filling the slow way ---- */

/* One filling by the definition: all undecided flows rise together until a link is full. */
static void fill_slowly(const struct moesim_flow *flow, size_t n, const double *capacity, uint32_t n_links,
                        const double *left, double *rate)
{
    double level = 0;
    size_t undecided = 0;
    static bool open[MOST_FLOWS];
    for (size_t i = 0; i < n; i++) {
        rate[i] = 0;
        undecided += open[i] = left[i] > 0;
    }
    while (undecided) {
        double step = INFINITY;
        double used[MOST_LINKS] = {0};
        uint32_t rising[MOST_LINKS] = {0};
        for (size_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < flow[i].n_links; j++) {
                used[flow[i].link[j]] += rate[i];
                rising[flow[i].link[j]] += open[i];
            }
        for (uint32_t l = 0; l < n_links; l++)
            if (rising[l])
                step = fmin(step, fmax(capacity[l] - used[l], 0) / rising[l]);
        level += step;
        for (size_t i = 0; i < n; i++)
            if (open[i])
                rate[i] = level;
        for (size_t i = 0; i < n; i++)
            for (uint32_t j = 0; open[i] && j < flow[i].n_links; j++) {
                const uint32_t l = flow[i].link[j];
                if (capacity[l] - used[l] - step * rising[l] <= 1e-9 * capacity[l]) {
                    open[i] = false;
                    undecided--;
                }
            }
    }
}

static void run_slowly(const struct moesim_flow *flow, size_t n, const double *capacity, uint32_t n_links, double *end)
{
    static double left[MOST_FLOWS], rate[MOST_FLOWS];
    double now = 0;
    size_t live = n;
    for (size_t i = 0; i < n; i++)
        left[i] = flow[i].bytes;
    while (live) {
        double step = INFINITY;
        fill_slowly(flow, n, capacity, n_links, left, rate);
        for (size_t i = 0; i < n; i++)
            if (left[i] > 0)
                step = fmin(step, left[i] / rate[i]);
        now += step;
        for (size_t i = 0; i < n; i++) {
            if (!(left[i] > 0))
                continue;
            left[i] -= rate[i] * step;
            if (left[i] <= 1e-9 * flow[i].bytes) {
                left[i] = 0;
                end[i] = now;
                live--;
            }
        }
    }
}

static size_t random_flows(uint32_t seed, uint32_t n_links, struct moesim_flow *flow, double *capacity)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST, .step = 1};
    const size_t n = 1 + moesim_random_below(&random, 0, 120);
    for (uint32_t l = 0; l < n_links; l++)
        capacity[l] = 1 + moesim_random_below(&random, 1 + l, 9);
    for (size_t i = 0; i < n; i++) {
        flow[i] = (struct moesim_flow){.bytes = 1 + moesim_random_below(&random, 100 + i, 50)};
        for (uint32_t j = 0, most = 1 + moesim_random_below(&random, 1000 + i, MOESIM_MAX_FLOW_LINKS); j < most; j++) {
            const uint32_t link = moesim_random_below(&random, 2000 + 4 * i + j, n_links);
            bool there = false;
            for (uint32_t k = 0; k < flow[i].n_links; k++)
                there |= flow[i].link[k] == link;
            if (!there)
                flow[i].link[flow[i].n_links++] = link;
        }
    }
    return n;
}

Test(flows, random_against_slow_filling)
{
    static struct moesim_flow flow[MOST_FLOWS];
    static double end[MOST_FLOWS], slow[MOST_FLOWS], coarse[MOST_FLOWS];
    for (uint32_t seed = 0; seed < 200; seed++) {
        double capacity[MOST_LINKS], last = 0, last_coarse = 0;
        const uint32_t n_links = 1 + seed % 24;
        const size_t n = random_flows(seed, n_links, flow, capacity);
        run(flow, n, capacity, n_links, 0, end);
        run_slowly(flow, n, capacity, n_links, slow);
        for (size_t i = 0; i < n; i++) {
            last = fmax(last, slow[i]);
            cr_assert(fabs(end[i] - slow[i]) <= 1e-7 * slow[i], "seed %u, flow %zu: %.12g, not %.12g", seed, i, end[i],
                      slow[i]);
        }
        run(flow, n, capacity, n_links, last / 4096, coarse);
        for (size_t i = 0; i < n; i++)
            last_coarse = fmax(last_coarse, coarse[i]);
        cr_assert(fabs(last_coarse - last) <= last / 1000, "seed %u: %g, not %g", seed, last_coarse, last);
    }
}
