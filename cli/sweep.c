/* Driving the workers through a study. */
#include "cli/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/message.h"
#include "cli/progress.h"
#include "cli/provenance.h"
#include "cli/stop.h"
#include "cli/worker.h"
#include "sim/experiment/experiment.h"
#include "version.h"

#define MAX_TOLD 10 /* failed runs, and notes of done ones, that are told one by one */

/* Points of one routing: todo[first] .. todo[first + n - 1]. */
struct group {
    uint32_t first, n;
};

struct sweep {
    const struct study_source *source;
    const struct loaded_study *loaded;
    const struct sweep_options *options;
    struct results_store *store;
    int64_t study;
    struct sweep_result *result;
    uint32_t *todo; /* [n_todo] points */
    uint32_t n_todo;
    struct group *group; /* [n_groups] */
    uint32_t n_groups, next;
    struct worker_pool *pool;
    struct provenance_files *files;
    struct progress progress;
};

enum moesim_status sweep_states(const struct loaded_study *loaded, struct results_store *store, int64_t study,
                                enum results_state *state, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; !status && i < loaded->n_points; i++)
        status = results_run_state(store, study, loaded->points[i]->hash, &state[i], err);
    return status;
}

static bool is_due(struct sweep *s, enum results_state state)
{
    if (s->options->fresh || state == RESULTS_ABSENT)
        return true;
    if (state == RESULTS_DONE) {
        s->result->n_before++;
        return false;
    }
    s->result->n_failed_before += !s->options->retry_failed;
    return s->options->retry_failed;
}

/* A training that is run anew does not go on from what was left of it; one that is stored need not. */
static void forget_unfinished(const struct moesim_point *point)
{
    char path[4096];
    if (moesim_experiment_unfinished(point, path, sizeof path))
        unlink(path);
}

/* Runs of one routing are adjacent among the points, hence among those that are due. */
static enum moesim_status plan_groups(struct sweep *s, struct moesim_error *err)
{
    const uint32_t n = s->loaded->n_points;
    enum results_state *state = calloc(n ? n : 1, sizeof *state);
    s->todo = calloc(n ? n : 1, sizeof *s->todo);
    s->group = calloc(n ? n : 1, sizeof *s->group);
    enum moesim_status status = state && s->todo && s->group ? sweep_states(s->loaded, s->store, s->study, state, err)
                                                             : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    uint64_t hash = 0;
    for (uint32_t i = 0; !status && i < n; i++) {
        if (!is_due(s, state[i]))
            continue;
        if (!s->n_groups || s->loaded->points[i]->route_hash != hash)
            s->group[s->n_groups++].first = s->n_todo;
        hash = s->loaded->points[i]->route_hash;
        s->group[s->n_groups - 1].n++;
        s->todo[s->n_todo++] = i;
        if (s->options->fresh)
            forget_unfinished(s->loaded->points[i]);
    }
    free(state);
    return status;
}

/* ---- storing ---- */

static enum moesim_status write_run(struct sweep *s, const struct moesim_point *point,
                                    const struct results_run *run_head, struct moesim_error *err)
{
    struct results_run run = *run_head;
    struct results_param *params = calloc(point->n_labels ? point->n_labels : 1, sizeof *params);
    char *files = provenance_files_json(s->files, s->source, point);
    if (!params || !files) {
        free(params);
        free(files);
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    }
    for (uint32_t i = 0; i < point->n_labels; i++)
        params[i] = (struct results_param){point->labels[i].path, point->labels[i].value, point->labels[i].is_number,
                                           point->labels[i].number};
    run.params = params;
    run.n_params = point->n_labels;
    run.provenance.files_json = files;
    int64_t id;
    enum moesim_status status = results_write(s->store, &run, &id, err);
    free(params);
    free(files);
    return status;
}

static enum moesim_status store_event(struct sweep *s, const struct worker_event *event,
                                      const struct moesim_outcome *outcome, struct moesim_error *err)
{
    const struct moesim_point *point = s->loaded->points[event->point];
    char started[24];
    struct results_run run = {
        .study = s->study,
        .hash = point->hash,
        .seed = point->seed,
        .point = event->point,
        .failed = !outcome,
        .replace = s->options->fresh,
        .reason = outcome ? NULL : event->text,
        .params_json = point->json,
        .provenance = {.version = MOESIM_VERSION,
                       .revision = MOESIM_REVISION,
                       .compiler = provenance_compiler(),
                       .cpu = provenance_cpu(),
                       .blas = provenance_blas(),
                       .kernel_path = outcome ? outcome->kernel_path : "",
                       .threads = s->options->threads,
                       .workload = outcome ? outcome->workload_provenance : "",
                       .started = provenance_time(event->started, started),
                       .seconds = outcome ? outcome->seconds : difftime(time(NULL), event->started)},
        .outcome = outcome,
    };
    return write_run(s, point, &run, err);
}

