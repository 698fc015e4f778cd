/*
 * Gathering rows of text. Decisions go straight on to the trace writer; sequence and token labels are taken from the
 * layer that came first; counts are summed in a table that stays small.
 */
#include "workloads/trace/rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/hash.h>
#include <moesim/plan.h>

#include "workloads/trace/names.h"
#include "workloads/trace/writer.h"

enum { MOST_CELLS = 1 << 22 }; /* of the table of counts: 32 MiB */

struct row_layer {
    uint32_t id;
    uint64_t order;    /* hash of its tokens' names */
    uint64_t n_tokens; /* of files with a row a pair */
    double *count;     /* [n_counts] */
    uint32_t n_counts;
};

/* The pairs of a token that come one by one. */
struct pending {
    bool any, has_weight;
    uint32_t layer, n, room;
    uint64_t token;
    uint32_t *expert;
    float *weight;
    uint8_t *fate;
    int32_t *slot;
};

struct trace_rows {
    char *path;
    struct trace_options options;
    int fd;
    struct trace_writer *writer;
    enum trace_kind kind;
    uint32_t n_experts; /* 0 = not known */
    uint32_t largest;   /* id */
    struct row_layer *layer;
    uint32_t n_layers;
    uint32_t label_layer; /* the layer whose rows label the tokens */
    bool labels_sequence, labels_token, by_pair;
    uint64_t most_tokens; /* by_pair: of any layer */
    uint64_t n_cells;
    struct names names;
    struct pending pending;
};

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is read");
}

enum moesim_status trace_rows_create(const char *path, const struct trace_options *options, struct trace_rows **rows,
                                     struct moesim_error *err)
{
    struct trace_rows *r = *rows = calloc(1, sizeof *r);
    if (!r)
        return no_memory(err);
    r->fd = -1;
    r->options = *options;
    r->n_experts = options->n_experts;
    r->path = strdup(path);
    enum moesim_status status = r->path ? spool_create(&r->fd, err) : no_memory(err);
    if (status) {
        trace_rows_destroy(r);
        *rows = NULL;
    }
    return status;
}

void trace_rows_destroy(struct trace_rows *r)
{
    if (!r)
        return;
    for (uint32_t l = 0; l < r->n_layers; l++)
        free(r->layer[l].count);
    if (r->fd >= 0)
        close(r->fd);
    trace_writer_destroy(r->writer);
    free(r->layer);
    names_free(&r->names);
    free(r->pending.expert);
    free(r->pending.weight);
    free(r->pending.fate);
    free(r->pending.slot);
    free(r->path);
    free(r);
}

void trace_rows_experts(struct trace_rows *r, uint32_t n_experts)
{
    if (!r->n_experts && !r->writer)
        r->n_experts = n_experts;
}

/* The writer of that kind, made when the first row tells which it is. */
static enum moesim_status need_writer(struct trace_rows *r, enum trace_kind kind, struct moesim_error *err)
{
    if (!r->kind)
        r->kind = kind;
    if (r->kind != kind)
        return moesim_fail(err, MOESIM_EIO,
                           "rows of decisions and rows of loads are mixed; a trace has one or the other");
    return r->writer ? MOESIM_OK
                     : trace_writer_create(r->fd, kind, kind == TRACE_DECISIONS ? r->n_experts : 0, &r->writer, err);
}

static enum moesim_status find_layer(struct trace_rows *r, uint32_t id, struct row_layer **layer,
                                     struct moesim_error *err)
{
    for (uint32_t l = r->n_layers; l-- > 0;)
        if (r->layer[l].id == id) {
            *layer = &r->layer[l];
            return MOESIM_OK;
        }
    if (r->n_layers == TRACE_MAX_LAYERS)
        return moesim_fail(err, MOESIM_EIO, "more than %u layers", TRACE_MAX_LAYERS);
    struct row_layer *more = realloc(r->layer, (r->n_layers + 1) * sizeof *more);
    if (!more)
        return no_memory(err);
    r->layer = more;
    *layer = &more[r->n_layers++];
    **layer = (struct row_layer){.id = id, .order = MOESIM_HASH_START};
    return MOESIM_OK;
}

