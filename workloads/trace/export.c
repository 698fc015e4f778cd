/*
 * The table of formats that traces are written in, and what their writers share.
 */
#include "workloads/trace/export.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/trace/export_parts.h"

#define BIT(kind) (1u << (kind))
#define ALL_KINDS (BIT(TRACE_LOGITS) | BIT(TRACE_DECISIONS) | BIT(TRACE_LOADS))

const struct trace_export trace_exports[] = {
    {"trace", ".trace", "moesim's own: compact, checksummed, appendable", ALL_KINDS, false, trace_export_file},
    {"npy", ".npy", "one NumPy array", ALL_KINDS, false, trace_export_npy},
    {"npz", ".npz", "NumPy arrays: experts, weights, labels", ALL_KINDS, false, trace_export_npz},
    {"safetensors", ".safetensors", "the same as tensors", ALL_KINDS, false, trace_export_safetensors},
    {"jsonl", ".jsonl", "an object for each token and layer", BIT(TRACE_DECISIONS), false, trace_export_jsonl},
    {"csv", ".csv", "a row for each choice, as `moesim route`; loads by layer and expert",
     BIT(TRACE_DECISIONS) | BIT(TRACE_LOADS), false, trace_export_csv},
    {"megatron", NULL, "Megatron-LM's routing trace, JSON lines", BIT(TRACE_DECISIONS), false, trace_export_megatron},
    {"sglang", ".json", "SGLang's expert distribution: logical_count", BIT(TRACE_LOADS), false, trace_export_sglang},
    {"trtllm", NULL, "TensorRT-LLM's folder of expert statistics", BIT(TRACE_LOADS), true, trace_export_trtllm},
    {"gguf", ".gguf", "counts of a llama.cpp importance matrix", BIT(TRACE_LOADS), false, trace_export_gguf},
    {NULL, NULL, NULL, 0, false, NULL},
};

static const struct trace_export *find(const char *path, const char *format)
{
    const size_t n = strlen(path);
    for (const struct trace_export *e = trace_exports; e->name; e++) {
        const size_t m = e->suffix ? strlen(e->suffix) : 0;
        if (format ? strcmp(e->name, format) == 0 : m && n > m && strcmp(path + n - m, e->suffix) == 0)
            return e;
    }
    return NULL;
}

enum moesim_status trace_export_find(const struct trace *trace, const char *path, struct trace_export_options *options,
                                     const struct trace_export **export, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const struct trace_export *e = *export = find(path, options->format);
    if (!e)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "%.300s: its suffix names no format (.trace .npy .npz .safetensors .jsonl .csv .json .gguf); "
            "say --format",
            path);
    if (options->loads && s->kind == TRACE_LOGITS)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds logits, which have no loads before they are routed",
                           trace_path(trace));
    if (s->kind == TRACE_DECISIONS && e->kinds == BIT(TRACE_LOADS))
        options->loads = true;
    const uint32_t kind = options->loads ? TRACE_LOADS : s->kind;
    if (!(e->kinds & BIT(kind)))
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds %s, which %s does not%s", trace_path(trace),
                           trace_kind_name(kind), e->name,
                           kind == TRACE_LOGITS ? "; 'moesim route' makes decisions of logits" : "");
    if (options->append && strcmp(e->name, "trace") != 0)
        return moesim_fail(err, MOESIM_EINVAL, "only a moesim trace (.trace) can be appended to");
    return MOESIM_OK;
}

void trace_export_losses(const struct trace *trace, const struct trace_export *export,
                         const struct trace_export_options *options, char *text, size_t size)
{
    const struct trace_shape *s = trace_shape(trace);
    const bool arrays = strcmp(export->name, "npz") == 0 || strcmp(export->name, "safetensors") == 0;
    const bool npy = strcmp(export->name, "npy") == 0, csv = strcmp(export->name, "csv") == 0;
    const bool megatron = strcmp(export->name, "megatron") == 0;
    const bool labels = s->has_label[TRACE_SEQUENCE] || s->has_label[TRACE_TOKEN_ID] || s->has_label[TRACE_DOMAIN];
    *text = '\0';
    if (options->loads || s->kind != TRACE_DECISIONS || strcmp(export->name, "trace") == 0)
        return;
    snprintf(text, size, "%s%s%s", s->has_weights && (npy || megatron) ? " weights" : "",
             s->has_fates && (arrays || npy || megatron) ? " refusals" : "",
             labels && (npy || csv || megatron) ? " labels" : "");
}

/* ---- what the writers share ---- */

enum moesim_status export_open(const char *path, FILE **file, struct moesim_error *err)
{
    *file = fopen(path, "we");
    return *file ? MOESIM_OK : moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", path, strerror(errno));
}

enum moesim_status export_close(const char *path, FILE *file, enum moesim_status status, struct moesim_error *err)
{
    errno = 0;
    const bool bad = ferror(file) != 0;
    const bool lost = fclose(file) != 0 || bad;
    if (!status && lost)
        return moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", path,
                           errno ? strerror(errno) : "write error");
    return status;
}

enum moesim_status export_piece_init(const struct trace *trace, uint32_t room, struct export_piece *p,
                                     struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const size_t pairs = (size_t)room * s->top_k + 1;
    *p = (struct export_piece){.room = room,
                               .pairs = {.first = malloc(((size_t)room + 1) * sizeof(uint32_t)),
                                         .expert = malloc(pairs * sizeof(uint32_t)),
                                         .weight = malloc(pairs * sizeof(float)),
                                         .fate = malloc(pairs),
                                         .slot = malloc(pairs * sizeof(int32_t))}};
    p->sequence = s->has_label[TRACE_SEQUENCE] ? malloc(room * sizeof *p->sequence) : NULL;
    if (p->pairs.first && p->pairs.expert && p->pairs.weight && p->pairs.fate && p->pairs.slot &&
        !p->sequence == !s->has_label[TRACE_SEQUENCE])
        return MOESIM_OK;
    export_piece_free(p);
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
}

void export_piece_free(struct export_piece *p)
{
    free(p->pairs.first);
    free(p->pairs.expert);
    free(p->pairs.weight);
    free(p->pairs.fate);
    free(p->pairs.slot);
    free(p->sequence);
    *p = (struct export_piece){0};
}

enum moesim_status export_piece_read(struct trace *trace, struct export_piece *p, uint32_t layer, uint64_t first,
                                     struct moesim_error *err)
{
    const uint64_t left = trace_shape(trace)->n_tokens - first;
    p->first = first;
    p->n = left < p->room ? (uint32_t)left : p->room;
    enum moesim_status status = trace_read_pairs(trace, layer, first, p->n, &p->pairs, err);
    if (!status && p->sequence)
        status = trace_read_labels(trace, TRACE_SEQUENCE, first, p->n, p->sequence, err);
    return status;
}

uint32_t export_steps(const struct trace *trace)
{
    return trace_shape(trace)->kind == TRACE_LOADS ? trace_shape(trace)->n_steps : 1;
}

enum moesim_status export_load(struct trace *trace, uint32_t layer, uint32_t step, double *load,
                               struct moesim_error *err)
{
    return trace_shape(trace)->kind == TRACE_LOADS ? trace_read_load(trace, layer, step, load, err)
                                                   : trace_total_load(trace, layer, load, err);
}
