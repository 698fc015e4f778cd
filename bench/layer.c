/*
 * The MoE layer beside this machine's limits: each repeat of a shape is timed between two bursts of multiply-adds (and
 * decode-like batches between two sweeps over as many bytes), and the ratio to their mean is what counts. With a
 * shape's name as argument only that one.
 */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>

#include <moesim/random.h>

#include "bench/machine.h"
#include "bench/peer.h"
#include "sim/layer/scratch.h"

enum { MOST_REPEATS = 64 };

struct shape {
    const char *name;
    uint32_t n_experts, k, d_model, d_ff, n_tokens;
    double zipf; /* popularity of rank r: r^-zipf */
    bool decode; /* bound by the stream of weights: measured by bytes */
};

static const struct shape shapes[] = {
    {"dense-4096", 8, 2, 1024, 2048, 4096, 1.0, false},  {"fine-4096", 64, 8, 1024, 1024, 4096, 1.0, false},
    {"dense-512", 8, 2, 1024, 2048, 512, 1.0, false},    {"fine-512", 64, 8, 1024, 1024, 512, 1.0, false},
    {"many-uniform", 128, 1, 512, 2048, 8192, 0, false}, {"many-zipf", 128, 1, 512, 2048, 8192, 1.2, false},
    {"decode", 64, 8, 1024, 1024, 32, 0, true},
};
#define N_SHAPES (sizeof shapes / sizeof *shapes)

struct bed {
    struct moesim_arena *arena;
    struct moesim_plan plan;
    struct moesim_layer layer;
    float *hidden, *output, *d_output, *d_hidden, *d_weight;
};

static void give_up(const char *why)
{
    fprintf(stderr, "bench-layer: %s\n", why);
    exit(1);
}

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
    memset(b, 0, sizeof *b);
    b->arena = moesim_arena_create(0);
    if (!b->arena || moesim_plan_init(&b->plan, shape->n_tokens, shape->n_experts, 1, pairs, 0, b->arena, &err) ||
        moesim_layer_init(&b->layer, 1, 0, &model, shape->n_experts, NULL, shape->n_tokens, pairs, backward, products,
                          b->arena, &err))
        give_up(err.text);
    fill_plan(&b->plan, shape);
    float **const states[] = {&b->hidden, &b->d_output, &b->output, &b->d_hidden};
    for (int i = 0; i < 4; i++)
        if (!(*states[i] = moesim_alloc(b->arena, n, sizeof(float))))
            give_up("memory is exhausted");
    b->d_weight = moesim_alloc(b->arena, pairs, sizeof *b->d_weight);
    moesim_random_normals(&random, 0, n, b->hidden);
    moesim_random_normals(&random, n, n, b->d_output);
}

static void run(struct bed *b, bool backward)
{
    moesim_layer_forward(&b->layer, &b->plan, b->hidden, b->output);
    if (backward)
        moesim_layer_backward(&b->layer, &b->plan, b->hidden, b->d_output, false, b->d_hidden, b->d_weight);
}

/* The limit's rate beside a run: flop or bytes a second. */
static struct machine_rate limit(const struct bed *b, const struct shape *shape)
{
    const size_t weights = shape->n_experts * moesim_layer_matrix_size(&b->layer, MOESIM_W_IN) * sizeof(float);
    return shape->decode ? machine_read(b->layer.w_in, weights) : machine_peak(0.01);
}

/* Flop, or bytes of the weights that the plan touches. */
static double work(const struct bed *b, const struct shape *shape, bool backward)
{
    double touched = 0;
    for (uint32_t e = 0; e < shape->n_experts; e++)
        touched += b->layer.view.start[e + 1] > b->layer.view.start[e];
    const double expert = 3.0 * shape->d_model * shape->d_ff;
    return shape->decode ? touched * expert * sizeof(float)
                         : (backward ? 3 : 1) * 2.0 * expert * (double)b->plan.n_pairs;
}

