/*
 * Counting: every kept pair at its device, every copy at the ports that it passes.
 */
#include "sim/cost/traffic.h"

#include <string.h>

#include <moesim/router.h>

#include "sim/cost/compute.h"
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
    return part->out && part->in && part->leaf && part->tokens && part->received && part->rows && part->device_stamp &&
           part->node_stamp && part->forwarder;
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

/* Copies on their way to a device from one on node `from`, whose own ports are counted in `out`. */
static inline void arrive(const struct moesim_cost_work *work, struct moesim_cost_part *part, uint32_t source,
                          uint32_t from, uint32_t target, uint64_t copies, uint64_t out[2])
{
    const uint32_t to = work->node[target], kind = from == to ? MOESIM_PART_NVLINK : MOESIM_PART_NIC;
    out[kind] += copies;
    part->in[target][kind] += copies;
    if (work->n_leaves > 1 && work->leaf_of[from] != work->leaf_of[to]) {
        part->leaf[work->leaf_of[from]].up += copies;
        part->leaf[work->leaf_of[to]].down += copies;
    }
    if (work->hops)
        moesim_hops_add(work->hops, work->by_node ? from : source, work->by_node ? to : target, copies);
}

static void hop(const struct moesim_cost_work *work, struct moesim_cost_part *part, uint32_t source, uint32_t target,
                uint64_t copies)
{
    arrive(work, part, source, work->node[source], target, copies, part->out[source]);
}

/* ---- tokens ---- */

/* Where a token is and what of it has been counted. */
struct token {
    uint32_t home, node, base; /* device; its node; first device of its EP group */
    uint64_t out[2];           /* copies that left its home */
    uint32_t devices, nodes, served;
};

/* With normal dispatch: for each node of the EP group, the device that forwards what comes from `home`. */
static void set_forwarders(const struct counting *c, struct moesim_cost_part *part, const struct token *token)
{
    const uint32_t *node = c->work->node, base = token->base;
    const uint32_t local = token->home - moesim_node_part(c->cluster, base, c->ep, token->node).first;
    for (uint32_t n = node[base]; n <= node[base + c->ep - 1]; n++)
        part->forwarder[n] = moesim_forwarder(moesim_node_part(c->cluster, base, c->ep, n), local);
}

/* A token's first pair at a device: with flat and normal dispatch a copy comes here, with normal one to its node first.
 * `form` is known when compiled; what depends on chance is added as 0 or 1, not branched on. */
static inline void visit(const struct counting *c, struct moesim_cost_part *part, struct token *token, uint32_t target,
                         enum moesim_dispatch form)
{
    const uint32_t node = c->work->node[target], home = token->home;
    const bool first = part->node_stamp[node] != part->stamp;
    part->device_stamp[target] = part->node_stamp[node] = part->stamp;
    part->received[target]++;
    token->devices++;
    token->nodes += first;
    if (form == MOESIM_DISPATCH_FLAT)
        arrive(c->work, part, home, token->node, target, target != home, token->out);
    if (form != MOESIM_DISPATCH_NORMAL)
        return;
    const uint32_t forwarder = part->forwarder[node];
    arrive(c->work, part, home, token->node, forwarder, first && forwarder != home, token->out);
    arrive(c->work, part, forwarder, node, target, forwarder != target, part->out[forwarder]);
}

static inline void count_token(const struct counting *c, struct moesim_cost_part *part, uint32_t t, struct token *token,
                               enum moesim_dispatch form)
{
    const struct moesim_plan *plan = c->plan;
    const uint32_t local = token->home - token->base;
    uint64_t *rows = part->rows + (size_t)(token->base / c->ep) * c->work->n_replicas;
    bool served = false;
    part->stamp++;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        const uint32_t e = plan->expert[i];
        if (plan->fate[i] != MOESIM_KEPT || !moesim_is_ffn(c->expert_kind, e))
            continue;
        const uint32_t r = moesim_replica_pick(c->placement, local, t, e, i);
        const uint32_t target = token->base + c->placement->replica[r];
        rows[r]++;
        served = true;
        if (form == MOESIM_DISPATCH_LOW_LATENCY)
            arrive(c->work, part, token->home, token->node, target, target != token->home, token->out);
        if (part->device_stamp[target] != part->stamp)
            visit(c, part, token, target, form);
    }
    token->served += served;
}

/* Tokens [begin, end), which all live on one device. */
static inline void count_run(const struct counting *c, struct moesim_cost_part *part, uint32_t begin, uint32_t end,
                             enum moesim_dispatch form)
{
    const uint32_t home = c->batch->device[begin];
    struct token token = {.home = home, .node = c->work->node[home], .base = home / c->ep * c->ep};
    if (form == MOESIM_DISPATCH_NORMAL)
        set_forwarders(c, part, &token);
    for (uint32_t t = begin; t < end; t++)
        count_token(c, part, t, &token, form);
    part->tokens[home] += end - begin;
    part->out[home][MOESIM_PART_NVLINK] += token.out[MOESIM_PART_NVLINK];
    part->out[home][MOESIM_PART_NIC] += token.out[MOESIM_PART_NIC];
    part->fanout.tokens += token.served;
    part->fanout.devices += token.devices;
    part->fanout.nodes += token.nodes;
}

/* One loop for each form, so that what a form does not do costs nothing. */
static void count_form(const struct counting *c, struct moesim_cost_part *part, uint32_t begin, uint32_t end)
{
    switch (c->dispatch) {
    case MOESIM_DISPATCH_FLAT:
        count_run(c, part, begin, end, MOESIM_DISPATCH_FLAT);
        break;
    case MOESIM_DISPATCH_NORMAL:
        count_run(c, part, begin, end, MOESIM_DISPATCH_NORMAL);
        break;
    case MOESIM_DISPATCH_LOW_LATENCY:
        count_run(c, part, begin, end, MOESIM_DISPATCH_LOW_LATENCY);
        break;
    case MOESIM_DISPATCH_ALL_GATHER:
    case MOESIM_DISPATCH_PADDED: /* what they send does not depend on the token's experts */
        count_run(c, part, begin, end, MOESIM_DISPATCH_PADDED);
        break;
    }
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
            count_form(&counting, &work->part[i], t, next);
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
    for (uint32_t i = 0; i < work->n_parts; i++)
        add_part(work, &work->part[i]);
    sum_pairs(placement, work);
    if (dispatch == MOESIM_DISPATCH_ALL_GATHER)
        gather_all(cluster, work);
    for (uint32_t i = 0; i < work->n_parts; i++)
        add_ports(work, &work->part[i]);
}
