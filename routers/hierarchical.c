/*
 * hierarchical: experts stand in n_groups groups of consecutive ids. An outer gate, the columns E .. E + n_groups - 1,
 * picks a token's topk_groups best groups; inside each of them the inner gate, the group's own E / n_groups columns,
 * picks k / topk_groups experts. A pair's weight is the product of both gates: softmax over the groups times softmax
 * inside the group (weight = none), or both over the selected ones only (weight = sum).
 *
 * Capacity at two levels, in token order: group_capacity_factor g > 0 lets a group take ceil(g topk_groups T /
 * n_groups) tokens; capacity_factor and capacity_rule limit an expert as everywhere. A token that its group refuses
 * takes no slot of an expert. The loss is aux_coef times the sum of both levels' n sum_i f_i P_i: f from first choices
 * before any drop, outer over all tokens, inner the mean over groups of the tokens that have the group as first choice.
 *
 * Shazeer et al., "Outrageously Large Neural Networks", ICLR 2017, appendix B; the losses after Mesh TensorFlow, where
 * a token counts for the inner balance of its first group only.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct hierarchical_params {
    uint32_t k, n_groups, topk_groups, weight;
    double scale, capacity_factor;
    uint32_t capacity_rule, min_capacity;
    double group_capacity_factor, aux_coef;
    const char *group;
    double jitter;
};

static const struct moesim_param hierarchical_schema[] = {
    MOESIM_PARAM(struct hierarchical_params, k, "top_k", 1, 65536, "experts per token, equally many from each group"),
    MOESIM_PARAM(struct hierarchical_params, n_groups, "0", 0, 65536,
                 "groups of consecutive experts; 0 = the largest divisor of E up to its square root"),
    MOESIM_PARAM(struct hierarchical_params, topk_groups, "0", 0, 65536,
                 "groups per token; 0 = 2, or 1 where k is odd or there is one group"),
    MOESIM_CHOICE(struct hierarchical_params, weight, "sum", "none|sum",
                  "each level's gate: the probability, or divided by the selected sum"),
    MOESIM_PARAM(struct hierarchical_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_PARAM(struct hierarchical_params, capacity_factor, "0", 0, 65536,
                 "expert slots over an even share, by capacity_rule; 0 = dropless"),
    MOESIM_CHOICE(struct hierarchical_params, capacity_rule, "megatron", MOESIM_CAPACITY_CHOICES,
                  "the library whose capacity formula is used for experts"),
    MOESIM_PARAM(struct hierarchical_params, min_capacity, "0", 0, 1 << 30,
                 "least slots per expert; 0 = the rule's own"),
    MOESIM_PARAM(struct hierarchical_params, group_capacity_factor, "0", 0, 65536,
                 "tokens of a group of experts over an even share; 0 = no limit"),
    MOESIM_PARAM(struct hierarchical_params, aux_coef, "0.01", 0, 1e6, "coefficient of the load-balancing losses"),
    MOESIM_PARAM(struct hierarchical_params, group, "device", 0, 0,
                 "tokens that share capacity and loss: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct hierarchical_params, jitter, "0", 0, 0.999,
                 "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

#define BLOCK_TOKENS 32
struct block {
    uint32_t first, last; /* tokens */
};

struct hierarchical {
    struct hierarchical_params p;
    uint32_t n_experts, n_inside, k_inside, n_threads; /* n_inside experts of a group, k_inside of them chosen */
    struct moesim_chooser *chooser;
    uint32_t *outer;      /* [max_tokens][topk_groups] groups, best first */
    uint32_t *inner;      /* [max_tokens][topk_groups][k_inside] their experts, counted from the group's first */
    uint8_t *refused;     /* [max_tokens][topk_groups] the group was full */
    struct block *ahead;  /* [n_threads] the tokens that a thread has chosen inside for */
    uint32_t *taken;      /* [n_groups] tokens that a group has */
    float *levels;        /* [n_threads][level_floats(outer) + level_floats(inner)] */
    double *outer_factor; /* [n_groups] outer loss by score */
    double *inner_factor; /* [E] inner loss by score */
    double *loss;         /* [max_tokens] */
};

