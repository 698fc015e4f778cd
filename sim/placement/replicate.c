/*
 * Replication and order by load.
 */
#include "sim/placement/replicate.h"

#include <stdlib.h>

enum moesim_status moesim_equal_slots(const struct moesim_placement *placement, uint32_t n_slots, bool redundant,
                                      uint32_t *per_device, struct moesim_error *err)
{
    const uint32_t n = placement->n_experts, devices = placement->n_devices;
    *per_device = n_slots / devices;
    if (n_slots % devices == 0)
        return MOESIM_OK;
    const uint32_t next = (n_slots / devices + 1) * devices;
    if (!redundant)
        return moesim_fail(err, MOESIM_EINVAL,
                           "%u experts do not divide by the %u devices of an EP group, and every device holds as many",
                           n, devices);
    return moesim_fail(err, MOESIM_EINVAL,
                       "redundant = %u: %u experts and %u further copies are %u slots, which do not divide by the %u "
                       "devices of an EP group; redundant = %u would",
                       n_slots - n, n, n_slots - n, n_slots, devices, next - n);
}

void moesim_replicate(const float *load, uint32_t n, uint32_t n_slots, uint32_t most, uint32_t *count, uint32_t *copy,
                      struct moesim_heap_entry *entry)
{
    struct moesim_heap heap = {.entry = entry};
    for (uint32_t e = 0; e < n; e++) {
        count[e] = 1;
        moesim_heap_push(&heap, -(double)load[e], e);
    }
    for (uint32_t i = 0; i < n_slots - n; i++) {
        const uint32_t e = moesim_heap_pop(&heap).id;
        if (copy)
            copy[i] = e;
        count[e]++;
        moesim_heap_push(&heap, count[e] < most ? -(double)(load[e] / (float)count[e]) : count[e], e);
    }
}

static int falling(const void *a, const void *b)
{
    const struct moesim_heap_entry *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

void moesim_sort_falling(struct moesim_heap_entry *entry, uint32_t n)
{
    qsort(entry, n, sizeof *entry, falling);
}
