/*
 * Reading moesim's own trace file in place. A block is checked as a whole the first time it is used; after that
 * any run of its tokens is decoded from the mapping.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <moesim/plan.h>

#include "workloads/trace/file_check.h"
#include "workloads/trace/source.h"

#define FORGET_BYTES ((uint64_t)64 << 20) /* what may have been read before pages are given back */

/* Gives pages back now and then: they would count as ours. */
static void account(struct file_state *f, uint64_t bytes)
{
    f->touched += bytes;
    if (f->touched < FORGET_BYTES)
        return;
    mapping_forget(&f->file);
    f->touched = 0;
}

/* ---- decoding ---- */

/* The entry among [start, end) that holds token `first`. */
static uint64_t find_entry(const struct file_state *f, uint64_t start, uint64_t end, uint64_t first)
{
    while (end - start > 1) {
        const uint64_t middle = start + (end - start) / 2;
        if (f->scan.entry[middle].first <= first)
            start = middle;
        else
            end = middle;
    }
    return start;
}

static void copy_numbers(const uint8_t *from, uint32_t width, uint64_t n, uint32_t *to)
{
    if (width == 1)
        for (uint64_t i = 0; i < n; i++)
            to[i] = from[i];
    else if (width == 2)
        for (uint64_t i = 0; i < n; i++) {
            uint16_t x;
            memcpy(&x, from + 2 * i, 2);
            to[i] = x;
        }
    else
        memcpy(to, from, n * sizeof *to);
}

static void copy_floats(const uint8_t *from, uint32_t width, uint64_t n, float *to)
{
    const struct npy values = {.type = width == 2 ? NPY_F2 : NPY_F4, .data = from};
    npy_read_float(&values, 0, n, to);
}

static void copy_slots(const struct block_view *v, uint64_t from, uint64_t n, int32_t *to)
{
    const uint32_t none = v->slot_width == 1 ? UINT8_MAX : v->slot_width == 2 ? UINT16_MAX : UINT32_MAX;
    for (uint64_t i = 0; i < n; i++) {
        const uint32_t slot = v->slots ? file_number_at(v->slots, v->slot_width, from + i) : none;
        const bool refused = v->fates && v->fates[from + i] != MOESIM_KEPT;
        to[i] = refused ? -1 : slot == none ? MOESIM_SLOT_BY_ORDER : (int32_t)slot;
    }
}

/* Weights that were not recorded: equal shares. */
static void share_weights(const uint32_t *first, uint32_t n, float *weight)
{
    for (uint32_t t = 0; t < n; t++)
        for (uint32_t i = first[t]; i < first[t + 1]; i++)
            weight[i] = 1 / (float)(first[t + 1] - first[t]);
}

/* Tokens [from, from + n) of the block to token `to` of `out`, whose first[to] is set. */
static void decode_pairs(const struct block_view *v, uint32_t from, uint32_t n, uint32_t to,
                         const struct trace_pairs *out)
{
    const uint32_t k = v->head->k, start = out->first[to];
    uint64_t at = v->counts ? 0 : (uint64_t)k * from;
    for (uint32_t t = 0; v->counts && t < from; t++)
        at += v->counts[t];
    for (uint32_t t = 0; t < n; t++)
        out->first[to + t + 1] = out->first[to + t] + (v->counts ? v->counts[from + t] : k);
    const uint32_t n_pairs = out->first[to + n] - start;
    if (out->expert)
        copy_numbers(v->ids + at * v->id_width, v->id_width, n_pairs, out->expert + start);
    if (out->weight && v->weights)
        copy_floats(v->weights + at * v->weight_width, v->weight_width, n_pairs, out->weight + start);
    else if (out->weight)
        share_weights(out->first + to, n, out->weight);
    if (out->fate && v->fates)
        memcpy(out->fate + start, v->fates + at, n_pairs);
    else if (out->fate)
        memset(out->fate + start, MOESIM_KEPT, n_pairs);
    if (out->slot)
        copy_slots(v, at, n_pairs, out->slot + start);
    for (uint32_t i = 0; out->expert && v->fates && i < n_pairs; i++)
        if (v->fates[at + i] == MOESIM_BAD_ROW)
            out->expert[start + i] = MOESIM_NO_EXPERT;
}

