/*
 * Writing: a study, and a run with all its figures in one transaction.
 */
#include "results/connection.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

static void bind_text(sqlite3_stmt *statement, int index, const char *text)
{
    if (text)
        sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
    else
        sqlite3_bind_null(statement, index);
}

/* A failed bind leaves NULL, which the NOT NULL columns refuse; a NaN is bound as NULL by SQLite itself. */
static void bind_hash(sqlite3_stmt *statement, int index, uint64_t hash)
{
    char text[RESULTS_HASH_SIZE];
    results_format_hash(hash, text);
    sqlite3_bind_text(statement, index, text, -1, SQLITE_TRANSIENT);
}

static bool insert_study(struct results_store *store, const char *name, uint64_t hash, const char *config_json,
                         int64_t *study)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_STUDY);
    if (!insert)
        return false;
    bind_text(insert, 1, name);
    bind_hash(insert, 2, hash);
    bind_text(insert, 3, config_json);
    sqlite3_stmt *find = results_step_done(insert) ? results_prepared(store, RESULTS_FIND_STUDY) : NULL;
    if (!find)
        return false;
    bind_hash(find, 1, hash);
    const bool row = sqlite3_step(find) == SQLITE_ROW;
    *study = row ? sqlite3_column_int64(find, 0) : 0;
    sqlite3_reset(find);
    return row;
}

enum moesim_status results_study(struct results_store *store, const char *name, uint64_t hash, const char *config_json,
                                 int64_t *study, struct moesim_error *err)
{
    if (results_begin(store) && insert_study(store, name, hash, config_json, study) && results_commit(store))
        return MOESIM_OK;
    const enum moesim_status status = results_fail(store, err, "store the study");
    results_rollback(store);
    return status;
}

/* *id is 0 when there is no such run. */
static bool find_run(struct results_store *store, int64_t study, uint64_t hash, int64_t *id, bool *done)
{
    sqlite3_stmt *find = results_prepared(store, RESULTS_FIND_RUN);
    if (!find)
        return false;
    sqlite3_bind_int64(find, 1, study);
    bind_hash(find, 2, hash);
    const int code = sqlite3_step(find);
    *id = code == SQLITE_ROW ? sqlite3_column_int64(find, 0) : 0;
    *done = code == SQLITE_ROW && sqlite3_column_int(find, 1);
    sqlite3_reset(find);
    return code == SQLITE_ROW || code == SQLITE_DONE;
}

enum moesim_status results_run_state(struct results_store *store, int64_t study, uint64_t hash,
                                     enum results_state *state, struct moesim_error *err)
{
    int64_t id;
    bool done;
    if (!find_run(store, study, hash, &id, &done))
        return results_fail(store, err, "look up a run");
    *state = id == 0 ? RESULTS_ABSENT : done ? RESULTS_DONE : RESULTS_FAILED;
    return MOESIM_OK;
}

/* Equal for runs that differ in the router alone, seed aside. The dense model of a study has as many blocks as one with
 * experts in each of them, so the two are a pair; the SPEC of training would tell them apart and says what its keys
 * say. */
static uint64_t pairing_hash(const struct results_run *run)
{
    uint64_t hash = MOESIM_HASH_START;
    for (uint32_t i = 0; i < run->n_params; i++) {
        const char *path = run->params[i].path, *value = run->params[i].value;
        if (strcmp(path, "seed") == 0 || strcmp(path, "router") == 0 || strncmp(path, "router.", 7) == 0 ||
            strcmp(path, "train") == 0)
            continue;
        if (strcmp(path, "train.moe_every") == 0 && strcmp(value, "0") == 0)
            value = "1";
        hash = moesim_hash(hash, path, strlen(path) + 1);
        hash = moesim_hash(hash, value, strlen(value) + 1);
    }
    return hash;
}

static bool insert_run(struct results_store *store, const struct results_run *run, int64_t *id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_RUN);
    if (!insert)
        return false;
    const struct results_provenance *from = &run->provenance;
    sqlite3_bind_int64(insert, 1, run->study);
    bind_hash(insert, 2, run->hash);
    sqlite3_bind_int64(insert, 3, run->point);
    sqlite3_bind_int64(insert, 4, (int64_t)run->seed);
    bind_hash(insert, 5, pairing_hash(run));
    bind_text(insert, 6, run->failed ? "failed" : "done");
    bind_text(insert, 7, run->failed ? run->reason : NULL);
    bind_text(insert, 8, run->params_json);
    bind_text(insert, 9, from->version);
    bind_text(insert, 10, from->revision);
    bind_text(insert, 11, from->compiler);
    bind_text(insert, 12, from->cpu);
    bind_text(insert, 13, from->blas);
    bind_text(insert, 14, from->kernel_path);
    sqlite3_bind_int64(insert, 15, from->threads);
    bind_text(insert, 16, from->files_json);
    bind_text(insert, 17, from->workload);
    bind_text(insert, 18, from->started);
    sqlite3_bind_double(insert, 19, from->seconds);
    const char *note = run->outcome ? run->outcome->note : NULL;
    bind_text(insert, 20, note && *note ? note : NULL);
    const bool done = results_step_done(insert);
    *id = sqlite3_last_insert_rowid(store->db);
    return done;
}

