/*
 * A store with made-up runs, for tests of the report: values follow from router, workload and seed.
 */
#ifndef MOESIM_TESTS_ANALYSIS_SAMPLE_STORE_H
#define MOESIM_TESTS_ANALYSIS_SAMPLE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "results/store.h"

struct sample {
    const char *study;
    const char *const *router; /* specs; "capacity_factor=" in them becomes the parameter */
    const char *const *workload;
    uint32_t n_routers, n_workloads, n_seeds, n_experts, n_windows;
    bool with_cluster, with_loads, with_traffic;
    bool without_values; /* every metric is NaN */
    bool trained;        /* as mode train does: sample_training.h */
};

/* max_vio of a run of the sample. */
double sample_max_vio(uint32_t router, uint32_t workload, uint32_t seed);

/* Writes all runs, the last router's first seed on the first workload failed when `fail`. */
void sample_fill(struct results_store *store, const struct sample *sample, bool fail);

#endif
