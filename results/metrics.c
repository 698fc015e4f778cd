/*
 * The metric table of the file, and v_runs, which has one column for each of its rows: a metric that is new in this
 * program appears in a file made by an older one.
 */
#include "results/connection.h"

#include <string.h>

static const char *const kinds[] = {
    [MOESIM_COUNTED] = "counted", [MOESIM_MODELLED] = "modelled", [MOESIM_MEASURED] = "measured"};
static const char *const sides[] = {[MOESIM_LOWER] = "lower", [MOESIM_HIGHER] = "higher", [MOESIM_NEITHER] = "neither"};
static const char *const folds[] = {[MOESIM_FOLD_MEAN] = "mean",
                                    [MOESIM_FOLD_TOTAL] = "total",
                                    [MOESIM_FOLD_MEDIAN] = "median",
                                    [MOESIM_FOLD_LAST] = "last"};

/* The texts of a metric's row, in the order of the table's columns after id. */
#define N_TEXTS 6
static void metric_texts(const struct moesim_metric *metric, const char *text[N_TEXTS])
{
    text[0] = metric->name;
    text[1] = metric->unit;
    text[2] = kinds[metric->kind];
    text[3] = sides[metric->better];
    text[4] = folds[metric->fold];
    text[5] = metric->meaning;
}

/* Fills the ids; `same` tells whether the file describes every metric as this program does. */
static bool learn(struct results_store *store, bool *same)
{
    sqlite3_stmt *rows = NULL;
    uint32_t n_same = 0;
    if (sqlite3_prepare_v2(store->db, "SELECT name, unit, kind, better, fold, meaning, id FROM metric", -1, &rows,
                           NULL) != SQLITE_OK)
        return false;
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        const char *name = (const char *)sqlite3_column_text(rows, 0);
        const int id = name ? moesim_metric_find(name) : -1;
        if (id < 0)
            continue;
        const char *text[N_TEXTS];
        metric_texts(&moesim_metrics[id], text);
        bool equal = true;
        for (int i = 0; i < N_TEXTS; i++) {
            const char *stored = (const char *)sqlite3_column_text(rows, i);
            equal = equal && stored && strcmp(stored, text[i]) == 0;
        }
        store->metric[id] = sqlite3_column_int64(rows, N_TEXTS);
        n_same += equal;
    }
    sqlite3_finalize(rows);
    *same = n_same == MOESIM_N_METRICS;
    return code == SQLITE_DONE;
}

static bool upsert(struct results_store *store)
{
    sqlite3_stmt *row = NULL;
    bool done = sqlite3_prepare_v2(store->db,
                                   "INSERT INTO metric (name, unit, kind, better, fold, meaning)"
                                   " VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (name) DO UPDATE SET unit = ?2,"
                                   " kind = ?3, better = ?4, fold = ?5, meaning = ?6",
                                   -1, &row, NULL) == SQLITE_OK;
    for (uint32_t id = 0; done && id < MOESIM_N_METRICS; id++) {
        const char *text[N_TEXTS];
        metric_texts(&moesim_metrics[id], text);
        for (int i = 0; i < N_TEXTS; i++)
            sqlite3_bind_text(row, i + 1, text[i], -1, SQLITE_STATIC);
        done = results_step_done(row);
    }
    sqlite3_finalize(row);
    return done;
}

/* The text of v_runs for the metrics in the file; to be freed with sqlite3_free. NULL = failure. */
static char *runs_view(struct results_store *store)
{
    sqlite3_stmt *rows = NULL;
    if (sqlite3_prepare_v2(store->db, "SELECT id, name FROM metric ORDER BY id", -1, &rows, NULL) != SQLITE_OK)
        return NULL;
    sqlite3_str *sql = sqlite3_str_new(store->db);
    sqlite3_str_appendall(sql, "CREATE VIEW v_runs AS SELECT p.*");
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW)
        sqlite3_str_appendf(sql,
                            ",\n    (SELECT value FROM summary WHERE run = p.run AND metric = %lld"
                            " AND ifnull(layer, -1) = -1) AS \"%w\"",
                            (long long)sqlite3_column_int64(rows, 0), (const char *)sqlite3_column_text(rows, 1));
    sqlite3_str_appendall(sql, "\nFROM v_run_params p");
    sqlite3_finalize(rows);
    char *text = sqlite3_str_finish(sql);
    if (code == SQLITE_DONE)
        return text;
    sqlite3_free(text);
    return NULL;
}

static bool view_is(struct results_store *store, const char *sql, bool *same)
{
    sqlite3_stmt *row = NULL;
    if (sqlite3_prepare_v2(store->db, "SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'v_runs'", -1, &row,
                           NULL) != SQLITE_OK)
        return false;
    const int code = sqlite3_step(row);
    const char *stored = code == SQLITE_ROW ? (const char *)sqlite3_column_text(row, 0) : NULL;
    *same = stored && strcmp(stored, sql) == 0;
    sqlite3_finalize(row);
    return code == SQLITE_ROW || code == SQLITE_DONE;
}

static bool replace_view(struct results_store *store, const char *sql)
{
    return sqlite3_exec(store->db, "DROP VIEW IF EXISTS v_runs", NULL, NULL, NULL) == SQLITE_OK &&
           sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Brings table and view up to date inside the caller's transaction. */
static bool renew(struct results_store *store)
{
    bool same;
    if (!upsert(store) || !learn(store, &same))
        return false;
    char *sql = runs_view(store);
    const bool done = sql && replace_view(store, sql);
    sqlite3_free(sql);
    return done;
}

enum moesim_status results_learn_metrics(struct results_store *store, struct moesim_error *err)
{
    bool same;
    return learn(store, &same) ? MOESIM_OK : results_fail(store, err, "read its metrics");
}

enum moesim_status results_sync_metrics(struct results_store *store, bool in_transaction, struct moesim_error *err)
{
    bool same_rows = false, same_view = false;
    char *sql = NULL;
    if (!learn(store, &same_rows) || !(sql = runs_view(store)) || !view_is(store, sql, &same_view)) {
        sqlite3_free(sql);
        return results_fail(store, err, "read its metrics");
    }
    sqlite3_free(sql);
    if (same_rows && same_view)
        return MOESIM_OK;
    if ((in_transaction || results_begin(store)) && renew(store) && (in_transaction || results_commit(store)))
        return MOESIM_OK;
    const enum moesim_status status = results_fail(store, err, "write its metrics");
    if (!in_transaction)
        results_rollback(store);
    return status;
}
