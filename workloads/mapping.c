/*
 * Regular files: opened without blocking, so that a FIFO is refused rather than waited for, and mapped.
 */
#include "workloads/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum moesim_status mapping_of(int fd, const char *path, const char *needed, struct mapping *mapping,
                              struct moesim_error *err)
{
    struct stat st;
    *mapping = (struct mapping){0};
    if (fstat(fd, &st))
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be read: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: is a directory; %s is needed", path, needed);
    if (!S_ISREG(st.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: is not a regular file; %s is needed", path, needed);
    if (st.st_size == 0)
        return moesim_fail(err, MOESIM_EIO, "%s: is empty (0 bytes); %s is needed", path, needed);
    void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be mapped: %s", path, strerror(errno));
    *mapping = (struct mapping){map, (size_t)st.st_size};
    return MOESIM_OK;
}

enum moesim_status regular_file_open(const char *path, const char *needed, int *fd, struct moesim_error *err)
{
    struct stat st;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be read: %s", path, strerror(errno));
    if (fstat(*fd, &st) == 0 && S_ISREG(st.st_mode))
        return MOESIM_OK;
    close(*fd);
    *fd = -1;
    return moesim_fail(err, MOESIM_EIO, "%s: is %s; %s is needed", path,
                       S_ISDIR(st.st_mode) ? "a directory" : "not a regular file", needed);
}

enum moesim_status mapping_open(const char *path, const char *needed, struct mapping *mapping, struct moesim_error *err)
{
    *mapping = (struct mapping){0};
    int fd;
    enum moesim_status status = regular_file_open(path, needed, &fd, err);
    if (status)
        return status;
    status = mapping_of(fd, path, needed, mapping, err);
    close(fd);
    return status;
}

void mapping_close(struct mapping *mapping)
{
    if (mapping->bytes)
        munmap((void *)(uintptr_t)mapping->bytes, mapping->size);
    *mapping = (struct mapping){0};
}

void mapping_forget(const struct mapping *mapping)
{
    if (mapping->bytes)
        madvise((void *)(uintptr_t)mapping->bytes, mapping->size, MADV_DONTNEED);
}

enum moesim_status spool_create(int *fd, struct moesim_error *err)
{
    const char *folder = getenv("TMPDIR");
    if (!folder || !*folder)
        folder = "/tmp";
    *fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (*fd >= 0)
        return MOESIM_OK;
    char name[4096]; /* a file system without nameless files */
    if ((size_t)snprintf(name, sizeof name, "%s/moesim-XXXXXX", folder) < sizeof name &&
        (*fd = mkostemp(name, O_CLOEXEC)) >= 0) {
        unlink(name);
        return MOESIM_OK;
    }
    return moesim_fail(err, MOESIM_EIO, "%s: no temporary file can be made there: %s; set TMPDIR", folder,
                       strerror(errno));
}
