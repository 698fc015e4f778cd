/* Bad input: one clear sentence, the right exit status, and nothing half-written. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/status.h>

#include "tests/cli/program.h"
#include "workloads/npy.h"

TestSuite(refusals, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

/* A .npy file with this header and `n` zero bytes of data. */
static void write_header(const char *path, const char *descr, const char *shape, size_t n)
{
    char text[128];
    int size = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }", descr, shape);
    memset(text + size, ' ', sizeof text - (size_t)size);
    text[117] = '\n';
    FILE *out = fopen(path, "wb");
    cr_assert_not_null(out);
    fwrite("\x93NUMPY\x01\x00v\x00", 1, 10, out);
    fwrite(text, 1, 118, out);
    for (size_t i = 0; i < n; i++)
        fputc(0, out);
    fclose(out);
}

static void write_bad_files(void)
{
    struct moesim_error err;
    program_write("text.npy", "this is no array\n");
    program_write("nothing.npy", "");
    program_write_npy("short.npy", 10, 4, 0);
    cr_assert_eq(truncate("short.npy", 200), 0);
    write_header("words.npy", "<U4", "(2, 2)", 64);
    write_header("complex.npy", "<c16", "(2, 2)", 64);
    write_header("big-endian.npy", ">f4", "(2, 2)", 16);
    write_header("empty.npy", "<f4", "(0, 4)", 0);
    write_header("flat.npy", "<f4", "(4,)", 16);
    write_header("huge.npy", "<f4", "(4194305, 4194305, 211106198978564)", 16);
    cr_assert_eq(npy_write_float("nan.npy", (float[]){NAN, NAN, -NAN, NAN}, (uint64_t[]){2, 2}, 2, &err), MOESIM_OK);
    cr_assert_eq(mkdir("folder.npy", 0700), 0);
}

Test(refusals, unreadable_arrays)
{
    static const char *const files[] = {"text.npy",    "nothing.npy",    "short.npy",  "words.npy",
                                        "complex.npy", "big-endian.npy", "empty.npy",  "flat.npy",
                                        "huge.npy",    "nan.npy",        "folder.npy", "absent.npy"};
    write_bad_files();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct heard h = program_run("route %s --router softmax-topk -o d.csv", files[i]);
        cr_expect_eq(h.status, 4, "route %s: %d", files[i], h.status);
        cr_expect(strstr(h.err, files[i]) && strchr(h.err, '\n') == h.err + strlen(h.err) - 1, "%s", h.err);
        cr_expect(!program_exists("d.csv"), "%s", files[i]);
        program_forget(&h);
        h = program_run("run -q --router softmax-topk --workload logits:file=%s", files[i]);
        cr_expect_eq(h.status, 4, "run %s: %d", files[i], h.status);
        cr_expect(strstr(h.err, files[i]), "%s", h.err);
        cr_expect(!program_exists("moesim.db"), "%s", files[i]);
        program_forget(&h);
    }
}

static const struct {
    const char *line;
    int status;
    const char *says;
} refused[] = {
    {"run -q --workload text:files=no/such.txt", 4, "no/such.txt"},
    {"run -q nosuch.yaml", 4, "nosuch.yaml"},
    {"run -q --router nonsuch", 2, "unknown router 'nonsuch'"},
    {"run -q --router softmax-topk:nonsuch=1", 2, "'nonsuch'"},
    {"run -q --router softmax-topk:k=65", 2, "65"},
    {"run -q --set model.experts=0", 2, "experts"},
    {"run -q --set nonsense", 2, ""},
    {"run -q --set model.experts=[", 2, ""},
    {"route l.npy --router softmax-topk:k=5", 2, "k = 5 exceeds the 4 experts"},
    {"route l.npy --router nonsuch", 2, "unknown router 'nonsuch'"},
    {"route l.npy --router softmax-topk:nonsuch=1", 2, "'nonsuch'"},
    {"route l.npy --router softmax-topk:jitter=0.1", 2, "jitter"},
    {"route l.npy --router softmax-topk --experts 9", 2, "the file has 4 columns"},
    {"route l.npy --router softmax-topk --group 0", 2, ""},
    {"route l.npy --router softmax-topk --tokens l.npy", 2, "l.npy"},
    {"run -q --workload calibrated:popularity=-0.5", 2, "popularity = -0.5: at least 0, or -1"},
    {"run -q --workload calibrated:preset=olmo-1b-7b", 2, "did you mean 'olmoe-1b-7b'"},
    {"run -q --workload bursty:burst_share=0.9999", 2, "bursts of 128 tokens can take up to 0.992248"},
    {"run -q --workload drift:domains=1", 2, "to = 2, but domains = 1"},
    {"run -q --workload adversarial:pattern=W5,devices=1", 2, "pattern W5 is about devices"},
    {"check softmax-topk:k=3", 2, "name it without ':k=3'"},
    {"check nonsuch", 2, "unknown router 'nonsuch'"},
    {"compare absent.db", 4, "absent.db"},
    {"report absent.db", 4, "absent.db"},
    {"export absent.db", 4, "absent.db"},
    {"export text.db", 4, "text.db"},
};

