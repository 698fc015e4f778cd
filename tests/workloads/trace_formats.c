/*
 * Every format of recorded routing: small files written by hand as its writers write them, and a recording that goes
 * through all formats and back.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <moesim/plan.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"
#include "workloads/trace/export.h"

TestSuite(trace_formats, .timeout = 60, .init = folder_create, .fini = folder_remove);

static const char *write_text(const char *name, const char *text)
{
    return folder_write(name, text, strlen(text));
}

/* ---- logs ---- */

/* What a log should come to: experts of all tokens and layers, "3 1|7 1/2 0|5 4": tokens by /, layers by |. */
struct log_case {
    const char *name, *text, *decisions;
    bool weighted, sequences, tokens;
    uint32_t n_experts;
};

static void expect_decisions(struct trace *trace, const struct log_case *c)
{
    const struct trace_shape *s = trace_shape(trace);
    struct moesim_error err = {""};
    char got[512] = "";
    size_t n = 0;
    uint32_t first[2], expert[16];
    struct trace_pairs pairs = {.first = first, .expert = expert};
    for (uint64_t t = 0; t < s->n_tokens; t++)
        for (uint32_t l = 0; l < s->n_layers; l++) {
            cr_assert_eq(trace_read_pairs(trace, l, t, 1, &pairs, &err), MOESIM_OK, "%s: %s", c->name, err.text);
            n += (size_t)snprintf(got + n, sizeof got - n, "%s", l ? "|" : t ? "/" : "");
            for (uint32_t i = 0; i < first[1]; i++)
                n += (size_t)snprintf(got + n, sizeof got - n, "%s%u", i ? " " : "", expert[i]);
        }
    cr_assert_str_eq(got, c->decisions, "%s: %s", c->name, got);
}

