/*
 * The files that parameters name.
 */
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
