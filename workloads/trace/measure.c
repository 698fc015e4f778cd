/*
 * Figures of a trace.
 */
#include "workloads/trace/measure.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/metric.h>

#include "workloads/trace/tally.h"

#define FLOATS_AT_A_TIME (UINT64_C(1) << 20)

const struct trace_figure_info trace_figures[TRACE_N_FIGURES] = {
    [TRACE_LOAD_CV] = {"load_cv", "CV", "standard deviation of the expert loads over their mean"},
    [TRACE_MAX_VIO] = {"max_vio", "max vio", "busiest expert's load over the mean, less 1"},
    [TRACE_LOAD_GINI] = {"load_gini", "Gini", "Gini coefficient of the loads"},
    [TRACE_LOAD_ENTROPY] = {"load_entropy", "entropy", "entropy of the loads over that of even ones"},
    [TRACE_DEAD_EXPERTS] = {"dead_experts", "dead", "experts without a token"},
    [TRACE_LAG1_OVERLAP] = {"lag1_overlap", "lag 1", "share of a token's experts that the one before has too"},
    [TRACE_LAG64_OVERLAP] = {"lag64_overlap", "lag 64", "share of a token's experts that the one 64 back has too"},
    [TRACE_PREDICTABILITY] = {"layer_predictability", "foretold",
                              "share of a token's experts that the layer before foretells, by a table counted on the "
                              "first half and tried on the second"},
    [TRACE_CACHE_HIT_RATE] = {"cache_hit_rate", "cached",
                              "share found among the experts used last, two tokens' worth, emptied at each sequence"},
    [TRACE_DIVERGENCE] = {"domain_divergence", "domains",
                          "Jensen-Shannon divergence of the loads of two domains, bits"},
    [TRACE_ROUTER_ENTROPY] = {"router_entropy", "entropy", "mean entropy of a token's softmax, nat"},
    [TRACE_ROUTER_Z] = {"router_z", "z", "mean squared log-sum-exp of a token's logits"},
};

static double *value_of(const struct trace_measures *m, uint32_t layer, enum trace_figure figure)
{
    return &m->value[(size_t)layer * TRACE_N_FIGURES + figure];
}

MOESIM_PRINTF(2, 3) static void warn(struct trace_measures *m, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (m->n_warnings < TRACE_MAX_WARNINGS)
        vsnprintf(m->warning[m->n_warnings++], sizeof m->warning[0], format, args);
    va_end(args);
}

static enum moesim_status no_memory(const struct trace *trace, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "%.300s: no memory to measure it", trace_path(trace));
}

/* ---- loads ---- */

static void note_load(struct trace_measures *m, uint32_t l, const double *load, uint32_t n, double *scratch)
{
    uint32_t dead = 0;
    for (uint32_t e = 0; e < n; e++)
        dead += load[e] == 0;
    *value_of(m, l, TRACE_LOAD_CV) = moesim_load_cv(load, n);
    *value_of(m, l, TRACE_MAX_VIO) = moesim_max_vio(load, n);
    *value_of(m, l, TRACE_LOAD_GINI) = moesim_load_gini(load, n, scratch);
    *value_of(m, l, TRACE_LOAD_ENTROPY) = moesim_load_entropy(load, n);
    *value_of(m, l, TRACE_DEAD_EXPERTS) = dead;
}

/* Every step is a domain. */
static enum moesim_status measure_loads(struct trace *trace, struct trace_measures *m, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint32_t n = s->n_experts;
    const uint32_t n_domains = s->n_steps > 1 && s->n_steps <= TALLY_MOST_DOMAINS ? s->n_steps : 0;
    double *load = malloc(2 * (size_t)n * sizeof *load);
    double *steps = malloc(((size_t)n_domains * n + 1) * sizeof *steps);
    enum moesim_status status = load && steps ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        status = trace_total_load(trace, l, load, err);
        if (!status)
            note_load(m, l, load, n, load + n);
        for (uint32_t i = 0; !status && i < n_domains; i++)
            status = trace_read_load(trace, l, i, steps + (size_t)i * n, err);
        if (!status && n_domains)
            *value_of(m, l, TRACE_DIVERGENCE) = trace_mean_divergence(steps, n_domains, n);
    }
    m->n_domains = n_domains;
    free(load);
    free(steps);
    return status;
}

