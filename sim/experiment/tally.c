/*
 * The tally of one run. Medians and percentiles of values kept one by one are exact.
 */
#include "sim/experiment/tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t window_count(uint32_t n_steps)
{
    return n_steps < MOESIM_MAX_WINDOWS ? n_steps : MOESIM_MAX_WINDOWS;
}

/* Whether the metric's values are kept one by one: bins do not tell which was the last. */
static bool is_kept(uint32_t metric, const bool *record, uint32_t n_steps)
{
    return record[metric] || moesim_metrics[metric].fold == MOESIM_FOLD_LAST || n_steps <= MOESIM_EXACT_STEPS;
}

uint64_t moesim_tally_bytes(const bool *measure, const bool *record, uint32_t n_layers, uint32_t n_steps,
                            uint32_t n_experts)
{
    uint64_t of_layer = (uint64_t)window_count(n_steps) * n_experts * 2 * sizeof(uint64_t);
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        if (measure[m])
            of_layer += is_kept(m, record, n_steps) ? n_steps * sizeof(double) : moesim_bins_bytes();
    return of_layer * n_layers;
}

/* Room for one metric. */
static bool metric_init(struct moesim_tally *tally, uint32_t metric, bool kept, struct moesim_arena *arena)
{
    const size_t n = (size_t)tally->n_layers * tally->n_steps;
    if (kept) {
        double *value = tally->value[metric] = moesim_alloc(arena, n, sizeof *value);
        for (size_t i = 0; value && i < n; i++)
            value[i] = NAN;
        return value != NULL;
    }
    struct moesim_bins *bins = tally->bins[metric] = moesim_alloc(arena, tally->n_layers, sizeof *bins);
    bool memory = bins != NULL;
    for (uint32_t l = 0; memory && l < tally->n_layers; l++)
        memory = moesim_bins_init(&bins[l], arena);
    return memory;
}

enum moesim_status moesim_tally_init(struct moesim_tally *tally, const bool *measure, const bool *record,
                                     uint32_t n_layers, uint32_t first_step, uint32_t last_step, uint32_t n_experts,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n_steps = last_step - first_step;
    *tally = (struct moesim_tally){.n_layers = n_layers,
                                   .first_step = first_step,
                                   .n_steps = n_steps,
                                   .n_experts = n_experts,
                                   .n_windows = window_count(n_steps),
                                   .measure = measure};
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        if (measure[m] && !metric_init(tally, m, is_kept(m, record, n_steps), arena))
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u steps of %u layers of metrics; take fewer steps",
                               n_steps, n_layers);
    const size_t loads = (size_t)tally->n_windows * n_layers * n_experts;
    tally->assigned = moesim_alloc(arena, loads, sizeof(uint64_t));
    tally->kept = moesim_alloc(arena, loads, sizeof(uint64_t));
    if (!tally->assigned || !tally->kept)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the loads of %u experts in %u layers", n_experts,
                           n_layers);
    return MOESIM_OK;
}

static void pass_bins(struct moesim_bins *bins, struct moesim_state_bytes *state)
{
    uint64_t *key = bins->key, *count = bins->count;
    moesim_state_pass(state, bins, sizeof *bins);
    bins->key = key;
    bins->count = count;
    moesim_state_pass(state, key, MOESIM_MOST_BINS * sizeof *key);
    moesim_state_pass(state, count, MOESIM_MOST_BINS * sizeof *count);
}

void moesim_tally_pass(struct moesim_tally *tally, struct moesim_state_bytes *state)
{
    const size_t loads = (size_t)tally->n_windows * tally->n_layers * tally->n_experts;
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++) {
        if (tally->value[m])
            moesim_state_pass(state, tally->value[m], (size_t)tally->n_layers * tally->n_steps * sizeof(double));
        for (uint32_t l = 0; tally->bins[m] && l < tally->n_layers; l++)
            pass_bins(&tally->bins[m][l], state);
    }
    moesim_state_pass(state, tally->assigned, loads * sizeof *tally->assigned);
    moesim_state_pass(state, tally->kept, loads * sizeof *tally->kept);
}

/* First step of window w, counted from the first step: windows are of equal length but for rounding. */
static uint32_t window_start(const struct moesim_tally *tally, uint32_t w)
{
    return (uint32_t)(((uint64_t)w * tally->n_steps + tally->n_windows - 1) / tally->n_windows);
}

uint32_t moesim_tally_window(const struct moesim_tally *tally, uint32_t step)
{
    return (uint32_t)((uint64_t)(step - tally->first_step) * tally->n_windows / tally->n_steps);
}

