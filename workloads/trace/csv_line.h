/*
 * CSV where it lies: fields of one line after the other, with or without quotes.
 */
#ifndef MOESIM_WORKLOADS_TRACE_CSV_LINE_H
#define MOESIM_WORKLOADS_TRACE_CSV_LINE_H

#include "workloads/json_scan.h"

#define CSV_MAX_FIELDS 64

struct csv {
    const char *path;
    const char *at, *end;
    uint64_t line; /* of the fields below, from 1 */
    uint32_t n_fields;
    struct scan_text field[CSV_MAX_FIELDS]; /* without blanks and quotes around; doubled quotes stay doubled */
    struct moesim_error *err;
};

/* The fields of the next line that is not empty; *more false at the end. */
MOESIM_MUST_CHECK enum moesim_status csv_next(struct csv *csv, bool *more);

/* MOESIM_EIO: "PATH:LINE: WHAT". */
enum moesim_status csv_wrong(const struct csv *csv, const char *what);

/* A field that is a whole number from 0 to `limit`, or a number; false otherwise. */
bool csv_whole(struct scan_text field, uint64_t limit, uint64_t *value);
bool csv_number(struct scan_text field, double *value);

#endif
