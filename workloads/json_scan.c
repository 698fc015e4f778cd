/*
 * A pull reader of JSON over bytes in memory.
 */
#include "workloads/json_scan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum moesim_status scan_wrong(const struct scan *j, const char *what)
{
    return moesim_fail(j->err, MOESIM_EIO, "%.300s: byte %zu: %s", j->path, (size_t)(j->at - j->start), what);
}

static void skip_blanks(struct scan *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\n' || *j->at == '\r' || *j->at == '\t'))
        j->at++;
}

enum scan_type scan_peek(struct scan *j)
{
    skip_blanks(j);
    if (j->at == j->end)
        return SCAN_END;
    switch (*j->at) {
    case '{':
        return SCAN_OBJECT;
    case '[':
        return SCAN_ARRAY;
    case '"':
        return SCAN_STRING;
    case '-':
        return j->end - j->at > 1 && j->at[1] == 'I' ? SCAN_WORD : SCAN_NUMBER;
    default:
        if (*j->at >= '0' && *j->at <= '9')
            return SCAN_NUMBER;
        return strchr("tfnNI", *j->at) && *j->at ? SCAN_WORD : SCAN_OTHER;
    }
}

static bool take(struct scan *j, char c)
{
    skip_blanks(j);
    if (j->at == j->end || *j->at != c)
        return false;
    j->at++;
    return true;
}

enum moesim_status scan_open(struct scan *j, enum scan_type type, struct scan_walk *walk)
{
    *walk = (struct scan_walk){.more = true};
    if (take(j, type == SCAN_OBJECT ? '{' : '['))
        return MOESIM_OK;
    return scan_wrong(j, type == SCAN_OBJECT ? "an object {...} was expected" : "an array [...] was expected");
}

/* Before each member or element: the comma, or the end. */
static enum moesim_status step(struct scan *j, struct scan_walk *walk, char close)
{
    if (take(j, close)) {
        walk->more = false;
        return MOESIM_OK;
    }
    if (walk->begun && !take(j, ','))
        return scan_wrong(j, j->at == j->end ? "the text ends in the middle of a value: it is cut off"
                                             : "a comma or the closing bracket was expected");
    walk->begun = true;
    return MOESIM_OK;
}

enum moesim_status scan_element(struct scan *j, struct scan_walk *walk)
{
    return step(j, walk, ']');
}

enum moesim_status scan_member(struct scan *j, struct scan_walk *walk, struct scan_text *key)
{
    enum moesim_status status = step(j, walk, '}');
    if (status || !walk->more)
        return status;
    status = scan_string(j, key);
    if (!status && !take(j, ':'))
        status = scan_wrong(j, "a colon was expected after the key");
    return status;
}

enum moesim_status scan_string(struct scan *j, struct scan_text *text)
{
    if (!take(j, '"'))
        return scan_wrong(j, j->at == j->end ? "the text ends in the middle of a value: it is cut off"
                                             : "a string in double quotes was expected");
    text->at = j->at;
    for (; j->at < j->end && *j->at != '"'; j->at++) {
        if ((unsigned char)*j->at < 0x20)
            return scan_wrong(j, "a control character inside a string");
        if (*j->at == '\\' && j->end - j->at > 1)
            j->at++;
    }
    if (j->at >= j->end)
        return scan_wrong(j, "a string is not closed: the text is cut off");
    text->n = (size_t)(j->at - text->at);
    j->at++;
    return MOESIM_OK;
}

static bool is_separator(char c)
{
    return c == ',' || c == ']' || c == '}' || c == ':' || c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '\0';
}

/* The bytes up to the next separator, ended, for strtod; longer than any number that a program writes is wrong. */
static size_t copy_token(const struct scan *j, char token[48])
{
    size_t n = 0;
    while (n < 47 && j->at + n < j->end && !is_separator(j->at[n]))
        n++;
    memcpy(token, j->at, n);
    token[n] = '\0';
    return n;
}

/* Digits alone, the common case; false where it is anything else. */
static bool take_digits(struct scan *j, double *value)
{
    const char *at = j->at;
    uint64_t n = 0;
    while (at < j->end && at - j->at < 15 && *at >= '0' && *at <= '9')
        n = n * 10 + (uint64_t)(*at++ - '0');
    if (at == j->at || (at < j->end && !is_separator(*at)) || (*j->at == '0' && at - j->at > 1))
        return false;
    j->at = at;
    *value = (double)n;
    return true;
}

