/*
 * What is written comes back, bit for bit; a second write of a run changes nothing; strange names are only text.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/results/fixture.h"

TestSuite(round_trip, .timeout = 60);

static void expect_bits(double stored, double given, const char *what)
{
    if (isnan(given))
        cr_expect(isnan(stored), "%s: NaN is NULL", what);
    else
        cr_expect_eq(memcmp(&stored, &given, sizeof given), 0, "%s: %a, given %a", what, stored, given);
}

static struct results_query *ask(struct results_store *store, const char *sql, const char *const *text, uint32_t n)
{
    struct results_query *query;
    struct moesim_error err = {""};
    cr_assert_eq(results_query(store, sql, text, n, &query, &err), MOESIM_OK, "%s", err.text);
    return query;
}

static bool next(struct results_query *query)
{
    bool row;
    struct moesim_error err = {""};
    cr_assert_eq(results_next(query, &row, &err), MOESIM_OK, "%s", err.text);
    return row;
}

static void expect_summaries(struct results_store *store, const struct moesim_outcome *o)
{
    struct results_query *q = ask(store,
                                  "SELECT s.value, s.mean, s.std, s.min, s.p50, s.p95, s.max, s.n, ifnull(s.layer, -1),"
                                  " m.name FROM summary s JOIN metric m ON m.id = s.metric ORDER BY s.rowid",
                                  NULL, 0);
    uint64_t n = 0;
    for (; next(q); n++) {
        const struct moesim_summary *s = &o->summary[n];
        const double given[] = {s->value, s->mean, s->std, s->min, s->p50, s->p95, s->max};
        for (uint32_t i = 0; i < 7; i++)
            expect_bits(results_number(q, i), given[i], results_column_name(q, i));
        cr_expect_eq(results_integer(q, 7), (int64_t)s->n);
        cr_expect_eq(results_integer(q, 8), s->layer);
        cr_expect_str_eq(results_text(q, 9), moesim_metrics[s->metric].name);
    }
    cr_expect_eq(n, o->n_summaries);
    results_query_close(q);
}

static void expect_rest(struct results_store *store, const struct moesim_outcome *o)
{
    struct results_query *q = ask(store, "SELECT step, layer, value FROM series ORDER BY layer, step", NULL, 0);
    uint64_t n = 0;
    for (; next(q); n++)
        expect_bits(results_number(q, 2), o->series[n].value, "series");
    cr_expect_eq(n, o->n_series);
    results_query_close(q);

    q = ask(store,
            "SELECT window, layer, expert, assigned, kept, n_steps FROM v_expert_load ORDER BY layer, window, expert",
            NULL, 0);
    for (n = 0; next(q); n++) {
        const struct moesim_load_window *w = &o->window[n / 8];
        cr_expect_eq(results_integer(q, 0), w->window);
        cr_expect_eq(results_integer(q, 2), n % 8);
        cr_expect_eq((uint64_t)results_integer(q, 3), w->assigned[n % 8]);
        cr_expect_eq((uint64_t)results_integer(q, 4), w->kept[n % 8]);
    }
    cr_expect_eq(n, o->n_windows * 8);
    results_query_close(q);

    q = ask(store, "SELECT bytes, unit, source, target FROM traffic ORDER BY unit <> 'device', unit, source, target",
            NULL, 0);
    for (n = 0; next(q); n++) {
        expect_bits(results_number(q, 0), o->traffic[n].bytes, "traffic");
        cr_expect_str_eq(results_text(q, 1), n < 16 ? "device" : n == 16 ? "leaf_up" : "nvlink_out");
        cr_expect(results_integer(q, 2) == o->traffic[n].source && results_integer(q, 3) == o->traffic[n].target);
    }
    cr_expect_eq(n, o->n_traffic);
    results_query_close(q);
}

static void expect_training(struct results_store *store, const struct moesim_outcome *o)
{
    struct results_query *q =
        ask(store, "SELECT step, domain, tokens, bits_per_byte FROM v_domain_loss ORDER BY step, domain", NULL, 0);
    uint64_t n = 0;
    for (; next(q); n++) {
        const struct moesim_domain_loss *l = &o->domain_loss[n];
        cr_expect_eq(results_integer(q, 0), l->step);
        cr_expect_str_eq(results_text(q, 1), l->domain);
        cr_expect_eq((uint64_t)results_integer(q, 2), l->tokens);
        expect_bits(results_number(q, 3), l->bits_per_byte, l->domain);
    }
    cr_expect_eq(n, o->n_domain_losses);
    results_query_close(q);

    static const char *const kind[] = {"domain", "token"};
    for (n = 0; n < o->n_specialisations; n++) {
        const struct moesim_specialisation *s = &o->specialisation[n];
        char layer[8];
        snprintf(layer, sizeof layer, "%u", s->layer);
        const char *const text[] = {layer, kind[s->kind], s->subject};
        q = ask(store,
                "SELECT expert, assigned, tokens FROM v_specialisation WHERE layer = CAST(?1 AS INTEGER) AND kind = ?2"
                " AND subject = ?3 ORDER BY expert",
                text, 3);
        uint32_t e = 0;
        for (; next(q); e++) {
            cr_expect_eq(results_integer(q, 0), e);
            cr_expect_eq((uint64_t)results_integer(q, 1), s->assigned[e]);
            cr_expect_eq((uint64_t)results_integer(q, 2), s->tokens);
        }
        cr_expect_eq(e, s->n_experts, "%s: %u of %u experts", s->subject, e, s->n_experts);
        results_query_close(q);
    }
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_specialisation"), 4.0 * (double)o->n_specialisations);
}

Test(round_trip, outcome)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 3);
    struct results_store *store = fixture_open(path, RESULTS_WRITE);
    const int64_t study = fixture_study(store, "one");
    cr_expect_eq(fixture_study(store, "one"), study, "found again");
    cr_expect_neq(fixture_study(store, "two"), study);
    struct fixture_run f;
    fixture_run(&f, study, "switch:k=1", "zipf", 7, &outcome);
    const int64_t id = fixture_store(store, &f.run);
    results_close(store);
    cr_expect_eq(fixture_count_files(path), 1, "no log is left");

    store = fixture_open(path, RESULTS_READ);
    expect_summaries(store, &outcome);
    expect_rest(store, &outcome);
    expect_training(store, &outcome);
    struct results_query *q = ask(store, "SELECT * FROM v_runs", NULL, 0);
    cr_assert(next(q));
    uint32_t n_found = 0;
    for (uint32_t i = 0; i < results_columns(q); i++) {
        const char *name = results_column_name(q, i);
        const int metric = moesim_metric_find(name);
        if (metric >= 0) {
            n_found++;
            expect_bits(results_number(q, i), outcome.summary[metric * 4].value, name);
        } else if (strcmp(name, "router_name") == 0) {
            cr_expect_str_eq(results_text(q, i), "switch");
        } else if (strcmp(name, "run") == 0) {
            cr_expect_eq(results_integer(q, i), id);
        } else if (strcmp(name, "cluster") == 0) {
            cr_expect(results_is_null(q, i));
        }
    }
    cr_expect_eq(n_found, MOESIM_N_METRICS, "one column a metric");
    cr_expect_not(next(q), "one row a run");
    results_query_close(q);
    results_close(store);
    cr_expect_eq(fixture_count_files(path), 1, "a reader leaves no log");
    moesim_arena_destroy(arena);
    fixture_remove(path);
}

/* Two domains or token ids may be spelled alike: no reason to lose a run. */
Test(round_trip, names_that_come_twice)
{
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_outcome outcome = fixture_rich_outcome(arena, 1);
    outcome.domain_loss[1].domain = outcome.domain_loss[0].domain;
    outcome.specialisation[1].subject = outcome.specialisation[0].subject;
    struct fixture_run f;
    fixture_run(&f, fixture_study(store, "one"), "null", "zipf", 1, &outcome);
    fixture_store(store, &f.run);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_domain_loss"), (double)outcome.n_domain_losses - 1);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_specialisation"),
                 4.0 * ((double)outcome.n_specialisations - 1));
    struct moesim_error err = {""};
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    results_close(store);
    moesim_arena_destroy(arena);
}