Test(trace_formats, reads_the_logs_of_many_programs)
{
    static const struct log_case cases[] = {
        {"vllm.jsonl", /* a logger built on vLLM */
         "{\"type\":\"meta\",\"model_id\":\"m\",\"layers_logged\":[0,2],\"top_k\":2}\n"
         "{\"type\":\"route\",\"req_id\":\"a\",\"token_idx\":0,\"layer\":0,\"topk_ids\":[3,1],\"topk_weights\":[0.5,0."
         "25]}\n"
         "{\"type\":\"route\",\"req_id\":\"a\",\"token_idx\":0,\"layer\":2,\"topk_ids\":[7,1],\"topk_weights\":[0.5,0."
         "25]}\n"
         "{\"type\":\"route\",\"req_id\":\"b\",\"token_idx\":0,\"layer\":0,\"topk_ids\":[2,0],\"topk_weights\":[1,0]}\n"
         "{\"type\":\"route\",\"req_id\":\"b\",\"token_idx\":0,\"layer\":2,\"topk_ids\":[5,4],\"topk_weights\":[1,0]}"
         "\n",
         "3 1|7 1/2 0|5 4", true, true, false, 8},
        {"cache_lab.jsonl", /* moe-cache-lab.routing-jsonl, Switch's overflow included */
         "{\"record_type\":\"metadata\",\"format\":\"moe-cache-lab.routing-jsonl\",\"format_version\":2,\"num_"
         "experts\":16,"
         "\"experts_per_token\":1}\n"
         "{\"record_type\":\"routing_selection\",\"routing_stage\":\"decoder\",\"phase\":\"prompt\",\"token_position\":"
         "0,"
         "\"token_id\":9,\"layer\":1,\"selected_experts\":[3],\"selected_probabilities\":[0.5],\"assignment_state\":"
         "\"assigned\"}\n"
         "{\"record_type\":\"routing_selection\",\"routing_stage\":\"decoder\",\"phase\":\"prompt\",\"token_position\":"
         "1,"
         "\"token_id\":8,\"layer\":1,\"selected_experts\":[],\"selected_probabilities\":[],\"assignment_state\":"
         "\"unassigned\",\"unassigned_reason\":\"capacity\"}\n",
         "3/", true, false, true, 16},
        {"speculative.jsonl",
         "{\"dataset\":\"d\",\"problem_id\":4,\"layer\":0,\"token_idx\":0,\"experts\":[1,0],\"gating_probs\":[0.5,0.5]}"
         "\n",
         "1 0", true, true, false, 2},
        {"balance.jsonl", /* johanna-rock/moe-balance: a layer of a batch a line */
         "{\"layer\":0,\"batch_id\":12,\"origin_rows\":[0,1],\"topk_experts\":[[1,2],[3,0]]}\n"
         "{\"layer\":1,\"batch_id\":12,\"origin_rows\":[0,1],\"topk_experts\":[[2,1],[0,3]]}\n",
         "1 2|2 1/3 0|0 3", false, true, false, 4},
        {"megatron.jsonl", /* Megatron-LM's RouterTracer; MTP layers are passed over, -1 is no expert */
         "{\"step\":0,\"stage\":\"pre_dispatch\",\"block\":\"decoder\",\"layer\":3,\"rank\":0,\"num_tokens\":2,"
         "\"topk\":2,"
         "\"top_indices\":[[12,5],[3,-1]]}\n"
         "{\"step\":0,\"stage\":\"pre_dispatch\",\"block\":\"mtp\",\"layer\":0,\"mtp_idx\":0,\"rank\":0,\"num_tokens\":"
         "1,"
         "\"topk\":2,\"top_indices\":[[1,2]]}\n",
         "12 5/3", false, true, false, 13},
        {"fingerprint.json", /* gpt-oss fingerprints, one document */
         "{\"prompt\":\"p\",\"router_data\":[{\"token_0\":{\"layer_0\":{\"selected_experts\":[1,2],\"selected_probs\":["
         "0.5,"
         "0.5]},\"layer_1\":{\"selected_experts\":[3,0],\"selected_probs\":[0.75,0.25]}}},{\"token_1\":{\"layer_0\":{"
         "\"selected_experts\":[0,2],\"selected_probs\":[0.5,0.5]},\"layer_1\":{\"selected_experts\":[2,1],"
         "\"selected_probs\":[0.5,0.5]}}}]}",
         "1 2|3 0/0 2|2 1", true, false, false, 4},
        {"response.json", /* vLLM's answer: [tokens, layers, k] for prompt and output */
         "{\"id\":\"x\",\"prompt_routed_experts\":[[[1,2],[0,3]]],\"choices\":[{\"index\":0,\"routed_experts\":[[[2,1],"
         "[3,"
         "1]]]}]}",
         "1 2|0 3/2 1|3 1", false, true, false, 4},
        {"nested.json", "[[[1,2],[0,3]],[[2,1],[3,1]]]", "1 2|0 3/2 1|3 1", false, true, false, 4},
        {"by_layer.json", "{\"topk_ids_of_layer\":[[[1,-1],[2,0]],[[3,1],[-1,-1]]]}", "1|3 1/2 0|", false, false, false,
         4},
        {"llama.csv", "layer_id,expert_ids\n0,1 2\n1,\"0 3\"\n0,2 1\n1,3 1\n", "1 2|0 3/2 1|3 1", false, false, false,
         4},
        {"aliases.csv", /* with a byte order mark and CRLF */
         "\xef\xbb\xbfrequest_id, token_position ,layer_idx,topk_ids,weights\r\nr,0,0,1;2,0.5;0.5\r\nr,1,0,\"3, 0\","
         "\"0.75, 0.25\"\r\n",
         "1 2/3 0", true, true, false, 4},
        {"route.csv", /* `moesim route`: token 1 got nobody, a pair was refused */
         "layer,token,choice,expert,weight,kept,slot\n0,0,0,1,0.5,1,0\n0,0,1,2,0,0,-1\n0,2,0,1,0.25,1,1\n", "1 2//1",
         true, false, false, 3},
        {"route.jsonl",
         "{\"layer\":0,\"token\":0,\"choice\":0,\"expert\":1,\"weight\":0.5,\"kept\":1,\"slot\":0}\n"
         "{\"layer\":0,\"token\":1,\"choice\":0,\"expert\":0,\"weight\":0.5,\"kept\":1,\"slot\":0}\n",
         "1/0", true, false, false, 2},
        {"ids.json",
         "[{\"layer\":0,\"token_id\":0,\"expert_ids\":\"3 17 5\"},{\"layer\":0,\"token_id\":1,\"expert_ids\":\"0\"}]",
         "3 17 5/0", false, false, false, 18},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct log_case *c = &cases[i];
        struct trace *trace = recording_open(write_text(c->name, c->text), (struct trace_options){.kind = TRACE_ANY});
        const struct trace_shape *s = trace_shape(trace);
        cr_assert_eq(s->has_weights, c->weighted, "%s", c->name);
        cr_assert_eq(s->has_label[TRACE_SEQUENCE], c->sequences, "%s", c->name);
        cr_assert_eq(s->has_label[TRACE_TOKEN_ID], c->tokens, "%s", c->name);
        cr_assert_eq(s->n_experts, c->n_experts, "%s: %u experts", c->name, s->n_experts);
        expect_decisions(trace, c);
        trace_close(trace);
    }
}

