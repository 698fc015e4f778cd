/*
 * trace: decisions that a model's router made, from a file of any format that the trace readers know.
 *
 * Without `tokens` each step is the whole recording; with tokens: N, step s takes the next N tokens from token s * N
 * on, wrapping at the end, or whatever else `batching` says. Only routers that ask for decisions (replay), for token
 * ids or for nothing run on it: there are no gate columns, and none are made up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/workload.h>

#include "workloads/batching.h"
#include "workloads/table.h"
#include "workloads/trace/trace.h"

struct trace_params {
    const char *file, *weights, *sequences, *domains, *only;
    uint32_t experts, first_layer;
    struct batching_params batching;
};

static const struct moesim_param params[] = {
    MOESIM_PARAM(struct trace_params, file, "", 0, 0,
                 "recorded decisions: .trace, .npy or .npz [tokens, layers, k], safetensors, JSON lines, CSV"),
    MOESIM_PARAM(struct trace_params, weights, "", 0, 0, "their weights, a .npy of the same shape"),
    MOESIM_PARAM(struct trace_params, sequences, "", 0, 0, "CSV with the columns start and len (tokens)"),
    MOESIM_PARAM(struct trace_params, domains, "", 0, 0, "the column of `sequences` that labels them"),
    MOESIM_PARAM(struct trace_params, only, "", 0, 0,
                 "the label whose sequences alone are taken; of a file that numbers its domains, the number"),
    MOESIM_PARAM(struct trace_params, experts, "0", 0, TRACE_MAX_EXPERTS,
                 "experts; 0 = the file's, else the model's, else the largest id + 1"),
    MOESIM_PARAM(struct trace_params, first_layer, "0", 0, TRACE_MAX_LAYERS - 1,
                 "layers that are left out at the beginning"),
    BATCHING_PARAMS(struct trace_params, batching),
    MOESIM_PARAM_END,
};

/* Runs of the recording's tokens that belong together: its sequences, or all of it as one. */
struct sequence_table {
    uint32_t n, room;
    uint64_t *row;   /* [n] first token in the recording */
    uint64_t *start; /* [n + 1] first token among those of the table */
};

struct recording {
    struct trace *trace;
    struct trace_shape shape;
    struct sequence_table table;
    struct batching *batching;
    uint32_t first_layer;
    uint32_t n_tokens; /* of a step */
    struct moesim_decisions decisions;
    struct trace_pairs pairs;        /* [n_tokens] what decisions point to */
    uint32_t *label[TRACE_N_LABELS]; /* [n_tokens] or NULL */
};

static enum moesim_status open_recording(const struct trace_params *p, struct recording *r, struct moesim_error *err)
{
    const struct trace_options options = {.kind = TRACE_ANY,
                                          .n_experts = p->experts,
                                          .weights = *p->weights ? p->weights : NULL,
                                          .sequences = *p->sequences ? p->sequences : NULL,
                                          .domains = *p->domains ? p->domains : NULL};
    if (!*p->file)
        return moesim_fail(err, MOESIM_EINVAL, "trace needs a file: trace:file=PATH");
    if (*p->domains && !*p->sequences)
        return moesim_fail(err, MOESIM_EINVAL, "domains names a column of sequences=FILE.csv, which is missing");
    const enum moesim_status status = trace_open(p->file, &options, &r->trace, err);
    if (status)
        return status;
    r->shape = *trace_shape(r->trace);
    r->first_layer = p->first_layer;
    if (r->shape.kind == TRACE_DECISIONS && !r->shape.all_zero && p->first_layer < r->shape.n_layers)
        return MOESIM_OK;
    enum moesim_status wrong = MOESIM_EINVAL;
    if (r->shape.kind != TRACE_DECISIONS)
        moesim_fail(err, MOESIM_EINVAL, "%s holds %s, not decisions: use %s:file=%s", p->file,
                    trace_kind_name(r->shape.kind), trace_kind_name(r->shape.kind), p->file);
    else if (r->shape.all_zero)
        wrong = moesim_fail(err, MOESIM_EIO, "%s: all ids are 0: the recorder captured nothing", p->file);
    else
        moesim_fail(err, MOESIM_EINVAL, "first_layer = %u: %s has %u layer%s", p->first_layer, p->file,
                    r->shape.n_layers, r->shape.n_layers == 1 ? "" : "s");
    trace_close(r->trace);
    r->trace = NULL;
    return wrong;
}

