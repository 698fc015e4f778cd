/*
 * The MoE layer beside this machine's limits, PyTorch and ggml: forward, forward and backward by the peak of
 * multiply-adds, decode-like batches by the bandwidth of reading.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

#include <moesim/random.h>

#include "bench/ggml.h"
#include "bench/parts/parts.h"
#include "bench/peer.h"
#include "sim/layer/scratch.h"

/* What is asked of a pass; 0 = nothing. */
struct asked {
    double limit, torch, slow_torch, ggml; /* slow_torch: where PyTorch stays below SLOW_RATE */
};
#define SLOW_RATE 100.0 /* Gflop/s */
#define MOST_REST 0.03  /* of a forward pass, outside products and activation */

struct shape {
    const char *name;
    uint32_t n_experts, k, d_model, d_ff, n_tokens;
    double zipf; /* popularity of rank r: r^-zipf */
    bool decode; /* bound by the stream of weights: measured by bytes */
    struct asked forward, both;
};

static const struct shape shapes[] = {
    {"dense-4096", 8, 2, 1024, 2048, 4096, 1.0, false, {0.85, 1.15, 0, 3}, {0.75, 1, 1.3, 0}},
    {"fine-4096", 64, 8, 1024, 1024, 4096, 1.0, false, {0.85, 1.3, 0, 3}, {0.75, 1, 1.3, 0}},
    {"dense-512", 8, 2, 1024, 2048, 512, 1.0, false, {0.80, 1.6, 0, 2.8}, {0.75, 1, 1.3, 0}},
    {"fine-512", 64, 8, 1024, 1024, 512, 1.0, false, {0.78, 2, 0, 2.8}, {0.75, 1, 1.3, 0}},
    {"many-uniform", 128, 1, 512, 2048, 8192, 0, false, {0, 0, 0, 0}, {0, 0, 0, 0}},
    {"many-zipf", 128, 1, 512, 2048, 8192, 1.2, false, {0, 0, 0, 0}, {0, 0, 0, 0}},
    {"decode", 64, 8, 1024, 1024, 32, 0, true, {0.90, 0, 0, 0}, {0, 0, 0, 0}},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)
#define UNIFORM (&shapes[4]) /* what many-zipf is compared with */
#define LEAST_OF_UNIFORM 0.95

static const struct shape quick_shape = {"tiny", 8, 2, 256, 256, 512, 1.0, false, {0, 0, 0, 0}, {0, 0, 0, 0}};

struct bed {
    const struct shape *shape;
    struct moesim_arena *arena;
    struct moesim_plan plan;
    struct moesim_layer layer;
    float *hidden, *output, *d_output, *d_hidden, *d_weight;
};

/* The k experts of largest ln popularity + Gumbel noise: drawn without replacement. */
static void draw_experts(const struct shape *shape, uint32_t token, uint32_t *expert)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    float key[1024];
    moesim_random_uniforms(&random, (uint64_t)token * shape->n_experts, shape->n_experts, key);
    for (uint32_t e = 0; e < shape->n_experts; e++)
        key[e] = (float)(-shape->zipf * log(e + 1.0) - log(-log(key[e] * (1 - 1e-7) + 1e-9)));
    for (uint32_t c = 0; c < shape->k; c++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < shape->n_experts; e++)
            best = key[e] > key[best] ? e : best;
        expert[c] = best;
        key[best] = -INFINITY;
    }
}

static void fill_plan(struct moesim_plan *plan, const struct shape *shape)
{
    plan->n_tokens = shape->n_tokens;
    plan->n_pairs = (uint64_t)shape->n_tokens * shape->k;
    for (uint32_t t = 0; t < shape->n_tokens; t++) {
        plan->first[t + 1] = (t + 1) * shape->k;
        draw_experts(shape, t, plan->expert + (size_t)t * shape->k);
    }
    for (uint64_t i = 0; i < plan->n_pairs; i++) {
        plan->fate[i] = MOESIM_KEPT;
        plan->weight[i] = 1.0f / (float)shape->k;
    }
}

