/* Placements that follow the load, in a run: what counts, what moves, what is refused. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/status.h>

#include "tests/cli/program.h"
#include "workloads/npy.h"

TestSuite(placements, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

static const char study[] = "study: placed\n"
                            "seeds: 2\n"
                            "steps: 24\n"
                            "workload: {name: lognormal, sigma: 1, tokens: 1024}\n"
                            "model: {experts: 16, top_k: 2, layers: 2, d_model: 64, d_ff: 64}\n"
                            "router: softmax-topk\n"
                            "cluster: {name: h100-dgx, nodes: 2, devices_per_node: 4}\n"
                            "placement:\n"
                            "  - contiguous\n"
                            "  - lpt\n"
                            "  - {name: eplb, redundant: 8, every: 5}\n"
                            "  - {name: eplb, redundant: 8, from: oracle}\n"
                            "record: [device_imbalance]\n";

static double number(const char *sql)
{
    char *text = program_query("p.db", sql);
    cr_assert_not_null(text, "%s", sql);
    const double value = strtod(text, NULL);
    free(text);
    return value;
}

/* Ten steps are fitted on and left out of every point's figures; 14 count, and the loads are the same for all points.
 * Replication evens devices out, the oracle most; only the placement that is made anew moves weights, after steps 15
 * and 20. The bits do not depend on jobs and threads. */
Test(placements, warm_up_replacement_and_oracle)
{
    program_write("s.yaml", study);
    struct heard h = program_run("run s.yaml --db p.db --jobs 1 --threads 2");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_expect_eq(number("SELECT count(*) FROM run WHERE json_extract(params, '$.warm_up') = 10"), 8);
    cr_expect_eq(number("SELECT min(n) FROM summary WHERE layer = 0 AND metric = (SELECT id FROM metric WHERE name = "
                        "'load_cv')"),
                 14);
    cr_expect_eq(number("SELECT min(step) FROM series"), 10);
    cr_expect_eq(number("SELECT count(DISTINCT load_cv) FROM v_runs"), 2, "one a seed");
    static const char *const falling[] = {"contiguous", "lpt", "eplb:redundant=8,every=5",
                                          "eplb:redundant=8,from=oracle"};
    double before = INFINITY;
    for (size_t i = 0; i < sizeof falling / sizeof *falling; i++) {
        char sql[256];
        snprintf(sql, sizeof sql, "SELECT avg(device_imbalance) FROM v_runs WHERE placement LIKE '%s%%'", falling[i]);
        const double now = number(sql);
        cr_expect(now >= 1 && now < before, "%s: %g after %g", falling[i], now, before);
        before = now;
    }
    cr_expect_eq(number("SELECT count(*) FROM v_runs WHERE bytes_migration IS NOT NULL"), 2);
    cr_expect_gt(number("SELECT min(time_migration) FROM v_runs WHERE placement LIKE '%every%'"), 0);
    cr_expect_eq(
        number("SELECT max(n) FROM summary WHERE layer IS NULL AND metric = (SELECT id FROM metric WHERE name = "
               "'bytes_migration')"),
        2);

    h = program_run("run s.yaml --db q.db --jobs 2 --threads 1");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    static const char hashes[] = "SELECT group_concat(row_hash) FROM (SELECT row_hash FROM v_runs ORDER BY hash)";
    char *p = program_query("p.db", hashes), *q = program_query("q.db", hashes);
    cr_expect_str_eq(p, q);
    free(p);
    free(q);
}

