/*
 * How the fidelity report looks: as text, as the page docs/fidelity.md, and as JSON.
 */
#ifndef MOESIM_CLI_FIDELITY_PRINT_H
#define MOESIM_CLI_FIDELITY_PRINT_H

#include <stdbool.h>

#include "cli/print_table.h"
#include "sim/fidelity/fidelity.h"

/* What the report comes down to. */
struct fidelity_tally {
    uint32_t held, missed, known, skipped; /* parts, and tables without their data */
    uint32_t drifted;                      /* constants of presets that the calibration does not give any more */
};
struct fidelity_tally fidelity_count(const struct moesim_fidelity_table *tables, uint32_t n);

/* PRINT_TABLE, PRINT_MARKDOWN or PRINT_JSON; `points` also prints every point of long tables. False without memory. */
bool fidelity_print(const struct moesim_fidelity_table *tables, uint32_t n, enum print_format format, bool points);

#endif