/* ---- sequences ---- */

enum { PIECE = 4096 };

/* Appends a run of tokens, or a token to the last run. */
static enum moesim_status add_row(struct sequence_table *x, uint64_t row, bool follows, struct moesim_error *err)
{
    if (follows) {
        x->start[x->n]++;
        return MOESIM_OK;
    }
    if (x->n + 1 >= x->room) {
        const uint32_t room = x->room ? 2 * x->room : 1024;
        uint64_t *rows = room > x->room ? realloc(x->row, room * sizeof *rows) : NULL;
        uint64_t *starts = rows ? realloc(x->start, room * sizeof *starts) : NULL;
        x->row = rows ? rows : x->row;
        if (!rows || !starts)
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for a table of %u sequences", x->n);
        if (!x->room)
            starts[0] = 0;
        x->start = starts;
        x->room = room;
    }
    x->row[x->n] = row;
    x->start[x->n + 1] = x->start[x->n] + 1;
    x->n++;
    return MOESIM_OK;
}

/* The sequences of the recording, of one domain where `only` says so. */
static enum moesim_status list_sequences(struct recording *r, bool only, uint32_t domain, struct moesim_error *err)
{
    uint32_t sequence[PIECE], label[PIECE], last = 0;
    bool goes_on = false; /* the token before is in the table */
    enum moesim_status status = MOESIM_OK;
    for (uint64_t at = 0; !status && at < r->shape.n_tokens; at += PIECE) {
        const uint32_t n = r->shape.n_tokens - at < PIECE ? (uint32_t)(r->shape.n_tokens - at) : PIECE;
        memset(sequence, 0, sizeof sequence);
        if (r->shape.has_label[TRACE_SEQUENCE])
            status = trace_read_labels(r->trace, TRACE_SEQUENCE, at, n, sequence, err);
        if (!status && only)
            status = trace_read_labels(r->trace, TRACE_DOMAIN, at, n, label, err);
        for (uint32_t i = 0; !status && i < n; i++) {
            const bool wanted = !only || label[i] == domain;
            if (wanted)
                status = add_row(&r->table, at + i, goes_on && sequence[i] == last, err);
            goes_on = wanted;
            last = sequence[i];
        }
    }
    return status;
}

/* Steps in the recording's own order need no list of sequences, which may be many. */
static enum moesim_status make_table(const struct trace_params *p, struct recording *r, struct moesim_error *err)
{
    const bool by_sequence = p->batching.batching == BATCHING_DECODE || p->batching.batching == BATCHING_SERVING;
    uint32_t domain = 0;
    if (by_sequence && !r->shape.has_label[TRACE_SEQUENCE])
        return moesim_fail(err, MOESIM_EINVAL,
                           "%s does not say where sequences begin, which batching needs here: sequences=FILE.csv",
                           trace_path(r->trace));
    enum moesim_status status = *p->only ? trace_find_domain(r->trace, p->only, &domain, err) : MOESIM_OK;
    if (status)
        return status;
    if (by_sequence || *p->only)
        status = list_sequences(r, *p->only, domain, err);
    else if (!(status = add_row(&r->table, 0, false, err)))
        r->table.start[1] = r->shape.n_tokens;
    if (!status && !r->table.n)
        status = moesim_fail(err, MOESIM_EINVAL, "%s has no token of the domain '%s'", trace_path(r->trace), p->only);
    return status;
}

static void close_recording(struct recording *r)
{
    trace_close(r->trace);
    free(r->table.row);
    free(r->table.start);
    r->trace = NULL;
    r->table = (struct sequence_table){0};
}

/* ---- what the parameters fix ---- */

/* Largest token id + 1. */
static enum moesim_status count_vocabulary(struct recording *r, uint32_t *vocabulary, struct moesim_error *err)
{
    uint32_t ids[PIECE];
    enum moesim_status status = MOESIM_OK;
    for (uint64_t at = 0; !status && at < r->shape.n_tokens; at += PIECE) {
        const uint32_t n = r->shape.n_tokens - at < PIECE ? (uint32_t)(r->shape.n_tokens - at) : PIECE;
        status = trace_read_labels(r->trace, TRACE_TOKEN_ID, at, n, ids, err);
        for (uint32_t i = 0; !status && i < n; i++)
            if (ids[i] >= *vocabulary)
                *vocabulary = ids[i] < UINT32_MAX ? ids[i] + 1 : UINT32_MAX;
    }
    return status;
}

