/*
 * Comparison of routers from the database alone: pairs are read from v_compare, differences are averaged within a seed,
 * and the seeds carry the interval, since runs of one seed share their batches and are no independent repetitions.
 */
#include "analysis/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/param.h>

#define FEW_SEEDS 10

/* What a reader asks first; those without data give no row. */
static const uint32_t default_metrics[] = {MOESIM_BITS_PER_BYTE,     MOESIM_LOAD_CV,          MOESIM_MAX_VIO,
                                           MOESIM_DROPPED_FRACTION,  MOESIM_DEVICE_IMBALANCE, MOESIM_TIME_LAYER,
                                           MOESIM_TOKENS_PER_SECOND, MOESIM_BENCH_CPU};

/* Specs in the study's order. */
struct specs {
    uint32_t n;
    const char **text;
};

struct pair {
    uint32_t metric; /* place in the list of metrics */
    uint32_t workload, router;
    int64_t seed;
    double baseline, value;
};

/* One comparison under way. */
struct comparing {
    struct results_store *store;
    struct moesim_arena *arena;
    struct moesim_error *err;
    char study[24]; /* its id as text, for the queries */
    const char *baseline;
    const uint32_t *metrics;
    uint32_t n_metrics;
    bool by_workload;
    struct specs routers, workloads;
    struct pair *pair; /* malloc'd */
    size_t n_pairs, capacity;
};

static enum moesim_status no_room(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory left for the comparison");
}

/* A list in the arena that doubles when it is full. */
static bool specs_add(struct moesim_arena *arena, struct specs *specs, const char *text)
{
    const uint32_t n = specs->n;
    if ((n & (n - 1)) == 0) { /* full at 0, 1, 2, 4, 8, ... */
        const char **grown = moesim_alloc(arena, n ? 2 * (size_t)n : 1, sizeof *grown);
        if (!grown)
            return false;
        if (n)
            memcpy(grown, specs->text, n * sizeof *grown);
        specs->text = grown;
    }
    specs->text[n] = moesim_strdup(arena, text);
    specs->n += specs->text[n] != NULL;
    return specs->text[n];
}

static uint32_t specs_find(const struct specs *specs, const char *text)
{
    uint32_t i = 0;
    while (i < specs->n && strcmp(specs->text[i], text) != 0)
        i++;
    return i;
}

/* "a, b, c; did you mean b?": the list, and what is nearest to the word by spec or by name alone. */
static void describe_specs(const struct specs *specs, const char *word, char *text, size_t size)
{
    const char *nearest = NULL;
    uint32_t least = 3;
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < specs->n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(specs->text[i], ":"), specs->text[i]);
        const uint32_t whole = moesim_edit_distance(word, specs->text[i], 2);
        const uint32_t distance = moesim_edit_distance(word, name, 2);
        if (whole < least || distance < least) {
            least = whole < distance ? whole : distance;
            nearest = specs->text[i];
        }
        if (used < size)
            used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", specs->text[i]);
    }
    if (nearest && used < size)
        snprintf(text + used, size - used, "; did you mean '%s'?", nearest);
}

/* Adds all rows of a one-column query. */
static enum moesim_status read_specs(struct comparing *c, const char *sql, const char *const *text, uint32_t n_text,
                                     struct specs *specs)
{
    struct results_query *query;
    bool row;
    enum moesim_status status = results_query(c->store, sql, text, n_text, &query, c->err);
    while (status == MOESIM_OK && (status = results_next(query, &row, c->err)) == MOESIM_OK && row)
        if (!specs_add(c->arena, specs, results_text(query, 0)))
            status = no_room(c->err);
    results_query_close(query);
    return status;
}