/* One token's gate at one level: k of n chosen by logits. */
struct level {
    uint32_t n, k;
    const float *logits;
    const uint32_t *chosen;   /* [k] */
    float *scores, *d_scores; /* [n] softmax */
    float *share, *d_share;   /* [k] the gate of each chosen one */
};

static size_t level_floats(uint32_t n, uint32_t k)
{
    return 2 * ((size_t)n + k);
}

/* The parameters with the numbers that 0 stands for. */
static struct hierarchical_params filled(const struct hierarchical_params *given, uint32_t n_experts)
{
    struct hierarchical_params p = *given;
    if (p.n_groups == 0) {
        p.n_groups = 1;
        for (uint32_t n = 2; (uint64_t)n * n <= n_experts; n++)
            p.n_groups = n_experts % n == 0 ? n : p.n_groups;
    }
    if (p.topk_groups == 0)
        p.topk_groups = p.k % 2 == 0 && p.n_groups > 1 ? 2 : 1;
    return p;
}

static enum moesim_status hierarchical_shape(const void *params, const struct moesim_env *env,
                                             struct moesim_shape *shape, struct moesim_error *err)
{
    const struct hierarchical_params all = filled(params, env->n_experts), *p = &all;
    if (env->n_experts % p->n_groups != 0)
        return moesim_fail(err, MOESIM_EINVAL, "n_groups = %u does not divide the %u experts", p->n_groups,
                           env->n_experts);
    if (p->topk_groups > p->n_groups)
        return moesim_fail(err, MOESIM_EINVAL, "topk_groups = %u exceeds n_groups = %u", p->topk_groups, p->n_groups);
    if (p->k % p->topk_groups != 0)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u experts cannot be shared evenly by topk_groups = %u groups",
                           p->k, p->topk_groups);
    if (p->k / p->topk_groups > env->n_experts / p->n_groups)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u asks %u experts of each group, which has only %u", p->k,
                           p->k / p->topk_groups, env->n_experts / p->n_groups);
    shape->n_columns = env->n_experts + p->n_groups;
    shape->n_logits = 0; /* the first are logits inside a group */
    shape->max_pairs = (uint64_t)env->max_tokens * p->k;
    shape->input_jitter = (float)p->jitter;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status hierarchical_init(void *state, const void *params, const struct moesim_env *env,
                                            struct moesim_error *err)
{
    struct hierarchical *r = state;
    r->p = filled(params, env->n_experts);
    r->n_experts = env->n_experts;
    r->n_inside = env->n_experts / r->p.n_groups;
    r->k_inside = r->p.k / r->p.topk_groups;
    r->n_threads = moesim_threads();
    const size_t n_tokens = env->max_tokens;
    const size_t floats = level_floats(r->p.n_groups, r->p.topk_groups) + level_floats(r->n_inside, r->k_inside);
    struct moesim_arena *arena = env->arena;
    bool ok = true;
#define ROOM(field, n) ((r->field = moesim_alloc(arena, (n), sizeof *r->field)) != NULL)
    ok = ok && ROOM(outer, n_tokens * r->p.topk_groups) && ROOM(refused, n_tokens * r->p.topk_groups);
    ok = ok && ROOM(inner, n_tokens * r->p.topk_groups * r->k_inside) && ROOM(taken, r->p.n_groups) &&
         ROOM(ahead, r->n_threads);
    ok = ok && ROOM(levels, r->n_threads * floats);
    ok = ok && ROOM(outer_factor, r->p.n_groups) && ROOM(inner_factor, r->n_experts) && ROOM(loss, n_tokens);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to route %u tokens to %u groups", env->max_tokens,
                           r->p.n_groups);
    return moesim_chooser_init(env, env->n_experts, r->p.k, &r->chooser, err);
}

/* What all tokens of one call share. */
struct call {
    const struct hierarchical *r;
    const struct moesim_batch *batch;
    const struct moesim_plan *plan;
    uint32_t first_token;
    const struct moesim_grad *grad;
};

/* ---- the two levels of a token ---- */