Test(refusals, names_keys_and_files)
{
    program_write_npy("l.npy", 10, 4, 0);
    program_write("text.db", "this is no database\n");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct heard h = program_run("%s", refused[i].line);
        cr_expect_eq(h.status, refused[i].status, "%s: %d %s", refused[i].line, h.status, h.err);
        cr_expect(strstr(h.err, refused[i].says), "%s: %s", refused[i].line, h.err);
        cr_expect(*h.err && strlen(h.err) < 1000, "%s: %s", refused[i].line, h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
    }
    cr_expect(!program_exists("moesim.db"));
    cr_expect(!program_exists("absent.db"));
}

/* Parameters that contradict each other, the model or the workload, whose file holds 10 tokens and 8 columns. A study
 * names the place: the router is its third line, `column` the value's place there (0 = the router's name). */
static const struct {
    const char *router, *key, *value, *rest; /* rest: "key=value,..." that is fine with another `value` */
    int status;
    const char *says;
} contradictory[] = {
    {"softmax-topk", "k", "9", "", 2, "k = 9 exceeds the 8 experts"},
    {"softmax-topk", "k", "0", "", 2, "k = 0 is outside"},
    {"softmax-topk", "k", "2.0", "", 2, "not a whole number"},
    {"softmax-topk", "k", "1", "weight=softmax", 2, "weight = softmax with k = 1 gives every token the constant"},
    {"switch", "weight", "softmax", "", 2, "weight = softmax with k = 1"},
    {"noisy-topk", "k", "1", "", 2, "weight = softmax with k = 1"},
    {"softmax-topk", "n_groups", "3", "", 2, "n_groups = 3 does not divide the 8 experts"},
    {"softmax-topk", "topk_groups", "5", "n_groups=4", 2, "topk_groups = 5 exceeds n_groups = 4"},
    {"softmax-topk", "topk_groups", "1", "n_groups=4,k=3", 2, "topk_groups = 1 groups of 2 experts cannot hold k = 3"},
    {"softmax-topk", "topk_groups", "0", "n_groups=4,k=3", 2, "k = 3 is no multiple of n_groups = 4"},
    {"softmax-topk", "group_score", "topk", "n_groups=4,topk_groups=3,k=2", 2, "none with k = 2 and topk_groups = 3"},
    {"softmax-topk", "bias_update", "quantile", "k=3", 2, "10 * 3 is no multiple of 8"},
    {"softmax-topk", "bias_update", "quantile", "k=8", 2, "needs k below the 8 experts"},
    {"quantile", "k", "3", "", 2, "10 * 3 is no multiple of 8"},
    {"softmax-topk", "bias_on", "logits", "bias_update=sign,n_groups=2", 2, "groups of experts are compared by scores"},
    {"ntlb", "rounds", "4", "k=2,n_groups=2,topk_groups=0", 2, "goes by one list of a token's best experts"},
    {"softmax-topk", "bias_update", "quantile", "k=4,n_groups=2,topk_groups=2", 2, "n_groups should be 1"},
    {"softmax-topk", "bias", "absent.npy", "", 4, "bias: absent.npy: cannot be read"},
    {"softmax-topk", "bias", "four.npy", "", 2, "bias = four.npy is of shape [4]; it should be [8] or [1, 8]"},
    {"softmax-topk", "bias", "layers.npy", "", 2, "bias = layers.npy is of shape [3, 8]"},
    {"softmax-topk", "bias", "nan.npy", "", 2, "nan.npy: number 3 is not finite"},
    {"softmax-topk", "bias", "text.npy", "", 4, "bias: text.npy: byte 0: not a .npy file"},
    {"softmax-topk", "aux_form", "swich", "", 2, "'swich' is no loss"},
    {"softmax-topk", "aux_form", "switch+", "", 2, "a loss is missing after the last +"},
    {"softmax-topk", "aux_form", "switch+2*switch", "", 2, "switch stands there twice"},
    {"softmax-topk", "aux_form", "z", "z_coef=1", 2, "z_coef = 1 gives already"},
    {"softmax-topk", "aux_form", "load", "", 2, "noise should be above 0"},
    {"softmax-topk", "aux_form", "load", "noise=1,bias=eight.npy", 2, "goes with neither bias nor n_groups"},
    {"softmax-topk", "aux_form", "device", "", 2, "n_groups should be above 1"},
    {"softmax-topk", "jitter", "0.1", "", 2, "jitter"},
    {"softmax-topk", "group", "sequence", "", 2, "needs sequence ids"},
    {"softmax-topk", "group", "0", "", 2, "group = \"0\" should be device, batch, sequence or a number"},
    {"softmax-topk", "capacity_factor", "nan", "", 2, "not a number"},
    {"softmax-topk", "capacity_rule", "megatorn", "", 2, "'megatorn' is none of"},
    {"softmax-topk", "second", "random", "k=3", 2, "it needs k = 2, not 3"},
    {"gshard", "k", "3", "", 2, "it needs k = 2, not 3"},
    {"vmoe", "noise", "0", "", 2, "noise should be above 0"},
    {"deepseek-v3", NULL, NULL, "", 2, "topk_groups = 4 groups of 1 experts cannot hold k = 8"},
    {"moge", "k", "6", "n_groups=4", 2, "k = 6 is no multiple of n_groups = 4"},
    {"quantile", "k", "3", "", 2, "10 * 3 is no multiple of 8"},
    {"expert-choice", "capacity_factor", "0", "", 2, "leaves expert-choice nothing to choose"},
    {"expert-threshold", "k", "9", "", 2, "k = 9 exceeds the 8 experts"},
    {"mod", "capacity_factor", "0", "", 2, "leaves mod no token"},
    {"top-p", "max_experts", "9", "", 2, "max_experts = 9 exceeds the 8 experts"},
    {"top-p", "target", "9", "controller=pi", 2, "target = 9 experts per token cannot be reached"},
    {"relu", "target", "8.5", "", 2, "target = 8.5 experts per token exceeds"},
    {"dselect-k", "k", "9", "", 2, "k = 9 selectors exceed the 8 experts"},
    {"sparsemixer", "k", "9", "", 2, "k = 9 exceeds the 8 experts"},
    {"replay", "file", "absent.csv", "", 4, "absent.csv: No such file"},
    {"replay", "file", "fifo", "", 4, "fifo: not a regular file"},
    {"replay", "file", "text.npy", "", 2, "text.npy:1: the header should be"},
    {"replay", NULL, NULL, "", 2, "recorded decisions"},
    {"hash", NULL, NULL, "", 2, "needs token ids"},
    {"cosine", NULL, NULL, "", 2, "needs hidden states"},
    {"zero-expert", NULL, NULL, "", 2, "12 gate columns for 8 experts"},
    {"hierarchical", NULL, NULL, "", 2, "10 gate columns for 8 experts"},
};

