/*
 * How much memory an experiment will take, before it takes it.
 */
#include "sim/experiment/experiment.h"
#include "sim/experiment/placing.h"
#include "sim/experiment/tally.h"
#include "sim/experiment/trained.h"
#include "sim/experiment/training.h"
#include "sim/layer/layer.h"

uint64_t moesim_experiment_memory(const struct moesim_point *p)
{
    const struct moesim_model *m = &p->model;
    struct moesim_shape shape = {.n_columns = m->experts, .max_pairs = (uint64_t)p->n_tokens * m->top_k};
    struct moesim_arena *arena = moesim_arena_create(0); /* for what shape() points at, its experts' kinds */
    const struct moesim_env env = {.struct_size = sizeof env,
                                   .phase = p->phase,
                                   .n_layers = m->layers,
                                   .n_experts = m->experts,
                                   .top_k = m->top_k,
                                   .d_model = m->d_model,
                                   .max_tokens = p->n_tokens,
                                   .max_groups = 1,
                                   .n_devices = 1,
                                   .arena = arena,
                                   .files = p->router_files,
                                   .n_files = p->n_router_files};
    struct moesim_error ignored;
    enum moesim_status status = arena ? MOESIM_OK : MOESIM_ENOMEM;
    /* A plugin's hooks run in a worker only; its plan is taken to be as large as top-k's. */
    if (!status && !p->router->plugin)
        status = moesim_router_shape(p->router->router, p->router_params, &env, &shape, &ignored);
    moesim_arena_destroy(arena);
    if (status)
        return 0;
    const uint64_t tokens = p->n_tokens, columns = tokens * shape.n_columns * sizeof(float);
    const uint64_t pair = 13 + 8 /* expert view, check */ + 16 /* router scratch */;
    if (p->mode == MOESIM_MODE_TRAIN)
        return experiment_training_bytes(p) + moesim_survey_bytes(p->n_tokens, m->experts) +
               (p->has_cluster ? moesim_placing_bytes(p, m->experts) : 0) +
               moesim_tally_bytes(p->measure, p->record, m->layers, p->steps, m->experts);
    const bool executes = p->mode == MOESIM_MODE_EXECUTE;
    const uint64_t experts = executes
                                 ? m->layers * moesim_layer_bytes(m, shape.n_experts ? shape.n_experts : m->experts,
                                                                  p->n_tokens, shape.max_pairs)
                                 : 0;
    const bool has_hidden = !p->trained && (p->workload->provides | p->workload_shape.provides) & MOESIM_NEEDS_HIDDEN;
    const uint64_t rows = (has_hidden ? 3 : 1) /* a workload may mix them from parts */ + (executes ? 1 : 0);
    const uint64_t activations = tokens * m->d_model * 4 * rows;
    const uint64_t gates = (uint64_t)m->layers * (columns + (uint64_t)m->d_model * shape.n_columns * 4);
    return experiment_trained_bytes(p) + columns * 2 + gates + shape.max_pairs * pair + experts + activations +
           (p->has_cluster ? moesim_placing_bytes(p, shape.n_experts ? shape.n_experts : m->experts) : 0) +
           moesim_survey_bytes(p->n_tokens, m->experts) +
           moesim_tally_bytes(p->measure, p->record, m->layers, p->steps, m->experts);
}
