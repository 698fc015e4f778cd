/*
 * .npy files: known bytes, every type, every fault of a header, and a writer that leaves nothing half-written.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "workloads/npy.h"
#include "workloads/npy_header.h"

TestSuite(npy, .timeout = 60, .init = folder_create, .fini = folder_remove);

/* A file of format 1, 2 or 3 with this dictionary, as it stands; returns its size. */
static size_t compose(uint8_t *bytes, unsigned major, const char *dictionary, const void *data, size_t n_data)
{
    const size_t length = strlen(dictionary), start = major == 1 ? 10 : 12;
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (uint8_t)major;
    for (size_t i = 7; i < start; i++)
        bytes[i] = (uint8_t)(i < 8 ? 0 : length >> 8 * (i - 8));
    memcpy(bytes + start, dictionary, length);
    if (n_data)
        memcpy(bytes + start + length, data, n_data);
    return start + length + n_data;
}

static void open_composed(struct npy *npy, unsigned major, const char *dictionary, const void *data, size_t n_data)
{
    uint8_t bytes[1024];
    struct moesim_error err;
    const char *path = folder_write("a.npy", bytes, compose(bytes, major, dictionary, data, n_data));
    cr_assert_eq(npy_open(path, npy, &err), MOESIM_OK, "%s: %s", dictionary, err.text);
}

/* What numpy 1.24 writes for numpy.save(f, numpy.array([[1, 2, 3], [4, 5, -6.5]], 'f4')): dictionary padded so that the
 * data starts at byte 128. */
Test(npy, reads_what_numpy_writes)
{
    const float data[] = {1, 2, 3, 4, 5, -6.5f};
    char dictionary[119];
    memset(dictionary, ' ', sizeof dictionary);
    const char *text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
    memcpy(dictionary, text, strlen(text));
    dictionary[117] = '\n';
    dictionary[118] = '\0';
    struct npy npy;
    open_composed(&npy, 1, dictionary, data, sizeof data);
    cr_assert_eq(npy.type, NPY_F4);
    cr_assert_eq(npy.n_dimensions, 2);
    cr_assert(npy.shape[0] == 2 && npy.shape[1] == 3 && npy.n == 6);
    cr_assert_eq((const char *)npy.data - (const char *)npy.map, 128);
    cr_assert_arr_eq(npy.data, data, sizeof data);
    npy_close(&npy);
    cr_assert_null(npy.map);
}

Test(npy, tolerates_order_spacing_and_versions)
{
    static const char *const dictionaries[] = {
        "{'shape': (3,), 'fortran_order': False, 'descr': '<f4'}\n",
        "{\"descr\":\"<f4\",\"fortran_order\":False,\"shape\":(3,)}",
        "  { 'descr' : 'f4' ,\n\t'fortran_order' :False, 'shape' :( 3L , ) , }   \n",
        "{'descr': '=f4', 'fortran_order': True, 'shape': (3,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 1, 1), }",
    };
    const float data[] = {0.25f, -1, 7};
    for (size_t i = 0; i < sizeof dictionaries / sizeof *dictionaries; i++)
        for (unsigned major = 1; major <= 3; major++) {
            struct npy npy;
            float out[2];
            open_composed(&npy, major, dictionaries[i], data, sizeof data);
            cr_assert_eq(npy.n, 3);
            npy_read_float(&npy, 1, 2, out);
            cr_assert(out[0] == -1 && out[1] == 7);
            npy_close(&npy);
        }
}

