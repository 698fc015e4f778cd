/*
 * Benchmarks: who draws which experts, and the way through the cost model.
 */
#include "sim/fidelity/bench.h"

#include <assert.h>

#include <moesim/random.h>

#include "sim/cost/compute.h"
#include "sim/cost/exchange.h"

enum { SEED = 1, MOST_EXPERTS = 1024, NUMBERS_A_TOKEN = 4096, AT_ONCE = 16, DRAWN_TOKENS = 32768 };

/* ---- routing ---- */

static bool is_in(const uint32_t *list, uint32_t n, uint32_t what)
{
    for (uint32_t i = 0; i < n; i++)
        if (list[i] == what)
            return true;
    return false;
}

/* Draws experts in a random order, which is that of independent scores: a node's best score is where it comes first, so
 * that the first kept_nodes nodes are those with the best, and the first K experts on them the best there. */
static void draw_experts(const struct moesim_bench_setup *s, const struct moesim_random *random, uint32_t t,
                         uint32_t *expert)
{
    const uint32_t limit = s->kept_nodes ? s->kept_nodes : s->nodes, size = s->model.experts / s->nodes;
    uint32_t node[MOST_EXPERTS], seen[MOST_EXPERTS], n_nodes = 0, n_seen = 0, n = 0;
    float number[AT_ONCE];
    for (uint32_t i = 0; n < s->model.top_k; i++) {
        if (i % AT_ONCE == 0)
            moesim_random_uniforms(random, (uint64_t)t * NUMBERS_A_TOKEN + i, AT_ONCE, number);
        const uint32_t e = (uint32_t)(number[i % AT_ONCE] * (float)s->model.experts);
        if (is_in(seen, n_seen, e))
            continue;
        seen[n_seen++] = e;
        if (!is_in(node, n_nodes, e / size)) {
            if (n_nodes == limit)
                continue;
            node[n_nodes++] = e / size;
        }
        expert[n++] = e;
    }
}

static void choose_balanced(const struct moesim_bench_setup *s, uint32_t t, uint32_t *expert)
{
    const uint64_t e = s->model.experts, k = s->model.top_k, stride = (e + k - 1) / k;
    const uint64_t shift = s->tokens >= stride ? t : (uint64_t)t * stride / s->tokens;
    for (uint64_t c = 0; c < k; c++)
        expert[c] = (uint32_t)((shift + c * stride) % e);
}

static void choose_hot(const struct moesim_bench_setup *s, uint32_t t, uint32_t *expert)
{
    expert[0] = 0;
    for (uint32_t c = 1; c < s->model.top_k; c++)
        expert[c] = 1 + (t + c - 1) % (s->model.experts - 1);
}

void moesim_bench_route(const struct moesim_bench_setup *s, uint32_t draw, uint32_t *expert)
{
    const struct moesim_random random = {.seed = SEED, .stream = MOESIM_STREAM_FIDELITY, .step = draw};
    const size_t k = s->model.top_k;
    assert(s->model.experts <= MOST_EXPERTS && k <= s->model.experts);
    for (uint32_t t = 0; t < s->tokens; t++)
        switch (s->routing) {
        case MOESIM_BENCH_RANDOM:
            draw_experts(s, &random, t, expert + t * k);
            break;
        case MOESIM_BENCH_BALANCED:
            choose_balanced(s, t, expert + t * k);
            break;
        case MOESIM_BENCH_HOT:
            choose_hot(s, t, expert + t * k);
            break;
        case MOESIM_BENCH_ALL_PAIRS:
            expert[t] = t % s->model.experts;
            break;
        }
}

/* ---- counting and pricing ---- */

static struct moesim_cluster shaped(const struct moesim_bench_setup *s, const struct moesim_cluster *rates)
{
    struct moesim_cluster cluster = *rates;
    cluster.nodes = s->nodes;
    cluster.devices_per_node = s->devices_per_node;
    cluster.ep = cluster.dp = cluster.leaf_nodes = 0;
    cluster.tp = 1;
    return cluster;
}

static enum moesim_status no_memory(const struct moesim_bench_setup *s, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory for a benchmark of %u tokens", s->tokens);
}

/* The batch and the plan of what was routed, one group a device, everything kept. */
static enum moesim_status fill(const struct moesim_bench_setup *s, uint32_t draw, uint32_t n_devices,
                               struct moesim_arena *arena, struct moesim_batch *batch, struct moesim_plan *plan,
                               struct moesim_error *err)
{
    const uint32_t k = s->model.top_k, experts = s->model.experts;
    uint32_t *device = moesim_alloc(arena, s->tokens, sizeof *device);
    uint32_t *group_start = moesim_alloc(arena, (size_t)n_devices + 1, sizeof *group_start);
    if (!device || !group_start)
        return no_memory(s, err);
    for (uint32_t t = 0; t < s->tokens; t++) {
        device[t] = (uint32_t)((uint64_t)t * n_devices / s->tokens);
        for (uint32_t d = device[t] + 1; d <= n_devices; d++)
            group_start[d] = t + 1;
    }
    *batch = (struct moesim_batch){.struct_size = sizeof *batch,
                                   .n_tokens = s->tokens,
                                   .n_experts = experts,
                                   .n_columns = experts,
                                   .n_groups = n_devices,
                                   .group_start = group_start,
                                   .n_devices = n_devices,
                                   .device = device};
    const enum moesim_status status =
        moesim_plan_init(plan, s->tokens, experts, n_devices, (uint64_t)s->tokens * k, 0, arena, err);
    if (status != MOESIM_OK)
        return status;
    moesim_plan_reset(plan, batch);
    moesim_bench_route(s, draw, plan->expert);
    for (uint32_t t = 0; t <= s->tokens; t++)
        plan->first[t] = t * k;
    plan->n_pairs = (uint64_t)s->tokens * k;
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        plan->fate[i] = MOESIM_KEPT;
    for (size_t i = 0; i < (size_t)n_devices * experts; i++)
        plan->capacity[i] = MOESIM_UNLIMITED;
    return MOESIM_OK;
}

