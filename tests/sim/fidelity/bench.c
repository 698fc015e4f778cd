/*
 * How benchmarks route, against their definitions, and that they are priced as any layer is.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/fidelity/bench.h"

TestSuite(fidelity_bench, .timeout = 60);

static struct moesim_bench_setup setup(uint32_t nodes, uint32_t tokens, enum moesim_bench_routing routing)
{
    return (struct moesim_bench_setup){.nodes = nodes,
                                       .devices_per_node = 8,
                                       .tokens = tokens,
                                       .model = moesim_model_find("deepseek-v3")->model,
                                       .dispatch = MOESIM_DISPATCH_NORMAL,
                                       .routing = routing};
}

/* Distinct experts, on at most the nodes kept, all equally often; another draw is another routing. */
Test(fidelity_bench, random_tokens)
{
    enum { T = 20000, K = 8 };
    static uint32_t expert[T * K], again[T * K];
    static uint64_t load[256];
    struct moesim_bench_setup s = setup(8, T, MOESIM_BENCH_RANDOM);
    s.kept_nodes = 4;
    moesim_bench_route(&s, 0, expert);
    uint64_t nodes_seen = 0;
    for (uint32_t t = 0; t < T; t++) {
        uint32_t nodes = 0;
        for (uint32_t i = 0; i < K; i++) {
            const uint32_t e = expert[t * K + i];
            cr_assert_lt(e, 256);
            load[e]++;
            nodes |= 1u << e / 32;
            for (uint32_t j = 0; j < i; j++)
                cr_assert_neq(e, expert[t * K + j]);
        }
        cr_assert_leq(__builtin_popcount(nodes), 4);
        nodes_seen += __builtin_popcount(nodes);
    }
    for (uint32_t e = 0; e < 256; e++) /* mean 625, standard deviation 25 */
        cr_assert(load[e] > 500 && load[e] < 750, "expert %u: %lu", e, (unsigned long)load[e]);
    /* 3.984 of 4 nodes for each token (Monte Carlo in the notes to DeepEP's table, EP64). */
    cr_assert_float_eq((double)nodes_seen / T, 3.984, 0.005, "%g", (double)nodes_seen / T);
    moesim_bench_route(&s, 0, again);
    cr_assert_arr_eq(expert, again, sizeof expert);
    moesim_bench_route(&s, 1, again);
    cr_assert_arr_neq(expert, again, sizeof expert);
}

static int by_score(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The same law as scores: mean distinct devices of 16 tokens x 2000 under both. */
Test(fidelity_bench, random_order_is_that_of_scores)
{
    enum { T = 30000, E = 32, K = 4, NODES = 4, KEPT = 2 };
    static uint32_t expert[T * K];
    struct moesim_bench_setup s = setup(NODES, T, MOESIM_BENCH_RANDOM);
    s.kept_nodes = KEPT;
    s.model.experts = E;
    s.model.top_k = K;
    moesim_bench_route(&s, 0, expert);
    double drawn = 0, scored = 0; /* experts of a token's best node */
    srand(1);
    for (uint32_t t = 0; t < T; t++) {
        for (uint32_t i = 0; i < K; i++)
            drawn += expert[t * K + i] / (E / NODES) == expert[t * K] / (E / NODES);
        float score[E], best[NODES], sorted[E];
        bool kept[NODES];
        for (uint32_t e = 0; e < E; e++) {
            score[e] = (float)rand();
            best[e / (E / NODES)] = e % (E / NODES) ? fmaxf(best[e / (E / NODES)], score[e]) : score[e];
        }
        for (uint32_t n = 0; n < NODES; n++) {
            uint32_t better = 0;
            for (uint32_t m = 0; m < NODES; m++)
                better += best[m] > best[n];
            kept[n] = better < KEPT;
        }
        uint32_t n_left = 0;
        for (uint32_t e = 0; e < E; e++)
            if (kept[e / (E / NODES)])
                sorted[n_left++] = score[e];
        qsort(sorted, n_left, sizeof *sorted, by_score);
        uint32_t first = 0;
        for (uint32_t e = 0; e < E; e++)
            first = score[e] == sorted[0] ? e / (E / NODES) : first;
        for (uint32_t e = 0; e < E; e++)
            scored += kept[e / (E / NODES)] && score[e] >= sorted[K - 1] && e / (E / NODES) == first;
    }
    /* Between 1 and 4 for each token, with a standard deviation below 1. */
    cr_assert_float_eq(drawn / T, scored / T, 5 * sqrt(2. / T), "%g, %g", drawn / T, scored / T);
}

/* Balanced, by hand: 4 experts, K 2, so stride 2; and fewer tokens than the stride. */
Test(fidelity_bench, balanced_tokens)
{
    uint32_t expert[8];
    struct moesim_bench_setup s = setup(1, 4, MOESIM_BENCH_BALANCED);
    s.model.experts = 4;
    s.model.top_k = 2;
    const uint32_t four[] = {0, 2, 1, 3, 2, 0, 3, 1};
    moesim_bench_route(&s, 0, expert);
    cr_assert_arr_eq(expert, four, sizeof four);
    s.model.experts = 8;
    s.tokens = 2; /* stride 4: shifts 0 and 2 */
    const uint32_t two[] = {0, 4, 2, 6};
    moesim_bench_route(&s, 0, expert);
    cr_assert_arr_eq(expert, two, sizeof two);
    s.routing = MOESIM_BENCH_HOT;
    const uint32_t hot[] = {0, 1, 0, 2};
    moesim_bench_route(&s, 0, expert);
    cr_assert_arr_eq(expert, hot, sizeof hot);
}

/* Pricing without counting again is what moesim_cost_layer would say on those rates. */
Test(fidelity_bench, priced_as_a_layer)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    const struct moesim_cluster h100 = moesim_cluster_find("h100-dgx")->cluster;
    struct moesim_cluster other = h100;
    other.nic_bytes_per_s = 20e9;
    other.normal_latency_inter_s = 1e-3;
    other.flop_per_s = 100e12;
    other.low_latency_nvlink_bytes_per_s = 50e9;
    for (int dispatch = MOESIM_DISPATCH_FLAT; dispatch <= MOESIM_DISPATCH_ALL_GATHER; dispatch++) {
        struct moesim_bench_setup s = setup(2, 2000, MOESIM_BENCH_RANDOM);
        s.dispatch = (enum moesim_dispatch)dispatch;
        s.model.shared_experts = 0;
        struct moesim_bench first, second;
        struct moesim_bench_times a, b;
        cr_assert_eq(moesim_bench_init(&first, &s, &h100, arena, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(moesim_bench_init(&second, &s, &other, arena, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(first.n_draws, MOESIM_BENCH_DRAWS);
        cr_assert_eq(moesim_bench_price(&first, &other, &a, &err), MOESIM_OK);
        cr_assert_float_eq(a.dispatch_s, second.cost.time_dispatch_s, 1e-15);
        cr_assert_float_eq(a.combine_s, second.cost.time_combine_s, 1e-15);
        cr_assert_float_eq(a.experts_s, second.cost.time_compute_s, 1e-15);
        cr_assert_eq(moesim_bench_price(&second, &h100, &b, &err), MOESIM_OK);
        cr_assert_float_eq(b.dispatch_s, first.cost.time_dispatch_s, 1e-15);
        cr_assert(a.dispatch_s > b.dispatch_s && a.experts_s > b.experts_s);
    }
    moesim_arena_destroy(arena);
}
