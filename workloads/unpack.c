/*
 * gzip and plain text through zlib, which passes what is not gzip as it is; xz through liblzma.
 */
#include "workloads/unpack.h"

#include <errno.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "workloads/mapping.h"

enum { PIECE = 128 << 10 };

struct unpack {
    const char *path;
    uint64_t n_read; /* bytes of text so far */
    gzFile gzip;     /* NULL = xz */
    int fd;          /* of the xz file, whose decoder is `xz` */
    lzma_stream xz;
    bool file_ended, text_ended;
    uint8_t packed[PIECE];
};

static enum moesim_status damaged(const struct unpack *u, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EIO, "%s: the %s data is damaged or truncated after %llu bytes of text", u->path,
                       u->gzip ? "gzip" : "xz", (unsigned long long)u->n_read);
}

static bool has_suffix(const char *path, const char *suffix)
{
    const size_t length = strlen(path);
    return length > 3 && !strcmp(path + length - 3, suffix);
}

static enum moesim_status open_xz(struct unpack *u, struct moesim_error *err)
{
    u->xz = (lzma_stream)LZMA_STREAM_INIT;
    if (lzma_stream_decoder(&u->xz, UNPACK_MAX_MEMORY, LZMA_CONCATENATED) != LZMA_OK)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", u->path);
    return MOESIM_OK;
}

/* By the first bytes; a plain text needs none of this, so that a name that promises more is a mistake. */
static enum moesim_status open_packed(struct unpack *u, struct moesim_error *err)
{
    static const uint8_t xz_magic[6] = {0xfd, '7', 'z', 'X', 'Z', 0};
    uint8_t magic[6] = {0};
    const ssize_t n = pread(u->fd, magic, sizeof magic, 0);
    if (n < 0)
        return moesim_fail(err, MOESIM_EIO, "%s: reading failed: %s", u->path, strerror(errno));
    if (n == 0)
        return moesim_fail(err, MOESIM_EIO, "%s: the text file is empty", u->path);
    if (n == sizeof magic && !memcmp(magic, xz_magic, sizeof magic))
        return open_xz(u, err);
    if (has_suffix(u->path, ".xz"))
        return moesim_fail(err, MOESIM_EIO, "%s: is named .xz but is not xz data", u->path);
    if (has_suffix(u->path, ".gz") && (magic[0] != 0x1f || magic[1] != 0x8b))
        return moesim_fail(err, MOESIM_EIO, "%s: is named .gz but is not gzip data", u->path);
    u->gzip = gzdopen(u->fd, "rb");
    if (!u->gzip)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", u->path);
    u->fd = -1; /* zlib's now */
    gzbuffer(u->gzip, PIECE);
    return MOESIM_OK;
}

enum moesim_status unpack_open(const char *path, struct unpack **unpack, struct moesim_error *err)
{
    struct unpack *u = calloc(1, sizeof *u);
    *unpack = u;
    if (!u)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", path);
    u->path = path;
    enum moesim_status status = regular_file_open(path, "a text file", &u->fd, err);
    if (!status)
        status = open_packed(u, err);
    if (status) {
        unpack_close(u);
        *unpack = NULL;
    }
    return status;
}

static enum moesim_status read_gzip(struct unpack *u, uint8_t *bytes, size_t size, size_t *got,
                                    struct moesim_error *err)
{
    int reason = Z_OK;
    const int n = gzread(u->gzip, bytes, (unsigned)size);
    *got = n > 0 ? (size_t)n : 0;
    u->n_read += *got;
    gzerror(u->gzip, &reason);
    if (reason == Z_ERRNO)
        return moesim_fail(err, MOESIM_EIO, "%s: reading failed: %s", u->path, strerror(errno));
    return reason < 0 ? damaged(u, err) : MOESIM_OK;
}

static enum moesim_status fill_packed(struct unpack *u, struct moesim_error *err)
{
    const ssize_t n = read(u->fd, u->packed, sizeof u->packed);
    if (n < 0)
        return moesim_fail(err, MOESIM_EIO, "%s: reading failed: %s", u->path, strerror(errno));
    u->file_ended = n == 0;
    u->xz.next_in = u->packed;
    u->xz.avail_in = (size_t)n;
    return MOESIM_OK;
}

static enum moesim_status read_xz(struct unpack *u, uint8_t *bytes, size_t size, size_t *got, struct moesim_error *err)
{
    lzma_ret reason = LZMA_OK;
    u->xz.next_out = bytes;
    u->xz.avail_out = size;
    while (reason == LZMA_OK && u->xz.avail_out && !u->text_ended) {
        if (!u->xz.avail_in && !u->file_ended) {
            const enum moesim_status status = fill_packed(u, err);
            if (status)
                return status;
        }
        reason = lzma_code(&u->xz, u->file_ended ? LZMA_FINISH : LZMA_RUN);
        u->text_ended = reason == LZMA_STREAM_END;
    }
    *got = size - u->xz.avail_out;
    u->n_read += *got;
    if (reason == LZMA_MEM_ERROR)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", u->path);
    if (reason == LZMA_MEMLIMIT_ERROR)
        return moesim_fail(err, MOESIM_EIO, "%s: unpacking it would take %llu MiB; at most %llu are given (xz -9)",
                           u->path, (unsigned long long)(lzma_memusage(&u->xz) >> 20),
                           (unsigned long long)(UNPACK_MAX_MEMORY >> 20));
    return reason == LZMA_OK || reason == LZMA_STREAM_END ? MOESIM_OK : damaged(u, err);
}

enum moesim_status unpack_read(struct unpack *u, uint8_t *bytes, size_t size, size_t *got, struct moesim_error *err)
{
    return u->gzip ? read_gzip(u, bytes, size, got, err) : read_xz(u, bytes, size, got, err);
}

void unpack_close(struct unpack *u)
{
    if (!u)
        return;
    if (u->gzip)
        gzclose(u->gzip);
    if (u->fd >= 0)
        close(u->fd);
    lzma_end(&u->xz);
    free(u);
}
