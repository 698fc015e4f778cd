#include <inttypes.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <moesim/hash.h>
#include <moesim/kernels.h>

#include "bench/output.h"
#include "cli/provenance.h"
#include "results/store.h"
#include "sim/layer/products.h"

#include "version.h"

static const char config[] = "{\"study\":\"bench\"}";

/* The run of one repeat, with room for what it points at. */
struct stored {
    struct results_run run;
    struct results_param param[7];
    char workload[BENCH_NAME + 32], threads[16], seed[24], kernels[96], started[24], *json;
};

static uint64_t hash_of(const struct stored *s)
{
    uint64_t hash = MOESIM_HASH_START;
    for (uint32_t i = 0; i < s->run.n_params; i++) {
        hash = moesim_hash(hash, s->param[i].path, strlen(s->param[i].path) + 1);
        hash = moesim_hash(hash, s->param[i].value, strlen(s->param[i].value) + 1);
    }
    return hash;
}

/* Names of figures, processors and labels have no control bytes; quotes and backslashes are left out. */
static char *params_json(const struct stored *s)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    for (uint32_t i = 0; out && i < s->run.n_params; i++) {
        fprintf(out, "%s\"%s\":\"", i ? "," : "{", s->param[i].path);
        for (const char *c = s->param[i].value; *c; c++)
            if (*c != '"' && *c != '\\' && (unsigned char)*c >= ' ')
                fputc(*c, out);
        fputc('"', out);
    }
    if (!out || fputc('}', out) == EOF || fclose(out) != 0)
        bench_stop("memory is exhausted");
    return text;
}

/* Everything but the repeat. */
static void describe(struct stored *s, const struct bench *bench, const struct bench_result *r, int64_t study,
                     uint32_t point)
{
    const char *label = bench->options.label ? bench->options.label : MOESIM_REVISION;
    memset(s, 0, sizeof *s);
    snprintf(s->workload, sizeof s->workload, "%s/%s", r->figure.part, r->figure.name);
    snprintf(s->threads, sizeof s->threads, "%d", omp_get_max_threads());
    snprintf(s->kernels, sizeof s->kernels, "routing %s, experts %s", moesim_kernel_path(),
             moesim_products_path(moesim_products_find(bench->options.products)));
    const struct results_param param[] = {
        {.path = "router", .value = label},
        {.path = "router.name", .value = "moesim"},
        {.path = "workload", .value = s->workload},
        {.path = "workload.name", .value = r->figure.part},
        {.path = "cpu", .value = provenance_cpu()}, /* another machine's runs are no partners */
        {.path = "threads", .value = s->threads, .is_number = true, .number = omp_get_max_threads()},
        {.path = "size", .value = bench->options.quick ? "quick" : "full"},
    };
    memcpy(s->param, param, sizeof param);
    s->run = (struct results_run){
        .study = study, .point = point, .params = s->param, .n_params = sizeof param / sizeof *param};
    s->json = params_json(s);
    s->run.params_json = s->json;
    s->run.provenance = (struct results_provenance){.version = MOESIM_VERSION,
                                                    .revision = MOESIM_REVISION,
                                                    .compiler = provenance_compiler(),
                                                    .cpu = provenance_cpu(),
                                                    .blas = provenance_blas(),
                                                    .kernel_path = s->kernels,
                                                    .threads = (uint32_t)omp_get_max_threads(),
                                                    .files_json = "{}",
                                                    .started = provenance_time(time(NULL), s->started)};
}

static void set_seed(struct stored *s, uint64_t seed)
{
    snprintf(s->seed, sizeof s->seed, "%" PRIu64, seed);
    s->run.seed = seed;
    s->run.hash = moesim_hash(hash_of(s), s->seed, strlen(s->seed));
}

/* The first repeat that the label does not have yet. */
static enum moesim_status first_seed(struct stored *s, struct results_store *store, uint64_t *seed,
                                     struct moesim_error *err)
{
    enum results_state state = RESULTS_DONE;
    enum moesim_status status = MOESIM_OK;
    for (*seed = 0; !status && state != RESULTS_ABSENT;) {
        set_seed(s, ++*seed);
        status = results_run_state(store, s->run.study, s->run.hash, &state, err);
    }
    return status;
}

/* Of the rivals that do all of our work. */
static double fastest_rival(const struct bench_result *r, uint32_t i)
{
    double least = NAN;
    for (uint32_t k = 0; k < r->figure.n_rivals; k++)
        if (r->figure.rival[k].sense != BENCH_SHARE)
            least = fmin(least, r->rival[k].cpu_s[i] / r->ours.cpu_s[i]);
    return least;
}

static enum moesim_status store_repeat(struct stored *s, struct results_store *store, const struct bench_result *r,
                                       uint32_t i, struct moesim_error *err)
{
    const double limit = r->figure.limit_work / r->ours.cpu_s[i] / r->limit_cpu[i];
    const struct {
        uint32_t metric;
        double value;
    } figures[] = {{MOESIM_BENCH_CLOCK, r->ours.clock_s[i]},
                   {MOESIM_BENCH_CPU, r->ours.cpu_s[i]},
                   {MOESIM_BENCH_OF_LIMIT, r->figure.limit == BENCH_NO_LIMIT ? NAN : limit},
                   {MOESIM_BENCH_OF_RIVAL, fastest_rival(r, i)}};
    struct moesim_summary summary[4];
    struct moesim_outcome outcome = {.summary = summary};
    int64_t id;
    for (uint32_t f = 0; f < 4; f++)
        if (isfinite(figures[f].value)) {
            const double v = figures[f].value;
            summary[outcome.n_summaries++] = (struct moesim_summary){.layer = MOESIM_ALL_LAYERS,
                                                                     .metric = figures[f].metric,
                                                                     .value = v,
                                                                     .mean = v,
                                                                     .min = v,
                                                                     .p50 = v,
                                                                     .p95 = v,
                                                                     .max = v,
                                                                     .n = 1};
        }
    s->run.outcome = &outcome;
    s->run.provenance.seconds = r->ours.clock_s[i];
    return results_write(store, &s->run, &id, err);
}

static enum moesim_status store_result(const struct bench *bench, struct results_store *store, int64_t study,
                                       uint32_t point, struct moesim_error *err)
{
    const struct bench_result *r = bench->result[point];
    struct stored stored;
    uint64_t seed;
    describe(&stored, bench, r, study, point);
    enum moesim_status status = first_seed(&stored, store, &seed, err);
    for (uint32_t i = 0; i < r->n && !status; i++) {
        set_seed(&stored, seed + i);
        status = store_repeat(&stored, store, r, i, err);
    }
    free(stored.json);
    return status;
}

enum moesim_status output_database(const struct bench *bench, const char *path, struct moesim_error *err)
{
    struct results_store *store;
    int64_t study;
    enum moesim_status status = results_open(path, RESULTS_WRITE, &store, err);
    if (status)
        return status;
    status = results_study(store, "bench", moesim_hash(MOESIM_HASH_START, config, strlen(config)), config, &study, err);
    for (uint32_t i = 0; i < bench->n_results && !status; i++)
        status = store_result(bench, store, study, i, err);
    results_close(store);
    return status;
}
