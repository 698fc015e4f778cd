/*
 * Grouped GEMM on H100: TensorRT-LLM's expert kernels, every device holding all tokens, as after an all-gather. The
 * constants are fitted to Mixtral's shape and predict DeepSeek-V3's.
 */
#include <math.h>
#include <string.h>

#include "sim/fidelity/bench.h"
#include "sim/fidelity/table.h"

enum { FITTED, HELD_OUT, EP16, EP32, EP64, EP128, N_PARTS };
enum { MIXTRAL_WIDTH = 4096 };

static const struct fidelity_knob knobs[] = {
    FIDELITY_KNOB("flop_per_s", "TFLOP/s", 1e12, 800, 989, flop_per_s),
    FIDELITY_KNOB("memory_bytes_per_s", "TB/s", 1e12, 2.9, 3.35, memory_bytes_per_s),
    FIDELITY_KNOB("launch_s", "us", 1e-6, 30, 0, launch_s),
};
enum { N_KNOBS = sizeof knobs / sizeof *knobs };

struct row {
    struct moesim_bench bench;
    double us;
    uint32_t part;
};

struct fit {
    struct row *row;
    uint32_t n_rows;
    const struct moesim_cluster *cluster;
};

static enum moesim_status predict(struct row *row, const struct moesim_cluster *cluster, double *us,
                                  struct moesim_error *err)
{
    struct moesim_bench_times times;
    const enum moesim_status status = moesim_bench_price(&row->bench, cluster, &times, err);
    *us = 1e6 * times.experts_s;
    return status;
}

static double misfit(const void *context, const double *constant)
{
    const struct fit *fit = context;
    struct moesim_cluster cluster = *fit->cluster;
    struct moesim_error ignored;
    struct moesim_errors errors = {0};
    fidelity_set_knobs(knobs, N_KNOBS, constant, &cluster);
    for (uint32_t i = 0; i < fit->n_rows; i++) {
        double us;
        if (fit->row[i].part != FITTED)
            continue;
        if (predict(&fit->row[i], &cluster, &us, &ignored) != MOESIM_OK)
            return INFINITY;
        moesim_errors_add(&errors, fit->row[i].us, us);
    }
    return moesim_errors_misfit(&errors);
}

static uint32_t part_of(double hidden, double ep)
{
    if (hidden == MIXTRAL_WIDTH)
        return FITTED;
    return ep <= 8 ? HELD_OUT : ep <= 16 ? EP16 : ep <= 32 ? EP32 : ep <= 64 ? EP64 : EP128;
}

/* The balanced rows as benches. */
static enum moesim_status read_rows(const struct fidelity_context *c, struct fit *fit, struct moesim_error *err)
{
    struct moesim_csv csv;
    const double *hidden, *ff, *topk, *experts, *ep, *tokens, *us;
    const char *const *distribution;
    const struct fidelity_column columns[] = {{"hidden", &hidden},   {"ff", &ff}, {"topk", &topk},
                                              {"experts", &experts}, {"ep", &ep}, {"global_tokens", &tokens},
                                              {"us", &us},           {NULL, NULL}};
    enum moesim_status status = moesim_csv_read(MOESIM_FIDELITY_EXPERTS, c->data->experts, c->arena, &csv, err);
    if (status == MOESIM_OK)
        status = fidelity_columns(MOESIM_FIDELITY_EXPERTS, c->data->experts, c->arena, columns, &fit->n_rows, err);
    if (status == MOESIM_OK)
        status = moesim_csv_words(&csv, "distribution", c->arena, &distribution, err);
    if (status != MOESIM_OK)
        return status;
    fit->row = moesim_alloc(c->arena, csv.n_rows, sizeof *fit->row);
    if (!fit->row)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", csv.name);
    fit->n_rows = 0;
    for (uint32_t i = 0; i < csv.n_rows && status == MOESIM_OK; i++) {
        if (strcmp(distribution[i], "balanced") != 0)
            continue;
        struct row *row = &fit->row[fit->n_rows++];
        const struct moesim_bench_setup setup = {
            .nodes = 1,
            .devices_per_node = (uint32_t)ep[i],
            .tokens = (uint32_t)tokens[i],
            .model = {.layers = 1,
                      .experts = (uint32_t)experts[i],
                      .top_k = (uint32_t)topk[i],
                      .d_model = (uint32_t)hidden[i],
                      .d_ff = (uint32_t)ff[i],
                      .activation = MOESIM_SWIGLU,
                      .weight_bytes = 2,
                      .dispatch_bytes = 2,
                      .combine_bytes = 2},
            .dispatch = MOESIM_DISPATCH_ALL_GATHER,
            .routing = MOESIM_BENCH_BALANCED,
        };
        row->us = us[i];
        row->part = part_of(hidden[i], ep[i]);
        status = moesim_bench_init(&row->bench, &setup, fit->cluster, c->arena, err);
    }
    return status;
}

