/*
 * Reading recorded decisions from the page cache, through the function that the workload uses: GB of the file a second,
 * and million decisions. Each repeat opens the file anew, so that checking it is part of the time. A plain read() of
 * the same file into a buffer is timed in between: what the machine gives at all.
 *
 * bench-trace [MILLION DECISIONS]
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <moesim/random.h>

#include "workloads/trace/export.h"
#include "workloads/trace/writer.h"

enum { LAYERS = 24, EXPERTS = 64, K = 8, PIECE = 4096, N_REPEATS = 9, READ_BYTES = 1 << 18 };

static void stop(const char *what)
{
    fprintf(stderr, "bench-trace: %s\n", what);
    exit(1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

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
        stop("no file can be made here");
    for (uint32_t p = 0; p < n_pieces; p++)
        for (uint32_t l = 0; l < LAYERS; l++) {
            const struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weighted ? weight : NULL};
            fill(l, p, expert, weight);
            if (trace_write_pairs(writer, l, PIECE, &pairs, &err))
                stop(err.text);
        }
    if (trace_writer_finish(writer, &err))
        stop(err.text);
    trace_writer_destroy(writer);
    close(fd);
}

/* All decisions of the file; the time it takes. */
static double read_trace(const char *path, bool weighted, uint64_t *sum)
{
    static uint32_t first[PIECE + 1], expert[PIECE * K];
    static float weight[PIECE * K];
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weighted ? weight : NULL};
    struct moesim_error err;
    struct trace *trace;
    const double start = seconds();
    if (trace_open(path, NULL, &trace, &err))
        stop(err.text);
    const uint64_t n = trace_shape(trace)->n_tokens;
    for (uint64_t at = 0; at < n; at += PIECE)
        for (uint32_t l = 0; l < LAYERS; l++) {
            if (trace_read_pairs(trace, l, at, n - at < PIECE ? (uint32_t)(n - at) : PIECE, &pairs, &err))
                stop(err.text);
            *sum += expert[0];
        }
    trace_close(trace);
    return seconds() - start;
}

static double read_bytes(const char *path, uint64_t *size)
{
    static uint8_t buffer[READ_BYTES];
    const double start = seconds();
    const int fd = open(path, O_RDONLY);
    ssize_t n;
    *size = 0;
    while ((n = read(fd, buffer, sizeof buffer)) > 0)
        *size += (uint64_t)n;
    close(fd);
    return seconds() - start;
}

static void measure(const char *name, const char *path, bool weighted, uint64_t n_decisions)
{
    double time[N_REPEATS], bare[N_REPEATS];
    uint64_t size = 0, sum = 0;
    read_trace(path, weighted, &sum);
    for (int i = 0; i < N_REPEATS; i++) {
        bare[i] = read_bytes(path, &size);
        time[i] = read_trace(path, weighted, &sum);
    }
    qsort(time, N_REPEATS, sizeof *time, by_size);
    qsort(bare, N_REPEATS, sizeof *bare, by_size);
    const double median = time[N_REPEATS / 2];
    printf("%-28s %7.1f MB  %6.2f GB/s  %7.0f M decisions/s  read() alone %6.2f GB/s\n", name, (double)size * 1e-6,
           (double)size / median * 1e-9, (double)n_decisions / median * 1e-6,
           (double)size / bare[N_REPEATS / 2] * 1e-9);
}

static void convert(const char *from, const char *to)
{
    struct moesim_error err;
    struct trace *trace;
    const struct trace_export *export;
    struct trace_export_options options = {.format = NULL};
    if (trace_open(from, NULL, &trace, &err) || trace_export_find(trace, to, &options, &export, &err) ||
        export->write(trace, to, &options, &err))
        stop(err.text);
    trace_close(trace);
}

int main(int argc, char **argv)
{
    const double million = argc > 1 ? atof(argv[1]) : 100;
    const uint32_t n_pieces = (uint32_t)(million * 1e6 / ((double)PIECE * K * LAYERS)) + 1;
    const uint64_t n = (uint64_t)n_pieces * PIECE * K * LAYERS;
    char folder[] = "bench-trace-XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0)
        stop("no folder can be made here");
    make_trace("ids.trace", n_pieces, false);
    make_trace("weights.trace", n_pieces, true);
    convert("ids.trace", "ids.npy");
    printf("%u layers, %u experts, %u a token, %llu decisions\n", LAYERS, EXPERTS, K, (unsigned long long)n);
    measure("trace, ids", "ids.trace", false, n);
    measure("trace, ids and weights", "weights.trace", true, n);
    measure(".npy, ids [T, L, k]", "ids.npy", false, n);
    const bool gone = unlink("ids.trace") == 0 && unlink("weights.trace") == 0 && unlink("ids.npy") == 0 &&
                      chdir("..") == 0 && rmdir(folder) == 0;
    return gone ? 0 : 1;
}
