/* SPDX-License-Identifier: MIT
 *
 * Gate weights of a token's pairs, and their gradient. The raw value of a pair is its score or, for weight = softmax,
 * e^logit; the weight is scale * value / (sum of the values that count). All of a token's choices count before the
 * drop, only the kept pairs after it; a pair that rerouting added counts after the drop only. Where what counts sums to
 * 0, there is nothing to share: all weights are 0 and carry no gradient.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "sim/contract/kernels/token_choice.h"

/* One token's pairs: first .. last - 1. */
struct pairs {
    uint32_t first, last, last_chosen;
    uint32_t withdrawn;  /* what the second pair had chosen, where it was withdrawn */
    const float *logits; /* [E] the token's, or NULL with the next */
    const float *chosen; /* [k] of what it chose */
};

static struct pairs pairs_of(const struct moesim_token_choice *p, const struct moesim_token_choice_scratch *scratch,
                             const struct moesim_plan *plan, uint32_t token)
{
    struct pairs a = {.first = plan->first[token], .last = plan->first[token + 1]};
    a.withdrawn = scratch->withdrawn ? scratch->withdrawn[token] : MOESIM_NO_EXPERT;
    a.last_chosen = a.last - a.first > p->k ? a.first + p->k : a.last;
    return a;
}

/* The same with its logits; a row that was made is made once more only where `whole`, or rerouting, asks for others
 * than the chosen ones. */
static struct pairs pairs_with_logits(const struct token_choice *c, const struct moesim_plan *plan, uint32_t token,
                                      bool whole)
{
    struct pairs a = pairs_of(c->p, c->scratch, plan, token);
    if (c->rows && !whole && a.last == a.last_chosen)
        a.chosen = c->rows->logit + (size_t)token * c->p->k;
    else
        a.logits = token_choice_logits(c, token);
    return a;
}

/* What the pair chose, be it withdrawn. */
static uint32_t choice_of(const struct moesim_plan *plan, const struct pairs *a, uint32_t i)
{
    return plan->expert[i] == MOESIM_NO_EXPERT && i == a->first + 1 ? a->withdrawn : plan->expert[i];
}

static float logit_of(const struct moesim_plan *plan, const struct pairs *a, uint32_t i)
{
    return a->chosen ? a->chosen[i - a->first] : a->logits[choice_of(plan, a, i)];
}

static bool counts(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a,
                   uint32_t i)
{
    if (p->renorm == MOESIM_AFTER_DROP)
        return plan->fate[i] == MOESIM_KEPT;
    return i < a->last_chosen && choice_of(plan, a, i) != MOESIM_NO_EXPERT;
}

/* The largest logit of what is weighed. */
static float max_logit(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a)
{
    float max = -INFINITY;
    for (uint32_t i = a->first; i < a->last; i++)
        if ((plan->fate[i] == MOESIM_KEPT || counts(p, plan, a, i)) && logit_of(plan, a, i) > max)
            max = logit_of(plan, a, i);
    return max;
}

/* e^(l - max); where max is +inf, the +inf logits share everything. A logit above the largest of what is weighed
 * belongs to a refused pair and takes no part: its e^(l - max) might be infinite. */
static float exp_below(float l, float max)
{
    if (l > max)
        return 0;
    if (isinf(max))
        return max > 0 && l == max ? 1.0f : 0.0f;
    return moesim_expf(l - max);
}

static float exp_logit(const struct moesim_plan *plan, const struct pairs *a, uint32_t i, float max)
{
    return choice_of(plan, a, i) == MOESIM_NO_EXPERT ? 0 : exp_below(logit_of(plan, a, i), max);
}

/* The sum of what counts and the 1e-20 that implementations add to it; infinite where nothing is to be shared. */
static double divisor(double sum)
{
    return sum > 0 ? sum + 1e-20 : INFINITY;
}

