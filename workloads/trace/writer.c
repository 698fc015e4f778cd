/*
 * The writer of trace files. Each layer gathers its own tokens and gives them to the file in blocks, so that sources
 * that go token by token and those that go layer by layer are written alike. Memory is bounded: when the layers
 * together hold too much, the fullest one is written.
 */
#include "workloads/trace/writer.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "workloads/trace/writer_state.h"

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is written");
}

/* ---- layers ---- */

static enum moesim_status write_layer(struct trace_writer *w, struct writer_layer *layer, struct moesim_error *err)
{
    struct file_block block = {.type = w->kind == TRACE_LOGITS ? FILE_LOGITS : FILE_DECISIONS,
                               .layer = layer->id,
                               .n_tokens = layer->n_tokens,
                               .first = layer->n_written};
    const struct block_pairs pairs = {
        layer->n_tokens, layer->n_values, layer->count, layer->expert, w->has_weights ? layer->weight : NULL,
        layer->fate,     layer->slot};
    if (layer->n_tokens == 0)
        return MOESIM_OK;
    if (w->kind == TRACE_LOGITS)
        block_encode_floats(layer->logit, layer->n_values, &w->payload, &block);
    else
        block_encode_pairs(&pairs, &w->payload, &block);
    w->has_fates |= (block.encoding & FILE_FATES) != 0;
    w->has_slots |= FILE_WIDTH(block.encoding, 16) != 0;
    w->n_held -= layer->n_values;
    layer->n_written += layer->n_tokens;
    layer->n_tokens = 0;
    layer->n_values = 0;
    return writer_block(w, &block, err);
}

static enum moesim_status relieve(struct trace_writer *w, struct writer_layer *layer, struct moesim_error *err)
{
    if (layer->n_tokens >= BLOCK_TOKENS || layer->n_values >= BLOCK_VALUES)
        return write_layer(w, layer, err);
    if (w->n_held < HELD_VALUES)
        return MOESIM_OK;
    struct writer_layer *fullest = layer;
    for (uint32_t i = 0; i < w->n_layers; i++)
        if (w->layer[i].n_values > fullest->n_values)
            fullest = &w->layer[i];
    return write_layer(w, fullest, err);
}

static enum moesim_status take_layer(struct trace_writer *w, uint32_t id, struct writer_layer **layer,
                                     struct moesim_error *err)
{
    if (w->n_layers >= TRACE_MAX_LAYERS)
        return moesim_fail(err, MOESIM_EIO, "a trace of more than %u layers cannot be kept", TRACE_MAX_LAYERS);
    *layer = writer_find_layer(w, id);
    return *layer ? MOESIM_OK : no_memory(err);
}

static bool make_room(struct trace_writer *w, struct writer_layer *layer, uint32_t tokens, uint64_t values)
{
    const uint64_t need_tokens = (uint64_t)layer->n_tokens + tokens, need = layer->n_values + values;
    if (need_tokens > layer->room_tokens) {
        const uint64_t room = need_tokens > 2ull * layer->room_tokens ? need_tokens : 2ull * layer->room_tokens;
        if (room > UINT32_MAX || !writer_grow(&layer->count, sizeof *layer->count, room))
            return false;
        layer->room_tokens = (uint32_t)room;
    }
    if (need <= layer->room_values)
        return true;
    const uint64_t room = need > 2 * layer->room_values ? need : 2 * layer->room_values;
    if (!writer_grow(&layer->expert, sizeof *layer->expert, room))
        return false;
    if (w->kind == TRACE_DECISIONS && (!writer_grow(&layer->weight, sizeof *layer->weight, room) ||
                                       !writer_grow(&layer->fate, sizeof *layer->fate, room) ||
                                       !writer_grow(&layer->slot, sizeof *layer->slot, room)))
        return false;
    layer->room_values = room;
    return true;
}

/* ---- decisions ---- */

