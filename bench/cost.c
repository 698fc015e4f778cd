/*
 * Seconds to price one layer of a DeepSeek-V3-sized model once it is routed (256 experts, 8 a token, EP 64 on nodes of
 * 8), by form of dispatch, and how they grow with decisions and with devices.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include <moesim/random.h>

#include "sim/cost/cost.h"
#include "sim/experiment/groups.h"

enum { EXPERTS = 256, TOP_K = 8, EP = 64, PER_NODE = 8, REPEATS = 15 };

static double clock_s(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now_s(void)
{
    return clock_s(CLOCK_MONOTONIC);
}

static double cpu_s(void)
{
    return clock_s(CLOCK_PROCESS_CPUTIME_ID);
}

/* One cluster with a layer's decisions for `batch_devices` of its devices at a time. */
struct layer {
    struct moesim_arena *arena;
    struct moesim_cluster cluster;
    struct moesim_model model;
    struct moesim_placement placement;
    struct moesim_plan plan;
    struct moesim_batch batch;
    struct moesim_cost_work work;
    uint32_t *device, group_start[2];
};

/* k distinct experts for each token, all alike. */
static void draw(struct layer *l, uint32_t seed)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    uint64_t at = 0;
    for (uint32_t t = 0; t < l->batch.n_tokens; t++) {
        uint64_t taken[EXPERTS / 64] = {0};
        for (uint32_t n = 0; n < TOP_K;) {
            const uint32_t e = moesim_random_below(&random, at++, EXPERTS);
            if (taken[e / 64] >> e % 64 & 1)
                continue;
            taken[e / 64] |= UINT64_C(1) << e % 64;
            l->plan.expert[t * TOP_K + n++] = e;
        }
        l->plan.first[t + 1] = (t + 1) * TOP_K;
    }
}

static void give_up(const struct moesim_error *err)
{
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void open_layer(struct layer *l, uint32_t nodes, uint32_t batch_devices, uint32_t tokens, double leaf)
{
    struct moesim_error err = {"memory is exhausted"};
    const uint32_t n = batch_devices * tokens;
    *l = (struct layer){.arena = moesim_arena_create(0), .cluster = moesim_cluster_find("h100-dgx")->cluster};
    l->model = moesim_model_find("deepseek-v3")->model;
    l->cluster.nodes = nodes;
    l->cluster.ep = EP;
    l->cluster.leaf_nodes = 2;
    l->cluster.leaf_oversubscription = leaf;
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = EXPERTS, .n_groups = 1};
    l->group_start[1] = n;
    l->device = moesim_alloc(l->arena, n, sizeof *l->device);
    l->batch = (struct moesim_batch){.struct_size = sizeof l->batch,
                                     .n_tokens = n,
                                     .n_experts = EXPERTS,
                                     .n_columns = EXPERTS,
                                     .n_groups = 1,
                                     .group_start = l->group_start,
                                     .n_devices = moesim_cluster_devices(&l->cluster),
                                     .device = l->device};
    if (!l->device || moesim_placement_init(&l->placement, EXPERTS, EP, EXPERTS, l->arena, &err) ||
        moesim_placement_find("contiguous")->place(NULL, &stats, 1, &l->cluster, &l->placement, &err) ||
        moesim_plan_init(&l->plan, n, EXPERTS, 1, (uint64_t)n * TOP_K, 0, l->arena, &err) ||
        moesim_cost_work_init(&l->work, &l->cluster, &l->placement, MOESIM_WITHOUT_HOPS, l->arena, &err))
        give_up(&err);
    moesim_plan_reset(&l->plan, &l->batch);
    l->plan.n_pairs = (uint64_t)n * TOP_K;
    for (uint64_t i = 0; i < l->plan.n_pairs; i++)
        l->plan.fate[i] = MOESIM_KEPT;
    for (uint32_t e = 0; e < EXPERTS; e++)
        l->plan.capacity[e] = n / EXPERTS * TOP_K * 5 / 4;
    moesim_home_devices(l->device, n, batch_devices);
    draw(l, 1);
}

/* Best times of several: on the clock, and of the process on all cores, which what else runs does not lengthen. */
struct times {
    double wall_s, cpu_s;
};

