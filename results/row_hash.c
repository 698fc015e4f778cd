/*
 * The row hash: seals what a run found. It is taken from the rows as the file holds them, by one set of statements for
 * writing and verifying; measured figures, times, reason and provenance stay outside, so that a rerun gives the same.
 */
#include "results/connection.h"

#include <string.h>

#include <moesim/hash.h>

/* One value with its type, so that 1, 1.0 and '1' differ, and NULL from all. */
static uint64_t hash_value(uint64_t hash, sqlite3_stmt *row, int column)
{
    const int type = sqlite3_column_type(row, column);
    const unsigned char tag = (unsigned char)type;
    hash = moesim_hash(hash, &tag, 1);
    if (type == SQLITE_INTEGER || type == SQLITE_FLOAT) {
        int64_t bits = sqlite3_column_int64(row, column);
        const double number = sqlite3_column_double(row, column);
        if (type == SQLITE_FLOAT)
            memcpy(&bits, &number, sizeof bits);
        return moesim_hash(hash, &bits, sizeof bits);
    }
    if (type == SQLITE_NULL)
        return hash;
    const void *bytes = sqlite3_column_blob(row, column);
    const int64_t size = sqlite3_column_bytes(row, column);
    hash = moesim_hash(hash, &size, sizeof size);
    return size ? moesim_hash(hash, bytes, (size_t)size) : hash;
}

/* The rows of one table. A table that came with version 3 counts only where a run has rows in it, so that the hashes of
 * older runs stay. */
static bool hash_rows(struct results_store *store, enum results_statement which, int64_t run, uint64_t *hash)
{
    sqlite3_stmt *rows = results_prepared(store, which);
    if (!rows)
        return false;
    sqlite3_bind_int64(rows, 1, run);
    const unsigned char tag = (unsigned char)(which - RESULTS_HASH_RUN);
    bool tagged = which < RESULTS_HASH_DOMAIN_LOSS;
    if (tagged)
        *hash = moesim_hash(*hash, &tag, 1);
    int code;
    while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
        if (!tagged)
            *hash = moesim_hash(*hash, &tag, 1);
        tagged = true;
        for (int i = 0; i < sqlite3_column_count(rows); i++)
            *hash = hash_value(*hash, rows, i);
    }
    sqlite3_reset(rows);
    return code == SQLITE_DONE;
}

bool results_row_hash(struct results_store *store, int64_t run, uint64_t *hash)
{
    const int last = store->version < 3 ? RESULTS_HASH_TRAFFIC : RESULTS_HASH_SPECIALISATION;
    *hash = MOESIM_HASH_START;
    for (int which = RESULTS_HASH_RUN; which <= last; which++)
        if (!hash_rows(store, (enum results_statement)which, run, hash))
            return false;
    return true;
}

/* Page structure first: SQLite has no checksums, and a broken tree would stop the walk over the rows. */
static enum moesim_status check_pages(struct results_store *store, struct moesim_error *err)
{
    sqlite3_stmt *check = NULL;
    const char *answer = NULL;
    if (sqlite3_prepare_v2(store->db, "PRAGMA integrity_check(1)", -1, &check, NULL) == SQLITE_OK &&
        sqlite3_step(check) == SQLITE_ROW)
        answer = (const char *)sqlite3_column_text(check, 0);
    enum moesim_status status = MOESIM_OK;
    if (!answer)
        status = results_fail(store, err, "verify");
    else if (strcmp(answer, "ok") != 0)
        status = moesim_fail(err, MOESIM_EIO, "%s: the file is damaged (%s); restore a copy", store->path, answer);
    sqlite3_finalize(check);
    return status;
}

enum moesim_status results_verify(struct results_store *store, struct moesim_error *err)
{
    enum moesim_status status = check_pages(store, err);
    if (status != MOESIM_OK)
        return status;
    sqlite3_stmt *runs = NULL;
    int code = sqlite3_prepare_v2(store->db, "SELECT id, row_hash FROM run ORDER BY id", -1, &runs, NULL);
    while (status == MOESIM_OK && code == SQLITE_OK && (code = sqlite3_step(runs)) == SQLITE_ROW) {
        const int64_t run = sqlite3_column_int64(runs, 0);
        const char *stored = (const char *)sqlite3_column_text(runs, 1);
        uint64_t hash;
        char text[RESULTS_HASH_SIZE];
        code = SQLITE_OK;
        if (!results_row_hash(store, run, &hash)) {
            status = results_fail(store, err, "verify");
            break;
        }
        results_format_hash(hash, text);
        if (!stored || strcmp(stored, text) != 0)
            status =
                moesim_fail(err, MOESIM_EIO,
                            "%s: run %lld was changed or damaged after it was stored (row hash %s, its rows give %s); "
                            "delete it and run the study again",
                            store->path, (long long)run, stored ? stored : "NULL", text);
    }
    if (status == MOESIM_OK && code != SQLITE_DONE)
        status = results_fail(store, err, "verify");
    sqlite3_finalize(runs);
    return status;
}
