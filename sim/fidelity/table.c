/*
 * Errors and verdicts. A percentile of n errors is the ceil(p n)-th smallest; the median of an even number is the mean
 * of the middle two.
 */
#include "sim/fidelity/table.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum moesim_status fidelity_open(struct moesim_fidelity_table *table, struct moesim_arena *arena, uint32_t most_points,
                                 const struct moesim_fidelity_part *parts, uint32_t n_parts, uint32_t n_constants,
                                 struct moesim_error *err)
{
    table->point = moesim_alloc(arena, most_points, sizeof *table->point);
    table->part = moesim_alloc(arena, n_parts, sizeof *table->part);
    table->constant = moesim_alloc(arena, n_constants, sizeof *table->constant);
    if (!table->point || !table->part || !table->constant)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", table->name);
    table->n_points = 0;
    table->n_parts = n_parts;
    table->n_constants = n_constants;
    memcpy(table->part, parts, n_parts * sizeof *parts);
    return MOESIM_OK;
}

enum moesim_status fidelity_add(struct moesim_fidelity_table *table, struct moesim_arena *arena, uint32_t part,
                                double published, double predicted, struct moesim_error *err, const char *format, ...)
{
    char row[96];
    va_list list;
    va_start(list, format);
    vsnprintf(row, sizeof row, format, list);
    va_end(list);
    assert(part < table->n_parts);
    struct moesim_fidelity_point *point = &table->point[table->n_points++];
    *point = (struct moesim_fidelity_point){moesim_strdup(arena, row), part, published, predicted};
    return point->row ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", table->name);
}

double moesim_fidelity_error(const struct moesim_fidelity_table *table, const struct moesim_fidelity_point *point)
{
    return table->absolute ? point->predicted - point->published : point->predicted / point->published - 1;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Fills the statistics of n errors with their signs, which become sorted without. */
static void summarise(double *error, uint32_t n, struct moesim_fidelity_part *part)
{
    double sum = 0, absolute = 0;
    part->n = n;
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++) {
        sum += error[i];
        error[i] = fabs(error[i]);
        absolute += error[i];
    }
    qsort(error, n, sizeof *error, compare);
    part->bias = sum / n;
    part->error[MOESIM_MEAN_ERROR] = absolute / n;
    part->error[MOESIM_MEDIAN_ERROR] = (error[n / 2] + error[(n - 1) / 2]) / 2;
    part->error[MOESIM_P90_ERROR] = error[(uint32_t)ceil(0.9 * n) - 1];
    part->error[MOESIM_MAX_ERROR] = error[n - 1];
}

/* Neighbouring points of the part in the wrong order. */
static double disorder(const struct moesim_fidelity_table *table, uint32_t part)
{
    const struct moesim_fidelity_point *last = NULL;
    uint32_t n = 0;
    for (uint32_t i = 0; i < table->n_points; i++) {
        const struct moesim_fidelity_point *p = &table->point[i];
        if (p->part != part)
            continue;
        n += last && !((p->published - last->published) * (p->predicted - last->predicted) > 0);
        last = p;
    }
    return n;
}

static enum moesim_fidelity_verdict verdict(const struct moesim_fidelity_part *part)
{
    bool promised = false, holds = true;
    for (uint32_t i = 0; i < MOESIM_FIDELITY_BOUNDS; i++) {
        const struct moesim_fidelity_bound *b = &part->bound[i];
        if (b->statistic == MOESIM_NO_STATISTIC)
            continue;
        promised = true;
        const double error = part->error[b->statistic];
        holds &= part->n > 0 && (b->least ? error >= b->limit : error <= b->limit);
    }
    if (!promised)
        return MOESIM_REPORTED;
    if (part->known)
        return holds ? MOESIM_HOLDS_NOW : MOESIM_KNOWN_FAILURE;
    return holds ? MOESIM_HOLDS : MOESIM_MISSED;
}

enum moesim_status fidelity_judge(struct moesim_fidelity_table *table, struct moesim_arena *arena,
                                  struct moesim_error *err)
{
    double *error = moesim_alloc(arena, table->n_points, sizeof *error);
    if (!error)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the table %s", table->name);
    for (uint32_t p = 0; p < table->n_parts; p++) {
        struct moesim_fidelity_part *part = &table->part[p];
        uint32_t n = 0;
        for (uint32_t i = 0; i < table->n_points; i++)
            if (table->point[i].part == p)
                error[n++] = moesim_fidelity_error(table, &table->point[i]);
        summarise(error, n, part);
        part->error[MOESIM_DISORDER] = disorder(table, p);
        part->verdict = verdict(part);
    }
    return MOESIM_OK;
}

enum moesim_status fidelity_columns(const char *name, const char *text, struct moesim_arena *arena,
                                    const struct fidelity_column *columns, uint32_t *n_rows, struct moesim_error *err)
{
    struct moesim_csv csv;
    enum moesim_status status = moesim_csv_read(name, text, arena, &csv, err);
    *n_rows = csv.n_rows;
    for (const struct fidelity_column *c = columns; c->name && status == MOESIM_OK; c++)
        status = moesim_csv_numbers(&csv, c->name, arena, c->number, err);
    return status;
}

void fidelity_set_knobs(const struct fidelity_knob *knob, uint32_t n, const double *constant,
                        struct moesim_cluster *cluster)
{
    for (uint32_t i = 0; i < n; i++)
        *(double *)((char *)cluster + knob[i].field) = constant[i] * knob[i].scale;
}

void fidelity_calibrate(moesim_misfit *misfit, const void *context, const struct fidelity_knob *knob, uint32_t n,
                        double *constant)
{
    double most[FIDELITY_KNOBS] = {0};
    assert(n <= FIDELITY_KNOBS);
    for (uint32_t i = 0; i < n; i++) {
        constant[i] = knob[i].start;
        most[i] = knob[i].most;
    }
    moesim_calibrate(misfit, context, n, constant, most);
}

void fidelity_compare(struct moesim_fidelity_table *table, const struct fidelity_knob *knob, uint32_t n,
                      const double *constant, const double *preset)
{
    assert(n == table->n_constants);
    for (uint32_t i = 0; i < n; i++)
        table->constant[i] = (struct moesim_fidelity_constant){
            .key = knob[i].key, .unit = knob[i].unit, .fitted = constant[i], .preset = preset[i] / knob[i].scale};
}
