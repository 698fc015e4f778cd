/*
 * The cost of one layer, put together: gate, dispatch, experts, combine.
 */
#include "sim/cost/cost.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>

#include <moesim/router.h>

#include "sim/cost/compute.h"
#include "sim/cost/sync.h"
#include "sim/cost/traffic.h"

enum moesim_status moesim_cost_work_init(struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                                         const struct moesim_placement *placement, struct moesim_arena *arena,
                                         struct moesim_error *err)
{
    const uint32_t devices = moesim_cluster_devices(cluster), ep = moesim_cluster_ep(cluster);
    assert(placement->n_devices == ep);
    const bool by_node = devices > MOESIM_MAX_TRAFFIC_DEVICES;
    const uint32_t ends = by_node ? cluster->nodes : devices;
    *work = (struct moesim_cost_work){
        .n_devices = devices,
        .n_nodes = cluster->nodes,
        .n_experts = placement->n_experts,
        .n_replicas = placement->max_replicas,
        .n_ends = ends,
        .by_node = by_node,
        .traffic = moesim_alloc(arena, (size_t)ends * ends, sizeof *work->traffic),
        .port = moesim_alloc(arena, devices, sizeof *work->port),
        .tokens = moesim_alloc(arena, devices, sizeof *work->tokens),
        .received = moesim_alloc(arena, devices, sizeof *work->received),
        .pairs = moesim_alloc(arena, devices, sizeof *work->pairs),
        .node_pairs = moesim_alloc(arena, cluster->nodes, sizeof *work->node_pairs),
        .rows = moesim_alloc(arena, (size_t)(devices / ep) * placement->max_replicas, sizeof *work->rows),
        .experts = moesim_alloc(arena, devices, sizeof *work->experts),
        .group_tokens = moesim_alloc(arena, devices / ep, sizeof *work->group_tokens),
        .device_stamp = moesim_alloc(arena, devices, sizeof *work->device_stamp),
        .node_stamp = moesim_alloc(arena, cluster->nodes, sizeof *work->node_stamp),
        .sync = moesim_alloc(arena, devices, sizeof *work->sync),
        .node_copies = moesim_alloc(arena, cluster->nodes, sizeof *work->node_copies),
    };
    if (!work->traffic || !work->port || !work->tokens || !work->received || !work->pairs || !work->node_pairs ||
        !work->rows || !work->experts || !work->group_tokens || !work->device_stamp || !work->node_stamp ||
        !work->sync || !work->node_copies)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to price cluster %s of %u devices", cluster->name, devices);
    return MOESIM_OK;
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

static void set_balance(const struct moesim_cost_work *work, const struct moesim_fanout *fanout,
                        struct moesim_cost *cost)
{
    cost->device_imbalance = imbalance(work->pairs, work->n_devices);
    cost->node_imbalance = imbalance(work->node_pairs, work->n_nodes);
    cost->balancedness = 1 / cost->device_imbalance;
    cost->device_fanout = fanout->tokens ? (double)fanout->devices / (double)fanout->tokens : (double)NAN;
    cost->node_fanout = fanout->tokens ? (double)fanout->nodes / (double)fanout->tokens : (double)NAN;
}

/* Exchanges towards the experts, and as many back: gradients take the same ways as what they belong to. */
static double exchanges(const struct moesim_cost_options *options)
{
    return options->backward ? 2 : 1;
}

/* Products of gate and experts per forward product. */
static double products(const struct moesim_cost_options *options)
{
    return options->backward ? 1 + MOESIM_BACKWARD_PRODUCTS : 1;
}

/* Copies of dispatch become bytes of dispatch and, the other way, of combine. */
static void set_bytes(struct moesim_cost_work *work, const struct moesim_model *model,
                      const struct moesim_cost_options *options, struct moesim_cost *cost)
{
    const double dispatch = exchanges(options) * moesim_model_token_bytes(model, model->dispatch_bytes);
    const double combine = exchanges(options) * moesim_model_token_bytes(model, model->combine_bytes);
    uint64_t intra = 0, inter = 0;
    for (uint32_t d = 0; d < work->n_devices; d++) {
        intra += work->port[d].nvlink_out;
        inter += work->port[d].nic_out;
    }
    cost->bytes_dispatch = (double)(intra + inter) * dispatch;
    cost->bytes_combine = (double)(intra + inter) * combine;
    cost->bytes_intra_node = (double)intra * (dispatch + combine);
    cost->bytes_inter_node = (double)inter * (dispatch + combine);
    const size_t n = work->n_ends;
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++) {
            const double there = work->traffic[i * n + j], back = work->traffic[j * n + i];
            work->traffic[i * n + j] = there * dispatch + back * combine;
            work->traffic[j * n + i] = back * dispatch + there * combine;
        }
}

