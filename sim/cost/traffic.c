/*
 * The exchange between devices. Dispatch sends one copy of a token to every other device that serves it: over NVLink
 * inside the node, over the two NICs between nodes. Copies on the token's own device are free. Combine is the
 * transpose, so it passes the same ports.
 */
#include "sim/cost/traffic.h"

#include <string.h>

#include <moesim/router.h>

#include "sim/placement/replica.h"

static void reset(struct moesim_cost_work *work, uint32_t n_groups)
{
    const size_t devices = work->n_devices, nodes = work->n_nodes;
    memset(work->traffic, 0, (size_t)work->n_ends * work->n_ends * sizeof *work->traffic);
    memset(work->port, 0, devices * sizeof *work->port);
    memset(work->tokens, 0, devices * sizeof *work->tokens);
    memset(work->received, 0, devices * sizeof *work->received);
    memset(work->pairs, 0, devices * sizeof *work->pairs);
    memset(work->node_pairs, 0, nodes * sizeof *work->node_pairs);
    memset(work->rows, 0, (size_t)n_groups * work->n_replicas * sizeof *work->rows);
    memset(work->device_stamp, 0, devices * sizeof *work->device_stamp);
    memset(work->node_stamp, 0, nodes * sizeof *work->node_stamp);
}

/* One copy of a token on its way from its home to another device. */
static void send_copy(struct moesim_cost_work *work, const struct moesim_cluster *cluster, uint32_t home,
                      uint32_t target)
{
    const uint32_t from = moesim_cluster_node(cluster, home), to = moesim_cluster_node(cluster, target);
    if (from == to) {
        work->port[home].nvlink_out++;
        work->port[target].nvlink_in++;
    } else {
        work->port[home].nic_out++;
        work->port[target].nic_in++;
    }
    work->traffic[work->by_node ? (size_t)from * work->n_ends + to : (size_t)home * work->n_ends + target]++;
}

/* One kept pair of token t at `target`. */
static void count_pair(struct moesim_cost_work *work, const struct moesim_cluster *cluster, uint32_t t, uint32_t home,
                       uint32_t target, struct moesim_fanout *fanout)
{
    const uint32_t node = moesim_cluster_node(cluster, target);
    work->pairs[target]++;
    work->node_pairs[node]++;
    if (work->device_stamp[target] == t + 1)
        return;
    work->device_stamp[target] = t + 1;
    work->received[target]++;
    fanout->devices++;
    if (target != home)
        send_copy(work, cluster, home, target);
    if (work->node_stamp[node] != t + 1) {
        work->node_stamp[node] = t + 1;
        fanout->nodes++;
    }
}

void moesim_traffic_count(const struct moesim_plan *plan, const struct moesim_batch *batch,
                          const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                          const uint8_t *expert_kind, struct moesim_cost_work *work, struct moesim_fanout *fanout)
{
    const uint32_t ep = moesim_cluster_ep(cluster);
    *fanout = (struct moesim_fanout){0};
    reset(work, work->n_devices / ep);
    for (uint32_t t = 0; t < plan->n_tokens; t++) {
        const uint32_t home = batch->device[t], group = home / ep;
        uint64_t served = 0;
        work->tokens[home]++;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const uint32_t e = plan->expert[i];
            if (plan->fate[i] != MOESIM_KEPT || (expert_kind && expert_kind[e] != MOESIM_EXPERT_FFN))
                continue;
            const uint32_t r = moesim_replica_pick(placement, home % ep, t, e, i);
            work->rows[(size_t)group * work->n_replicas + r]++;
            count_pair(work, cluster, t, home, group * ep + placement->replica[r], fanout);
            served = 1;
        }
        fanout->tokens += served;
    }
}

static double port_time(uint64_t copies, double token_bytes, double rate, double latency)
{
    return copies ? (double)copies * token_bytes / rate + latency : 0;
}

double moesim_traffic_time(const struct moesim_cost_work *work, const struct moesim_cluster *cluster,
                           double token_bytes)
{
    double longest = 0;
    for (uint32_t d = 0; d < work->n_devices; d++) {
        const struct moesim_ports *port = &work->port[d];
        const uint64_t nvlink = port->nvlink_out > port->nvlink_in ? port->nvlink_out : port->nvlink_in;
        const uint64_t nic = port->nic_out > port->nic_in ? port->nic_out : port->nic_in;
        const double intra = port_time(nvlink, token_bytes, cluster->nvlink_bytes_per_s, cluster->latency_intra_s);
        const double inter = port_time(nic, token_bytes, cluster->nic_bytes_per_s, cluster->latency_inter_s);
        longest = intra > longest ? intra : longest;
        longest = inter > longest ? inter : longest;
    }
    return longest;
}
