/*
 * The cluster: nodes of devices, links and rates; from a preset or a line of text.
 */
#ifndef MOESIM_SIM_CLUSTER_H
#define MOESIM_SIM_CLUSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/param.h>
#include <moesim/status.h>

#define MOESIM_MAX_DEVICES 131072u

/* Rates are physical and one way, as well-written software reaches them; the vendor's peaks are in the preset. A node
 * is what NVLink (or its like) joins: 8 devices of a DGX, 72 of an NVL72 rack. A rate of 0 is a link that is not there;
 * a rate of one transport that is 0 is that of the collectives. */
struct moesim_cluster {
    const char *name;
    uint32_t nodes, devices_per_node;
    uint32_t ep;                  /* devices that share one set of experts; 0 = all */
    uint32_t tp;                  /* devices that split each matrix outside the experts */
    uint32_t dp;                  /* copies of what is outside the experts; 0 = devices / tp */
    uint32_t leaf_nodes;          /* nodes below one leaf switch; 0 = one switch for all */
    double leaf_oversubscription; /* rates of a leaf's NICs over that of its uplinks */
    double flop_per_s;            /* dense rate of one device in the model's dtype */
    double memory_bytes_per_s;    /* of one device */
    double memory_bytes;          /* of one device; 0 = not known */
    double nvlink_bytes_per_s;    /* of one device to the other devices of its node, collectives */
    double nic_bytes_per_s;       /* of one device to other nodes, collectives */
    double latency_intra_s;       /* start-up of an exchange inside a node */
    double latency_inter_s;       /* start-up of an exchange between nodes */
    double latency_leaf_s;        /* what an exchange between leaves takes more */
    double normal_nvlink_bytes_per_s, normal_nic_bytes_per_s, normal_latency_intra_s, normal_latency_inter_s;
    double low_latency_nvlink_bytes_per_s, low_latency_nic_bytes_per_s, low_latency_latency_intra_s,
        low_latency_latency_inter_s;
    double all_reduce_nvlink_bytes_per_s, all_reduce_nic_bytes_per_s, all_reduce_latency_intra_s,
        all_reduce_latency_inter_s;
    double launch_s;    /* start-up of the expert kernel */
    uint32_t tile_rows; /* rows the expert kernel computes at once */
};

/* The software that moves tokens: a library's collectives (NCCL), or kernels for experts (DeepEP) made for many tokens
 * or for few. And a library's sums of gradients, whose rates are those of a ring and whose latencies are of one step of
 * it; a switch that sums (NVLS) makes that rate exceed the port's. */
enum moesim_transport { MOESIM_COLLECTIVE, MOESIM_NORMAL, MOESIM_LOW_LATENCY, MOESIM_ALL_REDUCE, MOESIM_N_TRANSPORTS };

/* What a transport reaches on each kind of port. */
struct moesim_transport_rates {
    double nvlink_bytes_per_s, nic_bytes_per_s;
    double latency_intra_s, latency_inter_s;
};

struct moesim_cluster_preset {
    struct moesim_cluster cluster;
    struct moesim_cluster peak; /* the vendor's rates, where there is one; for listings, nothing is computed from it */
    const char *summary, *reference;
};

/* Ended by a row whose cluster.name is NULL. */
extern const struct moesim_cluster_preset moesim_cluster_presets[];

/* The preset of that name, or NULL. */
const struct moesim_cluster_preset *moesim_cluster_find(const char *name);

/* The keys of a cluster SPEC (h100-dgx:nodes=4). The rows have no defaults (def is ""): copy the preset's `cluster`,
 * announce the keys that are given (moesim_cluster_override), set them (moesim_param_set), moesim_cluster_check. */
extern const struct moesim_param moesim_cluster_params[];

/* Before `key` is set: a rate or latency that is given for all transports replaces those the preset has for single
 * ones. */
