/*
 * The keys of a cluster SPEC, what makes a machine, and the rates of its transports.
 */
#include "sim/cluster/cluster.h"

#include <string.h>

/* A rate that is written must be one; 0 in a preset is a link that is not there. */
#define RATE(field, help) MOESIM_PARAM(struct moesim_cluster, field, "", 1, 1e18, help)
#define OWN_RATE(field, help) MOESIM_PARAM(struct moesim_cluster, field, "", 0, 1e18, help)
#define LATENCY(field, help) MOESIM_PARAM(struct moesim_cluster, field, "", 0, 1, help)
#define COUNT(field, least, most, help) MOESIM_PARAM(struct moesim_cluster, field, "", least, most, help)

const struct moesim_param moesim_cluster_params[] = {
    COUNT(nodes, 1, MOESIM_MAX_DEVICES, "nodes"),
    COUNT(devices_per_node, 1, 1024, "devices of one node: those that NVLink joins"),
    COUNT(ep, 0, MOESIM_MAX_DEVICES, "consecutive devices that share one set of experts; 0 = all devices"),
    COUNT(tp, 1, 1024, "consecutive devices that split each matrix outside the experts"),
    COUNT(dp, 0, MOESIM_MAX_DEVICES, "copies of what is outside the experts; 0 = devices / tp"),
    COUNT(leaf_nodes, 0, MOESIM_MAX_DEVICES, "nodes below one leaf switch; 0 = one switch for all"),
    MOESIM_PARAM(struct moesim_cluster, leaf_oversubscription, "", 1, 1000,
                 "rate of the NICs below a leaf switch over the rate of its uplinks"),
    RATE(flop_per_s, "realistic dense rate of one device in the model's dtype"),
    RATE(memory_bytes_per_s, "realistic memory bandwidth of one device"),
    RATE(memory_bytes, "memory of one device"),
    RATE(nvlink_bytes_per_s, "physical rate of one device to its node, one way"),
    RATE(nic_bytes_per_s, "physical rate of one device to other nodes, one way"),
    LATENCY(latency_intra_s, "start-up of an exchange inside a node"),
    LATENCY(latency_inter_s, "start-up of an exchange between nodes"),
    LATENCY(latency_leaf_s, "what an exchange between leaf switches takes more"),
    OWN_RATE(normal_nvlink_bytes_per_s, "of dispatch: normal; 0 = nvlink_bytes_per_s"),
    OWN_RATE(normal_nic_bytes_per_s, "of dispatch: normal; 0 = nic_bytes_per_s"),
    LATENCY(normal_latency_intra_s, "of dispatch: normal; 0 = latency_intra_s"),
    LATENCY(normal_latency_inter_s, "of dispatch: normal; 0 = latency_inter_s"),
    OWN_RATE(low_latency_nvlink_bytes_per_s, "of dispatch: low-latency; 0 = nvlink_bytes_per_s"),
    OWN_RATE(low_latency_nic_bytes_per_s, "of dispatch: low-latency; 0 = nic_bytes_per_s"),
    LATENCY(low_latency_latency_intra_s, "of dispatch: low-latency; 0 = latency_intra_s"),
    LATENCY(low_latency_latency_inter_s, "of dispatch: low-latency; 0 = latency_inter_s"),
    OWN_RATE(all_reduce_nvlink_bytes_per_s, "of a ring all-reduce; 0 = nvlink_bytes_per_s"),
    OWN_RATE(all_reduce_nic_bytes_per_s, "of a ring all-reduce; 0 = nic_bytes_per_s"),
    LATENCY(all_reduce_latency_intra_s, "of one step of an all-reduce; 0 = latency_intra_s"),
    LATENCY(all_reduce_latency_inter_s, "of one step of an all-reduce; 0 = latency_inter_s"),
    LATENCY(launch_s, "start-up of the expert kernel"),
    COUNT(tile_rows, 1, 4096, "rows the expert kernel computes at once"),
    MOESIM_PARAM_END,
};

const struct moesim_cluster_preset *moesim_cluster_find(const char *name)
{
    for (const struct moesim_cluster_preset *preset = moesim_cluster_presets; preset->cluster.name; preset++)
        if (strcmp(preset->cluster.name, name) == 0)
            return preset;
    return NULL;
}

void moesim_cluster_override(struct moesim_cluster *cluster, const char *key)
{
    const struct {
        const char *key;
        double *own[MOESIM_N_TRANSPORTS - 1];
    } shared[] = {
        {"nvlink_bytes_per_s",
         {&cluster->normal_nvlink_bytes_per_s, &cluster->low_latency_nvlink_bytes_per_s,
          &cluster->all_reduce_nvlink_bytes_per_s}},
        {"nic_bytes_per_s",
         {&cluster->normal_nic_bytes_per_s, &cluster->low_latency_nic_bytes_per_s,
          &cluster->all_reduce_nic_bytes_per_s}},
        {"latency_intra_s",
         {&cluster->normal_latency_intra_s, &cluster->low_latency_latency_intra_s,
          &cluster->all_reduce_latency_intra_s}},
        {"latency_inter_s",
         {&cluster->normal_latency_inter_s, &cluster->low_latency_latency_inter_s,
          &cluster->all_reduce_latency_inter_s}},
    };
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++)
        for (int t = 0; strcmp(shared[i].key, key) == 0 && t < MOESIM_N_TRANSPORTS - 1; t++)
            *shared[i].own[t] = 0;
}

