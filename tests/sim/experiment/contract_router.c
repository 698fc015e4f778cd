/*
 * value_te = a_te + mix * b_te * x_td + w_e * mean_d x_td, with a, b the first and second E gate columns, x the hidden
 * state (d = e mod d_model) and w learned; selection by value + bias, the bias kept in memory and moved by gamma
 * towards even loads; weight = softmax(value).
 */
#include "contract_router.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include <moesim/kernels.h>

enum contract_fault contract_fault;

struct contract_params {
    uint32_t k;
    double mix, gamma;
};

static const struct moesim_param params[] = {
    MOESIM_PARAM(struct contract_params, k, "top_k", 1, 1024, "experts per token"),
    MOESIM_PARAM(struct contract_params, mix, "0.5", 0, 10, "weight of the second gate column"),
    MOESIM_PARAM(struct contract_params, gamma, "0.01", 0, 1, "step of the selection bias"),
    MOESIM_PARAM_END,
};

struct contract {
    struct contract_params p;
    const float *weights;                              /* [n_experts] */
    float *bias;                                       /* [n_experts] in the host's memory */
    float *value, *score, *biased, *d_score, *d_value; /* [max_tokens][n_experts] */
    uint32_t *choice;                                  /* [max_tokens][k] */
    struct moesim_arena *arena;                        /* for FAULT_ARENA */
};

static enum moesim_status contract_shape(const void *params_, const struct moesim_env *env, struct moesim_shape *shape,
                                         struct moesim_error *err)
{
    const struct contract_params *p = params_;
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds %u experts", p->k, env->n_experts);
    static uint32_t n_calls; /* for FAULT_SHAPE */
    shape->n_columns = 2 * env->n_experts + (contract_fault == FAULT_SHAPE ? n_calls++ % 3 : 0);
    shape->n_optional_columns = env->n_experts;
    shape->n_weights = env->n_experts;
    shape->weight_std = 0.5f;
    shape->n_memory = env->n_experts;
    shape->max_pairs = (uint64_t)env->max_tokens * p->k;
    return MOESIM_OK;
}

static enum moesim_status contract_init(void *state, const void *params_, const struct moesim_env *env,
                                        struct moesim_error *err)
{
    struct contract *r = state;
    r->p = *(const struct contract_params *)params_;
    r->weights = env->weights;
    r->arena = env->arena;
    r->bias = env->memory;
    if (contract_fault == FAULT_OWN_MEMORY)
        r->bias = moesim_alloc(env->arena, env->n_experts, sizeof *r->bias);
    const size_t cells = (size_t)env->max_tokens * env->n_experts;
    float **buffers[] = {&r->value, &r->score, &r->biased, &r->d_score, &r->d_value};
    for (int i = 0; i < 5; i++)
        if (!(*buffers[i] = moesim_alloc(env->arena, cells, sizeof(float))))
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu scores", cells);
    r->choice = moesim_alloc(env->arena, (size_t)env->max_tokens * r->p.k, sizeof *r->choice);
    return r->choice ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for choices");
}

static float mix_of(const struct contract *r)
{
    return contract_fault == FAULT_DEAD_PARAM ? 0.5f : (float)r->p.mix;
}

static float mean_hidden(const struct moesim_batch *batch, uint32_t t)
{
    return moesim_sum(batch->hidden + (size_t)t * batch->d_model, batch->d_model) / (float)batch->d_model;
}

static void compute_values(struct contract *r, const struct moesim_batch *batch)
{
    const uint32_t n = batch->n_experts;
    const float mix = mix_of(r);
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const float *a = batch->columns + (size_t)t * batch->stride, *b = a + n;
        const float *x = batch->hidden + (size_t)t * batch->d_model, mean = mean_hidden(batch, t);
        for (uint32_t e = 0; e < n; e++) {
            float value = a[e] + mix * b[e] * x[e % batch->d_model] + r->weights[e] * mean;
            if (!isfinite(a[e])) /* the tie rule speaks of the logits */
                value = a[e];
            if (contract_fault == FAULT_NAN && isnan(a[e]))
                value = 100;
            if (contract_fault == FAULT_THREADS)
                value += 0.01f * (float)(omp_get_max_threads() * (int)e);
            r->value[(size_t)t * n + e] = value;
            r->biased[(size_t)t * n + e] = value + r->bias[e];
        }
    }
}

