/*
 * Setting a model up.
 */
#include "sim/train/build.h"

static enum moesim_status init_moe_layers(struct moesim_transformer *m, struct moesim_arena *arena,
                                          struct moesim_error *err)
{
    const struct moesim_env env = {.struct_size = sizeof env,
                                   .phase = MOESIM_TRAIN,
                                   .seed = m->seed,
                                   .n_layers = m->n_moe,
                                   .n_experts = m->config.n_experts,
                                   .top_k = m->config.top_k,
                                   .d_model = m->config.d_model,
                                   .vocabulary = m->config.vocabulary,
                                   .max_tokens = moesim_transformer_tokens(&m->config),
                                   .max_groups = moesim_transformer_max_groups(&m->config, &m->shape),
                                   .n_devices = moesim_transformer_devices(&m->config),
                                   .arena = arena,
                                   .files = m->choice.files,
                                   .n_files = m->choice.n_files};
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; status == MOESIM_OK && i < m->n_moe; i++) {
        m->block[(i + 1) * m->config.moe_every - 1].moe = &m->moe[i];
        status = moesim_moe_init(&m->moe[i], &m->config, &m->choice, &m->shape, i, m->seed, m->products, arena, err);
        if (status == MOESIM_OK)
            status = moesim_moe_init_router(&m->moe[i], &env, err);
    }
    return status;
}

/* A dense FFN is a layer whose only expert is shared by all tokens. */
static enum moesim_status init_dense_layers(struct moesim_transformer *m, struct moesim_arena *arena,
                                            struct moesim_error *err)
{
    const struct moesim_model model = {.d_model = m->config.d_model,
                                       .d_ff = moesim_transformer_dense_d_ff(&m->config),
                                       .activation = m->config.activation,
                                       .shared_experts = 1};
    const uint32_t n_tokens = moesim_transformer_tokens(&m->config);
    m->dense_plan = (struct moesim_plan){.struct_size = sizeof m->dense_plan};
    m->dense_plan.first = moesim_alloc(arena, (size_t)n_tokens + 1, sizeof(uint32_t));
    if (!m->dense_plan.first)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u tokens", n_tokens);
    for (uint32_t i = 0; i < m->config.n_blocks; i++) {
        struct moesim_transformer_block *b = &m->block[i];
        if (b->moe)
            continue;
        b->dense = moesim_alloc(arena, 1, sizeof *b->dense);
        if (!b->dense)
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for block %u", i);
        /* numbers of their own: MoE layers take those below n_moe */
        const enum moesim_status status = moesim_layer_init(b->dense, m->seed, m->n_moe + i, &model, 0, NULL, n_tokens,
                                                            0, true, m->products, arena, err);
        if (status != MOESIM_OK)
            return status;
        b->dense->adds = true;
    }
    return MOESIM_OK;
}

static enum moesim_status init_buffers(struct moesim_transformer *m, struct moesim_arena *arena,
                                       struct moesim_error *err)
{
    const size_t n = moesim_transformer_tokens(&m->config), d = m->config.d_model;
    bool ok = true;
#define ALLOCATE(place, count) ok = ((place) = moesim_alloc(arena, (count), sizeof *(place))) != NULL && ok
    for (uint32_t i = 0; i < m->config.n_blocks; i++) {
        struct moesim_transformer_block *b = &m->block[i];
        ALLOCATE(b->input, n * d);
        ALLOCATE(b->middle, n * d);
        ALLOCATE(b->attention_in, n * d);
        ALLOCATE(b->ffn_in, n * d);
        ALLOCATE(b->attention_r, n);
        ALLOCATE(b->ffn_r, n);
        ALLOCATE(b->qkv_out, 3 * n * d);
        ALLOCATE(b->attended, n * d);
        ALLOCATE(b->log_sum, n * m->config.n_heads);
    }
    ALLOCATE(m->sequence_id, n);
    ALLOCATE(m->device, n);
    ALLOCATE(m->stream, n * d);
    ALLOCATE(m->last, n * d);
    ALLOCATE(m->last_r, n);
    ALLOCATE(m->d_stream, n * d);
    ALLOCATE(m->d_normed, n * d);
    ALLOCATE(m->d_qkv, 3 * n * d);
    ALLOCATE(m->parts, (n / NORM_RUN_ROWS + 1) * d);
#undef ALLOCATE
    return ok ? MOESIM_OK
              : moesim_fail(err, MOESIM_ENOMEM, "no memory for the activations of %zu tokens in %u blocks", n,
                            m->config.n_blocks);
}

/* The parts outside the blocks, but for their weights. */
static enum moesim_status init_parts(struct moesim_transformer *m, struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_transformer_config *c = &m->config;
    const uint32_t n_tokens = moesim_transformer_tokens(c);
    m->embedding = (struct moesim_embedding){
        .vocabulary = c->vocabulary, .d_model = c->d_model, .sequence = c->sequence, .products = m->products};
    enum moesim_status status = moesim_attention_init(&m->attention, c->d_model, c->n_heads, c->sequence,
                                                      c->positions == MOESIM_ROTARY, m->products, arena, err);
    if (status == MOESIM_OK)
        status = moesim_linear_work_init(&m->work, n_tokens, c->d_model, 3 * c->d_model, m->products, arena, err);
    if (status == MOESIM_OK)
        status = moesim_head_init(&m->head, c->d_model, c->vocabulary, n_tokens, m->products, arena, err);
    return status;
}

enum moesim_status moesim_transformer_init(struct moesim_transformer *model,
                                           const struct moesim_transformer_config *config,
                                           const struct moesim_router_choice *choice, uint64_t seed,
                                           struct moesim_arena *arena, struct moesim_error *err)
{
    struct moesim_transformer *m = model;
    *m = (struct moesim_transformer){.config = *config, .seed = seed};
    if (choice)
        m->choice = *choice;
    enum moesim_status status = moesim_transformer_check(config, err);
    const uint32_t n_moe = status == MOESIM_OK ? moesim_transformer_n_moe(config) : 0;
    if (status == MOESIM_OK && n_moe > 0)
        status = moesim_transformer_shape(config, choice, seed, arena, &m->shape, err);
    if (status != MOESIM_OK)
        return status;
    m->products = moesim_products_find(NULL);
    m->block = moesim_alloc(arena, config->n_blocks, sizeof *m->block);
    m->moe = moesim_alloc(arena, n_moe, sizeof *m->moe);
    m->tensor = moesim_alloc(arena, moesim_transformer_most_tensors(config), sizeof *m->tensor);
    if (!m->block || !m->moe || !m->tensor)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u blocks", config->n_blocks);
    m->n_moe = n_moe;
    status = init_moe_layers(m, arena, err);
    if (status == MOESIM_OK)
        status = init_dense_layers(m, arena, err);
    if (status == MOESIM_OK)
        status = init_parts(m, arena, err);
    if (status == MOESIM_OK)
        status = init_buffers(m, arena, err);
    return status == MOESIM_OK ? moesim_transformer_weights(m, arena, err) : status;
}

void moesim_transformer_finish(struct moesim_transformer *model)
{
    for (uint32_t i = 0; i < model->n_moe; i++)
        moesim_moe_finish(&model->moe[i]);
}
