/*
 * Counting: every kept pair at its device, and what the tokens of one home sent where, target by target. Only then does
 * a copy pass ports, so that these cost what there are used pairs of devices, not what there are decisions.
 */
#include "sim/cost/traffic.h"

#include <string.h>

#include <moesim/router.h>

#include "sim/cost/compute.h"
#include "sim/cost/reach.h"
#include "sim/placement/replica.h"

enum { PAIRS_OF_A_THREAD = 1 << 16 }; /* fewer are not worth a second one */

/* ---- room ---- */

static bool part_init(struct moesim_cost_part *part, const struct moesim_cost_work *work, struct moesim_arena *arena)
{
    const size_t devices = work->n_devices;
    part->out = moesim_alloc(arena, devices, sizeof *part->out);
    part->in = moesim_alloc(arena, devices, sizeof *part->in);
    part->leaf = moesim_alloc(arena, work->n_leaves, sizeof *part->leaf);
    part->tokens = moesim_alloc(arena, devices, sizeof *part->tokens);
    part->received = moesim_alloc(arena, devices, sizeof *part->received);
    part->rows = moesim_alloc(arena, (size_t)work->n_ep_groups * work->n_replicas, sizeof *part->rows);
    part->device_stamp = moesim_alloc(arena, devices, sizeof *part->device_stamp);
    part->node_stamp = moesim_alloc(arena, work->n_nodes, sizeof *part->node_stamp);
    part->forwarder = moesim_alloc(arena, work->n_nodes, sizeof *part->forwarder);
    part->reach = moesim_alloc(arena, devices, sizeof *part->reach);
    part->sent = moesim_alloc(arena, devices, sizeof *part->sent);
    part->node_reach = moesim_alloc(arena, work->n_nodes, sizeof *part->node_reach);
    part->touched = moesim_alloc(arena, devices + 1, sizeof *part->touched);
    part->own_turns = moesim_alloc(arena, work->n_experts, sizeof *part->own_turns);
    const size_t entries = (size_t)work->n_replicas + 1;
    part->own_reach = moesim_alloc(arena, entries, sizeof *part->own_reach);
    part->own_replica = moesim_alloc(arena, entries, sizeof *part->own_replica);
    part->own_pairs = moesim_alloc(arena, entries, sizeof *part->own_pairs);
    return part->own_turns && part->own_reach && part->own_replica && part->own_pairs && part->out && part->in &&
           part->leaf && part->tokens && part->received && part->rows && part->device_stamp && part->node_stamp &&
           part->forwarder && part->reach && part->sent && part->node_reach && part->touched;
}

enum moesim_status moesim_traffic_init(struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                                       uint32_t n_parts, struct moesim_arena *arena, struct moesim_error *err)
{
    work->n_parts = n_parts;
    work->part = moesim_alloc(arena, n_parts, sizeof *work->part);
    work->node = moesim_alloc(arena, work->n_devices, sizeof *work->node);
    work->leaf_of = moesim_alloc(arena, work->n_nodes, sizeof *work->leaf_of);
    bool memory = work->part && work->node && work->leaf_of;
    for (uint32_t i = 0; memory && i < n_parts; i++)
        memory = part_init(&work->part[i], work, arena);
    if (!memory)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to count the traffic of %u devices", work->n_devices);
    for (uint32_t d = 0; d < work->n_devices; d++)
        work->node[d] = moesim_cluster_node(cluster, d);
    for (uint32_t n = 0; n < work->n_nodes; n++)
        work->leaf_of[n] = moesim_cluster_leaf(cluster, n);
    return MOESIM_OK;
}

