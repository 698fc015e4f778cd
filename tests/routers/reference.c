/*
 * The slow reference of token choice.
 */
#include "tests/routers/reference.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include <moesim/random.h>

double reference_score(uint32_t score, const float *row, uint32_t n, uint32_t e)
{
    double max = -INFINITY, sum = 0;
    uint32_t n_infinite = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (isfinite(row[i]) && row[i] > max)
            max = row[i];
        n_infinite += row[i] == INFINITY;
    }
    const double l = row[e];
    if (isinf(max) || isnan(l))
        return NAN;
    switch (score) {
    case MOESIM_SOFTMAX:
        if (n_infinite > 0)
            return l == INFINITY ? 1.0 / n_infinite : 0;
        for (uint32_t i = 0; i < n; i++)
            sum += isnan(row[i]) ? 0 : exp(row[i] - max);
        return exp(l - max) / sum;
    case MOESIM_SIGMOID:
        return 1 / (1 + exp(-l));
    case MOESIM_SQRT_SOFTPLUS:
        return sqrt(fmin(l > 30 ? l + exp(-l) : log1p(exp(l)), FLT_MAX));
    default:
        return fmin(fmax(l, 0), FLT_MAX);
    }
}

static struct reference_pair *pair_of(struct reference *r, uint32_t t, uint32_t c)
{
    return &r->pair[(size_t)t * 2 * r->k + c];
}

static void choose(struct reference *r, const struct moesim_token_choice *p, uint32_t t, const float *row, uint32_t n)
{
    const uint32_t chosen = r->n[t];
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t e = 0; e < n; e++) {
        bool free = !isnan(reference_score(p->score, row, n, e));
        for (uint32_t c = 0; c < chosen; c++)
            free &= pair_of(r, t, c)->expert != e;
        const float x = p->score == MOESIM_RELU ? fmaxf(row[e], 0) : row[e];
        if (free && (best == MOESIM_NO_EXPERT || x > (p->score == MOESIM_RELU ? fmaxf(row[best], 0) : row[best])))
            best = e;
    }
    *pair_of(r, t, chosen) = (struct reference_pair){.expert = best, .slot = -1, .fate = MOESIM_OVER_CAPACITY};
    if (best == MOESIM_NO_EXPERT)
        pair_of(r, t, chosen)->fate = MOESIM_BAD_ROW;
    else
        pair_of(r, t, chosen)->score = reference_score(p->score, row, n, best);
    r->n[t]++;
}

/* A chosen pair and what its place in the queue depends on. */
struct entry {
    uint32_t token, choice;
    double major, minor; /* smaller first; then token, then choice */
};

static int by_place(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    if (x->major != y->major)
        return x->major < y->major ? -1 : 1;
    if (x->minor != y->minor)
        return x->minor < y->minor ? -1 : 1;
    if (x->token != y->token)
        return x->token < y->token ? -1 : 1;
    return (x->choice > y->choice) - (x->choice < y->choice);
}

static struct entry place(struct reference *r, uint32_t priority, const struct moesim_batch *batch, uint32_t t,
                          uint32_t c)
{
    struct entry q = {.token = t, .choice = c};
    double best = 0;
    for (uint32_t i = 0; i < r->k; i++)
        best = fmax(best, pair_of(r, t, i)->score);
    const struct moesim_random random = {batch->seed, MOESIM_STREAM_ROUTER + 255, batch->layer, batch->step};
    switch (priority) {
    case MOESIM_PRIORITY_CHOICE:
        q.major = c;
        break;
    case MOESIM_PRIORITY_BPR:
        q.major = c;
        q.minor = -(double)(float)best;
        break;
    case MOESIM_PRIORITY_PROB:
        q.major = -(double)(float)pair_of(r, t, c)->score;
        break;
    case MOESIM_PRIORITY_RANDOM:
        q.major = -moesim_random_uniform(&random, (uint64_t)t * r->k + c);
        break;
    }
    return q;
}

