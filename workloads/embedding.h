/*
 * A fixed embedding of tokens in context, seeded or from word vectors: what stands in for the lower layers of a
 * language model.
 */
#ifndef MOESIM_WORKLOADS_EMBEDDING_H
#define MOESIM_WORKLOADS_EMBEDDING_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "workloads/npy.h"

#define EMBEDDING_ROWS 1024u

/* Word vectors: a .npy of real numbers [words, dimensions], read in place. */
struct word_vectors {
    struct npy npy;
    float scale; /* gives them the mean square 1 */
};

/* MOESIM_EIO names what is wrong: another shape or type, more rows or columns than ids and dimensions can count, a row
 * that is not finite, nothing but 0. */
MOESIM_MUST_CHECK enum moesim_status word_vectors_open(const char *path, struct word_vectors *vectors,
                                                       struct moesim_error *err);
void word_vectors_close(struct word_vectors *vectors);

struct embedding {
    uint32_t d_model;
    uint32_t vocabulary;
    float *rows;   /* [EMBEDDING_ROWS][d_model] standard normal */
    float *centre; /* [d_model] taken off every embedded token; 0 until embedding_centre is called */
    double decay;  /* of the memory, per token */
    const struct word_vectors *vectors; /* of ids from first_vector on, d_model wide; NULL = none */
    uint32_t first_vector;
};

/* `context`: tokens that the memory goes back on average (>= 1). */
MOESIM_MUST_CHECK enum moesim_status embedding_init(struct embedding *embedding, uint64_t seed, uint32_t d_model,
                                                    uint32_t vocabulary, double context, struct moesim_arena *arena,
                                                    struct moesim_error *err);

/* The last tokens of a sequence. */
enum { EMBEDDING_GRAMS = 3 };
struct embedding_past {
    uint32_t last[EMBEDDING_GRAMS]; /* newest first */
};
struct embedding_past embedding_start(const struct embedding *embedding);

/* Embeds the next token of a sequence: g [d_model] itself, memory [d_model] from that of the token before (all 0 before
 * the first; the same array is allowed). */
void embedding_next(const struct embedding *embedding, struct embedding_past *past, uint32_t token, float *g,
                    const float *memory_before, float *memory);

/* Adds `weight` times a token's embedding to the centre; scratch: [d_model]. */
void embedding_centre(struct embedding *embedding, struct embedding_past *past, uint32_t token, double weight,
                      float *scratch);

/* The hidden state [d_model], of mean square 1, of a token with these g and memory. `share`: the part of the square
 * that the memory has, 0 to 1. Scratch: [d_model]. */
void embedding_mix(const struct embedding *embedding, const float *g, const float *memory, double share, float *scratch,
                   float *hidden);

#endif
