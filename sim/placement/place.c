/*
 * A rule applied: room for its placements, the experts on their devices, and how tokens will choose.
 */
#include "sim/placement/placement.h"

#include <string.h>

#include "sim/placement/replica.h"

uint32_t moesim_placement_room(const struct moesim_placement_rule *rule, const void *params, uint32_t n_experts)
{
    if (rule->room)
        return rule->room(params, n_experts);
    return rule->wants ? n_experts + moesim_placement_fit(rule, params)->redundant : n_experts;
}

uint32_t moesim_placement_choice(const struct moesim_placement_rule *rule, const void *params)
{
    uint32_t choice = MOESIM_ROUND_ROBIN;
    const struct moesim_param *row =
        moesim_schema_find((struct moesim_schema){rule->params, sizeof *rule->params}, "replica");
    if (row)
        memcpy(&choice, (const char *)params + row->offset, sizeof choice);
    return choice;
}

enum moesim_status moesim_placements_create(const struct moesim_placement_rule *rule, const void *params,
                                            uint32_t n_layers, uint32_t n_experts, const struct moesim_cluster *cluster,
                                            uint64_t max_pairs, struct moesim_arena *arena,
                                            struct moesim_placement **placements, struct moesim_error *err)
{
    const uint32_t room = moesim_placement_room(rule, params, n_experts);
    const uint32_t choice = moesim_placement_choice(rule, params);
    struct moesim_placement *p = moesim_alloc(arena, n_layers, sizeof *p);
    struct moesim_balance *shared = NULL;
    enum moesim_status status =
        p ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for the placements of %u layers", n_layers);
    for (uint32_t l = 0; l < n_layers && status == MOESIM_OK; l++) {
        status = moesim_placement_init(&p[l], n_experts, moesim_cluster_ep(cluster), room, arena, err);
        if (status == MOESIM_OK)
            status = moesim_replica_init(&p[l], choice, l, cluster, max_pairs, &shared, arena, err);
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
