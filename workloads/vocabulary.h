/*
 * A vocabulary: words with ids.
 */
#ifndef MOESIM_WORKLOADS_VOCABULARY_H
#define MOESIM_WORKLOADS_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

/* Ids below 2^24 are counts that float holds. */
#define VOCABULARY_MAX_WORDS (1u << 24)

struct vocabulary_word {
    const uint8_t *bytes; /* the caller's text; NULL = no word here */
    uint32_t length, id;  /* id 0 = none yet */
    uint64_t count;
};

struct vocabulary {
    struct vocabulary_word *table; /* [room] open addressing */
    size_t room, n_words;          /* room: a power of two */
};

/* Counts the words of a text, whose bytes must outlive the vocabulary. A zeroed struct is empty. */
MOESIM_MUST_CHECK enum moesim_status vocabulary_count(struct vocabulary *vocabulary, const uint8_t *text, size_t n,
                                                      struct moesim_error *err);

/* The most frequent words get ids 1 to `n` - 1, the more frequent the lower, of equal ones the lower by bytes; all
 * others keep 0. */
MOESIM_MUST_CHECK enum moesim_status vocabulary_rank(struct vocabulary *vocabulary, uint32_t n,
                                                     struct moesim_error *err);

/* One word a line: that of line i (from 1) gets id i. MOESIM_EIO names path and line of one that is empty or there
 * already. The bytes must outlive the vocabulary. */
MOESIM_MUST_CHECK enum moesim_status vocabulary_of_lines(struct vocabulary *vocabulary, const char *path,
                                                         const uint8_t *text, size_t n, struct moesim_error *err);

/* The word, or NULL where it is not there; vocabulary_at takes its hash by moesim_hash. */
const struct vocabulary_word *vocabulary_find(const struct vocabulary *vocabulary, const uint8_t *bytes, size_t length);
const struct vocabulary_word *vocabulary_at(const struct vocabulary *vocabulary, uint64_t hash, const uint8_t *bytes,
                                            size_t length);

/* The text's words as ids, `*n_ids` of them, in the arena. */
MOESIM_MUST_CHECK enum moesim_status vocabulary_encode(const struct vocabulary *vocabulary, const uint8_t *text,
                                                       size_t n, struct moesim_arena *arena, uint32_t **ids,
                                                       size_t *n_ids, struct moesim_error *err);
void vocabulary_free(struct vocabulary *vocabulary);

#endif
