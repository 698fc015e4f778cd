/*
 * Builds the scenes of the cost tests.
 */
#include "tests/sim/cost/scene.h"

#include <criterion/criterion.h>
#include <string.h>

#include <moesim/random.h>

struct moesim_cluster scene_cluster(uint32_t nodes, uint32_t devices_per_node, uint32_t ep)
{
    return (struct moesim_cluster){
        .name = "scene",
        .nodes = nodes,
        .devices_per_node = devices_per_node,
        .ep = ep,
        .flop_per_s = 1e6,
        .memory_bytes_per_s = 1e5,
        .memory_bytes = 1e9,
        .nvlink_bytes_per_s = 1000,
        .nic_bytes_per_s = 50,
        .latency_intra_s = 0.25,
        .latency_inter_s = 0.5,
        .launch_s = 0.125,
        .tile_rows = 4,
    };
}

struct moesim_model scene_model(void)
{
    return (struct moesim_model){
        .name = "",
        .layers = 1,
        .d_model = 100,
        .d_ff = 10,
        .activation = MOESIM_SWIGLU,
        .weight_bytes = 2,
        .dispatch_bytes = 2,
        .combine_bytes = 4,
    };
}

static void fill_plan(struct scene *s, uint32_t k, const uint32_t *expert)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < s->batch.n_tokens; t++) {
        s->plan.first[t] = (uint32_t)n;
        for (uint32_t c = 0; c < k; c++) {
            if (expert[t * k + c] == MOESIM_NO_EXPERT)
                continue;
            s->plan.expert[n] = expert[t * k + c];
            s->plan.weight[n] = 0.5f;
            s->plan.slot[n] = 0;
            s->plan.fate[n++] = MOESIM_KEPT;
        }
    }
    s->plan.first[s->batch.n_tokens] = (uint32_t)n;
    s->plan.n_pairs = n;
    for (size_t i = 0; i < (size_t)s->plan.n_groups * s->plan.n_experts; i++)
        s->plan.capacity[i] = MOESIM_UNLIMITED;
}

void scene_init(struct scene *s, const struct moesim_cluster *cluster, uint32_t n_experts, uint32_t n_tokens,
                uint32_t k, const uint32_t *expert)
{
    struct moesim_error err;
    memset(s, 0, sizeof *s);
    s->arena = moesim_arena_create(0);
    s->cluster = *cluster;
    s->model = scene_model();
    const uint32_t devices = moesim_cluster_devices(cluster), ep = moesim_cluster_ep(cluster);
    s->device = moesim_alloc(s->arena, n_tokens, sizeof *s->device);
    s->group_start = moesim_alloc(s->arena, devices + 1, sizeof *s->group_start);
    for (uint32_t t = 0; t < n_tokens; t++) {
        s->device[t] = t * devices / n_tokens;
        for (uint32_t d = s->device[t] + 1; d <= devices; d++)
            s->group_start[d] = t + 1;
    }
    s->batch = (struct moesim_batch){.struct_size = sizeof s->batch,
                                     .n_tokens = n_tokens,
                                     .n_experts = n_experts,
                                     .n_columns = n_experts,
                                     .n_groups = devices,
                                     .group_start = s->group_start,
                                     .n_devices = devices,
                                     .device = s->device};
    cr_assert_eq(moesim_plan_init(&s->plan, n_tokens, n_experts, devices, (uint64_t)n_tokens * k, 0, s->arena, &err),
                 MOESIM_OK);
    moesim_plan_reset(&s->plan, &s->batch);
    fill_plan(s, k, expert);
    cr_assert_eq(moesim_placement_init(&s->placement, n_experts, ep, 2 * n_experts, s->arena, &err), MOESIM_OK);
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = n_experts};
    cr_assert_eq(moesim_placement_find("contiguous")->place(NULL, &stats, 1, cluster, &s->placement, &err), MOESIM_OK);
    cr_assert_eq(moesim_cost_work_init(&s->work, cluster, &s->placement, MOESIM_WITH_HOPS, s->arena, &err), MOESIM_OK);
}

void scene_finish(struct scene *s)
{
    moesim_arena_destroy(s->arena);
}

void scene_price(struct scene *s, enum moesim_padding padding, const uint8_t *expert_kind)
{
    struct moesim_error err = {""};
    s->options.padding = padding;
    cr_assert_eq(moesim_cost_layer(&s->plan, &s->batch, &s->placement, &s->cluster, &s->model, &s->options, expert_kind,
                                   &s->work, &s->cost, &err),
                 MOESIM_OK, "%s", err.text);
}

double *scene_traffic(struct scene *s, uint32_t n_ends)
{
    double *bytes = moesim_alloc(s->arena, (size_t)n_ends * n_ends, sizeof *bytes);
    struct moesim_traffic *row = moesim_alloc(s->arena, 2 * s->work.hops->n, sizeof *row);
    cr_assert(bytes && row);
    const double passes = s->options.backward ? 2 : 1;
    const double there = moesim_dispatch_bytes(&s->model, (enum moesim_dispatch)s->options.dispatch);
    const size_t n = moesim_hops_bytes(s->work.hops, passes * there, passes * moesim_combine_bytes(&s->model), row);
    for (size_t i = 0; i < n; i++) {
        cr_assert(row[i].source < n_ends && row[i].target < n_ends && row[i].bytes > 0);
        cr_assert(i == 0 || row[i - 1].source < row[i].source ||
                  (row[i - 1].source == row[i].source && row[i - 1].target < row[i].target));
        bytes[(size_t)row[i].source * n_ends + row[i].target] = row[i].bytes;
    }
    return bytes;
}

void scene_choices(uint32_t seed, uint32_t n_experts, uint32_t n_tokens, uint32_t k, uint32_t *expert)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    uint32_t order[256];
    for (uint32_t e = 0; e < n_experts; e++)
        order[e] = e;
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t c = 0; c < k; c++) {
            const uint32_t j = c + moesim_random_below(&random, (uint64_t)t * k + c, n_experts - c);
            const uint32_t e = order[j];
            order[j] = order[c];
            expert[t * k + c] = order[c] = e;
        }
}
