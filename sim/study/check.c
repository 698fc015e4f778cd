/*
 * What does not go together: steps, sizes, needs, columns, jitter, placement. Every finding names both sides.
 */
#include "sim/study/resolve.h"

#include <string.h>

#include "sim/placement/loads.h"
#include "sim/study/spec.h"

/* Notes at the value of `key` where the study sets it, else at the component's name. */
static void note_at(struct moesim_resolver *r, const struct moesim_choice *choice, const char *key,
                    const struct moesim_error *what)
{
    const struct moesim_setting *s = key ? moesim_setting_find(choice->variant, key) : NULL;
    if (s)
        moesim_mistake(r->mistakes, s->line, s->column, "%s", what->text);
    else if (choice->variant)
        moesim_mistake(r->mistakes, choice->variant->line, choice->variant->column, "%s", what->text);
    else
        moesim_mistake(r->mistakes, r->root->line, r->root->column, "%s", what->text);
}

static void check_warm_up(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_point *p = &cell->point;
    const struct moesim_node *node = moesim_node_find(r->root, "warm_up");
    if (p->warm_up >= p->steps)
        moesim_mistake(r->mistakes, node ? node->line : r->root->line, node ? node->column : r->root->column,
                       "warm_up = %u leaves none of the %u steps to be counted", p->warm_up, p->steps);
}

static void check_backward(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_node *node = moesim_node_find(r->root, "backward");
    if (cell->point.options.backward && cell->point.phase == MOESIM_EVAL && node)
        moesim_mistake(r->mistakes, node->line, node->column, "backward = true belongs to phase train, not eval");
}

/* The keys of training in a study that has no point of it. */
static void check_use_of_training(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *train = cell->chosen[MOESIM_TRAINING];
    const struct moesim_node *mode = moesim_node_find(r->root, "mode");
    struct moesim_error what;
    if (!train->variant || cell->point.mode == MOESIM_MODE_TRAIN || !mode || mode->kind != MOESIM_NODE_SCALAR)
        return;
    moesim_fail(&what, MOESIM_EINVAL, "train has no use in mode: %s", mode->text);
    note_at(r, train, NULL, &what);
}

/* What training asks of the workload and of the sizes. */
static void check_training(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *workload = cell->chosen[MOESIM_WORKLOAD], *train = cell->chosen[MOESIM_TRAINING];
    const struct moesim_point *p = &cell->point;
    const struct moesim_workload_shape *shape = &p->workload_shape;
    struct moesim_error what;
    if (!(shape->held_out > 0) || !shape->vocabulary) {
        moesim_fail(&what, MOESIM_EINVAL, "mode: train learns from tokens and is tested on others; the workload %s %s",
                    p->workload_spec, shape->vocabulary ? "has held_out = 0" : "has none: take text");
        note_at(r, workload, "held_out", &what);
    } else if (!shape->sequence || p->n_tokens % shape->sequence) {
        moesim_fail(&what, MOESIM_EINVAL,
                    "mode: train takes whole sequences one after the other; the workload %s has %s%u tokens a batch",
                    p->workload_spec, shape->sequence ? "" : "another batching of ", p->n_tokens);
        note_at(r, workload, shape->sequence ? "tokens" : "batching", &what);
    }
    if (p->model.d_model % p->train.heads) {
        moesim_fail(&what, MOESIM_EINVAL, "train.heads = %u does not divide d_model = %u", p->train.heads,
                    p->model.d_model);
        note_at(r, train, "heads", &what);
    } else if (p->train.positions == MOESIM_ROTARY && p->model.d_model / p->train.heads % 2) {
        moesim_fail(&what, MOESIM_EINVAL, "train.positions = rotary turns pairs, but a head has %u dimensions",
                    p->model.d_model / p->train.heads);
        note_at(r, train, "heads", &what);
    }
    if (p->phase == MOESIM_EVAL)
        moesim_mistake(r->mistakes, 0, 0, "phase = eval does not train; leave it out in mode: train");
}

/* What a trained model asks of the batches. */
static void check_trained(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *workload = cell->chosen[MOESIM_WORKLOAD];
    const struct moesim_point *p = &cell->point;
    const uint32_t sequence = p->workload_shape.sequence;
    struct moesim_error what;
    if (p->mode == MOESIM_MODE_TRAIN) {
        moesim_fail(&what, MOESIM_EINVAL,
                    "mode: train starts from its seed; modes route and execute take a checkpoint");
        note_at(r, workload, "checkpoint", &what);
        return;
    }
    if (!sequence || p->n_tokens % sequence) {
        moesim_fail(&what, MOESIM_EINVAL,
                    "the model of %.200s reads whole sequences one after the other; the workload %s has %u tokens a "
                    "step in sequences of %u",
                    p->trained->path, p->workload->name, p->n_tokens, sequence);
        note_at(r, workload, moesim_setting_find(workload->variant, "tokens") ? "tokens" : "checkpoint", &what);
        return;
    }
    const struct moesim_transformer_config config = moesim_trained_config(p);
    if (moesim_transformer_check(&config, &what) != MOESIM_OK) {
        moesim_error_prefix(&what, "checkpoint %.200s", p->trained->path);
        note_at(r, workload, "checkpoint", &what);
    }
}

