/*
 * The drawings of a bench's page: ratios with what is asked for, and growth curves.
 */
#ifndef BENCH_DRAWING_H
#define BENCH_DRAWING_H

#include "analysis/figures/figure.h"
#include "bench/bench.h"

/* Shares of the machine's limits; times faster than rivals; cost in multiples of others. `no_data` is set where there
 * is none. */
void drawing_limits(struct figure *figure, const struct bench *bench);
void drawing_rivals(struct figure *figure, const struct bench *bench);
void drawing_costs(struct figure *figure, const struct bench *bench);
void drawing_curves(struct figure *figure, const struct bench *bench);

#endif
