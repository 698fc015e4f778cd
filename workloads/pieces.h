/*
 * Word pieces: words cut by the lines of a vocabulary, as BERT cuts them (WordPiece; Devlin et al., NAACL 2019).
 */
#ifndef MOESIM_WORKLOADS_PIECES_H
#define MOESIM_WORKLOADS_PIECES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "workloads/vocabulary.h"

/* A longer word is unknown: max_input_chars_per_word of WordpieceTokenizer in Hugging Face's transformers. */
enum { PIECES_MAX_CHARACTERS = 100 };

/* A vocabulary whose lines are pieces, those with PIECES_MARK before them of a word's inside. */
#define PIECES_MARK "##"
#define PIECES_UNKNOWN "[UNK]"
struct pieces {
    const struct vocabulary *vocabulary; /* borrowed */
    uint32_t unknown;                    /* id of PIECES_UNKNOWN */
    size_t longest;                      /* bytes of a line, at most */
};

/* Whether a line is a piece of a word's inside. */
bool pieces_is_inside(const uint8_t *line, size_t length);

/* Of the vocabulary of vocabulary_of_lines; the piece of line i (from 1) has the id i - 1. MOESIM_EIO names path and
 * what is wrong: a line that is no UTF-8, none that is PIECES_UNKNOWN, none that a word can begin with. */
MOESIM_MUST_CHECK enum moesim_status pieces_of_vocabulary(const struct vocabulary *vocabulary, const char *path,
                                                          struct pieces *pieces, struct moesim_error *err);

/* The words of UTF-8 text as ids of pieces, `*n_ids` of them, in the arena. A word is cut from its left, each time the
 * longest piece that is there, between characters only; one that cannot be cut to its end is unknown as a whole. */
MOESIM_MUST_CHECK enum moesim_status pieces_encode(const struct pieces *pieces, const uint8_t *text, size_t n,
                                                   struct moesim_arena *arena, uint32_t **ids, size_t *n_ids,
                                                   struct moesim_error *err);

#endif
