/*
 * Folders with one file a rank.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/trace/source.h"

enum { MOST_RANKS = 65536 };

/* The rank in "rank12.safetensors", or -1. */
static long rank_of(const char *name, const char *head, const char *tail)
{
    const size_t n = strlen(head);
    char *end;
    if (strncmp(name, head, n) || name[n] < '0' || name[n] > '9')
        return -1;
    const long rank = strtol(name + n, &end, 10);
    return strcmp(end, tail) == 0 && rank < MOST_RANKS ? rank : -1;
}

void trace_free_list(char **paths, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
}

/* Puts the path into its rank's place. */
static bool put(char ***paths, size_t *n, long rank, char *path)
{
    if ((size_t)rank >= *n) {
        char **more = path ? realloc(*paths, ((size_t)rank + 1) * sizeof *more) : NULL;
        if (!more) {
            free(path);
            return false;
        }
        memset(more + *n, 0, ((size_t)rank + 1 - *n) * sizeof *more);
        *paths = more;
        *n = (size_t)rank + 1;
    }
    free((*paths)[rank]);
    (*paths)[rank] = path;
    return path != NULL;
}

static enum moesim_status check_ranks(const char *folder, const char *head, const char *tail, char *const *paths,
                                      size_t n, struct moesim_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!paths[i])
            return moesim_fail(err, MOESIM_EIO, "%.300s: %s%zu%s is missing, of %zu ranks", folder, head, i, tail, n);
    return n ? MOESIM_OK : moesim_fail(err, MOESIM_EIO, "%.300s: there is no %s0%s in this folder", folder, head, tail);
}

enum moesim_status trace_list_ranks(const char *folder, const char *head, const char *tail, char ***paths, size_t *n,
                                    struct moesim_error *err)
{
    *paths = NULL;
    *n = 0;
    DIR *stream = opendir(folder);
    if (!stream)
        return moesim_fail(err, MOESIM_EIO, "%.300s: cannot be read: %s", folder, strerror(errno));
    enum moesim_status status = MOESIM_OK;
    for (struct dirent *entry; !status && (entry = readdir(stream));) {
        const long rank = rank_of(entry->d_name, head, tail);
        char *path = NULL;
        if (rank < 0)
            continue;
        if (asprintf(&path, "%s/%s", folder, entry->d_name) < 0 || !put(paths, n, rank, path))
            status = moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", folder);
    }
    closedir(stream);
    return status ? status : check_ranks(folder, head, tail, *paths, *n, err);
}
