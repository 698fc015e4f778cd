/*
 * Encoding of blocks. Ids and slots take the narrowest width that holds the block's largest; weights are float16 where
 * each of them is one exactly.
 */
#include "workloads/trace/block_encode.h"

#include <stdlib.h>

#include <moesim/plan.h>

uint8_t *block_append(struct block_payload *payload, const void *bytes, size_t n)
{
    const size_t padded = (size_t)file_padded(n);
    if (!payload->bytes || payload->room - payload->size < padded) {
        const size_t need = payload->size + padded + 64;
        const size_t room = 2 * payload->room > need ? 2 * payload->room : need;
        uint8_t *more = realloc(payload->bytes, room);
        payload->lost |= !more;
        if (!more)
            return NULL;
        payload->bytes = more;
        payload->room = room;
    }
    uint8_t *at = payload->bytes + payload->size;
    if (padded)
        memset(at + (bytes ? n : 0), 0, bytes ? padded - n : padded);
    if (bytes && n)
        memcpy(at, bytes, n);
    payload->size += padded;
    return at;
}

/* The float16 of a value that is one exactly; false otherwise, and for NaN. */
static bool exact_half(float value, uint16_t *half)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, fraction = bits & 0x7fffffu;
    const int exponent = (int)(bits >> 23 & 255u) - 127;
    if ((bits & 0x7fffffffu) == 0) {
        *half = (uint16_t)sign;
        return true;
    }
    if (exponent > 15 || exponent < -24)
        return false;
    if (exponent >= -14) {
        *half = (uint16_t)(sign | (uint32_t)(exponent + 15) << 10 | fraction >> 13);
        return (fraction & 0x1fffu) == 0;
    }
    const uint32_t shift = (uint32_t)(-1 - exponent); /* subnormal: 1.fraction * 2^exponent in units of 2^-24 */
    const uint32_t whole = fraction | 0x800000u;
    *half = (uint16_t)(sign | whole >> shift);
    return (whole & ((1u << shift) - 1)) == 0;
}

/* Appends float16 values; false, with nothing appended, where one of them needs more. */
static bool append_halves(const float *values, uint64_t n, struct block_payload *payload)
{
    uint16_t half = 0;
    for (uint64_t i = 0; i < n; i++)
        if (!exact_half(values[i], &half))
            return false;
    uint8_t *out = block_append(payload, NULL, n * sizeof half);
    for (uint64_t i = 0; out && i < n; i++) {
        exact_half(values[i], &half);
        memcpy(out + i * sizeof half, &half, sizeof half);
    }
    return true;
}

/* Appends weights or logits and returns the bytes of each. */
static uint32_t append_floats(const float *values, uint64_t n, struct block_payload *payload)
{
    if (append_halves(values, n, payload))
        return 2;
    block_append(payload, values, n * sizeof *values);
    return 4;
}

/* Bytes of a number up to `largest`. */
static uint32_t width_of(uint32_t largest)
{
    return largest <= UINT8_MAX ? 1 : largest <= UINT16_MAX ? 2 : 4;
}

static void append_numbers(const uint32_t *values, uint64_t n, uint32_t width, struct block_payload *payload)
{
    uint8_t *out = block_append(payload, NULL, n * width);
    if (!out)
        return;
    if (width == 1)
        for (uint64_t i = 0; i < n; i++)
            out[i] = (uint8_t)values[i];
    else if (width == 2)
        for (uint64_t i = 0; i < n; i++)
            memcpy(out + 2 * i, &(uint16_t){(uint16_t)values[i]}, 2);
    else
        memcpy(out, values, n * sizeof *values);
}

static bool is_uniform(const struct block_pairs *p)
{
    for (uint32_t t = 1; t < p->n_tokens; t++)
        if (p->count[t] != p->count[0])
            return false;
    return true;
}

/* Slots as numbers: 0 where refused, all ones of the width where the order tells. Returns the width, 0 = none needed.
 */
static uint32_t append_slots(const struct block_pairs *p, struct block_payload *payload)
{
    bool any = false;
    uint32_t largest = 0;
    for (uint64_t i = 0; i < p->n_pairs; i++)
        if (p->fate[i] == MOESIM_KEPT && p->slot[i] != MOESIM_SLOT_BY_ORDER) {
            any = true;
            largest = (uint32_t)p->slot[i] > largest ? (uint32_t)p->slot[i] : largest;
        }
    if (!any)
        return 0;
    const uint32_t width = width_of(largest + 1);
    uint8_t *out = block_append(payload, NULL, p->n_pairs * width);
    for (uint64_t i = 0; out && i < p->n_pairs; i++) {
        const uint32_t value = p->fate[i] != MOESIM_KEPT            ? 0
                               : p->slot[i] == MOESIM_SLOT_BY_ORDER ? UINT32_MAX
                                                                    : (uint32_t)p->slot[i];
        memcpy(out + i * width, &value, width);
    }
    return width;
}

void block_encode_pairs(const struct block_pairs *p, struct block_payload *payload, struct file_block *block)
{
    uint32_t largest = 0, fates = 0;
    payload->size = 0;
    for (uint64_t i = 0; i < p->n_pairs; i++) {
        fates |= p->fate[i];
        largest = p->expert[i] > largest ? p->expert[i] : largest;
    }
    const bool uniform = is_uniform(p);
    block->k = uniform && p->n_tokens ? p->count[0] : 0;
    block->n_values = p->n_pairs;
    block->encoding = FILE_IDS(width_of(largest)) | (uniform ? 0 : FILE_COUNTS) | (fates ? FILE_FATES : 0);
    if (!uniform)
        block_append(payload, p->count, p->n_tokens * sizeof *p->count);
    append_numbers(p->expert, p->n_pairs, width_of(largest), payload);
    if (p->weight)
        block->encoding |= FILE_WEIGHTS(append_floats(p->weight, p->n_pairs, payload));
    if (fates)
        block_append(payload, p->fate, p->n_pairs);
    block->encoding |= FILE_SLOTS(append_slots(p, payload));
}

void block_encode_floats(const float *values, uint64_t n, struct block_payload *payload, struct file_block *block)
{
    payload->size = 0;
    block->k = 0;
    block->n_values = n;
    block->encoding = FILE_WEIGHTS(append_floats(values, n, payload));
}

void block_encode_doubles(const double *values, uint64_t n, struct block_payload *payload, struct file_block *block)
{
    payload->size = 0;
    block->k = 0;
    block->n_values = n;
    block->encoding = FILE_WEIGHTS(8);
    block_append(payload, values, n * sizeof *values);
}

void block_encode_labels(const uint32_t *values, uint32_t n, struct block_payload *payload, struct file_block *block)
{
    uint32_t n_runs = 0;
    payload->size = 0;
    for (uint32_t i = 0; i < n; i++)
        n_runs += i == 0 || values[i] != values[i - 1];
    block->k = 0;
    block->encoding = n_runs <= n / 2 ? FILE_RUNS : 0;
    block->n_values = block->encoding ? n_runs : n;
    if (!block->encoding) {
        block_append(payload, values, n * sizeof *values);
        return;
    }
    uint8_t *out = block_append(payload, NULL, (size_t)n_runs * 2 * sizeof *values);
    for (uint32_t i = 0, start = 0; out && i < n; i++) {
        if (i + 1 < n && values[i + 1] == values[i])
            continue;
        const uint32_t run[2] = {i + 1 - start, values[i]};
        memcpy(out, run, sizeof run);
        out += sizeof run;
        start = i + 1;
    }
}
