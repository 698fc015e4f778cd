/*
 * Counting: every kept pair at its device, every copy at the ports that it passes.
 */
#include "sim/cost/traffic.h"

#include <omp.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/cost/compute.h"
#include "sim/placement/replica.h"

enum { TOKENS_OF_A_THREAD = 1024 }; /* fewer are not worth a second one */

/* ---- room ---- */

static bool part_init(struct moesim_cost_part *part, const struct moesim_cost_work *work, struct moesim_arena *arena)
{
    const size_t devices = work->n_devices;
    part->port = moesim_alloc(arena, devices, sizeof *part->port);
    part->leaf = moesim_alloc(arena, work->n_leaves, sizeof *part->leaf);
    part->tokens = moesim_alloc(arena, devices, sizeof *part->tokens);
    part->received = moesim_alloc(arena, devices, sizeof *part->received);
    part->pairs = moesim_alloc(arena, devices, sizeof *part->pairs);
    part->rows = moesim_alloc(arena, (size_t)work->n_ep_groups * work->n_replicas, sizeof *part->rows);
    part->device_stamp = moesim_alloc(arena, devices, sizeof *part->device_stamp);
    part->node_stamp = moesim_alloc(arena, work->n_nodes, sizeof *part->node_stamp);
    part->forwarder = moesim_alloc(arena, work->n_nodes, sizeof *part->forwarder);
    return part->port && part->leaf && part->tokens && part->received && part->pairs && part->rows &&
           part->device_stamp && part->node_stamp && part->forwarder;
}

enum moesim_status moesim_traffic_init(struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                                       uint32_t n_parts, struct moesim_arena *arena, struct moesim_error *err)
{
    work->n_parts = n_parts;
    work->part = moesim_alloc(arena, n_parts, sizeof *work->part);
    work->node = moesim_alloc(arena, work->n_devices, sizeof *work->node);
    bool memory = work->part && work->node;
    for (uint32_t i = 0; memory && i < n_parts; i++)
        memory = part_init(&work->part[i], work, arena);
    if (!memory)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to count the traffic of %u devices", work->n_devices);
    for (uint32_t d = 0; d < work->n_devices; d++)
        work->node[d] = moesim_cluster_node(cluster, d);
    return MOESIM_OK;
}

void moesim_traffic_begin(struct moesim_cost_work *work)
{
    const size_t devices = work->n_devices;
    for (uint32_t i = 0; i < work->n_parts; i++) {
        struct moesim_cost_part *part = &work->part[i];
        memset(part->port, 0, devices * sizeof *part->port);
        memset(part->leaf, 0, work->n_leaves * sizeof *part->leaf);
        memset(part->tokens, 0, devices * sizeof *part->tokens);
        memset(part->received, 0, devices * sizeof *part->received);
        memset(part->pairs, 0, devices * sizeof *part->pairs);
        memset(part->rows, 0, (size_t)work->n_ep_groups * work->n_replicas * sizeof *part->rows);
        memset(part->device_stamp, 0, devices * sizeof *part->device_stamp);
        memset(part->node_stamp, 0, work->n_nodes * sizeof *part->node_stamp);
        part->stamp = 0;
        part->fanout = (struct moesim_fanout){0};
    }
    if (work->hops)
        moesim_hops_clear(work->hops);
}

/* ---- copies ---- */

struct counting {
    const struct moesim_plan *plan;
    const struct moesim_batch *batch;
    const struct moesim_placement *placement;
    const struct moesim_cluster *cluster;
    const uint8_t *expert_kind;
    struct moesim_cost_work *work;
    enum moesim_dispatch dispatch;
    uint32_t ep;
};

/* Copies on their way from one device to another. */
static void hop(const struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                struct moesim_cost_part *part, uint32_t source, uint32_t target, uint64_t copies)
{
    const uint32_t from = work->node[source], to = work->node[target];
    if (from == to) {
        part->port[source].nvlink_out += copies;
        part->port[target].nvlink_in += copies;
    } else {
        part->port[source].nic_out += copies;
        part->port[target].nic_in += copies;
        const uint32_t up = moesim_cluster_leaf(cluster, from), down = moesim_cluster_leaf(cluster, to);
        if (up != down) {
            part->leaf[up].up += copies;
            part->leaf[down].down += copies;
        }
    }
    if (work->hops)
        moesim_hops_add(work->hops, work->by_node ? from : source, work->by_node ? to : target, copies);
}

