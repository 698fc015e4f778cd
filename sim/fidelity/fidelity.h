/*
 * Fidelity: published measurements against what the program's own cost path predicts for them. Every table says on
 * which rows its cluster preset was calibrated; the predictions are those of the preset that `run` and `cost` use.
 */
#ifndef MOESIM_SIM_FIDELITY_H
#define MOESIM_SIM_FIDELITY_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

enum moesim_fidelity_role {
    MOESIM_CALIBRATED, /* the constants were fitted to these rows */
    MOESIM_HELD_OUT,   /* these were not looked at */
    MOESIM_EXACT,      /* nothing was fitted */
    MOESIM_ABLATION,   /* a part of the model left out and the rest fitted again, to see that it is needed */
    MOESIM_DIRECTION,  /* which of several is larger, not by how much */
};

/* One figure. */
struct moesim_fidelity_point {
    const char *row;
    uint32_t part; /* of the table */
    double published, predicted;
};

/* What a part of a table promises about its errors. */
enum moesim_fidelity_statistic {
    MOESIM_NO_STATISTIC,
    MOESIM_MEAN_ERROR,
    MOESIM_MEDIAN_ERROR,
    MOESIM_P90_ERROR,
    MOESIM_MAX_ERROR,
    MOESIM_DISORDER, /* neighbouring points whose predictions differ the other way round than the published figures */
    MOESIM_N_STATISTICS
};
struct moesim_fidelity_bound {
    enum moesim_fidelity_statistic statistic;
    double limit;
    bool least; /* the error is at least the limit: of an ablation */
};

enum moesim_fidelity_verdict {
    MOESIM_HOLDS,
    MOESIM_MISSED,
    MOESIM_KNOWN_FAILURE, /* missed, as known */
    MOESIM_HOLDS_NOW,     /* a known failure that is none any more */
    MOESIM_REPORTED,      /* nothing was promised */
};

enum { MOESIM_FIDELITY_BOUNDS = 2 };

/* Rows of a table that are judged together. */
struct moesim_fidelity_part {
    const char *rows;
    enum moesim_fidelity_role role;
    struct moesim_fidelity_bound bound[MOESIM_FIDELITY_BOUNDS];
    const char *known; /* why the bound is missed; NULL = it should hold */
    uint32_t n;
    double error[MOESIM_N_STATISTICS]; /* relative, or absolute by the table; without sign */
    double bias;                       /* mean error with its sign */
    enum moesim_fidelity_verdict verdict;
};

/* A constant of the preset, and what the calibration finds for it again. */
struct moesim_fidelity_constant {
    const char *key, *unit;
    double fitted, preset; /* in that unit */
};

struct moesim_fidelity_table {
    const char *name, *title, *source;
    const char *preset;      /* cluster; "" = none */
    const char *calibration; /* which constants on which rows; "" = nothing is calibrated */
    const char *unit;        /* of the figures */
    const char *remark;      /* what the table cannot show; "" = nothing */
    const char *skipped;     /* why there are no figures; NULL = there are */
    bool absolute;           /* errors are differences, not shares of the published figure */
    bool long_table;         /* too many points to print one by one */
    uint32_t n_constants, n_parts, n_points;
    struct moesim_fidelity_constant *constant;
    struct moesim_fidelity_part *part;
    struct moesim_fidelity_point *point;
};

/* Tables that are too large to be carried along: their text, NULL = not given. */
struct moesim_fidelity_data {
    const char *experts;     /* moe_compute_h100_bf16.csv */
    const char *collectives; /* nccl_intranode.csv */
};
#define MOESIM_FIDELITY_EXPERTS "moe_compute_h100_bf16.csv"
#define MOESIM_FIDELITY_COLLECTIVES "nccl_intranode.csv"

struct moesim_registry;

/* All tables, calibrated again and predicted, in the arena. `registry` has the routers and workloads that the
 * directional checks name. EINVAL with the row of a table that cannot be read. */
MOESIM_MUST_CHECK enum moesim_status moesim_fidelity_run(const struct moesim_fidelity_data *data,
                                                         const struct moesim_registry *registry,
                                                         struct moesim_arena *arena,
                                                         const struct moesim_fidelity_table **tables,
                                                         uint32_t *n_tables, struct moesim_error *err);

/* The error of a point as the table counts it, with its sign. */
double moesim_fidelity_error(const struct moesim_fidelity_table *table, const struct moesim_fidelity_point *point);

#endif
