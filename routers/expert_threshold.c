/*
 * expert-threshold: an expert takes every token whose score is above the expert's own threshold, whatever the other
 * tokens are: 0 to E experts a token, k in the mean. Thresholds are learned, not trained: each global batch of training
 * has for every expert the score that T k / E of its T tokens exceed, the (T k / E + 1)-th largest, and the threshold
 * follows it as an exponential moving average, threshold = ema * threshold + (1 - ema) * score, the mean over
 * micro-batches. Before the first update a batch is measured by its own quantile. The weight is the raw score.
 *
 * "Expert Threshold Routing", 2026 (arXiv:2603.11535).
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct expert_threshold_params {
    uint32_t k, score;
    double scale, ema;
    const char *group;
    double jitter;
};

static const struct moesim_param expert_threshold_schema[] = {
    MOESIM_PARAM(struct expert_threshold_params, k, "top_k", 1, 65536, "mean experts per token that thresholds aim at"),
    MOESIM_CHOICE(struct expert_threshold_params, score, "softmax", MOESIM_SCORE_CHOICES,
                  "score function over the gate's logits"),
    MOESIM_PARAM(struct expert_threshold_params, ema, "0.99", 0, 1,
                 "share of the old threshold that stays after each global batch"),
    MOESIM_PARAM(struct expert_threshold_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_PARAM(struct expert_threshold_params, group, "device", 0, 0,
                 "tokens whose slots are numbered together: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct expert_threshold_params, jitter, "0", 0, 0.999,
                 "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

/* Memory: the thresholds [E], then how often they were updated. */
#define BELOW_EVERY_SCORE (-1.0f)

struct expert_threshold {
    struct expert_threshold_params p;
    uint32_t n_experts, n_threads;
    struct moesim_chooser *chooser;
    float *scores;     /* [n_threads][2][E] of one token: all, then those above their thresholds or the gradient */
    float *base;       /* [max_tokens] 0, or NaN where the token takes no part */
    void *work;        /* of moesim_column_rank */
    float *own;        /* [E] the micro-batch's quantile */
    double *sum;       /* [E] of the global batch's earlier micro-batches */
    uint32_t n_summed; /* how many those are */
    uint32_t last_micro_batch;
    bool has_own;
};

static enum moesim_status expert_threshold_shape(const void *params, const struct moesim_env *env,
                                                 struct moesim_shape *shape, struct moesim_error *err)
{
    const struct expert_threshold_params *p = params;
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts", p->k, env->n_experts);
    shape->max_pairs = (uint64_t)env->max_tokens * env->n_experts;
    shape->n_memory = (uint64_t)env->n_experts + 1;
    shape->input_jitter = (float)p->jitter;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status expert_threshold_init(void *state, const void *params, const struct moesim_env *env,
                                                struct moesim_error *err)
{
    struct expert_threshold *r = state;
    const size_t n_experts = env->n_experts;
    bool ok = true;
    r->p = *(const struct expert_threshold_params *)params;
    r->n_experts = env->n_experts;
    r->n_threads = moesim_threads();
    r->last_micro_batch = UINT32_MAX;
#define ROOM(field, n) ((r->field = moesim_alloc(env->arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(scores, 2 * r->n_threads * n_experts) && ROOM(base, env->max_tokens);
    ok = ok && ROOM(own, n_experts) && ROOM(sum, n_experts);
#undef ROOM
    r->work = moesim_alloc(env->arena, moesim_column_rank_work(env->max_tokens), 1);
    if (!ok || !r->work)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u tokens", env->max_tokens);
    return moesim_chooser_init(env, env->n_experts, env->n_experts, &r->chooser, err);
}

/* Whether the token is one to route: it has a finite logit. */
static bool takes_part(const struct expert_threshold *r, const struct moesim_batch *batch, uint32_t t)
{
    const float *row = batch->columns + (size_t)t * batch->stride;
    bool any = false;
    if (batch->padding && batch->padding[t])
        return false;
    for (uint32_t e = 0; e < r->n_experts && !any; e++)
        any = isfinite(row[e]);
    return any;
}

/* Sets r->own: the score that a share k / E of the tokens exceeds. */
static void find_quantile(struct expert_threshold *r, const struct moesim_batch *batch)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const bool part = takes_part(r, batch, t);
        r->base[t] = part ? 0 : NAN;
        n += part;
    }
    const uint64_t rank = n * r->p.k / r->n_experts;
    r->has_own = n > 0;
    if (rank < n)
        moesim_column_rank(r->p.score, batch->columns, batch->stride, batch->n_tokens, r->n_experts, r->base,
                           (uint32_t)rank, r->work, r->own);
    for (uint32_t e = 0; e < r->n_experts; e++)
        r->own[e] = rank < n && r->own[e] == r->own[e] ? r->own[e] : BELOW_EVERY_SCORE;
}

