/*
 * sparsemixer: k experts one after another. For each choice the experts whose logit is within 2 epsilon of the best
 * one, (max - l) / max(|l|, max) <= 2 epsilon, are candidates: training draws one of them by their softmax (Gumbel),
 * evaluation takes the best. The chosen one is left out of the next choice. Each weight is the softmax over the
 * candidates of its own choice, so a token's weights sum to at most k.
 *
 * The gradient of the discrete choice is estimated by Heun's third-order method, f(x) - f(0) = f'(x)/4 + 3 f'(x/3)/4:
 * in training a choice that is not the best candidate has its weight times 1/3 three times in four, while backward()
 * passes the loss by the weight through the softmax as if the weight had been whole: d l_j = g p (1[j chosen] - p_j).
 *
 * Liu, Dong et al., "GRIN: GRadient-INformed MoE", 2024 (arXiv:2409.12136), the router of Phi-3.5-MoE.
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>
#include <moesim/router.h>

struct sparsemixer_params {
    uint32_t k;
    double epsilon, jitter;
};

static const struct moesim_param sparsemixer_schema[] = {
    MOESIM_PARAM(struct sparsemixer_params, k, "top_k", 1, 65536, "experts per token"),
    MOESIM_PARAM(struct sparsemixer_params, epsilon, "0.01", 0, 0.499,
                 "candidates are within 2 epsilon of the best logit"),
    MOESIM_PARAM(struct sparsemixer_params, jitter, "0", 0, 0.999,
                 "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

enum { STREAM_GUMBEL = MOESIM_STREAM_ROUTER, STREAM_HEUN };

#define SPARE 8u /* experts looked at beyond k before all are */

struct sparsemixer {
    struct sparsemixer_params p;
    uint32_t n_experts, n_best, n_threads;
    struct moesim_chooser *chooser;
    uint32_t *best;      /* [max_tokens][n_best] by decreasing logit */
    uint32_t *ranked;    /* [threads][n_best] */
    uint32_t *candidate; /* [threads][E] */
    uint8_t *taken;      /* [threads][E] */
    float *share;        /* [threads][E] softmax over the candidates */
};