Test(trace_formats, logs_keep_weights_layers_sequences_and_refusals)
{
    const char *log = "{\"req_id\":\"a\",\"token_idx\":0,\"layer\":7,\"experts\":[3,1],\"gating_probs\":[0.5,0.1]}\n"
                      "{\"req_id\":\"b\",\"token_idx\":0,\"layer\":7,\"experts\":[0,2],\"gating_probs\":[0.75,1e-3]}\n"
                      "{\"req_id\":\"a\",\"token_idx\":1,\"layer\":7,\"experts\":[1,2],\"gating_probs\":[1,0]}\n";
    struct trace *trace = recording_open(write_text("a.jsonl", log), (struct trace_options){.kind = TRACE_ANY});
    struct moesim_error err = {""};
    uint32_t first[4], expert[8], sequence[3];
    float weight[8];
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weight};
    cr_assert_eq(trace_layer_id(trace, 0), 7);
    cr_assert_eq(trace_read_pairs(trace, 0, 0, 3, &pairs, &err), MOESIM_OK);
    cr_assert(weight[0] == 0.5f && weight[1] == 0.1f && weight[3] == 1e-3f && weight[5] == 0);
    cr_assert_eq(trace_read_labels(trace, TRACE_SEQUENCE, 0, 3, sequence, &err), MOESIM_OK);
    cr_assert(sequence[0] == 0 && sequence[1] == 1 && sequence[2] == 0);
    trace_close(trace);

    const char *route = "layer,token,choice,expert,weight,kept,slot\n0,0,0,1,0.5,1,7\n0,0,1,2,0,0,-1\n";
    uint8_t fate[4];
    int32_t slot[4];
    pairs.fate = fate;
    pairs.slot = slot;
    trace = recording_open(write_text("a.csv", route), (struct trace_options){.kind = TRACE_ANY});
    cr_assert(trace_shape(trace)->has_fates && trace_shape(trace)->has_slots);
    cr_assert_eq(trace_read_pairs(trace, 0, 0, 1, &pairs, &err), MOESIM_OK);
    cr_assert(fate[0] == MOESIM_KEPT && slot[0] == 7 && fate[1] == MOESIM_OVER_CAPACITY && slot[1] == -1);
    trace_close(trace);
}

/* ---- loads ---- */

