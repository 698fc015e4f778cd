/*
 * Code points by kind: ASCII by comparison, the others by ranges in a table; what is in none of them is a letter.
 */
#include "workloads/words.h"

#include <stdbool.h>

enum kind { LETTER, SIGN, BLANK };

static const struct {
    uint32_t first, last;
    enum kind kind; /* SIGN: a word of its own */
} ranges[] = {
    {0x0080, 0x00a0, BLANK}, {0x00a1, 0x00a9, SIGN},  {0x00ab, 0x00b1, SIGN},   {0x00b4, 0x00b4, SIGN},
    {0x00b6, 0x00b8, SIGN},  {0x00bb, 0x00bf, SIGN},  {0x00d7, 0x00d7, SIGN},   {0x00f7, 0x00f7, SIGN},
    {0x037e, 0x037e, SIGN},  {0x055a, 0x055f, SIGN},  {0x0589, 0x058a, SIGN},   {0x05be, 0x05be, SIGN},
    {0x05f3, 0x05f4, SIGN},  {0x060c, 0x060d, SIGN},  {0x061b, 0x061f, SIGN},   {0x066a, 0x066d, SIGN},
    {0x06d4, 0x06d4, SIGN},  {0x0964, 0x0965, SIGN},  {0x0e00, 0x0fff, SIGN},   {0x1000, 0x109f, SIGN},
    {0x1360, 0x1368, SIGN},  {0x1680, 0x1680, BLANK}, {0x1780, 0x17ff, SIGN},   {0x1800, 0x180a, SIGN},
    {0x2000, 0x200b, BLANK}, {0x2010, 0x2027, SIGN},  {0x2028, 0x202f, BLANK},  {0x2030, 0x205e, SIGN},
    {0x205f, 0x2064, BLANK}, {0x20a0, 0x20cf, SIGN},  {0x2190, 0x2bff, SIGN},   {0x2e00, 0x2fff, SIGN},
    {0x3000, 0x3000, BLANK}, {0x3001, 0x312f, SIGN},  {0x31a0, 0x9fff, SIGN},   {0xa000, 0xa4cf, SIGN},
    {0xd800, 0xdfff, SIGN},  {0xe000, 0xfaff, SIGN},  {0xfe10, 0xfe1f, SIGN},   {0xfe30, 0xfe6f, SIGN},
    {0xfeff, 0xfeff, BLANK}, {0xff00, 0xff0f, SIGN},  {0xff1a, 0xff20, SIGN},   {0xff3b, 0xff40, SIGN},
    {0xff5b, 0xff9f, SIGN},  {0xffe0, 0xffff, SIGN},  {0x1f000, 0x1faff, SIGN}, {0x20000, 0x3ffff, SIGN},
};
enum { N_RANGES = sizeof ranges / sizeof *ranges };

static enum kind kind_of_ascii(uint32_t code)
{
    if ((code | 0x20) - 'a' < 26 || code - '0' < 10 || code == '_')
        return LETTER;
    return code <= ' ' || code == 0x7f ? BLANK : SIGN;
}

static enum kind kind_of(uint32_t code)
{
    if (code < 0x80)
        return kind_of_ascii(code);
    uint32_t first = 0, last = N_RANGES;
    while (first < last) {
        const uint32_t middle = (first + last) / 2;
        if (ranges[middle].last < code)
            first = middle + 1;
        else
            last = middle;
    }
    return first < N_RANGES && ranges[first].first <= code ? ranges[first].kind : LETTER;
}

/* Bytes of the character at text, of n > 0 that are left, and its code point; 0 when it is none. */
static uint32_t decode(const uint8_t *text, size_t n, uint32_t *code)
{
    const uint32_t head = *code = text[0];
    if (head < 0x80)
        return 1;
    const uint32_t length = head < 0xc2 ? 0 : head < 0xe0 ? 2 : head < 0xf0 ? 3 : head < 0xf5 ? 4 : 0;
    if (!length || length > n)
        return 0;
    *code = head & (0x7fu >> length);
    for (uint32_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80)
            return 0;
        *code = *code << 6 | (text[i] & 0x3fu);
    }
    const bool overlong = (length == 3 && *code < 0x800) || (length == 4 && *code < 0x10000);
    return overlong || *code > 0x10ffff || (*code >= 0xd800 && *code < 0xe000) ? 0 : length;
}

size_t words_check_utf8(const uint8_t *text, size_t n)
{
    size_t at = 0;
    for (uint32_t length, code; at < n && (length = decode(text + at, n - at, &code)); at += length)
        ;
    return at;
}

size_t words_next(const uint8_t *text, size_t n, size_t *at)
{
    size_t start = *at;
    uint32_t code, length = 0;
    enum kind kind = BLANK;
    while (start < n && (length = decode(text + start, n - start, &code)) && (kind = kind_of(code)) == BLANK)
        start += length;
    *at = start < n ? start + length : n;
    if (kind == LETTER && start < n)
        while (*at < n && (length = decode(text + *at, n - *at, &code)) && kind_of(code) == LETTER)
            *at += length;
    return *at - start;
}
