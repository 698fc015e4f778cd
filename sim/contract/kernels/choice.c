/* SPDX-License-Identifier: MIT
 *
 * The hooks of a router that is a point on the axes: noise and bias before routing, losses after it, the bias rule
 * after each global batch.
 */
#include "sim/contract/kernels/choice.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- shape ---- */

static bool given(const char *text)
{
    return text && *text;
}

static bool has_bias(const struct moesim_token_choice *p)
{
    return given(p->bias) || p->bias_update != MOESIM_BIAS_FIXED;
}

enum { SHAPE_TEXT = 96 };

/* "[3, 8]" */
static const char *shape_text(const struct moesim_file_array *a, char text[SHAPE_TEXT])
{
    int n = snprintf(text, SHAPE_TEXT, "[");
    for (uint32_t i = 0; i < a->n_dimensions && i < sizeof a->shape / sizeof *a->shape; i++)
        n += snprintf(text + n, SHAPE_TEXT - (size_t)n, "%s%llu", i ? ", " : "", (unsigned long long)a->shape[i]);
    snprintf(text + n, SHAPE_TEXT - (size_t)n, "]");
    return text;
}

/* One row of E numbers for all layers, or one for each. */
static enum moesim_status check_bias_file(const struct moesim_token_choice *p, const struct moesim_env *env,
                                          struct moesim_error *err)
{
    if (!given(p->bias))
        return MOESIM_OK;
    const struct moesim_file_array *a = moesim_env_file(env, "bias");
    if (!a)
        return moesim_fail(err, MOESIM_EINVAL, "bias = %.200s: the file was not read", p->bias);
    const uint64_t n_experts = env->n_experts, n_layers = env->n_layers;
    const bool one = a->n_dimensions == 1 && a->n == n_experts;
    const bool each = a->n_dimensions == 2 && a->shape[0] == n_layers && a->shape[1] == n_experts;
    char shape[SHAPE_TEXT];
    if (!one && !each)
        return moesim_fail(err, MOESIM_EINVAL,
                           "bias = %.200s is of shape %s; it should be [%u] or [%u, %u] (layers, experts)", p->bias,
                           shape_text(a, shape), env->n_experts, env->n_layers, env->n_experts);
    for (uint64_t i = 0; i < a->n; i++)
        if (!isfinite(a->values[i]))
            return moesim_fail(err, MOESIM_EINVAL, "bias = %.200s: number %llu is not finite", p->bias,
                               (unsigned long long)i);
    return MOESIM_OK;
}

static enum moesim_status check_bias_unit(const struct moesim_token_choice *p, struct moesim_error *err)
{
    if (has_bias(p) && p->bias_on == MOESIM_BIAS_ON_LOGITS && p->n_groups > 1)
        return moesim_fail(err, MOESIM_EINVAL,
                           "bias_on = logits and n_groups = %u: groups of experts are compared by scores, so bias_on "
                           "should be scores or n_groups 1",
                           p->n_groups);
    return MOESIM_OK;
}

static enum moesim_status check_quantile(const struct moesim_token_choice *p, const struct moesim_env *env,
                                         struct moesim_error *err)
{
    if (p->bias_update != MOESIM_BIAS_QUANTILE)
        return MOESIM_OK;
    if (p->k >= env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "bias_update = quantile needs k below the %u experts, not %u",
                           env->n_experts, p->k);
    if (p->n_groups > 1)
        return moesim_fail(err, MOESIM_EINVAL, "bias_update = quantile balances plain top-k: n_groups should be 1");
    if ((uint64_t)env->max_tokens * p->k % env->n_experts != 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "bias_update = quantile needs tokens * k divisible by the experts: %u * %u is no multiple "
                           "of %u",
                           env->max_tokens, p->k, env->n_experts);
    return MOESIM_OK;
}

