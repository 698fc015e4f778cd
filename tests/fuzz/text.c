/*
 * libFuzzer target for the readers of text: unpacking, UTF-8 and words, lists of words and of word pieces, word
 * vectors. Every input is a file for each of them; a list of pieces cuts itself.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workloads/corpus.h"
#include "workloads/embedding.h"
#include "workloads/pieces.h"
#include "workloads/unpack.h"
#include "workloads/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *as_file(const uint8_t *data, size_t size)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("input", 0);
    assert(fd >= 0 && ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return path;
}

/* Words lie in the text one after the other, and each of them is UTF-8. */
static void check_words(const struct corpus_domain *domain)
{
    size_t n = 0;
    for (size_t at = 0, end = 0, length; (length = words_next(domain->bytes, domain->n_bytes, &at)); n++) {
        assert(at - length >= end && at <= domain->n_bytes);
        assert(words_check_utf8(domain->bytes + at - length, length) == length);
        end = at;
    }
    assert(n == domain->n_ids);
}

/* A word's pieces, without their marks, are the word, or it is the one piece of all unknown words. */
static void check_pieces(const struct corpus *corpus, uint32_t n_ids)
{
    const struct corpus_domain *domain = &corpus->domains[0];
    const size_t mark = sizeof PIECES_MARK - 1;
    size_t i = 0;
    for (size_t at = 0, length; (length = words_next(domain->bytes, domain->n_bytes, &at)); i++) {
        const uint8_t *word = domain->bytes + at - length;
        assert(i < domain->n_ids && domain->ids[i] < n_ids);
        const struct corpus_word *piece = &corpus->word[domain->ids[i]];
        if (piece->length == sizeof PIECES_UNKNOWN - 1 && !memcmp(piece->bytes, PIECES_UNKNOWN, piece->length))
            continue;
        assert(piece->length <= length && !memcmp(piece->bytes, word, piece->length));
        for (size_t done = piece->length; done < length; done += piece->length - mark) {
            assert(++i < domain->n_ids && domain->ids[i] < n_ids);
            piece = &corpus->word[domain->ids[i]];
            assert(piece->length > mark && piece->length - mark <= length - done);
            assert(!memcmp(piece->bytes, PIECES_MARK, mark));
            assert(!memcmp(piece->bytes + mark, word + done, piece->length - mark));
        }
    }
    assert(i == domain->n_ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = as_file(data, size);
    struct moesim_arena *arena = moesim_arena_create((size_t)64 << 20);
    struct moesim_error err = {""};
    struct corpus corpus;
    uint32_t n_lines;
    struct corpus_choice choice = {path, CORPUS_BY_PATH, CORPUS_WORDS, ""};
    const bool is_text = corpus_read(&choice, arena, &corpus, &err) == MOESIM_OK;
    if (is_text) {
        assert(corpus_encode(&corpus, &choice, 100, arena, &err) == MOESIM_OK);
        check_words(&corpus.domains[0]);
        for (size_t i = 0; i < corpus.domains[0].n_ids; i++)
            assert(corpus.domains[0].ids[i] < 100);
    } else {
        assert(err.text[0]);
    }
    struct word_vectors vectors = {.scale = 0};
    if (word_vectors_open(path, &vectors, &err) == MOESIM_OK) {
        assert(vectors.scale > 0);
        word_vectors_close(&vectors);
    }
    choice.word_list = path;
    assert(corpus_count_lines(&choice, &n_lines, &err) == MOESIM_OK || err.text[0]);
    choice.tokens = CORPUS_PIECES;
    if (corpus_count_lines(&choice, &n_lines, &err) == MOESIM_OK && is_text) {
        assert(corpus_encode(&corpus, &choice, n_lines, arena, &err) == MOESIM_OK);
        check_pieces(&corpus, n_lines);
    }
    moesim_arena_destroy(arena);
    return 0;
}
