/*
 * Building a table of the fidelity report: points, parts and their errors. And the tables, one function each.
 */
#ifndef MOESIM_SIM_FIDELITY_TABLE_H
#define MOESIM_SIM_FIDELITY_TABLE_H

#include <stddef.h>

#include "sim/cluster/cluster.h"
#include "sim/fidelity/calibrate.h"
#include "sim/fidelity/csv.h"
#include "sim/fidelity/fidelity.h"

/* What the tables are made from. */
struct fidelity_context {
    const struct moesim_fidelity_data *data;
    const struct moesim_registry *registry;
    struct moesim_arena *arena;
};

/* Room for that many points and constants, and a copy of the parts. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status fidelity_open(struct moesim_fidelity_table *table, struct moesim_arena *arena,
                                                   uint32_t most_points, const struct moesim_fidelity_part *parts,
                                                   uint32_t n_parts, uint32_t n_constants, struct moesim_error *err);

/* Adds a point of a part; what it is called is printed. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status fidelity_add(struct moesim_fidelity_table *table, struct moesim_arena *arena,
                                                  uint32_t part, double published, double predicted,
                                                  struct moesim_error *err, const char *format, ...)
    MOESIM_PRINTF(7, 8);

/* Works out the errors of the parts and judges them. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status fidelity_judge(struct moesim_fidelity_table *table, struct moesim_arena *arena,
                                                    struct moesim_error *err);

/* A constant that is fitted: a number in printed units and the field of the cluster that it sets. */
struct fidelity_knob {
    const char *key, *unit;
    double scale; /* of one printed unit */
    double start; /* of the search, in printed units */
    double most;  /* 0 = no limit */
    size_t field; /* offset in struct moesim_cluster */
};
enum { FIDELITY_KNOBS = 4 }; /* at most */
#define FIDELITY_KNOB(key_, unit_, scale_, start_, most_, field_)                                                      \
    {                                                                                                                  \
        .key = (key_), .unit = (unit_), .scale = (scale_), .start = (start_), .most = (most_),                         \
        .field = offsetof(struct moesim_cluster, field_)                                                               \
    }

/* Sets the fields of a cluster to the constants, [n] in printed units. */
void fidelity_set_knobs(const struct fidelity_knob *knob, uint32_t n, const double *constant,
                        struct moesim_cluster *cluster);

/* Fits the constants from the knobs' starts. */
void fidelity_calibrate(moesim_misfit *misfit, const void *context, const struct fidelity_knob *knob, uint32_t n,
                        double *constant);

/* Notes the constants as fitted beside what the preset has, [n] in its own units. */
void fidelity_compare(struct moesim_fidelity_table *table, const struct fidelity_knob *knob, uint32_t n,
                      const double *constant, const double *preset);

/* A column of numbers by its name and where it goes; ended by name NULL. */
struct fidelity_column {
    const char *name;
    const double **number;
};

/* Reads a table's columns; *n_rows of each. */
MOESIM_MUST_CHECK enum moesim_status fidelity_columns(const char *name, const char *text, struct moesim_arena *arena,
                                                      const struct fidelity_column *columns, uint32_t *n_rows,
                                                      struct moesim_error *err);

typedef enum moesim_status fidelity_table_maker(const struct fidelity_context *context,
                                                struct moesim_fidelity_table *table, struct moesim_error *err);
fidelity_table_maker fidelity_duplication, fidelity_eplb, fidelity_identities;
fidelity_table_maker fidelity_h100_low_latency, fidelity_h800_low_latency, fidelity_h800_normal;
fidelity_table_maker fidelity_experts;
fidelity_table_maker fidelity_h100_all_to_all, fidelity_a100_all_to_all, fidelity_h100_all_reduce,
    fidelity_a100_all_reduce;
fidelity_table_maker fidelity_directions;

#endif
