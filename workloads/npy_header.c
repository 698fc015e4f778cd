/*
 * The .npy header: "\x93NUMPY", version, header length, then a dictionary such as
 *     {'descr': '<f4', 'fortran_order': False, 'shape': (4096, 64), }
 * padded with blanks and a newline (numpy/lib/format.py, versions 1.0 to 3.0). Keys may come in any order and spacing.
 */
#include "workloads/npy_header.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_SIZE 6u
#define KNOWN_TYPES "u1 u2 u4 u8 i1 i2 i4 i8 f2 f4 f8"

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [NPY_U1] = {"|u1", 1}, [NPY_I1] = {"|i1", 1}, [NPY_U2] = {"<u2", 2}, [NPY_I2] = {"<i2", 2},
    [NPY_U4] = {"<u4", 4}, [NPY_I4] = {"<i4", 4}, [NPY_U8] = {"<u8", 8}, [NPY_I8] = {"<i8", 8},
    [NPY_F2] = {"<f2", 2}, [NPY_F4] = {"<f4", 4}, [NPY_F8] = {"<f8", 8}, [NPY_BF16] = {"bfloat16", 2},
};

/* A place in the dictionary. */
struct reader {
    const char *path;
    const uint8_t *bytes;
    size_t at, end;
    struct moesim_error *err;
};

enum { HAS_DESCR = 1, HAS_ORDER = 2, HAS_SHAPE = 4, HAS_ALL = 7 };

struct dictionary {
    char descr[24];
    bool fortran_order;
    uint32_t found; /* HAS_* */
};

size_t npy_type_size(enum npy_type type)
{
    return types[type].size;
}

const char *npy_type_name(enum npy_type type)
{
    return types[type].name;
}

static enum moesim_status wrong(const struct reader *r, const char *what)
{
    return moesim_fail(r->err, MOESIM_EIO, "%s: byte %zu of the .npy header: %s", r->path, r->at, what);
}

/* The next byte that is no blank, or -1 at the end. */
static int peek(struct reader *r)
{
    while (r->at < r->end && memchr(" \t\r\n", r->bytes[r->at], 4))
        r->at++;
    return r->at < r->end ? r->bytes[r->at] : -1;
}

static bool take(struct reader *r, char c)
{
    if (peek(r) != (unsigned char)c)
        return false;
    r->at++;
    return true;
}

static enum moesim_status read_string(struct reader *r, char *text, size_t size)
{
    const int quote = peek(r);
    if (quote != '\'' && quote != '"')
        return wrong(r, "a quoted word was expected");
    r->at++;
    size_t n = 0;
    while (r->at < r->end && r->bytes[r->at] != quote) {
        if (n + 1 >= size)
            return wrong(r, "this word is too long for a header that NumPy writes");
        text[n++] = (char)r->bytes[r->at++];
    }
    if (r->at >= r->end)
        return wrong(r, "a quoted word is not closed");
    r->at++;
    text[n] = '\0';
    return MOESIM_OK;
}

static enum moesim_status read_bool(struct reader *r, bool *value)
{
    peek(r);
    const size_t left = r->end - r->at;
    if (left >= 4 && !memcmp(r->bytes + r->at, "True", 4)) {
        *value = true;
        r->at += 4;
    } else if (left >= 5 && !memcmp(r->bytes + r->at, "False", 5)) {
        *value = false;
        r->at += 5;
    } else {
        return wrong(r, "fortran_order must be True or False");
    }
    return MOESIM_OK;
}

static enum moesim_status read_dimension(struct reader *r, uint64_t *value)
{
    const int first = peek(r);
    if (first == '-')
        return wrong(r, "a dimension is negative");
    if (first < '0' || first > '9')
        return wrong(r, "a dimension must be a whole number");
    *value = 0;
    while (r->at < r->end && r->bytes[r->at] >= '0' && r->bytes[r->at] <= '9') {
        if (__builtin_mul_overflow(*value, 10u, value) || __builtin_add_overflow(*value, r->bytes[r->at] - '0', value))
            return wrong(r, "a dimension passes 2^64");
        r->at++;
    }
    if (r->at < r->end && r->bytes[r->at] == 'L') /* Python 2 wrote long numbers so */
        r->at++;
    return MOESIM_OK;
}

static enum moesim_status read_shape(struct reader *r, struct npy *npy)
{
    if (!take(r, '('))
        return wrong(r, "shape must be a tuple such as (4096, 64)");
    npy->n_dimensions = 0;
    while (!take(r, ')')) {
        if (npy->n_dimensions == NPY_MAX_DIMENSIONS)
            return wrong(r, "the array has more than 4 dimensions");
        const enum moesim_status status = read_dimension(r, &npy->shape[npy->n_dimensions]);
        if (status)
            return status;
        npy->n_dimensions++;
        if (!take(r, ',') && peek(r) != ')')
            return wrong(r, "a comma or a closing parenthesis was expected in shape");
    }
    return MOESIM_OK;
}

static enum moesim_status read_entry(struct reader *r, struct dictionary *d, struct npy *npy)
{
    char key[24];
    enum moesim_status status = read_string(r, key, sizeof key);
    if (status)
        return status;
    if (!take(r, ':'))
        return wrong(r, "a colon was expected");

