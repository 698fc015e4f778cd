/*
 * Every link twice: a port out carries the copies that leave and the answers to those that came in.
 */
#include "sim/cost/carried.h"

enum moesim_status moesim_carried_init(struct moesim_carried *carried, const struct moesim_cluster *cluster,
                                       struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t devices = moesim_cluster_devices(cluster);
    moesim_hops_init(&carried->hops, arena);
    carried->port = moesim_alloc(arena, devices, sizeof *carried->port);
    carried->leaf = moesim_alloc(arena, moesim_cluster_leaves(cluster), sizeof *carried->leaf);
    return carried->port && carried->leaf
               ? MOESIM_OK
               : moesim_fail(err, MOESIM_ENOMEM, "no memory for the traffic of %u devices", devices);
}

void moesim_carried_add(struct moesim_carried *carried, const struct moesim_cluster *cluster,
                        const struct moesim_cost_work *work)
{
    const bool sum_nodes = work->n_devices > MOESIM_MAX_TRAFFIC_DEVICES && !work->by_node;
    moesim_hops_add_all(&carried->hops, work->hops, sum_nodes ? cluster->devices_per_node : 1);
    for (uint32_t d = 0; d < work->n_devices; d++) {
        carried->port[d].nvlink_out += work->port[d].nvlink_out;
        carried->port[d].nvlink_in += work->port[d].nvlink_in;
        carried->port[d].nic_out += work->port[d].nic_out;
        carried->port[d].nic_in += work->port[d].nic_in;
    }
    for (uint32_t l = 0; l < work->n_leaves; l++) {
        carried->leaf[l].up += work->leaf[l].up;
        carried->leaf[l].down += work->leaf[l].down;
    }
}

/* Rows under construction, and the bytes of one copy and its answer. */
struct rows {
    struct moesim_traffic *row;
    uint64_t n;
    double there, back;
};

/* A link by which `there` copies went to the experts, and the answers to `answered` ones came by. */
static void put(struct rows *rows, enum moesim_link link, uint32_t source, uint32_t target, uint64_t there,
                uint64_t answered)
{
    if (there + answered)
        rows->row[rows->n++] =
            (struct moesim_traffic){source, target, (double)there * rows->there + (double)answered * rows->back, link};
}

static void put_ports(struct rows *rows, const struct moesim_cluster *cluster, const struct moesim_ports *port)
{
    for (uint32_t d = 0; d < moesim_cluster_devices(cluster); d++) {
        const uint32_t node = moesim_cluster_node(cluster, d), leaf = moesim_cluster_leaf(cluster, node);
        put(rows, MOESIM_LINK_NVLINK_OUT, d, node, port[d].nvlink_out, port[d].nvlink_in);
        put(rows, MOESIM_LINK_NVLINK_IN, node, d, port[d].nvlink_in, port[d].nvlink_out);
        put(rows, MOESIM_LINK_NIC_OUT, d, leaf, port[d].nic_out, port[d].nic_in);
        put(rows, MOESIM_LINK_NIC_IN, leaf, d, port[d].nic_in, port[d].nic_out);
    }
}

enum moesim_status moesim_carried_rows(const struct moesim_carried *carried, const struct moesim_cluster *cluster,
                                       const struct moesim_model *model, const struct moesim_cost_options *options,
                                       struct moesim_arena *arena, struct moesim_traffic **out, uint64_t *n,
                                       struct moesim_error *err)
{
    const uint32_t devices = moesim_cluster_devices(cluster), leaves = moesim_cluster_leaves(cluster);
    const uint32_t exchanges = moesim_exchanges(options);
    const size_t n_ports = devices <= MOESIM_MAX_TRAFFIC_PORTS ? 4 * (size_t)devices : 0;
    struct rows rows = {
        .there = exchanges * moesim_dispatch_bytes(model, (enum moesim_dispatch)options->dispatch),
        .back = exchanges * moesim_combine_bytes(model),
        .row = moesim_alloc(arena, 2 * carried->hops.n + n_ports + 2 * (size_t)leaves, sizeof *rows.row),
    };
    if (!rows.row || carried->hops.failed)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the traffic of %u devices", devices);
    rows.n = moesim_hops_bytes(&carried->hops, rows.there, rows.back, rows.row);
    for (uint64_t i = 0; i < rows.n && devices > MOESIM_MAX_TRAFFIC_DEVICES; i++)
        rows.row[i].link = MOESIM_LINK_NODE;
    if (n_ports)
        put_ports(&rows, cluster, carried->port);
    for (uint32_t l = 0; leaves > 1 && l < leaves; l++) {
        put(&rows, MOESIM_LINK_LEAF_UP, l, 0, carried->leaf[l].up, carried->leaf[l].down);
        put(&rows, MOESIM_LINK_LEAF_DOWN, 0, l, carried->leaf[l].down, carried->leaf[l].up);
    }
    *out = rows.row;
    *n = rows.n;
    return MOESIM_OK;
}
