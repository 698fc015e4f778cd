/* moesim place: plans from loads and traces, their formats, and what is refused. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/status.h>

#include "tests/cli/program.h"
#include "workloads/npy.h"

TestSuite(place, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 60);

static void write_array(const char *path, const float *x, uint32_t n_dimensions, uint64_t n0, uint64_t n1, uint64_t n2)
{
    struct moesim_error err;
    cr_assert_eq(npy_write_float(path, x, (uint64_t[]){n0, n1, n2}, n_dimensions, &err), MOESIM_OK, "%s", err.text);
}

/* The loads of EPLB's README. */
static void write_published(void)
{
    const float load[] = {90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                          20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
    write_array("loads.npy", load, 2, 2, 12, 0);
}

#define PUBLISHED                                                                                                      \
    "place --loads loads.npy --cluster h100-dgx:nodes=2,devices_per_node=4 --placement eplb:redundant=4,n_groups=4 "

/* Its plan, in every format; read back as a placement it is itself. */
Test(place, published_plan_in_every_format)
{
    write_published();
    struct heard h = program_run(PUBLISHED);
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect_str_eq(h.out, "{\"layers\": [\n"
                            "{\"devices\": [[5, 6], [5, 7], [8, 4], [3, 4], [10, 9], [10, 2], [0, 1], [11, 1]]},\n"
                            "{\"devices\": [[7, 10], [6, 8], [6, 11], [8, 9], [2, 4], [5, 1], [5, 0], [3, 1]]}\n"
                            "]}\n");
    cr_expect_not_null(strstr(h.err, "device_imbalance 2.116 -> 1.225"), "%s", h.err);
    program_write("plan.json", h.out);
    struct heard again =
        program_run("place --loads loads.npy --cluster h100-dgx:nodes=2,devices_per_node=4 --placement plan.json");
    cr_expect_str_eq(again.out, h.out);
    program_forget(&again);
    program_forget(&h);

    h = program_run(PUBLISHED "--format trtllm --first-layer 3");
    cr_expect_str_eq(h.out, "initial_global_assignments:\n"
                            "  3: [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1]\n"
                            "  4: [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]\n"
                            "num_slots: 16\n"
                            "layer_updates_per_iter: 0\n");
    program_forget(&h);

    h = program_run(PUBLISHED "--format vllm-ascend");
    json_t *plan = json_loads(h.out, 0, NULL);
    int layers = 0, id = 0, devices = 0, device = 0, first = 0, second = 0;
    cr_assert_not_null(plan, "%s", h.out);
    json_t *layer = json_array_get(json_object_get(plan, "layer_list"), 1);
    cr_expect_eq(json_unpack(plan, "{s:i}", "moe_layer_count", &layers), 0);
    cr_expect_eq(json_unpack(layer, "{s:i, s:i}", "layer_id", &id, "device_count", &devices), 0);
    cr_expect_eq(json_unpack(json_array_get(json_object_get(layer, "device_list"), 7), "{s:i, s:[i,i]}", "device_id",
                             &device, "device_expert", &first, &second),
                 0);
    cr_expect(layers == 2 && id == 1 && devices == 8 && device == 7 && first == 3 && second == 1);
    json_decref(plan);
    program_forget(&h);
}

/* With -o the balance is the result: max / mean of the device loads. 6, 2, 1, 1 on two devices are 8 and 2 in order, 7
 * and 3 by lpt. */
Test(place, balance_beside_contiguous)
{
    write_array("l.npy", (float[]){6, 2, 1, 1}, 1, 4, 0, 0);
    struct heard h =
        program_run("place --loads l.npy --cluster h100-dgx:devices_per_node=2 --placement lpt -o p.json --json");
    cr_assert_eq(h.status, 0, "%s", h.err);
    json_t *rows = json_loads(h.out, 0, NULL);
    double before = 0, after = 0;
    cr_assert_eq(json_unpack(json_array_get(rows, 0), "{s:F, s:F}", "device_imbalance_before", &before,
                             "device_imbalance", &after),
                 0, "%s", h.out);
    cr_expect(before == 1.6 && after == 1.4, "%g %g", before, after);
    cr_expect_eq(json_array_size(rows), 2); /* the layer and the mean */
    json_decref(rows);
    program_forget(&h);
    cr_expect(program_exists("p.json"));
    h = program_run("place --loads l.npy --cluster h100-dgx:devices_per_node=2 --placement lpt -o p.json");
    cr_expect_not_null(strstr(h.out, "device_imbalance_before"));
    cr_expect_not_null(strstr(h.out, "1.600"));
    program_forget(&h);
}

/* Two kinds of tokens, each with four experts of its own in both layers, numbered apart: coactivation brings every
 * token to one device, affinity keeps it there. */
static void write_trace(void)
{
    float id[64][2][2];
    for (uint32_t t = 0; t < 64; t++)
        for (uint32_t l = 0; l < 2; l++)
            for (uint32_t c = 0; c < 2; c++)
                id[t][l][c] = (float)(2 * ((t / 2 + c + l) % 4) + (l ? 1 - t % 2 : t % 2));
    write_array("t.npy", &id[0][0][0], 3, 64, 2, 2);
}

static double told(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    double before = NAN, after = NAN;
    cr_assert(at && sscanf(at + strlen(name), " %lf -> %lf", &before, &after) == 2, "%s in %s", name, text);
    return after;
}

Test(place, trace_of_decisions)
{
    write_trace();
    struct heard h = program_run("place --trace t.npy --cluster h100-dgx:devices_per_node=2 --placement coactivation");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect_eq(told(h.err, "device_fanout"), 1);
    cr_expect_eq(told(h.err, "device_imbalance"), 1);
    program_forget(&h);
    h = program_run("place --trace t.npy --cluster h100-dgx:devices_per_node=2 --placement affinity");
    cr_expect_eq(told(h.err, "hops"), 0);
    program_forget(&h);
    h = program_run("place --trace t.npy --cluster h100-dgx:devices_per_node=2 --placement round-robin");
    cr_expect_eq(told(h.err, "device_fanout"), 1);
    cr_expect_eq(told(h.err, "hops"), 1); /* odd experts are on the other device */
    program_forget(&h);
    h = program_run("place --trace t.npy --experts 16 --cluster h100-dgx:devices_per_node=2 --placement lpt");
    cr_expect_eq(h.status, 0);
    program_forget(&h);
}

/* The same decisions, the same loads, from any format give the same plan. */
Test(place, every_format_of_a_trace)
{
    static const char *const as[] = {"t.trace", "t.npz", "t.safetensors", "t.jsonl", "t.csv"};
    write_trace();
    const char *place = "place --trace %s --experts 8 --cluster h100-dgx:devices_per_node=2 --placement coactivation";
    struct heard expected = program_run(place, "t.npy");
    cr_assert_eq(expected.status, 0, "%s", expected.err);
    for (size_t i = 0; i < sizeof as / sizeof *as; i++) {
        struct heard h = program_run("trace convert t.npy %s --kind decisions --experts 8", as[i]);
        cr_assert_eq(h.status, 0, "%s: %s", as[i], h.err);
        program_forget(&h);
        h = program_run(place, as[i]);
        cr_expect_eq(h.status, 0, "%s: %s", as[i], h.err);
        cr_expect_str_eq(h.out, expected.out, "%s", as[i]);
        program_forget(&h);
    }
    program_forget(&expected);
}

Test(place, every_format_of_loads)
{
    static const char *const as[] = {"l.trace", "l.npy", "l.npz", "l.safetensors", "l.csv"};
    program_write("l.json", "{\"logical_count\": [[[6,2,1,1],[1,2,3,5]],[[1,2,1,1],[1,2,3,5]]]}"); /* two steps */
    const char *place = "place --loads %s --cluster h100-dgx:devices_per_node=2 --placement lpt";
    struct heard expected = program_run(place, "l.json");
    cr_assert_eq(expected.status, 0, "%s", expected.err);
    cr_expect_str_eq(expected.out,
                     "{\"layers\": [\n{\"devices\": [[0, 3], [1, 2]]},\n{\"devices\": [[3, 0], [2, 1]]}\n]}\n");
    for (size_t i = 0; i < sizeof as / sizeof *as; i++) {
        struct heard h = program_run("trace convert l.json %s", as[i]);
        cr_assert_eq(h.status, 0, "%s: %s", as[i], h.err);
        program_forget(&h);
        h = program_run(place, as[i]);
        cr_expect_eq(h.status, 0, "%s: %s", as[i], h.err);
        cr_expect_str_eq(h.out, expected.out, "%s", as[i]);
        program_forget(&h);
    }
    program_forget(&expected);
}

/* SGLang's counts list dense layers with zeros; refused choices are no load; tokens without an expert go nowhere. */
Test(place, dense_layers_and_refused_choices)
{
    program_write("s.json", "{\"logical_count\": [[0,0,0,0],[0,0,0,0],[6,2,1,1]]}");
    const char *words = "place --loads s.json --cluster h100-dgx:devices_per_node=2 --placement lpt --format %s";
    struct heard h = program_run(words, "trtllm");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "assignments:\n  2: ["), "%s", h.out);
    program_forget(&h);
    h = program_run(words, "vllm-ascend"); /* which counts layers with experts only */
    cr_expect(strstr(h.out, "\"moe_layer_count\": 1") && strstr(h.out, "\"layer_id\": 0"), "%s", h.out);
    program_forget(&h);
    program_write("r.csv", "layer,token,choice,expert,weight,kept,slot\n0,0,0,0,1,1,0\n0,0,1,1,0,0,-1\n"
                           "0,2,0,0,0,0,-1\n0,3,0,1,1,1,0\n");
    h = program_run("place --trace r.csv --experts 2 --cluster h100-dgx:devices_per_node=2 --placement contiguous");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect_eq(told(h.err, "device_imbalance"), 1);
    cr_expect_eq(told(h.err, "device_fanout"), 1);
    program_forget(&h);
}

