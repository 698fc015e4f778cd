/* moesim trace, run --record and the workloads of recorded routing, as people use them. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"

TestSuite(trace, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

/* Six tokens, two layers, k = 2 of four experts, two sequences. */
static void write_log(const char *path)
{
    static const char *const experts[] = {"1,0", "2,3", "1,2", "2,0", "1,3", "2,1",
                                          "0,1", "3,2", "0,2", "3,1", "0,3", "3,0"};
    char text[2048] = "";
    for (uint32_t i = 0; i < 12; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "{\"req_id\":\"%c\",\"token_idx\":%u,\"layer\":%u,\"experts\":[%s],\"gating_probs\":[0.75,0.25]}\n",
                 i < 6 ? 'a' : 'b', i / 2, i % 2, experts[i]);
    program_write(path, text);
}

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    cr_assert(value, "no %s", key);
    return json_is_null(value) ? NAN : json_number_value(value);
}

static json_t *info(const char *arguments)
{
    struct heard h = program_run("trace info %s --json", arguments);
    json_error_t where;
    cr_assert_eq(h.status, 0, "%s", h.err);
    json_t *root = json_loads(h.out, 0, &where);
    cr_assert(root, "%s: %s", where.text, h.out);
    program_forget(&h);
    return root;
}

/* Loads of layer 0: experts 1 three times, 0 four, 2 and 3 ... counted by hand from write_log: 0: 4, 1: 4, 2: 2, 3: 2;
 * the mean over layers stands at the top. */
Test(trace, info)
{
    write_log("a.jsonl");
    json_t *root = info("a.jsonl");
    const json_t *layers = json_object_get(root, "layers");
    cr_assert_str_eq(json_string_value(json_object_get(root, "kind")), "decisions");
    cr_assert_eq(json_array_size(layers), 2);
    cr_assert(number(root, "n_tokens") == 6 && number(root, "n_experts") == 4 && number(root, "top_k") == 2);
    cr_assert_eq(number(root, "n_sequences"), 2);
    const double a = number(json_array_get(layers, 0), "load_cv"), b = number(json_array_get(layers, 1), "load_cv");
    cr_assert(fabs(number(root, "load_cv") - (a + b) / 2) < 1e-15);
    cr_assert_eq(number(json_array_get(layers, 1), "layer"), 1);
    static const char *const keys[] = {"max_vio",          "load_gini",     "load_entropy",         "dead_experts",
                                       "lag1_overlap",     "lag64_overlap", "layer_predictability", "cache_hit_rate",
                                       "domain_divergence"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_assert(json_object_get(root, keys[i]) && json_object_get(json_array_get(layers, 0), keys[i]), "%s", keys[i]);
    json_decref(root);

    struct heard h = program_run("trace info a.jsonl");
    cr_assert_eq(h.status, 0);
    cr_assert(strstr(h.out, "6 tokens, 2 layers, 4 experts, up to 2 a token, with weights, 2 sequences"), "%s", h.out);
    cr_assert(strstr(h.out, "foretold"), "%s", h.out);
    program_forget(&h);
}

Test(trace, warnings_go_to_stderr)
{
    program_write("z.json", "[[[0,0]],[[0,0]]]");
    struct heard h = program_run("trace info z.json");
    cr_assert_eq(h.status, 0, "info shows what it can");
    cr_assert(strstr(h.err, "warning: all ids are 0"), "%s", h.err);
    program_forget(&h);
    h = program_run("trace convert z.json z.trace");
    cr_assert_eq(h.status, 4, "an import is refused");
    cr_assert(strstr(h.err, "all ids are 0: the recorder captured nothing"), "%s", h.err);
    cr_assert_not(program_exists("z.trace"));
    program_forget(&h);
}

Test(trace, convert_and_back)
{
    static const char *const names[] = {"b.trace", "b.npz", "b.safetensors", "b.jsonl", "b.csv"};
    write_log("a.jsonl");
    json_t *first = info("a.jsonl");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct heard h = program_run("trace convert a.jsonl %s", names[i]);
        cr_assert_eq(h.status, 0, "%s", h.err);
        cr_assert_eq(strstr(h.err, "does not hold: labels") != NULL, i == 4, "%s", h.err);
        program_forget(&h);
        json_t *again = info(names[i]);
        static const char *const same[] = {"load_cv", "max_vio", "layer_predictability", "n_tokens"};
        for (size_t k = 0; k < sizeof same / sizeof *same; k++)
            cr_assert_eq(number(again, same[k]), number(first, same[k]), "%s of %s", same[k], names[i]);
        if (i < 4)
            cr_assert_eq(number(again, "lag1_overlap"), number(first, "lag1_overlap"), "%s", names[i]);
        json_decref(again);
    }
    json_decref(first);
    struct heard h = program_run("trace convert a.jsonl stats --format trtllm");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    json_t *loads = info("stats");
    cr_assert_str_eq(json_string_value(json_object_get(loads, "format")), "TensorRT-LLM");
    json_decref(loads);
    h = program_run("trace convert a.jsonl l.npy --as loads");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    loads = info("l.npy --kind loads");
    cr_assert_eq(number(loads, "n_layers"), 2);
    json_decref(loads);
}

