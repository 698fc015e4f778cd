/*
 * Whose file is this? Answered from the first bytes before SQLite opens it, and again from inside.
 */
#ifndef MOESIM_RESULTS_IDENTITY_H
#define MOESIM_RESULTS_IDENTITY_H

#include <stdbool.h>

#include "results/connection.h"

/* "MoEs" in ASCII, and the version of schema.sql. */
#define RESULTS_APPLICATION_ID 0x4d6f4573
#define RESULTS_SCHEMA_VERSION 3
#define RESULTS_OLDEST_VERSION 1 /* that is still read, and brought up to date when it is opened for writing */
#define RESULTS_VERSION_SQL "PRAGMA user_version = 3"
#define RESULTS_IDENTITY_SQL "PRAGMA application_id = 0x4d6f4573; " RESULTS_VERSION_SQL

/* Refuses what cannot be a database of ours, without changing it: a directory, a device, a file of another kind,
 * program or newer version, a truncated one, one without permission. A file that is absent is fine for a writer only.
 */
enum moesim_status results_check_file(const char *path, bool writer, struct moesim_error *err);

/* The same from an open connection; `empty` is true for a database without any content. `version` is its user_version.
 */
enum moesim_status results_check_identity(struct results_store *store, bool *empty, uint32_t *version,
                                          struct moesim_error *err);

/* Whether the file and its directory, which gets the log, can be written; whether there is a log. */
bool results_path_writable(const char *path);
bool results_has_log(const char *path);

#endif
