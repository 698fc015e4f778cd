/*
 * Traces as arrays: .npy, .npz, safetensors. All write the same arrays, each in its own wrapping.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include <moesim/plan.h>

#include "workloads/mapping.h"
#include "workloads/npy_header.h"
#include "workloads/trace/export_parts.h"

enum { MOST_ARRAYS = 5, LABEL_PIECE = 4096 };
#define VALUES_AT_A_TIME (1u << 20)

enum content { EXPERTS, WEIGHTS, LABEL, LOGITS, LOADS };

/* An array that is written: what, in which type and shape. */
struct sheet {
    const char *name;
    enum content content;
    enum trace_label label;
    struct npy array; /* type and shape only */
};

struct sheets {
    struct sheet sheet[MOST_ARRAYS];
    uint32_t n;
};

/* ---- which arrays ---- */

static void add(struct sheets *s, const char *name, enum content content, enum npy_type type, uint32_t n_dimensions,
                uint64_t a, uint64_t b, uint64_t c)
{
    s->sheet[s->n++] = (struct sheet){
        .name = name,
        .content = content,
        .array = {.type = type, .n_dimensions = n_dimensions, .shape = {a, b, c}, .n = a * (b ? b : 1) * (c ? c : 1)}};
}

/* Whether some token has fewer experts than others: its last ids are -1 then. */
static enum moesim_status is_ragged(struct trace *trace, bool *ragged, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    struct export_piece p;
    *ragged = false;
    enum moesim_status status = export_piece_init(trace, trace_piece(trace), &p, err);
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (uint64_t at = 0; !status && !*ragged && at < s->n_tokens; at += p.room) {
            status = export_piece_read(trace, &p, l, at, err);
            for (uint32_t t = 0; !status && t < p.n; t++)
                *ragged |= p.pairs.first[t + 1] - p.pairs.first[t] < s->top_k;
            for (uint32_t i = 0; !status && i < p.pairs.first[p.n]; i++)
                *ragged |= p.pairs.expert[i] == MOESIM_NO_EXPERT;
        }
    export_piece_free(&p);
    return status;
}

static enum npy_type id_type(uint32_t n_experts, bool ragged)
{
    if (ragged)
        return n_experts <= INT8_MAX ? NPY_I1 : n_experts <= INT16_MAX ? NPY_I2 : NPY_I4;
    return n_experts <= UINT8_MAX + 1u ? NPY_U1 : n_experts <= UINT16_MAX + 1u ? NPY_U2 : NPY_U4;
}

static enum moesim_status list_sheets(struct trace *trace, bool loads, struct sheets *out, struct moesim_error *err)
{
    static const char *const labels[] = {"sequence_ids", "token_ids", "domains"};
    const struct trace_shape *s = trace_shape(trace);
    *out = (struct sheets){.n = 0};
    if (loads || s->kind == TRACE_LOADS) {
        const uint32_t steps = export_steps(trace);
        if (steps > 1)
            add(out, "logical_count", LOADS, NPY_F8, 3, steps, s->n_layers, s->n_experts);
        else
            add(out, "logical_count", LOADS, NPY_F8, 2, s->n_layers, s->n_experts, 0);
        return MOESIM_OK;
    }
    if (s->kind == TRACE_LOGITS) {
        add(out, "router_logits", LOGITS, NPY_F4, 3, s->n_layers, s->n_tokens, s->n_experts);
    } else {
        bool ragged;
        const enum moesim_status status = is_ragged(trace, &ragged, err);
        if (status)
            return status;
        add(out, "routed_experts", EXPERTS, id_type(s->n_experts, ragged), 3, s->n_tokens, s->n_layers, s->top_k);
        if (s->has_weights)
            add(out, "weights", WEIGHTS, NPY_F4, 3, s->n_tokens, s->n_layers, s->top_k);
    }
    for (uint32_t label = 0; label < TRACE_N_LABELS; label++)
        if (s->has_label[label]) {
            add(out, labels[label], LABEL, NPY_U4, 1, s->n_tokens, 0, 0);
            out->sheet[out->n - 1].label = label;
        }
    return MOESIM_OK;
}

/* ---- their elements ---- */

static enum moesim_status no_memory(const struct trace *trace, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
}

