/*
 * Files that are not ours, not whole or not allowed: one clear sentence, and they stay as they were.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sqlite3.h>

#include <moesim/random.h>

#include "tests/results/fixture.h"

TestSuite(hostile, .timeout = 60);

static void expect_refused(const char *path, enum results_mode mode, const char *word)
{
    size_t size[2];
    unsigned char *before = fixture_read(path, &size[0]);
    struct results_store *store = (struct results_store *)1;
    struct moesim_error err = {""};
    cr_expect_eq(results_open(path, mode, &store, &err), MOESIM_EIO, "%s", path);
    cr_expect_null(store);
    cr_expect(strstr(err.text, word) && strstr(err.text, path), "wanted '%s': %s", word, err.text);
    unsigned char *after = fixture_read(path, &size[1]);
    cr_expect(size[0] == size[1] && (!size[0] || memcmp(before, after, size[0]) == 0), "%s was changed", path);
    free(before);
    free(after);
}

static void make(const char *path, const char *sql)
{
    sqlite3 *db;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_close(db), SQLITE_OK);
}

static void make_ours(const char *path)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_outcome outcome = fixture_rich_outcome(arena, 1);
    struct results_store *store = fixture_open(path, RESULTS_WRITE);
    const int64_t study = fixture_study(store, "one");
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct fixture_run f;
        fixture_run(&f, study, "null", "zipf", seed, &outcome);
        fixture_store(store, &f.run);
    }
    results_close(store);
    moesim_arena_destroy(arena);
}

Test(hostile, other_files)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    expect_refused(path, RESULTS_READ, "No such file");
    for (enum results_mode mode = RESULTS_READ; mode <= RESULTS_WRITE; mode++) {
        fixture_write(path, "router,load\nswitch,3\n", 21);
        expect_refused(path, mode, "not a moesim database");
        unsigned char noise[5000];
        for (uint32_t i = 0; i < sizeof noise; i++)
            noise[i] = (unsigned char)moesim_random_bits(&(struct moesim_random){1, MOESIM_STREAM_TEST, 0, 0}, i);
        fixture_write(path, noise, sizeof noise);
        expect_refused(path, mode, "not a moesim database");
        fixture_write(path, "SQLite format 3", 16); /* and nothing more */
        expect_refused(path, mode, "another program");
        remove(path);
        make(path, "CREATE TABLE mine (a); INSERT INTO mine VALUES (1)");
        expect_refused(path, mode, "another program");
        make(path, "PRAGMA application_id = 252006673");
        expect_refused(path, mode, "another program");
        make(path, "PRAGMA journal_mode = WAL");
        expect_refused(path, mode, "another program");
        make(path, "PRAGMA application_id = 0x4d6f4573; PRAGMA user_version = 4");
        expect_refused(path, mode, "newer moesim");
        cr_expect_eq(fixture_count_files(path), 1, "nothing is left beside it");
        remove(path);
    }
    mkdir(path, 0777);
    expect_refused(path, RESULTS_READ, "a directory");
    expect_refused(path, RESULTS_WRITE, "a directory");
    rmdir(path);
    cr_assert_eq(mkfifo(path, 0666), 0);
    expect_refused(path, RESULTS_READ, "not a regular file");
    expect_refused(path, RESULTS_WRITE, "not a regular file");
    fixture_remove(path);
    expect_refused(path, RESULTS_WRITE, "No such file"); /* its directory is gone */
    expect_refused("/proc/x.db", RESULTS_WRITE, "cannot create");
    expect_refused("/dev/null/x.db", RESULTS_WRITE, "Not a directory");
    expect_refused("", RESULTS_WRITE, "empty");
}

Test(hostile, empty_file_and_odd_names)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    fixture_write(path, "", 0);
    expect_refused(path, RESULTS_READ, "empty");
    make_ours(path); /* an empty file is nobody's */
    cr_expect_eq(fixture_count_files(path), 1);
    remove(path);

    static const char *const names[] = {":memory:", "file:x?mode=memory", "a b%41#?.db", "'q\".db"};
    char directory[FIXTURE_MAX_PATH];
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    cr_assert_eq(chdir(directory), 0);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make_ours(names[i]);
        cr_expect_eq(access(names[i], F_OK), 0, "%s is a file", names[i]);
        struct results_store *store = fixture_open(names[i], RESULTS_READ);
        cr_expect_eq(fixture_number(store, "SELECT count(*) FROM run"), 4);
        results_close(store);
        cr_expect_eq(fixture_count_files(path), (int)i + 1);
    }
    fixture_remove(path);
}

