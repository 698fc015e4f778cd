/*
 * What one run sent: bytes from end to end, and through the ports of every device and the uplinks of every leaf switch.
 */
#ifndef MOESIM_ANALYSIS_FIGURES_TRAFFIC_MAP_H
#define MOESIM_ANALYSIS_FIGURES_TRAFFIC_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "analysis/report_data.h"
#include "results/store.h"

/* Links by which traffic.unit names them, from NVLink ports to leaf uplinks. */
enum traffic_link {
    TRAFFIC_NVLINK_OUT,
    TRAFFIC_NVLINK_IN,
    TRAFFIC_NIC_OUT,
    TRAFFIC_NIC_IN,
    TRAFFIC_LEAF_UP,
    TRAFFIC_LEAF_DOWN,
    TRAFFIC_N_LINKS
};

/* Bytes of a layer and step, mean over those that count. Arrays belong to the report's arena. */
struct traffic_map {
    uint32_t n_ends; /* of the matrix: devices, or nodes where there are many; at most TRAFFIC_MAX_CELLS */
    bool by_node;
    uint32_t merged;               /* devices or nodes in one row of the matrix */
    double *pair;                  /* [n_ends][n_ends] source to target; NaN where nothing was sent */
    uint32_t n_devices;            /* columns of the ports; 0 = not recorded, as above 4096 devices */
    uint32_t end_per_node;         /* rows of the matrix in a node; 0 = rows are nodes */
    double *port[TRAFFIC_N_LINKS]; /* [n_devices] of each device (a leaf's stands for all below it); NaN = nothing */
    double most_pair;              /* largest cell of the matrix */
};

#define TRAFFIC_MAX_CELLS 256u

/* False when the run recorded no traffic, or something that is none. */
bool traffic_map_read(struct results_store *store, const struct report_data *data, int64_t run,
                      struct traffic_map *map);

/* Bytes of the busiest port of a kind; 0 where none has any. */
double traffic_map_most(const struct traffic_map *map, uint32_t link);
/* Busiest port over the mean of its kind, for the least even kind; NaN without ports. */
double traffic_map_unevenness(const struct traffic_map *map, uint32_t *link);

extern const char *const traffic_link_names[TRAFFIC_N_LINKS];

#endif
