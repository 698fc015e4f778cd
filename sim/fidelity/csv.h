/*
 * Published tables as text: comma-separated cells below a line of column names; lines that begin with # are remarks.
 */
#ifndef MOESIM_SIM_FIDELITY_CSV_H
#define MOESIM_SIM_FIDELITY_CSV_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

struct moesim_csv {
    const char *name; /* of the table, for what is said about it */
    uint32_t n_columns, n_rows;
    const char **column; /* [n_columns] */
    const char **cell;   /* [n_rows][n_columns] */
};

/* Reads a text into the arena. EINVAL says which line has not as many cells as there are columns. */
MOESIM_MUST_CHECK enum moesim_status moesim_csv_read(const char *name, const char *text, struct moesim_arena *arena,
                                                     struct moesim_csv *csv, struct moesim_error *err);

/* A column of numbers [n_rows]. EINVAL when there is no such column or a cell of it is no finite number. */
MOESIM_MUST_CHECK enum moesim_status moesim_csv_numbers(const struct moesim_csv *csv, const char *column,
                                                        struct moesim_arena *arena, const double **numbers,
                                                        struct moesim_error *err);

/* A column of words [n_rows]. EINVAL when there is no such column. */
MOESIM_MUST_CHECK enum moesim_status moesim_csv_words(const struct moesim_csv *csv, const char *column,
                                                      struct moesim_arena *arena, const char *const **words,
                                                      struct moesim_error *err);

#endif
