/*
 * The parts of a trace writer: what layers hold back, and the file.
 */
#ifndef MOESIM_WORKLOADS_TRACE_WRITER_STATE_H
#define MOESIM_WORKLOADS_TRACE_WRITER_STATE_H

#include "workloads/trace/block_encode.h"
#include "workloads/trace/writer.h"

enum {
    BLOCK_TOKENS = 65536,
    BLOCK_VALUES = 131072, /* pairs or logits of one block, but for the last token's */
    HELD_VALUES = 1 << 20, /* of all layers */
    N_QUEUES = TRACE_N_LABELS,
};

/* Tokens of one layer that are not written yet. */
struct writer_layer {
    uint32_t id;
    uint64_t n_written; /* tokens */
    uint32_t n_tokens, room_tokens;
    uint64_t n_values, room_values;
    uint32_t *count;
    union {
        uint32_t *expert;
        float *logit;
    };
    float *weight;
    uint8_t *fate;
    int32_t *slot;
};

struct writer_labels {
    uint64_t n_written;
    uint32_t n;
    uint32_t *values; /* [BLOCK_TOKENS] */
};

struct trace_writer {
    int fd;
    enum trace_kind kind;
    bool experts_known, weights_known, has_weights, has_fates, has_slots;
    uint32_t n_experts, top_k, n_steps;
    uint64_t offset; /* where the next block goes */
    uint64_t n_held;
    struct writer_layer *layer; /* [n_layers] by id */
    uint32_t n_layers, room_layers;
    struct writer_labels label[N_QUEUES];
    struct file_entry *entry; /* [n_entries] in the file's order */
    uint64_t n_entries, room_entries;
    struct block_payload payload;
};

/* Writes the payload as a block. */
MOESIM_MUST_CHECK enum moesim_status writer_block(struct trace_writer *writer, struct file_block *block,
                                                  struct moesim_error *err);

/* The directory, as the last block. */
MOESIM_MUST_CHECK enum moesim_status writer_directory(struct trace_writer *writer, struct moesim_error *err);

/* The layer of that number, new if need be; they are kept in order. NULL without memory. */
struct writer_layer *writer_find_layer(struct trace_writer *writer, uint32_t id);

/* Makes the array that the pointer at `place` owns n elements long; false without memory. */
bool writer_grow(void *place, size_t size, uint64_t n);

#endif