/* The three elements of each type and their values. Halves: 0x7bff is the largest, 0x0001 the smallest subnormal. */
Test(npy, converts_every_type)
{
    static const struct {
        const char *descr;
        const char *bytes;
        size_t n;
        float value[3];
    } cases[] = {
        {"|u1", "\x00\x7f\xff", 3, {0, 127, 255}},
        {"|i1", "\x00\x7f\xff", 3, {0, 127, -1}},
        {"<u2", "\x01\x00\x00\x80\xff\xff", 6, {1, 32768, 65535}},
        {"<i2", "\x01\x00\x00\x80\xff\xff", 6, {1, -32768, -1}},
        {"<u4", "\x01\0\0\0\0\0\0\x80\0\x01\0\0", 12, {1, 2147483648.0f, 256}},
        {"<i4", "\x01\0\0\0\0\0\0\x80\0\x01\0\0", 12, {1, -2147483648.0f, 256}},
        {"<u8", "\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\x01\0\0\0\0\0\0", 24, {1, 0x1p63f, 256}},
        {"<i8", "\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x80\0\x01\0\0\0\0\0\0", 24, {1, -0x1p63f, 256}},
        {"<f2", "\x00\x3c\xff\x7b\x01\x00", 6, {1, 65504, 0x1p-24f}},
        {"<f2", "\x00\xc0\x55\x35\x00\xfc", 6, {-2, 0.333251953125f, -INFINITY}},
        {"<f4", "\0\0\x80\x3f\0\0\0\xc0\0\0\x80\x7f", 12, {1, -2, INFINITY}},
        {"<f8", "\0\0\0\0\0\0\xf0\x3f\0\0\0\0\0\0\0\xc0\x9a\x99\x99\x99\x99\x99\xb9\x3f", 24, {1, -2, 0.1f}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dictionary[128];
        float out[3];
        struct npy npy;
        snprintf(dictionary, sizeof dictionary, "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }",
                 cases[i].descr);
        open_composed(&npy, 1, dictionary, cases[i].bytes, cases[i].n);
        cr_assert_str_eq(npy_type_name(npy.type), cases[i].descr);
        npy_read_float(&npy, 0, 3, out);
        for (int j = 0; j < 3; j++)
            cr_assert_eq(out[j], cases[i].value[j], "%s element %d: %g", cases[i].descr, j, (double)out[j]);
        npy_close(&npy);
    }
}

Test(npy, reads_whole_numbers_and_names_what_is_none)
{
    struct npy npy;
    struct moesim_error err;
    uint32_t out[4];
    const double doubles[] = {0, 4294967295.0, 3, 2.5};
    open_composed(&npy, 1, "{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }", doubles, sizeof doubles);
    cr_assert_eq(npy_read_u32(&npy, 0, 3, out, &err), MOESIM_OK);
    cr_assert(out[0] == 0 && out[1] == UINT32_MAX && out[2] == 3);
    cr_assert_eq(npy_read_u32(&npy, 1, 3, out, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "element 3"), "%s", err.text);
    npy_close(&npy);

    static const struct {
        const char *descr;
        int64_t good, bad;
    } cases[] = {{"<i8", UINT32_MAX, -1}, {"<i8", 7, INT64_C(1) << 32}, {"<u8", 7, -1}, {"<i4", 7, -7}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dictionary[128];
        const int64_t wide[] = {cases[i].good, cases[i].bad};
        const int32_t narrow[] = {(int32_t)cases[i].good, (int32_t)cases[i].bad};
        const bool is_wide = cases[i].descr[2] == '8';
        snprintf(dictionary, sizeof dictionary, "{'descr': '%s', 'fortran_order': False, 'shape': (2,), }",
                 cases[i].descr);
        open_composed(&npy, 1, dictionary, is_wide ? (const void *)wide : narrow, is_wide ? 16 : 8);
        cr_assert_eq(npy_read_u32(&npy, 0, 1, out, &err), MOESIM_OK);
        cr_assert_eq(out[0], (uint32_t)cases[i].good);
        cr_assert_eq(npy_read_u32(&npy, 0, 2, out, &err), MOESIM_EIO);
        cr_assert(strstr(err.text, "element 1"), "%s", err.text);
        npy_close(&npy);
    }
}

Test(npy, names_every_fault_of_a_header)
{
    static const struct {
        const char *dictionary, *sentence;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", "big-endian ('>f4')"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "type '<c8' cannot be read"},
        {"{'descr': '|b1', 'fortran_order': False, 'shape': (8,), }", "type '|b1' cannot be read"},
        {"{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", "type '<U3' cannot be read"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "type '|O' cannot be read"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1,), }", "type '' cannot be read"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "structured"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", "Fortran order"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", "must be True or False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "truncated: the shape needs 12 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", "negative"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 64), }", "dimension 1 of its shape is 0"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 0), }", "dimension 2 of its shape is 0"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", "single number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1), }", "more than 4 dimensions"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2.0,), }", "a comma or a closing parenthesis"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (x,), }", "must be a whole number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 2, }", "must be a tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", "more than 2^64 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905,), }", "more than 2^64 bytes"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", "passes 2^64"},
        {"{'descr': '<f4', 'fortran_order': False, }", "must all be there"},
        {"{}", "must all be there"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "appears twice"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", "only the keys"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)} 1", "only blanks may follow"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", "closing brace"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2", "closing parenthesis"},
        {"{'descr: ", "not closed"},
        {"{'descr' '<f4'}", "a colon was expected"},
        {"{descr: '<f4'}", "a quoted word was expected"},
        {"{'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa': 1}", "too long"},
        {"['descr']", "in braces"},
        {"", "in braces"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[1024];
        struct npy npy;
        struct moesim_error err = {""};
        const size_t n = compose(bytes, 1 + (unsigned)i % 3, cases[i].dictionary, "01234567", 8);
        const char *path = folder_write("bad.npy", bytes, n);
        cr_assert_eq(npy_open(path, &npy, &err), MOESIM_EIO, "accepted %s", cases[i].dictionary);
        cr_assert(strstr(err.text, cases[i].sentence), "%s gives: %s", cases[i].dictionary, err.text);
        cr_assert(!strncmp(err.text, path, strlen(path)), "no path: %s", err.text);
        cr_assert_null(npy.map);
    }
}

static void refuse(const char *path, const char *sentence)
{
    struct npy npy;
    struct moesim_error err = {""};
    cr_assert_eq(npy_open(path, &npy, &err), MOESIM_EIO, "%s was opened", path);
    cr_assert(strstr(err.text, path) && strstr(err.text, sentence), "%s: %s", path, err.text);
}

