/* moesim fidelity from end to end. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

TestSuite(fidelity, .init = program_enter_folder, .fini = program_leave_folder, .timeout = 200);

Test(fidelity, prints_what_was_calibrated_and_what_fails)
{
    struct heard h = program_run("fidelity");
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_expect(strstr(h.out, "Calibrated: both start-ups, NIC and NVLink of the low-latency transport on EP8\n"
                            "  and EP16 from 32 tokens up."));
    cr_expect(strstr(h.out, "known failure"));
    cr_expect(strstr(h.out, "3  below 32 tokens: mean <= 5 %, max <= 15 % is promised; "));
    cr_expect(strstr(h.out, "Skipped: needs moe_compute_h100_bf16.csv (--data)."));
    cr_expect(strstr(h.out, "EP256, 128 tokens, combine"));
    cr_expect(strstr(h.out, "0 are missed"));
    cr_expect(strstr(h.err, "5 tables were skipped; --data DIR reads them"));
    program_forget(&h);
}

/* As a terminal of 80 columns shows it. */
Test(fidelity, fits)
{
    const char *data = getenv("MOESIM_TEST_DATA");
    struct heard h = data ? program_run("fidelity --points --data %s", data) : program_run("fidelity --points");
    cr_assert_eq(h.status, 0, "%s", h.err);
    for (char *rest = h.out, *line; (line = strsep(&rest, "\n")) != NULL;)
        cr_expect_leq(strlen(line), 80, "%s", line);
    program_forget(&h);
}

Test(fidelity, json_has_every_point)
{
    struct heard h = program_run("fidelity --json");
    cr_assert_eq(h.status, 0, "%s", h.err);
    json_t *all = json_loads(h.out, 0, NULL);
    cr_assert(json_is_array(all));
    size_t i, figures = 0;
    json_t *table;
    json_array_foreach(all, i, table)
    {
        cr_assert(json_is_string(json_object_get(table, "table")) && json_is_array(json_object_get(table, "parts")));
        figures += json_array_size(json_object_get(table, "points"));
        if (strcmp(json_string_value(json_object_get(table, "table")), "deepep_h100_ll") == 0) {
            cr_expect_eq(json_array_size(json_object_get(table, "points")), 112);
            cr_expect_eq(json_array_size(json_object_get(table, "constants")), 4);
            const json_t *held = json_array_get(json_object_get(table, "parts"), 1);
            cr_expect_str_eq(json_string_value(json_object_get(held, "verdict")), "holds");
            cr_expect_lt(json_real_value(json_object_get(held, "mean")), 0.05);
        }
    }
    cr_expect_gt(figures, 180);
    json_decref(all);
    program_forget(&h);
}

Test(fidelity, refusals)
{
    struct heard h = program_run("fidelity --data nowhere");
    cr_expect_eq(h.status, 4);
    cr_expect(strstr(h.err, "nowhere is no folder that can be read"), "%s", h.err);
    cr_expect_str_empty(h.out);
    program_forget(&h);
    program_write("nccl_intranode.csv", "gpu,op,ranks,bytes,us\nH100,alltoall,8,16777216\n");
    h = program_run("fidelity --data .");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "nccl_intranode.csv:2 has 4 cells instead of 5"), "%s", h.err);
    cr_expect_str_empty(h.out);
    program_forget(&h);
    program_write("nccl_intranode.csv", "gpu,op,ranks,bytes,us\nH100,alltoall,16,16777216,3\n");
    h = program_run("fidelity --data .");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "16 ranks; 2 to 8 are one node"), "%s", h.err);
    program_forget(&h);
    program_write("nccl_intranode.csv", "gpu,op,ranks,bytes,us\n");
    h = program_run("fidelity --data .");
    cr_expect_eq(h.status, 2);
    cr_expect(strstr(h.err, "nccl_intranode.csv has no row of H100 alltoall"), "%s", h.err);
    program_forget(&h);
    h = program_run("fidelity extra");
    cr_expect_eq(h.status, 2);
    program_forget(&h);
}

/* Another measurement than the one the presets were calibrated on is told by the exit status. */
Test(fidelity, a_preset_that_is_off)
{
    program_write("nccl_intranode.csv", "gpu,op,ranks,bytes,us\n"
                                        "H100,alltoall,8,16777216,175.66\nH100,alltoall,8,536870912,2490.42\n"
                                        "A100,alltoall,8,16777216,114.3\nA100,alltoall,8,536870912,2313.5\n"
                                        "H100,all_reduce,8,16777216,121.91\nH100,all_reduce,8,536870912,2111.06\n"
                                        "A100,all_reduce,8,16777216,216.5\nA100,all_reduce,8,536870912,4225.9\n");
    struct heard h = program_run("fidelity --data .");
    cr_expect_eq(h.status, 5, "%d: %s", h.status, h.err);
    cr_expect(strstr(h.out, "NOT THE SAME"));
    program_forget(&h);
}

/* The committed page is what the program prints with the large tables at hand. */
Test(fidelity, page)
{
    const char *data = getenv("MOESIM_TEST_DATA");
    if (!data)
        cr_skip_test("MOESIM_TEST_DATA is not set");
    char full[4096];
    snprintf(full, sizeof full, "%s/docs/fidelity.md", getenv("MOESIM_SOURCE"));
    struct heard h = program_run("fidelity --format md --data %s", data);
    char *committed = program_read(full);
    cr_assert_eq(h.status, 0, "%s", h.err);
    cr_assert_not_null(committed, "docs/fidelity.md is not there");
    cr_expect(strcmp(h.out, committed) == 0,
              "docs/fidelity.md is not up to date: moesim fidelity --format md --data %s > docs/fidelity.md", data);
    free(committed);
    program_forget(&h);
}