/* Walks the blocks that hold tokens [first, first + n): sets block, the first token in it and how many; false at the
 * end. */
struct walk {
    uint64_t entry, at, end;
    const struct file_block *block;
    uint32_t from, n;
};

static struct walk walk_begin(const struct file_state *f, uint64_t start, uint64_t end, uint64_t first, uint32_t n)
{
    return (struct walk){.entry = find_entry(f, start, end, first), .at = first, .end = first + n};
}

static enum moesim_status walk_next(struct file_state *f, struct walk *w, struct moesim_error *err)
{
    const struct file_entry *entry = &f->scan.entry[w->entry];
    const enum moesim_status status = file_use_block(f, w->entry, &w->block, err);
    w->from = (uint32_t)(w->at - entry->first);
    const uint64_t left = entry->n_tokens - w->from, wanted = w->end - w->at;
    w->n = (uint32_t)(left < wanted ? left : wanted);
    w->at += w->n;
    w->entry++;
    return status;
}

static enum moesim_status read_pairs(void *state, uint32_t layer, uint64_t first, uint32_t n, struct trace_pairs *out,
                                     struct moesim_error *err)
{
    struct file_state *f = state;
    struct walk w = walk_begin(f, f->layer_start[layer], f->layer_start[layer + 1], first, n);
    out->first[0] = 0;
    for (uint32_t done = 0; done < n; done += w.n) {
        struct block_view v;
        const enum moesim_status status = walk_next(f, &w, err);
        if (status)
            return status;
        file_view_pairs(w.block, &v);
        decode_pairs(&v, w.from, w.n, done, out);
        account(f, w.block->size / w.block->n_tokens * w.n + sizeof *w.block);
    }
    return MOESIM_OK;
}

static enum moesim_status read_rows(void *state, uint32_t layer, uint64_t first, uint32_t n, float *rows,
                                    struct moesim_error *err)
{
    struct file_state *f = state;
    const uint64_t n_experts = f->scan.directory.n_experts;
    struct walk w = walk_begin(f, f->layer_start[layer], f->layer_start[layer + 1], first, n);
    for (uint32_t done = 0; done < n; done += w.n) {
        const enum moesim_status status = walk_next(f, &w, err);
        if (status)
            return status;
        const uint32_t width = FILE_WIDTH(w.block->encoding, 8);
        copy_floats((const uint8_t *)(w.block + 1) + w.from * n_experts * width, width, w.n * n_experts,
                    rows + done * n_experts);
        account(f, w.n * n_experts * width);
    }
    return MOESIM_OK;
}

static enum moesim_status read_load(void *state, uint32_t layer, uint32_t step, double *load, struct moesim_error *err)
{
    struct file_state *f = state;
    const struct file_block *block;
    const enum moesim_status status = file_use_block(f, f->layer_start[layer] + step, &block, err);
    if (!status)
        memcpy(load, block + 1, f->scan.directory.n_experts * sizeof *load);
    return status;
}

static void decode_labels(const struct file_block *block, uint32_t from, uint32_t n, uint32_t *values)
{
    const uint32_t *numbers = (const void *)(block + 1);
    if (!(block->encoding & FILE_RUNS)) {
        memcpy(values, numbers + from, n * sizeof *values);
        return;
    }
    uint64_t start = 0;
    for (uint64_t run = 0; run < block->n_values; start += numbers[2 * run++]) {
        const uint64_t end = start + numbers[2 * run];
        for (uint64_t t = start > from ? start : from; t < end && t < (uint64_t)from + n; t++)
            values[t - from] = numbers[2 * run + 1];
    }
}

