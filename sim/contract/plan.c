/* SPDX-License-Identifier: MIT
 *
 * The plan's memory, its auxiliary losses, its counts, and the same pairs seen from the experts.
 */
#include <moesim/plan.h>

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum moesim_status moesim_plan_init(struct moesim_plan *plan, uint32_t max_tokens, uint32_t n_experts,
                                    uint32_t max_groups, uint64_t max_pairs, uint32_t n_slots,
                                    struct moesim_arena *arena, struct moesim_error *err)
{
    if (max_pairs >= UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL,
                           "a plan of %llu pairs (token, expert) does not fit 32 bits; use fewer tokens a step",
                           (unsigned long long)max_pairs);
    const size_t n = (size_t)max_pairs;
    *plan = (struct moesim_plan){
        .struct_size = sizeof *plan,
        .n_experts = n_experts,
        .max_pairs = max_pairs,
        .n_slots = n_slots,
        .first = moesim_alloc(arena, (size_t)max_tokens + 1, sizeof *plan->first),
        .expert = moesim_alloc_unset(arena, n, sizeof *plan->expert),
        .weight = moesim_alloc_unset(arena, n, sizeof *plan->weight),
        .slot = moesim_alloc_unset(arena, n, sizeof *plan->slot),
        .fate = moesim_alloc_unset(arena, n, sizeof *plan->fate),
        .capacity = moesim_alloc(arena, (size_t)max_groups * n_experts, sizeof *plan->capacity),
    };
    bool enough = plan->first && plan->expert && plan->weight && plan->slot && plan->fate && plan->capacity;
    if (n_slots) {
        plan->dispatch = moesim_alloc(arena, (size_t)max_tokens * n_slots, sizeof *plan->dispatch);
        plan->combine = moesim_alloc(arena, (size_t)max_tokens * n_slots, sizeof *plan->combine);
        enough = enough && plan->dispatch && plan->combine;
    }
    if (!enough)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a plan of %zu pairs over %u tokens", n, max_tokens);
    return MOESIM_OK;
}

void moesim_plan_reset(struct moesim_plan *plan, const struct moesim_batch *batch)
{
    plan->n_tokens = batch->n_tokens;
    plan->n_groups = batch->n_groups;
    plan->n_pairs = 0;
    plan->n_wanted = 0;
    plan->n_bad_rows = 0;
    plan->n_aux = 0;
    plan->note = NULL;
    plan->has_confidence = false;
    plan->first[0] = 0;
}

void moesim_plan_add_aux(struct moesim_plan *plan, const char *name, double value)
{
    if (plan->n_aux < MOESIM_MAX_AUX)
        plan->aux[plan->n_aux] = (struct moesim_aux){name, value};
    plan->n_aux++;
}

double moesim_plan_aux_loss(const struct moesim_plan *plan)
{
    double sum = 0;
    for (uint32_t i = 0; i < plan->n_aux && i < MOESIM_MAX_AUX; i++)
        sum += plan->aux[i].value;
    return sum;
}

void moesim_plan_count(const struct moesim_plan *plan, uint64_t *assigned, uint64_t *kept)
{
    if (assigned)
        memset(assigned, 0, plan->n_experts * sizeof *assigned);
    if (kept)
        memset(kept, 0, plan->n_experts * sizeof *kept);
    for (uint64_t i = 0; i < plan->n_pairs; i++) {
        const uint32_t expert = plan->expert[i];
        if (expert == MOESIM_NO_EXPERT)
            continue;
        assert(expert < plan->n_experts);
        if (assigned)
            assigned[expert]++;
        if (kept)
            kept[expert] += plan->fate[i] == MOESIM_KEPT;
    }
}

enum moesim_status moesim_expert_view_init(struct moesim_expert_view *view, uint32_t n_experts, uint64_t max_pairs,
                                           struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t n = (size_t)max_pairs;
    *view = (struct moesim_expert_view){
        .start = moesim_alloc(arena, (size_t)n_experts + 1, sizeof *view->start),
        .pair = moesim_alloc(arena, n, sizeof *view->pair),
        .token = moesim_alloc(arena, n, sizeof *view->token),
    };
    if (!view->start || !view->pair || !view->token)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu pairs by expert", n);
    return MOESIM_OK;
}

/* A counting sort. Groups are runs of tokens, so token order within an expert is also group order. */
void moesim_expert_view_build(struct moesim_expert_view *view, const struct moesim_plan *plan)
{
    uint32_t *start = view->start;
    memset(start, 0, ((size_t)plan->n_experts + 1) * sizeof *start);
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        if (plan->fate[i] == MOESIM_KEPT)
            start[plan->expert[i]]++;
    uint32_t sum = 0;
    for (uint32_t e = 0; e <= plan->n_experts; e++) {
        const uint32_t count = start[e];
        start[e] = sum;
        sum += count;
    }
    for (uint32_t t = 0; t < plan->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (plan->fate[i] == MOESIM_KEPT) {
                const uint32_t place = start[plan->expert[i]]++;
                view->pair[place] = i;
                view->token[place] = t;
            }
    memmove(start + 1, start, plan->n_experts * sizeof *start); /* every start had moved to its end */
    start[0] = 0;
}
