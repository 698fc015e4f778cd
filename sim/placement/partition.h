/*
 * Experts shared into equal bins such that experts that belong together meet: a start, and a local search by swaps.
 */
#ifndef MOESIM_SIM_PLACEMENT_PARTITION_H
#define MOESIM_SIM_PLACEMENT_PARTITION_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

/* Bins are devices (or nodes); the weight of two experts counts when their bins are in one part: the bin itself, or the
 * node of a device. The caller sets the first block; moesim_partition_init makes the rest. */
struct moesim_partition {
    uint32_t n, n_bins, n_parts; /* experts, a multiple of the bins */
    const uint32_t *part;        /* [n_bins] */
    const double *weight;        /* [n][n] symmetric; the diagonal is not read */
    const double *load;          /* [n] */
    double cap;                  /* load that no bin should have more of */

    uint32_t *bin;       /* [n] where each expert is */
    double *bin_load;    /* [n_bins] */
    double *affinity;    /* [n][n_parts] weight of an expert and all others in the part */
    double value;        /* weight inside parts */
    double overload;     /* sum over bins of load beyond the cap */
    uint32_t *bin_items; /* [n_bins] */
};

MOESIM_MUST_CHECK enum moesim_status moesim_partition_init(struct moesim_partition *partition,
                                                           struct moesim_arena *arena, struct moesim_error *err);

/* Fills one bin after the other: of the experts that are left and keep it below the cap, the one with the most affinity
 * to its part, of equals the one with the most load; the one with the least load where none keeps it so. */
void moesim_partition_grow(struct moesim_partition *partition);

/* Swaps pairs of experts from `bin` on, while that lowers the overload, or keeps it and raises the value; each expert
 * in turn with the best of the others. Sets value and overload. */
void moesim_partition_improve(struct moesim_partition *partition);

#endif
