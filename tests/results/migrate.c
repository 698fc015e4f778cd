/*
 * Files of older versions: read as they are, brought up to date when they are opened for writing.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sqlite3.h>

#include "tests/results/fixture.h"

TestSuite(migrate, .timeout = 60);

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

/* Everything of the file attached as `new` that a version had, into its tables; that no older one had a metric of the
 * last value. v_runs is made by the program, not the schema. */
#define COPY_RUN                                                                                                       \
    "id, study, hash, point, seed, pairing, state, reason, params, version, revision, compiler, cpu, blas,"            \
    " kernel_path, threads, files, workload, started, seconds, row_hash"
#define COPY_RUNS                                                                                                      \
    "INSERT INTO study SELECT * FROM new.study;"                                                                       \
    "INSERT INTO run (" COPY_RUN ") SELECT " COPY_RUN " FROM new.run;"                                                 \
    "INSERT INTO run_param SELECT * FROM new.run_param;"                                                               \
    "INSERT INTO metric SELECT * FROM new.metric WHERE fold <> 'last';"                                                \
    "INSERT INTO summary SELECT * FROM new.summary;"                                                                   \
    "INSERT INTO series SELECT * FROM new.series;"                                                                     \
    "INSERT INTO expert_load SELECT * FROM new.expert_load;"                                                           \
    "INSERT INTO traffic (run, source, target, bytes, unit) SELECT run, source, target, bytes, unit FROM new.traffic;" \
    "CREATE VIEW v_runs AS SELECT p.*, (SELECT value FROM summary WHERE run = p.run LIMIT 1) AS load_cv"               \
    " FROM v_run_params p;"                                                                                            \
    "PRAGMA application_id = 0x4d6f4573; "

/* Runs as an older version stored them: its own schema (schema_1.sql, schema_2.sql), in version 1 no traffic by link,
 * no training. */
static void make_older(uint32_t version, const char *path, struct moesim_outcome *outcome)
{
    char made[FIXTURE_MAX_PATH + 8], sql[FIXTURE_MAX_PATH + 64], schema[FIXTURE_MAX_PATH];
    uint64_t n = 0;
    for (uint64_t i = 0; i < outcome->n_summaries; i++)
        if (moesim_metrics[outcome->summary[i].metric].fold != MOESIM_FOLD_LAST)
            outcome->summary[n++] = outcome->summary[i];
    outcome->n_summaries = n;
    outcome->n_domain_losses = outcome->n_specialisations = 0;
    snprintf(made, sizeof made, "%s.new", path);
    struct results_store *store = fixture_open(made, RESULTS_WRITE);
    const int64_t study = fixture_study(store, "one");
    outcome->n_traffic = version < 2 ? 16 : 18;
    for (uint64_t seed = 0; seed < 3; seed++) {
        struct fixture_run f;
        fixture_run(&f, study, "null", "zipf", seed, outcome);
        fixture_store(store, &f.run);
    }
    results_close(store);
    snprintf(schema, sizeof schema, "%s/tests/results/schema_%u.sql", getenv("MOESIM_SOURCE"), version);
    size_t size;
    unsigned char *text = fixture_read(schema, &size);
    cr_assert_gt(size, 0, "%s", schema);
    char *tables = strndup((char *)text, size);
    run_sql(path, tables);
    snprintf(sql, sizeof sql, "ATTACH '%s' AS new;", made);
    char *copy = NULL;
    cr_assert_gt(asprintf(&copy, "%s" COPY_RUNS "PRAGMA user_version = %u", sql, version), 0);
    run_sql(path, copy);
    cr_assert_eq(remove(made), 0);
    free(copy);
    free(tables);
    free(text);
}

static void expect_runs(struct results_store *store)
{
    struct moesim_error err = {""};
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_runs"), 3);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM traffic WHERE unit = 'device'"), 3 * 16);
    cr_expect_float_eq(fixture_number(store, "SELECT sum(bytes) FROM traffic WHERE unit = 'device'"), 3 * 120 * 1e9 / 3,
                       1);
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
}

