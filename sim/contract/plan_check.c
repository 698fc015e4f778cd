/* SPDX-License-Identifier: MIT
 *
 * Validation of a plan: the quick half passes most plans; one that it does not is walked through pair by pair, with
 * stamps for what must be distinct, so that a mistake has its place named.
 */
#include <moesim/plan.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/contract/plan_check.h"

/* What the check knows while it walks. The arrays are the caller's scratch. */
struct walk {
    const struct moesim_plan *plan;
    const struct moesim_batch *batch;
    const char *router;
    struct moesim_error *err;
    uint32_t *seen;  /* [n_experts] token + 1 that last kept a pair on the expert */
    uint32_t *start; /* [n_experts + 1] kept pairs of the group before expert e */
    uint32_t *taken; /* [max_pairs] slots of the group, bucket by bucket */
    struct plan_totals totals;
};

size_t moesim_plan_check_scratch(uint32_t n_experts, uint64_t max_pairs)
{
    return (plan_screen_words(n_experts, 1) + 2 * (size_t)n_experts + 1 + (size_t)max_pairs) * sizeof(uint32_t);
}

static enum moesim_status broken(const struct walk *w, uint32_t token, uint32_t pair, const char *what)
{
    return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: token %u, pair %u (expert %u, slot %d): %s", w->router,
                       token, pair - w->plan->first[token], w->plan->expert[pair], w->plan->slot[pair], what);
}

static enum moesim_status check_sizes(const struct walk *w)
{
    const struct moesim_plan *p = w->plan;
    if (p->n_tokens != w->batch->n_tokens || p->n_groups != w->batch->n_groups)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: the plan has %u tokens in %u groups, the batch %u in %u",
                           w->router, p->n_tokens, p->n_groups, w->batch->n_tokens, w->batch->n_groups);
    if (p->n_pairs > p->max_pairs)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %llu pairs where it asked for room for %llu", w->router,
                           (unsigned long long)p->n_pairs, (unsigned long long)p->max_pairs);
    if (p->n_aux > MOESIM_MAX_AUX)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %u auxiliary losses, at most %d are kept", w->router,
                           p->n_aux, MOESIM_MAX_AUX);
    for (uint32_t i = 0; i < p->n_aux; i++)
        if (!isfinite(p->aux[i].value))
            return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: auxiliary loss %s is not finite", w->router,
                               p->aux[i].name);
    return MOESIM_OK;
}

static enum moesim_status check_offsets(const struct walk *w)
{
    const struct moesim_plan *p = w->plan;
    bool rising = p->first[0] == 0 && p->first[p->n_tokens] == p->n_pairs;
    for (uint32_t t = 0; t < p->n_tokens; t++)
        rising &= p->first[t] <= p->first[t + 1];
    if (rising)
        return MOESIM_OK;
    return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: first[] does not rise from 0 to %llu pairs over %u tokens",
                       w->router, (unsigned long long)p->n_pairs, p->n_tokens);
}

static enum moesim_status check_refused(struct walk *w, uint32_t token, uint32_t pair)
{
    const struct moesim_plan *p = w->plan;
    if (p->fate[pair] > MOESIM_BAD_ROW)
        return broken(w, token, pair, "its fate is none of kept, over capacity, rerouted, bad row");
    if (p->weight[pair] != 0)
        return broken(w, token, pair, "it is refused but has a weight");
    if (p->slot[pair] != -1)
        return broken(w, token, pair, "it is refused but has a slot");
    if (p->fate[pair] == MOESIM_BAD_ROW) {
        if (p->expert[pair] != MOESIM_NO_EXPERT)
            return broken(w, token, pair, "it belongs to a bad row but names an expert");
        return MOESIM_OK;
    }
    w->totals.n_over_capacity += p->fate[pair] == MOESIM_OVER_CAPACITY;
    if (p->expert[pair] >= p->n_experts)
        return broken(w, token, pair, "there is no such expert");
    return MOESIM_OK;
}

static enum moesim_status check_kept(struct walk *w, uint32_t token, uint32_t pair, const uint32_t *capacity)
{
    const struct moesim_plan *p = w->plan;
    const uint32_t expert = p->expert[pair];
    if (expert >= p->n_experts)
        return broken(w, token, pair, "there is no such expert");
    if (w->seen[expert] == token + 1)
        return broken(w, token, pair, "the token already has this expert");
    if (!isfinite(p->weight[pair]))
        return broken(w, token, pair, "its weight is not finite");
    if (p->slot[pair] < 0 || (uint32_t)p->slot[pair] >= capacity[expert])
        return broken(w, token, pair, "its slot is outside the expert's capacity");
    w->seen[expert] = token + 1;
    w->start[expert]++;
    return MOESIM_OK;
}

/* The pairs of one token. A choice that found no number, or was withdrawn, names no expert; a row whose first choice
 * found none is a bad row, and so are all its choices. */
