/*
 * Load imbalance by router, and the paired differences from the baseline: discs with intervals.
 */
#include <math.h>
#include <string.h>

#include "analysis/figures/figure.h"
#include "analysis/figures/rows.h"

#include "intervals.gp.h"

#define VALUE_ROOM 62.0
#define FEW_SEEDS 10u /* below, every seed is drawn */

struct span {
    double low, high;
};

static void widen(struct span *span, double value)
{
    if (isfinite(value)) {
        span->low = fmin(span->low, value);
        span->high = fmax(span->high, value);
    }
}

static void references(struct figure *figure, const double *value, uint32_t n)
{
    if (!figure->stream[FIGURE_SETTINGS])
        return;
    fprintf(figure->stream[FIGURE_SETTINGS], "array REFERENCE[%u] = [", n);
    for (uint32_t i = 0; i < n; i++)
        fprintf(figure->stream[FIGURE_SETTINGS], "%s%.9g", i ? ", " : "", isfinite(value[i]) ? value[i] : 0.0);
    fputs("]\n", figure->stream[FIGURE_SETTINGS]);
}

/* One panel: every router's disc, interval and seeds; the axis holds all of them, from 0. */
static bool imbalance_panel(struct figure *figure, const struct report_data *data, struct rows *rows, uint32_t w,
                            double *reference)
{
    struct span span = {0.0, 0.0};
    for (uint32_t r = 0; r < data->n_routers; r++) {
        struct report_cell cell;
        if (!report_cell(data, MOESIM_MAX_VIO, w, r, &cell))
            return false;
        const uint32_t colour = figure_colour(data, r);
        const double half = isfinite(cell.half) ? cell.half : 0.0;
        char text[24];
        figure_number(text, cell.mean);
        rows_value(figure, rows, w, r, text);
        if (r == data->baseline)
            *reference = cell.mean;
        if (cell.n == 0)
            continue;
        FIGURE_ROW(figure, FIGURE_MARKS, w + 1, r, cell.mean, cell.mean - half, cell.mean + half, colour, 0);
        widen(&span, cell.mean + half);
        for (uint32_t i = 0; i < cell.n; i++) {
            if (cell.n > 1 && cell.n < FEW_SEEDS)
                FIGURE_ROW(figure, FIGURE_POINTS, w + 1, r, cell.by_seed[i], colour);
            widen(&span, cell.by_seed[i]);
        }
    }
    figure_axis(span.low, span.high, true, &rows->panel[w].x_low, &rows->panel[w].x_high);
    return true;
}

void figure_imbalance(struct figure *figure, const struct figure_source *source)
{
    const struct report_data *data = source->data;
    figure->id = "imbalance";
    if (!report_has(data, MOESIM_MAX_VIO)) {
        snprintf(figure->title, sizeof figure->title, "Load imbalance by router");
        figure->no_data = "No run has the metric max_vio; leave it out of the study's 'metrics:' list only on purpose.";
        return;
    }
    char seeds[200], shown[80], subtitle[400];
    figure_seeds(data, seeds, sizeof seeds);
    rows_shown(data, data->n_routers, shown, sizeof shown);
    snprintf(subtitle, sizeof subtitle, "mean and 95 %% t interval \u00b7 %s%s", seeds, shown);
    figure_begin(figure, intervals_gp, "Load imbalance by router (lower is better)", subtitle);
    struct rows rows;
    double *reference = moesim_alloc(data->arena, data->n_workloads, sizeof *reference);
    if (!reference || !rows_lay_out(figure, source, FIGURE_TOP, VALUE_ROOM, UINT32_MAX, &rows)) {
        figure->failed = true;
        return;
    }
    for (uint32_t w = 0; w < rows.n_panels; w++) {
        reference[w] = NAN;
        figure->failed |= !imbalance_panel(figure, data, &rows, w, &reference[w]);
    }
    figure_panels(figure, rows.panel, rows.n_panels);
    references(figure, reference, rows.n_panels);
    figure_set(figure, "DISC", rows.pitch > 18.0 ? 0.85 : 0.65);
    rows_axis_label(figure, &rows, "max_vio: load of the busiest expert over the mean, less 1");
    figure_caption(
        figure, data,
        "How far the busiest expert's load exceeds an even share, by router and workload%s; the vertical line is "
        "the baseline's mean, the numbers on the right are the means.",
        data->n_seeds > 1 && data->n_seeds < FEW_SEEDS ? ", with every seed as a small dot" : "");
    figure_end(figure, rows.height);
}

