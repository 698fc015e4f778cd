/*
 * The figures of a recording.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_RECORDED_H
#define MOESIM_WORKLOADS_CALIBRATED_RECORDED_H

#include "workloads/calibrated/figures.h"
#include "workloads/trace/trace.h"

/* What a recording tells besides its shape. */
struct recorded_labels {
    uint32_t n_domains, vocabulary; /* largest label + 1; 0 = not known */
    uint64_t n_sequences;           /* runs of one id; 0 = not known */
};

MOESIM_MUST_CHECK enum moesim_status recorded_labels(struct trace *trace, struct recorded_labels *labels,
                                                     struct moesim_error *err);

/* Of decisions: layers[n_layers][CALIBRATED_N_FIGURES] and their means over the layers that have the figure. Loads have
 * the figures of loads only, each recorded step being a domain; logits are MOESIM_EINVAL. */
MOESIM_MUST_CHECK enum moesim_status recorded_figures(struct trace *trace, const struct recorded_labels *labels,
                                                      double *layers, double *mean, struct moesim_error *err);

#endif
