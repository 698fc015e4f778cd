/*
 * coactivation: experts that tokens choose together on one device (or node), so that a token goes to fewer of them,
 * with as many experts on every device and a cap on its load. Maximises the co-activations inside; two choices of a
 * token in one place save it one copy.
 *
 * The partition problem is that of Occult (arXiv:2505.13345) and C2R (arXiv:2504.01337); the search is ours.
 */
#include <string.h>

#include "sim/placement/partition.h"
#include "sim/placement/replicate.h"
#include "sim/placement/rules.h"

enum objective { BY_DEVICE, BY_NODE };

struct coactivation_params {
    struct moesim_placement_fit fit;
    uint32_t objective;
    double load_cap;
};

static const struct moesim_param coactivation_schema[] = {
    MOESIM_CHOICE(struct coactivation_params, objective, "device", "device|node",
                  "where two experts of a token should meet"),
    MOESIM_PARAM(struct coactivation_params, load_cap, "1.1", 1, 1e6,
                 "load that a device should not pass, in multiples of the mean"),
    MOESIM_PLACEMENT_FIT_PARAMS(struct coactivation_params),
    MOESIM_PARAM_END,
};

/* Keeps the better of two partitions in `best`. */
static void keep_better(const struct moesim_partition *found, uint32_t *best, double *overload, double *value)
{
    if (found->overload > *overload || (found->overload == *overload && found->value <= *value))
        return;
    memcpy(best, found->bin, found->n * sizeof *best);
    *overload = found->overload;
    *value = found->value;
}

/* From lpt's placement, which is balanced, and from one grown by co-activation. */
static void place_layer(struct moesim_partition *p, double load_cap, struct moesim_placement *placement)
{
    double total = 0, overload, value;
    for (uint32_t e = 0; e < p->n; e++)
        total += p->load[e];
    p->cap = load_cap * total / p->n_bins;
    memcpy(p->bin, placement->primary, p->n * sizeof *p->bin);
    moesim_partition_improve(p);
    memcpy(placement->primary, p->bin, p->n * sizeof *p->bin);
    overload = p->overload;
    value = p->value;
    moesim_partition_grow(p);
    moesim_partition_improve(p);
    keep_better(p, placement->primary, &overload, &value);
    moesim_placement_single(placement);
}

static enum moesim_status open_partition(struct moesim_partition *p, uint32_t objective,
                                         const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                         struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n_devices = placement->n_devices;
    uint32_t *part = moesim_alloc(arena, n_devices, sizeof *part);
    if (!part)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u devices", n_devices);
    for (uint32_t d = 0; d < n_devices; d++)
        part[d] = objective == BY_NODE ? d / (n_devices / moesim_placement_nodes(placement, cluster)) : d;
    p->n = placement->n_experts;
    p->n_bins = n_devices;
    p->n_parts = part[n_devices - 1] + 1;
    p->part = part;
    return moesim_partition_init(p, arena, err);
}

static enum moesim_status coactivation_place(const void *params, const struct moesim_placement_stats *stats,
                                             uint64_t seed, const struct moesim_cluster *cluster,
                                             struct moesim_placement *placement, struct moesim_error *err)
{
    const struct coactivation_params *p = params;
    uint32_t per_device;
    enum moesim_status status = moesim_equal_slots(placement, stats->n_experts, false, &per_device, err);
    if (status != MOESIM_OK)
        return status;
    struct moesim_partition partition = {0};
    struct moesim_arena *arena = moesim_arena_create(0);
    status = arena ? open_partition(&partition, p->objective, placement, cluster, arena, err)
                   : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (status == MOESIM_OK)
        status = moesim_place_lpt.place(&p->fit, stats, seed, cluster, placement, err);
    const size_t n = stats->n_experts;
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++) {
        partition.load = stats->load + l * n;
        partition.weight = stats->together + l * n * n;
        place_layer(&partition, p->load_cap, &placement[l]);
    }
    moesim_arena_destroy(arena);
    return status;
}

const struct moesim_placement_rule moesim_place_coactivation = {
    .name = "coactivation",
    .summary = "experts that tokens choose together share a device or node, as many on each and below a load cap",
    .reference = "Luo et al. 2025, Occult, arXiv:2505.13345; Zhang et al. 2025, C2R, arXiv:2504.01337",
    .params = coactivation_schema,
    .params_size = sizeof(struct coactivation_params),
    .wants = MOESIM_WANTS_LOAD | MOESIM_WANTS_TOGETHER,
    .place = coactivation_place,
};