static enum moesim_status check_losses(const struct moesim_token_choice *p, struct moesim_error *err)
{
    struct losses losses;
    const enum moesim_status status = losses_parse(p, &losses, err);
    if (status)
        return status;
    if (losses_have(&losses, LOSS_LOAD) && p->noise * 1e-3 < FLT_MIN)
        return moesim_fail(err, MOESIM_EINVAL,
                           "aux_form = load is the chance to be chosen when the noise is drawn again: noise should be "
                           "above 0");
    if (losses_have(&losses, LOSS_LOAD) && (has_bias(p) || p->n_groups > 1 || p->score == MOESIM_RELU))
        return moesim_fail(err, MOESIM_EINVAL,
                           "aux_form = load speaks of the k best logits: it goes with neither bias nor n_groups nor "
                           "score = relu");
    const bool by_device = losses_have(&losses, LOSS_DEVICE) || losses_have(&losses, LOSS_COMMUNICATION);
    if (by_device && p->n_groups <= 1)
        return moesim_fail(err, MOESIM_EINVAL,
                           "aux_form = device and communication take the groups of experts for devices: n_groups "
                           "should be above 1");
    return MOESIM_OK;
}

enum moesim_status moesim_choice_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                       struct moesim_error *err)
{
    const struct moesim_token_choice *p = &((const struct moesim_choice_params *)params)->choice;
    enum moesim_status status = moesim_token_choice_shape(p, env, shape, err);
    if (!status)
        status = check_bias_file(p, env, err);
    if (!status)
        status = check_bias_unit(p, err);
    if (!status)
        status = check_quantile(p, env, err);
    if (!status)
        status = check_losses(p, err);
    if (!status && has_bias(p))
        shape->n_memory = env->n_experts;
    return status;
}

/* ---- init ---- */

static void fill_bias(const struct moesim_env *env)
{
    const struct moesim_file_array *a = moesim_env_file(env, "bias");
    if (!a)
        return;
    const float *row = a->values + (a->n_dimensions == 2 ? (size_t)env->layer * env->n_experts : 0);
    memcpy(env->memory, row, env->n_experts * sizeof *env->memory);
}

enum moesim_status moesim_choice_init(void *state, const void *params, const struct moesim_env *env,
                                      struct moesim_error *err)
{
    struct moesim_choice_state *s = state;
    s->choice = ((const struct moesim_choice_params *)params)->choice;
    const struct moesim_token_choice *p = &s->choice;
    struct moesim_arena *arena = env->arena;
    struct moesim_choice_work *w = s->work = moesim_alloc(arena, 1, sizeof *w);
    bool ok = w != NULL;
#define ROOM(field, n) ((w->field = moesim_alloc(arena, (n), sizeof *w->field)) != NULL)
    if (ok && p->noise > 0)
        ok = ROOM(chosen, (size_t)env->max_tokens * p->k);
    if (ok && p->bias_update == MOESIM_BIAS_QUANTILE) {
        ok = ROOM(asked, env->n_experts) && ROOM(asked_sum, env->n_experts);
        w->quantile = moesim_alloc(arena, moesim_quantile_bias_work(env->max_tokens, env->n_experts), 1);
        ok = ok && w->quantile;
    }
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u tokens", env->max_tokens);
    w->n_experts = env->n_experts;
    w->has_bias = has_bias(p);
    w->last_micro_batch = UINT32_MAX;
    if (w->has_bias)
        fill_bias(env);
    enum moesim_status status = choice_losses_init(p, env, &w->losses, err);
    if (!status)
        status = moesim_token_choice_init(p, env, &s->scratch, err);
    if (!status) {
        s->scratch->unbiased = w->losses.unbiased;
        s->scratch->n_unbiased = w->losses.n_choices;
    }
    return status;
}

/* ---- route ---- */

static bool is_noisy(const struct moesim_choice_state *s, const struct moesim_batch *batch)
{
    return s->work->chosen && batch->phase == MOESIM_TRAIN;
}

struct noise {
    const struct moesim_batch *batch;
    float width;
};

static void make_noisy(const void *context, uint32_t token, uint32_t slot, float *row)
{
    const struct noise *noise = context;
    const struct moesim_batch *batch = noise->batch;
    const float *clean = batch->columns + (size_t)token * batch->stride;
    const struct moesim_random random = {batch->seed, STREAM_NOISE, batch->layer, batch->step};
    const uint64_t index = (uint64_t)batch->micro_batch * batch->n_tokens + token;
    (void)slot;
    moesim_random_normals(&random, index * batch->n_experts, batch->n_experts, row);
    for (uint32_t e = 0; e < batch->n_experts; e++)
        row[e] = clean[e] + noise->width * row[e];
}

