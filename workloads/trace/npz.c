/*
 * .npz: a ZIP of .npy members. The members that a trace needs are inflated, one after the other, into a file without a
 * name, and mapped there. What a member claims is checked before anything is read: its size against its packed size
 * (a bomb), and the array's shape against its size.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "workloads/npy_header.h"
#include "workloads/trace/source.h"

enum { PIECE = 1 << 18, MOST_MEMBERS = 64 };
#define MOST_RATIO 200u
#define BOMB_BYTES ((uint64_t)1 << 20) /* below this nobody minds */

struct archive {
    const char *path;
    zip_t *zip;
    struct trace_member member[MOST_MEMBERS];
    struct mapping *mapping; /* [MOST_MEMBERS] */
    size_t n;
    uint8_t *piece; /* [PIECE] */
};

static enum moesim_status open_archive(const char *path, zip_t **zip, struct moesim_error *err)
{
    int fd, code = 0;
    const enum moesim_status status = regular_file_open(path, "a .npz file", &fd, err);
    if (status)
        return status;
    *zip = zip_fdopen(fd, ZIP_CHECKCONS, &code);
    if (*zip)
        return MOESIM_OK;
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    moesim_fail(err, MOESIM_EIO, "%.300s: not a whole .npz file: %s", path, zip_error_strerror(&error));
    zip_error_fini(&error);
    close(fd);
    return MOESIM_EIO;
}

/* The member's name without ".npy"; false for what is no array. */
static bool array_name(const char *name, size_t *n)
{
    const size_t length = name ? strlen(name) : 0;
    *n = length > 4 ? length - 4 : 0;
    return length > 4 && memcmp(name + *n, ".npy", 4) == 0;
}

static enum moesim_status check_claim(const struct archive *a, const zip_stat_t *info, struct moesim_error *err)
{
    if (!(info->valid & ZIP_STAT_SIZE) || !(info->valid & ZIP_STAT_COMP_SIZE) || info->size == 0)
        return moesim_fail(err, MOESIM_EIO, "%.300s: member %.64s is empty or of unknown size", a->path, info->name);
    if (info->size > BOMB_BYTES && info->size / MOST_RATIO > info->comp_size)
        return moesim_fail(err, MOESIM_EIO,
                           "%.300s: member %.64s would grow from %llu to %llu bytes, more than 200 times: unpack it "
                           "yourself if you trust it",
                           a->path, info->name, (unsigned long long)info->comp_size, (unsigned long long)info->size);
    return MOESIM_OK;
}

static enum moesim_status write_piece(const struct archive *a, int fd, const uint8_t *bytes, size_t n,
                                      struct moesim_error *err)
{
    while (n) {
        const ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return moesim_fail(err, MOESIM_EIO, "%.300s: no room to unpack it in TMPDIR: %s", a->path, strerror(errno));
        bytes += done;
        n -= (size_t)done;
    }
    return MOESIM_OK;
}

/* Inflates a member into `fd`: the claimed size, the right CRC. The array's header is looked at on the way. */
static enum moesim_status inflate_member(struct archive *a, const zip_stat_t *info, int fd, struct moesim_error *err)
{
    zip_file_t *file = zip_fopen_index(a->zip, info->index, 0);
    if (!file)
        return moesim_fail(err, MOESIM_EIO, "%.300s: member %.64s cannot be unpacked: %s", a->path, info->name,
                           zip_strerror(a->zip));
    uint64_t total = 0;
    zip_int64_t n = 0;
    enum moesim_status status = MOESIM_OK;
    while (!status && (n = zip_fread(file, a->piece, PIECE)) > 0) {
        total += (uint64_t)n;
        if (total > info->size)
            break;
        status = write_piece(a, fd, a->piece, (size_t)n, err);
    }
    if (!status && (n < 0 || total != info->size))
        status = moesim_fail(err, MOESIM_EIO, "%.300s: member %.64s is damaged after %llu of %llu bytes: %s", a->path,
                             info->name, (unsigned long long)total, (unsigned long long)info->size,
                             n < 0 ? zip_file_strerror(file) : "its size is not what the archive claims");
    zip_fclose(file);
    return status;
}

/* Unpacks a member and maps it as an array. */
static enum moesim_status add_member(struct archive *a, const zip_stat_t *info, size_t n_name, struct moesim_error *err)
{
    struct trace_member *m = &a->member[a->n];
    struct mapping *mapping = &a->mapping[a->n];
    int fd;
    size_t data = 0;
    enum moesim_status status = check_claim(a, info, err);
    if (!status)
        status = spool_create(&fd, err);
    if (status)
        return status;
    status = inflate_member(a, info, fd, err);
    if (!status)
        status = mapping_of(fd, a->path, "a .npz file", mapping, err);
    close(fd);
    if (status)
        return status;
    a->n++;
    *m = (struct trace_member){.name = info->name, .n_name = n_name};
    status = npy_header_parse(a->path, mapping->bytes, mapping->size, &m->array, &data, err);
    m->array.data = mapping->bytes + data;
    if (status)
        moesim_error_prefix(err, "member %.64s", info->name);
    return status;
}

/* Members whose names say what they are; or the only one. */
static enum moesim_status add_members(struct archive *a, struct moesim_error *err)
{
    const zip_int64_t n_entries = zip_get_num_entries(a->zip, 0);
    uint64_t n_arrays = 0;
    size_t n_name;
    enum moesim_status status = MOESIM_OK;
    for (zip_int64_t i = 0; i < n_entries; i++) {
        const char *name = zip_get_name(a->zip, (zip_uint64_t)i, 0);
        n_arrays += array_name(name, &n_name);
        if (name && strlen(name) >= 8 && strcmp(name + strlen(name) - 8, "data.pkl") == 0)
            return moesim_fail(err, MOESIM_EIO,
                               "%.300s is a torch file, which is not read: in Python, d = torch.load(FILE, "
                               "map_location='cpu'), then numpy.savez(OUT, **{k: v.numpy() for k, v in d.items() if "
                               "torch.is_tensor(v)})",
                               a->path);
    }
    for (zip_int64_t i = 0; !status && i < n_entries && a->n < MOST_MEMBERS; i++) {
        zip_stat_t info;
        if (zip_stat_index(a->zip, (zip_uint64_t)i, 0, &info) != 0 || !array_name(info.name, &n_name) ||
            (n_arrays > 1 && !trace_member_wanted(info.name, n_name)))
            continue;
        status = add_member(a, &info, n_name, err);
    }
    if (!status && n_arrays == 0)
        return moesim_fail(err, MOESIM_EIO, "%.300s: no member is an array (.npy), as numpy.savez writes them",
                           a->path);
    return status;
}

enum moesim_status trace_open_npz(const char *path, const struct trace_options *options, struct trace_source *source,
                                  struct moesim_error *err)
{
    struct archive a = {.path = path};
    enum moesim_status status = open_archive(path, &a.zip, err);
    if (status)
        return status;
    a.mapping = calloc(MOST_MEMBERS, sizeof *a.mapping);
    a.piece = malloc(PIECE);
    status = a.mapping && a.piece ? add_members(&a, err)
                                  : moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", path);
    if (status) {
        for (size_t i = 0; i < a.n; i++)
            mapping_close(&a.mapping[i]);
        free(a.mapping);
    } else {
        status = trace_arrays_open(path, options, a.member, a.n, a.mapping, a.n, source, err);
    }
    zip_discard(a.zip);
    free(a.piece);
    return status;
}
