/*
 * What the files of this folder share: one connection, its prepared statements and its way to say that SQLite failed.
 */
#ifndef MOESIM_RESULTS_CONNECTION_H
#define MOESIM_RESULTS_CONNECTION_H

#include <sqlite3.h>

#include <moesim/metric.h>

#include "results/store.h"

/* Statements that every run needs, prepared once; their text is in connection.c. */
enum results_statement {
    RESULTS_BEGIN,
    RESULTS_COMMIT,
    RESULTS_INSERT_STUDY,
    RESULTS_FIND_STUDY,
    RESULTS_FIND_RUN,
    RESULTS_DELETE_RUN,
    RESULTS_DELETE_STALE,
    RESULTS_INSERT_RUN,
    RESULTS_SEAL_RUN,
    RESULTS_INSERT_PARAM,
    RESULTS_INSERT_SUMMARY,
    RESULTS_INSERT_SERIES,
    RESULTS_INSERT_LOAD,
    RESULTS_INSERT_TRAFFIC,
    RESULTS_INSERT_DOMAIN_LOSS,
    RESULTS_INSERT_SPECIALISATION,
    RESULTS_HASH_RUN, /* the first of the statements whose rows the row hash covers */
    RESULTS_HASH_PARAMS,
    RESULTS_HASH_SUMMARY,
    RESULTS_HASH_SERIES,
    RESULTS_HASH_LOAD,
    RESULTS_HASH_TRAFFIC,
    RESULTS_HASH_DOMAIN_LOSS,    /* the first of a table that version 3 brought */
    RESULTS_HASH_SPECIALISATION, /* the last of them */
    RESULTS_N_STATEMENTS,
};

struct results_store {
    sqlite3 *db;
    char *path;       /* for messages */
    uint32_t version; /* of the file's schema; older than this program's only for a reader */
    sqlite3_stmt *statement[RESULTS_N_STATEMENTS];
    int64_t metric[MOESIM_N_METRICS]; /* the file's id of each metric of this program; 0 = it has none */
};

/* Turns the connection's last error into a status and a sentence: "FILE: cannot ACTION: ...". */
enum moesim_status results_fail(struct results_store *store, struct moesim_error *err, const char *action);

/* The statement, reset and ready to bind, or NULL. */
sqlite3_stmt *results_prepared(struct results_store *store, enum results_statement which);

/* Steps a statement that gives no rows and resets it; true when it was done. */
bool results_step_done(sqlite3_stmt *statement);

/* BEGIN IMMEDIATE; COMMIT; ROLLBACK unless SQLite has done so. After a failure call results_fail before
 * results_rollback, which overwrites the reason. */
bool results_begin(struct results_store *store);
bool results_commit(struct results_store *store);
void results_rollback(struct results_store *store);

/* Writes the metric table and v_runs where the file lacks them or differs, and learns the metrics' ids; inside a
 * transaction of the caller's when `in_transaction`. A connection that cannot write only learns the ids. */
enum moesim_status results_sync_metrics(struct results_store *store, bool in_transaction, struct moesim_error *err);
enum moesim_status results_learn_metrics(struct results_store *store, struct moesim_error *err);

/* The row hash of a run from what the file holds. */
bool results_row_hash(struct results_store *store, int64_t run, uint64_t *hash);

/* A hash as the file spells it. */
#define RESULTS_HASH_SIZE 17
void results_format_hash(uint64_t hash, char text[RESULTS_HASH_SIZE]);

#endif
