/*
 * A figure: what is drawn where is decided here in pixels, numbers and texts go into files, and a gnuplot script that
 * knows no data draws them. Names reach gnuplot only as the last column of text.tsv.
 */
#ifndef MOESIM_ANALYSIS_FIGURES_FIGURE_H
#define MOESIM_ANALYSIS_FIGURES_FIGURE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <moesim/status.h>

#include "analysis/compare.h"
#include "analysis/report_data.h"
#include "analysis/training.h"

#define FIGURE_WIDTH 680.0
#define FIGURE_EDGE 14.0 /* free border */
#define FIGURE_TOP 66.0  /* below title and subtitle */
#define FIGURE_FONT 12.0
#define FIGURE_INK 0x1f2937u
#define FIGURE_SOFT_INK 0x6b7280u

enum figure_stream { FIGURE_SETTINGS, FIGURE_TEXT, FIGURE_PLAIN_TEXT, FIGURE_MARKS, FIGURE_POINTS, FIGURE_N_STREAMS };

/* How a text stands at its place; the word is the first column of text.tsv. */
enum figure_text {
    FIGURE_TITLE,
    FIGURE_SUBTITLE,
    FIGURE_HEAD,
    FIGURE_LEFT,
    FIGURE_RIGHT,
    FIGURE_MIDDLE,
    FIGURE_UPRIGHT,
    FIGURE_N_TEXTS
};

/* A plot box in pixels from the top left corner, and its axes. */
struct figure_panel {
    double left, right, top, bottom;
    double x_low, x_high, y_low, y_high; /* y_low is at the bottom */
};

struct figure {
    const char *id;     /* file name and prefix of ids */
    const char *script; /* the gnuplot text that draws it */
    double width, height;
    char title[128];
    char *caption;       /* one sentence; belongs to the report's arena */
    const char *no_data; /* set: nothing is drawn, and this says why and how to get it */
    FILE *stream[FIGURE_N_STREAMS];
    char *file[FIGURE_N_STREAMS]; /* filled by figure_end, freed by figure_finish */
    size_t size[FIGURE_N_STREAMS];
    bool failed; /* memory */
};

/* What all figures draw from. */
struct figure_source {
    const struct report_data *data;
    const struct analysis_comparison *comparison; /* by workload */
    const struct training *training;              /* NULL: nothing trained */
};

/* ---- the figures ---- */
void figure_imbalance(struct figure *figure, const struct figure_source *source);
void figure_heat(struct figure *figure, const struct figure_source *source, struct results_store *store);
void figure_traffic(struct figure *figure, const struct figure_source *source, struct results_store *store);
void figure_capacity(struct figure *figure, const struct figure_source *source);
void figure_balance_cost(struct figure *figure, const struct figure_source *source);
void figure_step_time(struct figure *figure, const struct figure_source *source);
void figure_differences(struct figure *figure, const struct figure_source *source);

/* Of training; without it they have no data. */
void figure_loss(struct figure *figure, const struct figure_source *source);
void figure_settling(struct figure *figure, const struct figure_source *source);
void figure_specialisation(struct figure *figure, const struct figure_source *source);

/* ---- drawing ---- */

/* Opens the streams and writes title and subtitle. */
void figure_begin(struct figure *figure, const char *script, const char *title, const char *subtitle);
/* Closes them; `height` is known by now. */
void figure_end(struct figure *figure, double height);
void figure_finish(struct figure *figure);
/* The caption, formatted into the report's arena. */
void figure_caption(struct figure *figure, const struct report_data *data, const char *format, ...) MOESIM_PRINTF(3, 4);

/* A number the script reads by name. */
void figure_set(struct figure *figure, const char *name, double value);
void figure_panels(struct figure *figure, const struct figure_panel *panel, uint32_t n);
/* One text, cleaned for gnuplot; longer than `room` pixels (0 = no limit) it loses its middle. */
void figure_text(struct figure *figure, enum figure_text kind, double x, double y, uint32_t colour, double room,
                 const char *text);
/* One row of numbers of marks.tsv or points.tsv; NaN is allowed. */
void figure_row(struct figure *figure, enum figure_stream stream, const double *value, uint32_t n);
#define FIGURE_ROW(figure, stream, ...)                                                                                \
    figure_row(figure, stream, (const double[]){__VA_ARGS__},                                                          \
               (uint32_t)(sizeof(const double[]){__VA_ARGS__} / sizeof(double)))

/* The width of a text at a font size in pixels, rather too wide than too narrow. */
double figure_text_width(const char *text, double font);
/* `text` as gnuplot may get it: valid UTF-8 without control bytes, quotes and backslashes replaced by look-alikes, at
 * most `room` pixels wide. */
void figure_clean(char *clean, size_t size, const char *text, double font, double room);
/* Replaces, in place, what the usual fonts lack: Cairo draws a missing glyph over the whole picture. */
void figure_plain(char *clean);

/* The colour of a router in all figures: grey for the baseline, Okabe and Ito's for the others, then shades of them. */
uint32_t figure_colour(const struct report_data *data, uint32_t router);

/* The "n = 5 seeds (1-5)" of a subtitle. */
void figure_seeds(const struct report_data *data, char *text, size_t size);

/* An axis from `low` to `high` with a little air; `zero` makes it begin (or end) at 0. */
void figure_axis(double low, double high, bool zero, double *axis_low, double *axis_high);

/* Three significant digits without an exponent where that is short: "0.0123", "12.3", "1230". */
void figure_number(char text[24], double value);

/* A unit that suits the largest of some seconds: "s", "ms", "us" and the factor to it. */
const char *figure_seconds(double largest, double *factor);

#endif
