/*
 * soft: every expert has `slots` slots per group of tokens, and every slot holds a weighted mean of all its tokens.
 * With l = scale x^ mu^ (the token and each slot's learned direction, both divided by sqrt(sum of squares + 1e-6)), the
 * dispatch weights are the softmax of l over the group's tokens and the combine weights its softmax over the slots:
 * slot inputs are D^T X with X as it is, a token's output is C times the slots' outputs. Nothing is dropped, every
 * expert gets the same load, and everything is differentiable.
 *
 * Learned weights: mu [d_model][E * slots], slots of one expert side by side; then one number that is added to `scale`.
 *
 * Puigcerver et al., "From Sparse to Soft Mixtures of Experts", ICLR 2024 (arXiv:2308.00951).
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct soft_params {
    uint32_t slots;
    double scale;
    const char *group;
};

static const struct moesim_param soft_schema[] = {
    MOESIM_PARAM(struct soft_params, slots, "1", 1, 4096, "slots per expert and group"),
    MOESIM_PARAM(struct soft_params, scale, "1", 1e-6, 1e6, "factor on the logits before training"),
    MOESIM_PARAM(struct soft_params, group, "device", 0, 0,
                 "tokens that are mixed with each other: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM_END,
};

#define NORM_EPS 1e-6
#define RUN_TOKENS 1024u /* whose unit vectors are held at once */

struct soft {
    struct soft_params p;
    uint32_t n_slots, d_model, n_threads;
    float *unit_x;     /* [RUN_TOKENS][d_model] tokens over their norm */
    float *unit_mu;    /* [d_model][n_slots] */
    float *x_factor;   /* [max_tokens] 1 / norm; 0 = the token takes no part */
    float *mu_factor;  /* [n_slots] */
    float *logits;     /* [max_tokens][n_slots] without the scale; in backward the loss by the scaled ones */
    float *d_unit_x;   /* [RUN_TOKENS][d_model] */
    float *d_unit_mu;  /* [d_model][n_slots] */
    double *max, *sum; /* [n_slots] of one group's columns */
};

