#include "sim/train/moe.h"

#include <string.h>

#include <moesim/random.h>

#include "sim/experiment/groups.h"
#include "sim/train/soft.h"

static enum moesim_status no_memory(const struct moesim_moe *moe, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory for MoE layer %u", moe->index);
}

static bool allocate(struct moesim_moe *moe, struct moesim_arena *arena)
{
    const struct moesim_transformer_config *config = moe->config;
    const struct moesim_shape *s = &moe->shape;
    const uint32_t n_tokens = moesim_transformer_tokens(config);
    const struct {
        void *place;
        size_t n, size;
        bool wanted;
    } parts[] = {
        {&moe->d_gate, config->d_model, moe->gate.stride * sizeof(float), true},
        {&moe->bias, moe->gate.stride, sizeof(float), config->gate_bias},
        {&moe->d_bias, moe->gate.stride, sizeof(float), config->gate_bias},
        {&moe->state, 1, moe->choice->router->state_size, true},
        {&moe->weights, s->n_weights, sizeof(float), true},
        {&moe->d_weights, s->n_weights, sizeof(float), true},
        {&moe->memory, s->n_memory, sizeof(float), true},
        {&moe->group_start, (size_t)moesim_transformer_max_groups(config, s) + 1, sizeof(uint32_t), true},
        {&moe->columns, n_tokens, s->n_columns * sizeof(float), (s->needs & MOESIM_NEEDS_PREVIOUS_LOGITS) != 0},
        {&moe->d_columns, n_tokens, moe->gate.stride * sizeof(float), true},
        {&moe->d_weight, s->max_pairs, sizeof(float), true},
        {&moe->plan_scratch, moesim_plan_check_scratch(s->n_experts, s->max_pairs), 1, true},
        {&moe->assigned, s->n_experts, sizeof(uint64_t), true},
        {&moe->kept, s->n_experts, sizeof(uint64_t), true},
        {&moe->global_assigned, s->n_experts, sizeof(uint64_t), true},
        {&moe->global_kept, s->n_experts, sizeof(uint64_t), true},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i].wanted && !(*(void **)parts[i].place = moesim_alloc(arena, parts[i].n, parts[i].size)))
            return false;
    return true;
}

/* Rows of the experts are tokens or, for routers with slots, slots. */
static enum moesim_status init_experts(struct moesim_moe *moe, uint64_t seed, const struct moesim_products *products,
                                       struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_transformer_config *config = moe->config;
    const struct moesim_shape *s = &moe->shape;
    const struct moesim_model model = {.d_model = config->d_model,
                                       .d_ff = config->d_ff,
                                       .activation = config->activation,
                                       .shared_experts = config->n_shared};
    uint32_t rows = moesim_transformer_tokens(config);
    uint64_t pairs = s->max_pairs;
    if (s->n_slots) {
        const enum moesim_status status =
            moesim_soft_create(&moe->soft, config, s, moesim_transformer_max_groups(config, s), arena, err);
        if (status != MOESIM_OK)
            return status;
        pairs = rows = moe->soft->max_slots;
    }
    const enum moesim_status status = moesim_layer_init(&moe->layer, seed, moe->index, &model, s->n_experts,
                                                        s->expert_kind, rows, pairs, true, products, arena, err);
    moe->layer.adds = true;
    return status;
}

enum moesim_status moesim_moe_init(struct moesim_moe *moe, const struct moesim_transformer_config *config,
                                   const struct moesim_router_choice *choice, const struct moesim_shape *shape,
                                   uint32_t index, uint64_t seed, const struct moesim_products *products,
                                   struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n_tokens = moesim_transformer_tokens(config);
    *moe = (struct moesim_moe){.config = config, .choice = choice, .shape = *shape, .index = index};
    const double gate_std = config->gate_std > 0 ? config->gate_std : 0.3;
    enum moesim_status status = moesim_gate_init(&moe->gate, seed, index, config->d_model, config->n_experts,
                                                 shape->n_columns, n_tokens, gate_std, arena, err);
    if (status == MOESIM_OK)
        status = moesim_gate_init_backward(&moe->gate, arena, err);
    if (status == MOESIM_OK && !allocate(moe, arena))
        status = no_memory(moe, err);
    if (status == MOESIM_OK)
        status = moesim_plan_init(&moe->plan, n_tokens, shape->n_experts, moesim_transformer_max_groups(config, shape),
                                  shape->max_pairs, shape->n_slots, arena, err);
    return status == MOESIM_OK ? init_experts(moe, seed, products, arena, err) : status;
}

