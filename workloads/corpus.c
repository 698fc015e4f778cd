/*
 * Reading a corpus into memory, and its words or pieces.
 */
#include "workloads/corpus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "workloads/corpus_list.h"
#include "workloads/pieces.h"
#include "workloads/unpack.h"
#include "workloads/vocabulary.h"
#include "workloads/words.h"

enum { MAX_CHARACTER = 4 /* bytes in UTF-8 */ };
#define MAX_LIST_BYTES ((size_t)256 << 20) /* of a word list */

/* The domain being read: heap memory that grows, copied to the arena when its size is known. */
struct buffer {
    uint8_t *bytes;
    size_t n, room;
};

static enum moesim_status make_room(struct buffer *buffer, size_t n, struct moesim_error *err)
{
    if (n > CORPUS_MAX_BYTES)
        return moesim_fail(err, MOESIM_EINVAL, "the texts pass 1 GiB; name fewer files");
    if (n <= buffer->room)
        return MOESIM_OK;
    const size_t room = 2 * n;
    uint8_t *bytes = realloc(buffer->bytes, room);
    if (!bytes)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu bytes of text", room);
    buffer->bytes = bytes;
    buffer->room = room;
    return MOESIM_OK;
}

/* Appends a file's first `limit` bytes. */
static enum moesim_status read_file(const char *path, size_t limit, struct buffer *buffer, struct moesim_error *err)
{
    struct unpack *unpack;
    const size_t start = buffer->n, piece = 64 << 10;
    enum moesim_status status = unpack_open(path, &unpack, err);
    for (size_t got = 1; !status && got && buffer->n - start < limit; buffer->n += got) {
        got = 0;
        status = make_room(buffer, buffer->n + piece, err);
        if (!status)
            status = unpack_read(unpack, buffer->bytes + buffer->n, piece, &got, err);
    }
    unpack_close(unpack);
    if (!status && buffer->n == start)
        status = moesim_fail(err, MOESIM_EIO, "%s: the text file is empty", path);
    return status;
}

/* Checks the file that begins at `start`; a character that the limit has cut is taken off. */
static enum moesim_status check_utf8(const char *path, size_t start, struct buffer *buffer, struct moesim_error *err)
{
    const size_t n = buffer->n - start, valid = words_check_utf8(buffer->bytes + start, n);
    if (valid == n)
        return MOESIM_OK;
    if (n < CORPUS_MAX_FILE_BYTES || n - valid >= MAX_CHARACTER)
        return moesim_fail(err, MOESIM_EIO,
                           "%s: byte %zu of the text is no UTF-8; convert it (iconv -t UTF-8), or take vocabulary=byte",
                           path, valid);
    buffer->n = start + valid;
    return MOESIM_OK;
}

/* Reads the files [first, last) of one domain and copies them to the arena. */
static enum moesim_status read_domain(const struct corpus_list *list, uint32_t first, uint32_t last, bool words,
                                      struct buffer *buffer, struct moesim_arena *arena, struct corpus_domain *domain,
                                      struct moesim_error *err)
{
    buffer->n = 0;
    for (uint32_t i = first; i < last; i++) {
        const size_t start = buffer->n;
        enum moesim_status status = read_file(list->files[i].path, CORPUS_MAX_FILE_BYTES, buffer, err);
        if (!status && words)
            status = check_utf8(list->files[i].path, start, buffer, err);
        if (status)
            return status;
    }
    uint8_t *bytes = moesim_alloc(arena, buffer->n, 1);
    size_t at = 0;
    domain->name = moesim_strdup(arena, list->domains[list->files[first].domain]);
    if (!bytes || !domain->name)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu bytes of text", buffer->n);
    if (words && !words_next(buffer->bytes, buffer->n, &at))
        return moesim_fail(err, MOESIM_EIO, "%s: there is no word in this text", domain->name);
    memcpy(bytes, buffer->bytes, buffer->n);
    domain->bytes = bytes;
    domain->n_bytes = buffer->n;
    domain->n_files = last - first;
    return MOESIM_OK;
}

