/*
 * top-p: every token takes its best experts until their softmax probabilities sum to more than p; the expert that
 * crosses the line belongs to them, and without a crossing all experts do. An easy token gets one expert, an undecided
 * one many.
 *
 * Two losses: the load-balancing loss of Switch over all choices, and the mean entropy of the probabilities, which
 * keeps them from flattening. With controller = pi each layer steers its own p towards `target` experts a token: after
 * every global batch with mean m, e = 1 - m / target, and p becomes p0 + gain e + gain_integral (sum of all e).
 *
 * Huang et al., "Harder Tasks Need More Experts: Dynamic Routing in MoE Models", ACL 2024 (arXiv:2403.07652); the
 * controller after DTop-p, arXiv:2512.13996.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

enum controller { CONTROLLER_NONE, CONTROLLER_PI };

struct top_p_params {
    double p;
    uint32_t max_experts, weight, controller;
    double target, gain, gain_integral;
    double scale, aux_coef, entropy_coef;
    const char *group;
    double jitter;
};

static const struct moesim_param top_p_schema[] = {
    MOESIM_PARAM(struct top_p_params, p, "0.4", 1e-6, 1, "probability that a token's experts hold together"),
    MOESIM_PARAM(struct top_p_params, max_experts, "0", 0, 65536, "most experts per token; 0 = no limit"),
    MOESIM_CHOICE(struct top_p_params, weight, "none", "none|sum",
                  "gate weight: the probability, or divided by the selected sum"),
    MOESIM_PARAM(struct top_p_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_CHOICE(struct top_p_params, controller, "none", "none|pi", "what steers p: nothing, or mean experts"),
    MOESIM_PARAM(struct top_p_params, target, "top_k", 1, 65536, "mean experts per token that the controller wants"),
    MOESIM_PARAM(struct top_p_params, gain, "0.02", 0, 10, "controller: p by the relative error of the last batch"),
    MOESIM_PARAM(struct top_p_params, gain_integral, "0.02", 0, 10,
                 "controller: p by the sum of the relative errors so far"),
    MOESIM_PARAM(struct top_p_params, aux_coef, "0.01", 0, 1e6, "coefficient of the load-balancing loss"),
    MOESIM_PARAM(struct top_p_params, entropy_coef, "0.0001", 0, 1e6, "coefficient of the entropy loss"),
    MOESIM_PARAM(struct top_p_params, group, "device", 0, 0,
                 "tokens over which the load is balanced: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct top_p_params, jitter, "0", 0, 0.999, "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

struct losses {
    double balance, entropy;
};

/* The controller's memory. */
enum { MEMORY_INTEGRAL, MEMORY_ERROR, N_MEMORY };

struct top_p {
    struct top_p_params p;
    uint32_t n_experts, n_threads;
    struct moesim_chooser *chooser;
    struct moesim_score_sums *sums;
    uint64_t *key;            /* [n_threads][E] */
    uint32_t *ranked;         /* [n_threads][E] */
    float *scores, *d_scores; /* [n_threads][E] */
    uint32_t *count;          /* [E] of one group: tokens that chose the expert */
    double *factor;           /* [E] of one group: balance loss by score */
    double *sum;              /* [E] of one group: scores */
    double *entropy;          /* [max_tokens] */
};

