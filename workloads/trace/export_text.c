/*
 * Decisions as text: JSON lines, CSV, Megatron-LM's routing trace. Loads as CSV and as SGLang's JSON.
 */
#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>

#include "workloads/trace/export_parts.h"

enum { MEGATRON_TOKENS = 4096 };

/* Writes one piece of one layer. */
typedef void piece_writer(FILE *file, const struct trace *trace, const struct export_piece *piece, uint32_t layer,
                          void *context);

/* All pieces: layer by layer, or all layers of one piece after the other. */
static enum moesim_status write_pieces(struct trace *trace, FILE *file, uint32_t room, bool layer_first,
                                       piece_writer *write, void *context, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    struct export_piece p;
    enum moesim_status status = export_piece_init(trace, room, &p, err);
    const uint64_t pieces = s->n_tokens / room + (s->n_tokens % room != 0);
    for (uint64_t i = 0; !status && i < pieces * s->n_layers && !ferror(file); i++) {
        const uint32_t layer = (uint32_t)(layer_first ? i / pieces : i % s->n_layers);
        const uint64_t piece = layer_first ? i % pieces : i / s->n_layers;
        status = export_piece_read(trace, &p, layer, piece * room, err);
        if (!status)
            write(file, trace, &p, layer, context);
    }
    export_piece_free(&p);
    return status;
}

/* ---- a row for each choice, as `moesim route` writes them ---- */

/* Slots that follow from the order count the kept pairs of each expert over the whole layer. */
struct choices {
    uint32_t *taken; /* [n_experts] */
    uint32_t layer;  /* that `taken` is of */
    bool json;
};

static int64_t slot_of(struct choices *c, const struct export_piece *p, uint32_t i)
{
    if (p->pairs.fate[i] != MOESIM_KEPT)
        return -1;
    const uint32_t by_order = c->taken[p->pairs.expert[i]]++;
    return p->pairs.slot[i] == MOESIM_SLOT_BY_ORDER ? (int64_t)by_order : p->pairs.slot[i];
}

static void write_choices(FILE *file, const struct trace *trace, const struct export_piece *p, uint32_t layer,
                          void *context)
{
    struct choices *c = context;
    if (c->layer != layer)
        memset(c->taken, 0, trace_shape(trace)->n_experts * sizeof *c->taken);
    c->layer = layer;
    for (uint32_t t = 0; t < p->n; t++)
        for (uint32_t i = p->pairs.first[t]; i < p->pairs.first[t + 1]; i++) {
            if (p->pairs.expert[i] == MOESIM_NO_EXPERT)
                continue;
            const bool kept = p->pairs.fate[i] == MOESIM_KEPT;
            fprintf(file,
                    c->json ? "{\"layer\":%u,\"token\":%llu,\"choice\":%u,\"expert\":%u,\"weight\":%.9g,\"kept\":%d,"
                              "\"slot\":%lld}\n"
                            : "%u,%llu,%u,%u,%.9g,%d,%lld\n",
                    trace_layer_id(trace, layer), (unsigned long long)(p->first + t), i - p->pairs.first[t],
                    p->pairs.expert[i], kept ? (double)p->pairs.weight[i] : 0.0, kept, (long long)slot_of(c, p, i));
        }
}

static enum moesim_status write_all_choices(struct trace *trace, FILE *file, bool json, struct moesim_error *err)
{
    struct choices c = {.taken = calloc(trace_shape(trace)->n_experts, sizeof *c.taken), .json = json};
    if (!c.taken)
        return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
    const enum moesim_status status = write_pieces(trace, file, trace_piece(trace), true, write_choices, &c, err);
    free(c.taken);
    return status;
}

/* ---- JSON lines ---- */

static void write_ids(FILE *file, const struct export_piece *p, uint32_t t)
{
    const char *comma = "";
    fputc('[', file);
    for (uint32_t i = p->pairs.first[t]; i < p->pairs.first[t + 1]; i++) {
        if (p->pairs.expert[i] == MOESIM_NO_EXPERT)
            continue;
        fprintf(file, "%s%u", comma, p->pairs.expert[i]);
        comma = ",";
    }
    fputc(']', file);
}

static void write_objects(FILE *file, const struct trace *trace, const struct export_piece *p, uint32_t layer,
                          void *context)
{
    (void)context;
    for (uint32_t t = 0; t < p->n; t++) {
        fprintf(file, "{\"layer\":%u,\"token_idx\":%llu,", trace_layer_id(trace, layer),
                (unsigned long long)(p->first + t));
        if (p->sequence)
            fprintf(file, "\"sequence_id\":%u,", p->sequence[t]);
        fputs("\"experts\":", file);
        write_ids(file, p, t);
        if (trace_shape(trace)->has_weights) {
            fputs(",\"gating_probs\":[", file);
            for (uint32_t i = p->pairs.first[t]; i < p->pairs.first[t + 1]; i++)
                fprintf(file, "%s%.9g", i > p->pairs.first[t] ? "," : "", (double)p->pairs.weight[i]);
            fputc(']', file);
        }
        fputs("}\n", file);
    }
}

