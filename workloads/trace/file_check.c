/*
 * Checks of blocks, from untrusted bytes.
 */
#include "workloads/trace/file_check.h"

#include <math.h>

#include <moesim/plan.h>

static enum moesim_status damaged(const struct file_state *f, const struct file_entry *entry, const char *what,
                                  struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EIO, "%s: the block at byte %llu %s", f->path, (unsigned long long)entry->offset,
                       what);
}

/* Takes n elements of `width` bytes off the payload; NULL when they do not fit. */
static const uint8_t *take(const uint8_t **at, uint64_t *left, uint64_t n, uint32_t width)
{
    const uint8_t *section = *at;
    uint64_t bytes;
    if (__builtin_mul_overflow(n, width, &bytes) || bytes > UINT64_MAX - 7 || file_padded(bytes) > *left)
        return NULL;
    *at += file_padded(bytes);
    *left -= file_padded(bytes);
    return section;
}

static bool is_width(uint32_t width)
{
    return width == 1 || width == 2 || width == 4;
}

bool file_view_pairs(const struct file_block *head, struct block_view *v)
{
    const uint8_t *at = (const uint8_t *)(head + 1);
    uint64_t left = head->size;
    *v = (struct block_view){.head = head,
                             .id_width = FILE_WIDTH(head->encoding, 4),
                             .weight_width = FILE_WIDTH(head->encoding, 8),
                             .slot_width = FILE_WIDTH(head->encoding, 16)};
    if (head->encoding & FILE_COUNTS && !(v->counts = (const void *)take(&at, &left, head->n_tokens, 4)))
        return false;
    if (!is_width(v->id_width) || !(v->ids = take(&at, &left, head->n_values, v->id_width)))
        return false;
    if (v->weight_width && ((v->weight_width != 2 && v->weight_width != 4) ||
                            !(v->weights = take(&at, &left, head->n_values, v->weight_width))))
        return false;
    if (head->encoding & FILE_FATES && !(v->fates = take(&at, &left, head->n_values, 1)))
        return false;
    if (v->slot_width && (!is_width(v->slot_width) || !(v->slots = take(&at, &left, head->n_values, v->slot_width))))
        return false;
    return left == 0;
}

/* ---- checking ---- */

static uint32_t largest_id(const struct block_view *v)
{
    uint32_t largest = 0;
    const uint64_t n = v->head->n_values;
    if (v->id_width == 1) {
        uint8_t most = 0;
        for (uint64_t i = 0; i < n; i++)
            most = v->ids[i] > most ? v->ids[i] : most;
        return most;
    }
    for (uint64_t i = 0; i < n; i++) {
        const uint32_t id = file_number_at(v->ids, v->id_width, i);
        largest = id > largest ? id : largest;
    }
    return largest;
}

/* A number with all exponent bits set is infinite or none. */
static bool all_finite(const uint8_t *values, uint32_t width, uint64_t n)
{
    uint32_t bad = 0;
    if (width == 2)
        for (uint64_t i = 0; i < n; i++) {
            uint16_t bits;
            memcpy(&bits, values + 2 * i, 2);
            bad |= (bits & 0x7c00u) == 0x7c00u;
        }
    else
        for (uint64_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, values + 4 * i, 4);
            bad |= (bits & 0x7f800000u) == 0x7f800000u;
        }
    return !bad;
}

static bool counts_fit(const struct block_view *v, uint32_t top_k)
{
    uint64_t n = 0;
    if (!v->counts)
        return v->head->k <= top_k && (uint64_t)v->head->k * v->head->n_tokens == v->head->n_values;
    for (uint32_t t = 0; t < v->head->n_tokens; t++) {
        if (v->counts[t] > top_k)
            return false;
        n += v->counts[t];
    }
    return n == v->head->n_values;
}

static bool fates_fit(const struct block_view *v)
{
    uint8_t largest = 0;
    for (uint64_t i = 0; v->fates && i < v->head->n_values; i++)
        largest = v->fates[i] > largest ? v->fates[i] : largest;
    return largest <= MOESIM_BAD_ROW;
}

