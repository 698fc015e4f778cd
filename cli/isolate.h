/*
 * Running a verb again in a child process, where a plugin's code can do no harm.
 */
#ifndef MOESIM_CLI_ISOLATE_H
#define MOESIM_CLI_ISOLATE_H

#include "cli/options.h"

/* The child ends with this plus the verb's exit status: a router that calls exit() is not taken for success. */
#define ISOLATED_EXIT 64

/* Runs the same call in a child with our own stdin, stdout and stderr, and returns its exit status. When the child
 * dies, says so and names `plugin`. Removes the temporary file the child was writing for `output` (NULL = none). */
int isolate_call(const struct cli_call *call, const char *plugin, const char *output);

#endif