Test(hostile, truncated)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    make_ours(path);
    size_t size;
    unsigned char *bytes = fixture_read(path, &size);
    for (size_t cut = 1; cut < 40; cut++) {
        const size_t n = size * cut / 40;
        fixture_write(path, bytes, n);
        expect_refused(path, RESULTS_READ, "truncated");
        expect_refused(path, RESULTS_WRITE, "truncated");
    }
    cr_expect_eq(fixture_count_files(path), 1);
    free(bytes);
    fixture_remove(path);
}

/* Any byte may be wrong: a status and a sentence, never a crash, and verify names what is not what it was. */
Test(hostile, flipped_bytes)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    make_ours(path);
    size_t size;
    unsigned char *bytes = fixture_read(path, &size);
    const struct moesim_random random = {2, MOESIM_STREAM_TEST, 0, 0};
    int n_noticed = 0;
    for (uint64_t i = 0; i < 120; i++) {
        const size_t at = moesim_random_below(&random, 2 * i, (uint32_t)(i % 3 ? size : 200));
        const unsigned char flip = (unsigned char)(1 + moesim_random_below(&random, 2 * i + 1, 255));
        bytes[at] ^= flip;
        fixture_write(path, bytes, size);
        struct results_store *store;
        struct moesim_error err = {""};
        enum moesim_status status = results_open(path, RESULTS_READ, &store, &err);
        if (status == MOESIM_OK)
            status = results_verify(store, &err);
        cr_expect(status == MOESIM_OK || strstr(err.text, path), "%s", err.text);
        n_noticed += status != MOESIM_OK;
        results_close(store);
        bytes[at] ^= flip;
    }
    cr_expect_gt(n_noticed, 30, "%d of 120 noticed", n_noticed);
    free(bytes);
    fixture_remove(path);
}

/* Without room for the schema nothing is left. A limit on file sizes stands for a full disk. */
Test(hostile, no_room_for_a_new_file)
{
    char path[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    bool done = false;
    int n_failures = 0;
    for (rlim_t bytes = 0; !done; bytes += 8192) {
        cr_assert_lt(bytes, 1 << 20);
        limit.rlim_cur = bytes;
        cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        struct results_store *store;
        struct moesim_error err = {""};
        const enum moesim_status status = results_open(path, RESULTS_WRITE, &store, &err);
        done = status == MOESIM_OK;
        if (!done) {
            n_failures++;
            cr_expect_eq(status, MOESIM_EIO);
            cr_expect(strstr(err.text, path), "%s", err.text);
            cr_expect_eq(fixture_count_files(path), 0, "nothing is left at %lu bytes", (unsigned long)bytes);
        }
        results_close(store);
    }
    cr_expect_gt(n_failures, 3);
    fixture_remove(path);
}

/* root gives its rights away for a while. */
Test(hostile, without_permission)
{
    char path[FIXTURE_MAX_PATH], directory[FIXTURE_MAX_PATH];
    fixture_path(path, "x.db");
    make_ours(path);
    snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
    if (getuid() == 0) {
        cr_assert_eq(chown(path, 65534, 65534), 0);
        cr_assert_eq(chown(directory, 65534, 65534), 0);
        cr_assert_eq(seteuid(65534), 0);
    }
    chmod(path, 0000);
    expect_refused(path, RESULTS_READ, "Permission denied");
    expect_refused(path, RESULTS_WRITE, "Permission denied");
    chmod(path, 0444);
    expect_refused(path, RESULTS_WRITE, "cannot be written: Permission denied");
    chmod(path, 0644);
    chmod(directory, 0555);
    expect_refused(path, RESULTS_WRITE, "directory cannot be written");
    /* An archive on a read-only disk can still be read, though SQLite wants to make a log beside it. */
    struct results_store *store = fixture_open(path, RESULTS_READ);
    cr_expect_eq(fixture_number(store, "SELECT count(*) FROM v_runs"), 4);
    results_close(store);
    cr_expect_eq(fixture_count_files(path), 1);
    char fresh[FIXTURE_MAX_PATH + 8];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    expect_refused(fresh, RESULTS_WRITE, "cannot create");
    chmod(directory, 0755);
    cr_assert_eq(seteuid(getuid()), 0);
    fixture_remove(path);
}
