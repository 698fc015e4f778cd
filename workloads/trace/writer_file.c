/*
 * The file under a trace writer: blocks, the directory, beginning anew and going on.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "workloads/trace/file_scan.h"
#include "workloads/trace/writer_state.h"

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is written");
}

bool writer_grow(void *place, size_t size, uint64_t n)
{
    void *array;
    memcpy(&array, place, sizeof array);
    array = n <= SIZE_MAX / size ? realloc(array, (size_t)n * size) : NULL;
    if (array)
        memcpy(place, &array, sizeof array);
    return array != NULL;
}

struct writer_layer *writer_find_layer(struct trace_writer *w, uint32_t id)
{
    uint32_t low = 0, high = w->n_layers;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (w->layer[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < w->n_layers && w->layer[low].id == id)
        return &w->layer[low];
    if (w->n_layers == w->room_layers) {
        if (!writer_grow(&w->layer, sizeof *w->layer, w->room_layers + 64ull))
            return NULL;
        w->room_layers += 64;
    }
    memmove(w->layer + low + 1, w->layer + low, (w->n_layers - low) * sizeof *w->layer);
    w->n_layers++;
    w->layer[low] = (struct writer_layer){.id = id};
    return &w->layer[low];
}

static enum moesim_status write_at_end(struct trace_writer *w, const void *bytes, size_t n, struct moesim_error *err)
{
    const uint8_t *b = bytes;
    while (n) {
        const ssize_t done = pwrite(w->fd, b, n, (off_t)w->offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return moesim_fail(err, MOESIM_EIO, "the trace cannot be written: %s",
                               done < 0 ? strerror(errno) : "nothing was taken");
        b += done;
        n -= (size_t)done;
        w->offset += (uint64_t)done;
    }
    return MOESIM_OK;
}

static enum moesim_status note_entry(struct trace_writer *w, const struct file_block *block, struct moesim_error *err)
{
    if (w->n_entries == w->room_entries) {
        const uint64_t room = w->room_entries ? 2 * w->room_entries : 64;
        if (!writer_grow(&w->entry, sizeof *w->entry, room))
            return no_memory(err);
        w->room_entries = room;
    }
    w->entry[w->n_entries++] = (struct file_entry){.offset = w->offset,
                                                   .first = block->first,
                                                   .n_tokens = block->n_tokens,
                                                   .type = block->type,
                                                   .layer = block->layer};
    return MOESIM_OK;
}

enum moesim_status writer_block(struct trace_writer *w, struct file_block *block, struct moesim_error *err)
{
    if (w->payload.lost)
        return no_memory(err);
    memcpy(block->tag, FILE_BLOCK_TAG, sizeof block->tag);
    block->size = w->payload.size;
    block->hash = file_hash(w->payload.bytes, w->payload.size);
    block->head_hash = file_hash(block, offsetof(struct file_block, head_hash));
    enum moesim_status status = block->type == FILE_DIRECTORY ? MOESIM_OK : note_entry(w, block, err);
    if (!status)
        status = write_at_end(w, block, sizeof *block, err);
    return status ? status : write_at_end(w, w->payload.bytes, w->payload.size, err);
}

enum moesim_status writer_directory(struct trace_writer *w, struct moesim_error *err)
{
    struct block_payload *p = &w->payload;
    const struct file_directory directory = {.n_layers = w->n_layers,
                                             .n_experts = w->n_experts,
                                             .top_k = w->top_k,
                                             .n_steps = w->n_steps,
                                             .n_tokens = w->kind == TRACE_LOADS ? 0 : w->layer[0].n_written,
                                             .n_blocks = w->n_entries,
                                             .has_weights = w->has_weights,
                                             .has_fates = w->has_fates,
                                             .has_slots = w->has_slots};
    struct file_end end = {.directory = w->offset};
    memcpy(end.magic, FILE_END_MAGIC, sizeof end.magic);
    p->size = 0;
    block_append(p, &directory, sizeof directory);
    uint8_t *ids = block_append(p, NULL, w->n_layers * sizeof(uint32_t));
    for (uint32_t l = 0; ids && l < w->n_layers; l++)
        memcpy(ids + l * sizeof(uint32_t), &w->layer[l].id, sizeof(uint32_t));
    block_append(p, w->entry, w->n_entries * sizeof *w->entry);
    block_append(p, &end, sizeof end);
    struct file_block block = {.type = FILE_DIRECTORY, .layer = FILE_NO_LAYER, .n_values = w->n_entries};
    return writer_block(w, &block, err);
}

/* ---- beginning and end ---- */

