/*
 * One router instance, routing the batches of a case and learning from them.
 */
#include <math.h>
#include <string.h>

#include "sim/experiment/conformance_hash.h"
#include "sim/experiment/conformance_suite.h"
#include "sim/experiment/groups.h"

/* ---- memory ---- */

/* Zeroed memory from the trial's arena; the first failure is remembered in *enough. */
static void *take(struct trial *t, bool *enough, size_t n, size_t size)
{
    void *memory = moesim_alloc(t->arena, n, size);
    *enough = *enough && memory;
    return memory;
}

static bool allocate_gradients(struct trial *t)
{
    const struct moesim_shape *s = &t->shape;
    bool enough = true;
    t->d_columns = take(t, &enough, (size_t)t->c.n_tokens * t->inputs->batch[0].stride, sizeof(float));
    t->d_hidden = take(t, &enough, (size_t)t->c.n_tokens * TRIAL_D_MODEL, sizeof(float));
    t->d_weights = take(t, &enough, (size_t)s->n_weights, sizeof(float));
    return enough;
}

static bool allocate_instance(struct trial *t)
{
    const struct moesim_shape *s = &t->shape;
    bool enough = true;
    uint32_t *expert_device = take(t, &enough, s->n_experts, sizeof *expert_device);
    t->state = take(t, &enough, 1, t->router->state_size);
    t->env.weights = take(t, &enough, (size_t)s->n_weights, sizeof(float));
    t->env.memory = take(t, &enough, (size_t)s->n_memory, sizeof(float));
    t->start_memory = take(t, &enough, (size_t)s->n_memory, sizeof(float));
    t->assigned = take(t, &enough, s->n_experts, sizeof *t->assigned);
    t->kept = take(t, &enough, s->n_experts, sizeof *t->kept);
    t->load = take(t, &enough, 2 * (size_t)s->n_experts, sizeof *t->load);
    t->check_scratch = take(t, &enough, moesim_plan_check_scratch(s->n_experts, s->max_pairs), 1);
    if (!enough || !allocate_gradients(t))
        return false;
    moesim_home_devices(expert_device, s->n_experts, t->c.n_devices);
    t->env.expert_device = expert_device;
    const struct moesim_random random = {.seed = t->c.seed, .stream = MOESIM_STREAM_ROUTER_WEIGHT, .layer = 1};
    moesim_random_normals(&random, 0, (size_t)s->n_weights, t->env.weights);
    for (uint64_t i = 0; i < s->n_weights; i++)
        t->env.weights[i] *= s->weight_std;
    return true;
}

/* Numbers for every file that the parameters name: one for each expert. */
static bool make_files(struct trial *t)
{
    const struct moesim_schema schema = moesim_router_schema(t->router);
    const struct moesim_random random = {.seed = t->c.seed, .stream = MOESIM_STREAM_TEST + 5};
    const uint32_t n = t->c.n_experts;
    const struct moesim_param *row;
    bool enough = true;
    uint32_t n_rows = 0;
    while (moesim_schema_row(schema, n_rows))
        n_rows++;
    struct moesim_file_array *files = take(t, &enough, n_rows, sizeof *files);
    for (uint32_t i = 0; enough && (row = moesim_schema_row(schema, i)); i++) {
        char name[VALUE_TEXT];
        if (row->type != MOESIM_TYPE_FILE || moesim_param_format(row, t->params, name, sizeof name) == 0)
            continue;
        float *values = take(t, &enough, n, sizeof *values);
        if (enough)
            moesim_random_normals(&random, (uint64_t)i * n, n, values);
        files[t->env.n_files++] =
            (struct moesim_file_array){.key = row->key, .values = values, .n = n, .n_dimensions = 1, .shape = {n}};
    }
    t->env.files = files;
    return enough;
}

static enum moesim_status no_room(const struct trial *t, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EREFUSE, "router %s: an instance for %u tokens does not fit %zu MiB",
                       t->router->name, t->c.n_tokens, TRIAL_BYTES >> 20);
}

static bool same_shape(const struct moesim_shape *a, const struct moesim_shape *b)
{
    return hash_shape(a) == hash_shape(b) && a->max_pairs == b->max_pairs && a->n_weights == b->n_weights &&
           a->n_memory == b->n_memory;
}

/* What the router asks for, and the batches it asks for where nobody made them yet. */
static enum moesim_status ask_shape(struct trial *t, struct moesim_error *err)
{
    enum moesim_status status = moesim_router_shape(t->router, t->params, &t->env, &t->shape, err);
    if (status != MOESIM_OK)
        return status;
    t->env.max_groups = moesim_groups_max(&t->shape, t->c.n_tokens, t->c.n_devices);
    if (!t->inputs->arena)
        return inputs_init(t->inputs, &t->c, t->shape.needs | t->router->needs, &t->shape, t->env.max_groups, err);
    if (!same_shape(&t->shape, &t->inputs->shape))
        return moesim_fail(err, MOESIM_EBROKEN, "router %s: shape() answers the same question differently",
                           t->router->name);
    return MOESIM_OK;
}

