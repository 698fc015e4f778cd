/* SPDX-License-Identifier: MIT
 *
 * How every function of moesim says that it failed: a status to test, and one sentence to show.
 */
#ifndef MOESIM_STATUS_H
#define MOESIM_STATUS_H

#if defined(__GNUC__)
#define MOESIM_MUST_CHECK __attribute__((warn_unused_result))
#define MOESIM_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define MOESIM_API __attribute__((visibility("default")))
#else
#define MOESIM_MUST_CHECK
#define MOESIM_PRINTF(text, first)
#define MOESIM_API
#endif

/* What kind of failure; the program's exit status follows from it. */
enum moesim_status {
    MOESIM_OK = 0,
    MOESIM_EINVAL,    /* a value the user gave is wrong: exit 2 */
    MOESIM_EREFUSE,   /* a router cannot serve this shape, by design; conformance counts it */
    MOESIM_EPLUGIN,   /* a plugin could not be loaded: exit 3 */
    MOESIM_EIO,       /* a file, the disk or a database failed: exit 4 */
    MOESIM_ENOMEM,    /* memory is exhausted or the allowance is used up */
    MOESIM_EBROKEN,   /* a router or workload broke its contract */
    MOESIM_ESTOP,     /* stopped by a signal after a clean save */
    MOESIM_EDIVERGED, /* training made a loss or gradient that is no finite number */
};

/* One sentence for people: what is wrong, where, and what would be right. Owned by the caller. */
struct moesim_error {
    char text[512];
};

/* Writes the sentence (cut at the buffer's end, control bytes replaced) and returns `status`, so that a
 * failure is one line: return moesim_fail(err, MOESIM_EINVAL, "..."). `err` may be NULL. */
MOESIM_API enum moesim_status moesim_fail(struct moesim_error *err, enum moesim_status status, const char *format, ...)
    MOESIM_PRINTF(3, 4);

/* Puts "context: " before the sentence already in `err`. */
MOESIM_API void moesim_error_prefix(struct moesim_error *err, const char *format, ...) MOESIM_PRINTF(2, 3);

#endif
