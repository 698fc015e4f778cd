/*
 * Memory by device. Activations are those of the MoE layer: its input, and for each row the input, inner columns and
 * output that the grouped GEMM moves; attention's are left out.
 */
#include "sim/cost/memory.h"

#include <math.h>

#include "sim/cost/compute.h"
#include "sim/cost/sync.h"

/* Weights on one device, whose optimizer state is `copies` times there. */
static void add(const struct moesim_model *model, const struct moesim_cost_options *options, double weights,
                double weight_bytes, double copies, struct moesim_memory *memory)
{
    memory->weights += weights * weight_bytes;
    if (!options->backward)
        return;
    const double holders = model->optimizer == MOESIM_OPTIMIZER_SHARDED ? copies : 1;
    memory->gradients += weights * model->gradient_bytes;
    memory->optimizer += weights * model->optimizer_bytes / holders;
}

void moesim_memory_add_weights(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                               const struct moesim_model *model, const struct moesim_cost_options *options,
                               uint32_t gate_columns, const uint8_t *expert_kind, struct moesim_memory *memory)
{
    const uint32_t n_devices = moesim_cluster_devices(cluster), ep = placement->n_devices, n_groups = n_devices / ep;
    const double expert = moesim_model_expert_weights(model), shared = model->shared_experts * expert;
    const double dense = moesim_model_device_dense(model, gate_columns, moesim_cluster_tp(cluster)) - shared;
    for (uint32_t d = 0; d < n_devices; d++) {
        add(model, options, dense, model->dense_bytes, moesim_cluster_dp(cluster), &memory[d]);
        add(model, options, shared, model->weight_bytes, moesim_cluster_dp(cluster), &memory[d]);
    }
    for (uint32_t e = 0; e < placement->n_experts; e++) {
        const double copies = (double)n_groups * moesim_expert_devices(placement, e);
        for (uint32_t r = placement->first[e]; moesim_is_ffn(expert_kind, e) && r < placement->first[e + 1]; r++)
            for (uint32_t base = 0; base < n_devices; base += ep)
                add(model, options, expert, model->weight_bytes, copies, &memory[base + placement->replica[r]]);
    }
}

void moesim_memory_add_tokens(const struct moesim_model *model, const struct moesim_cost_options *options,
                              double tokens, double received, double rows, struct moesim_memory *memory)
{
    const double h = model->d_model, b = model->combine_bytes,
                 inner = (double)moesim_model_matrices(model) * model->d_ff;
    const double kept = (tokens * (h + model->shared_experts * inner) + rows * (2 * h + inner)) * b;
    const double sent =
        moesim_model_token_bytes(model, model->dispatch_bytes) + moesim_model_token_bytes(model, model->combine_bytes);
    memory->activations = options->backward ? memory->activations + kept : fmax(memory->activations, kept);
    memory->buffers = fmax(memory->buffers, received * sent);
}

uint32_t moesim_memory_fullest(const struct moesim_memory *memory, uint32_t n_devices)
{
    uint32_t fullest = 0;
    for (uint32_t d = 1; d < n_devices; d++)
        if (moesim_memory_total(&memory[d]) > moesim_memory_total(&memory[fullest]))
            fullest = d;
    return fullest;
}