enum moesim_status fidelity_experts(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                    struct moesim_error *err)
{
    static const struct moesim_fidelity_part parts[N_PARTS] = {
        [FITTED] = {.rows = "Mixtral, EP1 to EP8", .role = MOESIM_CALIBRATED},
        [HELD_OUT] = {.rows = "DeepSeek-V3, EP1 to EP8",
                      .role = MOESIM_HELD_OUT,
                      .bound = {{MOESIM_MEDIAN_ERROR, 0.06, false}, {MOESIM_P90_ERROR, 0.2, false}}},
        [EP16] = {.rows = "DeepSeek-V3, EP16", .role = MOESIM_HELD_OUT},
        [EP32] = {.rows = "DeepSeek-V3, EP32", .role = MOESIM_HELD_OUT},
        [EP64] = {.rows = "DeepSeek-V3, EP64",
                  .role = MOESIM_HELD_OUT,
                  .bound = {{MOESIM_MEDIAN_ERROR, 0.06, false}},
                  .known = "the kernel does little on each device and its fixed work over all tokens shows"},
        [EP128] = {.rows = "DeepSeek-V3, EP128 and EP256",
                   .role = MOESIM_HELD_OUT,
                   .bound = {{MOESIM_MEDIAN_ERROR, 0.06, false}},
                   .known = "measured times stop falling with EP, about three times what the roofline has"},
    };
    struct fit fit = {.cluster = &moesim_cluster_find("h100-dgx")->cluster};
    double constant[FIDELITY_KNOBS];
    table->name = "moe_compute_h100_bf16";
    table->title = "Expert kernels on H100, balanced tokens";
    table->source = "NVIDIA aiconfigurator, h100_sxm, TensorRT-LLM 1.2.0rc5 cutlass, BF16 (Apache-2.0)";
    table->preset = "h100-dgx";
    table->calibration = "arithmetic, memory bandwidth and start-up on Mixtral's shape at EP1 to EP8";
    table->unit = "us";
    table->remark = "the table's skewed rows (power laws) depend on a draw that is not published and are left out";
    table->long_table = true;
    if (!c->data->experts) {
        table->skipped = "needs " MOESIM_FIDELITY_EXPERTS " (--data)";
        return MOESIM_OK;
    }
    enum moesim_status status = read_rows(c, &fit, err);
    if (status == MOESIM_OK)
        status = fidelity_open(table, c->arena, fit.n_rows, parts, N_PARTS, N_KNOBS, err);
    if (status != MOESIM_OK)
        return status;
    fidelity_calibrate(misfit, &fit, knobs, N_KNOBS, constant);
    const double preset[] = {fit.cluster->flop_per_s, fit.cluster->memory_bytes_per_s, fit.cluster->launch_s};
    fidelity_compare(table, knobs, N_KNOBS, constant, preset);
    for (uint32_t i = 0; i < fit.n_rows && status == MOESIM_OK; i++) {
        const struct moesim_bench_setup *s = &fit.row[i].bench.setup;
        double us;
        status = predict(&fit.row[i], fit.cluster, &us, err);
        if (status == MOESIM_OK)
            status = fidelity_add(table, c->arena, fit.row[i].part, fit.row[i].us, us, err, "%s, EP%u, %u tokens",
                                  s->model.d_model == MIXTRAL_WIDTH ? "Mixtral" : "DeepSeek-V3", s->devices_per_node,
                                  s->tokens);
    }
    return status;
}
