/* moesim run: from a study to the table, resumed, repeated and divided in every way with the same figures. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(run, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

static const char small[] = "study: small\n"
                            "seeds: 3\n"
                            "steps: 4\n"
                            "workload:\n"
                            "  - {name: lognormal, tokens: 256}\n"
                            "  - {name: gaussian, tokens: 256}\n"
                            "model: {layers: 2, experts: 16, top_k: 2}\n"
                            "router: [softmax-topk, random, {name: softmax-topk, capacity_factor: 1.0}]\n"
                            "cluster: {name: h100-dgx, nodes: 1}\n"
                            "placement: [contiguous, round-robin]\n"
                            "record: [expert_load, load_cv]\n";
#define N_POINTS (3 * 2 * 3 * 2)

static char *row_hashes(const char *db)
{
    return program_query(db, "SELECT group_concat(row_hash, ' ') FROM (SELECT row_hash FROM v_runs ORDER BY hash)");
}

static void expect_count(const char *db, const char *where, int n)
{
    char sql[256], expected[16];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM v_runs WHERE %s", where);
    snprintf(expected, sizeof expected, "%d", n);
    char *found = program_query(db, sql);
    cr_expect_str_eq(found, expected, "%s: %s rows where %s", db, found, where);
    free(found);
}

/* What a router remarks on its plans (a solver that hit its limit) is told and stored, not lost. */
Test(run, remarks_are_told_and_stored)
{
    struct heard h = program_run("run --router sinkhorn:max_iterations=1 --router switch --workload gaussian:tokens=64 "
                                 "--set seeds=1 --set steps=3 --db n.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.err, "sinkhorn:max_iterations=1 on gaussian:tokens=64, seed 1: "), "%s", h.err);
    cr_expect(strstr(h.err, "(in 3 of 3 layer steps)"), "%s", h.err);
    program_forget(&h);
    expect_count("n.db", "note LIKE '%max_iterations%' AND router LIKE 'sinkhorn%'", 1);
    expect_count("n.db", "note IS NULL AND router = 'switch'", 1);
}

Test(run, table_store_and_hints)
{
    program_write("s.yaml", small);
    struct heard h = program_run("run s.yaml");
    cr_assert_eq(h.status, 0, "%s", h.err);
    expect_count("moesim.db", "state = 'done'", N_POINTS);
    cr_expect(!program_exists("moesim.db-wal"));
    static const char *const said[] = {"study small: 36 runs, mean over 3 seeds",
                                       "softmax-topk:capacity_factor=1",
                                       "load_cv",
                                       "max_vio",
                                       "dropped",
                                       "t_layer",
                                       "round-robin"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        cr_expect(strstr(h.out, said[i]), "%s in\n%s", said[i], h.out);
    cr_expect(strstr(h.err, "100 %: 36/36 runs"), "%s", h.err);
    cr_expect(strstr(h.err, "below ten"), "%s", h.err);
    cr_expect(strstr(h.err, "moesim report moesim.db"));
    program_forget(&h);

    h = program_run("run s.yaml --quiet");
    cr_expect_str_eq(h.err, "", "nothing is left to do, and quiet says nothing");
    program_forget(&h);
    h = program_run("run s.yaml");
    cr_expect(strstr(h.err, "36 of 36 runs were in moesim.db already"), "%s", h.err);
    program_forget(&h);
}

Test(run, same_rows_by_any_division)
{
    program_write("s.yaml", small);
    static const char *const ways[] = {"--jobs 1 --threads 1", "--jobs 1 --threads 2", "--jobs 1 --threads 4",
                                       "--jobs 2 --threads 1", "--memory 4G --timeout 100"};
    char *first = NULL;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char db[16];
        snprintf(db, sizeof db, "%zu.db", i);
        struct heard h = program_run("run s.yaml -q --db %s %s", db, ways[i]);
        cr_assert_eq(h.status, 0, "%s: %s", ways[i], h.err);
        char *hashes = row_hashes(db);
        if (!first)
            first = strdup(hashes);
        cr_expect_str_eq(hashes, first, "%s", ways[i]);
        free(hashes);
        program_forget(&h);
    }
    /* in two halves, and once more from the start */
    struct heard h = program_run("run s.yaml -q --db half.db --seed 1");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    expect_count("half.db", "state = 'done'", N_POINTS / 3);
    h = program_run("run s.yaml -q --db half.db");
    program_forget(&h);
    char *hashes = row_hashes("half.db");
    cr_expect_str_eq(hashes, first, "seeds do not change the study");
    free(hashes);
    h = program_run("run s.yaml -q --db half.db --fresh");
    cr_expect_eq(h.status, 0);
    program_forget(&h);
    hashes = row_hashes("half.db");
    cr_expect_str_eq(hashes, first);
    free(hashes);
    free(first);
}

Test(run, dry_run_writes_nothing)
{
    program_write("s.yaml", small);
    struct heard h = program_run("run s.yaml --dry-run");
    cr_expect_eq(h.status, 0);
    cr_expect(strstr(h.out, "36 points, 36 to run in 18 routings"), "%s", h.out);
    cr_expect(strstr(h.out, "not known before the first run"));
    cr_expect(!program_exists("moesim.db"));
    program_forget(&h);
    h = program_run("run s.yaml -q --seed 2");
    program_forget(&h);
    h = program_run("run s.yaml --dry-run --json");
    json_t *plan = json_loads(h.out, 0, NULL);
    cr_expect_eq(json_integer_value(json_object_get(plan, "to_run")), 24);
    cr_expect_eq(json_array_size(json_object_get(plan, "points")), 36);
    cr_expect(json_is_number(json_object_get(plan, "time_s")));
    cr_expect(json_integer_value(json_object_get(plan, "memory_bytes")) > 0);
    json_decref(plan);
    program_forget(&h);
}

Test(run, overrides_and_json)
{
    struct heard h = program_run("run -q --json --db o.db --router random --router round-robin --workload "
                                 "gaussian:tokens=128 --set seeds=2 --set steps=[2,3] --set model.experts=8");
    cr_assert_eq(h.status, 0, "%s", h.err);
    json_t *root = json_loads(h.out, 0, NULL), *rows = json_object_get(root, "rows");
    cr_expect_eq(json_array_size(rows), 4, "%s", h.out);
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(root, "runs"), "done")), 8);
    json_t *mean = json_object_get(json_array_get(rows, 0), "mean");
    cr_expect(json_is_real(json_object_get(mean, "load_cv")));
    cr_expect(strstr(json_string_value(json_object_get(json_array_get(rows, 0), "settings")), "steps=2"), "%s", h.out);
    json_decref(root);
    program_forget(&h);
    h = program_run("run -q --db o.db --router random --workload gaussian:tokens=128 --set seeds=2 --seed 9");
    cr_expect_eq(h.status, 0);
    program_forget(&h);
    expect_count("o.db", "seed = 9", 1);
}

