/*
 * A cell: the variants of all components put together, the defaults that depend on each other, and the labels.
 */
#include "sim/study/resolve.h"

#include <string.h>

enum { DEFAULT_TOKENS = 4096, DEFAULT_EXPERTS = 64, DEFAULT_D_MODEL = 256 };

/* Which value of each axis the cell with this index has; the last axis of the file turns fastest. */
static void choose(const struct moesim_axes *axes, uint64_t index, struct moesim_cell *cell, struct moesim_plain *plain)
{
    memset(cell, 0, sizeof *cell);
    memset(plain, 0, sizeof *plain);
    for (uint32_t i = MOESIM_N_AXES; i-- > 0;) {
        const uint32_t axis = axes->order[i];
        if (axis < MOESIM_N_COMPONENTS) {
            cell->chosen[axis] = &axes->components[axis].item[index % axes->components[axis].n];
            index /= axes->components[axis].n;
        } else {
            const uint32_t p = axis - MOESIM_N_COMPONENTS;
            memcpy((char *)plain + moesim_plain_params[p].offset, &axes->plain[p][index % axes->n_plain[p]],
                   sizeof(uint32_t));
            index /= axes->n_plain[p];
        }
    }
}

/* What a trained model tells beyond its shape, where the study does not say it. */
static void follow_trained(const struct moesim_trained *trained, const struct moesim_choice *choice,
                           struct moesim_model *model)
{
    if (!model->d_ff)
        model->d_ff = trained->model.d_ff;
    if (*model->name)
        return;
    if (!moesim_setting_find(choice->variant, "shared_experts"))
        model->shared_experts = trained->model.n_shared;
    if (!moesim_setting_find(choice->variant, "activation"))
        model->activation = trained->model.activation;
}

/* The model's sizes: the study's, else the preset's, else the workload's, else defaults. What a file fixes and a preset
 * merely brings along (its number of layers) follows the file. */
static bool build_model(struct moesim_resolver *r, const struct moesim_choice *choice,
                        const struct moesim_choice *workload, struct moesim_model *model)
{
    const struct moesim_workload_shape *shape = &workload->shape;
    struct moesim_error err;
    const struct moesim_schema schema = {moesim_model_params, sizeof(struct moesim_param)};
    if (choice->params)
        *model = *(const struct moesim_model *)choice->params;
    else if (moesim_params_default(schema, 0, model, r->arena, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, 0, 0, "model: %s", err.text);
        return false;
    }
    if (!model->name)
        model->name = "";
    if (shape->n_layers && !(shape->any_model && model->layers) && !moesim_setting_find(choice->variant, "layers"))
        model->layers = shape->n_layers;
    if (!model->layers)
        model->layers = 1;
    if (!model->experts)
        model->experts = shape->n_experts ? shape->n_experts : DEFAULT_EXPERTS;
    if (!model->top_k)
        model->top_k = shape->top_k ? shape->top_k : model->experts < 2 ? model->experts : 2;
    if (!model->d_model)
        model->d_model = shape->d_model ? shape->d_model : DEFAULT_D_MODEL;
    if (workload->trained)
        follow_trained(workload->trained, choice, model);
    if (!model->d_ff)
        model->d_ff = 4 * model->d_model;
    return true;
}

static bool build_training(struct moesim_resolver *r, const struct moesim_choice *choice,
                           struct moesim_train_options *train)
{
    struct moesim_error err;
    if (choice->params) {
        *train = *(const struct moesim_train_options *)choice->params;
        return true;
    }
    const struct moesim_schema schema = {moesim_train_params, sizeof(struct moesim_param)};
    if (moesim_params_default(schema, 0, train, r->arena, &err) == MOESIM_OK)
        return true;
    moesim_mistake(r->mistakes, 0, 0, "train: %s", err.text);
    return false;
}

void *moesim_router_params(struct moesim_resolver *r, const struct moesim_choice *choice, uint32_t top_k)
{
    struct moesim_error err;
    void *params = moesim_mistake_alloc(r->mistakes, r->arena, 1, choice->params_size);
    if (!params)
        return NULL;
    if (moesim_params_default(choice->schema, top_k, params, r->arena, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, choice->variant->line, choice->variant->column, "router %s: %s", choice->spec,
                       err.text);
        return NULL;
    }
    if (!moesim_settings_apply(r, MOESIM_ROUTER, choice->variant, choice->schema, params, false) && choice->whole) {
        moesim_mistake(r->mistakes, 0, 0, "there is no memory for the study");
        return NULL;
    }
    return params;
}