static enum moesim_status check_token(struct walk *w, uint32_t token, const uint32_t *capacity)
{
    const struct moesim_plan *p = w->plan;
    const uint32_t begin = p->first[token], end = p->first[token + 1];
    uint32_t n_bad = 0;
    for (uint32_t i = begin; i < end; i++) {
        const bool kept = p->fate[i] == MOESIM_KEPT;
        const enum moesim_status status = kept ? check_kept(w, token, i, capacity) : check_refused(w, token, i);
        if (status != MOESIM_OK)
            return status;
        if (p->fate[begin] == MOESIM_BAD_ROW && p->fate[i] != MOESIM_BAD_ROW)
            return broken(w, token, i, "a bad row is routed somewhere");
        w->totals.n_kept += kept;
        n_bad += p->fate[i] == MOESIM_BAD_ROW;
    }
    if (n_bad < end - begin && w->batch->padding && w->batch->padding[token])
        return broken(w, token, begin, "padding is routed somewhere");
    w->totals.n_bad_rows += n_bad > 0 && n_bad == end - begin;
    return MOESIM_OK;
}

/* Turns the group's counts per expert into starts and forgets the slots taken. */
static void open_buckets(struct walk *w)
{
    uint32_t sum = 0;
    for (uint32_t e = 0; e <= w->plan->n_experts; e++) {
        const uint32_t count = e < w->plan->n_experts ? w->start[e] : 0;
        w->start[e] = sum;
        sum += count;
    }
    memset(w->taken, 0, sum * sizeof *w->taken);
}

/* Whether `slot` was taken before in the bucket of n entries. Slots below n have their own entry; a router that leaves
 * holes has slots past n, which probe for a free one. Entries hold slot + 1. */
static bool take_slot(uint32_t *bucket, uint32_t n, uint32_t slot)
{
    for (uint32_t i = slot % n;; i = i + 1 < n ? i + 1 : 0) {
        if (bucket[i] == slot + 1)
            return false;
        if (bucket[i] == 0) {
            bucket[i] = slot + 1;
            return true;
        }
    }
}

static enum moesim_status check_slots(struct walk *w, uint32_t first_token, uint32_t last_token)
{
    const struct moesim_plan *p = w->plan;
    open_buckets(w);
    for (uint32_t t = first_token; t < last_token; t++)
        for (uint32_t i = p->first[t]; i < p->first[t + 1]; i++) {
            if (p->fate[i] != MOESIM_KEPT)
                continue;
            const uint32_t begin = w->start[p->expert[i]], n = w->start[p->expert[i] + 1] - begin;
            if (!take_slot(w->taken + begin, n, (uint32_t)p->slot[i]))
                return broken(w, t, i, "another pair of the group has this slot");
        }
    return MOESIM_OK;
}

static enum moesim_status check_group(struct walk *w, uint32_t group)
{
    const struct moesim_plan *p = w->plan;
    const uint32_t first_token = w->batch->group_start[group], last_token = w->batch->group_start[group + 1];
    memset(w->start, 0, ((size_t)p->n_experts + 1) * sizeof *w->start);
    for (uint32_t t = first_token; t < last_token; t++) {
        const enum moesim_status status = check_token(w, t, p->capacity + (size_t)group * p->n_experts);
        if (status != MOESIM_OK)
            return status;
    }
    return check_slots(w, first_token, last_token);
}

static enum moesim_status check_totals(const struct walk *w)
{
    const struct moesim_plan *p = w->plan;
    if (p->n_wanted && p->n_wanted != w->totals.n_kept + w->totals.n_over_capacity)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %llu pairs wanted, but %llu kept and %llu over capacity",
                           w->router, (unsigned long long)p->n_wanted, (unsigned long long)w->totals.n_kept,
                           (unsigned long long)w->totals.n_over_capacity);
    if (p->n_bad_rows < w->totals.n_bad_rows || p->n_bad_rows > p->n_tokens)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %u bad rows counted, %u marked, of %u tokens", w->router,
                           p->n_bad_rows, w->totals.n_bad_rows, p->n_tokens);
    return MOESIM_OK;
}

/* ---- soft plans ---- */

#define SOFT_TOLERANCE 1e-4
#define SOFT_BLOCK 64 /* slots whose sums are kept at once */

static enum moesim_status soft_broken(const struct walk *w, const char *what, size_t which, const char *promise,
                                      double sum)
{
    return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %s %zu: %s, but sum to %g", w->router, what, which, promise,
                       sum);
}