enum moesim_status moesim_moe_init_router(struct moesim_moe *moe, const struct moesim_env *env,
                                          struct moesim_error *err)
{
    const struct moesim_random random = {.seed = env->seed, .stream = MOESIM_STREAM_ROUTER_WEIGHT, .layer = moe->index};
    moesim_random_normals(&random, 0, moe->shape.n_weights, moe->weights);
    for (uint64_t i = 0; i < moe->shape.n_weights; i++)
        moe->weights[i] *= moe->shape.weight_std;
    struct moesim_env own = *env;
    own.layer = moe->index;
    own.weights = moe->weights;
    own.memory = moe->memory;
    enum moesim_status status = moesim_router_init(moe->choice->router, moe->state, moe->choice->params, &own, err);
    moe->is_ready = status == MOESIM_OK;
    if (status != MOESIM_OK)
        moesim_error_prefix(err, "router %s", moe->choice->spec);
    return status;
}

void moesim_moe_finish(struct moesim_moe *moe)
{
    if (moe->is_ready && moe->choice->router->finish)
        moe->choice->router->finish(moe->state);
    moe->is_ready = false;
}

/* ---- forward ---- */

static struct moesim_random jitter_of(const struct moesim_batch *batch)
{
    return (struct moesim_random){
        .seed = batch->seed, .stream = MOESIM_STREAM_JITTER, .layer = batch->layer, .step = batch->step};
}

static float jitter_width(const struct moesim_moe *moe)
{
    return moe->batch.phase == MOESIM_TRAIN ? moe->shape.input_jitter : 0;
}

static void make_batch(struct moesim_moe *moe, const struct moesim_moe_pass *pass, const float *hidden)
{
    struct moesim_batch *b = &moe->batch;
    *b = (struct moesim_batch){.struct_size = sizeof *b,
                               .phase = pass->phase,
                               .seed = pass->seed,
                               .step = pass->step,
                               .layer = moe->index,
                               .micro_batch = pass->micro_batch,
                               .n_tokens = pass->n_tokens,
                               .n_experts = moe->config->n_experts,
                               .n_columns = moe->shape.n_columns,
                               .stride = moe->gate.stride,
                               .columns = moe->gate.columns,
                               .previous_logits = pass->previous_logits,
                               .d_model = moe->config->d_model,
                               .hidden = hidden,
                               .token_id = pass->token_id,
                               .sequence_id = pass->sequence_id,
                               .domain = pass->domain,
                               .group_start = moe->group_start,
                               .n_devices = moesim_transformer_devices(moe->config),
                               .device = pass->device,
                               .weights = moe->weights,
                               .memory = moe->memory};
    b->n_groups = moesim_groups_make(&moe->shape, b, moe->group_start);
}

/* Logits of the batch's tokens, with the bias; a copy without gaps for the next layer. */
static void run_gate(struct moesim_moe *moe, const float *hidden)
{
    const struct moesim_batch *b = &moe->batch;
    const struct moesim_random random = jitter_of(b);
    moesim_gate_forward(&moe->gate, hidden, b->n_tokens, jitter_width(moe), &random);
    if (moe->bias)
        moesim_gate_add_bias(&moe->gate, moe->bias, b->n_tokens);
    for (size_t t = 0; moe->columns && t < b->n_tokens; t++)
        memcpy(moe->columns + t * b->n_columns, b->columns + t * b->stride, b->n_columns * sizeof(float));
}