/* A file's loads place at once, so there is no warm-up, and other loads place otherwise. */
Test(placements, loads_of_a_file)
{
    struct moesim_error err;
    float loads[16];
    for (int e = 0; e < 16; e++)
        loads[e] = e == 3 ? 1000 : 1;
    cr_assert_eq(npy_write_float("loads.npy", loads, (uint64_t[]){16}, 1, &err), MOESIM_OK);
    program_write("s.yaml", study);
    struct heard h = program_run("run s.yaml --db p.db --set placement=eplb:redundant=8,from=loads.npy --set steps=3");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_expect_eq(number("SELECT count(*) FROM run WHERE json_extract(params, '$.warm_up') = 0"), 2);
    const double hot = number("SELECT sum(device_imbalance) FROM v_runs");
    for (int e = 0; e < 16; e++)
        loads[e] = 1;
    cr_assert_eq(npy_write_float("loads.npy", loads, (uint64_t[]){16}, 1, &err), MOESIM_OK);
    h = program_run("run s.yaml --db p.db --fresh --set placement=eplb:redundant=8,from=loads.npy --set steps=3");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_expect(number("SELECT sum(device_imbalance) FROM v_runs") != hot, "other loads, another placement");
    const double as_npy = number("SELECT sum(device_imbalance) FROM v_runs");
    program_write("loads.json", "{\"logical_count\": [[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"
                                "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]]}");
    h = program_run("run s.yaml --db p.db --fresh --set placement=eplb:redundant=8,from=loads.json --set steps=3");
    cr_assert_eq(h.status, 0, "%s", h.err); /* the first layer is a dense one */
    program_forget(&h);
    cr_expect_eq(number("SELECT sum(device_imbalance) FROM v_runs WHERE placement LIKE '%json'"), as_npy);
}

Test(placements, bad_input)
{
    struct moesim_error err;
    float loads[32] = {0};
    cr_assert_eq(npy_write_float("zeros.npy", loads, (uint64_t[]){16}, 1, &err), MOESIM_OK);
    loads[5] = NAN;
    cr_assert_eq(npy_write_float("nan.npy", loads, (uint64_t[]){16}, 1, &err), MOESIM_OK);
    loads[5] = -1;
    cr_assert_eq(npy_write_float("minus.npy", loads, (uint64_t[]){16}, 1, &err), MOESIM_OK);
    loads[5] = 1;
    cr_assert_eq(npy_write_float("short.npy", loads, (uint64_t[]){15}, 1, &err), MOESIM_OK);
    cr_assert_eq(npy_write_float("row.npy", loads, (uint64_t[]){2, 16}, 2, &err), MOESIM_OK);
    static const struct {
        const char *set;
        int status;
        const char *words;
    } cases[] = {
        {"placement=lpt:from=zeros.npy", 2, "the loads of row 0 are all 0"},
        {"placement=lpt:from=nan.npy", 4, "element 5: a load is not a number from 0 up but nan"},
        {"placement=lpt:from=minus.npy", 4, "element 5: a load is not a number from 0 up but -1"},
        {"placement=lpt:from=short.npy", 2, "15 numbers in 1 dimensions; it should be [16] or [2, 16]"},
        {"placement=lpt:from=row.npy", 2, "the loads of row 1 are all 0"},
        {"placement=lpt:from=absent.npy", 4, "absent.npy"},
        {"placement=lpt:fit_steps=30", 2, "warm_up = 30 leaves none of the 24 steps"},
        {"warm_up=4", 2, "fit_steps = 10, but the study's warm_up has 4 steps"},
        {"placement=lpt:every=4,window=5", 2, "window = 5 is longer than every = 4"},
        {"placement=lpt:from=oracle,every=4", 2, "from = oracle places anew at every step"},
        {"placement=affinity:from=oracle", 2, "looks from layer to layer"},
        {"placement=coactivation:from=row.npy", 2, "a file has loads"},
        {"placement=eplb:redundant=3", 2, "redundant"},
    };
    program_write("s.yaml", study);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("run s.yaml --db p.db --set %s", cases[i].set);
        cr_expect_eq(h.status, cases[i].status, "%s: %d, %s", cases[i].set, h.status, h.err);
        cr_expect(strstr(h.err, cases[i].words), "%s: %s", cases[i].set, h.err);
        cr_expect(!program_exists("p.db"), "%s", cases[i].set);
        program_forget(&h);
    }
}

