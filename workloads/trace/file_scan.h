/*
 * What a trace file holds: its head and directory, checked.
 */
#ifndef MOESIM_WORKLOADS_TRACE_FILE_SCAN_H
#define MOESIM_WORKLOADS_TRACE_FILE_SCAN_H

#include "workloads/mapping.h"
#include "workloads/trace/file_layout.h"
#include "workloads/trace/trace.h"

struct file_scan {
    uint32_t kind, head_experts;
    uint64_t size;
    struct file_directory directory;
    uint32_t *layer_id; /* [n_layers] rising */
    /* [n_entries] by type, layer and first token. Each layer's follow each other without a gap up to n_tokens (or
     * n_steps), and so do those of each label there is. */
    struct file_entry *entry;
    uint64_t n_entries;
    bool has_label[TRACE_N_LABELS];
    bool recovered; /* the directory was missing; made from the blocks that are whole */
};

/* Reads head and directory of the mapped file. Without a directory, which a recording that was cut short lacks, it is
 * MOESIM_EIO, unless `recover`: then the blocks that are whole are taken, up to the last token that all layers have. */
MOESIM_MUST_CHECK enum moesim_status file_scan_open(const char *path, const struct mapping *file, bool recover,
                                                    struct file_scan *scan, struct moesim_error *err);
void file_scan_close(struct file_scan *scan);

/* The block at `offset`, or NULL where none begins: its header is whole and its payload lies inside the file. */
const struct file_block *file_block_at(const struct mapping *file, uint64_t offset);

/* The payload, unless its hash is wrong: NULL. */
const uint8_t *file_block_payload(const struct file_block *block);

/* The type of the blocks that hold a kind of trace. */
enum file_block_type file_type_of(uint32_t kind);

#endif
