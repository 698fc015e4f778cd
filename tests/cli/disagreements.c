/* docs/where-implementations-disagree.md: every SPEC on it runs, and its tables say what the program does. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/status.h>

#include "tests/cli/program.h"
#include "workloads/npy.h"

TestSuite(disagreements, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

static char *read_page(void)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/docs/where-implementations-disagree.md", getenv("MOESIM_SOURCE"));
    char *page = program_read(path);
    cr_assert(page, "%s", path);
    return page;
}

/* Whether the code span is a router's name, or one with parameters. */
static bool is_spec(json_t *routers, const char *span, size_t n)
{
    const size_t length = strcspn(span, ":`");
    size_t i;
    json_t *item;
    if (length > n || memchr(span, ' ', n))
        return false;
    json_array_foreach(routers, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (strlen(name) == length && memcmp(name, span, length) == 0)
            return true;
    }
    return false;
}

/* Adds the span's text to the list unless it is there. */
static void add(json_t *specs, const char *span, size_t n)
{
    size_t i;
    json_t *item, *text = json_stringn(span, n);
    json_array_foreach(specs, i, item) if (json_equal(item, text))
    {
        json_decref(text);
        return;
    }
    json_array_append_new(specs, text);
}

/* The page's SPECs, each once. */
static json_t *read_specs(void)
{
    struct heard h = program_run("list routers --json");
    json_t *routers = json_loads(h.out, 0, NULL), *specs = json_array();
    char *page = read_page();
    for (char *at = page, *end; (at = strchr(at, '`')) && (end = strchr(at + 1, '`')); at = end + 1)
        if (is_spec(routers, at + 1, (size_t)(end - at - 1)))
            add(specs, at + 1, (size_t)(end - at - 1));
    free(page);
    json_decref(routers);
    program_forget(&h);
    return specs;
}

/* A text for the tokens, a bias for 64 experts. */
static void write_inputs(void)
{
    struct moesim_error err;
    static char text[1 << 14];
    float bias[64];
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = i % 7 == 6 ? ' ' : (char)('a' + (i * i + i / 5) % 26);
    program_write("words.txt", text);
    for (size_t e = 0; e < 64; e++)
        bias[e] = (float)(e % 5) / 50;
    cr_assert_eq(npy_write_float("bias.npy", bias, (uint64_t[]){64}, 1, &err), MOESIM_OK);
}

Test(disagreements, every_spec_runs)
{
    static char study[1 << 15];
    json_t *specs = read_specs(), *item;
    const size_t n_specs = json_array_size(specs);
    cr_assert(n_specs > 70, "%zu SPECs on the page", n_specs);
    write_inputs();
    int n = snprintf(study, sizeof study,
                     "seeds: 1\nsteps: 2\nworkload: {name: text, files: words.txt, tokens: 1024}\n"
                     "model: {layers: 2, experts: 64, d_model: 16}\nrouter:\n");
    size_t i;
    json_array_foreach(specs, i, item) n +=
        snprintf(study + n, sizeof study - (size_t)n, "  - '%s'\n", json_string_value(item));
    program_write("page.yaml", study);
    struct heard h = program_run("run -q page.yaml");
    cr_expect_eq(h.status, 0, "%d %s", h.status, h.err);
    program_forget(&h);
    char *done = program_query("moesim.db", "SELECT count(*) FROM v_runs WHERE state = 'done'");
    cr_expect(atol(done) > 70, "%s", done); /* SPECs that mean the same are one run */
    free(done);
    json_decref(specs);
}

/* The first table: a preset, whose recipe it is, and the SPEC that `describe` gives. */
Test(disagreements, presets)
{
    static const char *const presets[] = {"switch",      "gshard", "vmoe", "deepseek-v2",
                                          "deepseek-v3", "moge",   "ntlb", "quantile"};
    char *page = read_page();
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        char row[1024], head[64];
        struct heard h = program_run("describe router %s --json", presets[i]);
        json_t *root = json_loads(h.out, 0, NULL);
        snprintf(head, sizeof head, "\n| `%s` | ", presets[i]);
        snprintf(row, sizeof row, " | `%s` |\n", json_string_value(json_object_get(root, "same_as")));
        const char *line = strstr(page, head);
        cr_assert(line, "%s", head);
        const char *cell = strstr(line, row);
        cr_expect(cell && cell < strchr(line + 1, '\n'), "%s: the page should say%s", presets[i], row);
        json_decref(root);
        program_forget(&h);
    }
    free(page);
}

/* Slots that 10 tokens, all fond of expert 0 and then 1, find on expert 0. */
static unsigned count_slots(const char *rule)
{
    struct heard h = program_run("route l.npy --router softmax-topk:k=2,capacity_factor=1.25,capacity_rule=%s", rule);
    unsigned n = 0, expert, kept;
    cr_assert_eq(h.status, 0, "%s", h.err);
    for (char *line = strchr(h.out, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
        cr_assert_eq(sscanf(line, "0,%*u,%*u,%u,%*f,%u,", &expert, &kept), 2, "%s", line);
        n += expert == 0 && kept;
    }
    program_forget(&h);
    return n;
}

/* The table of capacity rules has a line for each, whose fourth cell is the example's number of slots. */
Test(disagreements, capacity_rules)
{
    struct moesim_error err;
    float x[10][4];
    for (uint32_t t = 0; t < 10; t++)
        for (uint32_t e = 0; e < 4; e++)
            x[t][e] = -(float)e;
    cr_assert_eq(npy_write_float("l.npy", x[0], (uint64_t[]){10, 4}, 2, &err), MOESIM_OK);
    char *page = read_page();
    const char *table = strstr(page, "\n| `capacity_rule` |");
    cr_assert(table);
    for (const char *word = MOESIM_CAPACITY_CHOICES; *word; word += strcspn(word, "|"), word += *word == '|') {
        char rule[32], head[40];
        unsigned slots;
        snprintf(rule, sizeof rule, "%.*s", (int)strcspn(word, "|"), word);
        snprintf(head, sizeof head, "\n| `%s` |", rule);
        const char *line = strstr(table, head);
        cr_assert(line, "no line for %s", rule);
        cr_assert_eq(sscanf(line + strlen(head), "%*[^|]|%*[^|]| %u", &slots), 1, "%s", rule);
        cr_expect_eq(count_slots(rule), slots < 10 ? slots : 10, "%s: %u on the page", rule, slots); /* of 10 tokens */
    }
    free(page);
}
