/*
 * Opening and closing: a file is looked at before SQLite may touch it, so that what is not ours stays as it was.
 *
 * Setting up a new file is one transaction in rollback mode; only then WAL is switched on, so that the first page of
 * every file of ours carries its application_id on the disk.
 */
#include "results/connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "results/identity.h"
#include "migrate_1.sql.h"
#include "migrate_2.sql.h"
#include "schema.sql.h"
#include "views.sql.h"

/* Long enough for any other writer's transaction of a few milliseconds, short enough to report a hung one. */
#define BUSY_TIMEOUT_MS 30000

static enum moesim_status store_create(const char *path, struct results_store **out, struct moesim_error *err)
{
    struct results_store *store = calloc(1, sizeof *store);
    /* "./" keeps SQLite from reading names such as ":memory:" and "file:x" as its own. */
    const bool special = path[0] == ':' || strncmp(path, "file:", 5) == 0;
    const size_t size = strlen(path) + sizeof "./";
    char *name = store ? malloc(size) : NULL;
    if (!name) {
        free(store);
        return moesim_fail(err, MOESIM_ENOMEM, "%s: cannot open: out of memory", path);
    }
    snprintf(name, size, "%s%s", special ? "./" : "", path);
    store->path = name;
    *out = store;
    return MOESIM_OK;
}