void moesim_tally_set(struct moesim_tally *tally, uint32_t metric, uint32_t layer, uint32_t step, double value)
{
    if (step < tally->first_step)
        return;
    if (tally->value[metric])
        tally->value[metric][(size_t)layer * tally->n_steps + step - tally->first_step] = value;
    else if (tally->bins[metric] && isfinite(value))
        moesim_bins_add(&tally->bins[metric][layer], value);
}

void moesim_tally_loads(struct moesim_tally *tally, uint32_t layer, uint32_t step, const uint64_t *assigned,
                        const uint64_t *kept)
{
    if (step < tally->first_step)
        return;
    const uint32_t w = moesim_tally_window(tally, step);
    const size_t at = ((size_t)w * tally->n_layers + layer) * tally->n_experts;
    for (uint32_t e = 0; e < tally->n_experts; e++) {
        tally->assigned[at + e] += assigned[e];
        tally->kept[at + e] += kept[e];
    }
    if (step - tally->first_step + 1 != window_start(tally, w + 1))
        return;
    uint32_t dead = 0;
    for (uint32_t e = 0; e < tally->n_experts; e++)
        dead += tally->assigned[at + e] == 0;
    moesim_tally_set(tally, MOESIM_DEAD_EXPERTS, layer, step, dead);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Percentile of sorted values by linear interpolation between order statistics (type 7 of Hyndman and Fan 1996). */
static double percentile(const double *sorted, uint64_t n, double q)
{
    const double at = q * (double)(n - 1);
    const uint64_t i = (uint64_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* The figure of v_runs. */
static double fold(const struct moesim_summary *s, double sum)
{
    const uint8_t how = moesim_metrics[s->metric].fold;
    return how == MOESIM_FOLD_TOTAL ? sum : how == MOESIM_FOLD_MEDIAN ? s->p50 : s->mean;
}

/* Mean over layers of the last finite value [n_steps] of each; NaN without one. */
static double last_value(const double *values, uint32_t n_layers, size_t n_steps)
{
    double sum = 0;
    uint32_t n = 0;
    for (uint32_t l = 0; l < n_layers; l++) {
        size_t s = n_steps;
        while (s > 0 && !isfinite(values[l * n_steps + s - 1]))
            s--;
        sum += s > 0 ? values[l * n_steps + s - 1] : 0;
        n += s > 0;
    }
    return n ? sum / n : (double)NAN;
}

/* Summary of the finite ones of the values [n_layers][n_steps]; false when there is none. `sorted` is scratch for as
 * many. */
static bool summarise(const double *values, uint32_t n_layers, size_t n_steps, uint32_t metric, int32_t layer,
                      double *sorted, struct moesim_summary *out)
{
    const size_t n = n_layers * n_steps;
    uint64_t count = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(values[i])) {
            sorted[count++] = values[i];
            sum += values[i];
        }
    }
    if (count == 0)
        return false;
    const double mean = sum / (double)count;
    double square = 0;
    for (uint64_t i = 0; i < count; i++)
        square += (sorted[i] - mean) * (sorted[i] - mean);
    qsort(sorted, count, sizeof *sorted, by_value);
    *out = (struct moesim_summary){.layer = layer,
                                   .metric = metric,
                                   .mean = mean,
                                   .std = sqrt(square / (double)count),
                                   .min = sorted[0],
                                   .p50 = percentile(sorted, count, 0.5),
                                   .p95 = percentile(sorted, count, 0.95),
                                   .max = sorted[count - 1],
                                   .n = count};
    const bool last = moesim_metrics[metric].fold == MOESIM_FOLD_LAST;
    out->value = last ? last_value(values, n_layers, n_steps) : fold(out, sum);
    return true;
}

static bool summarise_bins(const struct moesim_bins *b, uint32_t metric, int32_t layer, struct moesim_summary *out)
{
    if (b->n == 0)
        return false;
    *out = (struct moesim_summary){.layer = layer,
                                   .metric = metric,
                                   .mean = b->sum / (double)b->n,
                                   .std = sqrt(b->square / (double)b->n),
                                   .min = b->min,
                                   .p50 = moesim_bins_percentile(b, 0.5),
                                   .p95 = moesim_bins_percentile(b, 0.95),
                                   .max = b->max,
                                   .n = b->n};
    out->value = fold(out, b->sum);
    return true;
}

/* One metric over all layers, then layer by layer; `all` is scratch. Returns how many summaries that are. */
static uint32_t close_bins(const struct moesim_tally *tally, uint32_t metric, struct moesim_bins *all,
                           struct moesim_summary *out)
{
    const struct moesim_bins *bins = tally->bins[metric];
    uint32_t n = 0;
    moesim_bins_clear(all);
    for (uint32_t l = 0; l < tally->n_layers; l++)
        moesim_bins_merge(all, &bins[l]);
    n += summarise_bins(all, metric, MOESIM_ALL_LAYERS, out + n);
    for (uint32_t l = 0; l < tally->n_layers; l++)
        n += summarise_bins(&bins[l], metric, (int32_t)l, out + n);
    return n;
}

static uint32_t close_values(const struct moesim_tally *tally, uint32_t metric, double *sorted,
                             struct moesim_summary *out)
{
    const double *values = tally->value[metric];
    const size_t n_steps = tally->n_steps;
    uint32_t n = summarise(values, tally->n_layers, n_steps, metric, MOESIM_ALL_LAYERS, sorted, out);
    for (uint32_t l = 0; l < tally->n_layers; l++)
        n += summarise(values + l * n_steps, 1, n_steps, metric, (int32_t)l, sorted, out + n);
    return n;
}

static enum moesim_status close_summaries(const struct moesim_tally *tally, struct moesim_outcome *outcome,
                                          struct moesim_error *err)
{
    bool any_kept = false, any_binned = false;
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++) {
        any_kept |= tally->value[m] != NULL;
        any_binned |= tally->bins[m] != NULL;
    }
    const size_t n = any_kept ? (size_t)tally->n_layers * tally->n_steps : 0;
    struct moesim_summary *out =
        moesim_alloc(outcome->arena, (size_t)MOESIM_N_METRICS * (tally->n_layers + 1), sizeof *out);
    double *sorted = moesim_alloc(outcome->arena, n, sizeof *sorted);
    struct moesim_bins all;
    if (!out || !sorted || (any_binned && !moesim_bins_init(&all, outcome->arena)))
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to summarise %u steps of %u layers", tally->n_steps,
                           tally->n_layers);
    outcome->summary = out;
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        if (tally->value[m])
            out += close_values(tally, m, sorted, out);
        else if (tally->bins[m])
            out += close_bins(tally, m, &all, out);
    outcome->n_summaries = (uint64_t)(out - outcome->summary);
    return MOESIM_OK;
}