enum moesim_status trace_export_jsonl(struct trace *trace, const char *path, const struct trace_export_options *options,
                                      struct moesim_error *err)
{
    (void)options;
    const struct trace_shape *s = trace_shape(trace);
    FILE *file;
    enum moesim_status status = export_open(path, &file, err);
    if (status)
        return status;
    if (s->has_fates || s->has_slots) {
        status = write_all_choices(trace, file, true, err);
    } else {
        fprintf(file, "{\"type\":\"meta\",\"num_experts\":%u,\"top_k\":%u}\n", s->n_experts, s->top_k);
        status = write_pieces(trace, file, trace_piece(trace), false, write_objects, NULL, err);
    }
    return export_close(path, file, status, err);
}

/* ---- Megatron-LM ---- */

static void write_step(FILE *file, const struct trace *trace, const struct export_piece *p, uint32_t layer,
                       void *context)
{
    (void)context;
    fprintf(file,
            "{\"step\":%llu,\"stage\":\"pre_dispatch\",\"block\":\"decoder\",\"layer\":%u,\"rank\":0,\"num_tokens\":%u,"
            "\"topk\":%u,\"top_indices\":[",
            (unsigned long long)(p->first / p->room), trace_layer_id(trace, layer), p->n, trace_shape(trace)->top_k);
    for (uint32_t t = 0; t < p->n; t++) {
        fputs(t ? "," : "", file);
        write_ids(file, p, t);
    }
    fputs("]}\n", file);
}

enum moesim_status trace_export_megatron(struct trace *trace, const char *path,
                                         const struct trace_export_options *options, struct moesim_error *err)
{
    (void)options;
    FILE *file;
    const uint32_t room = trace_piece(trace) < MEGATRON_TOKENS ? trace_piece(trace) : MEGATRON_TOKENS;
    const enum moesim_status status = export_open(path, &file, err);
    return status ? status
                  : export_close(path, file, write_pieces(trace, file, room, false, write_step, NULL, err), err);
}

/* ---- loads ---- */

/* Goes over all loads, step by step and layer by layer. */
static enum moesim_status each_load(struct trace *trace, FILE *file,
                                    void (*write)(FILE *file, const struct trace *trace, uint32_t step, uint32_t layer,
                                                  const double *load),
                                    struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    double *load = malloc(s->n_experts * sizeof *load);
    enum moesim_status status =
        load ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
    for (uint32_t step = 0; step < export_steps(trace); step++)
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_load(trace, l, step, load, err);
            if (!status)
                write(file, trace, step, l, load);
        }
    free(load);
    return status;
}

/* Rows of one layer and expert add up where a trace has several steps. */
static void write_counts(FILE *file, const struct trace *trace, uint32_t step, uint32_t layer, const double *load)
{
    (void)step;
    for (uint32_t e = 0; e < trace_shape(trace)->n_experts; e++)
        fprintf(file, "%u,%u,%.17g\n", trace_layer_id(trace, layer), e, load[e]);
}

static void write_json_load(FILE *file, const struct trace *trace, uint32_t step, uint32_t layer, const double *load)
{
    const struct trace_shape *s = trace_shape(trace);
    const bool steps = export_steps(trace) > 1;
    if (layer == 0)
        fputs(steps ? (step ? ",\n[" : "[[") : "[", file);
    fputs(layer ? ",\n[" : "[", file);
    for (uint32_t e = 0; e < s->n_experts; e++)
        fprintf(file, "%s%.17g", e ? "," : "", load[e]);
    fputs("]", file);
    if (layer + 1 == s->n_layers)
        fputs(steps && step + 1 == s->n_steps ? "]]" : "]", file);
}

enum moesim_status trace_export_sglang(struct trace *trace, const char *path,
                                       const struct trace_export_options *options, struct moesim_error *err)
{
    (void)options;
    FILE *file;
    enum moesim_status status = export_open(path, &file, err);
    if (status)
        return status;
    fputs("{\"logical_count\":", file);
    status = each_load(trace, file, write_json_load, err);
    fputs("}\n", file);
    return export_close(path, file, status, err);
}

enum moesim_status trace_export_csv(struct trace *trace, const char *path, const struct trace_export_options *options,
                                    struct moesim_error *err)
{
    const bool loads = options->loads || trace_shape(trace)->kind == TRACE_LOADS;
    FILE *file;
    enum moesim_status status = export_open(path, &file, err);
    if (status)
        return status;
    fputs(loads ? "layer,expert,count\n" : "layer,token,choice,expert,weight,kept,slot\n", file);
    status = loads ? each_load(trace, file, write_counts, err) : write_all_choices(trace, file, false, err);
    return export_close(path, file, status, err);
}
