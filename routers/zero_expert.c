/*
 * zero-expert: beside the E FFN experts the gate knows experts that cost next to nothing, so that easy tokens compute
 * less: constant (a learned vector mixed with the token), copy (the token itself), zero and null (nothing). Each token
 * takes the k best of all E + Z by softmax probability. Expert ids: FFN, constant, copy, zero, null.
 *
 * weight = sum divides by the selected probabilities without those of zero and null experts, whose weight is then 0, so
 * that the others sum to 1; weight = none applies the raw probabilities. capacity_factor g > 0 gives each expert
 * ceil(g tau k T / (tau E + Z)) slots if it is an FFN and ceil(g k T / (tau E + Z)) if not, taken in token order.
 *
 * The loss is aux_coef sum_i eta_i f_i P_i with f_i the tokens that chose i over all tokens, before the drop, P_i the
 * mean probability, eta 1 for FFN experts and tau for the others; null experts share their mean f. With gamma > 0 every
 * FFN expert has a bias for the selection, moved after each global batch by gamma (target / (k E) - n_i / (k T)), where
 * target is the wanted mean number of FFN experts per token. gating_residual adds the previous layer's gate columns
 * times a learned [E + Z][E + Z] matrix to the logits.
 *
 * MoE++ (Jin et al., 2024, arXiv:2410.07348): the defaults, with gating_residual = true. LongCat-Flash
 * (arXiv:2509.01322): n_constant = 0, n_zero = 0, n_copy, weight = none, scale, gamma. AdaMoE (Zeng et al., 2024,
 * arXiv:2406.13233): n_null, no other kind, tau = 1.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct zero_expert_params {
    uint32_t k, n_constant, n_copy, n_zero, n_null, weight;
    double scale, capacity_factor, tau, aux_coef, gamma, target;
    bool gating_residual;
    const char *group;
    double jitter;
};

static const struct moesim_param zero_expert_schema[] = {
    MOESIM_PARAM(struct zero_expert_params, k, "top_k", 1, 65536, "experts per token, of any kind"),
    MOESIM_PARAM(struct zero_expert_params, n_constant, "2", 0, 256, "experts that give a learned constant"),
    MOESIM_PARAM(struct zero_expert_params, n_copy, "1", 0, 256, "experts that give their input"),
    MOESIM_PARAM(struct zero_expert_params, n_zero, "1", 0, 256, "experts that give nothing"),
    MOESIM_PARAM(struct zero_expert_params, n_null, "0", 0, 256, "experts that give nothing and balance as one"),
    MOESIM_CHOICE(struct zero_expert_params, weight, "sum", "none|sum",
                  "gate weight: the probability, or divided by those of the selected experts that give something"),
    MOESIM_PARAM(struct zero_expert_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_PARAM(struct zero_expert_params, capacity_factor, "0", 0, 65536,
                 "expert slots over an even share, split by tau; 0 = dropless"),
    MOESIM_PARAM(struct zero_expert_params, tau, "0.75", 1e-3, 1e3,
                 "weight of an FFN expert in the capacity, and of the others in the loss"),
    MOESIM_PARAM(struct zero_expert_params, aux_coef, "0.01", 0, 1e6, "coefficient of the load-balancing loss"),
    MOESIM_PARAM(struct zero_expert_params, gamma, "0", 0, 10, "speed of the selection bias; 0 = no bias"),
    MOESIM_PARAM(struct zero_expert_params, target, "0", 0, 65536,
                 "mean FFN experts per token that the bias aims at; 0 = k E / (E + Z)"),
    MOESIM_PARAM(struct zero_expert_params, gating_residual, "false", 0, 0,
                 "add the previous layer's gate columns times a learned matrix"),
    MOESIM_PARAM(struct zero_expert_params, group, "device", 0, 0,
                 "tokens that share capacity and loss: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct zero_expert_params, jitter, "0", 0, 0.999,
                 "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

#define BACKWARD_TOKENS 8192 /* whose gradients by logits are kept at a time */

