/*
 * Opening a trace: which format a file has shows in its first bytes, a folder's in what lies in it.
 */
#include "workloads/trace/trace.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workloads/trace/file_layout.h"
#include "workloads/trace/source.h"

enum { HEAD_BYTES = 16, PIECE_TOKENS = 4096 };
#define MOST_PAIRS (UINT64_C(1) << 22) /* of one reading: 16 MiB an array */

struct trace {
    char *path;
    const char *format;
    struct trace_source source;
    struct trace_sequences *sequences;
};

/* ---- which format ---- */

struct format {
    const char *name;
    trace_opener *open;
};

static enum moesim_status refuse(const char *path, const char *what, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EIO, "%.300s %s", path, what);
}

static bool begins(const uint8_t *head, size_t n, const char *magic, size_t n_magic)
{
    return n >= n_magic && memcmp(head, magic, n_magic) == 0;
}

/* Formats that are not read, with what to do. */
static enum moesim_status check_foreign(const char *path, const uint8_t *head, size_t n, struct moesim_error *err)
{
    if (begins(head, n, "PAR1", 4))
        return refuse(path,
                      "is Parquet, which is not read: in Python, pandas.read_parquet(FILE).to_json(OUT, "
                      "orient='records', lines=True) makes JSON lines of it",
                      err);
    if (begins(head, n, "\x80\x02", 2) || begins(head, n, "\x80\x03", 2) || begins(head, n, "\x80\x04", 2) ||
        begins(head, n, "\x80\x05", 2))
        return refuse(path,
                      "is a Python pickle (or an old torch file), which is not read: load it in Python and save its "
                      "arrays with numpy.savez",
                      err);
    if (begins(head, n, "\x1f\x8b", 2) || begins(head, n, "\xfd\x37zXZ", 5))
        return refuse(path, "is compressed: unpack it first (gunzip, unxz)", err);
    return MOESIM_OK;
}

/* u64 length of a header that begins with a brace. */
static bool looks_like_safetensors(const uint8_t *head, size_t n, uint64_t size)
{
    uint64_t length;
    memcpy(&length, head, sizeof length);
    return n >= 9 && head[8] == '{' && length > 0 && length < (UINT64_C(1) << 40) && (length <= size || head[7] == 0);
}

static bool has_suffix(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcmp(path + n - m, suffix) == 0;
}

/* Text: JSON begins with a brace or a bracket; all else is a table. */
static bool looks_like_json(const char *path, const uint8_t *head, size_t n)
{
    size_t i = begins(head, n, "\xef\xbb\xbf", 3) ? 3 : 0;
    while (i < n && memchr(" \t\r\n", head[i], 4))
        i++;
    return (i < n && (head[i] == '{' || head[i] == '[')) || has_suffix(path, ".json") || has_suffix(path, ".jsonl");
}

static enum moesim_status find_format(const char *path, struct format *format, struct moesim_error *err)
{
    int fd;
    uint8_t head[HEAD_BYTES] = {0};
    struct stat st;
    enum moesim_status status = regular_file_open(path, "a file of recorded routing", &fd, err);
    if (status)
        return status;
    const ssize_t got = pread(fd, head, sizeof head, 0);
    const bool known = got > 0 && fstat(fd, &st) == 0;
    close(fd);
    if (!known)
        return refuse(path, got == 0 ? "is empty (0 bytes)" : "cannot be read", err);
    const size_t n = (size_t)got;
    status = check_foreign(path, head, n, err);
    if (begins(head, n, FILE_MAGIC, 8))
        *format = (struct format){"moesim trace", trace_open_file};
    else if (begins(head, n, "\x93NUMPY", 6))
        *format = (struct format){"npy", trace_open_npy};
    else if (begins(head, n, "PK\x03\x04", 4) || begins(head, n, "PK\x05\x06", 4))
        *format = (struct format){"npz", trace_open_npz};
    else if (begins(head, n, "GGUF", 4))
        *format = (struct format){"GGUF imatrix", trace_open_gguf};
    else if (looks_like_safetensors(head, n, (uint64_t)st.st_size) || has_suffix(path, ".safetensors"))
        *format = (struct format){"safetensors", trace_open_safetensors};
    else if (has_suffix(path, ".npy"))
        *format = (struct format){"npy", trace_open_npy};
    else if (has_suffix(path, ".npz"))
        *format = (struct format){"npz", trace_open_npz};
    else if (looks_like_json(path, head, n))
        *format = (struct format){"JSON", trace_open_json};
    else
        *format = (struct format){"CSV", trace_open_csv};
    return status;
}