/* ---- sequences ---- */

static enum moesim_status write_labels(struct trace_rows *r, const struct trace_row *row, struct moesim_error *err)
{
    if (r->n_layers == 1 && trace_writer_tokens(r->writer, row->layer) == 1) { /* the very first row */
        r->label_layer = row->layer;
        r->labels_sequence = row->has_sequence;
        r->labels_token = row->has_token_id;
    }
    if (row->layer != r->label_layer)
        return MOESIM_OK;
    uint32_t number = 0;
    enum moesim_status status = MOESIM_OK;
    if (r->labels_sequence)
        status = names_number(&r->names, row->has_sequence ? row->sequence : 0, &number, err);
    if (!status && r->labels_sequence)
        status = trace_write_labels(r->writer, TRACE_SEQUENCE, 1, &number, err);
    if (!status && r->labels_token)
        status = trace_write_labels(r->writer, TRACE_TOKEN_ID, 1, &row->token_id, err);
    return status;
}

/* ---- decisions ---- */

static void note_largest(struct trace_rows *r, const uint32_t *expert, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        r->largest = expert[i] > r->largest ? expert[i] : r->largest;
}

/* A token whose experts had no room goes the way of the pairs. */
static enum moesim_status write_refused(struct trace_rows *r, const struct trace_row *row, struct moesim_error *err)
{
    uint32_t first[2] = {0, 1};
    float weight = 0;
    uint8_t fate = MOESIM_OVER_CAPACITY;
    int32_t slot = -1;
    uint32_t expert = row->n ? row->expert[0] : 0;
    const struct trace_pairs pairs = {first, &expert, row->weight ? &weight : NULL, &fate, &slot};
    first[1] = row->n ? 1 : 0;
    if (row->n > 1)
        return moesim_fail(err, MOESIM_EIO, "a token without room names %u experts; one is known to be meant", row->n);
    return trace_write_pairs(r->writer, row->layer, 1, &pairs, err);
}

enum moesim_status trace_rows_token(struct trace_rows *r, const struct trace_row *row, struct moesim_error *err)
{
    struct row_layer *layer;
    uint32_t first[2] = {0, row->n};
    const struct trace_pairs pairs = {
        .first = first, .expert = (uint32_t *)(uintptr_t)row->expert, .weight = (float *)(uintptr_t)row->weight};
    enum moesim_status status = need_writer(r, TRACE_DECISIONS, err);
    if (!status)
        status = find_layer(r, row->layer, &layer, err);
    if (!status)
        status = row->refused ? write_refused(r, row, err) : trace_write_pairs(r->writer, row->layer, 1, &pairs, err);
    if (status)
        return status;
    const uint64_t name[] = {row->token, row->sequence};
    layer->order = moesim_hash(layer->order, name, sizeof name);
    note_largest(r, row->expert, row->n);
    return write_labels(r, row, err);
}

/* Tokens without a row got no expert: the layer goes on to token `until`. */
static enum moesim_status pass_over(struct trace_rows *r, struct row_layer *layer, uint64_t until, bool weighted,
                                    struct moesim_error *err)
{
    uint32_t first[2] = {0, 0};
    float none = 0;
    const struct trace_pairs nothing = {.first = first, .weight = weighted ? &none : NULL};
    enum moesim_status status = MOESIM_OK;
    if (until - layer->n_tokens > (1u << 24))
        return moesim_fail(err, MOESIM_EIO, "token %llu of layer %u follows token %llu: too many are left out",
                           (unsigned long long)until, layer->id, (unsigned long long)layer->n_tokens);
    for (; !status && layer->n_tokens < until; layer->n_tokens++)
        status = trace_write_pairs(r->writer, layer->id, 1, &nothing, err);
    return status;
}

