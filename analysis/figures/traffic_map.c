#include "analysis/figures/traffic_map.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_NODES 65536
#define MAX_DEVICES 1048576

const char *const traffic_link_names[TRAFFIC_N_LINKS] = {"NVLink out", "NVLink in", "NIC out",
                                                         "NIC in",     "leaf up",   "leaf down"};
static const char *const units[TRAFFIC_N_LINKS] = {"nvlink_out", "nvlink_in", "nic_out",
                                                   "nic_in",     "leaf_up",   "leaf_down"};

static const char sql_sizes[] =
    "SELECT (SELECT number FROM run_param WHERE run = r.id AND path = 'cluster.nodes'), "
    "(SELECT number FROM run_param WHERE run = r.id AND path = 'cluster.devices_per_node'), "
    "(SELECT number FROM run_param WHERE run = r.id AND path = 'cluster.leaf_nodes'), "
    "(SELECT number FROM run_param WHERE run = r.id AND path = 'model.layers'), "
    "(SELECT number FROM run_param WHERE run = r.id AND path = 'steps'), "
    "(SELECT number FROM run_param WHERE run = r.id AND path = 'warm_up'), "
    "(SELECT count(*) FROM traffic WHERE run = r.id AND unit = 'node') "
    "FROM run r WHERE r.id = CAST(?1 AS INTEGER)";

static const char sql_traffic[] = "SELECT source, target, unit, bytes FROM traffic WHERE run = CAST(?1 AS INTEGER)";

/* What the rows are read by. */
struct reading {
    uint32_t nodes, per_node, leaf_nodes;
    double share; /* of a layer and step in the run's bytes */
};

/* A whole number from 1 to `most`, or 0. */
static uint32_t whole(struct results_query *query, uint32_t column, uint32_t most)
{
    const double x = results_number(query, column);
    return x >= 1 && x <= most && x == floor(x) ? (uint32_t)x : 0;
}

static bool take_sizes(struct results_query *query, struct reading *reading, struct traffic_map *map)
{
    const uint32_t layers = whole(query, 3, UINT32_MAX), steps = whole(query, 4, UINT32_MAX),
                   warm_up = whole(query, 5, UINT32_MAX);
    *reading = (struct reading){.nodes = whole(query, 0, MAX_NODES),
                                .per_node = whole(query, 1, MAX_DEVICES),
                                .leaf_nodes = whole(query, 2, MAX_NODES)};
    if (!reading->nodes || !reading->per_node || !layers || steps <= warm_up ||
        (uint64_t)reading->nodes * reading->per_node > MAX_DEVICES)
        return false;
    reading->share = 1.0 / ((double)layers * (steps - warm_up));
    map->by_node = results_integer(query, 6) > 0;
    map->n_devices = reading->nodes * reading->per_node;
    return true;
}

static bool make_room(const struct report_data *data, const struct reading *reading, struct traffic_map *map)
{
    const uint32_t n = map->by_node ? reading->nodes : map->n_devices;
    map->merged = (n + TRAFFIC_MAX_CELLS - 1) / TRAFFIC_MAX_CELLS;
    map->n_ends = (n + map->merged - 1) / map->merged;
    map->end_per_node = map->by_node || map->merged > 1 ? 0 : reading->per_node;
    map->pair = moesim_alloc(data->arena, (size_t)map->n_ends * map->n_ends, sizeof *map->pair);
    bool room = map->pair;
    for (uint32_t l = 0; l < TRAFFIC_N_LINKS; l++) {
        map->port[l] = moesim_alloc(data->arena, map->n_devices, sizeof *map->port[l]);
        room = room && map->port[l];
    }
    return room;
}

