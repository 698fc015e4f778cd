/* SPDX-License-Identifier: MIT
 *
 * Parameter schemas: strict parsing into the field a row describes, its text form, and the nearest word for a typing
 * error.
 */
#include <moesim/param.h>

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct moesim_param *moesim_schema_row(struct moesim_schema schema, uint32_t i)
{
    if (!schema.rows)
        return NULL;
    const char *row = (const char *)schema.rows;
    for (; ((const struct moesim_param *)(const void *)row)->key; row += schema.stride)
        if (i-- == 0)
            return (const struct moesim_param *)(const void *)row;
    return NULL;
}

const struct moesim_param *moesim_schema_find(struct moesim_schema schema, const char *key)
{
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)) != NULL; i++)
        if (strcmp(row->key, key) == 0)
            return row;
    return NULL;
}

/* ---- text to value ---- */

static enum moesim_status not_a(struct moesim_error *err, const struct moesim_param *row, const char *text,
                                const char *what)
{
    return moesim_fail(err, MOESIM_EINVAL, "%s = '%.80s' is not %s", row->key, text, what);
}

static enum moesim_status out_of_range(struct moesim_error *err, const struct moesim_param *row, const char *text)
{
    return moesim_fail(err, MOESIM_EINVAL, "%s = %.80s is outside %.15g..%.15g", row->key, text, row->min, row->max);
}

/* -?[0-9]+, then .[0-9]* and e[+-]?[0-9]+ where `real`: what strtod would also take (blanks, hex, inf, nan) is refused.
 */
static bool is_number(const char *text, bool real)
{
    const char *c = text + (*text == '-' || *text == '+');
    const size_t whole = strspn(c, "0123456789");
    c += whole;
    size_t digits = whole;
    if (real && *c == '.') {
        const size_t part = strspn(c + 1, "0123456789");
        c += 1 + part;
        digits += part;
    }
    if (!digits)
        return false;
    if (real && (*c == 'e' || *c == 'E')) {
        c += 1 + (c[1] == '-' || c[1] == '+');
        const size_t exponent = strspn(c, "0123456789");
        if (!exponent)
            return false;
        c += exponent;
    }
    return *c == '\0';
}

/* A field is written only when its text is right. */
static enum moesim_status set_whole(const struct moesim_param *row, const char *text, void *field,
                                    struct moesim_error *err)
{
    if (!is_number(text, false))
        return not_a(err, row, text, "a whole number");
    const bool negative = *text == '-', wide = row->type == MOESIM_TYPE_SIZE;
    errno = 0;
    const uint64_t value = strtoull(text + (negative || *text == '+'), NULL, 10);
    if (errno == ERANGE || value > (wide ? UINT64_MAX : UINT32_MAX) || (negative && value))
        return out_of_range(err, row, text);
    if ((double)value < row->min || (double)value > row->max)
        return out_of_range(err, row, text);
    if (wide)
        *(uint64_t *)field = value;
    else
        *(uint32_t *)field = (uint32_t)value;
    return MOESIM_OK;
}

static enum moesim_status set_real(const struct moesim_param *row, const char *text, double *field,
                                   struct moesim_error *err)
{
    if (!is_number(text, true))
        return not_a(err, row, text, "a number");
    const double value = strtod(text, NULL);
    if (!isfinite(value) || value < row->min || value > row->max)
        return out_of_range(err, row, text);
    *field = value;
    return MOESIM_OK;
}

/* Length of the word at `words`, up to the bar or the end. */
static size_t word_length(const char *words)
{
    return strcspn(words, "|");
}

static enum moesim_status set_choice(const struct moesim_param *row, const char *text, uint32_t *field,
                                     struct moesim_error *err)
{
    const size_t n = strlen(text);
    uint32_t index = 0;
    for (const char *word = row->choices; *word; index++) {
        const size_t length = word_length(word);
        if (length == n && memcmp(word, text, n) == 0) {
            *field = index;
            return MOESIM_OK;
        }
        word += length + (word[length] == '|');
    }
    return moesim_fail(err, MOESIM_EINVAL, "%s = '%.80s' is none of %s", row->key, text, row->choices);
}

static enum moesim_status set_bool(const struct moesim_param *row, const char *text, bool *field,
                                   struct moesim_error *err)
{
    const bool value = strcmp(text, "true") == 0;
    if (!value && strcmp(text, "false") != 0)
        return not_a(err, row, text, "true or false");
    *field = value;
    return MOESIM_OK;
}

static enum moesim_status set_text(const struct moesim_param *row, const char *text, const char **field,
                                   struct moesim_arena *arena, struct moesim_error *err)
{
    const char *copy = moesim_strdup(arena, text);
    if (!copy)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the text of %s", row->key);
    *field = copy;
    return MOESIM_OK;
}

