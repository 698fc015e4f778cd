/*
 * Drawing a sample and counting it.
 */
#include "workloads/calibrated/sample.h"

#include <math.h>

#include <moesim/kernels.h>

/* The decisions of a step: k experts of every token. */
struct chosen {
    uint32_t n_tokens, top_k;
    uint32_t *first, *expert;
};

static enum moesim_status allocate(struct chosen *c, struct moesim_arena *arena, struct moesim_error *err)
{
    c->first = moesim_alloc(arena, (size_t)c->n_tokens + 1, sizeof *c->first);
    c->expert = moesim_alloc(arena, c->n_tokens, c->top_k * sizeof *c->expert);
    if (!c->first || !c->expert)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a sample of %u tokens a step", c->n_tokens);
    for (uint32_t t = 0; t <= c->n_tokens; t++)
        c->first[t] = t * c->top_k;
    return MOESIM_OK;
}

static enum moesim_status take_layer(struct source *source, const struct sample_plan *plan, uint32_t layer,
                                     struct chosen *chosen, double *value, struct moesim_error *err)
{
    const struct figures_shape shape = {.n_experts = plan->n_experts,
                                        .top_k = plan->top_k,
                                        .n_domains = source->n_domains,
                                        .vocabulary = source->vocabulary,
                                        .n_tokens = (uint64_t)plan->sequences_each * source->n_tokens};
    struct figures *figures = figures_create(&shape);
    if (!figures)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the figures of %u experts", plan->n_experts);
    for (uint32_t step = 0; step < plan->sequences_each; step++) {
        struct moesim_batch batch = {.struct_size = sizeof batch};
        source_label(source, step);
        source_draw(source, step, layer, &batch);
        moesim_topk(batch.columns, batch.stride, batch.n_tokens, plan->n_experts, plan->top_k, chosen->expert);
        const struct decided decided = {.n_tokens = batch.n_tokens,
                                        .first = chosen->first,
                                        .expert = chosen->expert,
                                        .sequence = batch.sequence_id,
                                        .domain = batch.domain,
                                        .token_id = batch.token_id};
        figures_add(figures, &decided);
    }
    figures_take(figures, value);
    figures_destroy(figures);
    return MOESIM_OK;
}

enum moesim_status sample_take(const struct source_params *params, const struct sample_plan *plan, double *layers,
                               double *mean, struct moesim_error *err)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const uint32_t n_tokens = source_domains(params) * params->sequence;
    const struct moesim_workload_env env = {.struct_size = sizeof env,
                                            .seed = plan->seed,
                                            .n_layers = plan->n_layers,
                                            .n_experts = plan->n_experts,
                                            .n_columns = plan->n_experts,
                                            .top_k = plan->top_k,
                                            .n_tokens = n_tokens,
                                            .n_devices = 1,
                                            .arena = arena};
    struct source source;
    struct chosen chosen = {.n_tokens = n_tokens, .top_k = plan->top_k};
    double own[CALIBRATED_N_FIGURES];
    enum moesim_status status =
        arena ? source_init(&source, "sample", params, &env, err) : moesim_fail(err, MOESIM_ENOMEM, "no memory");
    if (!status)
        status = allocate(&chosen, arena, err);
    for (uint32_t i = 0; i < CALIBRATED_N_FIGURES; i++)
        mean[i] = 0;
    for (uint32_t l = 0; !status && l < plan->n_layers; l++) {
        double *value = layers ? layers + (size_t)l * CALIBRATED_N_FIGURES : own;
        status = take_layer(&source, plan, l, &chosen, value, err);
        for (uint32_t i = 0; !status && i < CALIBRATED_N_FIGURES; i++)
            mean[i] += value[i] / plan->n_layers;
    }
    moesim_arena_destroy(arena);
    return status;
}