static enum moesim_status set_up(struct trial *t, struct moesim_error *err)
{
    const struct moesim_shape *s = &t->shape;
    if (!allocate_instance(t))
        return no_room(t, err);
    enum moesim_status status = moesim_plan_init(&t->plan, t->c.n_tokens, s->n_experts, t->env.max_groups, s->max_pairs,
                                                 s->n_slots, t->arena, err);
    if (status == MOESIM_OK)
        status = moesim_expert_view_init(&t->view, s->n_experts, s->max_pairs, t->arena, err);
    if (status == MOESIM_OK)
        status = moesim_router_init(t->router, t->state, t->params, &t->env, err);
    return status == MOESIM_ENOMEM ? no_room(t, err) : status; /* thousands of slots, say: too large to try */
}

enum moesim_status trial_init(struct trial *t, const struct moesim_router *router, const struct trial_case *c,
                              const void *params, struct trial_inputs *inputs, struct moesim_error *err)
{
    *t = (struct trial){.router = router, .c = *c, .params = params, .arena = moesim_arena_create(TRIAL_BYTES)};
    t->inputs = inputs ? inputs : &t->own;
    if (!t->arena)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a conformance trial");
    t->env = (struct moesim_env){.struct_size = sizeof t->env,
                                 .phase = c->phase,
                                 .seed = c->seed,
                                 .layer = 1,
                                 .n_layers = TRIAL_LAYERS,
                                 .n_experts = c->n_experts,
                                 .top_k = c->top_k,
                                 .d_model = TRIAL_D_MODEL,
                                 .vocabulary = TRIAL_VOCABULARY,
                                 .max_tokens = c->n_tokens,
                                 .n_devices = c->n_devices,
                                 .arena = t->arena};
    if (!make_files(t))
        return no_room(t, err);
    enum moesim_status status = ask_shape(t, err);
    if (status == MOESIM_OK)
        status = set_up(t, err);
    t->ready = status == MOESIM_OK;
    if (t->ready)
        memcpy(t->start_memory, t->env.memory, (size_t)t->shape.n_memory * sizeof(float));
    return status;
}

void trial_finish(struct trial *t)
{
    if (t->ready && t->router->finish)
        t->router->finish(t->state);
    moesim_arena_destroy(t->arena);
    inputs_finish(&t->own);
}

void trial_take(struct trial *t, uint32_t step)
{
    t->batch = t->inputs->batch[step];
    t->columns = t->inputs->columns[step];
    t->batch.weights = t->env.weights;
    t->batch.memory = t->env.memory;
}

/* ---- routing and learning ---- */

static enum moesim_status check_counts(struct trial *t, struct moesim_error *err)
{
    moesim_plan_count(&t->plan, t->assigned, t->kept);
    moesim_expert_view_build(&t->view, &t->plan);
    uint64_t sum = 0;
    for (uint32_t e = 0; e < t->shape.n_experts; e++) {
        if (t->kept[e] > t->assigned[e] || t->view.start[e + 1] - t->view.start[e] != t->kept[e])
            return moesim_fail(err, MOESIM_EBROKEN, "router %s: expert %u was assigned %llu pairs and kept %llu",
                               t->router->name, e, (unsigned long long)t->assigned[e], (unsigned long long)t->kept[e]);
        sum += t->assigned[e];
    }
    uint64_t named = 0;
    for (uint64_t i = 0; i < t->plan.n_pairs; i++)
        named += t->plan.fate[i] != MOESIM_BAD_ROW;
    if (sum != named)
        return moesim_fail(err, MOESIM_EBROKEN, "router %s: loads sum to %llu, pairs to %llu", t->router->name,
                           (unsigned long long)sum, (unsigned long long)named);
    return MOESIM_OK;
}

/* The arena is for init(): what a step takes from it is never given back. */
static enum moesim_status check_arena(const struct trial *t, size_t used_before, const char *hook,
                                      enum moesim_status status, struct moesim_error *err)
{
    if (status != MOESIM_OK || moesim_arena_used(t->arena) == used_before)
        return status;
    return moesim_fail(err, MOESIM_EBROKEN, "router %s: %s() allocates from the arena", t->router->name, hook);
}

enum moesim_status trial_route(struct trial *t, struct moesim_error *err)
{
    const size_t used = moesim_arena_used(t->arena);
    moesim_plan_reset(&t->plan, &t->batch);
    enum moesim_status status = moesim_router_route(t->router, t->state, &t->batch, &t->plan, err);
    status = check_arena(t, used, "route", status, err);
    if (status == MOESIM_OK)
        status = moesim_plan_check(&t->plan, &t->batch, t->router->name, t->check_scratch, err);
    return status == MOESIM_OK ? check_counts(t, err) : status;
}

static enum moesim_status check_finite(const struct trial *t, const char *what, const float *x, size_t n,
                                       struct moesim_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return moesim_fail(err, MOESIM_EBROKEN, "router %s: %s[%zu] is not finite", t->router->name, what, i);
    return MOESIM_OK;
}

