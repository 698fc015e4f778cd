/*
 * Random cases for a router: shapes, settings and batches, drawn through its schema.
 */
#include "tests/routers/random_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct trial_case random_case(struct draw *d, uint32_t max_experts, uint32_t max_tokens, uint64_t seed)
{
    struct trial_case c = {.seed = seed, .n_devices = 1 + draw_below(d, 4), .n_steps = TRIAL_STEPS};
    c.n_experts = (uint32_t)draw_log(d, 1, max_experts + .999);
    if (draw_coin(d)) /* groups of experts need numbers with divisors */
        c.n_experts = 4u * (1 + c.n_experts / 8);
    c.n_tokens = (uint32_t)draw_log(d, 1, max_tokens + 1.999) - 1;
    c.top_k = 1 + draw_below(d, c.n_experts < 6 ? c.n_experts : 6);
    c.phase = draw_below(d, 3) ? MOESIM_TRAIN : MOESIM_EVAL;
    c.has_padding = draw_below(d, 4) == 0;
    return c;
}

static bool is_key(const struct moesim_param *row, const char *key)
{
    return strcmp(row->key, key) == 0;
}

static double default_of(const struct moesim_param *row, const void *params)
{
    const void *field = (const char *)params + row->offset;
    return row->type == MOESIM_TYPE_REAL ? *(const double *)field : *(const uint32_t *)field;
}

static double draw_count(struct draw *d, const struct moesim_param *row, double now, const struct trial_case *c)
{
    if (is_key(row, "k"))
        return 1 + draw_below(d, c->n_experts < 8 ? c->n_experts : 8);
    if (is_key(row, "n_groups")) {
        uint32_t n = 1 + draw_below(d, 8);
        while (c->n_experts % n != 0)
            n--;
        return n;
    }
    if (is_key(row, "min_capacity"))
        return draw_coin(d) ? 0 : 1 + draw_below(d, 8);
    return draw_coin(d) ? now : 1 + draw_below(d, 8);
}

static double draw_real(struct draw *d, const struct moesim_param *row, double now)
{
    if (is_key(row, "capacity_factor"))
        return draw_below(d, 3) ? draw_log(d, .1, 4) : now;
    switch (draw_below(d, 6)) {
    case 0:
        return now * 2;
    case 1:
        return now / 2;
    case 2:
        return now == 0 ? .7 : 0;
    case 3:
        return .9;
    default:
        return now;
    }
}

/* Losses are named by forms joined with "+". */
static void draw_aux_form(struct draw *d, char *text)
{
    static const char *const forms[] = {"none", "square",   "importance",   "load",   "gshard",       "switch",
                                        "z",    "sequence", "global-batch", "device", "communication"};
    snprintf(text, VALUE_TEXT, "%s", forms[draw_below(d, 11)]);
    if (draw_below(d, 3) == 0 && strcmp(text, "none") != 0)
        snprintf(text + strlen(text), VALUE_TEXT - strlen(text), "+%s", forms[1 + draw_below(d, 10)]);
}

/* A value for the row; false leaves the default. */
static bool draw_setting(struct draw *d, const struct moesim_param *row, const void *params, const struct trial_case *c,
                         char text[VALUE_TEXT])
{
    double value;
    if (is_key(row, "jitter")) /* applied by the gate */
        return false;
    if (is_key(row, "aux_form")) {
        draw_aux_form(d, text);
        return true;
    }
    switch (row->type) {
    case MOESIM_TYPE_REAL:
        value = fmin(fmax(draw_real(d, row, default_of(row, params)), row->min), row->max);
        snprintf(text, VALUE_TEXT, "%.17g", value);
        return true;
    case MOESIM_TYPE_UINT:
        value = fmin(fmax(draw_count(d, row, default_of(row, params), c), row->min), row->max);
        snprintf(text, VALUE_TEXT, "%.0f", value);
        return true;
    default: /* words, flags, groups of tokens; files are left alone */
        return draw_value(d, row, params, c, text);
    }
}

void random_settings(struct settings *s, const struct moesim_router *router, const struct trial_case *c, struct draw *d)
{
    const struct moesim_param *row;
    char text[VALUE_TEXT];
    for (uint32_t i = 0; (row = moesim_schema_row(moesim_router_schema(router), i)) != NULL; i++)
        if (draw_below(d, 5) < 2 && draw_setting(d, row, s->params, c, text))
            settings_set(s, row, text);
}

/* Rows that repeat, with equal values inside: ties between tokens and between experts that every score function keeps.
 */
static void repeat_rows(struct trial *t, struct draw *d)
{
    const struct moesim_batch *b = &t->batch;
    const uint32_t n_rows = 1 + draw_below(d, 4);
    for (uint32_t i = 0; i < n_rows && i < b->n_tokens; i++)
        for (uint32_t e = 0; e < b->n_columns; e++)
            if (draw_below(d, 3) == 0)
                t->columns[(size_t)i * b->stride + e] = t->columns[(size_t)i * b->stride + draw_below(d, b->n_columns)];
    for (uint32_t i = n_rows; i < b->n_tokens; i++)
        memcpy(t->columns + (size_t)i * b->stride, t->columns + (size_t)draw_below(d, n_rows) * b->stride,
               b->n_columns * sizeof(float));
}

/* Cells and whole rows that are not numbers. */
static void lose_numbers(struct trial *t, struct draw *d)
{
    const struct moesim_batch *b = &t->batch;
    for (uint32_t i = 0; i < b->n_tokens; i++)
        for (uint32_t e = 0, row = draw_below(d, 6); e < b->n_columns; e++)
            if (row == 0 || (row == 1 && draw_below(d, 4) == 0))
                t->columns[(size_t)i * b->stride + e] = NAN;
}

void random_fill(struct trial *t, struct draw *d, uint32_t step)
{
    const float width = draw_below(d, 4) ? 1 : 3;
    trial_take(t, step);
    for (size_t i = 0; i < (size_t)t->batch.n_tokens * t->batch.stride; i++)
        t->columns[i] *= width;
    switch (draw_below(d, 6)) {
    case 0:
        repeat_rows(t, d);
        break;
    case 1:
        lose_numbers(t, d);
        break;
    }
}
