/*
 * contiguous: expert e on device floor(e R / E).
 */
#include "sim/placement/rules.h"

static enum moesim_status place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                struct moesim_error *err)
{
    (void)params, (void)seed, (void)cluster, (void)err;
    for (uint32_t l = 0; l < stats->n_layers; l++) {
        for (uint32_t e = 0; e < placement[l].n_experts; e++)
            placement[l].primary[e] = moesim_block_owner(&placement[l], e);
        moesim_placement_single(&placement[l]);
    }
    return MOESIM_OK;
}

const struct moesim_placement_rule moesim_place_contiguous = {
    .name = "contiguous",
    .summary = "expert e on device floor(e R / E)",
    .reference = "the default of Megatron-LM, DeepSpeed, vLLM (\"linear\")",
    .place = place,
};
