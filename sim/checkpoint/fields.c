#include "sim/checkpoint/fields.h"

#include <jansson.h>
#include <string.h>

char *moesim_fields_write(const struct moesim_param *fields, const void *params)
{
    json_t *json = json_object();
    int failed = json == NULL;
    for (; fields->key; fields++) {
        char text[MOESIM_FIELD_TEXT];
        moesim_param_format(fields, params, text, sizeof text);
        failed |= json_object_set_new(json, fields->key, json_string(text));
    }
    char *text = failed ? NULL : json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return text;
}

bool moesim_fields_read(const struct moesim_param *fields, const char *text, void *params)
{
    json_t *json = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool ok = json != NULL;
    for (; ok && fields->key; fields++) {
        const char *value = json_string_value(json_object_get(json, fields->key));
        ok = value && moesim_param_set(fields, value, params, NULL, NULL) == MOESIM_OK;
    }
    json_decref(json);
    return ok;
}

const char *moesim_fields_differ(const struct moesim_param *fields, const void *mine, const void *theirs,
                                 char my_text[MOESIM_FIELD_TEXT], char their_text[MOESIM_FIELD_TEXT])
{
    for (; fields->key; fields++) {
        moesim_param_format(fields, mine, my_text, MOESIM_FIELD_TEXT);
        moesim_param_format(fields, theirs, their_text, MOESIM_FIELD_TEXT);
        if (strcmp(my_text, their_text))
            return fields->key;
    }
    return NULL;
}
