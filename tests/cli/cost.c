/* moesim cost: bytes and times by hand, published values, the machine in words, and what is refused. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(cost, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 60);

/* The figures of one call; fails the test when it fails. */
static json_t *price(const char *words)
{
    struct heard h = program_run("cost --json %s", words);
    cr_assert_eq(h.status, 0, "%s: %s", words, h.err);
    json_t *root = json_loads(h.out, 0, NULL);
    cr_assert_not_null(root, "%s", h.out);
    program_forget(&h);
    return root;
}

/* A number by its path of keys, "ports.nic_out.max_bytes". */
static double at(const json_t *root, const char *path)
{
    char copy[128], *rest = copy, *key;
    snprintf(copy, sizeof copy, "%s", path);
    while ((key = strsep(&rest, ".")) != NULL) {
        root = json_object_get(root, key);
        cr_assert_not_null(root, "there is no %s", path);
    }
    return json_number_value(root);
}

#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-9 * fabs((double)(expected)), #value " is %.17g", (double)(value))

/* Experts in turn, one a token: device d's 32 tokens go to all 32 devices alike, so that every port is as full as every
 * other. 8192 bytes a token (BF16 of 4096). NICs: 24 of 32 leave the node; NVLink: 7. */
#define EVEN                                                                                                           \
    "--cluster 'node:4 gpu:8 nvlink:200e9 nic:50e9 flop:1e15 hbm:3e12 latency:1e-6:2e-6' "                             \
    "--model mixtral-8x7b:experts=32,top_k=1 --router round-robin --tokens 32 "

Test(cost, even_exchange_by_hand)
{
    json_t *r = price(EVEN);
    NEAR(at(r, "bytes_dispatch"), 32 * 31 * 8192.);
    NEAR(at(r, "bytes_combine"), 32 * 31 * 8192.);
    NEAR(at(r, "bytes_inter_node"), 2 * 32 * 24 * 8192.);
    NEAR(at(r, "bytes_intra_node"), 2 * 32 * 7 * 8192.);
    NEAR(at(r, "time_dispatch"), 24 * 8192 / 50e9 + 2e-6);
    NEAR(at(r, "time_combine"), 24 * 8192 / 50e9 + 2e-6);
    NEAR(at(r, "time_layer"),
         at(r, "time_gate") + at(r, "time_dispatch") + at(r, "time_compute") + at(r, "time_combine"));
    NEAR(at(r, "ports.nic_out.max_bytes"), 2 * 24 * 8192.);
    NEAR(at(r, "ports.nic_in.mean_bytes"), 2 * 24 * 8192.);
    NEAR(at(r, "ports.nvlink_out.max_bytes"), 2 * 7 * 8192.);
    NEAR(at(r, "device_imbalance"), 1);
    const json_t *bound = json_object_get(json_object_get(r, "bound"), "dispatch");
    cr_assert_str_eq(json_string_value(json_object_get(bound, "port")), "nic_out");
    NEAR(at(r, "bound.dispatch.physical_bytes_per_s"), 24 * 8192 / at(r, "time_dispatch"));
    NEAR(at(r, "bound.dispatch.logical_bytes_per_s"), 32 * 8192 / at(r, "time_dispatch"));
    json_decref(r);

    r = price(EVEN "--dispatch low-latency"); /* 16 bytes before each message */
    NEAR(at(r, "time_dispatch"), 24 * 8208 / 50e9 + 2e-6);
    NEAR(at(r, "time_combine"), 24 * 8192 / 50e9 + 2e-6);
    json_decref(r);

    r = price(EVEN "--dispatch all-gather"); /* 32 tokens of 3 nodes, of 7 neighbours for four nodes */
    NEAR(at(r, "time_dispatch"), fmax(3 * 32 * 8192 / 50e9 + 2e-6, 7 * 4 * 32 * 8192 / 200e9 + 1e-6));
    json_decref(r);

    r = price(EVEN "--chunks 4");
    NEAR(at(r, "time_dispatch"), 24 * 8192 / 50e9 + 4 * 2e-6);
    json_decref(r);

    r = price(EVEN "--ep 8"); /* a node has all experts, four of which each device holds */
    NEAR(at(r, "bytes_inter_node"), 0.);
    cr_assert_null(json_object_get(json_object_get(json_object_get(r, "bound"), "dispatch"), "leaf"));
    json_decref(r);
}

/* nccl-tests, issue 130: an even all-to-all that the NICs bind has algorithm bandwidth NIC n / (n - 1), here 4 / 3. */
Test(cost, algorithm_bandwidth)
{
    json_t *r = price("--cluster 'node:4 gpu:8 nvlink:900e9 nic:50e9 flop:1e15 hbm:3e12' --model "
                      "mixtral-8x7b:experts=32,top_k=1 --router round-robin --tokens 32");
    NEAR(at(r, "bound.dispatch.logical_bytes_per_s"), 50e9 * 4 / 3);
    NEAR(at(r, "bound.dispatch.physical_bytes_per_s"), 50e9);
    json_decref(r);
}

