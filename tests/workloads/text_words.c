/*
 * text beyond bytes in a row: words, word vectors, and the ways of batching.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"

TestSuite(text_words, .timeout = 60, .init = folder_create, .fini = folder_remove);

/* "w0 w1 ... w96 w0 ...": the next word tells where one is. */
static const char *write_counting(const char *name)
{
    static char text[40000];
    size_t n = 0;
    for (uint32_t i = 0; i < 5000; i++)
        n += (size_t)sprintf(text + n, "w%u ", i % 97);
    return folder_write_xz(name, text, n);
}

static const char *write_list(void)
{
    char text[1000];
    size_t n = 0;
    for (uint32_t i = 0; i < 97; i++)
        n += (size_t)sprintf(text + n, "w%u\n", i);
    return folder_write("list", text, n);
}

/* Row i of vectors: cos and sin of i, and i itself. */
static const char *write_vectors(uint32_t n_rows, float scale)
{
    static float value[400][3];
    static uint8_t bytes[8192];
    char shape[40];
    for (uint32_t i = 0; i < n_rows; i++) {
        value[i][0] = scale * (float)cos(i);
        value[i][1] = scale * (float)sin(i);
        value[i][2] = scale * (float)i / 50;
    }
    snprintf(shape, sizeof shape, "(%u, 3)", n_rows);
    return folder_write("v.npy", bytes, compose_npy(bytes, "<f4", shape, value, n_rows * sizeof value[0]));
}

Test(text_words, words_follow_each_other)
{
    struct instance w;
    struct moesim_workload_shape shape;
    char file[512], list[512];
    snprintf(file, sizeof file, "%s", write_counting("t.xz"));
    snprintf(list, sizeof list, "%s", write_list());
    cr_assert_eq(instance_shape(&w, "text", SETTINGS("files", file, "vocabulary", "word", "words", "60"), &shape),
                 MOESIM_OK);
    cr_assert_eq(shape.vocabulary, 60);
    cr_assert_eq(instance_init(&w, instance_env(500, 16)), MOESIM_OK, "%s", w.error.text);
    const struct moesim_batch b = instance_step(&w, 3, 0);
    uint32_t rare = 0;
    for (uint32_t t = 0; t < 500; t++) {
        cr_assert_lt(b.token_id[t], 60);
        rare += b.token_id[t] == 0;
    }
    cr_assert(rare > 150 && rare < 250, "38 of 97 words share id 0: %u", rare);
    instance_destroy(&w);
}

/* common=1 leaves the embedding where it is, mixing=0 leaves the memory out: the row is the word's vector, scaled to
 * mean square 1. */