static struct level make_level(uint32_t n, uint32_t k, float *room)
{
    return (struct level){n, k, NULL, NULL, room, room + n, room + 2 * (size_t)n, room + 2 * (size_t)n + k};
}

static struct level outer_level(const struct call *c, uint32_t t, uint32_t thread)
{
    const struct hierarchical *r = c->r;
    const size_t own = level_floats(r->p.n_groups, r->p.topk_groups);
    struct level a = make_level(r->p.n_groups, r->p.topk_groups,
                                r->levels + thread * (own + level_floats(r->n_inside, r->k_inside)));
    a.logits = c->batch->columns + (size_t)t * c->batch->stride + r->n_experts;
    a.chosen = r->outer + (size_t)t * r->p.topk_groups;
    return a;
}

/* The level inside the token's i-th best group. */
static struct level inner_level(const struct call *c, uint32_t t, uint32_t thread, uint32_t i)
{
    const struct hierarchical *r = c->r;
    const size_t outer = level_floats(r->p.n_groups, r->p.topk_groups);
    struct level a = make_level(r->n_inside, r->k_inside,
                                r->levels + thread * (outer + level_floats(r->n_inside, r->k_inside)) + outer);
    const size_t choice = (size_t)t * r->p.topk_groups + i;
    a.logits = c->batch->columns + (size_t)t * c->batch->stride + (size_t)r->outer[choice] * r->n_inside;
    a.chosen = r->inner + choice * r->k_inside;
    return a;
}

/* e^(l - max); where the largest is +inf, all such logits share alike. */
static float relative(float logit, float max)
{
    return logit == max ? 1 : isinf(max) ? 0 : moesim_expf(logit - max);
}

/* Fills share, and scores where they are needed: for weight = none, or when `all`. */
static void gate(const struct call *c, const struct level *a, bool all)
{
    const bool none = c->r->p.weight == MOESIM_WEIGHT_NONE;
    const float max = a->chosen[0] == MOESIM_NO_EXPERT ? -INFINITY : a->logits[a->chosen[0]];
    float sum = 0;
    if (none || all)
        moesim_score_row(MOESIM_SOFTMAX, a->logits, a->n, a->scores);
    for (uint32_t i = 0; i < a->k; i++) {
        const uint32_t e = a->chosen[i];
        const bool shares = e != MOESIM_NO_EXPERT && max > -INFINITY;
        a->share[i] = !shares ? 0 : none ? a->scores[e] : relative(a->logits[e], max);
        sum += a->share[i];
    }
    for (uint32_t i = 0; !none && sum > 0 && i < a->k; i++)
        a->share[i] /= sum;
}

/* Passes d_share and d_scores on to the logits. */
static void gate_backward(const struct call *c, const struct level *a, float *d_logits)
{
    double mean = 0;
    for (uint32_t i = 0; i < a->k; i++)
        mean += (double)a->share[i] * a->d_share[i];
    for (uint32_t i = 0; i < a->k && a->chosen[i] != MOESIM_NO_EXPERT; i++) {
        if (c->r->p.weight == MOESIM_WEIGHT_NONE)
            a->d_scores[a->chosen[i]] += a->d_share[i];
        else
            d_logits[a->chosen[i]] += (float)(a->share[i] * (a->d_share[i] - mean));
    }
    moesim_score_row_backward(MOESIM_SOFTMAX, a->logits, a->scores, a->d_scores, a->n, d_logits);
}

/* ---- routing ---- */

static bool any_finite(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (isfinite(x[i]))
            return true;
    return false;
}

/* The best experts of each token's best groups, for tokens [first, last). */
static void choose_inside(const struct call *c, uint32_t first, uint32_t last)
{
    enum { N_ROWS = 64 };
    const struct hierarchical *r = c->r;
    const uint32_t m = r->p.topk_groups;
    const float *row[N_ROWS];
    uint32_t *expert[N_ROWS], n = 0;
    for (size_t choice = (size_t)first * m; choice < (size_t)last * m; choice++) {
        const uint32_t group = r->outer[choice];
        if (group != MOESIM_NO_EXPERT) {
            row[n] = c->batch->columns + choice / m * c->batch->stride + (size_t)group * r->n_inside;
            expert[n++] = r->inner + choice * r->k_inside;
        }
        if (n == N_ROWS || choice + 1 == (size_t)last * m) {
            moesim_topk_rows(row, n, r->n_inside, r->k_inside, expert);
            n = 0;
        }
    }
}

