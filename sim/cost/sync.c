/*
 * Gradient all-reduces by the port bound: what each device's ports carry when the copies of a weight sum its gradient.
 * Rings (or trees) that cross nodes run side by side, one for each copy on a node, so that a node's NICs share the
 * bytes.
 */
#include "sim/cost/sync.h"

#include <math.h>
#include <string.h>

#include "sim/cost/compute.h"

struct moesim_all_reduce_load moesim_all_reduce(enum moesim_all_reduce_form form, const struct moesim_ring *ring,
                                                double bytes)
{
    if (ring->n < 2)
        return (struct moesim_all_reduce_load){0};
    const double n = ring->n, crossing = ring->crosses ? 1.0 / ring->per_node : 0;
    const double sent = form == MOESIM_RING ? 2 * (n - 1) / n * bytes : 2 * bytes;
    return (struct moesim_all_reduce_load){
        .nvlink_bytes = sent * (1 - crossing),
        .nic_bytes = sent * crossing,
        .steps = form == MOESIM_RING ? 2 * (n - 1) : 2 * ceil(log2(n)),
    };
}

double moesim_all_reduce_time(const struct moesim_cluster *cluster, const struct moesim_all_reduce_load *load)
{
    const struct moesim_transport_rates rates = moesim_cluster_transport(cluster, MOESIM_ALL_REDUCE);
    double time_s = 0;
    if (load->nvlink_bytes > 0)
        time_s = load->steps * rates.latency_intra_s + load->nvlink_bytes / rates.nvlink_bytes_per_s;
    if (load->nic_bytes > 0)
        time_s = fmax(time_s, load->steps * rates.latency_inter_s + load->nic_bytes / rates.nic_bytes_per_s);
    return time_s;
}

/* Whether no earlier replica of the expert is on the same device: copies on one device are summed there. */
static bool is_first_on_device(const struct moesim_placement *placement, uint32_t expert, uint32_t r)
{
    for (uint32_t i = placement->first[expert]; i < r; i++)
        if (placement->replica[i] == placement->replica[r])
            return false;
    return true;
}

uint32_t moesim_expert_devices(const struct moesim_placement *placement, uint32_t expert)
{
    uint32_t n = 0;
    for (uint32_t r = placement->first[expert]; r < placement->first[expert + 1]; r++)
        n += is_first_on_device(placement, expert, r);
    return n;
}

/* The ring of an expert's copies in all EP groups; leaves node_copies as it was, zeros. */
static struct moesim_ring expert_ring(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                                      uint32_t expert, struct moesim_cost_work *work)
{
    struct moesim_ring ring = {.per_node = UINT32_MAX};
    uint32_t nodes = 0;
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t base = 0; base < work->n_devices; base += placement->n_devices)
            for (uint32_t r = placement->first[expert]; r < placement->first[expert + 1]; r++) {
                if (!is_first_on_device(placement, expert, r))
                    continue;
                uint32_t *copies = &work->node_copies[moesim_cluster_node(cluster, base + placement->replica[r])];
                if (pass == 0) {
                    nodes += *copies == 0;
                    ++*copies;
                    ring.n++;
                } else if (*copies) {
                    ring.per_node = *copies < ring.per_node ? *copies : ring.per_node;
                    *copies = 0;
                }
            }
    ring.crosses = nodes > 1;
    return ring;
}

static void add_expert(const struct moesim_placement *placement, const struct moesim_cluster *cluster, uint32_t expert,
                       double bytes, enum moesim_all_reduce_form form, struct moesim_cost_work *work)
{
    const struct moesim_ring ring = expert_ring(placement, cluster, expert, work);
    const struct moesim_all_reduce_load load = moesim_all_reduce(form, &ring, bytes);
    for (uint32_t base = 0; base < work->n_devices && ring.n > 1; base += placement->n_devices)
        for (uint32_t r = placement->first[expert]; r < placement->first[expert + 1]; r++) {
            struct moesim_all_reduce_load *device = &work->sync[base + placement->replica[r]];
            if (!is_first_on_device(placement, expert, r))
                continue;
            device->nvlink_bytes += load.nvlink_bytes;
            device->nic_bytes += load.nic_bytes;
            device->steps = fmax(device->steps, load.steps);
        }
}

/* Tensor-parallel neighbours hold different parts of the dense matrices; the copies of one part are tp devices apart.
 */
static double dense_time(const struct moesim_cluster *cluster, double bytes, enum moesim_all_reduce_form form)
{
    const uint32_t per_node = cluster->devices_per_node / moesim_cluster_tp(cluster);
    const struct moesim_ring ring = {
        .n = moesim_cluster_dp(cluster), .per_node = per_node ? per_node : 1, .crosses = cluster->nodes > 1};
    const struct moesim_all_reduce_load load = moesim_all_reduce(form, &ring, bytes);
    return moesim_all_reduce_time(cluster, &load);
}

double moesim_sync_time(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                        const struct moesim_model *model, uint32_t gate_columns, enum moesim_all_reduce_form form,
                        const uint8_t *expert_kind, struct moesim_cost_work *work)
{
    const double expert_bytes = moesim_model_expert_weights(model) * model->gradient_bytes;
    const double dense_bytes =
        moesim_model_device_dense(model, gate_columns, moesim_cluster_tp(cluster)) * model->gradient_bytes;
    double longest = 0;
    memset(work->sync, 0, work->n_devices * sizeof *work->sync);
    for (uint32_t e = 0; e < placement->n_experts; e++)
        if (moesim_is_ffn(expert_kind, e))
            add_expert(placement, cluster, e, expert_bytes, form, work);
    for (uint32_t d = 0; d < work->n_devices; d++)
        longest = fmax(longest, moesim_all_reduce_time(cluster, &work->sync[d]));
    return longest + dense_time(cluster, dense_bytes, form);
}
