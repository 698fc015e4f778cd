/* Files of gate columns, and what belongs to their tokens. */
#include "cli/route_input.h"

#include <string.h>

#include <moesim/param.h>

#include "sim/experiment/groups.h"
#include "workloads/table.h"

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

static enum moesim_status open_logits(struct route_input *in, struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_workload *logits = &moesim_workload_logits;
    struct moesim_schema schema = moesim_workload_schema(logits);
    in->params = moesim_alloc(arena, 1, logits->params_size);
    if (!in->params)
        return no_memory(err);
    enum moesim_status status = moesim_params_default(schema, 1, in->params, arena, err);
    if (!status)
        status = moesim_param_set(moesim_schema_find(schema, "file"), in->files->logits, in->params, arena, err);
    in->shape.struct_size = sizeof in->shape;
    return status ? status : logits->shape(in->params, &in->shape, err);
}

/* Whole numbers, one a token. */
static enum moesim_status read_ids(const char *path, uint32_t n_tokens, struct moesim_arena *arena, uint32_t **ids,
                                   struct moesim_error *err)
{
    struct npy npy;
    enum moesim_status status = path ? npy_open(path, &npy, err) : MOESIM_OK;
    if (!path || status)
        return status;
    if (npy.n_dimensions != 1 || npy.n != n_tokens)
        status = moesim_fail(err, MOESIM_EINVAL,
                             "%s: %llu numbers; one for each of the %u tokens is needed, in one "
                             "dimension",
                             path, (unsigned long long)npy.n, n_tokens);
    if (!status && !(*ids = moesim_alloc(arena, n_tokens, sizeof **ids)))
        status = no_memory(err);
    if (!status)
        status = npy_read_u32(&npy, 0, n_tokens, *ids, err);
    if (status == MOESIM_EIO)
        moesim_error_prefix(err, "%s", path);
    npy_close(&npy);
    return status;
}

/* Rows of numbers, one a token, for one layer or for all. */
static enum moesim_status open_rows(const char *path, const struct route_input *in, struct npy *npy,
                                    struct moesim_error *err)
{
    enum moesim_status status = path ? npy_open(path, npy, err) : MOESIM_OK;
    if (!path || status)
        return status;
    const uint32_t n = npy->n_dimensions, layers = in->shape.n_layers;
    if (n < 2 || n > 3 || npy->shape[n - 2] != in->shape.n_tokens || (n == 3 && npy->shape[0] != layers) ||
        npy->shape[n - 1] > UINT32_MAX / 2)
        return moesim_fail(err, MOESIM_EINVAL, "%s: the shape is not [%u, columns] or [%u, %u, columns] as the logits'",
                           path, in->shape.n_tokens, layers, in->shape.n_tokens);
    return MOESIM_OK;
}

enum moesim_status route_input_open(struct route_input *in, const struct route_files *files, struct moesim_arena *arena,
                                    struct moesim_error *err)
{
    *in = (struct route_input){.files = files};
    enum moesim_status status = open_logits(in, arena, err);
    if (!status)
        status = read_ids(files->tokens, in->shape.n_tokens, arena, &in->token_id, err);
    if (!status)
        status = read_ids(files->sequences, in->shape.n_tokens, arena, &in->sequence_id, err);
    if (!status)
        status = open_rows(files->hidden, in, &in->hidden, err);
    if (!status)
        status = open_rows(files->previous, in, &in->previous, err);
    if (status)
        return status;
    if (files->hidden) {
        in->d_model = (uint32_t)in->hidden.shape[in->hidden.n_dimensions - 1];
        in->hidden_rows = moesim_alloc(arena, (size_t)in->shape.n_tokens * in->d_model, sizeof(float));
        if (!in->hidden_rows)
            return no_memory(err);
    }
    for (uint32_t t = 0; in->token_id && t < in->shape.n_tokens; t++)
        if (in->token_id[t] >= in->vocabulary)
            in->vocabulary = in->token_id[t] + 1;
    return MOESIM_OK;
}

enum moesim_status route_input_check(const struct route_input *in, const struct moesim_router *router,
                                     const struct moesim_shape *shape, struct moesim_error *err)
{
    static const struct {
        uint32_t need;
        const char *what, *option;
    } files[] = {
        {MOESIM_NEEDS_HIDDEN, "hidden states", "--hidden"},
        {MOESIM_NEEDS_TOKEN_IDS, "token ids", "--tokens"},
        {MOESIM_NEEDS_SEQUENCES, "sequence ids", "--sequences"},
        {MOESIM_NEEDS_PREVIOUS_LOGITS, "the previous layer's logits", "--previous"},
    };
    const bool has[] = {in->hidden_rows, in->token_id, in->sequence_id, in->files->previous || in->shape.n_layers > 1};
    uint32_t needs = router->needs | shape->needs;
    if (shape->group == MOESIM_GROUP_SEQUENCE)
        needs |= MOESIM_NEEDS_SEQUENCES;
    if (shape->n_slots > 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "router %s mixes all tokens in all slots (soft), so there are no decisions to write",
                           router->name);
    for (uint32_t i = 0; i < 4; i++)
        if ((needs & files[i].need) && !has[i])
            return moesim_fail(err, MOESIM_EINVAL, "router %s needs %s: give %s FILE.npy", router->name, files[i].what,
                               files[i].option);
    if (needs & MOESIM_NEEDS_DECISIONS)
        return moesim_fail(err, MOESIM_EINVAL,
                           "router %s replays recorded decisions, which a file of logits does not have", router->name);
    if (shape->input_jitter > 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "router %s: jitter acts on the gate's input, which a file of logits is past; set jitter=0",
                           router->name);
    return MOESIM_OK;
}

