/*
 * What the writers of formats share.
 */
#ifndef MOESIM_WORKLOADS_TRACE_EXPORT_PARTS_H
#define MOESIM_WORKLOADS_TRACE_EXPORT_PARTS_H

#include <stdio.h>

#include "workloads/npy.h"
#include "workloads/trace/export.h"

typedef enum moesim_status trace_export_writer(struct trace *trace, const char *path,
                                               const struct trace_export_options *options, struct moesim_error *err);
trace_export_writer trace_export_file, trace_export_npy, trace_export_npz, trace_export_safetensors, trace_export_jsonl,
    trace_export_csv, trace_export_megatron, trace_export_sglang, trace_export_trtllm, trace_export_gguf;

/* A file to write; the closing says whether all of it arrived. */
MOESIM_MUST_CHECK enum moesim_status export_open(const char *path, FILE **file, struct moesim_error *err);
MOESIM_MUST_CHECK enum moesim_status export_close(const char *path, FILE *file, enum moesim_status status,
                                                  struct moesim_error *err);

/* Decisions of some tokens in one layer, with room for all that a trace may say of them. */
struct export_piece {
    uint32_t room, n; /* tokens */
    uint64_t first;
    struct trace_pairs pairs;
    uint32_t *sequence; /* [n], where the trace has them */
};
MOESIM_MUST_CHECK enum moesim_status export_piece_init(const struct trace *trace, uint32_t room,
                                                       struct export_piece *piece, struct moesim_error *err);
void export_piece_free(struct export_piece *piece);
/* Reads the layer's tokens from `first` on, as many as there is room for. */
MOESIM_MUST_CHECK enum moesim_status export_piece_read(struct trace *trace, struct export_piece *piece, uint32_t layer,
                                                       uint64_t first, struct moesim_error *err);

/* Recorded steps of loads: a trace's own, or one with the sum of all decisions. */
uint32_t export_steps(const struct trace *trace);
MOESIM_MUST_CHECK enum moesim_status export_load(struct trace *trace, uint32_t layer, uint32_t step, double *load,
                                                 struct moesim_error *err);

#endif
