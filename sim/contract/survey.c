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

#define FAR 64     /* the longer lag */
#define COUNTED 64 /* up to so many experts of a token, shares are counted by their number */

static const uint32_t lags[2] = {1, FAR};

/* When an expert was named: bit i of `before` = by the token i before the last one that did. */
struct history {
    uint64_t last, before;
};

/* Experts shared with the tokens `lag` before. */
struct overlap {
    uint64_t n;                   /* tokens that have experts and such a token before them */
    uint64_t shared[COUNTED + 1]; /* by how many experts the token has */
};

/* What one thread has counted. */
struct part {
    uint32_t *count[2]; /* [n_experts] pairs, two sums */
    uint64_t *refused;  /* [n_experts] of them */
    bool any_refused;
    uint64_t n_kept;
    uint32_t n_tokens, n_served;
    struct overlap overlap[2];
    struct history *history; /* [n_experts] by time */
    uint64_t next;           /* time of the token after those in the history */
};

/* Shares of tokens with more experts than are counted by number. */
struct wide {
    double share[2];
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
    const uint64_t of_thread = 2 * sizeof(uint32_t) + sizeof(uint64_t) + sizeof(struct history);
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
        *s = (struct moesim_survey){.max_tokens = max_tokens, .n_experts = n_experts, .start = FAR + 1};
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
};

static bool wants_lag(const struct pass *pass, int i)
{
    return pass->wants & (i ? MOESIM_SURVEY_LAG64 : MOESIM_SURVEY_LAG1);
}

/* How many experts each of tokens [first, last) has where all have as many and all are kept; else 0. */
static uint32_t even_choices(const struct moesim_plan *plan, uint32_t first, uint32_t last)
{
    const uint32_t begin = plan->first[first], end = plan->first[last], k = plan->first[first + 1] - begin;
    uint32_t odd = 0;
    uint8_t fate = 0;
    if (k == 0 || end - begin != k * (last - first))
        return 0;
    for (uint32_t t = first; t < last; t++)
        odd |= plan->first[t + 1] - plan->first[t] - k;
    if (odd)
        return 0;
    for (uint32_t i = begin; i < end; i++)
        fate |= plan->fate[i];
    return fate == MOESIM_KEPT ? k : 0;
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

static bool same_sequence(const uint32_t *sequence, uint32_t t, uint32_t lag)
{
    return t >= lag && (!sequence || sequence[t] == sequence[t - lag]);
}

/* Whether all of tokens [first, last), first >= lag, are of the same sequence as those `lag` before them. */
static bool all_same_sequence(const uint32_t *sequence, uint32_t first, uint32_t last, uint32_t lag)
{
    uint32_t differ = 0;
    for (uint32_t t = first; sequence && t < last; t++)
        differ |= sequence[t] ^ sequence[t - lag];
    return differ == 0;
}

/* Tokens [first, last), which have k experts each, as have those before them. */
static void share_even(const struct pass *pass, struct overlap *overlap, uint32_t lag, uint32_t first, uint32_t last,
                       uint32_t k)
{
    const struct moesim_plan *plan = pass->plan;
    const uint32_t *sequence = pass->batch->sequence_id;
    uint32_t t = first < lag ? lag : first;
    const bool all = t < last && all_same_sequence(sequence, t, last, lag);
    for (; t < last; t++) {
        const uint32_t begin = t;
        while (t < last && (all || same_sequence(sequence, t, lag)))
            t = all ? last : t + 1;
        if (t == begin)
            continue;
        overlap->n += t - begin;
        overlap->shared[k] += moesim_rows()->shared(plan->expert + plan->first[begin], t - begin, k, lag);
    }
}

/* Names the experts of tokens [first, last) in the history, without counting. */
static void remember(const struct pass *pass, struct part *part, uint32_t first, uint32_t last)
{
    const struct moesim_plan *plan = pass->plan;
    for (uint32_t t = first; t < last; t++) {
        const uint64_t now = pass->survey->start + t;
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            if (plan->expert[i] == MOESIM_NO_EXPERT)
                continue;
            struct history *h = &part->history[plan->expert[i]];
            const uint64_t ago = now - h->last;
            h->before = ago == 0 ? h->before : ago > FAR ? 1 : h->before << (ago - 1) << 1 | 1;
            h->last = now;
        }
    }
}

/* What a token's experts, n of them, share with the tokens before. */
struct shares {
    uint32_t n, with[2];
};

static struct shares shares_of(const struct moesim_plan *plan, struct history *history, uint64_t now, uint32_t t)
{
    struct shares of = {0};
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        if (plan->expert[i] == MOESIM_NO_EXPERT)
            continue;
        struct history *h = &history[plan->expert[i]];
        const uint64_t ago = now - h->last;
        if (ago == 0) /* named twice */
            continue;
        const uint64_t before = ago > FAR ? 0 : h->before << (ago - 1);
        of.n++;
        of.with[0] += before & 1;
        of.with[1] += (uint32_t)(before >> (FAR - 1));
        h->before = before << 1 | 1;
        h->last = now;
    }
    return of;
}

