/*
 * All built-in workloads.
 */
#ifndef MOESIM_WORKLOADS_TABLE_H
#define MOESIM_WORKLOADS_TABLE_H

#include <moesim/workload.h>

/* NULL-terminated. */
extern const struct moesim_workload *const workloads_table[];

extern const struct moesim_workload moesim_workload_gaussian;
extern const struct moesim_workload moesim_workload_lognormal;
extern const struct moesim_workload moesim_workload_zipf;
extern const struct moesim_workload moesim_workload_calibrated;
extern const struct moesim_workload moesim_workload_bursty;
extern const struct moesim_workload moesim_workload_drift;
extern const struct moesim_workload moesim_workload_adversarial;
extern const struct moesim_workload moesim_workload_logits;
extern const struct moesim_workload moesim_workload_text;
extern const struct moesim_workload moesim_workload_trace;
extern const struct moesim_workload moesim_workload_loads;

#endif