/* DeepEP's low-latency kernels on H100, 128 tokens a GPU (NVIDIA aiconfigurator): EP 16 102.1 and 186.2 us, EP 64 166.8
 * and 304.7 us. A preset gets the nodes that the EP group needs. */
Test(cost, published_low_latency)
{
    static const struct {
        uint32_t ep;
        double dispatch_us, combine_us;
    } rows[] = {{8, 39.8, 72.4}, {16, 102.1, 186.2}, {32, 143.0, 263.3}, {64, 166.8, 304.7}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char words[160];
        snprintf(words, sizeof words,
                 "--cluster h100-dgx --model deepseek-v3 --router random --tokens 128 --dispatch low-latency --ep %u",
                 rows[i].ep);
        json_t *r = price(words);
        cr_expect_eq(at(r, "settings.nodes"), rows[i].ep / 8);
        cr_expect_float_eq(1e6 * at(r, "time_dispatch"), rows[i].dispatch_us, 0.15 * rows[i].dispatch_us, "EP %u: %g",
                           rows[i].ep, 1e6 * at(r, "time_dispatch"));
        cr_expect_float_eq(1e6 * at(r, "time_combine"), rows[i].combine_us, 0.15 * rows[i].combine_us, "EP %u: %g",
                           rows[i].ep, 1e6 * at(r, "time_combine"));
        json_decref(r);
    }
}

/* The machine as the program spells it gives the same figures, and a text may be spelt in any order. */
Test(cost, machine_in_words)
{
    json_t *a = price(EVEN), *b;
    char words[512];
    snprintf(words, sizeof words,
             "--cluster '%s' --model mixtral-8x7b:experts=32,top_k=1 --router round-robin --tokens 32",
             json_string_value(json_object_get(json_object_get(a, "settings"), "cluster")));
    b = price(words);
    cr_assert(json_equal(a, b), "%s", words);
    json_decref(b);
    b = price("--cluster 'node:4 latency_inter_s:2e-6 latency:0.000001 hbm:3000e9 nic:50000000000 flop:1000e12 "
              "nvlink:2e11 gpu:8' --model mixtral-8x7b:experts=32,top_k=1 --router round-robin --tokens 32");
    cr_assert(json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

Test(cost, same_figures_on_any_threads)
{
    const char *words =
        "cost --json --cluster h100-dgx:nodes=2,leaf_nodes=1,leaf_oversubscription=2 --model deepseek-v3 "
        "--dispatch normal --placement eplb:redundant=16 --tokens 1024 --threads";
    struct heard one = program_run("%s 1", words), three = program_run("%s 3", words);
    cr_assert_eq(one.status, 0, "%s", one.err);
    cr_assert_str_eq(one.out, three.out);
    program_forget(&one);
    program_forget(&three);
}

/* Every model on every machine, as a table that a terminal of 80 columns shows. */
Test(cost, tables_fit)
{
    static const char *const words[] = {
        "--cluster laptop --model switch-base-128",
        "--cluster a100-dgx --model glam-64b --dispatch padded --padding capacity",
        "--cluster h100-dgx:nodes=2,leaf_nodes=1,leaf_oversubscription=3 --model qwen3-235b-a22b --dispatch normal",
        "--cluster h800:nodes=4 --model deepseek-v2 --backward --chunks 3",
        "--cluster gb200-nvl72 --model gpt-oss-120b:experts=144 --router softmax-topk:score=sigmoid,weight=sum",
    };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct heard h = program_run("cost %s --tokens 256", words[i]);
        cr_assert_eq(h.status, 0, "%s: %s", words[i], h.err);
        cr_expect(strstr(h.out, "dispatch") && strstr(h.out, "layer") && strstr(h.out, "modelled"), "%s", h.out);
        for (char *rest = h.out, *line; (line = strsep(&rest, "\n")) != NULL;)
            cr_expect_leq(strlen(line), 80, "%s: %s", words[i], line);
        program_forget(&h);
    }
}

/* ---- recorded routing ---- */

#define TWO_DEVICES "--cluster 'node:1 gpu:2 nvlink:1e9 flop:1e15 hbm:3e12' --model mixtral-8x7b:experts=4,top_k=1 "

/* 8192 bytes a token; tokens 0 and 1 live on device 0, 2 and 3 on device 1. Layer 1 sends all to experts 2, 3 of device
 * 1: two tokens cross. Layer 0 sends everyone to its own device but token 3. */
static const char decisions[] = "layer,token,choice,expert\n0,0,0,0\n0,1,0,1\n0,2,0,2\n0,3,0,1\n"
                                "1,0,0,2\n1,1,0,2\n1,2,0,3\n1,3,0,2\n";

Test(cost, recorded_decisions_by_hand)
{
    program_write("t.csv", decisions);
    json_t *r = price(TWO_DEVICES "--trace t.csv");
    NEAR(at(r, "bytes_dispatch"), 8192.);
    NEAR(at(r, "device_imbalance"), 1.5);
    NEAR(at(r, "settings.tokens_per_device"), 2.);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(r, "settings"), "router")), "replay");
    json_decref(r);
    r = price(TWO_DEVICES "--trace t.csv --layer 1");
    NEAR(at(r, "bytes_dispatch"), 2 * 8192.);
    NEAR(at(r, "time_dispatch"), 2 * 8192 / 1e9);
    NEAR(at(r, "device_imbalance"), 2.);
    json_decref(r);
    r = price(TWO_DEVICES "--trace t.csv --layer 1 --tokens 6"); /* three times over */
    NEAR(at(r, "device_imbalance"), 2.);
    NEAR(at(r, "bytes_dispatch"), 6 * 8192.);
    json_decref(r);
    struct heard h = program_run("cost " TWO_DEVICES "--trace t.csv --tokens 6");
    cr_expect(strstr(h.err, "the 4 tokens of t.csv are repeated to make 12"), "%s", h.err);
    program_forget(&h);
    r = price(TWO_DEVICES "--trace t.csv --layer 1 --placement lpt"); /* expert 2 alone with one that nobody takes */
    NEAR(at(r, "device_imbalance"), 1.5);
    json_decref(r);
}

