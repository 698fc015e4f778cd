/*
 * Running a verb again in a child process, where a router's code can do no harm and can be stopped.
 */
#ifndef MOESIM_CLI_ISOLATE_H
#define MOESIM_CLI_ISOLATE_H

#include "cli/options.h"

/* The child ends with this plus the verb's exit status: a router that calls exit() is not taken for success. */
#define ISOLATED_EXIT 64

/* What a router out of tree may take for its conformance suite, or for a group of runs, where nobody says otherwise. */
#define PLUGIN_TIMEOUT_S 600

/* Runs the same call in a child with our own stdin, stdout and stderr, and returns its exit status. When the child
 * dies, or is killed after `timeout_s` (0 = never), says so and names `router`. Removes the temporary file the child
 * was writing for `output` (NULL = none). */
int isolate_call(const struct cli_call *call, const char *router, const char *output, double timeout_s);

#endif
