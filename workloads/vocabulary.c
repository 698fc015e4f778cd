/*
 * Words in a hash table that grows by doubling; its keys are the texts' own bytes.
 */
#include "workloads/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "workloads/words.h"

enum { FIRST_ROOM = 1 << 16 };

/* The place of the word with this hash, or the free one where it belongs. */
static struct vocabulary_word *place_of(const struct vocabulary *v, uint64_t hash, const uint8_t *bytes, size_t length)
{
    size_t at = hash & (v->room - 1);
    while (v->table[at].bytes && (v->table[at].length != length || memcmp(v->table[at].bytes, bytes, length) != 0))
        at = (at + 1) & (v->room - 1);
    return &v->table[at];
}

static struct vocabulary_word *find(const struct vocabulary *v, const uint8_t *bytes, size_t length)
{
    return place_of(v, moesim_hash(MOESIM_HASH_START, bytes, length), bytes, length);
}

const struct vocabulary_word *vocabulary_at(const struct vocabulary *v, uint64_t hash, const uint8_t *bytes,
                                            size_t length)
{
    const struct vocabulary_word *word = v->room ? place_of(v, hash, bytes, length) : NULL;
    return word && word->bytes ? word : NULL;
}

const struct vocabulary_word *vocabulary_find(const struct vocabulary *v, const uint8_t *bytes, size_t length)
{
    return vocabulary_at(v, moesim_hash(MOESIM_HASH_START, bytes, length), bytes, length);
}

static enum moesim_status grow(struct vocabulary *v, struct moesim_error *err)
{
    const size_t room = v->room ? 2 * v->room : FIRST_ROOM;
    struct vocabulary wider = {calloc(room, sizeof *wider.table), room, v->n_words};
    if (!wider.table)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a vocabulary of %zu words", v->n_words);
    for (size_t i = 0; i < v->room; i++)
        if (v->table[i].bytes)
            *find(&wider, v->table[i].bytes, v->table[i].length) = v->table[i];
    free(v->table);
    *v = wider;
    return MOESIM_OK;
}

/* The word's place, made where it is new. */
static enum moesim_status add(struct vocabulary *v, const uint8_t *bytes, size_t length, struct vocabulary_word **word,
                              struct moesim_error *err)
{
    if (2 * v->n_words >= v->room) {
        const enum moesim_status status = grow(v, err);
        if (status)
            return status;
    }
    *word = find(v, bytes, length);
    if (!(*word)->bytes) {
        **word = (struct vocabulary_word){.bytes = bytes, .length = (uint32_t)length};
        v->n_words++;
    }
    return MOESIM_OK;
}

enum moesim_status vocabulary_count(struct vocabulary *v, const uint8_t *text, size_t n, struct moesim_error *err)
{
    for (size_t at = 0, length; (length = words_next(text, n, &at));) {
        struct vocabulary_word *word;
        const enum moesim_status status = add(v, text + at - length, length, &word, err);
        if (status)
            return status;
        word->count++;
    }
    return MOESIM_OK;
}

static int by_count(const void *a, const void *b)
{
    const struct vocabulary_word *x = *(struct vocabulary_word *const *)a, *y = *(struct vocabulary_word *const *)b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    const int order = memcmp(x->bytes, y->bytes, x->length < y->length ? x->length : y->length);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

enum moesim_status vocabulary_rank(struct vocabulary *v, uint32_t n, struct moesim_error *err)
{
    struct vocabulary_word **order = malloc((v->n_words + 1) * sizeof *order);
    size_t n_words = 0;
    if (!order)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a vocabulary of %zu words", v->n_words);
    for (size_t i = 0; i < v->room; i++)
        if (v->table[i].bytes)
            order[n_words++] = &v->table[i];
    qsort(order, n_words, sizeof *order, by_count);
    for (size_t i = 0; i < n_words && i + 1 < n; i++)
        order[i]->id = (uint32_t)i + 1;
    free(order);
    return MOESIM_OK;
}

enum moesim_status vocabulary_of_lines(struct vocabulary *v, const char *path, const uint8_t *text, size_t n,
                                       struct moesim_error *err)
{
    uint32_t line = 0;
    for (size_t at = 0, length; at < n; at += length + 1) {
        const uint8_t *end = memchr(text + at, '\n', n - at);
        struct vocabulary_word *word;
        length = end ? (size_t)(end - text) - at : n - at;
        const size_t bare = length && text[at + length - 1] == '\r' ? length - 1 : length;
        if (++line >= VOCABULARY_MAX_WORDS)
            return moesim_fail(err, MOESIM_EIO, "%s: line %u is past the %u words that can be told apart", path, line,
                               VOCABULARY_MAX_WORDS - 1);
        if (!bare)
            return moesim_fail(err, MOESIM_EIO, "%s: line %u is empty; one word or word piece a line is needed", path,
                               line);
        const enum moesim_status status = add(v, text + at, bare, &word, err);
        if (status)
            return status;
        if (word->id)
            return moesim_fail(err, MOESIM_EIO, "%s: line %u repeats line %u; one word or word piece a line is needed",
                               path, line, word->id);
        word->id = line;
    }
    return MOESIM_OK;
}

enum moesim_status vocabulary_encode(const struct vocabulary *v, const uint8_t *text, size_t n,
                                     struct moesim_arena *arena, uint32_t **ids, size_t *n_ids,
                                     struct moesim_error *err)
{
    size_t n_words = 0, i = 0;
    for (size_t at = 0; words_next(text, n, &at);)
        n_words++;
    *ids = moesim_alloc(arena, n_words, sizeof **ids);
    *n_ids = n_words;
    if (!*ids)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a text of %zu words", n_words);
    for (size_t at = 0, length; (length = words_next(text, n, &at)); i++) {
        const struct vocabulary_word *word = vocabulary_find(v, text + at - length, length);
        (*ids)[i] = word ? word->id : 0;
    }
    return MOESIM_OK;
}

void vocabulary_free(struct vocabulary *v)
{
    free(v->table);
    *v = (struct vocabulary){0};
}
