/*
 * Writing moesim's own trace file, in any order of layers, with bounded memory.
 */
#ifndef MOESIM_WORKLOADS_TRACE_WRITER_H
#define MOESIM_WORKLOADS_TRACE_WRITER_H

#include <moesim/batch.h>
#include <moesim/plan.h>

#include "workloads/trace/trace.h"

struct trace_writer;

/* Begins a trace in the empty file `fd`, which stays the caller's. `n_experts` 0 = the largest id + 1. */
MOESIM_MUST_CHECK enum moesim_status trace_writer_create(int fd, enum trace_kind kind, uint32_t n_experts,
                                                         struct trace_writer **writer, struct moesim_error *err);

/* Goes on with the trace file that `fd` (open for reading and writing) holds: the tokens written follow those it has.
 */
MOESIM_MUST_CHECK enum moesim_status trace_writer_append(int fd, const char *path, struct trace_writer **writer,
                                                         struct moesim_error *err);

/* Decisions of the next `n` tokens of `layer` (the model's number): expert[first[0]] on. `weight`, `fate` and `slot`
 * may be NULL; a trace has weights for all its tokens or for none. */
MOESIM_MUST_CHECK enum moesim_status trace_write_pairs(struct trace_writer *writer, uint32_t layer, uint32_t n,
                                                       const struct trace_pairs *pairs, struct moesim_error *err);

/* Logits of the next `n` tokens of `layer`, rows of n_experts numbers. */
MOESIM_MUST_CHECK enum moesim_status trace_write_rows(struct trace_writer *writer, uint32_t layer, uint32_t n,
                                                      const float *rows, size_t stride, struct moesim_error *err);

/* Loads [n_experts] of `layer` in the recorded step. */
MOESIM_MUST_CHECK enum moesim_status trace_write_load(struct trace_writer *writer, uint32_t layer, uint32_t step,
                                                      const double *load, uint32_t n_experts, struct moesim_error *err);

/* A label of the next `n` tokens. */
MOESIM_MUST_CHECK enum moesim_status trace_write_labels(struct trace_writer *writer, enum trace_label label, uint32_t n,
                                                        const uint32_t *values, struct moesim_error *err);

/* Writes what is left and the directory. MOESIM_EIO when the layers do not have the same number of tokens. */
MOESIM_MUST_CHECK enum moesim_status trace_writer_finish(struct trace_writer *writer, struct moesim_error *err);
void trace_writer_destroy(struct trace_writer *writer); /* NULL is allowed */

enum trace_kind trace_writer_kind(const struct trace_writer *writer);
uint32_t trace_writer_experts(const struct trace_writer *writer); /* so far */
/* Tokens (loads: steps) that the layer of that number has so far. */
uint64_t trace_writer_tokens(const struct trace_writer *writer, uint32_t layer);

#endif
