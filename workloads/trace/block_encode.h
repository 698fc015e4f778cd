/*
 * The payload of a block: sections put one after the other, narrow where the numbers allow it.
 */
#ifndef MOESIM_WORKLOADS_TRACE_BLOCK_ENCODE_H
#define MOESIM_WORKLOADS_TRACE_BLOCK_ENCODE_H

#include <stdbool.h>

#include "workloads/trace/file_layout.h"

/* A payload that grows; `lost` once there was no memory. */
struct block_payload {
    uint8_t *bytes;
    size_t size, room;
    bool lost;
};

/* Decisions of some tokens in a row. `weight` may be NULL. */
struct block_pairs {
    uint32_t n_tokens;
    uint64_t n_pairs;
    const uint32_t *count;  /* [n_tokens] */
    const uint32_t *expert; /* 0 where the fate is MOESIM_BAD_ROW */
    const float *weight;
    const uint8_t *fate;
    const int32_t *slot;
};

/* Each empties the payload, fills it and sets encoding, k and n_values of the block; sizes and hashes are not set. */
void block_encode_pairs(const struct block_pairs *pairs, struct block_payload *payload, struct file_block *block);
void block_encode_floats(const float *values, uint64_t n, struct block_payload *payload, struct file_block *block);
void block_encode_doubles(const double *values, uint64_t n, struct block_payload *payload, struct file_block *block);
void block_encode_labels(const uint32_t *values, uint32_t n, struct block_payload *payload, struct file_block *block);

/* Appends n bytes, zero where `bytes` is NULL, and zeros to a multiple of 8; returns where they are, NULL without
 * memory. */
uint8_t *block_append(struct block_payload *payload, const void *bytes, size_t n);

#endif