enum moesim_status trace_writer_create(int fd, enum trace_kind kind, uint32_t n_experts, struct trace_writer **writer,
                                       struct moesim_error *err)
{
    struct trace_writer *w = *writer = calloc(1, sizeof *w);
    if (!w)
        return no_memory(err);
    *w = (struct trace_writer){.fd = fd, .kind = kind, .n_experts = n_experts, .experts_known = n_experts > 0};
    struct file_head head = {.version = FILE_VERSION, .kind = kind, .n_experts = n_experts};
    memcpy(head.magic, FILE_MAGIC, sizeof head.magic);
    head.hash = file_hash(&head, offsetof(struct file_head, hash));
    const enum moesim_status status = write_at_end(w, &head, sizeof head, err);
    if (status) {
        trace_writer_destroy(w);
        *writer = NULL;
    }
    return status;
}

/* What the directory knows, back into a writer. */
static enum moesim_status resume(struct trace_writer *w, const struct file_scan *scan, struct moesim_error *err)
{
    w->kind = (enum trace_kind)scan->kind;
    w->n_experts = scan->directory.n_experts;
    w->experts_known = w->kind != TRACE_DECISIONS || scan->head_experts > 0;
    w->top_k = scan->directory.top_k;
    w->n_steps = scan->directory.n_steps;
    w->weights_known = scan->directory.n_tokens > 0;
    w->has_weights = scan->directory.has_weights;
    w->has_fates = scan->directory.has_fates;
    w->has_slots = scan->directory.has_slots;
    w->offset = scan->size;
    if (!writer_grow(&w->entry, sizeof *w->entry, scan->n_entries + 64))
        return no_memory(err);
    w->room_entries = scan->n_entries + 64;
    w->n_entries = scan->n_entries;
    memcpy(w->entry, scan->entry, scan->n_entries * sizeof *w->entry);
    for (uint32_t l = 0; l < scan->directory.n_layers; l++) {
        struct writer_layer *layer = writer_find_layer(w, scan->layer_id[l]);
        if (!layer)
            return no_memory(err);
        layer->n_written = w->kind == TRACE_LOADS ? scan->directory.n_steps : scan->directory.n_tokens;
    }
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        w->label[i].n_written = scan->has_label[i] ? scan->directory.n_tokens : 0;
    return MOESIM_OK;
}

enum moesim_status trace_writer_append(int fd, const char *path, struct trace_writer **writer, struct moesim_error *err)
{
    struct mapping mapping;
    struct file_scan scan = {0};
    *writer = NULL;
    enum moesim_status status = mapping_of(fd, path, "a trace file", &mapping, err);
    if (status)
        return status;
    status = file_scan_open(path, &mapping, false, &scan, err);
    struct trace_writer *w = status ? NULL : calloc(1, sizeof *w);
    if (!status)
        status = w ? MOESIM_OK : no_memory(err);
    if (w) {
        w->fd = fd;
        status = resume(w, &scan, err);
    }
    file_scan_close(&scan);
    mapping_close(&mapping);
    if (status)
        trace_writer_destroy(w);
    else
        *writer = w;
    return status;
}

enum trace_kind trace_writer_kind(const struct trace_writer *w)
{
    return w->kind;
}

uint32_t trace_writer_experts(const struct trace_writer *w)
{
    return w->n_experts;
}

uint64_t trace_writer_tokens(const struct trace_writer *w, uint32_t id)
{
    for (uint32_t l = 0; l < w->n_layers; l++)
        if (w->layer[l].id == id)
            return w->layer[l].n_written + w->layer[l].n_tokens;
    return 0;
}

void trace_writer_destroy(struct trace_writer *w)
{
    if (!w)
        return;
    for (uint32_t l = 0; l < w->n_layers; l++) {
        struct writer_layer *layer = &w->layer[l];
        free(layer->count);
        free(layer->expert);
        free(layer->weight);
        free(layer->fate);
        free(layer->slot);
    }
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        free(w->label[i].values);
    free(w->layer);
    free(w->entry);
    free(w->payload.bytes);
    free(w);
}
