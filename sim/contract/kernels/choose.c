/* SPDX-License-Identifier: MIT
 *
 * Loops over tokens for routers whose choices are their own: a router says what one token chooses, runs of tokens are
 * worked out in parallel and put into the plan in token order. The plan is the same on any number of threads.
 */
#include <assert.h>
#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/score_sums.h"

#define RUN_TOKENS CHUNK_TOKENS
#define RUN_PAIRS (1u << 18) /* room for the choices of one run */

/* One run's choices before they have their place in the plan. */
struct run {
    uint32_t first, last;          /* tokens */
    struct moesim_choices choices; /* [run_tokens * most] */
    uint32_t *n;                   /* [run_tokens] choices of each token */
    int32_t *slot;                 /* [run_tokens * most] among the run's own kept choices of the expert */
    uint32_t *count;               /* [n_experts] the run's kept choices, then those of the group before it */
    uint64_t place, n_pairs, n_wanted;
    uint32_t n_bad_rows, group;
    bool one_group; /* the run lies in `group`; else its slots are given while it is appended */
};

struct moesim_chooser {
    uint32_t most, run_tokens, n_threads, n_experts;
    struct run *run; /* [n_threads] */
    uint32_t *taken; /* [n_experts] of the group */
    uint32_t group;  /* that was seated last */
};

uint32_t moesim_threads(void)
{
    return (uint32_t)omp_get_max_threads();
}

static int threads_for(uint32_t n_tokens, uint32_t n_threads)
{
    const int most = omp_get_max_threads();
    return n_tokens < ROWS_PARALLEL ? 1 : most < (int)n_threads ? most : (int)n_threads;
}

void moesim_for_tokens(uint32_t n_tokens, uint32_t n_threads, moesim_tokens_body *body, void *context)
{
    const uint32_t n_runs = n_tokens / RUN_TOKENS + (n_tokens % RUN_TOKENS > 0);
#pragma omp parallel for schedule(static, 1) num_threads(threads_for(n_tokens, n_threads))
    for (uint32_t i = 0; i < n_runs; i++) {
        const uint32_t first = i * RUN_TOKENS, rest = n_tokens - first;
        body(context, first, first + (rest < RUN_TOKENS ? rest : RUN_TOKENS), (uint32_t)omp_get_thread_num());
    }
}

enum moesim_status moesim_chooser_init(const struct moesim_env *env, uint32_t n_experts, uint32_t most,
                                       struct moesim_chooser **chooser, struct moesim_error *err)
{
    struct moesim_arena *arena = env->arena;
    struct moesim_chooser *c = moesim_alloc(arena, 1, sizeof *c);
    uint32_t run_tokens = RUN_TOKENS;
    bool ok = c != NULL;
    while (run_tokens > 1 && (uint64_t)run_tokens * most > RUN_PAIRS)
        run_tokens /= 2;
    if (ok) {
        *c = (struct moesim_chooser){
            .most = most, .run_tokens = run_tokens, .n_threads = moesim_threads(), .n_experts = n_experts};
        c->run = moesim_alloc(arena, c->n_threads, sizeof *c->run);
        c->taken = moesim_alloc(arena, n_experts, sizeof *c->taken);
        ok = c->run && c->taken;
    }
    for (uint32_t i = 0; ok && i < c->n_threads; i++) {
        const size_t n = (size_t)run_tokens * most;
        struct run *run = &c->run[i];
        run->choices.expert = moesim_alloc(arena, n, sizeof *run->choices.expert);
        run->choices.weight = moesim_alloc(arena, n, sizeof *run->choices.weight);
        run->choices.fate = moesim_alloc(arena, n, sizeof *run->choices.fate);
        run->n = moesim_alloc(arena, run_tokens, sizeof *run->n);
        run->slot = moesim_alloc(arena, n, sizeof *run->slot);
        run->count = moesim_alloc(arena, n_experts, sizeof *run->count);
        ok = run->choices.expert && run->choices.weight && run->choices.fate && run->n && run->slot && run->count;
    }
    *chooser = c;
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for the choices of %u tokens", run_tokens);
}

uint32_t moesim_chooser_run(const struct moesim_chooser *chooser)
{
    return chooser->run_tokens;
}

