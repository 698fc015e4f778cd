#include "bench/ggml.h"

#include <dirent.h>
#include <dlfcn.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "bench/bench.h"

/* ---- the functions we call, after ggml.h and ggml-cpu.h ---- */

struct ggml_context;
struct ggml_tensor;
struct ggml_cgraph;

struct init_params {
    size_t mem_size;
    void *mem_buffer;
    bool no_alloc;
};

/* Returned through memory; later versions have more fields behind these, for which there is room. */
struct compute_plan {
    size_t work_size;
    uint8_t *work_data;
    void *rest[30];
};

enum { TYPE_F32 = 0, TYPE_I32 = 26 };

#define GGML_FUNCTIONS(X)                                                                                              \
    X(base, struct ggml_context *, ggml_init, (struct init_params))                                                    \
    X(base, void, ggml_free, (struct ggml_context *))                                                                  \
    X(base, size_t, ggml_tensor_overhead, (void))                                                                      \
    X(base, size_t, ggml_graph_overhead, (void))                                                                       \
    X(base, void *, ggml_get_data, (const struct ggml_tensor *))                                                       \
    X(base, struct ggml_tensor *, ggml_new_tensor_2d, (struct ggml_context *, int, int64_t, int64_t))                  \
    X(base, struct ggml_tensor *, ggml_new_tensor_3d, (struct ggml_context *, int, int64_t, int64_t, int64_t))         \
    X(base, struct ggml_tensor *, ggml_view_2d,                                                                        \
      (struct ggml_context *, struct ggml_tensor *, int64_t, int64_t, size_t, size_t))                                 \
    X(base, struct ggml_tensor *, ggml_soft_max, (struct ggml_context *, struct ggml_tensor *))                        \
    X(base, struct ggml_tensor *, ggml_top_k, (struct ggml_context *, struct ggml_tensor *, int))                      \
    X(base, struct ggml_tensor *, ggml_mul_mat_id,                                                                     \
      (struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *, struct ggml_tensor *))                       \
    X(base, struct ggml_tensor *, ggml_silu, (struct ggml_context *, struct ggml_tensor *))                            \
    X(base, struct ggml_tensor *, ggml_mul, (struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *))       \
    X(base, struct ggml_tensor *, ggml_add, (struct ggml_context *, struct ggml_tensor *, struct ggml_tensor *))       \
    X(base, struct ggml_cgraph *, ggml_new_graph, (struct ggml_context *))                                             \
    X(base, void, ggml_build_forward_expand, (struct ggml_cgraph *, struct ggml_tensor *))                             \
    X(cpu, struct compute_plan, ggml_graph_plan, (const struct ggml_cgraph *, int, void *))                            \
    X(cpu, int, ggml_graph_compute, (struct ggml_cgraph *, struct compute_plan *))

struct ggml {
    void *base, *cpu;
    char name[64];
#define DECLARE(library, type, name, arguments) type(*name) arguments;
    GGML_FUNCTIONS(DECLARE)
#undef DECLARE
};

/* ---- loading ---- */

static void *load(const char *folder, const char *file)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);
    if (!address)
        bench_stop("this ggml lacks %s", name);
    return address;
}

/* How well a library suits this processor, as it says itself; one that cannot tell is made for where it was built. */
static int score(void *library)
{
    int (*own)(void);
    void *address = dlsym(library, "ggml_backend_score");
    if (!address)
        return 1;
    memcpy(&own, &address, sizeof own);
    return own();
}

static void load_best(struct ggml *ggml, const char *folder)
{
    DIR *files = opendir(folder);
    int best = 0;
    for (struct dirent *file; files && (file = readdir(files));) {
        if (strncmp(file->d_name, "libggml-cpu", 11) != 0 || !strstr(file->d_name, ".so"))
            continue;
        void *library = load(folder, file->d_name);
        const int suits = library ? score(library) : 0;
        if (suits > best) {
            best = suits;
            ggml->cpu = library;
            snprintf(ggml->name, sizeof ggml->name, "%.60s", file->d_name);
        }
    }
    if (files)
        closedir(files);
}

