/*
 * The gate's product beside the peak and the BLAS, and what routing adds to it.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cblas.h>

#include "bench/parts/parts.h"
#include "bench/setting.h"

enum { D_MODEL = 1024 };

static const struct setting_shape shapes[] = {{.n_experts = 8, .top_k = 2},
                                              {.n_experts = 64, .top_k = 2},
                                              {.n_experts = 64, .top_k = 8},
                                              {.n_experts = 256, .top_k = 8}};

/* The BLAS gets all threads here, as its users give it. */
static void run_blas(void *setting)
{
    struct setting *s = setting;
    openblas_set_num_threads(omp_get_max_threads());
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)s->batch.n_tokens, (int)s->gate.n_columns, D_MODEL, 1,
                s->hidden, D_MODEL, s->gate.weight, (int)s->gate.stride, 0, s->gate.columns, (int)s->gate.stride);
    openblas_set_num_threads(1);
}

static void measure(struct bench *bench, struct setting_shape shape, bool routed, const char *name)
{
    struct setting s;
    shape.gated = true;
    shape.d_model = D_MODEL;
    shape.n_tokens = bench->options.quick ? 2048 : 16384;
    setting_open_spec(&s, "softmax-topk", shape);
    struct bench_figure figure = {.part = "gate",
                                  .ours = bench_ours(routed ? setting_route : setting_gate, &s),
                                  .work = 1e-6 * s.batch.n_tokens,
                                  .unit = "Mtoken/s"};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    if (routed)
        bench_add(&figure, "the gate alone", setting_gate, &s, BENCH_COST, BENCH_AT_MOST(1.1));
    else {
        figure.limit = BENCH_PEAK;
        figure.limit_work = 2.0 * s.batch.n_tokens * D_MODEL * shape.n_experts;
        bench_add(&figure, "OpenBLAS", run_blas, &s, BENCH_FASTER, BENCH_UNBOUND);
    }
    bench_measure(bench, &figure);
    setting_close(&s);
}

void part_gate(struct bench *bench)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        char name[BENCH_NAME];
        const bool seen = i > 0 && shapes[i].n_experts == shapes[i - 1].n_experts;
        snprintf(name, sizeof name, "gate E=%u d=%u", shapes[i].n_experts, D_MODEL);
        if (!seen && bench_wants(bench, "gate", name))
            measure(bench, shapes[i], false, name);
        snprintf(name, sizeof name, "gate, softmax-topk E=%u k=%u", shapes[i].n_experts, shapes[i].top_k);
        if (bench_wants(bench, "gate", name))
            measure(bench, shapes[i], true, name);
    }
}
