/*
 * Seconds of one placement of all layers of a DeepSeek-V3-sized model: 61 layers, 256 experts, 288 slots where a rule
 * replicates, on 4 nodes of 8 devices.
 *
 * bench-placement [SPEC]... times these instead of the default list.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <moesim/random.h>

#include "sim/placement/placement.h"
#include "sim/study/study.h"

#define N_LAYERS 61
#define N_EXPERTS 256
#define N_REPEATS 21
#define NODES 4
#define DEVICES_PER_NODE 8

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Lognormal popularity; co-activations and transitions as of independent choices. */
static enum moesim_status make_stats(struct moesim_placement_stats *stats, uint32_t wants, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    const enum moesim_status status = moesim_placement_stats_init(stats, wants, N_LAYERS, N_EXPERTS, arena, err);
    if (status != MOESIM_OK)
        return status;
    stats->n_groups = 8;
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    for (uint64_t i = 0; i < (uint64_t)N_LAYERS * N_EXPERTS; i++)
        stats->load[i] = floor(1000 * exp(0.7 * (double)moesim_random_normal(&random, i)));
    for (uint64_t l = 0; l < N_LAYERS; l++)
        for (uint64_t i = 0; i < N_EXPERTS; i++)
            for (uint64_t j = 0; j < N_EXPERTS; j++) {
                const double *load = stats->load + l * N_EXPERTS;
                const uint64_t at = (l * N_EXPERTS + i) * N_EXPERTS + j;
                if (stats->together)
                    stats->together[at] = floor(load[i] * load[j] / 1e4);
                if (stats->next && l + 1 < N_LAYERS)
                    stats->next[at] = floor(load[i] * load[N_EXPERTS + j] / 1e4);
            }
    return MOESIM_OK;
}

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum moesim_status time_rule(const char *spec, struct moesim_arena *arena, struct moesim_error *err)
{
    char name[64];
    enum moesim_status status = moesim_spec_name(spec, name, err);
    const struct moesim_placement_rule *rule = status ? NULL : moesim_placement_find(name);
    if (!rule)
        return status ? status : moesim_fail(err, MOESIM_EINVAL, "there is no placement %s", name);
    const struct moesim_cluster cluster = {.name = "bench", .nodes = NODES, .devices_per_node = DEVICES_PER_NODE};
    const struct moesim_schema schema = {rule->params, sizeof(struct moesim_param)};
    void *params = moesim_alloc(arena, 1, rule->params_size);
    struct moesim_placement *placement;
    struct moesim_placement_stats stats;
    double seconds[N_REPEATS];
    if (!status)
        status = moesim_params_default(schema, 2, params, arena, err);
    if (!status)
        status = moesim_spec_params(spec, schema, params, arena, err);
    if (!status)
        status = make_stats(&stats, rule->wants | MOESIM_WANTS_LOAD, arena, err);
    if (!status)
        status = moesim_placements_create(rule, params, N_LAYERS, N_EXPERTS, &cluster, 0, arena, &placement, err);
    for (uint32_t i = 0; i < N_REPEATS && !status; i++) {
        const double start = now_s();
        status = moesim_place(rule, params, &stats, 1, &cluster, placement, err);
        seconds[i] = now_s() - start;
    }
    if (status)
        return status;
    qsort(seconds, N_REPEATS, sizeof *seconds, rising);
    printf("%-32s %10.2f ms\n", spec, 1e3 * seconds[N_REPEATS / 2]);
    return MOESIM_OK;
}

int main(int argc, char **argv)
{
    static char *const all[] = {
        "contiguous",   "random",  "lpt:redundant=32", "eplb:redundant=32", "eplb:redundant=32,replica=static",
        "coactivation", "affinity"};
    char *const *specs = argc > 1 ? argv + 1 : all;
    const int n = argc > 1 ? argc - 1 : (int)(sizeof all / sizeof *all);
    printf("%u layers, %u experts, %u devices: median of %u\n", N_LAYERS, N_EXPERTS, NODES * DEVICES_PER_NODE,
           N_REPEATS);
    for (int i = 0; i < n; i++) {
        struct moesim_error err;
        struct moesim_arena *arena = moesim_arena_create(0);
        const enum moesim_status status = arena ? time_rule(specs[i], arena, &err) : MOESIM_ENOMEM;
        moesim_arena_destroy(arena);
        if (status) {
            fprintf(stderr, "%s: %s\n", specs[i], arena ? err.text : "memory is exhausted");
            return 1;
        }
    }
    return 0;
}
