/*
 * Made-up runs.
 */
#include "tests/results/fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <libgen.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/hash.h>

void fixture_path(char path[FIXTURE_MAX_PATH], const char *name)
{
    char directory[] = "/tmp/moesim-test-XXXXXX";
    cr_assert_not_null(mkdtemp(directory));
    snprintf(path, FIXTURE_MAX_PATH, "%s/%s", directory, name);
}

void fixture_remove(const char *path)
{
    char copy[FIXTURE_MAX_PATH], name[FIXTURE_MAX_PATH + 256];
    snprintf(copy, sizeof copy, "%s", path);
    const char *directory = dirname(copy);
    DIR *list = opendir(directory);
    cr_assert_not_null(list);
    for (struct dirent *entry; (entry = readdir(list));) {
        snprintf(name, sizeof name, "%s/%s", directory, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            remove(name);
    }
    closedir(list);
    rmdir(directory);
}

int fixture_count_files(const char *path)
{
    char copy[FIXTURE_MAX_PATH];
    snprintf(copy, sizeof copy, "%s", path);
    DIR *list = opendir(dirname(copy));
    cr_assert_not_null(list);
    int n = -2; /* . and .. */
    while (readdir(list))
        n++;
    closedir(list);
    return n;
}

unsigned char *fixture_read(const char *path, size_t *size)
{
    *size = 0;
    struct stat info; /* opening a pipe would wait */
    FILE *file = stat(path, &info) == 0 && S_ISREG(info.st_mode) ? fopen(path, "rb") : NULL;
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    const size_t n = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(n + 1);
    cr_assert_not_null(bytes);
    *size = fread(bytes, 1, n, file);
    fclose(file);
    return bytes;
}

void fixture_write(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

void fixture_run(struct fixture_run *fixture, int64_t study, const char *router, const char *workload, uint64_t seed,
                 const struct moesim_outcome *outcome)
{
    *fixture = (struct fixture_run){0};
    snprintf(fixture->text[0], 64, "%.*s", (int)strcspn(router, ":"), router);
    snprintf(fixture->text[1], 64, "%.*s", (int)strcspn(workload, ":"), workload);
    snprintf(fixture->text[2], 64, "%llu", (unsigned long long)seed);
    const struct results_param params[] = {
        {.path = "router", .value = router},
        {.path = "router.name", .value = fixture->text[0]},
        {.path = "router.k", .value = "2", .is_number = true, .number = 2},
        {.path = "workload", .value = workload},
        {.path = "workload.name", .value = fixture->text[1]},
        {.path = "seed", .value = fixture->text[2], .is_number = true, .number = (double)seed},
        {.path = "steps", .value = "3", .is_number = true, .number = 3},
    };
    memcpy(fixture->param, params, sizeof params);
    uint64_t hash = moesim_hash(MOESIM_HASH_START, router, strlen(router) + 1);
    hash = moesim_hash(hash, workload, strlen(workload) + 1);
    fixture->run = (struct results_run){
        .study = study,
        .hash = moesim_hash(hash, &seed, sizeof seed),
        .seed = seed,
        .params_json = "{\"steps\": 3}",
        .params = fixture->param,
        .n_params = sizeof params / sizeof *params,
        .provenance = {.version = "0.1.0",
                       .revision = "abc",
                       .compiler = "cc",
                       .cpu = "cpu",
                       .blas = "Haswell",
                       .kernel_path = "generic",
                       .threads = 2,
                       .files_json = "{}",
                       .workload = "made up",
                       .started = "2024-01-01T00:00:00Z",
                       .seconds = 0.25},
        .outcome = outcome,
        .failed = !outcome,
        .reason = outcome ? NULL : "no luck",
    };
}

void fixture_outcome(struct fixture_outcome *fixture, uint32_t n, const uint32_t *metric, const double *value)
{
    cr_assert_leq(n, FIXTURE_MAX_METRICS);
    *fixture = (struct fixture_outcome){.outcome = {.summary = fixture->summary, .n_summaries = n}};
    for (uint32_t i = 0; i < n; i++)
        fixture->summary[i] = (struct moesim_summary){
            .layer = MOESIM_ALL_LAYERS, .metric = metric[i], .value = value[i], .mean = value[i], .n = 3};
}

/* -0 is left out: SQLite stores whole numbers as integers, and 0 comes back. */
static double awkward(uint64_t i)
{
    const double special[] = {NAN, INFINITY, -INFINITY,         4.9e-324, 1.7976931348623157e308,
                              0.1, 1.0 / 3,  9007199254740993.0};
    return i % 3 ? 1.0 / (double)(i + 1) : special[i / 3 % 8];
}

/* Two domains at three validations, and where two layers sent them and two token ids. */
static void add_training(struct moesim_outcome *o, struct moesim_arena *arena)
{
    static const char *const domain[] = {"code", "\u00fc 'prose'"}, *const subject[][2] = {{"code", "prose"},
                                                                                           {"\u2423the", "\\n"}};
    enum { N_EXPERTS = 4 };
    o->n_domain_losses = 6;
    o->n_specialisations = 8;
    o->domain_loss = moesim_alloc(arena, o->n_domain_losses, sizeof *o->domain_loss);
    o->specialisation = moesim_alloc(arena, o->n_specialisations, sizeof *o->specialisation);
    cr_assert(o->domain_loss && o->specialisation);
    for (uint32_t i = 0; i < 6; i++)
        o->domain_loss[i] = (struct moesim_domain_loss){.step = 10 * (i / 2),
                                                        .domain = moesim_strdup(arena, domain[i % 2]),
                                                        .tokens = 512,
                                                        .bits_per_byte = awkward(i)};
    for (uint32_t i = 0; i < 8; i++) {
        uint64_t *assigned = moesim_alloc(arena, N_EXPERTS, sizeof *assigned);
        cr_assert_not_null(assigned);
        for (uint32_t e = 0; e < N_EXPERTS; e++)
            assigned[e] = i * 100 + e + (e == 3 ? 1ull << 61 : 0);
        o->specialisation[i] =
            (struct moesim_specialisation){.layer = i / 4,
                                           .kind = i / 2 % 2,
                                           .subject = moesim_strdup(arena, subject[i / 2 % 2][i % 2]),
                                           .tokens = 1000 + i,
                                           .n_experts = N_EXPERTS,
                                           .assigned = assigned};
    }
}

struct moesim_outcome fixture_rich_outcome(struct moesim_arena *arena, uint32_t n_layers)
{
    const uint32_t n_experts = 8;
    struct moesim_outcome o = {.arena = arena,
                               .n_summaries = (uint64_t)MOESIM_N_METRICS * (n_layers + 1),
                               .n_series = 5ull * n_layers,
                               .n_windows = 2ull * n_layers,
                               .n_traffic = 18};
    o.summary = moesim_alloc(arena, o.n_summaries, sizeof *o.summary);
    o.series = moesim_alloc(arena, o.n_series, sizeof *o.series);
    o.window = moesim_alloc(arena, o.n_windows, sizeof *o.window);
    o.traffic = moesim_alloc(arena, o.n_traffic, sizeof *o.traffic);
    cr_assert(o.summary && o.series && o.window && o.traffic);
    for (uint64_t i = 0; i < o.n_summaries; i++)
        o.summary[i] = (struct moesim_summary){(int32_t)(i % (n_layers + 1)) - 1,
                                               (uint32_t)(i / (n_layers + 1)),
                                               awkward(i),
                                               awkward(i + 1),
                                               awkward(i + 2),
                                               awkward(i + 3),
                                               awkward(i + 4),
                                               awkward(i + 5),
                                               awkward(i + 6),
                                               i};
    for (uint64_t i = 0; i < o.n_series; i++)
        o.series[i] = (struct moesim_sample){(uint32_t)i % 5, (uint32_t)i / 5, MOESIM_LOAD_CV, awkward(i)};
    for (uint64_t i = 0; i < o.n_windows; i++) {
        uint64_t *counts = moesim_alloc(arena, 2 * n_experts, sizeof *counts);
        cr_assert_not_null(counts);
        for (uint32_t e = 0; e < 2 * n_experts; e++)
            counts[e] = i * 1000 + e + (e == 7 ? 1ull << 62 : 0);
        o.window[i] = (struct moesim_load_window){(uint32_t)i % 2, (uint32_t)i / 2, (uint32_t)i % 2 * 5, 5,
                                                  n_experts,       counts,          counts + n_experts};
    }
    for (uint32_t i = 0; i < 16; i++)
        o.traffic[i] = (struct moesim_traffic){i / 4, i % 4, i * 1e9 / 3, MOESIM_LINK_DEVICE};
    o.traffic[16] = (struct moesim_traffic){1, 0, 1e9 / 7, MOESIM_LINK_LEAF_UP}; /* the same ends by other links */
    o.traffic[17] = (struct moesim_traffic){1, 0, 1e9 / 9, MOESIM_LINK_NVLINK_OUT};
    add_training(&o, arena);
    return o;
}

struct results_store *fixture_open(const char *path, enum results_mode mode)
{
    struct results_store *store;
    struct moesim_error err = {""};
    cr_assert_eq(results_open(path, mode, &store, &err), MOESIM_OK, "%s", err.text);
    return store;
}

int64_t fixture_study(struct results_store *store, const char *name)
{
    int64_t study = 0;
    struct moesim_error err = {""};
    const uint64_t hash = moesim_hash(MOESIM_HASH_START, name, strlen(name));
    cr_assert_eq(results_study(store, name, hash, "{}", &study, &err), MOESIM_OK, "%s", err.text);
    cr_assert_gt(study, 0);
    return study;
}

int64_t fixture_store(struct results_store *store, const struct results_run *run)
{
    int64_t id = 0;
    struct moesim_error err = {""};
    cr_assert_eq(results_write(store, run, &id, &err), MOESIM_OK, "%s", err.text);
    cr_assert_gt(id, 0);
    return id;
}

double fixture_number(struct results_store *store, const char *sql)
{
    struct results_query *query;
    struct moesim_error err = {""};
    bool row = false;
    cr_assert_eq(results_query(store, sql, NULL, 0, &query, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(results_next(query, &row, &err), MOESIM_OK, "%s", err.text);
    cr_assert(row, "no row: %s", sql);
    const double number = results_number(query, 0);
    results_query_close(query);
    return number;
}