struct zero_expert {
    struct zero_expert_params p;
    struct moesim_token_choice choice; /* k best of all by probability, dropless, raw weights */
    struct moesim_token_choice_scratch *scratch;
    uint32_t n_ffn, n_experts, n_threads;
    struct moesim_score_sums *sums;
    float *logits;            /* [max_tokens][n_experts] with the gating residual; else NULL */
    float *d_logits;          /* [BACKWARD_TOKENS][n_experts] likewise */
    float *bias;              /* [n_experts] */
    float *scores, *d_scores; /* [n_threads][n_experts] */
    double *factor;           /* [n_experts] of one group: loss by score */
    double *sum;              /* [n_experts] of one group: scores */
    uint32_t *taken;          /* [n_experts] */
};

static uint32_t count_all(const struct zero_expert_params *p, uint32_t n_ffn)
{
    return n_ffn + p->n_constant + p->n_copy + p->n_zero + p->n_null;
}

static void set_kinds(const struct zero_expert_params *p, uint32_t n_ffn, uint8_t *kind)
{
    memset(kind, MOESIM_EXPERT_FFN, n_ffn);
    memset(kind += n_ffn, MOESIM_EXPERT_CONSTANT, p->n_constant);
    memset(kind += p->n_constant, MOESIM_EXPERT_COPY, p->n_copy);
    memset(kind + p->n_copy, MOESIM_EXPERT_ZERO, p->n_zero + p->n_null);
}

