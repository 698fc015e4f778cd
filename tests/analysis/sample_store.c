#include "sample_store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>
#include <moesim/outcome.h>

#include "sample_training.h"

static double noise(uint32_t a, uint32_t b, uint32_t c)
{
    const uint32_t key[] = {a, b, c};
    return (double)(moesim_hash(MOESIM_HASH_START, key, sizeof key) >> 40) / 16777216.0;
}

double sample_max_vio(uint32_t router, uint32_t workload, uint32_t seed)
{
    return fabs(2.0 - 0.3 * (router % 9)) * (1.0 + workload) + 0.2 * noise(router, workload, seed);
}

static uint32_t summaries(const struct sample *sample, uint32_t r, uint32_t w, uint32_t s, double capacity_factor,
                          struct moesim_summary *summary)
{
    const double vio = sample_max_vio(r, w, s), part = 1e-3 * (1.0 + 0.2 * vio);
    const double layer = 2.1 * part + 5e-5;
    const struct {
        uint32_t metric;
        double value;
        bool modelled;
    } value[] = {{MOESIM_MAX_VIO, vio, false},
                 {MOESIM_LOAD_CV, 0.4 * vio, false},
                 {MOESIM_DROPPED_FRACTION, capacity_factor > 0.0 ? vio / (vio + 5.0 * capacity_factor) : 0.0, false},
                 {MOESIM_CPU_TIME_ROUTE, 1e-4 * (1.0 + r), false},
                 {MOESIM_BYTES_DISPATCH, 3.2e6 * (1.0 + w), true},
                 {MOESIM_TIME_GATE, 5e-5, true},
                 {MOESIM_TIME_DISPATCH, 0.5 * part, true},
                 {MOESIM_TIME_COMPUTE, part, true},
                 {MOESIM_TIME_COMBINE, 0.6 * part, true},
                 {MOESIM_TIME_LAYER, layer, true},
                 {MOESIM_TOKENS_PER_SECOND, 4096.0 / layer, true}};
    uint32_t n = 0;
    for (uint32_t i = 0; i < sizeof value / sizeof *value; i++)
        if (sample->with_cluster || !value[i].modelled)
            summary[n++] = (struct moesim_summary){.layer = MOESIM_ALL_LAYERS,
                                                   .metric = value[i].metric,
                                                   .value = sample->without_values ? NAN : value[i].value,
                                                   .mean = value[i].value,
                                                   .n = 1};
    return n;
}

/* Loads that lean to the first experts, less so for later routers. */
static void fill_windows(const struct sample *sample, uint32_t r, struct moesim_load_window *window)
{
    for (uint32_t i = 0; i < sample->n_windows; i++) {
        window[i] = (struct moesim_load_window){.window = i,
                                                .first_step = 5 * i,
                                                .n_steps = 5,
                                                .n_experts = sample->n_experts,
                                                .assigned = calloc(sample->n_experts, sizeof(uint64_t)),
                                                .kept = calloc(sample->n_experts, sizeof(uint64_t))};
        for (uint32_t e = 0; e < sample->n_experts; e++) {
            const double lean = exp(-(e + 1.0) * (i + 1.0) / (sample->n_experts * (0.3 + r)));
            window[i].assigned[e] = window[i].kept[e] = (uint64_t)(1000.0 * lean * (0.5 + noise(r, i, e)));
        }
    }
}

/* Two nodes of four devices: every device to the next one, and all of it through its ports. */
static uint32_t fill_traffic(struct moesim_traffic *traffic)
{
    uint32_t n = 0;
    for (uint32_t d = 0; d < 8; d++) {
        const uint32_t to = (d + 1) % 8;
        const bool crosses = d / 4 != to / 4;
        const double bytes = 1e6 * (d + 1);
        traffic[n++] = (struct moesim_traffic){d, to, bytes, MOESIM_LINK_DEVICE};
        traffic[n++] = (struct moesim_traffic){d, d / 4, bytes, crosses ? MOESIM_LINK_NIC_OUT : MOESIM_LINK_NVLINK_OUT};
        traffic[n++] = (struct moesim_traffic){to / 4, to, bytes, crosses ? MOESIM_LINK_NIC_IN : MOESIM_LINK_NVLINK_IN};
    }
    return n;
}

