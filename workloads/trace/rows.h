/*
 * Rows of text on their way into a trace: whatever a log says of one token in one layer, in any order of layers.
 */
#ifndef MOESIM_WORKLOADS_TRACE_ROWS_H
#define MOESIM_WORKLOADS_TRACE_ROWS_H

#include "workloads/trace/source.h"

struct trace_rows;

/* What a row says. What it does not say is 0. */
struct trace_row {
    uint32_t layer;
    uint64_t token, sequence; /* place in its sequence, or whatever names the token; the sequence's name, hashed */
    bool has_sequence, has_token_id;
    bool refused; /* the experts were wanted, but had no room */
    uint32_t token_id;
    uint32_t n; /* experts */
    const uint32_t *expert;
    const float *weight; /* or NULL */
};

/* One pair of a file that has a row for each, as `moesim route` writes it. */
struct trace_row_pair {
    uint32_t layer, expert;
    uint64_t token; /* its place in the file's batch: tokens that are left out got no expert */
    float weight;
    bool has_weight, refused, has_slot;
    int32_t slot;
};

/* Rows go to a file without a name; `path` is for sentences, which say the place themselves by `place`. */
MOESIM_MUST_CHECK enum moesim_status trace_rows_create(const char *path, const struct trace_options *options,
                                                       struct trace_rows **rows, struct moesim_error *err);
void trace_rows_destroy(struct trace_rows *rows); /* NULL is allowed */

/* How many experts there are, where the log says so itself; an option of the user goes before it. */
void trace_rows_experts(struct trace_rows *rows, uint32_t n_experts);

/* The next token of the row's layer. Layers that name their tokens have to name the same in the same order. */
MOESIM_MUST_CHECK enum moesim_status trace_rows_token(struct trace_rows *rows, const struct trace_row *row,
                                                      struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status trace_rows_pair(struct trace_rows *rows, const struct trace_row_pair *pair,
                                                     struct moesim_error *err);

/* Adds to the load of an expert, or gives a layer's loads of one step. */
MOESIM_MUST_CHECK enum moesim_status trace_rows_count(struct trace_rows *rows, uint32_t layer, uint32_t expert,
                                                      double count, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status trace_rows_load(struct trace_rows *rows, uint32_t layer, uint32_t step,
                                                     const double *load, uint32_t n_experts, struct moesim_error *err);

/* Closes the file and opens it as a source. */
MOESIM_MUST_CHECK enum moesim_status trace_rows_finish(struct trace_rows *rows, struct trace_source *source,
                                                       struct moesim_error *err);

#endif