/* A token's first visit to a node: with normal dispatch one copy comes here, to the device that forwards it. */
static void visit_node(const struct counting *c, struct moesim_cost_part *part, uint32_t home, uint32_t base,
                       uint32_t node)
{
    part->node_stamp[node] = part->stamp;
    part->fanout.nodes++;
    if (c->dispatch != MOESIM_DISPATCH_NORMAL)
        return;
    const struct moesim_node_part own = moesim_node_part(c->cluster, base, c->ep, c->work->node[home]);
    const struct moesim_node_part there = moesim_node_part(c->cluster, base, c->ep, node);
    const uint32_t forwarder = moesim_forwarder(there, home - own.first);
    part->forwarder[node] = forwarder;
    if (forwarder != home)
        hop(c->work, c->cluster, part, home, forwarder, 1);
}

/* One kept pair at its device: counted, and sent there the way of the form. */
static inline void count_pair(const struct counting *c, struct moesim_cost_part *part, uint32_t home, uint32_t base,
                              uint32_t target)
{
    const uint32_t node = c->work->node[target];
    part->pairs[target]++;
    if (c->dispatch == MOESIM_DISPATCH_LOW_LATENCY && target != home)
        hop(c->work, c->cluster, part, home, target, 1);
    if (part->device_stamp[target] == part->stamp)
        return;
    part->device_stamp[target] = part->stamp;
    part->received[target]++;
    part->fanout.devices++;
    if (part->node_stamp[node] != part->stamp)
        visit_node(c, part, home, base, node);
    const uint32_t source = c->dispatch == MOESIM_DISPATCH_NORMAL ? part->forwarder[node] : home;
    if (source != target && (c->dispatch == MOESIM_DISPATCH_FLAT || c->dispatch == MOESIM_DISPATCH_NORMAL))
        hop(c->work, c->cluster, part, source, target, 1);
}

static void count_token(const struct counting *c, struct moesim_cost_part *part, uint32_t t)
{
    const struct moesim_plan *plan = c->plan;
    const uint32_t home = c->batch->device[t], group = home / c->ep, base = group * c->ep;
    uint64_t *rows = part->rows + (size_t)group * c->work->n_replicas;
    uint64_t served = 0;
    part->stamp++;
    part->tokens[home]++;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        const uint32_t e = plan->expert[i];
        if (plan->fate[i] != MOESIM_KEPT || !moesim_is_ffn(c->expert_kind, e))
            continue;
        const uint32_t r = moesim_replica_pick(c->placement, home - base, t, e, i);
        rows[r]++;
        count_pair(c, part, home, base, base + c->placement->replica[r]);
        served = 1;
    }
    part->fanout.tokens += served;
}

/* ---- every slot of the capacity ---- */

/* `slots` of one expert from a device, shared evenly by its replicas, in whole ones. */
static void send_slots(const struct counting *c, uint32_t home, uint32_t expert, uint64_t slots)
{
    const uint32_t base = home / c->ep * c->ep, first = c->placement->first[expert];
    const uint64_t n = c->placement->first[expert + 1] - first;
    for (uint64_t r = 0; r < n; r++) {
        const uint64_t share = slots * (r + 1) / n - slots * r / n;
        const uint32_t target = base + c->placement->replica[first + r];
        if (share && target != home)
            hop(c->work, c->cluster, &c->work->part[0], home, target, share);
    }
}

/* Tokens [begin, end) of group g, all on one device: their part of the group's slots, in whole ones; kept pairs where
 * the capacity has no end. */
static void send_run(const struct counting *c, uint32_t g, uint32_t begin, uint32_t end)
{
    const uint32_t *capacity = c->plan->capacity + (size_t)g * c->plan->n_experts;
    const uint64_t start = c->batch->group_start[g], n = c->batch->group_start[g + 1] - start;
    const uint32_t home = c->batch->device[begin];
    for (uint32_t e = 0; e < c->plan->n_experts; e++) {
        if (!moesim_is_ffn(c->expert_kind, e) || capacity[e] == MOESIM_UNLIMITED)
            continue;
        const uint64_t before = capacity[e] * (begin - start) / n, after = capacity[e] * (end - start) / n;
        send_slots(c, home, e, after - before);
    }
    for (uint32_t i = c->plan->first[begin]; i < c->plan->first[end]; i++) {
        const uint32_t e = c->plan->expert[i];
        if (c->plan->fate[i] == MOESIM_KEPT && moesim_is_ffn(c->expert_kind, e) && capacity[e] == MOESIM_UNLIMITED)
            send_slots(c, home, e, 1);
    }
}

static void send_padded(const struct counting *c)
{
    for (uint32_t g = 0; g < c->plan->n_groups; g++) {
        const uint32_t end = c->batch->group_start[g + 1];
        for (uint32_t t = c->batch->group_start[g], run = t; t < end; t++)
            if (t + 1 == end || c->batch->device[t + 1] != c->batch->device[t]) {
                send_run(c, g, run, t + 1);
                run = t + 1;
            }
    }
}

