/*
 * Training over its batches: held-out text against three axes of cost, and how the routing settles.
 */
#include <math.h>

#include "analysis/figures/curves.h"

#include "curves.gp.h"

#define LEFT 60.0
#define GAP 26.0
#define LOSS_HEIGHT 236.0
#define HEAD_HEIGHT 24.0
#define TICS_HEIGHT 44.0
#define SMALL_HEIGHT 118.0
#define SMALL_LEFT 44.0
#define SMALL_GAP 34.0
#define CUT 0.1 /* the part of training that the axis of the loss need not show */

/* An axis of the loss: what the batches so far have cost. */
struct axis {
    int metric; /* -1: the batches themselves */
    double factor;
    char label[96];
};

/* Puts metric prefixes to a unit of counting. */
static const char *large(double largest, double *factor)
{
    static const char *const prefix[] = {"", "k", "M", "G", "T", "P", "E", "Z"};
    uint32_t power = 0;
    *factor = 1.0;
    while (largest * *factor >= 1000.0 && power + 1 < sizeof prefix / sizeof *prefix) {
        *factor *= 1e-3;
        power++;
    }
    return prefix[power];
}

static double largest(const struct training *training, const struct report_data *data, uint32_t metric)
{
    double most = 0.0;
    for (uint32_t r = 0; r < data->n_routers; r++) {
        const struct training_curve *curve = training_curve_of(training, r, metric);
        if (curve->n)
            most = fmax(most, curve->point[curve->n - 1].mean);
    }
    return most;
}

static uint32_t last_step(const struct training *training, const struct report_data *data, uint32_t metric)
{
    uint32_t last = 0;
    for (uint32_t r = 0; r < data->n_routers; r++) {
        const struct training_curve *curve = training_curve_of(training, r, metric);
        if (curve->n && curve->point[curve->n - 1].step > last)
            last = curve->point[curve->n - 1].step;
    }
    return last;
}

static struct axis batches_axis(uint32_t last)
{
    struct axis axis = {.metric = -1, .factor = last >= 20000 ? 1e-3 : 1.0};
    snprintf(axis.label, sizeof axis.label, "%sbatches", last >= 20000 ? "thousand " : "");
    return axis;
}

/* The axes that have data. */
static uint32_t loss_axes(const struct training *training, const struct report_data *data, struct axis axis[3])
{
    uint32_t n = 0;
    axis[n++] = batches_axis(last_step(training, data, MOESIM_BITS_PER_BYTE));
    const double flop = largest(training, data, MOESIM_FLOP_TRAIN), time = largest(training, data, MOESIM_TIME_STEP);
    if (flop > 0.0) {
        axis[n].metric = MOESIM_FLOP_TRAIN;
        const char *prefix = large(flop, &axis[n].factor);
        snprintf(axis[n].label, sizeof axis[n].label, "active %sFLOP", prefix);
        n++;
    }
    if (time > 0.0) {
        axis[n].metric = MOESIM_TIME_STEP;
        const char *unit = figure_seconds(time, &axis[n].factor);
        snprintf(axis[n].label, sizeof axis[n].label, "modelled time, %s", unit);
        n++;
    }
    return n;
}

