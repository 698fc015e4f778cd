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
    double time_gate_s, time_dispatch_s, time_compute_s, time_combine_s, time_layer_s;
    double time_sync_s; /* that the sum of gradients adds to the layer; NaN without the backward pass */
    double bytes_dispatch, bytes_combine;      /* that leave a device, to the experts and back */
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

/* What the experts of one device compute. */
struct moesim_expert_work {
    double active;    /* physical experts with a row: their weights are read */
    double rows;      /* computed */
    double tile_rows; /* rounded up to full tiles, expert by expert */
};

/* Scratch and per-device results of the layer priced last, for repeated pricing. */
struct moesim_cost_work {
    uint32_t n_devices, n_nodes, n_experts;
    uint32_t n_replicas; /* room for physical experts of one EP group */
    uint32_t n_ends;     /* of `traffic`: the devices up to MOESIM_MAX_TRAFFIC_DEVICES, the nodes above */
    bool by_node;
    double *traffic;                     /* [n_ends][n_ends] bytes of dispatch and combine, source to target */
    struct moesim_ports *port;           /* [n_devices] */
    uint64_t *tokens;                    /* [n_devices] whose home it is */
    uint64_t *received;                  /* [n_devices] distinct tokens its experts see, its own included */
    uint64_t *pairs;                     /* [n_devices] kept pairs */
    uint64_t *node_pairs;                /* [n_nodes] */
    double *rows;                        /* [n_devices / ep][n_replicas] rows each physical expert computes */
    struct moesim_expert_work *experts;  /* [n_devices] */
    uint64_t *group_tokens;              /* [n_devices / ep] of one plan group */
    uint32_t *device_stamp;              /* [n_devices] last token seen, plus 1 */
    uint32_t *node_stamp;                /* [n_nodes] the same */
    struct moesim_all_reduce_load *sync; /* [n_devices] of the experts */
    uint32_t *node_copies;               /* [n_nodes] zeros, for counting an expert's copies */
};

MOESIM_MUST_CHECK enum moesim_status moesim_cost_work_init(struct moesim_cost_work *work,
                                                           const struct moesim_cluster *cluster,
                                                           const struct moesim_placement *placement,
                                                           struct moesim_arena *arena, struct moesim_error *err);

/* Prices one layer: dispatch and combine by the port bound, experts by the roofline, the gate by its FLOP. `placement`
 * is ready for the plan (moesim_replica_prepare) and may change between calls within its room; experts behind its own
 * are not FFN. EINVAL for a soft plan. `expert_kind` (NULL = all FFN): the others move no bytes and cost no FLOP. */
MOESIM_MUST_CHECK enum moesim_status moesim_cost_layer(
    const struct moesim_plan *plan, const struct moesim_batch *batch, const struct moesim_placement *placement,
    const struct moesim_cluster *cluster, const struct moesim_model *model, const struct moesim_cost_options *options,
    const uint8_t *expert_kind, struct moesim_cost_work *work, struct moesim_cost *cost, struct moesim_error *err);

/* The same FLOP and padding figures without a cluster (its fields become NaN, bytes and times too). `kept` [n_experts]
 * is set to moesim_plan_count's. */
void moesim_cost_flop(const struct moesim_plan *plan, const struct moesim_batch *batch,
                      const struct moesim_model *model, const struct moesim_cost_options *options, uint32_t tile_rows,
                      const uint8_t *expert_kind, uint64_t *kept, struct moesim_cost *cost);

#endif
