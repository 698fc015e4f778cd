/*
 * Forms of dispatch: which copies of a token pass which ports on their way to the experts. Combine is the transpose.
 */
#ifndef MOESIM_SIM_COST_DISPATCH_H
#define MOESIM_SIM_COST_DISPATCH_H

#include <stdint.h>

#include "sim/cluster/cluster.h"
#include "sim/models/model.h"

/* flat: one copy to each other device that serves the token, straight. normal: one copy to each other node, to the
 * device of the same number there, which forwards it inside the node (DeepEP's normal kernels). low-latency: one copy
 * for each expert of the token, straight (DeepEP's low-latency kernels). all-gather: every token to every device of the
 * EP group, by way of one copy a node. padded: every slot of the capacity, full or empty, straight (GShard). */
enum moesim_dispatch {
    MOESIM_DISPATCH_FLAT,
    MOESIM_DISPATCH_NORMAL,
    MOESIM_DISPATCH_LOW_LATENCY,
    MOESIM_DISPATCH_ALL_GATHER,
    MOESIM_DISPATCH_PADDED,
};
#define MOESIM_DISPATCH_CHOICES "flat|normal|low-latency|all-gather|padded"

/* The software that runs the form. */
enum moesim_transport moesim_dispatch_transport(enum moesim_dispatch dispatch);

/* Bytes of one copy on its way to an expert and of its result on the way back. The low-latency kernels put 16 bytes
 * before each message to an expert. */
double moesim_dispatch_bytes(const struct moesim_model *model, enum moesim_dispatch dispatch);
double moesim_combine_bytes(const struct moesim_model *model);

/* The devices of an EP group that one node holds: all of them when groups are whole nodes. */
struct moesim_node_part {
    uint32_t first, n;
};

/* Those of the group that begins at device `base` on a node where it has any. */
static inline struct moesim_node_part moesim_node_part(const struct moesim_cluster *cluster, uint32_t base, uint32_t ep,
                                                       uint32_t node)
{
    const uint32_t begin = node * cluster->devices_per_node, end = begin + cluster->devices_per_node;
    const uint32_t first = begin > base ? begin : base, last = end < base + ep ? end : base + ep;
    return (struct moesim_node_part){first, last - first};
}

/* The device of the part that takes a node's one copy of the token with number `local` in its own node's part: the one
 * of the same number. */
static inline uint32_t moesim_forwarder(struct moesim_node_part part, uint32_t local)
{
    return part.first + (local < part.n ? local : local % part.n);
}

#endif