void moesim_traffic_begin(struct moesim_cost_work *work)
{
    const size_t devices = work->n_devices;
    for (uint32_t i = 0; i < work->n_parts; i++) {
        struct moesim_cost_part *part = &work->part[i];
        memset(part->out, 0, devices * sizeof *part->out);
        memset(part->in, 0, devices * sizeof *part->in);
        memset(part->leaf, 0, work->n_leaves * sizeof *part->leaf);
        memset(part->tokens, 0, devices * sizeof *part->tokens);
        memset(part->received, 0, devices * sizeof *part->received);
        memset(part->rows, 0, (size_t)work->n_ep_groups * work->n_replicas * sizeof *part->rows);
        memset(part->device_stamp, 0, devices * sizeof *part->device_stamp);
        memset(part->node_stamp, 0, work->n_nodes * sizeof *part->node_stamp);
        part->stamp = 0;
        part->n_hops = 0;
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

/* Copies that pass from one device to another. */
static void hop(const struct moesim_cost_work *work, struct moesim_cost_part *part, uint32_t source, uint32_t target,
                uint64_t copies)
{
    const uint32_t from = work->node[source], to = work->node[target];
    const enum moesim_part_port kind = from == to ? MOESIM_PART_NVLINK : MOESIM_PART_NIC;
    part->n_hops++;
    part->out[source][kind] += copies;
    part->in[target][kind] += copies;
    if (work->n_leaves > 1 && work->leaf_of[from] != work->leaf_of[to]) {
        part->leaf[work->leaf_of[from]].up += copies;
        part->leaf[work->leaf_of[to]].down += copies;
    }
    if (work->hops)
        moesim_hops_add(work->hops, work->by_node ? from : source, work->by_node ? to : target, copies);
}

/* ---- tokens ---- */

/* What the inner loop looks at, out of the structures, so that no store makes it look there again. */
struct cursor {
    const uint32_t *node;
    uint32_t *device_stamp, *node_stamp, *reach, *node_reach, *touched;
    uint32_t stamp, n_touched;
};

/* A token's first pair at a device. What depends on chance is added as 0 or 1, not branched on. */
static inline void visit(struct cursor *at, uint32_t target)
{
    const uint32_t node = at->node[target];
    at->device_stamp[target] = at->stamp;
    at->touched[at->n_touched] = target;
    at->n_touched += at->reach[target]++ == 0;
    at->node_reach[node] += at->node_stamp[node] != at->stamp;
    at->node_stamp[node] = at->stamp;
}

/* Counts a token's pairs; whether any is served. */
static inline bool count_token(const struct counting *c, struct cursor *at, uint32_t t, uint32_t base, uint32_t local,
                               uint64_t *rows, uint32_t *sent)
{
    const struct moesim_plan *plan = c->plan;
    const uint32_t end = plan->first[t + 1];
    bool served = false;
    at->stamp++;
    for (uint32_t i = plan->first[t]; i < end; i++) {
        const uint32_t e = plan->expert[i];
        if (plan->fate[i] != MOESIM_KEPT || !moesim_is_ffn(c->expert_kind, e))
            continue;
        const uint32_t r = moesim_replica_pick(c->placement, local, t, e, i);
        const uint32_t target = base + c->placement->replica[r];
        rows[r]++;
        served = true;
        if (sent)
            sent[target]++;
        if (at->device_stamp[target] != at->stamp)
            visit(at, target);
    }
    return served;
}

/* The first target on a node: what reaches the node as a whole. */
static void reach_node(const struct counting *c, struct moesim_cost_part *part, uint32_t home, uint32_t node)
{
    const uint32_t base = home / c->ep * c->ep;
    part->fanout.nodes += part->node_reach[node];
    if (c->dispatch == MOESIM_DISPATCH_NORMAL) {
        const uint32_t local = home - moesim_node_part(c->cluster, base, c->ep, c->work->node[home]).first;
        const uint32_t forwarder = moesim_forwarder(moesim_node_part(c->cluster, base, c->ep, node), local);
        part->forwarder[node] = forwarder;
        if (forwarder != home)
            hop(c->work, part, home, forwarder, part->node_reach[node]);
    }
    part->node_reach[node] = 0;
}

/* What all tokens of one home sent to one device: with flat dispatch a copy for each of them, with normal one that the
 * node's forwarder passes on, with low-latency one for each pair. */
static void reach_device(const struct counting *c, struct moesim_cost_part *part, uint32_t home, uint32_t target)
{
    const uint32_t node = c->work->node[target];
    if (part->node_reach[node])
        reach_node(c, part, home, node);
    const uint32_t source = c->dispatch == MOESIM_DISPATCH_NORMAL ? part->forwarder[node] : home;
    const uint64_t copies = c->dispatch == MOESIM_DISPATCH_LOW_LATENCY ? part->sent[target] : part->reach[target];
    if (source != target && c->dispatch <= MOESIM_DISPATCH_LOW_LATENCY) /* others do not look at the routing */
        hop(c->work, part, source, target, copies);
    part->fanout.devices += part->reach[target];
    part->received[target] += part->reach[target];
    part->reach[target] = part->sent[target] = 0;
}

/* Tokens [begin, end), which all live on one device, pair by pair; sets *n_touched and returns the served ones. */
static uint64_t count_tokens(const struct counting *c, struct moesim_cost_part *part, uint32_t begin, uint32_t end,
                             uint64_t *rows, uint32_t *n_touched)
{
    const uint32_t home = c->batch->device[begin], base = home / c->ep * c->ep;
    uint64_t served = 0;
    struct cursor at = {.node = c->work->node,
                        .device_stamp = part->device_stamp,
                        .node_stamp = part->node_stamp,
                        .reach = part->reach,
                        .node_reach = part->node_reach,
                        .touched = part->touched,
                        .stamp = part->stamp};
    if (c->dispatch == MOESIM_DISPATCH_LOW_LATENCY)
        for (uint32_t t = begin; t < end; t++)
            served += count_token(c, &at, t, base, home - base, rows, part->sent);
    else
        for (uint32_t t = begin; t < end; t++)
            served += count_token(c, &at, t, base, home - base, rows, NULL);
    part->stamp = at.stamp;
    *n_touched = at.n_touched;
    return served;
}

/* Tokens [begin, end), which all live on one device. */
static void count_run(const struct counting *c, struct moesim_cost_part *part, uint32_t begin, uint32_t end)
{
    const uint32_t home = c->batch->device[begin], base = home / c->ep * c->ep;
    uint64_t *rows = part->rows + (size_t)(home / c->ep) * c->work->n_replicas;
    const struct moesim_reach reach = {.plan = c->plan,
                                       .placement = c->placement,
                                       .expert_kind = c->expert_kind,
                                       .node = c->work->node,
                                       .ep = c->ep,
                                       .base = base,
                                       .local = home - base,
                                       .begin = begin,
                                       .end = end};
    uint32_t n_touched;
    part->fanout.tokens += moesim_reach_fits(&reach) ? moesim_reach_count(&reach, part, rows, &n_touched)
                                                     : count_tokens(c, part, begin, end, rows, &n_touched);
    part->tokens[home] += end - begin;
    for (uint32_t i = 0; i < n_touched; i++)
        reach_device(c, part, home, part->touched[i]);
}

/* The last token after `begin` that lives where it does, below `end`, and one. */
static uint32_t run_end(const uint32_t *device, uint32_t begin, uint32_t end)
{
    uint32_t t = begin + 1;
    while (t < end && device[t] == device[begin])
        t++;
    return t;
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
            hop(c->work, &c->work->part[0], home, target, share);
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
        for (uint32_t t = c->batch->group_start[g], next; t < end; t = next) {
            next = run_end(c->batch->device, t, end);
            send_run(c, g, t, next);
        }
    }
}

void moesim_traffic_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                        const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        enum moesim_dispatch dispatch, const uint8_t *expert_kind, struct moesim_cost_work *work)
{
    const struct counting counting = {plan,        batch, placement, cluster,
                                      expert_kind, work,  dispatch,  moesim_cluster_ep(cluster)};
    const uint64_t worth = plan->n_pairs / PAIRS_OF_A_THREAD + 1;
    const uint32_t n_parts = work->hops ? 1 : worth < work->n_parts ? (uint32_t)worth : work->n_parts;
#pragma omp parallel for num_threads((int)n_parts) schedule(static) if (n_parts > 1)
    for (uint32_t i = 0; i < n_parts; i++) {
        const uint32_t end = (uint32_t)((uint64_t)plan->n_tokens * (i + 1) / n_parts);
        for (uint32_t t = (uint32_t)((uint64_t)plan->n_tokens * i / n_parts), next; t < end; t = next) {
            next = run_end(batch->device, t, end);
            count_run(&counting, &work->part[i], t, next);
        }
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
                hop(work, part, home, to, work->tokens[home]);
        }
    }
    for (uint32_t d = 0; d < work->n_devices; d++) {
        const struct moesim_node_part own = moesim_node_part(cluster, d / ep * ep, ep, work->node[d]);
        work->received[d] = 0;
        for (uint32_t home = d / ep * ep; home < d / ep * ep + ep; home++)
            work->received[d] += work->tokens[home];
        for (uint32_t to = own.first; to < own.first + own.n; to++)
            if (to != d)
                hop(work, part, d, to, arrived[d]);
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
    for (size_t i = 0; i < (size_t)work->n_ep_groups * work->n_replicas; i++)
        work->rows[i] += (double)part->rows[i];
    work->fanout.tokens += part->fanout.tokens;
    work->fanout.devices += part->fanout.devices;
    work->fanout.nodes += part->fanout.nodes;
}

