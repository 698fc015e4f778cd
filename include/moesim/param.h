/* SPDX-License-Identifier: MIT
 *
 * Parameters as data: one table parses, bounds, describes and labels the fields of a params struct.
 * The C field's name is the config key is the stored label is the plot's axis.
 */
#ifndef MOESIM_PARAM_H
#define MOESIM_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

enum moesim_param_type {
    MOESIM_TYPE_UINT,   /* uint32_t */
    MOESIM_TYPE_SIZE,   /* uint64_t */
    MOESIM_TYPE_REAL,   /* double */
    MOESIM_TYPE_BOOL,   /* bool: true or false */
    MOESIM_TYPE_TEXT,   /* const char *, owned by the arena that parsed it; "" when not given */
    MOESIM_TYPE_CHOICE, /* uint32_t: index into the words of `choices` ("a|b|c") */
    MOESIM_TYPE_FILE,   /* const char *: a file's name, "" = none; the host reads its numbers into env->files */
};

/* One row of a schema. The default is text that goes through the user's own parser; the word "top_k"
 * as a default of a number means the model's experts per token. */
struct moesim_param {
    const char *key;
    const char *def;
    const char *choices; /* MOESIM_TYPE_CHOICE only */
    const char *help;    /* meaning and unit, one line */
    double min, max;     /* inclusive bounds of a number */
    uint32_t offset;     /* of the field in the params struct */
    uint32_t type;       /* enum moesim_param_type */
};

/* The type comes from the field itself, so table and struct cannot disagree. */
#define MOESIM_PARAM_TYPE(type, field)                                                                                 \
    _Generic(((type *)0)->field,                                                                                       \
        uint32_t: MOESIM_TYPE_UINT,                                                                                    \
        uint64_t: MOESIM_TYPE_SIZE,                                                                                    \
        double: MOESIM_TYPE_REAL,                                                                                      \
        bool: MOESIM_TYPE_BOOL,                                                                                        \
        const char *: MOESIM_TYPE_TEXT)

/* A row for `field` of `struct_type`; text and booleans take 0, 0 as bounds. */
#define MOESIM_PARAM(struct_type, field, def_, min_, max_, help_)                                                      \
    {                                                                                                                  \
        .key = #field, .def = (def_), .help = (help_), .min = (min_), .max = (max_),                                   \
        .offset = (uint32_t)offsetof(struct_type, field), .type = MOESIM_PARAM_TYPE(struct_type, field)                \
    }

/* A row for a uint32_t field that holds the index of one of the words in "a|b|c". */
#define MOESIM_CHOICE(struct_type, field, def_, choices_, help_)                                                       \
    {                                                                                                                  \
        .key = #field, .def = (def_), .choices = (choices_), .help = (help_),                                          \
        .offset = (uint32_t)offsetof(struct_type, field), .type = MOESIM_TYPE_CHOICE                                   \
    }

/* The same for a field of a struct embedded as `member`; the key is still the field's own name. */
#define MOESIM_PARAM_IN(struct_type, member, field, def_, min_, max_, help_)                                           \
    {                                                                                                                  \
        .key = #field, .def = (def_), .help = (help_), .min = (min_), .max = (max_),                                   \
        .offset = (uint32_t)offsetof(struct_type, member.field), .type = MOESIM_PARAM_TYPE(struct_type, member.field)  \
    }
#define MOESIM_CHOICE_IN(struct_type, member, field, def_, choices_, help_)                                            \
    {                                                                                                                  \
        .key = #field, .def = (def_), .choices = (choices_), .help = (help_),                                          \
        .offset = (uint32_t)offsetof(struct_type, member.field), .type = MOESIM_TYPE_CHOICE                            \
    }

/* A row for a const char * field that names a file of numbers (.npy); the default is no file. */
#define MOESIM_FILE(struct_type, field, help_)                                                                         \
    {                                                                                                                  \
        .key = #field, .def = "", .help = (help_), .offset = (uint32_t)offsetof(struct_type, field),                   \
        .type = MOESIM_TYPE_FILE                                                                                       \
    }
#define MOESIM_FILE_IN(struct_type, member, field, help_)                                                              \
    {                                                                                                                  \
        .key = #field, .def = "", .help = (help_), .offset = (uint32_t)offsetof(struct_type, member.field),            \
        .type = MOESIM_TYPE_FILE                                                                                       \
    }
#define MOESIM_PARAM_END                                                                                               \
    {                                                                                                                  \
        .key = NULL                                                                                                    \
    }

/* A schema as the host sees it: rows of `stride` bytes (a plugin's rows may be longer than ours), ended
 * by a row without a key. `rows` may be NULL: no parameters. */
struct moesim_schema {
    const struct moesim_param *rows;
    uint32_t stride;
};

/* Row i, or NULL past the end. */
MOESIM_API const struct moesim_param *moesim_schema_row(struct moesim_schema schema, uint32_t i);

/* The row with that key, or NULL. */
MOESIM_API const struct moesim_param *moesim_schema_find(struct moesim_schema schema, const char *key);

/* Fills every field of `params` from the defaults; `top_k` is what the word "top_k" stands for.
 * Text is copied to `arena`. Fails only on a schema that contradicts itself. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_params_default(struct moesim_schema schema, uint32_t top_k,
                                                                      void *params, struct moesim_arena *arena,
                                                                      struct moesim_error *err);

/* Parses `text` strictly (no trailing characters, octal or hex, no inf or nan) into the row's field and
 * checks its bounds; the sentence names key, value and range or the list of choices. */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_param_set(const struct moesim_param *row, const char *text,
                                                                 void *params, struct moesim_arena *arena,
                                                                 struct moesim_error *err);

/* Writes the field as text that moesim_param_set reads back to the same value; returns the length that
 * was needed, as snprintf does. */
MOESIM_API size_t moesim_param_format(const struct moesim_param *row, const void *params, char *text, size_t size);

/* MOESIM_EINVAL "KEY has no effect WHERE" for the first of `keys`, which NULL ends, that was set: whose field is not
 * its row's default (of "top_k" nobody can tell). */
MOESIM_API MOESIM_MUST_CHECK enum moesim_status moesim_params_unused(struct moesim_schema schema, const void *params,
                                                                     const char *const *keys, const char *where,
                                                                     struct moesim_error *err);

/* The key of the schema that is nearest to `word` (at most two edits), or NULL: for "did you mean". (A wrong choice
 * needs no such help: its sentence lists them all.) */
MOESIM_API const char *moesim_schema_nearest(struct moesim_schema schema, const char *word);

/* Damerau-Levenshtein distance of two words, at most `limit` + 1. */
MOESIM_API uint32_t moesim_edit_distance(const char *a, const char *b, uint32_t limit);

#endif