/* Slots are read as int32. */
static bool slots_fit(const struct block_view *v)
{
    for (uint64_t i = 0; v->slots && v->slot_width == 4 && i < v->head->n_values; i++) {
        const uint32_t slot = file_number_at(v->slots, 4, i);
        if (slot > INT32_MAX && slot != UINT32_MAX)
            return false;
    }
    return true;
}

static enum moesim_status check_pairs(const struct file_state *f, const struct file_entry *entry,
                                      const struct file_block *head, struct moesim_error *err)
{
    const struct file_directory *d = &f->scan.directory;
    struct block_view v;
    if (!file_view_pairs(head, &v) || !counts_fit(&v, d->top_k) || !fates_fit(&v) || !slots_fit(&v) ||
        (d->has_weights && !v.weights))
        return damaged(f, entry, "does not hold what its header says", err);
    const uint32_t largest = largest_id(&v);
    if (largest >= d->n_experts)
        return moesim_fail(err, MOESIM_EIO, "%s: the block at byte %llu names expert %u of %u", f->path,
                           (unsigned long long)entry->offset, largest, d->n_experts);
    if (v.weights && !all_finite(v.weights, v.weight_width, head->n_values))
        return damaged(f, entry, "has a weight that is not a finite number", err);
    return MOESIM_OK;
}

static enum moesim_status check_labels(const struct file_state *f, const struct file_entry *entry,
                                       const struct file_block *head, struct moesim_error *err)
{
    const uint32_t *numbers = (const void *)(head + 1);
    const bool runs = head->encoding & FILE_RUNS;
    uint64_t n = head->n_values, total = 0;
    if (n > head->size / 4 || file_padded(n * (runs ? 8 : 4)) != head->size)
        return damaged(f, entry, "does not hold what its header says", err);
    for (uint64_t i = 0; runs && i < n; i++)
        total += numbers[2 * i];
    if ((runs ? total : n) != head->n_tokens)
        return damaged(f, entry, "has more or fewer labels than tokens", err);
    return MOESIM_OK;
}

static enum moesim_status check_floats(const struct file_state *f, const struct file_entry *entry,
                                       const struct file_block *head, struct moesim_error *err)
{
    const uint32_t width = FILE_WIDTH(head->encoding, 8), n_experts = f->scan.directory.n_experts;
    const uint64_t n = f->scan.kind == TRACE_LOADS ? n_experts : (uint64_t)n_experts * head->n_tokens;
    const bool known =
        f->scan.kind == TRACE_LOADS ? width == 8 && head->n_tokens == n_experts : width == 2 || width == 4;
    if (!known || head->n_values != n || file_padded(n * width) != head->size)
        return damaged(f, entry, "does not hold what its header says", err);
    for (uint64_t i = 0; f->scan.kind == TRACE_LOADS && i < n; i++) {
        double load;
        memcpy(&load, (const uint8_t *)(head + 1) + i * sizeof load, sizeof load);
        if (!(load >= 0) || !isfinite(load))
            return damaged(f, entry, "has a load that is not a number from 0 up", err);
    }
    return MOESIM_OK;
}

enum moesim_status file_use_block(struct file_state *f, uint64_t i, const struct file_block **block,
                                  struct moesim_error *err)
{
    const struct file_entry *entry = &f->scan.entry[i];
    if (f->checked[i]) {
        *block = (const void *)(f->file.bytes + entry->offset);
        return MOESIM_OK;
    }
    const struct file_block *head = *block = file_block_at(&f->file, entry->offset);
    if (!head || head->type != entry->type || head->layer != entry->layer || head->first != entry->first ||
        head->n_tokens < entry->n_tokens)
        return damaged(f, entry, "is damaged (its header does not match)", err);
    if (!file_block_payload(head))
        return damaged(f, entry, "is damaged (its hash does not match)", err);
    enum moesim_status status = head->type == FILE_DECISIONS ? check_pairs(f, entry, head, err)
                                : head->type == FILE_LOGITS || head->type == FILE_LOAD
                                    ? check_floats(f, entry, head, err)
                                    : check_labels(f, entry, head, err);
    f->checked[i] = status == MOESIM_OK;
    return status;
}
