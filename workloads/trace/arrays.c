/*
 * Traces that are arrays in a mapped file: .npy, members of .npz, tensors of safetensors. Nothing is copied but what is
 * asked for; opening goes over decisions once, to know the experts and to refuse what is no id.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/json_scan.h"
#include "workloads/npy_header.h"
#include "workloads/trace/arrays.h"

#define SCAN_ELEMENTS ((uint64_t)4 << 20)

const char *const arrays_names[N_ROLES] = {
    [ROLE_DECISIONS] = ("routed_experts|experts|topk_ids|selected_experts|expert_ids|topk_experts|top_indices|topk_idx|"
                        "topk_indices|decisions"),
    [ROLE_DECISIONS_BY_LAYER] = "topk_ids_of_layer",
    [ROLE_WEIGHTS] = "weights|topk_weights|gating_probs|selected_probabilities|selected_probs|routing_weights",
    [ROLE_LOGITS] = "router_logits|logits|gate_logits",
    [ROLE_TOKEN_COUNTS] = "token_counts",
    [ROLE_LOADS] = "logical_count|loads|expert_load|expert_loads|expert_count|expert_counts",
    [ROLE_PHYSICAL_LOADS] = "global_physical_count|physical_count",
    [ROLE_PHYSICAL_MAP] = "physical_to_logical_map|last_physical_to_logical_map",
    [ROLE_SEQUENCE] = "sequence|sequences|sequence_id|sequence_ids",
    [ROLE_TOKEN_ID] = "token_id|token_ids|input_ids",
    [ROLE_DOMAIN] = "domain|domains",
};

bool trace_member_wanted(const char *name, size_t n_name)
{
    for (uint32_t role = 0; role < N_ROLES; role++)
        if (scan_is_one_of((struct scan_text){name, n_name}, arrays_names[role]))
            return true;
    return false;
}

/* ---- what the arrays are ---- */

static enum moesim_status wrong(const struct arrays *a, enum moesim_status status, struct moesim_error *err,
                                const char *what)
{
    return moesim_fail(err, status, "%s: %s", a->path, what);
}

/* An array on its own, by its type and dimensions: three of integers are decisions, two of integers or one are loads,
 * others are logits. */
static enum arrays_role guess(const struct npy *array, uint32_t kind)
{
    const bool real =
        array->type == NPY_F2 || array->type == NPY_F4 || array->type == NPY_F8 || array->type == NPY_BF16;
    if (kind == TRACE_DECISIONS || (!kind && !real && array->n_dimensions == 3))
        return ROLE_DECISIONS;
    if (kind == TRACE_LOADS || (!kind && (array->n_dimensions == 1 || !real)))
        return ROLE_LOADS;
    return ROLE_LOGITS;
}

static enum moesim_status assign(struct arrays *a, const struct trace_member *members, size_t n_members, uint32_t kind,
                                 struct moesim_error *err)
{
    for (size_t i = 0; i < n_members; i++)
        for (uint32_t role = 0; role < N_ROLES; role++)
            if (scan_is_one_of((struct scan_text){members[i].name, members[i].n_name}, arrays_names[role]) &&
                !arrays_has(a, role))
                a->array[role] = members[i].array;
    if (n_members == 1 && !arrays_has(a, ROLE_DECISIONS) && !arrays_has(a, ROLE_DECISIONS_BY_LAYER) &&
        !arrays_has(a, ROLE_LOGITS) && !arrays_has(a, ROLE_LOADS) && !arrays_has(a, ROLE_PHYSICAL_LOADS)) {
        memset(a->array, 0, sizeof a->array);
        a->array[guess(&members[0].array, kind)] = members[0].array;
    }
    const bool ids = arrays_has(a, ROLE_DECISIONS) || arrays_has(a, ROLE_DECISIONS_BY_LAYER);
    const bool loads =
        arrays_has(a, ROLE_LOADS) || (arrays_has(a, ROLE_PHYSICAL_LOADS) && arrays_has(a, ROLE_PHYSICAL_MAP));
    if (!ids && !loads && !arrays_has(a, ROLE_LOGITS))
        return wrong(a, MOESIM_EIO, err,
                     "no array in it has a name that tells what it is: routed_experts [tokens, layers, k], weights, "
                     "router_logits [layers, tokens, experts] or loads [layers, experts]");
    a->shape.kind = kind                                            ? kind
                    : ids && (!loads || !arrays_has(a, ROLE_LOADS)) ? TRACE_DECISIONS
                    : arrays_has(a, ROLE_LOGITS)                    ? TRACE_LOGITS
                                                                    : TRACE_LOADS;
    if ((a->shape.kind == TRACE_DECISIONS && !ids) || (a->shape.kind == TRACE_LOADS && !loads) ||
        (a->shape.kind == TRACE_LOGITS && !arrays_has(a, ROLE_LOGITS)))
        return moesim_fail(err, MOESIM_EINVAL, "%s: there are no %s in it, but %s", a->path,
                           trace_kind_name(a->shape.kind),
                           ids     ? "decisions"
                           : loads ? "loads"
                                   : "logits");
    return MOESIM_OK;
}

