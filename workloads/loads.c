/*
 * loads: tokens drawn so that the experts' recorded loads come out again.
 *
 * Column e of a token is ln(p / (1 - p)) + logistic noise, where p = k * load_e / sum of the layer's loads is how
 * likely the expert should be among the token's k. The k largest columns are then a Pareto sample: fixed size, without
 * replacement, every expert with probability p but for an error of a few thousandths (Rosen, "On sampling with
 * probability proportional to size", 1997). Where p would reach 1 it is held just below and the rest is shared among
 * the other experts; an expert without load gets a column below all others. Tokens are independent: what a recording of
 * loads does not tell (which experts go together, what lasts over time) is not in it.
 */
#include <stdio.h>
#include <stdlib.h>

#include <moesim/random.h>
#include <moesim/workload.h>

#include "workloads/gumbel.h"
#include "workloads/table.h"
#include "workloads/trace/trace.h"

enum { CHUNK_ROWS = 256 };
#define MOST_LIKELY 0.9995 /* a column that is nearly always among the largest */
#define NEVER (-1e4f)
#define SMALLEST_UNIFORM 0x1p-25f /* in place of 0 */

struct loads_params {
    const char *file;
    uint32_t first_layer;
    bool each_step;
};

static const struct moesim_param params[] = {
    MOESIM_PARAM(struct loads_params, file, "", 0, 0,
                 "loads [layers, experts]: SGLang's JSON, TensorRT-LLM's folder, GGUF imatrix, .npy, .trace, CSV; of "
                 "decisions their count"),
    MOESIM_PARAM(struct loads_params, first_layer, "0", 0, TRACE_MAX_LAYERS - 1,
                 "layers with a load that are left out at the beginning"),
    MOESIM_PARAM(struct loads_params, each_step, "false", 0, 0,
                 "step s draws from recorded step s, wrapping, instead of from the sum of all"),
    MOESIM_PARAM_END,
};

struct loads {
    const char *path;
    struct trace_shape shape;
    uint64_t seed;
    uint32_t first_layer;
    uint32_t n_tokens, n_experts, n_columns, n_layers, n_steps; /* steps: recorded ones that are kept apart */
    float *offset;                                              /* [n_steps][n_layers][n_experts] */
    float *values;                                              /* [n_tokens][n_columns] */
};

static enum moesim_status open_loads(const struct loads_params *p, struct trace **trace, struct moesim_error *err)
{
    if (!*p->file)
        return moesim_fail(err, MOESIM_EINVAL, "loads needs a file: loads:file=PATH");
    enum moesim_status status = trace_open_loads(p->file, trace, err);
    if (!status && p->each_step && trace_shape(*trace)->kind != TRACE_LOADS) {
        status = moesim_fail(err, MOESIM_EINVAL, "%s holds decisions: each_step is for recorded loads", p->file);
        trace_close(*trace);
    }
    return status;
}

/* Sets `layer` (room for all) to the layers that have a load, past the first `skip` of them: dense ones, which
 * recorders list too, have none. */
static enum moesim_status find_layers(struct trace *trace, uint32_t skip, uint32_t *layer, uint32_t *n, double *load,
                                      struct moesim_error *err)
{
    uint32_t found = 0;
    const struct trace_shape *s = trace_shape(trace);
    enum moesim_status status = MOESIM_OK;
    *n = 0;
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        double sum = 0;
        status = trace_total_load(trace, l, load, err);
        for (uint32_t e = 0; !status && e < s->n_experts; e++)
            sum += load[e];
        if (sum > 0 && found++ >= skip)
            layer[(*n)++] = l;
    }
    if (!status && !found)
        status = moesim_fail(err, MOESIM_EIO, "%s: no layer has any load", trace_path(trace));
    else if (!status && *n == 0)
        status = moesim_fail(err, MOESIM_EINVAL, "first_layer = %u: %s has %u layer%s with a load", skip,
                             trace_path(trace), found, found == 1 ? "" : "s");
    return status;
}

static enum moesim_status no_memory(const struct trace *trace, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%s: no memory for the loads of %u experts", trace_path(trace),
                       trace_shape(trace)->n_experts);
}