/* Where the point of a curve stands on an axis; NaN where the axis has no value of that step. */
static double place(const struct training *training, uint32_t router, const struct axis *axis, uint32_t step)
{
    if (axis->metric < 0)
        return ((double)step + 1.0) * axis->factor;
    const struct training_curve *curve = training_curve_of(training, router, (uint32_t)axis->metric);
    uint32_t low = 0, high = curve->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (curve->point[middle].step < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low < curve->n && curve->point[low].step == step ? curve->point[low].mean * axis->factor : (double)NAN;
}

/* One router's line; `points` has room for the longest. */
static uint32_t line_of(const struct training *training, uint32_t router, uint32_t metric, const struct axis *axis,
                        struct curves_point *point)
{
    const struct training_curve *curve = training_curve_of(training, router, metric);
    uint32_t n = 0;
    for (uint32_t i = 0; i < curve->n; i++) {
        const struct training_point *p = &curve->point[i];
        const double x = place(training, router, axis, p->step);
        if (isfinite(x))
            point[n++] = (struct curves_point){x, p->mean, p->low, p->high};
    }
    return n;
}

static struct curves_point *room_for_lines(const struct training *training, const struct report_data *data)
{
    uint32_t longest = 0;
    for (size_t i = 0; i < (size_t)data->n_routers * MOESIM_N_METRICS; i++)
        longest = training->curve[i].n > longest ? training->curve[i].n : longest;
    return moesim_alloc(data->arena, longest, sizeof(struct curves_point));
}

/* From the lowest value to the highest after the first part of training, which would flatten the rest. */
static void loss_range(const struct training *training, const struct report_data *data, double *low, double *high)
{
    const double from = CUT * last_step(training, data, MOESIM_BITS_PER_BYTE);
    *low = INFINITY;
    *high = -INFINITY;
    for (uint32_t r = 0; r < data->n_routers; r++) {
        const struct training_curve *curve = training_curve_of(training, r, MOESIM_BITS_PER_BYTE);
        for (uint32_t i = 0; i < curve->n; i++) {
            *low = fmin(*low, curve->point[i].low);
            if (curve->point[i].step >= from || i + 1 == curve->n)
                *high = fmax(*high, curve->point[i].high);
        }
    }
}

static void draw_lines(struct curves *curves, const struct training *training, uint32_t metric, const struct axis *axis,
                       struct curves_point *point, bool *shown)
{
    for (uint32_t r = 0; r < curves->data->n_routers; r++) {
        const uint32_t n = line_of(training, r, metric, axis, point);
        curves_line(curves, r, point, n);
        shown[r] |= n > 0;
    }
}

/* "workload text · mean and range of n = 3 seeds (1-3)". */
static void put_subtitle(char *text, size_t size, const struct figure_source *source, const char *end)
{
    const struct report_data *data = source->data;
    char seeds[200], workload[300] = "";
    figure_seeds(data, seeds, sizeof seeds);
    if (data->n_workloads > 1)
        figure_clean(workload, sizeof workload, data->workload[source->training->workload], FIGURE_FONT, 200.0);
    snprintf(text, size, "%s%s%s%s%s", workload, *workload ? " \u00b7 " : "",
             data->n_seeds > 1 ? "mean and range of seeds, " : "", seeds, end);
}

static double draw_loss(struct curves *curves, const struct training *training, struct curves_point *point, bool *shown)
{
    struct figure *figure = curves->figure;
    struct axis axis[3];
    double low, high;
    const uint32_t n = loss_axes(training, curves->data, axis);
    const double width = (FIGURE_WIDTH - FIGURE_EDGE - LEFT - GAP * (n - 1)) / n, bottom = FIGURE_TOP + LOSS_HEIGHT;
    loss_range(training, curves->data, &low, &high);
    figure_text(figure, FIGURE_UPRIGHT, 20.0, (FIGURE_TOP + bottom) / 2, FIGURE_SOFT_INK, 0.0,
                "held-out bits per byte");
    for (uint32_t p = 0; p < n; p++) {
        struct figure_panel panel = {.left = LEFT + p * (width + GAP), .top = FIGURE_TOP, .bottom = bottom};
        const double most = axis[p].metric < 0 ? last_step(training, curves->data, MOESIM_BITS_PER_BYTE) + 1.0
                                               : largest(training, curves->data, (uint32_t)axis[p].metric);
        panel.right = panel.left + width;
        figure_axis(0.0, most * axis[p].factor, true, &panel.x_low, &panel.x_high);
        figure_axis(low, high, false, &panel.y_low, &panel.y_high);
        curves_panel(curves, panel);
        curves->bare[p] = p > 0;
        draw_lines(curves, training, MOESIM_BITS_PER_BYTE, &axis[p], point, shown);
        figure_text(figure, FIGURE_MIDDLE, (panel.left + panel.right) / 2, bottom + 34.0, FIGURE_SOFT_INK, 0.0,
                    axis[p].label);
    }
    return bottom + TICS_HEIGHT + 12.0;
}

static bool no_curve(struct figure *figure, const struct figure_source *source, uint32_t metric, const char *title)
{
    const struct training *training = source->training;
    for (uint32_t r = 0; training && r < source->data->n_routers; r++)
        if (training_curve_of(training, r, metric)->n)
            return false;
    snprintf(figure->title, sizeof figure->title, "%s", title);
    figure->no_data = "No validation was recorded: train with 'mode: train'.";
    return true;
}

void figure_loss(struct figure *figure, const struct figure_source *source)
{
    const struct report_data *data = source->data;
    const struct training *training = source->training;
    figure->id = "loss";
    if (no_curve(figure, source, MOESIM_BITS_PER_BYTE, "Held-out bits per byte"))
        return;
    char subtitle[600];
    struct curves curves;
    struct curves_point *point = room_for_lines(training, data);
    bool *shown = moesim_alloc(data->arena, data->n_routers, sizeof *shown);
    put_subtitle(subtitle, sizeof subtitle, source, "");
    figure_begin(figure, curves_gp, "Held-out bits per byte over training (lower is better)", subtitle);
    if (!point || !shown || !curves_begin(&curves, figure, data)) {
        figure->failed = true;
        return;
    }
    const double top = draw_loss(&curves, training, point, shown);
    const double key = curves_key(&curves, shown, FIGURE_EDGE, top, FIGURE_WIDTH - 2.0 * FIGURE_EDGE);
    curves_end(&curves);
    figure_caption(
        figure, data,
        "Cross-entropy of held-out text at each validation, against batches%s%s; a line ends in a disc, and "
        "what lies above the axis is the beginning of training.",
        largest(training, data, MOESIM_FLOP_TRAIN) > 0.0
            ? ", against the arithmetic so far with the experts that tokens got"
            : "",
        largest(training, data, MOESIM_TIME_STEP) > 0.0 ? ", against the modelled time on the study's cluster" : "");
    figure_end(figure, top + key + FIGURE_EDGE);
}

/* ---- how the routing settles ---- */

static const struct {
    uint32_t metric;
    const char *title;
} small[] = {{MOESIM_MAX_VIO, "max_vio of a batch"},          {MOESIM_MAX_VIO_GLOBAL, "max_vio of a validation"},
             {MOESIM_DEAD_EXPERTS, "dead experts"},           {MOESIM_ROUTING_FLUCTUATION, "routing fluctuation"},
             {MOESIM_ROUTER_SATURATION, "router saturation"}, {MOESIM_DOMAIN_SPECIALISATION, "domain specialisation"}};
enum { N_SMALL = sizeof small / sizeof *small, N_COLUMNS = 3 };

#define LOG_SPAN 8.0 /* highest over lowest from which on the axis is logarithmic */
#define EVEN 1e-3    /* what is below is even, and has no place on it */

/* The y axis of a small panel: from 0, or logarithmic where one router's excess would flatten the others. */
static bool small_axis(const struct training *training, const struct report_data *data, uint32_t metric,
                       struct figure_panel *panel)
{
    double low = INFINITY, high = 0.0;
    for (uint32_t r = 0; r < data->n_routers; r++) {
        const struct training_curve *curve = training_curve_of(training, r, metric);
        for (uint32_t i = 0; i < curve->n; i++) {
            low = curve->point[i].low > EVEN ? fmin(low, curve->point[i].low) : low;
            high = fmax(high, curve->point[i].high);
        }
    }
    const bool excess = metric == MOESIM_MAX_VIO || metric == MOESIM_MAX_VIO_GLOBAL;
    if (excess && high > LOG_SPAN * low) {
        panel->y_low = low / 1.25;
        panel->y_high = high * 1.25;
        return true;
    }
    figure_axis(0.0, high > 0.0 ? high : 1.0, true, &panel->y_low, &panel->y_high);
    return false;
}

/* Where cell `i` of the grid is. */
static struct figure_panel cell(uint32_t i)
{
    const double width = (FIGURE_WIDTH - FIGURE_EDGE - N_COLUMNS * SMALL_LEFT) / N_COLUMNS;
    struct figure_panel panel;
    panel.left = SMALL_LEFT + i % N_COLUMNS * (width + SMALL_LEFT);
    panel.right = panel.left + width;
    panel.top = FIGURE_TOP + HEAD_HEIGHT + i / N_COLUMNS * (SMALL_HEIGHT + HEAD_HEIGHT + SMALL_GAP);
    panel.bottom = panel.top + SMALL_HEIGHT;
    return panel;
}

/* Returns how many cells are taken. */
static uint32_t draw_small(struct curves *curves, const struct training *training, struct curves_point *point,
                           bool *shown)
{
    const struct report_data *data = curves->data;
    uint32_t n = 0, last = 0;
    for (uint32_t i = 0; i < N_SMALL; i++) {
        const uint32_t own = last_step(training, data, small[i].metric);
        last = own > last ? own : last;
    }
    const struct axis axis = batches_axis(last);
    for (uint32_t i = 0; i < N_SMALL; i++) {
        bool any = false;
        for (uint32_t r = 0; r < data->n_routers; r++)
            any |= training_curve_of(training, r, small[i].metric)->n > 0;
        if (!any)
            continue;
        struct figure_panel panel = cell(n);
        figure_axis(0.0, (last + 1.0) * axis.factor, true, &panel.x_low, &panel.x_high);
        curves->log[n++] = small_axis(training, data, small[i].metric, &panel);
        figure_text(curves->figure, FIGURE_LEFT, panel.left, panel.top - 14.0, FIGURE_INK, 0.0, small[i].title);
        curves_panel(curves, panel);
        draw_lines(curves, training, small[i].metric, &axis, point, shown);
    }
    for (uint32_t p = n > N_COLUMNS ? n - N_COLUMNS : 0; p < n; p++) /* the lowest of each column */
        figure_text(curves->figure, FIGURE_MIDDLE, (curves->panel[p].left + curves->panel[p].right) / 2,
                    curves->panel[p].bottom + 34.0, FIGURE_SOFT_INK, 0.0, axis.label);
    return n;
}

void figure_settling(struct figure *figure, const struct figure_source *source)
{
    const struct report_data *data = source->data;
    figure->id = "settling";
    if (no_curve(figure, source, MOESIM_MAX_VIO, "Balance over training"))
        return;
    char subtitle[600];
    struct curves curves;
    struct curves_point *point = room_for_lines(source->training, data);
    bool *shown = moesim_alloc(data->arena, data->n_routers, sizeof *shown);
    put_subtitle(subtitle, sizeof subtitle, source, " \u00b7 mean over MoE layers");
    figure_begin(figure, curves_gp, "Balance over training", subtitle);
    if (!point || !shown || !curves_begin(&curves, figure, data)) {
        figure->failed = true;
        return;
    }
    const uint32_t n = draw_small(&curves, source->training, point, shown), n_rows = (n + N_COLUMNS - 1) / N_COLUMNS;
    const double top = cell((n_rows - 1) * N_COLUMNS).bottom + TICS_HEIGHT + 12.0;
    const double key = curves_key(&curves, shown, FIGURE_EDGE, top, FIGURE_WIDTH - 2.0 * FIGURE_EDGE);
    curves_end(&curves);
    figure_caption(
        figure, data,
        "At each validation: how far the busiest expert is above an even share, in the batches since the one before "
        "and over the whole validation%s; experts that nobody names; the share of held-out tokens whose experts "
        "changed since the validation before; how much of the final routing is there already; and the share of a "
        "domain's tokens that its favourite expert takes.",
        curves.footed ? " (on the foot of a logarithmic axis: even)" : "");
    figure_end(figure, top + key + FIGURE_EDGE);
}