/* ---- logits ---- */

static uint32_t finite_rows(const float *rows, uint32_t n_rows, uint32_t n)
{
    uint32_t finite = 0;
    for (uint32_t t = 0; t < n_rows; t++) {
        bool any = false;
        for (uint32_t e = 0; e < n; e++)
            any |= isfinite(rows[(size_t)t * n + e]) != 0;
        finite += any;
    }
    return finite;
}

static enum moesim_status measure_logits(struct trace *trace, struct trace_measures *m, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    const uint32_t n = s->n_experts, piece = (uint32_t)(FLOATS_AT_A_TIME / n ? FLOATS_AT_A_TIME / n : 1);
    float *rows = malloc((size_t)piece * n * sizeof *rows);
    enum moesim_status status = rows ? MOESIM_OK : no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        double entropy = 0, z = 0;
        uint64_t counted = 0;
        for (uint64_t at = 0; !status && at < s->n_tokens; at += piece) {
            const uint32_t n_rows = s->n_tokens - at < piece ? (uint32_t)(s->n_tokens - at) : piece;
            status = trace_read_rows(trace, l, at, n_rows, rows, err);
            const uint32_t finite = status ? 0 : finite_rows(rows, n_rows, n);
            m->n_bad_rows += n_rows - finite;
            counted += finite;
            if (finite) {
                const struct moesim_confidence confidence = moesim_router_confidence(rows, n, n_rows, n);
                entropy += finite * confidence.entropy;
                z += finite * confidence.z;
            }
        }
        *value_of(m, l, TRACE_ROUTER_ENTROPY) = counted ? entropy / (double)counted : NAN;
        *value_of(m, l, TRACE_ROUTER_Z) = counted ? z / (double)counted : NAN;
    }
    if (!status && m->n_bad_rows)
        warn(m, "%llu rows have no finite number", (unsigned long long)m->n_bad_rows);
    free(rows);
    return status;
}

/* ---- decisions ---- */

/* Buffers of a piece in two layers, with labels. */
struct reading {
    struct trace *trace;
    uint32_t piece;
    struct tally_piece layer[2];
    uint32_t *sequence, *domain; /* [TALLY_HISTORY + piece] */
};

static enum moesim_status open_reading(struct reading *r, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(r->trace);
    r->piece = trace_piece(r->trace);
    const size_t n = (size_t)r->piece + TALLY_HISTORY, pairs = n * s->top_k;
    for (int i = 0; i < 2; i++) {
        r->layer[i].pairs.first = malloc((n + 1) * sizeof(uint32_t));
        r->layer[i].pairs.expert = malloc((pairs + 1) * sizeof(uint32_t));
    }
    if (s->has_label[TRACE_SEQUENCE])
        r->sequence = malloc(n * sizeof *r->sequence);
    if (s->has_label[TRACE_DOMAIN])
        r->domain = malloc(n * sizeof *r->domain);
    if (r->layer[0].pairs.first && r->layer[0].pairs.expert && r->layer[1].pairs.first && r->layer[1].pairs.expert &&
        !r->sequence == !s->has_label[TRACE_SEQUENCE] && !r->domain == !s->has_label[TRACE_DOMAIN])
        return MOESIM_OK;
    return no_memory(r->trace, err);
}

static void close_reading(struct reading *r)
{
    for (int i = 0; i < 2; i++) {
        free(r->layer[i].pairs.first);
        free(r->layer[i].pairs.expert);
    }
    free(r->sequence);
    free(r->domain);
}

static enum moesim_status read_labels(struct reading *r, uint64_t from, uint32_t n, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    if (r->sequence)
        status = trace_read_labels(r->trace, TRACE_SEQUENCE, from, n, r->sequence, err);
    if (!status && r->domain)
        status = trace_read_labels(r->trace, TRACE_DOMAIN, from, n, r->domain, err);
    return status;
}

