/*
 * Cluster presets, their keys and transports, and the text form.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/cluster/cluster.h"
#include "sim/study/study.h"

TestSuite(cluster, .timeout = 60);

static const struct moesim_schema cluster_schema = {moesim_cluster_params, sizeof(struct moesim_param)};

static enum moesim_status set(struct moesim_cluster *cluster, const char *key, const char *value,
                              struct moesim_arena *arena)
{
    struct moesim_error err;
    const struct moesim_param *row = moesim_schema_find(cluster_schema, key);
    cr_assert_not_null(row, "%s", key);
    return moesim_param_set(row, value, cluster, arena, &err);
}

Test(cluster, presets_and_keys)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    for (const struct moesim_cluster_preset *p = moesim_cluster_presets; p->cluster.name; p++) {
        cr_assert_eq(moesim_cluster_check(&p->cluster, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(moesim_cluster_find(p->cluster.name), p);
        cr_assert(p->summary && p->reference && p->peak.flop_per_s >= p->cluster.flop_per_s);
        cr_assert_leq(p->cluster.nvlink_bytes_per_s, p->peak.nvlink_bytes_per_s);
        cr_assert_leq(p->cluster.nic_bytes_per_s, p->peak.nic_bytes_per_s);
        cr_assert_leq(p->cluster.memory_bytes_per_s, p->peak.memory_bytes_per_s);
    }
    cr_assert_null(moesim_cluster_find("h100"));

    struct moesim_cluster c = moesim_cluster_find("h100-dgx")->cluster;
    cr_assert_eq(set(&c, "nodes", "4", arena), MOESIM_OK);
    cr_assert_eq(set(&c, "nic_bytes_per_s", "25e9", arena), MOESIM_OK);
    cr_assert_eq(set(&c, "ep", "16", arena), MOESIM_OK);
    cr_assert(c.nodes == 4 && c.devices_per_node == 8 && c.nic_bytes_per_s == 25e9 && c.ep == 16);
    cr_assert(moesim_cluster_devices(&c) == 32 && moesim_cluster_ep(&c) == 16 && moesim_cluster_node(&c, 17) == 2);
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_OK);
    cr_assert_eq(set(&c, "nodes", "0", arena), MOESIM_EINVAL);
    cr_assert_eq(set(&c, "latency_inter_s", "-1", arena), MOESIM_EINVAL);
    cr_assert_null(moesim_schema_find(cluster_schema, "peak_flop_per_s"));

    c.ep = 12;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "ep 12") && strstr(err.text, "32"), "%s", err.text);
    c = moesim_cluster_find("laptop")->cluster;
    c.devices_per_node = 2;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "nvlink_bytes_per_s"), "%s", err.text);
    c.devices_per_node = 1;
    c.nodes = 2;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "nic_bytes_per_s"), "%s", err.text);
    c.nodes = 65536;
    c.devices_per_node = 65536; /* the product wraps to 0 in 32 bits */
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    moesim_arena_destroy(arena);
}