static enum moesim_status trace_workload_shape(const void *p, struct moesim_workload_shape *shape,
                                               struct moesim_error *err)
{
    struct recording r = {.trace = NULL};
    enum moesim_status status = batching_check(&((const struct trace_params *)p)->batching, err);
    if (!status)
        status = open_recording(p, &r, err);
    if (!status)
        status = make_table(p, &r, err);
    if (status) {
        close_recording(&r);
        return status;
    }
    const uint64_t n_tokens = r.table.start[r.table.n];
    shape->n_layers = r.shape.n_layers - r.first_layer;
    shape->n_experts = r.shape.n_experts;
    shape->more_experts = !r.shape.experts_known;
    shape->top_k = r.shape.top_k;
    shape->n_tokens = n_tokens < UINT32_MAX ? (uint32_t)n_tokens : UINT32_MAX;
    shape->provides = (r.shape.has_label[TRACE_SEQUENCE] ? MOESIM_NEEDS_SEQUENCES : 0) |
                      (r.shape.has_label[TRACE_TOKEN_ID] ? MOESIM_NEEDS_TOKEN_IDS : 0);
    if (r.shape.has_label[TRACE_TOKEN_ID])
        status = count_vocabulary(&r, &shape->vocabulary, err);
    close_recording(&r);
    return status;
}

static enum moesim_status check_fit(const struct recording *r, const struct moesim_workload_env *env,
                                    struct moesim_error *err)
{
    const uint32_t n_layers = r->shape.n_layers - r->first_layer;
    if (env->n_layers > n_layers)
        return moesim_fail(err, MOESIM_EINVAL, "%s has %u layer%s, the study wants %u", trace_path(r->trace), n_layers,
                           n_layers == 1 ? "" : "s", env->n_layers);
    if (env->n_experts < r->shape.n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "%s names %u experts, the study has %u", trace_path(r->trace),
                           r->shape.n_experts, env->n_experts);
    if ((uint64_t)env->n_tokens * r->shape.top_k > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL, "%s: %u tokens a step with %u experts each are too many: set tokens",
                           trace_path(r->trace), env->n_tokens, r->shape.top_k);
    return MOESIM_OK;
}

static enum moesim_status allocate(struct recording *r, struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t n = r->n_tokens, pairs = n * r->shape.top_k;
    struct trace_pairs *p = &r->pairs;
    p->first = moesim_alloc(arena, n + 1, sizeof *p->first);
    p->expert = moesim_alloc(arena, pairs, sizeof *p->expert);
    p->weight = r->shape.has_weights ? moesim_alloc(arena, pairs, sizeof *p->weight) : NULL;
    p->fate = r->shape.has_fates ? moesim_alloc(arena, pairs, sizeof *p->fate) : NULL;
    p->slot = r->shape.has_slots ? moesim_alloc(arena, pairs, sizeof *p->slot) : NULL;
    bool enough = p->first && p->expert && !p->weight == !r->shape.has_weights && !p->fate == !r->shape.has_fates &&
                  !p->slot == !r->shape.has_slots;
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++) {
        r->label[i] = r->shape.has_label[i] ? moesim_alloc(arena, n, sizeof *r->label[i]) : NULL;
        enough &= !r->label[i] == !r->shape.has_label[i];
    }
    r->decisions = (struct moesim_decisions){p->first, p->expert, p->weight, p->fate, p->slot};
    return enough ? MOESIM_OK
                  : moesim_fail(err, MOESIM_ENOMEM, "no memory for %u tokens with %u experts each", r->n_tokens,
                                r->shape.top_k);
}