/* The choices of the run's tokens side by side. */
static void choose_run(const struct moesim_chooser *c, const struct moesim_batch *batch, moesim_choose_body *choose,
                       const void *context, struct run *run)
{
    const uint32_t thread = (uint32_t)omp_get_thread_num();
    size_t n = 0;
    run->n_bad_rows = 0;
    for (uint32_t t = run->first; t < run->last; t++) {
        uint32_t *count = &run->n[t - run->first];
        *count = 0;
        if (batch->padding && batch->padding[t])
            continue;
        struct moesim_choices out = {run->choices.expert + n, run->choices.weight + n, run->choices.fate + n};
        memset(out.fate, MOESIM_KEPT, c->most);
        *count = choose(context, t, thread, &out);
        assert(*count <= c->most || *count == MOESIM_NO_CHOICE);
        run->n_bad_rows += *count == MOESIM_NO_CHOICE;
        *count = *count == MOESIM_NO_CHOICE ? 0 : *count;
        n += *count;
    }
    run->n_pairs = n;
}

/* Each kept choice's place among those of its expert in the run. */
static void count_run(const struct moesim_chooser *c, struct run *run)
{
    memset(run->count, 0, c->n_experts * sizeof *run->count);
    run->n_wanted = 0;
    for (size_t i = 0; i < run->n_pairs; i++) {
        const uint32_t e = run->choices.expert[i];
        run->n_wanted += e != MOESIM_NO_EXPERT;
        run->slot[i] = e != MOESIM_NO_EXPERT && run->choices.fate[i] == MOESIM_KEPT ? (int32_t)run->count[e]++ : -1;
    }
}

/* Reserves the run's place in the plan and, within one group, its slots. Runs come here in order. */
static void reserve(struct moesim_chooser *c, struct run *run, struct moesim_plan *plan)
{
    run->place = plan->n_pairs;
    plan->n_pairs += run->n_pairs;
    plan->n_bad_rows += run->n_bad_rows;
    assert(plan->n_pairs <= plan->max_pairs);
    if (!run->one_group)
        return;
    plan->n_wanted += run->n_wanted;
    if (run->group != c->group)
        memset(c->taken, 0, c->n_experts * sizeof *c->taken);
    c->group = run->group;
    for (uint32_t e = 0; e < c->n_experts; e++) {
        const uint32_t n = run->count[e];
        run->count[e] = c->taken[e];
        c->taken[e] += n;
    }
}

static void append_run(const struct run *run, struct moesim_plan *plan)
{
    const size_t n = run->n_pairs;
    uint64_t at = run->place;
    for (uint32_t t = run->first; t < run->last; t++) {
        plan->first[t] = (uint32_t)at;
        at += run->n[t - run->first];
    }
    memcpy(plan->expert + run->place, run->choices.expert, n * sizeof *plan->expert);
    memcpy(plan->weight + run->place, run->choices.weight, n * sizeof *plan->weight);
    memcpy(plan->fate + run->place, run->choices.fate, n * sizeof *plan->fate);
}

static void refuse(struct moesim_plan *plan, uint64_t pair)
{
    plan->fate[pair] = plan->expert[pair] == MOESIM_NO_EXPERT ? MOESIM_BAD_ROW : MOESIM_OVER_CAPACITY;
    plan->slot[pair] = -1;
    plan->weight[pair] = 0;
}

/* Slots of a run that lies in one group: after those of the group's runs before it. */
static void seat_run(const struct run *run, struct moesim_plan *plan)
{
    const uint32_t *capacity = plan->capacity + (size_t)run->group * plan->n_experts;
    for (size_t i = 0; i < run->n_pairs; i++) {
        const uint64_t pair = run->place + i;
        const uint32_t e = plan->expert[pair];
        const uint32_t slot = run->slot[i] >= 0 ? run->count[e] + (uint32_t)run->slot[i] : UINT32_MAX;
        if (run->slot[i] >= 0 && slot < capacity[e])
            plan->slot[pair] = (int32_t)slot;
        else
            refuse(plan, pair);
    }
}