static bool insert_params(struct results_store *store, const struct results_run *run, int64_t id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_PARAM);
    bool done = insert;
    for (uint32_t i = 0; done && i < run->n_params; i++) {
        const struct results_param *param = &run->params[i];
        sqlite3_bind_int64(insert, 1, id);
        bind_text(insert, 2, param->path);
        bind_text(insert, 3, param->value);
        if (param->is_number)
            sqlite3_bind_double(insert, 4, param->number);
        else
            sqlite3_bind_null(insert, 4);
        done = results_step_done(insert);
    }
    return done;
}

static bool insert_summaries(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_SUMMARY);
    bool done = insert;
    for (uint64_t i = 0; done && i < outcome->n_summaries; i++) {
        const struct moesim_summary *s = &outcome->summary[i];
        const double figure[] = {s->value, s->mean, s->std, s->min, s->p50, s->p95, s->max};
        assert(s->metric < MOESIM_N_METRICS);
        sqlite3_bind_int64(insert, 1, id);
        if (s->layer == MOESIM_ALL_LAYERS)
            sqlite3_bind_null(insert, 2);
        else
            sqlite3_bind_int(insert, 2, s->layer);
        sqlite3_bind_int64(insert, 3, store->metric[s->metric]);
        for (int j = 0; j < 7; j++)
            sqlite3_bind_double(insert, 4 + j, figure[j]);
        sqlite3_bind_int64(insert, 11, (int64_t)s->n);
        done = results_step_done(insert);
    }
    return done;
}

static bool insert_series(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_SERIES);
    bool done = insert;
    for (uint64_t i = 0; done && i < outcome->n_series; i++) {
        const struct moesim_sample *sample = &outcome->series[i];
        assert(sample->metric < MOESIM_N_METRICS);
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, sample->step);
        sqlite3_bind_int64(insert, 3, sample->layer);
        sqlite3_bind_int64(insert, 4, store->metric[sample->metric]);
        sqlite3_bind_double(insert, 5, sample->value);
        done = results_step_done(insert);
    }
    return done;
}

/* Binds the counts as a JSON array, which SQLite then owns. */
static void bind_counts(sqlite3_stmt *statement, int index, const uint64_t *count, uint32_t n)
{
    char *text = malloc((size_t)n * 21 + 3); /* 20 digits and a comma */
    if (!text) {
        sqlite3_bind_null(statement, index);
        return;
    }
    char *end = text;
    *end++ = '[';
    for (uint32_t i = 0; i < n; i++)
        end += sprintf(end, "%s%llu", i ? "," : "", (unsigned long long)count[i]);
    *end++ = ']';
    sqlite3_bind_text(statement, index, text, (int)(end - text), free);
}

static bool insert_loads(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_LOAD);
    bool done = insert;
    for (uint64_t i = 0; done && i < outcome->n_windows; i++) {
        const struct moesim_load_window *window = &outcome->window[i];
        assert(window->window < MOESIM_MAX_WINDOWS);
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, window->window);
        sqlite3_bind_int64(insert, 3, window->layer);
        sqlite3_bind_int64(insert, 4, window->first_step);
        sqlite3_bind_int64(insert, 5, window->n_steps);
        bind_counts(insert, 6, window->assigned, window->n_experts);
        bind_counts(insert, 7, window->kept, window->n_experts);
        done = results_step_done(insert);
    }
    return done;
}

/* traffic.unit, by enum moesim_link; schema.sql lists them too. */
static const char *const link_name[MOESIM_N_LINKS] = {"device",  "node",   "nvlink_out", "nvlink_in",
                                                      "nic_out", "nic_in", "leaf_up",    "leaf_down"};

static bool insert_traffic(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = results_prepared(store, RESULTS_INSERT_TRAFFIC);
    bool done = insert;
    for (uint64_t i = 0; done && i < outcome->n_traffic; i++) {
        const struct moesim_traffic *pair = &outcome->traffic[i];
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, pair->source);
        sqlite3_bind_int64(insert, 3, pair->target);
        sqlite3_bind_double(insert, 4, pair->bytes);
        bind_text(insert, 5, link_name[pair->link]);
        done = results_step_done(insert);
    }
    return done;
}

