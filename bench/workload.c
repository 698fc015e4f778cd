/*
 * Drawing gate columns: million tokens times layers a second of each synthetic workload, alone and with the choice of
 * the k best, in turns, so that what else runs on the machine falls on all alike; medians, and what the processor time
 * comes to on cores that have nothing else to do (set OMP_WAIT_POLICY=passive, so that waiting does not count).
 *
 * bench-workload [NAME]...
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <moesim/kernels.h>

#include "workloads/table.h"

enum { TOKENS = 8192, EXPERTS = 64, K = 8, LAYERS = 4, N_REPEATS = 15 };

struct timed {
    const struct moesim_workload *workload;
    void *state;
    double draw[N_REPEATS], choose[N_REPEATS];         /* seconds of all layers */
    double draw_cpu[N_REPEATS], choose_cpu[N_REPEATS]; /* of all threads */
};

static void stop(const char *what)
{
    fprintf(stderr, "bench-workload: %s\n", what);
    exit(1);
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void open_workload(struct timed *timed, struct moesim_arena *arena)
{
    const struct moesim_workload *w = timed->workload;
    struct moesim_error err;
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
    timed->state = moesim_alloc(arena, 1, w->state_size);
    if (!params || !timed->state || moesim_params_default(moesim_workload_schema(w), K, params, arena, &err) ||
        w->init(timed->state, params, &env, &err))
        stop(w->name);
}

static void repeat(struct timed *timed, uint32_t i, uint32_t *expert)
{
    struct moesim_error err;
    timed->draw[i] = timed->choose[i] = timed->draw_cpu[i] = timed->choose_cpu[i] = 0;
    for (uint32_t l = 0; l < LAYERS; l++) {
        struct moesim_batch batch = {
            .struct_size = sizeof batch, .n_tokens = TOKENS, .n_experts = EXPERTS, .step = i, .layer = l};
        const double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        if (timed->workload->step(timed->state, i, l, &batch, &err))
            stop(err.text);
        timed->draw[i] += seconds(CLOCK_MONOTONIC) - start;
        timed->draw_cpu[i] += seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        moesim_topk(batch.columns, batch.stride, batch.n_tokens, EXPERTS, K, expert);
        timed->choose[i] += seconds(CLOCK_MONOTONIC) - start;
        timed->choose_cpu[i] += seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    }
}

static double median(double *times)
{
    qsort(times, N_REPEATS, sizeof *times, by_size);
    return times[N_REPEATS / 2];
}

static void print(struct timed *timed)
{
    const double million = 1e-6 * TOKENS * LAYERS, threads = omp_get_max_threads();
    printf("%-14s %8.2f %8.2f %15.2f %8.2f\n", timed->workload->name, million / median(timed->draw),
           threads * million / median(timed->draw_cpu), million / median(timed->choose),
           threads * million / median(timed->choose_cpu));
}

static bool is_asked_for(const char *name, int n, char **names)
{
    for (int i = 0; i < n; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return n == 0 && strcmp(name, "logits") && strcmp(name, "text") && strcmp(name, "trace") && strcmp(name, "loads");
}

int main(int argc, char **argv)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct timed timed[16];
    uint32_t n = 0;
    uint32_t *expert = malloc((size_t)TOKENS * K * sizeof *expert);
    if (!arena || !expert)
        stop("memory is exhausted");
    for (uint32_t i = 0; workloads_table[i] && n < sizeof timed / sizeof *timed; i++)
        if (is_asked_for(workloads_table[i]->name, argc - 1, argv + 1)) {
            timed[n].workload = workloads_table[i];
            open_workload(&timed[n++], arena);
        }
    for (uint32_t i = 0; i < N_REPEATS; i++)
        for (uint32_t w = 0; w < n; w++)
            repeat(&timed[w], i, expert);
    printf("%d threads, %u experts, %u a token, %u tokens a step; million tokens x layers a second\n",
           omp_get_max_threads(), EXPERTS, K, TOKENS);
    printf("%-14s %17s %24s\n%-14s %8s %8s %15s %8s\n", "", "columns", "columns and the k best", "workload", "median",
           "idle", "median", "idle");
    for (uint32_t w = 0; w < n; w++)
        print(&timed[w]);
    free(expert);
    moesim_arena_destroy(arena);
    return 0;
}
