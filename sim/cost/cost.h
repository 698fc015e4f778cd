/*
 * Cost: seconds and bytes of one MoE layer by phase and port, a pure function of plan, placement, cluster and model.
 * The formulas and their sources: docs/cost-model.md.
 */
#ifndef MOESIM_SIM_COST_H
#define MOESIM_SIM_COST_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/plan.h>
#include <moesim/status.h>

#include "sim/cluster/cluster.h"
#include "sim/cost/dispatch.h"
#include "sim/cost/hops.h"
#include "sim/placement/placement.h"
#include "sim/models/model.h"

/* Which rows the experts compute beyond the kept pairs: none, every slot of the capacity, or full tiles. */
enum moesim_padding { MOESIM_PADDING_NONE, MOESIM_PADDING_CAPACITY, MOESIM_PADDING_TILE };
#define MOESIM_PADDING_CHOICES "none|capacity|tile"

/* Above this many devices traffic is kept between nodes. */
#define MOESIM_MAX_TRAFFIC_DEVICES 128

/* How a layer is run, apart from where; a field left out is 0, its default. */
struct moesim_cost_options {
    uint32_t padding;    /* enum moesim_padding */
    uint32_t backward;   /* 1 = gradients are computed and exchanged too */
    uint32_t sync;       /* enum moesim_sync */
    uint32_t all_reduce; /* enum moesim_all_reduce_form */
    uint32_t dispatch;   /* enum moesim_dispatch */
    uint32_t chunks;     /* parts whose exchanges and experts overlap; 0 and 1 = no overlap */
};

/* When gradients are summed: after the backward pass, or beside its arithmetic, which hides what it can. */
enum moesim_sync { MOESIM_SYNC_EXPOSED, MOESIM_SYNC_OVERLAPPED };
#define MOESIM_SYNC_CHOICES "exposed|overlapped"

enum moesim_all_reduce_form { MOESIM_RING, MOESIM_TREE };
#define MOESIM_ALL_REDUCE_CHOICES "ring|tree"

/* The passes of a layer through its experts, and how much each computes of the forward's arithmetic: gradients of the
 * inputs and of the weights take one product each. */
enum moesim_pass { MOESIM_FORWARD, MOESIM_BACKWARD };
enum { MOESIM_BACKWARD_PRODUCTS = 2 };

struct moesim_cost {
    double time_gate_s, time_dispatch_s, time_compute_s, time_combine_s;
    double time_layer_s; /* their sum, less with overlap */
    double time_sync_s;  /* that the sum of gradients adds to the layer; NaN without the backward pass */
    double bytes_dispatch, bytes_combine;      /* that leave a device, to the experts and back, forwarded ones again */
    double bytes_inter_node, bytes_intra_node; /* of dispatch and combine together, by link */
    double flop_expert, flop_padded, flop_router;
    double device_imbalance, node_imbalance, balancedness; /* of kept pairs; NaN without any */
    double device_fanout, node_fanout; /* mean distinct devices, nodes per token with an expert; NaN without one */
    double padding_fraction;           /* computed rows that hold no token; NaN without rows */
};

/* Copies of one token that pass a device's ports in dispatch; combine is the transpose. */
struct moesim_ports {
    uint64_t nvlink_out, nvlink_in, nic_out, nic_in;
};

/* What an all-reduce, or several at a time, take of one device's ports, one way. */
struct moesim_all_reduce_load {
    double nvlink_bytes, nic_bytes;
    double steps; /* start-ups in a row */
};

/* Copies that leave and enter the nodes below a leaf switch. */
struct moesim_leaf {
    uint64_t up, down;
};

enum moesim_port {
    MOESIM_NVLINK_OUT,
    MOESIM_NVLINK_IN,
    MOESIM_NIC_OUT,
    MOESIM_NIC_IN,
    MOESIM_LEAF_UP,
    MOESIM_LEAF_DOWN,
    MOESIM_NO_PORT
};

/* The port with the most to carry for its rate. */
struct moesim_bound {
    enum moesim_port port;
    uint32_t index;    /* device, or leaf */
    double s_per_byte; /* of one copy */
};

/* An exchange by what it takes inside nodes and between them, which go on side by side. */
struct moesim_exchange {
    struct moesim_bound intra, inter;
    double latency_intra_s, latency_inter_s;
};

/* Sums over tokens with an FFN expert. */
struct moesim_fanout {
    uint64_t tokens, devices, nodes;
};

/* The replicas of an expert that serve the tokens of a home in turn: first + token % n. */
struct moesim_turns {
    uint64_t inverse; /* 2^64 / n, rounded up; 0 for 1 */
    uint32_t first, n;
};

/* Devices of an EP group and nodes, as bits. */
typedef uint64_t moesim_reach_bits __attribute__((vector_size(16)));

/* What one thread has counted. */
enum moesim_part_port { MOESIM_PART_NVLINK, MOESIM_PART_NIC };
struct moesim_cost_part {
    uint64_t (*out)[2], (*in)[2]; /* [n_devices] copies by NVLink and by NIC (enum moesim_part_port) */
    struct moesim_leaf *leaf;     /* [n_leaves] */
    uint64_t *tokens, *received;  /* [n_devices] */
    uint64_t *rows;               /* [n_ep_groups][n_replicas] */
    struct moesim_fanout fanout;
    uint64_t n_hops;        /* (source, target) pairs with copies, anew for each home that uses them */
    uint32_t stamp;         /* of the token being counted */
    uint32_t *device_stamp; /* [n_devices] the last token there */
    uint32_t *node_stamp;   /* [n_nodes] the same */
    /* of the tokens of one home that are being counted; zeros between homes */
    uint32_t *reach, *sent; /* [n_devices] tokens, pairs that go there */
    uint32_t *node_reach;   /* [n_nodes] tokens that go there */
    uint32_t *forwarder;    /* [n_nodes] device that passes on what its home sends there */
    uint32_t *touched;      /* [n_devices + 1] devices with a reach, the first ones */
    /* what one home's pairs are counted by: an expert or a replica, [n_replicas + 1] */
    moesim_reach_bits *own_reach;
    uint32_t *own_replica, *own_pairs;
    struct moesim_turns *own_turns; /* [n_experts] */
};

