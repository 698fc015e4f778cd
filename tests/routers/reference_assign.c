/*
 * References of the routers that solve for a balanced whole: base, sinkhorn; and dselect-k's smooth selectors.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"

/* ---- base ---- */

/* No exchange of tokens along any path of experts raises the sum of logits: then the assignment is the best there is.
 * cost[i][j] is what it costs to move the cheapest token of i to j. */
static void expect_optimal(struct expected *x, uint32_t first, uint32_t last)
{
    const uint32_t n = x->n_experts;
    double *cost = calloc((size_t)n * n, sizeof *cost), *load = calloc(n, sizeof *load);
    for (uint32_t i = 0; i < n * n; i++)
        cost[i] = i % (n + 1) == 0 ? 0 : INFINITY;
    for (uint32_t t = first; t < last; t++)
        if (is_good(x, t)) {
            const uint32_t here = pair_of(x, t, 0)->expert;
            load[here]++;
            for (uint32_t e = 0; e < n; e++)
                cost[here * n + e] = fmin(cost[here * n + e], column(x, t, here) - column(x, t, e));
        }
    for (uint32_t via = 0; via < n; via++)
        for (uint32_t i = 0; i < n; i++)
            for (uint32_t j = 0; j < n; j++)
                cost[i * n + j] = fmin(cost[i * n + j], cost[i * n + via] + cost[via * n + j]);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; j < n; j++) {
            cr_assert(load[i] <= load[j] + 1, "base: expert %u has %g tokens, expert %u %g", i, load[i], j, load[j]);
            if (i == j || load[i] > load[j])
                cr_assert(cost[i * n + j] > -1e-4, "base: a better assignment exists, by %g", -cost[i * n + j]);
        }
    free(cost);
    free(load);
}

/* Evaluation: the best expert. Training: whatever balanced assignment of greatest sum the router found. */
void reference_base(struct expected *x)
{
    const struct moesim_plan *p = &x->trial->plan;
    const bool training = x->batch->phase == MOESIM_TRAIN;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        uint32_t best = MOESIM_NO_EXPERT;
        for (uint32_t e = 0; e < x->n_experts && !is_padding(x, t); e++) {
            x->ambiguous |= training && isnan(column(x, t, e)) && !is_bad_row(x, t, x->n_experts);
            if (!isnan(column(x, t, e)) && (best == MOESIM_NO_EXPERT || column(x, t, e) > column(x, t, best)))
                best = e;
        }
        if (is_padding(x, t))
            continue;
        if (training && best != MOESIM_NO_EXPERT)
            best = p->expert[p->first[t]];
        want(x, t, best, 0)->weight = best == MOESIM_NO_EXPERT ? 0 : sigmoid(column(x, t, best));
    }
    seat(x);
    for (uint32_t g = 0; g < x->batch->n_groups && training && !x->ambiguous; g++)
        expect_optimal(x, x->batch->group_start[g], x->batch->group_start[g + 1]);
    for (size_t i = 0; i < (size_t)p->n_groups * x->n_experts; i++)
        x->capacity[i] = p->capacity[i]; /* that loads keep to it is seen by the plan's check */
}

/* ---- sinkhorn ---- */

/* Scales rows and columns of exp(l - row's maximum) in turn until they barely change; the plan, [n_tokens][E] of the
 * group's good rows. */
static void balance(struct expected *x, uint32_t first, uint32_t last, double *plan)
{
    const uint32_t n = x->n_experts;
    const double tolerance = number(x, "tolerance");
    double *d0 = calloc(x->n_tokens + 1, sizeof *d0), *d1 = calloc(n, sizeof *d1), S = 0;
    for (uint32_t t = first; t < last; t++) {
        double most = -INFINITY;
        for (uint32_t e = 0; e < n; e++)
            most = fmax(most, column(x, t, e));
        S += !is_padding(x, t) && !is_bad_row(x, t, n);
        for (uint32_t e = 0; e < n; e++)
            plan[(size_t)t * n + e] = is_padding(x, t) || is_bad_row(x, t, n) ? 0 : exp(column(x, t, e) - most);
    }
    for (uint32_t e = 0; e < n; e++)
        d1[e] = 1;
    for (uint32_t i = 0; i < count(x, "max_iterations"); i++) {
        double change = 0;
        for (uint32_t t = first; t < last; t++) {
            double sum = 0;
            for (uint32_t e = 0; e < n; e++)
                sum += d1[e] * plan[(size_t)t * n + e];
            d0[t] = 1 / S / (sum + 1e-8);
        }
        for (uint32_t e = 0; e < n; e++) {
            double sum = 0;
            for (uint32_t t = first; t < last; t++)
                sum += d0[t] * plan[(size_t)t * n + e];
            change += fabs(1.0 / n / (sum + 1e-8) - d1[e]) / n;
            d1[e] = 1.0 / n / (sum + 1e-8);
        }
        if (fabs(change - tolerance) < .02 * tolerance)
            x->ambiguous = true; /* one iteration more or less */
        if (change <= tolerance)
            break;
    }
    for (uint32_t t = first; t < last; t++)
        for (uint32_t e = 0; e < n; e++)
            plan[(size_t)t * n + e] *= d0[t] * d1[e];
    free(d0);
    free(d1);
}

