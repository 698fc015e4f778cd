/*
 * What a trace shows of a model's routing: how uneven the loads are, how they repeat over time, how a layer tells the
 * next, what a cache of experts would hold, how domains differ; and what looks wrong with the recording.
 */
#ifndef MOESIM_WORKLOADS_TRACE_MEASURE_H
#define MOESIM_WORKLOADS_TRACE_MEASURE_H

#include "workloads/trace/trace.h"

/* Figures of one layer. The first are the metrics of that name. */
enum trace_figure {
    TRACE_LOAD_CV,
    TRACE_MAX_VIO,
    TRACE_LOAD_GINI,
    TRACE_LOAD_ENTROPY,
    TRACE_DEAD_EXPERTS,
    TRACE_LAG1_OVERLAP,
    TRACE_LAG64_OVERLAP,
    TRACE_PREDICTABILITY, /* share of the experts that a first-order table from the layer before predicts */
    TRACE_CACHE_HIT_RATE, /* of the most recently used experts, emptied at each sequence */
    TRACE_DIVERGENCE,     /* Jensen-Shannon, bits, mean over pairs of domains (loads: of steps) */
    TRACE_ROUTER_ENTROPY,
    TRACE_ROUTER_Z,
    TRACE_N_FIGURES,
};

struct trace_figure_info {
    const char *name, *title; /* for JSON, and over a column */
    const char *meaning;
};
extern const struct trace_figure_info trace_figures[TRACE_N_FIGURES];

#define TRACE_MAX_WARNINGS 16

struct trace_measures {
    uint32_t n_layers;
    double *value;                /* [n_layers][TRACE_N_FIGURES]; NaN = not defined here */
    double mean[TRACE_N_FIGURES]; /* over the layers that have the figure */
    uint32_t cache_experts;       /* slots of the cache: twice the experts of a token */
    uint64_t n_sequences;         /* runs of one sequence id; 0 = not known */
    uint32_t n_domains;           /* 0 = not known */
    uint64_t n_bad_rows;          /* logits: rows without a finite number */
    uint32_t n_warnings;
    char warning[TRACE_MAX_WARNINGS][256];
};

/* Goes over the trace once. Memory does not depend on the number of tokens. */
MOESIM_MUST_CHECK enum moesim_status trace_measure(struct trace *trace, struct trace_measures *measures,
                                                   struct moesim_error *err);
void trace_measures_free(struct trace_measures *measures);

/* Means over all pairs of `n_loads` loads [n]: the Jensen-Shannon divergence in bits of those that are not empty, and
 * Spearman's rank correlation, ties by their mean rank, of those that are not all equal; NaN where there is no pair. */
double trace_mean_divergence(const double *loads, uint32_t n_loads, uint32_t n);
double trace_mean_rank_correlation(const double *loads, uint32_t n_loads, uint32_t n);

#endif
