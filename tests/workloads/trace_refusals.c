/*
 * What is no trace, or lies about itself: one sentence that says where, and nothing read past the end or allocated on a
 * lie's word.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zip.h>

#include "tests/workloads/instance.h"
#include "tests/workloads/recording.h"

TestSuite(trace_refusals, .timeout = 60, .init = folder_create, .fini = folder_remove);

/* Opening, or reading all that was opened, fails with the status and words. */
static void refuse(const char *path, struct trace_options options, enum moesim_status wanted, const char *says)
{
    struct trace *trace;
    struct moesim_error err = {""};
    enum moesim_status status = trace_open(path, &options, &trace, &err);
    const struct trace_shape *s = status ? NULL : trace_shape(trace);
    uint32_t first[2], expert[64];
    float weight[64];
    double load[64];
    struct trace_pairs pairs = {.first = first, .expert = expert, .weight = weight};
    for (uint32_t l = 0; s && l < s->n_layers && !status; l++)
        if (s->kind == TRACE_LOADS)
            status = trace_total_load(trace, l, load, &err);
        else
            for (uint64_t t = 0; s->kind == TRACE_DECISIONS && t < s->n_tokens && !status; t++)
                status = trace_read_pairs(trace, l, t, 1, &pairs, &err);
    trace_close(s ? trace : NULL);
    cr_assert_eq(status, wanted, "%s: status %d: %s", says, status, err.text);
    cr_assert(strstr(err.text, says), "'%s' is not in: %s", says, err.text);
}

static void refuse_file(const char *name, const void *bytes, size_t n, const char *says)
{
    refuse(folder_write(name, bytes, n), (struct trace_options){.kind = TRACE_ANY}, MOESIM_EIO, says);
}

/* ---- .npy ---- */

Test(trace_refusals, npy)
{
    static const int8_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -2, 0, 0, 0, 0};
    static const struct {
        const char *descr, *shape;
        size_t n; /* bytes of data */
        const char *says;
    } cases[] = {
        {"|u1", "(1, 1, 0)", 0, "dimension 3 of its shape is 0"},
        {"|u1", "(2, 2, 5)", 16, "truncated: the shape needs 20 bytes"},
        {"|u1", "(4194305, 4194305, 211106198978564)", 16, "more than 2^64 bytes"},
        {"|u1", "(-1, 2, 2)", 16, "a dimension is negative"},
        {"|u1", "(99999999999999999999, 2, 2)", 16, "a dimension passes 2^64"},
        {">i4", "(1, 2, 2)", 16, "big-endian"},
        {"<c8", "(1, 2, 1)", 16, "cannot be read"},
        {"|b1", "(2, 2, 2)", 16, "cannot be read"},
        {"|i1", "(2, 2, 4)", 16, "token 1, layer 0: expert -2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[512];
        refuse_file("a.npy", bytes, compose_npy(bytes, cases[i].descr, cases[i].shape, ids, cases[i].n), cases[i].says);
    }
    uint8_t bytes[512];
    size_t n = compose_npy(bytes, "|i1", "(2, 2, 2, 2)", ids, 16);
    refuse(folder_write("a.npy", bytes, n), (struct trace_options){.kind = TRACE_DECISIONS}, MOESIM_EIO,
           "the array is [2, 2, 2, 2]; [tokens, layers, k]");
    n = compose_npy(bytes, "|u1", "(2, 2, 2)", ids, 8);
    const char *path = folder_write("a.npy", bytes, n);
    refuse(path, (struct trace_options){.n_experts = 5}, MOESIM_EIO, "token 1, layer 0: expert 5 is not one of the 5");
    refuse(path, (struct trace_options){.kind = TRACE_LOGITS, .n_experts = 3}, MOESIM_EINVAL,
           "logits of 2 experts, not of 3");
    refuse(path, (struct trace_options){.weights = path, .kind = TRACE_LOADS}, MOESIM_EINVAL,
           "--weights belongs to decisions");
    const float half[] = {0, 0.5f, 1, 2};
    n = compose_npy(bytes, "<f4", "(1, 2, 2)", half, 16);
    refuse(folder_write("b.npy", bytes, n), (struct trace_options){.kind = TRACE_DECISIONS}, MOESIM_EIO,
           "an id is not a whole number");
    n = compose_npy(bytes, "<f4", "(2, 2)", (const float[]){1, -1, 0, NAN}, 16);
    refuse(folder_write("b.npy", bytes, n), (struct trace_options){.kind = TRACE_LOADS}, MOESIM_EIO, "from 0 up");
}