Test(trace, convert_appends)
{
    write_log("a.jsonl");
    struct heard h = program_run("trace convert a.jsonl b.trace --append");
    cr_assert_eq(h.status, 4);
    cr_assert(strstr(h.err, "there is nothing to append to"), "%s", h.err);
    program_forget(&h);
    for (uint32_t i = 1; i <= 3; i++) {
        h = program_run("trace convert a.jsonl b.trace%s", i > 1 ? " --append" : "");
        cr_assert_eq(h.status, 0, "%s", h.err);
        program_forget(&h);
        json_t *root = info("b.trace");
        cr_assert_eq(number(root, "n_tokens"), 6.0 * i);
        json_decref(root);
    }
    program_write("l.json", "[[1,2],[3,4]]");
    h = program_run("trace convert l.json b.trace --append");
    cr_assert_eq(h.status, 2);
    cr_assert(strstr(h.err, "loads cannot be appended to a trace of decisions"), "%s", h.err);
    program_forget(&h);
}

Test(trace, saves_what_a_broken_recording_left)
{
    struct stat st;
    write_log("a.jsonl");
    struct heard h = program_run("trace convert a.jsonl b.trace");
    program_forget(&h);
    cr_assert_eq(stat("b.trace", &st), 0);
    cr_assert_eq(truncate("b.trace", st.st_size - 8), 0);
    h = program_run("run --workload trace:file=b.trace --router replay --seed 1 -q");
    cr_assert(h.status == 4 && strstr(h.err, "the directory at the end is missing"), "%d: %s", h.status, h.err);
    program_forget(&h);
    h = program_run("trace convert b.trace c.trace");
    cr_assert(h.status == 0 && strstr(h.err, "the end of the file is missing; 6 tokens are whole"), "%s", h.err);
    program_forget(&h);
    h = program_run("trace info c.trace");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
}

/* What is printed is a study, with the figures as comments; and the same as JSON. */
Test(trace, fit)
{
    write_log("a.jsonl");
    struct heard h = program_run("trace fit a.jsonl --samples 12 --quiet");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_assert(strstr(h.out, "# load_cv") && strstr(h.out, "    preset: none\n"), "%s", h.out);
    cr_assert(strstr(h.out, "    domain_effect: 0  # not known\n"), "%s", h.out);
    cr_assert(strstr(h.out, "model: {layers: 2, experts: 4, top_k: 2}\n"), "%s", h.out);
    char study[4096];
    snprintf(study, sizeof study, "%srouter: softmax-topk\nsteps: 2\nseeds: 1\n", h.out);
    program_write("fitted.yaml", study);
    program_forget(&h);
    h = program_run("run fitted.yaml -q");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    h = program_run("trace fit a.jsonl --samples 12 --quiet --json");
    cr_assert_eq(h.status, 0, "%s", h.err);
    json_error_t where;
    json_t *root = json_loads(h.out, 0, &where);
    cr_assert(root, "%s", where.text);
    const json_t *workload = json_object_get(root, "workload"), *figures = json_object_get(root, "figures");
    cr_assert_str_eq(json_string_value(json_object_get(workload, "preset")), "none");
    cr_assert_gt(number(workload, "popularity"), 0);
    cr_assert_gt(json_array_size(figures), 2);
    cr_assert_gt(number(json_array_get(figures, 0), "target"), 0);
    json_decref(root);
    program_forget(&h);
}

