/*
 * The cost of one layer, put together: gate, dispatch, experts, combine.
 */
#include "sim/cost/cost.h"

#include <assert.h>
#include <math.h>
#include <omp.h>
#include <stddef.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/cost/compute.h"
#include "sim/cost/exchange.h"
#include "sim/cost/overlap.h"
#include "sim/cost/sync.h"
#include "sim/cost/traffic.h"

enum { MOST_PARTS = 16 };

/* Threads that count: each needs counters of its own. */
static uint32_t part_count(void)
{
    const int threads = omp_get_max_threads();
    return threads < 1 ? 1 : threads > MOST_PARTS ? MOST_PARTS : (uint32_t)threads;
}

enum moesim_status moesim_cost_work_init(struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                                         const struct moesim_placement *placement, enum moesim_count_hops hops,
                                         struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t devices = moesim_cluster_devices(cluster), ep = moesim_cluster_ep(cluster);
    const bool shared = moesim_cluster_oversubscribed(cluster);
    assert(placement->n_devices == ep);
    *work = (struct moesim_cost_work){
        .n_devices = devices,
        .n_nodes = cluster->nodes,
        .n_leaves = moesim_cluster_leaves(cluster),
        .n_ep_groups = devices / ep,
        .n_experts = placement->n_experts,
        .n_replicas = placement->max_replicas,
        .by_node = devices > MOESIM_MAX_TRAFFIC_DEVICES && !shared,
        .port = moesim_alloc(arena, devices, sizeof *work->port),
        .leaf = moesim_alloc(arena, moesim_cluster_leaves(cluster), sizeof *work->leaf),
        .tokens = moesim_alloc(arena, devices, sizeof *work->tokens),
        .received = moesim_alloc(arena, devices, sizeof *work->received),
        .pairs = moesim_alloc(arena, devices, sizeof *work->pairs),
        .node_pairs = moesim_alloc(arena, cluster->nodes, sizeof *work->node_pairs),
        .rows = moesim_alloc(arena, (size_t)(devices / ep) * placement->max_replicas, sizeof *work->rows),
        .slots = moesim_alloc(arena, (size_t)(devices / ep) * placement->max_replicas, sizeof *work->slots),
        .experts = moesim_alloc(arena, devices, sizeof *work->experts),
        .group_tokens = moesim_alloc(arena, devices / ep, sizeof *work->group_tokens),
        .arrived = moesim_alloc(arena, devices, sizeof *work->arrived),
        .sync = moesim_alloc(arena, devices, sizeof *work->sync),
        .node_copies = moesim_alloc(arena, cluster->nodes, sizeof *work->node_copies),
    };
    bool memory = work->port && work->leaf && work->tokens && work->received && work->pairs && work->node_pairs &&
                  work->rows && work->slots && work->experts && work->group_tokens && work->arrived && work->sync &&
                  work->node_copies;
    if (memory && (hops == MOESIM_WITH_HOPS || shared)) {
        memory = (work->hops = moesim_alloc(arena, 1, sizeof *work->hops)) != NULL;
        if (memory)
            moesim_hops_init(work->hops, arena);
    }
    if (!memory)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to price cluster %s of %u devices", cluster->name, devices);
    return moesim_traffic_init(work, cluster, part_count(), arena, err);
}

/* max / mean; NaN without any. */
static double imbalance(const uint64_t *count, uint32_t n)
{
    uint64_t sum = 0, max = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += count[i];
        max = count[i] > max ? count[i] : max;
    }
    return sum ? (double)max * n / (double)sum : (double)NAN;
}

static void set_balance(const struct moesim_cost_work *work, struct moesim_cost *cost)
{
    const struct moesim_fanout *fanout = &work->fanout;
    cost->device_imbalance = imbalance(work->pairs, work->n_devices);
    cost->node_imbalance = imbalance(work->node_pairs, work->n_nodes);
    cost->balancedness = 1 / cost->device_imbalance;
    cost->device_fanout = fanout->tokens ? (double)fanout->devices / (double)fanout->tokens : (double)NAN;
    cost->node_fanout = fanout->tokens ? (double)fanout->nodes / (double)fanout->tokens : (double)NAN;
}

