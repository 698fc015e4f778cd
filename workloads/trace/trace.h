/*
 * Traces: recorded routing of a model, whatever file it came in. Three levels: logits [layers, tokens, experts],
 * decisions [tokens, layers, k] with or without weights, and loads [layers, experts].
 */
#ifndef MOESIM_WORKLOADS_TRACE_H
#define MOESIM_WORKLOADS_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/router.h>
#include <moesim/status.h>

enum trace_kind { TRACE_ANY, TRACE_LOGITS, TRACE_DECISIONS, TRACE_LOADS };
#define TRACE_KIND_CHOICES "logits|decisions|loads"

/* What a trace may know of its tokens. */
enum trace_label { TRACE_SEQUENCE, TRACE_TOKEN_ID, TRACE_DOMAIN, TRACE_N_LABELS };

#define TRACE_MAX_LAYERS 4096u
#define TRACE_MAX_EXPERTS (1u << 20)

/* What to make of a file; all zero is what the file itself says. */
struct trace_options {
    uint32_t kind;         /* enum trace_kind; TRACE_ANY = by name, shape and type */
    uint32_t n_experts;    /* 0 = the file's, else the largest id + 1 */
    const char *weights;   /* a .npy of the decisions' shape, or NULL */
    const char *sequences; /* a CSV with the columns start and len, or NULL */
    const char *domains;   /* the column of that CSV that labels a sequence, or NULL */
    bool recover;          /* reads what is whole of a trace file whose end is missing */
};

struct trace_shape {
    uint32_t kind; /* enum trace_kind, never TRACE_ANY */
    uint32_t n_layers, n_experts;
    bool experts_known; /* else they are those that the ids name: there may be more */
    uint32_t top_k;     /* decisions: most experts of one token */
    uint64_t n_tokens;  /* decisions, logits */
    uint32_t n_steps;   /* loads: recordings one after the other, or domains */
    bool has_weights, has_fates, has_slots;
    bool has_label[TRACE_N_LABELS];
    bool all_zero; /* decisions: every id is 0, as recorders leave that captured nothing */
};

struct trace;

/* Opens a file or folder and reads as much as its shape needs. MOESIM_EIO with path, place (byte, line or token) and
 * what would be right for anything that is not such a file; MOESIM_EINVAL for options that do not fit it. */
MOESIM_MUST_CHECK enum moesim_status trace_open(const char *path, const struct trace_options *options,
                                                struct trace **trace, struct moesim_error *err);
void trace_close(struct trace *trace); /* NULL is allowed */

const struct trace_shape *trace_shape(const struct trace *trace);
const char *trace_format(const struct trace *trace); /* the name of its format */
const char *trace_path(const struct trace *trace);
const char *trace_note(const struct trace *trace); /* what people should know of this reading; "" = nothing */
uint32_t trace_layer_id(const struct trace *trace, uint32_t layer); /* the layer's number in the model */

/* Decisions of one layer: those of the i-th token read are first[i] .. first[i + 1] - 1, by rank. Weights, fates and
 * slots are filled where there is an array for them; where a trace has no such thing, weights are 1 / count, fates
 * kept, slots MOESIM_SLOT_BY_ORDER. */
struct trace_pairs {
    uint32_t *first;  /* [n + 1] */
    uint32_t *expert; /* [n * top_k]; MOESIM_NO_EXPERT where the fate is MOESIM_BAD_ROW */
    float *weight;
    uint8_t *fate; /* enum moesim_fate */
    int32_t *slot; /* -1 = refused */
};

/* Decisions of tokens [first, first + n) in `layer`. MOESIM_EIO where the file is damaged, an id is no expert or a
 * weight is not finite. */
MOESIM_MUST_CHECK enum moesim_status trace_read_pairs(struct trace *trace, uint32_t layer, uint64_t first, uint32_t n,
                                                      struct trace_pairs *pairs, struct moesim_error *err);

/* Tokens to read at a time so that the arrays of struct trace_pairs stay below 16 MiB each. */
uint32_t trace_piece(const struct trace *trace);

/* Logits of tokens [first, first + n) in `layer`, [n][n_experts]. */
MOESIM_MUST_CHECK enum moesim_status trace_read_rows(struct trace *trace, uint32_t layer, uint64_t first, uint32_t n,
                                                     float *rows, struct moesim_error *err);

/* Loads of one recorded step in `layer`, [n_experts]. */
MOESIM_MUST_CHECK enum moesim_status trace_read_load(struct trace *trace, uint32_t layer, uint32_t step, double *load,
                                                     struct moesim_error *err);

/* The load of a whole layer, [n_experts]: the sum over recorded steps, or the count over all decisions, refused ones
 * included. Logits have none: MOESIM_EINVAL. */
MOESIM_MUST_CHECK enum moesim_status trace_total_load(struct trace *trace, uint32_t layer, double *load,
                                                      struct moesim_error *err);

/* Opens what tells loads: recorded ones, else decisions, which can be counted. An array that does not say what it is is
 * loads here. */
MOESIM_MUST_CHECK enum moesim_status trace_open_loads(const char *path, struct trace **trace, struct moesim_error *err);

/* The total loads of all layers in such a file as an array [experts] or [layers, experts] in `arena`; its key is left
 * alone. EINVAL for decisions that do not say how many experts there are. */
MOESIM_MUST_CHECK enum moesim_status trace_read_loads(const char *path, struct moesim_arena *arena,
                                                      struct moesim_file_array *array, struct moesim_error *err);

/* A label of tokens [first, first + n). The trace must have it. */
MOESIM_MUST_CHECK enum moesim_status trace_read_labels(struct trace *trace, enum trace_label label, uint64_t first,
                                                       uint32_t n, uint32_t *values, struct moesim_error *err);

/* The number of the domain with that label: of a CSV its text, of a file that has domains itself their number.
 * MOESIM_EINVAL where there is none. */
MOESIM_MUST_CHECK enum moesim_status trace_find_domain(const struct trace *trace, const char *label, uint32_t *number,
                                                       struct moesim_error *err);

/* "logits", "decisions" or "loads", and back (TRACE_ANY for NULL or any other word). */
const char *trace_kind_name(uint32_t kind);
enum trace_kind trace_kind_of(const char *name);

#endif