/* Runs that the next call has to make. */
static double due(const char *words)
{
    struct heard h = program_run("run s.yaml --db p.db --dry-run --json %s", words);
    cr_assert_eq(h.status, 0, "%s", h.err);
    const char *at = strstr(h.out, "\"to_run\": ");
    const double n = at ? strtod(at + strlen("\"to_run\": "), NULL) : NAN;
    cr_assert(isfinite(n), "%s", h.out);
    program_forget(&h);
    return n;
}

/* A file that was changed under the same name makes its own runs stale, and the new ones take their place. */
Test(placements, a_changed_file_runs_again)
{
    program_write("s.yaml", "study: files\nseeds: 2\nsteps: 2\nworkload: {name: gaussian, tokens: 64}\n"
                            "model: {experts: 4, layers: 1, d_model: 16}\n"
                            "router: [softmax-topk, {name: softmax-topk, bias: b.npy}]\n"
                            "cluster: {name: h100-dgx, devices_per_node: 2}\n"
                            "placement: [contiguous, plan.json, {name: lpt, from: loads.json}]\n");
    struct moesim_error err;
    cr_assert_eq(npy_write_float("b.npy", (float[]){0, 0, 0, 1}, (uint64_t[]){4}, 1, &err), MOESIM_OK);
    program_write("plan.json", "{\"layers\": [{\"devices\": [[0, 1], [2, 3]]}]}");
    program_write("loads.json", "[[3, 1, 1, 1]]");
    struct heard h = program_run("run s.yaml --db p.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_expect_eq(number("SELECT count(*) FROM run"), 12);
    cr_expect_eq(due(""), 0);
    static const struct {
        const char *file, *text;
        double due;
    } changes[] = {{"plan.json", "{\"layers\": [{\"devices\": [[0, 2], [1, 3]]}]}", 4},
                   {"loads.json", "[[1, 1, 1, 3]]", 4},
                   {"loads.json", "[[1, 1, 1, 3]]", 0},
                   {"b.npy", NULL, 6}};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        if (changes[i].text)
            program_write(changes[i].file, changes[i].text);
        else
            cr_assert_eq(npy_write_float("b.npy", (float[]){1, 0, 0, 0}, (uint64_t[]){4}, 1, &err), MOESIM_OK);
        cr_expect_eq(due(""), changes[i].due, "%s: %g", changes[i].file, due(""));
        h = program_run("run s.yaml --db p.db");
        cr_assert_eq(h.status, 0, "%s", h.err);
        program_forget(&h);
        cr_expect_eq(number("SELECT count(*) FROM run"), 12, "stale runs are gone");
        cr_expect_eq(due(""), 0);
    }
}

/* The same of a folder of texts and of a recorded trace. */
Test(placements, a_changed_workload_runs_again)
{
    cr_assert_eq(system("mkdir -p texts/more"), 0);
    program_write("texts/a.txt", "some words of a text that is long enough to be one\n");
    program_write("texts/more/b.txt", "and others of another, in a folder below the first\n");
    program_write("t.csv", "layer,token,choice,expert\n0,0,0,1\n0,1,0,2\n");
    program_write("s.yaml", "study: files\nseeds: 1\nsteps: 2\nmodel: {experts: 4, layers: 1, d_model: 16, top_k: 1}\n"
                            "workload: [{name: text, files: texts, tokens: 64}, {name: trace, file: t.csv}]\n"
                            "router: [hash, replay]\nexclude:\n  - {router.name: hash, workload.name: trace}\n"
                            "  - {router.name: replay, workload.name: text}\n");
    struct heard h = program_run("run s.yaml --db p.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    cr_expect_eq(due(""), 0);
    program_write("texts/more/b.txt", "and Others of another, in a folder below the first\n");
    cr_expect_eq(due(""), 1);
    program_write("t.csv", "layer,token,choice,expert\n0,0,0,1\n0,1,0,3\n");
    cr_expect_eq(due(""), 2);
}
