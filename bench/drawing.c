#include "bench/drawing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "curves.gp.h"
#include "dots.gp.h"

enum { MOST_ROWS = 256 };
#define NAME_ROOM 300.0
#define VALUE_ROOM 52.0
#define HOLDS 0x0072b2u
#define MISSES 0xd55e00u
#define PITCH 18.0
#define TICS_HEIGHT 52.0

struct rows {
    uint32_t n;
    struct {
        char name[BENCH_NAME + BENCH_RIVAL_NAME + 32];
        struct bench_ratio ratio;
        struct bench_bound bound;
    } row[MOST_ROWS];
};

/* With a rival's name, or "". */
static void add_row(struct rows *rows, const struct bench_figure *figure, const char *rival, struct bench_ratio ratio,
                    struct bench_bound bound)
{
    if (rows->n == MOST_ROWS || !(ratio.counts > 0))
        return;
    snprintf(rows->row[rows->n].name, sizeof rows->row[0].name, "%s %s%s%s", figure->part, figure->name,
             *rival ? " \u00b7 " : "", rival);
    rows->row[rows->n].ratio = ratio;
    rows->row[rows->n++].bound = bound;
}

static void gather_limits(struct rows *rows, const struct bench *bench)
{
    for (uint32_t i = 0; i < bench->n_results; i++) {
        const struct bench_result *r = bench->result[i];
        if (r->figure.limit != BENCH_NO_LIMIT)
            add_row(rows, &r->figure, "", bench_limit_ratio(r), r->figure.limit_bound);
    }
}

static void gather_rivals(struct rows *rows, const struct bench *bench, enum bench_sense sense)
{
    for (uint32_t i = 0; i < bench->n_results; i++) {
        const struct bench_result *r = bench->result[i];
        for (uint32_t k = 0; k < r->figure.n_rivals; k++) {
            const struct bench_rival *rival = &r->figure.rival[k];
            if (rival->sense == sense)
                add_row(rows, &r->figure, sense == BENCH_COST ? "" : rival->runner.name, bench_rival_ratio(r, k),
                        bench_bound_beside(rival->bound, bench_rate(r, &r->rival[k])));
        }
    }
}

/* The ends of the axis: all discs, quartiles and bounds, and the reference. */
static void set_axis(const struct rows *rows, double reference, bool logarithmic, struct figure_panel *panel)
{
    double low = reference / 1.5, high = reference;
    for (uint32_t i = 0; i < rows->n; i++) {
        const double values[] = {rows->row[i].ratio.low, rows->row[i].ratio.high, rows->row[i].ratio.counts};
        for (int k = 0; k < 3; k++)
            if (values[k] > 0) {
                low = fmin(low, values[k]);
                high = fmax(high, values[k]);
            }
        if (rows->row[i].bound.value > 0) {
            low = fmin(low, rows->row[i].bound.value);
            high = fmax(high, rows->row[i].bound.value);
        }
    }
    panel->x_low = logarithmic ? exp2(floor(log2(fmax(low, high * 1e-4)))) : 0;
    panel->x_high = logarithmic ? exp2(ceil(log2(high))) : high * 1.04;
}

static void put_rows(struct figure *figure, const struct rows *rows, const struct figure_panel *panel)
{
    for (uint32_t i = 0; i < rows->n; i++) {
        const struct bench_ratio *ratio = &rows->row[i].ratio;
        const struct bench_bound bound = rows->row[i].bound;
        const double y = panel->top + (i + 0.5) * PITCH;
        const bool misses = bench_judge(bound, ratio->counts) == BENCH_MISSES;
        const double x = fmax(ratio->counts, panel->x_low);
        char text[24];
        figure_number(text, ratio->counts);
        figure_text(figure, FIGURE_RIGHT, panel->left - 10.0, y, FIGURE_INK, NAME_ROOM, rows->row[i].name);
        figure_text(figure, FIGURE_RIGHT, FIGURE_WIDTH - FIGURE_EDGE, y, misses ? MISSES : FIGURE_SOFT_INK, 0.0, text);
        FIGURE_ROW(figure, FIGURE_MARKS, i, x, fmax(ratio->low, panel->x_low), fmax(ratio->high, panel->x_low),
                   misses ? MISSES : HOLDS);
        if (bound.value > 0)
            FIGURE_ROW(figure, FIGURE_POINTS, i, bound.value);
    }
    FIGURE_ROW(figure, FIGURE_POINTS, 0, NAN);
}

/* The names' room is what the longest of them needs. */
static double name_room(const struct rows *rows)
{
    double room = 40.0;
    for (uint32_t i = 0; i < rows->n; i++)
        room = fmax(room, figure_text_width(rows->row[i].name, FIGURE_FONT));
    return fmin(room, NAME_ROOM);
}