/* A leaf switch's bytes belong to all devices below it. */
static bool take_port(const struct reading *reading, struct traffic_map *map, uint32_t link, int64_t source,
                      int64_t target, double bytes)
{
    const bool of_leaf = link >= TRAFFIC_LEAF_UP;
    const int64_t at = link % 2 ? target : source; /* links into a device, or down to a leaf, end there */
    const uint32_t width = of_leaf ? reading->leaf_nodes * reading->per_node : 1;
    if (at < 0 || width == 0 || at >= ((int64_t)map->n_devices + width - 1) / width)
        return false;
    for (uint64_t d = (uint64_t)at * width; d < ((uint64_t)at + 1) * width && d < map->n_devices; d++)
        map->port[link][d] += bytes;
    return true;
}

static bool take_row(struct results_query *query, const struct reading *reading, struct traffic_map *map)
{
    const int64_t source = results_integer(query, 0), target = results_integer(query, 1);
    const char *unit = results_text(query, 2);
    const double bytes = results_number(query, 3) * reading->share;
    if (!(bytes >= 0 && isfinite(bytes)))
        return false;
    for (uint32_t l = 0; l < TRAFFIC_N_LINKS; l++)
        if (!strcmp(unit, units[l]))
            return take_port(reading, map, l, source, target, bytes);
    const int64_t n = (int64_t)map->n_ends * map->merged;
    if (strcmp(unit, map->by_node ? "node" : "device") != 0 || source < 0 || target < 0 || source >= n || target >= n)
        return false;
    map->pair[(size_t)(source / map->merged) * map->n_ends + (size_t)(target / map->merged)] += bytes;
    return true;
}

/* Nothing is no small number: it stays white. */
static double clear_zeros(double *cell, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        most = fmax(most, cell[i]);
        cell[i] = cell[i] > 0 ? cell[i] : (double)NAN;
    }
    return most;
}

static bool read_rows(struct results_store *store, const char *id, const struct reading *reading,
                      struct traffic_map *map)
{
    struct results_query *query;
    bool row = false, good = true, any = false;
    if (results_query(store, sql_traffic, &id, 1, &query, NULL))
        return false;
    while (good && !results_next(query, &row, NULL) && row) {
        good = take_row(query, reading, map);
        any = true;
    }
    results_query_close(query);
    return good && any;
}

bool traffic_map_read(struct results_store *store, const struct report_data *data, int64_t run, struct traffic_map *map)
{
    char text[24];
    const char *id = text;
    struct results_query *query;
    struct reading reading;
    bool row = false;
    *map = (struct traffic_map){0};
    snprintf(text, sizeof text, "%" PRId64, run);
    if (results_query(store, sql_sizes, &id, 1, &query, NULL))
        return false;
    const bool sized = !results_next(query, &row, NULL) && row && take_sizes(query, &reading, map);
    results_query_close(query);
    if (!sized || !make_room(data, &reading, map) || !read_rows(store, id, &reading, map))
        return false;
    map->most_pair = clear_zeros(map->pair, (size_t)map->n_ends * map->n_ends);
    bool ports = false;
    for (uint32_t l = 0; l < TRAFFIC_N_LINKS; l++)
        ports |= clear_zeros(map->port[l], map->n_devices) > 0;
    map->n_devices = ports ? map->n_devices : 0;
    return map->n_ends > 1 && map->most_pair > 0;
}

double traffic_map_most(const struct traffic_map *map, uint32_t link)
{
    double most = 0;
    for (uint32_t d = 0; d < map->n_devices; d++)
        most = fmax(most, map->port[link][d]);
    return most;
}

double traffic_map_unevenness(const struct traffic_map *map, uint32_t *link)
{
    double uneven = (double)NAN;
    for (uint32_t l = 0; l < TRAFFIC_N_LINKS; l++) {
        double sum = 0;
        for (uint32_t d = 0; d < map->n_devices; d++)
            sum += isnan(map->port[l][d]) ? 0 : map->port[l][d];
        const double of_kind = traffic_map_most(map, l) * map->n_devices / sum;
        if (sum > 0 && !(of_kind <= uneven)) {
            uneven = of_kind;
            *link = l;
        }
    }
    return uneven;
}