    uint32_t bit;
    if (!strcmp(key, "descr")) {
        bit = HAS_DESCR;
        if (peek(r) == '[')
            return wrong(r, "the array is structured; one plain number per element is needed (" KNOWN_TYPES ")");
        status = read_string(r, d->descr, sizeof d->descr);
    } else if (!strcmp(key, "fortran_order")) {
        bit = HAS_ORDER;
        status = read_bool(r, &d->fortran_order);
    } else if (!strcmp(key, "shape")) {
        bit = HAS_SHAPE;
        status = read_shape(r, npy);
    } else {
        return wrong(r, "only the keys descr, fortran_order and shape belong here");
    }
    if (!status && d->found & bit)
        return wrong(r, "a key appears twice");
    d->found |= bit;
    return status;
}

static enum moesim_status read_dictionary(struct reader *r, struct dictionary *d, struct npy *npy)
{
    if (!take(r, '{'))
        return wrong(r, "a dictionary in braces was expected");
    while (!take(r, '}')) {
        const enum moesim_status status = read_entry(r, d, npy);
        if (status)
            return status;
        if (!take(r, ',') && peek(r) != '}')
            return wrong(r, "a comma or a closing brace was expected");
    }
    if (peek(r) != -1)
        return wrong(r, "only blanks may follow the dictionary");
    if (d->found != HAS_ALL)
        return wrong(r, "descr, fortran_order and shape must all be there");
    return MOESIM_OK;
}

static enum moesim_status find_type(const struct reader *r, const char *descr, enum npy_type *type)
{
    const bool ordered = descr[0] && strchr("<>|=", descr[0]);
    const char *kind = descr + ordered;
    for (size_t i = 0; i < NPY_BF16; i++)
        if (!strcmp(kind, types[i].name + 1)) {
            if (descr[0] == '>' && types[i].size > 1)
                return moesim_fail(r->err, MOESIM_EIO,
                                   "%s: the elements are big-endian ('%s'); save the array with "
                                   "a.astype('%s')",
                                   r->path, descr, types[i].name);
            *type = (enum npy_type)i;
            return MOESIM_OK;
        }
    return moesim_fail(r->err, MOESIM_EIO, "%s: elements of type '%s' cannot be read; real numbers are needed (%s)",
                       r->path, descr, KNOWN_TYPES);
}

/* Where the dictionary starts and ends; nothing is read past `size`. */
static enum moesim_status find_dictionary(const char *path, const uint8_t *bytes, size_t size, size_t *start,
                                          size_t *length, struct moesim_error *err)
{
    if (size < MAGIC_SIZE || memcmp(bytes, MAGIC, MAGIC_SIZE))
        return moesim_fail(err, MOESIM_EIO,
                           "%s: byte 0: not a .npy file (it must start with \\x93NUMPY, as numpy.save writes it)",
                           path);
    if (size < 10)
        return moesim_fail(err, MOESIM_EIO, "%s: truncated at byte %zu, inside the .npy header", path, size);
    const uint32_t major = bytes[6];
    if (major < 1 || major > 3)
        return moesim_fail(err, MOESIM_EIO, "%s: byte 6: .npy version %u is not known; 1 to 3 are", path, major);
    *start = major == 1 ? 10 : 12;
    *length = (size_t)bytes[8] | (size_t)bytes[9] << 8;
    if (major > 1 && size >= 12)
        *length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
    if (size < *start || *length > size - *start)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: byte 8: the header claims %zu bytes but the file ends at byte %zu: it is truncated or "
                           "damaged",
                           path, *length, size);
    return MOESIM_OK;
}

static enum moesim_status check_extent(const char *path, size_t size, size_t data_offset, struct npy *npy,
                                       struct moesim_error *err)
{
    uint64_t n_bytes = npy_type_size(npy->type);
    npy->n = 1;
    for (uint32_t i = 0; i < npy->n_dimensions; i++) {
        if (npy->shape[i] == 0)
            return moesim_fail(err, MOESIM_EIO, "%s: the array is empty: dimension %u of its shape is 0", path, i + 1);
        if (__builtin_mul_overflow(n_bytes, npy->shape[i], &n_bytes))
            return moesim_fail(err, MOESIM_EIO, "%s: the shape asks for more than 2^64 bytes: the header is damaged",
                               path);
        npy->n *= npy->shape[i];
    }
    if (n_bytes > size - data_offset)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: truncated: the shape needs %llu bytes of data from byte %zu on, the file has %zu", path,
                           (unsigned long long)n_bytes, data_offset, size - data_offset);
    return MOESIM_OK;
}

enum moesim_status npy_header_parse(const char *path, const uint8_t *bytes, size_t size, struct npy *npy,
                                    size_t *data_offset, struct moesim_error *err)
{
    size_t start = 0, length = 0;
    enum moesim_status status = find_dictionary(path, bytes, size, &start, &length, err);
    if (status)
        return status;
    struct reader r = {path, bytes, start, start + length, err};
    struct dictionary d = {0};
    status = read_dictionary(&r, &d, npy);
    if (!status)
        status = find_type(&r, d.descr, &npy->type);
    if (status)
        return status;
    if (npy->n_dimensions == 0)
        return moesim_fail(err, MOESIM_EIO, "%s: the array is a single number; at least one dimension is needed", path);
    if (d.fortran_order && npy->n_dimensions > 1)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: the array is in Fortran order; save numpy.ascontiguousarray(a) instead", path);
    *data_offset = start + length;
    return check_extent(path, size, *data_offset, npy, err);
}
