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
    uint32_t n_threads;
    float *scores, *d_scores; /* [n_threads][E] of one token */
    uint32_t *capacity;       /* [max_groups] */
    void *scratch;            /* of the kernel */
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
    r->p = *(const struct expert_choice_params *)params;
    r->n_threads = moesim_threads();
    const size_t n = (size_t)r->n_threads * env->n_experts;
    r->scores = moesim_alloc(env->arena, n, sizeof *r->scores);
    r->d_scores = moesim_alloc(env->arena, n, sizeof *r->d_scores);
    r->capacity = moesim_alloc(env->arena, env->max_groups, sizeof *r->capacity);
    r->scratch = moesim_alloc(
        env->arena, moesim_expert_choice_scratch(env->max_tokens, env->n_experts, env->max_groups, shape.max_pairs), 1);
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
    moesim_expert_choice(r->p.score, batch, batch->columns, batch->stride, r->capacity, r->scratch, plan);
    for (uint64_t i = 0; i < (r->p.scale == 1 ? 0 : plan->n_pairs); i++)
        plan->weight[i] = (float)fmin(plan->weight[i] * r->p.scale, FLT_MAX);
    return MOESIM_OK;
}

/* What all tokens of one call share. */
struct call {
    const struct expert_choice *r;
    const struct moesim_batch *batch;
    const struct moesim_plan *plan;
    const struct moesim_grad *grad;
};

static void backward_tokens(void *context, uint32_t first, uint32_t last, uint32_t thread)
{
    const struct call *c = context;
    const uint32_t n_experts = c->batch->n_experts;
    float *scores = c->r->scores + (size_t)thread * n_experts, *d_scores = c->r->d_scores + (size_t)thread * n_experts;
    for (uint32_t t = first; t < last; t++) {
        const size_t row = (size_t)t * c->batch->stride;
        if (c->plan->first[t] == c->plan->first[t + 1])
            continue;
        moesim_score_row(c->r->p.score, c->batch->columns + row, n_experts, scores);
        memset(d_scores, 0, n_experts * sizeof *d_scores);
        for (uint32_t i = c->plan->first[t]; i < c->plan->first[t + 1]; i++)
            d_scores[c->plan->expert[i]] = (float)(c->r->p.scale * c->grad->d_weight[i]);
        moesim_score_row_backward(c->r->p.score, c->batch->columns + row, scores, d_scores, n_experts,
                                  c->grad->d_columns + row);
    }
}

static enum moesim_status expert_choice_backward(void *state, const struct moesim_batch *batch,
                                                 const struct moesim_plan *plan, struct moesim_grad *grad,
                                                 struct moesim_error *err)
{
    struct call c = {state, batch, plan, grad};
    (void)err;
    moesim_for_tokens(batch->n_tokens, c.r->n_threads, backward_tokens, &c);
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