static enum moesim_status loads_shape(const void *p, struct moesim_workload_shape *shape, struct moesim_error *err)
{
    struct trace *trace;
    enum moesim_status status = open_loads(p, &trace, err);
    if (status)
        return status;
    const struct trace_shape *s = trace_shape(trace);
    uint32_t *layer = malloc(s->n_layers * sizeof *layer);
    double *load = malloc(s->n_experts * sizeof *load);
    uint32_t n_layers;
    const uint32_t skip = ((const struct loads_params *)p)->first_layer;
    status = layer && load ? find_layers(trace, skip, layer, &n_layers, load, err) : no_memory(trace, err);
    if (!status) {
        shape->n_layers = n_layers;
        shape->n_experts = s->n_experts;
        shape->top_k = s->top_k;
    }
    free(layer);
    free(load);
    trace_close(trace);
    return status;
}

/* Probabilities that sum to k, none above MOST_LIKELY, proportional to the loads as far as that goes. */
static void spread(double *p, uint32_t n, uint32_t k)
{
    double left = k, sum = 0;
    uint32_t n_held = 0;
    for (uint32_t e = 0; e < n; e++)
        sum += p[e];
    for (bool again = true; again && n_held < n;) {
        again = false;
        for (uint32_t e = 0; e < n; e++) /* held ones are negative while this goes on */
            if (p[e] > 0 && p[e] * left > MOST_LIKELY * sum) {
                sum -= p[e];
                left -= MOST_LIKELY;
                p[e] = -1;
                n_held++;
                again = true;
            }
    }
    for (uint32_t e = 0; e < n; e++)
        p[e] = p[e] < 0 ? MOST_LIKELY : sum > 0 && left > 0 ? p[e] * left / sum : 0;
}

static void make_offsets(const struct loads *l, double *load, uint32_t k, float *offset)
{
    spread(load, l->n_experts, k);
    for (uint32_t e = 0; e < l->n_experts; e++)
        offset[e] = load[e] > 0 ? (float)gumbel_ln(load[e] / (1 - load[e])) : NEVER;
}

/* The load of one recorded step; of all of them where they are not kept apart, or where that step has none. */
static enum moesim_status read_load(const struct loads *l, struct trace *trace, uint32_t layer, uint32_t step,
                                    double *load, struct moesim_error *err)
{
    if (l->n_steps > 1) {
        double sum = 0;
        const enum moesim_status status = trace_read_load(trace, layer, step, load, err);
        for (uint32_t e = 0; !status && e < l->n_experts; e++)
            sum += load[e];
        if (status || sum > 0)
            return status;
    }
    return trace_total_load(trace, layer, load, err);
}

static enum moesim_status read_offsets(struct loads *l, struct trace *trace, const struct moesim_workload_env *env,
                                       struct moesim_error *err)
{
    uint32_t n;
    double *load = moesim_alloc(env->arena, l->n_experts, sizeof *load);
    uint32_t *of = moesim_alloc(env->arena, l->shape.n_layers, sizeof *of);
    enum moesim_status status =
        load && of ? find_layers(trace, l->first_layer, of, &n, load, err) : no_memory(trace, err);
    if (!status && l->n_layers > n)
        return moesim_fail(err, MOESIM_EINVAL, "%s has %u layer%s with a load, the study wants %u", l->path, n,
                           n == 1 ? "" : "s", l->n_layers);
    for (uint32_t step = 0; step < l->n_steps; step++)
        for (uint32_t layer = 0; !status && layer < l->n_layers; layer++) {
            status = read_load(l, trace, of[layer], step, load, err);
            if (!status)
                make_offsets(l, load, env->top_k, l->offset + ((size_t)step * l->n_layers + layer) * l->n_experts);
        }
    return status;
}

static enum moesim_status check_fit(const struct loads *l, const struct moesim_workload_env *env,
                                    struct moesim_error *err)
{
    if (env->n_experts != l->shape.n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "%s has loads of %u experts, the study wants %u", l->path,
                           l->shape.n_experts, env->n_experts);
    return MOESIM_OK;
}

