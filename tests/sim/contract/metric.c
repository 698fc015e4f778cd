/*
 * The table, and every metric computed beside it, by hand.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/metric.h>

TestSuite(metric, .timeout = 60);

Test(metric, table_is_whole)
{
    for (int i = 0; i < MOESIM_N_METRICS; i++) {
        const struct moesim_metric *m = &moesim_metrics[i];
        cr_assert(m->name && m->unit && m->meaning && m->formula && m->defined, "row %d", i);
        cr_assert(*m->meaning && *m->formula && *m->defined, "%s", m->name);
        cr_assert_eq(moesim_metric_find(m->name), i);
        const bool measured = !strncmp(m->name, "cpu_", 4) || !strncmp(m->name, "bench_", 6);
        cr_assert_eq(m->kind == MOESIM_MEASURED, measured, "%s", m->name);
        cr_assert_eq(m->fold == MOESIM_FOLD_MEDIAN, measured, "%s", m->name);
        const bool total = i == MOESIM_BAD_ROWS || i == MOESIM_BYTES_MIGRATION || i == MOESIM_TIME_MIGRATION;
        cr_assert_eq(m->fold == MOESIM_FOLD_TOTAL, total, "%s", m->name);
    }
    cr_assert_eq(moesim_metric_find("load_cw"), -1);
    cr_assert_eq(moesim_metric_find(""), -1);
    cr_assert_eq(moesim_metrics[MOESIM_TIME_LAYER].kind, MOESIM_MODELLED);
    cr_assert_eq(moesim_metrics[MOESIM_FLOP_EXPERT].kind, MOESIM_MODELLED);
    cr_assert_eq(moesim_metrics[MOESIM_LOAD_CV].kind, MOESIM_COUNTED);
    cr_assert_eq(moesim_metrics[MOESIM_BALANCEDNESS].better, MOESIM_HIGHER);
}

/* Counts (6, 4, 4, 2): mean 4, population variance (4 + 0 + 0 + 4) / 4 = 2, CV^2 = 2 / 16; Gini, entropy: reference
 * values of the field's definitions, H = 1.3208883. (8, 0, 0, 0): all on one. */
Test(metric, load_metrics_by_hand)
{
    const double a[] = {6, 4, 4, 2}, one[] = {8, 0, 0, 0}, even[] = {4, 4, 4, 4}, none[4] = {0}, single[] = {5};
    double scratch[4];
    cr_assert_float_eq(moesim_load_cv(a, 4), sqrt(.125), 1e-15);
    cr_assert_float_eq(moesim_max_vio(a, 4), .5, 1e-15);
    cr_assert_float_eq(moesim_load_gini(a, 4, scratch), .1875, 1e-15);
    cr_assert_float_eq(moesim_load_entropy(a, 4), .9528195, 1e-7);
    cr_assert_float_eq(moesim_load_entropy(a, 4) * log(4), 1.3208883, 1e-7);

    cr_assert_float_eq(moesim_load_cv(one, 4), sqrt(3), 1e-15);
    cr_assert_eq(moesim_max_vio(one, 4), 3);
    cr_assert_eq(moesim_load_gini(one, 4, scratch), .75);
    cr_assert_eq(moesim_load_entropy(one, 4), 0);

    cr_assert_eq(moesim_load_cv(even, 4), 0);
    cr_assert_eq(moesim_max_vio(even, 4), 0);
    cr_assert_eq(moesim_load_gini(even, 4, scratch), 0);
    cr_assert_float_eq(moesim_load_entropy(even, 4), 1, 1e-15);

    cr_assert_eq(moesim_load_cv(single, 1), 0);
    cr_assert_eq(moesim_max_vio(single, 1), 0);
    cr_assert_eq(moesim_load_gini(single, 1, scratch), 0);
    cr_assert_eq(moesim_load_entropy(single, 1), 1);

    cr_assert(isnan(moesim_load_cv(none, 4)) && isnan(moesim_max_vio(none, 4)));
    cr_assert(isnan(moesim_load_gini(none, 4, scratch)) && isnan(moesim_load_entropy(none, 4)));

    /* q = (.375, .25, .25, .125) against (.25, .25, .25, .25) */
    cr_assert_float_eq(moesim_load_churn(a, even, 4), .125, 1e-15);
    cr_assert_eq(moesim_load_churn(one, (double[]){0, 8, 0, 0}, 4), 1);
    cr_assert_eq(moesim_load_churn(a, (double[]){12, 8, 8, 4}, 4), 0);
    cr_assert(isnan(moesim_load_churn(a, none, 4)) && isnan(moesim_load_churn(none, a, 4)));
}

