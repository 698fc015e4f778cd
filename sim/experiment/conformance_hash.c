/* Fingerprints. */
#include "sim/experiment/conformance_hash.h"

#include <string.h>

#include <moesim/hash.h>

#define LANES 4
#define MULTIPLIER UINT64_C(0x9e3779b97f4a7c15) /* 2^64 / golden ratio, odd */

/* Four words side by side, since one chain of multiplications waits for itself. Each step is a bijection of the lane.
 */
uint64_t hash_array(uint64_t hash, const void *bytes, size_t n)
{
    const char *b = bytes;
    uint64_t lane[LANES] = {hash, ~hash, hash + MULTIPLIER, hash ^ n};
    size_t i = 0;
    for (; i + sizeof lane <= n; i += sizeof lane) {
        uint64_t word[LANES];
        memcpy(word, b + i, sizeof word);
        for (int l = 0; l < LANES; l++) {
            const uint64_t x = lane[l] ^ word[l];
            lane[l] = (x << 29 | x >> 35) * MULTIPLIER;
        }
    }
    return moesim_hash(moesim_hash(MOESIM_HASH_START, lane, sizeof lane), b + i, n - i);
}

uint64_t hash_shape(const struct moesim_shape *s)
{
    const uint32_t words[] = {s->needs, s->n_columns, s->n_experts, s->n_slots, s->group, s->group_tokens};
    const uint64_t h = moesim_hash(MOESIM_HASH_START, words, sizeof words);
    return moesim_hash(h, &s->input_jitter, sizeof s->input_jitter);
}

uint64_t hash_plan(const struct moesim_plan *p, bool decisions)
{
    const size_t n = (size_t)p->n_pairs, cells = (size_t)p->n_tokens * p->n_slots;
    uint64_t h = MOESIM_HASH_START;
    h = hash_array(h, p->first, ((size_t)p->n_tokens + 1) * sizeof *p->first);
    h = hash_array(h, p->expert, n * sizeof *p->expert);
    h = hash_array(h, p->slot, n * sizeof *p->slot);
    h = hash_array(h, p->fate, n * sizeof *p->fate);
    if (decisions)
        return h;
    h = hash_array(h, p->weight, n * sizeof *p->weight);
    h = hash_array(h, p->capacity, (size_t)p->n_groups * p->n_experts * sizeof *p->capacity);
    h = hash_array(h, &p->n_wanted, sizeof p->n_wanted);
    h = hash_array(h, &p->n_bad_rows, sizeof p->n_bad_rows);
    for (uint32_t i = 0; i < p->n_aux; i++)
        h = hash_array(h, &p->aux[i].value, sizeof p->aux[i].value);
    if (p->n_slots) {
        h = hash_array(h, p->dispatch, cells * sizeof(float));
        h = hash_array(h, p->combine, cells * sizeof(float));
    }
    return h;
}
