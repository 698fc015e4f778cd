/*
 * Panels of lines with bands in a grid, and the key that names their routers.
 */
#ifndef MOESIM_ANALYSIS_FIGURES_CURVES_H
#define MOESIM_ANALYSIS_FIGURES_CURVES_H

#include "analysis/figures/figure.h"
#include "analysis/training.h"

#define CURVES_MAX_PANELS 6u

/* A figure of lines while it is laid out. */
struct curves {
    struct figure *figure;
    const struct report_data *data;
    struct figure_panel panel[CURVES_MAX_PANELS];
    uint32_t n_panels;
    uint32_t first[CURVES_MAX_PANELS + 1]; /* line of each panel that is drawn first */
    bool bare[CURVES_MAX_PANELS];          /* the panel's y axis is the one of the panel left of it */
    bool log[CURVES_MAX_PANELS];           /* the y axis is logarithmic */
    uint32_t *colour;                      /* [n_routers * CURVES_MAX_PANELS] of each line */
    uint32_t n_lines;
    bool band;               /* more than one seed */
    bool footed;             /* some value is below its logarithmic axis and drawn on the foot of it */
    double low, high, right; /* of the lines of the panel under way */
};

/* One place of a line. */
struct curves_point {
    double x, mean, low, high;
};

bool curves_begin(struct curves *curves, struct figure *figure, const struct report_data *data);

/* The next panel, whose box and axes' ends the caller knows; lines follow. */
void curves_panel(struct curves *curves, struct figure_panel panel);
void curves_line(struct curves *curves, uint32_t router, const struct curves_point *point, uint32_t n);

/* Names of the routers that have lines, in columns within `room` pixels; returns the height they take. */
double curves_key(const struct curves *curves, const bool *shown, double left, double top, double room);

/* Settings of all panels; the figure's end is the caller's. */
void curves_end(struct curves *curves);

#endif
