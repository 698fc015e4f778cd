/*
 * libFuzzer targets for the readers of recorded routing: one program for each parser, by -DTARGET_<name>. Every input
 * is a file; what opens is read from end to end, so that a parser which lets something pass has to live with it.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workloads/trace/export_parts.h"
#include "workloads/trace/file_layout.h"
#include "workloads/trace/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#if defined(TARGET_npy)
#define OPENER trace_open_npy
#elif defined(TARGET_npz)
#define OPENER trace_open_npz
#elif defined(TARGET_safetensors)
#define OPENER trace_open_safetensors
#elif defined(TARGET_json)
#define OPENER trace_open_json
#elif defined(TARGET_csv)
#define OPENER trace_open_csv
#elif defined(TARGET_gguf)
#define OPENER trace_open_gguf
#elif defined(TARGET_file)
#define OPENER trace_open_file
#elif defined(TARGET_trtllm)
#define OPENER trace_open_trtllm_folder
#elif defined(TARGET_sequences)
#define OPENER NULL
#endif

enum { MOST_READ = 1 << 16 };

/* The input as a file without a name, which the path leads to. */
static const char *as_file(const uint8_t *data, size_t size)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("input", 0);
    assert(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

static void write_file(const char *folder, const char *name, const uint8_t *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert(file && (size == 0 || fwrite(data, 1, size, file) == size) && fclose(file) == 0);
}

/* meta_info.json up to the first newline, rank0.safetensors after it. */
static const char *as_folder(const uint8_t *data, size_t size)
{
    static char folder[] = "/tmp/moesim-fuzz-XXXXXX";
    static bool made;
    made = made || mkdtemp(folder);
    assert(made);
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    const size_t head = end ? (size_t)(end - data) : size;
    write_file(folder, "meta_info.json", data, head);
    write_file(folder, "rank0.safetensors", end ? end + 1 : data, end ? size - head - 1 : 0);
    return folder;
}

/* Gives a damaged trace file its right hashes, so that what lies behind them is reached. */
static void seal(uint8_t *bytes, size_t size)
{
    struct file_head head;
    struct file_block block;
    size_t at = sizeof head;
    if (size < sizeof head)
        return;
    memcpy(&head, bytes, sizeof head);
    head.hash = file_hash(&head, offsetof(struct file_head, hash));
    memcpy(bytes, &head, sizeof head);
    while (at + sizeof block <= size) {
        memcpy(&block, bytes + at, sizeof block);
        if (memcmp(block.tag, FILE_BLOCK_TAG, 4) != 0 || block.size > size - at - sizeof block || block.size % 8)
            break;
        block.hash = file_hash(bytes + at + sizeof block, block.size);
        block.head_hash = file_hash(&block, offsetof(struct file_block, head_hash));
        memcpy(bytes + at, &block, sizeof block);
        at += sizeof block + block.size;
    }
}

static void read_decisions(struct trace_source *s, uint32_t layer, uint64_t first, uint32_t n)
{
    struct moesim_error err;
    const size_t pairs = (size_t)n * s->shape.top_k + 1;
    struct trace_pairs p = {.first = malloc((n + 1u) * sizeof(uint32_t)),
                            .expert = malloc(pairs * sizeof(uint32_t)),
                            .weight = malloc(pairs * sizeof(float)),
                            .fate = malloc(pairs),
                            .slot = malloc(pairs * sizeof(int32_t))};
    p.first[0] = 0;
    if (s->reading->pairs(s->state, layer, first, n, &p, &err) == MOESIM_OK) {
        assert(p.first[n] < pairs);
        for (uint32_t i = 0; i < p.first[n]; i++)
            assert(p.expert[i] < s->shape.n_experts || p.expert[i] == UINT32_MAX);
    }
    free(p.first);
    free(p.expert);
    free(p.weight);
    free(p.fate);
    free(p.slot);
}

static void read_layer(struct trace_source *s, uint32_t layer)
{
    struct moesim_error err;
    const struct trace_shape *shape = &s->shape;
    const uint64_t width = shape->kind == TRACE_DECISIONS ? shape->top_k + 1u : shape->n_experts;
    const uint32_t room = width < MOST_READ ? (uint32_t)(MOST_READ / width) : 1;
    const uint32_t n = shape->n_tokens < room ? (uint32_t)shape->n_tokens : room;
    double *load = malloc(shape->n_experts * sizeof *load);
    float *rows = shape->kind == TRACE_LOGITS ? malloc((size_t)n * shape->n_experts * sizeof *rows) : NULL;
    if (shape->kind == TRACE_DECISIONS && n) {
        read_decisions(s, layer, 0, n);
        read_decisions(s, layer, shape->n_tokens - n, n);
        read_decisions(s, layer, shape->n_tokens / 2, 1);
    }
    for (uint32_t step = 0; shape->kind == TRACE_LOADS && step < shape->n_steps && step < 4; step++)
        (void)!s->reading->load(s->state, layer, step, load, &err);
    if (rows && n)
        (void)!s->reading->rows(s->state, layer, shape->n_tokens - n, n, rows, &err);
    free(load);
    free(rows);
}

static void read_all(struct trace_source *s)
{
    struct moesim_error err;
    const struct trace_shape *shape = &s->shape;
    const uint32_t n = shape->n_tokens < MOST_READ ? (uint32_t)shape->n_tokens : MOST_READ;
    uint32_t *values = malloc((n + 1u) * sizeof *values);
    assert(shape->n_layers > 0 && shape->n_experts > 0);
    for (uint32_t l = 0; l < shape->n_layers && l < 4; l++)
        read_layer(s, l);
    read_layer(s, shape->n_layers - 1);
    for (uint32_t label = 0; label < TRACE_N_LABELS && n; label++)
        if (shape->has_label[label])
            (void)!s->reading->labels(s->state, label, shape->n_tokens - n, n, values, &err);
    free(values);
}

static void open_and_read(const char *path, trace_opener *opener, struct trace_options options)
{
    struct trace_source source = {.reading = NULL};
    struct moesim_error err = {""};
    if (!opener) {
        struct trace_sequences *sequences;
        uint32_t values[64];
        if (trace_sequences_read(path, "domain", 1000, &sequences, &err) == MOESIM_OK) {
            trace_sequences_label(sequences, TRACE_SEQUENCE, 936, 64, values);
            trace_sequences_label(sequences, TRACE_DOMAIN, 0, 64, values);
            trace_sequences_free(sequences);
        }
    } else if (opener(path, &options, &source, &err) == MOESIM_OK) {
        read_all(&source);
        source.reading->close(source.state);
    } else {
        assert(err.text[0]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    trace_opener *opener = OPENER;
    if (opener == trace_open_trtllm_folder) {
        open_and_read(as_folder(data, size), opener, (struct trace_options){.n_experts = 0});
        return 0;
    }
    open_and_read(as_file(data, size), opener, (struct trace_options){.n_experts = 0});
    open_and_read(as_file(data, size), opener,
                  (struct trace_options){.n_experts = 3, .kind = size % 4, .recover = true});
    if (opener == trace_open_file && size > 0) {
        uint8_t *sealed = malloc(size);
        memcpy(sealed, data, size);
        seal(sealed, size);
        open_and_read(as_file(sealed, size), opener, (struct trace_options){.recover = size % 2});
        free(sealed);
    }
    return 0;
}
