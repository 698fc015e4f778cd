/*
 * Fitting the generator: it finds figures that it can make, measures recordings, and refuses what tells nothing.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"
#include "workloads/calibrated/fit_trace.h"

/* Many small samples: one thread does them sooner than two that wait for each other on a busy machine. */
static void set_up(void)
{
    folder_create();
    omp_set_num_threads(1);
}

TestSuite(fit, .timeout = 300, .init = set_up, .fini = folder_remove);

enum { E = 16, K = 2, SEQUENCE = 128, SEQUENCES = 15, T = SEQUENCE * SEQUENCES, LAYERS = 2 };

static const struct effects hidden = {.popularity = 1.2,
                                      .domain_effect = 0.9,
                                      .domain_tail = 1,
                                      .sequence_effect = 0.7,
                                      .slow_effect = 0.8,
                                      .slow_rho = 0.95,
                                      .fast_effect = 1.0,
                                      .fast_rho = 0.4};

static struct source_params make_params(struct effects effects)
{
    return (struct source_params){.preset = CALIBRATED_N_PRESETS - 1,
                                  .sequence = SEQUENCE,
                                  .domains = 3,
                                  .vocabulary = 1,
                                  .zipf = 1,
                                  .effects = effects,
                                  .profile = ""};
}

static uint32_t n_told;

static bool tell(void *context, uint32_t done, uint32_t of, double miss)
{
    cr_assert(miss >= 0 && done <= of + 32);
    return ++n_told < *(const uint32_t *)context;
}