/* Every transport of every preset stays below the vendor's peak, and what is 0 is the collectives'. */
Test(cluster, transports)
{
    for (const struct moesim_cluster_preset *p = moesim_cluster_presets; p->cluster.name; p++)
        for (int t = 0; t < MOESIM_N_TRANSPORTS; t++) {
            const struct moesim_transport_rates r = moesim_cluster_transport(&p->cluster, (enum moesim_transport)t);
            /* A switch that sums takes a ring's 2(n - 1)/n bytes down to one, so that its ring rate may near twice. */
            const double of_peak = t == MOESIM_ALL_REDUCE ? 2 * (1 - 1. / p->cluster.devices_per_node) : 1;
            cr_assert(r.nvlink_bytes_per_s <= of_peak * p->peak.nvlink_bytes_per_s &&
                          r.nic_bytes_per_s <= p->peak.nic_bytes_per_s,
                      "%s", p->cluster.name);
            cr_assert_eq(r.nvlink_bytes_per_s > 0, p->cluster.devices_per_node > 1);
        }

    const struct moesim_cluster h100 = moesim_cluster_find("h100-dgx")->cluster;
    const struct moesim_transport_rates low = moesim_cluster_transport(&h100, MOESIM_LOW_LATENCY);
    cr_assert(low.nvlink_bytes_per_s == h100.low_latency_nvlink_bytes_per_s &&
              low.nic_bytes_per_s == h100.nic_bytes_per_s && low.latency_intra_s == h100.low_latency_latency_intra_s);

    /* What is set for all transports holds for all; what is set for one beside it, for that one. */
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_cluster c;
    cr_assert_eq(moesim_spec_cluster("h100-dgx:low_latency_nic_bytes_per_s=2e9,nvlink_bytes_per_s=4e9,"
                                     "nic_bytes_per_s=1e9,latency_intra_s=0.5,latency_inter_s=0.25",
                                     arena, &c, &err),
                 MOESIM_OK, "%s", err.text);
    for (int t = 0; t < MOESIM_N_TRANSPORTS; t++) {
        const struct moesim_transport_rates r = moesim_cluster_transport(&c, (enum moesim_transport)t);
        cr_assert(r.nvlink_bytes_per_s == 4e9 && r.latency_intra_s == 0.5 && r.latency_inter_s == 0.25);
        cr_assert_eq(r.nic_bytes_per_s, t == MOESIM_LOW_LATENCY ? 2e9 : 1e9);
    }
    moesim_arena_destroy(arena);
}

Test(cluster, degrees)
{
    struct moesim_error err;
    struct moesim_cluster c = moesim_cluster_find("h100-dgx")->cluster;
    c.nodes = 4;
    c.tp = 4;
    c.dp = 8;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_OK);
    cr_assert_eq(moesim_cluster_dp(&c), 8);
    c.dp = 4;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "cluster h100-dgx: dp 4 times tp 4 is not its 32 devices");
    c.dp = 0;
    c.tp = 5;
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "cluster h100-dgx: tp 5 does not divide its 32 devices");

    c.tp = 1;
    c.leaf_nodes = 3;
    cr_assert(moesim_cluster_leaves(&c) == 2 && moesim_cluster_leaf(&c, 2) == 0 && moesim_cluster_leaf(&c, 3) == 1);
    cr_assert(!moesim_cluster_oversubscribed(&c));
    c.leaf_oversubscription = 2;
    cr_assert(moesim_cluster_oversubscribed(&c));
    c.leaf_nodes = 4; /* one leaf: nothing crosses it */
    cr_assert(!moesim_cluster_oversubscribed(&c));

    c.nodes = 12504;
    c.ep = 64; /* 1563 EP groups */
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_cluster_devices(&c), 100032);
}

Test(cluster, text)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_cluster c;
    cr_assert(moesim_cluster_is_text("node:4 gpu:8") && !moesim_cluster_is_text("h100-dgx:nodes=4"));
    cr_assert_eq(
        moesim_cluster_read(" node:4  gpu:8 nvlink:200e9 nic:50e9 leaf:2:1.5 flop:1e15 hbm:3e12 memory:8e10 "
                            "latency:1e-6:2e-6:3e-6 launch:4e-5 tile:64 ep:16 tp:2 normal_nic_bytes_per_s:4e10",
                            arena, &c, &err),
        MOESIM_OK, "%s", err.text);
    cr_assert(c.nodes == 4 && c.devices_per_node == 8 && c.nvlink_bytes_per_s == 200e9 && c.nic_bytes_per_s == 50e9);
    cr_assert(c.leaf_nodes == 2 && c.leaf_oversubscription == 1.5 && c.flop_per_s == 1e15 && c.tile_rows == 64);
    cr_assert(c.memory_bytes_per_s == 3e12 && c.memory_bytes == 8e10 && c.latency_intra_s == 1e-6);
    cr_assert(c.latency_inter_s == 2e-6 && c.latency_leaf_s == 3e-6 && c.launch_s == 4e-5 && c.ep == 16 && c.tp == 2);
    cr_assert_eq(c.normal_nic_bytes_per_s, 4e10);
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_OK, "%s", err.text);
    cr_assert_str_eq(c.name, "node:4 gpu:8 nvlink:200e9 nic:50e9 leaf:2:1.5 flop:1e15 hbm:3e12 memory:80e9 "
                             "latency:1e-6:2e-6:3e-6 launch:40e-6 tile:64 ep:16 tp:2 normal_nic_bytes_per_s:40e9");

    /* The issue's own example; it lacks what the experts need, and that is said by its key. */
    cr_assert_eq(moesim_cluster_read("node:4 gpu:8 nvlink:200e9 nic:50e9 leaf:2:1", arena, &c, &err), MOESIM_OK);
    cr_assert(c.leaf_nodes == 2 && c.leaf_oversubscription == 1 && c.tp == 1);
    cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "flop_per_s") && strstr(err.text, "flop:"), "%s", err.text);
    moesim_arena_destroy(arena);
}

