/*
 * eplb: DeepSeek's Expert Parallelism Load Balancer, choice by choice. Loads are float32, ties go to the lowest index.
 * With n_groups a multiple of the nodes, whole groups of experts are packed into nodes, so that group-limited tokens
 * stay on few nodes; then each node replicates its hottest experts and packs the copies into its devices. Otherwise the
 * EP group is treated as one node with one group.
 */
#include <string.h>

#include "sim/placement/replicate.h"
#include "sim/placement/rules.h"

struct eplb_params {
    struct moesim_placement_fit fit;
    uint32_t n_groups;
};

static const struct moesim_param eplb_schema[] = {
    MOESIM_PLACEMENT_REPLICA_PARAMS(struct eplb_params),
    MOESIM_PARAM(struct eplb_params, n_groups, "0", 0, 65536,
                 "groups of experts that share a node, where the nodes divide them; 0 = the model's, else 1"),
    MOESIM_PLACEMENT_FIT_PARAMS(struct eplb_params),
    MOESIM_PARAM_END,
};

/* The sizes of a layer's problem, and room to work in. */
struct eplb {
    uint32_t n_experts, n_slots, n_devices, n_nodes, n_groups;
    float *load;                                /* [n_experts] */
    float *member_load;                         /* [n_experts] of one node */
    float *weight;                              /* [n_slots] of what is packed */
    uint32_t *pack, *rank;                      /* [n_slots] where it went, and its place there */
    uint32_t *member;                           /* [n_experts] experts node by node */
    uint32_t *physical;                         /* [n_slots] of one node: its member of each copy */
    uint32_t *count, *items;                    /* [n_experts] copies; [n_slots] things in a pack */
    float *sum;                                 /* [n_slots] load of a pack */
    struct moesim_heap_entry *sorted, *entries; /* [n_slots] */
};

static enum moesim_status open_eplb(struct eplb *b, struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t n = b->n_experts, m = b->n_slots;
#define ROOM(field, size) ((b->field = moesim_alloc(arena, (size), sizeof *b->field)) != NULL)
    const bool ok = ROOM(load, n) && ROOM(member_load, n) && ROOM(weight, m) && ROOM(pack, m) && ROOM(rank, m) &&
                    ROOM(member, n) && ROOM(physical, m) && ROOM(count, n) && ROOM(items, m) && ROOM(sum, m) &&
                    ROOM(sorted, m) && ROOM(entries, m);
#undef ROOM
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory to place %u experts", b->n_experts);
}