static void bring_up_to_date(uint32_t version)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_outcome outcome = fixture_rich_outcome(arena, 2);
    const uint64_t n_domain_losses = outcome.n_domain_losses, n_specialisations = outcome.n_specialisations;
    make_older(version, path, &outcome);

    struct results_store *store = fixture_open(path, RESULTS_READ);
    expect_runs(store);
    cr_expect_eq(fixture_number(store, "SELECT user_version FROM pragma_user_version"), version,
                 "a reader changes nothing");
    const double n_summaries = fixture_number(store, "SELECT count(*) FROM summary JOIN metric m ON m.id = metric");
    results_close(store);

    store = fixture_open(path, RESULTS_WRITE);
    expect_runs(store);
    cr_expect_eq(fixture_number(store, "SELECT user_version FROM pragma_user_version"), 3);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM summary JOIN metric m ON m.id = metric"), n_summaries);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    cr_expect_eq(fixture_number(store, "SELECT sum(iif(name = 'run_param_by_router', 1, 10)) FROM sqlite_master WHERE "
                                       "name LIKE 'run_param_by%'"),
                 1);
    cr_expect_eq(fixture_number(store, "SELECT foreign_keys FROM pragma_foreign_keys"), 1);
    outcome.n_traffic = 18; /* by link too */
    outcome.n_domain_losses = n_domain_losses;
    outcome.n_specialisations = n_specialisations;
    outcome.note = "a remark";
    struct fixture_run f;
    fixture_run(&f, fixture_study(store, "one"), "null", "zipf", 3, &outcome);
    fixture_store(store, &f.run);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM traffic WHERE unit = 'leaf_up'"), version < 2 ? 1 : 4);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_domain_loss"), (double)n_domain_losses);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_specialisation"), 4.0 * (double)n_specialisations);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_runs WHERE note IS NULL"), 3);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_runs WHERE note = 'a remark'"), 1);
    cr_expect_eq(fixture_number(store, "SELECT count(max_vio) FROM v_runs"), 4, "its columns are this program's");
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM sqlite_master WHERE name LIKE '%old%' OR name LIKE "
                                       "'traffic_%' OR name LIKE 'metric_%'"),
                 0);
    results_close(store);

    store = fixture_open(path, RESULTS_WRITE); /* and once is enough */
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_runs"), 4);
    struct moesim_error err = {""};
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    results_close(store);
    moesim_arena_destroy(arena);
    fixture_remove(path);
}

Test(migrate, from_version_1)
{
    bring_up_to_date(1);
}

Test(migrate, from_version_2)
{
    bring_up_to_date(2);
}

/* What goes wrong on the way leaves the file as it was. */
Test(migrate, all_or_nothing)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_outcome outcome = fixture_rich_outcome(arena, 1);
    make_older(1, path, &outcome);
    static const char *const in_the_way[] = {"traffic_1", "metric_2", "specialisation"};
    struct results_store *store = NULL;
    for (uint32_t i = 0; i < sizeof in_the_way / sizeof *in_the_way; i++) {
        char sql[96];
        struct moesim_error err = {""};
        snprintf(sql, sizeof sql, "CREATE TABLE %s (in_the_way)", in_the_way[i]);
        run_sql(path, sql);
        cr_expect_eq(results_open(path, RESULTS_WRITE, &store, &err), MOESIM_EIO);
        cr_expect(strstr(err.text, in_the_way[i]) && strstr(err.text, path), "%s", err.text);
        snprintf(sql, sizeof sql, "DROP TABLE %s", in_the_way[i]);
        run_sql(path, sql);
    }
    store = fixture_open(path, RESULTS_READ);
    cr_expect_eq(fixture_number(store, "SELECT user_version FROM pragma_user_version"), 1);
    expect_runs(store);
    results_close(store);
    moesim_arena_destroy(arena);
    fixture_remove(path);
}
