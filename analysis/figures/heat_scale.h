/*
 * The scale of heat maps: powers of two around an even share, so that what collapsed does not hide the rest.
 */
#ifndef MOESIM_ANALYSIS_FIGURES_HEAT_SCALE_H
#define MOESIM_ANALYSIS_FIGURES_HEAT_SCALE_H

#include "analysis/figures/figure.h"

#define HEAT_SCALE_LOW -3.0 /* an eighth of an even share, or less */

/* The scale's upper end for the largest load over an even share. */
double heat_scale_high(double most);

/* Writes one cell `repeat` times: log2 of the load over an even share, within the scale. */
void heat_scale_cell(FILE *out, double load, double share, double high, uint32_t repeat, bool first);

/* The scale itself at height `y`, from `left` on, as the figure's last block and panel. */
void heat_scale_put(struct figure *figure, struct figure_panel *panel, double left, double y, double high);

#endif
