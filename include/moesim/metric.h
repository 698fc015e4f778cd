/* SPDX-License-Identifier: MIT
 *
 * Every metric in one table: name, unit, kind, formula. The store, the docs and the report read it.
 */
#ifndef MOESIM_METRIC_H
#define MOESIM_METRIC_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/plan.h>
#include <moesim/status.h>

enum moesim_metric_kind { MOESIM_COUNTED, MOESIM_MODELLED, MOESIM_MEASURED };
enum moesim_better { MOESIM_LOWER, MOESIM_HIGHER, MOESIM_NEITHER };
/* How a run folds its values over steps and layers into the one figure of v_runs. */
enum moesim_fold { MOESIM_FOLD_MEAN, MOESIM_FOLD_TOTAL, MOESIM_FOLD_MEDIAN, MOESIM_FOLD_LAST };

enum moesim_metric_id {
    MOESIM_LOAD_CV,
    MOESIM_MAX_VIO,
    MOESIM_LOAD_GINI,
    MOESIM_LOAD_ENTROPY,
    MOESIM_DEAD_EXPERTS,
    MOESIM_DROPPED_FRACTION,
    MOESIM_DROPPED_TOKENS,
    MOESIM_PADDING_FRACTION,
    MOESIM_EXPERTS_PER_TOKEN,
    MOESIM_ROUTER_ENTROPY,
    MOESIM_ROUTER_Z,
    MOESIM_AUX_LOSS,
    MOESIM_LAG1_OVERLAP,
    MOESIM_LAG64_OVERLAP,
    MOESIM_LOAD_CHURN,
    MOESIM_BAD_ROWS,
    MOESIM_DEVICE_IMBALANCE,
    MOESIM_NODE_IMBALANCE,
    MOESIM_BALANCEDNESS,
    MOESIM_DEVICE_FANOUT,
    MOESIM_NODE_FANOUT,
    MOESIM_BYTES_DISPATCH,
    MOESIM_BYTES_COMBINE,
    MOESIM_BYTES_INTER_NODE,
    MOESIM_BYTES_INTRA_NODE,
    MOESIM_FLOP_EXPERT,
    MOESIM_FLOP_PADDED,
    MOESIM_FLOP_ROUTER,
    MOESIM_TIME_GATE,
    MOESIM_TIME_DISPATCH,
    MOESIM_TIME_COMPUTE,
    MOESIM_TIME_COMBINE,
    MOESIM_TIME_LAYER,
    MOESIM_TIME_SYNC,
    MOESIM_TOKENS_PER_SECOND,
    MOESIM_BYTES_MIGRATION,
    MOESIM_TIME_MIGRATION,
    MOESIM_DEVICE_MEMORY,
    MOESIM_CPU_TIME_ROUTE,
    MOESIM_CPU_TIME_LAYER,
    MOESIM_CPU_FLOP_RATE,
    MOESIM_TRAIN_LOSS,
    MOESIM_BITS_PER_BYTE,
    MOESIM_GRAD_NORM,
    MOESIM_MAX_VIO_GLOBAL,
    MOESIM_ROUTING_FLUCTUATION,
    MOESIM_ROUTER_SATURATION,
    MOESIM_DOMAIN_SPECIALISATION,
    MOESIM_VOCABULARY_SPECIALISATION,
    MOESIM_FLOP_TRAIN,
    MOESIM_TIME_STEP,
    MOESIM_BENCH_CLOCK, /* from here on: of moesim-bench's database, no study has them */
    MOESIM_BENCH_CPU,
    MOESIM_BENCH_OF_LIMIT,
    MOESIM_BENCH_OF_RIVAL,
    MOESIM_N_METRICS,
};

struct moesim_metric {
    const char *name, *unit;
    uint8_t kind, better, fold; /* the enums above */
    const char *meaning;        /* one line for a listing */
    const char *formula;        /* plain text, symbols as in docs/metrics.md */
    const char *defined;        /* when a run has it: "always", "with a cluster", ... */
};