Test(trace_refusals, weights_of_another_shape_or_none)
{
    uint8_t bytes[512];
    const uint8_t ids[] = {1, 2, 3, 4};
    const float weights[] = {1, 1, INFINITY, 1};
    char path[512];
    snprintf(path, sizeof path, "%s", folder_write("a.npy", bytes, compose_npy(bytes, "|u1", "(2, 1, 2)", ids, 4)));
    const char *w = folder_write("w.npy", bytes, compose_npy(bytes, "<f4", "(2, 2)", weights, 16));
    refuse(path, (struct trace_options){.weights = w}, MOESIM_EIO, "the array is [2, 2]; weights of the same shape");
    w = folder_write("w.npy", bytes, compose_npy(bytes, "<f4", "(2, 1, 2)", weights, 16));
    refuse(path, (struct trace_options){.weights = w}, MOESIM_EIO,
           "token 1, layer 0, choice 0: the weight is not finite");
}

/* ---- safetensors ---- */

Test(trace_refusals, safetensors)
{
#define TENSOR(name, dtype, shape, offsets)                                                                            \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
    static const struct {
        const char *header;
        size_t n;
        const char *says;
    } cases[] = {
        {"{" TENSOR("a", "U8", "[2,2]", "[0,4]"), 4, "cut off"},
        {"{" TENSOR("a", "U8", "[2,2]", "[4,0]") "}", 4, "begin not above end"},
        {"{" TENSOR("a", "U8", "[2,2]", "[-1,3]") "}", 4, "begin not above end"},
        {"{" TENSOR("a", "U8", "[2,2]", "[0,4,8]") "}", 4, "should be [begin, end]"},
        {"{" TENSOR("a", "U8", "[2,2]", "[0,3]") "}", 4, "need 4 bytes, data_offsets give 3"},
        {"{" TENSOR("a", "U8", "[2,2]", "[1,5]") "}", 5, "there is a hole"},
        {"{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("b", "U8", "[4]", "[3,7]") "}", 7, "they overlap"},
        {"{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("b", "U8", "[4]", "[5,9]") "}", 9, "there is a hole"},
        {"{" TENSOR("a", "U8", "[4]", "[0,4]") "," TENSOR("a", "U8", "[4]", "[4,8]") "}", 8, "two tensors 'a'"},
        {"{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 3, "ends at byte 4 of the data, which has 3"},
        {"{" TENSOR("a", "U8", "[4]", "[0,4]") "}", 5, "the tensors end at byte 4"},
        {"{" TENSOR("a", "U8", "[-4]", "[0,4]") "}", 4, "should be a whole number"},
        {"{" TENSOR("a", "U8", "[4.5]", "[0,4]") "}", 4, "should be a whole number"},
        {"{" TENSOR("a", "I64", "[4194305,4194305,211106198978564]", "[0,4]") "}", 4, "2^64 bytes"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "lacks dtype, shape or data_offsets"},
        {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4, "a key comes twice"},
        {"{\"a\":{\"kind\":\"U8\"}}", 4, "only dtype, shape and data_offsets"},
        {"{" TENSOR("a", "F8_E4M3", "[4]", "[0,4]") "}", 4, "no array in it has a name"},
        {"{" TENSOR("x", "U8", "[4]", "[0,4]") "," TENSOR("y", "U8", "[4]", "[4,8]") "}", 8,
         "no array in it has a name"},
        {"{} {}", 0, "only blanks may follow"},
        {"[1]", 0, "object {...} was expected"},
        {"{\"a\":{\"dtype\":\"U8", 0, "cut off"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t bytes[1024], data[16] = {1};
        refuse_file("a.safetensors", bytes, compose_safetensors(bytes, cases[i].header, data, cases[i].n),
                    cases[i].says);
    }
    uint8_t bytes[64] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    refuse_file("a.safetensors", bytes, 10, "the header claims 18446744073709551615 bytes");
    memcpy(bytes, &(uint64_t){67108865}, 8);
    refuse_file("a.safetensors", bytes, 10, "67108864 are allowed");
    memcpy(bytes, &(uint64_t){3}, 8);
    refuse_file("a.safetensors", bytes, 10, "the header claims 3 bytes; the file has 2 more");
    refuse_file("a.safetensors", bytes, 5, "5 bytes");
}

/* ---- .npz ---- */

/* Adds a member; compressed unless `stored`. The bytes must live until the archive is closed. */
static void add_member(zip_t *zip, const char *name, const void *bytes, size_t n, bool stored)
{
    zip_source_t *source = zip_source_buffer(zip, bytes, n, 0);
    const zip_int64_t index = zip_file_add(zip, name, source, 0);
    cr_assert(index >= 0);
    if (stored)
        cr_assert_eq(zip_set_file_compression(zip, (zip_uint64_t)index, ZIP_CM_STORE, 0), 0);
}

static const char *write_npz(const char *name, const char *member, const void *bytes, size_t n, bool stored)
{
    int code;
    const char *path = folder_path(name);
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    cr_assert(zip);
    add_member(zip, member, bytes, n, stored);
    cr_assert_eq(zip_close(zip), 0);
    return path;
}

Test(trace_refusals, npz)
{
    const struct trace_options any = {.kind = TRACE_ANY};
    uint8_t bytes[512], file[2048];
    const uint8_t ids[] = {1, 2, 3, 4};
    const size_t n = compose_npy(bytes, "|u1", "(2, 1, 2)", ids, 4);
    struct trace *trace = recording_open(write_npz("a.npz", "a.npy", bytes, n, false), any);
    trace_close(trace);

    FILE *stream = fopen(write_npz("a.npz", "a.npy", bytes, n, true), "rb");
    const size_t size = fread(file, 1, sizeof file, stream);
    fclose(stream);
    file[size / 2 - 40] ^= 1; /* inside the member's data */
    refuse_file("b.npz", file, size, "member a.npy is damaged");
    refuse_file("b.npz", file, size / 2, "not a whole .npz file");
    refuse(write_npz("c.npz", "a.txt", bytes, n, false), any, MOESIM_EIO, "no member is an array");
    refuse(write_npz("c.npz", "a.npy", bytes, n - 2, false), any, MOESIM_EIO, "member a.npy: ");
    refuse(write_npz("c.npz", "archive/data.pkl", bytes, n, false), any, MOESIM_EIO,
           "is a torch file, which is not read");

    const size_t bomb = (size_t)64 << 20;
    uint8_t *zeros = calloc(1, bomb);
    cr_assert(zeros);
    compose_npy(zeros, "|u1", "(1, 1, 67108736)", NULL, 0);
    refuse(write_npz("d.npz", "a.npy", zeros, bomb, false), any, MOESIM_EIO, "more than 200 times");
    free(zeros);
}

/* ---- text ---- */

Test(trace_refusals, json)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"{\"layer\":0,\"experts\":[1,2]", "cut off"},
        {"{\"layer\":0,\"experts\":[1,2]}\n{\"layer\":0,\"exp", "byte 43: a string is not closed"},
        {"{\"layer\":0,\"experts\":[1,2]}\n{\"layer\":1,\"experts\":[1,2]}\n{\"layer\":0,\"experts\":[1,2]}\n",
         "layer 0 has 2 tokens and layer 1 has 1"},
        {"{\"layer\":0,\"experts\":[1,2.5]}", "byte 24: an expert's id should be a whole number"},
        {"{\"layer\":0,\"experts\":[1,-2]}", "should be a whole number"},
        {"{\"layer\":0,\"experts\":[1,1048576]}", "expert 1048576 is not one of at most 1048576"},
        {"{\"layer\":0,\"experts\":[1,1e300]}", "should be a whole number"},
        {"{\"layer\":-1,\"experts\":[1]}", "-1 is outside"},
        {"{\"layer\":1e18,\"experts\":[1]}", "should be a whole number"},
        {"{\"experts\":[1,2]}", "a record of experts without a layer"},
        {"{\"layer\":0,\"experts\":[[[1]],2]}", "an array [...] was expected"},
        {"{\"layer\":0,\"experts\":[[[[1]]]]}", "should be [k], [tokens][k] or [tokens][layers][k]"},
        {"{\"layer\":0,\"experts\":[1,2],\"weights\":[0.5]}", "as many weights as experts"},
        {"{\"layer\":0,\"experts\":[1,2],\"weights\":[0.5,NaN]}", "a weight of expert 2 is not a finite number"},
        {"{\"layer\":0,\"experts\":[1,2],\"weights\":[0.5,0.5]}\n{\"layer\":0,\"experts\":[1,2]}",
         "some decisions have weights and others have none"},
        {"{\"num_experts\":2}\n{\"layer\":0,\"experts\":[1,2]}", "expert 2 is not one of the 2"},
        {"{\"layer\":0,\"experts\":\"AAECAw==\"}", "base64 is not read"},
        {"{\"layer\":0,\"token_idx\":0,\"experts\":[1]}\n{\"layer\":0,\"token_idx\":1,\"experts\":[1]}\n"
         "{\"layer\":1,\"token_idx\":1,\"experts\":[1]}\n{\"layer\":1,\"token_idx\":0,\"experts\":[1]}\n",
         "name their tokens in different orders"},
        {"{\"routing_stage\":\"encoder\",\"layer\":0,\"experts\":[1]}\n{\"routing_stage\":\"decoder\",\"layer\":0,"
         "\"experts\":[1]}",
         "encoder and decoder route different tokens"},
        {"{\"logical_count\":[[1,2],[3]]}", "layer 1 has loads of 1 experts, others of 2"},
        {"{\"logical_count\":[[1,-2]]}", "a load is not a number from 0 up"},
        {"{\"logical_count\":[[1,null]]}", "a load is not a number from 0 up"},
        {"{\"logical_count\":[[[[1]]]]}", "should be [experts], [layers][experts]"},
        {"{\"logical_count\":[[]]}", "a layer has no loads"},
        {"{\"logical_count\":7}", "should be [experts]"},
        {"{\"physical_to_logical_map\":[[0,-1]]}", "a slot's expert"},
        {"{\"physical_to_logical_map\":[[0,1]],\"global_physical_count\":[[1]]}", "as many counts as slots"},
        {"{\"global_physical_count\":[[1]]}", "need physical_to_logical_map"},
        {"{\"layer\":0,\"experts\":[1]}\n[1,2]", "rows of decisions and rows of loads are mixed"},
        {"{\"a\":1}", "no row tells which experts"},
        {"{\"router_data\":[{\"tok_0\":{}}]}", "a key token_N was expected"},
        {"{\"layer\":0,\"token\":5,\"expert\":1}\n{\"layer\":0,\"token\":2,\"expert\":1}", "comes after token 5"},
        {"{\"layer\":0,\"token\":4000000000,\"expert\":1}", "too many are left out"},
        {"{\"layer\":0x1}", "byte 10: this is no number"},
        {"{\"layer\":01,\"experts\":[1]}", "a number was expected"},
        {"{\"layer\":0,}", "a string in double quotes was expected"},
        {"{'layer':0}", "a string in double quotes was expected"},
        {"{\"layer\":0 \"x\":1}", "a comma or the closing bracket was expected"},
        {"{\"a\x01\":1}", "a control character inside a string"},
        {"{\"layer\":0}}", "an object or an array was expected"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse_file("a.jsonl", cases[i].text, strlen(cases[i].text), cases[i].says);
}

Test(trace_refusals, json_without_end)
{
    enum { N = 1 << 20 };
    char *text = malloc(N);
    memset(text, '[', N);
    refuse_file("a.json", text, N, "should be [k]");
    memcpy(text, "{\"a\":", 5);
    refuse_file("a.json", text, N, "nested more than 64 deep");
    memset(text + 5, '"', 1);
    memset(text + 6, 'x', N - 6);
    refuse_file("a.json", text, N, "a string is not closed");
    free(text);
}

Test(trace_refusals, csv)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"token,experts\n0,1\n", "a.csv:1: the first line should name the columns"},
        {"layer,experts\n", "no row tells which experts"},
        {"layer,experts\n0,1 x\n", "a.csv:2: experts should be whole numbers"},
        {"layer,experts\n0,1\n0\n", "a.csv:3: 1 fields; the first line has 2"},
        {"layer,experts\n\n\n-1,1\n", "a.csv:4: field 1 should be a whole number"},
        {"layer,experts,weights\n0,1 2,0.5\n", "a.csv:2: there should be as many weights as experts"},
        {"layer,experts,weights\n0,1 2,0.5 nan\n", "a.csv:2: there should be as many weights as experts, all finite"},
        {"layer,experts\n0,\"1 2\n", "a.csv:2: a quote is not closed"},
        {"layer,experts\n0,\"1\"2\n", "a comma was expected after the closing quote"},
        {"layer,expert,count\n0,1,-5\n", "a load is not a number from 0 up"},
        {"layer,expert,count\n0,1,x\n", "field 3 should be a finite number"},
        {"layer,expert,count\n0,99999999,1\n", "field 2 should be a whole number from 0 to 1048575"},
        {"layer,token,choice,expert,weight,kept,slot\n0,0,0,1,0.5,2,0\n",
         "field 6 should be a whole number from 0 to 1"},
        {"layer,token,choice,expert,weight,kept,slot\n0,0,0,1,0.5,1,-2\n", "slot should be a whole number, or -1"},
        {"layer,token,choice,expert,weight,kept,slot\n0,1,0,1,0.5,1,0\n0,0,0,1,0.5,1,0\n", "rows should be in order"},
        {"layer,experts\n0,1\n1,1\n0,1\n", "layer 0 has 2 tokens and layer 1 has 1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse_file("a.csv", cases[i].text, strlen(cases[i].text), cases[i].says);
}

