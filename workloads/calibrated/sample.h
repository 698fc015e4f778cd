/*
 * What the generator yields: its figures, from a sample that holds all domains in equal parts.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_SAMPLE_H
#define MOESIM_WORKLOADS_CALIBRATED_SAMPLE_H

#include "workloads/calibrated/figures.h"
#include "workloads/calibrated/source.h"

struct sample_plan {
    uint32_t n_experts, top_k, n_layers;
    uint32_t sequences_each; /* of every domain */
    uint64_t seed;
};

/* Figures of the k best logits: layers[n_layers][CALIBRATED_N_FIGURES], unless it is NULL, and their means
 * mean[CALIBRATED_N_FIGURES]. NaN = not defined. */
MOESIM_MUST_CHECK enum moesim_status sample_take(const struct source_params *params, const struct sample_plan *plan,
                                                 double *layers, double *mean, struct moesim_error *err);

#endif
