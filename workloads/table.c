/*
 * The list of built-in workloads: a new one is a file and a line here.
 */
#include "workloads/table.h"

const struct moesim_workload *const workloads_table[] = {
    &moesim_workload_gaussian, &moesim_workload_lognormal, &moesim_workload_zipf,        &moesim_workload_calibrated,
    &moesim_workload_bursty,   &moesim_workload_drift,     &moesim_workload_adversarial, &moesim_workload_logits,
    &moesim_workload_text,     &moesim_workload_trace,     &moesim_workload_loads,       NULL,
};
