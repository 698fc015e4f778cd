/*
 * affinity: ExFlow's placement. A token's first choices in consecutive layers should be on one device, so that it has
 * not to move; every device has as many experts. As there, nodes are settled first, then the devices inside each.
 *
 * ExFlow solves an integer program over all layers. Here a layer's best placement between its neighbours' is an
 * assignment problem, which is solved exactly, for one layer after the other until none gains. It starts from the first
 * layer's experts grouped by common successors.
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

#include "sim/placement/partition.h"
#include "sim/placement/replicate.h"
#include "sim/placement/rules.h"

enum { MOST_PASSES = 50 };

struct affinity_params {
    struct moesim_placement_fit fit;
};

static const struct moesim_param affinity_schema[] = {
    MOESIM_PLACEMENT_FIT_PARAMS(struct affinity_params),
    MOESIM_PARAM_END,
};

/* In every layer, n of the experts to be shared into n_bins bins. */
struct chain {
    uint32_t n_layers, n_experts, n, n_bins;
    const double *next; /* [n_layers - 1][n_experts][n_experts] */
    uint32_t *member;   /* [n_layers][n] */
    uint32_t *bin;      /* [n_layers][n] of each member */

    float *value;         /* [n][n_bins] tokens that stay, of a member in a bin */
    uint32_t *assigned;   /* [n] */
    double *common, *one; /* [n][n] common successors; [n] ones */
    struct moesim_partition partition;
    struct moesim_assignment_scratch *assignment;
};

static enum moesim_status open_chain(struct chain *c, uint32_t n, uint32_t n_bins, struct moesim_arena *arena,
                                     struct moesim_error *err)
{
    c->n = n;
    c->n_bins = n_bins;
    uint32_t *part = moesim_alloc(arena, n_bins, sizeof *part);
#define ROOM(field, size) ((c->field = moesim_alloc(arena, (size), sizeof *c->field)) != NULL)
    const bool ok = ROOM(member, (size_t)c->n_layers * n) && ROOM(bin, (size_t)c->n_layers * n) &&
                    ROOM(value, (size_t)n * n_bins) && ROOM(assigned, n) && ROOM(common, (size_t)n * n) && ROOM(one, n);
#undef ROOM
    if (!part || !ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to place %u experts", n);
    for (uint32_t b = 0; b < n_bins; b++)
        part[b] = b;
    for (uint32_t i = 0; i < n; i++)
        c->one[i] = 1;
    c->partition = (struct moesim_partition){.n = n,
                                             .n_bins = n_bins,
                                             .n_parts = n_bins,
                                             .part = part,
                                             .weight = c->common,
                                             .load = c->one,
                                             .cap = (double)INFINITY};
    const struct moesim_env env = {.n_experts = n_bins, .max_tokens = n, .max_groups = 1, .arena = arena};
    const enum moesim_status status = moesim_partition_init(&c->partition, arena, err);
    return status ? status : moesim_assignment_init(&env, &c->assignment, err);
}

/* The first layer: members with common successors share a bin. */
static void group_first_layer(struct chain *c)
{
    const size_t n = c->n, e = c->n_experts;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            const double *of_i = c->next + c->member[i] * e, *of_j = c->next + c->member[j] * e;
            double common = 0;
            for (size_t k = 0; k < n; k++)
                common += of_i[c->member[n + k]] * of_j[c->member[n + k]];
            c->common[i * n + j] = common;
        }
    moesim_partition_grow(&c->partition);
    moesim_partition_improve(&c->partition);
    memcpy(c->bin, c->partition.bin, n * sizeof *c->bin);
}

/* Adds to `value` the tokens between the layer's members and those of a neighbour: the layer before, or the one after.
 */
static void add_values(struct chain *c, uint32_t layer, uint32_t neighbour)
{
    const size_t n = c->n, e = c->n_experts;
    const uint32_t *own = c->member + layer * n, *other = c->member + neighbour * n, *bin = c->bin + neighbour * n;
    const double *next = c->next + (neighbour < layer ? neighbour : layer) * e * e;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            c->value[i * c->n_bins + bin[j]] +=
                (float)(neighbour < layer ? next[other[j] * e + own[i]] : next[own[i] * e + other[j]]);
}

static double total_value(const struct chain *c, const uint32_t *bin)
{
    double sum = 0;
    for (size_t i = 0; i < c->n; i++)
        sum += (double)c->value[i * c->n_bins + bin[i]];
    return sum;
}

