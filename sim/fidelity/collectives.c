/*
 * NCCL's all-to-all and all-reduce inside a node: a start-up and a rate from two message sizes on eight devices, and
 * everything else held out.
 */
#include <math.h>
#include <string.h>

#include "sim/cost/sync.h"
#include "sim/fidelity/bench.h"
#include "sim/fidelity/table.h"

enum { FITTED, HELD_OUT, FEWER_DEVICES, OWN_CONSTANTS, SMALL, N_PARTS };
enum { DEVICES = 8 };

static const double fitted_bytes[] = {16777216, 536870912};
static const double small_bytes = 16777216;

/* The rows of one table that have the same hardware and operation. */
struct curves {
    const struct moesim_cluster *cluster;
    bool reduce; /* an all-reduce; else an all-to-all */
    uint32_t n_rows;
    const double *ranks, *bytes, *us;       /* [n_rows] */
    struct moesim_bench bench[DEVICES + 1]; /* of an all-to-all, by devices */
    const struct fidelity_knob *knob;
    uint32_t fitted_ranks; /* the devices whose curve is fitted */
};

static const struct fidelity_knob all_to_all_knobs[] = {
    FIDELITY_KNOB("nvlink_bytes_per_s", "GB/s", 1e9, 300, 0, nvlink_bytes_per_s),
    FIDELITY_KNOB("latency_intra_s", "us", 1e-6, 30, 0, latency_intra_s),
};
static const struct fidelity_knob all_reduce_knobs[] = {
    FIDELITY_KNOB("all_reduce_nvlink_bytes_per_s", "GB/s", 1e9, 400, 0, all_reduce_nvlink_bytes_per_s),
    FIDELITY_KNOB("all_reduce_latency_intra_s", "us", 1e-6, 4, 0, all_reduce_latency_intra_s),
};

/* Microseconds of one row. An all-to-all of S bytes sends S / ranks to every device. */
static enum moesim_status predict(const struct curves *c, uint32_t row, const struct moesim_cluster *cluster,
                                  double *us, struct moesim_error *err)
{
    const uint32_t ranks = (uint32_t)c->ranks[row];
    if (c->reduce) {
        const struct moesim_ring ring = {.n = ranks, .per_node = ranks};
        const struct moesim_all_reduce_load load = moesim_all_reduce(MOESIM_RING, &ring, c->bytes[row]);
        *us = 1e6 * moesim_all_reduce_time(cluster, &load);
        return MOESIM_OK;
    }
    struct moesim_bench bench = c->bench[ranks];
    struct moesim_bench_times times;
    bench.setup.model.d_model = (uint32_t)(c->bytes[row] / ranks / bench.setup.model.dispatch_bytes);
    const enum moesim_status status = moesim_bench_price(&bench, cluster, &times, err);
    *us = 1e6 * times.dispatch_s;
    return status;
}

static bool is_fitted(const struct curves *c, uint32_t row)
{
    return c->ranks[row] == c->fitted_ranks && (c->bytes[row] == fitted_bytes[0] || c->bytes[row] == fitted_bytes[1]);
}

static double misfit(const void *context, const double *constant)
{
    const struct curves *c = context;
    struct moesim_cluster cluster = *c->cluster;
    struct moesim_error ignored;
    struct moesim_errors errors = {0};
    fidelity_set_knobs(c->knob, 2, constant, &cluster);
    for (uint32_t i = 0; i < c->n_rows; i++) {
        double us;
        if (!is_fitted(c, i))
            continue;
        if (predict(c, i, &cluster, &us, &ignored) != MOESIM_OK)
            return INFINITY;
        moesim_errors_add(&errors, c->us[i], us);
    }
    return moesim_errors_misfit(&errors);
}

