/* Whole files. */
#include "cli/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/hash.h>

bool cli_file_same(const char *a, const char *b)
{
    struct stat one, other;
    return stat(a, &one) == 0 && stat(b, &other) == 0 && S_ISREG(one.st_mode) && one.st_dev == other.st_dev &&
           one.st_ino == other.st_ino;
}

bool cli_file_hash(const char *path, uint64_t *hash)
{
    FILE *in = fopen(path, "rbe");
    if (!in)
        return false;
    static unsigned char block[1 << 16];
    *hash = MOESIM_HASH_START;
    for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;)
        *hash = moesim_hash(*hash, block, n);
    bool good = !ferror(in);
    fclose(in);
    return good;
}

enum moesim_status cli_file_read(const char *path, size_t max_bytes, char **text, size_t *size,
                                 struct moesim_error *err)
{
    FILE *in = fopen(path, "rbe");
    if (!in)
        return moesim_fail(err, MOESIM_EIO, "%s: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fileno(in), &info) == 0 && S_ISDIR(info.st_mode)) {
        fclose(in);
        return moesim_fail(err, MOESIM_EIO, "%s: is a directory", path);
    }
    char *bytes = malloc(max_bytes + 2);
    size_t n = bytes ? fread(bytes, 1, max_bytes + 1, in) : 0;
    bool broken = ferror(in);
    fclose(in);
    if (!bytes)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    if (broken || n > max_bytes) {
        free(bytes);
        return broken ? moesim_fail(err, MOESIM_EIO, "%s: cannot be read", path)
                      : moesim_fail(err, MOESIM_EINVAL, "%s: longer than %zu bytes", path, max_bytes);
    }
    bytes[n] = '\0';
    *text = bytes;
    *size = n;
    return MOESIM_OK;
}

bool cli_file_temporary(const char *path, long pid, char *name, size_t size)
{
    return (size_t)snprintf(name, size, "%s.%ld.tmp", path, pid) < size;
}

/* Only a plain name is replaced by renaming; a device or a pipe is written as it is. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

enum moesim_status cli_file_output_open(struct file_output *output, const char *path, struct moesim_error *err)
{
    *output = (struct file_output){.stream = stdout, .path = path};
    if (!path)
        return MOESIM_OK;
    if (!is_special(path) && !cli_file_temporary(path, (long)getpid(), output->temporary, sizeof output->temporary))
        return moesim_fail(err, MOESIM_EIO, "%s: the name is too long", path);
    const char *name = *output->temporary ? output->temporary : path;
    output->stream = fopen(name, "wbe");
    if (!output->stream)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", path, strerror(errno));
    return MOESIM_OK;
}

enum moesim_status cli_file_output_close(struct file_output *output, bool keep, struct moesim_error *err)
{
    if (!output->path)
        return MOESIM_OK; /* stdout is judged when the program ends */
    errno = 0;
    bool written = !ferror(output->stream);
    written = fclose(output->stream) == 0 && written;
    if (written && keep && (!*output->temporary || rename(output->temporary, output->path) == 0))
        return MOESIM_OK;
    int why = errno;
    if (*output->temporary)
        unlink(output->temporary);
    return keep ? moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", output->path,
                              why ? strerror(why) : "write error")
                : MOESIM_OK;
}
