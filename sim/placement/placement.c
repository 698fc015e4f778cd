/*
 * A placement's memory, and its two views: by slot and by expert.
 */
#include "sim/placement/placement.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

enum moesim_status moesim_placement_init(struct moesim_placement *placement, uint32_t n_experts, uint32_t n_devices,
                                         uint32_t max_replicas, struct moesim_arena *arena, struct moesim_error *err)
{
    assert(n_devices > 0 && max_replicas >= n_experts);
    *placement = (struct moesim_placement){
        .n_experts = n_experts,
        .n_devices = n_devices,
        .max_replicas = max_replicas,
        .device_slot = moesim_alloc(arena, (size_t)n_devices + 1, sizeof *placement->device_slot),
        .expert = moesim_alloc(arena, max_replicas, sizeof *placement->expert),
        .first = moesim_alloc(arena, (size_t)n_experts + 1, sizeof *placement->first),
        .replica = moesim_alloc(arena, max_replicas, sizeof *placement->replica),
        .primary = moesim_alloc(arena, n_experts, sizeof *placement->primary),
    };
    if (!placement->device_slot || !placement->expert || !placement->first || !placement->replica ||
        !placement->primary)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the placement of %u experts", n_experts);
    return MOESIM_OK;
}

enum moesim_status moesim_placement_stats_init(struct moesim_placement_stats *stats, uint32_t wants, uint32_t n_layers,
                                               uint32_t n_experts, struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t layer = n_experts, square = layer * n_experts, steps = n_layers ? n_layers - 1 : 0;
    *stats = (struct moesim_placement_stats){
        .n_layers = n_layers,
        .n_experts = n_experts,
        .load = wants & MOESIM_WANTS_LOAD ? moesim_alloc(arena, n_layers * layer, sizeof(double)) : NULL,
        .together = wants & MOESIM_WANTS_TOGETHER ? moesim_alloc(arena, n_layers * square, sizeof(double)) : NULL,
        .next = wants & MOESIM_WANTS_NEXT ? moesim_alloc(arena, steps * square, sizeof(double)) : NULL,
    };
    if ((wants & MOESIM_WANTS_LOAD && !stats->load) || (wants & MOESIM_WANTS_TOGETHER && !stats->together) ||
        (wants & MOESIM_WANTS_NEXT && !stats->next))
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the loads of %u experts in %u layers", n_experts,
                           n_layers);
    return MOESIM_OK;
}

enum moesim_status moesim_placement_fit_check(const struct moesim_placement_rule *rule, const void *params,
                                              uint32_t warm_up, struct moesim_error *err)
{
    const struct moesim_placement_fit *fit = moesim_placement_fit(rule, params);
    if (!fit)
        return MOESIM_OK;
    const enum moesim_placement_source source = moesim_placement_source(fit);
    if (source == MOESIM_FROM_WARM_UP && fit->fit_steps > warm_up)
        return moesim_fail(err, MOESIM_EINVAL,
                           "fit_steps = %u, but the study's warm_up has %u steps to fit on: leave warm_up out, or make "
                           "it longer",
                           fit->fit_steps, warm_up);
    if (source == MOESIM_FROM_ORACLE && rule->wants & MOESIM_WANTS_NEXT)
        return moesim_fail(err, MOESIM_EINVAL,
                           "from = oracle places a layer before the next one is routed, but %s looks from layer to "
                           "layer: use warm-up or a file",
                           rule->name);
    if (source == MOESIM_FROM_FILE && rule->wants & (MOESIM_WANTS_TOGETHER | MOESIM_WANTS_NEXT))
        return moesim_fail(err, MOESIM_EINVAL,
                           "from = %.200s: a file has loads, but %s looks at which experts a token uses: use warm-up",
                           fit->from, rule->name);
    if (source == MOESIM_FROM_ORACLE && (fit->every || fit->window))
        return moesim_fail(err, MOESIM_EINVAL, "from = oracle places anew at every step: every and window should be 0");
    if (fit->window > fit->every)
        return moesim_fail(err, MOESIM_EINVAL, "window = %u is longer than every = %u, the steps between re-placements",
                           fit->window, fit->every);
    return MOESIM_OK;
}

void moesim_placement_index(struct moesim_placement *placement)
{
    const uint32_t n = placement->n_experts;
    uint32_t *first = placement->first;
    memset(first, 0, ((size_t)n + 1) * sizeof *first);
    for (uint32_t s = 0; s < placement->device_slot[placement->n_devices]; s++)
        first[placement->expert[s]]++;
    for (uint32_t e = 0, sum = 0; e <= n; e++) {
        const uint32_t count = first[e];
        assert(e == n || count > 0);
        first[e] = sum;
        sum += count;
    }
    /* first[e] runs over e's replicas while they are filled in, which leaves it where e + 1 begins. */
    for (uint32_t d = 0; d < placement->n_devices; d++)
        for (uint32_t s = placement->device_slot[d]; s < placement->device_slot[d + 1]; s++)
            placement->replica[first[placement->expert[s]]++] = d;
    memmove(first + 1, first, n * sizeof *first);
    first[0] = 0;
    for (uint32_t e = 0; e < n; e++)
        placement->primary[e] = placement->replica[first[e]];
}

void moesim_placement_single(struct moesim_placement *placement)
{
    uint32_t *slot = placement->device_slot;
    memset(slot, 0, ((size_t)placement->n_devices + 1) * sizeof *slot);
    for (uint32_t e = 0; e < placement->n_experts; e++)
        slot[placement->primary[e]]++;
    for (uint32_t d = 0, sum = 0; d <= placement->n_devices; d++) {
        const uint32_t count = slot[d];
        slot[d] = sum;
        sum += count;
    }
    for (uint32_t e = 0; e < placement->n_experts; e++)
        placement->expert[slot[placement->primary[e]]++] = e;
    memmove(slot + 1, slot, placement->n_devices * sizeof *slot);
    slot[0] = 0;
    moesim_placement_index(placement);
}