/* The pairs of one token; padding and bad rows get none that counts. */
static void fill_token(struct contract *r, const struct moesim_batch *batch, struct moesim_plan *plan,
                       uint32_t *next_slot, uint32_t t)
{
    uint64_t i = plan->n_pairs;
    plan->first[t] = (uint32_t)i;
    if (batch->padding && batch->padding[t] && contract_fault != FAULT_PADDING)
        return;
    const uint32_t k = r->p.k, *choice = r->choice + (size_t)t * k;
    plan->n_bad_rows += choice[0] == MOESIM_NO_EXPERT;
    for (uint32_t c = 0; c < k; c++, i++) {
        const uint32_t e = contract_fault == FAULT_DUPLICATE ? choice[0] : choice[c];
        const bool found = e != MOESIM_NO_EXPERT;
        plan->expert[i] = e;
        plan->fate[i] = found ? MOESIM_KEPT : MOESIM_BAD_ROW;
        plan->slot[i] = found ? (int32_t)next_slot[e]++ : -1;
        plan->weight[i] = found ? r->score[(size_t)t * batch->n_experts + e] : 0;
        plan->n_wanted += found;
    }
    plan->n_pairs = i;
}

static enum moesim_status contract_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                         struct moesim_error *err)
{
    (void)err;
    struct contract *r = state;
    const uint32_t n = batch->n_experts;
    if (contract_fault == FAULT_ARENA && !moesim_alloc(r->arena, 1, 1))
        return MOESIM_ENOMEM;
    compute_values(r, batch);
    moesim_scores(MOESIM_SOFTMAX, r->value, n, batch->n_tokens, n, r->score);
    moesim_topk(r->biased, n, batch->n_tokens, n, r->p.k, r->choice);
    uint32_t next_slot[1024] = {0};
    for (uint32_t g = 0; g < batch->n_groups; g++) {
        memset(next_slot, 0, n * sizeof *next_slot);
        for (uint32_t e = 0; e < n; e++)
            plan->capacity[(size_t)g * n + e] = MOESIM_UNLIMITED;
        for (uint32_t t = batch->group_start[g]; t < batch->group_start[g + 1]; t++)
            fill_token(r, batch, plan, next_slot, t);
    }
    plan->first[batch->n_tokens] = (uint32_t)plan->n_pairs;
    return MOESIM_OK;
}

static enum moesim_status contract_backward(void *state, const struct moesim_batch *batch,
                                            const struct moesim_plan *plan, struct moesim_grad *grad,
                                            struct moesim_error *err)
{
    (void)err;
    struct contract *r = state;
    const uint32_t n = batch->n_experts;
    const float mix = mix_of(r);
    memset(r->d_score, 0, (size_t)batch->n_tokens * n * sizeof(float));
    memset(r->d_value, 0, (size_t)batch->n_tokens * n * sizeof(float));
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++)
            if (plan->fate[i] == MOESIM_KEPT)
                r->d_score[(size_t)t * n + plan->expert[i]] += grad->d_weight[i];
    moesim_scores_backward(MOESIM_SOFTMAX, r->value, n, r->score, r->d_score, batch->n_tokens, n, r->d_value);
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        const float *b = batch->columns + (size_t)t * batch->stride + n;
        const float *x = batch->hidden + (size_t)t * batch->d_model, mean = mean_hidden(batch, t);
        float *d_a = grad->d_columns + (size_t)t * batch->stride, *d_x = grad->d_hidden + (size_t)t * batch->d_model;
        float d_mean = 0;
        for (uint32_t e = 0; e < n; e++) {
            const float d = r->d_value[(size_t)t * n + e];
            d_a[e] += contract_fault == FAULT_BAD_GRADIENT       ? NAN
                      : contract_fault == FAULT_THREADS_GRADIENT ? d * (float)omp_get_max_threads()
                                                                 : d;
            d_a[n + e] += d * mix * x[e % batch->d_model];
            d_x[e % batch->d_model] += contract_fault == FAULT_BAD_HIDDEN ? INFINITY : d * mix * b[e];
            grad->d_weights[e] += contract_fault == FAULT_BAD_WEIGHTS ? NAN : d * mean;
            d_mean += d * r->weights[e];
        }
        for (uint32_t i = 0; i < batch->d_model; i++)
            d_x[i] += d_mean / (float)batch->d_model;
    }
    return MOESIM_OK;
}

