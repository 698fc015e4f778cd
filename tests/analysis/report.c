/*
 * The report from a store made here: its numbers are those of SQL, its figures are whole, and nothing in a name is ever
 * more than text.
 */
#include <criterion/criterion.h>

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "analysis/compare.h"
#include "analysis/figures/figure.h"
#include "analysis/file.h"
#include "analysis/report.h"
#include "report_fixture.h"
#include "sample_store.h"

TestSuite(report, .timeout = 60);

static const char *const routers[] = {"softmax-topk", "switch:capacity_factor=1.25", "switch:capacity_factor=2"};
static const char *const workloads[] = {"gaussian", "zipf:alpha=1.2"};

/* The figures of a study that did not train. */
enum { N_FIGURES = 7 };

static struct sample sample(void)
{
    return (struct sample){.study = "capacity",
                           .router = routers,
                           .workload = workloads,
                           .n_routers = 3,
                           .n_workloads = 2,
                           .n_seeds = 4,
                           .n_experts = 16,
                           .n_windows = 5,
                           .with_cluster = true,
                           .with_loads = true,
                           .with_traffic = true};
}

/* Means by SQL alone stand in the page as cells. */
static void check_numbers(struct results_store *store, const char *page)
{
    struct results_query *query;
    struct moesim_error err;
    bool row;
    uint32_t n = 0;
    cr_assert_eq(results_query(store,
                               "SELECT router, workload, avg(max_vio), 100 * avg(dropped_fraction), "
                               "1e6 * avg(cpu_time_route) FROM v_runs WHERE state = 'done' GROUP BY router, workload",
                               NULL, 0, &query, &err),
                 MOESIM_OK, "%s", err.text);
    while (results_next(query, &row, &err) == MOESIM_OK && row) {
        for (uint32_t i = 2; i < 5; i++) {
            char number[24], cell[48];
            figure_number(number, results_number(query, i));
            snprintf(cell, sizeof cell, "<td>%s<", number);
            cr_expect(strstr(page, cell), "%s on %s: no cell %s", results_text(query, 0), results_text(query, 1), cell);
        }
        n++;
    }
    results_query_close(query);
    cr_expect_eq(n, 6);
}

Test(report, shows_the_numbers_of_the_store)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, true);
    struct analysis_report_result result;
    report_new_folder();
    char *page = report_read(store, &result);
    check_numbers(store, page);
    report_check_contained(page);
    report_expect(page, "23 runs");
    report_expect(page, "1 failed run");
    report_expect(page, "worker ended by signal 11 &lt;segmentation fault&gt;");
    report_expect(page, "4 seeds (1-4)");
    report_expect(page, "OpenBLAS 0.3.21");
    report_expect(page, "abc1234");
    report_expect(page, "9.9.9");
    report_expect(page, "time_layer, ms<small>modelled");
    report_expect(page, "measured here");
    if (report_have_gnuplot()) {
        cr_expect_eq(result.n_figures, N_FIGURES);
        cr_expect_eq(report_check_files(), N_FIGURES);
        report_check_inline(page);
    }
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(report, shows_the_differences_of_the_comparison)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    struct analysis_comparison comparison;
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(0);
    const uint32_t metric = MOESIM_MAX_VIO;
    report_new_folder();
    char *page = report_read(store, &result);
    cr_assert_eq(analysis_compare(store, NULL, NULL, &metric, 1, true, arena, &comparison, &err), MOESIM_OK);
    cr_expect_eq(comparison.n_differences, 4);
    for (uint32_t i = 0; i < comparison.n_differences; i++) {
        const struct analysis_difference *d = &comparison.difference[i];
        const int decimals = 1 - (int)floor(log10((d->high - d->low) / 2.0)); /* two digits of the half-width */
        char text[96];
        snprintf(text, sizeof text, "<small>%s%.*f [", d->difference < 0.0 ? "\u2212" : "+", decimals,
                 fabs(d->difference));
        report_expect(page, text);
        cr_expect_eq(d->verdict, ANALYSIS_BETTER);
    }
    report_expect(page, "<span class=\"better\">better</span>");
    report_expect(page, "Fewer than ten seeds");
    free(page);
    report_remove_folder();
    moesim_arena_destroy(arena);
    results_close(store);
}

