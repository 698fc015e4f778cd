/* SPDX-License-Identifier: MIT
 *
 * The host's side of a router's hooks: the defaults before shape() and what must hold after it, and what is made of a
 * failure.
 */
#include <moesim/router.h>

#include <math.h>
#include <stddef.h>
#include <string.h>

#define KNOWN_NEEDS                                                                                                    \
    (MOESIM_NEEDS_HIDDEN | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES | MOESIM_NEEDS_PREVIOUS_LOGITS |            \
     MOESIM_NEEDS_DECISIONS | MOESIM_NEEDS_COLUMNS)

/* Sizes past these are a router's mistake, not a model. */
#define MAX_EXPERTS (1u << 20)
#define MAX_COLUMNS (1u << 24)
#define MAX_FLOATS (UINT64_C(1) << 40)

/* What is wrong with the answer, or NULL. */
static const char *fault(const struct moesim_shape *s)
{
    if ((s->needs & ~(uint32_t)KNOWN_NEEDS) != 0)
        return "needs something this version does not know";
    if (s->n_experts == 0 || s->n_experts > MAX_EXPERTS)
        return "has no experts, or more than 2^20";
    if (s->n_columns > MAX_COLUMNS)
        return "has more than 2^24 gate columns";
    if (s->n_optional_columns > s->n_columns)
        return "has more optional gate columns than gate columns";
    if (s->n_weights > MAX_FLOATS || s->n_memory > MAX_FLOATS)
        return "has more than 2^40 weights or floats of memory";
    if (!isfinite(s->weight_std) || s->weight_std < 0)
        return "has a negative or infinite weight_std";
    if (s->group > MOESIM_GROUP_TOKENS)
        return "has an unknown group";
    if (s->group == MOESIM_GROUP_TOKENS && s->group_tokens == 0)
        return "has groups of 0 tokens";
    if (!(s->input_jitter >= 0 && s->input_jitter < 1))
        return "has an input jitter outside 0..1";
    for (uint32_t e = 0; s->expert_kind && e < s->n_experts; e++)
        if (s->expert_kind[e] > MOESIM_EXPERT_CONSTANT)
            return "has an expert of an unknown kind";
    return NULL;
}

const struct moesim_file_array *moesim_env_file(const struct moesim_env *env, const char *key)
{
    for (uint32_t i = 0; i < env->n_files; i++)
        if (strcmp(env->files[i].key, key) == 0)
            return &env->files[i];
    return NULL;
}

/* A router may return anything: a failure gets a status that the host knows and a sentence that can be shown. */
static enum moesim_status settle(const struct moesim_router *router, const char *hook, enum moesim_status status,
                                 struct moesim_error *err)
{
    err->text[sizeof err->text - 1] = '\0';
    if ((unsigned)status > MOESIM_EBROKEN || status == MOESIM_EPLUGIN)
        return moesim_fail(err, MOESIM_EBROKEN, "router %s: its %s returned the status %d, which no router may give",
                           router->name, hook, (int)status);
    if (status == MOESIM_OK)
        return MOESIM_OK;
    if (err->text[0] == '\0')
        return moesim_fail(err, status, "router %s: its %s failed without a reason", router->name, hook);
    char text[sizeof err->text];
    memcpy(text, err->text, sizeof text);
    return moesim_fail(err, status, "%s", text); /* printable */
}

enum moesim_status moesim_router_shape(const struct moesim_router *router, const void *params,
                                       const struct moesim_env *env, struct moesim_shape *shape,
                                       struct moesim_error *err)
{
    *shape = (struct moesim_shape){
        .struct_size = sizeof *shape,
        .n_columns = env->n_experts,
        .n_experts = env->n_experts,
        .weight_std = 0.02f,
        .max_pairs = (uint64_t)env->max_tokens * env->top_k,
        .group = MOESIM_GROUP_DEVICE,
        .n_logits = env->n_experts,
    };
    if (router->shape) {
        err->text[0] = '\0';
        const enum moesim_status status = settle(router, "shape", router->shape(params, env, shape, err), err);
        if (status != MOESIM_OK)
            return status;
    }
    const char *wrong = fault(shape);
    if (wrong)
        return moesim_fail(err, MOESIM_EBROKEN, "router %s: its shape %s", router->name, wrong);
    return MOESIM_OK;
}

enum moesim_status moesim_router_init(const struct moesim_router *router, void *state, const void *params,
                                      const struct moesim_env *env, struct moesim_error *err)
{
    err->text[0] = '\0';
    return router->init ? settle(router, "init", router->init(state, params, env, err), err) : MOESIM_OK;
}

enum moesim_status moesim_router_route(const struct moesim_router *router, void *state,
                                       const struct moesim_batch *batch, struct moesim_plan *plan,
                                       struct moesim_error *err)
{
    err->text[0] = '\0';
    return settle(router, "route", router->route(state, batch, plan, err), err);
}

enum moesim_status moesim_router_backward(const struct moesim_router *router, void *state,
                                          const struct moesim_batch *batch, const struct moesim_plan *plan,
                                          struct moesim_grad *grad, struct moesim_error *err)
{
    err->text[0] = '\0';
    return router->backward ? settle(router, "backward", router->backward(state, batch, plan, grad, err), err)
                            : MOESIM_OK;
}

enum moesim_status moesim_router_update(const struct moesim_router *router, void *state,
                                        const struct moesim_feedback *feedback, struct moesim_error *err)
{
    err->text[0] = '\0';
    return router->update ? settle(router, "update", router->update(state, feedback, err), err) : MOESIM_OK;
}
