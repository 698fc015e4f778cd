/*
 * relu: an expert is active where its logit is above 0, with relu(logit) as its weight: no top-k, so the router is
 * differentiable everywhere. A token gets 0 to E experts.
 *
 * How many is steered by an L1 loss that grows with each expert's load, lambda E / (target T^2) sum_e n_e sum_t
 * relu(l_te), and by lambda itself: after every global batch it is multiplied by lambda_factor if the layers' mean
 * share of inactive experts is below 1 - target / E, else divided by it.
 *
 * Wang et al., "ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing", ICLR 2025 (arXiv:2412.14711).
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct relu_params {
    double target, lambda, lambda_factor, scale, jitter;
};

static const struct moesim_param relu_schema[] = {
    MOESIM_PARAM(struct relu_params, target, "top_k", 1e-3, 65536, "mean experts per token that lambda steers towards"),
    MOESIM_PARAM(struct relu_params, lambda, "1e-08", 0, 1e6, "coefficient of the L1 loss at the start"),
    MOESIM_PARAM(struct relu_params, lambda_factor, "1.2", 1, 10, "step of lambda after each global batch; 1 = fixed"),
    MOESIM_PARAM(struct relu_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_PARAM(struct relu_params, jitter, "0", 0, 0.999, "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

/* Lambda is lambda * lambda_factor^memory[0]: whole steps, so that up and down cancel exactly. */
enum { MEMORY_STEPS, N_MEMORY };
#define MOST_STEPS 1000.0f
#define MOST_LAMBDA 1e12

struct relu_router {
    struct relu_params p;
    uint32_t n_experts;
    struct moesim_chooser *chooser;
    double *sum;    /* [E] of relu(l) over tokens */
    double *factor; /* [E] loss by relu(l_te) */
};

static enum moesim_status relu_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                     struct moesim_error *err)
{
    const struct relu_params *p = params;
    if (p->target > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "target = %g experts per token exceeds the %u experts", p->target,
                           env->n_experts);
    shape->max_pairs = (uint64_t)env->max_tokens * env->n_experts;
    shape->n_memory = N_MEMORY;
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

static enum moesim_status relu_init(void *state, const void *params, const struct moesim_env *env,
                                    struct moesim_error *err)
{
    struct relu_router *r = state;
    r->p = *(const struct relu_params *)params;
    r->n_experts = env->n_experts;
    r->sum = moesim_alloc(env->arena, env->n_experts, sizeof *r->sum);
    r->factor = moesim_alloc(env->arena, env->n_experts, sizeof *r->factor);
    if (!r->sum || !r->factor)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u experts", env->n_experts);
    return moesim_chooser_init(env, env->n_experts, env->n_experts, &r->chooser, err);
}

struct call {
    const struct relu_router *r;
    const struct moesim_batch *batch;
};

static float relu(float logit)
{
    return logit < FLT_MAX ? logit : FLT_MAX; /* of a positive one: +inf counts as the largest number */
}

static uint32_t choose(const void *context, uint32_t t, uint32_t thread, struct moesim_choices *out)
{
    const struct call *c = context;
    const uint32_t n_experts = c->r->n_experts;
    const float *logits = c->batch->columns + (size_t)t * c->batch->stride;
    const double scale = c->r->p.scale;
    bool any = false;
    (void)thread;
    for (uint32_t e = 0; e < n_experts && !any; e++)
        any = logits[e] - logits[e] == 0;
    if (!any)
        return MOESIM_NO_CHOICE;
    const uint32_t n = moesim_rank_above(logits, n_experts, 0, out->expert);
    for (uint32_t i = 0; i < n; i++) {
        const double weight = relu(logits[out->expert[i]]) * scale;
        out->weight[i] = weight < FLT_MAX ? (float)weight : FLT_MAX;
    }
    return n;
}

static double lambda(const struct relu_router *r, const struct moesim_batch *batch)
{
    return fmin(r->p.lambda * pow(r->p.lambda_factor, batch->memory[MEMORY_STEPS]), MOST_LAMBDA);
}

static uint32_t count_rows(const struct moesim_batch *batch, const struct moesim_plan *plan)
{
    uint32_t n = batch->n_tokens - plan->n_bad_rows;
    for (uint32_t t = 0; batch->padding && t < batch->n_tokens; t++)
        n -= batch->padding[t] != 0;
    return n;
}

/* Sets r->factor, the loss's slope by each active relu(l_te), and r->sum. */
static void set_factor(const struct relu_router *r, const struct moesim_batch *batch, const struct moesim_plan *plan)
{
    const double n_tokens = count_rows(batch, plan);
    memset(r->factor, 0, r->n_experts * sizeof *r->factor);
    memset(r->sum, 0, r->n_experts * sizeof *r->sum);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            const uint32_t e = plan->expert[i];
            r->factor[e]++;
            r->sum[e] += relu(batch->columns[(size_t)t * batch->stride + e]);
        }
    for (uint32_t e = 0; n_tokens > 0 && e < r->n_experts; e++)
        r->factor[e] *= lambda(r, batch) * r->n_experts / (r->p.target * n_tokens * n_tokens);
}

static enum moesim_status relu_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                     struct moesim_error *err)
{
    const struct relu_router *r = state;
    const struct call c = {r, batch};
    (void)err;
    moesim_plan_unlimited(plan);
    moesim_choose(r->chooser, batch, choose, &c, plan);
    set_factor(r, batch, plan);
    double loss = 0;
    for (uint32_t e = 0; e < r->n_experts; e++)
        loss += r->factor[e] * r->sum[e];
    moesim_plan_add_aux(plan, "l1", loss);
    return MOESIM_OK;
}

static enum moesim_status relu_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                        struct moesim_grad *grad, struct moesim_error *err)
{
    const struct relu_router *r = state;
    (void)err;
    set_factor(r, batch, plan);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            grad->d_columns[(size_t)t * batch->stride + plan->expert[i]] +=
                (float)(r->p.scale * grad->d_weight[i] + grad->loss_scale * r->factor[plan->expert[i]]);
    return MOESIM_OK;
}

static enum moesim_status relu_update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    const struct relu_router *r = state;
    double n = 0;
    (void)err;
    for (uint32_t e = 0; e < feedback->n_experts; e++)
        n += feedback->mean_assigned[e];
    float *steps = &feedback->memory[MEMORY_STEPS];
    if (feedback->n_tokens > 0) /* sparsity below 1 - target / E is more than target experts a token */
        *steps += n / (double)feedback->n_tokens > r->p.target ? 1.0f : -1.0f;
    *steps = fminf(fmaxf(*steps, -MOST_STEPS), MOST_STEPS);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_relu = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "relu",
    .summary = "each token takes the experts whose logit is above 0",
    .reference = "Wang et al., ReMoE: Fully Differentiable Mixture-of-Experts with ReLU Routing, ICLR 2025",
    .params = relu_schema,
    .params_size = sizeof(struct relu_params),
    .state_size = sizeof(struct relu_router),
    .shape = relu_shape,
    .init = relu_init,
    .route = relu_route,
    .backward = relu_backward,
    .update = relu_update,
};
