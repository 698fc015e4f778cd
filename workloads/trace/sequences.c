/*
 * Sequences of a trace from a CSV with the columns start and len (tokens), and perhaps one that labels them. Tokens
 * that no row covers are sequences of their own, from one row to the next.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/trace/csv_line.h"
#include "workloads/trace/source.h"

/* Tokens from `start` up to the next run's. */
struct run {
    uint64_t start;
    uint32_t sequence, domain;
};

struct trace_sequences {
    struct run *run; /* [n] rising */
    size_t n, room;
    bool has_domains;
    struct scan_text *name; /* [n_names] of domains, in the mapping */
    uint32_t n_names, room_names;
    struct mapping file;
};

enum { MOST_DOMAINS = 1024 };

struct columns {
    int start, len, domain;
};

static enum moesim_status find_columns(struct csv *csv, const char *domains, struct columns *columns)
{
    bool more;
    const enum moesim_status status = csv_next(csv, &more);
    *columns = (struct columns){-1, -1, -1};
    if (status)
        return status;
    for (int i = 0; more && i < (int)csv->n_fields; i++) {
        if (scan_is(csv->field[i], "start"))
            columns->start = i;
        else if (scan_is_one_of(csv->field[i], "len|length"))
            columns->len = i;
        if (domains && scan_is(csv->field[i], domains))
            columns->domain = i;
    }
    if (columns->start < 0 || columns->len < 0)
        return csv_wrong(csv, "the first line should name the columns start and len");
    if (domains && columns->domain < 0)
        return moesim_fail(csv->err, MOESIM_EINVAL, "%.300s: there is no column '%.64s' to take domains from",
                           csv->path, domains);
    return MOESIM_OK;
}

static bool grow(void *place, size_t size, size_t n, size_t *room)
{
    void *array;
    if (n < *room)
        return true;
    memcpy(&array, place, sizeof array);
    const size_t wider = *room ? 2 * *room : 256;
    array = realloc(array, wider * size);
    if (!array)
        return false;
    memcpy(place, &array, sizeof array);
    *room = wider;
    return true;
}

static enum moesim_status number_domain(struct trace_sequences *s, const struct csv *csv, struct scan_text name,
                                        uint32_t *number)
{
    size_t room = s->room_names;
    for (*number = 0; *number < s->n_names; ++*number)
        if (s->name[*number].n == name.n && memcmp(s->name[*number].at, name.at, name.n) == 0)
            return MOESIM_OK;
    if (s->n_names == MOST_DOMAINS)
        return csv_wrong(csv, "more than 1024 domains");
    if (!grow(&s->name, sizeof *s->name, s->n_names, &room))
        return moesim_fail(csv->err, MOESIM_ENOMEM, "memory is exhausted");
    s->room_names = (uint32_t)room;
    s->name[s->n_names++] = name;
    return MOESIM_OK;
}

static enum moesim_status add_run(struct trace_sequences *s, const struct csv *csv, uint64_t start, uint32_t domain)
{
    if (!grow(&s->run, sizeof *s->run, s->n, &s->room))
        return moesim_fail(csv->err, MOESIM_ENOMEM, "memory is exhausted");
    s->run[s->n] = (struct run){start, (uint32_t)s->n, domain};
    s->n++;
    return MOESIM_OK;
}

/* `end` is where the row before ended, and where this one does after. */
static enum moesim_status take_row(struct trace_sequences *s, struct csv *csv, const struct columns *columns,
                                   uint64_t n_tokens, uint64_t *end)
{
    uint64_t start, len;
    uint32_t domain = 0;
    const int last = columns->start > columns->len ? columns->start : columns->len;
    if ((int)csv->n_fields <= last || (int)csv->n_fields <= columns->domain ||
        !csv_whole(csv->field[columns->start], INT64_MAX, &start) ||
        !csv_whole(csv->field[columns->len], INT64_MAX, &len))
        return csv_wrong(csv, "start and len should be whole numbers from 0 up");
    if (start < *end)
        return moesim_fail(csv->err, MOESIM_EIO,
                           "%.300s:%llu: the sequence starts at token %llu, inside or before the one above, which ends "
                           "at %llu",
                           csv->path, (unsigned long long)csv->line, (unsigned long long)start,
                           (unsigned long long)*end);
    if (start > n_tokens || len > n_tokens - start)
        return moesim_fail(csv->err, MOESIM_EIO, "%.300s:%llu: tokens %llu to %llu, but the trace has %llu", csv->path,
                           (unsigned long long)csv->line, (unsigned long long)start, (unsigned long long)(start + len),
                           (unsigned long long)n_tokens);
    enum moesim_status status = MOESIM_OK;
    if (columns->domain >= 0)
        status = number_domain(s, csv, csv->field[columns->domain], &domain);
    if (!status && start > *end)
        status = add_run(s, csv, *end, domain);
    if (!status && len > 0)
        status = add_run(s, csv, start, domain);
    *end = start + len;
    return status;
}

static enum moesim_status read_rows(struct trace_sequences *s, struct csv *csv, const char *domains, uint64_t n_tokens)
{
    struct columns columns;
    uint64_t end = 0;
    bool more;
    enum moesim_status status = find_columns(csv, domains, &columns);
    while (!status && !(status = csv_next(csv, &more)) && more)
        status = take_row(s, csv, &columns, n_tokens, &end);
    if (!status && end < n_tokens)
        status = add_run(s, csv, end, 0);
    s->has_domains = domains != NULL;
    return status;
}

enum moesim_status trace_sequences_read(const char *path, const char *domains, uint64_t n_tokens,
                                        struct trace_sequences **sequences, struct moesim_error *err)
{
    struct trace_sequences *s = *sequences = calloc(1, sizeof *s);
    if (!s)
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    enum moesim_status status = mapping_open(path, "a CSV of sequences", &s->file, err);
    if (!status) {
        struct csv csv = {.path = path, .err = err};
        csv.at = (const char *)s->file.bytes;
        csv.end = csv.at + s->file.size;
        status = read_rows(s, &csv, domains, n_tokens);
    }
    if (status) {
        trace_sequences_free(s);
        *sequences = NULL;
    }
    return status;
}

void trace_sequences_free(struct trace_sequences *s)
{
    if (!s)
        return;
    mapping_close(&s->file);
    free(s->run);
    free(s->name);
    free(s);
}

bool trace_sequences_have_domains(const struct trace_sequences *s)
{
    return s->has_domains;
}

bool trace_sequences_find(const struct trace_sequences *s, const char *label, uint32_t *number)
{
    for (*number = 0; *number < s->n_names; ++*number)
        if (scan_is(s->name[*number], label))
            return true;
    return false;
}

void trace_sequences_label(const struct trace_sequences *s, enum trace_label label, uint64_t first, uint32_t n,
                           uint32_t *values)
{
    size_t low = 0, high = s->n;
    while (high - low > 1) {
        const size_t middle = low + (high - low) / 2;
        if (s->run[middle].start <= first)
            low = middle;
        else
            high = middle;
    }
    for (uint32_t i = 0; i < n; i++) {
        while (low + 1 < s->n && s->run[low + 1].start <= first + i)
            low++;
        values[i] = label == TRACE_DOMAIN ? s->run[low].domain : s->run[low].sequence;
    }
}
