/*
 * expert-choice: every expert takes the best tokens of each group, exactly C = min(T, ceil(T * capacity_factor / E)) of
 * them; a token gets 0 to E experts, each with its raw score as weight. The load is even by construction.
 *
 * Zhou et al., "Mixture-of-Experts with Expert Choice Routing", NeurIPS 2022. It looks at later tokens of the sequence.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/router.h>

struct expert_choice_params {
    double capacity_factor;
    uint32_t score;
    double scale;
    const char *group;
    double jitter;
};

static const struct moesim_param expert_choice_schema[] = {
    MOESIM_PARAM(struct expert_choice_params, capacity_factor, "top_k", 0, 65536,
                 "mean experts per token, above 0: C = min(T, ceil(T * capacity_factor / E))"),
    MOESIM_CHOICE(struct expert_choice_params, score, "softmax", MOESIM_SCORE_CHOICES,
                  "score function over the gate's logits"),
    MOESIM_PARAM(struct expert_choice_params, scale, "1", 0, 1e6, "factor on every gate weight"),
    MOESIM_PARAM(struct expert_choice_params, group, "device", 0, 0,
                 "tokens among which an expert chooses: device, batch, sequence or a number of tokens"),
    MOESIM_PARAM(struct expert_choice_params, jitter, "0", 0, 0.999,
                 "gate input times U(1-jitter, 1+jitter) in training"),
    MOESIM_PARAM_END,
};

struct expert_choice {
    struct expert_choice_params p;
    float *scores;      /* [max_tokens][E] */
    float *d_scores;    /* [max_tokens][E] */
    uint32_t *capacity; /* [max_groups] */
    void *scratch;      /* of the kernel */
};

static uint32_t capacity(const struct expert_choice_params *p, uint32_t n_tokens, uint32_t n_experts)
{
    const double slots = ceil((double)n_tokens * p->capacity_factor / n_experts);
    return slots < n_tokens ? (uint32_t)slots : n_tokens;
}

static enum moesim_status expert_choice_shape(const void *params, const struct moesim_env *env,
                                              struct moesim_shape *shape, struct moesim_error *err)
{
    const struct expert_choice_params *p = params;
    if (!(p->capacity_factor > 0))
        return moesim_fail(
            err, MOESIM_EINVAL,
            "capacity_factor = 0 leaves expert-choice nothing to choose: it is the mean number of experts "
            "per token and must be above 0");
    const enum moesim_status status = moesim_group_parse(p->group, shape, err);
    if (status)
        return status;
    /* every group may round up */
    const bool few = shape->group == MOESIM_GROUP_DEVICE || shape->group == MOESIM_GROUP_BATCH;
    const double n_groups = few ? fmax(env->n_devices, 1) : env->max_tokens;
    const double most = (double)env->max_tokens * env->n_experts;
    const double pairs = ceil(env->max_tokens * p->capacity_factor) + n_groups * env->n_experts;
    shape->max_pairs = (uint64_t)fmin(pairs, most);
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

static enum moesim_status expert_choice_init(void *state, const void *params, const struct moesim_env *env,
                                             struct moesim_error *err)
{
    struct expert_choice *r = state;
    struct moesim_shape shape = {.struct_size = sizeof shape};
    const enum moesim_status status = expert_choice_shape(params, env, &shape, err);
    if (status)
        return status;
    const size_t n = (size_t)env->max_tokens * env->n_experts;
    r->p = *(const struct expert_choice_params *)params;
    r->scores = moesim_alloc(env->arena, n, sizeof *r->scores);
    r->d_scores = moesim_alloc(env->arena, n, sizeof *r->d_scores);
    r->capacity = moesim_alloc(env->arena, env->max_groups, sizeof *r->capacity);
    r->scratch =
        moesim_alloc(env->arena, moesim_expert_choice_scratch(env->max_tokens, env->max_groups, shape.max_pairs), 1);
    if (!r->scores || !r->d_scores || !r->capacity || !r->scratch)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the scores of %u tokens", env->max_tokens);
    return MOESIM_OK;
}

static uint32_t group_tokens(const struct moesim_batch *batch, uint32_t group)
{
    uint32_t n = 0;
    for (uint32_t t = batch->group_start[group]; t < batch->group_start[group + 1]; t++)
        n += !(batch->padding && batch->padding[t]);
    return n;
}

static enum moesim_status expert_choice_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                              struct moesim_error *err)
{
    const struct expert_choice *r = state;
    (void)err;
    for (uint32_t g = 0; g < batch->n_groups; g++)
        r->capacity[g] = capacity(&r->p, group_tokens(batch, g), batch->n_experts);
    moesim_scores(r->p.score, batch->columns, batch->stride, batch->n_tokens, batch->n_experts, r->scores);
    moesim_expert_choice(batch, r->scores, r->capacity, r->scratch, plan);
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        plan->weight[i] = (float)fmin(plan->weight[i] * r->p.scale, FLT_MAX);
    return MOESIM_OK;
}

static enum moesim_status expert_choice_backward(void *state, const struct moesim_batch *batch,
                                                 const struct moesim_plan *plan, struct moesim_grad *grad,
                                                 struct moesim_error *err)
{
    const struct expert_choice *r = state;
    (void)err;
    memset(r->d_scores, 0, (size_t)batch->n_tokens * batch->n_experts * sizeof *r->d_scores);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            r->d_scores[(size_t)t * batch->n_experts + plan->expert[i]] = (float)(r->p.scale * grad->d_weight[i]);
    moesim_scores_backward(r->p.score, batch->columns, batch->stride, r->scores, r->d_scores, batch->n_tokens,
                           batch->n_experts, grad->d_columns);
    return MOESIM_OK;
}

const struct moesim_router moesim_router_expert_choice = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_COLUMNS,
    .name = "expert-choice",
    .summary = "each expert takes its best tokens, equally many for all experts",
    .reference = "Zhou et al., Mixture-of-Experts with Expert Choice Routing, NeurIPS 2022",
    .params = expert_choice_schema,
    .params_size = sizeof(struct expert_choice_params),
    .state_size = sizeof(struct expert_choice),
    .shape = expert_choice_shape,
    .init = expert_choice_init,
    .route = expert_choice_route,
    .backward = expert_choice_backward,
};