struct ggml *ggml_load(const char *folder)
{
    struct ggml *ggml = calloc(1, sizeof *ggml);
    if (!ggml)
        bench_stop("memory is exhausted");
    ggml->base = load(folder, "libggml-base.so");
    if (ggml->base)
        load_best(ggml, folder);
    if (!ggml->base || !ggml->cpu)
        bench_stop("%s has no libggml-base.so and libggml-cpu*.so that can be loaded", folder);
    void *address;
#define FIND(library, type, name, arguments)                                                                           \
    address = symbol(ggml->library, #name);                                                                            \
    memcpy(&ggml->name, &address, sizeof address);
    GGML_FUNCTIONS(FIND)
#undef FIND
    return ggml;
}

const char *ggml_name(const struct ggml *ggml)
{
    return ggml->name;
}

/* ---- graphs ---- */

struct ggml_graph {
    const struct ggml *ggml;
    struct ggml_context *context;
    struct ggml_cgraph *graph;
    struct compute_plan plan;
};

static struct ggml_graph *open_graph(const struct ggml *ggml, size_t bytes)
{
    struct ggml_graph *g = calloc(1, sizeof *g);
    if (!g)
        bench_stop("memory is exhausted");
    g->ggml = ggml;
    const size_t overhead = 64 * (ggml->ggml_tensor_overhead() + 64) + ggml->ggml_graph_overhead();
    g->context = ggml->ggml_init((struct init_params){.mem_size = bytes + overhead});
    if (!g->context)
        bench_stop("ggml has no memory");
    return g;
}

/* Plans how `result` is computed. */
static struct ggml_graph *close_graph(struct ggml_graph *g, struct ggml_tensor *result)
{
    g->graph = g->ggml->ggml_new_graph(g->context);
    g->ggml->ggml_build_forward_expand(g->graph, result);
    g->plan = g->ggml->ggml_graph_plan(g->graph, omp_get_max_threads(), NULL);
    g->plan.work_data = malloc(g->plan.work_size + 64);
    if (!g->plan.work_data)
        bench_stop("memory is exhausted");
    return g;
}

struct ggml_graph *ggml_open_route(const struct ggml *ggml, const float *logits, uint32_t n_tokens, uint32_t n_experts,
                                   uint32_t k)
{
    const size_t bytes = (size_t)n_tokens * n_experts * sizeof(float);
    struct ggml_graph *g = open_graph(ggml, 4 * bytes);
    struct ggml_tensor *columns = ggml->ggml_new_tensor_2d(g->context, TYPE_F32, n_experts, n_tokens);
    memcpy(ggml->ggml_get_data(columns), logits, bytes);
    return close_graph(g, ggml->ggml_top_k(g->context, ggml->ggml_soft_max(g->context, columns), (int)k));
}

static struct ggml_tensor *normals(struct ggml_graph *g, uint64_t seed, int64_t rows, int64_t columns, int64_t n)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    struct ggml_tensor *tensor = g->ggml->ggml_new_tensor_3d(g->context, TYPE_F32, rows, columns, n);
    float *data = g->ggml->ggml_get_data(tensor);
    const size_t count = (size_t)(rows * columns * n);
    moesim_random_normals(&random, 0, count, data);
    for (size_t i = 0; i < count; i++)
        data[i] *= 0.03f;
    return tensor;
}

/* The sum over choices of outputs [d_model, k, tokens], and the residual. */
static struct ggml_tensor *combine(struct ggml_graph *g, struct ggml_tensor *output, struct ggml_tensor *hidden,
                                   uint32_t n_tokens, uint32_t k, uint32_t d_model)
{
    const struct ggml *ggml = g->ggml;
    const size_t row = d_model * sizeof(float);
    struct ggml_tensor *sum = ggml->ggml_view_2d(g->context, hidden, d_model, n_tokens, row, 0);
    for (uint32_t c = 0; c < k; c++)
        sum = ggml->ggml_add(g->context, sum,
                             ggml->ggml_view_2d(g->context, output, d_model, n_tokens, row * k, row * c));
    return sum;
}

struct ggml_graph *ggml_open_layer(const struct ggml *ggml, const uint32_t *expert, uint32_t n_tokens,
                                   uint32_t n_experts, uint32_t k, uint32_t d_model, uint32_t d_ff)
{
    const size_t weights = 3 * (size_t)n_experts * d_model * d_ff, pairs = (size_t)n_tokens * k;
    struct ggml_graph *g =
        open_graph(ggml, sizeof(float) * (weights + pairs * (4 * (size_t)d_ff + 2 * (size_t)d_model + 2) +
                                          (size_t)n_tokens * d_model * (k + 2)));
    struct ggml_context *context = g->context;
    struct ggml_tensor *up = normals(g, 1, d_model, d_ff, n_experts), *gate = normals(g, 2, d_model, d_ff, n_experts);
    struct ggml_tensor *down = normals(g, 3, d_ff, d_model, n_experts), *hidden = normals(g, 4, d_model, 1, n_tokens);
    struct ggml_tensor *weight = normals(g, 5, 1, k, n_tokens);
    struct ggml_tensor *chosen = ggml->ggml_new_tensor_2d(context, TYPE_I32, k, n_tokens);
    memcpy(ggml->ggml_get_data(chosen), expert, pairs * sizeof *expert);
    struct ggml_tensor *inner = ggml->ggml_silu(context, ggml->ggml_mul_mat_id(context, gate, hidden, chosen));
    inner = ggml->ggml_mul(context, inner, ggml->ggml_mul_mat_id(context, up, hidden, chosen));
    struct ggml_tensor *output = ggml->ggml_mul_mat_id(context, down, inner, chosen);
    output = ggml->ggml_mul(context, output, weight);
    return close_graph(g, combine(g, output, hidden, n_tokens, k, d_model));
}

void ggml_run(void *graph)
{
    struct ggml_graph *g = graph;
    if (g->ggml->ggml_graph_compute(g->graph, &g->plan) != 0)
        bench_stop("ggml could not compute its graph");
}

void ggml_close(struct ggml_graph *g)
{
    if (!g)
        return;
    free(g->plan.work_data);
    g->ggml->ggml_free(g->context);
    free(g);
}
