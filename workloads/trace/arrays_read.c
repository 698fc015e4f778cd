/*
 * Reading traces that are arrays.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>

#include "workloads/npy_header.h"
#include "workloads/trace/arrays.h"

#define FORGET_BYTES ((uint64_t)64 << 20) /* what may have been read before pages are given back */

void arrays_account(struct arrays *a, uint64_t bytes)
{
    a->touched += bytes;
    if (a->touched < FORGET_BYTES)
        return;
    for (size_t i = 0; i < a->n_mappings; i++)
        mapping_forget(&a->mappings[i]);
    if (a->weights_file.map)
        mapping_forget(&(struct mapping){a->weights_file.map, a->weights_file.map_size});
    a->touched = 0;
}

static void close_arrays(void *state)
{
    struct arrays *a = state;
    for (size_t i = 0; i < a->n_mappings; i++)
        mapping_close(&a->mappings[i]);
    npy_close(&a->weights_file);
    free(a->mappings);
    free(a->sample_start);
    free(a->path);
    free(a);
}

/* ---- reading decisions ---- */

/* First element of a token's experts in a layer, and the elements from one token to the next. */
static uint64_t element(const struct arrays *a, uint32_t layer, uint64_t token, uint64_t *stride)
{
    const uint64_t k = a->shape.top_k, n_layers = a->shape.n_layers;
    if (arrays_has(a, ROLE_DECISIONS)) {
        *stride = n_layers * k;
        return (token * n_layers + layer) * k;
    }
    *stride = k;
    return (layer * a->shape.n_tokens + token) * k;
}

static enum moesim_status read_weights(struct arrays *a, uint32_t layer, uint64_t first, uint32_t n, float *weight,
                                       struct moesim_error *err)
{
    const struct npy *weights = &a->array[ROLE_WEIGHTS];
    const uint32_t k = a->shape.top_k;
    uint64_t stride, at = element(a, layer, first, &stride);
    for (uint32_t t = 0; t < n; t++, at += stride) {
        npy_read_float(weights, at, k, weight + (size_t)t * k);
        for (uint32_t i = 0; i < k; i++)
            if (!isfinite(weight[(size_t)t * k + i]))
                return moesim_fail(err, MOESIM_EIO, "%s: token %llu, layer %u, choice %u: the weight is not finite",
                                   a->path, (unsigned long long)(first + t), layer, i);
    }
    arrays_account(a, (uint64_t)n * k * npy_type_size(weights->type));
    return MOESIM_OK;
}

/* Moves pairs together over those without an expert. */
static void close_gaps(uint32_t n, uint32_t k, struct trace_pairs *out)
{
    uint32_t to = 0;
    for (uint32_t t = 0; t < n; t++) {
        out->first[t] = to;
        for (uint32_t i = 0; i < k; i++) {
            const size_t from = (size_t)t * k + i;
            if (out->expert[from] == UINT32_MAX)
                continue;
            if (out->weight)
                out->weight[to] = out->weight[from];
            out->expert[to++] = out->expert[from];
        }
    }
    out->first[n] = to;
}

static void share_weights(uint32_t n, const struct trace_pairs *out)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = out->first[t]; i < out->first[t + 1]; i++)
            out->weight[i] = 1 / (float)(out->first[t + 1] - out->first[t]);
}

static enum moesim_status read_pairs(void *state, uint32_t layer, uint64_t first, uint32_t n, struct trace_pairs *out,
                                     struct moesim_error *err)
{
    struct arrays *a = state;
    const struct npy *ids = arrays_decisions(a);
    const uint32_t k = a->shape.top_k;
    const bool weighted = out->weight && arrays_has(a, ROLE_WEIGHTS);
    enum moesim_status status = weighted ? read_weights(a, layer, first, n, out->weight, err) : MOESIM_OK;
    if (status)
        return status;
    uint64_t stride;
    const uint64_t at = element(a, layer, first, &stride);
    npy_gather_ids(ids, at, n, k, stride, out->expert);
    arrays_account(a, (uint64_t)n * k * npy_type_size(ids->type));
    for (uint32_t t = 0; t <= n; t++)
        out->first[t] = t * k;
    if (a->missing)
        close_gaps(n, k, out);
    if (out->weight && !weighted)
        share_weights(n, out);
    if (out->fate)
        memset(out->fate, MOESIM_KEPT, out->first[n]);
    for (uint32_t i = 0; out->slot && i < out->first[n]; i++)
        out->slot[i] = MOESIM_SLOT_BY_ORDER;
    return MOESIM_OK;
}

