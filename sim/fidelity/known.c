/*
 * What follows without a fit: copies saved, EPLB's published placement, and identities of the cost model.
 */
#include <math.h>
#include <string.h>

#include <moesim/metric.h>

#include "sim/fidelity/bench.h"
#include "sim/fidelity/table.h"
#include "sim/placement/placement.h"

#include "hiermoe_duplication.csv.h"
#include "mixtral_repeat.csv.h"

/* ---- copies saved ---- */

enum moesim_status fidelity_duplication(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                        struct moesim_error *err)
{
    enum { TOKENS = 16384 };
    static const struct moesim_fidelity_part parts[] = {
        {.rows = "all 16 cells", .role = MOESIM_EXACT, .bound = {{MOESIM_MAX_ERROR, 1.5, false}}}};
    const struct moesim_cluster *rates = &moesim_cluster_find("h100-dgx")->cluster;
    const double *experts, *k, *ranks, *published;
    const struct fidelity_column columns[] = {
        {"experts", &experts}, {"K", &k}, {"ranks", &ranks}, {"published_pct", &published}, {NULL, NULL}};
    uint32_t n;
    table->name = "hiermoe_duplication";
    table->title = "Copies saved when a token goes once to each device";
    table->source = "HierMoE (arXiv:2508.09591), table II";
    table->unit = "%";
    table->absolute = true;
    enum moesim_status status =
        fidelity_columns("hiermoe_duplication.csv", hiermoe_duplication_csv, c->arena, columns, &n, err);
    if (status == MOESIM_OK)
        status = fidelity_open(table, c->arena, n, parts, 1, 0, err);
    for (uint32_t i = 0; i < n && status == MOESIM_OK; i++) {
        const struct moesim_bench_setup setup = {
            .nodes = 1,
            .devices_per_node = (uint32_t)ranks[i],
            .tokens = TOKENS,
            .model = {.layers = 1, .experts = (uint32_t)experts[i], .top_k = (uint32_t)k[i], .d_model = 1, .d_ff = 1},
            .routing = MOESIM_BENCH_RANDOM,
        };
        struct moesim_bench bench;
        status = moesim_bench_init(&bench, &setup, rates, c->arena, err);
        if (status == MOESIM_OK)
            status = fidelity_add(table, c->arena, 0, published[i], 100 * (1 - bench.cost.device_fanout / k[i]), err,
                                  "E %g, K %g, %g devices", experts[i], k[i], ranks[i]);
    }
    return status;
}

/* ---- EPLB ---- */

