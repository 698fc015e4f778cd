/*
 * Where the results of a bench go: a database that moesim compares, JSON, a page.
 */
#ifndef BENCH_OUTPUT_H
#define BENCH_OUTPUT_H

#include <moesim/status.h>

#include "bench/bench.h"

/* Adds a run for each repeat of each timed figure to the database's study "bench": router = the label, workload =
 * "PART/FIGURE", seed = the repeat, which goes on from those that the label has already. */
MOESIM_MUST_CHECK enum moesim_status output_database(const struct bench *bench, const char *path,
                                                     struct moesim_error *err);

/* All figures with their repeats. */
MOESIM_MUST_CHECK enum moesim_status output_json(const struct bench *bench, const char *path, struct moesim_error *err);

/* A page (path ends in .html) or a drawing (.svg). */
MOESIM_MUST_CHECK enum moesim_status output_page(const struct bench *bench, const char *path, struct moesim_error *err);

/* "moesim 0.1.0 (80e1954), gcc 12.2.0, CPU, BLAS, 2 threads". */
void output_stamp(const struct bench *bench, char *text, size_t size);

#endif