static enum moesim_status zero_expert_shape(const void *params, const struct moesim_env *env,
                                            struct moesim_shape *shape, struct moesim_error *err)
{
    const struct zero_expert_params *p = params;
    const uint32_t n = count_all(p, env->n_experts);
    if (n == env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL,
                           "zero-expert without a constant, copy, zero or null expert is softmax-topk; give n_zero, "
                           "n_copy, n_constant or n_null");
    if (p->k > n)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts of all kinds", p->k, n);
    if (p->target > p->k || p->target > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "target = %g FFN experts per token exceeds k = %u or the %u FFN experts",
                           p->target, p->k, env->n_experts);
    uint8_t *kind = moesim_alloc(env->arena, n, 1);
    if (!kind)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the kinds of %u experts", n);
    set_kinds(p, env->n_experts, kind);
    shape->expert_kind = kind;
    shape->n_experts = shape->n_columns = n;
    shape->max_pairs = (uint64_t)env->max_tokens * p->k;
    shape->n_memory = p->gamma > 0 ? env->n_experts : 0;
    shape->n_weights = p->gating_residual ? (uint64_t)n * n : 0;
    shape->needs |= p->gating_residual ? MOESIM_NEEDS_PREVIOUS_LOGITS : 0;
    shape->input_jitter = (float)p->jitter;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status zero_expert_init(void *state, const void *params, const struct moesim_env *env,
                                           struct moesim_error *err)
{
    struct zero_expert *r = state;
    r->p = *(const struct zero_expert_params *)params;
    r->choice = (struct moesim_token_choice){.k = r->p.k, .scale = 1, .group = r->p.group};
    r->n_ffn = env->n_experts;
    r->n_experts = count_all(&r->p, r->n_ffn);
    r->n_threads = moesim_threads();
    const size_t n = r->n_experts, rows = r->p.gating_residual ? env->max_tokens : 0;
    const size_t d_rows = rows < BACKWARD_TOKENS ? rows : BACKWARD_TOKENS;
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(logits, rows * n) && ROOM(d_logits, d_rows * n) && ROOM(bias, n) && ROOM(factor, n) &&
         ROOM(taken, n);
    ok = ok && ROOM(scores, r->n_threads * n) && ROOM(d_scores, r->n_threads * n) && ROOM(sum, n);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to route %u tokens to %zu experts", env->max_tokens, n);
    if (r->p.target == 0)
        r->p.target = (double)r->p.k * r->n_ffn / r->n_experts;
    struct moesim_env wide = *env;
    wide.n_experts = r->n_experts;
    const enum moesim_status status =
        moesim_score_sums_init(MOESIM_SOFTMAX, r->n_experts, 0, false, &wide, &r->sums, err);
    return status ? status : moesim_token_choice_init(&r->choice, &wide, &r->scratch, err);
}

/* What all tokens of one call share. */
struct call {
    const struct zero_expert *r;
    const struct moesim_batch *batch;
    const float *logits;
    size_t stride;
    struct moesim_plan *plan;
    struct moesim_grad *grad;
    uint32_t first_token; /* of those in work */
    float *d_logits;      /* theirs, rows of d_stride */
    size_t d_stride;
};

/* Whether the expert's weight counts in the sum: it gives something. */
static bool gives(const struct zero_expert *r, uint32_t expert)
{
    return expert < r->n_ffn + r->p.n_constant + r->p.n_copy;
}

static void add_residual(const struct zero_expert *r, const struct moesim_batch *batch)
{
    moesim_project(batch->previous_logits, batch->n_tokens, r->n_experts, batch->weights, r->n_experts, r->logits);
    for (size_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t e = 0; e < r->n_experts; e++)
            r->logits[t * r->n_experts + e] += batch->columns[t * batch->stride + e];
}

static struct call start(const struct zero_expert *r, const struct moesim_batch *batch)
{
    struct call c = {.r = r, .batch = batch, .logits = batch->columns, .stride = batch->stride};
    if (r->p.gating_residual && batch->previous_logits) {
        c.logits = r->logits;
        c.stride = r->n_experts;
    }
    return c;
}

/* ---- weights ---- */

/* The sum that the weights of a token are divided by. */
static double divisor(const struct call *c, uint32_t t, const float *value)
{
    double sum = c->r->p.weight == MOESIM_WEIGHT_NONE ? 1 : 0;
    for (uint32_t i = c->plan->first[t]; c->r->p.weight == MOESIM_WEIGHT_SUM && i < c->plan->first[t + 1]; i++)
        if (c->plan->fate[i] != MOESIM_BAD_ROW && gives(c->r, c->plan->expert[i]))
            sum += value ? value[c->plan->expert[i]] : c->plan->weight[i];
    return sum;
}

/* Whether the pair's weight is its probability over the divisor; else it is 0. */
static bool is_weighed(const struct call *c, uint32_t i, double sum)
{
    return sum > 0 && c->plan->fate[i] == MOESIM_KEPT &&
           (c->r->p.weight == MOESIM_WEIGHT_NONE || gives(c->r, c->plan->expert[i]));
}

static void weigh_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    (void)thread;
    for (uint32_t t = first; t < last; t++) {
        const double sum = divisor(c, t, NULL);
        for (uint32_t i = c->plan->first[t]; i < c->plan->first[t + 1]; i++)
            c->plan->weight[i] =
                is_weighed(c, i, sum) ? (float)fmin(c->plan->weight[i] * (c->r->p.scale / sum), FLT_MAX) : 0;
    }
}

/* Adds the gradient of the gate weights by the scores of one token. */
static void weights_backward(const struct call *c, uint32_t t, const float *scores, float *d_scores)
{
    const struct moesim_plan *plan = c->plan;
    const double sum = divisor(c, t, scores);
    double mean = 0;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
        if (is_weighed(c, i, sum))
            mean += c->grad->d_weight[i] * (scores[plan->expert[i]] / sum);
    const bool none = c->r->p.weight == MOESIM_WEIGHT_NONE;
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        if (plan->fate[i] == MOESIM_BAD_ROW || !(sum > 0) || !(none || gives(c->r, plan->expert[i])))
            continue;
        const double own = plan->fate[i] == MOESIM_KEPT ? c->grad->d_weight[i] : 0;
        d_scores[plan->expert[i]] += (float)(c->r->p.scale * (own - (none ? 0 : mean)) / sum);
    }
}

/* ---- capacity ---- */

static uint32_t slots(double share)
{
    return share < MOESIM_UNLIMITED - 1 ? (uint32_t)ceil(share) : MOESIM_UNLIMITED - 1;
}

