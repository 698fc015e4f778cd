/*
 * One placement of all layers of a DeepSeek-V3-sized model: 61 layers, 256 experts, 288 slots where a rule replicates,
 * on 4 nodes of 8 devices.
 */
#include <math.h>
#include <stdio.h>

#include <moesim/random.h>

#include "bench/parts/parts.h"
#include "sim/placement/placement.h"
#include "sim/study/study.h"

#define N_LAYERS 61
#define N_EXPERTS 256
#define NODES 4
#define DEVICES_PER_NODE 8

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

struct bed {
    const struct moesim_placement_rule *rule;
    void *params;
    struct moesim_cluster cluster;
    struct moesim_placement_stats stats;
    struct moesim_placement *placement;
};

static enum moesim_status open_bed(struct bed *b, const char *spec, struct moesim_arena *arena,
                                   struct moesim_error *err)
{
    char name[64];
    enum moesim_status status = moesim_spec_name(spec, name, err);
    b->cluster = (struct moesim_cluster){.name = "bench", .nodes = NODES, .devices_per_node = DEVICES_PER_NODE};
    b->rule = status ? NULL : moesim_placement_find(name);
    if (!b->rule)
        return status ? status : moesim_fail(err, MOESIM_EINVAL, "there is no placement %s", name);
    const struct moesim_schema schema = {b->rule->params, sizeof(struct moesim_param)};
    b->params = moesim_alloc(arena, 1, b->rule->params_size);
    status = b->params ? moesim_params_default(schema, 2, b->params, arena, err)
                       : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (!status)
        status = moesim_spec_params(spec, schema, b->params, arena, err);
    if (!status)
        status = make_stats(&b->stats, b->rule->wants | MOESIM_WANTS_LOAD, arena, err);
    if (!status)
        status = moesim_placements_create(b->rule, b->params, N_LAYERS, N_EXPERTS, &b->cluster, 0, arena, &b->placement,
                                          err);
    return status;
}

static void place(void *bed)
{
    struct bed *b = bed;
    struct moesim_error err;
    if (moesim_place(b->rule, b->params, &b->stats, 1, &b->cluster, b->placement, &err))
        bench_stop("%s", err.text);
}

void part_placement(struct bench *bench)
{
    static const char *const specs[] = {
        "contiguous",   "random",  "lpt:redundant=32", "eplb:redundant=32", "eplb:redundant=32,replica=static",
        "coactivation", "affinity"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        if (!bench_wants(bench, "placement", specs[i]))
            continue;
        struct bed b;
        struct moesim_error err = {"memory is exhausted"};
        struct moesim_arena *arena = moesim_arena_create(0);
        if (!arena || open_bed(&b, specs[i], arena, &err))
            bench_stop("%s: %s", specs[i], err.text);
        struct bench_figure figure = {
            .part = "placement", .ours = bench_ours(place, &b), .work = 1, .unit = "ms", .as_time = 1e3};
        figure.ours.single = true;
        snprintf(figure.name, sizeof figure.name, "%s", specs[i]);
        bench_measure(bench, &figure);
        moesim_arena_destroy(arena);
    }
}
