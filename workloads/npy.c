/*
 * Reading .npy arrays: the file is mapped, its header checked, its elements converted on demand.
 */
#include "workloads/npy.h"

#include <math.h>
#include <string.h>

#include "workloads/mapping.h"
#include "workloads/npy_header.h"

enum moesim_status npy_open(const char *path, struct npy *npy, struct moesim_error *err)
{
    *npy = (struct npy){0};
    struct mapping file;
    enum moesim_status status = mapping_open(path, "a .npy file", &file, err);
    if (status)
        return status;
    npy->map = (void *)(uintptr_t)file.bytes;
    npy->map_size = file.size;
    size_t data_offset = 0;
    status = npy_header_parse(path, npy->map, npy->map_size, npy, &data_offset, err);
    if (status) {
        npy_close(npy);
        return status;
    }
    npy->data = (const char *)npy->map + data_offset;
    return MOESIM_OK;
}

void npy_close(struct npy *npy)
{
    struct mapping file = {npy->map, npy->map_size};
    mapping_close(&file);
    *npy = (struct npy){0};
}

static float half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u, fraction = half & 1023u;
    if (exponent == 0) { /* zero and subnormals: fraction * 2^-24, exact in float */
        const float value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112u) << 23) | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bfloat16 is the upper half of a float. */
static float bfloat_to_float(uint16_t upper)
{
    const uint32_t bits = (uint32_t)upper << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Elements may lie at any byte, so each is copied out before it is looked at. */
#define CONVERT(element, expression)                                                                                   \
    for (uint64_t i = 0; i < n; i++) {                                                                                 \
        element x;                                                                                                     \
        memcpy(&x, from + i * sizeof x, sizeof x);                                                                     \
        out[i] = (expression);                                                                                         \
    }                                                                                                                  \
    break

void npy_read_float(const struct npy *npy, uint64_t first, uint64_t n, float *out)
{
    const char *from = (const char *)npy->data + first * npy_type_size(npy->type);
    switch (npy->type) {
    case NPY_U1:
        CONVERT(uint8_t, (float)x);
    case NPY_I1:
        CONVERT(int8_t, (float)x);
    case NPY_U2:
        CONVERT(uint16_t, (float)x);
    case NPY_I2:
        CONVERT(int16_t, (float)x);
    case NPY_U4:
        CONVERT(uint32_t, (float)x);
    case NPY_I4:
        CONVERT(int32_t, (float)x);
    case NPY_U8:
        CONVERT(uint64_t, (float)x);
    case NPY_I8:
        CONVERT(int64_t, (float)x);
    case NPY_F2:
        CONVERT(uint16_t, half_to_float(x));
    case NPY_F4:
        memcpy(out, from, n * sizeof *out);
        break;
    case NPY_F8:
        CONVERT(double, (float)x);
    case NPY_BF16:
        CONVERT(uint16_t, bfloat_to_float(x));
    }
}

/* One element as a whole number, or -1 where it is not one below 2^32. */
static int64_t whole(const struct npy *npy, uint64_t i)
{
    const char *from = (const char *)npy->data + i * npy_type_size(npy->type);
    double value = 0;
    if (npy->type == NPY_U8 || npy->type == NPY_I8) {
        uint64_t x; /* a negative i8 reads as a number far above 2^32 */
        memcpy(&x, from, sizeof x);
        return x <= UINT32_MAX ? (int64_t)x : -1;
    }
    if (npy->type == NPY_U4 || npy->type == NPY_I4) {
        uint32_t x;
        memcpy(&x, from, sizeof x);
        return npy->type == NPY_U4 ? (int64_t)x : (int64_t)(int32_t)x;
    }
    if (npy->type == NPY_F8) {
        memcpy(&value, from, sizeof value);
    } else {
        float x;
        npy_read_float(npy, i, 1, &x);
        value = (double)x;
    }
    return value >= 0 && value <= (double)UINT32_MAX && floor(value) == value ? (int64_t)value : -1;
}

enum moesim_status npy_read_u32(const struct npy *npy, uint64_t first, uint64_t n, uint32_t *out,
                                struct moesim_error *err)
{
    for (uint64_t i = 0; i < n; i++) {
        const int64_t value = whole(npy, first + i);
        if (value < 0)
            return moesim_fail(err, MOESIM_EIO, "element %llu is not a whole number from 0 to 4294967295",
                               (unsigned long long)(first + i));
        out[i] = (uint32_t)value;
    }
    return MOESIM_OK;
}

enum moesim_status npy_read_array(const char *path, struct moesim_arena *arena, struct moesim_file_array *array,
                                  struct moesim_error *err)
{
    struct npy npy;
    enum moesim_status status = npy_open(path, &npy, err);
    if (status)
        return status;
    float *values = moesim_alloc(arena, (size_t)npy.n, sizeof *values);
    if (values) {
        npy_read_float(&npy, 0, npy.n, values);
        *array = (struct moesim_file_array){
            .key = array->key, .values = values, .n = npy.n, .n_dimensions = npy.n_dimensions};
        memcpy(array->shape, npy.shape, sizeof npy.shape);
    } else {
        status = moesim_fail(err, MOESIM_ENOMEM, "%s: no memory for %llu numbers", path, (unsigned long long)npy.n);
    }
    npy_close(&npy);
    return status;
}