static double sum_counted(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a,
                          const float *value)
{
    double sum = 0;
    for (uint32_t i = a->first; i < a->last; i++)
        if (counts(p, plan, a, i))
            sum += value[i];
    return divisor(sum);
}

static void weigh(const struct moesim_token_choice *p, struct moesim_plan *plan, const struct pairs *a)
{
    double sum = 1;
    if (p->weight == MOESIM_WEIGHT_SOFTMAX) {
        const float max = max_logit(p, plan, a);
        for (uint32_t i = a->first; i < a->last; i++)
            plan->weight[i] = exp_logit(plan, a, i, max);
    }
    if (p->weight != MOESIM_WEIGHT_NONE)
        sum = sum_counted(p, plan, a, plan->weight);
    for (uint32_t i = a->first; i < a->last; i++)
        plan->weight[i] = plan->fate[i] == MOESIM_KEPT ? (float)fmin(plan->weight[i] / sum * p->scale, FLT_MAX) : 0;
}

/* Whether the raw scores are the weights: nothing was refused or withdrawn. */
static bool are_raw(const struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    return p->weight == MOESIM_WEIGHT_NONE && p->scale == 1 && p->capacity_factor <= 0 && !c->scratch->withdrawn;
}

void token_choice_weigh(const struct token_choice *c, uint32_t first, uint32_t last)
{
    const struct moesim_token_choice *p = c->p;
    for (uint32_t t = first; t < last && !are_raw(c); t++) {
        const struct pairs a = p->weight == MOESIM_WEIGHT_SOFTMAX ? pairs_with_logits(c, c->plan, t, false)
                                                                  : pairs_of(p, c->scratch, c->plan, t);
        weigh(p, c->plan, &a);
    }
}

void token_choice_weights(const struct token_choice *c)
{
    if (are_raw(c))
        return;
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t i = 0; i < c->scratch->n_chunks; i++)
        token_choice_weigh(c, c->scratch->chunk[i].first, c->scratch->chunk[i].last);
}

void moesim_token_choice_gates(const struct moesim_token_choice *p, const float *logit, const float *score,
                               const uint32_t *expert, float *gate)
{
    double sum = 0;
    if (!score)
        moesim_rows()->scores(MOESIM_SOFTMAX, logit, p->k, gate);
    for (uint32_t j = 0; j < p->k; j++) {
        const float raw = score ? score[j] : gate[j];
        gate[j] = expert[j] == MOESIM_NO_EXPERT || raw != raw ? 0 : raw;
        sum += gate[j];
    }
    const double by = p->weight == MOESIM_WEIGHT_SUM ? divisor(sum) : 1;
    for (uint32_t j = 0; score && j < p->k; j++)
        gate[j] = (float)fmin(gate[j] / by, FLT_MAX);
}

/* ---- gradient ---- */

/* A rerouted pair may weigh 1e20 times what it is divided by; steeper than this, products of gradients overflow. */
#define STEEPEST 1e18

/* A token's raw values by expert, and the loss's gradient by them and by the logits; rows of E floats. */
struct gradient {
    float *value, *d_value, *d_logits;
};

/* Gradient of w_i = scale * v_i / sum by v, where g_i is the loss by w_i: d_i = (scale * g_i - mean) / sum, mean over
 * what counts of scale * g_i * v_i / sum. */
static void quotient_backward(const struct moesim_token_choice *p, const struct moesim_plan *plan,
                              const struct pairs *a, const float *d_weight, const struct gradient *g)
{
    double sum = 0, mean = 0;
    for (uint32_t i = a->first; i < a->last; i++)
        if (counts(p, plan, a, i))
            sum += g->value[choice_of(plan, a, i)];
    sum = divisor(sum);
    for (uint32_t i = a->first; i < a->last; i++)
        if (plan->fate[i] == MOESIM_KEPT)
            mean += p->scale * d_weight[i] * g->value[plan->expert[i]] / sum;
    for (uint32_t i = a->first; i < a->last; i++) {
        const double own = plan->fate[i] == MOESIM_KEPT ? p->scale * d_weight[i] : 0;
        const double shared = counts(p, plan, a, i) ? mean : 0;
        if (choice_of(plan, a, i) != MOESIM_NO_EXPERT)
            g->d_value[choice_of(plan, a, i)] = (float)fmax(fmin((own - shared) / sum, STEEPEST), -STEEPEST);
    }
}

