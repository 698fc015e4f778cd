/* SPDX-License-Identifier: MIT
 *
 * What tokens would choose by their clean scores alone, without bias, groups of experts and noise.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sim/contract/kernels/token_choice.h"

/* The least of the n clean logits that a token has chosen: there are n best ones not below it. NaN where that does not
 * help. */
static float least_chosen(const struct token_choice *c, uint32_t token, uint32_t n)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const float *row = c->batch->columns + (size_t)token * c->batch->stride;
    const uint32_t *expert = s->list ? s->list + (size_t)token * s->n_listed : c->plan->expert + c->plan->first[token];
    float least = INFINITY;
    for (uint32_t j = 0; j < n; j++) {
        if (expert[j] == MOESIM_NO_EXPERT || !isfinite(row[expert[j]]))
            return NAN;
        least = row[expert[j]] < least ? row[expert[j]] : least;
    }
    return least;
}

void token_choice_unbiased(const struct token_choice *c, const struct chunk *chunk)
{
    const struct moesim_batch *batch = c->batch;
    const uint32_t n_experts = batch->n_experts, n = c->scratch->n_unbiased;
    const bool by_score = c->p->score == MOESIM_RELU;
    const struct rows_select select = {.score = c->p->score, .n = n_experts, .k = n, .by_score = by_score};
    for (uint32_t t = chunk->first; t < chunk->last; t++) {
        const float *row = batch->columns + (size_t)t * batch->stride;
        uint32_t *expert = c->scratch->unbiased + (size_t)t * n, *ranked = (uint32_t *)token_choice_row(c);
        if (c->plan->first[t] == c->plan->first[t + 1])
            continue;
        const float least = least_chosen(c, t, n);
        if (by_score || !(least > -FLT_MAX)) {
            token_choice_one(&select, row, token_choice_row(c), expert);
            continue;
        }
        moesim_rank_above(row, n_experts, nextafterf(least, -INFINITY), ranked);
        memcpy(expert, ranked, n * sizeof *expert);
    }
}
