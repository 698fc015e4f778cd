/*
 * Loads for TensorRT-LLM and llama.cpp.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "workloads/trace/export_parts.h"

enum { GGUF_F32 = 0, GGUF_U32 = 4, GGUF_TEXT = 8, GGUF_ALIGNMENT = 32 };

static enum moesim_status no_memory(const struct trace *trace, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
}

/* ---- TensorRT-LLM: meta_info.json and rank0.safetensors with tensors "<step>_<layer>" ---- */

static enum moesim_status write_meta(const struct trace *trace, const char *path, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    FILE *file;
    const enum moesim_status status = export_open(path, &file, err);
    if (status)
        return status;
    fprintf(file, "{\"num_experts\": %u, \"num_experts_per_token\": %u}\n", s->n_experts, s->top_k ? s->top_k : 1);
    return export_close(path, file, MOESIM_OK, err);
}

/* The header of all tensors, malloc'd, and its length. */
static char *make_header(const struct trace *trace, uint64_t *n)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint64_t n_tensors = (uint64_t)export_steps(trace) * s->n_layers, bytes = s->n_experts * sizeof(int64_t);
    const size_t room = 16 + (size_t)n_tensors * 128;
    char *text = malloc(room);
    *n = 0;
    for (uint64_t i = 0; text && i < n_tensors; i++)
        *n += (uint64_t)snprintf(
            text + *n, room - *n, "%s\"%llu_%u\":{\"dtype\":\"I64\",\"shape\":[%u],\"data_offsets\":[%llu,%llu]}",
            i ? "," : "{", (unsigned long long)(i / s->n_layers), trace_layer_id(trace, (uint32_t)(i % s->n_layers)),
            s->n_experts, (unsigned long long)(i * bytes), (unsigned long long)((i + 1) * bytes));
    if (text)
        text[(*n)++] = '}';
    while (text && *n % 8)
        text[(*n)++] = ' ';
    return text;
}

static enum moesim_status write_rank(struct trace *trace, FILE *file, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    uint64_t n;
    char *header = make_header(trace, &n);
    double *load = malloc(s->n_experts * sizeof *load);
    enum moesim_status status = header && load ? MOESIM_OK : no_memory(trace, err);
    if (!status) {
        fwrite(&n, sizeof n, 1, file);
        fwrite(header, 1, n, file);
    }
    for (uint32_t step = 0; step < export_steps(trace); step++)
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_load(trace, l, step, load, err);
            for (uint32_t e = 0; !status && e < s->n_experts; e++) {
                const int64_t count = load[e] < 0x1p62 ? (int64_t)(load[e] + 0.5) : INT64_C(1) << 62;
                fwrite(&count, sizeof count, 1, file);
            }
        }
    free(header);
    free(load);
    return status;
}

enum moesim_status trace_export_trtllm(struct trace *trace, const char *path,
                                       const struct trace_export_options *options, struct moesim_error *err)
{
    (void)options;
    char name[4096];
    FILE *file;
    if (mkdir(path, 0777) != 0)
        return moesim_fail(err, MOESIM_EIO, "%.300s: the folder cannot be made: %s", path, strerror(errno));
    if ((size_t)snprintf(name, sizeof name, "%s/meta_info.json", path) >= sizeof name)
        return moesim_fail(err, MOESIM_EIO, "%.300s: the name is too long", path);
    enum moesim_status status = write_meta(trace, name, err);
    snprintf(name, sizeof name, "%s/rank0.safetensors", path);
    if (!status)
        status = export_open(name, &file, err);
    return status ? status : export_close(name, file, write_rank(trace, file, err), err);
}

/* ---- GGUF: the counts of an importance matrix, which is no more than that ---- */

static void write_text(FILE *file, const char *text)
{
    const uint64_t n = strlen(text);
    fwrite(&n, sizeof n, 1, file);
    fwrite(text, 1, n, file);
}

static void write_u32(FILE *file, uint32_t value)
{
    fwrite(&value, sizeof value, 1, file);
}

static void write_u64(FILE *file, uint64_t value)
{
    fwrite(&value, sizeof value, 1, file);
}

static void pad(FILE *file)
{
    for (long at = ftell(file); at >= 0 && at % GGUF_ALIGNMENT; at++)
        fputc(0, file);
}

static void write_header(const struct trace *trace, FILE *file)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint64_t bytes = (s->n_experts * sizeof(float) + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
    fputs("GGUF", file);
    write_u32(file, 3);
    write_u64(file, s->n_layers);
    write_u64(file, 2);
    write_text(file, "general.type");
    write_u32(file, GGUF_TEXT);
    write_text(file, "imatrix");
    write_text(file, "imatrix.chunk_count");
    write_u32(file, GGUF_U32);
    write_u32(file, 1);
    for (uint32_t l = 0; l < s->n_layers; l++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%u.ffn_gate_exps.weight.counts", trace_layer_id(trace, l));
        write_text(file, name);
        write_u32(file, 2);
        write_u64(file, 1);
        write_u64(file, s->n_experts);
        write_u32(file, GGUF_F32);
        write_u64(file, l * bytes);
    }
    pad(file);
}

enum moesim_status trace_export_gguf(struct trace *trace, const char *path, const struct trace_export_options *options,
                                     struct moesim_error *err)
{
    (void)options;
    const struct trace_shape *s = trace_shape(trace);
    FILE *file;
    enum moesim_status status = export_open(path, &file, err);
    if (status)
        return status;
    write_header(trace, file);
    double *load = malloc(s->n_experts * sizeof *load);
    status = load ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        status = trace_total_load(trace, l, load, err);
        for (uint32_t e = 0; !status && e < s->n_experts; e++)
            fwrite(&(float){(float)load[e]}, sizeof(float), 1, file);
        pad(file);
    }
    free(load);
    return export_close(path, file, status, err);
}
