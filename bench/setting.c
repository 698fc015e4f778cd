#include "bench/setting.h"

#include <stdio.h>
#include <string.h>

#include <moesim/random.h>

#include "bench/bench.h"
#include "routers/table.h"

static enum moesim_status set_params(struct setting *s, const char *text, struct moesim_error *err)
{
    const struct moesim_schema schema = moesim_router_schema(s->router);
    enum moesim_status status = moesim_params_default(schema, s->env.top_k, s->params, s->host, err);
    while (*text && !status) {
        char item[64];
        const size_t n = strcspn(text, ",");
        snprintf(item, sizeof item, "%.*s", (int)n, text);
        text += n + (text[n] == ',');
        char *value = strchr(item, '=');
        if (!value)
            return moesim_fail(err, MOESIM_EINVAL, "%s is not key=value", item);
        *value++ = '\0';
        const struct moesim_param *row = moesim_schema_find(schema, item);
        status = row ? moesim_param_set(row, value, s->params, s->host, err)
                     : moesim_fail(err, MOESIM_EINVAL, "router %s has no parameter %s", s->router->name, item);
    }
    return status;
}

static float *normals(struct setting *s, uint32_t stream, size_t n, float std, float mean)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST + stream};
    float *x = moesim_alloc(s->host, n, sizeof *x);
    if (x)
        moesim_random_normals(&random, 0, n, x);
    for (size_t i = 0; x && i < n; i++)
        x[i] = x[i] * std + mean;
    return x;
}

static uint32_t *token_ids(struct setting *s)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    uint32_t *id = moesim_alloc(s->host, s->env.max_tokens, sizeof *id);
    for (uint32_t t = 0; id && t < s->env.max_tokens; t++)
        id[t] = moesim_random_below(&random, t, SETTING_VOCABULARY);
    return id;
}

static uint32_t *sequence_ids(struct setting *s)
{
    uint32_t *id = moesim_alloc(s->host, s->env.max_tokens, sizeof *id);
    for (uint32_t t = 0; id && t < s->env.max_tokens; t++)
        id[t] = t / SETTING_SEQUENCE;
    return id;
}

/* top_k neighbouring experts for each token. */
static const struct moesim_decisions *decide(struct setting *s)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST + 1};
    const uint32_t k = s->env.top_k, n = s->env.max_tokens * k;
    uint32_t *first = moesim_alloc(s->host, s->env.max_tokens + 1, sizeof *first);
    uint32_t *expert = moesim_alloc(s->host, n, sizeof *expert);
    for (uint32_t i = 0; first && expert && i < n; i++) {
        first[i / k + 1] = (i / k + 1) * k;
        expert[i] = (moesim_random_below(&random, i / k, s->env.n_experts) + i % k) % s->env.n_experts;
    }
    s->decisions = (struct moesim_decisions){.first = first, .expert = expert};
    return first && expert ? &s->decisions : NULL;
}

static enum moesim_status fill_batch(struct setting *s, struct setting_shape shape, struct moesim_error *err)
{
    const uint32_t needs = s->router->needs | s->shape.needs, n_columns = s->shape.n_columns;
    const size_t cells = (size_t)s->env.max_tokens * n_columns;
    struct moesim_batch *batch = &s->batch;
    uint32_t *group_start = moesim_alloc(s->host, 2, sizeof *group_start);
    bool ok = group_start != NULL;
    if (needs & MOESIM_NEEDS_HIDDEN || shape.gated)
        ok = ok && (s->hidden = normals(s, 2, (size_t)s->batch.n_tokens * s->batch.d_model, 1, 0)) != NULL;
    if (needs & MOESIM_NEEDS_PREVIOUS_LOGITS)
        ok = ok && (batch->previous_logits = normals(s, 3, cells, 1, 0)) != NULL;
    if (needs & MOESIM_NEEDS_TOKEN_IDS)
        ok = ok && (batch->token_id = token_ids(s)) != NULL;
    if (needs & MOESIM_NEEDS_SEQUENCES)
        ok = ok && (batch->sequence_id = sequence_ids(s)) != NULL;
    if (needs & MOESIM_NEEDS_DECISIONS)
        ok = ok && (batch->decisions = decide(s)) != NULL;
    if (!shape.gated)
        ok = ok && (batch->columns = normals(s, 4, cells, 1, shape.shift)) != NULL;
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a batch of %u tokens", s->env.max_tokens);
    group_start[1] = s->env.max_tokens;
    batch->group_start = group_start;
    batch->hidden = s->hidden;
    batch->stride = n_columns;
    return shape.gated ? moesim_gate_init(&s->gate, 1, 0, s->env.d_model, s->env.n_experts, n_columns,
                                          s->env.max_tokens, 1.0, s->host, err)
                       : MOESIM_OK;
}