/* One piece through all layers. */
static enum moesim_status add_piece(struct reading *r, struct tally *tally, uint64_t first, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(r->trace);
    const uint32_t history = first < TALLY_HISTORY ? (uint32_t)first : TALLY_HISTORY;
    const uint32_t n = s->n_tokens - first < r->piece ? (uint32_t)(s->n_tokens - first) : r->piece;
    enum moesim_status status = read_labels(r, first - history, history + n, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++) {
        struct tally_piece *piece = &r->layer[l % 2];
        piece->first = first;
        piece->history = history;
        piece->n = n;
        piece->sequence = r->sequence;
        piece->domain = r->domain;
        status = trace_read_pairs(r->trace, l, first - history, history + n, &piece->pairs, err);
        if (!status)
            tally_add(tally, l, piece, l > 0 ? &r->layer[(l - 1) % 2] : NULL);
    }
    if (!status)
        tally_end_piece(tally, &r->layer[0], first + n == s->n_tokens);
    return status;
}

/* Largest domain + 1 and runs of one sequence id; whether ids come back after others. */
static enum moesim_status count_labels(struct reading *r, struct trace_measures *m, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(r->trace);
    uint32_t last = 0, largest = 0;
    bool returns = false;
    enum moesim_status status = MOESIM_OK;
    for (uint64_t at = 0; !status && (r->sequence || r->domain) && at < s->n_tokens; at += r->piece) {
        const uint32_t n = s->n_tokens - at < r->piece ? (uint32_t)(s->n_tokens - at) : r->piece;
        status = read_labels(r, at, n, err);
        for (uint32_t i = 0; !status && i < n; i++) {
            if (r->domain && r->domain[i] >= m->n_domains)
                m->n_domains = r->domain[i] < UINT32_MAX ? r->domain[i] + 1 : UINT32_MAX;
            if (!r->sequence || (m->n_sequences && r->sequence[i] == last))
                continue;
            returns |= m->n_sequences && r->sequence[i] <= largest;
            last = r->sequence[i];
            largest = last > largest ? last : largest;
            m->n_sequences++;
        }
    }
    if (returns)
        warn(m, "sequences are interleaved: a lag counts tokens of the recording, and ends where the sequence changes");
    return status;
}

static void note_layer(const struct tally *tally, struct trace_measures *m, uint32_t l, double *load)
{
    const struct tally_layer *layer = &tally->layer[l];
    const uint32_t n = tally->shape->n_experts;
    for (uint32_t e = 0; e < n; e++)
        load[e] = (double)layer->count[e];
    note_load(m, l, load, n, load + n);
    *value_of(m, l, TRACE_LAG1_OVERLAP) = layer->lag_n[0] ? layer->lag_sum[0] / (double)layer->lag_n[0] : NAN;
    *value_of(m, l, TRACE_LAG64_OVERLAP) = layer->lag_n[1] ? layer->lag_sum[1] / (double)layer->lag_n[1] : NAN;
    if (layer->n_predicted)
        *value_of(m, l, TRACE_PREDICTABILITY) = layer->predicted / (double)layer->n_predicted;
    if (layer->cache.lookups)
        *value_of(m, l, TRACE_CACHE_HIT_RATE) = (double)layer->cache.hits / (double)layer->cache.lookups;
    if (!layer->domain)
        return;
    for (size_t i = 0; i < (size_t)tally->n_domains * n; i++)
        load[i] = (double)layer->domain[i];
    *value_of(m, l, TRACE_DIVERGENCE) = trace_mean_divergence(load, tally->n_domains, n);
}