static enum moesim_status trace_init(void *state, const void *p, const struct moesim_workload_env *env,
                                     struct moesim_error *err)
{
    struct recording *r = state;
    enum moesim_status status = open_recording(p, r, err);
    if (status)
        return status;
    r->n_tokens = env->n_tokens;
    status = check_fit(r, env, err);
    if (!status)
        status = make_table(p, r, err);
    if (!status) {
        const struct batching_source source = {.n_sequences = r->table.n, .start = r->table.start};
        status = batching_create(&((const struct trace_params *)p)->batching, &source, env->seed, env->n_tokens,
                                 env->arena, &r->batching, err);
    }
    if (!status)
        status = allocate(r, env->arena, err);
    if (status)
        close_recording(r);
    return status;
}

/* ---- a step ---- */

static void skip_padding(struct recording *r, uint32_t t)
{
    if (t == 0)
        r->pairs.first[0] = 0;
    r->pairs.first[t + 1] = r->pairs.first[t];
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        if (r->label[i])
            r->label[i][t] = 0;
}

/* Tokens [first, first + n) of the recording become tokens `to` and on of the batch. */
static enum moesim_status read_run(struct recording *r, uint32_t layer, uint64_t first, uint32_t n, uint32_t to,
                                   struct moesim_error *err)
{
    const uint32_t before = to ? r->pairs.first[to] : 0; /* pairs of the tokens before */
    struct trace_pairs part = {.first = r->pairs.first + to,
                               .expert = r->pairs.expert + before,
                               .weight = r->pairs.weight ? r->pairs.weight + before : NULL,
                               .fate = r->pairs.fate ? r->pairs.fate + before : NULL,
                               .slot = r->pairs.slot ? r->pairs.slot + before : NULL};
    enum moesim_status status = trace_read_pairs(r->trace, r->first_layer + layer, first, n, &part, err);
    for (uint32_t t = 0; !status && t <= n; t++)
        r->pairs.first[to + t] += before;
    for (uint32_t i = 0; !status && i < TRACE_N_LABELS; i++)
        if (r->label[i])
            status = trace_read_labels(r->trace, i, first, n, r->label[i] + to, err);
    return status;
}

static uint64_t row_of(const struct recording *r, const struct batching_step *places, uint32_t t)
{
    return r->table.row[places->sequence[t]] + places->position[t];
}

static enum moesim_status trace_step(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                                     struct moesim_error *err)
{
    struct recording *r = state;
    const struct batching_step places = batching_step(r->batching, step);
    enum moesim_status status = MOESIM_OK;
    for (uint32_t t = 0, n; !status && t < r->n_tokens; t += n) {
        n = 1;
        if (places.padding && places.padding[t]) {
            skip_padding(r, t);
            continue;
        }
        const uint64_t row = row_of(r, &places, t);
        while (t + n < r->n_tokens && !(places.padding && places.padding[t + n]) &&
               row_of(r, &places, t + n) == row + n)
            n++;
        status = read_run(r, layer, row, n, t, err);
    }
    batch->padding = places.padding;
    batch->n_tokens = r->n_tokens;
    batch->decisions = &r->decisions;
    batch->sequence_id = r->label[TRACE_SEQUENCE];
    batch->token_id = r->label[TRACE_TOKEN_ID];
    batch->domain = r->label[TRACE_DOMAIN];
    return status;
}

static void trace_provenance(const void *state, char *text, size_t size)
{
    const struct recording *r = state;
    snprintf(text, size, "%s (%s): %u layer%s of %llu tokens, %u experts, up to %u a token%s", trace_path(r->trace),
             trace_format(r->trace), r->shape.n_layers, r->shape.n_layers == 1 ? "" : "s",
             (unsigned long long)r->shape.n_tokens, r->shape.n_experts, r->shape.top_k,
             r->shape.has_weights ? ", with weights" : "");
}

static void trace_finish(void *state)
{
    close_recording(state);
}

const struct moesim_workload moesim_workload_trace = {
    MOESIM_WORKLOAD_HEAD,
    .provides = MOESIM_NEEDS_DECISIONS,
    .name = "trace",
    .summary = "recorded decisions of a model, for replay",
    .reference = "docs/formats.md",
    .params = params,
    .params_size = sizeof(struct trace_params),
    .state_size = sizeof(struct recording),
    .shape = trace_workload_shape,
    .init = trace_init,
    .step = trace_step,
    .provenance = trace_provenance,
    .finish = trace_finish,
};
