/*
 * A fit of the generator to a recording.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_FIT_TRACE_H
#define MOESIM_WORKLOADS_CALIBRATED_FIT_TRACE_H

#include "workloads/calibrated/fit.h"
#include "workloads/calibrated/recorded.h"

struct fit_trace_options {
    uint32_t top_k; /* of loads, which do not tell; 0 = the recording's */
    uint32_t n_samples;
    uint64_t seed;
    /* As in struct fit_task. */
    bool (*progress)(void *context, uint32_t done, uint32_t of, double miss);
    void *context;
};

struct fit_trace_result {
    struct source_params params; /* preset none, everything else given */
    uint32_t n_layers, n_experts, top_k;
    uint32_t n_targets;
    struct calibrated_target target[CALIBRATED_N_FIGURES]; /* what the recording shows: means over layers */
    double got[CALIBRATED_N_FIGURES];                      /* of a sample that was not used in the fit */
    char *profile;                                         /* params.profile */
    bool is_known[FIT_N_FREE]; /* the recording tells of it; the others are 0, or do not act */
};

/* Measures the recording and fits what it tells: domains where it names some, what lasts where it has an order, token
 * types where it names them. MOESIM_EINVAL for logits and for loads without top_k. MOESIM_ESTOP leaves the best so far
 * in `result`, which fit_trace_free() ends in any case. */
MOESIM_MUST_CHECK enum moesim_status fit_trace(struct trace *trace, const struct fit_trace_options *options,
                                               struct fit_trace_result *result, struct moesim_error *err);
void fit_trace_free(struct fit_trace_result *result);

#endif
