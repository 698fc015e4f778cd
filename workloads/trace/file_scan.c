/*
 * Head and directory of a trace file, from untrusted bytes; and the way back to a directory when it is missing.
 */
#include "workloads/trace/file_scan.h"

#include <stdlib.h>

static enum moesim_status damaged(const char *path, uint64_t at, const char *what, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EIO, "%s: byte %llu: %s", path, (unsigned long long)at, what);
}

enum file_block_type file_type_of(uint32_t kind)
{
    return kind == TRACE_LOGITS ? FILE_LOGITS : kind == TRACE_LOADS ? FILE_LOAD : FILE_DECISIONS;
}

const struct file_block *file_block_at(const struct mapping *file, uint64_t offset)
{
    if (offset % 8 || offset > file->size || file->size - offset < sizeof(struct file_block))
        return NULL;
    const struct file_block *block = (const void *)(file->bytes + offset);
    if (memcmp(block->tag, FILE_BLOCK_TAG, sizeof block->tag) ||
        block->head_hash != file_hash(block, offsetof(struct file_block, head_hash)) || block->size % 8 ||
        block->size > file->size - offset - sizeof *block)
        return NULL;
    return block;
}

const uint8_t *file_block_payload(const struct file_block *block)
{
    const uint8_t *payload = (const uint8_t *)(block + 1);
    return file_hash(payload, block->size) == block->hash ? payload : NULL;
}

static enum moesim_status read_head(const char *path, const struct mapping *file, struct file_scan *scan,
                                    struct moesim_error *err)
{
    const struct file_head *head = (const void *)file->bytes;
    if (file->size < sizeof *head || memcmp(head->magic, FILE_MAGIC, sizeof head->magic))
        return damaged(path, 0, "not a moesim trace (it must start with " FILE_MAGIC ")", err);
    if (head->version != FILE_VERSION)
        return moesim_fail(err, MOESIM_EIO, "%s: byte 8: version %u of the trace format is not known; 1 is", path,
                           head->version);
    if (head->hash != file_hash(head, offsetof(struct file_head, hash)))
        return damaged(path, 56, "the head is damaged (its hash does not match)", err);
    if (head->kind < TRACE_LOGITS || head->kind > TRACE_LOADS || head->n_experts > TRACE_MAX_EXPERTS)
        return damaged(path, 12, "the head names no kind of trace, or too many experts", err);
    scan->kind = head->kind;
    scan->head_experts = head->n_experts;
    scan->size = file->size;
    return MOESIM_OK;
}

static bool allocate(struct file_scan *scan, uint64_t n_layers, uint64_t n_entries)
{
    scan->layer_id = malloc((size_t)(n_layers + 1) * sizeof *scan->layer_id);
    scan->entry = malloc((size_t)(n_entries + 1) * sizeof *scan->entry);
    return scan->layer_id && scan->entry;
}

/* The directory's block, or NULL. */
static const struct file_block *find_directory(const struct mapping *file)
{
    struct file_end end;
    if (file->size % 8 || file->size < sizeof(struct file_head) + sizeof(struct file_block) + sizeof end)
        return NULL;
    memcpy(&end, file->bytes + file->size - sizeof end, sizeof end);
    if (memcmp(end.magic, FILE_END_MAGIC, sizeof end.magic))
        return NULL;
    const struct file_block *block = file_block_at(file, end.directory);
    const bool last =
        block && block->type == FILE_DIRECTORY && end.directory + sizeof *block + block->size == file->size;
    return last ? block : NULL;
}

static enum moesim_status read_directory(const char *path, const struct mapping *file, const struct file_block *block,
                                         struct file_scan *scan, struct moesim_error *err)
{
    const uint64_t at = (uint64_t)((const uint8_t *)block - file->bytes);
    const uint8_t *payload = file_block_payload(block);
    struct file_directory *d = &scan->directory;
    if (!payload || block->size < sizeof *d)
        return damaged(path, at, "the directory is damaged (its hash does not match)", err);
    memcpy(d, payload, sizeof *d);
    const uint64_t ids = file_padded((uint64_t)d->n_layers * sizeof *scan->layer_id);
    if (d->n_layers == 0 || d->n_layers > TRACE_MAX_LAYERS || d->n_blocks > block->size / sizeof *scan->entry ||
        block->size != sizeof *d + ids + d->n_blocks * sizeof *scan->entry + sizeof(struct file_end))
        return damaged(path, at, "the directory's counts do not fit its size", err);
    if (d->n_experts == 0 || d->n_experts > TRACE_MAX_EXPERTS || d->top_k > TRACE_MAX_EXPERTS)
        return damaged(path, at, "the directory names no experts, or too many", err);
    if (!allocate(scan, d->n_layers, d->n_blocks))
        return moesim_fail(err, MOESIM_ENOMEM, "%s: no memory for a directory of %llu blocks", path,
                           (unsigned long long)d->n_blocks);
    scan->n_entries = d->n_blocks;
    memcpy(scan->layer_id, payload + sizeof *d, d->n_layers * sizeof *scan->layer_id);
    memcpy(scan->entry, payload + sizeof *d + ids, (size_t)d->n_blocks * sizeof *scan->entry);
    return MOESIM_OK;
}

