/*
 * Writing traces in the formats that other programs read.
 */
#ifndef MOESIM_WORKLOADS_TRACE_EXPORT_H
#define MOESIM_WORKLOADS_TRACE_EXPORT_H

#include "workloads/trace/trace.h"

struct trace_export_options {
    const char *format; /* a name of trace_exports, or NULL: by the path's suffix */
    bool loads;         /* the loads of decisions instead of the decisions */
    bool append;        /* moesim traces: behind what the file holds */
};

struct trace_export {
    const char *name;
    const char *suffix;  /* ".npy"; NULL = has to be named */
    const char *meaning; /* one line */
    uint32_t kinds;      /* bit of each enum trace_kind that it holds */
    bool folder;
    enum moesim_status (*write)(struct trace *trace, const char *path, const struct trace_export_options *options,
                                struct moesim_error *err);
};

/* Ended by name NULL. */
extern const struct trace_export trace_exports[];
#define TRACE_EXPORT_CHOICES "trace|npy|npz|safetensors|jsonl|csv|megatron|sglang|trtllm|gguf"

/* The format for a path, which is the name the file will have. MOESIM_EINVAL when no suffix tells or it cannot hold the
 * trace; sets options->loads where the format holds nothing but loads. */
MOESIM_MUST_CHECK enum moesim_status trace_export_find(const struct trace *trace, const char *path,
                                                       struct trace_export_options *options,
                                                       const struct trace_export **export, struct moesim_error *err);

/* What the format does not keep of the trace, for people; "" = nothing. */
void trace_export_losses(const struct trace *trace, const struct trace_export *export,
                         const struct trace_export_options *options, char *text, size_t size);

#endif
