/* SPDX-License-Identifier: MIT
 *
 * One pass over the tokens of a plan for all that the metrics count: pairs by expert, tokens that are served, experts
 * shared with the tokens 1 and 64 before, and how sure the logits are. Runs of tokens are gone through side by side.
 * Counts are whole numbers, and so are shares of tokens with equally many experts: their order does not matter. What is
 * added up in double is added run by run.
 */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/contract/confidence.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/overlap.h"
#include "sim/contract/plan_check.h"

/* What one thread has counted. */
struct part {
    uint32_t *count[2]; /* [n_experts] pairs, two sums */
    uint64_t *refused;  /* [n_experts] of them */
    bool any_refused;
    uint64_t n_kept;
    uint32_t n_tokens, n_served;
    struct overlap overlap[OVERLAP_LAGS];
    struct overlap_history *history; /* [n_experts] by time */
    uint64_t next;                   /* time of the token after those in the history */
};

/* Shares of tokens with more experts than are counted by number. */
struct wide {
    double share[OVERLAP_LAGS];
};

struct moesim_survey {
    uint32_t max_tokens, n_experts, n_threads;
    struct part *part;                        /* [n_threads] */
    struct moesim_confidence_run *confidence; /* [runs of max_tokens] */
    struct wide *wide;                        /* the same */
    uint64_t *assigned, *kept;                /* [n_experts] */
    uint64_t start;                           /* time of the plan's first token: later than all of those before */
};

static uint32_t runs_of(uint32_t n_tokens)
{
    return n_tokens / MOESIM_RUN_TOKENS + (n_tokens % MOESIM_RUN_TOKENS > 0);
}

uint64_t moesim_survey_bytes(uint32_t max_tokens, uint32_t n_experts)
{
    const uint64_t of_thread = 2 * sizeof(uint32_t) + sizeof(uint64_t) + sizeof(struct overlap_history);
    return runs_of(max_tokens) * (sizeof(struct moesim_confidence_run) + sizeof(struct wide)) +
           (uint64_t)n_experts * ((uint64_t)omp_get_max_threads() * of_thread + 2 * sizeof(uint64_t));
}

static bool part_init(struct part *part, uint32_t n_experts, struct moesim_arena *arena)
{
    part->count[0] = moesim_alloc(arena, n_experts, sizeof(uint32_t));
    part->count[1] = moesim_alloc(arena, n_experts, sizeof(uint32_t));
    part->refused = moesim_alloc(arena, n_experts, sizeof *part->refused);
    part->history = moesim_alloc(arena, n_experts, sizeof *part->history);
    return part->count[0] && part->count[1] && part->refused && part->history;
}

enum moesim_status moesim_survey_init(uint32_t max_tokens, uint32_t n_experts, struct moesim_arena *arena,
                                      struct moesim_survey **survey, struct moesim_error *err)
{
    struct moesim_survey *s = moesim_alloc(arena, 1, sizeof *s);
    bool ok = s != NULL;
    if (ok) {
        *s = (struct moesim_survey){.max_tokens = max_tokens, .n_experts = n_experts, .start = OVERLAP_FAR + 1};
        s->n_threads = (uint32_t)omp_get_max_threads();
        s->part = moesim_alloc(arena, s->n_threads, sizeof *s->part);
        s->confidence = moesim_alloc(arena, runs_of(max_tokens), sizeof *s->confidence);
        s->wide = moesim_alloc(arena, runs_of(max_tokens), sizeof *s->wide);
        s->assigned = moesim_alloc(arena, n_experts, sizeof *s->assigned);
        s->kept = moesim_alloc(arena, n_experts, sizeof *s->kept);
        ok = s->part && s->confidence && s->wide && s->assigned && s->kept;
    }
    for (uint32_t i = 0; ok && i < s->n_threads; i++)
        ok = part_init(&s->part[i], n_experts, arena);
    *survey = s;
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory to count the pairs of %u experts", n_experts);
}

struct moesim_confidence_run *moesim_survey_confidence(struct moesim_survey *survey)
{
    return survey->confidence;
}

/* ---- one run ---- */

struct pass {
    struct moesim_survey *survey;
    const struct moesim_plan *plan;
    const struct moesim_batch *batch;
    uint32_t wants;
    const struct plan_counts *counts; /* of validation, where it counted */
};

/* How many experts each of tokens [first, last) has where all have as many and all are kept; else 0. */
static uint32_t even_choices(const struct moesim_plan *plan, uint32_t first, uint32_t last)
{
    const uint32_t begin = plan->first[first], end = plan->first[last], k = plan->first[first + 1] - begin;
    uint32_t odd = 0;
    if (k == 0 || end - begin != k * (last - first))
        return 0;
    for (uint32_t t = first; t < last; t++)
        odd |= plan->first[t + 1] - plan->first[t] - k;
    return !odd && moesim_plan_all_kept(plan, first, last) ? k : 0;
}

