/*
 * A whole training step of a byte model beside OpenBLAS's products of as much flop: forward, backward, clipping, AdamW
 * and the routers' update. The ratio would be 1 for a step that is nothing but such products.
 */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include <moesim/random.h>

#include "bench/parts/parts.h"
#include "routers/table.h"
#include "sim/models/model.h"
#include "sim/train/training.h"

enum { SIDE = 1024, SEQUENCES = 8, SEQUENCE = 256 };

struct bed {
    struct moesim_arena *arena;
    struct moesim_training *training;
    struct moesim_sequences sequences;
    double flop;
    float *matrices; /* [threads][3][SIDE][SIDE] */
};

static struct moesim_router_choice choose(struct moesim_arena *arena)
{
    struct moesim_error err = {"memory is exhausted"};
    const struct moesim_router *router = NULL;
    for (size_t i = 0; routers_table[i]; i++)
        if (!strcmp(routers_table[i]->name, "softmax-topk"))
            router = routers_table[i];
    const struct moesim_schema schema = moesim_router_schema(router);
    void *params = moesim_alloc(arena, 1, router->params_size);
    if (!params || moesim_params_default(schema, 2, params, arena, &err) ||
        moesim_param_set(moesim_schema_find(schema, "aux_form"), "switch", params, arena, &err))
        bench_stop("%s", err.text);
    return (struct moesim_router_choice){.router = router, .params = params, .spec = "softmax-topk:aux_form=switch"};
}

static void run_step(void *state)
{
    struct bed *b = state;
    struct moesim_training_figures figures;
    struct moesim_error err;
    if (moesim_training_step(b->training, &b->sequences, &figures, &err))
        bench_stop("%s", err.text);
}

/* As much flop as a step has, every thread with matrices of its own. */
static void run_sgemm(void *state)
{
    const struct bed *b = state;
    const int n = (int)(b->flop / (2.0 * SIDE * SIDE * SIDE) / omp_get_max_threads() + 0.5);
#pragma omp parallel
    for (int i = 0; i < n; i++) {
        float *a = b->matrices + (size_t)omp_get_thread_num() * 3 * SIDE * SIDE;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIDE, SIDE, SIDE, 1, a, SIDE, a + SIDE * SIDE, SIDE, 0,
                    a + 2 * SIDE * SIDE, SIDE);
    }
}

static void open_bed(struct bed *b, uint32_t n_blocks)
{
    struct moesim_error err = {"memory is exhausted"};
    const uint32_t n = SEQUENCES * SEQUENCE;
    const size_t size = (size_t)omp_get_max_threads() * 3 * SIDE * SIDE;
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    struct moesim_transformer_counts counts;
    *b = (struct bed){.arena = moesim_arena_create(0)};
    if (!b->arena)
        bench_stop("%s", err.text);
    const struct moesim_training_config config = {
        .model = {.vocabulary = 256,
                  .n_blocks = n_blocks,
                  .d_model = 256,
                  .n_heads = 4,
                  .sequence = SEQUENCE,
                  .n_sequences = SEQUENCES,
                  .moe_every = 1,
                  .n_experts = 16,
                  .top_k = 2,
                  .d_ff = 1024,
                  .activation = MOESIM_SWIGLU,
                  .tied_head = true},
        .choice = choose(b->arena),
        .optimizer = {.learning_rate = 1e-4, .steps = 1000, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip = 1},
        .micro_batches = 1,
        .seed = 1};
    uint32_t *token = moesim_alloc(b->arena, n + 1, sizeof *token);
    b->matrices = moesim_alloc(b->arena, size, sizeof *b->matrices);
    if (!token || !b->matrices || moesim_training_count(&config, &counts, &err) ||
        moesim_training_create(&config, 0, &b->training, &err))
        bench_stop("%s", err.text);
    for (uint32_t t = 0; t <= n; t++)
        token[t] = moesim_random_below(&random, t, 256);
    for (size_t i = 0; i < size; i++)
        b->matrices[i] = 1e-3f * (float)(i % 7);
    b->sequences = (struct moesim_sequences){.n_sequences = SEQUENCES, .token = token, .target = token + 1};
    b->flop = counts.training_flop_per_token * n;
}

void part_train(struct bench *bench)
{
    const uint32_t n_blocks = bench->options.quick ? 1 : 2;
    struct bed b;
    struct bench_figure figure = {.part = "train", .unit = "GFLOP/s"};
    snprintf(figure.name, sizeof figure.name, "training step d=256 d_ff=1024 E=16 k=2, %u blocks", n_blocks);
    if (!bench_wants(bench, "train", figure.name))
        return;
    open_bed(&b, n_blocks);
    figure.ours = bench_ours(run_step, &b);
    figure.work = 1e-9 * b.flop;
    figure.limit = BENCH_PEAK;
    figure.limit_work = b.flop;
    bench_add(&figure, "SGEMM (OpenBLAS)", run_sgemm, &b, BENCH_SHARE, BENCH_AT_LEAST(0.6));
    bench_measure(bench, &figure);
    moesim_training_destroy(b.training);
    moesim_arena_destroy(b.arena);
}