Test(metric, scores_by_hand)
{
    /* softmax (1/2, 1/4, 1/4): H = 1.5 ln 2, logsumexp 0; shifted by 3: 3; zeros: H = ln 3, logsumexp ln 3 */
    const float ln2 = 0.69314718f;
    const float rows[4][4] = {{-ln2, -2 * ln2, -2 * ln2, 99},
                              {3 - ln2, 3 - 2 * ln2, 3 - 2 * ln2, 99},
                              {0, 0, 0, 99},
                              {NAN, INFINITY, -INFINITY, 99}};
    const double h = 1.5 * log(2), z = log(3) * log(3);
    cr_assert_float_eq(moesim_router_confidence(rows[0], 4, 1, 3).entropy, h, 1e-6);
    cr_assert_float_eq(moesim_router_confidence(rows[0], 4, 1, 3).z, 0, 1e-6);
    cr_assert_float_eq(moesim_router_confidence(rows[0], 4, 4, 3).entropy, (2 * h + log(3)) / 3, 1e-6);
    cr_assert_float_eq(moesim_router_confidence(rows[0], 4, 4, 3).z, (0 + 9 + z) / 3, 1e-5);
    cr_assert(isnan(moesim_router_confidence(rows[3], 4, 1, 3).entropy));
    cr_assert(isnan(moesim_router_confidence(rows[3], 4, 1, 3).z));
    cr_assert(isnan(moesim_router_confidence(rows[0], 4, 0, 3).entropy));
    const float sharp[] = {0, -200, 5, NAN}; /* one expert takes all but e^-5; NaN counts nothing */
    const double p = 1 / (1 + exp(-5));
    cr_assert_float_eq(moesim_router_confidence(sharp, 4, 1, 4).entropy, -p * log(p) - (1 - p) * log(1 - p), 1e-6);
    cr_assert_float_eq(moesim_router_confidence(sharp, 4, 1, 4).z, pow(5 + log1p(exp(-5)), 2), 1e-4);
    const float endless[] = {INFINITY, 1, 1, -INFINITY}; /* the infinite one has all; z is of the finite ones */
    cr_assert_float_eq(moesim_router_confidence(endless, 4, 1, 4).entropy, 0, 1e-6);
    cr_assert_float_eq(moesim_router_confidence(endless, 4, 1, 4).z, pow(1 + log(2), 2), 1e-6);
    const float huge[] = {1e38f, -1e38f};
    cr_assert_float_eq(moesim_router_confidence(huge, 2, 1, 2).z, 1e76, 1e70);
    cr_assert_float_eq(moesim_router_confidence(huge, 2, 1, 2).entropy, 0, 1e-6);
}

/* Against double and the C library over many rows, which also crosses the runs. */
Test(metric, scores_against_a_double_reference)
{
    enum { T = 3000, E = 130 };
    static float logits[T][E];
    uint64_t bits = 1;
    double entropy = 0, size = 0;
    for (int t = 0; t < T; t++) {
        double sum = 0, row = 0;
        for (int e = 0; e < E; e++) {
            bits = bits * UINT64_C(6364136223846793005) + 1442695040888963407u;
            logits[t][e] = (float)((double)(bits >> 40) * 0x1p-24 * 12 - 6);
            sum += exp(logits[t][e]);
        }
        for (int e = 0; e < E; e++) {
            const double p = exp(logits[t][e]) / sum;
            row -= p * log(p);
        }
        entropy += row / T;
        size += log(sum) * log(sum) / T;
    }
    cr_assert_float_eq(moesim_router_confidence(logits[0], E, T, E).entropy, entropy, 1e-5);
    cr_assert_float_eq(moesim_router_confidence(logits[0], E, T, E).z, size, 1e-5);
}