static void limit(const struct zero_expert *r, const struct moesim_batch *batch, struct moesim_plan *plan)
{
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        uint32_t n = batch->group_start[g + 1] - batch->group_start[g];
        for (uint32_t t = batch->group_start[g]; batch->padding && t < batch->group_start[g + 1]; t++)
            n -= batch->padding[t] != 0;
        const double all = r->p.tau * r->n_ffn + (r->n_experts - r->n_ffn);
        const double share = r->p.capacity_factor * r->p.k * n / all;
        for (uint32_t e = 0; e < r->n_experts; e++)
            plan->capacity[(size_t)g * r->n_experts + e] = slots(e < r->n_ffn ? r->p.tau * share : share);
    }
    moesim_seat(batch, r->taken, plan);
}

/* ---- loss ---- */

static bool is_row(const struct moesim_plan *plan, uint32_t t)
{
    return plan->first[t] < plan->first[t + 1] && plan->fate[plan->first[t]] != MOESIM_BAD_ROW;
}

/* aux_coef eta f / T for the group's tokens, T over all groups: each group's loss weighs by its tokens. */
static void set_factor(const struct call *c, uint32_t group, uint32_t n_all)
{
    const struct zero_expert *r = c->r;
    const struct moesim_plan *plan = c->plan;
    uint32_t n_rows = 0;
    memset(r->factor, 0, r->n_experts * sizeof *r->factor);
    for (uint32_t t = c->batch->group_start[group]; t < c->batch->group_start[group + 1]; t++) {
        n_rows += is_row(plan, t);
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (plan->fate[i] != MOESIM_BAD_ROW)
                r->factor[plan->expert[i]]++;
    }
    double null = 0;
    for (uint32_t e = r->n_experts - r->p.n_null; e < r->n_experts; e++)
        null += r->factor[e] / r->p.n_null;
    for (uint32_t e = 0; n_rows > 0 && e < r->n_experts; e++) {
        const double n = e < r->n_experts - r->p.n_null ? r->factor[e] : null;
        r->factor[e] = r->p.aux_coef * (e < r->n_ffn ? 1 : r->p.tau) * n / n_rows / n_all;
    }
}

static uint32_t count_rows(const struct call *c)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < c->batch->n_tokens; t++)
        n += is_row(c->plan, t);
    return n;
}

/* The loss, from the sums of scores that the choice has made. */
static double balance(const struct call *c)
{
    const struct zero_expert *r = c->r;
    const uint32_t n_all = count_rows(c), *start = c->batch->group_start;
    double loss = 0;
    for (uint32_t g = 0; g < c->batch->n_groups; g++) {
        set_factor(c, g, n_all);
        moesim_score_sums_of(r->sums, start[g], start[g + 1], r->sum);
        for (uint32_t e = 0; e < r->n_experts; e++)
            loss += r->factor[e] * r->sum[e];
    }
    return loss;
}

/* ---- gradient ---- */

static void tokens_backward(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const struct zero_expert *r = c->r;
    const uint32_t n = r->n_experts;
    float *scores = r->scores + (size_t)thread * n, *d_scores = r->d_scores + (size_t)thread * n;
    for (uint32_t i = first; i < last; i++) {
        const uint32_t t = c->first_token + i;
        const float *logits = c->logits + t * c->stride;
        if (!is_row(c->plan, t))
            continue;
        moesim_score_row(MOESIM_SOFTMAX, logits, n, scores);
        for (uint32_t e = 0; e < n; e++)
            d_scores[e] = (float)(c->grad->loss_scale * r->factor[e]);
        weights_backward(c, t, scores, d_scores);
        moesim_score_row_backward(MOESIM_SOFTMAX, logits, scores, d_scores, n, c->d_logits + i * c->d_stride);
    }
}

/* Tokens [first, last) with the gating residual: through it to the columns and the learned matrix. */
static void residual_backward(struct call *c, uint32_t first, uint32_t last)
{
    const struct zero_expert *r = c->r;
    const struct moesim_batch *batch = c->batch;
    const uint32_t n = r->n_experts, n_tokens = last - first;
    c->first_token = first;
    c->d_logits = r->d_logits;
    c->d_stride = n;
    memset(r->d_logits, 0, (size_t)n_tokens * n * sizeof *r->d_logits);
    moesim_for_tokens(n_tokens, r->n_threads, tokens_backward, c);
    for (size_t i = 0; i < n_tokens; i++)
        for (uint32_t e = 0; e < n; e++)
            c->grad->d_columns[(first + i) * batch->stride + e] += r->d_logits[i * n + e];
    moesim_project_backward(batch->previous_logits + (size_t)first * n, batch->weights, r->d_logits, n_tokens, n, n,
                            NULL, c->grad->d_weights);
}