static enum moesim_status soft_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                     struct moesim_error *err)
{
    const struct soft_params *p = params;
    const uint64_t n_slots = (uint64_t)env->n_experts * p->slots;
    if (n_slots > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL, "slots = %u of %u experts are more than 2^32", p->slots, env->n_experts);
    shape->n_columns = 0;
    shape->n_slots = (uint32_t)n_slots;
    shape->n_weights = n_slots * env->d_model + 1;
    shape->max_pairs = 0;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status soft_init(void *state, const void *params, const struct moesim_env *env,
                                    struct moesim_error *err)
{
    struct soft *r = state;
    r->p = *(const struct soft_params *)params;
    r->n_slots = env->n_experts * r->p.slots;
    r->d_model = env->d_model;
    r->n_threads = moesim_threads();
    const size_t d = r->d_model, n = r->n_slots, n_tokens = env->max_tokens;
    const size_t n_run = n_tokens < RUN_TOKENS ? n_tokens : RUN_TOKENS;
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(unit_x, n_run * d) && ROOM(unit_mu, d * n) && ROOM(x_factor, n_tokens) && ROOM(mu_factor, n);
    ok = ok && ROOM(logits, n_tokens * n) && ROOM(d_unit_x, n_run * d) && ROOM(d_unit_mu, d * n);
    ok = ok && ROOM(max, n) && ROOM(sum, n);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to mix %u tokens into %u slots", env->max_tokens, r->n_slots);
    return MOESIM_OK;
}

/* What all tokens of one call share. */
struct call {
    const struct soft *r;
    const struct moesim_batch *batch;
    struct moesim_plan *plan;
    const struct moesim_grad *grad;
    double scale;
};

static struct call start(const struct soft *r, const struct moesim_batch *batch)
{
    const size_t n_mu = (size_t)r->d_model * r->n_slots;
    return (struct call){.r = r, .batch = batch, .scale = r->p.scale + batch->weights[n_mu]};
}

/* ---- forward ---- */

static bool is_in(const struct call *c, uint32_t t)
{
    return c->r->x_factor[t] > 0;
}

static uint32_t run_size(const struct moesim_batch *batch, uint32_t first)
{
    const uint32_t rest = batch->n_tokens - first;
    return rest < RUN_TOKENS ? rest : RUN_TOKENS;
}

/* Unit vectors of a run of tokens; one with NaN or an infinity is a bad row. */
static void unit_tokens(const struct call *c, uint32_t first)
{
    const struct soft *r = c->r;
    const size_t d = r->d_model;
    for (uint32_t i = 0, n = run_size(c->batch, first); i < n; i++) {
        const uint32_t t = first + i;
        const float *x = c->batch->hidden + t * d;
        float *unit = r->unit_x + i * d;
        double square = NORM_EPS;
        for (size_t j = 0; j < d; j++)
            square += (double)x[j] * x[j];
        const bool padding = c->batch->padding && c->batch->padding[t];
        const double factor = 1 / sqrt(square);
        r->x_factor[t] = !padding && isfinite(square) ? (float)factor : 0;
        for (size_t j = 0; j < d; j++)
            unit[j] = r->x_factor[t] > 0 ? (float)(x[j] * factor) : 0;
    }
}

static void unit_directions(const struct soft *r, const float *mu)
{
    for (uint32_t s = 0; s < r->n_slots; s++)
        r->sum[s] = NORM_EPS;
    for (size_t i = 0; i < r->d_model; i++)
        for (uint32_t s = 0; s < r->n_slots; s++)
            r->sum[s] += (double)mu[i * r->n_slots + s] * mu[i * r->n_slots + s];
    for (uint32_t s = 0; s < r->n_slots; s++)
        r->mu_factor[s] = (float)(1 / sqrt(r->sum[s]));
    for (size_t i = 0; i < r->d_model; i++)
        for (uint32_t s = 0; s < r->n_slots; s++)
            r->unit_mu[i * r->n_slots + s] = mu[i * r->n_slots + s] * r->mu_factor[s];
}

/* Logits of -1 .. 1 by `logits` of the call's tokens, before the scale. */
static void set_logits(const struct call *c)
{
    const struct soft *r = c->r;
    unit_directions(r, c->batch->weights);
    for (uint32_t first = 0; first < c->batch->n_tokens; first += RUN_TOKENS) {
        unit_tokens(c, first);
        moesim_project(r->unit_x, run_size(c->batch, first), r->d_model, r->unit_mu, r->n_slots,
                       r->logits + (size_t)first * r->n_slots);
    }
}

/* Softmax over the slots, token by token. */
static void combine_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const size_t n = c->r->n_slots;
    (void)thread;
    for (uint32_t t = first; t < last; t++) {
        float *row = c->plan->combine + t * n, *logits = c->r->logits + t * n;
        if (!is_in(c, t)) {
            memset(row, 0, n * sizeof *row);
            memset(c->plan->dispatch + t * n, 0, n * sizeof *row);
            continue;
        }
        for (size_t s = 0; s < n; s++)
            logits[s] = (float)(logits[s] * c->scale);
        moesim_score_row(MOESIM_SOFTMAX, logits, (uint32_t)n, row);
    }
}

/* Softmax over one group's tokens, slot by slot. */
static void dispatch_group(const struct call *c, uint32_t group)
{
    const struct soft *r = c->r;
    const size_t n = r->n_slots;
    const uint32_t first = c->batch->group_start[group], last = c->batch->group_start[group + 1];
    for (size_t s = 0; s < n; s++) {
        r->max[s] = -INFINITY;
        r->sum[s] = 0;
    }
    for (uint32_t t = first; t < last; t++)
        for (size_t s = 0; is_in(c, t) && s < n; s++)
            r->max[s] = r->logits[t * n + s] > r->max[s] ? r->logits[t * n + s] : r->max[s];
    for (uint32_t t = first; t < last; t++)
        for (size_t s = 0; is_in(c, t) && s < n; s++) {
            const float e = moesim_expf((float)(r->logits[t * n + s] - r->max[s]));
            c->plan->dispatch[t * n + s] = e;
            r->sum[s] += e;
        }
    for (uint32_t t = first; t < last; t++)
        for (size_t s = 0; is_in(c, t) && s < n; s++)
            c->plan->dispatch[t * n + s] = (float)(c->plan->dispatch[t * n + s] / r->sum[s]);
}

static enum moesim_status soft_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                     struct moesim_error *err)
{
    struct call c = start(state, batch);
    (void)err;
    c.plan = plan;
    set_logits(&c);
    moesim_for_tokens(batch->n_tokens, c.r->n_threads, combine_tokens, &c);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        dispatch_group(&c, g);
    memset(plan->first, 0, ((size_t)batch->n_tokens + 1) * sizeof *plan->first);
    for (size_t i = 0; i < (size_t)batch->n_groups * plan->n_experts; i++)
        plan->capacity[i] = c.r->p.slots;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        plan->n_bad_rows += !is_in(&c, t) && !(batch->padding && batch->padding[t]);
    return MOESIM_OK;
}

