/*
 * Whose file is this? The header of a SQLite file is described at https://www.sqlite.org/fileformat.html section 1.3.
 */
#include "results/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_SIZE 100

static enum moesim_status refuse(const char *path, uint32_t application, uint32_t version, struct moesim_error *err)
{
    if (application != RESULTS_APPLICATION_ID)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: this is a database of another program (application_id 0x%08x, moesim's is 0x%08x); "
                           "name another file",
                           path, application, RESULTS_APPLICATION_ID);
    if (version > RESULTS_SCHEMA_VERSION)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: the database has version %u and was made by a newer moesim, this one reads version %d; "
                           "use the newer program or name another file",
                           path, version, RESULTS_SCHEMA_VERSION);
    if (version < RESULTS_OLDEST_VERSION)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: the file is damaged (version %u, %d to %d expected); restore a copy or name a "
                           "new file",
                           path, version, RESULTS_OLDEST_VERSION, RESULTS_SCHEMA_VERSION);
    return MOESIM_OK;
}

static bool has_sidecar(const char *path, const char *suffix)
{
    char name[PATH_MAX];
    const int n = snprintf(name, sizeof name, "%s%s", path, suffix);
    return n > 0 && (size_t)n < sizeof name && access(name, F_OK) == 0;
}

bool results_has_log(const char *path)
{
    return has_sidecar(path, "-wal");
}

bool results_path_writable(const char *path)
{
    char copy[PATH_MAX];
    const int n = snprintf(copy, sizeof copy, "%s", path);
    return n > 0 && (size_t)n < sizeof copy && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 &&
           faccessat(AT_FDCWD, dirname(copy), W_OK, AT_EACCESS) == 0;
}

/* Reads the header through SQLite's own file layer: closing a descriptor of ours would drop the locks of every other
 * connection of this process to that file. */
static bool read_header(const char *path, unsigned char header[HEADER_SIZE], sqlite3_int64 *size)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    const char *name = sqlite3_create_filename(path, "", "", 0, NULL);
    sqlite3_file *file = vfs ? calloc(1, (size_t)vfs->szOsFile) : NULL;
    bool read = false;
    if (name && file && vfs->xOpen(vfs, name, file, SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB, NULL) == SQLITE_OK) {
        const sqlite3_io_methods *io = file->pMethods;
        read = io->xFileSize(file, size) == SQLITE_OK;
        const int n = read && *size < HEADER_SIZE ? (int)*size : HEADER_SIZE;
        memset(header, 0, HEADER_SIZE);
        read = read && (n == 0 || io->xRead(file, header, n, 0) == SQLITE_OK);
        io->xClose(file);
    }
    free(file);
    if (name)
        sqlite3_free_filename(name);
    return read;
}

static uint32_t big_endian(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static enum moesim_status check_header(const char *path, const unsigned char header[HEADER_SIZE], sqlite3_int64 size,
                                       struct moesim_error *err)
{
    if (memcmp(header, "SQLite format 3", 16) != 0)
        return moesim_fail(err, MOESIM_EIO, "%s: this is not a moesim database; name another file", path);
    const enum moesim_status status = refuse(path, big_endian(header + 68), big_endian(header + 60), err);
    if (status != MOESIM_OK)
        return status;
    const uint32_t page = (uint32_t)header[16] << 8 | header[17], n_pages = big_endian(header + 28);
    const bool counted = big_endian(header + 24) == big_endian(header + 92);
    const sqlite3_int64 whole = (sqlite3_int64)(page == 1 ? 65536 : page) * n_pages;
    if (counted && size < whole)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: the file is truncated (%lld of %lld bytes); restore a copy or name a new "
                           "file",
                           path, (long long)size, (long long)whole);
    return MOESIM_OK;
}

static enum moesim_status check_access(const char *path, bool writer, struct moesim_error *err)
{
    if (faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
        return moesim_fail(err, MOESIM_EIO, "%s: the database cannot be read: %s", path, strerror(errno));
    if (writer && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) != 0)
        return moesim_fail(err, MOESIM_EIO, "%s: the database cannot be written: %s; name a file that can be written",
                           path, strerror(errno));
    if (writer && !results_path_writable(path))
        return moesim_fail(
            err, MOESIM_EIO,
            "%s: the database's directory cannot be written: %s; its log is kept there, name a file in a "
            "directory that can be written",
            path, strerror(errno));
    return MOESIM_OK;
}

enum moesim_status results_check_file(const char *path, bool writer, struct moesim_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        if (errno == ENOENT && writer)
            return MOESIM_OK;
        return moesim_fail(err, MOESIM_EIO, "%s: the database cannot be opened: %s; name a file that 'moesim run' made",
                           path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: this is %s, a database file is expected", path,
                           S_ISDIR(info.st_mode) ? "a directory" : "not a regular file");
    const enum moesim_status status = check_access(path, writer, err);
    /* With a log beside it the first page may be out of date: then SQLite must answer. */
    if (status != MOESIM_OK || has_sidecar(path, "-journal"))
        return status;
    const bool log = results_has_log(path);
    unsigned char header[HEADER_SIZE];
    sqlite3_int64 size = 0;
    if (!read_header(path, header, &size))
        return moesim_fail(err, MOESIM_EIO, "%s: the database cannot be read", path);
    if (size == 0)
        return MOESIM_OK;
    return check_header(path, header, log ? INT64_MAX : size, err);
}

static bool first_integer(struct results_store *store, const char *sql, int64_t *value)
{
    sqlite3_stmt *statement = NULL;
    const bool row =
        sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW;
    if (row)
        *value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return row;
}

enum moesim_status results_check_identity(struct results_store *store, bool *empty, uint32_t *file_version,
                                          struct moesim_error *err)
{
    int64_t application, version, n_objects;
    if (!first_integer(store, "PRAGMA application_id", &application) ||
        !first_integer(store, "PRAGMA user_version", &version) ||
        !first_integer(store, "SELECT count(*) FROM sqlite_master", &n_objects))
        return results_fail(store, err, "read");
    *empty = application == 0 && version == 0 && n_objects == 0;
    *file_version = (uint32_t)version;
    return *empty ? MOESIM_OK : refuse(store->path, (uint32_t)application, (uint32_t)version, err);
}
