/*
 * A rule applied: room for its placements, the experts on their devices, and how tokens will choose.
 */
#include "sim/placement/placement.h"

#include "sim/placement/replica.h"

enum moesim_status moesim_placements_create(const struct moesim_placement_rule *rule, const void *params,
                                            uint32_t n_layers, uint32_t n_experts, const struct moesim_cluster *cluster,
                                            uint64_t max_pairs, struct moesim_arena *arena,
                                            struct moesim_placement **placements, struct moesim_error *err)
{
    const struct moesim_placement_fit *fit = moesim_placement_fit(rule, params);
    struct moesim_placement *p = moesim_alloc(arena, n_layers, sizeof *p);
    struct moesim_balance *shared = NULL;
    enum moesim_status status =
        p ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for the placements of %u layers", n_layers);
    for (uint32_t l = 0; l < n_layers && status == MOESIM_OK; l++) {
        status = moesim_placement_init(&p[l], n_experts, moesim_cluster_ep(cluster),
                                       moesim_placement_room(rule, params, n_experts), arena, err);
        if (status == MOESIM_OK)
            status = moesim_replica_init(&p[l], fit ? fit->replica : MOESIM_ROUND_ROBIN, l, cluster, max_pairs, &shared,
                                         arena, err);
    }
    *placements = p;
    return status;
}

enum moesim_status moesim_place(const struct moesim_placement_rule *rule, const void *params,
                                const struct moesim_placement_stats *stats, uint64_t seed,
                                const struct moesim_cluster *cluster, struct moesim_placement *placements,
                                struct moesim_error *err)
{
    enum moesim_status status = rule->place(params, stats, seed, cluster, placements, err);
    for (uint32_t l = 0; l < stats->n_layers && status == MOESIM_OK; l++)
        status = moesim_replica_set(&placements[l], seed, cluster, err);
    return status;
}
