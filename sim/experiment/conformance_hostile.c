/*
 * Hostile gate columns: not a number, infinities, ties, denormals, the largest floats, nothing at all.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <moesim/hash.h>

#include "sim/experiment/conformance_suite.h"

#define N_TOKENS 68u /* twice that is a multiple of 8 experts, as quantile wants it */
#define N_REPEATS 20u
#define LOST_COLUMN 1u

/* What the router's decisions follow from, seen on harmless batches in evaluation. */
struct nature {
    bool by_columns;   /* other columns, other decisions */
    bool columns_only; /* and nothing else: same columns, same decisions whatever the rest is */
    bool by_expert;    /* column e speaks for expert e: two of them swapped, the loads of both experts swap */
};

/* The value of column e of token t; `now` is what a harmless batch has there. */
typedef float column_value(uint32_t t, uint32_t e, float now);

static float one_nan_row(uint32_t t, uint32_t e, float now)
{
    (void)e;
    return t == 3 ? NAN : now;
}
static float all_nan(uint32_t t, uint32_t e, float now)
{
    (void)t, (void)e, (void)now;
    return NAN;
}
static float nan_column(uint32_t t, uint32_t e, float now)
{
    (void)t;
    return e == LOST_COLUMN ? NAN : now;
}
static float one_number(uint32_t t, uint32_t e, float now)
{
    return e == t % 5 ? now : NAN;
}
static float infinities(uint32_t t, uint32_t e, float now)
{
    return (t + e) % 5 == 0 ? INFINITY : (t + e) % 7 == 0 ? -INFINITY : now;
}
static float infinite_rows(uint32_t t, uint32_t e, float now)
{
    (void)e;
    return t % 3 == 0 ? INFINITY : t % 3 == 1 ? -INFINITY : now;
}
static float minus_zeros(uint32_t t, uint32_t e, float now)
{
    (void)now;
    return (t + e) % 2 ? -0.0f : 0.0f;
}
static float zeros(uint32_t t, uint32_t e, float now)
{
    (void)t, (void)e, (void)now;
    return 0;
}
static float all_equal(uint32_t t, uint32_t e, float now)
{
    (void)t, (void)e, (void)now;
    return 0.7f;
}
static float denormals(uint32_t t, uint32_t e, float now)
{
    (void)t, (void)e;
    return now * 1e-39f;
}
static float huge(uint32_t t, uint32_t e, float now)
{
    (void)t, (void)e;
    return now < 0 ? -1e38f : 1e38f;
}
static float largest(uint32_t t, uint32_t e, float now)
{
    (void)now;
    return (t + e) % 2 ? FLT_MAX : -FLT_MAX;
}

static const struct hostile {
    const char *name;
    column_value *value;
} hostile[] = {
    {"one row of NaN", one_nan_row}, {"all NaN", all_nan},
    {"a column of NaN", nan_column}, {"one number a row", one_number},
    {"infinities", infinities},      {"rows of infinities", infinite_rows},
    {"negative zeros", minus_zeros}, {"all equal", all_equal},
    {"denormals", denormals},        {"1e38", huge},
    {"the largest floats", largest},
};

static void overwrite(struct trial *t, column_value *value)
{
    const struct moesim_batch *b = &t->batch;
    for (uint32_t i = 0; i < b->n_tokens; i++)
        for (uint32_t e = 0; e < b->n_columns; e++) {
            float *cell = &t->columns[(size_t)i * b->stride + e];
            *cell = value(i, e, *cell);
        }
}

/* ---- what must hold ---- */

static bool is_bad_row(const struct trial *t, uint32_t token)
{
    const struct moesim_batch *b = &t->batch;
    const uint32_t n = b->n_columns < b->n_experts ? b->n_columns : b->n_experts;
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(b->columns[(size_t)token * b->stride + e]))
            return false;
    return n > 0;
}

/* Bad rows are counted and routed nowhere. */
static bool bad_rows_are_left_out(const struct trial *t)
{
    const struct moesim_plan *p = &t->plan;
    uint32_t n_bad = 0;
    for (uint32_t i = 0; i < p->n_tokens; i++) {
        if (!is_bad_row(t, i))
            continue;
        n_bad++;
        for (uint32_t j = p->first[i]; j < p->first[i + 1]; j++)
            if (p->fate[j] != MOESIM_BAD_ROW)
                return false;
    }
    return p->n_bad_rows >= n_bad;
}

static bool nobody_has(const struct trial *t, uint32_t expert)
{
    return expert >= t->shape.n_experts || t->kept[expert] == 0;
}