Test(text_words, vectors_are_the_embedding)
{
    struct instance w;
    struct moesim_workload_shape shape;
    char file[512], list[512], vectors[512];
    snprintf(file, sizeof file, "%s", write_counting("t.xz"));
    snprintf(list, sizeof list, "%s", write_list());
    for (int scaled = 0; scaled < 2; scaled++) {
        snprintf(vectors, sizeof vectors, "%s", write_vectors(97, scaled ? 1e-3f : 1));
        const char *const *settings = SETTINGS("files", file, "vocabulary", "word", "vectors", vectors, "word_list",
                                               list, "common", "1", "mixing", "0", "sequence", "100");
        cr_assert_eq(instance_shape(&w, "text", settings, &shape), MOESIM_OK, "%s", w.error.text);
        cr_assert(shape.d_model == 3 && shape.vocabulary == 98);
        cr_assert_eq(instance_init(&w, instance_env(300, 3)), MOESIM_OK, "%s", w.error.text);
        const struct moesim_batch b = instance_step(&w, 0, 1);
        for (uint32_t t = 0; t < 300; t++) {
            const double i = b.token_id[t] - 1;
            const double row[3] = {cos(i), sin(i), i / 50}, unit = sqrt((1 + row[2] * row[2]) / 3);
            cr_assert(b.token_id[t] >= 1 && b.token_id[t] <= 97);
            if (t % 100)
                cr_assert_eq(b.token_id[t], b.token_id[t - 1] % 97 + 1);
            for (uint32_t j = 0; j < 3; j++)
                cr_assert_float_eq((double)b.hidden[3 * t + j], row[j] / unit, 1e-5);
        }
        instance_destroy(&w);
    }
    /* of bytes: 256 rows, no list */
    snprintf(vectors, sizeof vectors, "%s", write_vectors(256, 1));
    cr_assert_eq(
        instance_shape(&w, "text", SETTINGS("files", file, "vectors", vectors, "common", "1", "mixing", "0"), &shape),
        MOESIM_OK);
    cr_assert(shape.d_model == 3 && shape.vocabulary == 256);
    cr_assert_eq(instance_init(&w, instance_env(40, 3)), MOESIM_OK, "%s", w.error.text);
    const struct moesim_batch b = instance_step(&w, 0, 0);
    for (uint32_t t = 0; t < 40; t++)
        cr_assert_float_eq((double)b.hidden[3 * t] * sin(b.token_id[t]),
                           (double)b.hidden[3 * t + 1] * cos(b.token_id[t]), 1e-5);
    instance_destroy(&w);
}