/* Before a new micro-batch's quantile replaces it, adds the last one to the sum; one that is routed again does not. */
static void note_quantile(struct expert_threshold *r, const struct moesim_batch *batch)
{
    if (batch->micro_batch == 0) {
        memset(r->sum, 0, r->n_experts * sizeof *r->sum);
        r->n_summed = 0;
    } else if (batch->micro_batch != r->last_micro_batch && r->has_own) {
        for (uint32_t e = 0; e < r->n_experts; e++)
            r->sum[e] += r->own[e];
        r->n_summed++;
    }
    r->last_micro_batch = batch->micro_batch;
}

/* What all tokens of one call share. */
struct call {
    const struct expert_threshold *r;
    const struct moesim_batch *batch;
    const float *threshold;
    const struct moesim_plan *plan;
    const struct moesim_grad *grad;
};

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const uint32_t n_experts = c->r->n_experts;
    float *scores = c->r->scores + 2 * (size_t)thread * n_experts, *above = scores + n_experts;
    moesim_score_row(c->r->p.score, c->batch->columns + (size_t)t * c->batch->stride, n_experts, scores);
    bool any = false;
    for (uint32_t e = 0; e < n_experts; e++) {
        any |= scores[e] == scores[e];
        above[e] = scores[e] > c->threshold[e] ? scores[e] : BELOW_EVERY_SCORE;
    }
    if (!any)
        return MOESIM_NO_CHOICE;
    const uint32_t n = moesim_rank_above(above, n_experts, BELOW_EVERY_SCORE, out->expert);
    for (uint32_t i = 0; i < n; i++)
        out->weight[i] = (float)fmin(scores[out->expert[i]] * c->r->p.scale, FLT_MAX);
    return n;
}

static enum moesim_status expert_threshold_route(void *state, const struct moesim_batch *batch,
                                                 struct moesim_plan *plan, struct moesim_error *err)
{
    struct expert_threshold *r = state;
    const bool learned = batch->memory[r->n_experts] > 0;
    (void)err;
    if (batch->phase == MOESIM_TRAIN)
        note_quantile(r, batch);
    if (batch->phase == MOESIM_TRAIN || !learned)
        find_quantile(r, batch);
    const struct call c = {.r = r, .batch = batch, .threshold = learned ? batch->memory : r->own};
    moesim_plan_unlimited(plan);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    return MOESIM_OK;
}

static void backward_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const struct expert_threshold *r = c->r;
    float *scores = r->scores + 2 * (size_t)thread * r->n_experts, *d_scores = scores + r->n_experts;
    for (uint32_t t = first; t < last; t++) {
        const size_t row = (size_t)t * c->batch->stride;
        if (c->plan->first[t] == c->plan->first[t + 1])
            continue;
        moesim_score_row(r->p.score, c->batch->columns + row, r->n_experts, scores);
        memset(d_scores, 0, r->n_experts * sizeof *d_scores);
        for (uint32_t i = c->plan->first[t]; i < c->plan->first[t + 1]; i++)
            d_scores[c->plan->expert[i]] = (float)(r->p.scale * c->grad->d_weight[i]);
        moesim_score_row_backward(r->p.score, c->batch->columns + row, scores, d_scores, r->n_experts,
                                  c->grad->d_columns + row);
    }
}

static enum moesim_status expert_threshold_backward(void *state, const struct moesim_batch *batch,
                                                    const struct moesim_plan *plan, struct moesim_grad *grad,
                                                    struct moesim_error *err)
{
    struct call c = {.r = state, .batch = batch, .plan = plan, .grad = grad};
    (void)err;
    moesim_for_tokens(batch->n_tokens, c.r->n_threads, backward_tokens, &c);
    return MOESIM_OK;
}

static enum moesim_status expert_threshold_update(void *state, const struct moesim_feedback *feedback,
                                                  struct moesim_error *err)
{
    const struct expert_threshold *r = state;
    float *threshold = feedback->memory, *n_updates = feedback->memory + r->n_experts;
    const double n = r->n_summed + (r->has_own ? 1.0 : 0.0), ema = *n_updates > 0 ? r->p.ema : 0;
    (void)err;
    if (n <= 0)
        return MOESIM_OK;
    for (uint32_t e = 0; e < r->n_experts; e++) {
        const double mean = (r->sum[e] + (r->has_own ? r->own[e] : 0)) / n;
        threshold[e] = (float)(ema * threshold[e] + (1 - ema) * mean);
    }
    *n_updates += 1;
    return MOESIM_OK;
}

const struct moesim_router moesim_router_expert_threshold = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "expert-threshold",
    .summary = "each expert takes the tokens above its own threshold, which follows the batches' quantiles",
    .reference = "Expert Threshold Routing, 2026 (arXiv:2603.11535)",
    .params = expert_threshold_schema,
    .params_size = sizeof(struct expert_threshold_params),
    .state_size = sizeof(struct expert_threshold),
    .shape = expert_threshold_shape,
    .init = expert_threshold_init,
    .route = expert_threshold_route,
    .backward = expert_threshold_backward,
    .update = expert_threshold_update,
};