static enum moesim_status set_up(struct setting *s, const char *params, struct setting_shape shape,
                                 struct moesim_error *err)
{
    s->params = moesim_alloc(s->host, 1, s->router->params_size);
    s->state = moesim_alloc(s->host, 1, s->router->state_size);
    if (!s->params || !s->state)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory");
    enum moesim_status status = set_params(s, params, err);
    if (!status)
        status = moesim_router_shape(s->router, s->params, &s->env, &s->shape, err);
    if (status)
        return status;
    s->env.memory = moesim_alloc(s->host, s->shape.n_memory, sizeof(float));
    s->env.weights = normals(s, 5, s->shape.n_weights, s->shape.weight_std, 0);
    s->batch = (struct moesim_batch){.struct_size = sizeof s->batch,
                                     .phase = MOESIM_TRAIN,
                                     .n_tokens = s->env.max_tokens,
                                     .n_experts = s->env.n_experts,
                                     .n_columns = s->shape.n_columns,
                                     .d_model = s->env.d_model,
                                     .n_groups = 1,
                                     .n_devices = 1,
                                     .weights = s->env.weights,
                                     .memory = s->env.memory};
    status = s->env.memory && s->env.weights ? fill_batch(s, shape, err)
                                             : moesim_fail(err, MOESIM_ENOMEM, "no memory for learned weights");
    if (!status && s->router->init)
        status = s->router->init(s->state, s->params, &s->env, err);
    if (!status)
        status = moesim_plan_init(&s->plan, s->env.max_tokens, s->shape.n_experts, 1, s->shape.max_pairs,
                                  s->shape.n_slots, s->host, err);
    if (!status) {
        s->check = moesim_alloc(s->host, 1, moesim_plan_check_scratch(s->shape.n_experts, s->shape.max_pairs));
        if (!s->check)
            status = moesim_fail(err, MOESIM_ENOMEM, "no memory to check plans");
    }
    return status;
}

enum moesim_status setting_open(struct setting *s, const struct moesim_router *router, const char *params,
                                struct setting_shape shape, struct moesim_error *err)
{
    *s = (struct setting){.router = router, .host = moesim_arena_create(0), .own = moesim_arena_create(0)};
    if (!s->host || !s->own)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory");
    s->env = (struct moesim_env){.struct_size = sizeof s->env,
                                 .n_layers = 1,
                                 .n_experts = shape.n_experts,
                                 .top_k = shape.top_k,
                                 .d_model = shape.d_model ? shape.d_model : SETTING_D_MODEL,
                                 .vocabulary = SETTING_VOCABULARY,
                                 .max_tokens = shape.n_tokens ? shape.n_tokens : SETTING_TOKENS,
                                 .max_groups = 1,
                                 .n_devices = 1,
                                 .arena = s->own};
    return set_up(s, params, shape, err);
}

const struct moesim_router *setting_router(const char *name)
{
    for (size_t i = 0; routers_table[i]; i++)
        if (strcmp(routers_table[i]->name, name) == 0)
            return routers_table[i];
    return NULL;
}

void setting_open_spec(struct setting *s, const char *spec, struct setting_shape shape)
{
    struct moesim_error err;
    char name[64];
    const size_t n = strcspn(spec, ":");
    snprintf(name, sizeof name, "%.*s", (int)n, spec);
    const struct moesim_router *router = setting_router(name);
    if (!router)
        bench_stop("there is no router %s", name);
    if (setting_open(s, router, spec[n] ? spec + n + 1 : "", shape, &err))
        bench_stop("%s: %s", spec, err.text);
}

void setting_gate(void *setting)
{
    struct setting *s = setting;
    moesim_gate_forward(&s->gate, s->hidden, s->batch.n_tokens, 0, NULL);
}

void setting_route(void *setting)
{
    struct setting *s = setting;
    struct moesim_error err;
    if (s->gate.columns) {
        setting_gate(s);
        s->batch.columns = s->gate.columns;
        s->batch.stride = s->gate.stride;
    }
    moesim_plan_reset(&s->plan, &s->batch);
    if (s->router->route(s->state, &s->batch, &s->plan, &err))
        bench_stop("%s: %s", s->router->name, err.text);
}

void setting_route_and_check(void *setting)
{
    struct setting *s = setting;
    struct moesim_error err;
    setting_route(s);
    if (moesim_plan_check(&s->plan, &s->batch, s->router->name, s->check, &err))
        bench_stop("%s", err.text);
}

size_t setting_scratch(const struct setting *s)
{
    return moesim_arena_used(s->own);
}

void setting_close(struct setting *s)
{
    if (s->state && s->router->finish)
        s->router->finish(s->state);
    moesim_arena_destroy(s->own);
    moesim_arena_destroy(s->host);
}
