/*
 * random: a contiguous placement of the experts in a random order (Fisher-Yates), so that device sizes differ by one at
 * most.
 */
#include <moesim/random.h>

#include "sim/placement/rules.h"

static void place_layer(uint64_t seed, uint32_t layer, struct moesim_placement *placement)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_PLACEMENT, .layer = layer};
    uint32_t *order = placement->replica;
    for (uint32_t i = 0; i < placement->n_experts; i++)
        order[i] = i;
    for (uint32_t i = placement->n_experts; i > 1; i--) {
        const uint32_t j = moesim_random_below(&random, i, i);
        const uint32_t expert = order[i - 1];
        order[i - 1] = order[j];
        order[j] = expert;
    }
    for (uint32_t i = 0; i < placement->n_experts; i++)
        placement->primary[order[i]] = moesim_block_owner(placement, i);
    moesim_placement_single(placement);
}

static enum moesim_status place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                struct moesim_error *err)
{
    (void)params, (void)cluster, (void)err;
    for (uint32_t l = 0; l < stats->n_layers; l++)
        place_layer(seed, l, &placement[l]);
    return MOESIM_OK;
}

const struct moesim_placement_rule moesim_place_random = {
    .name = "random",
    .summary = "a seeded permutation of the experts, then contiguous; another one for every layer",
    .reference = "a baseline",
    .place = place,
};
