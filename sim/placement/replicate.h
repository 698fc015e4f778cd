/*
 * What load-aware rules share: equal slots for every device, greedy replication, experts by load.
 */
#ifndef MOESIM_SIM_PLACEMENT_REPLICATE_H
#define MOESIM_SIM_PLACEMENT_REPLICATE_H

#include <stdint.h>

#include <moesim/status.h>

#include "sim/placement/heap.h"
#include "sim/placement/placement.h"

/* Slots of each device when n_slots are shared evenly. EINVAL when they cannot be; `redundant` says whether more of
 * them would help. */
MOESIM_MUST_CHECK enum moesim_status moesim_equal_slots(const struct moesim_placement *placement, uint32_t n_slots,
                                                        bool redundant, uint32_t *per_device, struct moesim_error *err);

/* EPLB's replication: one copy of each of n experts, then, until there are n_slots, one more of the expert with the
 * greatest load per copy, of equal ones the first. Fills count [n]; copy [n_slots - n] (NULL = not asked for) has the
 * experts of the further copies in this order. An expert with `most` copies gets no more while there is another with
 * less. `entry` has room for n. */
void moesim_replicate(const float *load, uint32_t n, uint32_t n_slots, uint32_t most, uint32_t *count, uint32_t *copy,
                      struct moesim_heap_entry *entry);

/* Sorts n entries by falling key; of equal keys the lower id comes first. */
void moesim_sort_falling(struct moesim_heap_entry *entry, uint32_t n);

#endif
