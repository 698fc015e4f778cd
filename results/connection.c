/*
 * One connection: statements, transactions and the sentences for what can go wrong.
 */
#include "results/connection.h"

#include <stdio.h>

static const char *const statement_sql[RESULTS_N_STATEMENTS] = {
    /* Takes the write lock at once: a read that turns into a write later is refused without the busy timeout. */
    [RESULTS_BEGIN] = "BEGIN IMMEDIATE",
    [RESULTS_COMMIT] = "COMMIT",
    [RESULTS_INSERT_STUDY] =
        "INSERT INTO study (name, hash, config, created)"
        " VALUES (?1, ?2, ?3, strftime('%Y-%m-%dT%H:%M:%SZ', 'now')) ON CONFLICT (hash) DO NOTHING",
    [RESULTS_FIND_STUDY] = "SELECT id FROM study WHERE hash = ?1",
    [RESULTS_FIND_RUN] = "SELECT id, state = 'done' FROM run WHERE study = ?1 AND hash = ?2",
    [RESULTS_DELETE_RUN] = "DELETE FROM run WHERE id = ?1",
    [RESULTS_DELETE_STALE] = "DELETE FROM run WHERE study = ?1 AND pairing = ?2 AND seed = ?3 AND hash <> ?4 AND "
                             "params = ?5 AND EXISTS (SELECT 1 FROM run_param WHERE run = run.id AND path = 'router' "
                             "AND value = ?6)",
    [RESULTS_INSERT_RUN] =
        "INSERT INTO run (study, hash, point, seed, pairing, state, reason, params, version, revision, compiler, cpu, "
        "blas,"
        " kernel_path, threads, files, workload, started, seconds, note, row_hash)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, '')",
    [RESULTS_SEAL_RUN] = "UPDATE run SET row_hash = ?2 WHERE id = ?1",
    [RESULTS_INSERT_PARAM] = "INSERT INTO run_param VALUES (?1, ?2, ?3, ?4)",
    [RESULTS_INSERT_SUMMARY] = "INSERT INTO summary VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    [RESULTS_INSERT_SERIES] = "INSERT INTO series VALUES (?1, ?2, ?3, ?4, ?5)",
    [RESULTS_INSERT_LOAD] = "INSERT INTO expert_load VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    [RESULTS_INSERT_TRAFFIC] = "INSERT INTO traffic (run, source, target, bytes, unit) VALUES (?1, ?2, ?3, ?4, ?5)",
    /* Names come from files and vocabularies: of two that are spelled alike the first stays, and the run with it. */
    [RESULTS_INSERT_DOMAIN_LOSS] = "INSERT INTO domain_loss VALUES (?1, ?2, ?3, ?4, ?5)"
                                   " ON CONFLICT (run, step, domain) DO NOTHING",
    [RESULTS_INSERT_SPECIALISATION] = "INSERT INTO specialisation VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
                                      " ON CONFLICT (run, layer, kind, subject) DO NOTHING",
    [RESULTS_HASH_RUN] = "SELECT hash, seed, pairing, state, params FROM run WHERE id = ?1",
    [RESULTS_HASH_PARAMS] = "SELECT path, value, number FROM run_param WHERE run = ?1 ORDER BY path",
    /* By name: ids differ between files. */
    [RESULTS_HASH_SUMMARY] = "SELECT m.name, s.layer, s.value, s.mean, s.std, s.min, s.p50, s.p95, s.max, s.n"
                             " FROM summary s JOIN metric m ON m.id = s.metric"
                             " WHERE s.run = ?1 AND m.kind <> 'measured' ORDER BY m.name, s.layer",
    [RESULTS_HASH_SERIES] = "SELECT m.name, s.layer, s.step, s.value FROM series s JOIN metric m ON m.id = s.metric"
                            " WHERE s.run = ?1 AND m.kind <> 'measured' ORDER BY m.name, s.layer, s.step",
    [RESULTS_HASH_LOAD] = "SELECT window, layer, first_step, n_steps, assigned, kept FROM expert_load"
                          " WHERE run = ?1 ORDER BY window, layer",
    [RESULTS_HASH_TRAFFIC] = "SELECT source, target, bytes, unit FROM traffic WHERE run = ?1"
                             " ORDER BY source, target, unit",
    [RESULTS_HASH_DOMAIN_LOSS] = "SELECT step, domain, tokens, bits_per_byte FROM domain_loss WHERE run = ?1"
                                 " ORDER BY step, domain",
    [RESULTS_HASH_SPECIALISATION] = "SELECT layer, kind, subject, tokens, assigned FROM specialisation WHERE run = ?1"
                                    " ORDER BY layer, kind, subject",
};

enum moesim_status results_fail(struct results_store *store, struct moesim_error *err, const char *action)
{
    switch (sqlite3_errcode(store->db)) {
    case SQLITE_OK: /* SQLite's string builder reports nothing else */
    case SQLITE_NOMEM:
        return moesim_fail(err, MOESIM_ENOMEM, "%s: cannot %s: out of memory", store->path, action);
    case SQLITE_FULL:
        return moesim_fail(err, MOESIM_EIO,
                           "%s: cannot %s: the disk is full; what was stored before is whole, free some space and run "
                           "again to go on",
                           store->path, action);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return moesim_fail(err, MOESIM_EIO, "%s: cannot %s: another program holds it locked; try again when it is done",
                           store->path, action);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return moesim_fail(err, MOESIM_EIO,
                           "%s: cannot %s: the file is damaged (%s); restore a copy or name a new file", store->path,
                           action, sqlite3_errmsg(store->db));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return moesim_fail(err, MOESIM_EIO,
                           "%s: cannot %s: %s; the file and its directory must be writable, or name another file",
                           store->path, action, sqlite3_errmsg(store->db));
    default:
        return moesim_fail(err, MOESIM_EIO, "%s: cannot %s: %s", store->path, action, sqlite3_errmsg(store->db));
    }
}

sqlite3_stmt *results_prepared(struct results_store *store, enum results_statement which)
{
    sqlite3_stmt **statement = &store->statement[which];
    if (*statement)
        sqlite3_reset(*statement);
    else
        sqlite3_prepare_v3(store->db, statement_sql[which], -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);
    return *statement;
}

bool results_step_done(sqlite3_stmt *statement)
{
    const bool done = sqlite3_step(statement) == SQLITE_DONE;
    /* After a failure reset() would only repeat the code, and the connection keeps it for the message. */
    sqlite3_reset(statement);
    return done;
}

bool results_begin(struct results_store *store)
{
    sqlite3_stmt *begin = results_prepared(store, RESULTS_BEGIN);
    return begin && results_step_done(begin);
}

bool results_commit(struct results_store *store)
{
    sqlite3_stmt *commit = results_prepared(store, RESULTS_COMMIT);
    return commit && results_step_done(commit);
}

void results_rollback(struct results_store *store)
{
    /* A full disk has rolled back already, and a second ROLLBACK would hide why. */
    if (!sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
}

void results_format_hash(uint64_t hash, char text[RESULTS_HASH_SIZE])
{
    snprintf(text, RESULTS_HASH_SIZE, "%016llx", (unsigned long long)hash);
}