/* ---- reading logits, loads, labels ---- */

/* The sample that holds a token. */
static uint64_t sample_of(const struct arrays *a, uint64_t token)
{
    uint64_t low = 0, high = a->array[ROLE_TOKEN_COUNTS].n;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (a->sample_start[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static enum moesim_status read_rows(void *state, uint32_t layer, uint64_t first, uint32_t n, float *rows,
                                    struct moesim_error *err)
{
    (void)err;
    struct arrays *a = state;
    const struct npy *logits = &a->array[ROLE_LOGITS];
    const uint64_t n_experts = a->shape.n_experts;
    if (!a->sample_start) {
        npy_read_float(logits, (layer * a->shape.n_tokens + first) * n_experts, n * n_experts, rows);
    } else {
        uint64_t sample = sample_of(a, first);
        for (uint64_t t = first; t < first + n; t++) {
            while (a->sample_start[sample + 1] <= t)
                sample++;
            const uint64_t row = (sample * a->shape.n_layers + layer) * logits->shape[2] + t - a->sample_start[sample];
            npy_read_float(logits, row * n_experts, n_experts, rows + (t - first) * n_experts);
        }
    }
    arrays_account(a, n * n_experts * npy_type_size(logits->type));
    return MOESIM_OK;
}

static enum moesim_status check_load(const struct arrays *a, double load, uint32_t layer, uint64_t i,
                                     struct moesim_error *err)
{
    if (load >= 0 && isfinite(load))
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EIO, "%s: layer %u, element %llu: a load is not a number from 0 up but %g", a->path,
                       layer, (unsigned long long)i, load);
}

static enum moesim_status read_load(void *state, uint32_t layer, uint32_t step, double *load, struct moesim_error *err)
{
    const struct arrays *a = state;
    const bool physical = arrays_has(a, ROLE_PHYSICAL_LOADS);
    const struct npy *loads = &a->array[physical ? ROLE_PHYSICAL_LOADS : ROLE_LOADS];
    const uint64_t width = loads->shape[loads->n_dimensions - 1];
    const uint64_t start = ((uint64_t)step * a->shape.n_layers + layer) * width;
    memset(load, 0, a->shape.n_experts * sizeof *load);
    enum moesim_status status = MOESIM_OK;
    for (uint64_t i = 0; !status && i < width; i++) {
        double value;
        uint32_t expert = (uint32_t)i;
        npy_read_double(loads, start + i, 1, &value);
        status = check_load(a, value, layer, i, err);
        if (physical)
            npy_gather_ids(&a->array[ROLE_PHYSICAL_MAP], layer * width + i, 1, 1, 1, &expert);
        load[expert] += value;
    }
    return status;
}

static enum moesim_status read_labels(void *state, enum trace_label label, uint64_t first, uint32_t n, uint32_t *values,
                                      struct moesim_error *err)
{
    const struct arrays *a = state;
    const enum arrays_role role = ROLE_SEQUENCE + label;
    if (!arrays_has(a, role)) { /* samples are sequences */
        uint64_t sample = sample_of(a, first);
        for (uint32_t i = 0; i < n; i++) {
            while (a->sample_start[sample + 1] <= first + i)
                sample++;
            values[i] = (uint32_t)sample;
        }
        return MOESIM_OK;
    }
    const enum moesim_status status = npy_read_u32(&a->array[role], first, n, values, err);
    if (status)
        moesim_error_prefix(err, "%s: %s", a->path, arrays_names[role]);
    return status;
}

const struct trace_reading arrays_reading = {read_pairs, read_rows, read_load, read_labels, close_arrays};
