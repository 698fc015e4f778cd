/*
 * The decisions of a run, written into a trace file layer by layer.
 */
#ifndef MOESIM_CLI_RECORDER_H
#define MOESIM_CLI_RECORDER_H

#include "sim/experiment/experiment.h"

struct recorder;

/* Begins a new file at `path`. */
MOESIM_MUST_CHECK enum moesim_status recorder_open(const char *path, struct recorder **recorder,
                                                   struct moesim_error *err);

/* Adds what was routed; layers come in order, and after the last one the next step's first. The labels of its tokens
 * are those of layer 0. MOESIM_EINVAL for a soft router, which decides nothing. */
MOESIM_MUST_CHECK enum moesim_status recorder_add(struct recorder *recorder, const struct moesim_routed *routed,
                                                  struct moesim_error *err);

/* Ends the file, whole where `keep`; frees the recorder. NULL is allowed. */
MOESIM_MUST_CHECK enum moesim_status recorder_close(struct recorder *recorder, bool keep, struct moesim_error *err);

#endif
