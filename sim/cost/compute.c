/*
 * Expert compute by the grouped-GEMM roofline: a device reads the weights of its experts that have a row and moves the
 * activations, or computes full tiles, whichever takes longer; then the permutation of tokens to rows and back.
 */
#include "sim/cost/compute.h"

#include <math.h>
#include <string.h>
#include "sim/placement/replica.h"

/* Whether pair i is computed and its group's capacity for the expert has no end. */
static bool is_unlimited(const struct moesim_plan *plan, const uint32_t *capacity, const uint8_t *expert_kind,
                         uint32_t i)
{
    return plan->fate[i] == MOESIM_KEPT && moesim_is_ffn(expert_kind, plan->expert[i]) &&
           capacity[plan->expert[i]] == MOESIM_UNLIMITED;
}

uint64_t moesim_capacity_rows(const struct moesim_plan *plan, const struct moesim_batch *batch,
                              const uint8_t *expert_kind)
{
    uint64_t rows = 0;
    for (uint32_t g = 0; g < plan->n_groups; g++) {
        const uint32_t *capacity = plan->capacity + (size_t)g * plan->n_experts;
        const uint32_t begin = batch->group_start[g], end = batch->group_start[g + 1];
        if (begin == end)
            continue;
        for (uint32_t e = 0; e < plan->n_experts; e++)
            if (moesim_is_ffn(expert_kind, e) && capacity[e] != MOESIM_UNLIMITED)
                rows += capacity[e];
        for (uint32_t i = plan->first[begin]; i < plan->first[end]; i++)
            rows += is_unlimited(plan, capacity, expert_kind, i);
    }
    return rows;
}

/* Adds `slots` rows of expert e, shared evenly by its replicas. */
static void add_slots(const struct moesim_placement *placement, uint32_t e, double slots, double *rows)
{
    const uint32_t first = placement->first[e], last = placement->first[e + 1];
    for (uint32_t r = first; r < last; r++)
        rows[r] += slots / (last - first);
}

/* Plan group g's slots, on each EP group in proportion to the tokens of g that live there. */
static void add_group_slots(const struct moesim_plan *plan, const struct moesim_batch *batch,
                            const struct moesim_placement *placement, uint32_t ep, const uint8_t *expert_kind,
                            uint32_t g, struct moesim_cost_work *work)
{
    const uint32_t *capacity = plan->capacity + (size_t)g * plan->n_experts;
    const uint32_t begin = batch->group_start[g], end = batch->group_start[g + 1];
    const uint32_t n_ep_groups = work->n_devices / ep;
    memset(work->group_tokens, 0, n_ep_groups * sizeof *work->group_tokens);
    for (uint32_t t = begin; t < end; t++) {
        const uint32_t x = batch->device[t] / ep, source = batch->device[t] % ep;
        work->group_tokens[x]++;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (is_unlimited(plan, capacity, expert_kind, i))
                work->slots[(size_t)x * work->n_replicas +
                            moesim_replica_pick(placement, source, t, plan->expert[i], i)]++;
    }
    for (uint32_t x = 0; x < n_ep_groups; x++) {
        const double share = work->group_tokens[x] ? (double)work->group_tokens[x] / (end - begin) : 0;
        for (uint32_t e = 0; share > 0 && e < plan->n_experts; e++)
            if (moesim_is_ffn(expert_kind, e) && capacity[e] != MOESIM_UNLIMITED)
                add_slots(placement, e, capacity[e] * share, work->slots + (size_t)x * work->n_replicas);
    }
}

void moesim_slots_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                      const uint8_t *expert_kind, struct moesim_cost_work *work)
{
    for (uint32_t g = 0; g < plan->n_groups; g++)
        add_group_slots(plan, batch, placement, moesim_cluster_ep(cluster), expert_kind, g, work);
    work->n_slots += moesim_capacity_rows(plan, batch, expert_kind);
}

