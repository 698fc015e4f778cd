/*
 * The actions of `moesim trace`, one file each.
 */
#ifndef MOESIM_CLI_TRACE_H
#define MOESIM_CLI_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "workloads/trace/trace.h"

struct trace_call {
    const char *kind, *weights, *sequences, *domains, *format, *as;
    uint32_t experts, top_k, samples;
    bool append, json, quiet;
};

/* Each gets the arguments after its name, ended by NULL, and returns the exit status. */
int cli_trace_info(const struct trace_call *o, const char *const *args);
int cli_trace_convert(const struct trace_call *o, const char *const *args);
int cli_trace_fit(const struct trace_call *o, const char *const *args);
int cli_trace_presets(const struct trace_call *o, const char *const *args);

/* Opens `path` as the options say. */
MOESIM_MUST_CHECK enum moesim_status cli_trace_open(const struct trace_call *o, const char *path, struct trace **trace,
                                                    struct moesim_error *err);

#endif
