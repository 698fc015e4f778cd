/*
 * sinkhorn: in training each group's matrix exp(logit - row maximum) is scaled, rows and columns in turn, until all
 * tokens have the sum 1/S and all experts 1/E; each token takes the k experts with the largest entries of its row. The
 * scaling stops when the experts' factors change by at most `tolerance` in the mean, or after max_iterations, which the
 * plan notes. In evaluation the k largest logits are taken. The weight is the sigmoid of the logit for k = 1, else the
 * softmax over all experts; it does not know of the scaling, which carries no gradient.
 *
 * Clark et al., "Unified Scaling Laws for Routed Language Models", ICML 2022 (S-BASE); iteration as in Megatron-LM's
 * sinkhorn, where neither the row maximum nor a limit is taken.
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

#define TINY 1e-8 /* added to every sum before it divides */

struct sinkhorn_params {
    struct moesim_token_choice choice; /* its fit and jitter */
    double tolerance;
    uint32_t max_iterations;
};

static const struct moesim_param sinkhorn_schema[] = {
    MOESIM_FIT_PARAMS(struct sinkhorn_params, choice, "top_k", "0", "megatron", "token"),
    MOESIM_PARAM(struct sinkhorn_params, tolerance, "1e-4", 0, 1e3,
                 "the scaling stops at this mean change of the experts' factors"),
    MOESIM_PARAM(struct sinkhorn_params, max_iterations, "1000", 1, 1e6, "or after so many rounds, which is noted"),
    MOESIM_PARAM_IN(struct sinkhorn_params, choice, jitter, "0", 0, 0.999,
                    "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

#define ENTRY_BYTES ((size_t)48 << 20) /* tokens beyond have their entries made anew in every round */

struct sinkhorn {
    struct sinkhorn_params p;
    struct moesim_token_choice_scratch *scratch;
    uint32_t *token;         /* [max_tokens] of one group, those that take part */
    uint32_t n_rows;         /* of them that `entry` has room for */
    float *entry;            /* [n_rows][E] exp(logit - row maximum) */
    float *row;              /* [E] the same of one token */
    float *shift;            /* [max_groups][E] ln of the experts' factors: row by row the order of the scaled matrix */
    double *factor, *column; /* [E] */
};

static enum moesim_status sinkhorn_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                         struct moesim_error *err)
{
    const struct sinkhorn_params *p = params;
    return moesim_token_choice_shape(&p->choice, env, shape, err);
}

static enum moesim_status sinkhorn_init(void *state, const void *params, const struct moesim_env *env,
                                        struct moesim_error *err)
{
    struct sinkhorn *r = state;
    const size_t n_experts = env->n_experts;
    r->p = *(const struct sinkhorn_params *)params;
    r->p.choice.score = r->p.choice.k == 1 ? MOESIM_SIGMOID : MOESIM_SOFTMAX;
    r->p.choice.weight = MOESIM_WEIGHT_NONE;
    r->p.choice.scale = 1;
    const size_t n_rows = ENTRY_BYTES / sizeof *r->entry / n_experts;
    r->n_rows = n_rows < env->max_tokens ? (uint32_t)n_rows : env->max_tokens;
    r->token = moesim_alloc(env->arena, env->max_tokens, sizeof *r->token);
    r->entry = moesim_alloc(env->arena, r->n_rows * n_experts, sizeof *r->entry);
    r->row = moesim_alloc(env->arena, n_experts, sizeof *r->row);
    r->shift = moesim_alloc(env->arena, env->max_groups * n_experts, sizeof *r->shift);
    r->factor = moesim_alloc(env->arena, n_experts, sizeof *r->factor);
    r->column = moesim_alloc(env->arena, n_experts, sizeof *r->column);
    if (!r->token || !r->entry || !r->row || !r->shift || !r->factor || !r->column)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scaling of %u tokens", env->max_tokens);
    return moesim_token_choice_init(&r->p.choice, env, &r->scratch, err);
}

/* exp(logit - row maximum) of one token, NaN as 0. */
static void make_entries(const struct moesim_batch *batch, uint32_t token, float *row)
{
    const uint32_t n = batch->n_experts;
    float max = 0;
    moesim_score_row(MOESIM_SOFTMAX, batch->columns + (size_t)token * batch->stride, n, row);
    for (uint32_t e = 0; e < n; e++)
        max = row[e] > max ? row[e] : max;
    for (uint32_t e = 0; e < n; e++)
        row[e] = row[e] > 0 ? row[e] / max : 0;
}

/* Entries of the group's i-th token that takes part: those that have no room are made again. */
static const float *entries_of(const struct sinkhorn *r, const struct moesim_batch *batch, uint32_t i)
{
    if (i < r->n_rows)
        return r->entry + (size_t)i * batch->n_experts;
    make_entries(batch, r->token[i], r->row);
    return r->row;
}

struct call {
    const struct sinkhorn *r;
    const struct moesim_batch *batch;
};

static void fill_entries(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    (void)thread;
    for (uint32_t i = first; i < last; i++)
        make_entries(c->batch, c->r->token[i], c->r->entry + (size_t)i * c->batch->n_experts);
}

static bool any_finite(const float *row, uint32_t n)
{
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(row[e]))
            return true;
    return false;
}