/* One layer's decisions into the rows of all layers; ids -1 and weights 0 fill short ones. */
static void lay_out(const struct sheet *sheet, const struct export_piece *p, uint32_t layer, uint32_t n_layers,
                    uint32_t k, uint8_t *rows)
{
    const size_t size = npy_type_size(sheet->array.type);
    for (uint32_t t = 0; t < p->n; t++) {
        uint8_t *row = rows + ((size_t)t * n_layers + layer) * k * size;
        const uint32_t first = p->pairs.first[t], n = p->pairs.first[t + 1] - first;
        for (uint32_t i = 0; i < k; i++) {
            const uint32_t id = i < n ? p->pairs.expert[first + i] : MOESIM_NO_EXPERT; /* all ones: -1 in any width */
            const float weight = i < n ? p->pairs.weight[first + i] : 0;
            memcpy(row + i * size, sheet->content == EXPERTS ? (const void *)&id : (const void *)&weight, size);
        }
    }
}

static enum moesim_status write_decisions(struct trace *trace, const struct sheet *sheet, FILE *file,
                                          struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const size_t width = (size_t)s->n_layers * s->top_k, size = npy_type_size(sheet->array.type);
    const uint32_t room = width < VALUES_AT_A_TIME ? VALUES_AT_A_TIME / (uint32_t)width : 1;
    struct export_piece p;
    uint8_t *rows = malloc(room * width * size);
    enum moesim_status status = export_piece_init(trace, room, &p, err);
    if (!status && !rows)
        status = no_memory(trace, err);
    for (uint64_t at = 0; !status && at < s->n_tokens; at += room) {
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_piece_read(trace, &p, l, at, err);
            if (!status)
                lay_out(sheet, &p, l, s->n_layers, s->top_k, rows);
        }
        if (!status)
            fwrite(rows, size, p.n * width, file);
    }
    export_piece_free(&p);
    free(rows);
    return status;
}

static enum moesim_status write_logits(struct trace *trace, FILE *file, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint32_t room = VALUES_AT_A_TIME / s->n_experts ? VALUES_AT_A_TIME / s->n_experts : 1;
    float *rows = malloc((size_t)room * s->n_experts * sizeof *rows);
    enum moesim_status status = rows ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (uint64_t at = 0; !status && at < s->n_tokens; at += room) {
            const uint32_t n = s->n_tokens - at < room ? (uint32_t)(s->n_tokens - at) : room;
            status = trace_read_rows(trace, l, at, n, rows, err);
            if (!status)
                fwrite(rows, sizeof *rows, (size_t)n * s->n_experts, file);
        }
    free(rows);
    return status;
}

static enum moesim_status write_loads(struct trace *trace, FILE *file, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    double *load = malloc(s->n_experts * sizeof *load);
    enum moesim_status status = load ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t step = 0; step < export_steps(trace); step++)
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_load(trace, l, step, load, err);
            if (!status)
                fwrite(load, sizeof *load, s->n_experts, file);
        }
    free(load);
    return status;
}

static enum moesim_status write_label(struct trace *trace, enum trace_label label, FILE *file, struct moesim_error *err)
{
    const uint64_t n_tokens = trace_shape(trace)->n_tokens;
    uint32_t values[LABEL_PIECE];
    enum moesim_status status = MOESIM_OK;
    for (uint64_t at = 0; !status && at < n_tokens; at += LABEL_PIECE) {
        const uint32_t n = n_tokens - at < LABEL_PIECE ? (uint32_t)(n_tokens - at) : LABEL_PIECE;
        status = trace_read_labels(trace, label, at, n, values, err);
        if (!status)
            fwrite(values, sizeof *values, n, file);
    }
    return status;
}

static enum moesim_status write_sheet(struct trace *trace, const struct sheet *sheet, FILE *file,
                                      struct moesim_error *err)
{
    switch (sheet->content) {
    case LOADS:
        return write_loads(trace, file, err);
    case LOGITS:
        return write_logits(trace, file, err);
    case LABEL:
        return write_label(trace, sheet->label, file, err);
    default:
        return write_decisions(trace, sheet, file, err);
    }
}

static enum moesim_status write_npy(struct trace *trace, const struct sheet *sheet, FILE *file,
                                    struct moesim_error *err)
{
    char header[NPY_HEADER_ROOM];
    const size_t n = npy_header_make(header, sheet->array.type, sheet->array.shape, sheet->array.n_dimensions);
    fwrite(header, 1, n, file);
    return write_sheet(trace, sheet, file, err);
}

/* ---- .npy ---- */

