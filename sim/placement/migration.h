/*
 * What changing a placement moves: the weights of experts that a device has not held before.
 */
#ifndef MOESIM_SIM_MIGRATION_H
#define MOESIM_SIM_MIGRATION_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/cluster/cluster.h"
#include "sim/placement/placement.h"

/* Bytes through a device's ports. */
struct moesim_migration_ports {
    double nvlink_in, nvlink_out, nic_in, nic_out;
};

/* The moves of any number of layers, made at the same time. */
struct moesim_migration {
    uint32_t n_devices;                  /* of the cluster */
    struct moesim_migration_ports *port; /* [n_devices] */
    double bytes;
};

MOESIM_MUST_CHECK enum moesim_status moesim_migration_init(struct moesim_migration *migration,
                                                           const struct moesim_cluster *cluster,
                                                           struct moesim_arena *arena, struct moesim_error *err);

/* Forgets all moves. */
void moesim_migration_reset(struct moesim_migration *migration);

/* Adds one layer's moves, in every EP group alike: each device receives `expert_bytes` for every expert that is in its
 * slots in `to` and was not in `from`, from a device of its node that had it if there is one, else from another node;
 * several such devices take turns by the receiver's number. */
void moesim_migration_add(struct moesim_migration *migration, const struct moesim_placement *from,
                          const struct moesim_placement *to, const struct moesim_cluster *cluster, double expert_bytes);

/* Seconds by the port bound, max over ports of latency + bytes / rate; 0 when nothing moves. */
double moesim_migration_time(const struct moesim_migration *migration, const struct moesim_cluster *cluster);

#endif
