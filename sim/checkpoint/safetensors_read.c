#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moesim/hash.h>

#include "sim/checkpoint/safetensors.h"

#define MOST_HEADER ((uint64_t)1 << 26)
#define CHECKSUM_KEY "\"checksum\":\""
#define PIECE 65536

struct moesim_safetensors {
    FILE *file;
    char *path;
    json_t *header;
    uint64_t first; /* where the numbers begin */
};

static enum moesim_status damaged(const struct moesim_safetensors *f, const char *why, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EIO, "%s: is damaged or no checkpoint: %s", f->path, why);
}

/* ---- the header ---- */

/* The header's bytes with its length before it, and how many. */
static enum moesim_status read_header(struct moesim_safetensors *f, uint64_t file_size, char **bytes, uint64_t *n,
                                      struct moesim_error *err)
{
    unsigned char length[8];
    if (fread(length, 1, 8, f->file) != 8)
        return damaged(f, "it has no header", err);
    uint64_t told = 0;
    for (int i = 0; i < 8; i++)
        told |= (uint64_t)length[i] << 8 * i;
    if (told > MOST_HEADER || told > file_size - 8)
        return damaged(f, "its header would be longer than it is", err);
    *n = told + 8;
    *bytes = malloc(*n + 1);
    if (!*bytes)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the header of %s", f->path);
    memcpy(*bytes, length, 8);
    (*bytes)[*n] = '\0';
    return fread(*bytes + 8, 1, told, f->file) == told ? MOESIM_OK : damaged(f, "its header cannot be read", err);
}

/* Begin and end of a tensor's numbers, and its shape; false when the entry is not one of ours. */
static bool parse_entry(const json_t *entry, uint64_t *begin, uint64_t *end, uint64_t shape[MOESIM_MOST_DIMENSIONS],
                        uint32_t *n_dimensions)
{
    const json_t *type = json_object_get(entry, "dtype"), *dimensions = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    uint64_t n = sizeof(float);
    if (!json_is_string(type) || strcmp(json_string_value(type), "F32") || !json_is_array(dimensions) ||
        json_array_size(dimensions) == 0 || json_array_size(dimensions) > MOESIM_MOST_DIMENSIONS ||
        json_array_size(offsets) != 2)
        return false;
    *n_dimensions = (uint32_t)json_array_size(dimensions);
    for (uint32_t i = 0; i < *n_dimensions; i++) {
        const json_int_t size = json_integer_value(json_array_get(dimensions, i));
        if (size <= 0 || size > UINT32_MAX || __builtin_mul_overflow(n, (uint64_t)size, &n))
            return false;
        shape[i] = (uint64_t)size;
    }
    const json_int_t first = json_integer_value(json_array_get(offsets, 0)),
                     last = json_integer_value(json_array_get(offsets, 1));
    *begin = (uint64_t)first;
    *end = (uint64_t)last;
    return first >= 0 && last >= first && *end - *begin == n;
}

/* All entries in turn, without gaps, up to the file's end. */
static enum moesim_status check_entries(struct moesim_safetensors *f, uint64_t n_bytes, struct moesim_error *err)
{
    const char *name;
    json_t *entry;
    uint64_t place = 0;
    json_object_foreach(f->header, name, entry)
    {
        uint64_t begin, end, shape[MOESIM_MOST_DIMENSIONS];
        uint32_t n_dimensions;
        if (!strcmp(name, "__metadata__"))
            continue;
        if (!parse_entry(entry, &begin, &end, shape, &n_dimensions) || begin != place)
            return damaged(f, "its header does not describe float32 tensors one after the other", err);
        place = end;
    }
    if (place != n_bytes)
        return moesim_fail(err, MOESIM_EIO, "%s: %s: its tensors take %llu bytes, of which it has %llu", f->path,
                           place > n_bytes ? "is cut short" : "has something behind its end", (unsigned long long)place,
                           (unsigned long long)n_bytes);
    return MOESIM_OK;
}

/* ---- the checksum ---- */