/* What the steps of one hook share; `noise` and `rows` are the caller's. */
static struct token_choice set_up(const struct moesim_choice_state *s, const struct moesim_batch *batch,
                                  struct noise *noise, struct moesim_logit_rows *rows)
{
    struct token_choice c = {.p = &s->choice, .batch = batch, .scratch = s->scratch};
    *noise = (struct noise){batch, (float)(s->choice.noise / batch->n_experts)};
    *rows = (struct moesim_logit_rows){.make = make_noisy, .context = noise, .logit = s->work->chosen};
    if (is_noisy(s, batch)) {
        c.rows = rows;
    } else {
        c.logits = batch->columns;
        c.stride = batch->stride;
    }
    return c;
}

/* Notes the bias that this micro-batch's clean scores, or logits, ask for. A micro-batch that is routed again replaces
 * what it had noted. */
static void ask_for_bias(struct moesim_choice_state *s, const struct moesim_batch *batch)
{
    struct moesim_choice_work *w = s->work;
    if (batch->micro_batch == 0) {
        memset(w->asked_sum, 0, w->n_experts * sizeof *w->asked_sum);
        w->n_asked = 0;
    } else if (batch->micro_batch != w->last_micro_batch) {
        for (uint32_t e = 0; e < w->n_experts; e++)
            w->asked_sum[e] += w->asked[e];
        w->n_asked++;
    }
    w->last_micro_batch = batch->micro_batch;
    const struct moesim_token_choice *p = &s->choice;
    moesim_quantile_bias(p->bias_on == MOESIM_BIAS_ON_LOGITS ? MOESIM_IDENTITY : (enum moesim_score)p->score,
                         batch->columns, batch->stride, batch->n_tokens, w->n_experts, p->k, batch->memory,
                         batch->padding, w->quantile, w->asked);
}

enum moesim_status moesim_choice_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                       struct moesim_error *err)
{
    struct moesim_choice_state *s = state;
    struct moesim_choice_work *w = s->work;
    struct noise noise;
    struct moesim_logit_rows rows;
    const struct token_choice c = set_up(s, batch, &noise, &rows);
    const float *bias = w->has_bias ? batch->memory : NULL;
    moesim_token_choice_sums(s->scratch, c.rows ? NULL : w->losses.sums);
    const enum moesim_status status =
        c.rows ? moesim_token_choice_route_rows(c.p, batch, c.rows, bias, c.scratch, plan, err)
               : moesim_token_choice_route(c.p, batch, c.logits, c.stride, bias, c.scratch, plan, err);
    if (status)
        return status;
    if (w->quantile && batch->phase == MOESIM_TRAIN)
        ask_for_bias(s, batch);
    choice_losses_add(&c, &w->losses, plan);
    return MOESIM_OK;
}

enum moesim_status moesim_choice_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                          struct moesim_grad *grad, struct moesim_error *err)
{
    struct moesim_choice_state *s = state;
    struct noise noise;
    struct moesim_logit_rows rows;
    const struct token_choice c = set_up(s, batch, &noise, &rows);
    (void)err;
    /* the noise is a constant: what flows into a noisy logit flows into the clean one */
    token_choice_backward(&c, plan, grad->d_weight, grad->d_columns, batch->stride);
    choice_losses_backward(&c, &s->work->losses, plan, grad);
    return MOESIM_OK;
}

/* ---- update ---- */

/* The mean of what the micro-batches asked for, centred. */
static void follow_quantile(struct moesim_choice_work *w, float *bias)
{
    double mean = 0;
    for (uint32_t e = 0; e < w->n_experts; e++)
        mean += (w->asked_sum[e] + w->asked[e]) / (w->n_asked + 1) / w->n_experts;
    for (uint32_t e = 0; e < w->n_experts; e++)
        bias[e] = (float)((w->asked_sum[e] + w->asked[e]) / (w->n_asked + 1) - mean);
}

enum moesim_status moesim_choice_update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    struct moesim_choice_state *s = state;
    const struct moesim_token_choice *p = &s->choice;
    (void)err;
    if (p->bias_update == MOESIM_BIAS_QUANTILE)
        follow_quantile(s->work, feedback->memory);
    else if (p->bias_update != MOESIM_BIAS_FIXED)
        moesim_bias_step(p->bias_update, p->gamma, feedback->assigned, s->work->n_experts, feedback->memory);
    return MOESIM_OK;
}
