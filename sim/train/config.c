#include "sim/train/config.h"

#include "sim/experiment/groups.h"
#include "sim/models/model.h"

enum moesim_status moesim_transformer_check(const struct moesim_transformer_config *c, struct moesim_error *err)
{
    const struct {
        const char *name;
        uint32_t value;
    } sizes[] = {{"vocabulary", c->vocabulary}, {"n_blocks", c->n_blocks}, {"d_model", c->d_model},
                 {"n_heads", c->n_heads},       {"sequence", c->sequence}, {"n_sequences", c->n_sequences},
                 {"n_experts", c->n_experts},   {"top_k", c->top_k},       {"d_ff", c->d_ff}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value == 0 || sizes[i].value > 1u << 24)
            return moesim_fail(err, MOESIM_EINVAL, "%s = %u must be between 1 and 2^24", sizes[i].name, sizes[i].value);
    if (c->d_model % c->n_heads != 0)
        return moesim_fail(err, MOESIM_EINVAL, "d_model = %u is no multiple of n_heads = %u", c->d_model, c->n_heads);
    if (c->positions == MOESIM_ROTARY && c->d_model / c->n_heads % 2 != 0)
        return moesim_fail(err, MOESIM_EINVAL, "rotary positions turn pairs, but a head has %u numbers",
                           c->d_model / c->n_heads);
    if ((uint64_t)c->sequence * c->n_sequences > 1u << 24)
        return moesim_fail(err, MOESIM_EINVAL, "%u sequences of %u tokens are more than 2^24 tokens", c->n_sequences,
                           c->sequence);
    if (c->moe_every > c->n_blocks)
        return moesim_fail(err, MOESIM_EINVAL, "moe_every = %u of %u blocks leaves no MoE layer; 0 asks for none",
                           c->moe_every, c->n_blocks);
    if ((uint64_t)moesim_transformer_dense_d_ff(c) > 1u << 24)
        return moesim_fail(err, MOESIM_EINVAL, "a dense layer of d_ff = %u is too large",
                           moesim_transformer_dense_d_ff(c));
    return MOESIM_OK;
}

uint32_t moesim_transformer_max_groups(const struct moesim_transformer_config *config, const struct moesim_shape *shape)
{
    return shape->group == MOESIM_GROUP_SEQUENCE
               ? config->n_sequences
               : moesim_groups_max(shape, moesim_transformer_tokens(config), moesim_transformer_devices(config));
}

/* What cannot be served, or NULL. */
static const char *lacking(const struct moesim_transformer_config *config, const struct moesim_shape *shape,
                           uint32_t needs)
{
    if (needs & MOESIM_NEEDS_DECISIONS)
        return "replays recorded decisions, of which a model in training has none";
    if (shape->n_slots && config->n_shared)
        return "mixes tokens into slots, which goes with no shared experts: set shared_experts to 0";
    if (shape->n_slots && shape->n_slots % shape->n_experts)
        return "has slots that belong to no expert";
    for (uint32_t e = 0; shape->expert_kind && e < shape->n_experts; e++)
        if (shape->expert_kind[e] == MOESIM_EXPERT_CONSTANT)
            return "has constant experts, which the layer does not run";
    return NULL;
}

enum moesim_status moesim_transformer_shape(const struct moesim_transformer_config *config,
                                            const struct moesim_router_choice *choice, uint64_t seed,
                                            struct moesim_arena *arena, struct moesim_shape *shape,
                                            struct moesim_error *err)
{
    const struct moesim_env env = {.struct_size = sizeof env,
                                   .phase = MOESIM_TRAIN,
                                   .seed = seed,
                                   .n_layers = moesim_transformer_n_moe(config),
                                   .n_experts = config->n_experts,
                                   .top_k = config->top_k,
                                   .d_model = config->d_model,
                                   .vocabulary = config->vocabulary,
                                   .max_tokens = moesim_transformer_tokens(config),
                                   .n_devices = moesim_transformer_devices(config),
                                   .arena = arena,
                                   .files = choice->files,
                                   .n_files = choice->n_files};
    const enum moesim_status status = moesim_router_shape(choice->router, choice->params, &env, shape, err);
    if (status != MOESIM_OK)
        return status;
    const char *why = lacking(config, shape, shape->needs | choice->router->needs);
    return why ? moesim_fail(err, MOESIM_EREFUSE, "router %s cannot be trained: it %s", choice->spec, why) : MOESIM_OK;
}
