/*
 * llama.cpp's importance matrices in GGUF: the counts of "blk.<layer>.ffn_*_exps.weight" are how many tokens each
 * expert got (tools/imatrix of llama.cpp; GGUF versions 2 and 3). All other tensors and keys are passed over.
 */
#include <stdlib.h>
#include <string.h>

#include "workloads/json_scan.h"
#include "workloads/trace/rows.h"

enum { GGUF_F32 = 0, GGUF_TEXT = 8, GGUF_ARRAY = 9, MOST_DIMENSIONS = 8 };
#define MOST_ALIGNMENT (UINT64_C(1) << 20)

struct reader {
    const char *path;
    const struct mapping *file;
    uint64_t at;
    struct moesim_error *err;
};

/* A tensor of counts. */
struct counts {
    uint32_t layer, rank; /* lower rank goes before: gate, up, down */
    uint64_t n, offset;
};

struct header {
    uint64_t n_tensors, n_keys, alignment;
    bool is_imatrix;
    struct counts *counts; /* [n_counts] one a layer */
    uint32_t n_counts;
};

static enum moesim_status wrong(const struct reader *r, const char *what)
{
    return moesim_fail(r->err, MOESIM_EIO, "%.300s: byte %llu: %s", r->path, (unsigned long long)r->at, what);
}

static enum moesim_status take(struct reader *r, void *value, uint64_t n)
{
    if (n > r->file->size - r->at)
        return wrong(r, "the GGUF header runs past the end of the file: it is truncated or damaged");
    memcpy(value, r->file->bytes + r->at, n);
    r->at += n;
    return MOESIM_OK;
}

static enum moesim_status take_text(struct reader *r, struct scan_text *text)
{
    uint64_t n = 0;
    *text = (struct scan_text){"", 0};
    const enum moesim_status status = take(r, &n, sizeof n);
    if (status)
        return status;
    if (n > r->file->size - r->at)
        return wrong(r, "a string runs past the end of the file");
    *text = (struct scan_text){(const char *)r->file->bytes + r->at, (size_t)n};
    r->at += n;
    return MOESIM_OK;
}

/* Bytes of a value of that type; 0 for strings, arrays and types that are not known. */
static uint32_t size_of(uint32_t type)
{
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof sizes ? sizes[type] : 0;
}

static enum moesim_status skip_bytes(struct reader *r, uint64_t n, uint64_t size)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > r->file->size - r->at)
        return wrong(r, "a value runs past the end of the file");
    r->at += bytes;
    return MOESIM_OK;
}

static enum moesim_status skip_value(struct reader *r, uint32_t type)
{
    struct scan_text text;
    uint32_t of = 0;
    uint64_t n = 0;
    if (type == GGUF_TEXT)
        return take_text(r, &text);
    if (type != GGUF_ARRAY)
        return size_of(type) ? skip_bytes(r, 1, size_of(type)) : wrong(r, "a value of a type that GGUF does not have");
    enum moesim_status status = take(r, &of, sizeof of);
    if (!status)
        status = take(r, &n, sizeof n);
    if (status || of != GGUF_TEXT)
        return status        ? status
               : size_of(of) ? skip_bytes(r, n, size_of(of))
                             : wrong(r, "an array of what is no number");
    for (uint64_t i = 0; !status && i < n; i++)
        status = take_text(r, &text);
    return status;
}

static enum moesim_status read_keys(struct reader *r, struct header *h)
{
    enum moesim_status status = MOESIM_OK;
    for (uint64_t i = 0; !status && i < h->n_keys; i++) {
        struct scan_text key, value;
        uint32_t type = 0, alignment = 0;
        status = take_text(r, &key);
        if (!status)
            status = take(r, &type, sizeof type);
        if (status)
            return status;
        if (scan_is(key, "general.type") && type == GGUF_TEXT) {
            status = take_text(r, &value);
            h->is_imatrix = !status && scan_is(value, "imatrix");
        } else if (scan_is(key, "general.alignment") && size_of(type) == 4) {
            status = take(r, &alignment, sizeof alignment);
            h->alignment = alignment;
        } else {
            status = skip_value(r, type);
        }
    }
    if (!status && (h->alignment == 0 || h->alignment > MOST_ALIGNMENT || h->alignment & (h->alignment - 1)))
        return wrong(r, "general.alignment is not a power of two up to 2^20");
    if (!status && !h->is_imatrix)
        return wrong(r, "general.type is not imatrix: only importance matrices hold counts of experts");
    return status;
}

/* "blk.12.ffn_gate_exps.weight.counts": layer 12. */
static bool parse_name(struct scan_text name, uint32_t *layer, uint32_t *rank)
{
    static const char *const tails[] = {".ffn_gate_exps.weight.counts", ".ffn_gate_up_exps.weight.counts",
                                        ".ffn_up_exps.weight.counts", ".ffn_down_exps.weight.counts"};
    size_t at = 4;
    if (name.n < 5 || memcmp(name.at, "blk.", 4))
        return false;
    for (*layer = 0; at < name.n && at < 10 && name.at[at] >= '0' && name.at[at] <= '9'; at++)
        *layer = *layer * 10 + (uint32_t)(name.at[at] - '0');
    const struct scan_text tail = {name.at + at, name.n - at};
    for (*rank = 0; *rank < sizeof tails / sizeof *tails; ++*rank)
        if (at > 4 && scan_is(tail, tails[*rank]))
            return true;
    return false;
}

