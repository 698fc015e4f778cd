/*
 * Words: UTF-8 against its definition, and what a word is in scripts of several kinds.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "workloads/vocabulary.h"
#include "workloads/words.h"

TestSuite(words, .timeout = 60);

/* The words, each followed by '|'. */
static const char *split(const char *text)
{
    static char out[1024];
    size_t at = 0, n = 0;
    for (size_t length; (length = words_next((const uint8_t *)text, strlen(text), &at)); out[n++] = '|') {
        memcpy(out + n, text + at - length, length);
        n += length;
    }
    cr_assert_eq(at, strlen(text));
    out[n] = '\0';
    return out;
}

Test(words, in_many_scripts)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", ""},
        {" \n\t\r", ""},
        {"The cat's mat.", "The|cat|'|s|mat|.|"},
        {"for(i=0;i<n_x;++i)", "for|(|i|=|0|;|i|<|n_x|;|+|+|i|)|"},
        {"größer als ½ €", "größer|als|½|€|"},
        {"Ёлка — «да»", "Ёлка|—|«|да|»|"},
        {"Ελληνικά, ναι;", "Ελληνικά|,|ναι|;|"},
        {"العربية، نعم", "العربية|،|نعم|"},
        {"हिन्दी में।", "हिन्दी|में|।|"},
        {"漢字とカナ。", "漢|字|と|カ|ナ|。|"},
        {"한국어 문장", "한국어|문장|"},
        {"ภาษ", "ภ|า|ษ|"},
        {"a\xc2\xa0"
         "b\xe3\x80\x80"
         "c\xef\xbb\xbf"
         "d",
         "a|b|c|d|"},
        {"🙂x🙂🙂", "🙂|x|🙂|🙂|"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_str_eq(split(cases[i].text), cases[i].words, "%s", cases[i].text);
}

/* RFC 3629 from its table: writes the character of a code point. */
static size_t encode(uint32_t code, uint8_t *out)
{
    const size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t head[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n; i-- > 0; code >>= 6)
        out[i] = (uint8_t)(i ? 0x80 | (code & 0x3f) : head[n] | code);
    return n;
}

Test(words, utf8_is_what_encodes_a_code_point)
{
    uint8_t text[8];
    for (uint32_t code = 0; code < 0x110000; code++) {
        const size_t n = encode(code, text);
        const bool surrogate = code >= 0xd800 && code < 0xe000;
        cr_assert_eq(words_check_utf8(text, n), surrogate ? 0 : n, "U+%04X", code);
        for (size_t cut = 1; cut < n; cut++)
            cr_assert_eq(words_check_utf8(text, cut), 0, "U+%04X cut", code);
    }
    for (uint32_t three = 0; three < 1u << 24;
         three++) { /* all of three bytes: is it what some code points encode to? */
        const uint8_t in[3] = {(uint8_t)(three >> 16), (uint8_t)(three >> 8), (uint8_t)three};
        const uint32_t a = in[0], b = in[1] & 0x3f, c = in[2] & 0x3f;
        const uint32_t code = a < 0x80 ? a : a < 0xe0 ? (a & 0x1f) << 6 | b : (a & 0xf) << 12 | b << 6 | c;
        const size_t n = a < 0xf0 ? encode(code, text) : 4;
        const bool valid = n <= 3 && memcmp(text, in, n) == 0 && !(code >= 0xd800 && code < 0xe000);
        cr_assert_eq(words_check_utf8(in, 3) > 0, valid, "%06x", three);
    }
    cr_assert_eq(words_check_utf8((const uint8_t *)"ab\xc3\xa9\xf4\x90\x80\x80", 8), 4, "above 10FFFF");
    cr_assert_eq(words_check_utf8((const uint8_t *)"\xf8\x88\x80\x80\x80", 5), 0, "five bytes");
}

enum { N_TYPES = 500, N_WORDS = 30000 };

/* Ids by counting each word anew. */
Test(words, vocabulary_against_counting)
{
    static char text[N_WORDS * 8];
    static uint32_t type[N_WORDS], count[N_TYPES], expected[N_TYPES];
    const struct moesim_random random = {1, MOESIM_STREAM_TEST, 0, 0};
    size_t n = 0;
    for (uint32_t i = 0; i < N_WORDS; i++) {
        const uint32_t below = 1 + moesim_random_below(&random, 2 * i, N_TYPES);
        type[i] = moesim_random_below(&random, 2 * i + 1, below);
        count[type[i]]++;
        n += (size_t)sprintf(text + n, "w%03u ", type[i]);
    }
    for (uint32_t a = 0; a < N_TYPES; a++) {
        uint32_t before = 0;
        for (uint32_t b = 0; b < N_TYPES; b++)
            before += count[b] > count[a] || (count[b] == count[a] && b < a);
        expected[a] = before + 1 < 100 ? before + 1 : 0;
    }
    struct moesim_arena *arena = moesim_arena_create(0);
    struct vocabulary v = {0};
    struct moesim_error err;
    uint32_t *ids;
    size_t n_ids;
    cr_assert_eq(vocabulary_count(&v, (const uint8_t *)text, n, &err), MOESIM_OK);
    cr_assert_eq(vocabulary_rank(&v, 100, &err), MOESIM_OK);
    cr_assert_eq(vocabulary_encode(&v, (const uint8_t *)text, n, arena, &ids, &n_ids, &err), MOESIM_OK);
    cr_assert_eq(n_ids, N_WORDS);
    for (uint32_t i = 0; i < N_WORDS; i++)
        cr_assert_eq(ids[i], expected[type[i]], "word %u", i);
    vocabulary_free(&v);
    cr_assert_eq(vocabulary_encode(&v, (const uint8_t *)"of none", 7, arena, &ids, &n_ids, &err), MOESIM_OK);
    cr_assert(n_ids == 2 && ids[0] == 0 && ids[1] == 0);
    moesim_arena_destroy(arena);
}