/* Counts of the pass; in training also those of the global batch, which begins with micro-batch 0. */
static void count(struct moesim_moe *moe)
{
    const struct moesim_batch *b = &moe->batch;
    const uint32_t n_experts = moe->shape.n_experts;
    moesim_plan_count(&moe->plan, moe->assigned, moe->kept);
    if (b->phase != MOESIM_TRAIN)
        return;
    if (b->micro_batch == 0) {
        memset(moe->global_assigned, 0, n_experts * sizeof *moe->global_assigned);
        memset(moe->global_kept, 0, n_experts * sizeof *moe->global_kept);
        moe->global_tokens = 0;
    }
    for (uint32_t e = 0; e < n_experts; e++) {
        moe->global_assigned[e] += moe->assigned[e];
        moe->global_kept[e] += moe->kept[e];
    }
    moe->global_tokens += b->n_tokens;
}

enum moesim_status moesim_moe_forward(struct moesim_moe *moe, const struct moesim_moe_pass *pass, const float *hidden,
                                      float *output, struct moesim_error *err)
{
    const struct moesim_router *router = moe->choice->router;
    make_batch(moe, pass, hidden);
    run_gate(moe, hidden);
    moesim_plan_reset(&moe->plan, &moe->batch);
    enum moesim_status status = moesim_router_route(router, moe->state, &moe->batch, &moe->plan, err);
    if (status == MOESIM_OK)
        status = moesim_plan_check(&moe->plan, &moe->batch, moe->choice->spec, moe->plan_scratch, err);
    if (status != MOESIM_OK)
        return status;
    count(moe);
    if (moe->soft)
        moesim_soft_forward(moe->soft, &moe->layer, &moe->batch, &moe->plan, output);
    else
        moesim_layer_forward(&moe->layer, &moe->plan, hidden, output);
    return MOESIM_OK;
}

/* ---- backward ---- */

static void add_bias_gradient(struct moesim_moe *moe, bool add)
{
    const struct moesim_batch *b = &moe->batch;
    if (!moe->bias)
        return;
    if (!add)
        memset(moe->d_bias, 0, b->stride * sizeof(float));
    for (size_t t = 0; t < b->n_tokens; t++)
        for (uint32_t c = 0; c < b->n_columns; c++)
            moe->d_bias[c] += moe->d_columns[t * b->stride + c];
}

enum moesim_status moesim_moe_backward(struct moesim_moe *moe, const float *hidden, const float *d_output,
                                       float loss_scale, bool add, float *d_hidden, struct moesim_error *err)
{
    const struct moesim_batch *b = &moe->batch;
    struct moesim_grad grad = {.struct_size = sizeof grad,
                               .loss_scale = loss_scale,
                               .d_columns = moe->d_columns,
                               .d_hidden = d_hidden,
                               .d_weights = moe->d_weights};
    if (moe->soft) {
        moesim_soft_backward(moe->soft, &moe->layer, b, &moe->plan, d_output, add, d_hidden);
        grad.d_dispatch = moe->soft->d_dispatch;
        grad.d_combine = moe->soft->d_combine;
    } else {
        moesim_layer_backward(&moe->layer, &moe->plan, hidden, d_output, add, d_hidden, moe->d_weight);
        grad.d_weight = moe->d_weight;
    }
    memset(moe->d_columns, 0, (size_t)b->n_tokens * b->stride * sizeof(float));
    if (!add)
        memset(moe->d_weights, 0, moe->shape.n_weights * sizeof(float));
    const enum moesim_status status =
        moesim_router_backward(moe->choice->router, moe->state, b, &moe->plan, &grad, err);
    if (status != MOESIM_OK)
        return status;
    const struct moesim_random random = jitter_of(b);
    add_bias_gradient(moe, add);
    moesim_gate_backward(&moe->gate, hidden, b->n_tokens, jitter_width(moe), &random, moe->d_columns, add, moe->d_gate,
                         d_hidden);
    return MOESIM_OK;
}