static void expect_load(struct trace *trace, uint32_t layer, const double *wanted)
{
    struct moesim_error err = {""};
    double load[16];
    cr_assert_eq(trace_total_load(trace, layer, load, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t e = 0; e < trace_shape(trace)->n_experts; e++)
        cr_assert_eq(load[e], wanted[e], "layer %u expert %u: %g", layer, e, load[e]);
}

Test(trace_formats, reads_loads)
{
    static const struct {
        const char *name, *text;
        uint32_t n_steps, n_layers;
        double load[2][4]; /* of the first and the last layer, summed over steps */
    } cases[] = {
        {"one.json",
         "{\"rank\":0,\"logical_count\":[[1,2,3,4],[5,6,7,8]],\"x\":null}",
         1,
         2,
         {{1, 2, 3, 4}, {5, 6, 7, 8}}},
        {"steps.json", "{\"logical_count\":[[[1,2,3,4]],[[10,20,30,40]]]}", 2, 1, {{11, 22, 33, 44}, {11, 22, 33, 44}}},
        {"flat.json", "[1,2,3,4.5]", 1, 1, {{1, 2, 3, 4.5}, {1, 2, 3, 4.5}}},
        {"slots.json",
         "{\"physical_to_logical_map\":[[3,1,1,2,0]],\"global_physical_count\":[[4,1,2,9,7]]}",
         1,
         1,
         {{7, 3, 9, 4}, {7, 3, 9, 4}}},
        {"plan.json", "{\"physical_to_logical_map\":[[3,1,1,2,0]]}", 1, 1, {{1, 2, 1, 1}, {1, 2, 1, 1}}},
        {"counts.csv", "layer,expert,count\n0,1,5\n0,3,1e3\n2,0,1\n0,1,2\n", 1, 2, {{0, 7, 0, 1000}, {1, 0, 0, 0}}},
        {"activations.csv", "layer,expert\n0,3\n0,1\n0,3\n", 1, 1, {{0, 1, 0, 2}, {0, 1, 0, 2}}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct trace *trace =
            recording_open(write_text(cases[i].name, cases[i].text), (struct trace_options){.kind = TRACE_LOADS});
        const struct trace_shape *s = trace_shape(trace);
        cr_assert(s->n_steps == cases[i].n_steps && s->n_layers == cases[i].n_layers && s->n_experts == 4,
                  "%s: %u %u %u", cases[i].name, s->n_steps, s->n_layers, s->n_experts);
        expect_load(trace, 0, cases[i].load[0]);
        expect_load(trace, s->n_layers - 1, cases[i].load[1]);
        cr_assert_eq(*trace_note(trace) != '\0', i == 4, "a placement is told apart");
        trace_close(trace);
    }
}

Test(trace_formats, reads_arrays_by_type_and_dimensions)
{
    static const struct {
        const char *descr, *shape;
        size_t n; /* bytes */
        uint32_t asked, kind, n_layers, n_experts;
        uint64_t n_tokens;
    } cases[] = {
        {"<i4", "(2, 3, 2)", 48, TRACE_ANY, TRACE_DECISIONS, 3, 2, 2},
        {"<i4", "(2, 3, 2)", 48, TRACE_LOADS, TRACE_LOADS, 3, 2, 0},
        {"<i8", "(3, 2)", 48, TRACE_ANY, TRACE_LOADS, 3, 2, 0},
        {"<i8", "(3, 2)", 48, TRACE_DECISIONS, TRACE_DECISIONS, 1, 2, 3},
        {"<f4", "(4, 3)", 48, TRACE_ANY, TRACE_LOGITS, 1, 3, 4},
        {"<f4", "(2, 2, 3)", 48, TRACE_ANY, TRACE_LOGITS, 2, 3, 2},
        {"<f4", "(4, 3)", 48, TRACE_LOADS, TRACE_LOADS, 4, 3, 0},
        {"<f4", "(12,)", 48, TRACE_ANY, TRACE_LOADS, 1, 12, 0},
        {"<f2", "(1, 8, 3)", 48, TRACE_ANY, TRACE_LOGITS, 1, 3, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[512], data[64] = {0};
        data[0] = cases[i].descr[1] == 'i'; /* an id that is not 0 */
        const size_t n = compose_npy(bytes, cases[i].descr, cases[i].shape, data, cases[i].n);
        struct trace *trace =
            recording_open(folder_write("a.npy", bytes, n), (struct trace_options){.kind = cases[i].asked});
        const struct trace_shape *s = trace_shape(trace);
        cr_assert_eq(s->kind, cases[i].kind, "case %zu: %s", i, trace_kind_name(s->kind));
        cr_assert(s->n_layers == cases[i].n_layers && s->n_experts == cases[i].n_experts &&
                      s->n_tokens == cases[i].n_tokens,
                  "case %zu: %u %u %llu", i, s->n_layers, s->n_experts, (unsigned long long)s->n_tokens);
        trace_close(trace);
    }
}

/* [2 tokens][2 layers][2] of int64, -1 = no expert; bfloat16 1.0 is 0x3f80. */
Test(trace_formats, reads_safetensors)
{
    uint8_t bytes[1024], data[128];
    const int64_t ids[] = {3, 1, -1, 2, 0, -1, 5, 4};
    const uint16_t weights[] = {0x3f80, 0x3f00, 0x7fc0, 0x3f80, 0x4000, 0x3f80, 0x3f80, 0x3e80};
    memcpy(data, ids, sizeof ids);
    memcpy(data + sizeof ids, weights, sizeof weights);
    const size_t n =
        compose_safetensors(bytes,
                            "{\"__metadata__\":{\"a\":\"b\"},\"topk_weights\":{\"dtype\":\"BF16\",\"shape\":[2,2,2],"
                            "\"data_offsets\":[64,80]},"
                            "\"topk_ids\":{\"dtype\":\"I64\",\"shape\":[2,2,2],\"data_offsets\":[0,64]}}  ",
                            data, sizeof ids + sizeof weights);
    struct trace *trace =
        recording_open(folder_write("a.safetensors", bytes, n), (struct trace_options){.kind = TRACE_ANY});
    struct moesim_error err = {""};
    uint32_t first[3], expert[4];
    float weight[4];
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weight};
    cr_assert_eq(trace_shape(trace)->n_experts, 6);
    cr_assert_eq(trace_read_pairs(trace, 0, 0, 2, &pairs, &err), MOESIM_OK, "%s", err.text);
    cr_assert(first[1] == 2 && first[2] == 3 && expert[0] == 3 && expert[1] == 1 && expert[2] == 0);
    cr_assert(weight[0] == 1 && weight[1] == 0.5f && weight[2] == 2);
    cr_assert_eq(trace_read_pairs(trace, 1, 0, 1, &pairs, &err), MOESIM_EIO, "a weight that is no number");
    cr_assert(strstr(err.text, "token 0, layer 1, choice 0"), "%s", err.text);
    trace_close(trace);
}

/* Two ranks, two iterations; the layer is the second number. */
Test(trace_formats, sums_the_ranks_of_tensorrt_llm)
{
    uint8_t bytes[1024];
    const int32_t counts[] = {1, 2, 3, 10, 20, 30};
    char path[512];
    cr_assert_eq(mkdir(folder_path("trt"), 0777), 0);
    write_text("trt/meta_info.json", "{\"num_experts\": 3, \"num_experts_per_token\": 2}");
    const char *header = "{\"0_4\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[0,12]},"
                         "\"1_4\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[12,24]}}";
    const size_t n = compose_safetensors(bytes, header, counts, sizeof counts);
    folder_write("trt/rank1.safetensors", bytes, n);
    snprintf(path, sizeof path, "%s", folder_write("trt/rank0.safetensors", bytes, n));
    struct trace *trace = recording_open(folder_path("trt"), (struct trace_options){.kind = TRACE_ANY});
    cr_assert_eq(trace_layer_id(trace, 0), 4);
    expect_load(trace, 0, (const double[]){22, 44, 66});
    trace_close(trace);
    trace = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
    expect_load(trace, 0, (const double[]){11, 22, 33});
    trace_close(trace);
    struct moesim_error err = {""};
    cr_assert_eq(remove(folder_path("trt/rank0.safetensors")), 0);
    cr_assert_eq(trace_open(folder_path("trt"), NULL, &trace, &err), MOESIM_EIO);
    cr_assert(strstr(err.text, "rank0.safetensors is missing"), "%s", err.text);
}

Test(trace_formats, reads_the_folder_of_megatron)
{
    cr_assert_eq(mkdir(folder_path("trace"), 0777), 0);
    write_text("trace/router_trace_rank1.jsonl", "{\"step\":0,\"block\":\"decoder\",\"layer\":0,\"rank\":1,\"num_"
                                                 "tokens\":1,\"topk\":1,\"top_indices\":[[2]]}\n");
    write_text("trace/router_trace_rank0.jsonl", "{\"step\":0,\"block\":\"decoder\",\"layer\":0,\"rank\":0,\"num_"
                                                 "tokens\":1,\"topk\":1,\"top_indices\":[[1]]}\n");
    struct trace *trace = recording_open(folder_path("trace"), (struct trace_options){.kind = TRACE_ANY});
    const struct log_case wanted = {.name = "trace", .decisions = "1/2"};
    expect_decisions(trace, &wanted);
    trace_close(trace);
}

/* HF's router logits as an extractor pads them: [samples, layers, tokens, experts] and how many tokens count. */
Test(trace_formats, leaves_padding_of_samples_out)
{
    uint8_t bytes[1024], data[256];
    float logits[2][1][3][2];
    for (uint32_t i = 0; i < 12; i++)
        ((float *)logits)[i] = (float)i;
    const int32_t counts[] = {2, 3};
    memcpy(data, logits, sizeof logits);
    memcpy(data + sizeof logits, counts, sizeof counts);
    const size_t n =
        compose_safetensors(bytes,
                            "{\"router_logits\":{\"dtype\":\"F32\",\"shape\":[2,1,3,2],\"data_offsets\":[0,48]},"
                            "\"token_counts\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[48,56]}}",
                            data, 56);
    struct trace *trace =
        recording_open(folder_write("a.safetensors", bytes, n), (struct trace_options){.kind = TRACE_ANY});
    struct moesim_error err = {""};
    float rows[10];
    uint32_t sequence[5];
    cr_assert_eq(trace_shape(trace)->n_tokens, 5);
    cr_assert_eq(trace_read_rows(trace, 0, 0, 5, rows, &err), MOESIM_OK);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(rows[i], (float)(i < 4 ? i : i + 2), "%u: %g", i, (double)rows[i]);
    cr_assert_eq(trace_read_labels(trace, TRACE_SEQUENCE, 0, 5, sequence, &err), MOESIM_OK);
    cr_assert(sequence[1] == 0 && sequence[2] == 1);
    trace_close(trace);
}

/* ---- round trips ---- */

static void convert(struct trace *trace, const char *path, struct trace_export_options options)
{
    const struct trace_export *export;
    struct moesim_error err = {""};
    cr_assert_eq(trace_export_find(trace, path, &options, &export, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(export->write(trace, path, &options, &err), MOESIM_OK, "%s: %s", path, err.text);
}

Test(trace_formats, decisions_go_through_every_format_and_back)
{
    static const char *const names[] = {"b.trace", "b.npz", "b.safetensors", "b.jsonl", "b.csv", "b.npy", "b.megatron"};
    static struct recording r;
    recording_fill(&r, 3);
    char sequences[512], weights[512];
    snprintf(sequences, sizeof sequences, "%s", write_text("s.csv", "start,len\n0,90\n90,1\n91,109\n"));
    snprintf(weights, sizeof weights, "%s", recording_write_weights(&r, "w.npy"));
    const struct trace_options options = {.weights = weights, .sequences = sequences};
    struct trace *trace = recording_open(recording_write_ids(&r, "a.npy"), options);
    recording_expect(&r, trace, 64);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = folder_path(names[i]);
        convert(trace, path, (struct trace_export_options){.format = i == 6 ? "megatron" : NULL});
        struct trace *again = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
        const struct trace_shape *s = trace_shape(again);
        cr_assert_eq(s->has_weights, i < 5, "%s", names[i]);
        cr_assert_eq(s->has_label[TRACE_SEQUENCE], i < 4 || i == 6, "%s", names[i]);
        recording_expect(&r, again, 7);
        if (i < 4) {
            uint32_t got[RECORDING_TOKENS];
            struct moesim_error err;
            cr_assert_eq(trace_read_labels(again, TRACE_SEQUENCE, 0, r.n_tokens, got, &err), MOESIM_OK);
            cr_assert_arr_eq(got, r.sequence, sizeof got);
        }
        trace_close(again);
    }
    trace_close(trace);
}

Test(trace_formats, loads_go_through_every_format_and_back)
{
    static const char *const names[] = {"b.trace", "b.npy", "b.npz",  "b.safetensors",
                                        "b.json",  "b.csv", "b.gguf", "b.trt"};
    static struct recording r;
    recording_fill(&r, 4);
    double wanted[RECORDING_LAYERS][RECORDING_EXPERTS] = {{0}};
    for (uint32_t l = 0; l < r.n_layers; l++)
        for (uint32_t t = 0; t < r.n_tokens; t++)
            for (uint32_t i = 0; i < r.k; i++)
                wanted[l][r.expert[l][t][i]]++;
    struct trace *trace = recording_open(recording_write_ids(&r, "a.npy"), (struct trace_options){.kind = TRACE_ANY});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = folder_path(names[i]);
        convert(trace, path, (struct trace_export_options){.format = i == 7 ? "trtllm" : NULL, .loads = true});
        struct trace *again = recording_open(path, (struct trace_options){.kind = i == 1 ? TRACE_LOADS : TRACE_ANY});
        cr_assert_eq(trace_shape(again)->kind, TRACE_LOADS, "%s", names[i]);
        for (uint32_t l = 0; l < r.n_layers; l++)
            expect_load(again, l, wanted[l]);
        trace_close(again);
    }
    trace_close(trace);
}

Test(trace_formats, logits_go_through_every_format_and_back)
{
    static const char *const names[] = {"b.trace", "b.npy", "b.npz", "b.safetensors"};
    uint8_t bytes[2048];
    float logits[2][20][5], got[20][5];
    for (uint32_t i = 0; i < 200; i++)
        ((float *)logits)[i] = (float)(i * i % 83) / 7 - 5;
    logits[1][3][2] = -INFINITY;
    const size_t n = compose_npy(bytes, "<f4", "(2, 20, 5)", logits, sizeof logits);
    struct trace *trace = recording_open(folder_write("a.npy", bytes, n), (struct trace_options){.kind = TRACE_ANY});
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *path = folder_path(names[i]);
        struct moesim_error err = {""};
        convert(trace, path, (struct trace_export_options){.format = NULL});
        struct trace *again = recording_open(path, (struct trace_options){.kind = TRACE_ANY});
        for (uint32_t l = 0; l < 2; l++) {
            cr_assert_eq(trace_read_rows(again, l, 0, 20, got[0], &err), MOESIM_OK, "%s", err.text);
            cr_assert_arr_eq(got, logits[l], sizeof got, "%s layer %u", names[i], l);
        }
        trace_close(again);
    }
    trace_close(trace);
}

Test(trace_formats, refuses_what_a_format_cannot_hold)
{
    static struct recording r;
    recording_fill(&r, 5);
    struct trace *trace = recording_open(recording_write_ids(&r, "a.npy"), (struct trace_options){.kind = TRACE_ANY});
    struct trace_export_options options = {.format = NULL};
    const struct trace_export *export;
    struct moesim_error err = {""};
    char losses[64];
    cr_assert_eq(trace_export_find(trace, "b.txt", &options, &export, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "say --format"), "%s", err.text);
    cr_assert_eq(trace_export_find(trace, "b.json", &options, &export, &err), MOESIM_OK);
    cr_assert(options.loads, "SGLang's JSON holds loads only");
    options = (struct trace_export_options){.append = true};
    cr_assert_eq(trace_export_find(trace, "b.npy", &options, &export, &err), MOESIM_EINVAL);
    options = (struct trace_export_options){.format = NULL};
    cr_assert_eq(trace_export_find(trace, "b.csv", &options, &export, &err), MOESIM_OK);
    trace_export_losses(trace, export, &options, losses, sizeof losses);
    cr_assert_str_empty(losses);
    trace_close(trace);
}
