/*
 * A run is whole or absent, whatever fails in its middle; row hashes notice every changed figure; two writers share a
 * file.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "results/connection.h"
#include "tests/results/fixture.h"

TestSuite(whole, .timeout = 60);

static void exec(struct results_store *store, const char *sql)
{
    cr_assert_eq(sqlite3_exec(store->db, sql, NULL, NULL, NULL), SQLITE_OK, "%s: %s", sql, sqlite3_errmsg(store->db));
}

static double count_rows(struct results_store *store)
{
    return fixture_number(store, "SELECT (SELECT count(*) FROM run) + (SELECT count(*) FROM run_param)"
                                 " + (SELECT count(*) FROM summary) + (SELECT count(*) FROM series)"
                                 " + (SELECT count(*) FROM expert_load) + (SELECT count(*) FROM traffic)"
                                 " + (SELECT count(*) FROM domain_loss) + (SELECT count(*) FROM specialisation)");
}

/* The file may grow page by page further: the write fails at every place until it fits. */
Test(whole, full_at_every_page)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 24);
    struct results_store *store = fixture_open(path, RESULTS_WRITE);
    const int64_t study = fixture_study(store, "one");
    struct fixture_run f;
    fixture_run(&f, study, "null", "zipf", 1, NULL);
    fixture_store(store, &f.run);
    const double before = count_rows(store);
    fixture_run(&f, study, "null", "zipf", 1, &outcome); /* would replace the failed one */
    struct moesim_error err = {""};
    enum moesim_status status = MOESIM_EIO;
    int n_failures = 0;
    for (int n = (int)fixture_number(store, "SELECT page_count FROM pragma_page_count"); status != MOESIM_OK; n++) {
        char limit[64];
        int64_t id;
        snprintf(limit, sizeof limit, "PRAGMA max_page_count = %d", n);
        exec(store, limit);
        status = results_write(store, &f.run, &id, &err);
        if (status == MOESIM_OK)
            break;
        n_failures++;
        cr_expect_eq(status, MOESIM_EIO);
        cr_expect(strstr(err.text, path) && strstr(err.text, "disk is full"), "%s", err.text);
        cr_expect_eq(count_rows(store), before, "nothing half-written");
        cr_expect(sqlite3_get_autocommit(store->db), "no transaction is left open");
    }
    cr_expect_gt(n_failures, 5);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM run WHERE state = 'done'"), 1);
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    results_close(store);
    moesim_arena_destroy(arena);
    fixture_remove(path);
}

/* The same for an error of any other kind, table by table. */
Test(whole, refused_at_every_table)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 2);
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    const int64_t study = fixture_study(store, "one");
    static const char *const tables[] = {"run",         "run_param", "summary",     "series",
                                         "expert_load", "traffic",   "domain_loss", "specialisation"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char sql[160];
        snprintf(sql, sizeof sql, "CREATE TRIGGER no AFTER INSERT ON %s BEGIN SELECT raise(FAIL, 'not here'); END",
                 tables[i]);
        exec(store, sql);
        struct fixture_run f;
        struct moesim_error err = {""};
        int64_t id;
        fixture_run(&f, study, "null", "zipf", 1, &outcome);
        cr_expect_eq(results_write(store, &f.run, &id, &err), MOESIM_EIO);
        cr_expect(strstr(err.text, "not here"), "%s", err.text);
        cr_expect_eq(count_rows(store), 0, "%s", tables[i]);
        exec(store, "DROP TRIGGER no");
    }
    results_close(store);
    moesim_arena_destroy(arena);
}

static const char *const changes[] = {
    "UPDATE summary SET p95 = 0.25 WHERE rowid = 1",
    "UPDATE summary SET value = NULL WHERE rowid = 2",
    "UPDATE summary SET n = n + 1 WHERE rowid = 1",
    "DELETE FROM summary WHERE rowid = 2",
    "UPDATE summary SET layer = 77 WHERE rowid = 1",
    "UPDATE series SET value = value * 1.0000000000000002 WHERE step = 1 AND layer = 0",
    "UPDATE series SET step = 99 WHERE step = 1 AND layer = 0",
    "UPDATE expert_load SET kept = replace(kept, '1', '2') WHERE window = 0 AND layer = 0",
    "UPDATE expert_load SET n_steps = 6 WHERE window = 0 AND layer = 0",
    "UPDATE traffic SET bytes = 1 WHERE source = 1 AND target = 0",
    "UPDATE traffic SET unit = 'node' WHERE unit = 'device'",
    "UPDATE traffic SET unit = 'leaf_down' WHERE unit = 'leaf_up'",
    "UPDATE domain_loss SET bits_per_byte = 1 WHERE step = 10 AND domain = 'code'",
    "UPDATE domain_loss SET domain = 'prose' WHERE domain = 'code'",
    "UPDATE domain_loss SET tokens = tokens + 1 WHERE step = 0",
    "DELETE FROM domain_loss",
    "UPDATE specialisation SET assigned = replace(assigned, '1', '2') WHERE kind = 'token' AND layer = 1",
    "UPDATE specialisation SET subject = 'x' WHERE subject = 'code' AND layer = 0",
    "UPDATE specialisation SET tokens = 1 WHERE kind = 'domain'",
    "DELETE FROM specialisation WHERE kind = 'token'",
    "UPDATE run SET seed = 8",
    "UPDATE run SET params = '{\"steps\": 4}'",
    "UPDATE run SET row_hash = upper(row_hash) || 'x'",
    "UPDATE run_param SET value = '3' WHERE path = 'router.k'",
};