/* ---- GGUF ---- */

struct gguf {
    uint8_t bytes[2048];
    size_t n;
};

static void put(struct gguf *g, const void *bytes, size_t n)
{
    memcpy(g->bytes + g->n, bytes, n);
    g->n += n;
}

static void put_u32(struct gguf *g, uint32_t x)
{
    put(g, &x, sizeof x);
}

static void put_u64(struct gguf *g, uint64_t x)
{
    put(g, &x, sizeof x);
}

static void put_text(struct gguf *g, const char *text)
{
    put_u64(g, strlen(text));
    put(g, text, strlen(text));
}

/* One lie each; those that are not told are the truth. */
struct gguf_lie {
    const char *says;
    uint32_t version, type, alignment, key_type, array_type, n_dimensions;
    uint64_t n_tensors, n_keys, dimension, offset, name_length, array_length, text_length;
    const char *kind, *name;
    float count;
    size_t cut;
};

static void compose_gguf(struct gguf *g, const struct gguf_lie *lie)
{
    g->n = 0;
    put(g, "GGUF", 4);
    put_u32(g, lie->version ? lie->version : 3);
    put_u64(g, lie->n_tensors ? lie->n_tensors : 1);
    put_u64(g, lie->n_keys ? lie->n_keys : 3);
    put_text(g, "general.type");
    put_u32(g, 8);
    if (lie->text_length) {
        put_u64(g, lie->text_length);
        put(g, "imatrix", 7);
    } else {
        put_text(g, lie->kind ? lie->kind : "imatrix");
    }
    put_text(g, "general.alignment");
    put_u32(g, lie->key_type ? lie->key_type : 4);
    put_u32(g, lie->alignment ? lie->alignment : 32);
    put_text(g, "imatrix.datasets"); /* an array of strings is passed over */
    put_u32(g, 9);
    put_u32(g, lie->array_type ? lie->array_type : 8);
    put_u64(g, lie->array_length ? lie->array_length : 2);
    put_text(g, "wiki");
    put_text(g, "code");
    const char *name = lie->name ? lie->name : "blk.5.ffn_gate_exps.weight.counts";
    put_u64(g, lie->name_length ? lie->name_length : strlen(name));
    put(g, name, strlen(name));
    put_u32(g, lie->n_dimensions ? lie->n_dimensions : 2);
    put_u64(g, 1);
    put_u64(g, lie->dimension ? lie->dimension : 4);
    put_u32(g, lie->type);
    put_u64(g, lie->offset);
    while (g->n % 32)
        put(g, "", 1);
    put(g, (const float[]){5, 0, 7, lie->count != 0 ? lie->count : 1}, 16);
    g->n -= lie->cut;
}