/* A thread chooses inside for a block of tokens at a time, whose logits are then at hand for their gates. */
static void look_ahead(const struct call *c, uint32_t t, uint32_t thread)
{
    struct block *block = &c->r->ahead[thread];
    if (t >= block->first && t < block->last)
        return;
    const uint32_t run = moesim_chooser_run(c->r->chooser), end = (t / run + 1) * run;
    const uint32_t last = end < c->batch->n_tokens ? end : c->batch->n_tokens;
    *block = (struct block){t, last - t < BLOCK_TOKENS ? last : t + BLOCK_TOKENS};
    choose_inside(c, block->first, block->last);
}

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const struct hierarchical *r = c->r;
    const struct level outer = outer_level(c, t, thread);
    uint32_t n = 0;
    if (!any_finite(c->batch->columns + (size_t)t * c->batch->stride, r->n_experts) ||
        !any_finite(outer.logits, outer.n))
        return MOESIM_NO_CHOICE;
    look_ahead(c, t, thread);
    gate(c, &outer, false);
    for (uint32_t i = 0; i < outer.k && outer.chosen[i] != MOESIM_NO_EXPERT; i++) {
        const struct level inner = inner_level(c, t, thread, i);
        gate(c, &inner, false);
        for (uint32_t j = 0; j < inner.k && inner.chosen[j] != MOESIM_NO_EXPERT; j++) {
            out->expert[n] = outer.chosen[i] * r->n_inside + inner.chosen[j];
            out->fate[n] = r->refused[(size_t)t * outer.k + i] ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
            out->weight[n++] = (float)fmin(outer.share[i] * inner.share[j] * r->p.scale, FLT_MAX);
        }
    }
    if (n == 0)
        return MOESIM_NO_CHOICE;
    for (; n < r->p.k; n++) { /* fewer numbers than choices */
        out->expert[n] = MOESIM_NO_EXPERT;
        out->fate[n] = MOESIM_BAD_ROW;
    }
    return n;
}

static uint32_t group_tokens(const struct moesim_batch *batch, uint32_t group)
{
    uint32_t n = batch->group_start[group + 1] - batch->group_start[group];
    for (uint32_t t = batch->group_start[group]; batch->padding && t < batch->group_start[group + 1]; t++)
        n -= batch->padding[t] != 0;
    return n;
}

/* Who finds a group full, in token order. */
static void limit_groups(const struct hierarchical *r, const struct moesim_batch *batch)
{
    const size_t m = r->p.topk_groups;
    memset(r->refused, 0, batch->n_tokens * m);
    for (uint32_t g = 0; r->p.group_capacity_factor > 0 && g < batch->n_groups; g++) {
        const double most =
            ceil((double)group_tokens(batch, g) * r->p.topk_groups / r->p.n_groups * r->p.group_capacity_factor);
        memset(r->taken, 0, r->p.n_groups * sizeof *r->taken);
        for (uint32_t t = batch->group_start[g]; t < batch->group_start[g + 1]; t++)
            for (uint32_t i = 0; i < m && !(batch->padding && batch->padding[t]); i++)
                if (r->outer[t * m + i] != MOESIM_NO_EXPERT)
                    r->refused[t * m + i] = r->taken[r->outer[t * m + i]]++ >= most;
    }
}

static void limit_experts(const struct hierarchical *r, const struct moesim_batch *batch, struct moesim_plan *plan)
{
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        const uint32_t slots = moesim_capacity(r->p.capacity_rule, group_tokens(batch, g), r->n_experts, r->p.k,
                                               r->p.capacity_factor, r->p.min_capacity);
        for (uint32_t e = 0; e < r->n_experts; e++)
            plan->capacity[(size_t)g * r->n_experts + e] = slots;
    }
}