static bool is_inside(const char *folder, const char *name)
{
    char path[4096];
    struct stat st;
    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path && stat(path, &st) == 0;
}

static enum moesim_status find_folder(const char *path, struct format *format, struct moesim_error *err)
{
    if (is_inside(path, "meta_info.json"))
        *format = (struct format){"TensorRT-LLM", trace_open_trtllm_folder};
    else if (is_inside(path, "router_trace_rank0.jsonl"))
        *format = (struct format){"Megatron-LM", trace_open_megatron_folder};
    else
        return refuse(path,
                      "is a directory without meta_info.json (TensorRT-LLM) or router_trace_rank0.jsonl (Megatron-LM); "
                      "name a file",
                      err);
    return MOESIM_OK;
}

/* ---- opening ---- */

static enum moesim_status open_source(struct trace *t, const struct trace_options *options, struct moesim_error *err)
{
    struct format format = {NULL, NULL};
    struct stat st;
    const bool folder = stat(t->path, &st) == 0 && S_ISDIR(st.st_mode);
    enum moesim_status status = folder ? find_folder(t->path, &format, err) : find_format(t->path, &format, err);
    if (status)
        return status;
    const bool arrays =
        format.open == trace_open_npy || format.open == trace_open_npz || format.open == trace_open_safetensors;
    if (options->weights && !arrays)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s is no array, so --weights does not go with it", t->path);
    t->format = format.name;
    return format.open(t->path, options, &t->source, err);
}

static enum moesim_status check_options(const struct trace *t, const struct trace_options *options,
                                        struct moesim_error *err)
{
    const struct trace_shape *shape = &t->source.shape;
    if (options->kind && options->kind != shape->kind)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds %s, not %s", t->path, trace_kind_name(shape->kind),
                           trace_kind_name(options->kind));
    if (options->n_experts && options->n_experts != shape->n_experts) {
        if (shape->kind != TRACE_DECISIONS || options->n_experts < shape->n_experts)
            return moesim_fail(err, MOESIM_EINVAL, "%.300s is about %u experts, not %u", t->path, shape->n_experts,
                               options->n_experts);
    }
    if (options->sequences && shape->kind == TRACE_LOADS)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s holds loads, which have no sequences", t->path);
    return MOESIM_OK;
}

static enum moesim_status add_sequences(struct trace *t, const struct trace_options *options, struct moesim_error *err)
{
    if (!options->sequences)
        return MOESIM_OK;
    const enum moesim_status status =
        trace_sequences_read(options->sequences, options->domains, t->source.shape.n_tokens, &t->sequences, err);
    t->source.shape.has_label[TRACE_SEQUENCE] = true;
    t->source.shape.has_label[TRACE_DOMAIN] |= options->domains != NULL;
    return status;
}

enum moesim_status trace_open(const char *path, const struct trace_options *options, struct trace **trace,
                              struct moesim_error *err)
{
    static const struct trace_options none = {.kind = TRACE_ANY};
    struct trace *t = *trace = calloc(1, sizeof *t);
    options = options ? options : &none;
    if (!t || !(t->path = strdup(path))) {
        free(t);
        *trace = NULL;
        return moesim_fail(err, MOESIM_ENOMEM, "%.300s: memory is exhausted", path);
    }
    enum moesim_status status = open_source(t, options, err);
    if (!status)
        status = check_options(t, options, err);
    if (!status && options->n_experts) {
        t->source.shape.n_experts = options->n_experts;
        t->source.shape.experts_known = true;
    }
    if (!status)
        status = add_sequences(t, options, err);
    if (status) {
        trace_close(t);
        *trace = NULL;
    }
    return status;
}

void trace_close(struct trace *t)
{
    if (!t)
        return;
    if (t->source.reading)
        t->source.reading->close(t->source.state);
    trace_sequences_free(t->sequences);
    free(t->path);
    free(t);
}

/* ---- what it is ---- */

const struct trace_shape *trace_shape(const struct trace *t)
{
    return &t->source.shape;
}

const char *trace_format(const struct trace *t)
{
    return t->format;
}