static enum moesim_status check_pair(struct trace_writer *w, const struct trace_pairs *p, uint32_t i,
                                     struct moesim_error *err)
{
    const uint32_t e = p->expert[i];
    if (e != MOESIM_NO_EXPERT && e >= w->n_experts) {
        if (w->experts_known || e >= TRACE_MAX_EXPERTS)
            return moesim_fail(err, MOESIM_EIO, "expert %u is not one of the %u", e,
                               w->experts_known ? w->n_experts : TRACE_MAX_EXPERTS);
        w->n_experts = e + 1;
    }
    if (p->weight && !isfinite(p->weight[i]))
        return moesim_fail(err, MOESIM_EIO, "a weight of expert %u is not a finite number", e);
    return MOESIM_OK;
}

static enum moesim_status copy_token(struct trace_writer *w, struct writer_layer *layer, const struct trace_pairs *p,
                                     uint32_t t, struct moesim_error *err)
{
    const uint32_t first = p->first[t], n = p->first[t + 1] - first;
    enum moesim_status status = make_room(w, layer, 1, n) ? MOESIM_OK : no_memory(err);
    for (uint32_t i = first; !status && i < first + n; i++) {
        status = check_pair(w, p, i, err);
        const uint64_t to = layer->n_values + i - first;
        const bool bad = p->expert[i] == MOESIM_NO_EXPERT;
        layer->expert[to] = bad ? 0 : p->expert[i];
        layer->weight[to] = p->weight ? p->weight[i] : 0;
        layer->fate[to] = bad ? MOESIM_BAD_ROW : p->fate ? p->fate[i] : MOESIM_KEPT;
        layer->slot[to] = p->slot ? p->slot[i] : MOESIM_SLOT_BY_ORDER;
    }
    if (status)
        return status;
    layer->count[layer->n_tokens++] = n;
    layer->n_values += n;
    w->n_held += n;
    w->top_k = n > w->top_k ? n : w->top_k;
    return MOESIM_OK;
}

enum moesim_status trace_write_pairs(struct trace_writer *w, uint32_t id, uint32_t n, const struct trace_pairs *pairs,
                                     struct moesim_error *err)
{
    assert(w->kind == TRACE_DECISIONS);
    struct writer_layer *layer = NULL;
    enum moesim_status status = take_layer(w, id, &layer, err);
    if (!status && w->weights_known && w->has_weights != (pairs->weight != NULL))
        status = moesim_fail(err, MOESIM_EIO,
                             "some decisions have weights and others have none; a trace has one or "
                             "the other");
    w->weights_known = true;
    w->has_weights = pairs->weight != NULL;
    for (uint32_t t = 0; !status && t < n; t++) {
        status = copy_token(w, layer, pairs, t, err);
        if (!status)
            status = relieve(w, layer, err);
    }
    return status;
}

/* ---- logits, loads, labels ---- */

enum moesim_status trace_write_rows(struct trace_writer *w, uint32_t id, uint32_t n, const float *rows, size_t stride,
                                    struct moesim_error *err)
{
    assert(w->kind == TRACE_LOGITS && w->experts_known);
    struct writer_layer *layer = NULL;
    enum moesim_status status = take_layer(w, id, &layer, err);
    for (uint32_t t = 0; !status && t < n; t++) {
        if (!make_room(w, layer, 1, w->n_experts))
            return no_memory(err);
        memcpy(layer->logit + layer->n_values, rows + t * stride, w->n_experts * sizeof *rows);
        layer->count[layer->n_tokens++] = w->n_experts;
        layer->n_values += w->n_experts;
        w->n_held += w->n_experts;
        status = relieve(w, layer, err);
    }
    return status;
}

