/*
 * Writing finished runs into a database, one transaction each, with as many figures as a run on a cluster has.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bench/folder.h"
#include "bench/parts/parts.h"
#include "results/store.h"

enum { RUNS = 100, PARAMS = 40, LAYERS = 4 };
#define MOST_MS 2.0

struct bed {
    struct results_store *store;
    int64_t study;
    uint64_t next;
    char path[PARAMS][24], json[PARAMS * 32];
    struct results_param param[PARAMS];
    struct moesim_summary summary[MOESIM_BENCH_CLOCK * (LAYERS + 1)];
};

static void open_bed(struct bed *b, const char *path)
{
    struct moesim_error err;
    size_t n = 0;
    *b = (struct bed){.next = 1};
    for (uint32_t i = 0; i < PARAMS; i++) {
        snprintf(b->path[i], sizeof b->path[i], i ? "router.value_%u" : "router", i);
        b->param[i] = (struct results_param){.path = b->path[i], .value = "1.25", .is_number = i > 0, .number = 1.25};
        n += (size_t)snprintf(b->json + n, sizeof b->json - n, "%c\"%s\":1.25", i ? ',' : '{', b->path[i]);
    }
    snprintf(b->json + n, sizeof b->json - n, "}");
    for (uint32_t i = 0; i < sizeof b->summary / sizeof *b->summary; i++)
        b->summary[i] = (struct moesim_summary){.layer = (int32_t)(i % (LAYERS + 1)) - 1,
                                                .metric = i / (LAYERS + 1),
                                                .value = 0.1 * i,
                                                .mean = 0.1 * i,
                                                .n = 20};
    if (results_open(path, RESULTS_WRITE, &b->store, &err) ||
        results_study(b->store, "store", 1, "{}", &b->study, &err))
        bench_stop("%s", err.text);
}

static void write_runs(void *bed)
{
    struct bed *b = bed;
    struct moesim_error err;
    const struct moesim_outcome outcome = {.summary = b->summary,
                                           .n_summaries = sizeof b->summary / sizeof *b->summary};
    for (uint32_t i = 0; i < RUNS; i++, b->next++) {
        int64_t id;
        const struct results_run run = {.study = b->study,
                                        .hash = b->next,
                                        .seed = b->next,
                                        .params_json = b->json,
                                        .params = b->param,
                                        .n_params = PARAMS,
                                        .provenance = {.version = "bench", .files_json = "{}", .threads = 1},
                                        .outcome = &outcome};
        if (results_write(b->store, &run, &id, &err))
            bench_stop("%s", err.text);
    }
}

void part_store(struct bench *bench)
{
    static struct bed b;
    char folder[FOLDER_PATH], path[FOLDER_PATH], name[BENCH_NAME];
    snprintf(name, sizeof name, "a run with %zu summaries", sizeof b.summary / sizeof *b.summary);
    if (!bench_wants(bench, "store", name))
        return;
    folder_make(folder);
    open_bed(&b, folder_file(folder, "store.db", path));
    struct bench_figure figure = {.part = "store",
                                  .ours = bench_ours(write_runs, &b),
                                  .work = RUNS,
                                  .unit = "ms",
                                  .as_time = 1e3,
                                  .bound = BENCH_AT_MOST(MOST_MS)};
    figure.ours.single = true;
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_measure(bench, &figure);
    results_close(b.store);
    folder_remove(folder);
}
