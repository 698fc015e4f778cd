#include "sim/experiment/trained.h"

#include <string.h>

#include <moesim/hash.h>

#include "sim/checkpoint/checkpoint.h"
#include "sim/experiment/experiment_state.h"

enum { TOKEN_TEXT = 256 };

uint64_t experiment_trained_bytes(const struct moesim_point *p)
{
    if (!p->trained)
        return 0;
    const struct moesim_transformer_config config = moesim_trained_config(p);
    struct moesim_transformer_counts counts = {0};
    struct moesim_shape shape = {.struct_size = sizeof shape};
    struct moesim_error ignored;
    struct moesim_arena *arena = moesim_arena_create(0);
    if (arena &&
        moesim_transformer_shape(&config, &p->trained->choice, p->trained->seed, arena, &shape, &ignored) == MOESIM_OK)
        moesim_transformer_count(&config, &shape, &counts);
    moesim_arena_destroy(arena);
    return 2 * counts.n_parameters * sizeof(float) + counts.activation_bytes; /* weights, and room for gradients */
}

uint64_t experiment_vocabulary_hash(const struct moesim_experiment *e)
{
    const struct moesim_workload *workload = e->first->workload;
    uint64_t hash = MOESIM_HASH_START;
    if (!workload->token_text)
        return 0;
    for (uint32_t id = 0; id < e->first->workload_shape.vocabulary; id++) {
        char text[TOKEN_TEXT];
        const size_t n = workload->token_text(e->workload_state, id, text, sizeof text);
        hash = moesim_hash(moesim_hash(hash, &n, sizeof n), text, n);
    }
    return hash;
}

static enum moesim_status check_vocabulary(const struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_trained *t = e->first->trained;
    if (!t->vocabulary_hash || t->vocabulary_hash == experiment_vocabulary_hash(e))
        return MOESIM_OK;
    return moesim_fail(err, MOESIM_EINVAL,
                       "the model of %s was trained on other words: take the same word_list; where there is none, ids "
                       "follow from the texts: name those of the training, and take one domain by `only`",
                       t->path);
}

enum moesim_status experiment_trained_create(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_trained *t = e->first->trained;
    if (!t)
        return MOESIM_OK;
    enum moesim_status status = moesim_trained_check_columns(e->first, &e->shape, err);
    if (status == MOESIM_OK)
        status = check_vocabulary(e, err);
    if (status != MOESIM_OK)
        return status;
    const struct moesim_transformer_config config = moesim_trained_config(e->first);
    e->trained = moesim_alloc(e->arena, 1, sizeof *e->trained);
    if (!e->trained)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the model of %s", t->path);
    status = moesim_transformer_init(e->trained, &config, &t->choice, t->seed, e->arena, err);
    if (status == MOESIM_OK)
        status = moesim_checkpoint_load_model(e->trained, t->path, err);
    return status;
}

void experiment_trained_destroy(struct moesim_experiment *e)
{
    if (e->trained)
        moesim_transformer_finish(e->trained);
}

/* Columns that it does not have are 0. */
static enum moesim_status take_gate(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    const struct moesim_moe *moe = &e->trained->moe[l];
    struct moesim_gate *gate = &e->layer[l].gate;
    const uint32_t n = moesim_trained_columns(e->first, &e->shape);
    memset(gate->weight, 0, (size_t)gate->d_model * gate->stride * sizeof *gate->weight);
    for (size_t i = 0; i < gate->d_model; i++)
        memcpy(gate->weight + i * gate->stride, moe->gate.weight + i * moe->gate.stride, n * sizeof *gate->weight);
    if (!moe->bias)
        return MOESIM_OK;
    float *bias = moesim_alloc(e->arena, gate->n_columns, sizeof *bias);
    if (!bias)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a gate of %u columns", gate->n_columns);
    memcpy(bias, moe->bias, n * sizeof *bias);
    e->layer[l].gate_bias = bias;
    return MOESIM_OK;
}

/* Of another router, or of other parameters that keep more or less, nothing can be taken. */
static void take_router(struct moesim_experiment *e, uint32_t l)
{
    const struct moesim_moe *moe = &e->trained->moe[l];
    const struct experiment_layer *layer = &e->layer[l];
    if (moe->choice->router != e->first->router->router)
        return;
    if (moe->shape.n_weights == e->shape.n_weights)
        memcpy(layer->weights, moe->weights, e->shape.n_weights * sizeof *layer->weights);
    if (moe->shape.n_memory == e->shape.n_memory)
        memcpy(layer->memory, moe->memory, e->shape.n_memory * sizeof *layer->memory);
}

enum moesim_status experiment_trained_layer(struct moesim_experiment *e, uint32_t l, struct moesim_error *err)
{
    if (!e->trained)
        return MOESIM_OK;
    take_router(e, l);
    return take_gate(e, l, err);
}

enum moesim_status experiment_trained_batch(struct moesim_experiment *e, struct moesim_batch *batch,
                                            struct moesim_error *err)
{
    struct moesim_transformer *model = e->trained;
    if (!model)
        return MOESIM_OK;
    if (batch->layer == 0) {
        const struct moesim_sequences sequences = {
            .n_sequences = batch->n_tokens / model->config.sequence, .token = batch->token_id, .domain = batch->domain};
        const enum moesim_status status = moesim_transformer_forward(model, MOESIM_EVAL, e->step, 0, &sequences, err);
        if (status != MOESIM_OK) {
            moesim_error_prefix(err, "the model of %s, step %u", e->first->trained->path, e->step);
            return status;
        }
    }
    batch->hidden = model->block[(batch->layer + 1) * model->config.moe_every - 1].ffn_in;
    batch->d_model = model->config.d_model;
    return MOESIM_OK;
}
