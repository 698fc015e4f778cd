/*
 * What a report shows of training, read from the store once: curves over the validations by router, the held-out text
 * of each domain, and where the last validation sent domains and token ids. All of one workload.
 */
#ifndef MOESIM_ANALYSIS_TRAINING_H
#define MOESIM_ANALYSIS_TRAINING_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/outcome.h>

#include "analysis/report_data.h"

/* A figure after `step` + 1 batches: mean, lowest and highest over the runs of a router. */
struct training_point {
    uint32_t step;
    double mean, low, high;
};

struct training_curve {
    const struct training_point *point; /* [n], rising steps */
    uint32_t n;
};

/* A domain or a token id, and how many of its pairs each expert was given. */
struct training_subject {
    const char *name;
    double tokens, total; /* total: over the experts */
    double *assigned;     /* [n_experts] */
};

/* Where the last validation of one run sent what, in its last MoE layer. */
struct training_routing {
    uint32_t layer, n_experts;
    int64_t seed;
    struct training_subject *subject[MOESIM_N_SUBJECTS];
    uint32_t n[MOESIM_N_SUBJECTS];
};

/* Bits per byte of one domain at the last validation. */
struct training_domain {
    const char *name;
    double *mean, *half; /* [n_routers] over the seeds; NaN where there is none */
};

/* Arrays belong to the report's arena. */
struct training {
    uint32_t workload;                /* the first one that has validations */
    struct training_curve *curve;     /* [n_routers][MOESIM_N_METRICS]; flop_train and time_step are summed up */
    struct training_routing *routing; /* [n_routers]: of the first seed; n_experts 0 = none */
    struct training_domain *domain;   /* by name */
    uint32_t n_domains;
};

/* Whether any run of the study trained. */
bool training_any(const struct report_data *data);

MOESIM_MUST_CHECK enum moesim_status training_load(struct results_store *store, const struct report_data *data,
                                                   struct training *training, struct moesim_error *err);
/* The parts of training_load. */
MOESIM_MUST_CHECK enum moesim_status training_load_curves(struct results_store *store, const struct report_data *data,
                                                          struct training *training, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status training_load_domains(struct results_store *store, const struct report_data *data,
                                                           struct training *training, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status training_load_routing(struct results_store *store, const struct report_data *data,
                                                           struct training *training, struct moesim_error *err);

const struct training_curve *training_curve_of(const struct training *training, uint32_t router, uint32_t metric);

/* The run of a study with this id, or NULL. */
const struct report_run *training_run(const struct report_data *data, int64_t id);

#endif
