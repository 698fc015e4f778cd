/*
 * cosine: a token is projected to a few dimensions and compared with one learned embedding per expert by their cosine,
 * so that the length of neither counts: logits l = cos(x W, e) / temperature. From there on it is a token-choice router
 * like softmax-topk.
 *
 * Learned weights: the projection W [d_model][dim], the embeddings [dim][E], then one number a; the temperature is
 * temperature e^-a, at least 0.01.
 *
 * Chi et al., "On the Representation Collapse of Sparse Mixture of Experts" (X-MoE), NeurIPS 2022 (arXiv:2204.09179);
 * both sides are normalised and the temperature is learned, as in Tutel's cosine gate.
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct cosine_params {
    struct moesim_token_choice choice;
    uint32_t dim;
    double temperature;
};

static const struct moesim_param cosine_schema[] = {
    MOESIM_FIT_PARAMS(struct cosine_params, choice, "top_k", "0", "megatron", "token"),
    MOESIM_SCORE_PARAMS(struct cosine_params, choice, "softmax", "none", "1"),
    MOESIM_OVERFLOW_PARAMS(struct cosine_params, choice, "drop"),
    MOESIM_PARAM(struct cosine_params, dim, "16", 1, 65536, "dimensions in which token and expert are compared"),
    MOESIM_PARAM(struct cosine_params, temperature, "0.5", 0.01, 1e6, "divides the cosine, before training"),
    MOESIM_PARAM_END,
};

#define NORM_LEAST 1e-12
#define SCALE_MOST 100.0
#define RUN_TOKENS 4096u

struct cosine {
    struct cosine_params p;
    struct moesim_token_choice_scratch *scratch;
    uint32_t n_experts, d_model, n_threads;
    float *unit_h, *h_factor; /* [max_tokens][dim] projected tokens over their norm; [max_tokens] 1 / norm */
    float *unit_e, *e_factor; /* [dim][E]; [E] */
    float *logits;            /* [max_tokens][E] */
    float *d_logits;          /* [RUN_TOKENS][E] */
    float *d_unit_h;          /* [RUN_TOKENS][dim] */
    float *d_unit_e;          /* [dim][E] */
};

static enum moesim_status cosine_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                       struct moesim_error *err)
{
    const struct cosine_params *p = params;
    shape->n_columns = 0;
    shape->n_weights = (uint64_t)p->dim * ((uint64_t)env->d_model + env->n_experts) + 1;
    return moesim_token_choice_shape(&p->choice, env, shape, err);
}

static enum moesim_status cosine_init(void *state, const void *params, const struct moesim_env *env,
                                      struct moesim_error *err)
{
    struct cosine *r = state;
    r->p = *(const struct cosine_params *)params;
    r->n_experts = env->n_experts;
    r->d_model = env->d_model;
    r->n_threads = moesim_threads();
    const size_t n_tokens = env->max_tokens, n = env->n_experts, dim = r->p.dim;
    const size_t n_run = n_tokens < RUN_TOKENS ? n_tokens : RUN_TOKENS;
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(unit_h, n_tokens * dim) && ROOM(h_factor, n_tokens) && ROOM(unit_e, dim * n) && ROOM(e_factor, n);
    ok = ok && ROOM(logits, n_tokens * n) && ROOM(d_logits, n_run * n);
    ok = ok && ROOM(d_unit_h, n_run * dim) && ROOM(d_unit_e, dim * n);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to compare %u tokens with %u experts", env->max_tokens,
                           env->n_experts);
    return moesim_token_choice_init(&r->p.choice, env, &r->scratch, err);
}

/* What all tokens of one call share. */
struct call {
    const struct cosine *r;
    const struct moesim_batch *batch;
    const float *projection, *embedding; /* of the learned weights */
    float scale;                         /* 1 / temperature */
    bool scale_learns;                   /* it is not at its bound */
};

static struct call start(const struct cosine *r, const struct moesim_batch *batch)
{
    struct call c = {.r = r, .batch = batch, .projection = batch->weights};
    c.embedding = c.projection + (size_t)r->d_model * r->p.dim;
    const double scale = exp(c.embedding[(size_t)r->p.dim * r->n_experts]) / r->p.temperature;
    c.scale_learns = scale < SCALE_MOST;
    c.scale = (float)(c.scale_learns ? scale : SCALE_MOST);
    return c;
}

/* x[0 .. n) at `stride` over its norm; returns 1 / norm, 0 when nothing of it is a number. */
static float normalise(float *x, size_t n, size_t stride)
{
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += (double)x[i * stride] * x[i * stride];
    const double factor = 1 / fmax(sqrt(square), NORM_LEAST);
    const bool number = square - square == 0;
    for (size_t i = 0; i < n; i++)
        x[i * stride] = number ? (float)(x[i * stride] * factor) : NAN;
    return number ? (float)factor : 0;
}

/* ---- forward ---- */

static void normalise_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    (void)thread;
    for (uint32_t t = first; t < last; t++)
        c->r->h_factor[t] = normalise(c->r->unit_h + (size_t)t * c->r->p.dim, c->r->p.dim, 1);
}

static enum moesim_status cosine_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                       struct moesim_error *err)
{
    const struct cosine *r = state;
    struct call c = start(r, batch);
    const size_t n = r->n_experts, n_tokens = batch->n_tokens;
    moesim_project(batch->hidden, batch->n_tokens, r->d_model, c.projection, r->p.dim, r->unit_h);
    moesim_for_tokens(batch->n_tokens, r->n_threads, normalise_tokens, &c);
    memcpy(r->unit_e, c.embedding, r->p.dim * n * sizeof *r->unit_e);
    for (size_t e = 0; e < n; e++) /* with the scale, so that the product is the logit */
        r->e_factor[e] = normalise(r->unit_e + e, r->p.dim, n);
    moesim_project(r->unit_h, batch->n_tokens, r->p.dim, r->unit_e, r->n_experts, r->logits);
    for (size_t i = 0; i < n_tokens * n; i++)
        r->logits[i] *= c.scale;
    return moesim_token_choice_route(&r->p.choice, batch, r->logits, n, NULL, r->scratch, plan, err);
}

