/*
 * Words of UTF-8 text in any script.
 */
#ifndef MOESIM_WORKLOADS_WORDS_H
#define MOESIM_WORKLOADS_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that is not UTF-8 (RFC 3629: no overlong forms, surrogates or code points past 10FFFF), or
 * n. A character that the end cuts off counts as wrong. */
size_t words_check_utf8(const uint8_t *text, size_t n);

/* Finds the next word of valid UTF-8 from *at on; returns its length, 0 at the end, and leaves *at behind it (the word
 * is text + *at - length). A word is a run of letters, digits, marks and '_'; or one sign; or one character of a script
 * that does not put blanks between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan). Blanks and controls
 * are no words. The rule is a table here, so that no locale decides. */
size_t words_next(const uint8_t *text, size_t n, size_t *at);

#endif
