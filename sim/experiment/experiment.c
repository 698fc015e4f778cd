/*
 * Setting an experiment up, and closing it. The step is in step.c.
 */
#include "sim/experiment/experiment.h"

#include <stdio.h>
#include <string.h>

#include <moesim/kernels.h>

#include "sim/experiment/experiment_state.h"
#include "sim/experiment/groups.h"

static enum moesim_status no_memory(struct moesim_error *err, const struct moesim_point *p)
{
    return moesim_fail(
        err, MOESIM_ENOMEM,
        "no memory for %u tokens, %u experts and %u layers within the allowance; take fewer tokens or layers",
        p->n_tokens, p->model.experts, p->model.layers);
}

static uint32_t device_count(const struct moesim_point *p)
{
    return p->has_cluster ? moesim_cluster_devices(&p->cluster) : 1;
}

/* ---- the router's shape ---- */

static enum moesim_status shape_router(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    e->env = (struct moesim_env){.struct_size = sizeof e->env,
                                 .phase = p->phase,
                                 .seed = p->seed,
                                 .n_layers = p->model.layers,
                                 .n_experts = p->model.experts,
                                 .top_k = p->model.top_k,
                                 .d_model = p->model.d_model,
                                 .vocabulary = p->workload_shape.vocabulary,
                                 .max_tokens = p->n_tokens,
                                 .n_devices = device_count(p),
                                 .arena = e->arena,
                                 .files = p->router_files,
                                 .n_files = p->n_router_files};
    enum moesim_status status = moesim_router_shape(p->router->router, p->router_params, &e->env, &e->shape, err);
    if (status != MOESIM_OK)
        return status;
    if (p->mode == MOESIM_MODE_TRAIN) /* the model has all that a router may need, or refuses it */
        return MOESIM_OK;
    const uint32_t provides = p->workload->provides | p->workload_shape.provides;
    const uint32_t lacking = (e->shape.needs | p->router->router->needs) & ~provides;
    if (lacking & (MOESIM_NEEDS_HIDDEN | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES | MOESIM_NEEDS_DECISIONS))
        return moesim_fail(err, MOESIM_EINVAL, "router %s needs %s, which workload %s does not have", p->router_spec,
                           lacking & MOESIM_NEEDS_HIDDEN      ? "hidden states"
                           : lacking & MOESIM_NEEDS_TOKEN_IDS ? "token ids"
                           : lacking & MOESIM_NEEDS_SEQUENCES ? "sequence ids"
                                                              : "recorded decisions",
                           p->workload_spec);
    e->gated = !(provides & MOESIM_NEEDS_COLUMNS) && provides & MOESIM_NEEDS_HIDDEN;
    if (e->shape.input_jitter > 0 && !e->gated)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "router %s: jitter acts on the gate's input, but workload %s gives gate columns; set jitter to 0",
            p->router_spec, p->workload_spec);
    e->made_hidden = p->mode == MOESIM_MODE_EXECUTE && !(provides & MOESIM_NEEDS_HIDDEN);
    e->env.max_groups = moesim_groups_max(&e->shape, p->n_tokens, e->env.n_devices);
    return MOESIM_OK;
}

/* ---- workload, buffers, layers ---- */

struct moesim_workload_env experiment_workload_env(const struct moesim_experiment *e, enum moesim_part part)
{
    const struct moesim_point *p = e->first;
    return (struct moesim_workload_env){.struct_size = sizeof(struct moesim_workload_env),
                                        .phase = p->phase,
                                        .seed = p->seed,
                                        .n_layers = p->model.layers,
                                        .n_experts = p->model.experts,
                                        .n_columns = e->shape.n_columns,
                                        .top_k = p->model.top_k,
                                        .n_tokens = p->n_tokens,
                                        .d_model = part == MOESIM_PART_ALL && !p->trained ? p->model.d_model : 0,
                                        .n_devices = e->env.n_devices,
                                        .n_optional_columns = e->shape.n_optional_columns,
                                        .arena = e->arena,
                                        .part = part};
}

static enum moesim_status create_workload(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    const struct moesim_workload_env env =
        experiment_workload_env(e, p->mode == MOESIM_MODE_TRAIN ? MOESIM_PART_TRAINING : MOESIM_PART_ALL);
    e->workload_state = moesim_alloc(e->arena, 1, p->workload->state_size);
    if (!e->workload_state)
        return no_memory(err, p);
    enum moesim_status status = p->workload->init(e->workload_state, p->workload_params, &env, err);
    e->workload_ready = status == MOESIM_OK;
    return status;
}

