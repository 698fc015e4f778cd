/*
 * What a step of an experiment costs beside its routing alone: plan check, counts, metrics, pricing and tally, with the
 * default metrics and with all of them recorded. The workload hands out one prepared batch, so that no tokens are made
 * in the step. Routing and step take turns on that batch.
 *
 * bench-step [WORD] narrows to the lines whose title has the word.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "bench/setting.h"
#include "routers/table.h"
#include "sim/experiment/experiment.h"
#include "sim/study/study.h"

enum { REPEATS = 31, WARM_UP = 3 };

/* The most a step may take, in multiples of its routing. */
#define MOST_DEFAULT 1.3
#define MOST_RECORDED 2.5

struct line {
    const char *title;
    uint32_t n_experts, k;
    const char *router; /* NULL = softmax-topk */
    const char *extra;  /* more of the study */
};

static const struct line lines[] = {
    {"E=8 k=2", 8, 2, NULL, ""},
    {"E=64 k=2", 64, 2, NULL, ""},
    {"E=64 k=8", 64, 8, NULL, ""},
    {"E=256 k=8", 256, 8, NULL, ""},
    {"E=64 k=2 switch loss", 64, 2, "softmax-topk:aux_form=switch", ""},
    {"E=64 k=2 capacity 1.25", 64, 2, "softmax-topk:capacity_factor=1.25", ""},
    {"E=256 k=8 deepseek-v3", 256, 8, "deepseek-v3", ""},
    {"E=256 k=8 top-p", 256, 8, "top-p:p=0.179", ""},
    {"E=64 k=2 cluster", 64, 2, NULL, "cluster: {name: h100-dgx, nodes: 4}\nplacement: contiguous\n"},
    {"E=64 k=8 cluster", 64, 8, NULL, "cluster: {name: h100-dgx, nodes: 4}\nplacement: contiguous\n"},
    {"E=256 k=8 cluster eplb", 256, 8, NULL,
     "cluster: {name: h100-dgx, nodes: 4}\nplacement: {name: eplb, redundant: 32, fit_steps: 2}\n"},
};

/* ---- the workload ---- */

static struct {
    const float *columns;
    uint32_t sequence_id[SETTING_TOKENS];
} prepared;

static enum moesim_status prepared_shape(const void *params, struct moesim_workload_shape *shape,
                                         struct moesim_error *err)
{
    (void)params, (void)err;
    shape->n_tokens = SETTING_TOKENS;
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

static const struct moesim_router *find_router(const char *spec)
{
    const size_t n = strcspn(spec, ":");
    for (size_t i = 0; routers_table[i]; i++)
        if (strlen(routers_table[i]->name) == n && strncmp(spec, routers_table[i]->name, n) == 0)
            return routers_table[i];
    return NULL;
}

static void write_study(const struct line *line, bool recorded, char *text, size_t size)
{
    size_t n = (size_t)snprintf(text, size,
                                "study: step\nsteps: %d\nseeds: [1]\nworkload: prepared\n"
                                "model: {layers: 1, experts: %u, top_k: %u}\n%s",
                                REPEATS + WARM_UP, line->n_experts, line->k, line->extra);
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

static enum moesim_status open_experiment(struct run *run, const struct line *line, bool recorded,
                                          struct moesim_error *err)
{
    static struct moesim_mistakes mistakes;
    static const struct moesim_workload *const workloads[] = {&workload};
    const char *spec = line->router ? line->router : "softmax-topk";
    run->entry = (struct moesim_router_entry){.spec = run->setting.router->name, .router = run->setting.router};
    const struct moesim_registry registry = {
        .routers = &run->entry, .n_routers = 1, .workloads = workloads, .n_workloads = 1};
    const struct moesim_point *const *points;
    uint32_t n_points = 0;
    char text[4096];
    write_study(line, recorded, text, sizeof text);
    mistakes.n = 0;
    run->arena = moesim_arena_create(0);
    struct moesim_study *study = moesim_study_parse("step", text, strlen(text), run->arena, &mistakes);
    if (study)
        moesim_study_replace(study, "router", &spec, 1, &mistakes);
    if (!study || !moesim_study_resolve(study, &registry, &points, &n_points, &mistakes))
        return moesim_fail(err, MOESIM_EINVAL, "%s", mistakes.n ? mistakes.item[0].text : "the study has no points");
    return moesim_experiment_create(points, n_points, 0, &run->experiment, err);
}

static enum moesim_status open_run(struct run *run, const struct line *line, bool recorded, struct moesim_error *err)
{
    const char *spec = line->router ? line->router : "softmax-topk";
    const char *params = spec[strcspn(spec, ":")] ? strchr(spec, ':') + 1 : "";
    const struct setting_shape shape = {.n_experts = line->n_experts, .top_k = line->k};
    *run = (struct run){0};
    enum moesim_status status = setting_open(&run->setting, find_router(spec), params, shape, err);
    prepared.columns = run->setting.batch.columns;
    return status ? status : open_experiment(run, line, recorded, err);
}

static void close_run(struct run *run)
{
    moesim_experiment_destroy(run->experiment);
    moesim_arena_destroy(run->arena);
    setting_close(&run->setting);
}

/* ---- timing ---- */

/* Of a single thread its own time, which other jobs of the machine do not stretch. */
static double seconds(void)
{
    struct timespec t;
    clock_gettime(omp_get_max_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *time)
{
    qsort(time, REPEATS, sizeof *time, by_size);
    return time[REPEATS / 2];
}

static enum moesim_status time_pair(struct run *run, double *route_s, double *step_s, struct moesim_error *err)
{
    const double start = seconds();
    enum moesim_status status = setting_route(&run->setting, err);
    const double middle = seconds();
    if (!status)
        status = moesim_experiment_step(run->experiment, err);
    *route_s = middle - start;
    *step_s = seconds() - middle;
    return status;
}

static enum moesim_status print_line(const struct line *line, bool recorded, struct moesim_error *err)
{
    struct run run;
    double route_s[REPEATS], step_s[REPEATS], ratio[REPEATS];
    enum moesim_status status = open_run(&run, line, recorded, err);
    for (int i = -WARM_UP; i < REPEATS && !status; i++) {
        const int at = i < 0 ? 0 : i;
        status = time_pair(&run, &route_s[at], &step_s[at], err);
        ratio[at] = step_s[at] / route_s[at];
    }
    close_run(&run);
    if (status)
        return status;
    const double most = recorded ? MOST_RECORDED : MOST_DEFAULT, middle = median(ratio);
    const double ns = 1e9 / SETTING_TOKENS;
    printf("%-24s %-9s route %7.1f ns/token  step %7.1f  ratio %5.2f (%.2f .. %.2f) of %.1f %s\n", line->title,
           recorded ? "recorded" : "default", median(route_s) * ns, median(step_s) * ns, middle, ratio[0],
           ratio[REPEATS - 1], most, middle <= most ? "ok" : "OVER");
    fflush(stdout);
    return MOESIM_OK;
}

int main(int argc, char **argv)
{
    struct moesim_error err;
    enum moesim_status status = MOESIM_OK;
    printf("steps of %u tokens, %d threads\n", SETTING_TOKENS, omp_get_max_threads());
    for (size_t i = 0; i < 2 * sizeof lines / sizeof *lines && !status; i++)
        if (argc < 2 || strstr(lines[i / 2].title, argv[1]))
            status = print_line(&lines[i / 2], i % 2, &err);
    if (status)
        fprintf(stderr, "bench step: %s\n", err.text);
    return status != MOESIM_OK;
}