/* Room for the layer before's columns, where the router looks at them. */
static enum moesim_status prepare_previous(struct route_input *in, uint32_t n_tokens, uint32_t n_columns,
                                           struct moesim_arena *arena, struct moesim_error *err)
{
    const uint64_t of_file = in->files->previous ? in->previous.shape[in->previous.n_dimensions - 1] : n_columns;
    if (of_file < n_columns)
        return moesim_fail(err, MOESIM_EINVAL, "%s: fewer columns than the gate's %u", in->files->previous, n_columns);
    const size_t stride = n_columns > in->shape.n_columns ? n_columns : in->shape.n_columns;
    in->previous_rows = moesim_alloc(arena, n_tokens * stride, sizeof(float));
    return in->previous_rows ? MOESIM_OK : no_memory(err);
}

enum moesim_status route_input_prepare(struct route_input *in, const struct moesim_router *router,
                                       const struct moesim_env *env, const struct moesim_shape *shape,
                                       struct moesim_arena *arena, struct moesim_error *err)
{
    const struct moesim_workload *logits = &moesim_workload_logits;
    const struct moesim_workload_env workload_env = {.struct_size = sizeof workload_env,
                                                     .phase = env->phase,
                                                     .seed = env->seed,
                                                     .n_layers = env->n_layers,
                                                     .n_experts = env->n_experts,
                                                     .n_columns = shape->n_columns,
                                                     .top_k = env->top_k,
                                                     .n_tokens = env->max_tokens,
                                                     .n_devices = 1,
                                                     .n_optional_columns = shape->n_optional_columns,
                                                     .arena = arena};
    in->state = moesim_alloc(arena, 1, logits->state_size);
    in->device = moesim_alloc(arena, env->max_tokens, sizeof *in->device);
    in->group_start = moesim_alloc(arena, (size_t)env->max_groups + 1, sizeof *in->group_start);
    enum moesim_status status = in->state && in->device && in->group_start ? MOESIM_OK : no_memory(err);
    if (!status && ((router->needs | shape->needs) & MOESIM_NEEDS_PREVIOUS_LOGITS))
        status = prepare_previous(in, env->max_tokens, shape->n_columns, arena, err);
    if (!status)
        status = logits->init(in->state, in->params, &workload_env, err);
    in->ready = status == MOESIM_OK;
    return status;
}

/* Row t, columns [0, n) of one layer to rows of `stride`. */
static void read_rows(const struct npy *npy, uint32_t layer, uint64_t n, uint64_t stride, float *rows)
{
    const uint32_t d = npy->n_dimensions;
    const uint64_t n_rows = npy->shape[d - 2], width = npy->shape[d - 1], first = d == 3 ? layer * n_rows * width : 0;
    for (uint64_t t = 0; t < n_rows; t++)
        npy_read_float(npy, first + t * width, n, rows + t * stride);
}

/* The layer before's columns in rows of the same stride: the workload's memory does not outlive its next call. */
static void keep_columns(struct route_input *in, const struct moesim_batch *before)
{
    if (in->previous_rows && !in->files->previous && before->columns)
        memcpy(in->previous_rows, before->columns, (size_t)before->n_tokens * before->stride * sizeof(float));
}

enum moesim_status route_input_batch(struct route_input *in, const struct moesim_env *env,
                                     const struct moesim_shape *shape, uint32_t layer, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    if (layer > 0)
        keep_columns(in, batch);
    *batch = (struct moesim_batch){.struct_size = sizeof *batch,
                                   .phase = env->phase,
                                   .seed = env->seed,
                                   .layer = layer,
                                   .n_experts = env->n_experts,
                                   .d_model = in->d_model,
                                   .hidden = in->hidden_rows,
                                   .token_id = in->token_id,
                                   .sequence_id = in->sequence_id,
                                   .n_devices = 1,
                                   .device = in->device};
    if (in->hidden_rows)
        read_rows(&in->hidden, layer, in->d_model, in->d_model, in->hidden_rows);
    enum moesim_status status = moesim_workload_logits.step(in->state, 0, layer, batch, err);
    if (status)
        return status;
    if (in->previous_rows && in->files->previous)
        read_rows(&in->previous, layer, shape->n_columns, batch->stride, in->previous_rows);
    if (in->files->previous || layer > 0)
        batch->previous_logits = in->previous_rows;
    batch->n_groups = moesim_groups_make(shape, batch, in->group_start);
    batch->group_start = in->group_start;
    return MOESIM_OK;
}

void route_input_close(struct route_input *in)
{
    if (in->ready)
        moesim_workload_logits.finish(in->state);
    npy_close(&in->hidden);
    npy_close(&in->previous);
}