static struct times price(struct layer *l, enum moesim_dispatch form, struct moesim_cost *cost)
{
    const struct moesim_cost_options options = {.dispatch = form};
    struct moesim_error err;
    struct times best = {INFINITY, INFINITY};
    for (uint32_t i = 0; i < REPEATS; i++) {
        const double start = now_s(), cpu = cpu_s();
        if (moesim_cost_layer(&l->plan, &l->batch, &l->placement, &l->cluster, &l->model, &options, NULL, &l->work,
                              cost, &err))
            give_up(&err);
        best.wall_s = fmin(best.wall_s, now_s() - start);
        best.cpu_s = fmin(best.cpu_s, cpu_s() - cpu);
    }
    return best;
}

static void by_form(int threads, double leaf)
{
    static const char *const name[] = {"flat", "normal", "low-latency", "all-gather", "padded"};
    struct layer l;
    omp_set_num_threads(threads);
    open_layer(&l, EP / PER_NODE, EP, 4096, leaf);
    for (uint32_t form = MOESIM_DISPATCH_FLAT; form <= MOESIM_DISPATCH_PADDED; form++) {
        struct moesim_cost cost;
        const struct times t = price(&l, (enum moesim_dispatch)form, &cost);
        printf("%7d  %-12s %-11s %9.2f %9.2f %20.3f\n", threads, name[form], leaf > 1 ? "3:1" : "1:1", 1e3 * t.wall_s,
               1e3 * t.cpu_s, 1e3 * cost.time_dispatch_s);
    }
    moesim_arena_destroy(l.arena);
}

static void by_tokens(void)
{
    puts("\ntokens/device   decisions      ms   CPU ns a decision");
    for (uint32_t tokens = 64; tokens <= 16384; tokens *= 4) {
        struct layer l;
        struct moesim_cost cost;
        open_layer(&l, EP / PER_NODE, EP, tokens, 1);
        const struct times t = price(&l, MOESIM_DISPATCH_NORMAL, &cost);
        const double n = (double)l.plan.n_pairs;
        printf("%13u %11.0f %7.2f %19.1f\n", tokens, n, 1e3 * t.wall_s, 1e9 * t.cpu_s / n);
        moesim_arena_destroy(l.arena);
    }
}

/* 16 tokens a device, one EP group after the other. */
static void by_devices(void)
{
    const struct moesim_cost_options options = {.dispatch = MOESIM_DISPATCH_NORMAL};
    puts("\n  devices   decisions    used pairs   CPU s   ns a decision   peak MB   all s");
    for (uint32_t groups = 1; groups <= 1563; groups = groups < 1024 ? groups * 4 : 1563 + (groups == 1563)) {
        struct layer l;
        struct moesim_cost cost;
        struct moesim_error err;
        struct rusage usage;
        double seconds = 0;
        const double begin = now_s();
        open_layer(&l, groups * EP / PER_NODE, EP, 16, 1);
        moesim_cost_begin(&l.work);
        for (uint32_t g = 0; g < groups; g++) {
            draw(&l, 1 + g);
            for (uint32_t t = 0; t < l.batch.n_tokens; t++)
                l.device[t] = g * EP + t / 16;
            const double start = cpu_s();
            if (moesim_cost_add(&l.plan, &l.batch, &l.placement, &l.cluster, &options, NULL, &l.work, &err))
                give_up(&err);
            seconds += cpu_s() - start;
        }
        const double start = cpu_s();
        if (moesim_cost_end(&l.placement, &l.cluster, &l.model, &options, NULL, &l.work, &cost, &err))
            give_up(&err);
        seconds += cpu_s() - start;
        getrusage(RUSAGE_SELF, &usage);
        const double n = (double)groups * (double)l.plan.n_pairs;
        printf("%9u %11.0f %13.0f %7.4f %15.1f %9.0f %7.2f\n", groups * EP, n, (double)l.work.n_hops, seconds,
               1e9 * seconds / n, (double)usage.ru_maxrss / 1024, now_s() - begin);
        moesim_arena_destroy(l.arena);
    }
}

int main(void)
{
    printf("4096 tokens on each of 64 devices, 2.1 M decisions: best of %d\n", REPEATS);
    puts("threads  dispatch     uplinks        ms    CPU ms  dispatch, modelled ms");
    by_form(1, 1);
    by_form(2, 1);
    by_form(2, 3);
    by_tokens();
    by_devices();
    return 0;
}