/* Whether the cell's number of experts is what the study meant, so that checks against it make sense. */
static bool experts_known(const struct moesim_cell *cell)
{
    const struct moesim_choice *model = cell->chosen[MOESIM_MODEL];
    const struct moesim_setting *s = moesim_setting_find(model->variant, "experts");
    struct moesim_model trial = {0};
    struct moesim_error err;
    if (model->variant && !model->known)
        return false;
    if (s && moesim_value_set(moesim_schema_find(model->schema, "experts"), s->text, &trial, NULL, &err) != MOESIM_OK)
        return false;
    return (model->params && ((const struct moesim_model *)model->params)->experts > 0) ||
           cell->chosen[MOESIM_WORKLOAD]->known;
}

/* E is the model's, else the file's; a file with more columns than experts is fine where the study says so itself. */
static void check_experts(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *model = cell->chosen[MOESIM_MODEL];
    const struct moesim_point *p = &cell->point;
    const struct moesim_workload_shape *shape = &p->workload_shape;
    const uint32_t experts = p->model.experts;
    const uint32_t known = !p->trained && shape->n_columns > shape->n_experts ? shape->n_columns : shape->n_experts;
    const uint32_t columns = shape->more_experts && experts > known ? experts : known;
    const bool explicit = moesim_setting_find(model->variant, "experts");
    struct moesim_error what;
    if (shape->n_experts && !shape->any_model &&
        (experts > columns || (experts < shape->n_experts && !(explicit && shape->n_columns)))) {
        moesim_fail(&what, MOESIM_EINVAL, "the model has %u experts, but the workload %s has %u%s", experts,
                    p->workload_spec, columns,
                    !explicit && shape->n_columns && experts < columns
                        ? "; set model.experts to use the first columns only"
                        : "");
        note_at(r, model, "experts", &what);
    } else if (p->model.top_k > experts) {
        moesim_fail(&what, MOESIM_EINVAL, "model.top_k = %u exceeds the %u experts", p->model.top_k, experts);
        note_at(r, model, "top_k", &what);
    }
}

/* Layers and width that a file fixes. */
static void check_sizes(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *model = cell->chosen[MOESIM_MODEL];
    const struct moesim_point *p = &cell->point;
    const struct moesim_workload_shape *shape = &p->workload_shape;
    struct moesim_error what;
    if (shape->n_layers && !shape->any_model && p->model.layers > shape->n_layers) {
        moesim_fail(&what, MOESIM_EINVAL, "model.layers = %u, but the workload %s has %u", p->model.layers,
                    p->workload_spec, shape->n_layers);
        note_at(r, model, "layers", &what);
    }
    if (shape->d_model && p->model.d_model != shape->d_model) {
        moesim_fail(&what, MOESIM_EINVAL, "the model has d_model %u, but the workload %s has %u", p->model.d_model,
                    p->workload_spec, shape->d_model);
        note_at(r, model, "d_model", &what);
    }
}

static uint32_t provided(const struct moesim_point *p)
{
    uint32_t provides = p->workload->provides | p->workload_shape.provides;
    if (provides & MOESIM_NEEDS_HIDDEN)
        provides |= MOESIM_NEEDS_COLUMNS; /* the host's gate makes them */
    if (provides & MOESIM_NEEDS_COLUMNS)
        provides |= MOESIM_NEEDS_PREVIOUS_LOGITS; /* the host keeps the layer before */
    return provides;
}

static void check_needs(struct moesim_resolver *r, const struct moesim_cell *cell, uint32_t needs)
{
    static const char *const names[] = {"hidden states",           "token ids",          "sequence ids",
                                        "previous layer's logits", "recorded decisions", "gate columns"};
    const struct moesim_choice *router = cell->chosen[MOESIM_ROUTER];
    const uint32_t missing = needs & ~provided(&cell->point);
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!(missing & 1u << i))
            continue;
        struct moesim_error what;
        moesim_fail(&what, MOESIM_EINVAL, "router %s needs %s, which the workload %s does not have", router->spec,
                    names[i], cell->point.workload_spec);
        note_at(r, router, i == 2 ? "group" : NULL, &what);
    }
}

