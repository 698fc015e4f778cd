/*
 * Reading JSON where it lies, value by value: no tree, no memory, whatever the size. RFC 8259, but that text in strings
 * is not checked to be UTF-8 and that the values of a file may follow each other (JSON lines).
 */
#ifndef MOESIM_WORKLOADS_JSON_SCAN_H
#define MOESIM_WORKLOADS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

#define SCAN_MAX_DEPTH 64

/* A place in a text; copies are independent. */
struct scan {
    const char *path; /* for sentences */
    const char *start, *at, *end;
    struct moesim_error *err;
};

/* A string as it is written, between its quotes. */
struct scan_text {
    const char *at;
    size_t n;
};

enum scan_type { SCAN_END, SCAN_OBJECT, SCAN_ARRAY, SCAN_STRING, SCAN_NUMBER, SCAN_WORD, SCAN_OTHER };

/* What begins at the next byte that is no blank; SCAN_WORD is true, false, null or one of Python's NaN, Infinity. */
enum scan_type scan_peek(struct scan *j);

/* MOESIM_EIO: "PATH: byte N: WHAT". */
enum moesim_status scan_wrong(const struct scan *j, const char *what);

/* Goes over the members of an object or the elements of an array: `open` first, then `more` before each of them, until
 * it says there is none. A value has to be read or skipped in between. */
struct scan_walk {
    bool begun, more;
};
MOESIM_MUST_CHECK enum moesim_status scan_open(struct scan *j, enum scan_type type, struct scan_walk *walk);
MOESIM_MUST_CHECK enum moesim_status scan_member(struct scan *j, struct scan_walk *walk, struct scan_text *key);
MOESIM_MUST_CHECK enum moesim_status scan_element(struct scan *j, struct scan_walk *walk);

MOESIM_MUST_CHECK enum moesim_status scan_string(struct scan *j, struct scan_text *text);
/* A number, or NAN for NaN, null and a word; a number beyond double is MOESIM_EIO. */
MOESIM_MUST_CHECK enum moesim_status scan_number(struct scan *j, double *value);
/* A whole number from -1 to 2^53; `what` names it in the sentence. */
MOESIM_MUST_CHECK enum moesim_status scan_whole(struct scan *j, const char *what, int64_t *value);
MOESIM_MUST_CHECK enum moesim_status scan_skip(struct scan *j);

/* How many brackets the array here opens with before its first element: [[1]] is 2; 0 for anything else. */
uint32_t scan_array_depth(struct scan j);

bool scan_is(struct scan_text text, const char *word);
/* Whether the text is one of "a|b|c". */
bool scan_is_one_of(struct scan_text text, const char *words);

#endif