/* Keeps the rows of that hardware and operation. */
static enum moesim_status read_curves(const struct fidelity_context *context, const char *gpu, struct curves *c,
                                      struct moesim_error *err)
{
    struct moesim_csv csv;
    const char *const *gpus, *const *ops;
    const char *op = c->reduce ? "all_reduce" : "alltoall";
    const double *ranks, *bytes, *us;
    enum moesim_status status =
        moesim_csv_read(MOESIM_FIDELITY_COLLECTIVES, context->data->collectives, context->arena, &csv, err);
    if (status || (status = moesim_csv_words(&csv, "gpu", context->arena, &gpus, err)) ||
        (status = moesim_csv_words(&csv, "op", context->arena, &ops, err)) ||
        (status = moesim_csv_numbers(&csv, "ranks", context->arena, &ranks, err)) ||
        (status = moesim_csv_numbers(&csv, "bytes", context->arena, &bytes, err)) ||
        (status = moesim_csv_numbers(&csv, "us", context->arena, &us, err)))
        return status;
    double *kept = moesim_alloc(context->arena, 3 * (size_t)csv.n_rows, sizeof *kept);
    if (!kept)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", csv.name);
    for (uint32_t i = 0; i < csv.n_rows; i++) {
        if (strcmp(gpus[i], gpu) != 0 || strcmp(ops[i], op) != 0)
            continue;
        if (!(ranks[i] >= 2 && ranks[i] <= DEVICES))
            return moesim_fail(err, MOESIM_EINVAL, "%s, row %u: %g ranks; 2 to %d are one node", csv.name, i + 1,
                               ranks[i], DEVICES);
        kept[c->n_rows] = ranks[i];
        kept[csv.n_rows + c->n_rows] = bytes[i];
        kept[2 * (size_t)csv.n_rows + c->n_rows++] = us[i];
    }
    if (c->n_rows == 0)
        return moesim_fail(err, MOESIM_EINVAL, "%s has no row of %s %s", csv.name, gpu, op);
    c->ranks = kept;
    c->bytes = kept + csv.n_rows;
    c->us = kept + 2 * (size_t)csv.n_rows;
    return MOESIM_OK;
}

/* One bench for each number of devices: as many tokens a device as there are devices, one to each. */
static enum moesim_status count_benches(struct curves *c, struct moesim_arena *arena, struct moesim_error *err)
{
    for (uint32_t i = 0; i < c->n_rows; i++) {
        const uint32_t ranks = (uint32_t)c->ranks[i];
        const struct moesim_bench_setup setup = {
            .nodes = 1,
            .devices_per_node = ranks,
            .tokens = ranks * ranks,
            .model = {.layers = 1,
                      .experts = ranks,
                      .top_k = 1,
                      .d_model = 1,
                      .d_ff = 1,
                      .weight_bytes = 2,
                      .dispatch_bytes = 2,
                      .combine_bytes = 2},
            .routing = MOESIM_BENCH_ALL_PAIRS,
        };
        if (c->bench[ranks].setup.tokens)
            continue;
        const enum moesim_status status = moesim_bench_init(&c->bench[ranks], &setup, c->cluster, arena, err);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}

static uint32_t part_of(const struct curves *c, uint32_t row)
{
    if (is_fitted(c, row))
        return FITTED;
    if (c->bytes[row] < small_bytes)
        return SMALL;
    return c->ranks[row] == DEVICES ? HELD_OUT : FEWER_DEVICES;
}

static enum moesim_status add_row(const struct fidelity_context *context, const struct curves *c, uint32_t row,
                                  uint32_t part, const struct moesim_cluster *cluster,
                                  struct moesim_fidelity_table *table, struct moesim_error *err)
{
    double us;
    const enum moesim_status status = predict(c, row, cluster, &us, err);
    return status ? status
                  : fidelity_add(table, context->arena, part, c->us[row], us, err, "%g devices, %g KiB", c->ranks[row],
                                 c->bytes[row] / 1024);
}

/* Every row with the preset's constants. */
static enum moesim_status predict_all(const struct fidelity_context *context, const struct curves *c,
                                      struct moesim_fidelity_table *table, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; i < c->n_rows && status == MOESIM_OK; i++)
        status = add_row(context, c, i, part_of(c, i), c->cluster, table, err);
    return status;
}

/* The curves of fewer devices with constants of their own, from the same two sizes. */
static enum moesim_status predict_own(const struct fidelity_context *context, struct curves c,
                                      struct moesim_fidelity_table *table, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (c.fitted_ranks = 2; c.fitted_ranks < DEVICES && status == MOESIM_OK; c.fitted_ranks *= 2) {
        struct moesim_cluster cluster = *c.cluster;
        double constant[FIDELITY_KNOBS];
        fidelity_calibrate(misfit, &c, c.knob, 2, constant);
        fidelity_set_knobs(c.knob, 2, constant, &cluster);
        for (uint32_t i = 0; i < c.n_rows && status == MOESIM_OK; i++)
            if (c.ranks[i] == c.fitted_ranks && c.bytes[i] >= small_bytes && !is_fitted(&c, i))
                status = add_row(context, &c, i, OWN_CONSTANTS, &cluster, table, err);
    }
    return status;
}

