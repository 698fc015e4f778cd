/*
 * Writing a float32 .npy array: to a new file beside the target, which it then replaces in one step.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workloads/npy_header.h"

size_t npy_header_make(char header[NPY_HEADER_ROOM], enum npy_type type, const uint64_t *shape, uint32_t n_dimensions)
{
    const size_t size = NPY_HEADER_ROOM;
    size_t n = (size_t)snprintf(header, size, "\x93NUMPY%c%c%c%c{'descr': '%s', 'fortran_order': False, 'shape': (", 1,
                                0, 0, 0, npy_type_name(type));
    for (uint32_t i = 0; i < n_dimensions; i++)
        n += (size_t)snprintf(header + n, size - n, "%llu,%s", (unsigned long long)shape[i],
                              i + 1 < n_dimensions ? " " : "");
    n += (size_t)snprintf(header + n, size - n, "), }");
    const size_t whole = (n + 1 + 63) / 64 * 64;
    memset(header + n, ' ', whole - n);
    header[whole - 1] = '\n';
    header[8] = (char)((whole - 10) & 255);
    header[9] = (char)((whole - 10) >> 8);
    return whole;
}

static int write_all(const char *path, const float *data, const uint64_t *shape, uint32_t n_dimensions)
{
    char header[NPY_HEADER_ROOM];
    const size_t n_header = npy_header_make(header, NPY_F4, shape, n_dimensions);
    size_t n = 1;
    for (uint32_t i = 0; i < n_dimensions; i++)
        n *= (size_t)shape[i];
    FILE *file = fopen(path, "wxe");
    if (!file)
        return errno;
    errno = 0;
    int failed = fwrite(header, 1, n_header, file) != n_header || (n && fwrite(data, sizeof *data, n, file) != n);
    failed = fflush(file) || fsync(fileno(file)) || failed;
    const int reason = failed ? (errno ? errno : EIO) : 0;
    return fclose(file) && !reason ? EIO : reason;
}

enum moesim_status npy_write_float(const char *path, const float *data, const uint64_t *shape, uint32_t n_dimensions,
                                   struct moesim_error *err)
{
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: is not a regular file and is left alone", path);
    char *beside;
    if (asprintf(&beside, "%s.%ld.part", path, (long)getpid()) < 0)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a file name");
    int reason = write_all(beside, data, shape, n_dimensions);
    if (!reason && rename(beside, path))
        reason = errno;
    if (reason && reason != EEXIST)
        unlink(beside);
    free(beside);
    if (reason)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", path, strerror(reason));
    return MOESIM_OK;
}