static enum moesim_status bad_shape(const struct arrays *a, const struct npy *array, const char *wanted,
                                    struct moesim_error *err)
{
    char shape[96] = "";
    size_t n = 0;
    for (uint32_t d = 0; d < array->n_dimensions; d++)
        n +=
            (size_t)snprintf(shape + n, sizeof shape - n, "%s%llu", d ? ", " : "", (unsigned long long)array->shape[d]);
    return moesim_fail(err, MOESIM_EIO, "%s: the array is [%s]; %s is needed", a->path, shape, wanted);
}

/* ---- decisions ---- */

/* Names the first id that is out of range. */
static enum moesim_status name_culprit(const struct arrays *a, uint64_t first, uint64_t n, int64_t limit,
                                       struct moesim_error *err)
{
    const struct npy *ids = arrays_decisions(a);
    const uint64_t k = a->shape.top_k, n_layers = a->shape.n_layers;
    for (uint64_t i = first; i < first + n; i++) {
        int64_t least, most;
        const bool whole = npy_whole_range(ids, i, 1, &least, &most);
        if (whole && least >= -1 && most < limit)
            continue;
        const uint64_t row = i / k;
        const bool by_token = arrays_has(a, ROLE_DECISIONS);
        const uint64_t layer = by_token ? row % n_layers : row / a->shape.n_tokens;
        const uint64_t token = by_token ? row / n_layers : row % a->shape.n_tokens;
        if (!whole)
            return moesim_fail(err, MOESIM_EIO, "%s: token %llu, layer %llu: an id is not a whole number", a->path,
                               (unsigned long long)token, (unsigned long long)layer);
        return moesim_fail(err, MOESIM_EIO, "%s: token %llu, layer %llu: expert %lld is not one of the %lld%s", a->path,
                           (unsigned long long)token, (unsigned long long)layer, (long long)least, (long long)limit,
                           limit == TRACE_MAX_EXPERTS ? " there can be; for loads say --kind loads" : "");
    }
    return MOESIM_OK;
}

/* Goes over all ids: the largest, whether some are -1, and whether all are experts. */
static enum moesim_status scan_ids(struct arrays *a, uint32_t n_experts, struct moesim_error *err)
{
    const struct npy *ids = arrays_decisions(a);
    const int64_t limit = n_experts ? n_experts : TRACE_MAX_EXPERTS;
    int64_t largest = -1;
    for (uint64_t at = 0; at < ids->n; at += SCAN_ELEMENTS) {
        const uint64_t n = ids->n - at < SCAN_ELEMENTS ? ids->n - at : SCAN_ELEMENTS;
        int64_t least, most;
        if (!npy_whole_range(ids, at, n, &least, &most) || least < -1 || most >= limit)
            return name_culprit(a, at, n, limit, err);
        a->missing |= least < 0;
        largest = most > largest ? most : largest;
        arrays_account(a, n * npy_type_size(ids->type));
    }
    if (largest < 0)
        return wrong(a, MOESIM_EIO, err, "every id is -1: no token has an expert");
    a->shape.n_experts = n_experts ? n_experts : (uint32_t)largest + 1;
    a->shape.all_zero = largest == 0 && n_experts != 1;
    return MOESIM_OK;
}

