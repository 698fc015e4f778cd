/*
 * moesim-bench: measures moesim on this machine, beside the machine's limits and other programs.
 */
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cblas.h>

#include "bench/ggml.h"
#include "bench/options.h"
#include "bench/output.h"
#include "bench/parts/parts.h"
#include "sim/layer/products.h"

const struct bench_part bench_parts[] = {
    {"machine", "multiply-adds, bandwidth, and the BLAS that is bound", part_machine},
    {"route", "softmax-topk and expert-choice beside PyTorch, numpy and ggml", part_route},
    {"routers", "every router beside softmax-topk", part_routers},
    {"gate", "the gate's product, and what routing adds to it", part_gate},
    {"layer", "the MoE layer beside PyTorch and ggml", part_layer},
    {"placement", "placing the experts of 61 layers", part_placement},
    {"cost", "pricing a routed layer", part_cost},
    {"trace", "reading recorded decisions", part_trace},
    {"train", "a training step beside SGEMM", part_train},
    {"workload", "drawing gate columns", part_workload},
    {"step", "a step of an experiment beside its routing alone", part_step},
    {"store", "writing runs into a database", part_store},
    {"study", "whole studies, and the memory of a run", part_study},
    {"growth", "how time grows with tokens, experts, choices, layers, devices", part_growth},
    {NULL, NULL, NULL},
};

static bool is_asked_for(const struct bench_options *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_parts; i++)
        if (strcmp(o->part[i], name) == 0)
            return true;
    return o->n_parts == 0;
}

static void print_stamp(const struct bench *bench)
{
    char stamp[512];
    output_stamp(bench, stamp, sizeof stamp);
    for (char *rest = stamp; *rest;) { /* at commas, below 100 columns */
        size_t n = strlen(rest);
        while (n > 98) {
            const char *comma = memrchr(rest, ',', n);
            if (!comma)
                break;
            n = (size_t)(comma - rest);
        }
        printf("%.*s\n", (int)n, rest);
        rest += n + strspn(rest + n, ", ");
    }
    if (bench->ggml)
        printf("ggml is %s\n", ggml_name(bench->ggml));
    puts("");
}

/* Writes what was asked for; the results are not lost with the first that fails. */
static int write_outputs(const struct bench *bench, const struct options *o)
{
    const struct {
        const char *path;
        enum moesim_status (*write)(const struct bench *, const char *, struct moesim_error *);
    } outputs[] = {{o->db, output_database}, {o->json, output_json}, {o->plot, output_page}};
    int failed = 0;
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        struct moesim_error err;
        if (!outputs[i].path || !outputs[i].write(bench, outputs[i].path, &err))
            continue;
        fprintf(stderr, "moesim-bench: %s\n", err.text);
        failed = 4;
    }
    return failed;
}

/* Threads that wait spin for some 50 us, which is longer than between two parallel regions of one call, and then sleep:
 * those of one process must not take the processors from the next one, and processor time is to be work. OpenMP reads
 * that when it is loaded. */
static void start_again(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") || setenv("GOMP_SPINCOUNT", "2000", 1))
        return;
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], PART_STUDY_MEMORY) == 0)
        return part_study_memory(argv + 2);
    start_again(argv);
    static struct bench bench;
    struct options options;
    options_read(&options, argc, argv);
    bench.options = options.bench;
    signal(SIGPIPE, SIG_IGN); /* a peer that dies is told by its silence */
    if (bench.options.threads)
        omp_set_num_threads((int)bench.options.threads);
    openblas_set_num_threads(1);
    if (!moesim_products_find(bench.options.products))
        bench_stop("no products '%s' here: avx2-fma, portable or openblas", bench.options.products);
    if (bench.options.ggml && !bench.options.list)
        bench.ggml = ggml_load(bench.options.ggml);
    if (!bench.options.list)
        print_stamp(&bench);
    for (const struct bench_part *part = bench_parts; part->name; part++)
        if (is_asked_for(&bench.options, part->name))
            part->measure(&bench);
    return bench.options.list ? 0 : write_outputs(&bench, &options);
}
