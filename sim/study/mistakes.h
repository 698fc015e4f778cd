/*
 * Collecting what is wrong with a study, and guessing what was meant.
 */
#ifndef MOESIM_SIM_MISTAKES_H
#define MOESIM_SIM_MISTAKES_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/param.h>
#include <moesim/status.h>

#define MOESIM_MAX_MISTAKES 100

/* What is wrong with a study; line and column count from 1, 0 = it came from the command line. */
struct moesim_mistakes {
    uint32_t n;
    uint32_t n_files; /* of them, files that could not be read: the program's exit status tells these apart */
    struct {
        uint32_t line, column;
        char text[400];
    } item[MOESIM_MAX_MISTAKES];
};

/* Notes a sentence, once for each place and text; control bytes are replaced. The last item of a full list says that
 * there are more. */
void moesim_mistake(struct moesim_mistakes *mistakes, uint32_t line, uint32_t column, const char *format, ...)
    MOESIM_PRINTF(4, 5);

/* moesim_alloc that notes its failure. */
void *moesim_mistake_alloc(struct moesim_mistakes *mistakes, struct moesim_arena *arena, size_t n, size_t size);

/* Notes all of `from` in `to`. */
void moesim_mistakes_add(struct moesim_mistakes *to, const struct moesim_mistakes *from);

/* By line, then column, then as noted. */
void moesim_mistakes_sort(struct moesim_mistakes *mistakes);

/* The nearest of the candidates that were tried: at most two edits away, or one that begins with the word. */
struct moesim_guess {
    const char *word;
    const char *best;
    uint32_t distance;
    char text[120]; /* "; did you mean 'x'?" after moesim_guess_text */
};

struct moesim_guess moesim_guess_of(const char *word);
void moesim_guess_try(struct moesim_guess *guess, const char *candidate);
/* The question to put behind a sentence, or "". */
const char *moesim_guess_text(struct moesim_guess *guess);

/* The question for a word that is none of the row's choices; "" for other rows. */
const char *moesim_choice_guess(const struct moesim_param *row, const char *word, struct moesim_guess *guess);

#endif