/* The same for pairs [first, last) of one group with `taken` slots; returns how many ask for an expert. */
static uint64_t seat_pairs(uint64_t first, uint64_t last, const uint32_t *capacity, uint32_t *taken,
                           struct moesim_plan *plan)
{
    uint64_t n_wanted = 0;
    for (uint64_t i = first; i < last; i++) {
        const uint32_t e = plan->expert[i];
        n_wanted += e != MOESIM_NO_EXPERT;
        if (e != MOESIM_NO_EXPERT && plan->fate[i] == MOESIM_KEPT && taken[e] < capacity[e])
            plan->slot[i] = (int32_t)taken[e]++;
        else
            refuse(plan, i);
    }
    return n_wanted;
}

/* Slots of a run that touches several groups, one after the other. */
static void seat_groups(struct moesim_chooser *c, const struct moesim_batch *batch, const struct run *run,
                        struct moesim_plan *plan)
{
    uint64_t first = run->place;
    for (uint32_t g = run->group; g < batch->n_groups && batch->group_start[g] < run->last; g++) {
        const uint32_t end = batch->group_start[g + 1];
        const uint64_t last = end < run->last ? plan->first[end] : run->place + run->n_pairs;
        if (g != c->group)
            memset(c->taken, 0, c->n_experts * sizeof *c->taken);
        c->group = g;
        plan->n_wanted += seat_pairs(first, last, plan->capacity + (size_t)g * plan->n_experts, c->taken, plan);
        first = last;
    }
}

void moesim_choose(struct moesim_chooser *c, const struct moesim_batch *batch, moesim_choose_body *choose,
                   const void *context, struct moesim_plan *plan)
{
    const uint32_t n = batch->n_tokens, n_runs = n / c->run_tokens + (n % c->run_tokens > 0);
    plan->n_pairs = plan->n_wanted = 0;
    plan->n_bad_rows = 0;
    c->group = UINT32_MAX;
#pragma omp parallel for ordered schedule(static, 1) num_threads(threads_for(n, c->n_threads))
    for (uint32_t i = 0; i < n_runs; i++) {
        struct run *run = &c->run[omp_get_thread_num()];
        run->first = i * c->run_tokens;
        run->last = n - run->first < c->run_tokens ? n : run->first + c->run_tokens;
        run->group = batch_group_of(batch, run->first);
        run->one_group = batch->group_start[run->group + 1] >= run->last;
        choose_run(c, batch, choose, context, run);
        if (run->one_group)
            count_run(c, run);
#pragma omp ordered
        {
            reserve(c, run, plan);
            if (!run->one_group) {
                append_run(run, plan);
                seat_groups(c, batch, run, plan);
            }
        }
        if (run->one_group) {
            append_run(run, plan);
            seat_run(run, plan);
        }
    }
    plan->first[n] = (uint32_t)plan->n_pairs;
}

void moesim_plan_unlimited(struct moesim_plan *plan)
{
    const size_t n = (size_t)plan->n_groups * plan->n_experts;
    memset(plan->capacity, 0xff, n * sizeof *plan->capacity); /* MOESIM_UNLIMITED */
}

void moesim_seat(const struct moesim_batch *batch, uint32_t *taken, struct moesim_plan *plan)
{
    plan->n_wanted = 0;
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        memset(taken, 0, plan->n_experts * sizeof *taken);
        plan->n_wanted += seat_pairs(plan->first[batch->group_start[g]], plan->first[batch->group_start[g + 1]],
                                     plan->capacity + (size_t)g * plan->n_experts, taken, plan);
    }
}

/* ---- the best first ---- */

static void sift_down(uint64_t *key, uint32_t hole, uint32_t n, uint64_t item)
{
    for (uint32_t child = 2 * hole + 1; child < n; child = 2 * hole + 1) {
        child += child + 1 < n && key[child + 1] > key[child];
        if (key[child] <= item)
            break;
        key[hole] = key[child];
        hole = child;
    }
    key[hole] = item;
}

void moesim_keys_heap(uint64_t *key, uint32_t n)
{
    for (uint32_t i = n / 2; i-- > 0;)
        sift_down(key, i, n, key[i]);
}

uint64_t moesim_keys_pop(uint64_t *key, uint32_t n)
{
    const uint64_t best = key[0];
    if (n > 1)
        sift_down(key, 0, n - 1, key[n - 1]);
    return best;
}