Test(trace_refusals, gguf)
{
    static const struct gguf_lie lies[] = {
        {"GGUF versions 2 and 3", .version = 1},
        {"GGUF versions 2 and 3", .version = 0x03000000}, /* big-endian */
        {"runs past the end", .n_tensors = UINT64_MAX},
        {"runs past the end", .n_keys = UINT64_MAX},
        {"runs past the end", .name_length = UINT64_MAX - 3},
        {"counts should be 1 to 1048576", .dimension = UINT64_MAX},
        {"counts should be 1 to 1048576", .dimension = 1048577},
        {"lie beyond the end of the file", .dimension = 1000},
        {"lie beyond the end of the file", .offset = UINT64_MAX - 31},
        {"lie beyond the end of the file", .offset = 32},
        {"lie beyond the end of the file", .cut = 1},
        {"counts should be 1 to 1048576 aligned", .offset = 8},
        {"counts should be 1 to 1048576 aligned float32", .type = 1},
        {"not a power of two", .alignment = 33},
        {"not a power of two", .alignment = 1u << 31},
        {"general.type is not imatrix", .kind = "model"},
        {"a string runs past the end", .text_length = UINT64_MAX - 6},
        {"a value of a type that GGUF does not have", .key_type = 77},
        {"an array of what is no number", .array_type = 9},
        {"runs past the end", .array_type = 4, .array_length = UINT64_MAX / 4 + 1},
        {"runs past the end", .array_length = UINT64_MAX},
        {"a tensor of more than 8 dimensions", .n_dimensions = UINT32_MAX},
        {"a tensor of more than 8 dimensions", .n_dimensions = 9},
        {"no counts of experts", .name = "blk.99999999999.ffn_gate_exps.weight.counts"},
        {"from 0 up", .count = -1},
        {"from 0 up", .count = NAN},
        {"no counts of experts", .name = "blk.5.ffn_gate_exps.weight.in_sum2"},
        {"no counts of experts", .name = "blk.ffn_gate_exps.weight.counts"},
    };
    struct gguf g;
    struct moesim_error err = {""};
    double load[4];
    compose_gguf(&g, &(struct gguf_lie){.says = NULL});
    struct trace *trace =
        recording_open(folder_write("a.gguf", g.bytes, g.n), (struct trace_options){.kind = TRACE_ANY});
    cr_assert(trace_shape(trace)->n_experts == 4 && trace_layer_id(trace, 0) == 5);
    cr_assert_eq(trace_total_load(trace, 0, load, &err), MOESIM_OK);
    cr_assert(load[0] == 5 && load[1] == 0 && load[2] == 7);
    trace_close(trace);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        compose_gguf(&g, &lies[i]);
        refuse_file("a.gguf", g.bytes, g.n, lies[i].says);
    }
    compose_gguf(&g, &lies[0]);
    for (size_t n = 5; n < g.n - 16; n++) { /* cut anywhere */
        struct gguf whole;
        compose_gguf(&whole, &(struct gguf_lie){.says = NULL});
        refuse_file("a.gguf", whole.bytes, n, "a.gguf");
    }
}