/* The machine in words needs no rates here, as nothing is priced. */
Test(place, machine_in_words)
{
    write_array("l.npy", (float[]){6, 2, 1, 1}, 1, 4, 0, 0);
    struct heard h = program_run("place --loads l.npy --cluster 'node:2 gpu:2 leaf:2:1' --placement lpt");
    cr_expect_eq(h.status, 0, "%s", h.err);
    cr_expect_str_eq(h.out, "{\"layers\": [\n{\"devices\": [[0], [1], [2], [3]]}\n]}\n");
    program_forget(&h);
    h = program_run("place --loads l.npy --cluster 'node:2 gpu:2 ep:3' --placement lpt");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "ep 3 does not divide its 4 devices"), "%s", h.err);
    program_forget(&h);
}

/* lp shares loads better than equally: expert 0 (8) is on both devices, beside 4 and beside nothing. */
Test(place, replica_choice_counts)
{
    write_array("l.npy", (float[]){8, 4, 0}, 1, 3, 0, 0);
    program_write("plan.json", "{\"layers\": [{\"devices\": [[0, 1], [0, 2]]}]}");
    struct heard even = program_run("place --loads l.npy --cluster h100-dgx:devices_per_node=2 --placement plan.json");
    struct heard lp = program_run(
        "place --loads l.npy --cluster h100-dgx:devices_per_node=2 --placement file:path=plan.json,replica=lp");
    cr_expect_float_eq(told(even.err, "device_imbalance"), 8 / 6.0, 1e-3);
    cr_expect_float_eq(told(lp.err, "device_imbalance"), 1, 1e-3);
    program_forget(&even);
    program_forget(&lp);
}