static enum moesim_status place(struct moesim_bench *bench, const struct moesim_cluster *cluster,
                                struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_placement_rule *rule = moesim_placement_find("contiguous");
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = bench->setup.model.experts};
    const enum moesim_status status =
        moesim_placements_create(rule, NULL, 1, stats.n_experts, cluster, 0, arena, &bench->placement, err);
    return status ? status : moesim_place(rule, NULL, &stats, SEED, cluster, bench->placement, err);
}

/* One draw, routed, counted and priced. */
static enum moesim_status count_draw(struct moesim_bench *bench, uint32_t draw, const struct moesim_cluster *cluster,
                                     struct moesim_arena *arena, struct moesim_cost *cost, struct moesim_error *err)
{
    const struct moesim_bench_setup *s = &bench->setup;
    const struct moesim_cost_options options = {.dispatch = s->dispatch};
    struct moesim_arena *once = moesim_arena_create(0);
    struct moesim_batch batch;
    struct moesim_plan plan;
    enum moesim_status status =
        once ? fill(s, draw, moesim_cluster_devices(cluster), once, &batch, &plan, err) : no_memory(s, err);
    if (status == MOESIM_OK)
        status = moesim_cost_work_init(&bench->work[draw], cluster, bench->placement, MOESIM_WITHOUT_HOPS, arena, err);
    if (status == MOESIM_OK)
        status = moesim_cost_layer(&plan, &batch, bench->placement, cluster, &s->model, &options, NULL,
                                   &bench->work[draw], cost, err);
    moesim_arena_destroy(once);
    return status;
}

static void add_share(const struct moesim_cost *cost, double share, struct moesim_cost *mean)
{
    mean->time_dispatch_s += share * cost->time_dispatch_s;
    mean->time_combine_s += share * cost->time_combine_s;
    mean->time_compute_s += share * cost->time_compute_s;
    mean->device_fanout += share * cost->device_fanout;
    mean->node_fanout += share * cost->node_fanout;
    mean->device_imbalance += share * cost->device_imbalance;
    mean->flop_expert += share * cost->flop_expert;
}

enum moesim_status moesim_bench_init(struct moesim_bench *bench, const struct moesim_bench_setup *setup,
                                     const struct moesim_cluster *rates, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    const struct moesim_cluster cluster = shaped(setup, rates);
    const uint32_t most = setup->routing == MOESIM_BENCH_RANDOM ? DRAWN_TOKENS / setup->tokens : 1;
    *bench = (struct moesim_bench){.setup = *setup,
                                   .n_draws = most < 1                    ? 1
                                              : most > MOESIM_BENCH_DRAWS ? MOESIM_BENCH_DRAWS
                                                                          : most};
    enum moesim_status status = place(bench, &cluster, arena, err);
    for (uint32_t draw = 0; draw < bench->n_draws && status == MOESIM_OK; draw++) {
        struct moesim_cost cost;
        status = count_draw(bench, draw, &cluster, arena, &cost, err);
        add_share(&cost, 1.0 / bench->n_draws, &bench->cost);
    }
    return status;
}

enum moesim_status moesim_bench_price(struct moesim_bench *bench, const struct moesim_cluster *rates,
                                      struct moesim_bench_times *times, struct moesim_error *err)
{
    const struct moesim_cluster cluster = shaped(&bench->setup, rates);
    const struct moesim_model *model = &bench->setup.model;
    *times = (struct moesim_bench_times){0};
    for (uint32_t draw = 0; draw < bench->n_draws; draw++) {
        struct moesim_cost_work *work = &bench->work[draw];
        const enum moesim_status status = moesim_exchange_set(&cluster, bench->setup.dispatch, work, err);
        if (status != MOESIM_OK)
            return status;
        times->dispatch_s +=
            moesim_exchange_time(&work->exchange, moesim_dispatch_bytes(model, bench->setup.dispatch)) / bench->n_draws;
        times->combine_s += moesim_exchange_time(&work->exchange, moesim_combine_bytes(model)) / bench->n_draws;
        times->experts_s += moesim_compute_time(&cluster, model, MOESIM_FORWARD, 1, work) / bench->n_draws;
    }
    return MOESIM_OK;
}