/* What a forward pass does besides products and activation: split, gather, put rows down, combine. */
static void run_rest(struct bed *b)
{
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

/* Of one shape's repeats: seconds, and ratios by either clock. */
struct figures {
    uint32_t n;
    double seconds[MOST_REPEATS], wall[MOST_REPEATS], cpu[MOST_REPEATS];
    double rest[MOST_REPEATS];                              /* share of what run_rest does, by CPU time */
    double peer_wall[MOST_REPEATS], peer_cpu[MOST_REPEATS]; /* the peer's time by ours */
};

static void repeat(struct bed *b, struct peer *peer, const struct shape *shape, bool backward, struct figures *f)
{
    machine_wait_quiet(0.5);
    machine_peak(0.01); /* wakes the cores up */
    const struct machine_rate before = limit(b, shape);
    const struct machine_time start = machine_now();
    run(b, backward);
    const struct machine_time span = machine_since(start);
    const struct machine_rate after = limit(b, shape);
    const struct machine_time rest_start = machine_now();
    run_rest(b);
    const struct machine_time rest = machine_since(rest_start);
    const double amount = work(b, shape, backward);
    const struct machine_time theirs = peer->to ? peer_run(peer, backward) : (struct machine_time){NAN, NAN};
    f->wall[f->n] = amount / span.wall_s / ((before.by_wall + after.by_wall) / 2);
    f->cpu[f->n] = amount / span.cpu_s / ((before.by_cpu + after.by_cpu) / 2);
    f->rest[f->n] = rest.cpu_s / span.cpu_s;
    f->peer_wall[f->n] = theirs.wall_s / span.wall_s;
    f->peer_cpu[f->n] = theirs.cpu_s / span.cpu_s;
    f->seconds[f->n++] = span.wall_s;
}

static void print_figures(const struct shape *shape, bool backward, double amount, struct figures *f)
{
    const double seconds = machine_median(f->seconds, f->n), wall = machine_median(f->wall, f->n);
    const double cpu = machine_median(f->cpu, f->n), rest = machine_median(f->rest, f->n);
    printf("%-13s %-8s %9.2f %7.1f %9.3f %9.3f %9.3f", shape->name, backward ? "fwd+bwd" : "forward", 1e3 * seconds,
           1e-9 * amount / f->seconds[0], wall, cpu, f->cpu[f->n - 1]);
    if (backward)
        printf("         -");
    else
        printf(" %7.2f %%", 100 * rest);
    const double peer_wall = machine_median(f->peer_wall, f->n), peer_cpu = machine_median(f->peer_cpu, f->n);
    if (peer_wall == peer_wall)
        printf(" %8.2f %8.2f", peer_wall, peer_cpu);
    puts("");
    fflush(stdout);
}

static void measure(const struct shape *shape, bool backward, uint32_t repeats, const char *script,
                    const struct moesim_products *products)
{
    struct bed b;
    struct peer peer = {0};
    struct figures f = {0};
    open_bed(&b, shape, backward, products);
    if (peer_open(&peer, script, shape->n_experts, shape->k, shape->d_model, shape->d_ff, shape->n_tokens,
                  b.plan.expert))
        peer_run(&peer, backward);
    run(&b, backward); /* touches all memory */
    for (uint32_t i = 0; i < repeats; i++)
        repeat(&b, &peer, shape, backward, &f);
    print_figures(shape, backward, work(&b, shape, backward), &f);
    peer_close(&peer);
    moesim_arena_destroy(b.arena);
}

static void print_limit(const char *what, const char *unit, double *rates, uint32_t n)
{
    const double median = machine_median(rates, n);
    printf("%s: %.1f %s, best %.1f\n", what, 1e-9 * median, unit, 1e-9 * rates[n - 1]);
}

/* The limits by themselves, and the matrix product of the BLAS that is bound, on as many threads. */
static void print_limits(uint32_t repeats)
{
    enum { SIZE = 1024 };
    const size_t n = (size_t)1 << 28;
    struct moesim_arena *arena = moesim_arena_create(0);
    float *memory = moesim_alloc(arena, n / sizeof(float), sizeof(float));
    double peak[MOST_REPEATS], read[MOST_REPEATS], sgemm[MOST_REPEATS];
    if (!memory)
        give_up("memory is exhausted");
    memset(memory, 0, n);
    openblas_set_num_threads(omp_get_max_threads());
    for (uint32_t i = 0; i < repeats; i++) {
        peak[i] = machine_peak(0.02).by_wall;
        read[i] = machine_read(memory, n).by_wall;
        const struct machine_time start = machine_now();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIZE, SIZE, SIZE, 1, memory, SIZE, memory + SIZE * SIZE,
                    SIZE, 0, memory + 2 * SIZE * SIZE, SIZE);
        sgemm[i] = 2.0 * SIZE * SIZE * SIZE / machine_since(start).wall_s;
    }
    openblas_set_num_threads(1);
    print_limit("multiply-adds", "Gflop/s", peak, repeats);
    print_limit("reading", "GB/s", read, repeats);
    printf("OpenBLAS %s, ", openblas_get_corename());
    print_limit("SGEMM 1024", "Gflop/s", sgemm, repeats);
    moesim_arena_destroy(arena);
}

int main(int n_arguments, char **arguments)
{
    const char *only = n_arguments > 1 ? arguments[1] : "all", *script = n_arguments > 4 ? arguments[4] : PEER_SCRIPT;
    const uint32_t repeats = n_arguments > 2 ? (uint32_t)atoi(arguments[2]) : 9;
    const struct moesim_products *products = moesim_products_find(n_arguments > 3 ? arguments[3] : NULL);
    if (!products || repeats < 1 || repeats > MOST_REPEATS)
        give_up("usage: bench-layer [SHAPE|all [REPEATS [avx2-fma|portable|openblas [PEER.py]]]]");
    print_limits(repeats);
    printf("\nSwiGLU experts by %s, %d threads; medians of %u repeats\n", moesim_products_path(products),
           omp_get_max_threads(), repeats);
    puts("                                      by      ratio to the limit       outside   PyTorch's time by ours");
    puts("shape         pass            ms   Gunit/s  by clock    by CPU  best CPU  products  by clock   by CPU");
    for (size_t i = 0; i < N_SHAPES; i++)
        for (int backward = 0; backward < (shapes[i].decode ? 1 : 2); backward++)
            if (!strcmp(only, shapes[i].name) || !strcmp(only, "all"))
                measure(&shapes[i], backward, repeats, script, products);
    return 0;
}