Test(trace, mistakes)
{
    static const struct {
        const char *command;
        int status;
        const char *says;
    } cases[] = {
        {"trace", 2, ""},
        {"trace info", 2, ""},
        {"trace infos a.jsonl", 2, "unknown action 'infos'; did you mean 'info'?"},
        {"trace info a.jsonl b", 2, "1 argument is needed: FILE"},
        {"trace convert a.jsonl", 2, "2 arguments are needed: IN OUT"},
        {"trace presets olmoe-1b-7", 2, "unknown preset 'olmoe-1b-7'; did you mean 'olmoe-1b-7b'?"},
        {"trace presets x y", 2, "1 argument at most: NAME"},
        {"trace fit", 2, "1 argument is needed: FILE"},
        {"trace fit none.npy", 4, "none.npy: cannot be read: No such file"},
        {"trace fit a.jsonl --samples 0", 2, "--samples '0'"},
        {"trace info none.npy", 4, "none.npy: cannot be read: No such file"},
        {"trace info .", 4, "is a directory without meta_info.json"},
        {"trace info a.jsonl --kind loads", 2, "holds decisions, not loads"},
        {"trace info a.jsonl --experts 2", 4, "expert 2 is not one of the 2"},
        {"trace info a.jsonl --weights w.npy", 2, "--weights does not go with it"},
        {"trace info a.jsonl --domains x", 2, "--domains names a column of --sequences FILE"},
        {"trace info a.jsonl --kind choices", 2, "choices"},
        {"trace convert a.jsonl a.jsonl", 2, "would replace what is read"},
        {"trace convert a.jsonl b.xyz", 2, "its suffix names no format"},
        {"trace convert a.jsonl b --format parquet", 2, "parquet"},
        {"trace convert a.jsonl no/b.trace", 4, "no/b.trace"},
        {"trace convert a.jsonl . --format trtllm", 2, "is there already"},
        {"run --workload trace --router replay --seed 1 -q", 2, "trace needs a file"},
        {"run --workload trace:file=a.jsonl --router softmax-topk --seed 1 -q", 2, "needs gate columns"},
        {"run --workload trace:file=a.jsonl --router replay --seed 1 -q --set model.layers=3", 2, "layers"},
        {"run --record x.trace --router softmax-topk --router switch --workload gaussian:tokens=10 --seed 1 -q", 2,
         "the study routes 2 times"},
        {"run --record x.trace --set 'seeds=[1,2]' --router switch --workload gaussian:tokens=10 -q", 2,
         "the study routes 2 times"},
    };
    write_log("a.jsonl");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("%s", cases[i].command);
        cr_assert_eq(h.status, cases[i].status, "%s: %d: %s", cases[i].command, h.status, h.err);
        cr_assert(strstr(h.err, cases[i].says), "%s: %s", cases[i].command, h.err);
        cr_assert_not(program_exists("x.trace"));
        program_forget(&h);
    }
}

/* ---- recording and replay ---- */

static void write_study(const char *path, const char *workload, const char *router)
{
    char text[1024];
    snprintf(
        text, sizeof text,
        "study: s\nseeds: 1\nsteps: 4\nworkload: {%s}\nmodel: {layers: 3, experts: 12, top_k: 2, d_model: 32, d_ff: "
        "64}\nrouter: {%s}\ncluster: {name: h100-dgx, nodes: 2, devices_per_node: 2}\nrecord: [expert_load]\n",
        workload, router);
    program_write(path, text);
}

/* In a database of its own. */
static char *run_and_query(const char *arguments, const char *sql)
{
    unlink("r.db");
    struct heard h = program_run("run %s --db r.db -q", arguments);
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    return program_query("r.db", sql);
}

/* All that follows from decisions alone. */
#define FIGURES                                                                                                        \
    "SELECT json_array(load_cv, max_vio, load_gini, load_entropy, dead_experts, dropped_fraction, dropped_tokens, "    \
    "experts_per_token, lag1_overlap, load_churn, bad_rows, device_imbalance, device_fanout, bytes_dispatch, "         \
    "flop_expert, time_layer) FROM v_runs"

/* Every kind of router: refusals, slots out of order, rerouting, uneven numbers of experts. What is recorded is
 * replayed bit for bit: the second recording is the same file, and every counted and modelled figure is the same
 * number. */
Test(trace, replay_is_bit_for_bit)
{
    static const char *const routers[] = {
        "name: softmax-topk",
        "name: softmax-topk, capacity_factor: 1.0, priority: bpr",
        "name: softmax-topk, capacity_factor: 0.75, overflow: reroute, group: 50",
        "name: switch",
        "name: top-p, p: 0.5",
        "name: hash, k: 2",
    };
    for (size_t i = 0; i < sizeof routers / sizeof *routers; i++) {
        const bool hash = i == 5, groups = i == 2;
        write_study("a.yaml",
                    hash ? "name: text, tokens: 200, sequence: 40, files: a.yaml" : "name: lognormal, tokens: 200",
                    routers[i]);
        char *before = run_and_query("a.yaml --record a.trace", FIGURES);
        write_study("b.yaml", "name: trace, file: a.trace, tokens: 200",
                    groups ? "name: replay, k: 64, group: 50" : "name: replay, k: 64");
        char *after = run_and_query("b.yaml --record b.trace", FIGURES);
        char *a = program_read("a.trace"), *b = program_read("b.trace");
        struct stat sa, sb;
        cr_assert(a && b && stat("a.trace", &sa) == 0 && stat("b.trace", &sb) == 0);
        cr_assert_str_eq(before, after, "%s:\n%s\n%s", routers[i], before, after);
        cr_assert(sa.st_size == sb.st_size && memcmp(a, b, (size_t)sa.st_size) == 0, "%s", routers[i]);
        free(before);
        free(after);
        free(a);
        free(b);
    }
}