/* The same decisions from any format cost the same. */
Test(cost, every_format_of_a_trace)
{
    static const char *const as[] = {"t.trace", "t.npy", "t.npz", "t.safetensors", "t.jsonl"};
    program_write("t.csv", decisions);
    json_t *expected = price(TWO_DEVICES "--trace t.csv --layer 1");
    for (size_t i = 0; i < sizeof as / sizeof *as; i++) {
        char words[512];
        struct heard h = program_run("trace convert t.csv %s --experts 4", as[i]);
        cr_assert_eq(h.status, 0, "%s: %s", as[i], h.err);
        program_forget(&h);
        snprintf(words, sizeof words, TWO_DEVICES "--trace %s --layer 1", as[i]);
        json_t *r = price(words);
        json_object_del(r, "settings");
        json_t *figures = json_deep_copy(expected);
        json_object_del(figures, "settings");
        cr_expect(json_equal(r, figures), "%s", as[i]);
        json_decref(figures);
        json_decref(r);
    }
    json_decref(expected);
}

/* Tokens drawn by loads of which three quarters are device 0's: 32768 choices, so that four standard deviations are
 * 1 %; the sampling itself is off by up to 1 % with so few experts. The first layer is a dense one. */
Test(cost, recorded_loads)
{
    program_write("l.json", "[[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1],"
                            "[3,3,3,3,3,3,3,3,1,1,1,1,1,1,1,1]]");
#define SIXTEEN "--cluster h100-dgx:devices_per_node=2 --model mixtral-8x7b:experts=16 --tokens 8192 --loads l.json "
    json_t *even = price(SIXTEEN), *skewed = price(SIXTEEN "--layer 1");
    cr_expect_float_eq(at(even, "device_imbalance"), 1, 0.02);
    cr_expect_float_eq(at(skewed, "device_imbalance"), 1.5, 0.03);
    json_decref(even);
    json_decref(skewed);
}

