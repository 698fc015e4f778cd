/*
 * What the formats behind a trace have in common. Two kinds of sources serve them all: typed arrays in a mapped file
 * (array.c), and moesim's own trace file (file_read.c), into which every other format is converted while it is read.
 */
#ifndef MOESIM_WORKLOADS_TRACE_SOURCE_H
#define MOESIM_WORKLOADS_TRACE_SOURCE_H

#include "workloads/mapping.h"
#include "workloads/npy.h"
#include "workloads/trace/trace.h"

/* As the functions of trace.h, whose checks of ranges are done. NULL where the kind has no such thing. */
struct trace_reading {
    enum moesim_status (*pairs)(void *state, uint32_t layer, uint64_t first, uint32_t n, struct trace_pairs *pairs,
                                struct moesim_error *err);
    enum moesim_status (*rows)(void *state, uint32_t layer, uint64_t first, uint32_t n, float *rows,
                               struct moesim_error *err);
    enum moesim_status (*load)(void *state, uint32_t layer, uint32_t step, double *load, struct moesim_error *err);
    enum moesim_status (*labels)(void *state, enum trace_label label, uint64_t first, uint32_t n, uint32_t *values,
                                 struct moesim_error *err);
    void (*close)(void *state);
};

/* A source that was opened: its shape is filled in, `state` is the reading's own. */
struct trace_source {
    const struct trace_reading *reading;
    void *state;
    struct trace_shape shape;
    const uint32_t *layer_id; /* [n_layers] in the state's memory, or NULL: counted from 0 */
    char note[256];
};

/* Every opener: `path` is a regular file (a folder where the name says so). On failure nothing is left behind. */
typedef enum moesim_status trace_opener(const char *path, const struct trace_options *options,
                                        struct trace_source *source, struct moesim_error *err);
trace_opener trace_open_npy, trace_open_npz, trace_open_safetensors, trace_open_file, trace_open_json, trace_open_csv,
    trace_open_trtllm_folder, trace_open_megatron_folder, trace_open_gguf;

/* ---- arrays ---- */

/* One named array of a container; `array.map` is NULL, its bytes belong to the container's mapping. */
struct trace_member {
    const char *name; /* [n_name], not ended */
    size_t n_name;
    struct npy array;
};

/* Makes a source of the members that name themselves decisions, weights, logits, loads or labels. Takes the mappings
 * over, success or not: [n_mappings] malloc'd. */
MOESIM_MUST_CHECK enum moesim_status trace_arrays_open(const char *path, const struct trace_options *options,
                                                       struct trace_member *members, size_t n_members,
                                                       struct mapping *mappings, size_t n_mappings,
                                                       struct trace_source *source, struct moesim_error *err);

/* Whether trace_arrays_open looks at a member of this name. */
bool trace_member_wanted(const char *name, size_t n_name);

/* ---- folders ---- */

/* Paths of HEAD<rank>TAIL in a folder by rank, [n] malloc'd; all ranks below the last must be there. To be freed by the
 * second, on failure too. */
MOESIM_MUST_CHECK enum moesim_status trace_list_ranks(const char *folder, const char *head, const char *tail,
                                                      char ***paths, size_t *n, struct moesim_error *err);
void trace_free_list(char **paths, size_t n);

/* ---- the tokens' sequences ---- */

/* A CSV of sequences as a label of tokens. */
struct trace_sequences;
MOESIM_MUST_CHECK enum moesim_status trace_sequences_read(const char *path, const char *domains, uint64_t n_tokens,
                                                          struct trace_sequences **sequences, struct moesim_error *err);
void trace_sequences_free(struct trace_sequences *sequences);
void trace_sequences_label(const struct trace_sequences *sequences, enum trace_label label, uint64_t first, uint32_t n,
                           uint32_t *values);
bool trace_sequences_have_domains(const struct trace_sequences *sequences);
/* The number of a domain, or false where no row has it. */
bool trace_sequences_find(const struct trace_sequences *sequences, const char *label, uint32_t *number);

/* ---- own trace file, from a descriptor ---- */

/* As trace_open_file of what `fd` holds; takes the descriptor over. */
MOESIM_MUST_CHECK enum moesim_status trace_open_descriptor(int fd, const char *path,
                                                           const struct trace_options *options,
                                                           struct trace_source *source, struct moesim_error *err);

#endif