static bool uses(struct reference *r, uint32_t t, uint32_t e)
{
    for (uint32_t c = 0; c < r->n[t]; c++)
        if (pair_of(r, t, c)->expert == e)
            return true;
    return false;
}

static void reroute(struct reference *r, const struct moesim_token_choice *p, const float *row, uint32_t n,
                    const struct entry *q, uint32_t slots, uint32_t *taken)
{
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t e = 0; e < n; e++) {
        const float x = p->score == MOESIM_RELU ? fmaxf(row[e], 0) : row[e];
        if (!isnan(row[e]) && taken[e] < slots && !uses(r, q->token, e) &&
            (best == MOESIM_NO_EXPERT || x > (p->score == MOESIM_RELU ? fmaxf(row[best], 0) : row[best])))
            best = e;
    }
    if (best == MOESIM_NO_EXPERT)
        return;
    pair_of(r, q->token, q->choice)->fate = MOESIM_REROUTED;
    *pair_of(r, q->token, r->n[q->token]++) =
        (struct reference_pair){.expert = best,
                                .slot = (int32_t)taken[best]++,
                                .fate = MOESIM_KEPT,
                                .score = reference_score(p->score, row, n, best),
                                .weight = q->choice}; /* the refused choice it serves: order of the added pairs */
}

static int by_served(const void *a, const void *b)
{
    const struct reference_pair *x = a, *y = b;
    return (x->weight > y->weight) - (x->weight < y->weight);
}

static void admit_group(struct reference *r, const struct moesim_token_choice *p, const struct moesim_batch *batch,
                        const float *logits, size_t stride, uint32_t first, uint32_t last)
{
    const uint32_t n = batch->n_experts;
    uint32_t priority = p->priority, n_tokens = 0, n_entries = 0;
    if (priority == MOESIM_PRIORITY_RANDOM && batch->phase == MOESIM_EVAL)
        priority = MOESIM_PRIORITY_TOKEN;
    struct entry *queue = calloc((size_t)(last - first) * r->k + 1, sizeof *queue);
    uint32_t *taken = calloc(n, sizeof *taken);
    for (uint32_t t = first; t < last; t++) {
        n_tokens += r->n[t] > 0;
        for (uint32_t c = 0; c < r->n[t]; c++)
            if (pair_of(r, t, c)->fate != MOESIM_BAD_ROW)
                queue[n_entries++] = place(r, priority, batch, t, c);
    }
    const uint32_t slots = moesim_capacity(p->capacity_rule, n_tokens, n, p->k, p->capacity_factor, p->min_capacity);
    qsort(queue, n_entries, sizeof *queue, by_place);
    for (uint32_t i = 0; i < n_entries; i++) {
        struct reference_pair *q = pair_of(r, queue[i].token, queue[i].choice);
        if (taken[q->expert] < slots) {
            q->slot = (int32_t)taken[q->expert]++;
            q->fate = MOESIM_KEPT;
        }
    }
    if (priority == MOESIM_PRIORITY_PROB || priority == MOESIM_PRIORITY_RANDOM)
        for (uint32_t e = 0; e < n; e++) { /* slots in token order */
            int32_t slot = 0;
            for (uint32_t t = first; t < last; t++)
                for (uint32_t c = 0; c < r->n[t]; c++)
                    if (pair_of(r, t, c)->expert == e && pair_of(r, t, c)->fate == MOESIM_KEPT)
                        pair_of(r, t, c)->slot = slot++;
        }
    for (uint32_t i = 0; p->overflow == MOESIM_REROUTE && i < n_entries; i++)
        if (pair_of(r, queue[i].token, queue[i].choice)->fate == MOESIM_OVER_CAPACITY)
            reroute(r, p, logits + queue[i].token * stride, n, &queue[i], slots, taken);
    for (uint32_t t = first; t < last; t++)
        if (r->n[t] > r->k)
            qsort(pair_of(r, t, r->k), r->n[t] - r->k, sizeof(struct reference_pair), by_served);
    free(queue);
    free(taken);
}

