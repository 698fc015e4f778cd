/*
 * Any trace as moesim's own file.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "workloads/trace/export_parts.h"
#include "workloads/trace/writer.h"

static enum moesim_status copy_pairs(struct trace *trace, struct trace_writer *w, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    struct export_piece p;
    enum moesim_status status = export_piece_init(trace, trace_piece(trace), &p, err);
    for (uint64_t at = 0; !status && at < s->n_tokens; at += p.room)
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_piece_read(trace, &p, l, at, err);
            struct trace_pairs pairs = p.pairs;
            pairs.weight = s->has_weights ? pairs.weight : NULL;
            if (!status)
                status = trace_write_pairs(w, trace_layer_id(trace, l), p.n, &pairs, err);
        }
    export_piece_free(&p);
    return status;
}

static enum moesim_status copy_rows(struct trace *trace, struct trace_writer *w, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint32_t piece = (1u << 20) / s->n_experts ? (1u << 20) / s->n_experts : 1;
    float *rows = malloc((size_t)piece * s->n_experts * sizeof *rows);
    enum moesim_status status =
        rows ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
    for (uint64_t at = 0; !status && at < s->n_tokens; at += piece) {
        const uint32_t n = s->n_tokens - at < piece ? (uint32_t)(s->n_tokens - at) : piece;
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = trace_read_rows(trace, l, at, n, rows, err);
            if (!status)
                status = trace_write_rows(w, trace_layer_id(trace, l), n, rows, s->n_experts, err);
        }
    }
    free(rows);
    return status;
}

static enum moesim_status copy_loads(struct trace *trace, struct trace_writer *w, uint32_t first_step,
                                     struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    double *load = malloc(s->n_experts * sizeof *load);
    enum moesim_status status =
        load ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to convert it", trace_path(trace));
    for (uint32_t step = 0; !status && step < export_steps(trace); step++)
        for (uint32_t l = 0; !status && l < s->n_layers; l++) {
            status = export_load(trace, l, step, load, err);
            if (!status)
                status = trace_write_load(w, trace_layer_id(trace, l), first_step + step, load, s->n_experts, err);
        }
    free(load);
    return status;
}

static enum moesim_status copy_labels(struct trace *trace, struct trace_writer *w, struct moesim_error *err)
{
    enum { PIECE = 4096 };
    const struct trace_shape *s = trace_shape(trace);
    uint32_t values[PIECE];
    enum moesim_status status = MOESIM_OK;
    for (uint32_t label = 0; label < TRACE_N_LABELS; label++)
        for (uint64_t at = 0; !status && s->has_label[label] && at < s->n_tokens; at += PIECE) {
            const uint32_t n = s->n_tokens - at < PIECE ? (uint32_t)(s->n_tokens - at) : PIECE;
            status = trace_read_labels(trace, label, at, n, values, err);
            if (!status)
                status = trace_write_labels(w, label, n, values, err);
        }
    return status;
}

static enum moesim_status copy_all(struct trace *trace, struct trace_writer *w, enum trace_kind kind,
                                   struct moesim_error *err)
{
    if (kind == TRACE_LOADS)
        return copy_loads(trace, w, (uint32_t)trace_writer_tokens(w, trace_layer_id(trace, 0)), err);
    const enum moesim_status status = kind == TRACE_DECISIONS ? copy_pairs(trace, w, err) : copy_rows(trace, w, err);
    return status ? status : copy_labels(trace, w, err);
}

/* The same kind and experts as what the file holds; layers that differ show when it is finished. */
static enum moesim_status check_append(const struct trace_writer *w, const struct trace *trace, enum trace_kind kind,
                                       struct moesim_error *err)
{
    if (trace_writer_kind(w) != kind)
        return moesim_fail(err, MOESIM_EINVAL, "%s cannot be appended to a trace of %s", trace_kind_name(kind),
                           trace_kind_name(trace_writer_kind(w)));
    for (uint32_t l = 0; l < trace_shape(trace)->n_layers; l++)
        if (trace_writer_tokens(w, trace_layer_id(trace, l)) == 0)
            return moesim_fail(err, MOESIM_EINVAL, "the trace that is appended to has no layer %u",
                               trace_layer_id(trace, l));
    if (kind != TRACE_DECISIONS && trace_writer_experts(w) != trace_shape(trace)->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "the trace that is appended to is about %u experts, not %u",
                           trace_writer_experts(w), trace_shape(trace)->n_experts);
    return MOESIM_OK;
}

enum moesim_status trace_export_file(struct trace *trace, const char *path, const struct trace_export_options *options,
                                     struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const enum trace_kind kind = options->loads ? TRACE_LOADS : (enum trace_kind)s->kind;
    struct trace_writer *w = NULL;
    const int fd = open(path, O_RDWR | O_CLOEXEC | O_CREAT | (options->append ? 0 : O_TRUNC), 0666);
    if (fd < 0)
        return moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", path, strerror(errno));
    enum moesim_status status = options->append
                                    ? trace_writer_append(fd, path, &w, err)
                                    : trace_writer_create(fd, kind, s->experts_known ? s->n_experts : 0, &w, err);
    if (!status && options->append)
        status = check_append(w, trace, kind, err);
    if (!status)
        status = copy_all(trace, w, kind, err);
    if (!status)
        status = trace_writer_finish(w, err);
    trace_writer_destroy(w);
    if (close(fd) != 0 && !status)
        status = moesim_fail(err, MOESIM_EIO, "%.300s: cannot be written: %s", path, strerror(errno));
    return status;
}
