/*
 * Drawing gate columns, by synthetic workload, and Gaussian draws by themselves beside GSL's fastest: its ziggurat over
 * the taus generator, both on one thread.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <gsl/gsl_randist.h>
#include <gsl/gsl_rng.h>

#include <moesim/random.h>

#include "bench/parts/parts.h"
#include "workloads/table.h"

enum { TOKENS = 8192, EXPERTS = 64, K = 8, LAYERS = 4, DRAWS = 1 << 20 };
#define LEAST_OF_GSL 5

struct bed {
    const struct moesim_workload *workload;
    void *state;
    uint32_t step;
};

static void open_bed(struct bed *b, const struct moesim_workload *w, struct moesim_arena *arena)
{
    struct moesim_error err = {"memory is exhausted"};
    const struct moesim_workload_env env = {.struct_size = sizeof env,
                                            .seed = 1,
                                            .n_layers = LAYERS,
                                            .n_experts = EXPERTS,
                                            .n_columns = EXPERTS,
                                            .top_k = K,
                                            .n_tokens = TOKENS,
                                            .n_devices = 8,
                                            .arena = arena};
    void *params = moesim_alloc(arena, 1, w->params_size);
    *b = (struct bed){.workload = w, .state = moesim_alloc(arena, 1, w->state_size)};
    if (!params || !b->state || moesim_params_default(moesim_workload_schema(w), K, params, arena, &err) ||
        w->init(b->state, params, &env, &err))
        bench_stop("%s: %s", w->name, err.text);
}

/* The next step of all layers. */
static void draw(void *bed)
{
    struct bed *b = bed;
    struct moesim_error err;
    for (uint32_t l = 0; l < LAYERS; l++) {
        struct moesim_batch batch = {
            .struct_size = sizeof batch, .n_tokens = TOKENS, .n_experts = EXPERTS, .step = b->step, .layer = l};
        if (b->workload->step(b->state, b->step, l, &batch, &err))
            bench_stop("%s", err.text);
    }
    b->step++;
}

/* Workloads that read files are the trace part's. */
static bool is_synthetic(const char *name)
{
    return strcmp(name, "logits") && strcmp(name, "text") && strcmp(name, "trace") && strcmp(name, "loads");
}

static void measure(struct bench *bench, const struct moesim_workload *workload)
{
    struct bed b;
    struct moesim_arena *arena = moesim_arena_create(0);
    if (!arena)
        bench_stop("memory is exhausted");
    open_bed(&b, workload, arena);
    struct bench_figure figure = {
        .part = "workload", .ours = bench_ours(draw, &b), .work = 1e-6 * TOKENS * LAYERS, .unit = "Mtoken/s"};
    snprintf(figure.name, sizeof figure.name, "%s", workload->name);
    bench_measure(bench, &figure);
    moesim_arena_destroy(arena);
}

static void draw_ours(void *values)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    const int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    moesim_random_normals(&random, 0, DRAWS, values);
    omp_set_num_threads(threads);
}

struct ziggurat {
    gsl_rng *rng;
    float *value;
};

static void draw_gsl(void *ziggurat)
{
    struct ziggurat *z = ziggurat;
    for (uint32_t i = 0; i < DRAWS; i++)
        z->value[i] = (float)gsl_ran_gaussian_ziggurat(z->rng, 1.0);
}

static void measure_draws(struct bench *bench, const char *name)
{
    struct ziggurat z = {gsl_rng_alloc(gsl_rng_taus), malloc(DRAWS * sizeof(float))};
    if (!z.rng || !z.value)
        bench_stop("memory is exhausted");
    struct bench_figure figure = {
        .part = "workload", .ours = bench_ours(draw_ours, z.value), .work = 1e-6 * DRAWS, .unit = "M/s"};
    figure.ours.single = true;
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_add(&figure, "GSL taus", draw_gsl, &z, BENCH_FASTER, BENCH_AT_LEAST(LEAST_OF_GSL))->runner.single = true;
    bench_measure(bench, &figure);
    gsl_rng_free(z.rng);
    free(z.value);
}

void part_workload(struct bench *bench)
{
    if (bench_wants(bench, "workload", "normal draws, 1 thread"))
        measure_draws(bench, "normal draws, 1 thread");
    for (uint32_t i = 0; workloads_table[i]; i++)
        if (is_synthetic(workloads_table[i]->name) && bench_wants(bench, "workload", workloads_table[i]->name))
            measure(bench, workloads_table[i]);
}