/* ---- folders, sequences, other files ---- */

Test(trace_refusals, folders)
{
    uint8_t bytes[512];
    const uint8_t counts[] = {1, 2, 3};
    cr_assert_eq(mkdir(folder_path("t"), 0777), 0);
    const char *folder = folder_path("t");
    const struct trace_options any = {.kind = TRACE_ANY};
    refuse(folder, any, MOESIM_EIO, "is a directory without meta_info.json");
    folder_write("t/meta_info.json", "{\"num_experts\": 4}", 18);
    refuse(folder, any, MOESIM_EIO, "there is no rank0.safetensors");
    size_t n =
        compose_safetensors(bytes, "{\"0_0\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", counts, 3);
    folder_write("t/rank0.safetensors", bytes, n);
    refuse(folder, any, MOESIM_EIO, "tensor '0_0' holds 3 numbers; one for each of the 4 experts");
    refuse(folder, (struct trace_options){.n_experts = 3}, MOESIM_EINVAL, "loads of 4 experts, not of 3");
    folder_write("t/meta_info.json", "{\"num_experts\": 3}", 18);
    n = compose_safetensors(bytes, "{\"layer0\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", counts, 3);
    folder_write("t/rank0.safetensors", bytes, n);
    refuse(folder, any, MOESIM_EIO, "tensor 'layer0' is not named ITERATION_LAYER");
    folder_write("t/meta_info.json", "{\"num_experts\": 1e9}", 20);
    refuse(folder, any, MOESIM_EIO, "num_experts should be a number from 1 to 1048576");
    folder_write("t/meta_info.json", "{\"num_experts\": ", 16);
    refuse(folder, any, MOESIM_EIO, "meta_info.json: byte 16");
}