static enum moesim_status unknown_study(struct comparing *c, const char *name)
{
    struct specs studies = {0};
    const enum moesim_status status =
        read_specs(c, "SELECT name FROM study GROUP BY name ORDER BY max(id)", NULL, 0, &studies);
    if (status != MOESIM_OK)
        return status;
    if (!studies.n)
        return moesim_fail(c->err, MOESIM_EINVAL, "the database holds no study yet; fill it with 'moesim run'");
    char list[384];
    describe_specs(&studies, name, list, sizeof list);
    return moesim_fail(c->err, MOESIM_EINVAL, "no study '%s' in the database, there are: %s", name, list);
}

static enum moesim_status find_study(struct comparing *c, const char *name, const char **found)
{
    struct results_query *query;
    bool row = false;
    enum moesim_status status =
        results_query(c->store,
                      name ? "SELECT id, name FROM study WHERE name = ?1 ORDER BY id DESC LIMIT 1"
                           : "SELECT id, name FROM study ORDER BY id DESC LIMIT 1",
                      &name, name != NULL, &query, c->err);
    if (status == MOESIM_OK)
        status = results_next(query, &row, c->err);
    if (row) {
        snprintf(c->study, sizeof c->study, "%s", results_text(query, 0));
        *found = moesim_strdup(c->arena, results_text(query, 1));
        if (!*found)
            status = no_room(c->err);
    }
    results_query_close(query);
    return status == MOESIM_OK && !row ? unknown_study(c, name ? name : "") : status;
}

/* The spec itself, or the only one with that name. */
static uint32_t find_router(const struct specs *routers, const char *word)
{
    const uint32_t exact = specs_find(routers, word);
    const size_t length = strlen(word);
    uint32_t named = routers->n, n_named = 0;
    for (uint32_t i = 0; i < routers->n; i++)
        if (strncmp(routers->text[i], word, length) == 0 && routers->text[i][length] == ':') {
            named = i;
            n_named++;
        }
    return exact < routers->n || n_named != 1 ? exact : named;
}

static enum moesim_status find_baseline(struct comparing *c, const char *baseline)
{
    if (!c->routers.n)
        return moesim_fail(c->err, MOESIM_EINVAL, "the study has no finished run to compare");
    const uint32_t found = baseline ? find_router(&c->routers, baseline) : 0;
    if (found < c->routers.n) {
        c->baseline = c->routers.text[found];
        return MOESIM_OK;
    }
    char list[384];
    describe_specs(&c->routers, baseline, list, sizeof list);
    return moesim_fail(c->err, MOESIM_EINVAL, "no router '%s' in the study, there are: %s", baseline, list);
}

static bool add_pair(struct comparing *c, const struct pair *pair)
{
    if (c->n_pairs == c->capacity) {
        const size_t capacity = c->capacity ? 2 * c->capacity : 256;
        struct pair *grown = realloc(c->pair, capacity * sizeof *grown);
        if (!grown)
            return false;
        c->pair = grown;
        c->capacity = capacity;
    }
    c->pair[c->n_pairs++] = *pair;
    return true;
}

static enum moesim_status read_pairs(struct comparing *c, uint32_t metric)
{
    const char *text[] = {c->study, c->baseline, moesim_metrics[c->metrics[metric]].name};
    struct results_query *query;
    bool row;
    enum moesim_status status = results_query(c->store,
                                              "SELECT router, workload, seed, baseline_value, value FROM v_compare"
                                              " WHERE study_id = ?1 AND baseline = ?2 AND metric = ?3",
                                              text, 3, &query, c->err);
    while (status == MOESIM_OK && (status = results_next(query, &row, c->err)) == MOESIM_OK && row) {
        const struct pair pair = {
            .metric = metric,
            .router = specs_find(&c->routers, results_text(query, 0)),
            .workload = c->by_workload ? specs_find(&c->workloads, results_text(query, 1)) : 0,
            .seed = results_integer(query, 2),
            .baseline = results_number(query, 3),
            .value = results_number(query, 4),
        };
        /* A router that is new since the list was read belongs to the next comparison. */
        const bool listed = pair.router < c->routers.n && (!c->by_workload || pair.workload < c->workloads.n);
        if (listed && isfinite(pair.value - pair.baseline) && !add_pair(c, &pair))
            status = no_room(c->err);
    }
    results_query_close(query);
    return status;
}