static void tell_failure(struct sweep *s, const struct moesim_point *point, const char *reason)
{
    if (s->result->n_failed > MAX_TOLD)
        return;
    progress_clear(&s->progress);
    cli_fail(CLI_SOME_FAILED, "%s on %s, seed %" PRIu64 ", failed: %s%s", point->router_spec, point->workload_spec,
             point->seed, reason, s->result->n_failed == MAX_TOLD ? " (further failures are only stored)" : "");
}

static void tell_note(struct sweep *s, const struct moesim_point *point, const char *note)
{
    if (!*note || s->result->n_noted++ >= MAX_TOLD)
        return;
    progress_clear(&s->progress);
    cli_note("%s on %s, seed %" PRIu64 ": %s%s", point->router_spec, point->workload_spec, point->seed, note,
             s->result->n_noted == MAX_TOLD ? " (further notes are only stored)" : "");
}

/* Stores what one point came to. An outcome that cannot be read counts as a failure of its run. */
static enum moesim_status take_event(struct sweep *s, struct worker_event *event, struct moesim_error *err)
{
    struct moesim_outcome outcome, *whole = NULL;
    struct moesim_arena *arena = NULL;
    if (event->news == WORKER_OUTCOME) {
        struct moesim_error why = {"memory is exhausted"};
        arena = moesim_arena_create(0);
        enum moesim_status read =
            arena ? moesim_outcome_unpack(event->text, event->size, arena, &outcome, &why) : MOESIM_ENOMEM;
        if (!read)
            whole = &outcome;
        else
            snprintf(event->text, event->size + 1, "%s", why.text);
    }
    if (whole) {
        s->result->n_done++;
        tell_note(s, s->loaded->points[event->point], whole->note);
    } else {
        s->result->n_failed++;
        tell_failure(s, s->loaded->points[event->point], event->text);
    }
    enum moesim_status status = store_event(s, event, whole, err);
    if (!status && whole)
        forget_unfinished(s->loaded->points[event->point]);
    moesim_arena_destroy(arena);
    progress_add(&s->progress, !whole);
    return status;
}

/* ---- the loop ---- */

static enum moesim_status send_groups(struct sweep *s, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    while (!status && s->next < s->n_groups && worker_pool_has_room(s->pool)) {
        const struct group *group = &s->group[s->next++];
        status = worker_pool_send(s->pool, s->todo + group->first, group->n, err);
    }
    return status;
}

/* Whoever is done gets its next group before its last outcome is stored. */
static enum moesim_status pass(struct sweep *s, struct moesim_error *err)
{
    struct worker_event event = {.news = WORKER_QUIET};
    struct moesim_error unsent;
    enum moesim_status status = worker_pool_wait(s->pool, 0.2, &event, err);
    const enum moesim_status sent = status || stop_signal() ? MOESIM_OK : send_groups(s, &unsent);
    if (!status && event.news != WORKER_QUIET)
        status = take_event(s, &event, err);
    if (!status && sent) {
        status = sent;
        *err = unsent;
    }
    free(event.text);
    progress_draw(&s->progress);
    return status;
}

static int run_all(struct sweep *s, const char *source_json)
{
    struct worker_setup setup = {.source_json = source_json,
                                 .points = s->loaded->points,
                                 .n_workers = s->options->jobs,
                                 .threads = s->options->threads,
                                 .timeout_s = s->options->timeout_s,
                                 .memory_bytes = s->options->memory_bytes};
    struct moesim_error err;
    enum moesim_status status = worker_pool_create(&setup, &s->pool, &err);
    progress_start(&s->progress, s->n_todo, s->options->quiet);
    if (!status)
        status = send_groups(s, &err);
    while (!status && !stop_signal() && (s->next < s->n_groups || worker_pool_is_busy(s->pool)))
        status = pass(s, &err);
    worker_pool_destroy(s->pool);
    progress_clear(&s->progress);
    s->result->n_left = s->n_todo - s->result->n_done - s->result->n_failed;
    return status ? cli_fail_status(status, &err) : s->result->n_left ? stop_exit() : CLI_DONE;
}

int sweep_run(const struct study_source *source, const struct loaded_study *loaded, struct results_store *store,
              int64_t study, const struct sweep_options *options, struct sweep_result *result)
{
    *result = (struct sweep_result){.n_left = 0};
    struct sweep s = {.source = source,
                      .loaded = loaded,
                      .options = options,
                      .store = store,
                      .study = study,
                      .result = result,
                      .files = provenance_files_create()};
    struct moesim_error err = {"memory is exhausted"};
    char *json = study_source_to_json(source);
    enum moesim_status status = json && s.files ? plan_groups(&s, &err) : MOESIM_ENOMEM;
    int exit = status ? cli_fail_status(status, &err) : CLI_DONE;
    if (!exit && s.n_todo) {
        stop_watch();
        exit = run_all(&s, json);
    }
    provenance_files_destroy(s.files);
    free(json);
    free(s.todo);
    free(s.group);
    return exit;
}
