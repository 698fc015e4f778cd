/*
 * The report of a study that trained: its curves are the means of the store's series, its tables the figures of SQL,
 * and what makes no sense in a store is left out.
 */
#include <criterion/criterion.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/compare.h"
#include "analysis/training.h"
#include "report_fixture.h"
#include "sample_training.h"

TestSuite(training, .timeout = 60);

static const char *const routers[] = {"softmax-topk", "switch:capacity_factor=1.25", "relu"};
static const char *const workloads[] = {"text:files=a", "text:files=b"};

static struct sample sample(void)
{
    return (struct sample){.study = "training",
                           .router = routers,
                           .workload = workloads,
                           .n_routers = 3,
                           .n_workloads = 1,
                           .n_seeds = 3,
                           .n_experts = 8,
                           .n_windows = 5,
                           .with_cluster = true,
                           .with_loads = true,
                           .trained = true};
}

static void load(struct results_store *store, struct moesim_arena *arena, struct report_data *data,
                 struct training *training)
{
    struct moesim_error err;
    cr_assert_eq(report_load(store, NULL, arena, data, &err), MOESIM_OK, "%s", err.text);
    cr_assert(training_any(data));
    cr_assert_eq(training_load(store, data, training, &err), MOESIM_OK, "%s", err.text);
}

Test(training, curves_are_means_and_ranges_over_seeds)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct moesim_arena *arena = moesim_arena_create(0);
    struct report_data data;
    struct training training;
    load(store, arena, &data, &training);
    for (uint32_t r = 0; r < 3; r++) {
        const struct training_curve *bits = training_curve_of(&training, r, MOESIM_BITS_PER_BYTE);
        cr_assert_eq(bits->n, SAMPLE_VALIDATIONS);
        for (uint32_t v = 0; v < bits->n; v++) {
            double sum = 0.0, low = INFINITY, high = -INFINITY;
            for (uint32_t s = 0; s < 3; s++) {
                const double value = sample_bits(r, s, v, SAMPLE_DOMAINS);
                sum += value;
                low = fmin(low, value);
                high = fmax(high, value);
            }
            cr_expect_eq(bits->point[v].step, (v + 1) * SAMPLE_EVERY - 1);
            cr_expect_float_eq(bits->point[v].mean, sum / 3, 1e-12);
            cr_expect(bits->point[v].low == low && bits->point[v].high == high);
        }
        cr_expect_eq(training_curve_of(&training, r, MOESIM_ROUTING_FLUCTUATION)->n, SAMPLE_VALIDATIONS - 1);
        cr_expect_eq(training_curve_of(&training, r, MOESIM_TRAIN_LOSS)->n, 0, "not drawn, not read");
    }
    /* What a batch costs is summed up over the batches. */
    const struct training_curve *flop = training_curve_of(&training, 1, MOESIM_FLOP_TRAIN);
    for (uint32_t v = 0; v < flop->n; v++)
        cr_expect_float_eq(flop->point[v].mean, 3.1e11 * 1.2 * (v + 1) * SAMPLE_EVERY, 1e3);
    /* Layers of the sample lie as far above the mean as below it. */
    cr_expect_float_eq(training_curve_of(&training, 0, MOESIM_DEAD_EXPERTS)->point[SAMPLE_VALIDATIONS - 1].mean, 9.0,
                       1e-9);
    moesim_arena_destroy(arena);
    results_close(store);
}

Test(training, page_shows_the_numbers_of_the_store)
{
    struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    report_new_folder();
    char *page = report_read(store, &result);
    report_check_contained(page);
    report_expect(page, "bits_per_byte, bit<small>counted, lower is better");
    report_expect(page, "<h2>Bits per byte by domain</h2>");
    report_expect(page, "wiki &amp; more");
    report_expect(page, "<h2>What each expert takes</h2>");
    report_expect(page, "Layer 1, the last with experts");
    report_expect(page, "<code>&lt;b&gt;</code>");
    for (uint32_t d = 0; d <= SAMPLE_DOMAINS; d++) /* the first router is the best on all domains */
        for (uint32_t r = 0; r < 3; r++) {
            double sum = 0.0;
            char cell[64];
            for (uint32_t s = 0; s < 3; s++)
                sum += sample_bits(r, s, SAMPLE_VALIDATIONS - 1, d);
            snprintf(cell, sizeof cell, "<td%s>%.3f<small>", r == 0 ? " class=\"best\"" : "", sum / 3);
            report_expect(page, cell);
        }
    /* Against the baseline by the compared pairs. */
    report_expect(page, "<span class=\"worse\">worse</span>");
    if (report_have_gnuplot()) {
        report_expect(page, "id=\"figure-loss\"");
        report_expect(page, "id=\"figure-settling\"");
        report_expect(page, "id=\"figure-specialisation\"");
        report_expect(page, "Difference in bits_per_byte, paired by seed");
        cr_expect_eq(result.n_figures, 8);
        cr_expect_eq(report_check_files(), 8);
        report_check_inline(page);
    }
    free(page);
    report_remove_folder();
    results_close(store);
}