static void share(const struct pass *pass, struct part *part, uint32_t first, uint32_t last, struct wide *wide)
{
    const uint64_t start = pass->survey->start;
    if (part->next != start + first)
        remember(pass, part, first < FAR ? 0 : first - FAR, first);
    part->next = start + last;
    for (uint32_t t = first; t < last; t++) {
        const struct shares of = shares_of(pass->plan, part->history, start + t, t);
        for (int i = 0; of.n > 0 && i < 2; i++) {
            if (!same_sequence(pass->batch->sequence_id, t, lags[i]))
                continue;
            part->overlap[i].n++;
            if (of.n <= COUNTED)
                part->overlap[i].shared[of.n] += of.with[i];
            else
                wide->share[i] += (double)of.with[i] / of.n;
        }
    }
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

static void pass_run(const struct pass *pass, struct part *part, uint32_t run)
{
    const struct moesim_batch *batch = pass->batch;
    const struct moesim_plan *plan = pass->plan;
    struct moesim_survey *s = pass->survey;
    const uint32_t first = run * MOESIM_RUN_TOKENS, rest = plan->n_tokens - first;
    const uint32_t last = rest < MOESIM_RUN_TOKENS ? plan->n_tokens : first + MOESIM_RUN_TOKENS;
    const bool any_lag = wants_lag(pass, 0) || wants_lag(pass, 1);
    const uint32_t k = even_choices(plan, any_lag && first >= FAR ? first - FAR : first, last);
    s->wide[run] = (struct wide){0};
    if (k)
        count_even(pass, part, first, last);
    else
        count(pass, part, first, last);
    if (k > 0 && k <= COUNTED)
        for (int i = 0; i < 2; i++)
            if (wants_lag(pass, i))
                share_even(pass, &part->overlap[i], lags[i], first, last, k);
    if (any_lag && (k == 0 || k > COUNTED))
        share(pass, part, first, last, &s->wide[run]);
    part->n_tokens += last - first;
    for (uint32_t t = first; batch->padding && t < last; t++)
        part->n_tokens -= batch->padding[t] != 0;
    if (pass->wants & MOESIM_SURVEY_CONFIDENCE && !plan->has_confidence)
        confidence_of_run(batch->columns, batch->stride, batch->n_experts, batch->padding, first, last,
                          &s->confidence[run]);
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

static void add_part(struct moesim_survey *s, const struct part *part, struct moesim_survey_result *r,
                     struct overlap sum[2])
{
    for (uint32_t e = 0; e < s->n_experts; e++) {
        const uint64_t named = (uint64_t)part->count[0][e] + part->count[1][e];
        s->assigned[e] += named;
        s->kept[e] += named - part->refused[e];
    }
    r->n_kept += part->n_kept;
    r->n_tokens += part->n_tokens;
    r->n_served += part->n_served;
    for (int i = 0; i < 2; i++) {
        sum[i].n += part->overlap[i].n;
        for (uint32_t n = 0; n <= COUNTED; n++)
            sum[i].shared[n] += part->overlap[i].shared[n];
    }
}

static double mean_share(const struct moesim_survey *s, const struct overlap *overlap, int lag, uint32_t n_runs)
{
    double sum = 0, wide = 0;
    for (uint32_t n = 1; n <= COUNTED; n++)
        sum += (double)overlap->shared[n] / n;
    for (uint32_t i = 0; i < n_runs; i++)
        wide += s->wide[i].share[lag];
    return overlap->n ? (sum + wide) / (double)overlap->n : (double)NAN;
}

void moesim_survey_pass(struct moesim_survey *s, const struct moesim_plan *plan, const struct moesim_batch *batch,
                        uint32_t wants, struct moesim_survey_result *result)
{
    const uint32_t n_runs = runs_of(plan->n_tokens);
    const int most = omp_get_max_threads(), own = (int)s->n_threads;
    const int n_threads = plan->n_tokens < 2 * ROWS_PARALLEL ? 1 : most < own ? most : own;
    if (!batch->columns || batch->n_columns < batch->n_experts)
        wants &= ~(uint32_t)MOESIM_SURVEY_CONFIDENCE;
    const struct pass pass = {s, plan, batch, wants};
    int n_parts = 1;
#pragma omp parallel num_threads(n_threads) if (n_threads > 1)
    {
        struct part *part = &s->part[omp_get_thread_num()];
        clear(part, s->n_experts);
#pragma omp single nowait
        n_parts = omp_get_num_threads();
#pragma omp for schedule(static)
        for (uint32_t run = 0; run < n_runs; run++)
            pass_run(&pass, part, run);
    }
    *result = (struct moesim_survey_result){.assigned = s->assigned, .kept = s->kept};
    struct overlap overlap[2] = {0};
    memset(s->assigned, 0, s->n_experts * sizeof *s->assigned);
    memset(s->kept, 0, s->n_experts * sizeof *s->kept);
    for (int i = 0; i < n_parts; i++)
        add_part(s, &s->part[i], result, overlap);
    result->lag1_overlap = wants & MOESIM_SURVEY_LAG1 ? mean_share(s, &overlap[0], 0, n_runs) : (double)NAN;
    result->lag64_overlap = wants & MOESIM_SURVEY_LAG64 ? mean_share(s, &overlap[1], 1, n_runs) : (double)NAN;
    result->confidence = (struct moesim_confidence){(double)NAN, (double)NAN};
    if (wants & MOESIM_SURVEY_CONFIDENCE)
        result->confidence = confidence_of_runs(plan->has_confidence ? plan->confidence : s->confidence, n_runs);
    s->start += plan->n_tokens + FAR + 1;
}