/* "file:" URI of a path with every byte escaped that could mean something. */
static char *immutable_uri(const char *path)
{
    char *uri = malloc(strlen(path) * 3 + sizeof "file:?immutable=1");
    if (!uri)
        return NULL;
    char *end = uri + sprintf(uri, "file:");
    for (const char *c = path; *c; c++)
        end +=
            sprintf(end, strchr("/._-", *c) || (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') ? "%c" : "%%%02X",
                    (unsigned char)*c);
    strcpy(end, "?immutable=1");
    return uri;
}

static void disconnect(struct results_store *store)
{
    for (int i = 0; i < RESULTS_N_STATEMENTS; i++) {
        sqlite3_finalize(store->statement[i]);
        store->statement[i] = NULL;
    }
    /* The last connection to close checkpoints the log and removes it. */
    const int code = sqlite3_close(store->db);
    assert(code == SQLITE_OK && "a query is still open");
    (void)code;
    store->db = NULL;
}

static enum moesim_status connect_file(struct results_store *store, const char *name, int flags,
                                       struct moesim_error *err)
{
    if (sqlite3_open_v2(name, &store->db, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK)
        return MOESIM_OK;
    if (!store->db)
        return moesim_fail(err, MOESIM_ENOMEM, "%s: cannot open: out of memory", store->path);
    return results_fail(store, err, "open");
}

/* A reader opens for writing where it may, since only a writer can remove the log that every reader of a WAL file
 * leaves; where it may not, the file cannot change while no log is there. */
static enum moesim_status connect_reader(struct results_store *store, struct moesim_error *err)
{
    if (results_path_writable(store->path))
        return connect_file(store, store->path, SQLITE_OPEN_READWRITE, err);
    if (results_has_log(store->path))
        return connect_file(store, store->path, SQLITE_OPEN_READONLY, err);
    char *uri = immutable_uri(store->path);
    if (!uri)
        return moesim_fail(err, MOESIM_ENOMEM, "%s: cannot open: out of memory", store->path);
    const enum moesim_status status = connect_file(store, uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err);
    free(uri);
    return status;
}

static enum moesim_status run_script(struct results_store *store, const char *sql, const char *action,
                                     struct moesim_error *err)
{
    if (sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK)
        return MOESIM_OK;
    return results_fail(store, err, action);
}

static enum moesim_status configure(struct results_store *store, struct moesim_error *err)
{
    sqlite3_busy_timeout(store->db, BUSY_TIMEOUT_MS); /* first: switching to WAL takes a lock too */
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(store->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    return run_script(store, "PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA synchronous = NORMAL",
                      "open", err);
}

/* Inside the write lock, so that of two programs that create one file one sets it up and the other finds it done. */
static enum moesim_status set_up(struct results_store *store, struct moesim_error *err)
{
    if (!results_begin(store))
        return results_fail(store, err, "set up");
    bool empty;
    uint32_t version;
    enum moesim_status status = results_check_identity(store, &empty, &version, err);
    if (status == MOESIM_OK && empty) {
        status = run_script(store, schema_sql, "set up", err);
        if (status == MOESIM_OK)
            status = run_script(store, views_sql, "set up", err);
        if (status == MOESIM_OK)
            status = results_sync_metrics(store, true, err);
        if (status == MOESIM_OK)
            status = run_script(store, RESULTS_IDENTITY_SQL, "set up", err);
    }
    if (status == MOESIM_OK && !results_commit(store))
        status = results_fail(store, err, "set up");
    results_rollback(store);
    return status;
}

/* Inside the write lock, which finds out whether somebody just did it. */
static enum moesim_status migrate_locked(struct results_store *store, struct moesim_error *err)
{
    if (!results_begin(store))
        return results_fail(store, err, "bring up to date");
    bool empty;
    uint32_t version;
    enum moesim_status status = results_check_identity(store, &empty, &version, err);
    if (status == MOESIM_OK && version == 1)
        status = run_script(store, migrate_1_sql, "bring up to date", err);
    if (status == MOESIM_OK && version <= 2)
        status = run_script(store, migrate_2_sql, "bring up to date", err);
    if (status == MOESIM_OK)
        status = run_script(store, views_sql, "bring up to date", err);
    if (status == MOESIM_OK)
        status = results_sync_metrics(store, true, err);
    if (status == MOESIM_OK)
        status = run_script(store, RESULTS_VERSION_SQL, "bring up to date", err);
    if (status == MOESIM_OK && !results_commit(store))
        status = results_fail(store, err, "bring up to date");
    results_rollback(store);
    return status;
}

/* Brings a file of an older version up to date. A table that others refer to is made anew, which foreign keys would
 * not allow; they cannot be switched inside a transaction. */
static enum moesim_status migrate(struct results_store *store, struct moesim_error *err)
{
    enum moesim_status status = run_script(store, "PRAGMA foreign_keys = OFF", "bring up to date", err);
    if (status == MOESIM_OK)
        status = migrate_locked(store, err);
    return status == MOESIM_OK ? run_script(store, "PRAGMA foreign_keys = ON", "bring up to date", err) : status;
}

static enum moesim_status prepare_writer(struct results_store *store, struct moesim_error *err)
{
    enum moesim_status status = configure(store, err);
    bool empty = false;
    uint32_t version = RESULTS_SCHEMA_VERSION;
    if (status == MOESIM_OK)
        status = results_check_identity(store, &empty, &version, err);
    if (status == MOESIM_OK && empty)
        status = set_up(store, err);
    else if (status == MOESIM_OK && version < RESULTS_SCHEMA_VERSION)
        status = migrate(store, err);
    store->version = RESULTS_SCHEMA_VERSION;
    if (status == MOESIM_OK)
        status = run_script(store, "PRAGMA journal_mode = WAL", "switch on its log", err);
    return status == MOESIM_OK ? results_sync_metrics(store, false, err) : status;
}

static enum moesim_status open_writer(struct results_store *store, struct moesim_error *err)
{
    bool created = false;
    enum moesim_status status = results_check_file(store->path, true, err);
    if (status == MOESIM_OK && access(store->path, F_OK) != 0) {
        /* O_EXCL says whether a failure may remove the file again. */
        const int file = open(store->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        created = file >= 0 && close(file) == 0;
        if (!created && errno != EEXIST)
            return moesim_fail(err, MOESIM_EIO,
                               "%s: cannot create the database: %s; name a file in a directory that "
                               "exists and can be written",
                               store->path, strerror(errno));
    }
    if (status == MOESIM_OK)
        status = connect_file(store, store->path, SQLITE_OPEN_READWRITE, err);
    if (status == MOESIM_OK && sqlite3_db_readonly(store->db, "main") == 1)
        status =
            moesim_fail(err, MOESIM_EIO, "%s: the database is read-only; name a file that can be written", store->path);
    if (status == MOESIM_OK)
        status = prepare_writer(store, err);
    if (status != MOESIM_OK && created) {
        disconnect(store); /* takes its journal away */
        unlink(store->path);
    }
    return status;
}

static enum moesim_status open_reader(struct results_store *store, struct moesim_error *err)
{
    bool empty = false;
    enum moesim_status status = results_check_file(store->path, false, err);
    if (status == MOESIM_OK)
        status = connect_reader(store, err);
    if (status == MOESIM_OK)
        status = configure(store, err);
    if (status == MOESIM_OK)
        status = run_script(store, "PRAGMA query_only = ON", "open", err);
    if (status == MOESIM_OK)
        status = results_check_identity(store, &empty, &store->version, err);
    if (status == MOESIM_OK && empty)
        status =
            moesim_fail(err, MOESIM_EIO, "%s: the database is empty; fill it with 'moesim run' first", store->path);
    return status == MOESIM_OK ? results_learn_metrics(store, err) : status;
}

enum moesim_status results_open(const char *path, enum results_mode mode, struct results_store **out,
                                struct moesim_error *err)
{
    *out = NULL;
    if (mode != RESULTS_MEMORY && (!path || !path[0]))
        return moesim_fail(err, MOESIM_EIO, "the database's file name is empty; name a file, such as moesim.db");
    struct results_store *store = NULL;
    enum moesim_status status = store_create(mode == RESULTS_MEMORY ? "memory" : path, &store, err);
    if (status != MOESIM_OK)
        return status;
    if (mode == RESULTS_MEMORY) {
        status = connect_file(store, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, err);
        if (status == MOESIM_OK)
            status = prepare_writer(store, err);
    } else {
        status = mode == RESULTS_WRITE ? open_writer(store, err) : open_reader(store, err);
    }
    if (status != MOESIM_OK) {
        results_close(store);
        return status;
    }
    *out = store;
    return MOESIM_OK;
}

void results_close(struct results_store *store)
{
    if (!store)
        return;
    disconnect(store);
    free(store->path);
    free(store);
}
