/*
 * An open trace file, and the checks that each of its blocks passes before it is read.
 */
#ifndef MOESIM_WORKLOADS_TRACE_FILE_CHECK_H
#define MOESIM_WORKLOADS_TRACE_FILE_CHECK_H

#include "workloads/trace/file_scan.h"

struct file_state {
    char *path;
    struct mapping file;
    struct file_scan scan;
    uint64_t *layer_start;                    /* [n_layers + 1] entries of a layer */
    uint64_t label_start[TRACE_N_LABELS + 1]; /* entries of a label */
    uint8_t *checked;                         /* [n_entries] */
    uint64_t touched;
};

/* A block's sections; those that are missing are NULL. */
struct block_view {
    const struct file_block *head;
    const uint32_t *counts;
    const uint8_t *ids, *weights, *fates, *slots;
    uint32_t id_width, weight_width, slot_width;
};

/* Where the sections of a block of decisions are; false when they do not fill the payload. */
bool file_view_pairs(const struct file_block *block, struct block_view *view);

/* Number i of a section of `width` bytes each. */
static inline uint32_t file_number_at(const uint8_t *values, uint32_t width, uint64_t i)
{
    uint32_t value = 0;
    memcpy(&value, values + i * width, width);
    return value;
}

/* Checks the block of entry i as a whole: header, hash, sections, ids, weights; once. */
MOESIM_MUST_CHECK enum moesim_status file_use_block(struct file_state *file, uint64_t i,
                                                    const struct file_block **block, struct moesim_error *err);

#endif
