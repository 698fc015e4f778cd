/*
 * The hash of a word's every prefix comes out of one pass over it; they are looked up from the longest one down. A
 * piece inside a word is looked up with its mark, which is written over what has been cut off before it.
 */
#include "workloads/pieces.h"

#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "workloads/words.h"

enum { MARK = sizeof PIECES_MARK - 1, MAX_CHARACTER = 4 /* bytes in UTF-8 */ };

/* ---- the vocabulary ---- */

bool pieces_is_inside(const uint8_t *line, size_t length)
{
    return length > MARK && !memcmp(line, PIECES_MARK, MARK);
}

enum moesim_status pieces_of_vocabulary(const struct vocabulary *v, const char *path, struct pieces *pieces,
                                        struct moesim_error *err)
{
    const struct vocabulary_word *unknown =
        vocabulary_find(v, (const uint8_t *)PIECES_UNKNOWN, sizeof PIECES_UNKNOWN - 1);
    uint32_t wrong = 0; /* first line that is no UTF-8 */
    bool any = false;
    *pieces = (struct pieces){.vocabulary = v};
    for (size_t i = 0; i < v->room; i++) {
        const struct vocabulary_word *word = &v->table[i];
        size_t at = 0;
        if (!word->bytes)
            continue;
        if (words_check_utf8(word->bytes, word->length) != word->length && (!wrong || word->id < wrong))
            wrong = word->id;
        any |= !wrong && words_next(word->bytes, word->length, &at) == word->length;
        pieces->longest = word->length > pieces->longest ? word->length : pieces->longest;
    }
    if (wrong)
        return moesim_fail(err, MOESIM_EIO, "%s: line %u is no UTF-8; convert it (iconv -t UTF-8)", path, wrong);
    if (!unknown)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: no line is " PIECES_UNKNOWN ", which stands for all words that the pieces do not make "
                           "up; a file of one piece a line is needed, such as BERT's vocab.txt",
                           path);
    if (!any)
        return moesim_fail(err, MOESIM_EIO, "%s: no word can begin with any of its %zu pieces", path, v->n_words);
    pieces->unknown = unknown->id - 1;
    return MOESIM_OK;
}

/* ---- a word ---- */

static bool is_inside_character(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

static size_t count_characters(const uint8_t *word, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++)
        n += !is_inside_character(word[i]);
    return n;
}

/* The longest piece at the beginning of `key`, of which the first `mark` bytes are one; NULL = none. Mostly it is all
 * of it. */
static const struct vocabulary_word *longest_piece(const struct pieces *p, const uint8_t *key, size_t mark, size_t n)
{
    const struct vocabulary_word *piece = n <= p->longest ? vocabulary_find(p->vocabulary, key, n) : NULL;
    uint64_t hash[PIECES_MAX_CHARACTERS], h = moesim_hash(MOESIM_HASH_START, key, mark);
    size_t end[PIECES_MAX_CHARACTERS], n_ends = 0;
    for (size_t i = mark, next; !piece && i < n && i < p->longest; i = next) {
        for (next = i + 1; next < n && is_inside_character(key[next]); next++)
            ;
        h = moesim_hash(h, key + i, next - i);
        hash[n_ends] = h;
        end[n_ends++] = next;
    }
    while (!piece && n_ends--)
        piece = vocabulary_at(p->vocabulary, hash[n_ends], key, end[n_ends]);
    return piece;
}

/* The ids of a word's pieces; returns how many. */
static size_t cut(const struct pieces *p, const uint8_t *word, size_t length, uint32_t ids[PIECES_MAX_CHARACTERS])
{
    uint8_t text[MARK + PIECES_MAX_CHARACTERS * MAX_CHARACTER];
    size_t n = 0;
    ids[0] = p->unknown;
    if (length > PIECES_MAX_CHARACTERS && count_characters(word, length) > PIECES_MAX_CHARACTERS)
        return 1;
    memcpy(text + MARK, word, length);
    for (size_t at = 0, mark = 0; at < length; mark = MARK) {
        uint8_t *key = text + MARK + at - mark;
        memcpy(key, PIECES_MARK, mark);
        const struct vocabulary_word *piece = longest_piece(p, key, mark, length - at + mark);
        if (!piece) {
            ids[0] = p->unknown;
            return 1;
        }
        ids[n++] = piece->id - 1;
        at += piece->length - mark;
    }
    return n;
}

/* ---- a text ---- */

/* The ids so far: heap memory that grows, copied to the arena when their number is known. */
struct ids {
    uint32_t *id;
    size_t n, room;
};

static enum moesim_status make_room(struct ids *ids, struct moesim_error *err)
{
    if (ids->n + PIECES_MAX_CHARACTERS <= ids->room)
        return MOESIM_OK;
    const size_t room = 2 * (ids->n + PIECES_MAX_CHARACTERS);
    uint32_t *id = realloc(ids->id, room * sizeof *id);
    if (!id)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a text of more than %zu word pieces", ids->n);
    ids->id = id;
    ids->room = room;
    return MOESIM_OK;
}

enum moesim_status pieces_encode(const struct pieces *p, const uint8_t *text, size_t n, struct moesim_arena *arena,
                                 uint32_t **ids, size_t *n_ids, struct moesim_error *err)
{
    struct ids all = {NULL, 0, 0};
    enum moesim_status status = make_room(&all, err);
    for (size_t at = 0, length; !status && (length = words_next(text, n, &at));) {
        all.n += cut(p, text + at - length, length, all.id + all.n);
        status = make_room(&all, err);
    }
    *n_ids = all.n;
    *ids = status ? NULL : moesim_alloc(arena, all.n, sizeof **ids);
    if (*ids)
        memcpy(*ids, all.id, all.n * sizeof **ids);
    else if (!status)
        status = moesim_fail(err, MOESIM_ENOMEM, "no memory for a text of %zu word pieces", all.n);
    free(all.id);
    return status;
}
