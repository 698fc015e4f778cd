/*
 * Whole files: read, hash, and write beside the name before renaming.
 */
#ifndef MOESIM_CLI_FILE_H
#define MOESIM_CLI_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <moesim/status.h>

/* Whether both names lead to one and the same regular file. */
bool cli_file_same(const char *a, const char *b);

/* A hash of the file's bytes, as fast as they are read; false with errno. */
bool cli_file_hash(const char *path, uint64_t *hash);

/* The same of a regular file, or of names and files in a folder. Past a GiB in all, of files only size and time of the
 * last change count; past 65536 entries or eight levels, nothing. False where there is no such thing. */
bool cli_path_hash(const char *path, uint64_t *hash);

/* The file's bytes and a final 0, malloc'd, at most max_bytes. */
MOESIM_MUST_CHECK enum moesim_status cli_file_read(const char *path, size_t max_bytes, char **text, size_t *size,
                                                   struct moesim_error *err);

/* A file being written under a temporary name in the same folder. */
struct file_output {
    FILE *stream;
    const char *path; /* NULL: stdout */
    char temporary[4096];
};

/* The temporary name that the process `pid` uses for `path`; false when it is too long. */
bool cli_file_temporary(const char *path, long pid, char *name, size_t size);

MOESIM_MUST_CHECK enum moesim_status cli_file_output_open(struct file_output *output, const char *path,
                                                          struct moesim_error *err);
/* Renames the file into place when `keep` and every write succeeded; removes it otherwise. */
MOESIM_MUST_CHECK enum moesim_status cli_file_output_close(struct file_output *output, bool keep,
                                                           struct moesim_error *err);

#endif
