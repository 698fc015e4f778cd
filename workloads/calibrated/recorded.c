/*
 * Going over a recording, layer by layer.
 */
#include "workloads/calibrated/recorded.h"

#include <math.h>
#include <stdlib.h>

enum { LABELS_AT_A_TIME = 4096 };

static enum moesim_status no_memory(const struct trace *trace, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to measure it", trace_path(trace));
}

enum moesim_status recorded_labels(struct trace *trace, struct recorded_labels *labels, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    uint32_t value[LABELS_AT_A_TIME], last = 0, *const largest[] = {&labels->vocabulary, &labels->n_domains};
    static const enum trace_label counted[] = {TRACE_TOKEN_ID, TRACE_DOMAIN};
    enum moesim_status status = MOESIM_OK;
    *labels = (struct recorded_labels){.n_domains = 0};
    for (uint64_t at = 0; !status && s->kind == TRACE_DECISIONS && at < s->n_tokens; at += LABELS_AT_A_TIME) {
        const uint32_t n = s->n_tokens - at < LABELS_AT_A_TIME ? (uint32_t)(s->n_tokens - at) : LABELS_AT_A_TIME;
        for (uint32_t i = 0; !status && i < 2; i++) {
            if (!s->has_label[counted[i]])
                continue;
            status = trace_read_labels(trace, counted[i], at, n, value, err);
            for (uint32_t t = 0; !status && t < n; t++) /* the largest id stands for "not known" */
                if (value[t] < UINT32_MAX && value[t] >= *largest[i])
                    *largest[i] = value[t] + 1;
        }
        if (!status && s->has_label[TRACE_SEQUENCE])
            status = trace_read_labels(trace, TRACE_SEQUENCE, at, n, value, err);
        for (uint32_t t = 0; !status && s->has_label[TRACE_SEQUENCE] && t < n; t++) {
            labels->n_sequences += labels->n_sequences == 0 || value[t] != last;
            last = value[t];
        }
    }
    return status;
}

/* ---- decisions ---- */

struct pages {
    uint32_t n; /* tokens at a time */
    struct trace_pairs pairs;
    uint32_t *label[TRACE_N_LABELS]; /* [n] or NULL */
};

static bool open_pages(struct pages *p, const struct trace *trace)
{
    const struct trace_shape *s = trace_shape(trace);
    p->n = trace_piece(trace);
    p->pairs.first = malloc(((size_t)p->n + 1) * sizeof *p->pairs.first);
    p->pairs.expert = malloc(((size_t)p->n * s->top_k + 1) * sizeof *p->pairs.expert);
    bool enough = p->pairs.first && p->pairs.expert;
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++) {
        p->label[i] = s->has_label[i] ? malloc(p->n * sizeof *p->label[i]) : NULL;
        enough &= p->label[i] || !s->has_label[i];
    }
    return enough;
}

static void close_pages(struct pages *p)
{
    free(p->pairs.first);
    free(p->pairs.expert);
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        free(p->label[i]);
}

/* Tokens that were routed nowhere have pairs without an expert; they are taken out. */
static void drop_unrouted(struct trace_pairs *pairs, uint32_t n)
{
    uint32_t kept = 0, from = pairs->first[0];
    for (uint32_t t = 0; t < n; t++) {
        const uint32_t end = pairs->first[t + 1];
        for (; from < end; from++)
            if (pairs->expert[from] != UINT32_MAX)
                pairs->expert[kept++] = pairs->expert[from];
        pairs->first[t + 1] = kept;
    }
}

static enum moesim_status add_page(struct trace *trace, uint32_t layer, uint64_t at, struct pages *p,
                                   struct figures *figures, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint32_t n = s->n_tokens - at < p->n ? (uint32_t)(s->n_tokens - at) : p->n;
    enum moesim_status status = trace_read_pairs(trace, layer, at, n, &p->pairs, err);
    for (uint32_t i = 0; !status && i < TRACE_N_LABELS; i++)
        if (p->label[i])
            status = trace_read_labels(trace, i, at, n, p->label[i], err);
    if (status)
        return status;
    drop_unrouted(&p->pairs, n);
    const struct decided decided = {.n_tokens = n,
                                    .first = p->pairs.first,
                                    .expert = p->pairs.expert,
                                    .sequence = p->label[TRACE_SEQUENCE],
                                    .domain = p->label[TRACE_DOMAIN],
                                    .token_id = p->label[TRACE_TOKEN_ID]};
    figures_add(figures, &decided);
    return MOESIM_OK;
}

static enum moesim_status decisions_of(struct trace *trace, const struct recorded_labels *labels, double *layers,
                                       struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const struct figures_shape shape = {.n_experts = s->n_experts,
                                        .top_k = s->top_k,
                                        .n_domains = labels->n_domains,
                                        .vocabulary = labels->vocabulary,
                                        .n_tokens = s->n_tokens};
    struct pages pages = {.n = 0};
    enum moesim_status status = open_pages(&pages, trace) ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        struct figures *figures = figures_create(&shape);
        if (!figures)
            status = no_memory(trace, err);
        for (uint64_t at = 0; !status && at < s->n_tokens; at += pages.n)
            status = add_page(trace, l, at, &pages, figures, err);
        if (!status)
            figures_take(figures, layers + (size_t)l * CALIBRATED_N_FIGURES);
        figures_destroy(figures);
    }
    close_pages(&pages);
    return status;
}

/* ---- loads ---- */

static enum moesim_status loads_of(struct trace *trace, double *layers, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const size_t n = s->n_experts;
    double *load = malloc(n * s->n_steps * sizeof *load);
    enum moesim_status status = load ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        for (uint32_t i = 0; !status && i < s->n_steps; i++)
            status = trace_read_load(trace, l, i, load + i * n, err);
        if (!status && !figures_of_loads(load, s->n_steps, s->n_experts, layers + (size_t)l * CALIBRATED_N_FIGURES))
            status = no_memory(trace, err);
    }
    free(load);
    return status;
}

/* ---- both ---- */

enum moesim_status recorded_figures(struct trace *trace, const struct recorded_labels *labels, double *layers,
                                    double *mean, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    if (s->kind == TRACE_LOGITS)
        return moesim_fail(err, MOESIM_EINVAL,
                           "%.300s holds logits: route them first, and fit the decisions ('moesim route', 'moesim run "
                           "--record FILE')",
                           trace_path(trace));
    const enum moesim_status status =
        s->kind == TRACE_LOADS ? loads_of(trace, layers, err) : decisions_of(trace, labels, layers, err);
    for (uint32_t i = 0; !status && i < CALIBRATED_N_FIGURES; i++) {
        double sum = 0, n = 0;
        for (uint32_t l = 0; l < s->n_layers; l++) {
            const double x = layers[(size_t)l * CALIBRATED_N_FIGURES + i];
            sum += isnan(x) ? 0 : x;
            n += !isnan(x);
        }
        mean[i] = n > 0 ? sum / n : NAN;
    }
    return status;
}