/* ---- losses and gradient ---- */

/* n sum_i f_i P_i over the rows whose first choices are in `count`: its slope by the score of one of them. */
static void set_factor(double *count, uint32_t n, double coef)
{
    double n_rows = 0;
    for (uint32_t i = 0; i < n; i++)
        n_rows += count[i];
    for (uint32_t i = 0; n_rows > 0 && i < n; i++)
        count[i] *= coef * n / n_rows / n_rows;
}

/* Both levels' slopes over one group of tokens, whose share of all rows is how much it counts. */
static void set_factors(const struct call *c, uint32_t group, uint32_t n_all)
{
    const struct hierarchical *r = c->r;
    const struct moesim_plan *plan = c->plan;
    uint32_t n_rows = 0;
    memset(r->outer_factor, 0, r->p.n_groups * sizeof *r->outer_factor);
    memset(r->inner_factor, 0, r->n_experts * sizeof *r->inner_factor);
    for (uint32_t t = c->batch->group_start[group]; t < c->batch->group_start[group + 1]; t++) {
        if (plan->first[t] == plan->first[t + 1])
            continue;
        r->outer_factor[plan->expert[plan->first[t]] / r->n_inside]++;
        r->inner_factor[plan->expert[plan->first[t]]]++;
        n_rows++;
    }
    const double coef = n_all > 0 ? r->p.aux_coef * n_rows / n_all : 0;
    set_factor(r->outer_factor, r->p.n_groups, coef);
    for (uint32_t i = 0; i < r->p.n_groups; i++)
        set_factor(r->inner_factor + (size_t)i * r->n_inside, r->n_inside, coef / r->p.n_groups);
}

static double level_loss(const struct level *a, const double *factor)
{
    double loss = 0;
    moesim_score_row(MOESIM_SOFTMAX, a->logits, a->n, a->scores);
    for (uint32_t i = 0; i < a->n; i++)
        loss += a->scores[i] >= 0 ? factor[i] * a->scores[i] : 0;
    return loss;
}

/* A token counts for the inner balance of the group of its first choice. */
static double token_loss(const struct call *c, uint32_t t, uint32_t thread)
{
    const struct hierarchical *r = c->r;
    const struct level outer = outer_level(c, t, thread);
    const uint32_t group = c->plan->expert[c->plan->first[t]] / r->n_inside;
    uint32_t i = 0;
    while (outer.chosen[i] != group) /* a better group had no number to choose by */
        i++;
    const struct level inner = inner_level(c, t, thread, i);
    return level_loss(&outer, r->outer_factor) + level_loss(&inner, r->inner_factor + (size_t)group * r->n_inside);
}

/* Asks for the logits that a token's loss will look at. */
static void prefetch_levels(const struct call *c, uint32_t t)
{
    const float *row = c->batch->columns + (size_t)t * c->batch->stride;
    const uint32_t group = c->r->outer[(size_t)t * c->r->p.topk_groups];
    __builtin_prefetch(row + c->r->n_experts);
    if (group != MOESIM_NO_EXPERT)
        __builtin_prefetch(row + (size_t)group * c->r->n_inside);
}

static void tokens_loss(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    enum { AHEAD = 32 };
    const struct call *c = context;
    for (uint32_t t = c->first_token + first; t < c->first_token + last; t++) {
        if (t + AHEAD < c->first_token + last)
            prefetch_levels(c, t + AHEAD);
        c->r->loss[t] = c->plan->first[t] < c->plan->first[t + 1] ? token_loss(c, t, thread) : 0;
    }
}

/* d_scores = the loss's slopes, or nothing for NULL. */
static void set_slopes(const struct call *c, const struct level *a, const double *factor)
{
    for (uint32_t i = 0; i < a->n; i++)
        a->d_scores[i] = factor ? (float)(c->grad->loss_scale * factor[i]) : 0;
}