/* Token choice with equal scores: the first choice is expert 0, and choices come by rising id. */
static bool experts_come_lowest_first(const struct moesim_plan *p)
{
    for (uint32_t t = 0; t < p->n_tokens; t++)
        for (uint32_t i = p->first[t]; i < p->first[t + 1]; i++)
            if (i == p->first[t] ? p->expert[i] != 0 : p->expert[i] <= p->expert[i - 1])
                return false;
    return true;
}

/* Expert choice with equal scores: no token of a group has more experts than the one before it. */
static bool tokens_come_lowest_first(const struct moesim_plan *p, const uint32_t *group_start)
{
    for (uint32_t g = 0; g < p->n_groups; g++)
        for (uint32_t t = group_start[g] + 1; t < group_start[g + 1]; t++)
            if (p->first[t + 1] - p->first[t] > p->first[t] - p->first[t - 1])
                return false;
    return true;
}

static bool ties_go_to_the_lowest(const struct trial *t)
{
    const struct moesim_plan *p = &t->plan;
    return p->n_wanted ? experts_come_lowest_first(p) : tokens_come_lowest_first(p, t->batch.group_start);
}

/* ---- running ---- */

/* What an evaluation looks at. */
enum view { PLAIN, NEGATED, SWAPPED };

/* The hashes of an evaluation of step 0's columns; everything else comes from `seed`. */
struct decision {
    uint64_t plan, loads;
};

static void change_columns(struct trial *t, enum view view)
{
    const size_t n = t->batch.n_tokens, stride = t->batch.stride;
    for (size_t i = 0; view == NEGATED && i < n * stride; i++)
        t->columns[i] = -t->columns[i];
    for (size_t i = 0; view == SWAPPED && i < n && t->batch.n_columns > LOST_COLUMN; i++) {
        float *row = t->columns + i * stride, first = row[0];
        row[0] = row[LOST_COLUMN];
        row[LOST_COLUMN] = first;
    }
}

/* Loads of all experts; of a swapped batch with both experts swapped back. */
static uint64_t hash_loads(struct trial *t, enum view view)
{
    if (view == SWAPPED && t->shape.n_experts > LOST_COLUMN) {
        const uint64_t first = t->assigned[0];
        t->assigned[0] = t->assigned[LOST_COLUMN];
        t->assigned[LOST_COLUMN] = first;
    }
    return moesim_hash(MOESIM_HASH_START, t->assigned, t->shape.n_experts * sizeof *t->assigned);
}

static enum moesim_status decide(struct suite *suite, const struct trial_case *base, uint64_t seed, enum view view,
                                 const struct settings *s, struct decision *decision, struct moesim_error *err)
{
    struct trial_case c = *base;
    c.phase = MOESIM_EVAL;
    c.seed = seed;
    struct trial t;
    enum moesim_status status = trial_init(&t, suite->router, &c, s->params, NULL, err);
    if (status == MOESIM_OK) {
        trial_take(&t, 0);
        const struct moesim_random columns = {.seed = base->seed, .stream = MOESIM_STREAM_TEST + 9};
        moesim_random_normals(&columns, 0, (size_t)c.n_tokens * t.batch.stride, t.columns);
        change_columns(&t, view);
        status = trial_route(&t, err);
        *decision = (struct decision){trial_plan_hash(&t, t.shape.n_slots == 0), hash_loads(&t, view)};
    }
    trial_finish(&t);
    return status;
}

static enum moesim_status find_nature(struct suite *suite, const struct trial_case *c, const struct settings *s,
                                      struct nature *nature, struct moesim_error *err)
{
    struct decision plain = {0}, negated = {0}, other_seed = {0}, swapped = {0};
    enum moesim_status status = decide(suite, c, c->seed, PLAIN, s, &plain, err);
    if (status == MOESIM_OK)
        status = decide(suite, c, c->seed, NEGATED, s, &negated, err);
    if (status == MOESIM_OK)
        status = decide(suite, c, c->seed + 1, PLAIN, s, &other_seed, err);
    if (status == MOESIM_OK)
        status = decide(suite, c, c->seed, SWAPPED, s, &swapped, err);
    nature->by_columns = plain.plan != negated.plan;
    nature->columns_only = nature->by_columns && plain.plan == other_seed.plan;
    nature->by_expert = plain.loads == swapped.loads;
    return status;
}

static enum moesim_status check_equal(struct suite *suite, struct trial *t, const struct settings *s,
                                      struct moesim_error *err)
{
    const uint64_t hash = trial_plan_hash(t, false);
    enum moesim_status status = MOESIM_OK;
    bool same = true;
    for (uint32_t i = 0; i < N_REPEATS && status == MOESIM_OK; i++) {
        status = trial_route(t, err);
        same = same && trial_plan_hash(t, false) == hash;
    }
    if (t->shape.n_memory == 0)
        suite_check(suite, same, &t->c, s->text, "all equal: %u repeats differ", N_REPEATS);
    return status;
}