static enum moesim_status flush_pending(struct trace_rows *r, struct moesim_error *err)
{
    struct pending *p = &r->pending;
    struct row_layer *layer;
    uint32_t first[2] = {0, p->n};
    const struct trace_pairs pairs = {first, p->expert, p->has_weight ? p->weight : NULL, p->fate, p->slot};
    if (!p->any)
        return MOESIM_OK;
    p->any = false;
    enum moesim_status status = find_layer(r, p->layer, &layer, err);
    if (!status && p->token < layer->n_tokens)
        return moesim_fail(err, MOESIM_EIO, "token %llu of layer %u comes after token %llu: rows should be in order",
                           (unsigned long long)p->token, p->layer, (unsigned long long)layer->n_tokens - 1);
    if (!status)
        status = pass_over(r, layer, p->token, p->has_weight, err);
    if (!status)
        status = trace_write_pairs(r->writer, p->layer, 1, &pairs, err);
    if (status)
        return status;
    note_largest(r, p->expert, p->n);
    layer->n_tokens++;
    r->most_tokens = layer->n_tokens > r->most_tokens ? layer->n_tokens : r->most_tokens;
    return MOESIM_OK;
}

static bool widen_pending(struct pending *p)
{
    const uint32_t room = p->room ? 2 * p->room : 64;
    uint32_t *expert = realloc(p->expert, room * sizeof *expert);
    p->expert = expert ? expert : p->expert;
    float *weight = realloc(p->weight, room * sizeof *weight);
    p->weight = weight ? weight : p->weight;
    uint8_t *fate = realloc(p->fate, room * sizeof *fate);
    p->fate = fate ? fate : p->fate;
    int32_t *slot = realloc(p->slot, room * sizeof *slot);
    p->slot = slot ? slot : p->slot;
    if (!expert || !weight || !fate || !slot)
        return false;
    p->room = room;
    return true;
}

enum moesim_status trace_rows_pair(struct trace_rows *r, const struct trace_row_pair *pair, struct moesim_error *err)
{
    struct pending *p = &r->pending;
    enum moesim_status status = need_writer(r, TRACE_DECISIONS, err);
    if (!status && p->any && (p->layer != pair->layer || p->token != pair->token))
        status = flush_pending(r, err);
    if (status)
        return status;
    if (!p->any)
        *p = (struct pending){.any = true,
                              .has_weight = pair->has_weight,
                              .layer = pair->layer,
                              .token = pair->token,
                              .room = p->room,
                              .expert = p->expert,
                              .weight = p->weight,
                              .fate = p->fate,
                              .slot = p->slot};
    if (p->n == TRACE_MAX_EXPERTS || p->has_weight != pair->has_weight)
        return moesim_fail(err, MOESIM_EIO, "token %llu of layer %u has too many rows, or some without a weight",
                           (unsigned long long)pair->token, pair->layer);
    if (p->n == p->room && !widen_pending(p))
        return no_memory(err);
    r->by_pair = true;
    p->expert[p->n] = pair->expert;
    p->weight[p->n] = pair->weight;
    p->fate[p->n] = pair->refused ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
    p->slot[p->n++] = pair->refused ? -1 : pair->has_slot ? pair->slot : MOESIM_SLOT_BY_ORDER;
    return MOESIM_OK;
}

/* ---- loads ---- */

enum moesim_status trace_rows_load(struct trace_rows *r, uint32_t layer, uint32_t step, const double *load,
                                   uint32_t n_experts, struct moesim_error *err)
{
    enum moesim_status status = need_writer(r, TRACE_LOADS, err);
    if (!status && r->n_experts && r->n_experts != n_experts)
        return moesim_fail(err, MOESIM_EIO, "layer %u has loads of %u experts, not of %u", layer, n_experts,
                           r->n_experts);
    return status ? status : trace_write_load(r->writer, layer, step, load, n_experts, err);
}

