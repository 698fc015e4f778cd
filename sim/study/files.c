/*
 * The files that parameters name.
 */
#include <stdio.h>
#include <string.h>

#include "sim/study/registry.h"

enum moesim_status moesim_files_read(struct moesim_schema schema, const void *params, moesim_array_reader *read,
                                     struct moesim_arena *arena, const struct moesim_file_array **files, uint32_t *n,
                                     struct moesim_error *err)
{
    const struct moesim_param *row;
    uint32_t n_rows = 0;
    *files = NULL;
    *n = 0;
    while (moesim_schema_row(schema, n_rows))
        n_rows++;
    struct moesim_file_array *array = moesim_alloc(arena, n_rows, sizeof *array);
    if (!array)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the files of %u parameters", n_rows);
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)); i++) {
        const char *path = NULL;
        if (row->type == MOESIM_TYPE_FILE)
            memcpy(&path, (const char *)params + row->offset, sizeof path);
        if (!path || !*path)
            continue;
        if (!read)
            return moesim_fail(err, MOESIM_EINVAL, "%s = %.200s: there is no reader for files here", row->key, path);
        const enum moesim_status status = read(path, arena, &array[*n], err);
        if (status) {
            moesim_error_prefix(err, "%s", row->key);
            return status;
        }
        array[(*n)++].key = row->key;
    }
    *files = array;
    return MOESIM_OK;
}

/* The text of the row at which the walk stands, or NULL. */
static const char *text_of(const struct moesim_path_walk *walk, const struct moesim_param *row)
{
    const char *text = NULL;
    if (row->type == MOESIM_TYPE_TEXT || row->type == MOESIM_TYPE_FILE)
        memcpy(&text, (const char *)walk->params + row->offset, sizeof text);
    return text && *text ? text : NULL;
}

bool moesim_path_next(struct moesim_path_walk *walk)
{
    const struct moesim_param *row;
    while ((row = moesim_schema_row(walk->schema, walk->row))) {
        const char *text = text_of(walk, row);
        if (text && !walk->rest) {
            walk->rest = strchr(text, ',') ? text : "";
            snprintf(walk->path, sizeof walk->path, "%s", text);
            return true;
        }
        while (text && *walk->rest) {
            walk->rest += strspn(walk->rest, " ,");
            const size_t n = strcspn(walk->rest, ",");
            snprintf(walk->path, sizeof walk->path, "%.*s", (int)n, walk->rest);
            walk->rest += n;
            if (n)
                return true;
        }
        walk->rest = NULL;
        walk->row++;
    }
    return false;
}
