/*
 * A benchmark as the program sees it: one layer whose tokens are routed as the benchmark routed them, counted once by
 * the cost model and priced on any rates.
 */
#ifndef MOESIM_SIM_FIDELITY_BENCH_H
#define MOESIM_SIM_FIDELITY_BENCH_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/cost/cost.h"

enum moesim_bench_routing {
    /* Independent random scores: a token keeps the kept_nodes nodes with the best score of an expert, then takes the K
     * best experts there (DeepEP's tests, whose groups are nodes). */
    MOESIM_BENCH_RANDOM,
    /* Token t's choice i is expert floor(t * min(1, s / T) + i * s) mod E with s = ceil(E / K): equal loads
     * (balanced_logits of NVIDIA aiconfigurator). */
    MOESIM_BENCH_BALANCED,
    MOESIM_BENCH_HOT,       /* expert 0, then the others in turn */
    MOESIM_BENCH_ALL_PAIRS, /* token t goes to device t mod R: an all-to-all; one expert a device, K = 1 */
};

struct moesim_bench_setup {
    uint32_t nodes, devices_per_node;
    uint32_t tokens; /* of all devices */
    struct moesim_model model;
    enum moesim_dispatch dispatch;
    enum moesim_bench_routing routing;
    uint32_t kept_nodes; /* 0 = all */
};

/* Random benches are drawn several times and priced at the mean: one draw of few tokens has a busiest port by luck. */
enum { MOESIM_BENCH_DRAWS = 8 };

struct moesim_bench {
    struct moesim_bench_setup setup;
    struct moesim_placement *placement;
    uint32_t n_draws;
    struct moesim_cost_work work[MOESIM_BENCH_DRAWS];
    struct moesim_cost cost; /* on the rates it was counted with, mean over draws: times, fan-out, imbalance, FLOP */
};

/* K experts [tokens][top_k] for every token; a pure function of the setup and the number of the draw. */
void moesim_bench_route(const struct moesim_bench_setup *setup, uint32_t draw, uint32_t *expert);

/* Routes and counts the setup, whose experts are placed contiguously on all devices: random ones in as many draws as
 * 32768 tokens allow. */
MOESIM_MUST_CHECK enum moesim_status moesim_bench_init(struct moesim_bench *bench,
                                                       const struct moesim_bench_setup *setup,
                                                       const struct moesim_cluster *rates, struct moesim_arena *arena,
                                                       struct moesim_error *err);

/* What is compared with a benchmark. */
struct moesim_bench_times {
    double dispatch_s, combine_s, experts_s;
};

/* Prices it on a cluster of the setup's shape with the rates of `rates`: the times of moesim_cost_layer, without
 * counting again. */
MOESIM_MUST_CHECK enum moesim_status moesim_bench_price(struct moesim_bench *bench, const struct moesim_cluster *rates,
                                                        struct moesim_bench_times *times, struct moesim_error *err);

#endif