static enum moesim_status create_buffers(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    const uint32_t experts = e->shape.n_experts, groups = e->env.max_groups ? e->env.max_groups : 1;
    struct moesim_arena *arena = e->arena;
    e->device = moesim_alloc(arena, p->n_tokens, sizeof *e->device);
    e->group_start = moesim_alloc(arena, (size_t)groups + 1, sizeof *e->group_start);
    e->mean_assigned = moesim_alloc(arena, experts, sizeof *e->mean_assigned);
    e->mean_kept = moesim_alloc(arena, experts, sizeof *e->mean_kept);
    e->gini_scratch = moesim_alloc(arena, experts, sizeof *e->gini_scratch);
    e->plan_scratch = moesim_alloc(arena, moesim_plan_check_scratch(experts, e->shape.max_pairs), 1);
    if (!e->device || !e->group_start || !e->mean_assigned || !e->mean_kept || !e->gini_scratch || !e->plan_scratch)
        return no_memory(err, p);
    const size_t states = (size_t)p->n_tokens * p->model.d_model;
    if (e->made_hidden && !(e->hidden = moesim_alloc(arena, states, sizeof(float))))
        return no_memory(err, p);
    if (p->mode == MOESIM_MODE_EXECUTE && !(e->output = moesim_alloc(arena, states, sizeof(float))))
        return no_memory(err, p);
    moesim_home_devices(e->device, p->n_tokens, e->env.n_devices);
    e->n_homed = p->n_tokens;
    enum moesim_status status = moesim_survey_init(p->n_tokens, experts, arena, &e->survey, err);
    e->survey_wants = experiment_survey_wants(e);
    if (status != MOESIM_OK || p->mode == MOESIM_MODE_TRAIN)
        return status; /* plans are the model's */
    status = moesim_plan_init(&e->plan, p->n_tokens, experts, groups, e->shape.max_pairs, e->shape.n_slots, arena, err);
    if (status == MOESIM_OK && e->survey_wants & MOESIM_SURVEY_CONFIDENCE)
        e->plan.confidence = moesim_survey_confidence(e->survey);
    return status;
}

static enum moesim_status create_layer_router(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    const struct moesim_router *router = e->first->router->router;
    struct experiment_layer *layer = &e->layer[l];
    layer->router_state = moesim_alloc(e->arena, 1, router->state_size);
    layer->weights = moesim_alloc(e->arena, e->shape.n_weights, sizeof(float));
    layer->memory = moesim_alloc(e->arena, e->shape.n_memory, sizeof(float));
    if (!layer->router_state || !layer->weights || !layer->memory)
        return no_memory(err, e->first);
    const struct moesim_random random = {.seed = e->first->seed, .stream = MOESIM_STREAM_ROUTER_WEIGHT, .layer = l};
    moesim_random_normals(&random, 0, e->shape.n_weights, layer->weights);
    for (uint64_t i = 0; i < e->shape.n_weights; i++)
        layer->weights[i] *= e->shape.weight_std;
    struct moesim_env env = e->env;
    env.layer = l;
    env.expert_device = e->first->has_cluster ? e->pricing[0].placing.placement[l].primary : NULL;
    env.weights = layer->weights;
    env.memory = layer->memory;
    enum moesim_status status = moesim_router_init(router, layer->router_state, e->first->router_params, &env, err);
    layer->router_ready = status == MOESIM_OK;
    if (status != MOESIM_OK)
        moesim_error_prefix(err, "router %s", e->first->router_spec);
    return status;
}

static enum moesim_status create_layer(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    struct experiment_layer *layer = &e->layer[l];
    const uint32_t experts = e->shape.n_experts;
    layer->batch_assigned = moesim_alloc(e->arena, experts, sizeof *layer->batch_assigned);
    layer->batch_kept = moesim_alloc(e->arena, experts, sizeof *layer->batch_kept);
    layer->load = moesim_alloc(e->arena, experts, sizeof *layer->load);
    layer->previous_load = moesim_alloc(e->arena, experts, sizeof *layer->previous_load);
    if (!layer->batch_assigned || !layer->batch_kept || !layer->load || !layer->previous_load)
        return no_memory(err, p);
    if (p->mode == MOESIM_MODE_TRAIN)
        return MOESIM_OK; /* router, gate and experts are the model's */
    enum moesim_status status = create_layer_router(e, l, err);
    if (status == MOESIM_OK && e->gated)
        status = moesim_gate_init(&layer->gate, p->seed, l, p->model.d_model, p->model.experts, e->shape.n_columns,
                                  p->n_tokens, p->workload_shape.gate_std > 0 ? p->workload_shape.gate_std : 1,
                                  e->arena, err);
    if (status == MOESIM_OK)
        status = experiment_trained_layer(e, l, err);
    if (status == MOESIM_OK && p->mode == MOESIM_MODE_EXECUTE)
        status = moesim_layer_init(&layer->experts, p->seed, l, &p->model, experts, e->shape.expert_kind, p->n_tokens,
                                   e->shape.max_pairs, false, moesim_products_find(NULL), e->arena, err);
    return status;
}