/* Of the weights and the losses of one token. */
static void token_backward(const struct call *c, uint32_t t, uint32_t thread)
{
    const struct hierarchical *r = c->r;
    const struct level outer = outer_level(c, t, thread);
    uint32_t pair = c->plan->first[t];
    const uint32_t first_group = c->plan->expert[pair] / r->n_inside;
    float *d_row = c->grad->d_columns + (size_t)t * c->batch->stride;
    gate(c, &outer, true);
    set_slopes(c, &outer, r->outer_factor);
    memset(outer.d_share, 0, outer.k * sizeof *outer.d_share);
    for (uint32_t i = 0; i < outer.k && outer.chosen[i] != MOESIM_NO_EXPERT; i++) {
        const uint32_t group = outer.chosen[i];
        const struct level inner = inner_level(c, t, thread, i);
        gate(c, &inner, true);
        set_slopes(c, &inner, group == first_group ? r->inner_factor + (size_t)group * r->n_inside : NULL);
        memset(inner.d_share, 0, inner.k * sizeof *inner.d_share);
        for (uint32_t j = 0; j < inner.k && inner.chosen[j] != MOESIM_NO_EXPERT; j++, pair++) {
            const float d = c->plan->fate[pair] == MOESIM_KEPT ? (float)(c->grad->d_weight[pair] * r->p.scale) : 0;
            inner.d_share[j] = d * outer.share[i];
            outer.d_share[i] += d * inner.share[j];
        }
        gate_backward(c, &inner, d_row + (size_t)group * r->n_inside);
    }
    gate_backward(c, &outer, d_row + r->n_experts);
}

static void tokens_backward(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    for (uint32_t t = c->first_token + first; t < c->first_token + last; t++)
        if (c->plan->first[t] < c->plan->first[t + 1])
            token_backward(c, t, thread);
}

/* Calls `body` for one group of tokens after the other, with the factors of its losses. */
static void for_groups(struct call *c, moesim_tokens_body *body)
{
    const uint32_t *start = c->batch->group_start;
    uint32_t n_all = 0;
    for (uint32_t t = 0; t < c->batch->n_tokens; t++)
        n_all += c->plan->first[t] < c->plan->first[t + 1];
    for (uint32_t g = 0; g < c->batch->n_groups; g++) {
        c->first_token = start[g];
        set_factors(c, g, n_all);
        moesim_for_tokens(start[g + 1] - start[g], c->r->n_threads, body, c);
    }
}

static double losses(struct call *c)
{
    double loss = 0;
    for_groups(c, tokens_loss);
    for (uint32_t t = 0; t < c->batch->n_tokens; t++)
        loss += c->r->loss[t];
    return loss;
}

/* ---- hooks ---- */

static enum moesim_status hierarchical_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                             struct moesim_error *err)
{
    const struct hierarchical *r = state;
    struct call c = {.r = r, .batch = batch, .plan = plan};
    (void)err;
    moesim_topk(batch->columns + r->n_experts, batch->stride, batch->n_tokens, r->p.n_groups, r->p.topk_groups,
                r->outer);
    memset(r->ahead, 0, r->n_threads * sizeof *r->ahead);
    limit_groups(r, batch);
    limit_experts(r, batch, plan);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    moesim_plan_add_aux(plan, "switch", r->p.aux_coef > 0 ? losses(&c) : 0);
    return MOESIM_OK;
}

static enum moesim_status hierarchical_backward(void *state, const struct moesim_batch *batch,
                                                const struct moesim_plan *plan, struct moesim_grad *grad,
                                                struct moesim_error *err)
{
    struct call c = {.r = state, .batch = batch, .plan = plan, .grad = grad};
    (void)err;
    for_groups(&c, tokens_backward);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_hierarchical = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "hierarchical",
    .summary = "an outer gate picks groups, an inner gate the experts of each",
    .reference = "Shazeer et al., Outrageously Large Neural Networks, ICLR 2017",
    .params = hierarchical_schema,
    .params_size = sizeof(struct hierarchical_params),
    .state_size = sizeof(struct hierarchical),
    .shape = hierarchical_shape,
    .init = hierarchical_init,
    .route = hierarchical_route,
    .backward = hierarchical_backward,
};