/* Lists the group's tokens that take part and fills their entries; returns how many. */
static uint32_t gather(const struct sinkhorn *r, const struct moesim_batch *batch, uint32_t group)
{
    uint32_t n = 0;
    for (uint32_t t = batch->group_start[group]; t < batch->group_start[group + 1]; t++)
        if (!(batch->padding && batch->padding[t]) &&
            any_finite(batch->columns + (size_t)t * batch->stride, batch->n_experts))
            r->token[n++] = t;
    struct call c = {r, batch};
    moesim_for_tokens(n < r->n_rows ? n : r->n_rows, moesim_threads(), fill_entries, &c);
    return n;
}

/* The sum of row[e] * factor[e] as eight partial sums and a fixed tree. */
static double dot(const float *row, const double *factor, uint32_t n)
{
    double s[8] = {0};
    uint32_t e = 0;
    for (; e + 8 <= n; e += 8)
        for (int j = 0; j < 8; j++)
            s[j] += factor[e + (uint32_t)j] * row[e + (uint32_t)j];
    for (; e < n; e++)
        s[e % 8] += factor[e] * row[e];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* One round over n rows: new factors from the old ones; returns their mean change. */
static double scale_once(const struct sinkhorn *r, const struct moesim_batch *batch, uint32_t n)
{
    const uint32_t n_experts = batch->n_experts;
    double *restrict column = r->column;
    memset(column, 0, n_experts * sizeof *column);
    for (uint32_t i = 0; i < n; i++) {
        const float *restrict row = entries_of(r, batch, i);
        const double row_factor = 1.0 / n / (dot(row, r->factor, n_experts) + TINY);
        for (uint32_t e = 0; e < n_experts; e++)
            column[e] += row_factor * row[e];
    }
    double change = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        const double factor = 1.0 / n_experts / (column[e] + TINY);
        change += fabs(factor - r->factor[e]);
        r->factor[e] = factor;
    }
    return change / n_experts;
}

/* Fills the group's row of `shift`; false when max_iterations were not enough. */
static bool scale_group(const struct sinkhorn *r, const struct moesim_batch *batch, uint32_t group)
{
    const uint32_t n_experts = batch->n_experts, n = gather(r, batch, group);
    bool converged = n == 0;
    for (uint32_t e = 0; e < n_experts; e++)
        r->factor[e] = 1;
    for (uint32_t i = 0; i < r->p.max_iterations && !converged; i++)
        converged = scale_once(r, batch, n) <= r->p.tolerance;
    for (uint32_t e = 0; e < n_experts; e++)
        r->shift[(size_t)group * n_experts + e] = (float)log(r->factor[e]);
    return converged;
}

static enum moesim_status sinkhorn_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                         struct moesim_error *err)
{
    const struct sinkhorn *r = state;
    const struct moesim_token_choice *choice = &r->p.choice;
    bool converged = true;
    if (batch->phase == MOESIM_EVAL)
        return moesim_token_choice_route(choice, batch, batch->columns, batch->stride, NULL, r->scratch, plan, err);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        converged &= scale_group(r, batch, g);
    moesim_token_choice_choose(choice, batch, batch->columns, batch->stride, r->shift, r->scratch, plan);
    moesim_token_choice_fit(choice, batch, r->scratch, plan);
    if (!converged)
        plan->note = "sinkhorn stopped at max_iterations before its factors settled within tolerance";
    return MOESIM_OK;
}

static enum moesim_status sinkhorn_backward(void *state, const struct moesim_batch *batch,
                                            const struct moesim_plan *plan, struct moesim_grad *grad,
                                            struct moesim_error *err)
{
    const struct sinkhorn *r = state;
    (void)err;
    moesim_token_choice_backward(&r->p.choice, batch, batch->columns, batch->stride, plan, grad->d_weight, r->scratch,
                                 grad->d_columns);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_sinkhorn = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "sinkhorn",
    .summary = "training chooses from a doubly normalised matrix, which evens the load; sigmoid or softmax weight",
    .reference = "Clark et al., Unified Scaling Laws for Routed Language Models, ICML 2022; Megatron-LM",
    .params = sinkhorn_schema,
    .params_size = sizeof(struct sinkhorn_params),
    .state_size = sizeof(struct sinkhorn),
    .shape = sinkhorn_shape,
    .init = sinkhorn_init,
    .route = sinkhorn_route,
    .backward = sinkhorn_backward,
};
