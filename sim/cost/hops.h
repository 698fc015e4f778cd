/*
 * Copies between ends (devices or nodes) that are used: a sparse matrix, as large as it has entries.
 */
#ifndef MOESIM_SIM_COST_HOPS_H
#define MOESIM_SIM_COST_HOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/outcome.h>

struct moesim_hop {
    uint32_t source, target;
    uint64_t copies; /* 0 = a free place */
};

/* Open addressing; `hop` [room], room a power of two. Grows from the arena. */
struct moesim_hops {
    struct moesim_arena *arena;
    struct moesim_hop *hop;
    size_t n, room;
    bool failed; /* memory ran out: entries are missing */
};

static inline void moesim_hops_init(struct moesim_hops *hops, struct moesim_arena *arena)
{
    *hops = (struct moesim_hops){.arena = arena};
}

/* Adds copies from source to target; 0 copies add nothing. Without memory the whole is marked `failed`. */
void moesim_hops_add(struct moesim_hops *hops, uint32_t source, uint32_t target, uint64_t copies);

/* Forgets all entries, keeps the room. */
void moesim_hops_clear(struct moesim_hops *hops);

/* Adds the other's entries, with the ends' numbers divided by `size` (devices to nodes); 1 takes them as they are. */
void moesim_hops_add_all(struct moesim_hops *hops, const struct moesim_hops *other, uint32_t size);

/* Bytes by source, then target, when each copy is `there_bytes` and its answer, the other way, `back_bytes`: at most
 * 2 hops->n rows of MOESIM_LINK_DEVICE, whose number is returned. */
size_t moesim_hops_bytes(const struct moesim_hops *hops, double there_bytes, double back_bytes,
                         struct moesim_traffic *traffic);

#endif
