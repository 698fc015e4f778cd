/*
 * A micro-batch through the model. The set-up is in build.c.
 */
#include "sim/train/transformer.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/experiment/groups.h"

/* ---- forward ---- */

static void run_attention(struct moesim_transformer *m, struct moesim_transformer_block *b)
{
    const uint32_t n = m->n_tokens, n_sequences = n / m->config.sequence;
    moesim_norm_forward(&b->before_attention, b->input, n, b->attention_r, b->attention_in);
    moesim_linear_forward(&b->qkv, &m->work, b->attention_in, n, NULL, b->qkv_out);
    moesim_attention_rotate(&m->attention, n_sequences, false, b->qkv_out);
    moesim_attention_forward(&m->attention, n_sequences, b->qkv_out, b->log_sum, b->attended);
    moesim_linear_forward(&b->out, &m->work, b->attended, n, b->input, b->middle);
}

/* The residual stream before block i's attention; behind the last block, its end. */
static float *stream_at(const struct moesim_transformer *m, uint32_t i)
{
    return i < m->config.n_blocks ? m->block[i].input : m->stream;
}

static enum moesim_status run_ffn(struct moesim_transformer *m, struct moesim_transformer_block *b,
                                  struct moesim_moe_pass *pass, float *output, struct moesim_error *err)
{
    const size_t size = (size_t)m->n_tokens * m->config.d_model;
    moesim_norm_forward(&b->before_ffn, b->middle, m->n_tokens, b->ffn_r, b->ffn_in);
    memcpy(output, b->middle, size * sizeof *output);
    if (b->dense) {
        m->dense_plan.n_tokens = m->n_tokens;
        moesim_layer_forward(b->dense, &m->dense_plan, b->ffn_in, output);
        return MOESIM_OK;
    }
    const enum moesim_status status = moesim_moe_forward(b->moe, pass, b->ffn_in, output, err);
    pass->previous_logits = b->moe->columns;
    return status;
}

static bool is_finite(const float *x, size_t n)
{
    float sum = 0; /* of x - x: 0, or NaN */
    for (size_t i = 0; i < n; i++)
        sum += x[i] - x[i];
    return sum == 0;
}

/* A router can do nothing right with states that are no finite numbers: then the training is to blame. */
static enum moesim_status fail_in_block(const struct moesim_transformer *m, uint32_t block, enum moesim_status status,
                                        struct moesim_error *err)
{
    if (!is_finite(m->block[block].middle, (size_t)m->n_tokens * m->config.d_model))
        return moesim_fail(err, MOESIM_EDIVERGED, "the states before the router of block %u are no finite numbers",
                           block);
    moesim_error_prefix(err, "router %s, block %u", m->choice.spec, block);
    return status;
}

/* Sequence ids and home devices of so many tokens. */
static void lay_tokens_out(struct moesim_transformer *m, uint32_t n_tokens)
{
    if (n_tokens == m->n_tokens)
        return;
    m->n_tokens = n_tokens;
    for (uint32_t t = 0; t < n_tokens; t++)
        m->sequence_id[t] = t / m->config.sequence;
    moesim_home_devices(m->device, n_tokens, moesim_transformer_devices(&m->config));
}

enum moesim_status moesim_transformer_forward(struct moesim_transformer *model, enum moesim_phase phase, uint32_t step,
                                              uint32_t micro_batch, const struct moesim_sequences *sample,
                                              struct moesim_error *err)
{
    struct moesim_transformer *m = model;
    assert(sample->n_sequences > 0 && sample->n_sequences <= m->config.n_sequences);
    lay_tokens_out(m, sample->n_sequences * m->config.sequence);
    struct moesim_moe_pass pass = {.phase = phase,
                                   .seed = m->seed,
                                   .step = step,
                                   .micro_batch = micro_batch,
                                   .n_tokens = m->n_tokens,
                                   .token_id = sample->token,
                                   .sequence_id = m->sequence_id,
                                   .device = m->device,
                                   .domain = sample->domain};
    moesim_embedding_forward(&m->embedding, sample->token, m->n_tokens, stream_at(m, 0));
    for (uint32_t i = 0; i < m->config.n_blocks; i++) {
        run_attention(m, &m->block[i]);
        const enum moesim_status status = run_ffn(m, &m->block[i], &pass, stream_at(m, i + 1), err);
        if (status != MOESIM_OK)
            return fail_in_block(m, i, status, err);
    }
    moesim_norm_forward(&m->last_norm, m->stream, m->n_tokens, m->last_r, m->last);
    return MOESIM_OK;
}

