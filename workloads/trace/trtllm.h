/*
 * TensorRT-LLM's expert statistics: a folder with meta_info.json and, for each rank, tensors "<iteration>_<layer>" of
 * counts per expert.
 */
#ifndef MOESIM_WORKLOADS_TRACE_TRTLLM_H
#define MOESIM_WORKLOADS_TRACE_TRTLLM_H

#include "workloads/trace/source.h"

/* Whether every tensor has such a name. */
bool trtllm_is_rank(const struct trace_member *members, size_t n);

/* The loads of one rank's file, summed over iterations. */
MOESIM_MUST_CHECK enum moesim_status trtllm_open_rank(const char *path, const struct trace_member *members, size_t n,
                                                      const struct trace_options *options, struct trace_source *source,
                                                      struct moesim_error *err);

#endif