static void count_even(const struct pass *pass, struct part *part, uint32_t first, uint32_t last)
{
    const struct moesim_plan *plan = pass->plan;
    const uint32_t begin = plan->first[first], end = plan->first[last];
    uint32_t *even = part->count[0], *odd = part->count[1], i = begin;
    for (; i + 2 <= end; i += 2) {
        even[plan->expert[i]]++;
        odd[plan->expert[i + 1]]++;
    }
    if (i < end)
        even[plan->expert[i]]++;
    part->n_kept += end - begin;
    part->n_served += last - first;
}

/* Any plan. */
static void count(const struct pass *pass, struct part *part, uint32_t first, uint32_t last)
{
    const struct moesim_plan *plan = pass->plan;
    for (uint32_t t = first; t < last; t++) {
        uint32_t n_kept = 0;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const bool kept = plan->fate[i] == MOESIM_KEPT;
            n_kept += kept;
            if (plan->expert[i] == MOESIM_NO_EXPERT)
                continue;
            part->count[0][plan->expert[i]]++;
            part->refused[plan->expert[i]] += !kept;
        }
        part->any_refused |= n_kept < plan->first[t + 1] - plan->first[t];
        part->n_kept += n_kept;
        part->n_served += n_kept > 0;
    }
}

static void overlap_of_run(const struct pass *pass, struct part *part, uint32_t first, uint32_t last, uint32_t k,
                           struct wide *wide)
{
    const uint32_t *sequence_id = pass->batch->sequence_id;
    const uint64_t start = pass->survey->start;
    if (k > 0 && k <= OVERLAP_COUNTED) {
        for (int i = 0; i < OVERLAP_LAGS; i++)
            if (overlap_wanted(pass->wants, i))
                overlap_add_even(&part->overlap[i], pass->plan, sequence_id, i, first, last, k, NULL);
        return;
    }
    overlap_add(part->overlap, pass->plan, sequence_id, first, last, part->history, start + first,
                part->next != start + first, wide->share);
    part->next = start + last;
}

static void count_run(const struct pass *pass, struct part *part, uint32_t run, uint32_t first, uint32_t last)
{
    const bool any_lag = overlap_wanted(pass->wants, 0) || overlap_wanted(pass->wants, 1);
    const uint32_t back = any_lag && first >= OVERLAP_FAR ? OVERLAP_FAR : 0;
    const uint32_t k = even_choices(pass->plan, first - back, last);
    const uint8_t *padding = pass->batch->padding;
    struct wide *wide = &pass->survey->wide[run];
    *wide = (struct wide){0};
    if (k)
        count_even(pass, part, first, last);
    else
        count(pass, part, first, last);
    if (any_lag)
        overlap_of_run(pass, part, first, last, k, wide);
    part->n_tokens += last - first;
    for (uint32_t t = first; padding && t < last; t++)
        part->n_tokens -= padding[t] != 0;
}

static bool wants_own_confidence(const struct pass *pass)
{
    return pass->wants & MOESIM_SURVEY_CONFIDENCE && !pass->plan->has_confidence;
}

static void pass_run(const struct pass *pass, struct part *part, uint32_t run)
{
    const struct moesim_batch *batch = pass->batch;
    const uint32_t first = run * MOESIM_RUN_TOKENS, rest = pass->plan->n_tokens - first;
    const uint32_t last = rest < MOESIM_RUN_TOKENS ? pass->plan->n_tokens : first + MOESIM_RUN_TOKENS;
    if (!pass->counts)
        count_run(pass, part, run, first, last);
    if (wants_own_confidence(pass))
        confidence_of_run(batch->columns, batch->stride, batch->n_experts, batch->padding, first, last,
                          &pass->survey->confidence[run]);
}

/* ---- all runs ---- */

static void clear(struct part *part, uint32_t n_experts)
{
    memset(part->count[0], 0, n_experts * sizeof(uint32_t));
    memset(part->count[1], 0, n_experts * sizeof(uint32_t));
    if (part->any_refused)
        memset(part->refused, 0, n_experts * sizeof *part->refused);
    *part = (struct part){.count = {part->count[0], part->count[1]},
                          .refused = part->refused,
                          .history = part->history,
                          .next = part->next};
}