/* ---- gradient ---- */

/* r->max = sum_t D g per slot of one group, then r->logits = the loss by the scaled logits. */
static void softmax_backward(const struct call *c, uint32_t group)
{
    const struct soft *r = c->r;
    const size_t n = r->n_slots;
    const uint32_t first = c->batch->group_start[group], last = c->batch->group_start[group + 1];
    const float *dispatch = c->plan->dispatch, *combine = c->plan->combine;
    for (size_t s = 0; s < n; s++)
        r->max[s] = 0;
    for (uint32_t t = first; t < last; t++)
        for (size_t s = 0; s < n; s++)
            r->max[s] += (double)dispatch[t * n + s] * c->grad->d_dispatch[t * n + s];
    for (uint32_t t = first; t < last; t++) {
        double mean = 0;
        for (size_t s = 0; s < n; s++)
            mean += (double)combine[t * n + s] * c->grad->d_combine[t * n + s];
        for (size_t s = 0; s < n; s++)
            r->logits[t * n + s] = (float)(dispatch[t * n + s] * (c->grad->d_dispatch[t * n + s] - r->max[s]) +
                                           combine[t * n + s] * (c->grad->d_combine[t * n + s] - mean));
    }
}

/* From a run's unit vectors to the vectors: d v = factor (d u - u (u . d u)). */
static void tokens_backward(const struct call *c, uint32_t first)
{
    const size_t d = c->r->d_model;
    for (uint32_t i = 0, n = run_size(c->batch, first); c->grad->d_hidden && i < n; i++) {
        const float *unit = c->r->unit_x + i * d, *d_unit = c->r->d_unit_x + i * d;
        float *d_x = c->grad->d_hidden + (first + i) * d;
        double along = 0;
        for (size_t j = 0; j < d; j++)
            along += (double)unit[j] * d_unit[j];
        for (size_t j = 0; j < d; j++)
            d_x[j] += (float)(c->scale * c->r->x_factor[first + i] * (d_unit[j] - unit[j] * along));
    }
}

static void directions_backward(const struct call *c, double d_scale)
{
    const struct soft *r = c->r;
    const size_t n = r->n_slots, cells = r->d_model * n;
    for (size_t s = 0; s < n; s++)
        r->sum[s] = 0;
    for (size_t i = 0; i < cells; i++)
        r->sum[i % n] += (double)r->unit_mu[i] * r->d_unit_mu[i];
    for (size_t i = 0; i < cells; i++)
        c->grad->d_weights[i] +=
            (float)(c->scale * r->mu_factor[i % n] * (r->d_unit_mu[i] - r->unit_mu[i] * r->sum[i % n]));
    c->grad->d_weights[cells] += (float)d_scale;
}

static enum moesim_status soft_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                        struct moesim_grad *grad, struct moesim_error *err)
{
    const struct soft *r = state;
    struct moesim_plan routed = *plan;
    struct call c = start(r, batch);
    const size_t d = r->d_model, n = r->n_slots;
    (void)err;
    c.plan = &routed;
    c.grad = grad;
    for (uint32_t g = 0; g < batch->n_groups; g++)
        softmax_backward(&c, g);
    memset(r->d_unit_mu, 0, d * n * sizeof *r->d_unit_mu);
    for (uint32_t first = 0; first < batch->n_tokens; first += RUN_TOKENS) {
        const uint32_t size = run_size(batch, first);
        unit_tokens(&c, first);
        memset(r->d_unit_x, 0, size * d * sizeof *r->d_unit_x);
        moesim_project_backward(r->unit_x, r->unit_mu, r->logits + first * n, size, r->d_model, r->n_slots, r->d_unit_x,
                                r->d_unit_mu);
        tokens_backward(&c, first);
    }
    double d_scale = 0; /* the loss by the scale is that by the logits times the unit products */
    for (size_t i = 0; i < d * n; i++)
        d_scale += (double)r->unit_mu[i] * r->d_unit_mu[i];
    if (grad->d_weights)
        directions_backward(&c, d_scale);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_soft = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_HIDDEN,
    .name = "soft",
    .summary = "every slot is a weighted mean of all tokens, every token of all slots",
    .reference = "Puigcerver et al., From Sparse to Soft Mixtures of Experts, ICLR 2024",
    .params = soft_schema,
    .params_size = sizeof(struct soft_params),
    .state_size = sizeof(struct soft),
    .shape = soft_shape,
    .init = soft_init,
    .route = soft_route,
    .backward = soft_backward,
};
