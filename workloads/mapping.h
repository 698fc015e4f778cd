/*
 * A regular file, mapped read-only.
 */
#ifndef MOESIM_WORKLOADS_MAPPING_H
#define MOESIM_WORKLOADS_MAPPING_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

struct mapping {
    const uint8_t *bytes;
    size_t size;
};

/* Maps the whole file; `needed` says what it should be ("a .npy file"). MOESIM_EIO with path and reason: unreadable, a
 * directory, a pipe, a device, empty. Nothing is waited for. */
MOESIM_MUST_CHECK enum moesim_status mapping_open(const char *path, const char *needed, struct mapping *mapping,
                                                  struct moesim_error *err);
/* The same of a descriptor, which may be closed afterwards; `path` is for the sentence only. */
MOESIM_MUST_CHECK enum moesim_status mapping_of(int fd, const char *path, const char *needed, struct mapping *mapping,
                                                struct moesim_error *err);
void mapping_close(struct mapping *mapping);

/* Gives the pages back that reading has brought in: they count as this process' memory, and the file still has them. */
void mapping_forget(const struct mapping *mapping);

/* A descriptor of an empty file without a name under $TMPDIR (or /tmp), gone when it is closed. */
MOESIM_MUST_CHECK enum moesim_status spool_create(int *fd, struct moesim_error *err);

/* Opens a regular file for reading without waiting; refusals as for mapping_open. */
MOESIM_MUST_CHECK enum moesim_status regular_file_open(const char *path, const char *needed, int *fd,
                                                       struct moesim_error *err);

#endif
