/*
 * optimal: the least load of the fullest device, with as many experts on every device, by branch and bound. Experts by
 * falling load; of devices that are alike so far one is tried; the first leaf is lpt's placement. An oracle for small
 * layers.
 */
#include <string.h>

#include "sim/placement/replicate.h"
#include "sim/placement/rules.h"

enum { MOST_EXPERTS = 16, MOST_DEVICES = 4 };

struct optimal_params {
    struct moesim_placement_fit fit;
};

static const struct moesim_param optimal_schema[] = {
    MOESIM_PLACEMENT_FIT_PARAMS(struct optimal_params),
    MOESIM_PARAM_END,
};

struct branch {
    uint32_t n_experts, n_devices, per_device;
    struct moesim_heap_entry expert[MOST_EXPERTS]; /* by falling load */
    double load[MOST_DEVICES];
    uint32_t items[MOST_DEVICES];
    uint32_t owner[MOST_EXPERTS]; /* of expert[i] */
    double bound;                 /* that no placement can be below */
    double best;
    uint32_t best_owner[MOST_EXPERTS];
};

static bool is_alike(const struct branch *b, uint32_t d, uint32_t e)
{
    return b->load[d] == b->load[e] && b->items[d] == b->items[e];
}

/* The devices with a free slot, the least loaded first, one of each kind. */
static uint32_t devices_to_try(const struct branch *b, uint32_t device[MOST_DEVICES])
{
    uint32_t n = 0;
    for (uint32_t d = 0; d < b->n_devices; d++) {
        bool again = b->items[d] == b->per_device;
        for (uint32_t i = 0; i < n; i++)
            again |= is_alike(b, d, device[i]);
        if (again)
            continue;
        uint32_t at = n++;
        for (; at > 0 && b->load[device[at - 1]] > b->load[d]; at--)
            device[at] = device[at - 1];
        device[at] = d;
    }
    return n;
}

/* Places experts from number i on; `most` is the fullest device's load so far. */
static void search(struct branch *b, uint32_t i, double most)
{
    if (i == b->n_experts) {
        b->best = most;
        memcpy(b->best_owner, b->owner, sizeof b->owner);
        return;
    }
    uint32_t device[MOST_DEVICES];
    const uint32_t n = devices_to_try(b, device);
    for (uint32_t j = 0; j < n && b->best > b->bound; j++) {
        const uint32_t d = device[j];
        const double before = b->load[d], after = before + b->expert[i].key;
        if (after >= b->best)
            break; /* so would be the others, which are fuller */
        b->load[d] = after;
        b->items[d]++;
        b->owner[i] = d;
        search(b, i + 1, after > most ? after : most);
        b->load[d] = before;
        b->items[d]--;
    }
}

static void place_layer(struct branch *b, const double *load, struct moesim_placement *placement)
{
    double total = 0;
    for (uint32_t e = 0; e < b->n_experts; e++) {
        b->expert[e] = (struct moesim_heap_entry){load[e], e};
        total += load[e];
    }
    moesim_sort_falling(b->expert, b->n_experts);
    memset(b->load, 0, sizeof b->load);
    memset(b->items, 0, sizeof b->items);
    b->bound = total / b->n_devices;
    b->best = 2 * total + 1;
    search(b, 0, 0);
    for (uint32_t i = 0; i < b->n_experts; i++)
        placement->primary[b->expert[i].id] = b->best_owner[i];
    moesim_placement_single(placement);
}

static enum moesim_status optimal_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                        const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                        struct moesim_error *err)
{
    (void)params, (void)seed, (void)cluster;
    struct branch b = {.n_experts = stats->n_experts, .n_devices = placement->n_devices};
    if (b.n_experts > MOST_EXPERTS || b.n_devices > MOST_DEVICES)
        return moesim_fail(err, MOESIM_EINVAL,
                           "every placement is searched, which takes too long for %u experts on %u devices; at most %d "
                           "on %d can be placed so, lpt places any number",
                           b.n_experts, b.n_devices, MOST_EXPERTS, MOST_DEVICES);
    const enum moesim_status status = moesim_equal_slots(placement, b.n_experts, false, &b.per_device, err);
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++)
        place_layer(&b, stats->load + (size_t)l * b.n_experts, &placement[l]);
    return status;
}

const struct moesim_placement_rule moesim_place_optimal = {
    .name = "optimal",
    .summary = "the least load of the fullest device, by branch and bound: at most 16 experts on 4 devices",
    .reference = "an oracle for the other rules",
    .params = optimal_schema,
    .params_size = sizeof(struct optimal_params),
    .wants = MOESIM_WANTS_LOAD,
    .place = optimal_place,
};
