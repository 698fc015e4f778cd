/*
 * One step of an experiment: batch, gate, route, validate, layer, cost, metrics; update after each global batch.
 */
#include <assert.h>
#include <string.h>
#include <time.h>

#include "sim/experiment/experiment.h"
#include "sim/experiment/experiment_state.h"
#include "sim/experiment/groups.h"

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The seeded normal hidden states that the experts get in mode execute where the workload has none. */
static void make_hidden(struct moesim_experiment *e, uint32_t layer)
{
    const struct moesim_random random = {
        .seed = e->first->seed, .stream = MOESIM_STREAM_HIDDEN, .layer = layer, .step = e->step};
    const size_t d = e->first->model.d_model;
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < e->first->n_tokens; t++)
        moesim_random_normals(&random, t * d, d, e->hidden + t * d);
}

static enum moesim_status make_batch(struct moesim_experiment *e, uint32_t l, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    *batch = (struct moesim_batch){.struct_size = sizeof *batch,
                                   .phase = p->phase,
                                   .seed = p->seed,
                                   .step = e->step,
                                   .layer = l,
                                   .micro_batch = e->batch_in_global,
                                   .n_tokens = p->n_tokens,
                                   .n_experts = p->model.experts,
                                   .n_columns = e->shape.n_columns,
                                   .stride = e->shape.n_columns,
                                   .d_model = p->model.d_model,
                                   .n_devices = e->env.n_devices,
                                   .group_start = e->group_start,
                                   .device = e->device,
                                   .weights = e->layer[l].weights,
                                   .memory = e->layer[l].memory};
    enum moesim_status status = p->workload->step(e->workload_state, e->step, l, batch, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "workload %s, step %u, layer %u", p->workload_spec, e->step, l);
        return status;
    }
    assert(batch->n_tokens <= p->n_tokens);
    if (batch->device == e->device && batch->n_tokens != e->n_homed) {
        moesim_home_devices(e->device, batch->n_tokens, e->env.n_devices);
        e->n_homed = batch->n_tokens;
    }
    status = experiment_trained_batch(e, batch, err);
    if (status != MOESIM_OK)
        return status;
    batch->n_groups = moesim_groups_make(&e->shape, batch, e->group_start);
    if (l > 0 && e->previous_columns)
        batch->previous_logits = e->previous_columns;
    return MOESIM_OK;
}

static void gate(struct moesim_experiment *e, uint32_t l, struct moesim_batch *batch)
{
    struct moesim_gate *g = &e->layer[l].gate;
    const struct moesim_random random = {
        .seed = e->first->seed, .stream = MOESIM_STREAM_JITTER, .layer = l, .step = e->step};
    moesim_gate_forward(g, batch->hidden, batch->n_tokens, e->first->phase == MOESIM_TRAIN ? e->shape.input_jitter : 0,
                        &random);
    if (e->layer[l].gate_bias)
        moesim_gate_add_bias(g, e->layer[l].gate_bias, batch->n_tokens);
    batch->columns = g->columns;
    batch->stride = g->stride;
}

/* Routes, validates the plan and counts it. */
static enum moesim_status route(struct moesim_experiment *e, uint32_t l, const struct moesim_batch *batch,
                                struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    moesim_plan_reset(&e->plan, batch);
    const double start = now_s();
    enum moesim_status status = moesim_router_route(p->router->router, e->layer[l].router_state, batch, &e->plan, err);
    const double seconds = now_s() - start;
    if (status == MOESIM_OK && e->plan.note) {
        e->plan_note = e->plan.note;
        e->n_plan_notes++;
    }
    if (status == MOESIM_OK)
        status = moesim_survey_check(e->survey, &e->plan, batch, e->survey_wants, p->router_spec, e->plan_scratch,
                                     &e->found, err);
    else
        moesim_error_prefix(err, "router %s, step %u, layer %u", p->router_spec, e->step, l);
    if (status == MOESIM_OK)
        experiment_note(e, MOESIM_CPU_TIME_ROUTE, l, seconds);
    return status;
}

/* Runs the experts on this CPU and notes how long they took and how fast they were. */
static void execute(struct moesim_experiment *e, uint32_t l, const struct moesim_batch *batch)
{
    const float *hidden = batch->hidden;
    if (e->made_hidden) {
        make_hidden(e, l);
        hidden = e->hidden;
    }
    const double start = now_s();
    moesim_layer_forward(&e->layer[l].experts, &e->plan, hidden, e->output);
    const double layer_s = now_s() - start;
    const struct moesim_cost_options as_run = {.padding = MOESIM_PADDING_NONE};
    struct moesim_cost flop;
    moesim_cost_flop(&e->plan, batch, &e->first->model, &as_run, 1, e->shape.expert_kind, e->found.kept, &flop);
    experiment_note(e, MOESIM_CPU_TIME_LAYER, l, layer_s);
    const struct moesim_model *model = &e->first->model;
    const double shared = (double)model->shared_experts * batch->n_tokens * moesim_model_flop_per_pair(model);
    experiment_note(e, MOESIM_CPU_FLOP_RATE, l, (flop.flop_expert + shared) / layer_s);
}