Test(place, a_study_takes_a_plan)
{
    program_write("s.yaml", "study: s\nseeds: 1\nsteps: 2\nworkload: {name: gaussian, tokens: 64}\n"
                            "model: {experts: 4, layers: 2, d_model: 16}\nrouter: softmax-topk\n"
                            "cluster: {name: h100-dgx, devices_per_node: 2}\nplacement: [contiguous, plan.json]\n");
    program_write("plan.json", "{\"layers\": [{\"devices\": [[0, 1], [2, 3]]}]}");
    struct heard h = program_run("run s.yaml --db s.db");
    cr_assert_eq(h.status, 0, "%s", h.err);
    char *same = program_query("s.db", "SELECT count(DISTINCT time_layer) || ' ' || count(*) FROM v_runs");
    cr_expect_str_eq(same, "1 2"); /* the plan is contiguous's */
    free(same);
    program_forget(&h);
    program_write("plan.json", "{\"layers\": [{\"devices\": [[0, 1], [2]]}]}");
    h = program_run("run s.yaml --db t.db");
    cr_expect_eq(h.status, 2);
    cr_expect_not_null(strstr(h.err, "is for another model or cluster"), "%s", h.err);
    cr_expect(!program_exists("t.db"));
    program_forget(&h);
}

/* Experts that compute nothing are placed nowhere, so they do not spoil the division by devices. */
Test(place, zero_computation_experts)
{
    write_array("l.npy", (float[]){1, 2, 3, 4, 5, 6, 7, 8}, 1, 8, 0, 0);
    program_write("s.yaml", "study: s\nseeds: 1\nsteps: 2\nworkload: {name: gaussian, tokens: 64}\n"
                            "model: {experts: 8, layers: 2, d_model: 16}\nrouter: zero-expert\n"
                            "cluster: {name: h100-dgx, devices_per_node: 4}\n"
                            "placement: [{name: lpt, from: oracle}, {name: eplb, redundant: 4, from: l.npy}]\n");
    struct heard h = program_run("run s.yaml --db s.db");
    cr_expect_eq(h.status, 0, "%s", h.err);
    program_forget(&h);
}

