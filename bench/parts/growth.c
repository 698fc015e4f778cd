/*
 * How time grows with tokens, experts, choices, layers and devices, one axis at a time from 65,536 tokens, 64 experts
 * and 2 a token; the fitted exponent is printed beside the expected one.
 */
#include <stdio.h>
#include <unistd.h>

#include "bench/parts/parts.h"
#include "bench/pricing.h"
#include "bench/setting.h"
#include "bench/stepping.h"

enum { MOST_POINTS = 10, QUICK_POINTS = 3, LAYER_TOKENS = 8192, TOKENS_PER_DEVICE = 16 };
#define MOST_LOGITS ((uint64_t)4 << 30)
#define MOST_EXPONENT 1.05

/* Of a curve: where it is measured, [0] ends the list. */
static const uint32_t tokens[] = {1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 10000000, 0};
static const uint32_t experts[] = {8, 16, 32, 64, 128, 256, 512, 1024, 0};
static const uint32_t choices[] = {1, 2, 4, 8, 16, 0};
static const uint32_t layers[] = {1, 2, 4, 8, 16, 32, 64, 0};
static const uint32_t devices[] = {8, 64, 512, 4096, 32768, 100000, 0};

/* Half of what is free, at most 4 GiB. */
static uint64_t room(void)
{
    const uint64_t available = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    return available < MOST_LOGITS ? available : MOST_LOGITS;
}

static void measure_point(struct bench *bench, const char *axis, uint32_t x, void (*run)(void *), void *state)
{
    struct bench_figure figure = {.part = "growth",
                                  .ours = bench_ours(run, state),
                                  .work = 1,
                                  .unit = "ms",
                                  .as_time = 1e3,
                                  .quiet_table = true,
                                  .curve = axis,
                                  .x = x};
    snprintf(figure.name, sizeof figure.name, "%s %u", axis, x);
    bench_measure(bench, &figure);
}

static void route_at(struct bench *bench, const char *axis, uint32_t x, struct setting_shape shape)
{
    struct setting s;
    if ((uint64_t)shape.n_tokens * shape.n_experts * sizeof(float) > room())
        return;
    setting_open_spec(&s, "softmax-topk", shape);
    measure_point(bench, axis, x, setting_route, &s);
    setting_close(&s);
}

static void by_tokens(struct bench *bench, const char *axis, uint32_t x)
{
    route_at(bench, axis, x, (struct setting_shape){.n_experts = 64, .top_k = 2, .n_tokens = x, .d_model = 8});
}

static void by_experts(struct bench *bench, const char *axis, uint32_t x)
{
    route_at(bench, axis, x, (struct setting_shape){.n_experts = x, .top_k = 2, .n_tokens = SETTING_TOKENS});
}

static void by_choices(struct bench *bench, const char *axis, uint32_t x)
{
    route_at(bench, axis, x, (struct setting_shape){.n_experts = 64, .top_k = x, .n_tokens = SETTING_TOKENS});
}

/* Whole steps of an experiment. */
static void by_layers(struct bench *bench, const char *axis, uint32_t x)
{
    struct stepping s;
    stepping_open(&s, "softmax-topk", (struct setting_shape){.n_experts = 64, .top_k = 2, .n_tokens = LAYER_TOKENS}, x,
                  "");
    measure_point(bench, axis, x, stepping_step, &s);
    stepping_close(&s);
}

/* Groups of eight devices, priced one after the other. */
static void by_devices(struct bench *bench, const char *axis, uint32_t x)
{
    struct pricing p;
    pricing_open(&p, 8, x / 8, TOKENS_PER_DEVICE, MOESIM_DISPATCH_NORMAL, 1);
    measure_point(bench, axis, x, pricing_run, &p);
    pricing_close(&p);
}

static const struct line {
    const char *axis;
    const uint32_t *x;
    void (*measure)(struct bench *, const char *, uint32_t);
    double expected, most;
} lines[] = {
    {"tokens", tokens, by_tokens, 1, MOST_EXPONENT},
    {"experts", experts, by_experts, 1, 0},
    {"choices", choices, by_choices, 1, MOST_EXPONENT},
    {"layers", layers, by_layers, 1, MOST_EXPONENT},
    {"devices", devices, by_devices, 1, 0},
};

void part_growth(struct bench *bench)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        if (!bench_wants(bench, "growth", lines[i].axis))
            continue;
        for (uint32_t k = 0; lines[i].x[k] && k < (bench->options.quick ? QUICK_POINTS : MOST_POINTS); k++)
            lines[i].measure(bench, lines[i].axis, lines[i].x[k]);
        bench_fit(bench, lines[i].axis, lines[i].expected, BENCH_AT_MOST(lines[i].most));
    }
}
