/*
 * Text files as a stream of bytes: plain, gzip (and dictzip) or xz, by their first bytes.
 */
#ifndef MOESIM_WORKLOADS_UNPACK_H
#define MOESIM_WORKLOADS_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

/* What the dictionary of an .xz file may take: xz -9 needs 65 MiB. Only as much as has been unpacked is touched. */
#define UNPACK_MAX_MEMORY ((uint64_t)80 << 20)

struct unpack;

/* Opens a regular file that is not empty. MOESIM_EIO names the path: unreadable, no regular file (nothing is waited
 * for), empty, or named .gz or .xz without being so. */
MOESIM_MUST_CHECK enum moesim_status unpack_open(const char *path, struct unpack **unpack, struct moesim_error *err);

/* The next bytes, as many as `size` unless the text ends; *got = 0 is the end. MOESIM_EIO for data that are damaged,
 * truncated or need more memory than UNPACK_MAX_MEMORY. Memory does not grow with what a file unpacks to. */
MOESIM_MUST_CHECK enum moesim_status unpack_read(struct unpack *unpack, uint8_t *bytes, size_t size, size_t *got,
                                                 struct moesim_error *err);
void unpack_close(struct unpack *unpack); /* NULL is allowed */

#endif