static double own_or(double own, double shared)
{
    return own > 0 ? own : shared;
}

struct moesim_transport_rates moesim_cluster_transport(const struct moesim_cluster *c, enum moesim_transport transport)
{
    const struct moesim_transport_rates shared = {c->nvlink_bytes_per_s, c->nic_bytes_per_s, c->latency_intra_s,
                                                  c->latency_inter_s};
    const struct moesim_transport_rates own[MOESIM_N_TRANSPORTS] = {
        [MOESIM_NORMAL] = {c->normal_nvlink_bytes_per_s, c->normal_nic_bytes_per_s, c->normal_latency_intra_s,
                           c->normal_latency_inter_s},
        [MOESIM_LOW_LATENCY] = {c->low_latency_nvlink_bytes_per_s, c->low_latency_nic_bytes_per_s,
                                c->low_latency_latency_intra_s, c->low_latency_latency_inter_s},
        [MOESIM_ALL_REDUCE] = {c->all_reduce_nvlink_bytes_per_s, c->all_reduce_nic_bytes_per_s,
                               c->all_reduce_latency_intra_s, c->all_reduce_latency_inter_s},
    };
    const struct moesim_transport_rates *t = &own[transport];
    return (struct moesim_transport_rates){
        own_or(t->nvlink_bytes_per_s, shared.nvlink_bytes_per_s), own_or(t->nic_bytes_per_s, shared.nic_bytes_per_s),
        own_or(t->latency_intra_s, shared.latency_intra_s), own_or(t->latency_inter_s, shared.latency_inter_s)};
}

static enum moesim_status missing(const struct moesim_cluster *cluster, const char *who, const char *key,
                                  const char *word, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EINVAL, "cluster %s: %s %s above 0 (%s: in a cluster text)", cluster->name, who, key,
                       word);
}

static enum moesim_status check_degrees(const struct moesim_cluster *cluster, uint32_t devices,
                                        struct moesim_error *err)
{
    const struct {
        const char *key;
        uint32_t degree;
    } degrees[] = {{"ep", cluster->ep}, {"tp", cluster->tp}, {"dp", cluster->dp}};
    for (size_t i = 0; i < sizeof degrees / sizeof *degrees; i++)
        if (degrees[i].degree > devices || (degrees[i].degree && devices % degrees[i].degree))
            return moesim_fail(err, MOESIM_EINVAL, "cluster %s: %s %u does not divide its %u devices", cluster->name,
                               degrees[i].key, degrees[i].degree, devices);
    if (cluster->dp && cluster->dp != moesim_cluster_dp(cluster))
        return moesim_fail(err, MOESIM_EINVAL, "cluster %s: dp %u times tp %u is not its %u devices", cluster->name,
                           cluster->dp, moesim_cluster_tp(cluster), devices);
    return MOESIM_OK;
}

enum moesim_status moesim_cluster_check_shape(const struct moesim_cluster *cluster, struct moesim_error *err)
{
    const uint64_t devices = (uint64_t)cluster->nodes * cluster->devices_per_node;
    if (devices == 0 || devices > MOESIM_MAX_DEVICES)
        return moesim_fail(err, MOESIM_EINVAL,
                           "cluster %s has nodes %u x devices_per_node %u; 1 to %u devices are possible", cluster->name,
                           cluster->nodes, cluster->devices_per_node, MOESIM_MAX_DEVICES);
    return check_degrees(cluster, (uint32_t)devices, err);
}

enum moesim_status moesim_cluster_check(const struct moesim_cluster *cluster, struct moesim_error *err)
{
    const enum moesim_status status = moesim_cluster_check_shape(cluster, err);
    if (status != MOESIM_OK)
        return status;
    if (!(cluster->flop_per_s > 0))
        return missing(cluster, "the experts need", "flop_per_s", "flop", err);
    if (!(cluster->memory_bytes_per_s > 0))
        return missing(cluster, "the experts need", "memory_bytes_per_s", "hbm", err);
    if (cluster->tile_rows == 0)
        return missing(cluster, "the experts need", "tile_rows", "tile", err);
    if (cluster->devices_per_node > 1 && !(cluster->nvlink_bytes_per_s > 0))
        return missing(cluster, "several devices in a node need", "nvlink_bytes_per_s", "nvlink", err);
    if (cluster->nodes > 1 && !(cluster->nic_bytes_per_s > 0))
        return missing(cluster, "several nodes need", "nic_bytes_per_s", "nic", err);
    return MOESIM_OK;
}
