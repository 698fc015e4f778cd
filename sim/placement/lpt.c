/*
 * lpt: longest processing time first, with as many slots on every device. Copies by falling load, each to the least
 * loaded device that has a free slot and, where that is possible, none of its expert yet.
 */
#include "sim/placement/replicate.h"
#include "sim/placement/rules.h"

struct lpt_params {
    struct moesim_placement_fit fit;
};

static const struct moesim_param lpt_schema[] = {
    MOESIM_PLACEMENT_REPLICA_PARAMS(struct lpt_params),
    MOESIM_PLACEMENT_FIT_PARAMS(struct lpt_params),
    MOESIM_PARAM_END,
};

struct lpt {
    uint32_t n_experts, n_slots, per_device;
    float *load;                                /* [n_experts] */
    uint32_t *count;                            /* [n_experts] copies */
    uint32_t *items;                            /* [n_devices] slots taken */
    uint32_t *stamp;                            /* [n_devices] the last expert put there, plus 1 */
    struct moesim_heap_entry *sorted, *entries; /* [n_experts]; [max(n_experts, n_devices)] */
    struct moesim_heap_entry *passed;           /* [n_devices] */
};

static enum moesim_status open_lpt(struct lpt *b, uint32_t n_devices, struct moesim_arena *arena,
                                   struct moesim_error *err)
{
    const size_t n = b->n_experts, larger = n > n_devices ? n : n_devices;
#define ROOM(field, size) ((b->field = moesim_alloc(arena, (size), sizeof *b->field)) != NULL)
    const bool ok = ROOM(load, n) && ROOM(count, n) && ROOM(items, n_devices) && ROOM(stamp, n_devices) &&
                    ROOM(sorted, n) && ROOM(entries, larger) && ROOM(passed, n_devices);
#undef ROOM
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory to place %u experts", b->n_experts);
}

/* One copy of expert e, of that load. The copies of an expert are placed one after the other, so the last expert of a
 * device tells whether it has one. */
static void place_copy(struct lpt *b, struct moesim_heap *devices, uint32_t e, double load, uint32_t *expert)
{
    uint32_t n_passed = 0;
    while (devices->n > 0 && b->stamp[devices->entry[0].id] == e + 1)
        b->passed[n_passed++] = moesim_heap_pop(devices);
    const bool all_have_one = devices->n == 0;
    const struct moesim_heap_entry device = all_have_one ? b->passed[0] : moesim_heap_pop(devices);
    for (uint32_t i = all_have_one; i < n_passed; i++)
        moesim_heap_push(devices, b->passed[i].key, b->passed[i].id);
    expert[device.id * b->per_device + b->items[device.id]++] = e;
    b->stamp[device.id] = e + 1;
    if (b->items[device.id] < b->per_device)
        moesim_heap_push(devices, device.key + load, device.id);
}

static void place_layer(struct lpt *b, const double *load, struct moesim_placement *placement)
{
    const uint32_t n_devices = placement->n_devices;
    for (uint32_t e = 0; e < b->n_experts; e++)
        b->load[e] = (float)load[e];
    moesim_replicate(b->load, b->n_experts, b->n_slots, n_devices, b->count, NULL, b->entries);
    for (uint32_t e = 0; e < b->n_experts; e++)
        b->sorted[e] = (struct moesim_heap_entry){load[e] / b->count[e], e};
    moesim_sort_falling(b->sorted, b->n_experts);
    struct moesim_heap devices = {.entry = b->entries};
    for (uint32_t d = 0; d < n_devices; d++) {
        b->items[d] = b->stamp[d] = 0;
        moesim_heap_push(&devices, 0, d);
    }
    for (uint32_t i = 0; i < b->n_experts; i++)
        for (uint32_t c = 0; c < b->count[b->sorted[i].id]; c++)
            place_copy(b, &devices, b->sorted[i].id, b->sorted[i].key, placement->expert);
    for (uint32_t d = 0; d <= n_devices; d++)
        placement->device_slot[d] = d * b->per_device;
    moesim_placement_index(placement);
}

static enum moesim_status lpt_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                    const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                    struct moesim_error *err)
{
    (void)seed, (void)cluster;
    const struct lpt_params *p = params;
    struct lpt b = {.n_experts = stats->n_experts, .n_slots = stats->n_experts + p->fit.redundant};
    enum moesim_status status = moesim_equal_slots(placement, b.n_slots, true, &b.per_device, err);
    if (status != MOESIM_OK)
        return status;
    struct moesim_arena *arena = moesim_arena_create(0);
    status =
        arena ? open_lpt(&b, placement->n_devices, arena, err) : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++)
        place_layer(&b, stats->load + (size_t)l * b.n_experts, &placement[l]);
    moesim_arena_destroy(arena);
    return status;
}

const struct moesim_placement_rule moesim_place_lpt = {
    .name = "lpt",
    .summary = "experts by falling load, each to the least loaded device with a free slot; as many on every device",
    .reference = "Graham 1969, longest processing time first, with equal cardinality",
    .params = lpt_schema,
    .params_size = sizeof(struct lpt_params),
    .wants = MOESIM_WANTS_LOAD,
    .place = lpt_place,
};