/* ---- gradient ---- */

/* d x += factor (d u - u (u . d u)) for a unit vector u = x / norm. */
static void normalise_backward(const float *unit, const float *d_unit, float factor, size_t n, size_t stride,
                               float *d_x)
{
    double along = 0;
    for (size_t i = 0; i < n; i++)
        along += (double)unit[i * stride] * d_unit[i * stride];
    for (size_t i = 0; i < n; i++)
        d_x[i * stride] = (float)(factor * (d_unit[i * stride] - unit[i * stride] * along));
}

/* A run of the batch's tokens, whose gradients are held at once. */
struct run {
    struct moesim_batch batch;
    struct moesim_plan plan;
    float *logits, *unit_h, *h_factor;
};

static struct run run_of(const struct cosine *r, const struct moesim_batch *batch, const struct moesim_plan *plan,
                         size_t first)
{
    const uint32_t rest = batch->n_tokens - (uint32_t)first;
    struct run run = {.batch = *batch, .plan = *plan};
    run.batch.n_tokens = run.plan.n_tokens = rest < RUN_TOKENS ? rest : RUN_TOKENS;
    run.batch.hidden += first * r->d_model;
    run.plan.first += first;
    run.logits = r->logits + first * r->n_experts;
    run.unit_h = r->unit_h + first * r->p.dim;
    run.h_factor = r->h_factor + first;
    return run;
}

/* The loss by a run's logits turns into that by the unscaled cosines; returns the loss by ln scale. */
static double scale_backward(const struct call *c, const struct run *run)
{
    const size_t cells = (size_t)run->batch.n_tokens * c->r->n_experts;
    double d_log = 0;
    for (size_t i = 0; i < cells; i++) {
        if (c->r->d_logits[i] == 0)
            continue;
        d_log += (double)c->r->d_logits[i] * run->logits[i];
        c->r->d_logits[i] *= c->scale;
    }
    return d_log;
}

/* Gradients of a run: d_hidden and the projection's are added to, r->d_unit_e too; returns the loss by ln scale. */
static double run_backward(const struct call *c, const struct run *run, struct moesim_grad *grad, float *d_hidden)
{
    const struct cosine *r = c->r;
    const size_t n = r->n_experts, dim = r->p.dim, n_tokens = run->batch.n_tokens;
    memset(r->d_logits, 0, n_tokens * n * sizeof *r->d_logits);
    memset(r->d_unit_h, 0, n_tokens * dim * sizeof *r->d_unit_h);
    moesim_token_choice_backward(&r->p.choice, &run->batch, run->logits, n, &run->plan, grad->d_weight, r->scratch,
                                 r->d_logits);
    const double d_log = scale_backward(c, run);
    for (size_t t = 0; t < n_tokens; t++)
        if (run->h_factor[t] == 0) /* a token that is no number has no gradient */
            memset(run->unit_h + t * dim, 0, dim * sizeof *run->unit_h);
    moesim_project_backward(run->unit_h, r->unit_e, r->d_logits, run->batch.n_tokens, r->p.dim, r->n_experts,
                            r->d_unit_h, r->d_unit_e);
    for (size_t t = 0; t < n_tokens; t++)
        normalise_backward(run->unit_h + t * dim, r->d_unit_h + t * dim, run->h_factor[t], dim, 1,
                           r->d_unit_h + t * dim);
    moesim_project_backward(run->batch.hidden, c->projection, r->d_unit_h, run->batch.n_tokens, r->d_model, r->p.dim,
                            d_hidden, grad->d_weights);
    return d_log;
}

static enum moesim_status cosine_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                          struct moesim_grad *grad, struct moesim_error *err)
{
    const struct cosine *r = state;
    const struct call c = start(r, batch);
    const size_t n = r->n_experts, dim = r->p.dim;
    double d_log = 0;
    (void)err;
    memset(r->d_unit_e, 0, dim * n * sizeof *r->d_unit_e);
    for (size_t first = 0; first < batch->n_tokens; first += RUN_TOKENS) {
        const struct run run = run_of(r, batch, plan, first);
        d_log += run_backward(&c, &run, grad, grad->d_hidden ? grad->d_hidden + first * r->d_model : NULL);
    }
    float *d_embedding = grad->d_weights ? grad->d_weights + (size_t)r->d_model * dim : NULL;
    if (!d_embedding)
        return MOESIM_OK;
    for (size_t e = 0; e < n; e++)
        normalise_backward(r->unit_e + e, r->d_unit_e + e, r->e_factor[e], dim, n, r->d_unit_e + e);
    for (size_t i = 0; i < dim * n; i++)
        d_embedding[i] += r->d_unit_e[i];
    if (c.scale_learns)
        d_embedding[dim * n] += (float)d_log;
    return MOESIM_OK;
}

const struct moesim_router moesim_router_cosine = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_HIDDEN,
    .name = "cosine",
    .summary = "each token takes its k experts of highest cosine in a learned low dimension",
    .reference = "Chi et al., On the Representation Collapse of Sparse Mixture of Experts, NeurIPS 2022",
    .params = cosine_schema,
    .params_size = sizeof(struct cosine_params),
    .state_size = sizeof(struct cosine),
    .shape = cosine_shape,
    .init = cosine_init,
    .route = cosine_route,
    .backward = cosine_backward,
};