static void write_run(struct results_store *store, const struct sample *sample, int64_t study, uint32_t r, uint32_t w,
                      uint32_t s, bool failed)
{
    const char *at = strstr(sample->router[r], "capacity_factor=");
    const double capacity_factor = at ? atof(at + 16) : 0.0;
    char number[32], experts[32];
    snprintf(number, sizeof number, "%g", capacity_factor);
    snprintf(experts, sizeof experts, "%u", sample->n_experts);
    const struct results_param param[] = {{"router", sample->router[r], false, 0.0},
                                          {"router.name", sample->router[r], false, 0.0},
                                          {"router.capacity_factor", number, true, capacity_factor},
                                          {"workload", sample->workload[w], false, 0.0},
                                          {"workload.name", sample->workload[w], false, 0.0},
                                          {"model.experts", experts, true, sample->n_experts},
                                          {"model.top_k", "2", true, 2.0},
                                          {"model.layers", "5", true, 5.0},
                                          {"steps", "4", true, 4.0},
                                          {"warm_up", "2", true, 2.0},
                                          {"cluster.nodes", "2", true, 2.0},
                                          {"cluster.devices_per_node", "4", true, 4.0},
                                          {"cluster.leaf_nodes", "1", true, 1.0}};
    struct moesim_summary summary[32];
    struct moesim_load_window window[MOESIM_MAX_WINDOWS] = {0};
    struct moesim_outcome outcome = {.summary = summary, .window = window};
    outcome.n_summaries = summaries(sample, r, w, s, capacity_factor, summary);
    if (sample->with_loads) {
        fill_windows(sample, r, window);
        outcome.n_windows = sample->n_windows;
    }
    struct moesim_traffic traffic[24];
    outcome.traffic = traffic;
    outcome.n_traffic = sample->with_traffic ? fill_traffic(traffic) : 0;
    outcome.arena = moesim_arena_create(0);
    if (sample->trained && outcome.arena)
        sample_train(&outcome, r, s, sample->n_experts, sample->with_cluster);
    const uint32_t place = (w * sample->n_routers + r) * sample->n_seeds + s;
    const struct results_run run = {.study = study,
                                    .hash = moesim_hash(MOESIM_HASH_START, &place, sizeof place),
                                    .seed = s + 1,
                                    .point = place,
                                    .failed = failed,
                                    .reason = failed ? "worker ended by signal 11 <segmentation fault>" : NULL,
                                    .params_json = "{}",
                                    .params = param,
                                    .n_params = sizeof param / sizeof *param,
                                    .provenance = {.version = "0.1.0",
                                                   .revision = "abc1234",
                                                   .compiler = "gcc 12.2.0",
                                                   .cpu = "Test CPU",
                                                   .blas = "OpenBLAS 0.3.21",
                                                   .kernel_path = "avx2",
                                                   .threads = 2,
                                                   .files_json = "{}",
                                                   .workload = "",
                                                   .started = "2025-01-01T00:00:00Z",
                                                   .seconds = 0.1},
                                    .outcome = failed ? NULL : &outcome};
    int64_t id;
    struct moesim_error err;
    if (results_write(store, &run, &id, &err))
        fprintf(stderr, "%s\n", err.text);
    moesim_arena_destroy(outcome.arena);
    for (uint32_t i = 0; i < MOESIM_MAX_WINDOWS; i++) {
        free(window[i].assigned);
        free(window[i].kept);
    }
}

void sample_fill(struct results_store *store, const struct sample *sample, bool fail)
{
    int64_t study;
    struct moesim_error err;
    if (results_study(store, sample->study, moesim_hash(MOESIM_HASH_START, sample->study, strlen(sample->study)), "{}",
                      &study, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return;
    }
    for (uint32_t w = 0; w < sample->n_workloads; w++)
        for (uint32_t r = 0; r < sample->n_routers; r++)
            for (uint32_t s = 0; s < sample->n_seeds; s++)
                write_run(store, sample, study, r, w, s, fail && w == 0 && s == 0 && r + 1 == sample->n_routers);
}
