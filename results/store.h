/*
 * The store: studies, runs and their figures in one SQLite file. The only code that knows SQLite. It takes plain
 * values, JSON text and the metric table.
 *
 * One transaction a run: a run is whole or absent.
 */
#ifndef MOESIM_RESULTS_STORE_H
#define MOESIM_RESULTS_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/outcome.h>
#include <moesim/status.h>

struct results_store;

enum results_mode {
    RESULTS_READ,   /* must exist */
    RESULTS_WRITE,  /* created when absent */
    RESULTS_MEMORY, /* no file */
};

/* Opens or creates; sets WAL, busy timeout, application_id and user_version. MOESIM_EIO and one sentence for a file
 * that cannot be read or written, a database of another program, one made by a newer moesim, or a damaged one; such a
 * file is left as it was. */
MOESIM_MUST_CHECK enum moesim_status results_open(const char *path, enum results_mode mode,
                                                  struct results_store **store, struct moesim_error *err);

/* Checkpoints the log, so that no -wal file is left, and closes; NULL is allowed. */
void results_close(struct results_store *store);

/* Inserts the study, or finds the one with this hash. */
MOESIM_MUST_CHECK enum moesim_status results_study(struct results_store *store, const char *name, uint64_t hash,
                                                   const char *config_json, int64_t *study, struct moesim_error *err);

/* What is known of the run with this hash in this study. */
enum results_state { RESULTS_ABSENT, RESULTS_DONE, RESULTS_FAILED };
MOESIM_MUST_CHECK enum moesim_status results_run_state(struct results_store *store, int64_t study, uint64_t hash,
                                                       enum results_state *state, struct moesim_error *err);

/* Where a figure comes from. Texts are borrowed. */
struct results_provenance {
    const char *version, *revision, *compiler, *cpu, *blas, *kernel_path;
    uint32_t threads;
    const char *files_json; /* {"path": "hash"} of the files a run read */
    const char *workload;   /* which data it was */
    const char *started;    /* ISO 8601, UTC */
    double seconds;
};

/* One resolved parameter. */
struct results_param {
    const char *path, *value;
    bool is_number;
    double number;
};

struct results_run {
    int64_t study;
    uint64_t hash, seed;
    uint32_t point; /* its place in the study: listings keep the study's order */
    bool failed;
    bool replace;            /* a done run with this hash too, unless this one failed */
    const char *reason;      /* of a failure */
    const char *params_json; /* every resolved parameter */
    const struct results_param *params;
    uint32_t n_params;
    struct results_provenance provenance;
    const struct moesim_outcome *outcome; /* NULL for a failed run */
};

/* Writes a run with all its figures in one transaction; a failed run with the same hash is replaced, a done one is left
 * (*id is its id) unless `replace` says otherwise. Runs of the same parameters with another hash are replaced by a done
 * one: a file or a plugin that they read has changed. The row hash covers all but measured figures, times and
 * provenance.
 */
MOESIM_MUST_CHECK enum moesim_status results_write(struct results_store *store, const struct results_run *run,
                                                   int64_t *id, struct moesim_error *err);

/* Recomputes the row hashes of all runs; the sentence names the first run that does not match. */
MOESIM_MUST_CHECK enum moesim_status results_verify(struct results_store *store, struct moesim_error *err);

/* ---- reading: a query over the views and tables of schema.sql, one row at a time ---- */

struct results_query;

/* Prepares a SELECT with optional text parameters ?1, ?2, ... ; anything but a SELECT is refused. */
MOESIM_MUST_CHECK enum moesim_status results_query(struct results_store *store, const char *sql,
                                                   const char *const *text, uint32_t n_text,
                                                   struct results_query **query, struct moesim_error *err);
/* True when there is a row. */
MOESIM_MUST_CHECK enum moesim_status results_next(struct results_query *query, bool *row, struct moesim_error *err);
uint32_t results_columns(const struct results_query *query);
const char *results_column_name(const struct results_query *query, uint32_t column);
bool results_is_null(struct results_query *query, uint32_t column);
bool results_is_number(struct results_query *query, uint32_t column);
double results_number(struct results_query *query, uint32_t column); /* NaN for NULL */
int64_t results_integer(struct results_query *query, uint32_t column);
const char *results_text(struct results_query *query, uint32_t column); /* "" for NULL; valid until the next row */
void results_query_close(struct results_query *query);

#endif