static enum moesim_status read_all(const struct corpus_list *list, bool words, struct moesim_arena *arena,
                                   struct corpus *corpus, struct moesim_error *err)
{
    corpus->n_domains = list->n_domains;
    corpus->domains = moesim_alloc(arena, list->n_domains, sizeof *corpus->domains);
    corpus->missing = list->missing;
    corpus->hash = MOESIM_HASH_START;
    if (!corpus->domains)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the list of texts");
    struct buffer buffer = {0};
    enum moesim_status status = MOESIM_OK;
    size_t total = 0;
    for (uint32_t first = 0, last; !status && first < list->n_files; first = last) {
        struct corpus_domain *domain = &corpus->domains[list->files[first].domain];
        for (last = first + 1; last < list->n_files && list->files[last].domain == list->files[first].domain; last++)
            ;
        status = read_domain(list, first, last, words, &buffer, arena, domain, err);
        if (!status && (total += domain->n_bytes) > CORPUS_MAX_BYTES)
            status = moesim_fail(err, MOESIM_EINVAL, "the texts pass 1 GiB; name fewer files");
        if (!status)
            corpus->hash = moesim_hash(corpus->hash, domain->bytes, domain->n_bytes);
    }
    free(buffer.bytes);
    return status;
}

enum moesim_status corpus_read(const struct corpus_choice *choice, struct moesim_arena *arena, struct corpus *corpus,
                               struct moesim_error *err)
{
    struct corpus_list list;
    enum moesim_status status = corpus_list_make(choice->files, choice->by, &list, err);
    if (status)
        return status;
    status = read_all(&list, choice->tokens != CORPUS_BYTES, arena, corpus, err);
    corpus_list_free(&list);
    return status;
}

/* ---- words and pieces ---- */

/* What gives ids. */
struct encoder {
    struct buffer list; /* the bytes that a list's words point to */
    struct vocabulary vocabulary;
    struct pieces pieces; /* where tokens are pieces */
};

static void encoder_free(struct encoder *e)
{
    vocabulary_free(&e->vocabulary);
    free(e->list.bytes);
}

static enum moesim_status read_word_list(const struct corpus_choice *choice, struct encoder *e,
                                         struct moesim_error *err)
{
    const char *path = choice->word_list;
    enum moesim_status status = read_file(path, MAX_LIST_BYTES + 1, &e->list, err);
    if (!status && e->list.n > MAX_LIST_BYTES)
        status = moesim_fail(err, MOESIM_EIO, "%s: passes 256 MiB; one word or word piece a line is needed", path);
    if (!status)
        status = vocabulary_of_lines(&e->vocabulary, path, e->list.bytes, e->list.n, err);
    if (!status && choice->tokens == CORPUS_PIECES)
        status = pieces_of_vocabulary(&e->vocabulary, path, &e->pieces, err);
    return status;
}

static enum moesim_status rank_words(const struct corpus *corpus, uint32_t n_ids, struct encoder *e,
                                     struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t d = 0; !status && d < corpus->n_domains; d++)
        status = vocabulary_count(&e->vocabulary, corpus->domains[d].bytes, corpus->domains[d].n_bytes, err);
    return status ? status : vocabulary_rank(&e->vocabulary, n_ids, err);
}

enum moesim_status corpus_count_lines(const struct corpus_choice *choice, uint32_t *n_lines, struct moesim_error *err)
{
    struct encoder e = {0};
    const enum moesim_status status = read_word_list(choice, &e, err);
    *n_lines = (uint32_t)e.vocabulary.n_words;
    encoder_free(&e);
    return status;
}