Test(run, thresholds)
{
    program_write("s.yaml", small);
    static const struct {
        const char *condition;
        int status;
        const char *says;
    } cases[] = {
        {"max_vio > 1000", 0, ""},
        {"load_cv >= 0", 5, "load_cv of softmax-topk on lognormal:tokens=256 is "},
        {"random:load_cv > 1000", 0, ""},
        {"softmax-topk:capacity_factor=1:dropped_fraction > 0", 5,
         "dropped_fraction of softmax-topk:capacity_factor=1"},
        {"cpu_time_layer > 0", 5, "no run has cpu_time_layer"},
        {"load_cv!=0", 5, "(--fail-if 'load_cv!=0')"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("run s.yaml -q --fail-if '%s'", cases[i].condition);
        cr_expect_eq(h.status, cases[i].status, "%s: %d %s", cases[i].condition, h.status, h.err);
        cr_expect(strstr(h.err, cases[i].says), "%s: %s", cases[i].condition, h.err);
        program_forget(&h);
    }
}

Test(run, built_in_study_says_which_text_it_used)
{
    struct heard h = program_run("run --set steps=1 --set seeds=1 --router softmax-topk");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.err, "running the built-in study 'quickstart'"), "%s", h.err);
    cr_expect(strstr(h.out, "prose (") && strstr(h.out, "bytes"), "%s", h.out);
    program_forget(&h);
}

Test(run, compare_report_and_export_read_it)
{
    program_write("s.yaml", small);
    struct heard h = program_run("run s.yaml -q");
    program_forget(&h);
    h = program_run("compare moesim.db --baseline softmax-topk --metric load_cv");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "better"), "%s", h.out);
    cr_expect(strstr(h.err, "fewer than ten seeds"));
    program_forget(&h);
    h = program_run("compare moesim.db --json");
    json_t *rows = json_loads(h.out, 0, NULL);
    cr_expect(json_array_size(rows) > 3, "%s", h.out);
    json_decref(rows);
    program_forget(&h);
    h = program_run("compare moesim.db --baseline nonsuch");
    cr_expect_eq(h.status, 2, "%d %s", h.status, h.err);
    program_forget(&h);

    h = program_run("export moesim.db --format csv");
    size_t lines = 0;
    for (const char *c = h.out; *c; c++)
        lines += *c == '\n';
    cr_expect_eq(lines, 1 + N_POINTS);
    cr_expect(strncmp(h.out, "run,study,", 10) == 0 && strstr(h.out, ",load_cv,"), "%.60s", h.out);
    program_forget(&h);
    h = program_run("export moesim.db --format json");
    rows = json_loads(h.out, 0, NULL);
    cr_expect_eq(json_array_size(rows), N_POINTS);
    cr_expect(json_is_real(json_object_get(json_array_get(rows, 0), "load_cv")));
    json_decref(rows);
    program_forget(&h);
    h = program_run("export moesim.db --format md");
    cr_expect(strncmp(h.out, "| run | study |", 15) == 0);
    program_forget(&h);
    h = program_run("export moesim.db --format jsonl --view expert_load");
    cr_expect_eq(h.status, 0);
    cr_expect(h.out[0] == '{');
    program_forget(&h);
    h = program_run("export moesim.db --study nonsuch");
    cr_expect_eq(h.status, 2);
    program_forget(&h);

    h = program_run("report moesim.db -o page");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect(program_exists("page/report.html"));
    program_forget(&h);
}
