/*
 * Queries: only a SELECT is run; the views keep their columns; v_compare pairs what differs in the router alone; a
 * metric that the file does not know yet gets its column when the file is opened.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "results/connection.h"
#include "tests/results/fixture.h"

TestSuite(query, .timeout = 60);

Test(query, only_a_select)
{
    static const char *const refused[] = {"",
                                          ";",
                                          "DELETE FROM run",
                                          "INSERT INTO study VALUES (9, 'a', 'b', 'c', 'd')",
                                          "WITH x AS (SELECT 1) DELETE FROM run",
                                          "SELECT 1; DELETE FROM run",
                                          "SELECT 1; SELECT 2",
                                          "PRAGMA user_version = 7",
                                          "PRAGMA user_version",
                                          "ATTACH '/tmp/x.db' AS x",
                                          "BEGIN",
                                          "VACUUM",
                                          "DROP VIEW v_runs",
                                          "EXPLAIN SELECT 1",
                                          "SELECT nothing FROM nowhere",
                                          "SELECT \"run\"",
                                          "SELEC",
                                          "SELECT ?1",
                                          "SELECT load_extension('x')"};
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    fixture_study(store, "one");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct results_query *query = NULL;
        struct moesim_error err = {""};
        bool row;
        enum moesim_status status = results_query(store, refused[i], NULL, 0, &query, &err);
        if (status == MOESIM_OK)
            status = results_next(query, &row, &err);
        cr_expect_neq(status, MOESIM_OK, "%s", refused[i]);
        cr_expect_gt(strlen(err.text), 10);
        results_query_close(query);
    }
    cr_expect_eq(fixture_number(store, "  \nwith x as (select 41 as a) select a + 1 from x ; "), 42);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM study"), 1);
    results_close(store);
}

Test(query, cursor)
{
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    struct results_query *q;
    struct moesim_error err = {""};
    bool row;
    cr_assert_eq(results_query(store, "SELECT ?2 AS b, 7 AS seven, 2.5 AS x, NULL AS none WHERE ?1 = 'a'",
                               (const char *const[]){"a", "it's"}, 2, &q, &err),
                 MOESIM_OK, "%s", err.text);
    cr_assert_eq(results_columns(q), 4);
    cr_expect_str_eq(results_column_name(q, 1), "seven");
    cr_assert(results_next(q, &row, &err) == MOESIM_OK && row);
    cr_expect_str_eq(results_text(q, 0), "it's");
    cr_expect_not(results_is_number(q, 0));
    cr_expect(results_is_number(q, 1) && results_is_number(q, 2));
    cr_expect_eq(results_integer(q, 1), 7);
    cr_expect_eq(results_number(q, 2), 2.5);
    cr_expect(results_is_null(q, 3) && isnan(results_number(q, 3)) && !results_is_number(q, 3));
    cr_expect_str_eq(results_text(q, 3), "");
    cr_assert(results_next(q, &row, &err) == MOESIM_OK && !row);
    results_query_close(q);
    results_query_close(NULL);
    results_close(store);
    results_close(NULL);
}

static void store_cv(struct results_store *store, int64_t study, const char *router, const char *workload,
                     uint64_t seed, double cv)
{
    struct fixture_outcome o;
    struct fixture_run f;
    const uint32_t metrics[] = {MOESIM_LOAD_CV, MOESIM_DROPPED_FRACTION};
    fixture_outcome(&o, 2, metrics, (const double[]){cv, strcmp(router, "expert-choice") ? 0.5 : (double)NAN});
    fixture_run(&f, study, router, workload, seed, isnan(cv) ? NULL : &o.outcome);
    fixture_store(store, &f.run);
}

Test(query, pairs)
{
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    const int64_t study = fixture_study(store, "one"), other = fixture_study(store, "other");
    store_cv(store, study, "a", "zipf", 1, 1);
    store_cv(store, study, "b:k=1", "zipf", 1, 3);
    store_cv(store, study, "b:k=1", "zipf", 2, 4);         /* another seed */
    store_cv(store, study, "b:k=1", "gaussian", 1, 5);     /* another workload */
    store_cv(store, other, "expert-choice", "zipf", 1, 6); /* another study */
    store_cv(store, study, "expert-choice", "zipf", 1, 8);
    store_cv(store, study, "c", "zipf", 1, (double)NAN); /* failed */
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_compare WHERE metric = 'load_cv'"), 6,
                 "each of three with the other two");
    cr_expect_eq(fixture_number(store, "SELECT difference FROM v_compare WHERE study = 'one' AND workload = 'zipf'"
                                       " AND seed = 1 AND metric = 'load_cv' AND baseline = 'a' AND router = 'b:k=1'"),
                 2);
    cr_expect_eq(fixture_number(store, "SELECT baseline_value * 100 + value FROM v_compare WHERE baseline = 'b:k=1'"
                                       " AND router = 'expert-choice' AND metric = 'load_cv'"),
                 308);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_compare WHERE metric = 'dropped_fraction'"), 2,
                 "a figure that is NULL on one side gives no row");
    results_close(store);
}

static void exec(struct results_store *store, const char *sql)
{
    cr_assert_eq(sqlite3_exec(store->db, sql, NULL, NULL, NULL), SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(store->db));
}

Test(query, metrics_follow_the_program)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct results_store *store = fixture_open(path, RESULTS_WRITE);
    /* As if an older program had made it, without load_cv, and a newer one had added to it. */
    exec(store, "DELETE FROM metric WHERE name = 'load_cv';"
                "UPDATE metric SET unit = 'furlong' WHERE name = 'max_vio';"
                "INSERT INTO metric VALUES (900, 'from \"the\" future', '', 'counted', 'lower', 'mean', 'm')");
    exec(store, "DROP VIEW v_runs; CREATE VIEW v_runs AS SELECT 1");
    results_close(store);

    store = fixture_open(path, RESULTS_WRITE);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM metric"), MOESIM_N_METRICS + 1);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM metric WHERE unit = 'furlong'"), 0);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM pragma_table_info('v_runs') WHERE name IN"
                                       " ('load_cv', 'max_vio', 'from \"the\" future', 'router')"),
                 4);
    store_cv(store, fixture_study(store, "one"), "a", "zipf", 1, 0.75);
    cr_expect_eq(fixture_number(store, "SELECT load_cv FROM v_runs"), 0.75);
    const double version = fixture_number(store, "SELECT schema_version FROM pragma_schema_version");
    results_close(store);
    store = fixture_open(path, RESULTS_WRITE);
    cr_expect_eq(fixture_number(store, "SELECT schema_version FROM pragma_schema_version"), version,
                 "nothing to do, nothing done");
    results_close(store);
    fixture_remove(path);
}

/* The columns that scripts rely on. */
Test(query, stable_columns)
{
    static const char runs[] =
        "SELECT run, study, study_id, state, seed, router, router_name, workload, workload_name, cluster,"
        " placement, mode, phase, steps, tokens, layers, experts, top_k, capacity_factor, hash,"
        " row_hash, reason, note, started, seconds, point FROM v_runs";
    static const char pairs[] =
        "SELECT study, study_id, workload, seed, metric, baseline, router, baseline_value, value,"
        " difference FROM v_compare";
    static const char loads[] = "SELECT run, window, layer, expert, assigned, kept FROM v_expert_load";
    const char *const columns[] = {runs, pairs, loads};
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        struct results_query *q = NULL;
        struct moesim_error err = {""};
        cr_expect_eq(results_query(store, columns[i], NULL, 0, &q, &err), MOESIM_OK, "%s", err.text);
        results_query_close(q);
    }
    results_close(store);
}