const char *trace_path(const struct trace *t)
{
    return t->path;
}

const char *trace_note(const struct trace *t)
{
    return t->source.note;
}

uint32_t trace_layer_id(const struct trace *t, uint32_t layer)
{
    return t->source.layer_id ? t->source.layer_id[layer] : layer;
}

static const char *const kinds[] = {
    [TRACE_ANY] = "anything", [TRACE_LOGITS] = "logits", [TRACE_DECISIONS] = "decisions", [TRACE_LOADS] = "loads"};

const char *trace_kind_name(uint32_t kind)
{
    return kinds[kind];
}

enum trace_kind trace_kind_of(const char *name)
{
    for (uint32_t kind = TRACE_LOGITS; name && kind <= TRACE_LOADS; kind++)
        if (strcmp(kinds[kind], name) == 0)
            return (enum trace_kind)kind;
    return TRACE_ANY;
}

/* ---- reading ---- */

enum moesim_status trace_read_pairs(struct trace *t, uint32_t layer, uint64_t first, uint32_t n,
                                    struct trace_pairs *pairs, struct moesim_error *err)
{
    const struct trace_shape *s = &t->source.shape;
    assert(s->kind == TRACE_DECISIONS && layer < s->n_layers && first <= s->n_tokens && n <= s->n_tokens - first);
    assert((uint64_t)n * s->top_k <= UINT32_MAX);
    pairs->first[0] = 0;
    return n ? t->source.reading->pairs(t->source.state, layer, first, n, pairs, err) : MOESIM_OK;
}

enum moesim_status trace_read_rows(struct trace *t, uint32_t layer, uint64_t first, uint32_t n, float *rows,
                                   struct moesim_error *err)
{
    const struct trace_shape *s = &t->source.shape;
    assert(s->kind == TRACE_LOGITS && layer < s->n_layers && first <= s->n_tokens && n <= s->n_tokens - first);
    return n ? t->source.reading->rows(t->source.state, layer, first, n, rows, err) : MOESIM_OK;
}

enum moesim_status trace_read_load(struct trace *t, uint32_t layer, uint32_t step, double *load,
                                   struct moesim_error *err)
{
    const struct trace_shape *s = &t->source.shape;
    assert(s->kind == TRACE_LOADS && layer < s->n_layers && step < s->n_steps);
    return t->source.reading->load(t->source.state, layer, step, load, err);
}

enum moesim_status trace_read_labels(struct trace *t, enum trace_label label, uint64_t first, uint32_t n,
                                     uint32_t *values, struct moesim_error *err)
{
    const struct trace_shape *s = &t->source.shape;
    assert(s->has_label[label] && first <= s->n_tokens && n <= s->n_tokens - first);
    if (t->sequences &&
        (label == TRACE_SEQUENCE || (label == TRACE_DOMAIN && trace_sequences_have_domains(t->sequences)))) {
        trace_sequences_label(t->sequences, label, first, n, values);
        return MOESIM_OK;
    }
    return n ? t->source.reading->labels(t->source.state, label, first, n, values, err) : MOESIM_OK;
}

enum moesim_status trace_find_domain(const struct trace *t, const char *label, uint32_t *number,
                                     struct moesim_error *err)
{
    char *end;
    if (!t->source.shape.has_label[TRACE_DOMAIN])
        return moesim_fail(err, MOESIM_EINVAL, "%.300s has no domains; a column of a CSV of sequences can name them",
                           t->path);
    if (t->sequences && trace_sequences_have_domains(t->sequences)) {
        if (trace_sequences_find(t->sequences, label, number))
            return MOESIM_OK;
        return moesim_fail(err, MOESIM_EINVAL, "%.300s: no sequence is labelled '%.100s'", t->path, label);
    }
    errno = 0;
    const unsigned long value = strtoul(label, &end, 10);
    *number = (uint32_t)value;
    if (*label < '0' || *label > '9' || *end || errno || value > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL, "%.300s numbers its domains; '%.100s' is no number", t->path, label);
    return MOESIM_OK;
}

uint32_t trace_piece(const struct trace *t)
{
    const uint64_t k = t->source.shape.top_k ? t->source.shape.top_k : 1;
    return k * PIECE_TOKENS <= MOST_PAIRS ? PIECE_TOKENS : (uint32_t)(MOST_PAIRS / k);
}