enum moesim_status moesim_param_set(const struct moesim_param *row, const char *text, void *params,
                                    struct moesim_arena *arena, struct moesim_error *err)
{
    void *field = (char *)params + row->offset;
    switch ((enum moesim_param_type)row->type) {
    case MOESIM_TYPE_UINT:
    case MOESIM_TYPE_SIZE:
        return set_whole(row, text, field, err);
    case MOESIM_TYPE_REAL:
        return set_real(row, text, field, err);
    case MOESIM_TYPE_BOOL:
        return set_bool(row, text, field, err);
    case MOESIM_TYPE_CHOICE:
        return set_choice(row, text, field, err);
    case MOESIM_TYPE_TEXT:
    case MOESIM_TYPE_FILE:
        return set_text(row, text, field, arena, err);
    }
    return moesim_fail(err, MOESIM_EBROKEN, "parameter %s has the unknown type %u", row->key, row->type);
}

enum moesim_status moesim_params_default(struct moesim_schema schema, uint32_t top_k, void *params,
                                         struct moesim_arena *arena, struct moesim_error *err)
{
    char number[16];
    snprintf(number, sizeof number, "%u", top_k);
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)) != NULL; i++) {
        const bool is_top_k = row->type <= MOESIM_TYPE_REAL && strcmp(row->def, "top_k") == 0;
        const enum moesim_status status = moesim_param_set(row, is_top_k ? number : row->def, params, arena, err);
        if (status != MOESIM_OK) {
            moesim_error_prefix(err, "default");
            return status;
        }
    }
    return MOESIM_OK;
}

/* ---- value to text ---- */

/* The shorter of 15 and 17 digits that strtod reads back to the same bits. */
static int format_real(double value, char *text, size_t size)
{
    char shorter[40];
    snprintf(shorter, sizeof shorter, "%.15g", value);
    return strtod(shorter, NULL) == value ? snprintf(text, size, "%s", shorter) : snprintf(text, size, "%.17g", value);
}

static int format_choice(const char *choices, uint32_t index, char *text, size_t size)
{
    const char *word = choices;
    for (; index && *word; index--) {
        word += word_length(word);
        word += *word == '|';
    }
    return snprintf(text, size, "%.*s", (int)word_length(word), word);
}

size_t moesim_param_format(const struct moesim_param *row, const void *params, char *text, size_t size)
{
    const void *field = (const char *)params + row->offset;
    int length = 0;
    switch ((enum moesim_param_type)row->type) {
    case MOESIM_TYPE_UINT:
        length = snprintf(text, size, "%u", *(const uint32_t *)field);
        break;
    case MOESIM_TYPE_SIZE:
        length = snprintf(text, size, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case MOESIM_TYPE_REAL:
        length = format_real(*(const double *)field, text, size);
        break;
    case MOESIM_TYPE_BOOL:
        length = snprintf(text, size, "%s", *(const bool *)field ? "true" : "false");
        break;
    case MOESIM_TYPE_TEXT:
    case MOESIM_TYPE_FILE:
        length = snprintf(text, size, "%s", *(const char *const *)field ? *(const char *const *)field : "");
        break;
    case MOESIM_TYPE_CHOICE:
        length = format_choice(row->choices, *(const uint32_t *)field, text, size);
        break;
    }
    return length < 0 ? 0 : (size_t)length;
}

/* ---- what has no effect ---- */

/* The default goes through the user's parser, into a value of its own. */
static bool is_default(const struct moesim_param *row, const void *params)
{
    if (row->type == MOESIM_TYPE_TEXT || row->type == MOESIM_TYPE_FILE)
        return !strcmp(*(const char *const *)(const void *)((const char *)params + row->offset), row->def);
    char is[40], def[40];
    uint64_t value = 0;
    struct moesim_param alone = *row;
    alone.offset = 0;
    if (moesim_param_set(&alone, row->def, &value, NULL, NULL) != MOESIM_OK)
        return true;
    moesim_param_format(row, params, is, sizeof is);
    moesim_param_format(&alone, &value, def, sizeof def);
    return !strcmp(is, def);
}

enum moesim_status moesim_params_unused(struct moesim_schema schema, const void *params, const char *const *keys,
                                        const char *where, struct moesim_error *err)
{
    for (; *keys; keys++)
        if (!is_default(moesim_schema_find(schema, *keys), params))
            return moesim_fail(err, MOESIM_EINVAL, "%s has no effect %s", *keys, where);
    return MOESIM_OK;
}