/* Of a layer's tensors of counts the first rank is kept; they say the same. */
static enum moesim_status keep(struct reader *r, struct header *h, struct counts counts)
{
    for (uint32_t i = 0; i < h->n_counts; i++)
        if (h->counts[i].layer == counts.layer) {
            if (counts.rank < h->counts[i].rank)
                h->counts[i] = counts;
            return MOESIM_OK;
        }
    if (h->n_counts == TRACE_MAX_LAYERS)
        return wrong(r, "counts of more than 4096 layers");
    struct counts *more = realloc(h->counts, (h->n_counts + 1) * sizeof *more);
    if (!more)
        return moesim_fail(r->err, MOESIM_ENOMEM, "%.300s: memory is exhausted", r->path);
    h->counts = more;
    more[h->n_counts++] = counts;
    return MOESIM_OK;
}

static enum moesim_status read_tensor(struct reader *r, struct header *h)
{
    struct scan_text name;
    uint32_t n_dimensions = 0, type = 0;
    uint64_t dimension = 0, n = 1, offset = 0;
    bool fits = true;
    struct counts counts;
    enum moesim_status status = take_text(r, &name);
    if (!status)
        status = take(r, &n_dimensions, sizeof n_dimensions);
    if (!status && n_dimensions > MOST_DIMENSIONS)
        return wrong(r, "a tensor of more than 8 dimensions");
    for (uint32_t d = 0; !status && d < n_dimensions; d++) {
        status = take(r, &dimension, sizeof dimension);
        fits &= !status && !__builtin_mul_overflow(n, dimension, &n);
    }
    if (!status)
        status = take(r, &type, sizeof type);
    if (!status)
        status = take(r, &offset, sizeof offset);
    if (status || !parse_name(name, &counts.layer, &counts.rank))
        return status;
    if (!fits || type != GGUF_F32 || n == 0 || n > TRACE_MAX_EXPERTS || offset % h->alignment)
        return wrong(r, "before this: counts should be 1 to 1048576 aligned float32 numbers");
    counts.n = n;
    counts.offset = offset;
    return keep(r, h, counts);
}

static enum moesim_status read_header(struct reader *r, struct header *h)
{
    uint32_t magic = 0, version = 0;
    *h = (struct header){.alignment = 32};
    enum moesim_status status = take(r, &magic, sizeof magic);
    if (!status)
        status = take(r, &version, sizeof version);
    if (!status && (version < 2 || version > 3))
        return wrong(r, "before this: GGUF versions 2 and 3 are known, little-endian");
    if (!status)
        status = take(r, &h->n_tensors, sizeof h->n_tensors);
    if (!status)
        status = take(r, &h->n_keys, sizeof h->n_keys);
    if (!status)
        status = read_keys(r, h);
    for (uint64_t i = 0; !status && i < h->n_tensors; i++)
        status = read_tensor(r, h);
    if (!status && h->n_counts == 0)
        return wrong(r, "no counts of experts (blk.N.ffn_gate_exps.weight.counts): is the model a mixture of experts?");
    return status;
}

static enum moesim_status add_counts(const struct reader *r, const struct header *h, const struct counts *counts,
                                     struct trace_rows *rows)
{
    const uint64_t data = (r->at + h->alignment - 1) / h->alignment * h->alignment;
    uint64_t end;
    if (data > r->file->size || __builtin_add_overflow(counts->offset, counts->n * sizeof(float), &end) ||
        end > r->file->size - data)
        return moesim_fail(r->err, MOESIM_EIO, "%.300s: the counts of layer %u lie beyond the end of the file", r->path,
                           counts->layer);
    const struct npy values = {.type = NPY_F4, .data = r->file->bytes + data + counts->offset};
    enum moesim_status status = MOESIM_OK;
    for (uint64_t e = 0; !status && e < counts->n; e++) {
        double count;
        npy_read_double(&values, e, 1, &count);
        status = trace_rows_count(rows, counts->layer, (uint32_t)e, count, r->err);
    }
    if (status)
        moesim_error_prefix(r->err, "%.300s: layer %u", r->path, counts->layer);
    return status;
}

enum moesim_status trace_open_gguf(const char *path, const struct trace_options *options, struct trace_source *source,
                                   struct moesim_error *err)
{
    struct mapping file;
    struct header h = {0};
    struct trace_rows *rows = NULL;
    enum moesim_status status = mapping_open(path, "a GGUF file", &file, err);
    if (status)
        return status;
    struct reader r = {path, &file, 0, err};
    status = read_header(&r, &h);
    for (uint32_t i = 1; !status && i < h.n_counts; i++)
        if (h.counts[i].n != h.counts[0].n)
            status = moesim_fail(err, MOESIM_EIO, "%.300s: layer %u counts %llu experts, layer %u counts %llu", path,
                                 h.counts[0].layer, (unsigned long long)h.counts[0].n, h.counts[i].layer,
                                 (unsigned long long)h.counts[i].n);
    if (!status)
        status = trace_rows_create(path, options, &rows, err);
    for (uint32_t i = 0; !status && i < h.n_counts; i++)
        status = add_counts(&r, &h, &h.counts[i], rows);
    if (!status)
        status = trace_rows_finish(rows, source, err);
    trace_rows_destroy(rows);
    free(h.counts);
    mapping_close(&file);
    return status;
}
