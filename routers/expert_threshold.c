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

#define SCORE_BYTES ((size_t)32 << 20) /* kept; more experts than fit take several passes over the tokens */

struct expert_threshold {
    struct expert_threshold_params p;
    uint32_t n_experts, n_kept, n_threads;
    struct moesim_chooser *chooser;
    uint64_t *key;     /* [threads][E] */
    float *row;        /* [threads][E] */
    float *scores;     /* [max_tokens][n_kept] of as many experts as there is room for at a time */
    float *d_row;      /* [E] */
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
    r->last_micro_batch = UINT32_MAX;
    r->n_threads = moesim_threads();
    const size_t n_fit = env->max_tokens ? SCORE_BYTES / sizeof *r->scores / env->max_tokens : n_experts;
    r->n_kept = n_fit == 0 ? 1 : n_fit < n_experts ? (uint32_t)n_fit : env->n_experts;
#define ROOM(field, n) ((r->field = moesim_alloc(env->arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(key, r->n_threads * n_experts) && ROOM(row, r->n_threads * n_experts);
    ok = ok && ROOM(scores, (size_t)env->max_tokens * r->n_kept);
    ok = ok && ROOM(d_row, n_experts) && ROOM(base, env->max_tokens) && ROOM(own, n_experts) && ROOM(sum, n_experts);
#undef ROOM
    r->work = moesim_alloc(env->arena, moesim_column_rank_work(env->max_tokens), 1);
    if (!ok || !r->work)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u tokens", env->max_tokens);
    return moesim_chooser_init(env, env->n_experts, env->n_experts, &r->chooser, err);
}

struct call {
    const struct expert_threshold *r;
    const struct moesim_batch *batch;
    const float *threshold;
    uint32_t first, n; /* the experts whose scores are kept */
};

/* The scores of one token, in this thread's row. */
static const float *scores_of(const struct call *c, uint32_t t, uint32_t thread)
{
    float *row = c->r->row + (size_t)thread * c->r->n_experts;
    moesim_score_row(c->r->p.score, c->batch->columns + (size_t)t * c->batch->stride, c->r->n_experts, row);
    return row;
}

/* Some experts' scores of a run of tokens, and whether each takes part: it does with a finite logit. */
static void keep_scores(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    for (uint32_t t = first; t < last; t++) {
        const float *row = scores_of(c, t, thread);
        bool any = false;
        for (uint32_t e = 0; e < c->r->n_experts && !any; e++)
            any = row[e] == row[e];
        c->r->base[t] = any && !(c->batch->padding && c->batch->padding[t]) ? 0 : NAN;
        memcpy(c->r->scores + (size_t)t * c->n, row + c->first, c->n * sizeof *row);
    }
}

/* Sets r->own: the score that a share k / E of the tokens exceeds. */
static void find_quantile(struct expert_threshold *r, const struct moesim_batch *batch)
{
    uint64_t n_part = 0, rank = 0;
    for (uint32_t first = 0; first < r->n_experts; first += r->n_kept) {
        const uint32_t rest = r->n_experts - first, n = rest < r->n_kept ? rest : r->n_kept;
        struct call c = {.r = r, .batch = batch, .first = first, .n = n};
        moesim_for_tokens(batch->n_tokens, r->n_threads, keep_scores, &c);
        for (uint32_t t = 0; first == 0 && t < batch->n_tokens; t++)
            n_part += r->base[t] == 0;
        rank = n_part * r->p.k / r->n_experts;
        if (rank < n_part)
            moesim_column_rank(r->scores, n, batch->n_tokens, n, r->base, (uint32_t)rank, r->work, r->own + first);
    }
    r->has_own = n_part > 0;
    for (uint32_t e = 0; e < r->n_experts; e++)
        r->own[e] = rank < n_part && r->own[e] == r->own[e] ? r->own[e] : BELOW_EVERY_SCORE;
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

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const uint32_t n_experts = c->r->n_experts;
    const float *scores = scores_of(c, t, thread);
    uint64_t *key = c->r->key + (size_t)thread * n_experts;
    uint32_t n = 0;
    bool any = false;
    for (uint32_t e = 0; e < n_experts; e++) {
        any |= scores[e] == scores[e];
        if (scores[e] > c->threshold[e])
            key[n++] = moesim_key(scores[e], e);
    }
    if (!any)
        return MOESIM_NO_CHOICE;
    moesim_keys_heap(key, n);
    for (uint32_t i = 0; i < n; i++) {
        out->expert[i] = moesim_key_expert(moesim_keys_pop(key, n - i));
        out->weight[i] = (float)fmin(scores[out->expert[i]] * c->r->p.scale, FLT_MAX);
    }
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

static enum moesim_status expert_threshold_backward(void *state, const struct moesim_batch *batch,
                                                    const struct moesim_plan *plan, struct moesim_grad *grad,
                                                    struct moesim_error *err)
{
    const struct expert_threshold *r = state;
    const struct call c = {.r = r, .batch = batch};
    (void)err;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const size_t row = (size_t)t * batch->stride;
        if (plan->first[t] == plan->first[t + 1])
            continue;
        memset(r->d_row, 0, r->n_experts * sizeof *r->d_row);
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            r->d_row[plan->expert[i]] = (float)(r->p.scale * grad->d_weight[i]);
        moesim_score_row_backward(r->p.score, batch->columns + row, scores_of(&c, t, 0), r->d_row, r->n_experts,
                                  grad->d_columns + row);
    }
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