static void draw_rows(struct figure *figure, const struct rows *rows, const char *title, const char *axis,
                      double logarithmic)
{
    if (!rows->n) {
        figure->no_data = "";
        return;
    }
    figure_begin(figure, dots_gp, title, "median and quartiles \u00b7 tick: what is asked for \u00b7 orange: missed");
    const double left = FIGURE_EDGE + name_room(rows) + 10.0;
    struct figure_panel panel = {.left = left,
                                 .right = FIGURE_WIDTH - FIGURE_EDGE - VALUE_ROOM,
                                 .top = FIGURE_TOP,
                                 .bottom = FIGURE_TOP + rows->n * PITCH,
                                 .y_low = rows->n - 0.5,
                                 .y_high = -0.5};
    set_axis(rows, 1.0, logarithmic > 1, &panel);
    put_rows(figure, rows, &panel);
    figure_panels(figure, &panel, 1);
    figure_set(figure, "LOG", logarithmic);
    figure_set(figure, "REFERENCE", 1.0);
    figure_set(figure, "DISC", 0.65);
    figure_text(figure, FIGURE_MIDDLE, (panel.left + panel.right) / 2, panel.bottom + 36.0, FIGURE_SOFT_INK, 0.0, axis);
    figure_end(figure, panel.bottom + TICS_HEIGHT);
}

static struct rows *new_rows(void)
{
    struct rows *rows = calloc(1, sizeof *rows);
    if (!rows)
        bench_stop("memory is exhausted");
    return rows;
}

void drawing_limits(struct figure *figure, const struct bench *bench)
{
    struct rows *rows = new_rows();
    figure->id = "limits";
    gather_limits(rows, bench);
    draw_rows(figure, rows, "Share of the machine's limit", "rate by the rate of multiply-adds or of reading beside it",
              0);
    free(rows);
}

void drawing_rivals(struct figure *figure, const struct bench *bench)
{
    struct rows *rows = new_rows();
    figure->id = "rivals";
    gather_rivals(rows, bench, BENCH_FASTER);
    draw_rows(figure, rows, "Times as fast as others", "their time by ours", 2);
    free(rows);
}

void drawing_costs(struct figure *figure, const struct bench *bench)
{
    struct rows *rows = new_rows();
    figure->id = "costs";
    gather_rivals(rows, bench, BENCH_COST);
    draw_rows(figure, rows, "Cost in multiples of the plain way",
              "time by that of softmax-topk, the gate or the routing", 2);
    free(rows);
}

/* ---- growth ---- */

enum { COLUMNS = 2 };
#define CURVE_HEIGHT 190.0
#define CURVE_PITCH 270.0

static void decades(const double *values, uint32_t n, double *low, double *high)
{
    *low = INFINITY;
    *high = 0;
    for (uint32_t i = 0; i < n; i++) {
        *low = fmin(*low, values[i]);
        *high = fmax(*high, values[i]);
    }
    *low /= 1.6;
    *high *= 1.6;
}

/* The points, and the line of the fitted exponent through their middle. */
static void put_curve(struct figure *figure, const struct bench_curve *curve, uint32_t p)
{
    double x = 0, y = 0;
    for (uint32_t i = 0; i < curve->n; i++) {
        FIGURE_ROW(figure, FIGURE_MARKS, p + 1, curve->x[i], curve->seconds[i]);
        x += log(curve->x[i]) / curve->n;
        y += log(curve->seconds[i]) / curve->n;
    }
    const double ends[] = {curve->x[0], curve->x[curve->n - 1]};
    for (int i = 0; i < 2; i++)
        FIGURE_ROW(figure, FIGURE_POINTS, p + 1, ends[i], exp(y + curve->exponent * (log(ends[i]) - x)));
    if (figure->stream[FIGURE_POINTS])
        fputs("\n", figure->stream[FIGURE_POINTS]);
}

void drawing_curves(struct figure *figure, const struct bench *bench)
{
    struct figure_panel panel[8];
    const double width = (FIGURE_WIDTH - 2 * FIGURE_EDGE) / COLUMNS;
    figure->id = "growth";
    if (!bench->n_curves) {
        figure->no_data = "";
        return;
    }
    figure_begin(figure, curves_gp, "How time grows",
                 "seconds by processor time, one axis at a time \u00b7 line: the fitted power");
    for (uint32_t p = 0; p < bench->n_curves; p++) {
        const struct bench_curve *curve = &bench->curve[p];
        const double left = FIGURE_EDGE + p % COLUMNS * width, top = FIGURE_TOP + 22.0 + p / COLUMNS * CURVE_PITCH;
        char text[96];
        panel[p] = (struct figure_panel){
            .left = left + 48.0, .right = left + width - 14.0, .top = top, .bottom = top + CURVE_HEIGHT};
        decades(curve->x, curve->n, &panel[p].x_low, &panel[p].x_high);
        decades(curve->seconds, curve->n, &panel[p].y_low, &panel[p].y_high);
        put_curve(figure, curve, p);
        snprintf(text, sizeof text, "exponent %.2f (expected %.3g)", curve->exponent, curve->expected);
        figure_text(figure, FIGURE_LEFT, panel[p].left + 8.0, top - 10.0,
                    bench_judge(curve->bound, curve->exponent) == BENCH_MISSES ? MISSES : FIGURE_INK, 0.0, text);
        figure_text(figure, FIGURE_MIDDLE, (panel[p].left + panel[p].right) / 2, panel[p].bottom + 36.0,
                    FIGURE_SOFT_INK, 0.0, curve->axis);
    }
    figure_panels(figure, panel, bench->n_curves);
    figure_end(figure, FIGURE_TOP + 22.0 + (bench->n_curves + COLUMNS - 1) / COLUMNS * CURVE_PITCH);
}