Test(round_trip, states_and_replacement)
{
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    const int64_t study = fixture_study(store, "one");
    struct moesim_error err = {""};
    enum results_state state;
    struct fixture_run f;
    fixture_run(&f, study, "null", "zipf", 1, NULL);
    cr_assert_eq(results_run_state(store, study, f.run.hash, &state, &err), MOESIM_OK);
    cr_expect_eq(state, RESULTS_ABSENT);
    const int64_t failed = fixture_store(store, &f.run);
    cr_assert_eq(results_run_state(store, study, f.run.hash, &state, &err), MOESIM_OK);
    cr_expect_eq(state, RESULTS_FAILED);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM run WHERE state = 'failed' AND reason = 'no luck'"), 1);
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);

    /* A failed run is replaced by a done one, ... */
    struct fixture_outcome o;
    const uint32_t metric = MOESIM_LOAD_CV;
    fixture_outcome(&o, 1, &metric, &(double){0.5});
    fixture_run(&f, study, "null", "zipf", 1, &o.outcome);
    const int64_t done = fixture_store(store, &f.run);
    cr_assert_eq(results_run_state(store, study, f.run.hash, &state, &err), MOESIM_OK);
    cr_expect_eq(state, RESULTS_DONE);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM run"), 1);
    cr_expect_eq(fixture_number(store, "SELECT count(DISTINCT run) FROM run_param"), 1, "nothing of run %d is left",
                 (int)failed);
    /* ... which stays, whatever comes with its hash. */
    o.summary[0].value = 9;
    cr_expect_eq(fixture_store(store, &f.run), done);
    fixture_run(&f, study, "null", "zipf", 1, NULL);
    cr_expect_eq(fixture_store(store, &f.run), done);
    cr_expect_eq(fixture_number(store, "SELECT load_cv FROM v_runs"), 0.5);
    /* The same point of another study is another run. */
    fixture_run(&f, fixture_study(store, "two"), "null", "zipf", 1, &o.outcome);
    cr_expect_neq(fixture_store(store, &f.run), done);
    results_close(store);
}