static enum moesim_status shape_decisions(struct arrays *a, const struct trace_options *options,
                                          struct moesim_error *err)
{
    const struct npy *ids = arrays_decisions(a), *weights = &a->array[ROLE_WEIGHTS];
    const uint32_t d = ids->n_dimensions;
    const bool by_token = arrays_has(a, ROLE_DECISIONS);
    if (d != 3 && !(d == 2 && by_token))
        return bad_shape(a, ids, by_token ? "[tokens, layers, k] or [tokens, k]" : "[layers, tokens, k]", err);
    const uint64_t tokens = ids->shape[by_token ? 0 : 1], layers = d == 2 ? 1 : ids->shape[by_token ? 1 : 0];
    if (layers > TRACE_MAX_LAYERS || ids->shape[d - 1] > TRACE_MAX_EXPERTS)
        return bad_shape(a, ids, "at most 4096 layers and 1048576 experts a token", err);
    a->shape.n_layers = (uint32_t)layers;
    a->shape.n_tokens = tokens;
    a->shape.top_k = (uint32_t)ids->shape[d - 1];
    if (arrays_has(a, ROLE_WEIGHTS) &&
        (weights->n_dimensions != d || memcmp(weights->shape, ids->shape, d * sizeof *ids->shape)))
        return bad_shape(a, weights, "weights of the same shape as the experts", err);
    a->shape.has_weights = arrays_has(a, ROLE_WEIGHTS);
    return scan_ids(a, options->n_experts, err);
}

/* ---- logits and loads ---- */

static enum moesim_status count_samples(struct arrays *a, struct moesim_error *err)
{
    const struct npy *counts = &a->array[ROLE_TOKEN_COUNTS], *logits = &a->array[ROLE_LOGITS];
    if (!arrays_has(a, ROLE_TOKEN_COUNTS) || counts->n_dimensions != 1 || counts->n != logits->shape[0])
        return wrong(a, MOESIM_EIO, err, "logits [samples, layers, tokens, experts] need token_counts [samples]");
    a->sample_start = calloc((size_t)counts->n + 1, sizeof *a->sample_start);
    if (!a->sample_start)
        return moesim_fail(err, MOESIM_ENOMEM, "%s: memory is exhausted", a->path);
    for (uint64_t s = 0; s < counts->n; s++) {
        uint32_t n;
        const enum moesim_status status = npy_read_u32(counts, s, 1, &n, err);
        if (status || n > logits->shape[2])
            return moesim_fail(err, MOESIM_EIO, "%s: token_counts[%llu] is not a number of tokens up to %llu", a->path,
                               (unsigned long long)s, (unsigned long long)logits->shape[2]);
        a->sample_start[s + 1] = a->sample_start[s] + n;
    }
    a->shape.n_tokens = a->sample_start[counts->n];
    a->shape.has_label[TRACE_SEQUENCE] = true;
    return a->shape.n_tokens ? MOESIM_OK : wrong(a, MOESIM_EIO, err, "token_counts leaves no token");
}

static enum moesim_status shape_logits(struct arrays *a, const struct trace_options *options, struct moesim_error *err)
{
    const struct npy *logits = &a->array[ROLE_LOGITS];
    const uint32_t d = logits->n_dimensions;
    if (d < 2)
        return bad_shape(a, logits, "[layers, tokens, experts] or [tokens, experts]", err);
    const uint64_t layers = d == 2 ? 1 : logits->shape[d - 3];
    if (layers > TRACE_MAX_LAYERS || logits->shape[d - 1] > TRACE_MAX_EXPERTS)
        return bad_shape(a, logits, "at most 4096 layers and 1048576 experts", err);
    if (options->n_experts && options->n_experts != logits->shape[d - 1])
        return moesim_fail(err, MOESIM_EINVAL, "%s has logits of %llu experts, not of %u", a->path,
                           (unsigned long long)logits->shape[d - 1], options->n_experts);
    a->shape.n_layers = (uint32_t)layers;
    a->shape.n_experts = (uint32_t)logits->shape[d - 1];
    a->shape.n_tokens = logits->shape[d - 2];
    return d == 4 ? count_samples(a, err) : MOESIM_OK;
}

static enum moesim_status shape_map(struct arrays *a, uint64_t layers, uint64_t slots, struct moesim_error *err)
{
    const struct npy *map = &a->array[ROLE_PHYSICAL_MAP];
    int64_t least, most;
    if (map->n_dimensions != 2 || map->shape[0] != layers || map->shape[1] != slots)
        return bad_shape(a, map, "a map of slots [layers, slots] as the counts", err);
    if (!npy_whole_range(map, 0, map->n, &least, &most) || least < 0 || most >= TRACE_MAX_EXPERTS)
        return wrong(a, MOESIM_EIO, err, "physical_to_logical_map holds what is no expert");
    a->shape.n_experts = (uint32_t)most + 1;
    return MOESIM_OK;
}