Test(place, refusals_write_nothing)
{
    write_published();
    write_trace();
    write_array("nan.npy", (float[]){1, NAN, 2, 3}, 1, 4, 0, 0);
    write_array("negative.npy", (float[]){1, -1, 2, 3}, 1, 4, 0, 0);
    write_array("zero.npy", (float[]){1, 1, 1, 1, 0, 0, 0, 0}, 2, 2, 4, 0);
    write_array("nothing.npy", (float[]){0, 0, 0, 0}, 1, 4, 0, 0);
    struct moesim_error err;
    cr_assert_eq(npy_write_float("deep.npy", (float[8]){1}, (uint64_t[]){1, 2, 2, 2}, 4, &err), MOESIM_OK);
    program_write("t.csv", "layer,token,choice,expert\n0,0,0,1\n0,1,0,0\n");
    program_write("one.csv", "layer,token,choice,expert\n0,0,0,1\n0,1,0,1\n");
    write_array("same.npy", (float[]){0, 0, 0, 0}, 2, 2, 2, 0);
    program_write("other.json", "{\"layers\": [{\"devices\": [[0], [1]]}]}");
    program_write("bad.json", "{\"layers\": [{\"devices\": [[0], [1]]}]");
    program_write("twice.json",
                  "{\"layers\": [{\"devices\": [[0,1,2],[3,4,5],[6,6,7],[8,9,9],[10,11,0],[1,2,3],[4,5,6],[7,8,9]]}]}");
    static const struct {
        const char *arguments;
        int status;
        const char *sentence;
    } cases[] = {
        {"--loads nan.npy --placement lpt", 4, "nan.npy: layer 0, element 1: a load is not a number from 0 up but nan"},
        {"--loads negative.npy --placement lpt", 4, "element 1: a load is not a number from 0 up but -1"},
        {"--loads nothing.npy --placement lpt", 2, "nothing.npy: the loads of row 0 are all 0"},
        {"--loads t.csv --placement lpt", 2, "t.csv holds decisions that do not say how many experts there are"},
        {"--loads zero.npy --placement lpt", 2, "the loads of row 1 are all 0"},
        {"--loads deep.npy --placement lpt", 4,
         "[1, 2, 2, 2]; [experts], [layers, experts] or [steps, layers, experts] is needed"},
        {"--loads none.npy --placement lpt", 4, "none.npy: cannot be read"},
        {"--loads other.json --placement lpt", 4, "other.json"},
        {"--loads loads.npy --placement eplb:redundant=3", 2, "redundant = 4 would"},
        {"--loads loads.npy --placement lpt", 2, "12 experts and 0 further copies are 12 slots"},
        {"--loads loads.npy --placement coactivation", 2, "which loads do not tell; give decisions: --trace FILE"},
        {"--loads loads.npy --placement optimal", 2, "at most 16 on 4"},
        {"--loads loads.npy --placement eplb:redundant=-4", 2, "redundant = -4 is outside 0..65536"},
        {"--loads loads.npy --placement eplb:redundant=4,every=5", 2, "placement.every is for runs"},
        {"--loads loads.npy --placement lptt", 2, "unknown placement 'lptt'; did you mean 'lpt'?"},
        {"--loads loads.npy --placement other.json", 2, "is for another model or cluster"},
        {"--loads loads.npy --placement bad.json", 4, "bad.json:1:36"},
        {"--loads loads.npy --placement none.json", 4, "none.json: No such file"},
        {"--loads loads.npy --placement contiguous --format trtllm", 2,
         "--format trtllm has as many experts on every device"},
        {"--loads loads.npy --placement twice.json --format vllm-ascend", 2,
         "cannot have an expert twice on one device, as the placement has expert 6 on device 2 of layer 0"},
        {"--trace nan.npy --placement lpt", 4, "the array is [4]; [tokens, layers, k] or [tokens, k] is needed"},
        {"--trace one.csv --placement lpt", 2, "all decisions are expert 1 in layer 0"},
        {"--trace same.npy --placement lpt", 2, "all decisions are expert 0"},
        {"--trace same.npy --placement lpt", 2, "the trace was recorded wrongly"},
        {"--trace t.npy --experts 4 --placement lpt", 4, "is not one of the 4"},
        {"--trace none.csv --placement lpt", 4, "none.csv: cannot be read: No such file"},
        {"--trace t.npy --loads loads.npy --placement lpt", 2, "not both"},
        {"--placement lpt", 2, "give --loads FILE or --trace FILE"},
        {"--loads loads.npy", 2, "--placement SPEC is missing"},
        {"--loads loads.npy --experts 12 --placement lpt", 2, "--experts is for --trace"},
        {"--loads loads.npy --placement lpt --first-layer 3", 2, "--first-layer is for formats that number layers"},
        {"--loads loads.npy --placement lpt --format yaml", 2, "yaml"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h =
            program_run("place %s --cluster h100-dgx:nodes=2,devices_per_node=4 -o out.json", cases[i].arguments);
        cr_expect_eq(h.status, cases[i].status, "%s: %d, %s", cases[i].arguments, h.status, h.err);
        cr_expect_not_null(strstr(h.err, cases[i].sentence), "%s: %s", cases[i].arguments, h.err);
        cr_expect(h.n_out == 0 && !program_exists("out.json"), "%s wrote something", cases[i].arguments);
        char *end = strchr(h.err, '\n');
        cr_expect(end && !end[1], "%s: more than one sentence: %s", cases[i].arguments, h.err);
        program_forget(&h);
    }
    struct heard h = program_run("place --loads loads.npy --cluster h100-dgk --placement lpt");
    cr_expect_eq(h.status, 2);
    cr_expect_not_null(strstr(h.err, "did you mean 'h100-dgx'?"), "%s", h.err);
    program_forget(&h);
    h = program_run("place --loads loads.npy --cluster h100-dgx:devices_per_node=4 --placement lpt -o loads.npy");
    cr_expect_eq(h.status, 2);
    cr_expect_not_null(strstr(h.err, "would replace what is read"), "%s", h.err);
    program_forget(&h);
    h = program_run("place --loads loads.npy --cluster h100-dgx:devices_per_node=4 --placement lpt -o none/p.json");
    cr_expect_eq(h.status, 4);
    program_forget(&h);
}