/* `fewer` says why the preset's constants do not serve fewer devices; NULL = they should. */
static enum moesim_status fill(const struct fidelity_context *context, const char *gpu, bool reduce, const char *fewer,
                               struct moesim_fidelity_table *table, struct moesim_error *err)
{
    const struct moesim_fidelity_bound tenth = {MOESIM_MAX_ERROR, 0.1, false};
    const struct moesim_fidelity_part parts[N_PARTS] = {
        [FITTED] = {.rows = "8 devices, 16 and 512 MiB", .role = MOESIM_CALIBRATED},
        [HELD_OUT] = {.rows = "8 devices, 32 to 256 MiB", .role = MOESIM_HELD_OUT, .bound = {tenth}},
        [FEWER_DEVICES] = {.rows = "2 and 4 devices, 16 MiB and more",
                           .role = MOESIM_HELD_OUT,
                           .bound = {tenth},
                           .known = fewer},
        [OWN_CONSTANTS] = {.rows = "2 and 4 devices, 32 to 256 MiB, each fitted to its own two sizes",
                           .role = MOESIM_HELD_OUT,
                           .bound = {tenth}},
        [SMALL] = {.rows = "below 16 MiB",
                   .role = MOESIM_HELD_OUT,
                   .bound = {tenth},
                   .known = "NCCL changes its protocol below some MiB; the start-up is that of large messages"},
    };
    struct curves c = {.cluster = &moesim_cluster_find(table->preset)->cluster,
                       .reduce = reduce,
                       .knob = reduce ? all_reduce_knobs : all_to_all_knobs,
                       .fitted_ranks = DEVICES};
    double constant[FIDELITY_KNOBS];
    table->source = "NVIDIA aiconfigurator, NCCL in one node (Apache-2.0)";
    table->calibration = "NVLink and start-up on 16 MiB and 512 MiB between eight devices (two figures)";
    table->unit = "us";
    table->long_table = true;
    if (!context->data->collectives) {
        table->skipped = "needs " MOESIM_FIDELITY_COLLECTIVES " (--data)";
        return MOESIM_OK;
    }
    enum moesim_status status = read_curves(context, gpu, &c, err);
    if (status == MOESIM_OK && !reduce)
        status = count_benches(&c, context->arena, err);
    if (status == MOESIM_OK)
        status = fidelity_open(table, context->arena, 2 * c.n_rows, parts, N_PARTS, 2, err);
    if (status != MOESIM_OK)
        return status;
    fidelity_calibrate(misfit, &c, c.knob, 2, constant);
    const struct moesim_transport_rates has =
        moesim_cluster_transport(c.cluster, reduce ? MOESIM_ALL_REDUCE : MOESIM_COLLECTIVE);
    const double preset[] = {has.nvlink_bytes_per_s, has.latency_intra_s};
    fidelity_compare(table, c.knob, 2, constant, preset);
    status = predict_all(context, &c, table, err);
    return status ? status : predict_own(context, c, table, err);
}

enum moesim_status fidelity_h100_all_to_all(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                            struct moesim_error *err)
{
    table->name = "nccl_intranode, H100 all-to-all";
    table->title = "NCCL all-to-all on H100";
    table->preset = "h100-dgx";
    return fill(c, "H100", false, NULL, table, err);
}

enum moesim_status fidelity_a100_all_to_all(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                            struct moesim_error *err)
{
    table->name = "nccl_intranode, A100 all-to-all";
    table->title = "NCCL all-to-all on A100";
    table->preset = "a100-dgx";
    return fill(c, "A100", false, "fewer devices reach less of their NVLink", table, err);
}

enum moesim_status fidelity_h100_all_reduce(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                            struct moesim_error *err)
{
    table->name = "nccl_intranode, H100 all-reduce";
    table->title = "NCCL all-reduce on H100";
    table->preset = "h100-dgx";
    return fill(c, "H100", true,
                "the switch sums for eight devices (NVLS), so that their ring rate is above what fewer reach", table,
                err);
}

enum moesim_status fidelity_a100_all_reduce(const struct fidelity_context *c, struct moesim_fidelity_table *table,
                                            struct moesim_error *err)
{
    table->name = "nccl_intranode, A100 all-reduce";
    table->title = "NCCL all-reduce on A100";
    table->preset = "a100-dgx";
    return fill(c, "A100", true, "fewer devices reach less of their NVLink", table, err);
}
