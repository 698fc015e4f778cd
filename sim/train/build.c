#include "sim/train/build.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include <moesim/random.h>

#define EMBEDDING_STD 0.02
#define CHUNK 1024

struct builder {
    struct moesim_transformer *model;
    struct moesim_arena *arena;
    bool is_short; /* memory was */
};

uint32_t moesim_transformer_most_tensors(const struct moesim_transformer_config *config)
{
    return 4 + 10 * config->n_blocks;
}

/* Adds a tensor to the list; the name is what the format makes of the block. */
static struct moesim_tensor *add(struct builder *b, struct moesim_tensor tensor, const char *format, uint32_t block)
{
    struct moesim_tensor *t = &b->model->tensor[b->model->n_tensors++];
    *t = tensor;
    t->block = block;
    if (block == UINT32_MAX)
        snprintf(t->name, sizeof t->name, "%s", format);
    else
        snprintf(t->name, sizeof t->name, "blocks.%u.%s", block, format);
    return t;
}

/* The same with memory of its own. */
static struct moesim_tensor *add_new(struct builder *b, struct moesim_tensor tensor, const char *format, uint32_t block,
                                     float **value, float **gradient)
{
    const size_t size = moesim_tensor_size(&tensor);
    tensor.value = *value = moesim_alloc(b->arena, size, sizeof(float));
    tensor.gradient = *gradient = moesim_alloc(b->arena, size, sizeof(float));
    b->is_short |= !tensor.value || !tensor.gradient;
    return add(b, tensor, format, block);
}

static void add_gain(struct builder *b, struct moesim_norm *norm, const char *format, uint32_t block)
{
    const uint32_t d = b->model->config.d_model;
    *norm = (struct moesim_norm){.d = d, .rows = moesim_rows_find()};
    add_new(b, (struct moesim_tensor){.n_parts = 1, .rows = 1, .columns = d, .width = d}, format, block, &norm->gain,
            &norm->d_gain);
    for (uint32_t i = 0; norm->gain && i < d; i++)
        norm->gain[i] = 1;
}

static struct moesim_tensor matrix(const struct builder *b, uint32_t rows, uint32_t columns)
{
    return (struct moesim_tensor){.n_parts = 1,
                                  .rows = rows,
                                  .columns = columns,
                                  .width = moesim_panel_width(b->model->products, columns),
                                  .decays = true};
}

static void draw(const struct builder *b, const struct moesim_tensor *t, double std)
{
    const struct moesim_random random = {
        .seed = b->model->seed, .stream = MOESIM_STREAM_TRANSFORMER, .layer = (uint32_t)(t - b->model->tensor)};
    if (b->is_short)
        return;
#pragma omp parallel for schedule(static)
    for (uint32_t r = 0; r < t->rows; r++) {
        float chunk[CHUNK];
        for (uint32_t first = 0; first < t->columns; first += CHUNK) {
            const uint32_t n = t->columns - first < CHUNK ? t->columns - first : CHUNK;
            moesim_random_normals(&random, (uint64_t)r * t->columns + first, n, chunk);
            for (uint32_t c = 0; c < n; c++)
                t->value[moesim_tensor_place(t, 0, r, first + c)] = chunk[c] * (float)std;
        }
    }
}

static void add_linear(struct builder *b, struct moesim_linear *linear, uint32_t n_in, uint32_t n_out,
                       const char *format, uint32_t block, double std)
{
    linear->n_in = n_in;
    linear->n_out = n_out;
    draw(b, add_new(b, matrix(b, n_in, n_out), format, block, &linear->w, &linear->d_w), std);
}

/* ---- the FFNs ---- */

/* What ends a branch of the residual stream begins smaller. */
static double branch_scale(const struct builder *b)
{
    return 1 / sqrt(2.0 * b->model->config.n_blocks);
}

