/* moesim run: a study, from its text to the comparison table. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/fail_if.h"
#include "cli/figures.h"
#include "cli/file.h"
#include "cli/message.h"
#include "cli/model_sizes.h"
#include "cli/print_table.h"
#include "cli/progress.h"
#include "cli/provenance.h"
#include "cli/run_plan.h"
#include "cli/study_source.h"
#include "cli/sweep.h"
#include "cli/verbs.h"
#include "sim/experiment/experiment.h"

struct run_options {
    const char *db, *seed, *record;
    struct cli_list set, router, workload, plugin, fail_if;
    uint32_t threads, jobs;
    double timeout;
    uint64_t memory;
    bool fresh, retry_failed, dry_run, quiet, json;
};

static const struct run_options defaults = {.db = "moesim.db"};

static const struct cli_option options[] = {
    CLI_OPTION(struct run_options, db, "db", "FILE", "database of results (default moesim.db); runs it has are kept"),
    CLI_OPTION(struct run_options, set, "set", "PATH=VALUE",
               "override a key of the study: --set model.experts=64, --set 'steps=[10,50]'"),
    CLI_OPTION(struct run_options, router, "router", "SPEC",
               "route with this instead of the study's routers: name:key=value,... or ./plugin.so; repeatable"),
    CLI_OPTION(struct run_options, workload, "workload", "SPEC",
               "take tokens from this instead of the study's workloads; repeatable"),
    CLI_OPTION(struct run_options, plugin, "plugin", "FILE", "load a router, which the study may then name"),
    CLI_OPTION(struct run_options, seed, "seed", "N", "run this seed only"),
    CLI_OPTION_WITH(struct run_options, threads, "threads", "N",
                    "threads of a run (default: the cores, or OMP_NUM_THREADS, shared by the jobs)", .min = 1,
                    .max = 1024),
    CLI_OPTION_WITH(
        struct run_options, jobs, "jobs", "N",
        "runs at the same time (default: as many as there are cores, 1 in mode execute); jobs x threads <= cores",
        .min = 1, .max = 256, .letter = 'j'),
    CLI_OPTION_WITH(struct run_options, timeout, "timeout", "S",
                    "seconds a run may take (default: no limit; 600 for plugins)", .min = 0.001, .max = 1e9),
    CLI_OPTION_WITH(struct run_options, memory, "memory", "BYTES",
                    "memory a run may take: 512M, 4G (default: no limit)", .min = 1 << 20, .max = 1e18),
    CLI_OPTION(struct run_options, fresh, "fresh", NULL, "run everything again and replace what the database has"),
    CLI_OPTION(struct run_options, retry_failed, "retry-failed", NULL, "also try the runs that failed before"),
    CLI_OPTION(
        struct run_options, record, "record", "FILE",
        "write every decision into a moesim trace, for 'trace info' and the workload trace; of one run only, which "
        "is run again if need be"),
    CLI_OPTION(struct run_options, dry_run, "dry-run", NULL, "show the points, memory and time; run nothing"),
    CLI_OPTION(struct run_options, fail_if, "fail-if", "EXPR",
               "exit 5 when a mean of the table meets '[ROUTER:]METRIC OP NUMBER'; repeatable"),
    CLI_OPTION_WITH(struct run_options, quiet, "quiet", NULL, "no progress", .letter = 'q'),
    CLI_OPTION(struct run_options, json, "json", NULL, "the comparison as JSON"),
    CLI_OPTION_END,
};

static int check_seed(const char *seed, char assignment[64])
{
    size_t n = strlen(seed);
    if (n == 0 || n > 19 || strspn(seed, "0123456789") != n)
        return cli_fail(CLI_USAGE, "run: --seed '%s' is not a whole number from 0 to 9223372036854775807", seed);
    snprintf(assignment, 64, "seeds=[%s]", seed);
    return CLI_DONE;
}

/* Takes the command line into the source; `seed` is storage for one assignment. */
static int override(const struct run_options *o, struct study_source *source, char seed[64])
{
    source->set = o->set;
    source->router = o->router;
    source->workload = o->workload;
    source->plugin = o->plugin;
    int exit = o->seed ? check_seed(o->seed, seed) : CLI_DONE;
    if (!exit && o->seed && source->set.n < CLI_LIST_MAX)
        source->set.item[source->set.n++] = seed;
    return exit;
}