static const struct {
    const char *text, *sentence;
} wrong_texts[] = {
    {"node:4 gpu:8 nvlnk:2e11", "unknown word 'nvlnk' in a cluster text; did you mean 'nvlink'?"},
    {"node:4 gpu:8 latency_intra:1", "unknown word 'latency_intra' in a cluster text; did you mean 'latency_intra_s'?"},
    {"node:4 gpu:8 bananas:1", "unknown word 'bananas' in a cluster text; it knows node, gpu, nvlink"},
    {"node:4 gpu:8 nic:0", "'nic' in a cluster text: nic_bytes_per_s = 0"},
    {"node:4 gpu:8 nic:-5e9", "'nic' in a cluster text: nic_bytes_per_s = -5e9"},
    {"node:4 gpu:8 nic:fast", "'nic' in a cluster text: nic_bytes_per_s = 'fast'"},
    {"node:4 gpu:8 nic:1e9 nic:2e9", "'nic' is given twice in a cluster text"},
    {"node:4 gpu:8 nic:1e9 nic_bytes_per_s:2e9", "'nic_bytes_per_s' is given twice in a cluster text"},
    {"node:4 gpu:8 nic:1e9:2e9", "'nic' in a cluster text has too many values at ':2e9'"},
    {"node:4 gpu:8 leaf:1:1:1", "'leaf' in a cluster text has too many values at ':1'"},
    {"node:4 gpu:8 latency:1:1:1:1", "'latency' in a cluster text has too many values at ':1'"},
    {"node:4 gpu:8 nic", "'nic' in a cluster text is not word:value"},
    {"node:4 gpu:8 nic:", "'nic:' in a cluster text is not word:value"},
    {"node:4 gpu:8 :3", "':3' in a cluster text is not word:value"},
    {"node:0 gpu:8", "'node' in a cluster text: nodes = 0"},
    {"node:4", "the cluster text 'node:4' lacks gpu:"},
};

Test(cluster, wrong_texts)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    for (size_t i = 0; i < sizeof wrong_texts / sizeof *wrong_texts; i++) {
        struct moesim_error err = {""};
        struct moesim_cluster c;
        cr_expect_eq(moesim_cluster_read(wrong_texts[i].text, arena, &c, &err), MOESIM_EINVAL, "%s",
                     wrong_texts[i].text);
        cr_expect(strncmp(err.text, wrong_texts[i].sentence, strlen(wrong_texts[i].sentence)) == 0, "%s\n  gives %s",
                  wrong_texts[i].text, err.text);
    }
    moesim_arena_destroy(arena);
}

/* A rate that is needed and missing is told by its key and by its word. */
Test(cluster, missing_rates)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct {
        const char *text, *key, *word;
    } cases[] = {
        {"node:1 gpu:8 flop:1e15 hbm:1e12", "nvlink_bytes_per_s", "nvlink:"},
        {"node:2 gpu:1 flop:1e15 hbm:1e12", "nic_bytes_per_s", "nic:"},
        {"node:1 gpu:1 hbm:1e12", "flop_per_s", "flop:"},
        {"node:1 gpu:1 flop:1e15", "memory_bytes_per_s", "hbm:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moesim_error err = {""};
        struct moesim_cluster c;
        cr_assert_eq(moesim_cluster_read(cases[i].text, arena, &c, &err), MOESIM_OK);
        cr_assert_eq(moesim_cluster_check(&c, &err), MOESIM_EINVAL);
        cr_assert(strstr(err.text, cases[i].key) && strstr(err.text, cases[i].word), "%s", err.text);
    }
    moesim_arena_destroy(arena);
}