static void add_experts(struct builder *b, struct moesim_layer *layer, const char *const names[3], uint32_t block)
{
    float *const value[] = {layer->w_in, layer->w_gate, layer->w_out};
    float *const gradient[] = {layer->d_in, layer->d_gate, layer->d_out};
    for (int m = MOESIM_W_IN; m <= MOESIM_W_OUT; m++) {
        if (!value[m])
            continue;
        struct moesim_tensor t =
            m == MOESIM_W_OUT ? matrix(b, layer->d_ff, layer->d_model) : matrix(b, layer->d_model, layer->d_ff);
        t.n_parts = layer->n_experts + layer->n_shared;
        t.value = value[m];
        t.gradient = gradient[m];
        add(b, t, names[m], block);
    }
    const size_t size = (size_t)(layer->n_experts + layer->n_shared) * moesim_layer_matrix_size(layer, MOESIM_W_OUT);
    for (size_t i = 0; i < size; i++)
        layer->w_out[i] *= (float)branch_scale(b);
}

static void add_moe(struct builder *b, struct moesim_moe *moe, uint32_t block)
{
    static const char *const experts[] = {"experts.in", "experts.gate", "experts.out"};
    struct moesim_tensor t = {.n_parts = 1,
                              .rows = moe->gate.d_model,
                              .columns = moe->gate.n_columns,
                              .width = moe->gate.stride,
                              .decays = true,
                              .is_gate = true,
                              .value = moe->gate.weight,
                              .gradient = moe->d_gate};
    if (t.columns > 0)
        add(b, t, "gate.weight", block);
    t.rows = 1;
    t.decays = false;
    t.value = moe->bias;
    t.gradient = moe->d_bias;
    if (moe->bias && t.columns > 0)
        add(b, t, "gate.bias", block);
    t.columns = t.width = (uint32_t)moe->shape.n_weights;
    t.value = moe->weights;
    t.gradient = moe->d_weights;
    if (t.columns > 0)
        add(b, t, "router.weights", block);
    add_experts(b, &moe->layer, experts, block);
}

enum moesim_status moesim_transformer_weights(struct moesim_transformer *model, struct moesim_arena *arena,
                                              struct moesim_error *err)
{
    static const char *const dense[] = {"ffn.in", "ffn.gate", "ffn.out"};
    struct builder b = {.model = model, .arena = arena};
    const struct moesim_transformer_config *c = &model->config;
    const uint32_t d = c->d_model;
    struct moesim_embedding *e = &model->embedding;
    struct moesim_tensor embedding = matrix(&b, d, c->vocabulary);
    embedding.decays = false;
    draw(&b, add_new(&b, embedding, "embedding", UINT32_MAX, &e->w, &e->d_w), EMBEDDING_STD);
    const struct moesim_tensor position = {.n_parts = 1, .rows = c->sequence, .columns = d, .width = d};
    if (c->positions == MOESIM_LEARNED)
        draw(&b, add_new(&b, position, "position", UINT32_MAX, &e->position, &e->d_position), EMBEDDING_STD);
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        struct moesim_transformer_block *block = &model->block[i];
        add_gain(&b, &block->before_attention, "norm1.gain", i);
        add_linear(&b, &block->qkv, d, 3 * d, "attention.qkv", i, 1 / sqrt(d));
        add_linear(&b, &block->out, d, d, "attention.out", i, branch_scale(&b) / sqrt(d));
        add_gain(&b, &block->before_ffn, "norm2.gain", i);
        if (block->moe)
            add_moe(&b, block->moe, i);
        else
            add_experts(&b, block->dense, dense, i);
    }
    add_gain(&b, &model->last_norm, "norm.gain", UINT32_MAX);
    if (c->tied_head) {
        model->head.linear.w = e->w;
        model->head.linear.d_w = e->d_w;
    } else {
        add_linear(&b, &model->head.linear, d, c->vocabulary, "head", UINT32_MAX, EMBEDDING_STD);
    }
    return b.is_short
               ? moesim_fail(err, MOESIM_ENOMEM, "no memory for the weights of %u blocks of d_model %u", c->n_blocks, d)
               : MOESIM_OK;
}