static void open_bed(struct bed *b, const struct shape *shape, bool backward, const struct moesim_products *products)
{
    struct moesim_error err = {"memory is exhausted"};
    const struct moesim_model model = {
        .d_model = shape->d_model, .d_ff = shape->d_ff, .activation = MOESIM_SWIGLU, .experts = shape->n_experts};
    const struct moesim_random random = {.seed = 2, .stream = MOESIM_STREAM_TEST};
    const uint64_t pairs = (uint64_t)shape->n_tokens * shape->k;
    const size_t n = (size_t)shape->n_tokens * shape->d_model;
    *b = (struct bed){.shape = shape, .arena = moesim_arena_create(0)};
    if (!b->arena || moesim_plan_init(&b->plan, shape->n_tokens, shape->n_experts, 1, pairs, 0, b->arena, &err) ||
        moesim_layer_init(&b->layer, 1, 0, &model, shape->n_experts, NULL, shape->n_tokens, pairs, backward, products,
                          b->arena, &err))
        bench_stop("%s", err.text);
    fill_plan(&b->plan, shape);
    float **const states[] = {&b->hidden, &b->d_output, &b->output, &b->d_hidden};
    for (int i = 0; i < 4; i++)
        if (!(*states[i] = moesim_alloc(b->arena, n, sizeof(float))))
            bench_stop("memory is exhausted");
    b->d_weight = moesim_alloc(b->arena, pairs, sizeof *b->d_weight);
    moesim_random_normals(&random, 0, n, b->hidden);
    moesim_random_normals(&random, n, n, b->d_output);
}

static void run_forward(void *bed)
{
    struct bed *b = bed;
    moesim_layer_forward(&b->layer, &b->plan, b->hidden, b->output);
}

static void run_both(void *bed)
{
    struct bed *b = bed;
    run_forward(b);
    moesim_layer_backward(&b->layer, &b->plan, b->hidden, b->d_output, false, b->d_hidden, b->d_weight);
}

/* What a forward pass does besides products and activation: split, gather, put rows down, combine. */
static void run_rest(void *bed)
{
    struct bed *b = bed;
    struct moesim_layer *layer = &b->layer;
    const struct moesim_layer_scratch *s = layer->scratch;
    layer_split(layer, &b->plan);
    const uint32_t outer = layer_n_tiles(layer, layer->d_model);
#pragma omp parallel
    {
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < s->n_blocks; i++)
            layer_gather(layer, &s->block[i], b->hidden, s->input);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < s->n_blocks * outer; i++)
            layer_put_rows(layer, &s->block[i / outer], layer_tile(layer, layer->d_model, i % outer),
                           s->work[omp_get_thread_num()], s->output);
#pragma omp for schedule(static)
        for (uint32_t t = 0; t < b->plan.n_tokens; t++)
            layer_combine_token(layer, &b->plan, b->hidden, t, b->output);
    }
}

/* Flop, or bytes of the weights that the plan touches. */
static double work(const struct bed *b, bool backward)
{
    const struct shape *shape = b->shape;
    double touched = 0;
    for (uint32_t e = 0; e < shape->n_experts; e++)
        touched += b->layer.view.start[e + 1] > b->layer.view.start[e];
    const double expert = 3.0 * shape->d_model * shape->d_ff;
    return shape->decode ? touched * expert * sizeof(float)
                         : (backward ? 3 : 1) * 2.0 * expert * (double)b->plan.n_pairs;
}

struct rivals {
    struct peer *peer[3];
    struct ggml_graph *graph;
    struct bed *uniform;
};

/* PyTorch over each BLAS that is installed. */
static void add_torch(struct bench_figure *figure, struct bed *b, bool backward, struct peer **peer)
{
    static const char *const blas[] = {NULL, "openblas-openmp", "blis-openmp"};
    static const char *const name[] = {"PyTorch", "PyTorch OB-omp", "PyTorch BLIS"};
    const struct shape *shape = b->shape;
    const struct asked *asked = backward ? &shape->both : &shape->forward;
    for (uint32_t i = 0; i < sizeof blas / sizeof *blas; i++) {
        const struct peer_task task = {.library = "torch",
                                       .task = "layer",
                                       .blas = blas[i],
                                       .n_tokens = shape->n_tokens,
                                       .n_experts = shape->n_experts,
                                       .k = shape->k,
                                       .d_model = shape->d_model,
                                       .d_ff = shape->d_ff,
                                       .threads = (uint32_t)omp_get_max_threads(),
                                       .data = b->plan.expert,
                                       .size = b->plan.n_pairs * sizeof *b->plan.expert};
        if (!(peer[i] = peer_open(&task)))
            continue;
        struct bench_bound bound = BENCH_AT_LEAST(asked->torch);
        if (asked->slow_torch > 0) {
            bound.slow_rate = SLOW_RATE;
            bound.slow_value = asked->slow_torch;
        }
        struct bench_rival *rival = bench_add(figure, name[i], NULL, NULL, BENCH_FASTER, bound);
        rival->runner.peer = peer[i];
        rival->runner.order = backward ? "backward" : "forward";
    }
}

