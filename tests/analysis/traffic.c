/*
 * Traffic as a figure gets it: which bytes end up in which cell, and what is no traffic.
 */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/outcome.h>

#include "analysis/figures/traffic_map.h"

TestSuite(traffic, .timeout = 60);

struct machine {
    uint32_t nodes, per_node, leaf_nodes, layers, steps, warm_up;
};

/* A store with one run of that machine and traffic; its map. */
static bool read_map(struct machine m, const struct moesim_traffic *row, uint64_t n, struct moesim_arena *arena,
                     struct traffic_map *map)
{
    struct results_store *store;
    struct moesim_error err;
    int64_t study, id;
    const uint32_t value[] = {m.nodes, m.per_node, m.leaf_nodes, m.layers, m.steps, m.warm_up};
    static const char *const path[] = {
        "cluster.nodes", "cluster.devices_per_node", "cluster.leaf_nodes", "model.layers", "steps", "warm_up"};
    struct results_param param[6];
    for (int i = 0; i < 6; i++)
        param[i] = (struct results_param){path[i], "", true, value[i]};
    struct moesim_outcome outcome = {.traffic = malloc(n * sizeof *row), .n_traffic = n};
    memcpy(outcome.traffic, row, n * sizeof *row);
    const struct results_run run = {.hash = 1,
                                    .params_json = "{}",
                                    .params = param,
                                    .n_params = 6,
                                    .provenance = {.files_json = "{}"},
                                    .outcome = &outcome};
    cr_assert_eq(results_open("t.db", RESULTS_MEMORY, &store, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(results_study(store, "t", 1, "{}", &study, &err), MOESIM_OK);
    struct results_run owned = run;
    owned.study = study;
    cr_assert_eq(results_write(store, &owned, &id, &err), MOESIM_OK, "%s", err.text);
    const struct report_data data = {.arena = arena};
    const bool good = traffic_map_read(store, &data, id, map);
    results_close(store);
    free(outcome.traffic);
    return good;
}

/* 2 layers of 3 counted steps: a sixth of the bytes. Two nodes of two devices, a leaf switch each. */
Test(traffic, cells_and_ports)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct traffic_map map;
    const struct moesim_traffic row[] = {
        {0, 1, 60, MOESIM_LINK_DEVICE},    {1, 2, 120, MOESIM_LINK_DEVICE},    {0, 0, 60, MOESIM_LINK_NVLINK_OUT},
        {0, 1, 60, MOESIM_LINK_NVLINK_IN}, {1, 0, 120, MOESIM_LINK_NIC_OUT},   {1, 2, 120, MOESIM_LINK_NIC_IN},
        {0, 0, 120, MOESIM_LINK_LEAF_UP},  {0, 1, 120, MOESIM_LINK_LEAF_DOWN},
    };
    cr_assert(read_map((struct machine){2, 2, 1, 2, 4, 1}, row, 8, arena, &map));
    cr_assert(map.n_ends == 4 && map.n_devices == 4 && map.end_per_node == 2 && map.merged == 1 && !map.by_node);
    cr_expect_eq(map.pair[0 * 4 + 1], 10);
    cr_expect_eq(map.pair[1 * 4 + 2], 20);
    cr_expect(isnan(map.pair[0]) && isnan(map.pair[15]), "nothing is no number");
    cr_expect_eq(map.most_pair, 20);
    cr_expect(map.port[TRAFFIC_NVLINK_OUT][0] == 10 && isnan(map.port[TRAFFIC_NVLINK_OUT][1]));
    cr_expect(map.port[TRAFFIC_NVLINK_IN][1] == 10 && map.port[TRAFFIC_NIC_OUT][1] == 20);
    cr_expect(map.port[TRAFFIC_NIC_IN][2] == 20);
    cr_expect(map.port[TRAFFIC_LEAF_UP][0] == 20 && map.port[TRAFFIC_LEAF_UP][1] == 20, "of all devices below");
    cr_expect(isnan(map.port[TRAFFIC_LEAF_UP][2]) && map.port[TRAFFIC_LEAF_DOWN][3] == 20);
    uint32_t link;
    cr_expect_eq(traffic_map_unevenness(&map, &link), 4); /* one device of four has all */
    cr_expect_eq(traffic_map_most(&map, TRAFFIC_NIC_IN), 20);
    moesim_arena_destroy(arena);
}

/* 600 nodes are three to a row, 200 rows; ports are left out above 4096 devices. */
Test(traffic, many_nodes_share_rows)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct traffic_map map;
    const struct moesim_traffic row[] = {
        {0, 599, 1, MOESIM_LINK_NODE}, {2, 598, 2, MOESIM_LINK_NODE}, {3, 3, 4, MOESIM_LINK_NODE}};
    uint32_t link;
    cr_assert(read_map((struct machine){600, 8, 600, 1, 1, 0}, row, 3, arena, &map));
    cr_assert(map.by_node && map.merged == 3 && map.n_ends == 200 && map.n_devices == 0);
    cr_expect_eq(map.pair[199], 3);
    cr_expect_eq(map.pair[201], 4);
    cr_expect(isnan(traffic_map_unevenness(&map, &link)));
    moesim_arena_destroy(arena);
}

Test(traffic, what_is_none)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct traffic_map map;
    const struct machine two = {1, 2, 1, 1, 1, 0};
    const struct moesim_traffic good = {0, 1, 1, MOESIM_LINK_DEVICE};
    const struct moesim_traffic bad[] = {{0, 2, 1, MOESIM_LINK_DEVICE},          {UINT32_MAX, 0, 1, MOESIM_LINK_DEVICE},
                                         {0, 1, -1, MOESIM_LINK_DEVICE},         {0, 1, INFINITY, MOESIM_LINK_DEVICE},
                                         {0, 1, 0, MOESIM_LINK_DEVICE},          {2, 0, 1, MOESIM_LINK_NVLINK_OUT},
                                         {0, UINT32_MAX, 1, MOESIM_LINK_NIC_IN}, {1, 0, 1, MOESIM_LINK_LEAF_UP}};
    cr_expect(read_map(two, &good, 1, arena, &map));
    cr_expect_not(read_map(two, &good, 0, arena, &map));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_not(read_map(two, &bad[i], 1, arena, &map), "row %zu", i);
    const struct machine broken[] = {{0, 2, 1, 1, 1, 0}, {1, 0, 1, 1, 1, 0},         {1, 2, 1, 0, 1, 0},
                                     {1, 2, 1, 1, 1, 1}, {65536, 65536, 1, 1, 1, 0}, {1, 1, 1, 1, 1, 0}};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        cr_expect_not(read_map(broken[i], &good, 1, arena, &map), "machine %zu", i);
    moesim_arena_destroy(arena);
}