/* -0 is a zero: the same decisions as for +0. */
static enum moesim_status check_zeros(struct suite *suite, struct trial *t, const struct settings *s,
                                      struct moesim_error *err)
{
    const uint64_t hash = trial_plan_hash(t, true);
    overwrite(t, zeros);
    const enum moesim_status status = trial_route(t, err);
    suite_check(suite, trial_plan_hash(t, true) == hash, &t->c, s->text, "-0 and 0 are routed differently");
    return status;
}

static enum moesim_status check_hostile(struct suite *suite, const struct hostile *h, struct trial *t,
                                        const struct nature *nature, const struct settings *s, struct moesim_error *err)
{
    trial_take(t, 0);
    overwrite(t, h->value);
    enum moesim_status status = trial_route(t, err);
    suite_check(suite, status == MOESIM_OK, &t->c, s->text, "%s: %s", h->name, err->text);
    if (status != MOESIM_OK)
        return status;
    if (nature->by_columns)
        suite_check(suite, bad_rows_are_left_out(t), &t->c, s->text, "%s: a bad row is routed or not counted", h->name);
    const bool plain = nature->columns_only && t->c.phase == MOESIM_EVAL, by_expert = plain && nature->by_expert;
    if (by_expert && h->value == nan_column)
        suite_check(suite, nobody_has(t, LOST_COLUMN), &t->c, s->text, "%s: NaN is chosen before a number", h->name);
    if (by_expert && h->value == all_equal)
        suite_check(suite, ties_go_to_the_lowest(t), &t->c, s->text, "%s: a tie does not go to the lowest id", h->name);
    if (h->value == all_equal)
        return check_equal(suite, t, s, err);
    if (plain && h->value == minus_zeros)
        return check_zeros(suite, t, s, err);
    return MOESIM_OK;
}

static enum moesim_status try_hostile(struct suite *suite, const struct trial_case *base, const struct nature *nature,
                                      const struct settings *s, struct moesim_error *err)
{
    for (uint32_t i = 0; i < 2 * sizeof hostile / sizeof hostile[0]; i++) {
        struct trial_case c = *base;
        c.phase = i % 2 ? MOESIM_EVAL : MOESIM_TRAIN;
        struct trial t;
        enum moesim_status status = trial_init(&t, suite->router, &c, s->params, NULL, err);
        if (status == MOESIM_OK)
            status = check_hostile(suite, &hostile[i / 2], &t, nature, s, err);
        trial_finish(&t);
        if (status == MOESIM_ENOMEM)
            return status;
    }
    return MOESIM_OK;
}

/* Defaults, and a capacity that refuses half of the pairs where the router has one. */
static bool choose_settings(struct settings *s, const struct moesim_router *router, uint32_t variant)
{
    if (variant == 0)
        return true;
    const struct moesim_param *row = moesim_schema_find(moesim_router_schema(router), "capacity_factor");
    return row && settings_set(s, row, "0.5");
}

/* The smallest number of experts that the router's defaults accept decides; true when this one did. */
static enum moesim_status try_experts(struct suite *suite, uint32_t n_experts, uint32_t variant, bool *accepted,
                                      struct moesim_error *err)
{
    const struct trial_case c = {
        .seed = suite->seed, .n_tokens = N_TOKENS, .n_experts = n_experts, .top_k = 2, .n_devices = 2, .n_steps = 1};
    struct settings s;
    struct nature nature;
    enum moesim_status status = settings_init(&s, suite->router, c.top_k, err);
    if (status == MOESIM_OK && choose_settings(&s, suite->router, variant)) {
        status = find_nature(suite, &c, &s, &nature, err);
        *accepted = status == MOESIM_OK;
        if (*accepted)
            status = try_hostile(suite, &c, &nature, &s, err);
        else if (!is_refusal(status) && status != MOESIM_ENOMEM)
            suite_check(suite, false, &c, s.text, "%s", err->text);
    }
    settings_finish(&s);
    return status == MOESIM_ENOMEM ? status : MOESIM_OK;
}

enum moesim_status suite_hostile(struct suite *suite, struct moesim_error *err)
{
    for (uint32_t variant = 0; variant < 2; variant++) {
        bool accepted = false;
        for (uint32_t n_experts = 8; n_experts <= 512 && !accepted; n_experts *= 2) {
            const enum moesim_status status = try_experts(suite, n_experts, variant, &accepted, err);
            if (status != MOESIM_OK)
                return status;
        }
        const struct trial_case c = {.seed = suite->seed, .n_tokens = N_TOKENS, .n_experts = 512, .top_k = 2};
        if (variant == 0)
            suite_check(suite, accepted, &c, "", "the defaults are refused for 8, 16, ... 512 experts: %s", err->text);
    }
    return MOESIM_OK;
}
