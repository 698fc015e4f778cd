/*
 * Pricing a routed layer, 2.1 million decisions on 64 devices, by form of dispatch; and max-min fair flows by
 * themselves.
 */
#include <stdio.h>
#include <stdlib.h>

#include <moesim/random.h>

#include "bench/parts/parts.h"
#include "bench/pricing.h"
#include "sim/cost/flows.h"

static const struct line {
    const char *name;
    enum moesim_dispatch form;
    double leaf;
} lines[] = {
    {"flat", MOESIM_DISPATCH_FLAT, 1},
    {"normal", MOESIM_DISPATCH_NORMAL, 1},
    {"low-latency", MOESIM_DISPATCH_LOW_LATENCY, 1},
    {"all-gather", MOESIM_DISPATCH_ALL_GATHER, 1},
    {"padded", MOESIM_DISPATCH_PADDED, 1},
    {"normal, uplinks 3:1", MOESIM_DISPATCH_NORMAL, 3},
};

static void measure(struct bench *bench, const struct line *line)
{
    struct pricing p;
    pricing_open(&p, 64, 1, bench->options.quick ? 256 : 4096, line->form, line->leaf);
    struct bench_figure figure = {
        .part = "cost", .ours = bench_ours(pricing_run, &p), .work = 1e-6 * (double)p.plan.n_pairs, .unit = "Mpair/s"};
    snprintf(figure.name, sizeof figure.name, "%s", line->name);
    bench_measure(bench, &figure);
    pricing_close(&p);
}

/* Every port of n sends to every other: each flow holds a way out and a way in, and its bytes are uneven. */
enum { PORTS = 64, FLOWS = PORTS * (PORTS - 1) };
struct exchange {
    struct moesim_flow flow[FLOWS];
    double rate[2 * PORTS], end_s[FLOWS];
};

static void open_exchange(struct exchange *x)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    size_t n = 0;
    for (uint32_t i = 0; i < PORTS; i++)
        for (uint32_t j = 0; j < PORTS; j++)
            if (i != j) {
                x->flow[n] = (struct moesim_flow){
                    .link = {i, PORTS + j}, .n_links = 2, .bytes = 1e6 + moesim_random_below(&random, n, 1000000)};
                n++;
            }
    for (uint32_t i = 0; i < 2 * PORTS; i++)
        x->rate[i] = 50e9;
}

static void run_exchange(void *exchange)
{
    struct exchange *x = exchange;
    struct moesim_error err;
    if (moesim_flows_run(x->flow, FLOWS, x->rate, 2 * PORTS, 0, x->end_s, &err))
        bench_stop("%s", err.text);
}

static void measure_flows(struct bench *bench, const char *name)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (!x)
        bench_stop("memory is exhausted");
    open_exchange(x);
    struct bench_figure figure = {
        .part = "cost", .ours = bench_ours(run_exchange, x), .work = 1, .unit = "ms", .as_time = 1e3};
    figure.ours.single = true;
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_measure(bench, &figure);
    free(x);
}

void part_cost(struct bench *bench)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (bench_wants(bench, "cost", lines[i].name))
            measure(bench, &lines[i]);
    if (bench_wants(bench, "cost", "max-min, 4032 flows"))
        measure_flows(bench, "max-min, 4032 flows");
}