Test(whole, verify_notices_a_change)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 2);
    struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
    const int64_t study = fixture_study(store, "one");
    struct fixture_run f;
    fixture_run(&f, study, "null", "zipf", 1, &outcome);
    fixture_store(store, &f.run);
    struct moesim_error err = {""};
    cr_assert_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        exec(store, "BEGIN");
        exec(store, changes[i]);
        cr_expect_geq(sqlite3_changes(store->db), 1, "%s", changes[i]);
        cr_expect_eq(results_verify(store, &err), MOESIM_EIO, "%s", changes[i]);
        cr_expect(strstr(err.text, "run 1 was changed"), "%s", err.text);
        exec(store, "ROLLBACK");
    }
    /* What another machine or hour would change stays outside. */
    exec(store,
         "UPDATE run SET cpu = 'other', threads = 64, started = 'now', seconds = 9, workload = 'x', version = '9'");
    exec(store,
         "UPDATE summary SET value = 7, mean = 7 WHERE metric IN (SELECT id FROM metric WHERE kind = 'measured')");
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    results_close(store);
    moesim_arena_destroy(arena);
}

/* The hash does not depend on the order of an outcome's arrays, on the study's id, nor on the ids of metrics. */
Test(whole, equal_runs_have_equal_row_hashes)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_outcome outcome = fixture_rich_outcome(arena, 2);
    char hash[2][32];
    for (int round = 0; round < 2; round++) {
        struct results_store *store = fixture_open(NULL, RESULTS_MEMORY);
        if (round == 1) {
            fixture_study(store, "another");
            for (uint64_t i = 0; i < outcome.n_summaries / 2; i++) {
                const struct moesim_summary swap = outcome.summary[i];
                outcome.summary[i] = outcome.summary[outcome.n_summaries - 1 - i];
                outcome.summary[outcome.n_summaries - 1 - i] = swap;
            }
            exec(store, "UPDATE metric SET id = 1000 - id");
            struct moesim_error err;
            cr_assert_eq(results_learn_metrics(store, &err), MOESIM_OK);
        }
        struct fixture_run f;
        fixture_run(&f, fixture_study(store, "one"), "null", "zipf", 1, &outcome);
        fixture_store(store, &f.run);
        struct results_query *q;
        bool row;
        struct moesim_error err;
        cr_assert_eq(results_query(store, "SELECT row_hash FROM run", NULL, 0, &q, &err), MOESIM_OK);
        cr_assert(results_next(q, &row, &err) == MOESIM_OK && row);
        snprintf(hash[round], sizeof hash[round], "%s", results_text(q, 0));
        results_query_close(q);
        results_close(store);
    }
    cr_expect_str_eq(hash[0], hash[1]);
    cr_expect_eq(strlen(hash[0]), 16);
    moesim_arena_destroy(arena);
}

Test(whole, two_writers_and_a_reader)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct results_store *writer[2] = {fixture_open(path, RESULTS_WRITE), fixture_open(path, RESULTS_WRITE)};
    struct results_store *reader = fixture_open(path, RESULTS_READ);
    struct fixture_outcome o;
    const uint32_t metric = MOESIM_LOAD_CV;
    fixture_outcome(&o, 1, &metric, &(double){1});
    const int64_t study = fixture_study(writer[0], "one");
    cr_expect_eq(fixture_study(writer[1], "one"), study);
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct fixture_run f;
        fixture_run(&f, study, "null", "zipf", seed, &o.outcome);
        const int64_t id = fixture_store(writer[seed % 2], &f.run);
        cr_expect_eq(fixture_store(writer[1 - seed % 2], &f.run), id, "no duplicate");
        cr_expect_eq(fixture_number(reader, "SELECT count(*) FROM v_runs WHERE load_cv = 1"), (double)seed + 1);
    }
    results_close(writer[0]);
    struct moesim_error err = {""};
    int64_t id;
    cr_expect_neq(results_study(reader, "x", 1, "{}", &id, &err), MOESIM_OK, "a reader does not write");
    cr_expect_eq(results_verify(writer[1], &err), MOESIM_OK, "%s", err.text);
    results_close(writer[1]);
    results_close(reader);
    cr_expect_eq(fixture_count_files(path), 1, "the last one takes the log away");
    fixture_remove(path);
}

