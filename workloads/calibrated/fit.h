/*
 * The effects that give a sample the figures that are wanted.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_FIT_H
#define MOESIM_WORKLOADS_CALIBRATED_FIT_H

#include <stdbool.h>

#include "workloads/calibrated/sample.h"

/* The fields of struct effects, in order. */
enum fit_free {
    FIT_POPULARITY,
    FIT_POPULARITY_SKEW,
    FIT_DOMAIN_EFFECT,
    FIT_DOMAIN_TAIL,
    FIT_SEQUENCE_EFFECT,
    FIT_SLOW_EFFECT,
    FIT_SLOW_RHO,
    FIT_FAST_EFFECT,
    FIT_FAST_RHO,
    FIT_TOKEN_EFFECT,
    FIT_TOKEN_ECHO,
    FIT_N_FREE,
};

struct fit_field {
    const char *key;        /* of the schema */
    double low, high, step; /* bounds, and a first step in units of the search: a factor e for those above 0 */
    size_t offset;          /* in struct effects */
};
extern const struct fit_field fit_fields[FIT_N_FREE];

struct fit_task {
    const struct calibrated_target *target;
    uint32_t n_targets;
    bool free[FIT_N_FREE]; /* the others keep their values */
    struct sample_plan sample;
    uint32_t n_evaluations;
    double stride; /* factor on the first steps; 0 = 1 */
    /* Told after each sample; false ends the fit as it stands, with MOESIM_ESTOP. May be NULL. */
    bool (*progress)(void *context, uint32_t done, uint32_t of, double miss);
    void *context;
};

/* How far `value` [CALIBRATED_N_FIGURES] is from the targets: the sum of squared misses in tenths of the target (of 0.3
 * for a correlation below that), those above nine tenths counted more; a figure that is not defined counts as ten. */
double fit_miss(const struct calibrated_target *target, uint32_t n_targets, const double *value);

/* Searches from params->effects, which must all be given, by Nelder and Mead's simplex (GSL) with the same random
 * numbers in every sample; sets them to the best found. */
MOESIM_MUST_CHECK enum moesim_status fit_effects(const struct fit_task *task, struct source_params *params,
                                                 struct moesim_error *err);

#endif