Test(cost, recordings_that_do_not_fit)
{
    program_write("t.csv", decisions);
    program_write("nan.csv", "layer,expert,count\n0,0,1\n0,1,nan\n");
    program_write("zero.json", "[[0,0,0,0]]");
    program_write("three.json", "[[1,2,3]]");
    program_write("text.txt", "nothing of the kind\n");
    static const struct {
        const char *words, *says;
        int status;
    } cases[] = {
        {"--loads nan.csv", "nan.csv:3", 4},
        {"--loads zero.json", "zero.json: no layer has any load", 4},
        {"--loads three.json", "the model has 4 experts, but the workload loads:file=three.json", 2},
        {"--loads three.json --layer 1", "three.json has 1 layer with a load", 2},
        {"--loads none.json", "none.json: cannot be read", 4},
        {"--loads text.txt", "text.txt", 4},
        {"--trace text.txt", "text.txt", 4},
        {"--trace three.json", "holds loads, not decisions", 2},
        {"--trace t.csv --layer 2", "t.csv has 2 layers", 2},
        {"--trace t.csv --router deepseek-v3", "needs gate columns, which the workload trace:file=t.csv", 2},
        {"--trace t.csv --model mixtral-8x7b:experts=2", "the model has 2 experts, but the workload", 2},
        {"--trace t.csv --loads three.json", "not both", 2},
        {"--layer 1", "--layer is for --loads and --trace", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard h = program_run("cost " TWO_DEVICES "%s", cases[i].words);
        cr_expect_eq(h.status, cases[i].status, "%s: %d %s", cases[i].words, h.status, h.err);
        cr_expect(strstr(h.err, cases[i].says), "%s: %s", cases[i].words, h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
    }
}

/* Four devices hold dense weights of 4 bytes of gradient each; experts have one copy. A ring takes 3/2 of the bytes in
 * six steps, a tree twice the bytes in four; overlapped, the backward arithmetic hides the sum as far as it goes. */
Test(cost, gradients)
{
#define TRAINED                                                                                                        \
    "--cluster 'node:1 gpu:4 nvlink:1e9 flop:1e15 hbm:3e12 latency:1e-3' --model mixtral-8x7b:dense_weights=1000000,"  \
    "gradient_bytes=4 --tokens 64 --backward "
    json_t *ring = price(TRAINED), *tree = price(TRAINED "--all-reduce tree"),
           *hidden = price(TRAINED "--sync overlapped");
    const double bytes = 4 * (1e6 + 4096 * 8);
    NEAR(at(ring, "time_sync"), 6e-3 + 1.5 * bytes / 1e9);
    NEAR(at(tree, "time_sync"), 4e-3 + 2 * bytes / 1e9);
    cr_expect(at(hidden, "time_sync") < at(ring, "time_sync") && at(hidden, "time_sync") >= 0);
    json_decref(ring);
    json_decref(tree);
    json_decref(hidden);
}

static const struct {
    const char *words, *says;
} refused[] = {
    {"--cluster h100-dgx --model mixtral-8x7b --sync overlapped", "--sync and --all-reduce are for --backward"},
    {"--model mixtral-8x7b", "--cluster SPEC is missing"},
    {"--cluster h100-dgx", "--model SPEC is missing"},
    {"--cluster h100 --model mixtral-8x7b", "unknown cluster 'h100'; did you mean 'h100-dgx'?"},
    {"--cluster h100-dgx --model mixtral-8x7c", "unknown model 'mixtral-8x7c'; did you mean 'mixtral-8x7b'?"},
    {"--cluster h100-dgx --model mixtral-8x7b --ep 3", "ep 3 does not divide its 8 devices"},
    {"--cluster 'node:4 gpu:8 nvlink:2e11 nic:5e10' --model mixtral-8x7b", "flop_per_s above 0 (flop: in"},
    {"--cluster 'node:4 gpu:8 nvlink:2e11 flop:1e15 hbm:3e12' --model mixtral-8x7b",
     "nic_bytes_per_s above 0 (nic: in"},
    {"--cluster 'node:4 gpu:8 nvlnk:2e11' --model mixtral-8x7b", "unknown word 'nvlnk'"},
    {"--cluster 'node:4 gpu:8 nic:0' --model mixtral-8x7b", "nic_bytes_per_s = 0 is outside"},
    {"--cluster h100-dgx:nic_bytes_per_s=-1 --model mixtral-8x7b", "nic_bytes_per_s = -1 is outside"},
    {"--cluster h100-dgx --model mixtral-8x7b --router soft", "router soft needs hidden states"},
    {"--cluster h100-dgx --model mixtral-8x7b --dispatch norml", "did you mean 'normal'?"},
    {"--cluster h100-dgx --model deepseek-v3 --placement eplb:redundant=3", "259 slots"},
    {"--cluster h100-dgx --model mixtral-8x7b --placement lptt", "unknown placement 'lptt'; did you mean 'lpt'?"},
    {"--cluster h100-dgx --model mixtral-8x7b --tokens 0", "--tokens '0' is not"},
};

Test(cost, refusals)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct heard h = program_run("cost %s", refused[i].words);
        cr_expect_eq(h.status, 2, "%s: %d", refused[i].words, h.status);
        cr_expect(strstr(h.err, refused[i].says), "%s: %s", refused[i].words, h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
    }
}

/* A router out of tree runs in a process of its own. */
Test(cost, router_out_of_tree)
{
    struct heard h =
        program_run("cost --json --cluster h100-dgx --model mixtral-8x7b --tokens 64 --router {P}/good.so");
    cr_expect_eq(h.status, 0, "%s", h.err);
    json_t *root = json_loads(h.out, 0, NULL);
    cr_assert_not_null(root, "%s", h.out);
    cr_expect_gt(at(root, "time_layer"), 0);
    json_decref(root);
    program_forget(&h);
}
