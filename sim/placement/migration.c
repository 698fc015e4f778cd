/*
 * The moves between two placements, device by device.
 */
#include "sim/placement/migration.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum moesim_status moesim_migration_init(struct moesim_migration *migration, const struct moesim_cluster *cluster,
                                         struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n = moesim_cluster_devices(cluster);
    *migration = (struct moesim_migration){.n_devices = n, .port = moesim_alloc(arena, n, sizeof *migration->port)};
    return migration->port ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for the ports of %u devices", n);
}

void moesim_migration_reset(struct moesim_migration *migration)
{
    memset(migration->port, 0, migration->n_devices * sizeof *migration->port);
    migration->bytes = 0;
}

static bool holds(const struct moesim_placement *placement, uint32_t device, uint32_t expert)
{
    for (uint32_t r = placement->first[expert]; r < placement->first[expert + 1]; r++)
        if (placement->replica[r] == device)
            return true;
    return false;
}

/* The device, of EP group `group` of the cluster, that sends the expert to `receiver`: one of its node's if any holds
 * it, else any; number receiver mod n of these n. */
static uint32_t sender(const struct moesim_placement *from, const struct moesim_cluster *cluster, uint32_t group,
                       uint32_t receiver, uint32_t expert)
{
    const uint32_t base = group * from->n_devices, node = moesim_cluster_node(cluster, base + receiver);
    uint32_t n_near = 0, n_all = from->first[expert + 1] - from->first[expert];
    for (uint32_t r = from->first[expert]; r < from->first[expert + 1]; r++)
        n_near += moesim_cluster_node(cluster, base + from->replica[r]) == node;
    uint32_t turn = receiver % (n_near ? n_near : n_all);
    for (uint32_t r = from->first[expert];; r++) {
        if (n_near && moesim_cluster_node(cluster, base + from->replica[r]) != node)
            continue;
        if (turn-- == 0)
            return base + from->replica[r];
    }
}

static void move(struct moesim_migration *migration, const struct moesim_cluster *cluster, uint32_t source,
                 uint32_t target, double bytes)
{
    struct moesim_migration_ports *out = &migration->port[source], *in = &migration->port[target];
    const bool near = moesim_cluster_node(cluster, source) == moesim_cluster_node(cluster, target);
    *(near ? &out->nvlink_out : &out->nic_out) += bytes;
    *(near ? &in->nvlink_in : &in->nic_in) += bytes;
    migration->bytes += bytes;
}

/* Whether slot s is the first on its device with that expert: copies beside it are made on the spot. */
static bool is_first_copy(const struct moesim_placement *to, uint32_t device, uint32_t s)
{
    for (uint32_t i = to->device_slot[device]; i < s; i++)
        if (to->expert[i] == to->expert[s])
            return false;
    return true;
}

void moesim_migration_add(struct moesim_migration *migration, const struct moesim_placement *from,
                          const struct moesim_placement *to, const struct moesim_cluster *cluster, double expert_bytes)
{
    const uint32_t n_groups = migration->n_devices / to->n_devices;
    for (uint32_t d = 0; d < to->n_devices; d++)
        for (uint32_t s = to->device_slot[d]; s < to->device_slot[d + 1]; s++) {
            const uint32_t expert = to->expert[s];
            if (holds(from, d, expert) || !is_first_copy(to, d, s))
                continue;
            for (uint32_t g = 0; g < n_groups; g++)
                move(migration, cluster, sender(from, cluster, g, d, expert), g * to->n_devices + d, expert_bytes);
        }
}

static double port_time(double bytes, double rate, double latency)
{
    return bytes > 0 ? bytes / rate + latency : 0;
}

double moesim_migration_time(const struct moesim_migration *migration, const struct moesim_cluster *cluster)
{
    double longest = 0;
    for (uint32_t d = 0; d < migration->n_devices; d++) {
        const struct moesim_migration_ports *p = &migration->port[d];
        longest = fmax(longest, port_time(fmax(p->nvlink_in, p->nvlink_out), cluster->nvlink_bytes_per_s,
                                          cluster->latency_intra_s));
        longest =
            fmax(longest, port_time(fmax(p->nic_in, p->nic_out), cluster->nic_bytes_per_s, cluster->latency_inter_s));
    }
    return longest;
}
