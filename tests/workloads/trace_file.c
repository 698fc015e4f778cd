/*
 * moesim's own trace file: what is written comes back, wherever it is cut into pieces; it can be appended to; damage is
 * found; what a broken recording leaves is recovered.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/plan.h>
#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"
#include "workloads/trace/file_layout.h"
#include "workloads/trace/writer.h"

TestSuite(trace_file, .timeout = 60, .init = folder_create, .fini = folder_remove);

static int open_new(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    cr_assert(fd >= 0);
    return fd;
}

static struct trace_writer *begin(int fd, enum trace_kind kind, uint32_t n_experts)
{
    struct trace_writer *writer;
    struct moesim_error err = {""};
    cr_assert_eq(trace_writer_create(fd, kind, n_experts, &writer, &err), MOESIM_OK, "%s", err.text);
    return writer;
}

static void finish(struct trace_writer *writer, int fd)
{
    struct moesim_error err = {""};
    cr_assert_eq(trace_writer_finish(writer, &err), MOESIM_OK, "%s", err.text);
    trace_writer_destroy(writer);
    close(fd);
}

/* Tokens [first, last) of the recording, `piece` at a time, layer by layer within a piece. */
static void write_tokens(struct trace_writer *writer, const struct recording *r, uint32_t first, uint32_t last,
                         uint32_t piece)
{
    struct moesim_error err = {""};
    uint32_t start[RECORDING_TOKENS + 1];
    for (uint32_t t = 0; t <= r->n_tokens; t++)
        start[t] = t * r->k;
    for (uint32_t at = first; at < last; at += piece)
        for (uint32_t l = 0; l < r->n_layers; l++) {
            const uint32_t n = last - at < piece ? last - at : piece;
            const struct trace_pairs pairs = {.first = start,
                                              .expert = (uint32_t *)(uintptr_t)&r->expert[l][at][0],
                                              .weight = (float *)(uintptr_t)&r->weight[l][at][0]};
            cr_assert_eq(trace_write_pairs(writer, 10 + l, n, &pairs, &err), MOESIM_OK, "%s", err.text);
        }
    cr_assert_eq(trace_write_labels(writer, TRACE_SEQUENCE, last - first, r->sequence + first, &err), MOESIM_OK);
    cr_assert_eq(trace_write_labels(writer, TRACE_TOKEN_ID, last - first, r->token_id + first, &err), MOESIM_OK);
}

static void expect_labels(const struct recording *r, struct trace *trace)
{
    struct moesim_error err = {""};
    for (uint32_t piece = 1; piece <= r->n_tokens; piece *= 7)
        for (uint32_t at = 0; at < r->n_tokens; at += piece) {
            uint32_t got[RECORDING_TOKENS];
            const uint32_t n = r->n_tokens - at < piece ? r->n_tokens - at : piece;
            cr_assert_eq(trace_read_labels(trace, TRACE_SEQUENCE, at, n, got, &err), MOESIM_OK, "%s", err.text);
            cr_assert_arr_eq(got, r->sequence + at, n * sizeof *got);
            cr_assert_eq(trace_read_labels(trace, TRACE_TOKEN_ID, at, n, got, &err), MOESIM_OK, "%s", err.text);
            cr_assert_arr_eq(got, r->token_id + at, n * sizeof *got);
        }
}

Test(trace_file, gives_back_what_was_written_in_any_pieces)
{
    static struct recording r;
    recording_fill(&r, 1);
    for (uint32_t piece = 1; piece <= 256; piece *= 4) {
        const char *path = folder_path("a.trace");
        const int fd = open_new(path);
        struct trace_writer *writer = begin(fd, TRACE_DECISIONS, 0);
        write_tokens(writer, &r, 0, r.n_tokens, piece);
        finish(writer, fd);
        struct trace *trace = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
        cr_assert_eq(trace_layer_id(trace, 2), 12);
        cr_assert_eq(trace_shape(trace)->n_experts, 12);
        for (uint32_t n = 1; n <= 200; n = 3 * n + 1)
            recording_expect(&r, trace, n);
        expect_labels(&r, trace);
        trace_close(trace);
    }
}

