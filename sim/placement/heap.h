/*
 * A binary heap of numbered keys: least key first, of equal keys the lower number first.
 */
#ifndef MOESIM_SIM_PLACEMENT_HEAP_H
#define MOESIM_SIM_PLACEMENT_HEAP_H

#include <stdbool.h>
#include <stdint.h>

struct moesim_heap_entry {
    double key;
    uint32_t id;
};

struct moesim_heap {
    uint32_t n;
    struct moesim_heap_entry *entry; /* room is the caller's */
};

static inline bool moesim_heap_before(struct moesim_heap_entry a, struct moesim_heap_entry b)
{
    return a.key < b.key || (a.key == b.key && a.id < b.id);
}

static inline void moesim_heap_push(struct moesim_heap *heap, double key, uint32_t id)
{
    const struct moesim_heap_entry new = {key, id};
    uint32_t i = heap->n++;
    for (; i > 0 && moesim_heap_before(new, heap->entry[(i - 1) / 2]); i = (i - 1) / 2)
        heap->entry[i] = heap->entry[(i - 1) / 2];
    heap->entry[i] = new;
}

/* Takes the first entry off a heap that is not empty. */
static inline struct moesim_heap_entry moesim_heap_pop(struct moesim_heap *heap)
{
    const struct moesim_heap_entry first = heap->entry[0], last = heap->entry[--heap->n];
    uint32_t i = 0;
    for (uint32_t child; (child = 2 * i + 1) < heap->n; i = child) {
        if (child + 1 < heap->n && moesim_heap_before(heap->entry[child + 1], heap->entry[child]))
            child++;
        if (!moesim_heap_before(heap->entry[child], last))
            break;
        heap->entry[i] = heap->entry[child];
    }
    heap->entry[i] = last;
    return first;
}

#endif