static enum moesim_status contract_update(void *state, const struct moesim_feedback *feedback, struct moesim_error *err)
{
    (void)err;
    struct contract *r = state;
    double mean = 0;
    for (uint32_t e = 0; e < feedback->n_experts; e++)
        mean += (double)feedback->assigned[e] / feedback->n_experts;
    for (uint32_t e = 0; e < feedback->n_experts; e++) {
        const double gap = mean - (double)feedback->assigned[e];
        r->bias[e] += (float)(gap > 0 ? r->p.gamma : gap < 0 ? -r->p.gamma : 0);
        if (contract_fault == FAULT_BAD_MEMORY)
            feedback->memory[e] = INFINITY;
    }
    return MOESIM_OK;
}

const struct moesim_router contract_router = {
    MOESIM_ROUTER_HEAD,
    .needs = MOESIM_NEEDS_HIDDEN,
    .name = "contract",
    .summary = "uses all that the contract carries",
    .reference = "tests",
    .params = params,
    .params_size = sizeof(struct contract_params),
    .state_size = sizeof(struct contract),
    .shape = contract_shape,
    .init = contract_init,
    .route = contract_route,
    .backward = contract_backward,
    .update = contract_update,
};

/* ---- the largest logit alone ---- */

struct argmax {
    uint32_t n_calls, n_tokens_before;
};

static uint32_t argmax_choose(const float *row, uint32_t n)
{
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t e = 0; e < n; e++) {
        const bool better = best == MOESIM_NO_EXPERT ? !isnan(row[e]) : row[e] > row[best];
        const bool equal = best != MOESIM_NO_EXPERT && row[e] == row[best];
        if (better || (equal && contract_fault == FAULT_TIES))
            best = e;
    }
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(row[e]))
            return best;
    return MOESIM_NO_EXPERT;
}

static enum moesim_status argmax_route(void *state, const struct moesim_batch *batch, struct moesim_plan *plan,
                                       struct moesim_error *err)
{
    (void)err;
    struct argmax *r = state;
    const uint32_t n = batch->n_experts;
    for (uint64_t i = 0; i < (uint64_t)batch->n_groups * n; i++)
        plan->capacity[i] = contract_fault == FAULT_CAPACITY ? 1 : MOESIM_UNLIMITED;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        plan->first[t + 1] = plan->first[t];
        if (batch->padding && batch->padding[t])
            continue;
        uint32_t e = argmax_choose(batch->columns + (size_t)t * batch->stride, n);
        if (contract_fault == FAULT_FORGETFUL && e != MOESIM_NO_EXPERT)
            e = (e + r->n_calls) % n;
        if (contract_fault == FAULT_LEAK && e != MOESIM_NO_EXPERT)
            e = (e + r->n_tokens_before) % n;
        plan->n_bad_rows += e == MOESIM_NO_EXPERT;
        if (e == MOESIM_NO_EXPERT)
            continue;
        const uint32_t i = plan->first[t + 1]++;
        plan->expert[i] = contract_fault == FAULT_NO_EXPERT ? n : e;
        plan->weight[i] = contract_fault == FAULT_NAN_WEIGHT ? NAN : 1;
        plan->slot[i] = contract_fault == FAULT_SLOT ? 0 : (int32_t)t; /* distinct, with holes */
        plan->fate[i] = MOESIM_KEPT;
    }
    plan->n_pairs = plan->n_wanted = plan->first[batch->n_tokens];
    plan->n_wanted += contract_fault == FAULT_LOST_PAIR;
    r->n_calls++;
    r->n_tokens_before = batch->n_tokens;
    return MOESIM_OK;
}

const struct moesim_router argmax_router = {
    MOESIM_ROUTER_HEAD,
    .name = "argmax",
    .summary = "the smallest router there can be",
    .reference = "tests",
    .state_size = sizeof(struct argmax),
    .route = argmax_route,
};