/* Packs n things by falling weight, each into the least full of n_packs packs that has less than n / n_packs things. */
static void pack(struct eplb *b, uint32_t n, uint32_t n_packs)
{
    struct moesim_heap heap = {.entry = b->entries};
    if (n == n_packs) {
        for (uint32_t i = 0; i < n; i++) {
            b->pack[i] = i;
            b->rank[i] = 0;
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        b->sorted[i] = (struct moesim_heap_entry){(double)b->weight[i], i};
    moesim_sort_falling(b->sorted, n);
    for (uint32_t p = 0; p < n_packs; p++) {
        b->sum[p] = 0;
        b->items[p] = 0;
        moesim_heap_push(&heap, 0, p);
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t thing = b->sorted[i].id, p = moesim_heap_pop(&heap).id;
        b->pack[thing] = p;
        b->rank[thing] = b->items[p]++;
        b->sum[p] += b->weight[thing];
        if (b->items[p] < n / n_packs)
            moesim_heap_push(&heap, (double)b->sum[p], p);
    }
}

/* Which experts each node has, in the order of its groups' packing. */
static void pack_groups(struct eplb *b)
{
    const uint32_t size = b->n_experts / b->n_groups, per_node = b->n_groups / b->n_nodes;
    for (uint32_t g = 0; g < b->n_groups; g++) {
        b->weight[g] = 0;
        for (uint32_t i = 0; i < size; i++)
            b->weight[g] += b->load[g * size + i];
    }
    pack(b, b->n_groups, b->n_nodes);
    for (uint32_t g = 0; g < b->n_groups; g++)
        for (uint32_t i = 0; i < size; i++)
            b->member[(b->pack[g] * per_node + b->rank[g]) * size + i] = g * size + i;
}

/* Replicates the node's experts and packs the copies into its devices; `expert` has the node's slots. */
static void place_node(struct eplb *b, const uint32_t *member, uint32_t *expert)
{
    const uint32_t n = b->n_experts / b->n_nodes, m = b->n_slots / b->n_nodes;
    const uint32_t per_device = b->n_slots / b->n_devices;
    for (uint32_t i = 0; i < n; i++) {
        b->member_load[i] = b->load[member[i]];
        b->physical[i] = i;
    }
    moesim_replicate(b->member_load, n, m, UINT32_MAX, b->count, b->physical + n, b->entries);
    for (uint32_t i = 0; i < m; i++)
        b->weight[i] = b->member_load[b->physical[i]] / (float)b->count[b->physical[i]];
    pack(b, m, b->n_devices / b->n_nodes);
    for (uint32_t i = 0; i < m; i++)
        expert[b->pack[i] * per_device + b->rank[i]] = member[b->physical[i]];
}

static void place_layer(struct eplb *b, const double *load, struct moesim_placement *placement)
{
    for (uint32_t e = 0; e < b->n_experts; e++)
        b->load[e] = (float)load[e];
    pack_groups(b);
    for (uint32_t node = 0; node < b->n_nodes; node++)
        place_node(b, b->member + node * (b->n_experts / b->n_nodes),
                   placement->expert + node * (b->n_slots / b->n_nodes));
    for (uint32_t d = 0; d <= b->n_devices; d++)
        placement->device_slot[d] = d * (b->n_slots / b->n_devices);
    moesim_placement_index(placement);
}

/* Groups by nodes where that is possible, else all in one. */
static enum moesim_status set_hierarchy(struct eplb *b, uint32_t n_groups, const struct moesim_placement *placement,
                                        const struct moesim_cluster *cluster, struct moesim_error *err)
{
    b->n_nodes = moesim_placement_nodes(placement, cluster);
    b->n_groups = n_groups;
    if (n_groups % b->n_nodes)
        b->n_groups = b->n_nodes = 1;
    if (b->n_experts % b->n_groups)
        return moesim_fail(err, MOESIM_EINVAL, "n_groups = %u: %u experts do not divide into so many groups", n_groups,
                           b->n_experts);
    return MOESIM_OK;
}

static enum moesim_status eplb_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                     const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                     struct moesim_error *err)
{
    (void)seed;
    const struct eplb_params *p = params;
    uint32_t per_device, n_groups = p->n_groups ? p->n_groups : stats->n_groups;
    struct eplb b = {.n_experts = stats->n_experts,
                     .n_slots = stats->n_experts + p->fit.redundant,
                     .n_devices = placement->n_devices};
    enum moesim_status status = moesim_equal_slots(placement, b.n_slots, true, &per_device, err);
    if (status == MOESIM_OK)
        status = set_hierarchy(&b, n_groups ? n_groups : 1, placement, cluster, err);
    if (status != MOESIM_OK)
        return status;
    struct moesim_arena *arena = moesim_arena_create(0);
    status = arena ? open_eplb(&b, arena, err) : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++)
        place_layer(&b, stats->load + (size_t)l * b.n_experts, &placement[l]);
    moesim_arena_destroy(arena);
    return status;
}

const struct moesim_placement_rule moesim_place_eplb = {
    .name = "eplb",
    .summary = "DeepSeek's load balancer: the hottest experts replicated, copies packed by load; by nodes and groups",
    .reference = "github.com/deepseek-ai/EPLB, rebalance_experts",
    .params = eplb_schema,
    .params_size = sizeof(struct eplb_params),
    .wants = MOESIM_WANTS_LOAD,
    .place = eplb_place,
};
