/* moesim-bench end to end on its smallest part: what it writes is there and can be read. Nothing is timed. MOESIM is
 * its path here. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(bench, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 120);

#define SMALL "--part placement --only contiguous --quick --repeats 2 --wait 0"

static void expect_widths(const char *text, size_t most)
{
    for (const char *line = text; *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] == '\n'))
        cr_expect_leq(strcspn(line, "\n"), most, "%.*s", (int)strcspn(line, "\n"), line);
}

static void expect_ends(const char *path, const char *end)
{
    char *text = program_read(path);
    cr_assert_not_null(text, "%s is not there", path);
    const size_t n = strlen(text), m = strlen(end);
    cr_expect(n > 1024 && strcmp(text + n - m, end) == 0, "%s is not whole", path);
    free(text);
}

Test(bench, writes_json_that_holds_every_repeat)
{
    struct heard h = program_run(SMALL " --json bench.json");
    cr_assert_eq(h.status, 0, "%s", h.err);
    expect_widths(h.out, 100);
    json_error_t where;
    json_t *root = json_load_file("bench.json", JSON_REJECT_DUPLICATES, &where);
    cr_assert_not_null(root, "%s", where.text);
    const json_t *results = json_object_get(root, "results");
    cr_assert_eq(json_array_size(results), 1);
    const json_t *result = json_array_get(results, 0);
    cr_expect_str_eq(json_string_value(json_object_get(result, "figure")), "contiguous");
    cr_expect_eq(json_array_size(json_object_get(result, "clock_s")), 2);
    cr_expect_eq(json_array_size(json_object_get(result, "cpu_s")), 2);
    cr_expect(json_number_value(json_object_get(result, "value")) > 0);
    json_decref(root);
    program_forget(&h);
}

Test(bench, repeats_become_runs_that_compare_can_pair)
{
    static const char *const labels[] = {"old", "new", "old"};
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++) {
        struct heard h = program_run(SMALL " --db bench.db --label %s", labels[i]);
        cr_assert_eq(h.status, 0, "%s", h.err);
        program_forget(&h);
    }
    char *seeds = program_query("bench.db", "SELECT router || seed FROM v_runs ORDER BY 1");
    cr_expect_str_eq(seeds, "new1\nnew2\nold1\nold2\nold3\nold4");
    char *pairs = program_query("bench.db", "SELECT seed FROM v_compare WHERE metric = 'bench_cpu' AND baseline = 'old'"
                                            " AND workload = 'placement/contiguous' ORDER BY 1");
    cr_expect_str_eq(pairs, "1\n2");
    free(seeds);
    free(pairs);
}

Test(bench, draws_a_page_and_a_drawing)
{
    if (system("command -v gnuplot >/dev/null") != 0)
        cr_skip_test("gnuplot is not installed");
    const char *const files[] = {"bench.html", "bench.svg"}, *const ends[] = {"</html>\n", "</svg>\n"};
    for (int i = 0; i < 2; i++) {
        struct heard h =
            program_run("--part gate --only 'gate, softmax-topk E=8' --quick --repeats 2 --wait 0 --plot %s", files[i]);
        cr_assert_eq(h.status, 0, "%s", h.err);
        expect_ends(files[i], ends[i]);
        program_forget(&h);
    }
}

Test(bench, refuses_what_it_does_not_know)
{
    static const char *const calls[] = {"--part nothing", "--repeats 0", "--repeats x", "--what", "--db", "word"};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        struct heard h = program_run("%s", calls[i]);
        cr_expect_eq(h.status, 2, "%s", calls[i]);
        cr_expect(strncmp(h.err, "moesim-bench: ", 14) == 0, "%s: %s", calls[i], h.err);
        program_forget(&h);
    }
}

Test(bench, names_its_figures)
{
    struct heard h = program_run("--list");
    cr_assert_eq(h.status, 0, "%s", h.err);
    const char *const some[] = {"machine    multiply-adds", "route      softmax-topk E=64 k=2",
                                "routers    deepseek-v3", "layer      dense-4096 fwd+bwd", "growth     tokens"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        cr_expect(strstr(h.out, some[i]) != NULL, "%s is not listed", some[i]);
    program_forget(&h);
}
