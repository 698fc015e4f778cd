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

struct sinkhorn {
    struct sinkhorn_params p;
    struct moesim_token_choice_scratch *scratch;
    float *entry;            /* [max_tokens][E] exp(logit - row maximum) */
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
    r->entry = moesim_alloc(env->arena, env->max_tokens * n_experts, sizeof *r->entry);
    r->shift = moesim_alloc(env->arena, env->max_groups * n_experts, sizeof *r->shift);
    r->factor = moesim_alloc(env->arena, n_experts, sizeof *r->factor);
    r->column = moesim_alloc(env->arena, n_experts, sizeof *r->column);
    if (!r->entry || !r->shift || !r->factor || !r->column)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scaling of %u tokens", env->max_tokens);
    return moesim_token_choice_init(&r->p.choice, env, &r->scratch, err);
}

/* Turns a row of softmax into exp(logit - row maximum), NaN into 0; false for a bad row. */
static bool scale_to_maximum(float *row, uint32_t n)
{
    float max = 0;
    for (uint32_t e = 0; e < n; e++)
        max = row[e] > max ? row[e] : max;
    for (uint32_t e = 0; e < n; e++)
        row[e] = row[e] > 0 ? row[e] / max : 0;
    return max > 0;
}

/* The entries of the group's tokens that take part, moved together from the group's start; returns how many. */
static uint32_t gather(const struct sinkhorn *r, const struct moesim_batch *batch, uint32_t group)
{
    const size_t n_experts = batch->n_experts;
    uint32_t n = batch->group_start[group];
    for (uint32_t t = n; t < batch->group_start[group + 1]; t++) {
        float *row = r->entry + t * n_experts;
        if ((batch->padding && batch->padding[t]) || !scale_to_maximum(row, batch->n_experts))
            continue;
        if (n != t)
            memcpy(r->entry + n * n_experts, row, n_experts * sizeof *row);
        n++;
    }
    return n - batch->group_start[group];
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
static double scale_once(const struct sinkhorn *r, const float *entry, uint32_t n, uint32_t n_experts)
{
    double *restrict column = r->column;
    memset(column, 0, n_experts * sizeof *column);
    for (uint32_t t = 0; t < n; t++) {
        const float *restrict row = entry + (size_t)t * n_experts;
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
    const float *entry = r->entry + (size_t)batch->group_start[group] * n_experts;
    bool converged = n == 0;
    for (uint32_t e = 0; e < n_experts; e++)
        r->factor[e] = 1;
    for (uint32_t i = 0; i < r->p.max_iterations && !converged; i++)
        converged = scale_once(r, entry, n, n_experts) <= r->p.tolerance;
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
    moesim_scores(MOESIM_SOFTMAX, batch->columns, batch->stride, batch->n_tokens, batch->n_experts, r->entry);
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