Test(trace_refusals, sequences)
{
    static const struct {
        const char *text, *says;
        enum moesim_status status;
    } cases[] = {
        {"begin,len\n0,4\n", "should name the columns start and len", MOESIM_EIO},
        {"start,len\n0,x\n", "s.csv:2: start and len should be whole numbers", MOESIM_EIO},
        {"start,len\n0\n", "s.csv:2: start and len should be whole numbers", MOESIM_EIO},
        {"start,len\n0,3\n2,1\n", "s.csv:3: the sequence starts at token 2, inside or before", MOESIM_EIO},
        {"start,len\n0,9\n", "s.csv:2: tokens 0 to 9, but the trace has 4", MOESIM_EIO},
        {"start,len\n1,9223372036854775807\n", "but the trace has 4", MOESIM_EIO},
        {"start,len\n5,0\n", "but the trace has 4", MOESIM_EIO},
        {"start,len\n0,4\n", "there is no column 'topic'", MOESIM_EINVAL},
    };
    uint8_t bytes[512];
    const uint8_t ids[] = {1, 2, 3, 0, 1, 2, 3, 0};
    char path[512];
    snprintf(path, sizeof path, "%s", folder_write("a.npy", bytes, compose_npy(bytes, "|u1", "(4, 1, 2)", ids, 8)));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *s = folder_write("s.csv", cases[i].text, strlen(cases[i].text));
        refuse(path, (struct trace_options){.sequences = s, .domains = i == 7 ? "topic" : NULL}, cases[i].status,
               cases[i].says);
    }
    const char *loads = folder_write("l.json", "[1,2]", 5);
    refuse(loads, (struct trace_options){.sequences = path}, MOESIM_EINVAL, "which have no sequences");
}