enum moesim_status trace_rows_count(struct trace_rows *r, uint32_t id, uint32_t expert, double count,
                                    struct moesim_error *err)
{
    struct row_layer *layer;
    enum moesim_status status = need_writer(r, TRACE_LOADS, err);
    if (!status)
        status = find_layer(r, id, &layer, err);
    if (!status && (expert >= TRACE_MAX_EXPERTS || (r->n_experts && expert >= r->n_experts)))
        status = moesim_fail(err, MOESIM_EIO, "expert %u is not one of the %u", expert,
                             r->n_experts ? r->n_experts : TRACE_MAX_EXPERTS);
    if (!status && (!(count >= 0) || !isfinite(count)))
        status = moesim_fail(err, MOESIM_EIO, "a load is not a number from 0 up");
    if (status)
        return status;
    if (expert >= layer->n_counts) {
        const uint32_t n = expert + 1 + expert / 2;
        r->n_cells += n - layer->n_counts;
        if (r->n_cells > MOST_CELLS)
            return moesim_fail(err, MOESIM_EIO, "more than %d loads of experts in layers", MOST_CELLS);
        double *more = realloc(layer->count, n * sizeof *more);
        if (!more)
            return no_memory(err);
        memset(more + layer->n_counts, 0, (n - layer->n_counts) * sizeof *more);
        layer->count = more;
        layer->n_counts = n;
    }
    layer->count[expert] += count;
    r->largest = expert > r->largest ? expert : r->largest;
    return MOESIM_OK;
}

static enum moesim_status write_counts(struct trace_rows *r, struct moesim_error *err)
{
    const uint32_t n = r->n_experts ? r->n_experts : r->largest + 1;
    double *load = malloc(n * sizeof *load);
    enum moesim_status status = load ? MOESIM_OK : no_memory(err);
    for (uint32_t l = 0; !status && l < r->n_layers; l++) {
        const struct row_layer *layer = &r->layer[l];
        for (uint32_t e = 0; e < n; e++)
            load[e] = e < layer->n_counts ? layer->count[e] : 0;
        status = trace_write_load(r->writer, layer->id, 0, load, n, err);
    }
    free(load);
    return status;
}

/* ---- the end ---- */

static enum moesim_status check_order(const struct trace_rows *r, struct moesim_error *err)
{
    for (uint32_t l = 1; l < r->n_layers; l++)
        if (r->layer[l].order != r->layer[0].order &&
            trace_writer_tokens(r->writer, r->layer[l].id) == trace_writer_tokens(r->writer, r->layer[0].id))
            return moesim_fail(err, MOESIM_EIO,
                               "layers %u and %u name their tokens in different orders; sort the rows by layer, "
                               "sequence and token",
                               r->layer[0].id, r->layer[l].id);
    return MOESIM_OK;
}

static enum moesim_status complete(struct trace_rows *r, struct moesim_error *err)
{
    enum moesim_status status = flush_pending(r, err);
    for (uint32_t l = 0; !status && r->by_pair && l < r->n_layers; l++)
        status = pass_over(r, &r->layer[l], r->most_tokens, r->pending.has_weight, err);
    if (!status && r->kind == TRACE_DECISIONS && !r->by_pair)
        status = check_order(r, err);
    if (!status && r->n_cells)
        status = write_counts(r, err);
    return status ? status : trace_writer_finish(r->writer, err);
}

enum moesim_status trace_rows_finish(struct trace_rows *r, struct trace_source *source, struct moesim_error *err)
{
    enum moesim_status status =
        r->writer ? complete(r, err)
                  : moesim_fail(err, MOESIM_EIO, "no row tells which experts a token went to, or an expert's load");
    if (status) {
        moesim_error_prefix(err, "%.300s", r->path);
        return status;
    }
    const int fd = r->fd;
    r->fd = -1;
    status = trace_open_descriptor(fd, r->path, &r->options, source, err);
    if (!status)
        source->shape.all_zero = r->kind == TRACE_DECISIONS && r->largest == 0 && r->options.n_experts != 1;
    return status;
}