static void set_flop(const struct moesim_batch *batch, const struct moesim_model *model,
                     const struct moesim_cost_options *options, double kept, double computed, struct moesim_cost *cost)
{
    const double per_pair = products(options) * moesim_model_flop_per_pair(model);
    cost->flop_expert = kept * per_pair;
    cost->flop_padded = computed * per_pair;
    cost->flop_router = products(options) * 2.0 * batch->n_tokens * model->d_model * batch->n_columns;
    cost->padding_fraction = computed > 0 ? (computed - kept) / computed : (double)NAN;
}

static double gate_time(const struct moesim_cost_work *work, const struct moesim_batch *batch,
                        const struct moesim_cluster *cluster, const struct moesim_model *model)
{
    uint64_t most = 0;
    for (uint32_t d = 0; d < work->n_devices; d++)
        most = work->tokens[d] > most ? work->tokens[d] : most;
    return 2.0 * (double)most * model->d_model * batch->n_columns / cluster->flop_per_s;
}

enum moesim_status moesim_cost_layer(const struct moesim_plan *plan, const struct moesim_batch *batch,
                                     const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                     const struct moesim_model *model, const struct moesim_cost_options *options,
                                     const uint8_t *expert_kind, struct moesim_cost_work *work,
                                     struct moesim_cost *cost, struct moesim_error *err)
{
    const enum moesim_padding padding = (enum moesim_padding)options->padding;
    assert(batch->n_devices == work->n_devices && placement->n_experts <= plan->n_experts);
    if (plan->n_slots)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "a soft router mixes all tokens into its slots, which has no modelled cost; leave out the cluster");
    struct moesim_fanout fanout;
    moesim_traffic_count(plan, batch, placement, cluster, expert_kind, work, &fanout);
    set_balance(work, &fanout, cost);
    set_bytes(work, model, options, cost);
    cost->time_gate_s = products(options) * gate_time(work, batch, cluster, model);
    cost->time_dispatch_s =
        exchanges(options) * moesim_traffic_time(work, cluster, moesim_model_token_bytes(model, model->dispatch_bytes));
    cost->time_combine_s =
        exchanges(options) * moesim_traffic_time(work, cluster, moesim_model_token_bytes(model, model->combine_bytes));

    uint64_t kept = 0;
    for (uint32_t d = 0; d < work->n_devices; d++)
        kept += work->pairs[d];
    moesim_rows_pad(plan, batch, placement, cluster, padding, expert_kind, work);
    moesim_rows_sum(placement, cluster, work);
    cost->time_compute_s = moesim_compute_time(cluster, model, MOESIM_FORWARD, work);
    cost->time_sync_s = (double)NAN;
    if (options->backward) {
        const double backward_s = moesim_compute_time(cluster, model, MOESIM_BACKWARD, work);
        const double sync_s = moesim_sync_time(placement, cluster, model, batch->n_columns,
                                               (enum moesim_all_reduce_form)options->all_reduce, expert_kind, work);
        cost->time_compute_s += backward_s;
        cost->time_sync_s = options->sync == MOESIM_SYNC_OVERLAPPED ? fmax(0, sync_s - backward_s) : sync_s;
    }
    double computed = 0;
    for (uint32_t d = 0; d < work->n_devices; d++)
        computed += work->experts[d].rows;
    if (padding == MOESIM_PADDING_CAPACITY) /* exact where groups share slots over devices */
        computed = (double)moesim_capacity_rows(plan, batch, expert_kind);
    set_flop(batch, model, options, (double)kept, computed, cost);
    cost->time_layer_s = cost->time_gate_s + cost->time_dispatch_s + cost->time_compute_s + cost->time_combine_s;
    return MOESIM_OK;
}

void moesim_cost_flop(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_model *model, const struct moesim_cost_options *options, uint32_t tile_rows,
                      const uint8_t *expert_kind, uint64_t *kept, struct moesim_cost *cost)
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
    moesim_plan_count(plan, NULL, kept);
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
    set_flop(batch, model, options, (double)pairs, (double)computed, cost);
}