void moesim_rows_pad(const struct moesim_cluster *cluster, enum moesim_padding padding, struct moesim_cost_work *work)
{
    const size_t n = (size_t)work->n_ep_groups * work->n_replicas;
    switch (padding) {
    case MOESIM_PADDING_NONE:
        break;
    case MOESIM_PADDING_TILE:
        for (size_t i = 0; i < n; i++)
            work->rows[i] = ceil(work->rows[i] / cluster->tile_rows) * cluster->tile_rows;
        break;
    case MOESIM_PADDING_CAPACITY:
        memcpy(work->rows, work->slots, n * sizeof *work->rows);
        break;
    }
}

void moesim_rows_sum(const struct moesim_placement *placement, const struct moesim_cluster *cluster, uint32_t chunks,
                     struct moesim_cost_work *work)
{
    const uint32_t ep = moesim_cluster_ep(cluster), n_replicas = placement->first[placement->n_experts];
    const uint32_t parts = chunks ? chunks : 1;
    memset(work->experts, 0, work->n_devices * sizeof *work->experts);
    for (uint32_t x = 0; x < work->n_ep_groups; x++)
        for (uint32_t r = 0; r < n_replicas; r++) {
            const double rows = work->rows[(size_t)x * work->n_replicas + r];
            struct moesim_expert_work *device = &work->experts[x * ep + placement->replica[r]];
            device->active += rows > 0;
            device->rows += rows;
            device->tile_rows += ceil(rows / parts / cluster->tile_rows) * cluster->tile_rows;
        }
}

/* Seconds of one grouped GEMM: `width` inner columns in all for each row, `weight_bytes` read once. */
static double gemm_time(const struct moesim_cluster *cluster, const struct moesim_model *model, double weight_bytes,
                        double rows, double width, double flop)
{
    const double per_row = 2.0 * model->d_model + moesim_model_matrices(model) * width;
    const double memory_s = (weight_bytes + rows * per_row * model->combine_bytes) / cluster->memory_bytes_per_s;
    return cluster->launch_s + fmax(memory_s, flop / cluster->flop_per_s);
}

/* Seconds of one pass of one device over one of equal chunks, each of which reads all weights. Each product of the
 * backward pass moves as many bytes and computes as much as the forward: weights are read for the gradients of the
 * inputs, their gradients are written. */
static double device_time(const struct moesim_cluster *cluster, const struct moesim_model *model, double products,
                          const struct moesim_expert_work *experts, double rows, double tokens, double received)
{
    const double flop = moesim_model_flop_per_pair(model), expert_bytes = moesim_model_expert_bytes(model);
    const double row_bytes = (double)model->d_model * model->combine_bytes, shared = model->shared_experts;
    double time_s = 0;
    if (rows > 0)
        time_s += products * gemm_time(cluster, model, experts->active * expert_bytes, rows, model->d_ff,
                                       experts->tile_rows * flop) +
                  2 * (received + rows) * row_bytes / cluster->memory_bytes_per_s;
    if (shared > 0 && tokens > 0)
        time_s += products * gemm_time(cluster, model, shared * expert_bytes, tokens, shared * model->d_ff,
                                       ceil(tokens / cluster->tile_rows) * cluster->tile_rows * shared * flop);
    return time_s;
}

double moesim_compute_time(const struct moesim_cluster *cluster, const struct moesim_model *model,
                           enum moesim_pass pass, uint32_t chunks, const struct moesim_cost_work *work)
{
    const double products = pass == MOESIM_BACKWARD ? MOESIM_BACKWARD_PRODUCTS : 1;
    double longest = 0;
    for (uint32_t d = 0; d < work->n_devices; d++)
        longest = fmax(longest, device_time(cluster, model, products, &work->experts[d], work->experts[d].rows / chunks,
                                            (double)work->tokens[d] / chunks, (double)work->received[d] / chunks));
    return longest;
}