#define COMPARE(a, b) (((a) > (b)) - ((a) < (b)))

/* By row of the comparison, then seed; the values last, so that sums do not depend on the order of the file. */
static int by_row(const void *a, const void *b)
{
    const struct pair *x = a, *y = b;
    const int order[] = {COMPARE(x->metric, y->metric),     COMPARE(x->workload, y->workload),
                         COMPARE(x->router, y->router),     COMPARE(x->seed, y->seed),
                         COMPARE(x->baseline, y->baseline), COMPARE(x->value, y->value)};
    size_t i = 0;
    while (i + 1 < sizeof order / sizeof *order && order[i] == 0)
        i++;
    return order[i];
}

static bool same_row(const struct pair *a, const struct pair *b)
{
    return a->metric == b->metric && a->workload == b->workload && a->router == b->router;
}

static enum analysis_verdict judge(const struct analysis_difference *d)
{
    if (d->n_seeds < 2)
        return ANALYSIS_TOO_FEW;
    if (!(d->low > 0 || d->high < 0))
        return ANALYSIS_NO_DIFFERENCE;
    const int better = moesim_metrics[d->metric].better;
    if (better == MOESIM_NEITHER)
        return ANALYSIS_NEITHER;
    return (d->difference > 0) == (better == MOESIM_HIGHER) ? ANALYSIS_BETTER : ANALYSIS_WORSE;
}

/* One row of the comparison from its sorted pairs; by_seed [n] is scratch. */
static struct analysis_difference fold_row(const struct comparing *c, const struct pair *pair, uint32_t n,
                                           double *by_seed)
{
    struct analysis_difference d = {.router = c->routers.text[pair->router],
                                    .workload = c->by_workload ? c->workloads.text[pair->workload] : "",
                                    .metric = c->metrics[pair->metric],
                                    .n_pairs = n};
    uint32_t of_seed = 0;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        d.baseline_mean += pair[i].baseline / n;
        d.mean += pair[i].value / n;
        sum += pair[i].value - pair[i].baseline;
        of_seed++;
        if (i + 1 == n || pair[i + 1].seed != pair[i].seed) {
            by_seed[d.n_seeds++] = sum / of_seed;
            sum = of_seed = 0;
        }
    }
    double half_width;
    analysis_t_interval(by_seed, d.n_seeds, &d.difference, &half_width);
    d.low = d.difference - half_width;
    d.high = d.difference + half_width;
    d.p = d.p_holm = analysis_t_p(by_seed, d.n_seeds);
    d.verdict = judge(&d);
    return d;
}

static enum moesim_status fold(struct comparing *c, struct analysis_comparison *out)
{
    uint32_t n_rows = 0, longest = 0;
    if (c->n_pairs)
        qsort(c->pair, c->n_pairs, sizeof *c->pair, by_row);
    for (size_t i = 0, first = 0; i < c->n_pairs; i++)
        if (i + 1 == c->n_pairs || !same_row(&c->pair[i], &c->pair[i + 1])) {
            const uint32_t length = (uint32_t)(i + 1 - first);
            longest = length > longest ? length : longest;
            first = i + 1;
            n_rows++;
        }
    out->difference = moesim_alloc(c->arena, n_rows, sizeof *out->difference);
    double *by_seed = moesim_alloc(c->arena, longest, sizeof *by_seed);
    double *p = moesim_alloc(c->arena, n_rows, sizeof *p);
    if (!out->difference || !by_seed || !p)
        return no_room(c->err);
    for (size_t i = 0, first = 0; i < c->n_pairs; i++)
        if (i + 1 == c->n_pairs || !same_row(&c->pair[i], &c->pair[i + 1])) {
            const struct analysis_difference d = fold_row(c, &c->pair[first], (uint32_t)(i + 1 - first), by_seed);
            out->few_seeds |= d.n_seeds < FEW_SEEDS;
            p[out->n_differences] = d.p;
            out->difference[out->n_differences++] = d;
            first = i + 1;
        }
    analysis_holm(p, n_rows);
    for (uint32_t i = 0; i < n_rows; i++)
        out->difference[i].p_holm = p[i];
    return MOESIM_OK;
}