static enum moesim_status encode_domain(struct corpus_domain *domain, const struct encoder *e,
                                        struct moesim_arena *arena, struct moesim_error *err)
{
    uint32_t *ids = NULL;
    const enum moesim_status status =
        e->pieces.vocabulary
            ? pieces_encode(&e->pieces, domain->bytes, domain->n_bytes, arena, &ids, &domain->n_ids, err)
            : vocabulary_encode(&e->vocabulary, domain->bytes, domain->n_bytes, arena, &ids, &domain->n_ids, err);
    domain->ids = ids;
    return status;
}

static void count_unknown(struct corpus *corpus, uint32_t unknown)
{
    corpus->n_tokens = corpus->n_unknown = 0;
    for (uint32_t d = 0; d < corpus->n_domains; d++) {
        const struct corpus_domain *domain = &corpus->domains[d];
        corpus->n_tokens += domain->n_ids;
        for (size_t i = 0; i < domain->n_ids; i++)
            corpus->n_unknown += domain->ids[i] == unknown;
    }
}

/* Notes what every id stands for; the bytes are copied, those of a list are gone soon. */
static enum moesim_status keep_words(struct corpus *corpus, const struct encoder *e, uint32_t n_ids,
                                     struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t first = e->pieces.vocabulary != NULL; /* pieces have ids from 0 on */
    corpus->word = moesim_alloc(arena, n_ids, sizeof *corpus->word);
    for (size_t i = 0; corpus->word && i < e->vocabulary.room; i++) {
        const struct vocabulary_word *word = &e->vocabulary.table[i];
        if (!word->bytes || !word->id || word->id - first >= n_ids)
            continue;
        uint8_t *bytes = moesim_alloc(arena, word->length, 1);
        if (!bytes)
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u words", n_ids);
        memcpy(bytes, word->bytes, word->length);
        corpus->word[word->id - first] = (struct corpus_word){bytes, word->length};
    }
    return corpus->word ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for %u words", n_ids);
}

enum moesim_status corpus_encode(struct corpus *corpus, const struct corpus_choice *choice, uint32_t n_ids,
                                 struct moesim_arena *arena, struct moesim_error *err)
{
    struct encoder e = {0};
    enum moesim_status status =
        *choice->word_list ? read_word_list(choice, &e, err) : rank_words(corpus, n_ids, &e, err);
    for (uint32_t d = 0; !status && d < corpus->n_domains; d++)
        status = encode_domain(&corpus->domains[d], &e, arena, err);
    if (!status)
        status = keep_words(corpus, &e, n_ids, arena, err);
    if (!status)
        count_unknown(corpus, e.pieces.unknown); /* 0 of words */
    encoder_free(&e);
    return status;
}

size_t corpus_byte_of(const struct corpus *corpus, const struct corpus_domain *domain, size_t i)
{
    if (!domain->ids)
        return i;
    if (i >= domain->n_ids)
        return domain->n_bytes;
    size_t at = 0, length = 0;
    for (size_t t = 0; t <= i; t++) {
        const struct corpus_word *word = &corpus->word[domain->ids[t]];
        if (!pieces_is_inside(word->bytes, word->length))
            length = words_next(domain->bytes, domain->n_bytes, &at);
    }
    return at - length;
}

void corpus_describe(const struct corpus *corpus, char *text, size_t size)
{
    size_t n = 0;
    for (uint32_t d = 0; d < corpus->n_domains && n < size; d++) {
        const struct corpus_domain *domain = &corpus->domains[d];
        n += (size_t)snprintf(text + n, size - n, "%s%s (%u file%s, %zu bytes)", d ? ", " : "", domain->name,
                              domain->n_files, domain->n_files == 1 ? "" : "s", domain->n_bytes);
    }
    if (n < size)
        n += (size_t)snprintf(text + n, size - n, "; hash %016llx", (unsigned long long)corpus->hash);
    if (n < size && corpus->word)
        n += (size_t)snprintf(text + n, size - n, "; %zu tokens, %.3g %% unknown", corpus->n_tokens,
                              100 * (double)corpus->n_unknown / (double)corpus->n_tokens);
    if (n < size && corpus->missing[0])
        snprintf(text + n, size - n, "; %s", corpus->missing);
}