/* Assigns the layer's members anew, given the layer before and, if it has been placed, the one after. */
static bool place_between(struct chain *c, uint32_t layer, bool after)
{
    const uint32_t group[] = {0, c->n};
    const struct moesim_batch batch = {
        .struct_size = sizeof batch, .n_tokens = c->n, .n_experts = c->n_bins, .n_groups = 1, .group_start = group};
    uint32_t *bin = c->bin + (size_t)layer * c->n;
    memset(c->value, 0, (size_t)c->n * c->n_bins * sizeof *c->value);
    if (layer > 0)
        add_values(c, layer, layer - 1);
    if (after && layer + 1 < c->n_layers)
        add_values(c, layer, layer + 1);
    moesim_balanced_assignment(&batch, c->value, c->n_bins, c->assignment, c->assigned);
    if (after && !(total_value(c, c->assigned) > total_value(c, bin)))
        return false;
    memcpy(bin, c->assigned, c->n * sizeof *bin);
    return true;
}

static void place_chain(struct chain *c)
{
    if (c->n_layers == 1) { /* nothing is known: in order */
        for (uint32_t i = 0; i < c->n; i++)
            c->bin[i] = i / (c->n / c->n_bins);
        return;
    }
    group_first_layer(c);
    for (uint32_t l = 1; l < c->n_layers; l++)
        (void)place_between(c, l, false);
    bool gained = true;
    for (uint32_t pass = 0; pass < MOST_PASSES && gained; pass++) {
        gained = false;
        for (uint32_t l = 0; l < c->n_layers; l++)
            gained |= place_between(c, l, true);
    }
}

/* All experts into nodes; the result is in `nodes`. */
static void place_in_nodes(struct chain *nodes)
{
    for (size_t l = 0; l < nodes->n_layers; l++)
        for (uint32_t i = 0; i < nodes->n; i++)
            nodes->member[l * nodes->n + i] = i;
    if (nodes->n_bins > 1)
        place_chain(nodes);
}

/* A node's experts into its devices. */
static void place_in_devices(struct chain *c, const struct chain *nodes, uint32_t node,
                             struct moesim_placement *placement)
{
    for (size_t l = 0; l < c->n_layers; l++) {
        uint32_t n = 0;
        for (uint32_t e = 0; e < nodes->n; e++)
            if (nodes->bin[l * nodes->n + e] == node)
                c->member[l * c->n + n++] = e;
    }
    place_chain(c);
    for (size_t l = 0; l < c->n_layers; l++)
        for (uint32_t i = 0; i < c->n; i++)
            placement[l].primary[c->member[l * c->n + i]] = node * c->n_bins + c->bin[l * c->n + i];
}

static enum moesim_status affinity_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                         const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                         struct moesim_error *err)
{
    (void)params, (void)seed;
    const uint32_t n_devices = placement->n_devices, n = stats->n_experts;
    const uint32_t n_nodes = moesim_placement_nodes(placement, cluster);
    uint32_t per_device;
    enum moesim_status status = moesim_equal_slots(placement, n, false, &per_device, err);
    if (status != MOESIM_OK)
        return status;
    struct chain nodes = {.n_layers = stats->n_layers, .n_experts = n, .next = stats->next}, devices = nodes;
    struct moesim_arena *arena = moesim_arena_create(0);
    status =
        arena ? open_chain(&nodes, n, n_nodes, arena, err) : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (status == MOESIM_OK)
        status = open_chain(&devices, n / n_nodes, n_devices / n_nodes, arena, err);
    if (status == MOESIM_OK) {
        place_in_nodes(&nodes);
        for (uint32_t node = 0; node < n_nodes; node++)
            place_in_devices(&devices, &nodes, node, placement);
        for (uint32_t l = 0; l < stats->n_layers; l++)
            moesim_placement_single(&placement[l]);
    }
    moesim_arena_destroy(arena);
    return status;
}

const struct moesim_placement_rule moesim_place_affinity = {
    .name = "affinity",
    .summary = "a token's first choices in consecutive layers on one node, then on one device; as many on each",
    .reference = "Yao et al. 2024, ExFlow, arXiv:2401.08383",
    .params = affinity_schema,
    .params_size = sizeof(struct affinity_params),
    .wants = MOESIM_WANTS_NEXT,
    .place = affinity_place,
};