static enum moesim_status check_soft_finite(const struct walk *w)
{
    const struct moesim_plan *p = w->plan;
    for (size_t i = 0, n = (size_t)p->n_tokens * p->n_slots; i < n; i++)
        if (!isfinite(p->dispatch[i]) || !isfinite(p->combine[i]))
            return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: token %zu, slot %zu: its %s weight is not finite",
                               w->router, i / p->n_slots, i % p->n_slots,
                               isfinite(p->dispatch[i]) ? "combine" : "dispatch");
    return MOESIM_OK;
}

/* Combine weights of a token sum to 1; padding and bad rows have none. Sets *any to whether the group has a token. */
static enum moesim_status check_soft_rows(struct walk *w, uint32_t first, uint32_t last, bool *any)
{
    const struct moesim_plan *p = w->plan;
    *any = false;
    for (uint32_t t = first; t < last; t++) {
        const bool padding = w->batch->padding && w->batch->padding[t];
        bool empty = true;
        double sum = 0;
        for (size_t i = (size_t)t * p->n_slots; i < (size_t)(t + 1) * p->n_slots; i++) {
            empty &= p->dispatch[i] == 0 && p->combine[i] == 0;
            sum += p->combine[i];
        }
        if (padding && !empty)
            return soft_broken(w, "token", t, "it is padding and must have no weights", sum);
        if (!empty && fabs(sum - 1) > SOFT_TOLERANCE)
            return soft_broken(w, "token", t, "its combine weights should sum to 1", sum);
        w->totals.n_bad_rows += empty && !padding;
        *any |= !empty;
    }
    return MOESIM_OK;
}

/* Dispatch weights of a slot sum to 1 over the group's tokens. */
static enum moesim_status check_soft_slots(const struct walk *w, uint32_t first, uint32_t last)
{
    const struct moesim_plan *p = w->plan;
    for (uint32_t begin = 0; begin < p->n_slots; begin += SOFT_BLOCK) {
        const uint32_t n = p->n_slots - begin < SOFT_BLOCK ? p->n_slots - begin : SOFT_BLOCK;
        double sum[SOFT_BLOCK] = {0};
        for (uint32_t t = first; t < last; t++)
            for (uint32_t s = 0; s < n; s++)
                sum[s] += p->dispatch[(size_t)t * p->n_slots + begin + s];
        for (uint32_t s = 0; s < n; s++)
            if (fabs(sum[s] - 1) > SOFT_TOLERANCE)
                return soft_broken(w, "slot", begin + s, "its dispatch weights should sum to 1 over a group", sum[s]);
    }
    return MOESIM_OK;
}

static enum moesim_status check_soft(struct walk *w)
{
    const struct moesim_plan *p = w->plan;
    w->totals.n_bad_rows = 0;
    enum moesim_status status = p->n_slots ? check_soft_finite(w) : MOESIM_OK;
    for (uint32_t g = 0; p->n_slots && status == MOESIM_OK && g < p->n_groups; g++) {
        const uint32_t first = w->batch->group_start[g], last = w->batch->group_start[g + 1];
        bool any;
        status = check_soft_rows(w, first, last, &any);
        if (status == MOESIM_OK && any)
            status = check_soft_slots(w, first, last);
    }
    if (status == MOESIM_OK && p->n_slots && w->totals.n_bad_rows > p->n_bad_rows)
        return moesim_fail(w->err, MOESIM_EBROKEN, "router %s: %u tokens have no weights, but %u bad rows are counted",
                           w->router, w->totals.n_bad_rows, p->n_bad_rows);
    return status;
}

static enum moesim_status walk_pairs(struct walk *w)
{
    enum moesim_status status = check_offsets(w);
    w->totals = (struct plan_totals){0};
    memset(w->seen, 0, w->plan->n_experts * sizeof *w->seen);
    for (uint32_t g = 0; g < w->plan->n_groups && status == MOESIM_OK; g++)
        status = check_group(w, g);
    return status;
}

enum moesim_status plan_check(const struct moesim_plan *plan, const struct moesim_batch *batch, const char *router,
                              void *scratch, struct plan_counts *counts, struct moesim_error *err)
{
    uint32_t *words = scratch;
    struct walk w = {.plan = plan, .batch = batch, .router = router, .err = err};
    w.seen = words;
    w.start = w.seen + plan->n_experts;
    w.taken = w.start + plan->n_experts + 1;
    const size_t n_words = moesim_plan_check_scratch(plan->n_experts, plan->max_pairs) / sizeof *words;

    enum moesim_status status = check_sizes(&w);
    if (status == MOESIM_OK && !plan_screen(plan, batch, words, n_words, &w.totals, counts))
        status = walk_pairs(&w);
    if (status == MOESIM_OK)
        status = check_totals(&w);
    return status == MOESIM_OK ? check_soft(&w) : status;
}

enum moesim_status moesim_plan_check(const struct moesim_plan *plan, const struct moesim_batch *batch,
                                     const char *router, void *scratch, struct moesim_error *err)
{
    return plan_check(plan, batch, router, scratch, NULL, err);
}
