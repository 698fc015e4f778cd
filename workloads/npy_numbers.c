/*
 * Elements of arrays as doubles and as ids.
 */
#include <math.h>
#include <string.h>

#include "workloads/npy.h"
#include "workloads/npy_header.h"

#define LIMIT (INT64_C(1) << 62)

static const char *at(const struct npy *npy, uint64_t i)
{
    return (const char *)npy->data + i * npy_type_size(npy->type);
}

/* Elements may lie at any byte, so each is copied out before it is looked at. */
#define EACH(type, n, from, statement)                                                                                 \
    for (uint64_t i = 0; i < (n); i++) {                                                                               \
        type x;                                                                                                        \
        memcpy(&x, (from) + i * sizeof x, sizeof x);                                                                   \
        statement;                                                                                                     \
    }                                                                                                                  \
    break

void npy_read_double(const struct npy *npy, uint64_t first, uint64_t n, double *out)
{
    const char *from = at(npy, first);
    float piece;
    switch (npy->type) {
    case NPY_U4:
        EACH(uint32_t, n, from, out[i] = x);
    case NPY_I4:
        EACH(int32_t, n, from, out[i] = x);
    case NPY_U8:
        EACH(uint64_t, n, from, out[i] = (double)x);
    case NPY_I8:
        EACH(int64_t, n, from, out[i] = (double)x);
    case NPY_F8:
        EACH(double, n, from, out[i] = x);
    default: /* float holds them exactly */
        for (uint64_t i = 0; i < n; i++) {
            npy_read_float(npy, first + i, 1, &piece);
            out[i] = (double)piece;
        }
    }
}

/* Small integers are compared in their own type, many at a time. */
#define RANGE(type, n, from)                                                                                           \
    {                                                                                                                  \
        type least, most;                                                                                              \
        memcpy(&least, from, sizeof least);                                                                            \
        most = least;                                                                                                  \
        for (uint64_t i = 0; i < (n); i++) {                                                                           \
            type x;                                                                                                    \
            memcpy(&x, (from) + i * sizeof x, sizeof x);                                                               \
            least = x < least ? x : least;                                                                             \
            most = x > most ? x : most;                                                                                \
        }                                                                                                              \
        *smallest = (int64_t)least;                                                                                    \
        *largest = (int64_t)most;                                                                                      \
    }                                                                                                                  \
    return true

static bool wide_range(const struct npy *npy, uint64_t first, uint64_t n, int64_t *smallest, int64_t *largest)
{
    for (uint64_t i = 0; i < n; i++) {
        int64_t whole;
        double value;
        if (npy->type == NPY_I8) {
            memcpy(&whole, at(npy, first + i), sizeof whole);
        } else if (npy->type == NPY_U8) {
            uint64_t x;
            memcpy(&x, at(npy, first + i), sizeof x);
            whole = x > (uint64_t)LIMIT ? LIMIT : (int64_t)x;
        } else {
            npy_read_double(npy, first + i, 1, &value);
            if (!(fabs(value) <= 0x1p62) || floor(value) != value)
                return false;
            whole = (int64_t)value;
        }
        whole = whole > LIMIT ? LIMIT : whole < -LIMIT ? -LIMIT : whole;
        *smallest = i == 0 || whole < *smallest ? whole : *smallest;
        *largest = i == 0 || whole > *largest ? whole : *largest;
    }
    return true;
}

bool npy_whole_range(const struct npy *npy, uint64_t first, uint64_t n, int64_t *smallest, int64_t *largest)
{
    const char *from = at(npy, first);
    *smallest = *largest = 0;
    if (n == 0)
        return true;
    switch (npy->type) {
    case NPY_U1:
        RANGE(uint8_t, n, from);
    case NPY_I1:
        RANGE(int8_t, n, from);
    case NPY_U2:
        RANGE(uint16_t, n, from);
    case NPY_I2:
        RANGE(int16_t, n, from);
    case NPY_U4:
        RANGE(uint32_t, n, from);
    case NPY_I4:
        RANGE(int32_t, n, from);
    default:
        return wide_range(npy, first, n, smallest, largest);
    }
}

/* Copies rows for a number of elements that the compiler knows. */
#define ROWS(type, k)                                                                                                  \
    for (uint64_t row = 0; row < n_rows; row++, from += stride * sizeof(type), out += (k))                             \
        for (uint32_t i = 0; i < (k); i++) {                                                                           \
            type x;                                                                                                    \
            memcpy(&x, from + i * sizeof x, sizeof x);                                                                 \
            out[i] = (uint32_t)x;                                                                                      \
        }                                                                                                              \
    break

/* The usual numbers of experts a token get loops of their own. */
#define GATHER(type)                                                                                                   \
    switch (n) {                                                                                                       \
    case 1:                                                                                                            \
        ROWS(type, 1);                                                                                                 \
    case 2:                                                                                                            \
        ROWS(type, 2);                                                                                                 \
    case 4:                                                                                                            \
        ROWS(type, 4);                                                                                                 \
    case 8:                                                                                                            \
        ROWS(type, 8);                                                                                                 \
    default:                                                                                                           \
        ROWS(type, n);                                                                                                 \
    }                                                                                                                  \
    break

void npy_gather_ids(const struct npy *npy, uint64_t first, uint64_t n_rows, uint32_t n, uint64_t stride, uint32_t *out)
{
    if (stride == n && n_rows <= UINT32_MAX / (n ? n : 1)) { /* one long row */
        n *= (uint32_t)n_rows;
        n_rows = 1;
    }
    const char *from = at(npy, first);
    switch (npy->type) {
    case NPY_U1:
        GATHER(uint8_t);
    case NPY_I1:
        GATHER(int8_t);
    case NPY_U2:
        GATHER(uint16_t);
    case NPY_I2:
        GATHER(int16_t);
    case NPY_U4:
    case NPY_I4:
        GATHER(uint32_t);
    case NPY_U8:
    case NPY_I8:
        GATHER(uint64_t);
    default:
        for (uint64_t row = 0; row < n_rows; row++)
            for (uint32_t i = 0; i < n; i++) {
                double x;
                npy_read_double(npy, first + row * stride + i, 1, &x);
                *out++ = x < 0 ? UINT32_MAX : (uint32_t)x;
            }
    }
}
