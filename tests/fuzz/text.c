/*
 * libFuzzer target for the readers of text: unpacking, UTF-8 and words, lists of words, word vectors. Every input is a
 * file for each of them.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "workloads/corpus.h"
#include "workloads/embedding.h"
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
    assert(n == domain->n_words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *path = as_file(data, size);
    struct moesim_arena *arena = moesim_arena_create((size_t)64 << 20);
    struct moesim_error err = {""};
    struct corpus corpus;
    uint32_t n_lines;
    if (corpus_read(&(struct corpus_choice){path, CORPUS_BY_PATH, true}, arena, &corpus, &err) == MOESIM_OK) {
        assert(corpus_encode(&corpus, NULL, 100, arena, &err) == MOESIM_OK);
        check_words(&corpus.domains[0]);
        for (size_t i = 0; i < corpus.domains[0].n_words; i++)
            assert(corpus.domains[0].words[i] < 100);
    } else {
        assert(err.text[0]);
    }
    struct word_vectors vectors = {.scale = 0};
    if (word_vectors_open(path, &vectors, &err) == MOESIM_OK) {
        assert(vectors.scale > 0);
        word_vectors_close(&vectors);
    }
    assert(corpus_count_lines(path, &n_lines, &err) == MOESIM_OK || err.text[0]);
    moesim_arena_destroy(arena);
    return 0;
}
