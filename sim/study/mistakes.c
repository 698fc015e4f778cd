/*
 * The list of mistakes and "did you mean".
 */
#include "sim/study/mistakes.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether the last item already says that there are more. */
static bool is_closed(const struct moesim_mistakes *mistakes)
{
    return mistakes->n == MOESIM_MAX_MISTAKES && mistakes->item[MOESIM_MAX_MISTAKES - 1].line == UINT32_MAX;
}

static void append(struct moesim_mistakes *mistakes, uint32_t line, uint32_t column, const char *text)
{
    for (uint32_t i = 0; i < mistakes->n; i++)
        if (mistakes->item[i].line == line && mistakes->item[i].column == column &&
            !strcmp(mistakes->item[i].text, text))
            return;
    if (mistakes->n == MOESIM_MAX_MISTAKES) {
        /* What was noted last gives way: the reader must know that the list is not whole. */
        mistakes->item[MOESIM_MAX_MISTAKES - 1].line = UINT32_MAX;
        mistakes->item[MOESIM_MAX_MISTAKES - 1].column = 1;
        snprintf(mistakes->item[MOESIM_MAX_MISTAKES - 1].text, sizeof mistakes->item[0].text,
                 "there are more mistakes than these %d; mend these first", MOESIM_MAX_MISTAKES - 1);
        return;
    }
    mistakes->item[mistakes->n].line = line;
    mistakes->item[mistakes->n].column = column;
    snprintf(mistakes->item[mistakes->n].text, sizeof mistakes->item[0].text, "%.399s", text);
    mistakes->n++;
}

void moesim_mistake(struct moesim_mistakes *mistakes, uint32_t line, uint32_t column, const char *format, ...)
{
    if (is_closed(mistakes))
        return;
    char raw[sizeof mistakes->item[0].text];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);

    struct moesim_error clean; /* moesim_fail replaces control bytes */
    if (moesim_fail(&clean, MOESIM_EINVAL, "%s", raw) != MOESIM_OK) {
        clean.text[sizeof raw - 1] = '\0';
        append(mistakes, line, column, clean.text);
    }
}

void *moesim_mistake_alloc(struct moesim_mistakes *mistakes, struct moesim_arena *arena, size_t n, size_t size)
{
    void *memory = moesim_alloc(arena, n, size);
    if (!memory)
        moesim_mistake(mistakes, 0, 0, "there is no memory for the study");
    return memory;
}

void moesim_mistakes_add(struct moesim_mistakes *to, const struct moesim_mistakes *from)
{
    for (uint32_t i = 0; i < from->n; i++)
        append(to, from->item[i].line, from->item[i].column, from->item[i].text);
}

void moesim_mistakes_sort(struct moesim_mistakes *mistakes)
{
    /* Insertion keeps equal places in the order they were noted; the list is short. */
    for (uint32_t i = 1; i < mistakes->n; i++) {
        for (uint32_t j = i; j > 0; j--) {
            const uint32_t line = mistakes->item[j].line, before = mistakes->item[j - 1].line;
            if (before < line || (before == line && mistakes->item[j - 1].column <= mistakes->item[j].column))
                break;
            struct moesim_mistakes *m = mistakes;
            char swap[sizeof m->item[0]];
            memcpy(swap, &m->item[j], sizeof swap);
            m->item[j] = m->item[j - 1];
            memcpy(&m->item[j - 1], swap, sizeof swap);
        }
    }
    if (is_closed(mistakes))
        mistakes->item[MOESIM_MAX_MISTAKES - 1].line = mistakes->item[MOESIM_MAX_MISTAKES - 2].line;
}

struct moesim_guess moesim_guess_of(const char *word)
{
    return (struct moesim_guess){.word = word, .distance = UINT32_MAX};
}

void moesim_guess_try(struct moesim_guess *guess, const char *candidate)
{
    const size_t length = strlen(guess->word);
    if (length > 64)
        return;
    const uint32_t limit = length < 2 ? 0 : length < 4 ? 1 : 2;
    const uint32_t edits = moesim_edit_distance(guess->word, candidate, 2);
    const bool begins = length >= 3 && strncmp(guess->word, candidate, length) == 0;
    if (edits > limit && !begins)
        return;
    /* A name that goes on where the word ends is nearer than one with a slip of the finger; three letters say less. */
    const uint32_t distance = !begins ? 2 * edits : length > 3 ? 1 : 3;
    if (distance < guess->distance) {
        guess->distance = distance;
        guess->best = candidate;
    }
}

const char *moesim_guess_text(struct moesim_guess *guess)
{
    if (!guess->best)
        return "";
    snprintf(guess->text, sizeof guess->text, "; did you mean '%.80s'?", guess->best);
    return guess->text;
}

const char *moesim_choice_guess(const struct moesim_param *row, const char *word, struct moesim_guess *guess)
{
    char words[512] = "";
    *guess = moesim_guess_of(word);
    if (row->type == MOESIM_TYPE_CHOICE)
        snprintf(words, sizeof words, "%s", row->choices);
    for (char *rest = words, *choice; *words && (choice = strsep(&rest, "|")) != NULL;)
        moesim_guess_try(guess, choice);
    return moesim_guess_text(guess);
}
