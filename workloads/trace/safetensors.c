/*
 * safetensors (github.com/huggingface/safetensors, format description): u64 length, header {"name": {"dtype": ..,
 * "shape": [..], "data_offsets": [begin, end]}, .., "__metadata__": {..}}, data.
 */
#include "workloads/trace/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "workloads/json_scan.h"
#include "workloads/trace/trtllm.h"

#define MOST_HEADER ((uint64_t)64 << 20)

static const struct {
    const char *name;
    uint32_t size;
    int type; /* enum npy_type, -1 = not read */
} types[] = {
    {"U8", 1, NPY_U1},  {"I8", 1, NPY_I1},   {"U16", 2, NPY_U2},    {"I16", 2, NPY_I2}, {"U32", 4, NPY_U4},
    {"I32", 4, NPY_I4}, {"U64", 8, NPY_U8},  {"I64", 8, NPY_I8},    {"F16", 2, NPY_F2}, {"F32", 4, NPY_F4},
    {"F64", 8, NPY_F8}, {"BOOL", 1, NPY_U1}, {"BF16", 2, NPY_BF16}, {"F8_E4M3", 1, -1}, {"F8_E5M2", 1, -1},
};

struct tensor {
    struct trace_member member;
    uint64_t begin, end;
    bool usable;
};

struct list {
    struct tensor *tensor; /* [n] */
    size_t n, room;
};

/* ---- one entry ---- */

static enum moesim_status read_shape(struct scan *j, struct tensor *t, uint64_t *n, bool *fits)
{
    struct scan_walk walk;
    uint32_t d = 0;
    *n = 1;
    *fits = true;
    enum moesim_status status = scan_open(j, SCAN_ARRAY, &walk);
    while (!status && !(status = scan_element(j, &walk)) && walk.more) {
        int64_t dimension = 0;
        status = scan_whole(j, "a dimension", &dimension);
        if (!status && dimension < 0)
            status = scan_wrong(j, "before this: a dimension is negative");
        if (status)
            return status;
        *fits &= !__builtin_mul_overflow(*n, (uint64_t)dimension, n);
        if (d < NPY_MAX_DIMENSIONS)
            t->member.array.shape[d] = (uint64_t)dimension;
        d++;
    }
    t->member.array.n_dimensions = d;
    t->usable = d >= 1 && d <= NPY_MAX_DIMENSIONS && *n > 0;
    return status;
}

static enum moesim_status read_offsets(struct scan *j, struct tensor *t)
{
    struct scan_walk walk;
    int64_t offset[2] = {0, 0};
    uint32_t n = 0;
    enum moesim_status status = scan_open(j, SCAN_ARRAY, &walk);
    while (!status && !(status = scan_element(j, &walk)) && walk.more) {
        if (n == 2)
            return scan_wrong(j, "data_offsets should be [begin, end]");
        status = scan_whole(j, "an offset", &offset[n++]);
    }
    if (!status && (n != 2 || offset[0] < 0 || offset[1] < offset[0]))
        return scan_wrong(j, "before this: data_offsets should be [begin, end], begin not above end");
    t->begin = (uint64_t)offset[0];
    t->end = (uint64_t)offset[1];
    return status;
}

enum { HAS_TYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4, HAS_ALL = 7 };

static enum moesim_status read_fields(struct scan *j, struct tensor *t, size_t *type, uint64_t *n, bool *fits)
{
    struct scan_walk walk;
    struct scan_text key, word;
    uint32_t found = 0, bit;
    enum moesim_status status = scan_open(j, SCAN_OBJECT, &walk);
    while (!status && !(status = scan_member(j, &walk, &key)) && walk.more) {
        if (scan_is(key, "dtype")) {
            bit = HAS_TYPE;
            status = scan_string(j, &word);
            for (*type = 0; !status && *type < sizeof types / sizeof *types && !scan_is(word, types[*type].name);)
                ++*type;
        } else if (scan_is(key, "shape")) {
            bit = HAS_SHAPE;
            status = read_shape(j, t, n, fits);
        } else if (scan_is(key, "data_offsets")) {
            bit = HAS_OFFSETS;
            status = read_offsets(j, t);
        } else {
            return scan_wrong(j, "before this: only dtype, shape and data_offsets belong to a tensor");
        }
        if (!status && found & bit)
            return scan_wrong(j, "before this: a key comes twice");
        found |= bit;
    }
    return !status && found != HAS_ALL ? scan_wrong(j, "before this: a tensor lacks dtype, shape or data_offsets")
                                       : status;
}