static enum moesim_status top_p_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                      struct moesim_error *err)
{
    const struct top_p_params *p = params;
    const uint32_t most = p->max_experts ? p->max_experts : env->n_experts;
    if (most > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "max_experts = %u exceeds the %u experts", most, env->n_experts);
    if (p->controller == CONTROLLER_PI && p->target > most)
        return moesim_fail(err, MOESIM_EINVAL,
                           "target = %g experts per token cannot be reached: a token gets at most %u", p->target, most);
    shape->max_pairs = (uint64_t)env->max_tokens * most;
    shape->n_memory = p->controller == CONTROLLER_PI ? N_MEMORY : 0;
    shape->input_jitter = (float)p->jitter;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status top_p_init(void *state, const void *params, const struct moesim_env *env,
                                     struct moesim_error *err)
{
    struct top_p *r = state;
    r->p = *(const struct top_p_params *)params;
    r->n_experts = env->n_experts;
    r->n_threads = moesim_threads();
    if (r->p.max_experts == 0)
        r->p.max_experts = env->n_experts;
    const size_t n = (size_t)r->n_threads * env->n_experts;
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(key, n) && ROOM(ranked, n) && ROOM(scores, n) && ROOM(d_scores, n);
    ok = ok && ROOM(count, env->n_experts) && ROOM(factor, env->n_experts) && ROOM(sum, env->n_experts) &&
         ROOM(entropy, env->max_tokens);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u experts", env->n_experts);
    const enum moesim_status status = moesim_chooser_init(env, env->n_experts, r->p.max_experts, &r->chooser, err);
    return status ? status
                  : moesim_score_sums_init(MOESIM_SOFTMAX, env->n_experts, moesim_chooser_run(r->chooser), false, env,
                                           &r->sums, err);
}

/* What all tokens of one call share. */
struct call {
    const struct top_p *r;
    const struct moesim_batch *batch;
    double p;
    /* of the losses */
    const struct moesim_plan *plan;
    uint32_t first_token;
    double entropy_factor, loss_scale;
    struct moesim_grad *grad;
};

static double threshold(const struct top_p *r, const struct moesim_batch *batch)
{
    double p = r->p.p;
    if (r->p.controller == CONTROLLER_PI)
        p += r->p.gain * batch->memory[MEMORY_ERROR] + r->p.gain_integral * batch->memory[MEMORY_INTEGRAL];
    return p < 1e-6 ? 1e-6 : p < 1 ? p : (double)INFINITY; /* at 1 rounding must not leave an expert out */
}

/* How many of the n ranked experts a token takes: until their sum passes p or there are `most`. False when more were
 * needed than are ranked. */
static bool take(const struct call *c, const uint32_t *ranked, uint32_t n, const float *scores,
                 struct moesim_choices *out, uint32_t *taken)
{
    const uint32_t most = c->r->p.max_experts;
    double sum = 0;
    *taken = 0;
    for (; *taken < n && *taken < most && sum <= c->p; ++*taken) {
        out->expert[*taken] = ranked[*taken];
        out->weight[*taken] = scores[ranked[*taken]];
        sum += scores[ranked[*taken]];
    }
    return sum > c->p || *taken == most;
}

/* All experts that are numbers, best first; returns how many. */
static uint32_t rank_all(const struct top_p *r, const float *logits, const float *scores, uint32_t thread,
                         uint32_t *ranked)
{
    uint64_t *key = r->key + (size_t)thread * r->n_experts;
    uint32_t n = 0;
    for (uint32_t e = 0; e < r->n_experts; e++) {
        key[n] = moesim_key(logits[e], e);
        n += scores[e] >= 0; /* false for NaN */
    }
    moesim_keys_heap(key, n);
    for (uint32_t i = 0; i < n; i++)
        ranked[i] = moesim_key_expert(moesim_keys_pop(key, n - i));
    return n;
}

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const struct top_p *r = c->r;
    const uint32_t n_experts = r->n_experts;
    const float *logits = c->batch->columns + (size_t)t * c->batch->stride;
    float *scores = r->scores + (size_t)thread * n_experts;
    uint32_t *ranked = r->ranked + (size_t)thread * n_experts, taken = 0;
    moesim_score_row(MOESIM_SOFTMAX, logits, n_experts, scores);
    const float cut = moesim_cut_by_mass(logits, scores, n_experts, (float)(c->p + 1e-5));
    if (!(cut > -INFINITY) || !take(c, ranked, moesim_rank_above(logits, n_experts, cut, ranked), scores, out, &taken))
        take(c, ranked, rank_all(r, logits, scores, thread, ranked), scores, out, &taken);
    if (taken == 0)
        return MOESIM_NO_CHOICE;
    if (r->p.aux_coef > 0)
        moesim_score_sums_add(r->sums, t, scores);
    r->entropy[t] = r->p.entropy_coef > 0 ? moesim_entropy_row(logits, scores, n_experts) : 0;
    double sum = 0;
    for (uint32_t i = 0; r->p.weight == MOESIM_WEIGHT_SUM && i < taken; i++)
        sum += out->weight[i];
    const double scale = r->p.scale / (sum > 0 ? sum : 1);
    for (uint32_t i = 0; scale != 1 && i < taken; i++)
        out->weight[i] = (float)fmin(out->weight[i] * scale, FLT_MAX);
    return taken;
}

/* Adds the gradient of the gate weights by the scores of one token. */
static void weights_backward(const struct call *c, uint32_t t, const float *scores, float *d_scores)
{
    const struct moesim_plan *plan = c->plan;
    double sum = 0, mean = 0;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        sum += scores[plan->expert[i]];
        mean += (double)c->grad->d_weight[i] * scores[plan->expert[i]];
    }
    const bool none = c->r->p.weight == MOESIM_WEIGHT_NONE;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        const double own = c->grad->d_weight[i];
        d_scores[plan->expert[i]] += (float)(c->r->p.scale * (none ? own : (own - mean / sum) / sum));
    }
}

/* The gradient of everything for tokens [first, last) of a group. */
static void backward_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const struct top_p *r = c->r;
    const uint32_t n_experts = r->n_experts;
    float *scores = r->scores + (size_t)thread * n_experts, *d_scores = r->d_scores + (size_t)thread * n_experts;
    for (uint32_t t = c->first_token + first; t < c->first_token + last; t++) {
        const float *logits = c->batch->columns + (size_t)t * c->batch->stride;
        if (c->plan->first[t] == c->plan->first[t + 1])
            continue; /* padding or a bad row */
        moesim_score_row(MOESIM_SOFTMAX, logits, n_experts, scores);
        for (uint32_t e = 0; e < n_experts; e++) {
            const double s = scores[e], log_s = s > 0 ? log(s) : 0;
            d_scores[e] = s >= 0 ? (float)(c->loss_scale * (r->factor[e] - c->entropy_factor * (log_s + 1))) : 0;
        }
        weights_backward(c, t, scores, d_scores);
        moesim_score_row_backward(MOESIM_SOFTMAX, logits, scores, d_scores, n_experts,
                                  c->grad->d_columns + (size_t)t * c->batch->stride);
    }
}

