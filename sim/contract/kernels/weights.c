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
    uint32_t withdrawn; /* what the second pair had chosen, where it was withdrawn */
    const float *logits;
};

static struct pairs pairs_of(const struct token_choice *c, const struct moesim_plan *plan, uint32_t token,
                             const float *logits)
{
    const struct moesim_token_choice *p = c->p;
    struct pairs a = {.first = plan->first[token], .last = plan->first[token + 1], .logits = logits};
    a.withdrawn = c->scratch->withdrawn ? c->scratch->withdrawn[token] : MOESIM_NO_EXPERT;
    a.last_chosen = a.last - a.first > p->k ? a.first + p->k : a.last;
    return a;
}

/* What the pair chose, be it withdrawn. */
static uint32_t choice_of(const struct moesim_plan *plan, const struct pairs *a, uint32_t i)
{
    return plan->expert[i] == MOESIM_NO_EXPERT && i == a->first + 1 ? a->withdrawn : plan->expert[i];
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
        if ((plan->fate[i] == MOESIM_KEPT || counts(p, plan, a, i)) && a->logits[choice_of(plan, a, i)] > max)
            max = a->logits[choice_of(plan, a, i)];
    return max;
}

/* e^(l - max); where max is +inf, the +inf logits share everything. A logit above the largest of what is weighed
 * belongs to a refused pair and takes no part: its e^(l - max) might be infinite. */
static float exp_logit(const struct moesim_plan *plan, const struct pairs *a, uint32_t i, float max)
{
    const uint32_t expert = choice_of(plan, a, i);
    if (expert == MOESIM_NO_EXPERT)
        return 0;
    const float l = a->logits[expert];
    if (l > max)
        return 0;
    if (isinf(max))
        return max > 0 && l == max ? 1.0f : 0.0f;
    return moesim_expf(l - max);
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

void token_choice_weights(const struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    if (p->weight == MOESIM_WEIGHT_NONE && p->scale == 1 && p->capacity_factor <= 0 && !c->scratch->withdrawn)
        return; /* the raw scores are in place and nothing was refused or withdrawn */
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t i = 0; i < c->scratch->n_chunks; i++)
        for (uint32_t t = c->scratch->chunk[i].first; t < c->scratch->chunk[i].last; t++) {
            const struct pairs a = pairs_of(c, c->plan, t, c->logits + t * c->stride);
            weigh(p, c->plan, &a);
        }
}

void moesim_token_choice_weigh(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                               const float *logits, size_t stride, struct moesim_token_choice_scratch *scratch,
                               struct moesim_plan *plan)
{
    const struct token_choice c = {.p = p, .batch = batch, .scratch = scratch};
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(&c))
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const struct pairs a = pairs_of(&c, plan, t, logits + t * stride);
        float *scores = token_choice_row(&c);
        if (a.first < a.last && p->weight != MOESIM_WEIGHT_SOFTMAX)
            moesim_rows()->scores(p->score, a.logits, batch->n_experts, scores);
        for (uint32_t i = a.first; i < a.last; i++) {
            const uint32_t expert = choice_of(plan, &a, i);
            plan->weight[i] = expert == MOESIM_NO_EXPERT || p->weight == MOESIM_WEIGHT_SOFTMAX ? 0 : scores[expert];
        }
        weigh(p, plan, &a);
    }
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

void token_choice_backward(const struct token_choice *c, const struct moesim_plan *plan, const float *d_weight,
                           float *d_logits, size_t d_stride)
{
    const struct moesim_token_choice *p = c->p;
    const uint32_t n_experts = c->batch->n_experts;
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t t = 0; t < c->batch->n_tokens; t++) {
        float *row = token_choice_row(c);
        const struct gradient g = {row, row + n_experts, d_logits + t * d_stride};
        const struct pairs a = pairs_of(c, plan, t, c->logits + t * c->stride);
        if (a.first == a.last)
            continue;
        if (p->weight == MOESIM_WEIGHT_SOFTMAX)
            softmax_backward(p, plan, &a, d_weight, &g);
        else
            score_backward(p, plan, &a, d_weight, n_experts, &g);
    }
}

void moesim_token_choice_backward(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                  const float *logits, size_t stride, const struct moesim_plan *plan,
                                  const float *d_weight, struct moesim_token_choice_scratch *scratch, float *d_logits)
{
    const struct token_choice c = {.p = p, .batch = batch, .logits = logits, .stride = stride, .scratch = scratch};
    token_choice_backward(&c, plan, d_weight, d_logits, stride);
}