static bool is_measured(const struct loaded_study *loaded)
{
    for (uint32_t i = 0; i < loaded->n_points; i++)
        if (loaded->points[i]->mode == MOESIM_MODE_EXECUTE)
            return true;
    return false;
}

/* Runs that can go side by side: as many as there are routings, and as half the machine's memory holds. */
static uint32_t useful_jobs(const struct loaded_study *loaded)
{
    uint64_t largest = 1, memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 2;
    uint32_t routings = 0;
    for (uint32_t i = 0; i < loaded->n_points; i++) {
        uint64_t bytes = moesim_experiment_memory(loaded->points[i]);
        routings += i == 0 || loaded->points[i]->route_hash != loaded->points[i - 1]->route_hash;
        largest = bytes > largest ? bytes : largest;
    }
    uint64_t fit = memory / largest;
    uint32_t jobs = fit < routings ? (uint32_t)fit : routings;
    return jobs ? jobs : 1;
}

/* jobs x threads <= cores; more threads than cores only when asked for, and then one job. Unless told otherwise a study
 * runs as many jobs of one thread as there are cores, which wastes nothing on threads that wait for each other. */
static struct sweep_options share_cores(const struct run_options *o, const struct loaded_study *loaded)
{
    const bool measured = is_measured(loaded);
    const uint32_t cores = provenance_cores(), useful = useful_jobs(loaded);
    uint32_t jobs = o->jobs, threads = o->threads;
    if (!jobs)
        jobs = measured || threads > cores ? 1 : cores / (threads ? threads : 1);
    if (!o->jobs && jobs > useful)
        jobs = useful;
    if (measured && jobs > 1) {
        cli_note("mode execute measures time, so one job runs at a time");
        jobs = 1;
    }
    uint32_t most = threads ? (cores / threads ? cores / threads : 1) : cores;
    if (jobs > most) {
        cli_note("%u cores: %u job%s at a time", cores, most, most == 1 ? "" : "s");
        jobs = most;
    }
    if (!threads)
        threads = provenance_threads() < cores / jobs ? provenance_threads() : cores / jobs;
    return (struct sweep_options){.jobs = jobs,
                                  .threads = threads,
                                  .timeout_s = o->timeout,
                                  .memory_bytes = o->memory,
                                  .fresh = o->fresh || o->record,
                                  .retry_failed = o->retry_failed,
                                  .quiet = o->quiet};
}

static void note_unused_plugins(const struct loaded_study *loaded, const struct cli_list *plugins)
{
    for (uint32_t i = 0; plugins->n && i < loaded->catalogue.registry.n_routers; i++) {
        const struct moesim_router_entry *entry = &loaded->catalogue.registry.routers[i];
        bool used = !entry->plugin || moesim_spec_is_path(entry->spec);
        for (uint32_t p = 0; !used && p < loaded->n_points; p++)
            used = loaded->points[p]->router == entry;
        if (!used)
            cli_note("the study does not name the plugin's router; add --router %s to run it", entry->spec);
    }
}

static void tell_result(const struct run_options *o, const struct loaded_study *loaded, const struct figures *figures,
                        const struct sweep_result *result)
{
    if (result->n_failed_before)
        cli_note("%u run%s failed earlier; --retry-failed tries again", result->n_failed_before,
                 result->n_failed_before == 1 ? "" : "s");
    if (o->quiet)
        return;
    if (figures->n_seeds < 10)
        cli_note("%u seed%s: below ten, intervals are wide; see 'seeds:' or --set seeds=20", figures->n_seeds,
                 figures->n_seeds == 1 ? "" : "s");
    fprintf(stderr, "\nnext: moesim report %s    or: moesim compare %s --baseline %s\n", o->db, o->db,
            loaded->points[0]->router_spec);
}

