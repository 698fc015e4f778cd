/*
 * Which replica of its expert serves a token.
 */
#ifndef MOESIM_SIM_REPLICA_H
#define MOESIM_SIM_REPLICA_H

#include <stdint.h>

#include <moesim/batch.h>
#include <moesim/plan.h>

#include "sim/placement/placement.h"

/* What `lp` works in, for the EP groups of a cluster: every array is by group. */
struct moesim_balance {
    uint32_t n_groups, n_experts, max_replicas;
    uint32_t *wanted;       /* [n_groups][n_experts] tokens to serve */
    uint32_t *quota;        /* [n_groups][max_replicas] tokens each replica shall serve */
    uint32_t *served;       /* [n_groups][max_replicas] so far */
    double *demand;         /* [n_experts] of one group */
    double *share;          /* [max_replicas] of one group */
    uint32_t *pair_replica; /* [max_pairs] of the plan prepared last */
    void *scratch;          /* of moesim_balance_solve */
};

/* Room for one way of choosing among the replicas of that layer. `shared` (NULL at first) is the room of `lp`, which
 * the layers of a run share. */
MOESIM_MUST_CHECK enum moesim_status moesim_replica_init(struct moesim_placement *placement, uint32_t choice,
                                                         uint32_t layer, const struct moesim_cluster *cluster,
                                                         uint64_t max_pairs, struct moesim_balance **shared,
                                                         struct moesim_arena *arena, struct moesim_error *err);

/* After the placement was filled: works out what does not depend on tokens; static and random draw by seed and layer.
 * EINVAL for local where EP groups are neither whole nodes nor parts of one. */
MOESIM_MUST_CHECK enum moesim_status moesim_replica_set(struct moesim_placement *placement, uint64_t seed,
                                                        const struct moesim_cluster *cluster, struct moesim_error *err);

/* Before moesim_replica_pick serves the pairs of a plan: `random` draws anew each step, `lp` looks at the loads. Pairs
 * that are refused or of no FFN expert (`expert_kind`, NULL = all FFN) are not served. */
void moesim_replica_prepare(struct moesim_placement *placement, const struct moesim_plan *plan,
                            const struct moesim_batch *batch, const uint8_t *expert_kind);

/* The replica (index into placement->replica) that serves pair number `pair` of the plan: `token`, on device `source`
 * of its EP group, to `expert`. */
static inline uint32_t moesim_replica_pick(const struct moesim_placement *placement, uint32_t source, uint32_t token,
                                           uint32_t expert, uint32_t pair)
{
    const uint32_t first = placement->first[expert];
    const uint32_t n = placement->first[expert + 1] - first;
    if (n == 1)
        return first;
    switch (placement->choice) {
    case MOESIM_ROUND_ROBIN:
        return first + token % n;
    case MOESIM_RANDOM:
        return first + moesim_random_below(&placement->random, (uint64_t)token * placement->n_experts + expert, n);
    case MOESIM_LP:
        return placement->balance->pair_replica[pair];
    default:
        return placement->nearest[(size_t)source * placement->n_experts + expert];
    }
}

/* Shares [first[n_experts]] of each expert's demand [n_experts] among its replicas, such that the load of the fullest
 * device is the least possible, up to one part in a million. `scratch` has moesim_balance_scratch() bytes. */
size_t moesim_balance_scratch(uint32_t n_devices);
void moesim_balance_solve(const struct moesim_placement *placement, const double *demand, double *share, void *scratch);

#endif
