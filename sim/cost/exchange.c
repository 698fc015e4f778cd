/*
 * Port bound: t = max over ports of bytes / rate + start-up. On a core that never blocks this is what max-min fair
 * flows take; where a leaf's uplinks are narrower than its NICs, the flows between nodes are run.
 */
#include "sim/cost/exchange.h"

#include <math.h>
#include <stdlib.h>

#include "sim/cost/flows.h"

/* Events closer than this part of the port bound count as one: an error of the time of at most about as much. */
#define RESOLUTION (1.0 / 2048)

static void raise_bound(struct moesim_bound *bound, enum moesim_port port, uint32_t index, uint64_t copies, double rate)
{
    const double s_per_byte = copies ? (double)copies / rate : 0;
    if (s_per_byte > bound->s_per_byte)
        *bound = (struct moesim_bound){port, index, s_per_byte};
}

/* Rate of a leaf's uplinks, one way. */
static double uplink_rate(const struct moesim_cluster *cluster, uint32_t leaf, double nic_rate)
{
    const uint32_t first = leaf * cluster->leaf_nodes, rest = cluster->nodes - first;
    const uint32_t nodes = rest < cluster->leaf_nodes ? rest : cluster->leaf_nodes;
    return nodes * cluster->devices_per_node * nic_rate / cluster->leaf_oversubscription;
}

static void set_port_bound(const struct moesim_cluster *cluster, const struct moesim_transport_rates *rates,
                           const struct moesim_cost_work *work, struct moesim_exchange *x)
{
    for (uint32_t d = 0; d < work->n_devices; d++) {
        const struct moesim_ports *port = &work->port[d];
        raise_bound(&x->intra, MOESIM_NVLINK_OUT, d, port->nvlink_out, rates->nvlink_bytes_per_s);
        raise_bound(&x->intra, MOESIM_NVLINK_IN, d, port->nvlink_in, rates->nvlink_bytes_per_s);
        raise_bound(&x->inter, MOESIM_NIC_OUT, d, port->nic_out, rates->nic_bytes_per_s);
        raise_bound(&x->inter, MOESIM_NIC_IN, d, port->nic_in, rates->nic_bytes_per_s);
    }
    bool crossed = false;
    for (uint32_t l = 0; l < work->n_leaves; l++) {
        crossed |= work->leaf[l].up > 0;
        if (!moesim_cluster_oversubscribed(cluster))
            continue;
        const double rate = uplink_rate(cluster, l, rates->nic_bytes_per_s);
        raise_bound(&x->inter, MOESIM_LEAF_UP, l, work->leaf[l].up, rate);
        raise_bound(&x->inter, MOESIM_LEAF_DOWN, l, work->leaf[l].down, rate);
    }
    x->latency_intra_s = rates->latency_intra_s;
    x->latency_inter_s = rates->latency_inter_s + (crossed ? cluster->latency_leaf_s : 0);
}

/* ---- flows between nodes over shared uplinks ---- */

/* Links: device d's NIC out is 2d, in 2d + 1; then leaf l's uplink, 2l, and downlink, 2l + 1. */
static size_t make_flows(const struct moesim_cluster *cluster, const struct moesim_cost_work *work,
                         struct moesim_flow *flow)
{
    size_t n = 0;
    for (size_t i = 0; i < work->hops->room; i++) {
        const struct moesim_hop *hop = &work->hops->hop[i];
        if (!hop->copies || work->node[hop->source] == work->node[hop->target])
            continue;
        const uint32_t up = moesim_cluster_leaf(cluster, work->node[hop->source]);
        const uint32_t down = moesim_cluster_leaf(cluster, work->node[hop->target]);
        struct moesim_flow *f = &flow[n++];
        *f = (struct moesim_flow){{2 * hop->source, 2 * hop->target + 1}, 2, (double)hop->copies};
        if (up != down) {
            f->link[f->n_links++] = 2 * work->n_devices + 2 * up;
            f->link[f->n_links++] = 2 * work->n_devices + 2 * down + 1;
        }
    }
    return n;
}

static enum moesim_status run_flows(const struct moesim_cluster *cluster, double nic_rate,
                                    const struct moesim_cost_work *work, struct moesim_bound *inter,
                                    struct moesim_error *err)
{
    const uint32_t n_links = 2 * (work->n_devices + work->n_leaves);
    struct moesim_flow *flow = calloc(work->hops->n + 1, sizeof *flow);
    double *end = calloc(work->hops->n + 1, sizeof *end), *rate = calloc(n_links, sizeof *rate);
    enum moesim_status status = flow && end && rate ? MOESIM_OK : MOESIM_ENOMEM;
    if (status != MOESIM_OK) {
        moesim_fail(err, MOESIM_ENOMEM, "no memory for the flows of %u devices", work->n_devices);
    } else {
        for (uint32_t i = 0; i < n_links; i++)
            rate[i] =
                i < 2 * work->n_devices ? nic_rate : uplink_rate(cluster, (i - 2 * work->n_devices) / 2, nic_rate);
        const size_t n = make_flows(cluster, work, flow);
        status = moesim_flows_run(flow, n, rate, n_links, inter->s_per_byte * RESOLUTION, end, err);
        for (size_t i = 0; status == MOESIM_OK && i < n; i++)
            inter->s_per_byte = fmax(inter->s_per_byte, end[i]);
    }
    free(flow);
    free(end);
    free(rate);
    return status;
}

enum moesim_status moesim_exchange_set(const struct moesim_cluster *cluster, enum moesim_dispatch dispatch,
                                       struct moesim_cost_work *work, struct moesim_error *err)
{
    const struct moesim_transport_rates rates = moesim_cluster_transport(cluster, moesim_dispatch_transport(dispatch));
    if (work->hops && work->hops->failed)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the pairs of %u devices that exchange tokens",
                           work->n_devices);
    work->exchange = (struct moesim_exchange){.intra.port = MOESIM_NO_PORT, .inter.port = MOESIM_NO_PORT};
    set_port_bound(cluster, &rates, work, &work->exchange);
    if (!moesim_cluster_oversubscribed(cluster))
        return MOESIM_OK;
    return run_flows(cluster, rates.nic_bytes_per_s, work, &work->exchange.inter, err);
}

/* ---- what it means for copies of a size ---- */

static double bound_time(const struct moesim_bound *bound, double latency_s, double copy_bytes)
{
    return bound->s_per_byte > 0 ? bound->s_per_byte * copy_bytes + latency_s : 0;
}

double moesim_exchange_time(const struct moesim_exchange *x, double copy_bytes)
{
    return fmax(bound_time(&x->intra, x->latency_intra_s, copy_bytes),
                bound_time(&x->inter, x->latency_inter_s, copy_bytes));
}

struct moesim_bound moesim_exchange_bound(const struct moesim_exchange *x, double copy_bytes)
{
    const bool inter =
        bound_time(&x->inter, x->latency_inter_s, copy_bytes) > bound_time(&x->intra, x->latency_intra_s, copy_bytes);
    return inter ? x->inter : x->intra;
}