MOESIM_API extern const struct moesim_metric moesim_metrics[MOESIM_N_METRICS];

/* The id of a name, or -1. */
MOESIM_API int moesim_metric_find(const char *name);

/* ---- load metrics of counts c[n], as doubles so that replicas may share; NaN where undefined (no load) ---- */

MOESIM_API double moesim_load_cv(const double *c, uint32_t n); /* population standard deviation / mean */
MOESIM_API double moesim_max_vio(const double *c, uint32_t n); /* (max - mean) / mean */
MOESIM_API double moesim_load_gini(const double *c, uint32_t n, double *scratch);         /* scratch[n] */
MOESIM_API double moesim_load_entropy(const double *c, uint32_t n);                       /* H / ln n; 1 for n = 1 */
MOESIM_API double moesim_load_churn(const double *now, const double *before, uint32_t n); /* sum |q - q'| / 2 */

/* ---- metrics of router scores; rows without a finite value are left out; NaN where none is left ---- */

/* The router's confidence over n_experts logits a row, both in one pass: entropy = mean_t -sum_e p ln p with p the
 * row's softmax, and z = mean_t (logsumexp_e l)^2. Each row's two figures are float; they are added up in double over
 * runs of MOESIM_RUN_TOKENS rows, row t in lane t mod 8, a run's lanes by sum of ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 +
 * 7)), then runs in order. */
struct moesim_confidence {
    double entropy, z;
};
MOESIM_API struct moesim_confidence moesim_router_confidence(const float *logits, size_t stride, uint32_t n_tokens,
                                                             uint32_t n_experts);

/* The sums of one run. */
struct moesim_confidence_run {
    double entropy[8], square[8];
    uint32_t n_rows;
};

/* ---- all that is counted over the tokens of a plan, in one pass ---- */

/* What of it is dear and wanted. */
enum moesim_survey_wants { MOESIM_SURVEY_CONFIDENCE = 1, MOESIM_SURVEY_LAG1 = 2, MOESIM_SURVEY_LAG64 = 4 };

/* What a pass has found; padding is no token. */
struct moesim_survey_result {
    const uint64_t *assigned, *kept;     /* [n_experts] as moesim_plan_count's, until the next pass */
    uint64_t n_kept;                     /* pairs */
    uint32_t n_tokens, n_served;         /* tokens, and those with a kept pair */
    double lag1_overlap, lag64_overlap;  /* mean over pairs (t, t - lag) of one sequence of |E_t intersect E_(t-lag)| /
                                            |E_t|, over kept and refused choices alike; NaN without such a pair, and
                                            where not wanted */
    struct moesim_confidence confidence; /* of the batch's columns; NaN where not wanted, or there are too few */
};

/* Room for passes over plans of up to max_tokens tokens and n_experts experts. */
struct moesim_survey;
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_survey_init(uint32_t max_tokens, uint32_t n_experts,
                                                                   struct moesim_arena *arena,
                                                                   struct moesim_survey **survey,
                                                                   struct moesim_error *err);
/* Bytes of that room. */
MOESIM_API uint64_t moesim_survey_bytes(uint32_t max_tokens, uint32_t n_experts);
/* The room for plan->confidence, which the pass fills where the router has not. */
MOESIM_API struct moesim_confidence_run *moesim_survey_confidence(struct moesim_survey *survey);
/* Passes over a valid plan; the same bits on any number of threads. */
MOESIM_API void moesim_survey_pass(struct moesim_survey *survey, const struct moesim_plan *plan,
                                   const struct moesim_batch *batch, uint32_t wants,
                                   struct moesim_survey_result *result);
/* The same of a plan that is still to be validated: moesim_plan_check() with `router` and `scratch` comes first and
 * counts on the way where every token has as many pairs and all are kept, so that they are read once. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status
moesim_survey_check(struct moesim_survey *survey, const struct moesim_plan *plan, const struct moesim_batch *batch,
                    uint32_t wants, const char *router, void *scratch, struct moesim_survey_result *result,
                    struct moesim_error *err);

#endif
