/*
 * Fitting by Nelder and Mead's simplex: the figures have no derivative, since a token's choice is all or nothing.
 */
#include "workloads/calibrated/fit.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_multimin.h>
#include <math.h>
#include <string.h>

#define FIELD(name, low_, high_, step_)                                                                                \
    {                                                                                                                  \
        .key = #name, .low = (low_), .high = (high_), .step = (step_), .offset = offsetof(struct effects, name)        \
    }

const struct fit_field fit_fields[FIT_N_FREE] = {
    [FIT_POPULARITY] = FIELD(popularity, 0.01, 20, 0.25),
    [FIT_POPULARITY_SKEW] = FIELD(popularity_skew, -1.8, 1.8, 0.4),
    [FIT_DOMAIN_EFFECT] = FIELD(domain_effect, 0.01, 20, 0.25),
    [FIT_DOMAIN_TAIL] = FIELD(domain_tail, 0.7, 2.2, 0.25),
    [FIT_SEQUENCE_EFFECT] = FIELD(sequence_effect, 0.01, 20, 0.25),
    [FIT_SLOW_EFFECT] = FIELD(slow_effect, 0.01, 20, 0.25),
    [FIT_SLOW_RHO] = FIELD(slow_rho, 0.5, 0.9995, 0.5),
    [FIT_FAST_EFFECT] = FIELD(fast_effect, 0.01, 20, 0.25),
    [FIT_FAST_RHO] = FIELD(fast_rho, 0.01, 0.95, 0.5),
    [FIT_TOKEN_EFFECT] = FIELD(token_effect, 0.01, 20, 0.25),
    [FIT_TOKEN_ECHO] = FIELD(token_echo, 0.001, 1, 0.5),
};

static double *field_of(struct effects *effects, uint32_t i)
{
    return (double *)(void *)((char *)effects + fit_fields[i].offset);
}

/* ---- the search's own scale ---- */

enum scale { PLAIN, LOGARITHM, LOGIT };

static enum scale scale_of(uint32_t i)
{
    return i == FIT_POPULARITY_SKEW ? PLAIN : i == FIT_SLOW_RHO || i == FIT_FAST_RHO ? LOGIT : LOGARITHM;
}

static double held_within(uint32_t i, double x)
{
    return fmin(fmax(x, fit_fields[i].low), fit_fields[i].high);
}

static double to_search(uint32_t i, double x)
{
    x = held_within(i, x);
    return scale_of(i) == PLAIN ? x : scale_of(i) == LOGIT ? log(x / (1 - x)) : log(x);
}

static double from_search(uint32_t i, double x)
{
    return held_within(i, scale_of(i) == PLAIN ? x : scale_of(i) == LOGIT ? 1 / (1 + exp(-x)) : exp(x));
}

/* ---- misses ---- */

/* A tenth of the target; a correlation near 0 is not more exact than one of 0.3. */
static double tenth(const struct calibrated_target *target)
{
    const double size = fabs(target->value);
    return 0.1 * (target->figure == CALIBRATED_RANKS ? fmax(size, 0.3) : size);
}

double fit_miss(const struct calibrated_target *target, uint32_t n_targets, const double *value)
{
    double sum = 0;
    for (uint32_t i = 0; i < n_targets; i++) {
        const double got = value[target[i].figure];
        const double miss = isnan(got) ? 10 : fabs(got - target[i].value) / tenth(&target[i]);
        const double above = fmax(miss - 0.9, 0);
        sum += miss * miss + 4 * above * above;
    }
    return sum;
}

struct search {
    const struct fit_task *task;
    struct source_params *params;
    enum moesim_status status;
    struct moesim_error *err;
    uint32_t n_done;
    double best;
    struct effects best_effects;
};

static double evaluate(const gsl_vector *x, void *search_)
{
    struct search *s = search_;
    const struct fit_task *task = s->task;
    double value[CALIBRATED_N_FIGURES], outside = 0;
    size_t at = 0;
    for (uint32_t i = 0; i < FIT_N_FREE; i++)
        if (task->free[i]) {
            const double wanted = gsl_vector_get(x, at++);
            *field_of(&s->params->effects, i) = from_search(i, wanted);
            const double beyond = wanted - to_search(i, from_search(i, wanted));
            outside += beyond * beyond;
        }
    if (s->status)
        return HUGE_VAL;
    s->status = sample_take(s->params, &task->sample, NULL, value, s->err);
    if (s->status)
        return HUGE_VAL;
    const double miss = fit_miss(task->target, task->n_targets, value);
    if (s->n_done == 0 || miss < s->best) {
        s->best = miss;
        s->best_effects = s->params->effects;
    }
    s->n_done++;
    if (task->progress && !task->progress(task->context, s->n_done, task->n_evaluations, s->best))
        s->status = moesim_fail(s->err, MOESIM_ESTOP, "the fit was stopped after %u samples", s->n_done);
    return miss + 10 * outside;
}

/* Sets the simplex up at params->effects and moves it until the samples are used up or it no longer moves. */
static void walk(struct search *s, gsl_multimin_fminimizer *simplex, gsl_vector *start, gsl_vector *step)
{
    gsl_multimin_function function = {evaluate, start->size, s};
    size_t at = 0;
    for (uint32_t i = 0; i < FIT_N_FREE; i++)
        if (s->task->free[i]) {
            gsl_vector_set(start, at, to_search(i, *field_of(&s->params->effects, i)));
            gsl_vector_set(step, at++, fit_fields[i].step * (s->task->stride > 0 ? s->task->stride : 1));
        }
    if (gsl_multimin_fminimizer_set(simplex, &function, start, step))
        return;
    while (!s->status && s->n_done < s->task->n_evaluations && gsl_multimin_fminimizer_size(simplex) > 1e-3)
        if (gsl_multimin_fminimizer_iterate(simplex))
            return;
}

enum moesim_status fit_effects(const struct fit_task *task, struct source_params *params, struct moesim_error *err)
{
    struct search search = {.task = task, .params = params, .err = err};
    size_t n = 0;
    for (uint32_t i = 0; i < FIT_N_FREE; i++)
        n += task->free[i];
    if (n == 0 || task->n_targets == 0)
        return moesim_fail(err, MOESIM_EINVAL, "there is nothing to fit");
    gsl_error_handler_t *before = gsl_set_error_handler_off();
    gsl_multimin_fminimizer *simplex = gsl_multimin_fminimizer_alloc(gsl_multimin_fminimizer_nmsimplex2, n);
    gsl_vector *start = gsl_vector_alloc(n), *step = gsl_vector_alloc(n);
    if (simplex && start && step)
        walk(&search, simplex, start, step);
    else
        search.status = moesim_fail(err, MOESIM_ENOMEM, "no memory for a fit of %zu numbers", n);
    if (search.n_done)
        params->effects = search.best_effects;
    gsl_multimin_fminimizer_free(simplex);
    if (start)
        gsl_vector_free(start);
    if (step)
        gsl_vector_free(step);
    gsl_set_error_handler(before);
    return search.status;
}