/* Keeps the layer's columns for the next one, without the gaps of the stride. */
static void keep_columns(struct moesim_experiment *e, const struct moesim_batch *batch)
{
    if (!e->previous_columns)
        return;
    for (size_t t = 0; t < batch->n_tokens; t++)
        memcpy(e->previous_columns + t * batch->n_columns, batch->columns + t * batch->stride,
               batch->n_columns * sizeof(float));
}

/* The layer of a batch that the model was trained on before the first. */
static enum moesim_status step_training(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    enum moesim_status status = l == 0 ? experiment_training_batch(e, err) : MOESIM_OK;
    if (status == MOESIM_OK && experiment_training_layer(e, l)) {
        moesim_survey_pass(e->survey, &e->plan, &e->batch, e->survey_wants, &e->found);
        experiment_note_routing(e, l);
        status = experiment_price(e, &e->batch, l, err);
    }
    return status == MOESIM_OK && l + 1 == e->n_layers ? experiment_training_end(e, err) : status;
}

/* Batch and plan stay as they are until the next layer. */
static enum moesim_status step_layer(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    struct moesim_batch *batch = &e->batch;
    enum moesim_status status = make_batch(e, l, batch, err);
    if (status != MOESIM_OK)
        return status;
    if (e->gated)
        gate(e, l, batch);
    status = route(e, l, batch, err);
    if (status != MOESIM_OK)
        return status;
    if (e->first->mode == MOESIM_MODE_EXECUTE)
        execute(e, l, batch);
    experiment_note_routing(e, l);
    if (l == 0)
        e->global_tokens += batch->n_tokens;
    keep_columns(e, batch);
    return experiment_price(e, batch, l, err);
}

static void mean_over_layers(const struct moesim_experiment *e)
{
    for (uint32_t i = 0; i < e->shape.n_experts; i++) {
        uint64_t assigned = 0, kept = 0;
        for (uint32_t l = 0; l < e->n_layers; l++) {
            assigned += e->layer[l].batch_assigned[i];
            kept += e->layer[l].batch_kept[i];
        }
        e->mean_assigned[i] = (double)assigned / e->n_layers;
        e->mean_kept[i] = (double)kept / e->n_layers;
    }
}

/* Ends a global batch: in training every layer's router learns its counts. */
static enum moesim_status end_global_batch(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_router *router = e->first->router->router;
    const size_t counts = e->shape.n_experts * sizeof(uint64_t);
    mean_over_layers(e);
    for (uint32_t l = 0; l < e->n_layers; l++) {
        struct experiment_layer *layer = &e->layer[l];
        if (router->update && e->first->phase == MOESIM_TRAIN) {
            const struct moesim_feedback feedback = {.struct_size = sizeof feedback,
                                                     .layer = l,
                                                     .n_layers = e->n_layers,
                                                     .n_experts = e->shape.n_experts,
                                                     .n_tokens = e->global_tokens,
                                                     .assigned = layer->batch_assigned,
                                                     .kept = layer->batch_kept,
                                                     .mean_assigned = e->mean_assigned,
                                                     .mean_kept = e->mean_kept,
                                                     .memory = layer->memory};
            enum moesim_status status = moesim_router_update(router, layer->router_state, &feedback, err);
            if (status != MOESIM_OK) {
                moesim_error_prefix(err, "router %s, update after step %u, layer %u", e->first->router_spec, e->step,
                                    l);
                return status;
            }
        }
        memset(layer->batch_assigned, 0, counts);
        memset(layer->batch_kept, 0, counts);
    }
    e->batch_in_global = 0;
    e->global_tokens = 0;
    return MOESIM_OK;
}

static enum moesim_status end_step(struct moesim_experiment *e, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    if (!e->training && ++e->batch_in_global == e->first->micro_batches)
        status = end_global_batch(e, err);
    e->step++;
    e->next_layer = 0;
    return status;
}

enum moesim_status moesim_experiment_step_layer(struct moesim_experiment *e, struct moesim_routed *routed,
                                                struct moesim_error *err)
{
    assert(!moesim_experiment_done(e));
    const double start = now_s();
    enum moesim_status status = e->next_layer == 0 ? experiment_place(e, err) : MOESIM_OK;
    if (status == MOESIM_OK)
        status = e->training ? step_training(e, e->next_layer, err) : step_layer(e, e->next_layer, err);
    *routed = (struct moesim_routed){&e->batch, &e->plan};
    if (status == MOESIM_OK && ++e->next_layer == e->n_layers)
        status = end_step(e, err);
    if (status == MOESIM_OK && e->training && e->next_layer == 0)
        status = experiment_training_keep(e, err);
    e->seconds += now_s() - start;
    return status;
}

enum moesim_status moesim_experiment_step(struct moesim_experiment *e, struct moesim_error *err)
{
    struct moesim_routed routed;
    enum moesim_status status = MOESIM_OK;
    do
        status = moesim_experiment_step_layer(e, &routed, err);
    while (status == MOESIM_OK && e->next_layer > 0);
    return status;
}