enum moesim_status trace_write_load(struct trace_writer *w, uint32_t id, uint32_t step, const double *load,
                                    uint32_t n_experts, struct moesim_error *err)
{
    assert(w->kind == TRACE_LOADS);
    struct writer_layer *layer = NULL;
    enum moesim_status status = take_layer(w, id, &layer, err);
    if (!status && w->experts_known && n_experts != w->n_experts)
        status =
            moesim_fail(err, MOESIM_EIO, "layer %u has loads of %u experts, others of %u", id, n_experts, w->n_experts);
    for (uint32_t e = 0; !status && e < n_experts; e++)
        if (!(load[e] >= 0) || !isfinite(load[e]))
            status = moesim_fail(err, MOESIM_EIO, "layer %u, expert %u: a load is not a number from 0 up", id, e);
    if (!status && layer->n_written != step)
        status = moesim_fail(err, MOESIM_EIO, "layer %u: step %u of its loads does not follow step %llu", id, step,
                             (unsigned long long)layer->n_written);
    if (status)
        return status;
    w->experts_known = true;
    w->n_experts = n_experts;
    w->n_steps = step + 1 > w->n_steps ? step + 1 : w->n_steps;
    layer->n_written++;
    struct file_block block = {.type = FILE_LOAD, .layer = id, .n_tokens = n_experts, .first = step};
    block_encode_doubles(load, n_experts, &w->payload, &block);
    return writer_block(w, &block, err);
}

static enum moesim_status write_labels(struct trace_writer *w, uint32_t label, struct moesim_error *err)
{
    struct writer_labels *q = &w->label[label];
    struct file_block block = {
        .type = FILE_SEQUENCE + label, .layer = FILE_NO_LAYER, .n_tokens = q->n, .first = q->n_written};
    if (q->n == 0)
        return MOESIM_OK;
    block_encode_labels(q->values, q->n, &w->payload, &block);
    q->n_written += q->n;
    q->n = 0;
    return writer_block(w, &block, err);
}

enum moesim_status trace_write_labels(struct trace_writer *w, enum trace_label label, uint32_t n,
                                      const uint32_t *values, struct moesim_error *err)
{
    struct writer_labels *q = &w->label[label];
    enum moesim_status status = MOESIM_OK;
    if (!q->values && !(q->values = malloc(BLOCK_TOKENS * sizeof *q->values)))
        return no_memory(err);
    for (uint32_t i = 0; !status && i < n; i++) {
        q->values[q->n++] = values[i];
        if (q->n == BLOCK_TOKENS)
            status = write_labels(w, label, err);
    }
    return status;
}

/* ---- the end ---- */

/* All layers have to be as long as the first, and each label, where there is one, as long as they. */
static enum moesim_status check_lengths(const struct trace_writer *w, struct moesim_error *err)
{
    static const char *const names[] = {"sequence ids", "token ids", "domains"};
    if (w->n_layers == 0 || (w->layer[0].n_written == 0))
        return moesim_fail(err, MOESIM_EIO, "there is nothing in it that tells how tokens were routed");
    const uint64_t n = w->layer[0].n_written;
    const char *what = w->kind == TRACE_LOADS ? "steps" : "tokens";
    for (uint32_t l = 1; l < w->n_layers; l++)
        if (w->layer[l].n_written != n)
            return moesim_fail(err, MOESIM_EIO,
                               "layer %u has %llu %s and layer %u has %llu: every layer must have as many; the last "
                               "rows may be cut off",
                               w->layer[0].id, (unsigned long long)n, what, w->layer[l].id,
                               (unsigned long long)w->layer[l].n_written);
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        if (w->label[i].n_written && w->label[i].n_written != n)
            return moesim_fail(err, MOESIM_EIO, "there are %llu %s for %llu tokens",
                               (unsigned long long)w->label[i].n_written, names[i], (unsigned long long)n);
    return MOESIM_OK;
}

enum moesim_status trace_writer_finish(struct trace_writer *w, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t l = 0; !status && l < w->n_layers && w->kind != TRACE_LOADS; l++)
        status = write_layer(w, &w->layer[l], err);
    for (uint32_t i = 0; !status && i < TRACE_N_LABELS; i++)
        status = write_labels(w, i, err);
    if (!status)
        status = check_lengths(w, err);
    return status ? status : writer_directory(w, err);
}
