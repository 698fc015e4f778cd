/* SPDX-License-Identifier: MIT
 *
 * A plan's validation that also counts.
 */
#ifndef MOESIM_CONTRACT_PLAN_CHECK_H
#define MOESIM_CONTRACT_PLAN_CHECK_H

#include "sim/contract/plan_screen.h"

/* moesim_plan_check(), which fills in the counts (NULL = not wanted) of a valid plan. */
enum moesim_status plan_check(const struct moesim_plan *plan, const struct moesim_batch *batch, const char *router,
                              void *scratch, struct plan_counts *counts, struct moesim_error *err);

#endif