/* What a workload's parameters ask of the model, the tokens and the cluster. */
static void check_workload(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *choice = cell->chosen[MOESIM_WORKLOAD];
    const struct moesim_point *p = &cell->point;
    struct moesim_workload_env env = {.struct_size = sizeof env,
                                      .phase = p->phase,
                                      .seed = 1,
                                      .n_layers = p->model.layers,
                                      .n_experts = p->model.experts,
                                      .n_columns = p->model.experts,
                                      .top_k = p->model.top_k,
                                      .n_tokens = p->n_tokens,
                                      .d_model = p->model.d_model,
                                      .n_devices = p->has_cluster ? moesim_cluster_devices(&p->cluster) : 1};
    struct moesim_error err;
    enum moesim_status status = MOESIM_OK;
    const uint32_t first = p->mode == MOESIM_MODE_TRAIN ? MOESIM_PART_TRAINING : MOESIM_PART_ALL;
    const uint32_t last = p->mode == MOESIM_MODE_TRAIN ? MOESIM_PART_VALIDATION : MOESIM_PART_ALL;
    for (env.part = first; p->workload->fits && !status && env.part <= last; env.part++)
        status = p->workload->fits(p->workload_params, &env, &err);
    if (!status)
        return;
    const struct moesim_setting *s = moesim_setting_blamed(choice->variant, err.text);
    note_at(r, choice, s ? s->key : NULL, &err);
}

/* Gate columns and jitter of this router on this workload's own columns. */
static void check_columns(struct moesim_resolver *r, const struct moesim_cell *cell, const struct moesim_shape *shape)
{
    const struct moesim_choice *router = cell->chosen[MOESIM_ROUTER];
    const struct moesim_point *p = &cell->point;
    const uint32_t columns = p->workload_shape.n_columns;
    struct moesim_error what;
    if (p->trained) {
        if (p->model.experts <= p->trained->model.n_experts && moesim_trained_check_columns(p, shape, &what))
            note_at(r, router, NULL, &what);
    } else if (columns && p->model.experts <= columns && shape->n_columns - shape->n_optional_columns > columns) {
        moesim_fail(&what, MOESIM_EINVAL, "router %s needs %u gate columns for %u experts, but the workload %s has %u",
                    router->spec, shape->n_columns, p->model.experts, p->workload_spec, columns);
        note_at(r, router, NULL, &what);
    }
    if (shape->input_jitter > 0 && (p->workload->provides | p->workload_shape.provides) & MOESIM_NEEDS_COLUMNS) {
        moesim_fail(&what, MOESIM_EINVAL,
                    "router.jitter acts on the gate's input, but the workload %s brings the gate's output",
                    p->workload_spec);
        note_at(r, router, "jitter", &what);
    }
}

/* The point's placement of layer 0; load-aware rules see even loads. */
static enum moesim_status place_one_layer(const struct moesim_point *p, struct moesim_arena *arena,
                                          struct moesim_placement **placement, struct moesim_error *err)
{
    const uint32_t n = p->model.experts, n_layers = p->placement->wants ? 1 : p->model.layers;
    struct moesim_placement_stats stats;
    enum moesim_status status = moesim_placement_stats_init(&stats, p->placement->wants, n_layers, n, arena, err);
    for (uint32_t e = 0; status == MOESIM_OK && stats.load && e < n; e++)
        stats.load[e] = 1;
    stats.n_groups = p->model.n_groups;
    if (status == MOESIM_OK)
        status = moesim_placements_create(p->placement, p->placement_params, n_layers, n, &p->cluster, 0, arena,
                                          placement, err);
    if (status == MOESIM_OK)
        status = moesim_place(p->placement, p->placement_params, &stats, 1, &p->cluster, *placement, err);
    return status;
}

static bool check_fit(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const struct moesim_choice *placement = cell->chosen[MOESIM_PLACEMENT];
    const struct moesim_point *p = &cell->point;
    struct moesim_error err;
    enum moesim_status status = moesim_placement_fit_check(p->placement, p->placement_params, p->warm_up, &err);
    if (status == MOESIM_OK && p->placement_loads.values) {
        const char *from = moesim_placement_fit(p->placement, p->placement_params)->from;
        status = moesim_loads_check(&p->placement_loads, p->model.layers, p->model.experts, &err);
        if (status != MOESIM_OK)
            moesim_error_prefix(&err, "from = %.200s", from);
    }
    if (status == MOESIM_OK)
        return true;
    const struct moesim_setting *s = moesim_setting_blamed(placement->variant, err.text);
    moesim_error_prefix(&err, "placement %s", p->placement_spec);
    note_at(r, placement, s ? s->key : NULL, &err);
    return false;
}

