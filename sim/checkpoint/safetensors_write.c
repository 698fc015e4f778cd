#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/hash.h>

#include "sim/checkpoint/safetensors.h"

#define ALIGN 64
#define NO_CHECKSUM "0000000000000000"
#define CHECKSUM_KEY "\"checksum\":\""

/* The numbers are written as they are in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a big-endian machine would have to swap bytes");

const char *moesim_shape_text(const uint64_t *shape, uint32_t n_dimensions, char text[64])
{
    size_t n = 0;
    for (uint32_t i = 0; i < n_dimensions && n < 60; i++)
        n += (size_t)snprintf(text + n, 64 - n, "%s%llu", i ? ", " : "[", (unsigned long long)shape[i]);
    snprintf(text + (n < 62 ? n : 62), 64 - (n < 62 ? n : 62), "]");
    return text;
}

/* The header's JSON with its metadata, NULL without memory. */
static json_t *make_header(const struct moesim_metadata *metadata, uint32_t n_metadata,
                           const struct moesim_stored_tensor *tensor, uint32_t n_tensors)
{
    json_t *header = json_object(), *about = json_object();
    uint64_t place = 0;
    int failed = json_object_set_new(about, "checksum", json_string(NO_CHECKSUM));
    for (uint32_t i = 0; i < n_metadata; i++)
        failed |= json_object_set_new(about, metadata[i].key, json_string(metadata[i].value));
    failed |= json_object_set_new(header, "__metadata__", about);
    for (uint32_t i = 0; i < n_tensors; i++) {
        const struct moesim_stored_tensor *t = &tensor[i];
        const uint64_t size = moesim_stored_rows(t) * moesim_stored_width(t) * sizeof(float);
        json_t *shape = json_array();
        for (uint32_t j = 0; j < t->n_dimensions; j++)
            failed |= json_array_append_new(shape, json_integer((json_int_t)t->shape[j]));
        failed |= json_object_set_new(header, t->name,
                                      json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape", shape, "data_offsets",
                                                (json_int_t)place, (json_int_t)(place + size)));
        place += size;
    }
    if (!failed)
        return header;
    json_decref(header);
    return NULL;
}

/* The header with its length before it, filled up with blanks; its size is `n`. */
static char *header_bytes(const json_t *header, size_t *n)
{
    char *text = header ? json_dumps(header, JSON_COMPACT) : NULL, *bytes = NULL;
    if (text) {
        const size_t length = strlen(text);
        *n = (8 + length + ALIGN - 1) / ALIGN * ALIGN;
        bytes = malloc(*n + 1);
        const uint64_t told = *n - 8;
        for (int i = 0; bytes && i < 8; i++)
            bytes[i] = (char)(told >> 8 * i);
        if (bytes) {
            memset(bytes + 8, ' ', *n - 8);
            memcpy(bytes + 8, text, length);
            bytes[*n] = '\0';
        }
    }
    free(text);
    return bytes;
}

static int write_rows(FILE *file, const struct moesim_stored_tensor *t, float *row, uint64_t *hash)
{
    const uint64_t width = moesim_stored_width(t);
    for (uint64_t i = 0; i < moesim_stored_rows(t); i++) {
        t->copy_row(t->owner, t->values, i, true, row);
        *hash = moesim_hash(*hash, row, width * sizeof *row);
        if (fwrite(row, sizeof *row, width, file) != width)
            return -1;
    }
    return 0;
}

/* Writes everything, then the checksum into its place; 0 or an errno. */
static int write_all(FILE *file, char *header, size_t n_header, const struct moesim_stored_tensor *tensor,
                     uint32_t n_tensors, float *row)
{
    char *const place = strstr(header + 8, CHECKSUM_KEY) + strlen(CHECKSUM_KEY);
    uint64_t hash = moesim_hash(MOESIM_HASH_START, header, n_header);
    errno = 0;
    int failed = fwrite(header, 1, n_header, file) != n_header;
    for (uint32_t i = 0; !failed && i < n_tensors; i++)
        failed = write_rows(file, &tensor[i], row, &hash);
    char digits[17];
    snprintf(digits, sizeof digits, "%016llx", (unsigned long long)hash);
    failed = failed || fseek(file, place - header, SEEK_SET) || fwrite(digits, 1, 16, file) != 16;
    failed = fflush(file) || fsync(fileno(file)) || failed;
    return failed ? (errno ? errno : EIO) : 0;
}

/* So that the new name outlives a crash. */
static void sync_folder(const char *path)
{
    char *copy = strdup(path);
    const int folder = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (folder >= 0) {
        (void)fsync(folder);
        close(folder);
    }
    free(copy);
}

/* 0 or an errno. */
static int replace(const char *path, char *header, size_t n_header, const struct moesim_stored_tensor *tensor,
                   uint32_t n_tensors, float *row)
{
    char *beside;
    if (asprintf(&beside, "%s.%ld.part", path, (long)getpid()) < 0)
        return ENOMEM;
    FILE *file = fopen(beside, "wxe");
    int reason = file ? write_all(file, header, n_header, tensor, n_tensors, row) : errno;
    if (file && fclose(file) && !reason)
        reason = EIO;
    if (!reason && rename(beside, path))
        reason = errno;
    if (!reason)
        sync_folder(path);
    else if (file)
        unlink(beside);
    free(beside);
    return reason;
}

enum moesim_status moesim_safetensors_write(const char *path, const struct moesim_metadata *metadata,
                                            uint32_t n_metadata, const struct moesim_stored_tensor *tensor,
                                            uint32_t n_tensors, struct moesim_error *err)
{
    struct stat st;
    if (!stat(path, &st) && !S_ISREG(st.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: is not a regular file and is left alone", path);
    uint64_t widest = 1;
    for (uint32_t i = 0; i < n_tensors; i++)
        widest = moesim_stored_width(&tensor[i]) > widest ? moesim_stored_width(&tensor[i]) : widest;
    size_t n_header = 0;
    json_t *json = make_header(metadata, n_metadata, tensor, n_tensors);
    char *header = header_bytes(json, &n_header);
    float *row = malloc(widest * sizeof *row);
    const int reason = header && row ? replace(path, header, n_header, tensor, n_tensors, row) : ENOMEM;
    json_decref(json);
    free(header);
    free(row);
    return reason ? moesim_fail(err, MOESIM_EIO, "%s: cannot be written: %s", path, strerror(reason)) : MOESIM_OK;
}