static bool insert_domain_losses(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = outcome->n_domain_losses ? results_prepared(store, RESULTS_INSERT_DOMAIN_LOSS) : NULL;
    bool done = insert || !outcome->n_domain_losses;
    for (uint64_t i = 0; done && i < outcome->n_domain_losses; i++) {
        const struct moesim_domain_loss *loss = &outcome->domain_loss[i];
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, loss->step);
        bind_text(insert, 3, loss->domain);
        sqlite3_bind_int64(insert, 4, (int64_t)loss->tokens);
        sqlite3_bind_double(insert, 5, loss->bits_per_byte);
        done = results_step_done(insert);
    }
    return done;
}

/* specialisation.kind, by enum moesim_subject; schema.sql lists them too. */
static const char *const subject_kind[MOESIM_N_SUBJECTS] = {"domain", "token"};

static bool insert_specialisations(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    sqlite3_stmt *insert = outcome->n_specialisations ? results_prepared(store, RESULTS_INSERT_SPECIALISATION) : NULL;
    bool done = insert || !outcome->n_specialisations;
    for (uint64_t i = 0; done && i < outcome->n_specialisations; i++) {
        const struct moesim_specialisation *s = &outcome->specialisation[i];
        sqlite3_bind_int64(insert, 1, id);
        sqlite3_bind_int64(insert, 2, s->layer);
        bind_text(insert, 3, subject_kind[s->kind]);
        bind_text(insert, 4, s->subject);
        sqlite3_bind_int64(insert, 5, (int64_t)s->tokens);
        bind_counts(insert, 6, s->assigned, s->n_experts);
        done = results_step_done(insert);
    }
    return done;
}

static bool delete_run(struct results_store *store, int64_t id)
{
    sqlite3_stmt *remove = results_prepared(store, RESULTS_DELETE_RUN);
    if (!remove)
        return false;
    sqlite3_bind_int64(remove, 1, id);
    return results_step_done(remove);
}

/* A run of the same point whose hash is another read what has changed since: a file, or a plugin's code. */
static bool delete_stale(struct results_store *store, const struct results_run *run)
{
    const char *router = NULL;
    for (uint32_t i = 0; i < run->n_params; i++)
        if (!strcmp(run->params[i].path, "router"))
            router = run->params[i].value;
    if (!router || run->failed)
        return true;
    sqlite3_stmt *remove = results_prepared(store, RESULTS_DELETE_STALE);
    if (!remove)
        return false;
    sqlite3_bind_int64(remove, 1, run->study);
    bind_hash(remove, 2, pairing_hash(run));
    sqlite3_bind_int64(remove, 3, (int64_t)run->seed);
    bind_hash(remove, 4, run->hash);
    bind_text(remove, 5, run->params_json);
    bind_text(remove, 6, router);
    return results_step_done(remove);
}

static bool seal_run(struct results_store *store, int64_t id)
{
    uint64_t hash;
    sqlite3_stmt *seal = results_row_hash(store, id, &hash) ? results_prepared(store, RESULTS_SEAL_RUN) : NULL;
    if (!seal)
        return false;
    sqlite3_bind_int64(seal, 1, id);
    bind_hash(seal, 2, hash);
    return results_step_done(seal);
}

static bool insert_outcome(struct results_store *store, const struct moesim_outcome *outcome, int64_t id)
{
    return insert_summaries(store, outcome, id) && insert_series(store, outcome, id) &&
           insert_loads(store, outcome, id) && insert_traffic(store, outcome, id) &&
           insert_domain_losses(store, outcome, id) && insert_specialisations(store, outcome, id);
}

/* The work of results_write inside its transaction. */
static bool write_run(struct results_store *store, const struct results_run *run, int64_t *id)
{
    bool done;
    if (!find_run(store, run->study, run->hash, id, &done))
        return false;
    if (*id && done && (run->failed || !run->replace))
        return true;
    return (!*id || delete_run(store, *id)) && delete_stale(store, run) && insert_run(store, run, id) &&
           insert_params(store, run, *id) && (run->failed || insert_outcome(store, run->outcome, *id)) &&
           seal_run(store, *id);
}

enum moesim_status results_write(struct results_store *store, const struct results_run *run, int64_t *id,
                                 struct moesim_error *err)
{
    assert(run->failed || run->outcome);
    if (results_begin(store) && write_run(store, run, id) && results_commit(store))
        return MOESIM_OK;
    const enum moesim_status status = results_fail(store, err, "store a run");
    results_rollback(store);
    return status;
}