Test(report, takes_names_as_text)
{
    static char longest[301];
    memset(longest, 'w', 300);
    static const char *const hostile[] = {
        "<script>alert(1)</script>",
        "a\"b`touch moesim-was-here`'c\\n$(touch moesim-was-here)",
        "x\x01\x1b[31m\ty\nz\xff\xfe\xed\xa0\x80",
        "</svg></title><img src=x onerror=alert(1)>&amp;&#0;",
        "\u202e\u05e9\u05dc\u05d5\u05dd \u65e5\u672c\u8a9e \U0001f389 @{x}_^2 %n%s id='a' url(#b)",
        longest};
    struct sample made = sample();
    made.study = "'; DROP TABLE run; --<b>";
    made.router = made.workload = hostile;
    made.n_routers = 6;
    made.n_workloads = 6;
    made.n_seeds = 2;
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    report_new_folder();
    char *page = report_read(store, &result);
    report_expect(page, "&lt;script&gt;alert(1)&lt;/script&gt;");
    report_expect(page, "a&quot;b`touch moesim-was-here`&#39;c\\n$(touch moesim-was-here)");
    report_expect(page, "&lt;/svg&gt;&lt;/title&gt;&lt;img src=x onerror=alert(1)&gt;&amp;amp;&amp;#0;");
    report_expect(page, "x\ufffd\ufffd[31m\ufffdy\ufffdz\ufffd\ufffd");
    report_expect(page, longest);
    report_check_contained(page);
    report_check_inline(page);
    cr_expect_neq(access("moesim-was-here", F_OK), 0);
    if (report_have_gnuplot()) {
        cr_expect_eq(result.n_figures, 6);
        report_check_files();
    }
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(report, works_without_gnuplot)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    report_new_folder();
    cr_assert_eq(setenv("PATH", "/nonexistent", 1), 0);
    char *page = report_read(store, &result);
    check_numbers(store, page);
    report_check_contained(page);
    report_expect(page, "gnuplot-nox");
    cr_expect(result.without_gnuplot);
    cr_expect_eq(result.n_figures, 0);
    cr_expect_eq(report_check_files(), 0);
    free(page);
    report_remove_folder();
    results_close(store);
}

/* A gnuplot that ends well and wrote nothing whole, as on a full disk. */
Test(report, trusts_no_figure_unseen)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    struct moesim_error err;
    char path[128];
    static const char fake[] =
        "#!/bin/sh\nprintf '<svg>' > figure.svg\necho svg > whole.txt\necho no space >&2\nexit 0\n";
    report_new_folder();
    snprintf(path, sizeof path, "%s/gnuplot", report_folder);
    cr_assert_eq(file_write(path, fake, strlen(fake), &err), MOESIM_OK);
    cr_assert_eq(chmod(path, 0700), 0);
    cr_assert_eq(setenv("PATH", report_folder, 1), 0);
    char *page = report_read(store, &result);
    cr_expect_not(result.without_gnuplot);
    cr_expect_eq(result.n_figures, 0);
    cr_expect_eq(report_check_files(), 0);
    report_expect(page, "gnuplot (status 0): no space");
    free(page);
    unlink(path);
    report_remove_folder();
    results_close(store);
}

Test(report, draws_only_what_has_data)
{
    struct analysis_report_result result;
    struct sample made = sample();
    made.n_routers = made.n_workloads = made.n_seeds = made.n_experts = made.n_windows = 1;
    struct results_store *store = report_open(&made, false);
    report_new_folder();
    char *page = report_read(store, &result); /* one of everything */
    if (report_have_gnuplot()) {
        cr_expect_eq(result.n_figures, 5);
        cr_expect_eq(report_check_files(), 5);
    }
    report_expect(page, "Nothing to compare");
    report_expect(page, "capacity factor");
    free(page);
    results_close(store);

    made = sample();
    made.without_values = true; /* all-NaN; the figures of the first report go */
    made.with_loads = made.with_traffic = false;
    store = report_open(&made, false);
    page = report_read(store, &result);
    cr_expect_eq(result.n_figures, 0);
    cr_expect_eq(report_check_files(), 0);
    report_expect(page, "No modelled cost: give the study a cluster");
    report_expect(page, "record: [expert_load]");
    report_expect(page, "record: [traffic]");
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(report, many_routers_and_experts)
{
    enum { N = 40 };
    static char name[N][64];
    const char *spec[N];
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name[i], sizeof name[i], "router-number-%u:capacity_factor=%g,priority=bpr", i / 3,
                 1.0 + 0.5 * (i % 3));
        spec[i] = name[i];
    }
    struct sample made = sample();
    made.router = spec;
    made.n_routers = N;
    made.n_seeds = 2;
    made.n_experts = 512;
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    report_new_folder();
    char *page = report_read(store, &result);
    report_check_contained(page);
    if (report_have_gnuplot()) {
        cr_expect_eq(result.n_figures, N_FIGURES);
        cr_expect_eq(report_check_files(), N_FIGURES);
    }
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(report, refuses_in_one_sentence)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    struct moesim_error err;
    static const char *const folders[] = {"/proc/no/such/report_folder", "/dev/null", "/dev/null/report", ""};
    for (uint32_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        const struct analysis_report_options options = {.directory = folders[i]};
        cr_expect_eq(analysis_report(store, &options, &result, &err), MOESIM_EIO, "'%s'", folders[i]);
        cr_expect(strlen(err.text) > 10);
    }
    report_new_folder();
    const struct analysis_report_options unknown = {.directory = report_folder, .study = "no-such-study"};
    cr_expect_eq(analysis_report(store, &unknown, &result, &err), MOESIM_EINVAL);
    const struct analysis_report_options baseline = {.directory = report_folder, .baseline = "softmax-topq"};
    cr_expect_eq(analysis_report(store, &baseline, &result, &err), MOESIM_EINVAL);
    report_expect(err.text, "softmax-topk");
    results_close(store);

    store = report_open(NULL, false);
    const struct analysis_report_options options = {.directory = report_folder};
    cr_expect_eq(analysis_report(store, &options, &result, &err), MOESIM_EINVAL);
    results_close(store);
    report_remove_folder();
}
