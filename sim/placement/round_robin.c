/*
 * round-robin: expert e on device e mod R.
 */
#include "sim/placement/rules.h"

static enum moesim_status place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                struct moesim_error *err)
{
    (void)params, (void)seed, (void)cluster, (void)err;
    for (uint32_t l = 0; l < stats->n_layers; l++) {
        for (uint32_t e = 0; e < placement[l].n_experts; e++)
            placement[l].primary[e] = e % placement[l].n_devices;
        moesim_placement_single(&placement[l]);
    }
    return MOESIM_OK;
}

const struct moesim_placement_rule moesim_place_round_robin = {
    .name = "round-robin",
    .summary = "expert e on device e mod R",
    .reference = "vLLM, --expert-placement-strategy round_robin",
    .place = place,
};