/* What the experts of one device compute. */
struct moesim_expert_work {
    double active;    /* physical experts with a row: their weights are read */
    double rows;      /* computed */
    double tile_rows; /* of one chunk, rounded up to full tiles, expert by expert */
};

/* Scratch and per-device results of the layer priced last, for repeated pricing. */
struct moesim_cost_work {
    uint32_t n_devices, n_nodes, n_leaves, n_ep_groups, n_experts;
    uint32_t n_replicas;             /* room for physical experts of one EP group */
    uint32_t *node;                  /* [n_devices] */
    uint32_t *leaf_of;               /* [n_nodes] */
    uint32_t n_parts;                /* threads that count */
    struct moesim_cost_part *part;   /* [n_parts] */
    bool by_node;                    /* `hops` are between nodes, else between devices */
    struct moesim_hops *hops;        /* copies of dispatch by source and target; NULL = not counted */
    struct moesim_ports *port;       /* [n_devices] */
    struct moesim_leaf *leaf;        /* [n_leaves] */
    struct moesim_exchange exchange; /* of the form priced last */
    struct moesim_fanout fanout;
    uint64_t n_hops;                     /* as of the parts: with the pairs, what the counting took */
    uint64_t n_tokens;                   /* of all batches of the layer */
    uint32_t n_columns;                  /* of the gate */
    uint64_t *tokens;                    /* [n_devices] whose home it is */
    uint64_t *received;                  /* [n_devices] distinct tokens its experts see, its own included */
    uint64_t *pairs;                     /* [n_devices] kept pairs */
    uint64_t *node_pairs;                /* [n_nodes] */
    double *rows;                        /* [n_ep_groups][n_replicas] rows each physical expert computes */
    double *slots;                       /* [n_ep_groups][n_replicas] its part of the capacity */
    uint64_t n_slots;                    /* of all experts */
    struct moesim_expert_work *experts;  /* [n_devices] */
    uint64_t *group_tokens;              /* [n_ep_groups] of one plan group */
    uint64_t *arrived;                   /* [n_devices] scratch */
    struct moesim_all_reduce_load *sync; /* [n_devices] of the experts */
    uint32_t *node_copies;               /* [n_nodes] zeros, for counting an expert's copies */
};

/* What `hops` are for: the traffic of a run. Where leaf switches are oversubscribed they are counted in any case. */
enum moesim_count_hops { MOESIM_WITHOUT_HOPS, MOESIM_WITH_HOPS };

MOESIM_MUST_CHECK enum moesim_status moesim_cost_work_init(struct moesim_cost_work *work,
                                                           const struct moesim_cluster *cluster,
                                                           const struct moesim_placement *placement,
                                                           enum moesim_count_hops hops, struct moesim_arena *arena,
                                                           struct moesim_error *err);

/* Prices one layer: dispatch and combine by the port bound (by max-min fair flows where leaf switches are
 * oversubscribed), experts by the roofline, the gate by its FLOP. `placement` is ready for the plan
 * (moesim_replica_prepare) and may change between calls within its room; experts behind its own are not FFN. EINVAL for
 * a soft plan. `expert_kind` (NULL = all FFN): the others move no bytes and cost no FLOP. */
MOESIM_MUST_CHECK enum moesim_status moesim_cost_layer(
    const struct moesim_plan *plan, const struct moesim_batch *batch, const struct moesim_placement *placement,
    const struct moesim_cluster *cluster, const struct moesim_model *model, const struct moesim_cost_options *options,
    const uint8_t *expert_kind, struct moesim_cost_work *work, struct moesim_cost *cost, struct moesim_error *err);

/* The same for a layer whose tokens come in several batches, such as one EP group after the other: begin, add each
 * batch (device numbers are those of the whole cluster), end. */
void moesim_cost_begin(struct moesim_cost_work *work);
MOESIM_MUST_CHECK enum moesim_status moesim_cost_add(const struct moesim_plan *plan, const struct moesim_batch *batch,
                                                     const struct moesim_placement *placement,
                                                     const struct moesim_cluster *cluster,
                                                     const struct moesim_cost_options *options,
                                                     const uint8_t *expert_kind, struct moesim_cost_work *work,
                                                     struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status
moesim_cost_end(const struct moesim_placement *placement, const struct moesim_cluster *cluster,
                const struct moesim_model *model, const struct moesim_cost_options *options, const uint8_t *expert_kind,
                struct moesim_cost_work *work, struct moesim_cost *cost, struct moesim_error *err);

/* Exchanges towards the experts, and as many back: gradients take the same ways as what they belong to. */
static inline uint32_t moesim_exchanges(const struct moesim_cost_options *options)
{
    return options->backward ? 2 : 1;
}

/* The same FLOP and padding figures without a cluster (its fields become NaN, bytes and times too). `kept` [n_experts]
 * is moesim_plan_count's. */
void moesim_cost_flop(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_model *model, const struct moesim_cost_options *options, uint32_t tile_rows,
                      const uint8_t *expert_kind, const uint64_t *kept, struct moesim_cost *cost);

#endif