static enum moesim_status sparsemixer_shape(const void *params, const struct moesim_env *env,
                                            struct moesim_shape *shape, struct moesim_error *err)
{
    const struct sparsemixer_params *p = params;
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts", p->k, env->n_experts);
    shape->max_pairs = (uint64_t)env->max_tokens * p->k;
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

static enum moesim_status sparsemixer_init(void *state, const void *params, const struct moesim_env *env,
                                           struct moesim_error *err)
{
    struct sparsemixer *r = state;
    r->p = *(const struct sparsemixer_params *)params;
    r->n_experts = env->n_experts;
    r->n_best = r->p.k + SPARE < env->n_experts ? r->p.k + SPARE : env->n_experts;
    r->n_threads = moesim_threads();
    const size_t n = (size_t)r->n_threads * env->n_experts;
    r->best = moesim_alloc(env->arena, (size_t)env->max_tokens * r->n_best, sizeof *r->best);
    r->ranked = moesim_alloc(env->arena, (size_t)r->n_threads * r->n_best, sizeof *r->ranked);
    r->taken = moesim_alloc(env->arena, n, sizeof *r->taken);
    r->candidate = moesim_alloc(env->arena, n, sizeof *r->candidate);
    r->share = moesim_alloc(env->arena, n, sizeof *r->share);
    if (!r->best || !r->ranked || !r->taken || !r->candidate || !r->share)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the choices of %u tokens", env->max_tokens);
    return moesim_chooser_init(env, env->n_experts, r->p.k, &r->chooser, err);
}

/* What is left of one token's ranking while its choices are made. */
struct row {
    const float *logits;
    uint32_t *ranked, n_ranked; /* by decreasing logit, without what is taken */
    bool whole;                 /* no expert beyond the ranked ones can be a candidate */
    uint8_t *taken;             /* [E] */
};

/* One choice of one token: its candidates, best first, and their softmax. */
struct mixture {
    uint32_t n, *expert;
    float *share;
};

static struct row start_row(const struct sparsemixer *r, const struct moesim_batch *batch, uint32_t t, uint32_t thread)
{
    const uint32_t *best = r->best + (size_t)t * r->n_best;
    struct row row = {.logits = batch->columns + (size_t)t * batch->stride,
                      .ranked = r->ranked + (size_t)thread * r->n_best,
                      .whole = r->n_best == r->n_experts,
                      .taken = r->taken + (size_t)thread * r->n_experts};
    memset(row.taken, 0, r->n_experts);
    for (; row.n_ranked < r->n_best; row.n_ranked++) {
        const uint32_t e = best[row.n_ranked];
        if (e == MOESIM_NO_EXPERT || row.logits[e] == -INFINITY) {
            row.whole = true;
            break;
        }
        row.ranked[row.n_ranked] = e;
    }
    return row;
}

/* A candidate stands near the front, so what stands before it moves up. */
static void take(struct row *row, uint32_t expert)
{
    row->taken[expert] = 1;
    for (uint32_t i = 0; i < row->n_ranked; i++) {
        if (row->ranked[i] != expert)
            continue;
        memmove(row->ranked + 1, row->ranked, i * sizeof *row->ranked);
        row->ranked++;
        row->n_ranked--;
        return;
    }
}

/* Whether a logit is close enough to the best one. Beside an infinite one only its equals are. */
static bool is_candidate(const struct sparsemixer *r, float logit, float max)
{
    if (isinf(max))
        return logit == max;
    const float size = fabsf(logit);
    return logit == max || (max - logit) / (size > max ? size : max) <= 2 * (float)r->p.epsilon;
}

/* The candidates of the next choice; none when no finite or infinite logit is left. */
static struct mixture mix(const struct sparsemixer *r, const struct row *row, uint32_t thread)
{
    const float *logits = row->logits;
    struct mixture m = {0, r->candidate + (size_t)thread * r->n_experts, r->share + (size_t)thread * r->n_experts};
    const float max = row->n_ranked ? logits[row->ranked[0]] : -INFINITY;
    for (; m.n < row->n_ranked && is_candidate(r, logits[row->ranked[m.n]], max); m.n++)
        m.expert[m.n] = row->ranked[m.n];
    if (m.n == row->n_ranked && !row->whole) { /* more candidates than were ranked: all in order of ids but the best */
        m.n = 1;
        for (uint32_t e = 0; e < r->n_experts; e++)
            if (e != m.expert[0] && !row->taken[e] && logits[e] == logits[e] && is_candidate(r, logits[e], max))
                m.expert[m.n++] = e;
    }
    double sum = 0;
    for (uint32_t i = 0; i < m.n; i++) {
        m.share[i] = isinf(max) ? 1 : moesim_expf(logits[m.expert[i]] - max);
        sum += m.share[i];
    }
    for (uint32_t i = 0; i < m.n; i++)
        m.share[i] = (float)(m.share[i] / sum);
    return m;
}

/* The candidate with the largest logit + Gumbel noise. */
static uint32_t draw(const struct sparsemixer *r, const struct moesim_batch *batch, const struct mixture *m, uint32_t t,
                     uint32_t choice)
{
    const struct moesim_random random = {batch->seed, STREAM_GUMBEL, batch->layer, batch->step};
    const float *logits = batch->columns + (size_t)t * batch->stride;
    const uint64_t row = ((uint64_t)batch->micro_batch * batch->n_tokens + t) * r->p.k + choice;
    uint32_t chosen = 0;
    double most = -INFINITY;
    for (uint32_t i = 0; m->n > 1 && i < m->n; i++) {
        const double u = 1 - (double)moesim_random_uniform(&random, row * r->n_experts + m->expert[i]);
        const double x = (isinf(logits[m->expert[i]]) ? 0 : logits[m->expert[i]]) - log(-log(u));
        if (x > most) {
            most = x;
            chosen = i;
        }
    }
    return chosen;
}

struct call {
    const struct sparsemixer *r;
    const struct moesim_batch *batch;
    const struct moesim_plan *plan;
    struct moesim_grad *grad;
};

/* Whether Heun's method looks at the third of the way. */
static bool is_third(const struct call *c, uint32_t t, uint32_t choice)
{
    const struct moesim_random random = {c->batch->seed, STREAM_HEUN, c->batch->layer, c->batch->step};
    const uint64_t row = (uint64_t)c->batch->micro_batch * c->batch->n_tokens + t;
    return !(moesim_random_uniform(&random, row * c->r->p.k + choice) > 0.75f);
}

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const bool train = c->batch->phase == MOESIM_TRAIN;
    struct row row = start_row(c->r, c->batch, t, thread);
    uint32_t n = 0, n_finite = 0;
    for (; n < c->r->p.k; n++) {
        const struct mixture m = mix(c->r, &row, thread);
        if (m.n == 0)
            break;
        const uint32_t i = train ? draw(c->r, c->batch, &m, t, n) : 0;
        out->expert[n] = m.expert[i];
        out->weight[n] = i > 0 && is_third(c, t, n) ? m.share[i] / 3 : m.share[i];
        n_finite += isfinite(row.logits[m.expert[i]]);
        take(&row, m.expert[i]);
    }
    if (n_finite == 0) /* only infinities were taken: is there a number at all? */
        for (uint32_t e = 0; e < c->r->n_experts && n_finite == 0; e++)
            n_finite += isfinite(row.logits[e]);
    if (n == 0 || n_finite == 0)
        return MOESIM_NO_CHOICE;
    for (; n < c->r->p.k; n++) { /* fewer numbers than choices */
        out->expert[n] = MOESIM_NO_EXPERT;
        out->fate[n] = MOESIM_BAD_ROW;
    }
    return n;
}