static void write_contradictory_files(void)
{
    struct moesim_error err;
    const float nan[8] = {[3] = NAN};
    program_write_npy("l.npy", 10, 8, 0);
    program_write_npy("layers.npy", 3, 8, 0);
    program_write("text.npy", "this is no array\n");
    cr_assert_eq(npy_write_float("nan.npy", nan, (uint64_t[]){8}, 1, &err), MOESIM_OK);
    cr_assert_eq(npy_write_float("four.npy", nan, (uint64_t[]){4}, 1, &err), MOESIM_OK);
    cr_assert_eq(npy_write_float("eight.npy", (float[8]){1}, (uint64_t[]){8}, 1, &err), MOESIM_OK);
    cr_assert_eq(mkfifo("fifo", 0600), 0);
}

/* "name:key=value,rest" as a SPEC and as a mapping in a study; the column of the value, or of the name, there. */
static int write_contradictory_study(size_t i, char *spec, size_t size)
{
    char text[512], rest[128] = "";
    const char *key = contradictory[i].key, *value = contradictory[i].value;
    for (const char *c = contradictory[i].rest; *c; c++)
        snprintf(rest + strlen(rest), sizeof rest - strlen(rest), *c == '=' ? ": " : *c == ',' ? ", " : "%c", *c);
    snprintf(spec, size, "%s%s%s%s%s%s%s", contradictory[i].router, key ? ":" : "", key ? key : "", key ? "=" : "",
             key ? value : "", *rest ? "," : "", contradictory[i].rest);
    int column = snprintf(text, sizeof text, "  - {name: %s%s%s%s", contradictory[i].router, key ? ", " : "",
                          key ? key : "", key ? ": " : "") +
                 1;
    snprintf(text + column - 1, sizeof text - (size_t)column, "%s%s%s}", key ? value : "", *rest ? ", " : "", rest);
    char study[700];
    snprintf(study, sizeof study, "workload: {name: logits, file: l.npy}\nrouter:\n%s\n", text);
    program_write("s.yaml", study);
    return key ? column : 12;
}

