/*
 * Whether a point's model fits its devices, before anything runs.
 */
#include "sim/cost/memory.h"
#include "sim/study/resolve.h"

/* Even load: the best a placement can hope for. */
enum moesim_status moesim_point_fits(const struct moesim_point *p, const struct moesim_placement *placement,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n_devices = moesim_cluster_devices(&p->cluster);
    const double tokens = (double)p->n_tokens / n_devices, pairs = tokens * p->model.top_k;
    struct moesim_memory *memory = moesim_alloc(arena, n_devices, sizeof *memory);
    if (!memory)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for the study");
    for (uint32_t l = 0; l < p->model.layers; l++) {
        moesim_memory_add_weights(placement, &p->cluster, &p->model, &p->options, p->model.experts, NULL, memory);
        for (uint32_t d = 0; d < n_devices; d++)
            moesim_memory_add_tokens(&p->model, &p->options, tokens, pairs, pairs, &memory[d]);
    }
    const double need = moesim_memory_total(&memory[moesim_memory_fullest(memory, n_devices)]);
    if (p->cluster.memory_bytes == 0 || need <= p->cluster.memory_bytes)
        return MOESIM_OK;
    return moesim_fail(
        err, MOESIM_EINVAL,
        "the fullest device needs at least %.3g GB for its part of the model, but has %.3g GB; take more "
        "devices or a smaller model, or leave out oversize = refuse",
        need / 1e9, p->cluster.memory_bytes / 1e9);
}