static struct rivals add_rivals(struct bench *bench, struct bench_figure *figure, struct bed *b, bool backward)
{
    static struct bed uniform;
    struct rivals rivals = {{NULL}, NULL, NULL};
    const struct shape *shape = b->shape;
    if (!backward)
        bench_add(figure, "outside products", run_rest, b, BENCH_SHARE,
                  shape->decode ? BENCH_UNBOUND : BENCH_AT_MOST(MOST_REST));
    if (!backward && strcmp(shape->name, "many-zipf") == 0) {
        open_bed(&uniform, UNIFORM, false, b->layer.products);
        bench_add(figure, UNIFORM->name, run_forward, &uniform, BENCH_FASTER, BENCH_AT_LEAST(LEAST_OF_UNIFORM));
        rivals.uniform = &uniform;
    }
    add_torch(figure, b, backward, rivals.peer);
    if (!backward && bench->ggml) {
        rivals.graph = ggml_open_layer(bench->ggml, b->plan.expert, shape->n_tokens, shape->n_experts, shape->k,
                                       shape->d_model, shape->d_ff);
        bench_add(figure, "ggml", ggml_run, rivals.graph, BENCH_FASTER, BENCH_AT_LEAST(shape->forward.ggml));
    }
    return rivals;
}

static void measure(struct bench *bench, const struct shape *shape, bool backward, const char *name)
{
    struct bed b;
    const struct moesim_products *products = moesim_products_find(bench->options.products);
    if (!products)
        bench_stop("--products is avx2-fma, portable or openblas, as far as this processor has them");
    open_bed(&b, shape, backward, products);
    run_forward(&b); /* makes the view of the plan */
    const double amount = work(&b, backward);
    struct bench_figure figure = {.part = "layer",
                                  .ours = bench_ours(backward ? run_both : run_forward, &b),
                                  .work = 1e-9 * amount,
                                  .unit = shape->decode ? "GB/s" : "Gflop/s",
                                  .limit = shape->decode ? BENCH_READ : BENCH_PEAK,
                                  .limit_work = amount,
                                  .memory = b.layer.w_in,
                                  .memory_size = shape->n_experts * moesim_layer_matrix_size(&b.layer, MOESIM_W_IN) *
                                                 sizeof(float),
                                  .limit_bound = BENCH_AT_LEAST(backward ? shape->both.limit : shape->forward.limit)};
    snprintf(figure.name, sizeof figure.name, "%s", name);
    struct rivals rivals = add_rivals(bench, &figure, &b, backward);
    bench_measure(bench, &figure);
    for (uint32_t i = 0; i < 3; i++)
        peer_close(rivals.peer[i]);
    ggml_close(rivals.graph);
    if (rivals.uniform)
        moesim_arena_destroy(rivals.uniform->arena);
    moesim_arena_destroy(b.arena);
}

static void measure_passes(struct bench *bench, const struct shape *shape)
{
    for (int backward = 0; backward < (shape->decode ? 1 : 2); backward++) {
        char name[BENCH_NAME];
        snprintf(name, sizeof name, "%s %s", shape->name, backward ? "fwd+bwd" : "forward");
        if (bench_wants(bench, "layer", name))
            measure(bench, shape, backward, name);
    }
}

void part_layer(struct bench *bench)
{
    if (bench->options.quick)
        measure_passes(bench, &quick_shape);
    for (size_t i = 0; i < N_SHAPES && !bench->options.quick; i++)
        measure_passes(bench, &shapes[i]);
}