void moesim_traffic_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                        const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        enum moesim_dispatch dispatch, const uint8_t *expert_kind, struct moesim_cost_work *work)
{
    const struct counting counting = {plan,        batch, placement, cluster,
                                      expert_kind, work,  dispatch,  moesim_cluster_ep(cluster)};
    const uint32_t most = plan->n_tokens / TOKENS_OF_A_THREAD + 1;
    const uint32_t n_parts = work->hops ? 1 : most < work->n_parts ? most : work->n_parts;
#pragma omp parallel num_threads((int)n_parts)
    {
        struct moesim_cost_part *part = &work->part[omp_get_thread_num()];
#pragma omp for schedule(static)
        for (uint32_t t = 0; t < plan->n_tokens; t++)
            count_token(&counting, part, t);
    }
    if (dispatch == MOESIM_DISPATCH_PADDED)
        send_padded(&counting);
}

/* ---- the end ---- */

/* Every token of a device to one device of each node of its EP group, and from there to the others of the node. */
static void gather_all(const struct moesim_cluster *cluster, struct moesim_cost_work *work)
{
    const uint32_t ep = moesim_cluster_ep(cluster);
    struct moesim_cost_part *part = &work->part[0];
    uint64_t *arrived = work->arrived;
    memset(arrived, 0, work->n_devices * sizeof *arrived);
    for (uint32_t home = 0; home < work->n_devices; home++) {
        const uint32_t base = home / ep * ep;
        const struct moesim_node_part own = moesim_node_part(cluster, base, ep, work->node[home]);
        for (uint32_t node = work->node[base]; node <= work->node[base + ep - 1]; node++) {
            const uint32_t to = moesim_forwarder(moesim_node_part(cluster, base, ep, node), home - own.first);
            arrived[to] += work->tokens[home];
            if (to != home)
                hop(work, cluster, part, home, to, work->tokens[home]);
        }
    }
    for (uint32_t d = 0; d < work->n_devices; d++) {
        const struct moesim_node_part own = moesim_node_part(cluster, d / ep * ep, ep, work->node[d]);
        for (uint32_t to = own.first; to < own.first + own.n; to++)
            if (to != d)
                hop(work, cluster, part, d, to, arrived[d]);
    }
}

static void add_ports(struct moesim_ports *sum, const struct moesim_ports *port, uint32_t n)
{
    for (uint32_t d = 0; d < n; d++) {
        sum[d].nvlink_out += port[d].nvlink_out;
        sum[d].nvlink_in += port[d].nvlink_in;
        sum[d].nic_out += port[d].nic_out;
        sum[d].nic_in += port[d].nic_in;
    }
}

static void add_counts(uint64_t *sum, const uint64_t *count, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += count[i];
}

static void add_part(struct moesim_cost_work *work, const struct moesim_cost_part *part)
{
    add_counts(work->tokens, part->tokens, work->n_devices);
    add_counts(work->received, part->received, work->n_devices);
    add_counts(work->pairs, part->pairs, work->n_devices);
    for (size_t i = 0; i < (size_t)work->n_ep_groups * work->n_replicas; i++)
        work->rows[i] += (double)part->rows[i];
    work->fanout.tokens += part->fanout.tokens;
    work->fanout.devices += part->fanout.devices;
    work->fanout.nodes += part->fanout.nodes;
}

void moesim_traffic_end(const struct moesim_cluster *cluster, enum moesim_dispatch dispatch,
                        struct moesim_cost_work *work)
{
    const size_t devices = work->n_devices;
    memset(work->tokens, 0, devices * sizeof *work->tokens);
    memset(work->received, 0, devices * sizeof *work->received);
    memset(work->pairs, 0, devices * sizeof *work->pairs);
    memset(work->node_pairs, 0, work->n_nodes * sizeof *work->node_pairs);
    memset(work->rows, 0, (size_t)work->n_ep_groups * work->n_replicas * sizeof *work->rows);
    memset(work->port, 0, devices * sizeof *work->port);
    memset(work->leaf, 0, work->n_leaves * sizeof *work->leaf);
    work->fanout = (struct moesim_fanout){0};
    for (uint32_t i = 0; i < work->n_parts; i++)
        add_part(work, &work->part[i]);
    for (uint32_t d = 0; d < work->n_devices; d++)
        work->node_pairs[work->node[d]] += work->pairs[d];
    if (dispatch == MOESIM_DISPATCH_ALL_GATHER)
        gather_all(cluster, work);
    for (uint32_t i = 0; i < work->n_parts; i++) {
        add_ports(work->port, work->part[i].port, work->n_devices);
        for (uint32_t l = 0; l < work->n_leaves; l++) {
            work->leaf[l].up += work->part[i].leaf[l].up;
            work->leaf[l].down += work->part[i].leaf[l].down;
        }
    }
}