Test(text_words, vectors_that_do_not_fit)
{
    static uint8_t bytes[8192];
    static const float values[4][3] = {{1, 2, 3}, {4, 5, 6}, {7, NAN, 9}, {0, 0, 0}};
    static const int32_t whole[3] = {1, 2, 3};
    char file[512], list[512];
    snprintf(file, sizeof file, "%s", write_counting("t.xz"));
    snprintf(list, sizeof list, "%s", folder_write("two", "w1\nw2\n", 6));
    const struct {
        const char *descr, *shape;
        const void *data;
        size_t n;
        enum moesim_status status;
        const char *says;
    } cases[] = {
        {"<f4", "(3, 2)", values, 24, MOESIM_EIO, "has 3 rows, "},
        {"<f4", "(1, 3)", values, 12, MOESIM_EIO, "has 1 rows, "},
        {"<f4", "(6,)", values, 24, MOESIM_EIO, "word vectors are real numbers [words, dimensions]"},
        {"<f4", "(1, 2, 3)", values, 24, MOESIM_EIO, "word vectors are real numbers [words, dimensions]"},
        {"<i4", "(1, 3)", whole, 12, MOESIM_EIO, "word vectors are real numbers [words, dimensions]"},
        {"<f4", "(2, 99999)", values, 24, MOESIM_EIO, "npy"},
        {"<f4", "(2, 3)", values[1], 24, MOESIM_EIO, "row 1 has a number that is not finite"},
        {"<f4", "(2, 1)", values[3], 8, MOESIM_EIO, "all word vectors are 0"},
        {"<f4", "(2, 2)", values, 16, MOESIM_EINVAL, "has 2 dimensions, the study's d_model is 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        char path[512];
        snprintf(path, sizeof path, "%s",
                 folder_write("v.npy", bytes,
                              compose_npy(bytes, cases[i].descr, cases[i].shape, cases[i].data, cases[i].n)));
        instance_create(&w, "text", SETTINGS("files", file, "vocabulary", "word", "vectors", path, "word_list", list));
        cr_assert_eq(instance_init(&w, instance_env(10, i == 7 ? 1 : 3)), cases[i].status, "case %zu: %s", i,
                     w.error.text);
        cr_assert(strstr(w.error.text, cases[i].says) && strstr(w.error.text, path), "case %zu: %s", i, w.error.text);
        instance_destroy(&w);
    }
    struct instance unused;
    struct moesim_workload_shape of_unused;
    cr_assert_eq(instance_shape(&unused, "text", SETTINGS("files", file, "words", "100"), &of_unused), MOESIM_EINVAL);
    cr_assert_str_eq(unused.error.text, "words has no effect without vocabulary=word");
    instance_destroy(&unused);
    cr_assert_eq(
        instance_shape(&unused, "text", SETTINGS("files", file, "vocabulary", "word", "vectors", "x"), &of_unused),
        MOESIM_EINVAL);
    cr_assert_str_eq(unused.error.text, "vectors of words take word_list=FILE, which says whose they are");
    instance_destroy(&unused);
}

/* A trained model has the hidden states; of the words only the list is needed. */
Test(text_words, a_checkpoint_goes_without_vectors)
{
    const char *file = folder_write("a", "x y x z\n", 8), *list = folder_write("list", "y\nx\n", 4);
    const char *const *settings =
        SETTINGS("files", file, "vocabulary", "word", "word_list", list, "checkpoint", "m", "sequence", "4");
    struct instance w;
    struct moesim_workload_shape shape;
    cr_assert_eq(instance_shape(&w, "text", settings, &shape), MOESIM_OK, "%s", w.error.text);
    cr_assert(shape.vocabulary == 3 && shape.sequence == 4 && shape.d_model == 0);
    cr_assert_str_eq(shape.checkpoint, "m");
    instance_destroy(&w);
    instance_create(&w, "text", settings);
    cr_assert_eq(instance_init(&w, (struct moesim_workload_env){.n_layers = 1, .n_experts = 2, .n_tokens = 8}),
                 MOESIM_OK, "%s", w.error.text);
    const struct moesim_batch batch = instance_step(&w, 0, 0);
    cr_assert(!batch.hidden && batch.d_model == 0);
    for (uint32_t t = 0; t < 8; t++)
        cr_assert_leq(batch.token_id[t], 2);
    instance_destroy(&w);
    cr_assert_eq(instance_shape(&w, "text", SETTINGS("files", file, "word_list", list, "checkpoint", "m"), &shape),
                 MOESIM_EINVAL);
    cr_assert_str_eq(w.error.text, "word_list has no effect without vocabulary=word or vocabulary=piece");
    instance_destroy(&w);
}

/* Sequences of one domain, with the hidden states that its bytes have when all are in use. */
Test(text_words, one_domain_alone)
{
    static const char *const names[] = {"t/one", "t/two"};
    struct instance w;
    cr_assert_eq(mkdir(folder_path("t"), 0700), 0);
    for (int i = 0; i < 2; i++) {
        char text[3000];
        memset(text, 'a' + i, sizeof text);
        folder_write(names[i], text, sizeof text);
    }
    char folder[512];
    snprintf(folder, sizeof folder, "%s", folder_path("t"));
    float expected[3][8];
    static const char *const only[] = {"", "one", "t/two"};
    for (int i = 0; i < 3; i++) {
        instance_create(&w, "text", SETTINGS("files", folder, "domains", "file", "only", only[i], "sequence", "50"));
        cr_assert_eq(instance_init(&w, instance_env(200, 8)), MOESIM_OK, "%s", w.error.text);
        const struct moesim_batch b = instance_step(&w, 2, 0);
        for (uint32_t t = 0; t < 200; t++) {
            const uint32_t d = i ? (uint32_t)i - 1 : t / 50 % 2;
            cr_assert(b.domain[t] == d && b.token_id[t] == 'a' + d);
        }
        memcpy(expected[i], b.hidden + 99 * 8, sizeof expected[i]);
        if (i == 0)
            memcpy(expected[0], b.hidden + 149 * 8, sizeof expected[0]);
        instance_destroy(&w);
    }
    cr_assert_arr_eq(expected[0], expected[1], sizeof expected[0]);
    static const char *const wrong[] = {"three", "ne", "t"};
    for (int i = 0; i < 3; i++) {
        instance_create(&w, "text", SETTINGS("files", folder, "domains", "file", "only", wrong[i]));
        cr_assert_eq(instance_init(&w, instance_env(200, 8)), MOESIM_EINVAL);
        cr_assert(strstr(w.error.text, "no domain of the texts ends in"), "%s", w.error.text);
        instance_destroy(&w);
    }
}

/* ---- batching ---- */

enum { T = 64, D = 8, LENGTH = 32, PER_STEP = T / LENGTH, KNOWN_STEPS = 200 };

/* A token's hidden state depends on its place in its sequence only, however steps are made up. */
Test(text_words, a_token_is_the_same_in_every_batch)
{
    static float known[KNOWN_STEPS][T][D];
    static uint32_t ids[KNOWN_STEPS][T];
    static const char *const kinds[] = {"contiguous", "shuffled", "decode", "serving"};
    char file[512];
    snprintf(file, sizeof file, "%s", write_counting("t.xz"));
    for (int k = 0; k < 4; k++) {
        struct instance w;
        uint32_t compared = 0;
        instance_create(&w, "text", SETTINGS("files", file, "sequence", "32", "context", "4", "batching", kinds[k]));
        cr_assert_eq(instance_init(&w, instance_env(T, D)), MOESIM_OK, "%s", w.error.text);
        for (uint32_t step = 0; step < (k ? 60 : KNOWN_STEPS); step++) {
            const struct moesim_batch b = instance_step(&w, step, 1);
            cr_assert_eq(!b.padding, k < 3);
            if (k == 0) {
                memcpy(known[step], b.hidden, sizeof known[step]);
                memcpy(ids[step], b.token_id, sizeof ids[step]);
            }
            for (uint32_t t = 0; k && t < T; t++) {
                const uint32_t q = b.sequence_id[t], at = q / PER_STEP;
                uint32_t place = q % PER_STEP * LENGTH, found = 0;
                if ((b.padding && b.padding[t]) || at >= KNOWN_STEPS)
                    continue;
                for (uint32_t p = 0; p < LENGTH; p++)
                    found |= ids[at][place + p] == b.token_id[t] &&
                             !memcmp(known[at][place + p], b.hidden + (size_t)t * D, sizeof known[0][0]);
                cr_assert(found, "%s, step %u, token %u", kinds[k], step, t);
                compared++;
            }
        }
        cr_assert(!k || compared > 200, "%s: %u", kinds[k], compared);
        instance_destroy(&w);
    }
}

/* The same bits on any number of threads, from any step to any other; what lies 16 contexts back is left out and does
 * not show. */
Test(text_words, every_batching_is_a_pure_function)
{
    static const char *const kinds[] = {"contiguous", "shuffled", "decode", "serving"};
    char file[512];
    snprintf(file, sizeof file, "%s", write_counting("t.xz"));
    for (int k = 0; k < 4; k++) {
        struct instance a, b;
        const char *const *settings = SETTINGS("files", file, "sequence", "300", "context", "2", "batching", kinds[k]);
        instance_create(&a, "text", settings);
        instance_create(&b, "text", settings);
        cr_assert_eq(instance_init(&a, instance_env(200, D)), MOESIM_OK);
        cr_assert_eq(instance_init(&b, instance_env(200, D)), MOESIM_OK);
        const struct moesim_batch x = instance_step(&a, 9, 1);
        for (int threads = 1; threads <= 4; threads++) {
            omp_set_num_threads(threads);
            instance_step(&b, 4, 0);
            const struct moesim_batch y = instance_step(&b, 9, 1);
            cr_assert_arr_eq(x.hidden, y.hidden, 200 * D * sizeof(float));
            cr_assert_arr_eq(x.token_id, y.token_id, 200 * sizeof(uint32_t));
            for (uint32_t t = 0; t < 200 * D; t++)
                cr_assert(isfinite(y.hidden[t]));
        }
        instance_destroy(&a);
        instance_destroy(&b);
    }
}
