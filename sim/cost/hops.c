/*
 * A hash table of pairs of ends.
 */
#include "sim/cost/hops.h"

#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 256 };

/* The place of the pair, or the free one where it belongs (the finalizer of MurmurHash3 spreads the key). */
static struct moesim_hop *find(struct moesim_hop *hop, size_t room, uint32_t source, uint32_t target)
{
    uint64_t key = (uint64_t)source << 32 | target;
    key = (key ^ key >> 33) * 0xff51afd7ed558ccd;
    key = (key ^ key >> 33) * 0xc4ceb9fe1a85ec53;
    size_t at = (size_t)(key ^ key >> 33) & (room - 1);
    while (hop[at].copies && (hop[at].source != source || hop[at].target != target))
        at = (at + 1) & (room - 1);
    return &hop[at];
}

static bool grow(struct moesim_hops *hops)
{
    const size_t room = hops->room ? 2 * hops->room : FIRST_ROOM;
    struct moesim_hop *larger = moesim_alloc(hops->arena, room, sizeof *larger);
    if (!larger) {
        hops->failed = true;
        return false;
    }
    for (size_t i = 0; i < hops->room; i++)
        if (hops->hop[i].copies)
            *find(larger, room, hops->hop[i].source, hops->hop[i].target) = hops->hop[i];
    hops->hop = larger;
    hops->room = room;
    return true;
}

void moesim_hops_add(struct moesim_hops *hops, uint32_t source, uint32_t target, uint64_t copies)
{
    if (copies == 0 || (4 * (hops->n + 1) > 3 * hops->room && !grow(hops)))
        return;
    struct moesim_hop *hop = find(hops->hop, hops->room, source, target);
    hops->n += hop->copies == 0;
    hop->source = source;
    hop->target = target;
    hop->copies += copies;
}

void moesim_hops_clear(struct moesim_hops *hops)
{
    if (hops->n)
        memset(hops->hop, 0, hops->room * sizeof *hops->hop);
    hops->n = 0;
    hops->failed = false;
}

void moesim_hops_add_all(struct moesim_hops *hops, const struct moesim_hops *other, uint32_t size)
{
    for (size_t i = 0; i < other->room; i++)
        moesim_hops_add(hops, other->hop[i].source / size, other->hop[i].target / size, other->hop[i].copies);
    hops->failed |= other->failed;
}

static int by_ends(const void *a, const void *b)
{
    const struct moesim_traffic *x = a, *y = b;
    if (x->source != y->source)
        return x->source < y->source ? -1 : 1;
    if (x->target != y->target)
        return x->target < y->target ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

size_t moesim_hops_bytes(const struct moesim_hops *hops, double there_bytes, double back_bytes,
                         struct moesim_traffic *traffic)
{
    size_t n = 0, n_rows = 0;
    for (size_t i = 0; i < hops->room; i++) {
        const struct moesim_hop *hop = &hops->hop[i];
        if (!hop->copies)
            continue;
        traffic[n++] =
            (struct moesim_traffic){hop->source, hop->target, (double)hop->copies * there_bytes, MOESIM_LINK_DEVICE};
        traffic[n++] =
            (struct moesim_traffic){hop->target, hop->source, (double)hop->copies * back_bytes, MOESIM_LINK_DEVICE};
    }
    qsort(traffic, n, sizeof *traffic, by_ends);
    for (size_t i = 0; i < n; i++) {
        struct moesim_traffic *last = n_rows ? &traffic[n_rows - 1] : NULL;
        if (last && last->source == traffic[i].source && last->target == traffic[i].target)
            last->bytes += traffic[i].bytes;
        else
            traffic[n_rows++] = traffic[i];
    }
    return n_rows;
}
