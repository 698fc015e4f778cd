/* SPDX-License-Identifier: MIT
 *
 * Experts that tokens share with the tokens 1 and 64 before them, in a valid plan. Shares of tokens with equally many
 * experts are counted by that number: whole numbers, so that their order does not matter.
 */
#ifndef MOESIM_CONTRACT_OVERLAP_H
#define MOESIM_CONTRACT_OVERLAP_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/metric.h>

#define OVERLAP_LAGS 2
#define OVERLAP_FAR 64     /* the longer lag */
#define OVERLAP_COUNTED 64 /* up to so many experts of a token, shares are counted by their number */

static const uint32_t overlap_lags[OVERLAP_LAGS] = {1, OVERLAP_FAR};

/* Whether MOESIM_SURVEY_LAG1 or _LAG64 is wanted. */
static inline bool overlap_wanted(uint32_t wants, int lag)
{
    return wants & (lag ? MOESIM_SURVEY_LAG64 : MOESIM_SURVEY_LAG1);
}

/* With the tokens of one lag. */
struct overlap {
    uint64_t n;                           /* tokens that have experts and such a token before them */
    uint64_t shared[OVERLAP_COUNTED + 1]; /* by how many experts the token has */
};

/* When an expert was named: bit i of `before` = by the token i before the last one that did. */
struct overlap_history {
    uint64_t last, before;
};

/* Adds tokens [first, last), which have k experts each, as have those before them; k <= OVERLAP_COUNTED. `word` is of
 * token `first`, with the others beside it, as rows' words() makes them; NULL = there are none. */
void overlap_add_even(struct overlap *overlap, const struct moesim_plan *plan, const uint32_t *sequence_id, int lag,
                      uint32_t first, uint32_t last, uint32_t k, const uint64_t *word);

/* Adds tokens [first, last) of any plan, both lags, and to share[] what tokens of more than OVERLAP_COUNTED experts
 * share, in parts of one. The history is of tokens up to first, whose time is `now`; with `anew` it is not yet. */
void overlap_add(struct overlap overlap[OVERLAP_LAGS], const struct moesim_plan *plan, const uint32_t *sequence_id,
                 uint32_t first, uint32_t last, struct overlap_history *history, uint64_t now, bool anew,
                 double share[OVERLAP_LAGS]);

void overlap_merge(struct overlap *sum, const struct overlap *overlap);

/* Of a token that has such a token before it; `share` is of those with more than OVERLAP_COUNTED experts. NaN where
 * there is none. */
double overlap_mean(const struct overlap *overlap, double share);

#endif