/* The gate's result of the last layer, kept for routers that look at it. */
static enum moesim_status create_previous_columns(struct moesim_experiment *e, struct moesim_error *err)
{
    if (e->first->mode == MOESIM_MODE_TRAIN ||
        !((e->shape.needs | e->first->router->router->needs) & MOESIM_NEEDS_PREVIOUS_LOGITS))
        return MOESIM_OK;
    e->previous_columns = moesim_alloc(e->arena, (size_t)e->first->n_tokens * e->shape.n_columns, sizeof(float));
    return e->previous_columns ? MOESIM_OK : no_memory(err, e->first);
}

/* ---- pricing ---- */

static enum moesim_status create_pricing(struct moesim_experiment *e, struct experiment_pricing *pricing,
                                         struct moesim_error *err)
{
    const struct moesim_point *p = pricing->point;
    if (!p->has_cluster)
        return MOESIM_OK;
    enum moesim_status status = moesim_placing_init(&pricing->placing, p, e->shape.n_experts, e->shape.expert_kind,
                                                    e->shape.max_pairs, e->arena, err);
    if (status == MOESIM_OK)
        status = moesim_cost_work_init(&pricing->work, &p->cluster, &pricing->placing.placement[0],
                                       p->record_traffic ? MOESIM_WITH_HOPS : MOESIM_WITHOUT_HOPS, e->arena, err);
    if (status != MOESIM_OK)
        return status;
    pricing->memory = moesim_alloc(e->arena, pricing->work.n_devices, sizeof *pricing->memory);
    if (!pricing->memory)
        return no_memory(err, p);
    if (p->record_traffic) {
        pricing->traffic = moesim_alloc(e->arena, 1, sizeof *pricing->traffic);
        if (!pricing->traffic)
            return no_memory(err, p);
        return moesim_carried_init(pricing->traffic, &p->cluster, e->arena, err);
    }
    return status;
}

static enum moesim_status create_parts(struct moesim_experiment *e, struct moesim_error *err)
{
    enum moesim_status status = shape_router(e, err);
    for (uint32_t i = 0; i < e->n_points && status == MOESIM_OK; i++)
        status = create_pricing(e, &e->pricing[i], err);
    if (status == MOESIM_OK)
        status = create_workload(e, err);
    if (status == MOESIM_OK)
        status = create_buffers(e, err);
    if (status == MOESIM_OK)
        status = experiment_trained_create(e, err);
    for (uint32_t l = 0; l < e->n_layers && status == MOESIM_OK; l++)
        status = create_layer(e, l, err);
    if (status == MOESIM_OK && e->first->mode == MOESIM_MODE_TRAIN)
        status = experiment_training_create(e, err);
    if (status == MOESIM_OK)
        status = create_previous_columns(e, err);
    for (uint32_t i = 0; i < e->n_points && status == MOESIM_OK; i++)
        status = moesim_tally_init(&e->pricing[i].tally, e->pricing[i].point->measure, e->pricing[i].point->record,
                                   e->n_layers, e->pricing[i].point->warm_up, e->first->steps, e->shape.n_experts,
                                   e->arena, err);
    return status;
}

enum moesim_status moesim_experiment_create(const struct moesim_point *const *points, uint32_t n_points,
                                            uint64_t memory_limit_bytes, struct moesim_experiment **experiment,
                                            struct moesim_error *err)
{
    *experiment = NULL;
    struct moesim_arena *arena = moesim_arena_create(memory_limit_bytes);
    struct moesim_experiment *e = arena ? moesim_alloc(arena, 1, sizeof *e) : NULL;
    if (!e) {
        moesim_arena_destroy(arena);
        return no_memory(err, points[0]);
    }
    e->arena = arena;
    e->first = points[0];
    e->n_points = n_points;
    e->n_layers = points[0]->model.layers;
    e->layer = moesim_alloc(arena, e->n_layers, sizeof *e->layer);
    e->pricing = moesim_alloc(arena, n_points, sizeof *e->pricing);
    enum moesim_status status = e->layer && e->pricing ? MOESIM_OK : no_memory(err, points[0]);
    if (status == MOESIM_OK) {
        for (uint32_t i = 0; i < n_points; i++)
            e->pricing[i].point = points[i];
        status = create_parts(e, err);
    }
    if (status == MOESIM_OK && e->training)
        status = experiment_training_resume(e, err);
    if (status != MOESIM_OK)
        moesim_experiment_destroy(e);
    else
        *experiment = e;
    return status;
}