Test(refusals, contradictory_parameters)
{
    write_contradictory_files();
    for (size_t i = 0; i < sizeof contradictory / sizeof *contradictory; i++) {
        char spec[256], place[32];
        snprintf(place, sizeof place, "s.yaml:3:%d: ", write_contradictory_study(i, spec, sizeof spec));
        const int status = contradictory[i].status;
        const char *says = contradictory[i].says;
        struct heard h = program_run("route l.npy --router %s -o d.csv", spec);
        cr_expect_eq(h.status, status, "route %s: %d %s", spec, h.status, h.err);
        cr_expect(strstr(h.err, says) || !contradictory[i].key, "route %s: %s", spec, h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
        h = program_run("run -q --router %s --workload logits:file=l.npy", spec);
        cr_expect_eq(h.status, status, "run %s: %d %s", spec, h.status, h.err);
        cr_expect(strstr(h.err, says), "run %s: %s", spec, h.err);
        program_forget(&h);
        h = program_run("check s.yaml");
        cr_expect_eq(h.status, status, "check %s: %d %s", spec, h.status, h.err);
        cr_expect(strstr(h.err, says), "check %s: %s", spec, h.err);
        cr_expect(strstr(h.err, place), "check %s: not at %s but\n%s", spec, place, h.err);
        program_forget(&h);
    }
    cr_expect(!program_exists("moesim.db"));
    cr_expect(!program_exists("d.csv"));
}

/* Near the edge, and right. */
Test(refusals, what_is_no_contradiction)
{
    static const char *const specs[] = {
        "softmax-topk:k=1,weight=sum",
        "softmax-topk:k=8",
        "softmax-topk:n_groups=4,topk_groups=2,k=4",
        "softmax-topk:n_groups=4,topk_groups=0,k=4",
        "softmax-topk:n_groups=4,topk_groups=2,k=2,group_score=topk",
        "softmax-topk:bias_update=quantile,k=4",
        "softmax-topk:bias=eight.npy",
        "softmax-topk:aux_form=load,noise=1",
        "softmax-topk:aux_form=0.5*switch+z",
        "expert-choice:capacity_factor=0.01",
        "relu:target=8",
    };
    write_contradictory_files();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct heard h = program_run("route l.npy --router %s", specs[i]);
        cr_expect_eq(h.status, 0, "route %s: %s", specs[i], h.err);
        program_forget(&h);
        h = program_run("run -q --set seeds=1 --set steps=2 --fresh --router %s --workload logits:file=l.npy",
                        specs[i]);
        cr_expect_eq(h.status, 0, "run %s: %s", specs[i], h.err);
        program_forget(&h);
    }
    /* weights that are divided by their own sum are 1 */
    struct heard h = program_run("route l.npy --router softmax-topk:k=1,weight=sum");
    char *line = strchr(h.out, '\n') + 1;
    for (unsigned n = 0; *line; n++, line = strchr(line, '\n') + 1) {
        unsigned token;
        double weight;
        cr_assert_eq(sscanf(line, "0,%u,0,%*u,%lf,1,", &token, &weight), 2, "%s", line);
        cr_expect(token == n && weight == 1);
    }
    program_forget(&h);
}

