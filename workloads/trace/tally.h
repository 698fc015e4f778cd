/*
 * Running counts over the decisions of a trace, layer by layer, piece by piece.
 */
#ifndef MOESIM_WORKLOADS_TRACE_TALLY_H
#define MOESIM_WORKLOADS_TRACE_TALLY_H

#include "workloads/trace/measure.h"

enum { TALLY_HISTORY = 64, TALLY_LAGS = 2, TALLY_MOST_DOMAINS = 256 };

/* The tokens of a piece in one layer, with up to TALLY_HISTORY tokens before it. */
struct tally_piece {
    uint64_t first;           /* token of index `history` */
    uint32_t history, n;      /* tokens before the piece, tokens of it */
    struct trace_pairs pairs; /* [history + n] */
    const uint32_t *sequence; /* [history + n] or NULL */
    const uint32_t *domain;   /* [history + n] or NULL */
};

/* Experts that were used last, the latest first. */
struct tally_cache {
    uint32_t *expert;
    uint32_t n;
    uint64_t hits, lookups;
};

struct tally_layer {
    uint64_t *count;   /* [n_experts] */
    uint64_t *domain;  /* [n_domains][n_experts] or NULL */
    uint32_t *next;    /* [n_experts][n_experts] pairs (expert here, expert in the layer after), or NULL */
    uint64_t *leaving; /* [n_experts] sums of its rows */
    double lag_sum[TALLY_LAGS];
    uint64_t lag_n[TALLY_LAGS];
    struct tally_cache cache;
    double predicted; /* sum over tokens of the share of this layer's experts that the layer before predicts */
    uint64_t n_predicted;
};

/* Tokens that repeat the one before in every layer. */
struct tally_runs {
    uint64_t start, longest_start, longest, total; /* tokens; runs below TALLY_RUN do not count */
};

struct tally {
    const struct trace_shape *shape;
    uint32_t n_domains, cache_experts;
    struct tally_layer *layer; /* [n_layers] */
    uint64_t *stamp;           /* [n_experts] */
    uint64_t stamps;
    double *score; /* [n_experts] */
    uint8_t *same; /* [piece] the token repeats the one before in all layers so far */
    struct tally_runs runs;
    uint64_t n_repeated, first_repeated; /* tokens that name an expert twice in a layer, and the first of them */
};

enum { TALLY_RUN = 32 };

/* MOESIM_EINVAL when layers times experts is beyond what can be counted. */
MOESIM_MUST_CHECK enum moesim_status tally_init(struct tally *tally, const struct trace_shape *shape,
                                                uint32_t n_domains, uint32_t piece, struct moesim_error *err);
void tally_finish(struct tally *tally);

/* Adds one layer's piece; `before` is the layer before's, NULL for the first. Layers come in order, pieces too. */
void tally_add(struct tally *tally, uint32_t layer, const struct tally_piece *piece, const struct tally_piece *before);

/* After all layers of a piece. */
void tally_end_piece(struct tally *tally, const struct tally_piece *piece, bool last);

#endif