/* The same as routers see it: all on one device where there is no cluster or the placement is refused. */
static const uint32_t *place(struct moesim_resolver *r, const struct moesim_cell *cell, struct moesim_arena *arena)
{
    const struct moesim_point *p = &cell->point;
    const uint32_t *expert_device = moesim_alloc(arena, p->model.experts, sizeof *expert_device);
    if (!p->has_cluster || !p->placement || !cell->chosen[MOESIM_CLUSTER]->known ||
        !cell->chosen[MOESIM_PLACEMENT]->known || !check_fit(r, cell))
        return expert_device;
    struct moesim_error err;
    struct moesim_placement *placement;
    const enum moesim_status status = place_one_layer(p, arena, &placement, &err);
    if (status != MOESIM_OK) {
        r->mistakes->n_files += status == MOESIM_EIO;
        moesim_error_prefix(&err, "placement %s", p->placement_spec);
        note_at(r, cell->chosen[MOESIM_PLACEMENT], NULL, &err);
        return expert_device;
    }
    if (p->oversize == MOESIM_OVERSIZE_REFUSE && moesim_point_fits(p, placement, arena, &err) != MOESIM_OK) {
        moesim_error_prefix(&err, "cluster %s", p->cluster_spec);
        note_at(r, cell->chosen[MOESIM_CLUSTER], NULL, &err);
    }
    return placement->primary;
}

static void check_router(struct moesim_resolver *r, const struct moesim_cell *cell, const uint32_t *expert_device,
                         struct moesim_arena *arena)
{
    const struct moesim_choice *choice = cell->chosen[MOESIM_ROUTER];
    const struct moesim_point *p = &cell->point;
    const uint32_t n_devices = p->has_cluster ? moesim_cluster_devices(&p->cluster) : 1;
    const struct moesim_env env = {
        .struct_size = sizeof env,
        .phase = p->phase,
        .seed = 1,
        .n_layers = p->model.layers,
        .n_experts = p->model.experts,
        .top_k = p->model.top_k,
        .d_model = p->model.d_model,
        .vocabulary = p->workload_shape.vocabulary,
        .max_tokens = p->n_tokens,
        .max_groups = p->n_tokens > n_devices ? p->n_tokens : n_devices,
        .n_devices = n_devices,
        .expert_device = expert_device,
        .arena = arena,
        .files = p->router_files,
        .n_files = p->n_router_files,
    };
    struct moesim_shape shape;
    struct moesim_error err;
    const enum moesim_status status = moesim_router_shape(p->router->router, p->router_params, &env, &shape, &err);
    if (status != MOESIM_OK) {
        r->mistakes->n_files += status == MOESIM_EIO;
        const struct moesim_setting *s = moesim_setting_blamed(choice->variant, err.text);
        if (strncmp(err.text, "router", 6) != 0)
            moesim_error_prefix(&err, "router %s", choice->spec);
        note_at(r, choice, s ? s->key : NULL, &err);
    } else if (cell->chosen[MOESIM_WORKLOAD]->known) {
        check_needs(r, cell, shape.needs & ~p->router->router->needs);
        check_columns(r, cell, &shape);
    }
}

void moesim_cell_check(struct moesim_resolver *r, const struct moesim_cell *cell)
{
    const bool workload = cell->chosen[MOESIM_WORKLOAD]->known, router = cell->chosen[MOESIM_ROUTER]->known;
    check_warm_up(r, cell);
    check_backward(r, cell);
    if (workload && router)
        check_needs(r, cell, cell->point.router->router->needs);
    if (workload && (!cell->chosen[MOESIM_MODEL]->variant || cell->chosen[MOESIM_MODEL]->known))
        check_sizes(r, cell);
    check_use_of_training(r, cell);
    if (workload && cell->point.trained)
        check_trained(r, cell);
    else if (workload && cell->point.mode == MOESIM_MODE_TRAIN)
        check_training(r, cell);
    if (!experts_known(cell))
        return;
    check_experts(r, cell);
    if (workload)
        check_workload(r, cell);

    struct moesim_arena *arena = moesim_arena_create(0);
    const uint32_t *expert_device = arena ? place(r, cell, arena) : NULL;
    if (!expert_device)
        moesim_mistake(r->mistakes, 0, 0, "there is no memory for the study");
    else if (router && !cell->point.router->plugin) /* a plugin's hooks run in a worker only */
        check_router(r, cell, expert_device, arena);
    moesim_arena_destroy(arena);
}