/* The example of EPLB's README: two layers of 12 experts in 16 slots, 4 groups, 2 nodes, 8 devices. */
enum { EPLB_LAYERS = 2, EPLB_EXPERTS = 12, EPLB_SLOTS = 16 };
static const double eplb_load[EPLB_LAYERS * EPLB_EXPERTS] = {90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                                             20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
static const uint32_t eplb_slots[EPLB_LAYERS][EPLB_SLOTS] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                                             {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};

static enum moesim_status eplb_params(const struct moesim_placement_rule *rule, struct moesim_arena *arena,
                                      void **params, struct moesim_error *err)
{
    static const char *const settings[][2] = {{"redundant", "4"}, {"n_groups", "4"}};
    const struct moesim_schema schema = {rule->params, sizeof(struct moesim_param)};
    *params = moesim_alloc(arena, 1, rule->params_size);
    if (!*params)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for EPLB's example");
    enum moesim_status status = moesim_params_default(schema, 0, *params, arena, err);
    for (int i = 0; i < 2 && status == MOESIM_OK; i++)
        status = moesim_param_set(moesim_schema_find(schema, settings[i][0]), settings[i][1], *params, arena, err);
    return status;
}

enum moesim_status fidelity_eplb(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                 struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[] = {
        {.rows = "all 32 slots", .role = MOESIM_EXACT, .bound = {{MOESIM_MAX_ERROR, 0, false}}}};
    const struct moesim_placement_rule *rule = moesim_placement_find("eplb");
    struct moesim_cluster cluster = moesim_cluster_find("h100-dgx")->cluster;
    struct moesim_placement *placement;
    struct moesim_placement_stats stats;
    void *params;
    cluster.nodes = 2;
    cluster.devices_per_node = 4;
    table->name = "EPLB";
    table->title = "The placement in EPLB's README";
    table->source = "github.com/deepseek-ai/EPLB";
    table->unit = "expert in the slot";
    table->long_table = true;
    table->absolute = true;
    enum moesim_status status = fidelity_open(table, c->arena, EPLB_LAYERS * EPLB_SLOTS, parts, 1, 0, err);
    if (status || (status = eplb_params(rule, c->arena, &params, err)) ||
        (status = moesim_placement_stats_init(&stats, rule->wants, EPLB_LAYERS, EPLB_EXPERTS, c->arena, err)) ||
        (status =
             moesim_placements_create(rule, params, EPLB_LAYERS, EPLB_EXPERTS, &cluster, 0, c->arena, &placement, err)))
        return status;
    memcpy(stats.load, eplb_load, sizeof eplb_load);
    status = moesim_place(rule, params, &stats, 1, &cluster, placement, err);
    for (uint32_t i = 0; i < EPLB_LAYERS * EPLB_SLOTS && status == MOESIM_OK; i++) {
        const uint32_t layer = i / EPLB_SLOTS, slot = i % EPLB_SLOTS;
        status = fidelity_add(table, c->arena, 0, eplb_slots[layer][slot], placement[layer].expert[slot], err,
                              "layer %u, slot %u", layer, slot);
    }
    return status;
}

/* ---- identities ---- */

enum { ALL_TO_ALL, MIXTRAL_FLOP, REPEATS, CLAMP, N_IDENTITIES };

/* Algorithm bandwidth of an even all-to-all that the NICs bound: NIC n / (n - 1) on n nodes (nccl-tests, issue 130). */
static enum moesim_status add_all_to_all(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                         struct moesim_error *err)
{
    struct moesim_cluster rates = moesim_cluster_find("h100-dgx")->cluster;
    rates.nvlink_bytes_per_s = 1e15;
    rates.latency_intra_s = rates.latency_inter_s = 0;
    for (uint32_t nodes = 2; nodes <= 8; nodes *= 2) {
        const uint32_t devices = nodes * rates.devices_per_node;
        const struct moesim_bench_setup setup = {
            .nodes = nodes,
            .devices_per_node = rates.devices_per_node,
            .tokens = devices * devices,
            .model = {.layers = 1, .experts = devices, .top_k = 1, .d_model = 1024, .d_ff = 1, .dispatch_bytes = 2},
            .routing = MOESIM_BENCH_ALL_PAIRS,
        };
        struct moesim_bench bench;
        struct moesim_bench_times times;
        enum moesim_status status = moesim_bench_init(&bench, &setup, &rates, c->arena, err);
        if (status == MOESIM_OK)
            status = moesim_bench_price(&bench, &rates, &times, err);
        if (status == MOESIM_OK)
            status = fidelity_add(table, c->arena, ALL_TO_ALL, rates.nic_bytes_per_s / 1e9 * nodes / (nodes - 1),
                                  devices * 2048. / times.dispatch_s / 1e9, err, "%u nodes of 8, GB/s", nodes);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}

/* A layer of Mixtral, K 2, on eight devices, and what its experts take. */
static enum moesim_status count_mixtral(const struct fidelity_context *c, enum moesim_bench_routing routing,
                                        struct moesim_bench *bench, double *experts_s, struct moesim_error *err)
{
    const struct moesim_cluster *rates = &moesim_cluster_find("h100-dgx")->cluster;
    const struct moesim_bench_setup setup = {.nodes = 1,
                                             .devices_per_node = 8,
                                             .tokens = 16384,
                                             .model = moesim_model_find("mixtral-8x7b")->model,
                                             .dispatch = MOESIM_DISPATCH_ALL_GATHER,
                                             .routing = routing};
    struct moesim_bench_times times;
    enum moesim_status status = moesim_bench_init(bench, &setup, rates, c->arena, err);
    if (status == MOESIM_OK)
        status = moesim_bench_price(bench, rates, &times, err);
    *experts_s = times.experts_s;
    return status;
}

/* 11.54 TFLOP in 16384 tokens; and no device is busier than 4 times the mean, since a token visits an expert once:
 * 7482 us measured on the hottest of a power law, 1846 us under even load (moe_compute_h100_bf16, EP8). */
static enum moesim_status add_mixtral(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                      struct moesim_error *err)
{
    struct moesim_bench even, hot;
    double even_s, hot_s;
    enum moesim_status status = count_mixtral(c, MOESIM_BENCH_BALANCED, &even, &even_s, err);
    if (status == MOESIM_OK)
        status = count_mixtral(c, MOESIM_BENCH_HOT, &hot, &hot_s, err);
    if (status == MOESIM_OK)
        status = fidelity_add(table, c->arena, MIXTRAL_FLOP, 11.54, even.cost.flop_expert / 1e12, err,
                              "a Mixtral layer of 16384 tokens, TFLOP");
    if (status == MOESIM_OK)
        status = fidelity_add(table, c->arena, CLAMP, 4, hot.cost.device_imbalance, err,
                              "Mixtral EP8, expert of all tokens: max / mean");
    if (status == MOESIM_OK)
        status = fidelity_add(table, c->arena, CLAMP, 7482.0 / 1846, hot_s / even_s, err,
                              "the same, time over that of even load");
    return status;
}

/* Per cent of 2^18 random tokens that repeat the last token's first expert, and any of its two. */
static enum moesim_status add_repeats(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                      struct moesim_error *err)
{
    enum { TOKENS = 1 << 18, K = 2 };
    struct moesim_csv csv;
    const double *first, *any;
    uint32_t *expert = moesim_alloc(c->arena, (size_t)TOKENS * K, sizeof *expert);
    const struct moesim_bench_setup setup = {.nodes = 1,
                                             .devices_per_node = 1,
                                             .tokens = TOKENS,
                                             .model = {.experts = 8, .top_k = K},
                                             .routing = MOESIM_BENCH_RANDOM};
    if (!expert)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %d tokens", TOKENS);
    enum moesim_status status = moesim_csv_read("mixtral_repeat.csv", mixtral_repeat_csv, c->arena, &csv, err);
    if (status || (status = moesim_csv_numbers(&csv, "first_L0", c->arena, &first, err)) ||
        (status = moesim_csv_numbers(&csv, "any_L0", c->arena, &any, err)))
        return status;
    moesim_bench_route(&setup, 0, expert);
    uint64_t same_first = 0, same_any = 0;
    for (uint32_t t = 1; t < TOKENS; t++) {
        const uint32_t *now = expert + (size_t)t * K, *last = now - K;
        same_first += now[0] == last[0];
        same_any += now[0] == last[0] || now[0] == last[1] || now[1] == last[0] || now[1] == last[1];
    }
    const uint32_t random = csv.n_rows - 1; /* the table's last row */
    status = fidelity_add(table, c->arena, REPEATS, first[random], 100.0 * (double)same_first / (TOKENS - 1), err,
                          "8 experts, K 2, random: first expert again, %%");
    return status ? status
                  : fidelity_add(table, c->arena, REPEATS, any[random], 100.0 * (double)same_any / (TOKENS - 1), err,
                                 "8 experts, K 2, random: any expert again, %%");
}

enum moesim_status fidelity_identities(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                       struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[N_IDENTITIES] = {
        [ALL_TO_ALL] = {.rows = "all-to-all bound by the NICs, NIC n/(n-1)",
                        .role = MOESIM_EXACT,
                        .bound = {{MOESIM_MAX_ERROR, 1e-12, false}}},
        [MIXTRAL_FLOP] = {.rows = "arithmetic of a layer",
                          .role = MOESIM_EXACT,
                          .bound = {{MOESIM_MAX_ERROR, 1e-3, false}}},
        [REPEATS] = {.rows = "repeats of a random router (drawn)",
                     .role = MOESIM_EXACT,
                     .bound = {{MOESIM_MAX_ERROR, 0.01, false}}},
        [CLAMP] = {.rows = "the most that skew can do",
                   .role = MOESIM_EXACT,
                   .bound = {{MOESIM_MAX_ERROR, 0.15, false}}},
    };
    table->name = "identities";
    table->title = "Identities";
    table->source = "nccl-tests issue 130; NVIDIA aiconfigurator; Mixtral (arXiv:2401.04088), table 5, analytic row";
    enum moesim_status status = fidelity_open(table, c->arena, 16, parts, N_IDENTITIES, 0, err);
    if (status == MOESIM_OK)
        status = add_all_to_all(c, table, err);
    if (status == MOESIM_OK)
        status = add_mixtral(c, table, err);
    return status ? status : add_repeats(c, table, err);
}