static bool build_router(struct moesim_resolver *r, const struct moesim_choice *choice, struct moesim_point *point)
{
    const void *params = moesim_router_params(r, choice, point->model.top_k);
    if (!params)
        return false;
    point->router = choice->router;
    point->router_params = params;
    point->router_spec = choice->spec;
    point->router_files = choice->files;
    point->n_router_files = choice->n_files;
    return true;
}

static void build_cluster(const struct moesim_cell *cell, struct moesim_point *point)
{
    const struct moesim_choice *cluster = cell->chosen[MOESIM_CLUSTER];
    const struct moesim_choice *placement = cell->chosen[MOESIM_PLACEMENT];
    point->cluster_spec = cluster->variant ? cluster->spec : "";
    point->placement_spec = "";
    if (!cluster->params)
        return;
    point->has_cluster = true;
    point->cluster = *(const struct moesim_cluster *)cluster->params;
    point->placement = placement->placement;
    point->placement_params = placement->params;
    point->placement_spec = placement->spec;
    point->placement_loads = placement->loads;
}

static void label(const struct moesim_cell *cell, const struct moesim_plain *plain, struct moesim_labels *labels)
{
    const struct moesim_point *p = &cell->point;
    const uint32_t stride = sizeof(struct moesim_param);
    moesim_labels_clear(labels);
    moesim_labels_params(labels, "", (struct moesim_schema){moesim_plain_params, stride}, plain);
    moesim_labels_count(labels, "seed", "", 0);
    for (uint32_t c = 0; c < MOESIM_N_COMPONENTS; c++) {
        const struct moesim_choice *choice = cell->chosen[c];
        const char *head = moesim_component_names[c];
        const void *params = c == MOESIM_ROUTER ? p->router_params : c == MOESIM_MODEL ? &p->model : choice->params;
        if (choice->spec && *choice->spec)
            moesim_labels_text(labels, head, "", choice->spec);
        if (choice->variant && choice->variant->name[0])
            moesim_labels_text(labels, head, "name",
                               choice->router    ? choice->router->router->name
                               : choice->is_text ? choice->spec
                                                 : choice->variant->name);
        if (c == MOESIM_WORKLOAD)
            moesim_labels_count(labels, head, "tokens", p->n_tokens);
        if (c == MOESIM_MODEL)
            moesim_labels_params(labels, head, (struct moesim_schema){moesim_model_params, stride}, params);
        else if (c == MOESIM_TRAINING && p->mode == MOESIM_MODE_TRAIN)
            moesim_labels_params(labels, head, (struct moesim_schema){moesim_train_params, stride}, &p->train);
        else if (c != MOESIM_TRAINING && params && (c != MOESIM_PLACEMENT || p->has_cluster))
            moesim_labels_params(labels, head, choice->schema, params);
    }
}

bool moesim_cell_build(struct moesim_resolver *r, const struct moesim_axes *axes, uint64_t index,
                       struct moesim_cell *cell, struct moesim_labels *labels)
{
    struct moesim_plain plain;
    choose(axes, index, cell, &plain);
    struct moesim_point *p = &cell->point;
    p->mode = plain.mode;
    p->phase = plain.phase;
    p->steps = plain.steps;
    p->warm_up = plain.warm_up;
    p->micro_batches = plain.micro_batches;
    p->options = plain.options;
    p->options.backward |= plain.mode == MOESIM_MODE_TRAIN;
    p->oversize = plain.oversize;

    const struct moesim_choice *workload = cell->chosen[MOESIM_WORKLOAD];
    p->workload = workload->workload;
    p->workload_params = workload->params;
    p->workload_shape = workload->shape;
    p->workload_spec = workload->spec;
    p->trained = workload->trained;
    p->n_tokens = workload->n_tokens         ? workload->n_tokens
                  : workload->shape.n_tokens ? workload->shape.n_tokens
                                             : DEFAULT_TOKENS;
    bool built = build_model(r, cell->chosen[MOESIM_MODEL], workload, &p->model);
    built = build_training(r, cell->chosen[MOESIM_TRAINING], &p->train) && built;
    if (p->mode == MOESIM_MODE_TRAIN && !p->train.moe_every)
        cell->chosen[MOESIM_ROUTER] = &moesim_dense_choice;
    if (cell->chosen[MOESIM_ROUTER]->known)
        built = build_router(r, cell->chosen[MOESIM_ROUTER], p) && built;
    build_cluster(cell, p);
    label(cell, &plain, labels);
    return built;
}
