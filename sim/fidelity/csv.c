/*
 * The reader of published tables.
 */
#include "sim/fidelity/csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t count(const char *text, char what)
{
    uint32_t n = 0;
    for (; *text; text++)
        n += *text == what;
    return n;
}

/* The next line that is no remark and not empty, cut off the rest; NULL at the end. */
static char *next_line(char **rest, uint32_t *number)
{
    while (*rest && **rest) {
        char *line = *rest, *end = strchr(line, '\n');
        *rest = end ? end + 1 : line + strlen(line);
        if (end)
            *end = '\0';
        ++*number;
        line[strcspn(line, "\r")] = '\0';
        if (*line && *line != '#')
            return line;
    }
    return NULL;
}

/* The cells of a line; returns how many there are, of which the first `room` are stored. */
static uint32_t split(char *line, const char **cell, uint32_t room)
{
    uint32_t n = 0;
    for (char *next = line; next; n++) {
        char *comma = strchr(next, ',');
        if (comma)
            *comma++ = '\0';
        if (n < room)
            cell[n] = next;
        next = comma;
    }
    return n;
}

enum moesim_status moesim_csv_read(const char *name, const char *text, struct moesim_arena *arena,
                                   struct moesim_csv *csv, struct moesim_error *err)
{
    char *rest = moesim_strdup(arena, text);
    uint32_t number = 0;
    *csv = (struct moesim_csv){.name = name};
    char *line = rest ? next_line(&rest, &number) : NULL;
    if (!line)
        return moesim_fail(err, MOESIM_EINVAL, "%s is empty; its first line should name the columns", name);
    csv->n_columns = count(line, ',') + 1;
    const size_t room = (size_t)count(text, '\n') + 1;
    csv->column = moesim_alloc(arena, csv->n_columns, sizeof *csv->column);
    csv->cell = moesim_alloc(arena, room * csv->n_columns, sizeof *csv->cell);
    if (!csv->column || !csv->cell)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", name);
    split(line, csv->column, csv->n_columns);
    while ((line = next_line(&rest, &number))) {
        const uint32_t n = split(line, csv->cell + (size_t)csv->n_rows * csv->n_columns, csv->n_columns);
        if (n != csv->n_columns)
            return moesim_fail(err, MOESIM_EINVAL, "%s:%u has %u cells instead of %u", name, number, n, csv->n_columns);
        csv->n_rows++;
    }
    return MOESIM_OK;
}

enum moesim_status moesim_csv_words(const struct moesim_csv *csv, const char *column, struct moesim_arena *arena,
                                    const char *const **words, struct moesim_error *err)
{
    const char **out = moesim_alloc(arena, csv->n_rows, sizeof *out);
    if (!out)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", csv->name);
    for (uint32_t c = 0; c < csv->n_columns; c++)
        if (strcmp(csv->column[c], column) == 0) {
            for (uint32_t r = 0; r < csv->n_rows; r++)
                out[r] = csv->cell[(size_t)r * csv->n_columns + c];
            *words = out;
            return MOESIM_OK;
        }
    return moesim_fail(err, MOESIM_EINVAL, "%s has no column '%s'", csv->name, column);
}

enum moesim_status moesim_csv_numbers(const struct moesim_csv *csv, const char *column, struct moesim_arena *arena,
                                      const double **numbers, struct moesim_error *err)
{
    const char *const *words;
    const enum moesim_status status = moesim_csv_words(csv, column, arena, &words, err);
    if (status != MOESIM_OK)
        return status;
    double *out = moesim_alloc(arena, csv->n_rows, sizeof *out);
    if (!out)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", csv->name);
    for (uint32_t r = 0; r < csv->n_rows; r++) {
        char *end;
        out[r] = strtod(words[r], &end);
        if (end == words[r] || *end || !isfinite(out[r]))
            return moesim_fail(err, MOESIM_EINVAL, "%s, row %u: %s = '%.40s' is not a finite number", csv->name, r + 1,
                               column, words[r]);
    }
    *numbers = out;
    return MOESIM_OK;
}
