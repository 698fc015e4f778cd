#include "bench/stepping.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "sim/study/study.h"

enum { STEPS = 4000, MOST_METRIC_BYTES = 256 << 20 };

static struct {
    const float *columns;
    uint32_t *sequence_id, n_tokens;
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

static void prepare(struct stepping *s)
{
    const uint32_t n = s->setting.batch.n_tokens;
    prepared.columns = s->setting.batch.columns;
    prepared.n_tokens = n;
    prepared.sequence_id = moesim_alloc(s->arena, n, sizeof *prepared.sequence_id);
    if (!prepared.sequence_id)
        bench_stop("memory is exhausted");
    for (uint32_t t = 0; t < n; t++)
        prepared.sequence_id[t] = t / SETTING_SEQUENCE;
}

/* As many steps as the values of all metrics have room for. */
static uint32_t n_steps(uint32_t n_layers)
{
    const uint32_t fit = (uint32_t)(MOST_METRIC_BYTES / sizeof(double) / MOESIM_N_METRICS / n_layers);
    return fit < STEPS ? fit : STEPS;
}

void stepping_open(struct stepping *s, const char *spec, struct setting_shape shape, uint32_t n_layers,
                   const char *extra)
{
    static struct moesim_mistakes mistakes;
    static const struct moesim_workload *const workloads[] = {&workload};
    struct moesim_error err = {"the study has no points"};
    const struct moesim_point *const *points;
    uint32_t n_points = 0;
    char text[4096];
    *s = (struct stepping){.arena = moesim_arena_create(0)};
    if (!s->arena)
        bench_stop("memory is exhausted");
    setting_open_spec(&s->setting, spec, shape);
    prepare(s);
    snprintf(text, sizeof text,
             "study: step\nsteps: %u\nseeds: [1]\nworkload: prepared\nmodel: {layers: %u, experts: %u, top_k: %u}\n%s",
             n_steps(n_layers), n_layers, shape.n_experts, shape.top_k, extra);
    s->entry = (struct moesim_router_entry){.spec = s->setting.router->name, .router = s->setting.router};
    const struct moesim_registry registry = {
        .routers = &s->entry, .n_routers = 1, .workloads = workloads, .n_workloads = 1};
    mistakes.n = 0;
    struct moesim_study *study = moesim_study_parse("step", text, strlen(text), s->arena, &mistakes);
    if (study)
        moesim_study_replace(study, "router", &spec, 1, &mistakes);
    if (!study || !moesim_study_resolve(study, &registry, &points, &n_points, &mistakes))
        bench_stop("%s: %s", spec, mistakes.n ? mistakes.item[0].text : err.text);
    if (moesim_experiment_create(points, n_points, 0, &s->experiment, &err))
        bench_stop("%s: %s", spec, err.text);
}

void stepping_route(void *stepping)
{
    struct stepping *s = stepping;
    setting_route(&s->setting);
}

void stepping_step(void *stepping)
{
    struct stepping *s = stepping;
    struct moesim_error err;
    if (moesim_experiment_step(s->experiment, &err))
        bench_stop("%s", err.text);
}

void stepping_close(struct stepping *s)
{
    moesim_experiment_destroy(s->experiment);
    setting_close(&s->setting);
    moesim_arena_destroy(s->arena);
}