enum moesim_status trace_export_npy(struct trace *trace, const char *path, const struct trace_export_options *options,
                                    struct moesim_error *err)
{
    struct sheets sheets;
    FILE *file;
    enum moesim_status status = list_sheets(trace, options->loads, &sheets, err);
    if (!status)
        status = export_open(path, &file, err);
    return status ? status : export_close(path, file, write_npy(trace, &sheets.sheet[0], file, err), err);
}

/* ---- .npz ---- */

/* A member in a file without a name, which the archive reads and closes. */
static enum moesim_status add_member(struct trace *trace, const struct sheet *sheet, zip_t *zip,
                                     struct moesim_error *err)
{
    int fd;
    char name[64];
    enum moesim_status status = spool_create(&fd, err);
    FILE *file = status ? NULL : fdopen(fd, "w+");
    if (!file)
        return status ? status : no_memory(trace, err);
    status = write_npy(trace, sheet, file, err);
    if (!status && (fflush(file) != 0 || ferror(file) || fseek(file, 0, SEEK_SET) != 0))
        status = moesim_fail(err, MOESIM_EIO, "no room in TMPDIR: %s", strerror(errno));
    snprintf(name, sizeof name, "%s.npy", sheet->name);
    zip_source_t *source = status ? NULL : zip_source_filep(zip, file, 0, -1);
    if (!source) {
        fclose(file);
        return status ? status : no_memory(trace, err);
    }
    const zip_int64_t index = zip_file_add(zip, name, source, ZIP_FL_ENC_UTF_8);
    if (index < 0) {
        zip_source_free(source);
        return no_memory(trace, err);
    }
    zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0);
    return MOESIM_OK;
}

enum moesim_status trace_export_npz(struct trace *trace, const char *path, const struct trace_export_options *options,
                                    struct moesim_error *err)
{
    struct sheets sheets;
    int code = 0;
    enum moesim_status status = list_sheets(trace, options->loads, &sheets, err);
    if (status)
        return status;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!zip)
        return moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written (zip error %d)", path, code);
    for (uint32_t i = 0; !status && i < sheets.n; i++)
        status = add_member(trace, &sheets.sheet[i], zip, err);
    if (!status && zip_close(zip) == 0)
        return MOESIM_OK;
    if (!status)
        status = moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", path, zip_strerror(zip));
    zip_discard(zip);
    return status;
}

/* ---- safetensors ---- */

static const char *tensor_type(enum npy_type type)
{
    static const char *const names[] = {
        [NPY_U1] = "U8",  [NPY_I1] = "I8",  [NPY_U2] = "U16", [NPY_I2] = "I16", [NPY_U4] = "U32", [NPY_I4] = "I32",
        [NPY_U8] = "U64", [NPY_I8] = "I64", [NPY_F2] = "F16", [NPY_F4] = "F32", [NPY_F8] = "F64", [NPY_BF16] = "BF16"};
    return names[type];
}

static size_t make_header(const struct sheets *sheets, char *text, size_t size)
{
    uint64_t at = 0;
    size_t n = (size_t)snprintf(text, size, "{\"__metadata__\":{\"format\":\"moesim\"}");
    for (uint32_t i = 0; i < sheets->n; i++) {
        const struct npy *a = &sheets->sheet[i].array;
        const uint64_t end = at + a->n * npy_type_size(a->type);
        n += (size_t)snprintf(text + n, size - n, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", sheets->sheet[i].name,
                              tensor_type(a->type));
        for (uint32_t d = 0; d < a->n_dimensions; d++)
            n += (size_t)snprintf(text + n, size - n, "%s%llu", d ? "," : "", (unsigned long long)a->shape[d]);
        n += (size_t)snprintf(text + n, size - n, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                              (unsigned long long)end);
        at = end;
    }
    n += (size_t)snprintf(text + n, size - n, "}");
    while (n % 8)
        text[n++] = ' ';
    return n;
}

enum moesim_status trace_export_safetensors(struct trace *trace, const char *path,
                                            const struct trace_export_options *options, struct moesim_error *err)
{
    struct sheets sheets;
    char header[2048];
    FILE *file;
    enum moesim_status status = list_sheets(trace, options->loads, &sheets, err);
    if (!status)
        status = export_open(path, &file, err);
    if (status)
        return status;
    const uint64_t n = make_header(&sheets, header, sizeof header - 8);
    fwrite(&n, sizeof n, 1, file);
    fwrite(header, 1, n, file);
    for (uint32_t i = 0; !status && i < sheets.n; i++)
        status = write_sheet(trace, &sheets.sheet[i], file, err);
    return export_close(path, file, status, err);
}