static enum moesim_status read_tensor(struct scan *j, struct tensor *t)
{
    size_t type = 0;
    uint64_t n = 0, bytes;
    bool fits = true;
    const enum moesim_status status = read_fields(j, t, &type, &n, &fits);
    if (status)
        return status;
    if (type == sizeof types / sizeof *types) {
        t->usable = false;
        return MOESIM_OK;
    }
    if (!fits || __builtin_mul_overflow(n, types[type].size, &bytes))
        return scan_wrong(j, "before this: the shape asks for more than 2^64 bytes");
    if (bytes != t->end - t->begin)
        return moesim_fail(j->err, MOESIM_EIO,
                           "%.300s: byte %zu: before this: shape and dtype need %llu bytes, data_offsets give %llu",
                           j->path, (size_t)(j->at - j->start), (unsigned long long)bytes,
                           (unsigned long long)(t->end - t->begin));
    t->usable &= types[type].type >= 0;
    t->member.array.type = t->usable ? (enum npy_type)types[type].type : NPY_U1;
    t->member.array.n = n;
    return MOESIM_OK;
}

static enum moesim_status read_entries(struct scan *j, struct list *list)
{
    struct scan_walk walk;
    struct scan_text name;
    enum moesim_status status = scan_open(j, SCAN_OBJECT, &walk);
    while (!status && !(status = scan_member(j, &walk, &name)) && walk.more) {
        if (scan_is(name, "__metadata__")) {
            status = scan_skip(j);
            continue;
        }
        if (list->n == list->room) {
            const size_t room = list->room + list->room / 2 + 16;
            struct tensor *more = realloc(list->tensor, room * sizeof *more);
            if (!more)
                return moesim_fail(j->err, MOESIM_ENOMEM, "%.300s: memory is exhausted", j->path);
            list->tensor = more;
            list->room = room;
        }
        struct tensor *t = &list->tensor[list->n++];
        *t = (struct tensor){.member = {.name = name.at, .n_name = name.n}};
        status = read_tensor(j, t);
    }
    if (!status && scan_peek(j) != SCAN_END)
        return scan_wrong(j, "only blanks may follow the header's object");
    return status;
}

/* ---- all of them ---- */

