/*
 * DeepEP's kernels on H100 and H800. Every row is one bench, whose dispatch and combine are two figures. Low-latency
 * kernels are published in microseconds, normal ones in logical bandwidth: the bytes of all distinct devices (of one
 * node) or nodes that a token visits, its own included, over the time.
 */
#include <math.h>
#include <stddef.h>

#include "sim/fidelity/bench.h"
#include "sim/fidelity/table.h"

#include "deepep_h100_ll.csv.h"
#include "deepep_v1_ll_h800.csv.h"
#include "deepep_v1_normal_h800.csv.h"

enum { DEVICES_PER_NODE = 8, MOST_NODES = 4 /* that the normal kernels' benchmark lets a token visit */ };

/* One published row: a bench and its two figures. */
struct row {
    struct moesim_bench bench;
    double ep, tokens;
    double published[2]; /* of dispatch, of combine */
    bool fitted;         /* the calibration looks at it */
};

struct fit {
    struct row *row;
    uint32_t n_rows, n_knobs;
    const struct fidelity_knob *knob;
    struct moesim_cluster cluster;
    enum moesim_status status; /* of the last price */
};

/* Microseconds of the row's dispatch and combine on that cluster. */
static enum moesim_status predict(struct row *row, const struct moesim_cluster *cluster, double predicted[2],
                                  struct moesim_error *err)
{
    struct moesim_bench_times times;
    const enum moesim_status status = moesim_bench_price(&row->bench, cluster, &times, err);
    predicted[0] = times.dispatch_s * 1e6;
    predicted[1] = times.combine_s * 1e6;
    return status;
}

/* Turns logical bandwidth in GB/s into the microseconds that it implies. */
static void set_implied_times(struct row *row)
{
    const struct moesim_model *model = &row->bench.setup.model;
    const double visits = row->bench.setup.nodes == 1 ? row->bench.cost.device_fanout : row->bench.cost.node_fanout;
    const double bytes[2] = {moesim_model_token_bytes(model, model->dispatch_bytes),
                             moesim_model_token_bytes(model, model->combine_bytes)};
    for (int i = 0; i < 2; i++)
        row->published[i] = row->tokens * visits * bytes[i] / row->published[i] / 1e3;
}

/* Of the fitted rows. */
static double misfit(const void *context, const double *constant)
{
    const struct fit *fit = context;
    struct moesim_cluster cluster = fit->cluster;
    struct moesim_error ignored;
    struct moesim_errors errors = {0};
    fidelity_set_knobs(fit->knob, fit->n_knobs, constant, &cluster);
    for (uint32_t i = 0; i < fit->n_rows; i++) {
        struct row *row = &fit->row[i];
        double predicted[2];
        if (!row->fitted)
            continue;
        if (predict(row, &cluster, predicted, &ignored) != MOESIM_OK)
            return INFINITY;
        for (int j = 0; j < 2; j++)
            moesim_errors_add(&errors, row->published[j], predicted[j]);
    }
    return moesim_errors_misfit(&errors);
}

/* Reads a table's rows into benches. */
static enum moesim_status read_rows(const struct fidelity_context *c, const char *name, const char *text,
                                    enum moesim_dispatch dispatch, bool logical, struct fit *fit,
                                    struct moesim_error *err)
{
    const double *ep, *tokens, *hidden, *topk, *dispatched, *combined;
    const struct fidelity_column columns[] = {{"ep", &ep},
                                              {"tokens", &tokens},
                                              {"hidden", &hidden},
                                              {"topk", &topk},
                                              {logical ? "disp_GBps" : "disp_us", &dispatched},
                                              {logical ? "comb_GBps" : "comb_us", &combined},
                                              {NULL, NULL}};
    enum moesim_status status = fidelity_columns(name, text, c->arena, columns, &fit->n_rows, err);
    if (status != MOESIM_OK)
        return status;
    fit->row = moesim_alloc(c->arena, fit->n_rows, sizeof *fit->row);
    if (!fit->row)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", name);
    for (uint32_t i = 0; i < fit->n_rows && status == MOESIM_OK; i++) {
        struct row *row = &fit->row[i];
        const uint32_t nodes = ep[i] <= DEVICES_PER_NODE ? 1 : (uint32_t)ep[i] / DEVICES_PER_NODE;
        const struct moesim_bench_setup setup = {
            .nodes = nodes,
            .devices_per_node = (uint32_t)ep[i] / nodes,
            .tokens = (uint32_t)(ep[i] * tokens[i]),
            /* DeepSeek-V3's sizes, FP8 to the experts and BF16 back; no table depends on the width of experts. */
            .model = {.layers = 1,
                      .experts = 256,
                      .top_k = (uint32_t)topk[i],
                      .d_model = (uint32_t)hidden[i],
                      .d_ff = 2048,
                      .activation = MOESIM_SWIGLU,
                      .weight_bytes = 1,
                      .dispatch_bytes = 1,
                      .combine_bytes = 2},
            .dispatch = dispatch,
            .routing = MOESIM_BENCH_RANDOM,
            .kept_nodes = logical && nodes > MOST_NODES ? MOST_NODES : nodes,
        };
        row->ep = ep[i];
        row->tokens = tokens[i];
        row->published[0] = dispatched[i];
        row->published[1] = combined[i];
        status = moesim_bench_init(&row->bench, &setup, &fit->cluster, c->arena, err);
        if (status == MOESIM_OK && logical)
            set_implied_times(row);
    }
    return status;
}

