/*
 * What a step of an experiment costs beside its routing alone: plan check, counts, metrics, pricing and tally, with the
 * default metrics and with all of them recorded. The workload hands out one prepared batch, so that no tokens are made
 * in the step.
 */
#include <stdio.h>
#include <string.h>

#include "bench/parts/parts.h"
#include "bench/setting.h"
#include "sim/experiment/experiment.h"
#include "sim/study/study.h"

enum { MOST_STEPS = 4000 };

struct line {
    const char *name, *router;
    uint32_t n_experts, k;
    const char *extra; /* more of the study */
};

#define NODES "cluster: {name: h100-dgx, nodes: 4}\nplacement: "

static const struct line lines[] = {
    {"E=8 k=2", "softmax-topk", 8, 2, ""},
    {"E=64 k=2", "softmax-topk", 64, 2, ""},
    {"E=64 k=8", "softmax-topk", 64, 8, ""},
    {"E=256 k=8", "softmax-topk", 256, 8, ""},
    {"E=64 k=2 switch loss", "softmax-topk:aux_form=switch", 64, 2, ""},
    {"E=64 k=2 capacity 1.25", "softmax-topk:capacity_factor=1.25", 64, 2, ""},
    {"E=256 k=8 deepseek-v3", "deepseek-v3", 256, 8, ""},
    {"E=256 k=8 top-p", "top-p:p=0.179", 256, 8, ""},
    {"E=64 k=2 32 devices", "softmax-topk", 64, 2, NODES "contiguous\n"},
    {"E=64 k=8 32 devices", "softmax-topk", 64, 8, NODES "contiguous\n"},
    {"E=256 k=8 eplb, 32 devices", "softmax-topk", 256, 8, NODES "{name: eplb, redundant: 32, fit_steps: 2}\n"},
};

/* ---- the workload ---- */

static struct {
    uint32_t n_tokens;
    const float *columns;
    uint32_t sequence_id[SETTING_TOKENS];
} prepared;

static enum moesim_status prepared_shape(const void *params, struct moesim_workload_shape *shape,
                                         struct moesim_error *err)
{
    (void)params, (void)err;
    shape->n_tokens = prepared.n_tokens;
    return MOESIM_OK;
}

static enum moesim_status prepared_init(void *state, const void *params, const struct moesim_workload_env *env,
                                        struct moesim_error *err)
{
    (void)state, (void)params, (void)env, (void)err;
    for (uint32_t t = 0; t < SETTING_TOKENS; t++)
        prepared.sequence_id[t] = t / SETTING_SEQUENCE;
    return MOESIM_OK;
}

static enum moesim_status prepared_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                        struct moesim_error *err)
{
    (void)state, (void)step, (void)layer, (void)err;
    batch->columns = prepared.columns;
    batch->stride = batch->n_columns;
    batch->sequence_id = prepared.sequence_id;
    return MOESIM_OK;
}

static const struct moesim_workload workload = {
    MOESIM_WORKLOAD_HEAD,    .provides = MOESIM_NEEDS_COLUMNS | MOESIM_NEEDS_SEQUENCES,
    .name = "prepared",      .summary = "one batch for every step",
    .shape = prepared_shape, .init = prepared_init,
    .step = prepared_step};

/* ---- set-up ---- */

static void write_study(const struct line *line, bool recorded, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size,
                                "study: step\nsteps: %d\nseeds: [1]\nworkload: prepared\n"
                                "model: {layers: 1, experts: %u, top_k: %u}\n%s",
                                MOST_STEPS, line->n_experts, line->k, line->extra);
    if (!recorded)
        return;
    n += (size_t)snprintf(text + n, size - n, "record: [expert_load%s", *line->extra ? ", traffic" : "");
    for (int m = 0; m < MOESIM_N_METRICS; m++)
        n += (size_t)snprintf(text + n, size - n, ", %s", moesim_metrics[m].name);
    snprintf(text + n, size - n, "]\n");
}

struct run {
    struct setting setting; /* the routing alone */
    struct moesim_arena *arena;
    struct moesim_router_entry entry;
    struct moesim_experiment *experiment;
};

static void open_run(struct run *run, const struct line *line, bool recorded, uint32_t n_tokens)
{
    static const struct moesim_workload *const workloads[] = {&workload};
    static struct moesim_mistakes mistakes;
    const struct setting_shape shape = {.n_experts = line->n_experts, .top_k = line->k, .n_tokens = n_tokens};
    const struct moesim_point *const *points;
    struct moesim_error err;
    uint32_t n_points = 0;
    char text[4096];
    *run = (struct run){.arena = moesim_arena_create(0)};
    setting_open_spec(&run->setting, line->router, shape);
    prepared.n_tokens = n_tokens;
    prepared.columns = run->setting.batch.columns;
    run->entry = (struct moesim_router_entry){.spec = run->setting.router->name, .router = run->setting.router};
    const struct moesim_registry registry = {
        .routers = &run->entry, .n_routers = 1, .workloads = workloads, .n_workloads = 1};
    write_study(line, recorded, text, sizeof text);
    mistakes.n = 0;
    struct moesim_study *study = moesim_study_parse("step", text, strlen(text), run->arena, &mistakes);
    if (study)
        moesim_study_replace(study, "router", &line->router, 1, &mistakes);
    if (!study || !moesim_study_resolve(study, &registry, &points, &n_points, &mistakes))
        bench_stop("%s: %s", line->name, mistakes.n ? mistakes.item[0].text : "the study has no points");
    if (moesim_experiment_create(points, n_points, 0, &run->experiment, &err))
        bench_stop("%s: %s", line->name, err.text);
}

static void close_run(struct run *run)
{
    moesim_experiment_destroy(run->experiment);
    moesim_arena_destroy(run->arena);
    setting_close(&run->setting);
}

static void step(void *state)
{
    struct run *run = state;
    struct moesim_error err;
    if (moesim_experiment_done(run->experiment))
        bench_stop("step: more than %d steps", MOST_STEPS);
    if (moesim_experiment_step(run->experiment, &err))
        bench_stop("step: %s", err.text);
}

/* ---- the part ---- */

static void measure(struct bench *bench, const struct line *line, bool recorded, const char *name)
{
    static struct run run;
    open_run(&run, line, recorded, bench->options.quick ? SETTING_TOKENS / 8 : SETTING_TOKENS);
    struct bench_figure figure = {
        .part = "step", .ours = bench_ours(step, &run), .work = 1e-6 * run.setting.batch.n_tokens, .unit = "Mtoken/s"};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_add(&figure, "routing alone", setting_route, &run.setting, BENCH_COST, BENCH_AT_MOST(recorded ? 2.5 : 1.3));
    bench_measure(bench, &figure);
    close_run(&run);
}

void part_step(struct bench *bench)
{
    for (size_t i = 0; i < 2 * sizeof lines / sizeof *lines; i++) {
        const struct line *line = &lines[i / 2];
        char name[BENCH_NAME];
        snprintf(name, sizeof name, "%s%s", line->name, i % 2 ? ", all recorded" : "");
        if (bench_wants(bench, "step", name))
            measure(bench, line, i % 2, name);
    }
}