static int by_name(const void *a, const void *b)
{
    const struct trace_member *x = &((const struct tensor *)a)->member, *y = &((const struct tensor *)b)->member;
    const int order = memcmp(x->name, y->name, x->n_name < y->n_name ? x->n_name : y->n_name);
    return order ? order : (x->n_name > y->n_name) - (x->n_name < y->n_name);
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static enum moesim_status check_places(const char *path, struct list *list, uint64_t n_bytes, struct moesim_error *err)
{
    uint64_t at = 0;
    qsort(list->tensor, list->n, sizeof *list->tensor, by_place);
    for (size_t i = 0; i < list->n; i++) {
        const struct tensor *t = &list->tensor[i];
        if (t->begin != at)
            return moesim_fail(err, MOESIM_EIO,
                               "%.300s: tensor '%.*s' begins at byte %llu of the data, the one before ends at %llu: %s",
                               path, (int)(t->member.n_name < 64 ? t->member.n_name : 64), t->member.name,
                               (unsigned long long)t->begin, (unsigned long long)at,
                               t->begin < at ? "they overlap" : "there is a hole");
        if (t->end > n_bytes)
            return moesim_fail(err, MOESIM_EIO, "%.300s: tensor '%.*s' ends at byte %llu of the data, which has %llu",
                               path, (int)(t->member.n_name < 64 ? t->member.n_name : 64), t->member.name,
                               (unsigned long long)t->end, (unsigned long long)n_bytes);
        at = t->end;
    }
    if (at != n_bytes)
        return moesim_fail(err, MOESIM_EIO, "%.300s: the tensors end at byte %llu of the data, which has %llu", path,
                           (unsigned long long)at, (unsigned long long)n_bytes);
    return MOESIM_OK;
}

/* The usable ones by name, with their data. */
static enum moesim_status give(const char *path, struct list *list, const uint8_t *data, struct trace_member **members,
                               size_t *n, struct moesim_error *err)
{
    qsort(list->tensor, list->n, sizeof *list->tensor, by_name);
    *n = 0;
    for (size_t i = 0; i < list->n; i++) {
        struct tensor *t = &list->tensor[i];
        if (i > 0 && by_name(t - 1, t) == 0)
            return moesim_fail(err, MOESIM_EIO, "%.300s: there are two tensors '%.*s'", path,
                               (int)(t->member.n_name < 64 ? t->member.n_name : 64), t->member.name);
        t->member.array.data = data + t->begin;
        *n += t->usable;
    }
    *members = malloc((*n + 1) * sizeof **members);
    if (!*members)
        return moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", path);
    *n = 0;
    for (size_t i = 0; i < list->n; i++)
        if (list->tensor[i].usable)
            (*members)[(*n)++] = list->tensor[i].member;
    return MOESIM_OK;
}

static enum moesim_status find_tensors(const char *path, const struct mapping *file, struct list *list,
                                       struct trace_member **members, size_t *n, struct moesim_error *err)
{
    uint64_t length;
    if (file->size < 8)
        return moesim_fail(err, MOESIM_EIO, "%.300s: truncated: %zu bytes, a safetensors file has at least 8", path,
                           file->size);
    memcpy(&length, file->bytes, sizeof length);
    if (length > MOST_HEADER || length > file->size - 8)
        return moesim_fail(err, MOESIM_EIO,
                           "%.300s: byte 0: the header claims %llu bytes; the file has %zu more and 67108864 are "
                           "allowed",
                           path, (unsigned long long)length, file->size - 8);
    const char *text = (const char *)file->bytes;
    struct scan j = {path, text, text + 8, text + 8 + length, err};
    enum moesim_status status = read_entries(&j, list);
    if (!status && list->n == 0)
        status = moesim_fail(err, MOESIM_EIO, "%.300s: there is no tensor in it", path);
    if (!status)
        status = check_places(path, list, file->size - 8 - length, err);
    return status ? status : give(path, list, file->bytes + 8 + length, members, n, err);
}

enum moesim_status safetensors_open(const char *path, struct mapping *file, struct trace_member **members, size_t *n,
                                    struct moesim_error *err)
{
    struct list list = {0};
    *members = NULL;
    enum moesim_status status = mapping_open(path, "a safetensors file", file, err);
    if (status)
        return status;
    status = find_tensors(path, file, &list, members, n, err);
    free(list.tensor);
    if (status)
        mapping_close(file);
    return status;
}

enum moesim_status trace_open_safetensors(const char *path, const struct trace_options *options,
                                          struct trace_source *source, struct moesim_error *err)
{
    struct mapping *file = malloc(sizeof *file);
    struct trace_member *members;
    size_t n;
    if (!file)
        return moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", path);
    enum moesim_status status = safetensors_open(path, file, &members, &n, err);
    if (status) {
        free(file);
        return status;
    }
    if (trtllm_is_rank(members, n)) {
        status = trtllm_open_rank(path, members, n, options, source, err);
        mapping_close(file);
        free(file);
    } else {
        status = trace_arrays_open(path, options, members, n, file, 1, source, err);
    }
    free(members);
    return status;
}
