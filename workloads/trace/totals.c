/*
 * Loads of whole layers, from whatever tells them.
 */
#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>
#include <moesim/router.h>

#include "workloads/trace/trace.h"

static enum moesim_status no_memory(const struct trace *t, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", trace_path(t));
}

static enum moesim_status count_pairs(struct trace *t, uint32_t layer, double *load, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(t);
    const uint32_t piece = trace_piece(t);
    struct trace_pairs pairs = {.first = malloc((piece + 1u) * sizeof *pairs.first),
                                .expert = malloc((size_t)piece * s->top_k * sizeof *pairs.expert)};
    enum moesim_status status = pairs.first && pairs.expert ? MOESIM_OK : no_memory(t, err);
    for (uint64_t at = 0; !status && at < s->n_tokens; at += piece) {
        const uint32_t n = s->n_tokens - at < piece ? (uint32_t)(s->n_tokens - at) : piece;
        status = trace_read_pairs(t, layer, at, n, &pairs, err);
        for (uint32_t i = 0; !status && i < pairs.first[n]; i++)
            if (pairs.expert[i] != MOESIM_NO_EXPERT)
                load[pairs.expert[i]]++;
    }
    free(pairs.first);
    free(pairs.expert);
    return status;
}

enum moesim_status trace_total_load(struct trace *t, uint32_t layer, double *load, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(t);
    memset(load, 0, s->n_experts * sizeof *load);
    if (s->kind == TRACE_LOGITS)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds logits; loads or decisions are needed", trace_path(t));
    if (s->kind == TRACE_DECISIONS)
        return count_pairs(t, layer, load, err);
    double *step = malloc(s->n_experts * sizeof *step);
    enum moesim_status status = step ? MOESIM_OK : no_memory(t, err);
    for (uint32_t i = 0; !status && i < s->n_steps; i++) {
        status = trace_read_load(t, layer, i, step, err);
        for (uint32_t e = 0; !status && e < s->n_experts; e++)
            load[e] += step[e];
    }
    free(step);
    return status;
}

enum moesim_status trace_open_loads(const char *path, struct trace **trace, struct moesim_error *err)
{
    struct trace_options options = {.kind = TRACE_LOADS};
    struct moesim_error other;
    const enum moesim_status status = trace_open(path, &options, trace, err);
    if (status != MOESIM_EINVAL)
        return status;
    options.kind = TRACE_DECISIONS;
    return trace_open(path, &options, trace, &other) ? status : MOESIM_OK;
}

enum moesim_status trace_read_loads(const char *path, struct moesim_arena *arena, struct moesim_file_array *array,
                                    struct moesim_error *err)
{
    struct trace *trace;
    enum moesim_status status = trace_open_loads(path, &trace, err);
    if (status)
        return status;
    const struct trace_shape *s = trace_shape(trace);
    const size_t n_layers = s->n_layers, n_experts = s->n_experts;
    float *values = moesim_alloc(arena, n_layers * n_experts, sizeof *values);
    double *load = malloc(n_experts * sizeof *load);
    status = values && load ? MOESIM_OK : no_memory(trace, err);
    if (!s->experts_known)
        status = moesim_fail(err, MOESIM_EINVAL,
                             "%.300s holds decisions that do not say how many experts there are; loads are needed here",
                             path);
    for (size_t l = 0; !status && l < n_layers; l++) {
        status = trace_total_load(trace, (uint32_t)l, load, err);
        for (size_t e = 0; !status && e < n_experts; e++)
            values[l * n_experts + e] = (float)load[e];
    }
    array->values = values;
    array->n = n_layers * n_experts;
    array->n_dimensions = n_layers > 1 ? 2 : 1;
    array->shape[0] = n_layers > 1 ? n_layers : n_experts;
    array->shape[1] = n_experts;
    free(load);
    trace_close(trace);
    return status;
}