/* Predicts every row on the cluster into the table; `part` says which part it belongs to, UINT32_MAX = none. */
static enum moesim_status add_rows(const struct fidelity_context *c, struct fit *fit,
                                   const struct moesim_cluster *cluster, uint32_t (*part)(const struct row *row),
                                   struct moesim_fidelity_table *table, struct moesim_error *err)
{
    static const char *const phase[] = {"dispatch", "combine"};
    for (uint32_t i = 0; i < fit->n_rows; i++) {
        struct row *row = &fit->row[i];
        const uint32_t p = part(row);
        double predicted[2];
        if (p == UINT32_MAX)
            continue;
        enum moesim_status status = predict(row, cluster, predicted, err);
        for (int j = 0; j < 2 && status == MOESIM_OK; j++)
            status = fidelity_add(table, c->arena, p, row->published[j], predicted[j], err, "EP%g, %g tokens, %s",
                                  row->ep, row->tokens, phase[j]);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}

/* ---- low-latency kernels ---- */

static const struct fidelity_knob low_latency_knobs[] = {
    FIDELITY_KNOB("low_latency_nic_bytes_per_s", "GB/s", 1e9, 46, 50, low_latency_nic_bytes_per_s),
    FIDELITY_KNOB("low_latency_nvlink_bytes_per_s", "GB/s", 1e9, 200, 0, low_latency_nvlink_bytes_per_s),
    FIDELITY_KNOB("low_latency_latency_intra_s", "us", 1e-6, 20, 0, low_latency_latency_intra_s),
    FIDELITY_KNOB("low_latency_latency_inter_s", "us", 1e-6, 20, 0, low_latency_latency_inter_s),
};

enum { FITTED, HELD_OUT, FEW_TOKENS };
enum { FEW = 32 };

static uint32_t h100_part(const struct row *row)
{
    return row->tokens < FEW ? FEW_TOKENS : row->ep <= 16 ? FITTED : HELD_OUT;
}

static uint32_t h800_part(const struct row *row)
{
    return row->ep == 8 || row->ep == 32 ? FITTED : HELD_OUT;
}

static enum moesim_status low_latency(const struct fidelity_context *c, const char *file, const char *text,
                                      uint32_t (*part)(const struct row *row), const struct moesim_fidelity_part *parts,
                                      uint32_t n_parts, struct moesim_fidelity_table *table, struct moesim_error *err)
{
    struct fit fit = {
        .n_knobs = FIDELITY_KNOBS, .knob = low_latency_knobs, .cluster = moesim_cluster_find(table->preset)->cluster};
    double constant[FIDELITY_KNOBS];
    enum moesim_status status = read_rows(c, file, text, MOESIM_DISPATCH_LOW_LATENCY, false, &fit, err);
    if (status == MOESIM_OK)
        status = fidelity_open(table, c->arena, 2 * fit.n_rows, parts, n_parts, fit.n_knobs, err);
    if (status != MOESIM_OK)
        return status;
    for (uint32_t i = 0; i < fit.n_rows; i++)
        fit.row[i].fitted = part(&fit.row[i]) == FITTED;
    fidelity_calibrate(misfit, &fit, fit.knob, fit.n_knobs, constant);
    const struct moesim_transport_rates has = moesim_cluster_transport(&fit.cluster, MOESIM_LOW_LATENCY);
    const double preset[] = {has.nic_bytes_per_s, has.nvlink_bytes_per_s, has.latency_intra_s, has.latency_inter_s};
    fidelity_compare(table, fit.knob, fit.n_knobs, constant, preset);
    return add_rows(c, &fit, &fit.cluster, part, table, err);
}

enum moesim_status fidelity_h100_low_latency(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                             struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[] = {
        [FITTED] = {.rows = "EP8, EP16; 32 tokens and more", .role = MOESIM_CALIBRATED},
        [HELD_OUT] = {.rows = "EP32, EP64; 32 tokens and more",
                      .role = MOESIM_HELD_OUT,
                      .bound = {{MOESIM_MEAN_ERROR, 0.05, false}, {MOESIM_MAX_ERROR, 0.15, false}}},
        [FEW_TOKENS] = {.rows = "below 32 tokens",
                        .role = MOESIM_HELD_OUT,
                        .bound = {{MOESIM_MEAN_ERROR, 0.05, false}, {MOESIM_MAX_ERROR, 0.15, false}},
                        .known = "one start-up for any number of tokens; the kernels' grows until their blocks are "
                                 "all busy"},
    };
    table->name = "deepep_h100_ll";
    table->title = "DeepEP low-latency kernels on H100";
    table->source = "NVIDIA aiconfigurator, h100_sxm, sglang 0.5.6.post2 (Apache-2.0)";
    table->preset = "h100-dgx";
    table->calibration =
        "both start-ups, NIC and NVLink of the low-latency transport on EP8 and EP16 from 32 tokens up";
    table->unit = "us";
    return low_latency(c, "deepep_h100_ll.csv", deepep_h100_ll_csv, h100_part, parts, 3, table, err);
}

enum moesim_status fidelity_h800_low_latency(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                             struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[] = {
        [FITTED] = {.rows = "EP8, EP32", .role = MOESIM_CALIBRATED},
        [HELD_OUT] = {.rows = "EP16, EP64, EP128, EP256",
                      .role = MOESIM_HELD_OUT,
                      .bound = {{MOESIM_MAX_ERROR, 0.12, false}}},
    };
    table->name = "deepep_v1_ll_h800";
    table->title = "DeepEP V1 low-latency kernels on H800";
    table->source = "DeepEP, performance of the first version";
    table->preset = "h800";
    table->calibration = "both start-ups, NIC and NVLink of the low-latency transport on EP8 and EP32 (four figures)";
    table->unit = "us";
    return low_latency(c, "deepep_v1_ll_h800.csv", deepep_v1_ll_h800_csv, h800_part, parts, 2, table, err);
}

/* ---- normal kernels ---- */

enum { WHOLE = HELD_OUT + 1, NO_DEDUPLICATION, NO_NVLINK };

static const struct fidelity_knob normal_knobs[] = {
    FIDELITY_KNOB("normal_nic_bytes_per_s", "GB/s", 1e9, 42, 50, normal_nic_bytes_per_s),
    FIDELITY_KNOB("normal_nvlink_bytes_per_s", "GB/s", 1e9, 130, 0, normal_nvlink_bytes_per_s),
};
/* The same two for copies that are not deduplicated, which is how the low-latency kernels send. */
static const struct fidelity_knob straight_knobs[] = {
    FIDELITY_KNOB("nic", "GB/s", 1e9, 42, 50, low_latency_nic_bytes_per_s),
    FIDELITY_KNOB("nvlink", "GB/s", 1e9, 130, 0, low_latency_nvlink_bytes_per_s),
};

static uint32_t whole_part(const struct row *row)
{
    (void)row;
    return WHOLE;
}

static uint32_t straight_part(const struct row *row)
{
    (void)row;
    return NO_DEDUPLICATION;
}

/* In one node nothing is left to bound the exchange. */
static uint32_t unbound_part(const struct row *row)
{
    return row->ep > DEVICES_PER_NODE ? NO_NVLINK : UINT32_MAX;
}

/* Fits the constants to all rows of the part and adds what they predict then. */
static enum moesim_status refit(const struct fidelity_context *c, struct fit fit,
                                uint32_t (*part)(const struct row *row), struct moesim_fidelity_table *table,
                                struct moesim_error *err)
{
    double constant[FIDELITY_KNOBS];
    for (uint32_t i = 0; i < fit.n_rows; i++)
        fit.row[i].fitted = part(&fit.row[i]) != UINT32_MAX;
    fidelity_calibrate(misfit, &fit, fit.knob, fit.n_knobs, constant);
    fidelity_set_knobs(fit.knob, fit.n_knobs, constant, &fit.cluster);
    return add_rows(c, &fit, &fit.cluster, part, table, err);
}

/* The whole model, and with a part of it left out, each fitted to all its rows with the NIC within its 50 GB/s. */
static enum moesim_status add_ablations(const struct fidelity_context *c, const struct fit *normal,
                                        struct moesim_fidelity_table *table, struct moesim_error *err)
{
    struct fit straight = {.n_knobs = 2, .knob = straight_knobs, .cluster = normal->cluster}, unbound = *normal;
    unbound.n_knobs = 1;
    unbound.cluster.normal_nvlink_bytes_per_s = 1e18;
    enum moesim_status status = refit(c, *normal, whole_part, table, err);
    if (status == MOESIM_OK)
        status = read_rows(c, "deepep_v1_normal_h800.csv", deepep_v1_normal_h800_csv, MOESIM_DISPATCH_LOW_LATENCY, true,
                           &straight, err);
    if (status == MOESIM_OK)
        status = refit(c, straight, straight_part, table, err);
    return status ? status : refit(c, unbound, unbound_part, table, err);
}

enum moesim_status fidelity_h800_normal(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                        struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[] = {
        [FITTED] = {.rows = "EP8, EP32", .role = MOESIM_CALIBRATED},
        [HELD_OUT] = {.rows = "EP16, EP64", .role = MOESIM_HELD_OUT, .bound = {{MOESIM_MAX_ERROR, 0.12, false}}},
        [WHOLE] = {.rows = "the whole model, fitted to all rows",
                   .role = MOESIM_ABLATION,
                   .bound = {{MOESIM_MAX_ERROR, 0.12, false}}},
        [NO_DEDUPLICATION] = {.rows = "a copy for each expert, NIC at most 50 GB/s, fitted to all rows",
                              .role = MOESIM_ABLATION,
                              .bound = {{MOESIM_MAX_ERROR, 0.4, true}}},
        [NO_NVLINK] = {.rows = "no NVLink bound, fitted to EP16 and more",
                       .role = MOESIM_ABLATION,
                       .bound = {{MOESIM_MAX_ERROR, 0.3, true}}},
    };
    struct fit fit = {.n_knobs = 2, .knob = normal_knobs, .cluster = moesim_cluster_find("h800")->cluster};
    double constant[FIDELITY_KNOBS];
    table->name = "deepep_v1_normal_h800";
    table->title = "DeepEP V1 normal kernels on H800";
    table->source = "DeepEP, performance of the first version";
    table->preset = "h800";
    table->calibration =
        "NIC and NVLink of the normal transport on EP8 and EP32; its start-ups are the low-latency ones";
    table->unit = "us, as the published logical GB/s imply with the visits that the benchmark's routing makes";
    table->remark = "node-limited routing is not tested: rows bound by the NIC have logical bandwidth NIC n/(n-1), "
                    "whatever the routing";
    enum moesim_status status =
        read_rows(c, "deepep_v1_normal_h800.csv", deepep_v1_normal_h800_csv, MOESIM_DISPATCH_NORMAL, true, &fit, err);
    if (status == MOESIM_OK)
        status = fidelity_open(table, c->arena, 4 * 2 * fit.n_rows, parts, 5, fit.n_knobs, err);
    if (status != MOESIM_OK)
        return status;
    for (uint32_t i = 0; i < fit.n_rows; i++)
        fit.row[i].fitted = h800_part(&fit.row[i]) == FITTED;
    fidelity_calibrate(misfit, &fit, fit.knob, fit.n_knobs, constant);
    const struct moesim_transport_rates has = moesim_cluster_transport(&fit.cluster, MOESIM_NORMAL);
    const double preset[] = {has.nic_bytes_per_s, has.nvlink_bytes_per_s};
    fidelity_compare(table, fit.knob, fit.n_knobs, constant, preset);
    status = add_rows(c, &fit, &fit.cluster, h800_part, table, err);
    return status ? status : add_ablations(c, &fit, table, err);
}
