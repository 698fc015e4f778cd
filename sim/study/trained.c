/*
 * A workload's checkpoint: whose model it is, and what follows from that for the study.
 */
#include "sim/checkpoint/checkpoint.h"
#include "sim/study/resolve.h"
#include "sim/study/spec.h"

/* At the value of `checkpoint`. */
static bool refuse(struct moesim_resolver *r, const struct moesim_choice *workload, struct moesim_error *err)
{
    const struct moesim_variant *v = workload->variant;
    const struct moesim_setting *s = moesim_setting_find(v, "checkpoint");
    moesim_error_prefix(err, "workload %s: checkpoint", v->name);
    moesim_mistake(r->mistakes, s ? s->line : v->line, s ? s->column : v->column, "%s", err->text);
    return false;
}

/* A plugin's hooks run in a worker process only, but the model would be asked for its shape here. */
static enum moesim_status refuse_plugin(const struct moesim_trained *t, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EINVAL,
                       "%.150s: was trained with the router %.100s, a plugin; a checkpoint needs one of moesim's own",
                       t->path, t->choice.spec);
}

/* The model's own router, by the rules of a study's. What is wrong with it is said of the checkpoint. */
static enum moesim_status find_router(struct moesim_resolver *r, struct moesim_trained *t, struct moesim_error *err)
{
    struct moesim_mistakes *mistakes = moesim_alloc(r->arena, 1, sizeof *mistakes);
    if (!mistakes)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for the router of %s", t->path);
    if (moesim_spec_is_path(t->choice.spec))
        return refuse_plugin(t, err);
    struct moesim_resolver own = *r;
    own.mistakes = mistakes;
    const struct moesim_node node = {.kind = MOESIM_NODE_SCALAR, .text = t->choice.spec};
    const struct moesim_variants variants = moesim_variants_expand(&own, MOESIM_ROUTER, &node);
    struct moesim_choice choice = {.variant = variants.item, .spec = t->choice.spec};
    if (variants.n)
        moesim_router_resolve(&own, &choice);
    if (choice.router && choice.router->plugin)
        return refuse_plugin(t, err);
    if (!mistakes->n)
        t->choice.params = moesim_router_params(&own, &choice, t->model.top_k);
    if (mistakes->n)
        return moesim_fail(err, MOESIM_EINVAL, "%.150s: its router %.100s: %s", t->path, t->choice.spec,
                           mistakes->item[0].text);
    t->choice.router = choice.router->router;
    t->choice.files = choice.files;
    t->choice.n_files = choice.n_files;
    return MOESIM_OK;
}

/* Whether the model can read these tokens. */
static enum moesim_status check_tokens(const struct moesim_trained *t, const struct moesim_workload_shape *shape,
                                       struct moesim_error *err)
{
    if (t->model.vocabulary != shape->vocabulary)
        return moesim_fail(err, MOESIM_EINVAL, "%s: has a vocabulary of %u tokens, the workload of %u", t->path,
                           t->model.vocabulary, shape->vocabulary);
    if (t->model.positions == MOESIM_LEARNED && t->model.sequence != shape->sequence)
        return moesim_fail(err, MOESIM_EINVAL,
                           "%s: has learned the positions of sequences of %u tokens, the workload's have %u; set "
                           "sequence to %u",
                           t->path, t->model.sequence, shape->sequence, t->model.sequence);
    return MOESIM_OK;
}

static enum moesim_status read_model(struct moesim_resolver *r, struct moesim_trained *t,
                                     struct moesim_workload_shape *shape, struct moesim_error *err)
{
    struct moesim_shape router = {.struct_size = sizeof router};
    enum moesim_status status = moesim_transformer_check(&t->model, err);
    if (status == MOESIM_OK && !moesim_transformer_n_moe(&t->model))
        status = moesim_fail(err, MOESIM_EINVAL, "%s: is of a dense model: it has no gates", t->path);
    if (status == MOESIM_OK)
        status = check_tokens(t, shape, err);
    if (status == MOESIM_OK)
        status = find_router(r, t, err);
    if (status == MOESIM_OK)
        status = moesim_transformer_shape(&t->model, &t->choice, t->seed, r->arena, &router, err);
    if (status != MOESIM_OK)
        return status;
    const uint32_t needs = router.needs | t->choice.router->needs;
    t->n_columns = needs & MOESIM_NEEDS_COLUMNS ? router.n_columns : 0;
    t->n_logits = router.n_logits;
    shape->n_layers = moesim_transformer_n_moe(&t->model);
    shape->n_experts = t->model.n_experts;
    shape->n_columns = t->n_columns;
    shape->top_k = t->model.top_k;
    shape->d_model = t->model.d_model;
    return MOESIM_OK;
}

bool moesim_trained_resolve(struct moesim_resolver *r, struct moesim_choice *workload)
{
    struct moesim_trained *t = moesim_mistake_alloc(r->mistakes, r->arena, 1, sizeof *t);
    struct moesim_checkpoint_info info;
    struct moesim_error err;
    if (!t)
        return false;
    if (moesim_checkpoint_info(workload->shape.checkpoint, r->arena, &info, &err) != MOESIM_OK) {
        r->mistakes->n_files++;
        return refuse(r, workload, &err);
    }
    *t = (struct moesim_trained){.path = workload->shape.checkpoint,
                                 .model = info.model,
                                 .choice = {.spec = info.router},
                                 .seed = info.seed,
                                 .vocabulary_hash = info.vocabulary_hash,
                                 .step = info.step};
    if (read_model(r, t, &workload->shape, &err) != MOESIM_OK)
        return refuse(r, workload, &err);
    workload->trained = t;
    return true;
}

struct moesim_transformer_config moesim_trained_config(const struct moesim_point *p)
{
    struct moesim_transformer_config config = p->trained->model;
    config.sequence = p->workload_shape.sequence;
    config.n_sequences = p->n_tokens / config.sequence;
    return config;
}

/* Of its own router with the same columns, all; else those that are logits to both. */
uint32_t moesim_trained_columns(const struct moesim_point *p, const struct moesim_shape *shape)
{
    const struct moesim_trained *t = p->trained;
    uint32_t n = t->n_columns;
    if (p->router->router == t->choice.router && shape->n_columns == n && p->model.experts == t->model.n_experts)
        return n;
    n = t->n_logits < n ? t->n_logits : n;
    n = shape->n_logits < n ? shape->n_logits : n;
    return p->model.experts < n ? p->model.experts : n;
}

enum moesim_status moesim_trained_check_columns(const struct moesim_point *p, const struct moesim_shape *shape,
                                                struct moesim_error *err)
{
    const struct moesim_trained *t = p->trained;
    const uint32_t needs = shape->needs | p->router->router->needs, has = moesim_trained_columns(p, shape);
    if (!(needs & MOESIM_NEEDS_COLUMNS) || shape->n_columns - shape->n_optional_columns <= has)
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL,
                       "router %.100s cannot route by the gates of %.150s, which were trained with %.100s: of its %u "
                       "columns they have %u",
                       p->router_spec, t->path, t->choice.spec, shape->n_columns, has);
}