/* Goes through all runs; returns how many threads' parts that are. */
static int pass_runs(const struct pass *pass, uint32_t n_runs)
{
    struct moesim_survey *s = pass->survey;
    const int most = omp_get_max_threads(), own = (int)s->n_threads;
    const int n_threads = pass->plan->n_tokens < 2 * ROWS_PARALLEL ? 1 : most < own ? most : own;
    int n_parts = 1;
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
    {
        struct part *part = &s->part[omp_get_thread_num()];
        clear(part, s->n_experts);
#pragma omp single nowait
        n_parts = omp_get_num_threads();
#pragma omp for schedule(static)
        for (uint32_t run = 0; run < n_runs; run++)
            pass_run(pass, part, run);
    }
    return n_parts;
}

static void add_part(struct moesim_survey *s, const struct part *part, struct moesim_survey_result *r,
                     struct overlap sum[OVERLAP_LAGS])
{
    for (uint32_t e = 0; e < s->n_experts; e++) {
        const uint64_t named = (uint64_t)part->count[0][e] + part->count[1][e];
        s->assigned[e] += named;
        s->kept[e] += named - part->refused[e];
    }
    r->n_kept += part->n_kept;
    r->n_tokens += part->n_tokens;
    r->n_served += part->n_served;
    for (int i = 0; i < OVERLAP_LAGS; i++)
        overlap_merge(&sum[i], &part->overlap[i]);
}

static double mean_overlap(const struct pass *pass, const struct overlap *overlap, int lag, uint32_t n_runs)
{
    double share = 0;
    for (uint32_t i = 0; !pass->counts && i < n_runs; i++)
        share += pass->survey->wide[i].share[lag];
    return overlap_wanted(pass->wants, lag) ? overlap_mean(overlap, share) : (double)NAN;
}

/* What validation has counted: every token has as many pairs, and all are kept. */
static void take_counts(struct moesim_survey *s, const struct moesim_plan *plan, struct moesim_survey_result *r)
{
    memcpy(s->assigned, s->kept, s->n_experts * sizeof *s->assigned);
    r->n_kept = plan->n_pairs;
    r->n_tokens = r->n_served = plan->n_tokens;
}

static void survey_plan(struct pass *pass, struct moesim_survey_result *result)
{
    struct moesim_survey *s = pass->survey;
    const struct moesim_plan *plan = pass->plan;
    const uint32_t n_runs = runs_of(plan->n_tokens);
    if (!pass->batch->columns || pass->batch->n_columns < pass->batch->n_experts)
        pass->wants &= ~(uint32_t)MOESIM_SURVEY_CONFIDENCE;
    const int n_parts = pass->counts && !wants_own_confidence(pass) ? 0 : pass_runs(pass, n_runs);
    *result = (struct moesim_survey_result){.assigned = s->assigned, .kept = s->kept};
    struct overlap own[OVERLAP_LAGS] = {0};
    const struct overlap *overlap = pass->counts ? pass->counts->overlap : own;
    if (pass->counts) {
        take_counts(s, plan, result);
    } else {
        memset(s->assigned, 0, s->n_experts * sizeof *s->assigned);
        memset(s->kept, 0, s->n_experts * sizeof *s->kept);
        for (int i = 0; i < n_parts; i++)
            add_part(s, &s->part[i], result, own);
    }
    result->lag1_overlap = mean_overlap(pass, &overlap[0], 0, n_runs);
    result->lag64_overlap = mean_overlap(pass, &overlap[1], 1, n_runs);
    result->confidence = (struct moesim_confidence){(double)NAN, (double)NAN};
    if (pass->wants & MOESIM_SURVEY_CONFIDENCE)
        result->confidence = confidence_of_runs(plan->has_confidence ? plan->confidence : s->confidence, n_runs);
    s->start += plan->n_tokens + OVERLAP_FAR + 1;
}

void moesim_survey_pass(struct moesim_survey *s, const struct moesim_plan *plan, const struct moesim_batch *batch,
                        uint32_t wants, struct moesim_survey_result *result)
{
    struct pass pass = {s, plan, batch, wants, NULL};
    survey_plan(&pass, result);
}

enum moesim_status moesim_survey_check(struct moesim_survey *s, const struct moesim_plan *plan,
                                       const struct moesim_batch *batch, uint32_t wants, const char *router,
                                       void *scratch, struct moesim_survey_result *result, struct moesim_error *err)
{
    struct plan_counts counts = {.wants = wants, .kept = s->kept};
    struct pass pass = {s, plan, batch, wants, NULL};
    const enum moesim_status status = plan_check(plan, batch, router, scratch, &counts, err);
    if (status != MOESIM_OK)
        return status;
    pass.counts = counts.k > 0 ? &counts : NULL;
    survey_plan(&pass, result);
    return MOESIM_OK;
}