/* Switch's loss over one group, coef E sum_e f_e P_e, by the score of one of its tokens; groups weigh by their choices.
 */
static void set_factor(const struct top_p *r, const struct moesim_batch *batch, const struct moesim_plan *plan,
                       uint32_t group)
{
    const uint32_t first = batch->group_start[group], last = batch->group_start[group + 1];
    uint32_t n_rows = 0;
    memset(r->count, 0, r->n_experts * sizeof *r->count);
    for (uint32_t t = first; t < last; t++)
        n_rows += plan->first[t] < plan->first[t + 1];
    for (uint32_t i = plan->first[first]; i < plan->first[last]; i++)
        r->count[plan->expert[i]]++;
    for (uint32_t e = 0; e < r->n_experts; e++)
        r->factor[e] =
            n_rows > 0 ? r->count[e] * (r->p.aux_coef * r->n_experts / (double)n_rows / (double)plan->n_pairs) : 0;
}

static uint32_t count_rows(const struct moesim_plan *plan)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < plan->n_tokens; t++)
        n += plan->first[t] < plan->first[t + 1];
    return n;
}

static struct losses find_losses(const struct top_p *r, const struct moesim_batch *batch,
                                 const struct moesim_plan *plan)
{
    const uint32_t n_rows = count_rows(plan);
    struct losses sum = {0};
    for (uint32_t g = 0; r->p.aux_coef > 0 && g < batch->n_groups; g++) {
        set_factor(r, batch, plan, g);
        moesim_score_sums_of(r->sums, batch->group_start[g], batch->group_start[g + 1], r->sum);
        for (uint32_t e = 0; e < r->n_experts; e++)
            sum.balance += r->factor[e] * r->sum[e];
    }
    for (uint32_t t = 0; r->p.entropy_coef > 0 && t < batch->n_tokens; t++)
        if (plan->first[t] < plan->first[t + 1])
            sum.entropy += r->p.entropy_coef / n_rows * r->entropy[t];
    return sum;
}

static enum moesim_status top_p_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                      struct moesim_error *err)
{
    const struct top_p *r = state;
    const struct call c = {.r = r, .batch = batch, .p = threshold(r, batch)};
    (void)err;
    moesim_plan_unlimited(plan);
    moesim_score_sums_begin(r->sums, batch, batch->columns, batch->stride, r->p.aux_coef > 0);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    const struct losses loss = find_losses(r, batch, plan);
    moesim_plan_add_aux(plan, "switch", loss.balance);
    moesim_plan_add_aux(plan, "entropy", loss.entropy);
    return MOESIM_OK;
}

static enum moesim_status top_p_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                         struct moesim_grad *grad, struct moesim_error *err)
{
    const struct top_p *r = state;
    const uint32_t n_rows = count_rows(plan);
    struct call c = {.r = r, .batch = batch, .plan = plan, .grad = grad, .loss_scale = grad->loss_scale};
    (void)err;
    c.entropy_factor = n_rows > 0 ? r->p.entropy_coef / n_rows : 0;
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        c.first_token = batch->group_start[g];
        set_factor(r, batch, plan, g);
        moesim_for_tokens(batch->group_start[g + 1] - c.first_token, r->n_threads, backward_tokens, &c);
    }
    return MOESIM_OK;
}

static enum moesim_status top_p_update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    const struct top_p *r = state;
    (void)err;
    if (r->p.controller != CONTROLLER_PI || feedback->n_tokens == 0)
        return MOESIM_OK;
    uint64_t n = 0;
    for (uint32_t e = 0; e < feedback->n_experts; e++)
        n += feedback->assigned[e];
    const float error = (float)(1 - (double)n / (double)feedback->n_tokens / r->p.target);
    const float sum = feedback->memory[MEMORY_INTEGRAL] + error;
    feedback->memory[MEMORY_ERROR] = error;
    /* no further than p can go, so that a long error in one direction is forgotten quickly */
    const float most = r->p.gain_integral > 0 ? (float)fmin(1 / r->p.gain_integral, 1e6) : 1e6f;
    feedback->memory[MEMORY_INTEGRAL] = fminf(fmaxf(sum, -most), most);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_top_p = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "top-p",
    .summary = "each token takes its best experts until their probabilities pass p",
    .reference = "Huang et al., Harder Tasks Need More Experts: Dynamic Routing in MoE Models, ACL 2024",
    .params = top_p_schema,
    .params_size = sizeof(struct top_p_params),
    .state_size = sizeof(struct top_p),
    .shape = top_p_shape,
    .init = top_p_init,
    .route = top_p_route,
    .backward = top_p_backward,
    .update = top_p_update,
};
