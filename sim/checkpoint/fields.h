/*
 * A params struct in a checkpoint's metadata: its fields as the texts that a user would write.
 */
#ifndef MOESIM_SIM_CHECKPOINT_FIELDS_H
#define MOESIM_SIM_CHECKPOINT_FIELDS_H

#include <stdbool.h>

#include <moesim/param.h>

enum { MOESIM_FIELD_TEXT = 40 };

/* A JSON object of all fields, malloc'd; NULL without memory. */
char *moesim_fields_write(const struct moesim_param *fields, const void *params);

/* Back; false when a field is missing or out of bounds. */
bool moesim_fields_read(const struct moesim_param *fields, const char *text, void *params);

/* The first field that differs, with both values as text; NULL when all are equal. */
const char *moesim_fields_differ(const struct moesim_param *fields, const void *mine, const void *theirs,
                                 char my_text[MOESIM_FIELD_TEXT], char their_text[MOESIM_FIELD_TEXT]);

#endif