Test(npy, refuses_what_is_no_npy_file)
{
    const char *fifo = folder_path("fifo");
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    refuse(folder_path("absent.npy"), "No such file");
    refuse(folder_path("."), "is a directory");
    refuse(fifo, "not a regular file");
    refuse("/dev/null", "not a regular file");
    refuse(folder_write("empty.npy", "", 0), "is empty (0 bytes)");
    refuse(folder_write("text.npy", "0.8 0.1 0.1\n", 12), "byte 0: not a .npy file");
    refuse(folder_write("short.npy", "\x93NUMPY\x01", 7), "truncated at byte 7");
    refuse(folder_write("version.npy", "\x93NUMPY\x04\x00\x02\x00{}\x00\x00", 14), "version 4 is not known");
    refuse(folder_write("long.npy", "\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14), "header claims 4294967295 bytes");
    refuse(folder_write("cut.npy", "\x93NUMPY\x02\x00\x02\x00", 10), "the file ends at byte 10");
}

/* Every shorter file and 20,000 damaged ones: an answer, never a read outside the bytes, and what passes is inside. */
Test(npy, survives_damage)
{
    uint8_t good[256];
    const size_t size = compose(good, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n",
                                "012345678901234567890123", 24);
    const struct moesim_random random = {1, MOESIM_STREAM_TEST, 0, 0};
    uint32_t n_accepted = 0;
    for (uint32_t i = 0; i < 20000 + size; i++) {
        const size_t n = i < size ? i : size;
        uint8_t *bytes = malloc(n ? n : 1); /* its own block, so that a sanitizer sees one byte too many */
        cr_assert(bytes);
        memcpy(bytes, good, n);
        if (i >= size)
            for (uint32_t j = 0; j <= i % 3; j++)
                bytes[moesim_random_below(&random, 8 * (uint64_t)i + j, (uint32_t)n)] =
                    (uint8_t)(moesim_random_bits(&random, 8 * (uint64_t)i + 4 + j) >> 24);
        struct npy npy = {0};
        size_t offset = 0;
        struct moesim_error err = {""};
        const enum moesim_status status = npy_header_parse("damaged", bytes, n, &npy, &offset, &err);
        if (status == MOESIM_OK) {
            n_accepted++;
            cr_assert(npy.n > 0 && npy.n <= (n - offset) / npy_type_size(npy.type));
        } else {
            cr_assert(status == MOESIM_EIO && strstr(err.text, "damaged"));
        }
        free(bytes);
    }
    cr_assert(n_accepted > 1000 && n_accepted < 19000, "%u", n_accepted);
}

static uint32_t count_files(void)
{
    DIR *directory = opendir(folder_path("."));
    cr_assert(directory);
    uint32_t n = 0;
    for (const struct dirent *entry; (entry = readdir(directory));)
        n += entry->d_name[0] != '.';
    closedir(directory);
    return n;
}

/* A whole file with its shape; the key stays its owner's, and what cannot be read leaves the array alone. */
Test(npy, reads_a_whole_array)
{
    const uint16_t data[] = {1, 2, 3, 4, 5, 65535};
    uint8_t bytes[1024];
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_file_array array = {.key = "bias"};
    const size_t n =
        compose(bytes, 1, "{'descr': '<u2', 'fortran_order': False, 'shape': (3, 2), }", data, sizeof data);
    cr_assert_eq(npy_read_array(folder_write("a.npy", bytes, n), arena, &array, &err), MOESIM_OK);
    cr_assert(array.n == 6 && array.n_dimensions == 2 && array.shape[0] == 3 && array.shape[1] == 2);
    for (size_t i = 0; i < 6; i++)
        cr_expect_eq(array.values[i], (float)data[i]);
    cr_expect_str_eq(array.key, "bias");
    cr_assert_eq(npy_read_array(folder_write("a.npy", bytes, n - 1), arena, &array, &err), MOESIM_EIO);
    cr_expect_eq(array.n, 6);
    moesim_arena_destroy(arena);
}

Test(npy, writes_what_it_reads_and_replaces_whole_files)
{
    const float data[24] = {1, NAN, -0.0f, INFINITY, 5};
    const uint64_t shape[] = {2, 3, 4, 1};
    struct moesim_error err;
    struct npy npy;
    const char *path = folder_path("out.npy");
    for (uint32_t n_dimensions = 1; n_dimensions <= 4; n_dimensions++) {
        cr_assert_eq(npy_write_float(path, data, shape, n_dimensions, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(npy_open(path, &npy, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(npy.n_dimensions, n_dimensions);
        cr_assert_arr_eq(npy.shape, shape, n_dimensions * sizeof *shape);
        cr_assert_eq(((const char *)npy.data - (const char *)npy.map) % 64, 0);
        cr_assert_arr_eq(npy.data, data, npy.n * sizeof *data);
        npy_close(&npy);
        cr_assert_eq(count_files(), 1);
    }
    cr_assert_eq(npy_write_float(folder_path("absent/out.npy"), data, shape, 1, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "cannot be written: No such file"), "%s", err.text);
    cr_assert_eq(npy_write_float("/dev/null", data, shape, 1, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "left alone"), "%s", err.text);
    cr_assert_eq(count_files(), 1);
}