/* Training: the best of the balanced plan; evaluation: of the logits. Weights are sigmoid(l) for one expert, else
 * softmax over all. */
void reference_sinkhorn(struct expected *x)
{
    const uint32_t n = x->n_experts, k = count(x, "k");
    struct choice c = choice_start(x, NULL, n, k);
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < n; e++) {
            x->ambiguous |= isnan(column(x, t, e)) && !is_bad_row(x, t, n);
            if (k == 1)
                c.score[(size_t)t * n + e] = sigmoid(column(x, t, e));
        }
    if (x->batch->phase == MOESIM_TRAIN && !x->ambiguous) {
        double *plan = calloc((size_t)x->n_tokens * n + 1, sizeof *plan);
        for (uint32_t g = 0; g < x->batch->n_groups; g++)
            balance(x, x->batch->group_start[g], x->batch->group_start[g + 1], plan);
        for (size_t i = 0; i < (size_t)x->n_tokens * n; i++)
            c.select[i] = isnan(c.select[i]) ? NAN : plan[i];
        c.exact = false;
        x->doubt = 2e-5;
        free(plan);
    }
    choose(x, &c);
    x->doubt = 1e-6;
    fit(x, &c, k);
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t i = 0; i < x->n[t]; i++)
            pair_of(x, t, i)->weight = pair_of(x, t, i)->fate == MOESIM_KEPT ? pair_of(x, t, i)->score : 0;
    choice_end(&c);
}

/* ---- dselect-k ---- */

/* From 0 at -width/2 to 1 at width/2. A step so near an end that float32 may not see it is in doubt. */
static double smooth_step(struct expected *x, double z, double width)
{
    if (z <= -width / 2)
        return 0;
    if (z >= width / 2)
        return 1;
    const double s = -2 * pow(z / width, 3) + 1.5 * z / width + .5;
    if (s < 1e-6 || s > 1 - 1e-6)
        x->ambiguous = true;
    return s;
}

void reference_dselect_k(struct expected *x)
{
    const uint32_t E = x->n_experts, k = count(x, "k");
    const double width = number(x, "width");
    uint32_t n_bits = 0;
    while (1u << n_bits < E)
        n_bits++;
    double *score = calloc(k, sizeof *score), *logit = calloc(k, sizeof *logit), *weight = calloc(E, sizeof *weight);
    x->by_weight = true;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        if (is_padding(x, t))
            continue;
        for (uint32_t i = 0; i < x->batch->n_columns; i++)
            x->ambiguous |= isnan(column(x, t, i)); /* conformance sees what becomes of those */
        for (uint32_t j = 0; j < k; j++)
            logit[j] = column(x, t, k * n_bits + j);
        score_row("softmax", logit, k, score);
        for (uint32_t e = 0; e < E; e++)
            weight[e] = 0;
        for (uint32_t j = 0; j < k; j++) {
            double reached = 0;
            for (uint32_t e = 0; e < E; e++) {
                double q = 1;
                for (uint32_t b = 0; b < n_bits; b++) {
                    const double s = smooth_step(x, column(x, t, j * n_bits + b), width);
                    q *= e >> b & 1 ? s : 1 - s;
                }
                weight[e] += score[j] * q;
                reached += q;
                x->aux -= number(x, "entropy_coef") * q * log(q + 1e-6);
            }
            x->ambiguous |= reached < 1e-2; /* a reciprocal of what float32 knows to 1e-7 */
            if (E & (E - 1))
                x->aux += number(x, "reach_coef") / (reached + 1e-6);
        }
        for (uint32_t e = 0; e < E; e++)
            if (weight[e] > 0)
                want(x, t, e, 0)->weight = weight[e];
    }
    seat(x);
    free(score);
    free(logit);
    free(weight);
}