Test(round_trip, names_are_text)
{
    static const char *const names[] = {
        "'; DROP TABLE run; --",        "\"`<script>", "=cmd()", "%n%s%1$p", "a\nb\tc\033[31m",
        "\xe2\x80\xae\xf0\x9f\x8e\x89", "\xff\xfe",    "?1",     ""};
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    struct fixture_outcome o;
    const uint32_t metric = MOESIM_LOAD_CV;
    fixture_outcome(&o, 1, &metric, &(double){1});
    for (uint64_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct fixture_run f;
        fixture_run(&f, fixture_study(store, names[i]), names[i], names[i], i, &o.outcome);
        f.run.params_json = names[i];
        fixture_store(store, &f.run);
        struct results_query *q =
            ask(store, "SELECT router, workload, study FROM v_runs WHERE router = ?1 AND study = ?2",
                (const char *const[]){names[i], names[i]}, 2);
        cr_assert(next(q), "%s", names[i]);
        for (uint32_t j = 0; j < 3; j++)
            cr_expect_str_eq(results_text(q, j), names[i]);
        results_query_close(q);
    }
    struct moesim_error err = {""};
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    results_close(store);
}

/* -1 as seed is the largest uint64_t: its bits stay. */
Test(round_trip, widest_numbers)
{
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    struct fixture_outcome o;
    const uint32_t metric = MOESIM_LOAD_CV;
    fixture_outcome(&o, 1, &metric, &(double){1});
    struct fixture_run f;
    fixture_run(&f, fixture_study(store, "s"), "null", "zipf", UINT64_MAX, &o.outcome);
    f.run.hash = UINT64_MAX;
    fixture_store(store, &f.run);
    struct results_query *q = ask(store, "SELECT seed, hash FROM v_runs", NULL, 0);
    cr_assert(next(q));
    cr_expect_eq((uint64_t)results_integer(q, 0), UINT64_MAX);
    cr_expect_str_eq(results_text(q, 1), "ffffffffffffffff");
    results_query_close(q);
    results_close(store);
}
