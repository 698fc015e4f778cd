/*
 * What `moesim cost` tells: the price of one layer, as a table for 80 columns or as JSON.
 */
#ifndef MOESIM_CLI_COST_PRINT_H
#define MOESIM_CLI_COST_PRINT_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/metric.h>

#include "sim/cost/cost.h"
#include "sim/study/point.h"

/* One priced layer. */
struct cost_result {
    const struct moesim_point *point;
    uint32_t layer;
    double metric[MOESIM_N_METRICS]; /* NaN where the layer has none */
    const struct moesim_cost_work *work;
};

/* The table on stdout. False when memory ran out. */
bool cost_print(const struct cost_result *result);

/* JSON on stdout: metrics by name at the top level (seconds, bytes), beside `settings`, `ports` (bytes of the mean and
 * the busiest port of each kind) and `bound` (which port each exchange waits for, and bandwidths). False when memory
 * ran out. */
bool cost_print_json(const struct cost_result *result);

#endif