static void weigh(struct reference *r, const struct moesim_token_choice *p, uint32_t t, const float *row)
{
    double sum = 0, max = -INFINITY;
    const bool after = p->renorm == MOESIM_AFTER_DROP, softmax = p->weight == MOESIM_WEIGHT_SOFTMAX;
    for (uint32_t c = 0; c < r->n[t]; c++) {
        const struct reference_pair *q = pair_of(r, t, c);
        const bool in_sum = after ? q->fate == MOESIM_KEPT : c < r->k && q->fate != MOESIM_BAD_ROW;
        if (in_sum || q->fate == MOESIM_KEPT)
            max = fmax(max, row[q->expert]);
    }
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t c = 0; c < r->n[t]; c++) {
            struct reference_pair *q = pair_of(r, t, c);
            if (q->fate == MOESIM_BAD_ROW) {
                q->weight = 0;
                continue;
            }
            double value = q->score;
            if (softmax && isinf(max))
                value = row[q->expert] == INFINITY;
            else if (softmax)
                value = exp(row[q->expert] - max);
            const bool in_sum = after ? q->fate == MOESIM_KEPT : c < r->k;
            if (pass == 0)
                sum += in_sum ? value : 0;
            else if (q->fate != MOESIM_KEPT)
                q->weight = 0;
            else
                q->weight = fmin(p->scale * (p->weight == MOESIM_WEIGHT_NONE ? value
                                             : sum > 0                       ? value / (sum + 1e-20)
                                                                             : 0),
                                 FLT_MAX);
        }
}

struct reference reference_route(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                 const float *logits, size_t stride)
{
    struct reference r = {.n_tokens = batch->n_tokens, .k = p->k};
    r.n = calloc((size_t)batch->n_tokens + 1, sizeof *r.n);
    r.pair = calloc((size_t)batch->n_tokens * 2 * p->k + 1, sizeof *r.pair);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t c = 0; c < p->k && !(batch->padding && batch->padding[t]); c++)
            choose(&r, p, t, logits + t * stride, batch->n_experts);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        admit_group(&r, p, batch, logits, stride, batch->group_start[g], batch->group_start[g + 1]);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        weigh(&r, p, t, logits + t * stride);
    return r;
}

void reference_free(struct reference *r)
{
    free(r->n);
    free(r->pair);
}

void reference_compare(const struct reference *r, const struct moesim_plan *plan, double tolerance, const char *what)
{
    uint64_t n_wanted = 0;
    uint32_t n_bad_rows = 0;
    for (uint32_t t = 0; t < r->n_tokens; t++) {
        const uint32_t first = plan->first[t];
        cr_assert_eq(plan->first[t + 1] - first, r->n[t], "%s: token %u has %u pairs, not %u", what, t,
                     plan->first[t + 1] - first, r->n[t]);
        n_bad_rows += r->n[t] > 0 && r->pair[(size_t)t * 2 * r->k].fate == MOESIM_BAD_ROW;
        for (uint32_t c = 0; c < r->n[t]; c++) {
            const struct reference_pair *q = &r->pair[(size_t)t * 2 * r->k + c];
            const uint32_t i = first + c;
            n_wanted += q->fate != MOESIM_BAD_ROW && c < r->k;
            cr_assert(plan->expert[i] == q->expert && plan->slot[i] == q->slot && plan->fate[i] == q->fate,
                      "%s: token %u, pair %u: expert %d slot %d fate %u, not expert %d slot %d fate %u", what, t, c,
                      (int)plan->expert[i], plan->slot[i], plan->fate[i], (int)q->expert, q->slot, q->fate);
            cr_assert(fabs(plan->weight[i] - q->weight) <= tolerance * fmax(1, q->weight),
                      "%s: token %u, pair %u: weight %.9g, not %.9g", what, t, c, plan->weight[i], q->weight);
        }
    }
    cr_assert_eq(plan->n_wanted, n_wanted, "%s: %llu wanted", what, (unsigned long long)plan->n_wanted);
    cr_assert_eq(plan->n_bad_rows, n_bad_rows, "%s: %u bad rows", what, plan->n_bad_rows);
}
