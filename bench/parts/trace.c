/*
 * Reading recorded decisions from the page cache, through the function that the workload uses. Each repeat opens the
 * file anew, so that checking it is part of the time. A plain read() of the same file into a buffer is timed in
 * between: what the machine gives at all.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <moesim/random.h>

#include "bench/folder.h"
#include "bench/parts/parts.h"
#include "workloads/trace/export.h"
#include "workloads/trace/writer.h"

enum { LAYERS = 24, EXPERTS = 64, K = 8, PIECE = 4096, READ_BYTES = 1 << 18 };

/* Uneven ids, and weights that need all of float32. */
static void fill(uint32_t layer, uint32_t piece, uint32_t *expert, float *weight)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST, .layer = layer, .step = piece};
    moesim_random_uniforms(&random, 0, PIECE * K, weight);
    for (uint32_t i = 0; i < PIECE * K; i++)
        expert[i] = (uint32_t)(weight[i] * weight[i] * EXPERTS);
}

static void make_trace(const char *path, uint32_t n_pieces, bool weighted)
{
    static uint32_t first[PIECE + 1], expert[PIECE * K];
    static float weight[PIECE * K];
    struct moesim_error err;
    struct trace_writer *writer;
    const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
    for (uint32_t t = 0; t <= PIECE; t++)
        first[t] = t * K;
    if (fd < 0 || trace_writer_create(fd, TRACE_DECISIONS, EXPERTS, &writer, &err))
        bench_stop("%s cannot be made", path);
    for (uint32_t p = 0; p < n_pieces; p++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            const struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weighted ? weight : NULL};
            fill(l, p, expert, weight);
            if (trace_write_pairs(writer, l, PIECE, &pairs, &err))
                bench_stop("%s", err.text);
        }
    if (trace_writer_finish(writer, &err))
        bench_stop("%s", err.text);
    trace_writer_destroy(writer);
    close(fd);
}

static void convert(const char *from, const char *to)
{
    struct moesim_error err;
    struct trace *trace;
    const struct trace_export *export;
    struct trace_export_options options = {.format = NULL};
    if (trace_open(from, NULL, &trace, &err) || trace_export_find(trace, to, &options, &export, &err) ||
        export->write(trace, to, &options, &err))
        bench_stop("%s", err.text);
    trace_close(trace);
}

struct source {
    const char *path;
    bool weighted;
    uint64_t sum, size;
};

/* All decisions of the file. */
static void read_trace(void *source)
{
    static uint32_t first[PIECE + 1], expert[PIECE * K];
    static float weight[PIECE * K];
    struct source *from = source;
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = from->weighted ? weight : NULL};
    struct moesim_error err;
    struct trace *trace;
    if (trace_open(from->path, NULL, &trace, &err))
        bench_stop("%s", err.text);
    const uint64_t n = trace_shape(trace)->n_tokens;
    for (uint64_t at = 0; at < n; at += PIECE)
        for (uint32_t l = 0; l < LAYERS; l++) {
            if (trace_read_pairs(trace, l, at, n - at < PIECE ? (uint32_t)(n - at) : PIECE, &pairs, &err))
                bench_stop("%s", err.text);
            from->sum += expert[0];
        }
    trace_close(trace);
}

static void read_bytes(void *source)
{
    static uint8_t buffer[READ_BYTES];
    struct source *from = source;
    const int fd = open(from->path, O_RDONLY);
    ssize_t n;
    from->size = 0;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        from->size += (uint64_t)n;
    close(fd);
}

static void measure(struct bench *bench, const char *name, const char *path, bool weighted)
{
    struct source source = {.path = path, .weighted = weighted};
    read_bytes(&source);
    struct bench_figure figure = {
        .part = "trace", .ours = bench_ours(read_trace, &source), .work = 1e-9 * (double)source.size, .unit = "GB/s"};
    figure.ours.single = true;
    snprintf(figure.name, sizeof figure.name, "%s", name);
    bench_add(&figure, "read() alone", read_bytes, &source, BENCH_FASTER, BENCH_UNBOUND)->runner.single = true;
    bench_measure(bench, &figure);
}

void part_trace(struct bench *bench)
{
    static const struct {
        const char *name, *file;
        bool weighted;
    } lines[] = {
        {"ids", "ids.trace", false}, {"ids and weights", "weights.trace", true}, {"ids [T, L, k]", "ids.npy", false}};
    const uint32_t n_pieces = bench->options.quick ? 4 : 128; /* 100 million decisions */
    char folder[FOLDER_PATH] = "", path[FOLDER_PATH], converted[FOLDER_PATH];
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char name[BENCH_NAME];
        snprintf(name, sizeof name, "%s, %s", strchr(lines[i].file, '.'), lines[i].name);
        if (!bench_wants(bench, "trace", name))
            continue;
        if (!*folder)
            folder_make(folder);
        folder_file(folder, strcmp(lines[i].file, "ids.npy") ? lines[i].file : "ids.trace", path);
        if (access(path, F_OK) != 0)
            make_trace(path, n_pieces, lines[i].weighted);
        if (strcmp(lines[i].file, "ids.npy") == 0) {
            convert(path, folder_file(folder, lines[i].file, converted));
            measure(bench, name, converted, false);
        } else
            measure(bench, name, path, lines[i].weighted);
    }
    if (*folder)
        folder_remove(folder);
}