void moesim_experiment_destroy(struct moesim_experiment *e)
{
    if (!e)
        return;
    const struct moesim_router *router = e->first->router->router;
    for (uint32_t l = 0; e->layer && l < e->n_layers; l++)
        if (e->layer[l].router_ready && router->finish)
            router->finish(e->layer[l].router_state);
    experiment_training_destroy(e);
    experiment_trained_destroy(e);
    if (e->workload_ready && e->first->workload->finish)
        e->first->workload->finish(e->workload_state);
    moesim_arena_destroy(e->arena);
}

uint32_t moesim_experiment_steps_done(const struct moesim_experiment *e)
{
    return e->step;
}

bool moesim_experiment_done(const struct moesim_experiment *e)
{
    return e->step == e->first->steps;
}

const struct moesim_cost_work *moesim_experiment_work(const struct moesim_experiment *e, uint32_t point)
{
    return &e->pricing[point].work;
}

/* ---- the outcome ---- */

static enum moesim_status close_traffic(const struct experiment_pricing *pricing, struct moesim_outcome *outcome,
                                        struct moesim_error *err)
{
    if (!pricing->traffic)
        return MOESIM_OK;
    const struct moesim_point *p = pricing->point;
    return moesim_carried_rows(pricing->traffic, &p->cluster, &p->model, &p->options, outcome->arena, &outcome->traffic,
                               &outcome->n_traffic, err);
}

/* What the routers remarked on their plans, and that the model does not fit; "" for nothing. NULL without memory. */
static char *note_of(const struct moesim_experiment *e, const struct experiment_pricing *pricing)
{
    const struct moesim_memory *m = &pricing->fullest;
    const double room = pricing->point->has_cluster ? pricing->point->cluster.memory_bytes : 0;
    char note[512] = "";
    size_t n = 0;
    if (e->plan_note)
        n = (size_t)snprintf(note, sizeof note, "%.200s (in %u of %u layer steps)", e->plan_note, e->n_plan_notes,
                             e->step * e->n_layers);
    if (room > 0 && moesim_memory_total(m) > room)
        snprintf(note + n, sizeof note - n,
                 "%sdoes not fit: the fullest device needs %.4g GB and has %.4g GB (weights %.3g, gradients %.3g, "
                 "optimizer %.3g, activations %.3g, buffers %.3g GB)",
                 n ? "; " : "", moesim_memory_total(m) / 1e9, room / 1e9, m->weights / 1e9, m->gradients / 1e9,
                 m->optimizer / 1e9, m->activations / 1e9, m->buffers / 1e9);
    return moesim_strdup(e->arena, note);
}

/* Which data it was, and which model they went through. */
static void tell_provenance(const struct moesim_experiment *e, char *text, size_t size)
{
    const struct moesim_trained *t = e->first->trained;
    *text = '\0';
    if (e->first->workload->provenance)
        e->first->workload->provenance(e->workload_state, text, size);
    const size_t n = strlen(text);
    if (t)
        snprintf(text + n, size - n, "%sthrough %s (router %s, step %u)", n ? "; " : "", t->path, t->choice.spec,
                 t->step);
}

enum moesim_status moesim_experiment_finish(struct moesim_experiment *e, struct moesim_outcome *outcomes,
                                            struct moesim_error *err)
{
    char provenance[2048];
    tell_provenance(e, provenance, sizeof provenance);
    char path[128];
    const bool runs = e->first->mode != MOESIM_MODE_ROUTE;
    snprintf(path, sizeof path, "routing %s%s%s", moesim_kernel_path(), runs ? ", experts " : "",
             runs ? moesim_products_path(moesim_products_find(NULL)) : "");
    if (e->training)
        experiment_training_close(e);
    for (uint32_t i = 0; i < e->n_points; i++) {
        const struct moesim_point *p = e->pricing[i].point;
        outcomes[i] = (struct moesim_outcome){.arena = e->arena,
                                              .seconds = e->seconds / e->n_points,
                                              .workload_provenance = moesim_strdup(e->arena, provenance),
                                              .kernel_path = moesim_strdup(e->arena, path),
                                              .note = note_of(e, &e->pricing[i])};
        if (!outcomes[i].workload_provenance || !outcomes[i].kernel_path || !outcomes[i].note)
            return no_memory(err, p);
        enum moesim_status status =
            moesim_tally_close(&e->pricing[i].tally, p->record, p->record_expert_load, &outcomes[i], err);
        if (status == MOESIM_OK && e->training)
            status = experiment_training_outcome(e, &outcomes[i], err);
        if (status == MOESIM_OK)
            status = close_traffic(&e->pricing[i], &outcomes[i], err);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}
