/*
 * The machine's limits by themselves, and the matrix product of the BLAS that is bound.
 */
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include "bench/machine.h"
#include "bench/parts/parts.h"

enum { BYTES = 1 << 28, SIZE = 1024, BURN = 16 };

static void burn(void *state)
{
    (void)state;
    machine_burn(BURN);
}

static void read_all(void *memory)
{
    machine_read(memory, BYTES);
}

static void triad(void *memory)
{
    const size_t n = BYTES / 3 / sizeof(float) & ~(size_t)15;
    float *a = memory;
    machine_triad(a, a + n, a + 2 * n, n);
}

/* The one place where the BLAS gets all threads: everything of ours calls it from one. */
static void sgemm(void *memory)
{
    float *a = memory, *b = a + SIZE * SIZE, *c = b + SIZE * SIZE;
    openblas_set_num_threads(omp_get_max_threads());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIZE, SIZE, SIZE, 1, a, SIZE, b, SIZE, 0, c, SIZE);
    openblas_set_num_threads(1);
}

/* "SGEMM openblas-pthread Zen". */
static void name_blas(char name[BENCH_NAME])
{
    Dl_info info;
    void *address;
    void (*function)(void) = (void (*)(void))cblas_sgemm;
    memcpy(&address, &function, sizeof address);
    const bool known = dladdr(address, &info) && info.dli_fname;
    const char *file = known && strrchr(info.dli_fname, '/') ? strrchr(info.dli_fname, '/') + 1 : "BLAS";
    snprintf(name, BENCH_NAME, "SGEMM %s %.20s", file, openblas_get_corename());
}

void part_machine(struct bench *bench)
{
    const double flop = machine_burn(BURN);
    float *memory = malloc(BYTES);
    if (!memory)
        bench_stop("memory is exhausted");
    memset(memory, 0, BYTES);
    struct bench_figure figure = {.part = "machine",
                                  .name = "multiply-adds",
                                  .ours = bench_ours(burn, NULL),
                                  .work = 1e-9 * flop,
                                  .unit = "Gflop/s"};
    if (bench_wants(bench, "machine", figure.name))
        bench_measure(bench, &figure);
    figure = (struct bench_figure){.part = "machine",
                                   .name = "reading",
                                   .ours = bench_ours(read_all, memory),
                                   .work = 1e-9 * BYTES,
                                   .unit = "GB/s"};
    if (bench_wants(bench, "machine", figure.name))
        bench_measure(bench, &figure);
    snprintf(figure.name, sizeof figure.name, "triad");
    figure.ours.run = triad;
    if (bench_wants(bench, "machine", figure.name))
        bench_measure(bench, &figure);
    figure = (struct bench_figure){.part = "machine",
                                   .ours = bench_ours(sgemm, memory),
                                   .work = 2e-9 * SIZE * SIZE * SIZE,
                                   .unit = "Gflop/s",
                                   .limit = BENCH_PEAK,
                                   .limit_work = 2.0 * SIZE * SIZE * SIZE};
    name_blas(figure.name);
    if (bench_wants(bench, "machine", figure.name))
        bench_measure(bench, &figure);
    free(memory);
}