static enum moesim_status check_sum(struct moesim_safetensors *f, char *header, uint64_t n_header,
                                    struct moesim_error *err)
{
    char *place = strstr(header + 8, CHECKSUM_KEY), told[17] = "", found[17];
    if (!place || strlen(place) < strlen(CHECKSUM_KEY) + 16)
        return damaged(f, "it has no checksum", err);
    place += strlen(CHECKSUM_KEY);
    memcpy(told, place, 16);
    memset(place, '0', 16);
    uint64_t hash = moesim_hash(MOESIM_HASH_START, header, n_header);
    static const size_t piece = PIECE;
    char *bytes = malloc(piece);
    if (!bytes)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", f->path);
    for (size_t n; (n = fread(bytes, 1, piece, f->file)) > 0;)
        hash = moesim_hash(hash, bytes, n);
    free(bytes);
    if (ferror(f->file))
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be read: %s", f->path, strerror(errno));
    snprintf(found, sizeof found, "%016llx", (unsigned long long)hash);
    if (!strcmp(told, found))
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EIO, "%s: is damaged: its checksum is %.16s, its content gives %s", f->path, told,
                       found);
}

/* ---- opening ---- */

static enum moesim_status open_file(struct moesim_safetensors *f, struct moesim_error *err)
{
    struct stat st;
    f->file = fopen(f->path, "rbe");
    if (!f->file || fstat(fileno(f->file), &st))
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be opened: %s", f->path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return moesim_fail(err, MOESIM_EIO, "%s: is not a regular file", f->path);
    if (st.st_size < 8)
        return damaged(f, "it has no header", err);
    char *header = NULL;
    uint64_t n_header = 0;
    enum moesim_status status = read_header(f, (uint64_t)st.st_size, &header, &n_header, err);
    if (status == MOESIM_OK) {
        f->first = n_header;
        f->header = json_loadb(header + 8, n_header - 8, JSON_REJECT_DUPLICATES, NULL);
        status = json_is_object(f->header) ? check_entries(f, (uint64_t)st.st_size - n_header, err)
                                           : damaged(f, "its header is no JSON object", err);
    }
    if (status == MOESIM_OK)
        status = check_sum(f, header, n_header, err);
    free(header);
    return status;
}

enum moesim_status moesim_safetensors_open(const char *path, struct moesim_safetensors **file, struct moesim_error *err)
{
    struct moesim_safetensors *f = calloc(1, sizeof *f);
    *file = NULL;
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to open %s", path);
    }
    const enum moesim_status status = open_file(f, err);
    if (status == MOESIM_OK)
        *file = f;
    else
        moesim_safetensors_close(f);
    return status;
}

void moesim_safetensors_close(struct moesim_safetensors *f)
{
    if (!f)
        return;
    if (f->file)
        fclose(f->file);
    json_decref(f->header);
    free(f->path);
    free(f);
}

const char *moesim_safetensors_metadata(const struct moesim_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}

uint32_t moesim_safetensors_count(const struct moesim_safetensors *file)
{
    const size_t n = json_object_size(file->header);
    return (uint32_t)(json_object_get(file->header, "__metadata__") ? n - 1 : n);
}

/* ---- tensors ---- */

enum moesim_status moesim_safetensors_check(const struct moesim_safetensors *file,
                                            const struct moesim_stored_tensor *tensor, struct moesim_error *err)
{
    uint64_t begin, end, shape[MOESIM_MOST_DIMENSIONS];
    uint32_t n = 0;
    char expected[64], found[64];
    const json_t *entry = json_object_get(file->header, tensor->name);
    moesim_shape_text(tensor->shape, tensor->n_dimensions, expected);
    if (!entry || !parse_entry(entry, &begin, &end, shape, &n))
        return moesim_fail(err, MOESIM_EINVAL, "%s: has no tensor %s, which should be %s", file->path, tensor->name,
                           expected);
    if (n == tensor->n_dimensions && !memcmp(shape, tensor->shape, n * sizeof *shape))
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL, "%s: is of another shape: %s should be %s and is %s", file->path,
                       tensor->name, expected, moesim_shape_text(shape, n, found));
}

enum moesim_status moesim_safetensors_read(const struct moesim_safetensors *file,
                                           const struct moesim_stored_tensor *tensor, struct moesim_error *err)
{
    const uint64_t width = moesim_stored_width(tensor);
    uint64_t begin, end, shape[MOESIM_MOST_DIMENSIONS];
    uint32_t n = 0;
    float *row = malloc(width * sizeof *row);
    if (!row)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to read %s", file->path);
    bool ok = parse_entry(json_object_get(file->header, tensor->name), &begin, &end, shape, &n) &&
              !fseeko(file->file, (off_t)(file->first + begin), SEEK_SET);
    for (uint64_t i = 0; ok && i < moesim_stored_rows(tensor); i++) {
        ok = fread(row, sizeof *row, width, file->file) == width;
        if (ok)
            tensor->copy_row(tensor->owner, tensor->values, i, false, row);
    }
    free(row);
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_EIO, "%s: %s cannot be read", file->path, tensor->name);
}