void moesim_transformer_losses(const struct moesim_transformer *model, const struct moesim_sequences *sample,
                               float *token_loss)
{
    moesim_head_run(&model->head, model->last, sample->target, model->n_tokens, 0, false, token_loss, NULL);
}

/* ---- backward: d_stream is the gradient by the residual stream, which every part adds to ---- */

static enum moesim_status back_through_ffn(struct moesim_transformer *m, struct moesim_transformer_block *b,
                                           float aux_scale, bool add, struct moesim_error *err)
{
    const size_t size = (size_t)m->n_tokens * m->config.d_model;
    enum moesim_status status = MOESIM_OK;
    memset(m->d_normed, 0, size * sizeof(float));
    if (b->dense)
        moesim_layer_backward(b->dense, &m->dense_plan, b->ffn_in, m->d_stream, add, m->d_normed, NULL);
    else
        status = moesim_moe_backward(b->moe, b->ffn_in, m->d_stream, aux_scale, add, m->d_normed, err);
    moesim_norm_backward(&b->before_ffn, b->middle, b->ffn_r, m->d_normed, m->n_tokens, add, m->parts, m->d_stream);
    return status;
}

static void back_through_attention(struct moesim_transformer *m, struct moesim_transformer_block *b, bool add)
{
    const uint32_t n = m->n_tokens, n_sequences = n / m->config.sequence;
    moesim_linear_backward(&b->out, &m->work, b->attended, m->d_stream, n, add, m->d_normed);
    moesim_attention_backward(&m->attention, n_sequences, b->qkv_out, b->log_sum, b->attended, m->d_normed, m->d_qkv);
    moesim_attention_rotate(&m->attention, n_sequences, true, m->d_qkv);
    moesim_linear_backward(&b->qkv, &m->work, b->attention_in, m->d_qkv, n, add, m->d_normed);
    moesim_norm_backward(&b->before_attention, b->input, b->attention_r, m->d_normed, n, add, m->parts, m->d_stream);
}

/* A head of its own leaves the embedding's gradient to the embedding alone, which adds. */
static void clear_embedding(struct moesim_transformer *m, bool add)
{
    const struct moesim_embedding *e = &m->embedding;
    if (!add && !m->config.tied_head)
        memset(e->d_w, 0, (size_t)e->d_model * moesim_panel_columns(e->products, e->vocabulary) * sizeof(float));
}

enum moesim_status moesim_transformer_backward(struct moesim_transformer *model, const struct moesim_sequences *sample,
                                               float loss_scale, float aux_scale, bool add, float *token_loss,
                                               struct moesim_error *err)
{
    struct moesim_transformer *m = model;
    const size_t size = (size_t)m->n_tokens * m->config.d_model;
    clear_embedding(m, add);
    moesim_head_run(&m->head, m->last, sample->target, m->n_tokens, loss_scale, add, token_loss, m->d_normed);
    memset(m->d_stream, 0, size * sizeof(float));
    moesim_norm_backward(&m->last_norm, m->stream, m->last_r, m->d_normed, m->n_tokens, add, m->parts, m->d_stream);
    for (uint32_t i = m->config.n_blocks; i-- > 0;) {
        const enum moesim_status status = back_through_ffn(m, &m->block[i], aux_scale, add, err);
        if (status != MOESIM_OK)
            return fail_in_block(m, i, status, err);
        back_through_attention(m, &m->block[i], add);
    }
    moesim_embedding_backward(&m->embedding, sample->token, m->n_tokens, m->d_stream, add);
    return MOESIM_OK;
}

/* ---- what went wrong ---- */

void moesim_transformer_blame(const struct moesim_transformer *model, char *text, size_t size)
{
    const struct moesim_transformer *m = model;
    const size_t n = (size_t)m->n_tokens * m->config.d_model;
    if (!is_finite(stream_at(m, 0), n)) {
        snprintf(text, size, "the embedding");
        return;
    }
    for (uint32_t i = 0; i < m->config.n_blocks; i++) {
        const bool attention = !is_finite(m->block[i].middle, n);
        if (attention || !is_finite(stream_at(m, i + 1), n)) {
            snprintf(text, size, "%s of block %u",
                     attention         ? "the attention"
                     : m->block[i].moe ? "the MoE layer"
                                       : "the dense layer",
                     i);
            return;
        }
    }
    snprintf(text, size, "the head");
}