static enum moesim_status shape_loads(struct arrays *a, const struct trace_options *options, struct moesim_error *err)
{
    const bool physical = !arrays_has(a, ROLE_LOADS);
    const struct npy *loads = &a->array[physical ? ROLE_PHYSICAL_LOADS : ROLE_LOADS];
    const uint32_t d = loads->n_dimensions;
    if (d > 3)
        return bad_shape(a, loads, "[experts], [layers, experts] or [steps, layers, experts]", err);
    const uint64_t steps = d == 3 ? loads->shape[0] : 1, layers = d == 1 ? 1 : loads->shape[d - 2];
    if (layers > TRACE_MAX_LAYERS || loads->shape[d - 1] > TRACE_MAX_EXPERTS || steps > UINT32_MAX)
        return bad_shape(a, loads, "at most 4096 layers and 1048576 experts", err);
    a->array[ROLE_LOADS].data = physical ? NULL : a->array[ROLE_LOADS].data;
    a->shape.n_steps = (uint32_t)steps;
    a->shape.n_layers = (uint32_t)layers;
    a->shape.n_experts = (uint32_t)loads->shape[d - 1];
    enum moesim_status status = physical ? shape_map(a, layers, loads->shape[d - 1], err) : MOESIM_OK;
    if (!status && options->n_experts && options->n_experts != a->shape.n_experts)
        status = moesim_fail(err, MOESIM_EINVAL, "%s has loads of %u experts, not of %u", a->path, a->shape.n_experts,
                             options->n_experts);
    if (!physical)
        a->array[ROLE_PHYSICAL_LOADS].data = NULL;
    return status;
}

static enum moesim_status shape_labels(struct arrays *a, struct moesim_error *err)
{
    for (uint32_t label = 0; label < TRACE_N_LABELS; label++) {
        const struct npy *array = &a->array[ROLE_SEQUENCE + label];
        if (!array->data || a->shape.kind == TRACE_LOADS)
            continue;
        if (array->n_dimensions != 1 || array->n != a->shape.n_tokens)
            return bad_shape(a, array, "one label for each token", err);
        a->shape.has_label[label] = true;
    }
    return MOESIM_OK;
}

static enum moesim_status open_weights(struct arrays *a, const char *path, struct moesim_error *err)
{
    if (!path)
        return MOESIM_OK;
    if (a->shape.kind != TRACE_DECISIONS)
        return moesim_fail(err, MOESIM_EINVAL, "%s: --weights belongs to decisions, and this holds %s", a->path,
                           trace_kind_name(a->shape.kind));
    const enum moesim_status status = npy_open(path, &a->weights_file, err);
    a->array[ROLE_WEIGHTS] = a->weights_file;
    return status;
}

enum moesim_status trace_arrays_open(const char *path, const struct trace_options *options,
                                     struct trace_member *members, size_t n_members, struct mapping *mappings,
                                     size_t n_mappings, struct trace_source *source, struct moesim_error *err)
{
    struct arrays *a = calloc(1, sizeof *a);
    if (!a) {
        for (size_t i = 0; i < n_mappings; i++)
            mapping_close(&mappings[i]);
        free(mappings);
        return moesim_fail(err, MOESIM_ENOMEM, "%s: memory is exhausted", path);
    }
    a->mappings = mappings;
    a->n_mappings = n_mappings;
    a->path = strdup(path);
    enum moesim_status status = a->path ? assign(a, members, n_members, options->kind, err)
                                        : moesim_fail(err, MOESIM_ENOMEM, "%s: memory is exhausted", path);
    if (!status)
        status = open_weights(a, options->weights, err);
    if (!status)
        status = a->shape.kind == TRACE_DECISIONS ? shape_decisions(a, options, err)
                 : a->shape.kind == TRACE_LOGITS  ? shape_logits(a, options, err)
                                                  : shape_loads(a, options, err);
    if (!status)
        status = shape_labels(a, err);
    if (status) {
        arrays_reading.close(a);
        return status;
    }
    a->shape.experts_known = a->shape.kind != TRACE_DECISIONS || options->n_experts > 0;
    *source = (struct trace_source){.reading = &arrays_reading, .state = a, .shape = a->shape};
    return MOESIM_OK;
}

enum moesim_status trace_open_npy(const char *path, const struct trace_options *options, struct trace_source *source,
                                  struct moesim_error *err)
{
    struct npy npy;
    struct mapping *mapping = malloc(sizeof *mapping);
    if (!mapping)
        return moesim_fail(err, MOESIM_ENOMEM, "%s: memory is exhausted", path);
    const enum moesim_status status = npy_open(path, &npy, err);
    if (status) {
        free(mapping);
        return status;
    }
    *mapping = (struct mapping){npy.map, npy.map_size};
    npy.map = NULL;
    struct trace_member member = {"", 0, npy};
    return trace_arrays_open(path, options, &member, 1, mapping, 1, source, err);
}