static enum moesim_status sparsemixer_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                            struct moesim_error *err)
{
    const struct sparsemixer *r = state;
    const struct call c = {.r = r, .batch = batch};
    (void)err;
    moesim_topk(batch->columns, batch->stride, batch->n_tokens, r->n_experts, r->n_best, r->best);
    moesim_plan_unlimited(plan);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    return MOESIM_OK;
}

static void backward_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    for (uint32_t t = first; t < last; t++) {
        const uint32_t begin = c->plan->first[t], n = c->plan->first[t + 1] - begin;
        struct row row = start_row(c->r, c->batch, t, thread);
        float *d_logits = c->grad->d_columns + (size_t)t * c->batch->stride;
        for (uint32_t choice = 0; choice < n && c->plan->fate[begin + choice] == MOESIM_KEPT; choice++) {
            const struct mixture m = mix(c->r, &row, thread);
            const uint32_t chosen = c->plan->expert[begin + choice];
            float own = 0;
            for (uint32_t i = 0; i < m.n; i++)
                if (m.expert[i] == chosen)
                    own = c->grad->d_weight[begin + choice] * m.share[i];
            for (uint32_t i = 0; i < m.n; i++)
                d_logits[m.expert[i]] += own * ((m.expert[i] == chosen) - m.share[i]);
            take(&row, chosen);
        }
    }
}

static enum moesim_status sparsemixer_backward(void *state, const struct moesim_batch *batch,
                                               const struct moesim_plan *plan, struct moesim_grad *grad,
                                               struct moesim_error *err)
{
    struct call c = {state, batch, plan, grad};
    (void)err;
    moesim_for_tokens(batch->n_tokens, c.r->n_threads, backward_tokens, &c);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_sparsemixer = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "sparsemixer",
    .summary = "k experts drawn among the near-best, each with a softmax of its own; Heun gradient",
    .reference = "Liu, Dong et al., GRIN: GRadient-INformed MoE, 2024",
    .params = sparsemixer_schema,
    .params_size = sizeof(struct sparsemixer_params),
    .state_size = sizeof(struct sparsemixer),
    .shape = sparsemixer_shape,
    .init = sparsemixer_init,
    .route = sparsemixer_route,
    .backward = sparsemixer_backward,
};