Test(refusals, routers_that_route_cannot_write)
{
    program_write_npy("l.npy", 10, 8, 0);
    program_write_npy("h.npy", 10, 16, 0);
    static const char *const options[] = {"", "--hidden h.npy"};
    for (size_t i = 0; i < 2; i++) {
        struct heard h = program_run("route l.npy --router soft %s", options[i]);
        cr_expect_eq(h.status, 2);
        cr_expect(strstr(h.err, "no decisions to write"), "%s", h.err);
        cr_expect_str_eq(h.out, "");
        program_forget(&h);
    }
}

Test(refusals, all_ten_mistakes_at_once)
{
    program_write("ten.yaml", "study: ten\n"
                              "seeds: -1\n"
                              "stesp: 5\n"
                              "steps: 0\n"
                              "mode: rout\n"
                              "workload: {name: gausian, tokens: 12x}\n"
                              "model: {layers: 064, experts: many}\n"
                              "router:\n"
                              "  - sofmax-topk\n"
                              "  - {name: softmax-topk, capacity_facter: 1}\n"
                              "  - {name: softmax-topk, capacity_factor: -2}\n"
                              "  - {name: softmax-topk, score: sofmax}\n"
                              "cluster: {name: h100-dgx, nodes: 1e999}\n");
    struct heard h = program_run("run ten.yaml");
    cr_expect_eq(h.status, 2);
    static const char *const lines[] = {"2:", "3:", "4:", "5:", "6:", "7:", "9:", "10:", "11:", "12:", "13:"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char place[32];
        snprintf(place, sizeof place, "ten.yaml:%s", lines[i]);
        cr_expect(strstr(h.err, place), "%s in\n%s", place, h.err);
    }
    cr_expect(strstr(h.err, "problems; nothing was run"), "%s", h.err);
    cr_expect(strstr(h.err, "did you mean 'steps'?") && strstr(h.err, "did you mean 'capacity_factor'?"));
    cr_expect_str_eq(h.out, "");
    cr_expect(!program_exists("moesim.db"));
    struct heard checked = program_run("check ten.yaml");
    cr_expect_eq(checked.status, 2);
    cr_expect_str_eq(checked.err, h.err);
    program_forget(&checked);
    program_forget(&h);
}

Test(refusals, databases)
{
    static const char run[] = "run -q --set seeds=1 --set steps=1 --router random --workload gaussian";
    program_write("text.db",
                  "this is no database, and it is long enough to have a header of one hundred bytes, so that "
                  "its first bytes are looked at\n");
    struct heard h = program_run("%s --db text.db", run);
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    cr_expect(strstr(h.err, "text.db"), "%s", h.err);
    program_forget(&h);
    char *text = program_read("text.db");
    cr_expect(strncmp(text, "this is no database", 19) == 0, "it is left as it was");
    free(text);

    /* a database of another program */
    cr_assert_eq(system("sqlite3 other.db 'CREATE TABLE t (x); PRAGMA application_id = 7'"), 0);
    h = program_run("%s --db other.db", run);
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    cr_expect(strstr(h.err, "other.db"), "%s", h.err);
    program_forget(&h);
    h = program_run("export other.db");
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    program_forget(&h);

    h = program_run("%s --db no/such/folder/x.db", run);
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    program_forget(&h);
    h = program_run("%s --db .", run);
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    program_forget(&h);
    h = program_run("%s --db /proc/moesim.db", run);
    cr_expect_eq(h.status, 4, "%d %s", h.status, h.err);
    program_forget(&h);
}

/* Control characters of names and paths never reach the terminal. */
Test(refusals, control_characters)
{
    static const char *const lines[] = {"route '\033[31mred.npy' --router softmax-topk", "run --router '\033[31mred'",
                                        "'\033[31m'", "describe router '\033]0;x\a'", "run '\302\233.yaml'"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct heard h = program_run("%s", lines[i]);
        cr_expect(h.status == 2 || h.status == 4, "%d", h.status);
        for (const char *c = h.err; *c; c++)
            cr_expect(*c == '\n' || ((unsigned char)*c >= 32 && *c != 127), "%s", lines[i]);
        cr_expect_null(strstr(h.err, "\302\233"));
        program_forget(&h);
    }
}