/* A router that is even by construction does not make the axis linear, which would flatten the others. */
Test(training, what_is_even_is_on_the_foot_of_a_logarithmic_axis)
{
    static const char *const four[] = {"softmax-topk", "switch", "relu", "expert-choice"};
    struct sample made = sample();
    made.router = four;
    for (made.n_routers = 3; made.n_routers <= 4; made.n_routers++) {
        struct results_store *store = report_open(&made, false);
        struct analysis_report_result result;
        report_new_folder();
        char *page = report_read(store, &result);
        if (report_have_gnuplot())
            cr_expect((strstr(page, "on the foot of a logarithmic axis: even") != NULL) == (made.n_routers == 4));
        free(page);
        report_remove_folder();
        results_close(store);
    }
}

/* The favourite token of the busiest expert, by SQL. */
Test(training, experts_take_what_the_store_says)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct analysis_report_result result;
    struct results_query *query;
    struct moesim_error err;
    bool row;
    report_new_folder();
    char *page = report_read(store, &result);
    const char *table = strstr(page, "<caption><bdi>relu</bdi></caption>");
    cr_assert(table);
    cr_assert_eq(
        results_query(store,
                      "WITH s AS (SELECT v.* FROM v_specialisation v JOIN v_runs r ON r.run = v.run WHERE r.router = "
                      "'relu' AND r.seed = 1 AND layer = 1), e AS (SELECT expert, 100.0 * sum(assigned) / sum(tokens) "
                      "AS share FROM s WHERE kind = 'domain' GROUP BY expert ORDER BY share DESC, expert LIMIT 1) "
                      "SELECT e.expert, e.share, s.subject, 100.0 * s.assigned / s.tokens AS takes FROM e JOIN s ON "
                      "s.expert = e.expert AND s.kind = 'token' ORDER BY takes DESC LIMIT 1",
                      NULL, 0, &query, &err),
        MOESIM_OK, "%s", err.text);
    cr_assert(results_next(query, &row, &err) == MOESIM_OK && row);
    char text[160];
    snprintf(text, sizeof text, "<tr><th scope=\"row\">%" PRId64 "</th><td>%.0f %%</td>", results_integer(query, 0),
             results_number(query, 1));
    const char *line = strstr(table, "<tbody>\n") + 8;
    cr_expect(!strncmp(line, text, strlen(text)), "wanted %s: %.80s", text, line);
    snprintf(text, sizeof text, "<code>%s</code> <small>%.0f %%</small>", results_text(query, 2),
             results_number(query, 3));
    const char *found = strstr(line, "<code>");
    cr_expect(found && !strncmp(found, text, strlen(text)), "wanted %s: %.80s", text, found);
    results_query_close(query);
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(training, smallest_and_several_workloads)
{
    struct analysis_report_result result;
    struct sample made = sample();
    made.n_routers = made.n_seeds = made.n_experts = made.n_windows = 1;
    made.with_cluster = false;
    struct results_store *store = report_open(&made, false);
    report_new_folder();
    char *page = report_read(store, &result); /* one of everything, nothing to compare */
    if (report_have_gnuplot())
        cr_expect_eq(result.n_figures, 5);
    report_check_files();
    cr_expect_null(strstr(page, "modelled time on the study's cluster"));
    cr_expect_null(strstr(page, "class=\"best\">"), "nobody is the best of one");
    free(page);
    results_close(store);

    made = sample();
    made.n_workloads = 2;
    store = report_open(&made, true);
    page = report_read(store, &result);
    report_expect(page, " of workload <bdi>text:files=a</bdi>");
    report_check_files();
    free(page);
    report_remove_folder();
    results_close(store);
}