/* Trainings that were stopped on their way, and where they are. */
static void tell_unfinished(const struct loaded_study *loaded)
{
    char path[4096];
    for (uint32_t i = 0; i < loaded->n_points; i++)
        if (moesim_experiment_unfinished(loaded->points[i], path, sizeof path))
            cli_note("the training of %s, seed %" PRIu64 ", goes on from %s", loaded->points[i]->router_spec,
                     loaded->points[i]->seed, path);
}

/* The head line, the tables, or JSON. */
static int show(const struct run_options *o, const struct loaded_study *loaded, const struct figures *figures,
                const struct sweep_result *result)
{
    uint32_t n_failed = result->n_failed + result->n_failed_before;
    bool good;
    if (o->json) {
        char *text = figures_json(figures, moesim_study_name(loaded->study), o->db, result->n_before + result->n_done,
                                  n_failed, result->n_left);
        good = text != NULL;
        if (good)
            puts(text);
        free(text);
    } else {
        char name[128];
        printf("study %s: %u run%s, mean over %u seed%s, * best\n\n",
               cli_printable(moesim_study_name(loaded->study), name, sizeof name), result->n_before + result->n_done,
               result->n_before + result->n_done == 1 ? "" : "s", figures->n_seeds, figures->n_seeds == 1 ? "" : "s");
        good = figures_print(figures);
    }
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}

static int conclude(const struct run_options *o, const struct loaded_study *loaded, struct results_store *store,
                    int64_t study, const struct fail_if *conditions, const struct sweep_result *result)
{
    struct figures figures;
    struct moesim_error err = {"memory is exhausted"};
    struct moesim_arena *arena = moesim_arena_create(0);
    enum moesim_status status = arena ? figures_read(loaded, store, study, arena, &figures, &err) : MOESIM_ENOMEM;
    int exit = status ? cli_fail_status(status, &err) : show(o, loaded, &figures, result);
    if (!exit)
        exit = cli_finish_output(CLI_DONE);
    if (!exit) {
        tell_result(o, loaded, &figures, result);
        uint32_t n_met = 0;
        for (uint32_t i = 0; i < o->fail_if.n; i++)
            n_met += fail_if_judge(&conditions[i], &figures);
        exit = n_met ? CLI_THRESHOLD : CLI_DONE;
    }
    moesim_arena_destroy(arena);
    return exit ? exit : result->n_failed + result->n_failed_before ? CLI_SOME_FAILED : CLI_DONE;
}

/* A trace is of one routing: workload, router, seed. */
static int check_record(const struct run_options *o, const struct loaded_study *loaded)
{
    uint32_t n = 0;
    if (!o->record)
        return CLI_DONE;
    for (uint32_t i = 0; i < loaded->n_points; i++)
        n += i == 0 || loaded->points[i]->route_hash != loaded->points[i - 1]->route_hash;
    if (n > 1)
        return cli_fail(CLI_USAGE,
                        "run: --record writes one trace, and the study routes %u times: narrow it by --router, "
                        "--workload and --seed",
                        n);
    return *o->record ? CLI_DONE : cli_fail(CLI_USAGE, "run: --record needs a file's name");
}

/* The trace is written beside its name by the worker, and takes it when the run is done. */
static int keep_record(const struct run_options *o, const char *temporary, const struct sweep_result *result, int exit)
{
    if (!o->record)
        return exit;
    if (exit || result->n_failed || !result->n_done) {
        unlink(temporary);
        return exit;
    }
    if (rename(temporary, o->record) != 0)
        return cli_fail(CLI_DISK, "%s: cannot be written: %s", o->record, strerror(errno));
    return exit;
}

