/*
 * What a step of an experiment costs beside its routing alone: plan check, counts, metrics, pricing and tally, with the
 * default metrics and with all of them recorded. Step and routing take turns on one batch.
 */
#include <stdio.h>

#include "bench/parts/parts.h"
#include "bench/stepping.h"

/* The most a step may take, in multiples of its routing. */
#define MOST_DEFAULT 1.3
#define MOST_RECORDED 2.5

struct line {
    const char *title;
    uint32_t n_experts, k;
    const char *router, *extra; /* more of the study */
};

#define CLUSTER "cluster: {name: h100-dgx, nodes: 4}\n"

static const struct line lines[] = {
    {"E=8 k=2", 8, 2, "softmax-topk", ""},
    {"E=64 k=2", 64, 2, "softmax-topk", ""},
    {"E=64 k=8", 64, 8, "softmax-topk", ""},
    {"E=256 k=8", 256, 8, "softmax-topk", ""},
    {"E=64 k=2 switch loss", 64, 2, "softmax-topk:aux_form=switch", ""},
    {"E=64 k=2 capacity", 64, 2, "softmax-topk:capacity_factor=1.25", ""},
    {"E=256 k=8 deepseek-v3", 256, 8, "deepseek-v3", ""},
    {"E=256 k=8 top-p", 256, 8, "top-p:p=0.179", ""},
    {"E=64 k=2 cluster", 64, 2, "softmax-topk", CLUSTER "placement: contiguous\n"},
    {"E=64 k=8 cluster", 64, 8, "softmax-topk", CLUSTER "placement: contiguous\n"},
    {"E=256 k=8 eplb", 256, 8, "softmax-topk", CLUSTER "placement: {name: eplb, redundant: 32, fit_steps: 2}\n"},
};

/* All that can be recorded. */
static void write_records(const struct line *line, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size, "%srecord: [expert_load%s", line->extra, *line->extra ? ", traffic" : "");
    for (int m = 0; m < MOESIM_BENCH_CLOCK; m++)
        n += (size_t)snprintf(text + n, size - n, ", %s", moesim_metrics[m].name);
    snprintf(text + n, size - n, "]\n");
}

static void measure(struct bench *bench, const struct line *line, bool recorded, const char *name)
{
    struct stepping s;
    char extra[3072];
    const struct setting_shape shape = {.n_experts = line->n_experts,
                                        .top_k = line->k,
                                        .n_tokens = bench->options.quick ? SETTING_TOKENS / 16 : SETTING_TOKENS};
    if (recorded)
        write_records(line, extra, sizeof extra);
    stepping_open(&s, line->router, shape, 1, recorded ? extra : line->extra);
    struct bench_figure figure = {.part = "step",
                                  .ours = bench_ours(stepping_step, &s),
                                  .work = 1e-6 * s.setting.batch.n_tokens,
                                  .unit = "Mtoken/s"};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_add(&figure, "routing alone", stepping_route, &s, BENCH_COST,
              BENCH_AT_MOST(recorded ? MOST_RECORDED : MOST_DEFAULT));
    bench_measure(bench, &figure);
    stepping_close(&s);
}

void part_step(struct bench *bench)
{
    for (size_t i = 0; i < 2 * sizeof lines / sizeof *lines; i++) {
        char name[BENCH_NAME];
        snprintf(name, sizeof name, "%s%s", lines[i / 2].title, i % 2 ? ", all" : "");
        if (bench_wants(bench, "step", name))
            measure(bench, &lines[i / 2], i % 2, name);
    }
}