static enum moesim_status run_backward(struct trial *t, struct moesim_error *err)
{
    const size_t n = t->batch.n_tokens, cells = n * t->batch.stride, used = moesim_arena_used(t->arena);
    const float *upstream = t->inputs->upstream[t->batch.step];
    memset(t->d_columns, 0, cells * sizeof(float));
    memset(t->d_hidden, 0, n * TRIAL_D_MODEL * sizeof(float));
    memset(t->d_weights, 0, (size_t)t->shape.n_weights * sizeof(float));
    struct moesim_grad grad = {.struct_size = sizeof grad,
                               .loss_scale = 1,
                               .d_weight = upstream,
                               .d_dispatch = upstream,
                               .d_combine = upstream,
                               .d_columns = t->d_columns,
                               .d_hidden = t->batch.hidden ? t->d_hidden : NULL,
                               .d_weights = t->shape.n_weights ? t->d_weights : NULL};
    enum moesim_status status = moesim_router_backward(t->router, t->state, &t->batch, &t->plan, &grad, err);
    status = check_arena(t, used, "backward", status, err);
    if (status == MOESIM_OK)
        status = check_finite(t, "d_columns", t->d_columns, cells, err);
    if (status == MOESIM_OK)
        status = check_finite(t, "d_hidden", t->d_hidden, n * TRIAL_D_MODEL, err);
    if (status == MOESIM_OK)
        status = check_finite(t, "d_weights", t->d_weights, (size_t)t->shape.n_weights, err);
    return status;
}

static enum moesim_status run_update(struct trial *t, struct moesim_error *err)
{
    const uint32_t n = t->shape.n_experts;
    const size_t used = moesim_arena_used(t->arena);
    for (uint32_t e = 0; e < n; e++) {
        t->load[e] = (double)t->assigned[e];
        t->load[n + e] = (double)t->kept[e];
    }
    const struct moesim_feedback feedback = {.struct_size = sizeof feedback,
                                             .layer = 1,
                                             .n_layers = TRIAL_LAYERS,
                                             .n_experts = n,
                                             .n_tokens = t->batch.n_tokens,
                                             .assigned = t->assigned,
                                             .kept = t->kept,
                                             .mean_assigned = t->load,
                                             .mean_kept = t->load + n,
                                             .memory = t->env.memory};
    enum moesim_status status = moesim_router_update(t->router, t->state, &feedback, err);
    status = check_arena(t, used, "update", status, err);
    if (status == MOESIM_OK)
        status = check_finite(t, "memory", t->env.memory, (size_t)t->shape.n_memory, err);
    return status;
}

enum moesim_status trial_learn(struct trial *t, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    if (t->c.phase != MOESIM_TRAIN)
        return status;
    if (t->router->backward)
        status = run_backward(t, err);
    if (status == MOESIM_OK && t->router->update)
        status = run_update(t, err);
    return status;
}

/* ---- runs ---- */

static uint64_t hash_learning(uint64_t h, const struct trial *t)
{
    const size_t n = t->batch.n_tokens;
    if (t->c.phase == MOESIM_TRAIN) {
        h = hash_array(h, t->d_columns, n * t->batch.stride * sizeof(float));
        h = hash_array(h, t->d_hidden, n * TRIAL_D_MODEL * sizeof(float));
        h = hash_array(h, t->d_weights, (size_t)t->shape.n_weights * sizeof(float));
    }
    return hash_array(h, t->env.memory, (size_t)t->shape.n_memory * sizeof(float));
}

uint64_t trial_plan_hash(const struct trial *t, bool decisions)
{
    return hash_plan(&t->plan, decisions);
}

enum moesim_status trial_steps(struct trial *t, uint64_t *hash, struct moesim_error *err)
{
    *hash = hash_shape(&t->shape);
    for (uint32_t step = 0; step < t->c.n_steps; step++) {
        trial_take(t, step);
        enum moesim_status status = trial_route(t, err);
        if (status == MOESIM_OK)
            status = trial_learn(t, err);
        if (status != MOESIM_OK)
            return status;
        const uint64_t plan = trial_plan_hash(t, false);
        t->first_plan = step == 0 ? plan : t->first_plan;
        *hash = hash_learning(hash_array(*hash, &plan, sizeof plan), t);
    }
    return MOESIM_OK;
}

enum moesim_status trial_repeat(struct trial *t, bool *same, struct moesim_error *err)
{
    memcpy(t->env.memory, t->start_memory, (size_t)t->shape.n_memory * sizeof(float));
    trial_take(t, 0);
    const enum moesim_status status = trial_route(t, err);
    *same = trial_plan_hash(t, false) == t->first_plan;
    return status;
}

enum moesim_status trial_run(const struct moesim_router *router, const struct trial_case *c, const void *params,
                             uint64_t *hash, struct moesim_error *err)
{
    struct trial t;
    enum moesim_status status = trial_init(&t, router, c, params, NULL, err);
    if (status == MOESIM_OK)
        status = trial_steps(&t, hash, err);
    trial_finish(&t);
    return status;
}