/* The metric whose differences are drawn: what was learned, where anything was. */
static uint32_t compared(const struct report_data *data)
{
    return report_has(data, MOESIM_BITS_PER_BYTE) ? MOESIM_BITS_PER_BYTE : MOESIM_MAX_VIO;
}

static const struct analysis_difference *find(const struct figure_source *source, uint32_t workload, uint32_t router)
{
    const struct analysis_comparison *comparison = source->comparison;
    const uint32_t metric = compared(source->data);
    for (uint32_t i = 0; i < comparison->n_differences; i++) {
        const struct analysis_difference *d = &comparison->difference[i];
        if (d->metric == metric && !strcmp(d->router, source->data->router[router]) &&
            !strcmp(d->workload, source->data->workload[workload]))
            return d;
    }
    return NULL;
}

static void difference_panel(struct figure *figure, const struct figure_source *source, struct rows *rows, uint32_t w)
{
    const struct report_data *data = source->data;
    struct span span = {0.0, 0.0};
    for (uint32_t r = 0; r < data->n_routers; r++) {
        if (r == data->baseline)
            continue;
        const uint32_t row = rows_place(r, data->baseline);
        const struct analysis_difference *d = find(source, w, r);
        char text[32] = "", number[24];
        figure_number(number, d ? fabs(d->difference) : NAN);
        snprintf(text, sizeof text, "%s%s",
                 d && d->difference < 0.0   ? "\u2212"
                 : d && d->difference > 0.0 ? "+"
                                            : "",
                 number);
        rows_value(figure, rows, w, row, text);
        if (!d || !isfinite(d->difference))
            continue;
        const bool interval = isfinite(d->low) && isfinite(d->high);
        const double low = interval ? d->low : d->difference, high = interval ? d->high : d->difference;
        FIGURE_ROW(figure, FIGURE_MARKS, w + 1, row, d->difference, low, high, figure_colour(data, r),
                   !interval || (low <= 0.0 && high >= 0.0));
        widen(&span, low);
        widen(&span, high);
    }
    figure_axis(span.low, span.high, true, &rows->panel[w].x_low, &rows->panel[w].x_high);
}

void figure_differences(struct figure *figure, const struct figure_source *source)
{
    const struct report_data *data = source->data;
    const uint32_t metric = compared(data);
    const char *name = moesim_metrics[metric].name;
    figure->id = "differences";
    bool any = false;
    for (uint32_t i = 0; i < source->comparison->n_differences; i++)
        any |= source->comparison->difference[i].metric == metric;
    if (!any || data->n_routers < 2) {
        snprintf(figure->title, sizeof figure->title, "Imbalance against the baseline");
        figure->no_data = "Nothing to compare: give the study two or more routers (and several seeds for an interval).";
        return;
    }
    char seeds[200], shown[80], baseline[200], subtitle[600], title[96], label[96];
    figure_seeds(data, seeds, sizeof seeds);
    rows_shown(data, data->n_routers - 1, shown, sizeof shown);
    figure_clean(baseline, sizeof baseline, data->router[data->baseline], FIGURE_FONT, 180.0);
    snprintf(subtitle, sizeof subtitle, "against %s \u00b7 95 %% t interval \u00b7 %s%s", baseline, seeds, shown);
    snprintf(title, sizeof title, "Difference in %s, paired by seed (left is better)", name);
    snprintf(label, sizeof label, "difference in %s from the baseline", name);
    figure_begin(figure, intervals_gp, title, subtitle);
    struct rows rows;
    double *reference = moesim_alloc(data->arena, data->n_workloads, sizeof *reference);
    if (!reference || !rows_lay_out(figure, source, FIGURE_TOP, VALUE_ROOM + 8.0, data->baseline, &rows)) {
        figure->failed = true;
        return;
    }
    for (uint32_t w = 0; w < rows.n_panels; w++)
        difference_panel(figure, source, &rows, w);
    figure_panels(figure, rows.panel, rows.n_panels);
    references(figure, reference, rows.n_panels);
    FIGURE_ROW(figure, FIGURE_POINTS, 0, 0, NAN, 0);
    figure_set(figure, "DISC", rows.pitch > 18.0 ? 0.85 : 0.65);
    rows_axis_label(figure, &rows, label);
    figure_caption(figure, data,
                   "Paired differences in %s from the baseline on identical batches; a hollow disc means that "
                   "the interval holds 0, so no difference is shown.",
                   metric == MOESIM_MAX_VIO ? "load imbalance" : "held-out bits per byte");
    figure_end(figure, rows.height);
}