/* Products of gate and experts per forward product. */
static double products(const struct moesim_cost_options *options)
{
    return options->backward ? 1 + MOESIM_BACKWARD_PRODUCTS : 1;
}

static void set_bytes(const struct moesim_cost_work *work, const struct moesim_model *model,
                      const struct moesim_cost_options *options, struct moesim_cost *cost)
{
    const double dispatch =
        moesim_exchanges(options) * moesim_dispatch_bytes(model, (enum moesim_dispatch)options->dispatch);
    const double combine = moesim_exchanges(options) * moesim_combine_bytes(model);
    uint64_t intra = 0, inter = 0;
    for (uint32_t d = 0; d < work->n_devices; d++) {
        intra += work->port[d].nvlink_out;
        inter += work->port[d].nic_out;
    }
    cost->bytes_dispatch = (double)(intra + inter) * dispatch;
    cost->bytes_combine = (double)(intra + inter) * combine;
    cost->bytes_intra_node = (double)intra * (dispatch + combine);
    cost->bytes_inter_node = (double)inter * (dispatch + combine);
}

static void set_flop(uint64_t n_tokens, uint32_t n_columns, const struct moesim_model *model,
                     const struct moesim_cost_options *options, double kept, double computed, struct moesim_cost *cost)
{
    const double per_pair = products(options) * moesim_model_flop_per_pair(model);
    cost->flop_expert = kept * per_pair;
    cost->flop_padded = computed * per_pair;
    cost->flop_router = products(options) * 2.0 * (double)n_tokens * model->d_model * n_columns;
    cost->padding_fraction = computed > 0 ? (computed - kept) / computed : (double)NAN;
}

static double gate_time(const struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                        const struct moesim_model *model)
{
    uint64_t most = 0;
    for (uint32_t d = 0; d < work->n_devices; d++)
        most = work->tokens[d] > most ? work->tokens[d] : most;
    return 2.0 * (double)most * model->d_model * work->n_columns / cluster->flop_per_s;
}

/* Times of one pass: each phase of its chunks together, and what they take overlapped. */
static double pass_time(const struct moesim_cluster *cluster, const struct moesim_model *model,
                        const struct moesim_cost_options *options, enum moesim_pass pass,
                        const struct moesim_cost_work *work, struct moesim_cost *cost)
{
    const uint32_t r = options->chunks ? options->chunks : 1;
    const double dispatch_bytes = moesim_dispatch_bytes(model, (enum moesim_dispatch)options->dispatch);
    const double dispatch_s = moesim_exchange_time(&work->exchange, dispatch_bytes / r);
    const double combine_s = moesim_exchange_time(&work->exchange, moesim_combine_bytes(model) / r);
    const double compute_s = moesim_compute_time(cluster, model, pass, r, work);
    cost->time_dispatch_s += r * dispatch_s;
    cost->time_combine_s += r * combine_s;
    cost->time_compute_s += r * compute_s;
    return moesim_overlap_time(r, dispatch_s, compute_s, combine_s);
}

void moesim_cost_begin(struct moesim_cost_work *work)
{
    moesim_traffic_begin(work);
    memset(work->slots, 0, (size_t)work->n_ep_groups * work->n_replicas * sizeof *work->slots);
    work->n_slots = work->n_tokens = 0;
}

enum moesim_status moesim_cost_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                                   const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                   const struct moesim_cost_options *options, const uint8_t *expert_kind,
                                   struct moesim_cost_work *work, struct moesim_error *err)
{
    assert(batch->n_devices == work->n_devices && placement->n_experts <= plan->n_experts);
    if (plan->n_slots)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "a soft router mixes all tokens into its slots, which has no modelled cost; leave out the cluster");
    moesim_traffic_add(plan, batch, placement, cluster, (enum moesim_dispatch)options->dispatch, expert_kind, work);
    if (options->padding == MOESIM_PADDING_CAPACITY)
        moesim_slots_add(plan, batch, placement, cluster, expert_kind, work);
    work->n_tokens += batch->n_tokens;
    work->n_columns = batch->n_columns;
    return MOESIM_OK;
}