/* Figures of known effects, and a start that is off by half to twice. */
Test(fit, finds_figures_that_can_be)
{
    static const enum calibrated_figure aimed[] = {CALIBRATED_LOAD_CV, CALIBRATED_MAX_MEAN, CALIBRATED_DIVERGENCE,
                                                   CALIBRATED_RANKS,   CALIBRATED_LAG1,     CALIBRATED_LAG2,
                                                   CALIBRATED_LAG8,    CALIBRATED_LAG64};
    struct source_params params = make_params(hidden);
    const struct sample_plan plan = {.n_experts = E, .top_k = K, .n_layers = 3, .sequences_each = 8, .seed = 4};
    struct calibrated_target target[8];
    double value[CALIBRATED_N_FIGURES];
    struct moesim_error err;
    uint32_t patience = UINT32_MAX;
    cr_assert_eq(sample_take(&params, &plan, NULL, value, &err), MOESIM_OK);
    for (uint32_t i = 0; i < 8; i++)
        target[i] = (struct calibrated_target){.figure = aimed[i], .value = value[aimed[i]]};
    cr_assert_eq(fit_miss(target, 8, value), 0);
    params.effects.popularity *= 2;
    params.effects.domain_effect *= 0.5;
    params.effects.fast_effect *= 2;
    params.effects.slow_effect *= 0.6;
    struct fit_task task = {
        .target = target, .n_targets = 8, .sample = plan, .n_evaluations = 150, .progress = tell, .context = &patience};
    task.sample.seed = 5; /* other numbers than the targets were made of */
    cr_assert_eq(sample_take(&params, &task.sample, NULL, value, &err), MOESIM_OK);
    const double before = fit_miss(target, 8, value);
    task.free[FIT_POPULARITY] = task.free[FIT_DOMAIN_EFFECT] = task.free[FIT_SEQUENCE_EFFECT] = true;
    task.free[FIT_SLOW_EFFECT] = task.free[FIT_FAST_EFFECT] = true;
    cr_assert_eq(fit_effects(&task, &params, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(sample_take(&params, &task.sample, NULL, value, &err), MOESIM_OK);
    const double after = fit_miss(target, 8, value);
    cr_assert(before > 50 && after < 2, "%g, then %g", before, after);
    cr_assert_eq(params.effects.slow_rho, hidden.slow_rho, "what is not free stays");
}

/* A miss of one tenth counts 1 and the 0.1 above 0.9 tenths four times its square. */
Test(fit, miss_of_known_values)
{
    const struct calibrated_target target[] = {{.figure = CALIBRATED_LOAD_CV, .value = 2},
                                               {.figure = CALIBRATED_LAG1, .value = 0.5}};
    double value[CALIBRATED_N_FIGURES] = {[CALIBRATED_LOAD_CV] = 2.2, [CALIBRATED_LAG1] = 0.475};
    cr_assert_float_eq(fit_miss(target, 2, value), 1 + 4 * 0.01 + 0.25, 1e-9);
    value[CALIBRATED_LAG1] = NAN;
    cr_assert_float_eq(fit_miss(target, 2, value), 1.04 + 100 + 4 * 9.1 * 9.1, 1e-9);
}

/* Decisions of the generator as a recording with sequences and domains. */
static struct trace *make_trace(double *mean)
{
    const struct moesim_workload_env env = {.seed = 8,
                                            .n_layers = LAYERS,
                                            .n_experts = E,
                                            .n_columns = E,
                                            .top_k = K,
                                            .n_tokens = T,
                                            .n_devices = 1,
                                            .arena = moesim_arena_create(0)};
    const struct source_params params = make_params(hidden);
    static uint32_t ids[T][LAYERS][K], expert[T * K];
    static char csv[SEQUENCES * 32], path[512], sequences[512];
    struct source source;
    struct moesim_error err;
    struct trace *trace;
    cr_assert_eq(source_init(&source, "test", &params, &env, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t l = 0; l < LAYERS; l++) {
        struct moesim_batch batch = {.struct_size = sizeof batch};
        source_label(&source, 0);
        source_draw(&source, 0, l, &batch);
        moesim_topk(batch.columns, batch.stride, T, E, K, expert);
        for (uint32_t t = 0; t < T; t++)
            memcpy(ids[t][l], expert + t * K, sizeof ids[t][l]);
    }
    char *at = csv + sprintf(csv, "start,len,topic\n");
    for (uint32_t q = 0; q < SEQUENCES; q++)
        at += sprintf(at, "%u,%u,t%u\n", q * SEQUENCE, SEQUENCE, q % 3);
    snprintf(sequences, sizeof sequences, "%s", folder_write("s.csv", csv, strlen(csv)));
    char header[128];
    const int n =
        snprintf(header + 10, 118, "{'descr': '<u4', 'fortran_order': False, 'shape': (%d, %d, %d), }", T, LAYERS, K);
    memset(header + 10 + n, ' ', (size_t)(118 - n));
    header[127] = '\n';
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    char *file = malloc(sizeof header + sizeof ids);
    memcpy(file, header, sizeof header);
    memcpy(file + sizeof header, ids, sizeof ids);
    snprintf(path, sizeof path, "%s", folder_write("ids.npy", file, sizeof header + sizeof ids));
    free(file);
    moesim_arena_destroy(env.arena);
    const struct trace_options options = {.sequences = sequences, .domains = "topic"};
    cr_assert_eq(trace_open(path, &options, &trace, &err), MOESIM_OK, "%s", err.text);
    struct recorded_labels labels;
    double layers[LAYERS * CALIBRATED_N_FIGURES];
    cr_assert_eq(recorded_labels(trace, &labels, &err), MOESIM_OK);
    cr_assert(labels.n_domains == 3 && labels.vocabulary == 0 && labels.n_sequences == SEQUENCES);
    cr_assert_eq(recorded_figures(trace, &labels, layers, mean, &err), MOESIM_OK);
    return trace;
}

/* Target by target within 20 %: the recording has 1920 tokens only, and the search is short. */
Test(fit, fits_a_recording)
{
    double mean[CALIBRATED_N_FIGURES];
    struct trace *trace = make_trace(mean);
    struct fit_trace_result r;
    struct moesim_error err;
    uint32_t patience = UINT32_MAX;
    const struct fit_trace_options options = {.n_samples = 60, .seed = 1, .progress = tell, .context = &patience};
    cr_assert_eq(fit_trace(trace, &options, &r, &err), MOESIM_OK, "%s", err.text);
    cr_assert(r.n_experts == E && r.top_k == K && r.n_layers == LAYERS);
    cr_assert(r.params.sequence == SEQUENCE && r.params.domains == 3);
    cr_assert(r.is_known[FIT_DOMAIN_EFFECT] && r.is_known[FIT_SLOW_RHO] && !r.is_known[FIT_TOKEN_EFFECT]);
    cr_assert_eq(r.params.effects.token_effect, 0, "nothing is made up");
    uint32_t n_missed = 0;
    for (uint32_t i = 0; i < r.n_targets; i++) {
        const double off = r.got[r.target[i].figure] / r.target[i].value - 1;
        cr_assert_eq(r.target[i].value, mean[r.target[i].figure]);
        n_missed += !(fabs(off) <= 0.2);
    }
    cr_assert(r.n_targets > 10 && n_missed <= 2, "%u of %u are missed", n_missed, r.n_targets);
    fit_trace_free(&r);
    trace_close(trace);
}

Test(fit, stops_when_told)
{
    double mean[CALIBRATED_N_FIGURES];
    struct trace *trace = make_trace(mean);
    struct fit_trace_result r;
    struct moesim_error err;
    uint32_t patience = 20;
    const struct fit_trace_options options = {.n_samples = 1000, .seed = 1, .progress = tell, .context = &patience};
    n_told = 0;
    cr_assert_eq(fit_trace(trace, &options, &r, &err), MOESIM_ESTOP);
    cr_assert_eq(n_told, 20);
    cr_assert(r.params.effects.popularity > 0 && isfinite(r.got[CALIBRATED_LOAD_CV]));
    fit_trace_free(&r);
    trace_close(trace);
}

/* Loads: three domains of four experts; no order, no types. */
Test(fit, loads_tell_loads_only)
{
    const char *text = "{\"logical_count\": [[[10,20,30,40]],[[40,30,20,10]],[[25,25,25,24]]]}";
    struct trace *trace;
    struct fit_trace_result r;
    struct moesim_error err;
    struct fit_trace_options options = {.n_samples = 20, .seed = 1};
    const struct trace_options loads = {.kind = TRACE_LOADS};
    cr_assert_eq(trace_open(folder_write("l.json", text, strlen(text)), &loads, &trace, &err), MOESIM_OK, "%s",
                 err.text);
    cr_assert_eq(fit_trace(trace, &options, &r, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "how many experts a token has: give --top-k"), "%s", err.text);
    options.top_k = 5;
    cr_assert_eq(fit_trace(trace, &options, &r, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "--top-k 5: the recording has 4 experts"), "%s", err.text);
    options.top_k = 2;
    cr_assert_eq(fit_trace(trace, &options, &r, &err), MOESIM_OK, "%s", err.text);
    cr_assert(r.is_known[FIT_DOMAIN_EFFECT] && !r.is_known[FIT_FAST_EFFECT] && r.params.domains == 3);
    cr_assert_eq(r.params.effects.fast_effect, 0);
    /* by hand: all 75 75 75 74 of mean 74.75 */
    cr_assert_eq(r.target[0].figure, CALIBRATED_LOAD_CV);
    cr_assert_float_eq(r.target[0].value, sqrt(3) / 4 / 74.75, 1e-12);
    fit_trace_free(&r);
    trace_close(trace);
}

/* gpt-oss-20b, 63,015 decoded tokens in 174 sequences (recorded by A. Priyanshu, Apache-2.0), means over the 24 layers
 * as measured elsewhere. The recording is no part of the project: MOESIM_TEST_TRACES names the folder it is in. */
Test(fit, figures_of_gpt_oss_20b)
{
    static const struct calibrated_target published[] = {
        {.figure = CALIBRATED_LOAD_CV, .value = 0.7235},    {.figure = CALIBRATED_MAX_MEAN, .value = 2.6053},
        {.figure = CALIBRATED_GINI, .value = 0.4057},       {.figure = CALIBRATED_LAG1, .value = 0.437},
        {.figure = CALIBRATED_LAG2, .value = 0.379},        {.figure = CALIBRATED_LAG8, .value = 0.347},
        {.figure = CALIBRATED_LAG64, .value = 0.321},       {.figure = CALIBRATED_LAG256, .value = 0.305},
        {.figure = CALIBRATED_FIRST_AGAIN, .value = 0.241}, {.figure = CALIBRATED_ANY_AGAIN, .value = 0.846},
        {.figure = CALIBRATED_WINDOW_MAX, .value = 5.0},
    };
    const char *traces = getenv("MOESIM_TEST_TRACES");
    if (!traces || !*traces)
        cr_skip_test("MOESIM_TEST_TRACES is not set: no recording of a real model to measure");
    char ids[512], sequences[512];
    snprintf(ids, sizeof ids, "%s/gptoss20b/topk_ids_u8.npy", traces);
    snprintf(sequences, sizeof sequences, "%s/gptoss20b/seq_index.csv", traces);
    struct trace *trace = recording_open(ids, (struct trace_options){.sequences = sequences});
    struct recorded_labels labels;
    double layers[24 * CALIBRATED_N_FIGURES], mean[CALIBRATED_N_FIGURES];
    struct moesim_error err;
    cr_assert_eq(recorded_labels(trace, &labels, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(recorded_figures(trace, &labels, layers, mean, &err), MOESIM_OK, "%s", err.text);
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const double value = published[i].value;
        cr_expect_float_eq(mean[published[i].figure], value, value < 1 ? 5.1e-4 : 0.02, "%s: %g, not %g",
                           calibrated_figures[published[i].figure].name, mean[published[i].figure], value);
    }
    trace_close(trace);
}