/* Kept pairs by device and node, from those by physical expert. */
static void sum_pairs(const struct moesim_placement *placement, struct moesim_cost_work *work)
{
    const uint32_t n_replicas = placement->first[placement->n_experts];
    for (uint32_t x = 0; x < work->n_ep_groups; x++)
        for (uint32_t r = 0; r < n_replicas; r++)
            work->pairs[x * placement->n_devices + placement->replica[r]] +=
                (uint64_t)work->rows[(size_t)x * work->n_replicas + r];
    for (uint32_t d = 0; d < work->n_devices; d++)
        work->node_pairs[work->node[d]] += work->pairs[d];
}

static void add_ports(struct moesim_cost_work *work, const struct moesim_cost_part *part)
{
    work->n_hops += part->n_hops;
    for (uint32_t d = 0; d < work->n_devices; d++) {
        work->port[d].nvlink_out += part->out[d][MOESIM_PART_NVLINK];
        work->port[d].nvlink_in += part->in[d][MOESIM_PART_NVLINK];
        work->port[d].nic_out += part->out[d][MOESIM_PART_NIC];
        work->port[d].nic_in += part->in[d][MOESIM_PART_NIC];
    }
    for (uint32_t l = 0; l < work->n_leaves; l++) {
        work->leaf[l].up += part->leaf[l].up;
        work->leaf[l].down += part->leaf[l].down;
    }
}

void moesim_traffic_end(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        enum moesim_dispatch dispatch, struct moesim_cost_work *work)
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
    work->n_hops = 0;
    for (uint32_t i = 0; i < work->n_parts; i++)
        add_part(work, &work->part[i]);
    sum_pairs(placement, work);
    if (dispatch == MOESIM_DISPATCH_ALL_GATHER)
        gather_all(cluster, work);
    for (uint32_t i = 0; i < work->n_parts; i++)
        add_ports(work, &work->part[i]);
}
