/* The verbs, one file each. */
#ifndef MOESIM_CLI_VERBS_H
#define MOESIM_CLI_VERBS_H

#include "cli/options.h"

extern const struct cli_verb cli_run, cli_route, cli_cost, cli_place, cli_trace, cli_list, cli_describe, cli_check,
    cli_compare, cli_report, cli_export, cli_new, cli_fidelity, cli_doctor;

/* Machinery, not listed. */
extern const struct cli_verb cli_worker, cli_probe, cli_docs, cli_complete;

#endif