/* A writer that was killed leaves its log: both files are copied while it has them open. */
Test(whole, killed_writer)
{
    char path[FIXTURE_MAX_PATH], copy[2][FIXTURE_MAX_PATH + 8], log[FIXTURE_MAX_PATH + 8];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 2);
    struct results_store *store = fixture_open(path, RESULTS_WRITE);
    const int64_t study = fixture_study(store, "one");
    for (uint64_t seed = 0; seed < 5; seed++) {
        struct fixture_run f;
        fixture_run(&f, study, "null", "zipf", seed, &outcome);
        fixture_store(store, &f.run);
    }
    snprintf(log, sizeof log, "%s-wal", path);
    snprintf(copy[0], sizeof copy[0], "%s.2", path);
    snprintf(copy[1], sizeof copy[1], "%s.2-wal", path);
    for (int i = 0; i < 2; i++) {
        size_t size;
        unsigned char *bytes = fixture_read(i ? log : path, &size);
        cr_assert_gt(size, 0);
        /* Killed in the middle of its last write, too. */
        fixture_write(copy[i], bytes, i ? size - 1000 : size);
        free(bytes);
    }
    results_close(store);
    store = fixture_open(copy[0], RESULTS_READ);
    struct moesim_error err = {""};
    cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%s", err.text);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM run"), 4, "all but the one that was not whole");
    results_close(store);
    moesim_arena_destroy(arena);
    fixture_remove(path);
}

/* ---- the n-th allocation inside SQLite fails ---- */

static sqlite3_mem_methods real;
static long n_left; /* allocations until one fails; negative = never */

static void *fail_malloc(int size)
{
    return n_left >= 0 && n_left-- == 0 ? NULL : real.xMalloc(size);
}

static void *fail_realloc(void *old, int size)
{
    return n_left >= 0 && n_left-- == 0 ? NULL : real.xRealloc(old, size);
}

/* Open, write, read; the first thing that fails ends it. */
static enum moesim_status use_store(const char *path, const struct moesim_outcome *outcome, struct moesim_error *err)
{
    struct results_store *store = NULL;
    struct results_query *query = NULL;
    struct fixture_run f;
    int64_t study = 0, id;
    bool row = true;
    enum moesim_status status = results_open(path, RESULTS_WRITE, &store, err);
    if (status == MOESIM_OK)
        status = results_study(store, "one", 1, "{}", &study, err);
    fixture_run(&f, study, "null", "zipf", 1, outcome);
    if (status == MOESIM_OK)
        status = results_write(store, &f.run, &id, err);
    if (status == MOESIM_OK)
        status = results_query(store, "SELECT * FROM v_runs WHERE router = ?1", (const char *const[]){"null"}, 1,
                               &query, err);
    while (status == MOESIM_OK && row)
        status = results_next(query, &row, err);
    results_query_close(query);
    results_close(store);
    return status;
}

Test(whole, out_of_memory)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 1);
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real), SQLITE_OK);
    sqlite3_mem_methods failing = real;
    failing.xMalloc = fail_malloc;
    failing.xRealloc = fail_realloc;
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_MALLOC, &failing), SQLITE_OK);
    cr_assert_eq(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK); /* every allocation is a real one */
    int n_failures = 0;
    bool reached = true;
    for (long n = 0; reached; n += 1 + n / 12) {
        struct moesim_error err = {""};
        n_left = n;
        const enum moesim_status status = use_store(path, &outcome, &err);
        reached = n_left < 0; /* SQLite does without some */
        n_failures += status != MOESIM_OK;
        cr_assert(status == MOESIM_OK || status == MOESIM_ENOMEM || status == MOESIM_EIO, "%ld: %s", n, err.text);
        cr_assert(status == MOESIM_OK || err.text[0], "a sentence for %ld", n);
        n_left = -1;
        if (status == MOESIM_OK) {
            struct results_store *store = fixture_open(path, RESULTS_READ);
            cr_expect_eq(results_verify(store, &err), MOESIM_OK, "%ld: %s", n, err.text);
            cr_expect_eq(fixture_number(store, "SELECT count(*) FROM summary"), (double)outcome.n_summaries);
            results_close(store);
        }
        remove(path);
    }
    cr_expect_gt(n_failures, 50);
    moesim_arena_destroy(arena);
    fixture_remove(path);
}
