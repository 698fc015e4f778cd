/*
 * Lines and fields of CSV (RFC 4180, with blanks around fields allowed).
 */
#include "workloads/trace/csv_line.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum moesim_status csv_wrong(const struct csv *csv, const char *what)
{
    return moesim_fail(csv->err, MOESIM_EIO, "%.300s:%llu: %s", csv->path, (unsigned long long)csv->line, what);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A field and what follows it up to the comma or the line's end. */
static enum moesim_status take_field(struct csv *csv, struct scan_text *field)
{
    while (csv->at < csv->end && is_blank(*csv->at))
        csv->at++;
    if (csv->at < csv->end && *csv->at == '"') {
        field->at = ++csv->at;
        while (csv->at < csv->end && (*csv->at != '"' || (csv->end - csv->at > 1 && csv->at[1] == '"')))
            csv->at += *csv->at == '"' ? 2 : 1;
        if (csv->at >= csv->end)
            return csv_wrong(csv, "a quote is not closed");
        field->n = (size_t)(csv->at++ - field->at);
        while (csv->at < csv->end && is_blank(*csv->at))
            csv->at++;
        if (csv->at < csv->end && *csv->at != ',' && *csv->at != '\n')
            return csv_wrong(csv, "a comma was expected after the closing quote");
        return MOESIM_OK;
    }
    field->at = csv->at;
    while (csv->at < csv->end && *csv->at != ',' && *csv->at != '\n')
        csv->at++;
    const char *last = csv->at;
    while (last > field->at && is_blank(last[-1]))
        last--;
    field->n = (size_t)(last - field->at);
    return MOESIM_OK;
}

enum moesim_status csv_next(struct csv *csv, bool *more)
{
    do {
        csv->n_fields = 0;
        csv->line++;
        *more = csv->at < csv->end;
        while (csv->at < csv->end) {
            if (csv->n_fields == CSV_MAX_FIELDS)
                return csv_wrong(csv, "more than 64 fields in a line");
            const enum moesim_status status = take_field(csv, &csv->field[csv->n_fields++]);
            if (status)
                return status;
            const bool ends = csv->at == csv->end || *csv->at == '\n';
            csv->at += csv->at < csv->end;
            if (ends)
                break;
        }
    } while (*more && csv->n_fields == 1 && csv->field[0].n == 0);
    return MOESIM_OK;
}

bool csv_whole(struct scan_text field, uint64_t limit, uint64_t *value)
{
    *value = 0;
    for (size_t i = 0; i < field.n; i++) {
        if (field.at[i] < '0' || field.at[i] > '9' || *value > UINT64_MAX / 10 - 1)
            return false;
        *value = *value * 10 + (uint64_t)(field.at[i] - '0');
    }
    return field.n > 0 && *value <= limit;
}

bool csv_number(struct scan_text field, double *value)
{
    char text[64], *end;
    if (field.n == 0 || field.n >= sizeof text)
        return false;
    memcpy(text, field.at, field.n);
    text[field.n] = '\0';
    *value = strtod(text, &end);
    return *end == '\0' && (text[0] == '-' || (text[0] >= '0' && text[0] <= '9')) && isfinite(*value);
}
