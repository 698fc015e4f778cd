/*
 * Everything that can be wrong with a study, by place and sentence, and all of it at once.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/sim/study/fakes.h"

TestSuite(mistakes, .timeout = 60);

static void expect(const char *text, const char *mistakes)
{
    struct resolved *r = resolve_text(text);
    cr_expect(!r->ok, "%s", text);
    cr_expect_str_eq(mistakes_text(&r->mistakes), mistakes, "%s\ngives\n%s", text, mistakes_text(&r->mistakes));
    release(r);
}

Test(mistakes, twenty_at_once)
{
    expect("study: bad name\n"
           "mode: rout\n"
           "stepz: 3\n"
           "seeds: 64abc\n"
           "workload: [gausian, {name: logits, file: missing.npy}]\n"
           "model: {experts: 8, top_kk: 2}\n"
           "router:\n"
           "  - swich\n"
           "  - {name: switch, capacity_factor: 1e999}\n"
           "  - {name: softmax-topk, k: 9}\n"
           "  - {name: switch, renorm: maybe}\n"
           "  - {name: switch, k: -2}\n"
           "cluster: {name: h100-dgx, ep: 3}\n"
           "placement: contigous\n"
           "padding: none\n"
           "padding: tile\n"
           "record: [expert_load, load_vc]\n"
           "exclude: [{router.kk: 3}]\n"
           "steps: 0x40\n"
           "micro_batches: [1, 2, 064]\n",
           "1:8: study = 'bad name': a name has 1 to 64 letters, digits, '_', '.' or '-'\n"
           "2:7: mode = 'rout' is none of route|execute|train; did you mean 'route'?\n"
           "3:1: unknown key 'stepz'; did you mean 'steps'?\n"
           "4:8: seeds = '64abc' is not a whole number\n"
           "5:12: unknown workload 'gausian'; did you mean 'gaussian'?\n"
           "5:42: workload logits: missing.npy cannot be opened: No such file or directory\n"
           "6:21: unknown key 'top_kk' of model; did you mean 'top_k'?\n"
           "8:5: unknown router 'swich'; did you mean 'switch'?\n"
           "9:37: router.capacity_factor = 1e999 is outside 0..65536\n"
           "10:29: router softmax-topk:k=9: k = 9 exceeds the 8 experts\n"
           "11:28: router.renorm = 'maybe' is not true or false\n"
           "12:23: router.k = -2 is outside 1..65536\n"
           "13:31: cluster h100-dgx: ep 3 does not divide its 8 devices\n"
           "14:12: unknown placement 'contigous'; did you mean 'contiguous'?\n"
           "16:1: 'padding' is given twice; the first is on line 15\n"
           "17:23: record: unknown metric 'load_vc'; did you mean 'load_cv'?\n"
           "18:12: exclude: no point has 'router.kk'; did you mean 'k'?\n"
           "19:8: steps = '0x40' is not a whole number\n"
           "20:23: micro_batches = '064' begins with 0, which some read as octal; write it without\n");
}

#define BASE "workload: gaussian\nrouter: switch\n"

Test(mistakes, top_of_the_file)
{
    expect("steps: 3\n", "1:1: the study lacks 'workload'\n1:1: the study lacks 'router'\n");
    expect("- a\n", "1:1: a study is a mapping of keys such as 'workload:' and 'router:'\n");
    expect("hello", "1:1: a study is a mapping of keys such as 'workload:' and 'router:'\n");
    expect(BASE "study: [a]\n", "3:8: study must be one name\n");
    expect(BASE "mode: {a: b}\n", "3:7: mode must be a value or a list of values\n");
    expect(BASE "steps: []\n", "3:8: steps is an empty list\n");
    expect(BASE "steps: [1, [2]]\n", "3:12: steps: a list holds values only\n");
    expect(BASE "steps: 0\n", "3:8: steps = 0 is outside 1..10000000\n");
    expect(BASE "steps: 5\nwarm_up: 5\n", "4:10: warm_up = 5 leaves none of the 5 steps to be counted\n");
    expect(BASE "phase: eval\nbackward: true\n", "4:11: backward = true belongs to phase train, not eval\n");
    expect(BASE "seeds: {a: 1}\n", "3:8: seeds must be a number of seeds or a list of them\n");
    expect(BASE "seeds: []\n", "3:8: seeds must be a number of seeds or a list of them\n");
    expect(BASE "seeds: [1, x, 1]\n",
           "3:8: seeds: 1 stands in the list twice\n3:12: seed = 'x' is not a whole number\n");
    expect(BASE "seeds: 0\n", "3:8: seeds = 0 is outside 1..100000\n");
    expect(BASE "seeds: 2000\nsteps: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\nmode: [route, execute]\nphase: [train, eval]\n"
                "padding: [none, tile]\n",
           "1:1: the lists multiply to 160000 points; at most 100000 are allowed\n");
    expect(BASE "placement: random\n", "3:1: placement has no use without a cluster\n");
    expect(BASE "oversize: refuse\n", "3:1: oversize has no use without a cluster\n");
    expect(BASE "sync: overlapped\nall_reduce: tree\n", "3:1: sync has no use without backward: true\n"
                                                        "4:1: all_reduce has no use without backward: true\n");
    expect(BASE "model: mixtral-8x7b\ncluster: h100-dgx\noversize: refuse\nbackward: [false, true]\n",
           "4:10: cluster h100-dgx: the fullest device needs at least 117 GB for its part of the model, but has 80 GB; "
           "take more devices or a smaller model, or leave out oversize = refuse\n");
    expect(BASE "dispatch: normal\nchunks: 2\n",
           "3:1: dispatch has no use without a cluster\n4:1: chunks has no use without a cluster\n");
    expect(BASE "cluster: h100-dgx\ndispatch: norml\nchunks: 0\n",
           "4:11: dispatch = 'norml' is none of flat|normal|low-latency|all-gather|padded; did you mean 'normal'?\n"
           "5:9: chunks = 0 is outside 1..64\n");
    expect(BASE "cluster: node:4 gpu:8 nvlink:200e9 nic:-5 flop:1e15 hbm:1e12\n",
           "3:10: cluster: 'nic' in a cluster text: nic_bytes_per_s = -5 is outside 1..1e+18\n");
    expect(BASE "cluster: {name: node:4 gpu:8 nvlink:200e9 flop:1e15 hbm:1e12, nic_bytes_per_s: 0}\n",
           "3:80: cluster.nic_bytes_per_s = 0 is outside 1..1e+18\n");
    expect("workload: gaussian\nrouter:\n", "2:8: router has no value\n");
}

Test(mistakes, components)
{
    expect("workload: gaussian\nrouter: []\n", "2:9: router is an empty list\n");
    expect("workload: gaussian\nrouter: [[switch]]\n", "2:10: router: a list inside a list\n");
    expect("workload: gaussian\nrouter: {k: 1}\n", "2:9: router: this mapping lacks 'name'\n");
    expect("workload: gaussian\nrouter: {name: switch, k: {a: 1}}\n",
           "2:27: router.k is a mapping; write a value or a list of values\n");
    expect("workload: gaussian\nrouter: {name: switch, k: []}\n", "2:27: router.k is an empty list\n");
    expect("workload: gaussian\nrouter: {name: switch, k: [1, [2]]}\n",
           "2:31: router.k: a list of values holds another list or mapping\n");
    expect("workload: gaussian\nrouter: {name: [switch, swich]}\n",
           "2:25: unknown router 'swich'; did you mean 'switch'?\n");
    expect("workload: gaussian\nrouter: switch:k\n",
           "2:9: router: 'k' after the name in 'switch:k' is not key=value; write name:key=value,key=value\n");
    expect("workload: gaussian\nrouter: {name: 'switch:k=1', k: 2}\n", "2:33: router: 'k' is given twice\n");
    expect("workload: gaussian\nrouter: [switch:k=1,jitter=0]\n",
           "2:21: unknown router 'jitter=0'; a SPEC with commas inside a list needs quotes\n");
    expect("workload: gaussian\nrouter: {name: null, k: 1}\n", "2:22: unknown key 'k' of router null\n");
    expect("workload: {name: gaussian, tokens: 0, token: 3}\nrouter: switch\n",
           "1:36: workload.tokens = 0 is outside 1..67108864\n"
           "1:39: unknown key 'token' of workload gaussian; did you mean 'tokens'?\n");
    expect(BASE "model: {name: olmoe, layers: 0}\n", "3:15: unknown model 'olmoe'; did you mean 'olmoe-1b-7b'?\n");
    expect(BASE "model: {experts: 00}\n",
           "3:18: model.experts = '00' begins with 0, which some read as octal; write it without\n");
    expect(BASE "model: {experts: 0, layers: 0}\n",
           "3:18: model.experts = 0: it must be at least 1\n3:29: model.layers = 0: it must be at least 1\n");
    expect(BASE "model: {activation: sigmoid}\n", "3:21: model.activation = 'sigmoid' is none of gelu|relu|swiglu\n");
    expect(BASE "cluster: h100\n", "3:10: unknown cluster 'h100'; did you mean 'h100-dgx'?\n");
    expect(BASE "cluster: {name: h100-dgx, node: 2}\n",
           "3:27: unknown key 'node' of cluster h100-dgx; did you mean 'nodes'?\n");
}

Test(mistakes, what_does_not_go_together)
{
    expect("workload: gaussian\nrouter: {name: switch, jitter: 0.1}\n",
           "2:32: router.jitter acts on the gate's input, but the workload gaussian brings the gate's output\n");
    expect("workload: [gaussian, text]\nrouter: hash\n",
           "2:9: router hash needs token ids, which the workload gaussian does not have\n");
    expect("workload: gaussian\nrouter: {name: switch, group: sequence}\n",
           "2:31: router switch:group=sequence needs sequence ids, which the workload gaussian does not have\n");
    expect("workload: trace\nrouter: switch\n",
           "2:9: router switch needs gate columns, which the workload trace does not have\n");
    expect("workload: gaussian\nrouter: ./mine.so\n",
           "2:9: router ./mine.so needs hidden states, which the workload gaussian does not have\n");
    expect(BASE "model: {experts: 4, top_k: 5}\n",
           "2:9: router switch: k = 5 exceeds the 4 experts\n3:28: model.top_k = 5 exceeds the 4 experts\n");
    expect(BASE "record: traffic\n", "3:9: record: there is no traffic without a cluster\n");
    expect(BASE "record: load_cv\nmetrics: [max_vio]\n", "3:9: record: 'load_cv' is left out by metrics\n");
    expect(BASE "metrics: []\n", "3:10: metrics is an empty list\n");
    expect(BASE "metrics: {load_cv: 1}\n", "3:10: metrics must be a list of names\n");
    expect(BASE "record: [[load_cv]]\n", "3:10: record must be a list of names\n");
}

#define EIGHT "workload: {name: logits, file: eight.npy}\n"

Test(mistakes, what_a_file_fixes)
{
    expect(EIGHT "router: switch\nmodel: {experts: 16}\n",
           "3:18: the model has 16 experts, but the workload logits:file=eight.npy has 8\n");
    expect(EIGHT "router: switch\nmodel: olmoe-1b-7b\n",
           "3:8: the model has 64 experts, but the workload logits:file=eight.npy has 8\n");
    expect(EIGHT "router: switch\nmodel: {layers: 3}\n",
           "3:17: model.layers = 3, but the workload logits:file=eight.npy has 2\n");
    expect(EIGHT "router: wide\n", "2:9: router wide needs 16 gate columns for 8 experts, but the workload "
                                   "logits:file=eight.npy has 8\n");
    expect("workload: trace\nrouter: null\nmodel: {experts: 8, d_model: 64}\n",
           "3:18: the model has 8 experts, but the workload trace has 16\n"
           "3:30: the model has d_model 64, but the workload trace has 48\n");
    /* These go together: columns beyond the experts are there to be used, the noisy router's second half may be
     * missing. */
    static const char *const fine[] = {
        EIGHT "router: switch\n",
        EIGHT "router: wide\nmodel: {experts: 4}\n",
        EIGHT "router: noisy-topk\n",
        EIGHT "router: switch\nmodel: {name: mixtral-8x7b}\n", /* 32 layers: the file's two count */
        "workload: text\nrouter: [{name: switch, jitter: 0.1}, hash, ./mine.so, {name: switch, group: sequence}]\n",
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        struct resolved *r = resolve_text(fine[i]);
        cr_expect(r->ok, "%s gives %s", fine[i], mistakes_text(&r->mistakes));
        release(r);
    }
}

