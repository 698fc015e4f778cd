#include "bench/pricing.h"

#include <moesim/random.h>

#include "bench/bench.h"
#include "sim/experiment/groups.h"

enum { EXPERTS = 256, TOP_K = 8, PER_NODE = 8 };

/* k distinct experts for each token, all alike. */
static void draw(struct pricing *p)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    uint64_t at = 0;
    for (uint32_t t = 0; t < p->batch.n_tokens; t++) {
        uint64_t taken[EXPERTS / 64] = {0};
        for (uint32_t n = 0; n < TOP_K;) {
            const uint32_t e = moesim_random_below(&random, at++, EXPERTS);
            if (taken[e / 64] >> e % 64 & 1)
                continue;
            taken[e / 64] |= UINT64_C(1) << e % 64;
            p->plan.expert[t * TOP_K + n++] = e;
        }
        p->plan.first[t + 1] = (t + 1) * TOP_K;
    }
}

static void fill_plan(struct pricing *p)
{
    const uint32_t n = p->batch.n_tokens;
    moesim_plan_reset(&p->plan, &p->batch);
    p->plan.n_pairs = (uint64_t)n * TOP_K;
    for (uint64_t i = 0; i < p->plan.n_pairs; i++)
        p->plan.fate[i] = MOESIM_KEPT;
    for (uint32_t e = 0; e < EXPERTS; e++)
        p->plan.capacity[e] = n / EXPERTS * TOP_K * 5 / 4;
    draw(p);
}

void pricing_open(struct pricing *p, uint32_t ep, uint32_t n_groups, uint32_t tokens_per_device,
                  enum moesim_dispatch form, double leaf)
{
    struct moesim_error err = {"memory is exhausted"};
    const uint32_t n = ep * tokens_per_device;
    *p = (struct pricing){.arena = moesim_arena_create(0),
                          .cluster = moesim_cluster_find("h100-dgx")->cluster,
                          .model = moesim_model_find("deepseek-v3")->model,
                          .options = {.dispatch = form},
                          .ep = ep,
                          .n_groups = n_groups,
                          .tokens_per_device = tokens_per_device,
                          .group_start = {0, n}};
    p->cluster.nodes = n_groups * ep / PER_NODE;
    p->cluster.ep = ep;
    p->cluster.leaf_nodes = 2;
    p->cluster.leaf_oversubscription = leaf;
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = EXPERTS, .n_groups = 1};
    p->device = p->arena ? moesim_alloc(p->arena, n, sizeof *p->device) : NULL;
    p->batch = (struct moesim_batch){.struct_size = sizeof p->batch,
                                     .n_tokens = n,
                                     .n_experts = EXPERTS,
                                     .n_columns = EXPERTS,
                                     .n_groups = 1,
                                     .group_start = p->group_start,
                                     .n_devices = moesim_cluster_devices(&p->cluster),
                                     .device = p->device};
    if (!p->device || moesim_placement_init(&p->placement, EXPERTS, ep, EXPERTS, p->arena, &err) ||
        moesim_placement_find("contiguous")->place(NULL, &stats, 1, &p->cluster, &p->placement, &err) ||
        moesim_plan_init(&p->plan, n, EXPERTS, 1, (uint64_t)n * TOP_K, 0, p->arena, &err) ||
        moesim_cost_work_init(&p->work, &p->cluster, &p->placement, MOESIM_WITHOUT_HOPS, p->arena, &err))
        bench_stop("pricing: %s", err.text);
    moesim_home_devices(p->device, n, ep);
    fill_plan(p);
}

void pricing_run(void *pricing)
{
    struct pricing *p = pricing;
    struct moesim_error err;
    moesim_cost_begin(&p->work);
    for (uint32_t g = 0; g < p->n_groups; g++) {
        for (uint32_t t = 0; t < p->batch.n_tokens && p->n_groups > 1; t++)
            p->device[t] = g * p->ep + t / p->tokens_per_device;
        if (moesim_cost_add(&p->plan, &p->batch, &p->placement, &p->cluster, &p->options, NULL, &p->work, &err))
            bench_stop("%s", err.text);
    }
    if (moesim_cost_end(&p->placement, &p->cluster, &p->model, &p->options, NULL, &p->work, &p->cost, &err))
        bench_stop("%s", err.text);
}

void pricing_close(struct pricing *p)
{
    moesim_arena_destroy(p->arena);
}