void moesim_cluster_override(struct moesim_cluster *cluster, const char *key);

/* Whether there are as many devices as can be, and ep, tp and dp divide them: all that a placement looks at. */
MOESIM_MUST_CHECK enum moesim_status moesim_cluster_check_shape(const struct moesim_cluster *cluster,
                                                                struct moesim_error *err);
/* Whether the values make a machine: some devices, ep, tp and dp divide them, a positive rate for every link that is
 * there. */
MOESIM_MUST_CHECK enum moesim_status moesim_cluster_check(const struct moesim_cluster *cluster,
                                                          struct moesim_error *err);

/* ---- the text form: "node:4 gpu:8 nvlink:200e9 nic:50e9 leaf:2:1" ---- */

/* Whether a SPEC is a cluster text: it begins with "node:". */
bool moesim_cluster_is_text(const char *spec);

/* Reads a text of word:value separated by blanks; a word is one of the short ones (docs/formats.md) or a key of
 * moesim_cluster_params. What is not given is 0, tile_rows, tp and leaf_oversubscription 1. EINVAL names the word that
 * is wrong. Whether the values make a machine is moesim_cluster_check's. */
MOESIM_MUST_CHECK enum moesim_status moesim_cluster_read(const char *text, struct moesim_arena *arena,
                                                         struct moesim_cluster *cluster, struct moesim_error *err);

/* Writes the text that moesim_cluster_read reads back to the same values; returns the length that was needed, as
 * snprintf does. */
size_t moesim_cluster_format(const struct moesim_cluster *cluster, char *text, size_t size);

/* Makes that text the cluster's name, after its values were changed. */
MOESIM_MUST_CHECK enum moesim_status moesim_cluster_rename(struct moesim_cluster *cluster, struct moesim_arena *arena,
                                                           struct moesim_error *err);

/* ---- what follows ---- */

static inline uint32_t moesim_cluster_devices(const struct moesim_cluster *cluster)
{
    return cluster->nodes * cluster->devices_per_node;
}

/* Devices that share one set of experts: devices x*ep .. (x+1)*ep - 1 are EP group x, each with its own copy of all
 * experts. */
static inline uint32_t moesim_cluster_ep(const struct moesim_cluster *cluster)
{
    return cluster->ep ? cluster->ep : moesim_cluster_devices(cluster);
}

/* Devices that split each matrix outside the experts. */
static inline uint32_t moesim_cluster_tp(const struct moesim_cluster *cluster)
{
    return cluster->tp ? cluster->tp : 1;
}

/* Copies of the weights outside the experts, each on tp devices. */
static inline uint32_t moesim_cluster_dp(const struct moesim_cluster *cluster)
{
    return moesim_cluster_devices(cluster) / moesim_cluster_tp(cluster);
}

/* Node of a device: devices are numbered node by node. */
static inline uint32_t moesim_cluster_node(const struct moesim_cluster *cluster, uint32_t device)
{
    return device / cluster->devices_per_node;
}

/* Leaf switch of a node, and how many there are. */
static inline uint32_t moesim_cluster_leaf(const struct moesim_cluster *cluster, uint32_t node)
{
    return cluster->leaf_nodes ? node / cluster->leaf_nodes : 0;
}
static inline uint32_t moesim_cluster_leaves(const struct moesim_cluster *cluster)
{
    return moesim_cluster_leaf(cluster, cluster->nodes - 1) + 1;
}

/* Whether uplinks are narrower than the NICs below them, so that flows share them. */
static inline bool moesim_cluster_oversubscribed(const struct moesim_cluster *cluster)
{
    return cluster->leaf_oversubscription > 1 && moesim_cluster_leaves(cluster) > 1;
}

/* What a transport reaches: its own figures where the cluster has them, else the collectives'. */
struct moesim_transport_rates moesim_cluster_transport(const struct moesim_cluster *cluster,
                                                       enum moesim_transport transport);

#endif