static void group_backward(struct call *c, uint32_t first, uint32_t last)
{
    if (c->logits == c->r->logits) {
        for (uint32_t t = first; t < last; t += BACKWARD_TOKENS)
            residual_backward(c, t, last - t < BACKWARD_TOKENS ? last : t + BACKWARD_TOKENS);
        return;
    }
    c->first_token = first;
    c->d_logits = c->grad->d_columns + (size_t)first * c->batch->stride;
    c->d_stride = c->batch->stride;
    moesim_for_tokens(last - first, c->r->n_threads, tokens_backward, c);
}

/* ---- hooks ---- */

static enum moesim_status zero_expert_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                            struct moesim_error *err)
{
    const struct zero_expert *r = state;
    struct call c = start(r, batch);
    c.plan = plan;
    if (c.logits == r->logits)
        add_residual(r, batch);
    struct moesim_batch wide = *batch;
    wide.n_experts = r->n_experts;
    const bool biased = r->p.gamma > 0;
    if (biased)
        memcpy(r->bias, batch->memory, r->n_ffn * sizeof *r->bias); /* the others' stays 0 */
    moesim_token_choice_sums(r->scratch, r->p.aux_coef > 0 ? r->sums : NULL);
    const enum moesim_status status = moesim_token_choice_route(&r->choice, &wide, c.logits, c.stride,
                                                                biased ? r->bias : NULL, r->scratch, plan, err);
    if (status)
        return status;
    moesim_for_tokens(batch->n_tokens, r->n_threads, weigh_tokens, &c);
    if (r->p.capacity_factor > 0)
        limit(r, batch, plan);
    moesim_plan_add_aux(plan, "balance", r->p.aux_coef > 0 ? balance(&c) : 0);
    return MOESIM_OK;
}

static enum moesim_status zero_expert_backward(void *state, const struct moesim_batch *batch,
                                               const struct moesim_plan *plan, struct moesim_grad *grad,
                                               struct moesim_error *err)
{
    const struct zero_expert *r = state;
    struct moesim_plan routed = *plan;
    struct call c = start(r, batch);
    (void)err;
    c.plan = &routed;
    c.grad = grad;
    const uint32_t n_all = count_rows(&c);
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        set_factor(&c, g, n_all);
        group_backward(&c, batch->group_start[g], batch->group_start[g + 1]);
    }
    return MOESIM_OK;
}

static enum moesim_status zero_expert_update(void *state, const struct moesim_feedback *feedback,
                                             struct moesim_error *err)
{
    const struct zero_expert *r = state;
    const double all = (double)r->p.k * (double)feedback->n_tokens;
    (void)err;
    for (uint32_t e = 0; r->p.gamma > 0 && feedback->n_tokens > 0 && e < r->n_ffn; e++)
        feedback->memory[e] +=
            (float)(r->p.gamma * (r->p.target / ((double)r->p.k * r->n_ffn) - (double)feedback->assigned[e] / all));
    return MOESIM_OK;
}

const struct moesim_router moesim_router_zero_expert = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "zero-expert",
    .summary = "k best among FFN experts and ones that cost nothing: constant, copy, zero, null",
    .reference = "Jin et al., MoE++, 2024; Meituan, LongCat-Flash, 2025; Zeng et al., AdaMoE, 2024",
    .params = zero_expert_schema,
    .params_size = sizeof(struct zero_expert_params),
    .state_size = sizeof(struct zero_expert),
    .shape = zero_expert_shape,
    .init = zero_expert_init,
    .route = zero_expert_route,
    .backward = zero_expert_backward,
    .update = zero_expert_update,
};