static enum moesim_status read_labels(void *state, enum trace_label label, uint64_t first, uint32_t n, uint32_t *values,
                                      struct moesim_error *err)
{
    struct file_state *f = state;
    struct walk w = walk_begin(f, f->label_start[label], f->label_start[label + 1], first, n);
    for (uint32_t done = 0; done < n; done += w.n) {
        const enum moesim_status status = walk_next(f, &w, err);
        if (status)
            return status;
        decode_labels(w.block, w.from, w.n, values + done);
    }
    return MOESIM_OK;
}

/* ---- opening ---- */

static void close_file(void *state)
{
    struct file_state *f = state;
    mapping_close(&f->file);
    file_scan_close(&f->scan);
    free(f->layer_start);
    free(f->checked);
    free(f->path);
    free(f);
}

static const struct trace_reading reading = {read_pairs, read_rows, read_load, read_labels, close_file};

/* Which entries belong to each layer and label: they are in that order. */
static enum moesim_status make_index(struct file_state *f, struct moesim_error *err)
{
    const struct file_scan *scan = &f->scan;
    uint64_t i = 0;
    f->layer_start = calloc(scan->directory.n_layers + 1ull, sizeof *f->layer_start);
    f->checked = calloc((size_t)scan->n_entries + 1, 1);
    if (!f->layer_start || !f->checked)
        return moesim_fail(err, MOESIM_ENOMEM, "%s: no memory for an index of %llu blocks", f->path,
                           (unsigned long long)scan->n_entries);
    for (uint32_t l = 0; l < scan->directory.n_layers; l++) {
        f->layer_start[l] = i;
        while (i < scan->n_entries && scan->entry[i].type == file_type_of(scan->kind) &&
               scan->entry[i].layer == scan->layer_id[l])
            i++;
    }
    f->layer_start[scan->directory.n_layers] = i;
    for (uint32_t label = 0; label < TRACE_N_LABELS; label++) {
        f->label_start[label] = i;
        while (i < scan->n_entries && scan->entry[i].type == FILE_SEQUENCE + label)
            i++;
    }
    f->label_start[TRACE_N_LABELS] = i;
    return MOESIM_OK;
}

static void describe(const struct file_state *f, struct trace_source *source)
{
    const struct file_directory *d = &f->scan.directory;
    *source =
        (struct trace_source){.reading = &reading,
                              .state = (void *)(uintptr_t)f,
                              .layer_id = f->scan.layer_id,
                              .shape = {.kind = f->scan.kind,
                                        .n_layers = d->n_layers,
                                        .n_experts = d->n_experts,
                                        .experts_known = f->scan.head_experts > 0 || f->scan.kind != TRACE_DECISIONS,
                                        .top_k = d->top_k,
                                        .n_tokens = d->n_tokens,
                                        .n_steps = d->n_steps,
                                        .has_weights = d->has_weights,
                                        .has_fates = d->has_fates,
                                        .has_slots = d->has_slots}};
    memcpy(source->shape.has_label, f->scan.has_label, sizeof source->shape.has_label);
}

enum moesim_status trace_open_descriptor(int fd, const char *path, const struct trace_options *options,
                                         struct trace_source *source, struct moesim_error *err)
{
    struct file_state *f = calloc(1, sizeof *f);
    enum moesim_status status = f && (f->path = strdup(path))
                                    ? mapping_of(fd, path, "a trace file", &f->file, err)
                                    : moesim_fail(err, MOESIM_ENOMEM, "%s: memory is exhausted", path);
    close(fd);
    if (!status)
        status = file_scan_open(path, &f->file, options->recover, &f->scan, err);
    if (!status)
        status = make_index(f, err);
    if (status) {
        if (f)
            close_file(f);
        return status;
    }
    describe(f, source);
    if (f->scan.recovered)
        snprintf(source->note, sizeof source->note,
                 "the end of the file is missing; %llu tokens are whole in all layers",
                 (unsigned long long)f->scan.directory.n_tokens);
    return MOESIM_OK;
}

enum moesim_status trace_open_file(const char *path, const struct trace_options *options, struct trace_source *source,
                                   struct moesim_error *err)
{
    int fd;
    const enum moesim_status status = regular_file_open(path, "a trace file", &fd, err);
    return status ? status : trace_open_descriptor(fd, path, options, source, err);
}
