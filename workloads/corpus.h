/*
 * A corpus: the bytes, words or word pieces of text files, plain, gzip or xz, by domain.
 */
#ifndef MOESIM_WORKLOADS_CORPUS_H
#define MOESIM_WORKLOADS_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

/* What is read of one file and of a corpus; the rest of a larger file is left out, a larger corpus refused. */
#define CORPUS_MAX_FILE_BYTES ((size_t)8 << 20)
#define CORPUS_MAX_BYTES ((size_t)1 << 30)
#define CORPUS_MAX_FILES 32768u
#define CORPUS_MAX_DEPTH 32u /* of directories below a path */

/* How named paths become domains. */
#define CORPUS_DOMAIN_CHOICES "path|file|directory"
enum corpus_domains {
    CORPUS_BY_PATH, /* each path given, a directory with all that is below it */
    CORPUS_BY_FILE,
    CORPUS_BY_DIRECTORY, /* each directory in a path given, and what lies in the path itself */
};

/* What a token is. */
#define CORPUS_TOKEN_CHOICES "byte|word|piece"
enum corpus_tokens { CORPUS_BYTES, CORPUS_WORDS, CORPUS_PIECES };

/* Which texts, and how they become tokens. */
struct corpus_choice {
    const char *files;         /* comma-separated files and directories; "" = what Debian machines have */
    enum corpus_domains by;    /* of named files */
    enum corpus_tokens tokens; /* all but bytes refuse what is no UTF-8 and a domain without a word */
    const char *word_list;     /* a file of one word or piece a line; "" = words by frequency */
};

struct corpus_domain {
    const char *name;
    const uint8_t *bytes; /* [n_bytes] its files one after the other, by name */
    const uint32_t *ids;  /* [n_ids] of words or pieces, once corpus_encode has made them; else NULL */
    size_t n_bytes, n_ids;
    uint32_t n_files;
};

/* Its tokens: words or pieces, or bytes where there are none. */
static inline size_t corpus_n_tokens(const struct corpus_domain *domain)
{
    return domain->ids ? domain->n_ids : domain->n_bytes;
}

static inline uint32_t corpus_token(const struct corpus_domain *domain, size_t i)
{
    return domain->ids ? domain->ids[i] : domain->bytes[i];
}

/* The bytes that an id stands for, of a piece its line; none for the id of all other words. */
struct corpus_word {
    const uint8_t *bytes;
    uint32_t length;
};

struct corpus {
    uint32_t n_domains;
    struct corpus_domain *domains; /* [n_domains] */
    struct corpus_word *word;      /* [n_ids], once corpus_encode has made them; else NULL */
    const char *missing;           /* a sentence about what the built-in choice lacks, or "" */
    size_t n_tokens, n_unknown;    /* of words or pieces: all, and those of the id that stands for unknown words */
    uint64_t hash;                 /* of all bytes */
};

/* Reads everything into `arena`. MOESIM_EIO names the file that is unreadable, empty, no regular file, damaged when
 * unpacked, or (but for bytes) the byte that is no UTF-8 or the domain without a word. */
MOESIM_MUST_CHECK enum moesim_status corpus_read(const struct corpus_choice *choice, struct moesim_arena *arena,
                                                 struct corpus *corpus, struct moesim_error *err);

/* Makes the choice's words or pieces of the texts. Words: the `n_ids` - 1 most frequent ones of all domains together
 * get ids from 1 on, all others 0; with a word_list that of line i (from 1) gets id i instead. Pieces: the ids of
 * pieces_encode. */
MOESIM_MUST_CHECK enum moesim_status corpus_encode(struct corpus *corpus, const struct corpus_choice *choice,
                                                   uint32_t n_ids, struct moesim_arena *arena,
                                                   struct moesim_error *err);

/* Where in its text a domain's token i is, of a piece the word's first byte; n_bytes for the end. Goes through the
 * text. */
size_t corpus_byte_of(const struct corpus *corpus, const struct corpus_domain *domain, size_t i);

/* How many words or pieces the choice's word_list has. */
MOESIM_MUST_CHECK enum moesim_status corpus_count_lines(const struct corpus_choice *choice, uint32_t *n_lines,
                                                        struct moesim_error *err);

/* One line: files, bytes and names of the domains, the hash, how many words or pieces are unknown, and what is missing.
 */
void corpus_describe(const struct corpus *corpus, char *text, size_t size);

#endif