enum moesim_status moesim_cost_end(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                   const struct moesim_model *model, const struct moesim_cost_options *options,
                                   const uint8_t *expert_kind, struct moesim_cost_work *work, struct moesim_cost *cost,
                                   struct moesim_error *err)
{
    const enum moesim_padding padding = (enum moesim_padding)options->padding;
    *cost = (struct moesim_cost){0};
    moesim_traffic_end(placement, cluster, (enum moesim_dispatch)options->dispatch, work);
    const enum moesim_status status = moesim_exchange_set(cluster, (enum moesim_dispatch)options->dispatch, work, err);
    if (status != MOESIM_OK)
        return status;
    set_balance(work, cost);
    set_bytes(work, model, options, cost);

    uint64_t kept = 0;
    double computed = 0;
    moesim_rows_pad(cluster, padding, work);
    moesim_rows_sum(placement, cluster, options->chunks, work);
    for (uint32_t d = 0; d < work->n_devices; d++) {
        kept += work->pairs[d];
        computed += work->experts[d].rows;
    }
    if (padding == MOESIM_PADDING_CAPACITY) /* exact where groups share slots over devices */
        computed = (double)work->n_slots;
    set_flop(work->n_tokens, work->n_columns, model, options, (double)kept, computed, cost);

    cost->time_gate_s = products(options) * gate_time(work, cluster, model);
    cost->time_layer_s = cost->time_gate_s + pass_time(cluster, model, options, MOESIM_FORWARD, work, cost);
    cost->time_sync_s = (double)NAN;
    if (options->backward) {
        const double forward_s = cost->time_compute_s;
        cost->time_layer_s += pass_time(cluster, model, options, MOESIM_BACKWARD, work, cost);
        const double backward_s = cost->time_compute_s - forward_s;
        const double sync_s = moesim_sync_time(placement, cluster, model, work->n_columns,
                                               (enum moesim_all_reduce_form)options->all_reduce, expert_kind, work);
        cost->time_sync_s = options->sync == MOESIM_SYNC_OVERLAPPED ? fmax(0, sync_s - backward_s) : sync_s;
    }
    return MOESIM_OK;
}

enum moesim_status moesim_cost_layer(const struct moesim_plan *plan, const struct moesim_batch *batch,
                                     const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                     const struct moesim_model *model, const struct moesim_cost_options *options,
                                     const uint8_t *expert_kind, struct moesim_cost_work *work,
                                     struct moesim_cost *cost, struct moesim_error *err)
{
    moesim_cost_begin(work);
    const enum moesim_status status = moesim_cost_add(plan, batch, placement, cluster, options, expert_kind, work, err);
    return status ? status : moesim_cost_end(placement, cluster, model, options, expert_kind, work, cost, err);
}

void moesim_cost_flop(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_model *model, const struct moesim_cost_options *options, uint32_t tile_rows,
                      const uint8_t *expert_kind, const uint64_t *kept, struct moesim_cost *cost)
{
    const double none = (double)NAN;
    *cost = (struct moesim_cost){
        .time_gate_s = none,
        .time_dispatch_s = none,
        .time_compute_s = none,
        .time_combine_s = none,
        .time_layer_s = none,
        .time_sync_s = none,
        .bytes_dispatch = none,
        .bytes_combine = none,
        .bytes_inter_node = none,
        .bytes_intra_node = none,
        .device_imbalance = none,
        .node_imbalance = none,
        .balancedness = none,
        .device_fanout = none,
        .node_fanout = none,
    };
    uint64_t pairs = 0, tiled = 0;
    for (uint32_t e = 0; e < plan->n_experts; e++)
        if (!expert_kind || expert_kind[e] == MOESIM_EXPERT_FFN) {
            pairs += kept[e];
            tiled += (kept[e] + tile_rows - 1) / tile_rows * tile_rows;
        }
    uint64_t computed = pairs;
    if (options->padding == MOESIM_PADDING_TILE)
        computed = tiled;
    else if (options->padding == MOESIM_PADDING_CAPACITY)
        computed = moesim_capacity_rows(plan, batch, expert_kind);
    set_flop(batch->n_tokens, batch->n_columns, model, options, (double)pairs, (double)computed, cost);
}
