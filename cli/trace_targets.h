/*
 * Figures that were aimed at beside those that came out.
 */
#ifndef MOESIM_CLI_TRACE_TARGETS_H
#define MOESIM_CLI_TRACE_TARGETS_H

#include <jansson.h>
#include <stdbool.h>

#include "workloads/calibrated/sample.h"

/* Sequences of each domain in a sample whose figures are shown. */
#define TRACE_SAMPLE_SEQUENCES 8
/* A figure off by more, relative to the target, is called missed. */
#define TRACE_MISSED 0.1

/* A table on stdout; false when memory ran out. */
bool trace_targets_print(const struct calibrated_target *target, uint32_t n, const double *value);

/* The same as comments of a YAML file. */
void trace_targets_comment(const struct calibrated_target *target, uint32_t n, const double *value);

/* [{"figure", "target", "got", "off", "missed"}]; NULL when memory ran out. */
json_t *trace_targets_json(const struct calibrated_target *target, uint32_t n, const double *value);

#endif
