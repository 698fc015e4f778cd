/* SPDX-License-Identifier: MIT
 *
 * Overflow by rerouting: a refused pair's token goes to an expert that has a free slot and that the token does not use
 * yet. Either each pair in turn looks through all experts and takes the best; or all go round by round through their
 * tokens' lists of best experts, so that nobody gets its third choice before everybody has tried its second.
 */
#include <assert.h>
#include <math.h>

#include "sim/contract/kernels/token_choice.h"

static uint32_t token_of(const struct moesim_plan *plan, uint32_t pair)
{
    uint32_t low = 0, high = plan->n_tokens; /* first[low] <= pair < first[high] */
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (plan->first[middle] <= pair)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static bool uses(const struct token_choice *c, uint32_t token, uint32_t expert)
{
    for (uint32_t i = c->plan->first[token]; i < c->plan->first[token + 1]; i++)
        if (c->plan->expert[i] == expert || c->scratch->served[i] == expert)
            return true;
    return false;
}

/* A token's experts outside the groups it may use become NaN: those of groups that were not kept, or, with as many
 * experts from every group, of all groups but the refused expert's own. */
static void limit_to_groups(const struct token_choice *c, uint32_t refused, float *values, float *scratch)
{
    const uint32_t n_experts = c->scratch->n_experts, n_groups = c->p->n_groups, size = n_experts / n_groups;
    uint32_t *kept = (uint32_t *)(scratch + rows_groups_scratch(n_experts, n_groups)), j = 0;
    const struct rows_select select = token_choice_select(c);
    if (c->p->topk_groups > 0)
        moesim_rows()->keep_groups(&select, values, scratch, kept);
    else
        kept[0] = refused / size;
    const uint32_t n = c->p->topk_groups > 0 ? c->p->topk_groups : 1;
    for (uint32_t g = 0; g < n_groups; g++) {
        if (j < n && kept[j] == g)
            j++;
        else
            for (uint32_t e = g * size; e < (g + 1) * size; e++)
                values[e] = NAN;
    }
}

/* values[e] and scores[e] of a token: what experts are compared by, and what the weight is made of. */
static const float *compared(const struct token_choice *c, uint32_t token, uint32_t refused, float *scores)
{
    const uint32_t n_experts = c->scratch->n_experts;
    const float *logits = token_choice_logits(c, token);
    float *values = scores + n_experts;
    moesim_rows()->scores(c->p->score, logits, n_experts, scores);
    const float *shift = token_choice_shift(c);
    if (!shift && !token_choice_by_score(c))
        return logits;
    for (uint32_t e = 0; e < n_experts; e++)
        values[e] = shift ? logits[e] + shift[e] : scores[e] + (c->bias ? c->bias[e] : 0);
    if (token_choice_groups(c->p) > 1)
        limit_to_groups(c, refused, values, values + n_experts);
    return values;
}

/* One group while its refused pairs are served. */
struct slots {
    const uint32_t *capacity; /* [E] */
    uint32_t *taken;          /* [E] */
};

static bool can_serve(const struct token_choice *c, const struct slots *slots, uint32_t token, uint32_t expert)
{
    return slots->taken[expert] < slots->capacity[expert] && !uses(c, token, expert);
}

static void serve(struct token_choice *c, struct slots *slots, uint32_t pair, uint32_t expert, float score)
{
    c->scratch->served[pair] = expert;
    c->scratch->slot[pair] = (int32_t)slots->taken[expert]++;
    c->scratch->score[pair] = score;
    c->plan->fate[pair] = MOESIM_REROUTED;
}

static void serve_by_best_score(struct token_choice *c, struct slots *slots, uint32_t pair)
{
    const uint32_t token = token_of(c->plan, pair);
    float *scores = token_choice_row(c);
    const float *value = compared(c, token, c->plan->expert[pair], scores);
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t e = 0; e < c->scratch->n_experts; e++) {
        const bool better = best == MOESIM_NO_EXPERT ? value[e] == value[e] : value[e] > value[best];
        if (better && can_serve(c, slots, token, e))
            best = e;
    }
    if (best != MOESIM_NO_EXPERT)
        serve(c, slots, pair, best, scores[best]);
}

/* Of a token's refused pairs one is served in a round, as the second finds the expert in use; the others go on. */
static void serve_in_rounds(struct token_choice *c, struct slots *slots, uint32_t *refused, uint32_t n)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    for (uint32_t choice = c->p->k; choice < s->n_listed && n > 0; choice++) {
        uint32_t n_left = 0;
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t token = token_of(c->plan, refused[j]);
            const size_t i = (size_t)token * s->n_listed + choice;
            if (s->list[i] != MOESIM_NO_EXPERT && can_serve(c, slots, token, s->list[i]))
                serve(c, slots, refused[j], s->list[i], s->list_score[i]);
            else
                refused[n_left++] = refused[j];
        }
        n = n_left;
    }
}

void token_choice_reroute(struct token_choice *c, uint32_t group, uint32_t *refused, uint32_t n)
{
    const size_t row = (size_t)group * c->scratch->n_experts;
    struct slots slots = {.capacity = c->plan->capacity + row, .taken = c->scratch->taken + row};
    const uint32_t *start = c->batch->group_start + group;
    for (uint32_t i = c->plan->first[start[0]]; i < c->plan->first[start[1]]; i++)
        c->scratch->served[i] = MOESIM_NO_EXPERT;
    if (c->p->rounds > 0)
        serve_in_rounds(c, &slots, refused, n);
    else
        for (uint32_t j = 0; j < n; j++)
            serve_by_best_score(c, &slots, refused[j]);
}

/* Puts a token's served pairs after its own, to.. upwards; returns the end. */
static uint32_t append_served(struct token_choice *c, uint32_t from, uint32_t n, uint32_t to)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    struct moesim_plan *plan = c->plan;
    for (uint32_t i = from; i < from + n; i++) {
        if (s->served[i] == MOESIM_NO_EXPERT)
            continue;
        plan->expert[to] = s->served[i];
        plan->weight[to] = s->score[i];
        plan->slot[to] = s->slot[i];
        plan->fate[to] = MOESIM_KEPT;
        to++;
    }
    return to;
}

void token_choice_insert_served(struct token_choice *c)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    struct moesim_plan *plan = c->plan;
    uint32_t n_served = 0, old_last = (uint32_t)plan->n_pairs;
    for (uint32_t i = 0; i < old_last; i++)
        n_served += s->served[i] != MOESIM_NO_EXPERT;
    assert(plan->n_pairs + n_served <= plan->max_pairs);
    uint32_t last = old_last + n_served;
    plan->n_pairs = last;
    for (uint32_t t = plan->n_tokens; n_served > 0 && t-- > 0;) { /* from the end, so that nothing is overwritten */
        const uint32_t old = plan->first[t], n = old_last - old;
        uint32_t own = 0;
        for (uint32_t i = old; i < old_last; i++)
            own += s->served[i] != MOESIM_NO_EXPERT;
        const uint32_t first = last - own - n;
        plan->first[t + 1] = last;
        for (uint32_t j = n; j-- > 0;) {
            plan->expert[first + j] = plan->expert[old + j];
            plan->weight[first + j] = plan->weight[old + j];
            plan->slot[first + j] = plan->slot[old + j];
            plan->fate[first + j] = plan->fate[old + j];
        }
        append_served(c, old, n, first + n);
        old_last = old;
        last = first;
    }
}
