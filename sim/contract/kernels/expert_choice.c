/* SPDX-License-Identifier: MIT
 *
 * Expert choice: every expert takes the best tokens of each group, up to its capacity.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>

#include "sim/contract/kernels/rows.h"

#define NO_TOKEN UINT32_MAX

/* The caller's scratch, cut up. `chosen` lists tokens by group, expert, rank; a list that ends early ends with
 * NO_TOKEN. */
struct lists {
    uint64_t *start;  /* [n_groups + 1] of a group in chosen */
    uint32_t *cursor; /* [n_tokens] where a token's next pair goes */
    uint32_t *chosen; /* [start[n_groups]] */
};

static struct lists cut(void *scratch, uint32_t n_groups, uint32_t n_tokens)
{
    struct lists l = {.start = scratch};
    l.cursor = (uint32_t *)(l.start + (size_t)n_groups + 1);
    l.chosen = l.cursor + n_tokens;
    return l;
}

size_t moesim_expert_choice_scratch(uint32_t max_tokens, uint32_t max_groups, uint64_t max_pairs)
{
    return ((size_t)max_groups + 1) * sizeof(uint64_t) + ((size_t)max_tokens + max_pairs) * sizeof(uint32_t);
}

/* Every list of `chosen`, one per group and expert. */
static void choose(const struct moesim_batch *batch, const float *scores, const uint32_t *capacity,
                   const struct lists *l)
{
    const uint64_t n_lists = (uint64_t)batch->n_groups * batch->n_experts;
#pragma omp parallel for schedule(dynamic, 1) if (batch->n_tokens >= ROWS_PARALLEL)
    for (uint64_t i = 0; i < n_lists; i++) {
        const uint32_t g = (uint32_t)(i / batch->n_experts), e = (uint32_t)(i % batch->n_experts);
        uint32_t *token = l->chosen + l->start[g] + (size_t)e * capacity[g];
        const uint32_t n = moesim_topk_column(scores, batch->n_experts, batch->group_start[g],
                                              batch->group_start[g + 1], e, capacity[g], batch->padding, token);
        for (uint32_t rank = n; rank < capacity[g]; rank++)
            token[rank] = NO_TOKEN;
    }
}

static void count_pairs(const struct moesim_batch *batch, const struct lists *l, struct moesim_plan *plan)
{
    const uint64_t n = l->start[batch->n_groups];
    memset(l->cursor, 0, batch->n_tokens * sizeof *l->cursor);
    for (uint64_t i = 0; i < n; i++)
        if (l->chosen[i] != NO_TOKEN)
            l->cursor[l->chosen[i]]++;
    uint32_t sum = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        plan->first[t] = sum;
        sum += l->cursor[t];
        l->cursor[t] = plan->first[t];
    }
    plan->first[batch->n_tokens] = sum;
    plan->n_pairs = sum;
}

/* Adds the pair to its token's, which stay in decreasing order of weight; experts come in rising order. */
static void insert_pair(struct moesim_plan *plan, const struct lists *l, uint32_t token, uint32_t expert, float weight,
                        uint32_t slot)
{
    uint32_t i = l->cursor[token]++;
    for (; i > plan->first[token] && weight > plan->weight[i - 1]; i--) {
        plan->expert[i] = plan->expert[i - 1];
        plan->weight[i] = plan->weight[i - 1];
        plan->slot[i] = plan->slot[i - 1];
    }
    plan->expert[i] = expert;
    plan->weight[i] = weight;
    plan->slot[i] = (int32_t)slot;
}

static uint32_t count_bad_rows(const struct moesim_batch *batch, const float *scores)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        n += !(batch->padding && batch->padding[t]) &&
             !rows_any_finite(scores + (size_t)t * batch->n_experts, batch->n_experts);
    return n;
}

void moesim_expert_choice(const struct moesim_batch *batch, const float *scores, const uint32_t *capacity,
                          void *scratch, struct moesim_plan *plan)
{
    const uint32_t n_experts = batch->n_experts;
    const struct lists l = cut(scratch, batch->n_groups, batch->n_tokens);
    l.start[0] = 0;
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        l.start[g + 1] = l.start[g] + (uint64_t)n_experts * capacity[g];
        for (uint32_t e = 0; e < n_experts; e++)
            plan->capacity[(size_t)g * n_experts + e] = capacity[g];
    }
    assert(l.start[batch->n_groups] <= plan->max_pairs);
    choose(batch, scores, capacity, &l);
    count_pairs(batch, &l, plan);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        for (uint64_t i = l.start[g]; i < l.start[g + 1]; i++) {
            const uint32_t token = l.chosen[i], e = (uint32_t)((i - l.start[g]) / capacity[g]);
            if (token != NO_TOKEN)
                insert_pair(plan, &l, token, e, scores[(size_t)token * n_experts + e],
                            (uint32_t)((i - l.start[g]) % capacity[g]));
        }
    memset(plan->fate, MOESIM_KEPT, plan->n_pairs * sizeof *plan->fate);
    plan->n_wanted = 0;
    plan->n_bad_rows = count_bad_rows(batch, scores);
}