static int run_in_store(const struct run_options *o, const struct study_source *source,
                        const struct loaded_study *loaded, struct results_store *store,
                        const struct fail_if *conditions)
{
    struct sweep_options sweep = share_cores(o, loaded);
    struct sweep_result result;
    struct moesim_error err;
    int64_t study;
    enum moesim_status status = results_study(store, moesim_study_name(loaded->study), moesim_study_hash(loaded->study),
                                              moesim_study_json(loaded->study), &study, &err);
    if (status)
        return cli_fail_status(status, &err);
    struct study_source recorded = *source;
    char temporary[4096];
    if (o->record && !cli_file_temporary(o->record, (long)getpid(), temporary, sizeof temporary))
        return cli_fail(CLI_DISK, "%s: the name is too long", o->record);
    recorded.record = o->record ? temporary : NULL;
    int exit = sweep_run(&recorded, loaded, store, study, &sweep, &result);
    exit = keep_record(o, temporary, &result, exit);
    if (exit == CLI_INTERRUPTED || exit == CLI_TERMINATED)
        cli_note("stopped; %u of %u runs are saved in %s, and the same command goes on from there",
                 result.n_before + result.n_done, loaded->n_points, o->db);
    if (exit)
        tell_unfinished(loaded);
    if (!exit && result.n_before && !o->quiet)
        cli_note("%u of %u runs were in %s already; --fresh runs them again", result.n_before, loaded->n_points, o->db);
    return exit ? exit : conclude(o, loaded, store, study, conditions, &result);
}

static int run_loaded(const struct run_options *o, const struct study_source *source, const struct loaded_study *loaded)
{
    struct fail_if *conditions = calloc(o->fail_if.n ? o->fail_if.n : 1, sizeof *conditions);
    struct moesim_error err = {"memory is exhausted"};
    enum moesim_status status = conditions ? MOESIM_OK : MOESIM_ENOMEM;
    for (uint32_t i = 0; !status && i < o->fail_if.n; i++)
        status = fail_if_parse(o->fail_if.item[i], loaded, &conditions[i], &err);
    note_unused_plugins(loaded, &o->plugin);
    struct results_store *store = NULL;
    int exit = CLI_DONE;
    if (!status && o->dry_run) {
        struct sweep_options sweep = share_cores(o, loaded);
        exit = run_plan_print(loaded, o->db, &sweep, o->json);
    } else {
        if (!status && !o->quiet)
            model_sizes_print(loaded, stderr);
        if (!status)
            status = results_open(o->db, RESULTS_WRITE, &store, &err);
        if (!status)
            exit = run_in_store(o, source, loaded, store, conditions);
    }
    results_close(store);
    free(conditions);
    return status ? cli_fail_status(status, &err) : exit;
}

static int run_study(const struct cli_call *call)
{
    const struct run_options *o = call->options;
    struct study_source source;
    struct loaded_study loaded = {.arena = NULL};
    struct moesim_error err;
    char seed[64];
    enum moesim_status status = study_source_open(&source, call->n_args ? call->args[0] : NULL, &err);
    int exit = status ? cli_fail_status(status, &err) : override(o, &source, seed);
    if (!exit && source.builtin && !o->quiet)
        cli_note("%s the built-in study '%s'; 'moesim describe study %s' shows it",
                 call->n_args ? "running" : "no study given: running", source.name, source.name);
    if (!exit)
        exit = study_load(&source, false, &loaded);
    if (!exit)
        exit = check_record(o, &loaded);
    if (!exit)
        exit = run_loaded(o, &source, &loaded);
    study_unload(&loaded);
    study_source_close(&source);
    return exit;
}

static const struct cli_example examples[] = {
    {"moesim run", "the built-in study on real text, into moesim.db"},
    {"moesim run study.yaml --db study.db", "your study; the same command again goes on where it stopped"},
    {"moesim run --router switch:capacity_factor=1.25 --router ./mine.so --workload logits:file=logits.npy",
     "two routers, one of them your own, on gate logits saved by numpy.save"},
    {NULL, NULL},
};

const struct cli_verb cli_run = {
    .name = "run",
    .arguments = "[STUDY.yaml]",
    .summary = "run a study and print the comparison of its routers",
    .details = "The study is resolved and checked as a whole before the first step. Runs that the database has are not "
               "repeated, so an interrupted study goes on where it stopped. A run that fails is stored with its "
               "reason and does not stop the others.",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct run_options),
    .max_args = 1,
    .run = run_study,
};