static enum moesim_status loads_init(void *state, const void *params_, const struct moesim_workload_env *env,
                                     struct moesim_error *err)
{
    struct loads *l = state;
    const struct loads_params *p = params_;
    struct trace *trace;
    enum moesim_status status = open_loads(p, &trace, err);
    if (status)
        return status;
    *l = (struct loads){.path = p->file,
                        .shape = *trace_shape(trace),
                        .seed = env->seed,
                        .first_layer = p->first_layer,
                        .n_tokens = env->n_tokens,
                        .n_experts = env->n_experts,
                        .n_columns = env->n_columns > env->n_experts ? env->n_columns : env->n_experts,
                        .n_layers = env->n_layers,
                        .n_steps = p->each_step ? trace_shape(trace)->n_steps : 1};
    status = check_fit(l, env, err);
    if (!status) {
        l->offset = moesim_alloc(env->arena, (size_t)l->n_steps * l->n_layers, l->n_experts * sizeof *l->offset);
        l->values = moesim_alloc(env->arena, (size_t)l->n_tokens * l->n_columns, sizeof *l->values);
        status = l->offset && l->values ? read_offsets(l, trace, env, err) : no_memory(trace, err);
    }
    trace_close(trace);
    return status;
}

/* The columns past the experts, for routers that want more, are standard normal. */
static void fill_row(const struct loads *l, const struct moesim_random *random, const struct moesim_random *extra,
                     const float *offset, uint32_t t)
{
    float *row = l->values + (size_t)t * l->n_columns;
    const uint32_t n_extra = l->n_columns - l->n_experts;
    moesim_random_uniforms(random, (uint64_t)t * l->n_experts, l->n_experts, row);
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const float u = row[e] > 0 ? row[e] : SMALLEST_UNIFORM;
        row[e] = offset[e] + (float)(gumbel_ln((double)u) - gumbel_ln(1 - (double)u));
    }
    if (n_extra)
        moesim_random_normals(extra, (uint64_t)t * n_extra, n_extra, row + l->n_experts);
}

static enum moesim_status loads_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    (void)err;
    struct loads *l = state;
    const struct moesim_random random = {l->seed, MOESIM_STREAM_COLUMNS, layer, step};
    const struct moesim_random extra = {l->seed, MOESIM_STREAM_COLUMNS_EXTRA, layer, step};
    const float *offset = l->offset + ((size_t)(step % l->n_steps) * l->n_layers + layer) * l->n_experts;
    const uint32_t n_chunks = l->n_tokens / CHUNK_ROWS + (l->n_tokens % CHUNK_ROWS != 0);
#pragma omp parallel for schedule(static)
    for (uint32_t chunk = 0; chunk < n_chunks; chunk++)
        for (uint32_t t = chunk * CHUNK_ROWS; t < l->n_tokens && t < (chunk + 1) * CHUNK_ROWS; t++)
            fill_row(l, &random, &extra, offset, t);
    batch->n_tokens = l->n_tokens;
    batch->n_columns = l->n_columns;
    batch->stride = l->n_columns;
    batch->columns = l->values;
    return MOESIM_OK;
}

static void loads_provenance(const void *state, char *text, size_t size)
{
    const struct loads *l = state;
    snprintf(text, size, "%s: loads of %u experts in %u layer%s, %u recorded step%s", l->path, l->shape.n_experts,
             l->shape.n_layers, l->shape.n_layers == 1 ? "" : "s", l->shape.n_steps, l->shape.n_steps == 1 ? "" : "s");
}

const struct moesim_workload moesim_workload_loads = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_COLUMNS,
    .name = "loads",
    .summary = "tokens drawn by recorded loads of experts",
    .reference = "Pareto sampling: Rosen, J. Statist. Plann. Inference 62, 1997",
    .params = params,
    .params_size = sizeof(struct loads_params),
    .state_size = sizeof(struct loads),
    .shape = loads_shape,
    .init = loads_init,
    .step = loads_step,
    .provenance = loads_provenance,
};