static void softmax_backward(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a,
                             const float *d_weight, const struct gradient *g)
{
    const float max = max_logit(p, plan, a);
    for (uint32_t i = a->first; i < a->last; i++)
        if (choice_of(plan, a, i) != MOESIM_NO_EXPERT)
            g->value[choice_of(plan, a, i)] = exp_logit(plan, a, i, max);
    quotient_backward(p, plan, a, d_weight, g);
    for (uint32_t i = a->first; i < a->last; i++) {
        const uint32_t e = choice_of(plan, a, i);
        if (e != MOESIM_NO_EXPERT)
            g->d_logits[e] += g->d_value[e] * g->value[e];
    }
}

static void score_backward(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a,
                           const float *d_weight, uint32_t n_experts, const struct gradient *g)
{
    moesim_rows()->scores(p->score, a->logits, n_experts, g->value);
    memset(g->d_value, 0, n_experts * sizeof *g->d_value);
    if (p->weight == MOESIM_WEIGHT_SUM)
        quotient_backward(p, plan, a, d_weight, g);
    else
        for (uint32_t i = a->first; i < a->last; i++)
            if (plan->fate[i] == MOESIM_KEPT)
                g->d_value[plan->expert[i]] = (float)(p->scale * d_weight[i]);
    moesim_score_row_backward(p->score, a->logits, g->value, g->d_value, n_experts, g->d_logits);
}

/* `row` is scratch for [2][E]. */
static void pairs_backward(const struct moesim_token_choice *p, const struct moesim_plan *plan, const struct pairs *a,
                           const float *d_weight, uint32_t n_experts, float *row, float *d_logits)
{
    const struct gradient g = {row, row + n_experts, d_logits};
    if (p->weight == MOESIM_WEIGHT_SOFTMAX)
        softmax_backward(p, plan, a, d_weight, &g);
    else
        score_backward(p, plan, a, d_weight, n_experts, &g);
}

void token_choice_backward(const struct token_choice *c, const struct moesim_plan *plan, const float *d_weight,
                           float *d_logits, size_t d_stride)
{
    const struct moesim_token_choice *p = c->p;
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t t = 0; t < c->batch->n_tokens; t++) {
        if (plan->first[t] == plan->first[t + 1])
            continue;
        const struct pairs a = pairs_with_logits(c, plan, t, p->weight != MOESIM_WEIGHT_SOFTMAX);
        pairs_backward(p, plan, &a, d_weight, c->scratch->n_experts, token_choice_row(c), d_logits + t * d_stride);
    }
}

void moesim_token_choice_backward_row(const struct moesim_token_choice *p, const struct moesim_plan *plan,
                                      uint32_t token, const float *logits, const float *d_weight,
                                      struct moesim_token_choice_scratch *scratch, float *d_logits)
{
    const struct token_choice c = {.p = p, .scratch = scratch};
    struct pairs a = pairs_of(p, scratch, plan, token);
    a.logits = logits;
    if (a.first < a.last)
        pairs_backward(p, plan, &a, d_weight, scratch->n_experts, token_choice_row(&c), d_logits);
}

void moesim_token_choice_backward(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                  const float *logits, size_t stride, const struct moesim_plan *plan,
                                  const float *d_weight, struct moesim_token_choice_scratch *scratch, float *d_logits)
{
    const struct token_choice c = {.p = p, .batch = batch, .logits = logits, .stride = stride, .scratch = scratch};
    token_choice_backward(&c, plan, d_weight, d_logits, stride);
}