/* ---- order and completeness ---- */

static int in_order(const void *a, const void *b)
{
    const struct file_entry *x = a, *y = b;
    if (x->type != y->type)
        return x->type < y->type ? -1 : 1;
    if (x->layer != y->layer)
        return x->layer < y->layer ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

/* Whether the entries from *i on are those of (type, layer), without a gap from 0 to `end`; moves *i past them. */
static bool covers(const struct file_scan *scan, uint64_t *i, uint32_t type, uint32_t layer, uint64_t end)
{
    uint64_t at = 0;
    for (; *i < scan->n_entries && scan->entry[*i].type == type && scan->entry[*i].layer == layer; ++*i) {
        const struct file_entry *e = &scan->entry[*i];
        const uint64_t n = type == FILE_LOAD ? 1 : e->n_tokens;
        if (e->first != at || n == 0 || n > end - at)
            return false;
        at += n;
    }
    return at == end;
}

/* Sorts the entries and checks that they hold every layer, and every label that begins, whole. */
static enum moesim_status check_entries(const char *path, struct file_scan *scan, struct moesim_error *err)
{
    const struct file_directory *d = &scan->directory;
    const enum file_block_type type = file_type_of(scan->kind);
    const uint64_t end = scan->kind == TRACE_LOADS ? d->n_steps : d->n_tokens;
    uint64_t i = 0;
    qsort(scan->entry, (size_t)scan->n_entries, sizeof *scan->entry, in_order);
    if (end == 0)
        return damaged(path, 0, "the trace holds no tokens", err);
    for (uint32_t l = 0; l < d->n_layers; l++) {
        if (l > 0 && scan->layer_id[l] <= scan->layer_id[l - 1])
            return damaged(path, 0, "the directory's layers are not in order", err);
        if (!covers(scan, &i, type, scan->layer_id[l], end))
            return moesim_fail(err, MOESIM_EIO, "%s: the blocks of layer %u do not make up %llu %s", path,
                               scan->layer_id[l], (unsigned long long)end,
                               scan->kind == TRACE_LOADS ? "steps" : "tokens");
    }
    for (uint32_t label = 0; label < TRACE_N_LABELS; label++) {
        const uint64_t before = i;
        if (i == scan->n_entries || scan->entry[i].type != FILE_SEQUENCE + label)
            continue;
        if (scan->kind == TRACE_LOADS || !covers(scan, &i, FILE_SEQUENCE + label, FILE_NO_LAYER, end))
            return damaged(path, scan->entry[before].offset, "the labels that begin here are not one a token", err);
        scan->has_label[label] = true;
    }
    if (i != scan->n_entries)
        return damaged(path, scan->entry[i].offset, "a block that belongs to no layer", err);
    return MOESIM_OK;
}

/* ---- recovery ---- */

/* The first block from `offset` on that does not begin, and how many there are. `scan` may be NULL: count only. */
static uint64_t walk(const struct mapping *file, struct file_scan *scan, uint64_t *n)
{
    uint64_t offset = sizeof(struct file_head);
    const struct file_block *block;
    *n = 0;
    for (; (block = file_block_at(file, offset)); offset += sizeof *block + block->size) {
        if (block->type == FILE_DIRECTORY || !file_block_payload(block))
            continue;
        if (scan)
            scan->entry[*n] = (struct file_entry){.offset = offset,
                                                  .first = block->first,
                                                  .n_tokens = block->n_tokens,
                                                  .type = block->type,
                                                  .layer = block->layer};
        ++*n;
    }
    return offset;
}

/* Notes what the blocks say of experts and pairs. Only the headers are looked at: a block's ids are checked when it is
 * read. */
static void summarise(const struct mapping *file, struct file_scan *scan)
{
    struct file_directory *d = &scan->directory;
    d->has_weights = true;
    for (uint64_t i = 0; i < scan->n_entries; i++) {
        const struct file_block *block = (const void *)(file->bytes + scan->entry[i].offset);
        const uint8_t *payload = (const uint8_t *)(block + 1);
        if (block->type != file_type_of(scan->kind))
            continue;
        d->has_weights &= FILE_WIDTH(block->encoding, 8) > 0;
        d->has_fates |= (block->encoding & FILE_FATES) > 0;
        d->has_slots |= FILE_WIDTH(block->encoding, 16) > 0;
        d->top_k = block->k > d->top_k && block->k <= TRACE_MAX_EXPERTS ? block->k : d->top_k;
        for (uint32_t t = 0; block->encoding & FILE_COUNTS && t < block->n_tokens && t < block->size / 4; t++) {
            uint32_t count;
            memcpy(&count, payload + 4 * (size_t)t, sizeof count);
            d->top_k = count > d->top_k && count <= TRACE_MAX_EXPERTS ? count : d->top_k;
        }
        if (scan->kind == TRACE_LOADS)
            d->n_experts = block->n_tokens;
    }
    if (scan->kind != TRACE_DECISIONS)
        d->has_weights = false;
}

/* Largest id + 1 over all decisions, where the head does not tell. */
static uint32_t count_experts(const struct mapping *file, const struct file_scan *scan)
{
    uint32_t largest = 0;
    for (uint64_t i = 0; i < scan->n_entries; i++) {
        const struct file_block *block = (const void *)(file->bytes + scan->entry[i].offset);
        const uint32_t width = FILE_WIDTH(block->encoding, 4);
        const uint64_t at = block->encoding & FILE_COUNTS ? file_padded((uint64_t)block->n_tokens * 4) : 0;
        const uint8_t *ids = (const uint8_t *)(block + 1) + at;
        if (block->type != FILE_DECISIONS || (width != 1 && width != 2 && width != 4) || at > block->size ||
            block->n_values > (block->size - at) / width)
            continue;
        for (uint64_t j = 0; j < block->n_values; j++) {
            uint32_t id = 0;
            memcpy(&id, ids + j * width, width);
            largest = id > largest && id < TRACE_MAX_EXPERTS ? id : largest;
        }
    }
    return largest + 1;
}

/* Keeps the entries up to the last token that all layers have, and no labels. */
static void trim(struct file_scan *scan)
{
    struct file_directory *d = &scan->directory;
    const enum file_block_type type = file_type_of(scan->kind);
    uint64_t shortest = UINT64_MAX, n = 0;
    qsort(scan->entry, (size_t)scan->n_entries, sizeof *scan->entry, in_order);
    for (uint64_t i = 0; i < scan->n_entries && scan->entry[i].type <= type;) {
        const uint32_t layer = scan->entry[i].layer;
        uint64_t at = 0;
        const bool mine = scan->entry[i].type == type && d->n_layers < TRACE_MAX_LAYERS;
        for (; i < scan->n_entries && scan->entry[i].layer == layer && scan->entry[i].type <= type; i++)
            if (mine && scan->entry[i].first == at)
                at += type == FILE_LOAD ? 1 : scan->entry[i].n_tokens;
        if (!mine)
            continue;
        scan->layer_id[d->n_layers++] = layer;
        shortest = at < shortest ? at : shortest;
    }
    for (uint64_t i = 0; i < scan->n_entries; i++) {
        struct file_entry e = scan->entry[i];
        if (e.type != type || e.first >= shortest)
            continue;
        if (type != FILE_LOAD && e.n_tokens > shortest - e.first)
            e.n_tokens = (uint32_t)(shortest - e.first);
        scan->entry[n++] = e;
    }
    scan->n_entries = n;
    d->n_tokens = scan->kind == TRACE_LOADS || shortest == UINT64_MAX ? 0 : shortest;
    d->n_steps = scan->kind == TRACE_LOADS && shortest <= UINT32_MAX ? (uint32_t)shortest : 0;
}

static enum moesim_status recover(const char *path, const struct mapping *file, struct file_scan *scan,
                                  struct moesim_error *err)
{
    uint64_t n;
    walk(file, NULL, &n);
    if (!allocate(scan, TRACE_MAX_LAYERS, n))
        return moesim_fail(err, MOESIM_ENOMEM, "%s: no memory for a directory of %llu blocks", path,
                           (unsigned long long)n);
    walk(file, scan, &scan->n_entries);
    summarise(file, scan);
    if (!scan->directory.n_experts)
        scan->directory.n_experts = scan->head_experts ? scan->head_experts : count_experts(file, scan);
    if (scan->directory.n_experts == 0 || scan->directory.n_experts > TRACE_MAX_EXPERTS)
        return damaged(path, 16, "no block tells how many experts there are", err);
    trim(scan);
    scan->recovered = true;
    return MOESIM_OK;
}

enum moesim_status file_scan_open(const char *path, const struct mapping *file, bool may_recover,
                                  struct file_scan *scan, struct moesim_error *err)
{
    *scan = (struct file_scan){0};
    enum moesim_status status = read_head(path, file, scan, err);
    const struct file_block *block = status ? NULL : find_directory(file);
    if (!status && block)
        status = read_directory(path, file, block, scan, err);
    else if (!status && may_recover)
        status = recover(path, file, scan, err);
    else if (!status) {
        uint64_t n;
        const uint64_t end = walk(file, NULL, &n);
        status = moesim_fail(err, MOESIM_EIO,
                             "%s: the directory at the end is missing: the file is cut off or its recording was; "
                             "'moesim trace convert' saves its %llu whole blocks, up to byte %llu",
                             path, (unsigned long long)n, (unsigned long long)end);
    }
    if (!status)
        status = check_entries(path, scan, err);
    if (status)
        file_scan_close(scan);
    return status;
}

void file_scan_close(struct file_scan *scan)
{
    free(scan->layer_id);
    free(scan->entry);
    *scan = (struct file_scan){0};
}