Test(trace_file, appends)
{
    static struct recording r;
    recording_fill(&r, 2);
    const char *path = folder_path("a.trace");
    int fd = open_new(path);
    struct trace_writer *writer = begin(fd, TRACE_DECISIONS, 0);
    struct moesim_error err = {""};
    write_tokens(writer, &r, 0, 77, 20);
    finish(writer, fd);
    const uint32_t ends[] = {78, 130, 200};
    for (uint32_t i = 0, from = 77; i < 3; from = ends[i++]) {
        fd = open(path, O_RDWR);
        cr_assert_eq(trace_writer_append(fd, path, &writer, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(trace_writer_tokens(writer, 11), from);
        write_tokens(writer, &r, from, ends[i], 33);
        finish(writer, fd);
    }
    struct trace *trace = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
    recording_expect(&r, trace, 50);
    expect_labels(&r, trace);
    trace_close(trace);
}

/* Uneven tokens, refusals, bad rows, slots: all that a plan knows of its pairs. Blocks of over 65536 tokens. */
Test(trace_file, keeps_plans_as_they_are)
{
    enum { TOKENS = 150000, ROOM = 3 * TOKENS };
    static uint32_t first[TOKENS + 1], expert[ROOM], got_first[TOKENS + 1], got_expert[ROOM];
    static float weight[ROOM], got_weight[ROOM];
    static uint8_t fate[ROOM], got_fate[ROOM];
    static int32_t slot[ROOM], got_slot[ROOM];
    const struct moesim_random random = {.seed = 5, .stream = MOESIM_STREAM_TEST};
    struct moesim_error err = {""};
    for (uint32_t t = 0, n = 0; t < TOKENS; t++) {
        for (uint32_t i = 0; i < moesim_random_below(&random, t, 4); i++, n++) {
            const uint32_t draw = moesim_random_below(&random, TOKENS + n, 1000);
            fate[n] = draw < 900   ? MOESIM_KEPT
                      : draw < 960 ? MOESIM_OVER_CAPACITY
                      : draw < 990 ? MOESIM_REROUTED
                                   : MOESIM_BAD_ROW;
            expert[n] = fate[n] == MOESIM_BAD_ROW ? MOESIM_NO_EXPERT : 299 - draw % 300;
            weight[n] = fate[n] == MOESIM_KEPT ? moesim_random_uniform(&random, n) : 0;
            slot[n] = fate[n] != MOESIM_KEPT ? -1 : draw % 7 == 0 ? MOESIM_SLOT_BY_ORDER : (int32_t)(n % 70000);
        }
        first[t + 1] = n;
    }
    const char *path = folder_path("a.trace");
    const int fd = open_new(path);
    struct trace_writer *writer = begin(fd, TRACE_DECISIONS, 300);
    const struct trace_pairs pairs = {first, expert, weight, fate, slot};
    cr_assert_eq(trace_write_pairs(writer, 0, TOKENS, &pairs, &err), MOESIM_OK, "%s", err.text);
    finish(writer, fd);

    struct trace *trace = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
    struct trace_pairs got = {got_first, got_expert, got_weight, got_fate, got_slot};
    cr_assert_eq(trace_read_pairs(trace, 0, 0, TOKENS, &got, &err), MOESIM_OK, "%s", err.text);
    cr_assert_arr_eq(got_first, first, sizeof first);
    cr_assert_arr_eq(got_expert, expert, first[TOKENS] * sizeof *expert);
    cr_assert_arr_eq(got_weight, weight, first[TOKENS] * sizeof *weight);
    cr_assert_arr_eq(got_fate, fate, first[TOKENS]);
    cr_assert_arr_eq(got_slot, slot, first[TOKENS] * sizeof *slot);
    trace_close(trace);
}

Test(trace_file, is_compact)
{
    static struct recording r;
    struct stat st;
    recording_fill(&r, 1);
    const char *path = folder_path("a.trace");
    const int fd = open_new(path);
    struct trace_writer *writer = begin(fd, TRACE_DECISIONS, 0);
    write_tokens(writer, &r, 0, r.n_tokens, 100);
    finish(writer, fd);
    cr_assert_eq(stat(path, &st), 0);
    /* a byte an id, two a weight (they are exact in float16), four a token id, and some for blocks and directory */
    const long long data = 200 * 3 * 3 * 3 + 200 * 4;
    cr_assert(st.st_size > data && st.st_size < data + 1000, "%lld", (long long)st.st_size);
}

Test(trace_file, refuses_to_write_what_is_no_trace)
{
    uint32_t first[] = {0, 2}, expert[] = {1, 4};
    float weight[] = {1, NAN}, rows[] = {1, 2};
    const double loads[] = {1, -1};
    struct moesim_error err = {""};
    const int fd = open_new(folder_path("a.trace"));
    struct trace_writer *w = begin(fd, TRACE_DECISIONS, 4);
    const struct trace_pairs ids = {.first = first, .expert = expert};
    cr_assert_eq(trace_write_pairs(w, 0, 1, &ids, &err), MOESIM_EIO);
    cr_assert_str_eq(err.text, "expert 4 is not one of the 4");
    trace_writer_destroy(w);

    w = begin(fd, TRACE_DECISIONS, 5);
    const struct trace_pairs weighted = {.first = first, .expert = expert, .weight = weight};
    cr_assert_eq(trace_write_pairs(w, 0, 1, &weighted, &err), MOESIM_EIO);
    cr_assert_str_eq(err.text, "a weight of expert 4 is not a finite number");
    trace_writer_destroy(w);

    w = begin(fd, TRACE_DECISIONS, 5);
    cr_assert_eq(trace_write_pairs(w, 0, 1, &ids, &err), MOESIM_OK);
    cr_assert_eq(trace_write_pairs(w, 1, 1, &ids, &err), MOESIM_OK);
    cr_assert_eq(trace_write_pairs(w, 0, 1, &ids, &err), MOESIM_OK);
    weight[1] = 0;
    cr_assert_eq(trace_write_pairs(w, 0, 1, &weighted, &err), MOESIM_EIO, "weights for some only");
    cr_assert_eq(trace_writer_finish(w, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "layer 0 has 2 tokens and layer 1 has 1"), "%s", err.text);
    trace_writer_destroy(w);

    w = begin(fd, TRACE_LOADS, 0);
    cr_assert_eq(trace_write_load(w, 3, 0, loads, 2, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "layer 3, expert 1"), "%s", err.text);
    cr_assert_eq(trace_writer_finish(w, &err), MOESIM_EIO);
    trace_writer_destroy(w);

    w = begin(fd, TRACE_LOGITS, 2);
    cr_assert_eq(trace_write_rows(w, 0, 1, rows, 2, &err), MOESIM_OK);
    trace_writer_destroy(w);
    close(fd);
}

/* ---- damage ---- */

static size_t read_file(const char *path, uint8_t *bytes, size_t room)
{
    FILE *file = fopen(path, "rb");
    cr_assert(file);
    const size_t n = fread(bytes, 1, room, file);
    fclose(file);
    return n;
}

/* Whether every layer and label can be read to the end. */
static bool reads(const char *path, struct trace_options options, struct moesim_error *err)
{
    struct trace *trace;
    bool good = trace_open(path, &options, &trace, err) == MOESIM_OK;
    const struct trace_shape *s = good ? trace_shape(trace) : NULL;
    uint32_t first[RECORDING_TOKENS + 1], expert[RECORDING_TOKENS * RECORDING_K], label[RECORDING_TOKENS];
    float weight[RECORDING_TOKENS * RECORDING_K];
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weight};
    for (uint32_t l = 0; good && l < s->n_layers; l++)
        good = trace_read_pairs(trace, l, 0, (uint32_t)s->n_tokens, &pairs, err) == MOESIM_OK;
    for (uint32_t i = 0; good && i < TRACE_N_LABELS; i++)
        if (s->has_label[i])
            good = trace_read_labels(trace, i, 0, (uint32_t)s->n_tokens, label, err) == MOESIM_OK;
    trace_close(trace);
    return good;
}

static size_t write_sample(uint8_t *bytes, size_t room, uint32_t n_tokens)
{
    static struct recording r;
    recording_fill(&r, 1);
    const char *path = folder_path("a.trace");
    const int fd = open_new(path);
    struct trace_writer *writer = begin(fd, TRACE_DECISIONS, 12);
    write_tokens(writer, &r, 0, n_tokens, 64);
    finish(writer, fd);
    return read_file(path, bytes, room);
}

/* Every byte of the file is under some hash. */
Test(trace_file, finds_every_flipped_bit)
{
    static uint8_t bytes[1 << 16];
    const size_t n = write_sample(bytes, sizeof bytes, 20);
    struct moesim_error err = {""};
    cr_assert(n > 0 && n < sizeof bytes);
    for (size_t i = 0; i < n; i++) {
        bytes[i] ^= (uint8_t)(1u << i % 8);
        const char *path = folder_write("b.trace", bytes, n);
        cr_assert_not(reads(path, (struct trace_options){.kind = TRACE_ANY}, &err), "byte %zu", i);
        cr_assert(strstr(err.text, "b.trace"), "%s", err.text);
        bytes[i] ^= (uint8_t)(1u << i % 8);
    }
}

Test(trace_file, says_that_it_is_cut_off_and_saves_what_is_whole)
{
    static uint8_t bytes[1 << 16];
    const size_t n = write_sample(bytes, sizeof bytes, 200);
    struct moesim_error err = {""};
    for (size_t length = 0; length < n; length += 13) {
        const char *path = folder_write("b.trace", bytes, length);
        cr_assert_not(reads(path, (struct trace_options){.kind = TRACE_ANY}, &err), "%zu bytes", length);
        if (length > 64)
            cr_assert(strstr(err.text, "cut off"), "%zu bytes: %s", length, err.text);
        (void)!reads(path, (struct trace_options){.recover = true}, &err);
    }
    /* the blocks are whole, the directory is not */
    struct file_end end;
    memcpy(&end, bytes + n - sizeof end, sizeof end);
    const char *path = folder_write("b.trace", bytes, (size_t)end.directory + 40);
    struct trace *trace = recording_open(path, (struct trace_options){.recover = true});
    static struct recording r;
    recording_fill(&r, 1);
    recording_expect(&r, trace, 50);
    cr_assert(strstr(trace_note(trace), "200 tokens are whole"), "%s", trace_note(trace));
    trace_close(trace);
}

/* ---- headers that lie, with hashes that are right ---- */

static void seal(uint8_t *bytes, size_t n)
{
    struct file_head head;
    struct file_block block;
    memcpy(&head, bytes, sizeof head);
    head.hash = file_hash(&head, offsetof(struct file_head, hash));
    memcpy(bytes, &head, sizeof head);
    for (size_t at = sizeof head; at + sizeof block <= n; at += sizeof block + block.size) {
        memcpy(&block, bytes + at, sizeof block);
        if (block.size > n - at - sizeof block || block.size % 8)
            return;
        block.hash = file_hash(bytes + at + sizeof block, block.size);
        block.head_hash = file_hash(&block, offsetof(struct file_block, head_hash));
        memcpy(bytes + at, &block, sizeof block);
    }
}

Test(trace_file, believes_no_header)
{
    static uint8_t bytes[1 << 16], lying[1 << 16];
    const size_t n = write_sample(bytes, sizeof bytes, 200);
    struct moesim_error err = {""};
    struct file_end end;
    memcpy(&end, bytes + n - sizeof end, sizeof end);
    const size_t block = sizeof(struct file_head), directory = (size_t)end.directory + sizeof(struct file_block);
    const size_t entry = directory + sizeof(struct file_directory) + 16; /* after three layers, padded */
    const struct {
        size_t at, size;
        uint64_t value;
        const char *says;
    } lies[] = {
        {8, 4, 2, "version 2"},
        {12, 4, 0, "kind"},
        {12, 4, 9, "kind"},
        {16, 4, UINT32_MAX, "too many experts"},
        {block + 4, 4, 99, "header does not match"},
        {block + 8, 4, 99, "header does not match"},
        {block + 12, 4, 1, "header does not match"},
        {block + 12, 4, UINT32_MAX, "does not hold what its header says"},
        {block + 16, 8, 7, "header does not match"},
        {block + 24, 8, UINT64_MAX / 2, "does not hold what its header says"},
        {block + 24, 8, 1, "does not hold what its header says"},
        {block + 32, 4, 0, "does not hold what its header says"},
        {block + 32, 4, UINT32_MAX, "does not hold what its header says"},
        {block + 36, 4, UINT32_MAX, "does not hold what its header says"},
        {block + 64, 1, 200, "names expert 200 of 12"},
        {directory, 4, 0, "counts do not fit"},
        {directory, 4, UINT32_MAX, "counts do not fit"},
        {directory + 4, 4, 0, "no experts"},
        {directory + 4, 4, UINT32_MAX, "too many"},
        {directory + 4, 4, 5, "of 5"},
        {directory + 8, 4, UINT32_MAX, "too many"},
        {directory + 8, 4, 1, "does not hold what its header says"},
        {directory + 16, 8, 0, "no tokens"},
        {directory + 16, 8, 199, "do not make up 199 tokens"},
        {directory + 16, 8, UINT64_MAX, "do not make up"},
        {directory + 24, 8, UINT64_MAX / 32 + 3, "counts do not fit"},
        {directory + 24, 8, 1, "counts do not fit"},
        {directory + 48, 4, 99, "layer 99 do not make up"},
        {directory + 52, 4, 10, "not in order"},
        {entry, 8, 4, "header does not match"},
        {entry, 8, UINT64_MAX - 7, "header does not match"},
        {entry + 8, 8, 1, "do not make up"},
        {entry + 16, 4, 0, "do not make up"},
        {entry + 16, 4, 201, "do not make up"},
        {entry + 20, 4, 7, "do not make up"},
        {entry + 24, 4, 5, "do not make up"},
        {n - 16, 8, 8, "cut off"},
        {n - 16, 8, UINT64_MAX - 63, "cut off"},
        {n - 8, 1, 'x', "cut off"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(lying, bytes, n);
        memcpy(lying + lies[i].at, &lies[i].value, lies[i].size);
        seal(lying, n);
        err.text[0] = '\0';
        const char *path = folder_write("b.trace", lying, n);
        cr_assert_not(reads(path, (struct trace_options){.kind = TRACE_ANY}, &err), "lie %zu", i);
        cr_assert(strstr(err.text, lies[i].says), "lie %zu: %s", i, err.text);
        (void)!reads(path, (struct trace_options){.recover = true}, &err);
    }
}

/* No value of the lanes is lost: words that differ give hashes that differ, also in pairs that cancel under sums. */
Test(trace_file, hashes_tell_words_apart)
{
    uint64_t words[9] = {0};
    const uint64_t plain = file_hash(words, sizeof words);
    for (uint32_t i = 0; i < 9; i++)
        for (uint32_t bit = 0; bit < 64; bit++) {
            words[i] = UINT64_C(1) << bit;
            cr_assert_neq(file_hash(words, sizeof words), plain);
            if (i >= 4) {
                words[i - 4] = words[i];
                cr_assert_neq(file_hash(words, sizeof words), plain);
                words[i - 4] = 0;
            }
            words[i] = 0;
        }
    cr_assert_neq(file_hash(words, 64), plain);
}