/* The replay of a replay has the same row hash: the file that was recorded stands in for the one it was recorded of. */
Test(trace, row_hashes_of_replays_are_equal)
{
    write_study("a.yaml", "name: gaussian, tokens: 300", "name: switch, capacity_factor: 1.0");
    free(run_and_query("a.yaml --record t.trace", "SELECT 1"));
    write_study("b.yaml", "name: trace, file: t.trace, tokens: 300", "name: replay");
    char *first = run_and_query("b.yaml --record u.trace", "SELECT row_hash FROM run");
    cr_assert_eq(rename("u.trace", "t.trace"), 0);
    char *second = run_and_query("b.yaml", "SELECT row_hash FROM run");
    cr_assert_gt(strlen(first), 10);
    cr_assert_str_eq(first, second);
    free(first);
    free(second);
}

/* Recording changes nothing of the run; a run that the database has is recorded all the same. */
Test(trace, recording_does_not_disturb)
{
    write_study("a.yaml", "name: text, tokens: 200, sequence: 40, files: a.yaml", "name: softmax-topk");
    char *plain = run_and_query("a.yaml", "SELECT row_hash FROM run");
    struct heard h = program_run("run a.yaml --db r.db -q --record a.trace");
    cr_assert_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
    char *recorded = program_query("r.db", "SELECT row_hash FROM run");
    cr_assert_str_eq(plain, recorded);
    free(plain);
    free(recorded);
    json_t *root = info("a.trace");
    cr_assert(number(root, "n_tokens") == 800 && number(root, "n_sequences") == 20, "%g", number(root, "n_sequences"));
    cr_assert_eq(json_array_size(json_object_get(root, "labels")), 3);
    json_decref(root);
}

Test(trace, a_failed_run_leaves_no_recording)
{
    program_write("a.yaml", "study: s\nseeds: 1\nsteps: 2\nworkload: {name: text, tokens: 64, files: a.yaml}\nmodel: "
                            "{experts: 4, d_model: 16}\nrouter: [soft]\n");
    struct heard h = program_run("run a.yaml --db r.db -q --record a.trace");
    cr_assert_eq(h.status, 1, "%s", h.err);
    cr_assert(strstr(h.err, "--record: a soft router mixes all tokens"), "%s", h.err);
    program_forget(&h);
    cr_assert_not(program_exists("a.trace"));
    h = program_run("run a.yaml --db r.db -q --record no/a.trace --router softmax-topk");
    cr_assert_eq(h.status, 1, "%s", h.err);
    program_forget(&h);
}

Test(trace, loads_of_decisions_drive_a_run)
{
    write_log("a.jsonl");
    struct heard h =
        program_run("run --workload loads:file=a.jsonl,tokens=500 --router softmax-topk --seed 1 -q --db r.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_assert(strstr(h.out, "loads of 4 experts in 2 layers"), "%s", h.out);
    program_forget(&h);
}

/* Files of 16 MiB of nothing, and a bomb: whatever they claim, memory stays below their size and 64 MiB. */
Test(trace, hostile_files_take_no_memory)
{
    enum { N = 16 << 20 };
    static const char *const heads[] = {"[[[[[[[[",
                                        "{\"layer\":0,\"experts\":[1,",
                                        "{\"logical_count\":[[1,",
                                        "layer,experts\n0,1 ",
                                        "\x93NUMPY\x01\x00\xff\xff",
                                        "{\"layer\":0,\"experts\":\"1 "};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        FILE *file = fopen("h.bin", "wb");
        fwrite(heads[i], 1, i == 4 ? 10 : strlen(heads[i]), file);
        for (size_t n = 0; n < N / 2; n++)
            fputs(i == 3 || i == 5 ? "1 " : "1,", file);
        fclose(file);
        struct heard h = program_run("trace info h.bin");
        cr_assert(h.status == 4 || h.status == 0, "%zu: %d %s", i, h.status, h.err);
        program_forget(&h);
    }
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    cr_assert_lt(usage.ru_maxrss, (N + (64 << 20)) / 1024, "%ld KiB", usage.ru_maxrss);
}