Test(trace_refusals, what_is_no_file_of_routing)
{
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } files[] = {
        {"", 0, "is empty (0 bytes)"},
        {"PAR1xxxx", 8, "is Parquet, which is not read: in Python, pandas.read_parquet"},
        {"\x80\x02}q\x00.", 6, "is a Python pickle"},
        {"\x1f\x8b\x08\x00", 4, "is compressed: unpack it first"},
        {"hello\n", 6, "the first line should name the columns"},
        {"\x7f"
         "ELF\x02\x01\x01",
         7, "the first line should name the columns"},
    };
    const struct trace_options any = {.kind = TRACE_ANY};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        refuse_file("a.bin", files[i].bytes, files[i].n, files[i].says);
    refuse(folder_path("none"), any, MOESIM_EIO, "cannot be read: No such file");
    refuse("/dev/zero", any, MOESIM_EIO, "is not a regular file");
    const char *fifo = folder_path("fifo"), *link = folder_path("link"), *loop = folder_path("loop");
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    refuse(fifo, any, MOESIM_EIO, "is not a regular file");
    cr_assert_eq(symlink(fifo, link), 0);
    refuse(link, any, MOESIM_EIO, "is not a regular file");
    cr_assert_eq(symlink(loop, loop), 0);
    refuse(loop, any, MOESIM_EIO, "cannot be read: Too many levels of symbolic links");
    cr_assert_eq(unlink(link), 0);
    cr_assert_eq(symlink(folder_write("good.json", "[1,2]", 5), link), 0);
    trace_close(recording_open(link, any));
}

Test(trace_refusals, the_wrong_kind)
{
    const char *path = folder_write("a.json", "[[1,2],[3,4]]", 13);
    refuse(path, (struct trace_options){.kind = TRACE_DECISIONS}, MOESIM_EINVAL, "holds loads, not decisions");
    refuse(path, (struct trace_options){.n_experts = 3}, MOESIM_EIO, "loads of 2 experts, not of 3");
    refuse(path, (struct trace_options){.weights = path}, MOESIM_EINVAL,
           "is no array, so --weights does not go with it");
}