/* Finished runs of the study that meet no run on the other side of the baseline. */
static enum moesim_status count_unpaired(struct comparing *c, uint32_t *n)
{
    const char *text[] = {c->study, c->baseline};
    struct results_query *query;
    bool row = false;
    enum moesim_status status =
        results_query(c->store,
                      "SELECT count(*) FROM run r JOIN run_param p ON p.run = r.id AND p.path = 'router'"
                      " WHERE r.study = ?1 AND r.state = 'done' AND NOT EXISTS"
                      " (SELECT 1 FROM run o JOIN run_param q ON q.run = o.id AND q.path = 'router'"
                      " WHERE o.study = r.study AND o.pairing = r.pairing AND o.seed = r.seed AND o.state = 'done'"
                      " AND (p.value = ?2) <> (q.value = ?2))",
                      text, 2, &query, c->err);
    if (status == MOESIM_OK)
        status = results_next(query, &row, c->err);
    *n = row ? (uint32_t)results_integer(query, 0) : 0;
    results_query_close(query);
    return status;
}

static enum moesim_status compare(struct comparing *c, const char *study, const char *baseline,
                                  struct analysis_comparison *out)
{
    const char *text[] = {c->study};
    enum moesim_status status = find_study(c, study, &out->study);
    if (status == MOESIM_OK)
        status = read_specs(c,
                            "SELECT router FROM v_runs WHERE study_id = ?1 AND state = 'done' AND router IS NOT NULL"
                            " GROUP BY router ORDER BY min(point), min(run)",
                            text, 1, &c->routers);
    if (status == MOESIM_OK && c->by_workload)
        status = read_specs(c,
                            "SELECT ifnull(workload, '') AS w FROM v_runs WHERE study_id = ?1 AND state = 'done'"
                            " GROUP BY w ORDER BY min(point), min(run)",
                            text, 1, &c->workloads);
    if (status == MOESIM_OK)
        status = find_baseline(c, baseline);
    out->baseline = c->baseline;
    for (uint32_t i = 0; status == MOESIM_OK && i < c->n_metrics; i++)
        status = read_pairs(c, i);
    if (status == MOESIM_OK)
        status = fold(c, out);
    return status == MOESIM_OK ? count_unpaired(c, &out->n_unpaired) : status;
}

enum moesim_status analysis_compare(struct results_store *store, const char *study, const char *baseline,
                                    const uint32_t *metrics, uint32_t n_metrics, bool by_workload,
                                    struct moesim_arena *arena, struct analysis_comparison *comparison,
                                    struct moesim_error *err)
{
    struct comparing c = {
        .store = store,
        .arena = arena,
        .err = err,
        .metrics = n_metrics ? metrics : default_metrics,
        .n_metrics = n_metrics ? n_metrics : sizeof default_metrics / sizeof *default_metrics,
        .by_workload = by_workload,
    };
    *comparison = (struct analysis_comparison){0};
    const enum moesim_status status = compare(&c, study, baseline, comparison);
    free(c.pair);
    return status;
}

const char *analysis_verdict_word(enum analysis_verdict verdict)
{
    static const char *const words[] = {
        [ANALYSIS_BETTER] = "better",   [ANALYSIS_WORSE] = "worse",     [ANALYSIS_NO_DIFFERENCE] = "~",
        [ANALYSIS_NEITHER] = "differs", [ANALYSIS_TOO_FEW] = "too few",
    };
    return words[verdict];
}