Test(mistakes, files_are_counted)
{
    struct resolved *r = resolve_text("workload: {name: logits, file: none.npy}\nrouter: switch\n");
    cr_assert(!r->ok && r->mistakes.n == 1 && r->mistakes.n_files == 1);
    release(r);
    r = resolve_text("workload: gaussian\nrouter: swich\n");
    cr_assert(!r->ok && r->mistakes.n == 1 && r->mistakes.n_files == 0);
    release(r);
}

Test(mistakes, exclude)
{
    expect(BASE "exclude: {seed: 1}\n",
           "3:10: exclude must be a list of mappings such as {router.name: switch, model.top_k: 2}\n");
    expect(BASE "exclude: [seed]\n",
           "3:11: exclude: a rule is a mapping such as {router.name: switch, model.top_k: 2}\n");
    expect(BASE "exclude: [{sed: 1}]\n", "3:12: exclude: no point has 'sed'; did you mean 'seed'?\n");
    expect(BASE "exclude: [{seed: {a: 1}}]\n", "3:18: exclude: seed takes a value or a list of values\n");
    expect(BASE "exclude: [{router: switch}]\n", "1:1: exclude leaves no point\n");
}

/* Many wrong values in a product of axes are each told once. */
Test(mistakes, each_once)
{
    expect("workload: [gaussian, zipf, lognormal]\nrouter: [{name: switch, k: 99}, softmax-topk]\n"
           "model: {experts: 8}\nseeds: 20\nsteps: [1, 2, 3]\n",
           "2:28: router switch:k=99: k = 99 exceeds the 8 experts\n");
}