/* Layers in which every choice is expert 0. */
static void warn_of_zeros(struct trace *trace, const struct tally *tally, struct trace_measures *m)
{
    const struct trace_shape *s = tally->shape;
    uint32_t n = 0, first = 0;
    for (uint32_t l = 0; s->n_experts > 1 && l < s->n_layers; l++) {
        uint64_t others = 0;
        for (uint32_t e = 1; e < s->n_experts; e++)
            others += tally->layer[l].count[e];
        if (others == 0 && n++ == 0)
            first = l;
    }
    if (n == s->n_layers || s->all_zero)
        warn(m, "all ids are 0: the recorder captured nothing");
    else if (n)
        warn(m, "%u layer%s (layer %u first) name expert 0 only: the recorder did not capture them", n,
             n == 1 ? "" : "s", trace_layer_id(trace, first));
}

static void warn_of_runs(const struct tally *tally, struct trace_measures *m)
{
    const struct tally_runs *r = &tally->runs;
    if (tally->n_repeated)
        warn(m,
             "%llu times a token names an expert twice in a layer, first token %llu: rows that were not captured, or "
             "ids of another kind",
             (unsigned long long)tally->n_repeated, (unsigned long long)tally->first_repeated);
    if (r->longest && tally->shape->n_experts > tally->shape->top_k)
        warn(m,
             "%llu tokens are in constant runs, the longest of %llu from token %llu on: the same experts in every "
             "layer, as %s leaves",
             (unsigned long long)r->total, (unsigned long long)r->longest, (unsigned long long)r->longest_start,
             r->longest_start == 0 ? "warm-up" : "profiling");
}

static enum moesim_status measure_decisions(struct trace *trace, struct trace_measures *m, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    struct reading r = {.trace = trace};
    struct tally tally = {.layer = NULL};
    double *load = NULL;
    enum moesim_status status = open_reading(&r, err);
    if (!status)
        status = count_labels(&r, m, err);
    if (!status)
        status = tally_init(&tally, s, m->n_domains, r.piece, err);
    for (uint64_t at = 0; !status && at < s->n_tokens; at += r.piece)
        status = add_piece(&r, &tally, at, err);
    if (!status && !(load = malloc((size_t)(tally.n_domains + 2) * s->n_experts * sizeof *load)))
        status = no_memory(trace, err);
    for (uint32_t l = 0; !status && l < s->n_layers; l++)
        note_layer(&tally, m, l, load);
    if (!status) {
        m->cache_experts = tally.cache_experts;
        warn_of_zeros(trace, &tally, m);
        warn_of_runs(&tally, m);
        if (m->n_domains > tally.n_domains)
            warn(m, "%u domains are too many to compare", m->n_domains);
    }
    free(load);
    tally_finish(&tally);
    close_reading(&r);
    return status;
}

/* ---- all ---- */

static void take_means(struct trace_measures *m)
{
    for (uint32_t f = 0; f < TRACE_N_FIGURES; f++) {
        double sum = 0;
        uint32_t n = 0;
        for (uint32_t l = 0; l < m->n_layers; l++)
            if (!isnan(*value_of(m, l, f))) {
                sum += *value_of(m, l, f);
                n++;
            }
        m->mean[f] = n ? sum / n : NAN;
    }
}

enum moesim_status trace_measure(struct trace *trace, struct trace_measures *m, struct moesim_error *err)
{
    const struct trace_shape *s = trace_shape(trace);
    *m = (struct trace_measures){.n_layers = s->n_layers};
    m->value = malloc((size_t)s->n_layers * TRACE_N_FIGURES * sizeof *m->value);
    if (!m->value)
        return no_memory(trace, err);
    for (size_t i = 0; i < (size_t)s->n_layers * TRACE_N_FIGURES; i++)
        m->value[i] = NAN;
    if (*trace_note(trace))
        warn(m, "%s", trace_note(trace));
    const enum moesim_status status = s->kind == TRACE_DECISIONS ? measure_decisions(trace, m, err)
                                      : s->kind == TRACE_LOADS   ? measure_loads(trace, m, err)
                                                                 : measure_logits(trace, m, err);
    if (status)
        trace_measures_free(m);
    else
        take_means(m);
    return status;
}

void trace_measures_free(struct trace_measures *m)
{
    free(m->value);
    m->value = NULL;
}
