/* SPDX-License-Identifier: MIT
 *
 * The quick half of a plan's validation.
 */
#ifndef MOESIM_PLAN_SCREEN_H
#define MOESIM_PLAN_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/plan.h>

#include "sim/contract/overlap.h"

/* What the pairs add up to. */
struct plan_totals {
    uint64_t n_kept, n_over_capacity;
    uint32_t n_bad_rows; /* marked as such */
};

/* What the metrics count, where every token has k pairs, all of them kept: no token is padding then. */
struct plan_counts {
    uint32_t wants;                       /* lags of a survey: filled in by the caller */
    uint64_t *kept;                       /* [n_experts] the caller's room */
    uint32_t k;                           /* 0 = it is not so, or not worth it, and nothing was counted */
    struct overlap overlap[OVERLAP_LAGS]; /* of the lags that are wanted */
};

/* Whether the pairs keep every promise, with slots given out in the order of tokens, as by most routers, or of limited
 * capacities; false says nothing. The totals are filled in when true, and so are the counts, unless NULL. `words` is
 * scratch of at least plan_screen_words(n_experts, 1). */
bool plan_screen(const struct moesim_plan *plan, const struct moesim_batch *batch, uint32_t *words, size_t n_words,
                 struct plan_totals *totals, struct plan_counts *counts);

/* Scratch for as many threads. */
size_t plan_screen_words(uint32_t n_experts, uint32_t n_threads);

#endif