static bool same(const struct moesim_cluster *a, const struct moesim_cluster *b)
{
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(cluster_schema, i)); i++) {
        const size_t bytes = row->type == MOESIM_TYPE_UINT ? sizeof(uint32_t) : sizeof(double);
        if (memcmp((const char *)a + row->offset, (const char *)b + row->offset, bytes) != 0)
            return false;
    }
    return true;
}

static void check_round_trip(const struct moesim_cluster *cluster, struct moesim_arena *arena)
{
    struct moesim_error err = {""};
    struct moesim_cluster back;
    char text[2048], again[2048];
    const size_t length = moesim_cluster_format(cluster, text, sizeof text);
    cr_assert(length == strlen(text) && length < sizeof text);
    cr_assert_eq(moesim_cluster_read(text, arena, &back, &err), MOESIM_OK, "%s: %s", text, err.text);
    cr_assert(same(cluster, &back), "%s", text);
    moesim_cluster_format(&back, again, sizeof again);
    cr_assert_str_eq(text, again);
    cr_assert_str_eq(back.name, text);
    char little[8];
    cr_assert_eq(moesim_cluster_format(cluster, little, sizeof little), length);
    cr_assert(strlen(little) < sizeof little && strncmp(little, text, strlen(little)) == 0);
}

/* All presets, and 500 clusters with random keys of random values. */
Test(cluster, text_round_trips)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    for (const struct moesim_cluster_preset *p = moesim_cluster_presets; p->cluster.name; p++)
        check_round_trip(&p->cluster, arena);
    for (uint32_t seed = 0; seed < 500; seed++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
        struct moesim_cluster c = {.nodes = 1 + moesim_random_below(&random, 200, 9),
                                   .devices_per_node = 1 + moesim_random_below(&random, 201, 9),
                                   .tp = 1,
                                   .leaf_oversubscription = 1,
                                   .tile_rows = 1};
        const struct moesim_param *row;
        for (uint32_t i = 2; (row = moesim_schema_row(cluster_schema, i)); i++) {
            if (moesim_random_below(&random, 2 * i, 2))
                continue;
            const double share = moesim_random_below(&random, 2 * i + 1, 1000001) / 1e6;
            void *field = (char *)&c + row->offset;
            if (row->type == MOESIM_TYPE_UINT)
                *(uint32_t *)field = (uint32_t)(row->min + share * (row->max - row->min));
            else
                *(double *)field = row->min + share * (row->max - row->min);
        }
        check_round_trip(&c, arena);
    }
    moesim_arena_destroy(arena);
}

Test(cluster, specs)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_cluster c;
    cr_assert_eq(moesim_spec_cluster("h800:nodes=2,ep=8", arena, &c, &err), MOESIM_OK);
    cr_assert(c.nodes == 2 && c.ep == 8 && !strcmp(c.name, "h800"));
    cr_assert_eq(moesim_spec_cluster("node:2 gpu:4 nic:1e9", arena, &c, &err), MOESIM_OK);
    cr_assert(c.nodes == 2 && c.nic_bytes_per_s == 1e9 && !strcmp(c.name, "node:2 gpu:4 nic:1e9"));
    const struct {
        const char *spec, *sentence;
    } wrong[] = {
        {"h8000", "unknown cluster 'h8000'; did you mean 'h800'?"},
        {"h800:nods=2", "unknown key 'nods' in 'h800:nods=2'; did you mean 'nodes'?"},
        {"h800:nic_bytes_per_s=0", "nic_bytes_per_s = 0"},
        {"node:2 gpus:4", "unknown word 'gpus' in a cluster text; did you mean 'gpu'?"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_expect_eq(moesim_spec_cluster(wrong[i].spec, arena, &c, &err), MOESIM_EINVAL, "%s", wrong[i].spec);
        cr_expect(strncmp(err.text, wrong[i].sentence, strlen(wrong[i].sentence)) == 0, "%s", err.text);
    }
    moesim_arena_destroy(arena);
}