enum moesim_status scan_number(struct scan *j, double *value)
{
    char token[48], *end;
    skip_blanks(j);
    if (take_digits(j, value))
        return MOESIM_OK;
    const size_t n = copy_token(j, token);
    if (!strcmp(token, "NaN") || !strcmp(token, "null") || !strcmp(token, "Infinity") || !strcmp(token, "-Infinity")) {
        *value = NAN;
        j->at += n;
        return MOESIM_OK;
    }
    const char *digits = token + (token[0] == '-');
    if (*digits < '0' || *digits > '9' || (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9') ||
        strpbrk(token, "xXpP"))
        return scan_wrong(j, n == 0 && j->at == j->end ? "the text ends in the middle of a value: it is cut off"
                                                       : "a number was expected");
    *value = strtod(token, &end);
    if (*end || !isfinite(*value) || end[-1] == '.')
        return scan_wrong(j, "this is no number");
    j->at += n;
    return MOESIM_OK;
}

enum moesim_status scan_whole(struct scan *j, const char *what, int64_t *value)
{
    double number;
    skip_blanks(j);
    struct scan before = *j;
    const enum moesim_status status = scan_number(j, &number);
    if (status)
        return status;
    if (!(number >= -1 && number <= 0x1p53) || floor(number) != number) {
        *j = before;
        return moesim_fail(j->err, MOESIM_EIO, "%.300s: byte %zu: %s should be a whole number", j->path,
                           (size_t)(j->at - j->start), what);
    }
    *value = (int64_t)number;
    return MOESIM_OK;
}

static enum moesim_status skip_scalar(struct scan *j)
{
    struct scan_text text;
    double number;
    char token[48];
    switch (scan_peek(j)) {
    case SCAN_STRING:
        return scan_string(j, &text);
    case SCAN_NUMBER: /* what it is worth nobody asks */
        while (j->at < j->end && ((*j->at >= '0' && *j->at <= '9') || (*j->at && strchr("+-.eE", *j->at))))
            j->at++;
        return j->at == j->end || is_separator(*j->at) ? MOESIM_OK : scan_wrong(j, "this is no number");
    case SCAN_WORD: {
        const size_t n = copy_token(j, token);
        if (!strcmp(token, "true") || !strcmp(token, "false")) {
            j->at += n;
            return MOESIM_OK;
        }
        return scan_number(j, &number);
    }
    case SCAN_END:
        return scan_wrong(j, "the text ends in the middle of a value: it is cut off");
    default:
        return scan_wrong(j, "a value was expected");
    }
}

/* Skips a value with a stack of what is open, so that depth costs a byte. */
enum moesim_status scan_skip(struct scan *j)
{
    struct scan_walk walk[SCAN_MAX_DEPTH];
    bool object[SCAN_MAX_DEPTH];
    struct scan_text key;
    uint32_t depth = 0;
    enum moesim_status status = MOESIM_OK;
    do {
        const enum scan_type type = scan_peek(j);
        if (type == SCAN_OBJECT || type == SCAN_ARRAY) {
            if (depth == SCAN_MAX_DEPTH)
                return scan_wrong(j, "values are nested more than 64 deep");
            object[depth] = type == SCAN_OBJECT;
            status = scan_open(j, type, &walk[depth++]);
        } else {
            status = skip_scalar(j);
        }
        while (!status && depth) { /* to the next value, or out of what ends here */
            struct scan_walk *w = &walk[depth - 1];
            status = object[depth - 1] ? scan_member(j, w, &key) : scan_element(j, w);
            if (status || w->more)
                break;
            depth--;
        }
    } while (!status && depth);
    return status;
}

uint32_t scan_array_depth(struct scan j)
{
    uint32_t depth = 0;
    while (take(&j, '['))
        depth++;
    return depth;
}

bool scan_is(struct scan_text text, const char *word)
{
    return strlen(word) == text.n && memcmp(text.at, word, text.n) == 0;
}

bool scan_is_one_of(struct scan_text text, const char *words)
{
    while (*words) {
        const size_t n = strcspn(words, "|");
        if (n == text.n && memcmp(text.at, words, n) == 0)
            return true;
        words += n + (words[n] == '|');
    }
    return false;
}