Test(training, other_studies_have_none_of_it)
{
    struct analysis_report_result result;
    struct sample made = sample();
    made.trained = false;
    struct results_store *store = report_open(&made, false);
    report_new_folder();
    char *page = report_read(store, &result);
    static const char *const foreign[] = {"takers", "per byte", "pecialisation", "Balance over training"};
    for (uint32_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        cr_expect_null(strstr(page, foreign[i]), "%s", foreign[i]);
    report_expect(page, "Difference in max_vio");
    free(page);
    report_remove_folder();
    results_close(store);
}

/* A run whose domains and tokens are `names` [n]; every second one has a mean that is no number and no tokens. */
static void write_run(struct results_store *store, int64_t study, const char *router, uint32_t n_experts, bool uneven,
                      char names[][64], uint32_t n)
{
    enum { MAX = 8 };
    static uint64_t assigned[] = {5, 0, 900, 7};
    struct moesim_summary summary = {
        .layer = MOESIM_ALL_LAYERS, .metric = MOESIM_BITS_PER_BYTE, .value = 2.0, .mean = 2.0, .n = 1};
    struct moesim_sample series[] = {{4000000000u, 0, MOESIM_BITS_PER_BYTE, 2.0},
                                     {0, 0, MOESIM_BITS_PER_BYTE, NAN},
                                     {1, 0, MOESIM_MAX_VIO, INFINITY},
                                     {1, 0, MOESIM_FLOP_TRAIN, -1.0}};
    struct moesim_domain_loss loss[MAX];
    struct moesim_specialisation special[2 * MAX];
    for (uint32_t i = 0; i < n; i++) {
        loss[i] = (struct moesim_domain_loss){7, names[i], 0, i % 2 ? (double)NAN : 1e300};
        for (uint32_t kind = 0; kind < 2; kind++)
            special[2 * i + kind] =
                (struct moesim_specialisation){3,
                                               kind,
                                               names[i],
                                               kind == MOESIM_SUBJECT_DOMAIN ? 1000 : i % 2 ? 0 : 100,
                                               uneven ? 1 + i % 4 : n_experts,
                                               assigned};
    }
    const struct moesim_outcome outcome = {.summary = &summary,
                                           .n_summaries = 1,
                                           .series = series,
                                           .n_series = 4,
                                           .domain_loss = loss,
                                           .n_domain_losses = n,
                                           .specialisation = special,
                                           .n_specialisations = 2 * n};
    const struct results_param param[] = {{"router", router, false, 0.0}, {"workload", "text", false, 0.0}};
    const struct results_run run = {.study = study,
                                    .hash = strlen(router),
                                    .seed = 1,
                                    .params_json = "{}",
                                    .params = param,
                                    .n_params = 2,
                                    .outcome = &outcome};
    struct moesim_error err;
    int64_t id;
    cr_assert_eq(results_write(store, &run, &id, &err), MOESIM_OK, "%s", err.text);
}

/* Routing that is not whole is left out, and strange names are only text. */
Test(training, takes_a_store_as_it_is)
{
    static char names[][64] = {"<script>alert(1)</script>", "a\"b`c'\\n\t\x01", "\xff\xfe", "\u202e\u05e9", ""};
    struct results_store *store = report_open(NULL, false);
    struct moesim_error err;
    int64_t study;
    cr_assert_eq(results_study(store, "hostile", 1, "{}", &study, &err), MOESIM_OK);
    write_run(store, study, "plain", 4, false, names, 5);
    write_run(store, study, names[0], 0, true, names, 5);
    write_run(store, study, names[1], 0, false, names, 5);
    write_run(store, study, names[2], 1, false, names, 5);
    struct analysis_report_result result;
    report_new_folder();
    char *page = report_read(store, &result);
    report_check_contained(page);
    report_check_inline(page);
    report_check_files();
    report_expect(page, "<code>&lt;script&gt;alert(1)&lt;/script&gt;</code>");
    free(page);
    report_remove_folder();
    results_close(store);
}

/* Domains are named by path: the folder they share is left out. */
Test(training, domains_of_one_folder)
{
    static char names[][64] = {"/data/texts/code", "/data/texts/code more", "/data/texts/prose/de"};
    struct results_store *store = report_open(NULL, false);
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(0);
    struct report_data data;
    struct training training;
    int64_t study;
    cr_assert_eq(results_study(store, "paths", 1, "{}", &study, &err), MOESIM_OK);
    write_run(store, study, "plain", 4, false, names, 3);
    load(store, arena, &data, &training);
    cr_assert_eq(training.n_domains, 2);
    cr_expect_str_eq(training.domain[0].name, "code");
    cr_expect_str_eq(training.domain[1].name, "prose/de");
    cr_assert_eq(training.routing[0].n[MOESIM_SUBJECT_DOMAIN], 3);
    cr_expect_str_eq(training.routing[0].subject[MOESIM_SUBJECT_DOMAIN][1].name, "code more");
    cr_expect_str_eq(training.routing[0].subject[MOESIM_SUBJECT_TOKEN][0].name, "/data/texts/code");
    moesim_arena_destroy(arena);
    results_close(store);
}

/* bits_per_byte is compared unasked, and lower is better. */
Test(training, compare_knows_it)
{
    const struct sample made = sample();
    struct results_store *store = report_open(&made, false);
    struct moesim_arena *arena = moesim_arena_create(0);
    struct analysis_comparison comparison;
    struct moesim_error err;
    uint32_t n = 0;
    cr_assert_eq(analysis_compare(store, NULL, "relu", NULL, 0, true, arena, &comparison, &err), MOESIM_OK);
    for (uint32_t i = 0; i < comparison.n_differences; i++) {
        const struct analysis_difference *d = &comparison.difference[i];
        if (d->metric != MOESIM_BITS_PER_BYTE)
            continue;
        n++;
        cr_expect_eq(d->verdict, d->difference < 0.0 ? ANALYSIS_BETTER : ANALYSIS_WORSE);
        cr_expect_eq(d->n_seeds, 3);
    }
    cr_expect_eq(n, 2);
    moesim_arena_destroy(arena);
    results_close(store);
}