static enum moesim_status close_series(const struct moesim_tally *tally, const bool *record,
                                       struct moesim_outcome *outcome, struct moesim_error *err)
{
    size_t n_recorded = 0;
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        n_recorded += record[m] && tally->value[m];
    struct moesim_sample *out =
        moesim_alloc(outcome->arena, n_recorded * tally->n_layers * tally->n_steps, sizeof *out);
    if (!out)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the series of %zu recorded metrics", n_recorded);
    outcome->series = out;
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++) {
        if (!record[m] || !tally->value[m])
            continue;
        for (uint32_t l = 0; l < tally->n_layers; l++) {
            for (uint32_t s = 0; s < tally->n_steps; s++) {
                const double value = tally->value[m][(size_t)l * tally->n_steps + s];
                if (isfinite(value))
                    *out++ =
                        (struct moesim_sample){.step = tally->first_step + s, .layer = l, .metric = m, .value = value};
            }
        }
    }
    outcome->n_series = (uint64_t)(out - outcome->series);
    return MOESIM_OK;
}

static enum moesim_status close_windows(const struct moesim_tally *tally, struct moesim_outcome *outcome,
                                        struct moesim_error *err)
{
    struct moesim_load_window *out =
        moesim_alloc(outcome->arena, (size_t)tally->n_windows * tally->n_layers, sizeof *out);
    if (!out)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u load windows", tally->n_windows);
    outcome->window = out;
    for (uint32_t w = 0; w < tally->n_windows; w++) {
        const uint32_t start = window_start(tally, w);
        for (uint32_t l = 0; l < tally->n_layers; l++) {
            const size_t at = ((size_t)w * tally->n_layers + l) * tally->n_experts;
            *out++ = (struct moesim_load_window){.window = w,
                                                 .layer = l,
                                                 .first_step = tally->first_step + start,
                                                 .n_steps = window_start(tally, w + 1) - start,
                                                 .n_experts = tally->n_experts,
                                                 .assigned = tally->assigned + at,
                                                 .kept = tally->kept + at};
        }
    }
    outcome->n_windows = (uint64_t)(out - outcome->window);
    return MOESIM_OK;
}

enum moesim_status moesim_tally_close(const struct moesim_tally *tally, const bool *record, bool record_loads,
                                      struct moesim_outcome *outcome, struct moesim_error *err)
{
    enum moesim_status status = close_summaries(tally, outcome, err);
    if (status == MOESIM_OK)
        status = close_series(tally, record, outcome, err);
    if (status == MOESIM_OK && record_loads)
        status = close_windows(tally, outcome, err);
    return status;
}
