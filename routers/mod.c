/*
 * mod, mixture of depths: one scalar r per token; in each group the C = min(T, ceil(T * capacity_factor)) tokens of
 * highest r go through the one block that there is, the others skip it: y = x + r f(x), r as it comes out of the gate.
 * The model's experts play no part: the plan has a single expert, expert 0.
 *
 * The choice looks at later tokens of the sequence. The auxiliary loss lets sigmoid(r) learn to foretell it: aux_coef
 * times the mean binary cross-entropy between sigmoid(r) and "was chosen".
 *
 * Raposo et al., "Mixture-of-Depths", 2024, sections 3.3 to 3.5.
 */
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct mod_params {
    double capacity_factor;
    double aux_coef;
    const char *group;
    double jitter;
};

static const struct moesim_param mod_schema[] = {
    MOESIM_PARAM(struct mod_params, capacity_factor, "0.125", 0, 1,
                 "share of a group's tokens that take the block, above 0: C = ceil(T * capacity_factor)"),
    MOESIM_PARAM(struct mod_params, aux_coef, "0", 0, 1e6,
                 "coefficient of the cross-entropy that teaches sigmoid(r) the choice"),
    MOESIM_PARAM(struct mod_params, group, "device", 0, 0,
                 "tokens among which the block chooses: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct mod_params, jitter, "0", 0, 0.999, "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

struct mod {
    struct mod_params p;
    float *score;       /* [max_tokens] r, NaN where it is not finite */
    float *loss;        /* [max_tokens] cross-entropy of the tokens that take part */
    uint32_t *capacity; /* [max_groups] */
    void *scratch;      /* of the kernel */
};

static enum moesim_status mod_shape(const void *params, const struct moesim_env *env, struct moesim_shape *shape,
                                    struct moesim_error *err)
{
    const struct mod_params *p = params;
    if (!(p->capacity_factor > 0))
        return moesim_fail(err, MOESIM_EINVAL,
                           "capacity_factor = 0 leaves mod no token: it is the share of the tokens that take the block "
                           "and must be above 0");
    shape->n_columns = 1;
    shape->n_logits = 0;
    shape->n_experts = 1;
    shape->max_pairs = env->max_tokens;
    shape->input_jitter = (float)p->jitter;
    return moesim_group_parse(p->group, shape, err);
}

static enum moesim_status mod_init(void *state, const void *params, const struct moesim_env *env,
                                   struct moesim_error *err)
{
    struct mod *r = state;
    r->p = *(const struct mod_params *)params;
    r->score = moesim_alloc(env->arena, env->max_tokens, sizeof *r->score);
    r->loss = moesim_alloc(env->arena, env->max_tokens, sizeof *r->loss);
    r->capacity = moesim_alloc(env->arena, env->max_groups, sizeof *r->capacity);
    r->scratch =
        moesim_alloc(env->arena, moesim_expert_choice_scratch(env->max_tokens, 1, env->max_groups, env->max_tokens), 1);
    if (!r->score || !r->loss || !r->capacity || !r->scratch)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u tokens", env->max_tokens);
    return MOESIM_OK;
}

static bool takes_part(const struct mod *r, const struct moesim_batch *batch, uint32_t t)
{
    return !isnan(r->score[t]) && !(batch->padding && batch->padding[t]);
}

static void set_capacity(const struct mod *r, const struct moesim_batch *batch)
{
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        uint32_t n = 0;
        for (uint32_t t = batch->group_start[g]; t < batch->group_start[g + 1]; t++)
            n += !(batch->padding && batch->padding[t]);
        r->capacity[g] = (uint32_t)fmin(ceil(n * r->p.capacity_factor), n);
    }
}

/* The mean of softplus(r) - r where chosen, softplus(r) elsewhere: -ln sigmoid(r) and -ln(1 - sigmoid(r)). */
static double cross_entropy(const struct mod *r, const struct moesim_batch *batch, const struct moesim_plan *plan)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        if (takes_part(r, batch, t))
            r->loss[n++] = plan->first[t] < plan->first[t + 1] ? -r->score[t] : r->score[t];
    moesim_softplus(r->loss, n, r->loss); /* softplus(r) - r = softplus(-r) */
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += r->loss[i];
    return n > 0 ? sum / n : 0;
}

static enum moesim_status mod_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                    struct moesim_error *err)
{
    const struct mod *r = state;
    struct moesim_batch one = *batch;
    (void)err;
    one.n_experts = 1;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const float x = batch->columns[(size_t)t * batch->stride];
        r->score[t] = isfinite(x) ? x : NAN;
    }
    set_capacity(r, batch);
    moesim_expert_choice(MOESIM_IDENTITY, &one, r->score, 1, r->capacity, r->scratch, plan);
    moesim_plan_add_aux(plan, "mod", r->p.aux_coef * cross_entropy(r, batch, plan));
    return MOESIM_OK;
}

static enum moesim_status mod_backward(void *state, const struct moesim_batch *batch, const struct moesim_plan *plan,
                                       struct moesim_grad *grad, struct moesim_error *err)
{
    const struct mod *r = state;
    uint32_t n = 0;
    (void)err;
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        n += takes_part(r, batch, t);
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        if (!takes_part(r, batch, t))
            continue;
        const bool chosen = plan->first[t] < plan->first[t + 1];
        const double sigmoid = 1 / (1 + (double)moesim_expf(-r->score[t]));
        const double d_loss = grad->loss_scale * r->p.aux_coef * (sigmoid - chosen) / n;
        const double d_weight = chosen ? grad->d_weight[plan->first[t]] : 0;
        grad->d_columns[(size_t)t * batch->stride] += (float)(d_weight + d_loss);
    }
    return MOESIM_OK;
}

const struct moesim_router moesim_router_mod = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "mod",
    .summary = "mixture of depths: the best eighth of the tokens takes the one block, the others skip it",
    .reference = "Raposo et al., Mixture-of-Depths: Dynamically allocating compute in transformer-based language "
                 "models, 2024",
    .params = mod_schema,
    .params_size = sizeof(struct mod_params),
    .state_size = sizeof(struct mod),
    .shape = mod_shape,
    .init = mod_init,
    .route = mod_route,
    .backward = mod_backward,
};
