/*
 * The tally: folds, percentiles, windows, the JSON that workers send.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/experiment/experiment.h"
#include "sim/experiment/tally.h"

TestSuite(tally, .timeout = 60);

static struct moesim_arena *arena;
static struct moesim_error err;
static bool all[MOESIM_N_METRICS], none[MOESIM_N_METRICS];

static void set_up(void)
{
    arena = moesim_arena_create(0);
    for (int m = 0; m < MOESIM_N_METRICS; m++)
        all[m] = moesim_metrics[m].fold != MOESIM_FOLD_LAST; /* those are kept whatever their number */
}

static void tear_down(void)
{
    moesim_arena_destroy(arena);
}

static const struct moesim_summary *find(const struct moesim_outcome *o, uint32_t metric, int32_t layer)
{
    for (uint64_t i = 0; i < o->n_summaries; i++)
        if (o->summary[i].metric == metric && o->summary[i].layer == layer)
            return &o->summary[i];
    return NULL;
}

/* By hand: of the steps 0 .. 4 the first two do not count: mean (3 + 4 + 5) / 3, one window a step from step 2 on. */
Test(tally, warm_up_is_left_out, .init = set_up, .fini = tear_down)
{
    struct moesim_tally t;
    struct moesim_outcome o = {.arena = arena};
    bool record[MOESIM_N_METRICS] = {[MOESIM_LOAD_CV] = true};
    cr_assert_eq(moesim_tally_init(&t, all, record, 1, 2, 5, 2, arena, &err), MOESIM_OK);
    for (uint32_t s = 0; s < 5; s++) {
        moesim_tally_set(&t, MOESIM_LOAD_CV, 0, s, s + 1);
        moesim_tally_loads(&t, 0, s, (uint64_t[]){s, 10}, (uint64_t[]){s, 9});
    }
    cr_assert_eq(moesim_tally_close(&t, record, true, &o, &err), MOESIM_OK);
    cr_assert(find(&o, MOESIM_LOAD_CV, 0)->value == 4 && find(&o, MOESIM_LOAD_CV, 0)->n == 3);
    cr_assert(o.n_series == 3 && o.series[0].step == 2 && o.series[0].value == 3);
    cr_assert(o.n_windows == 3 && o.window[0].first_step == 2 && o.window[2].first_step == 4);
    cr_assert(o.window[0].assigned[0] == 2 && o.window[2].kept[0] == 4);
    cr_assert_eq(find(&o, MOESIM_DEAD_EXPERTS, 0)->n, 3);
}

Test(tally, folds_and_percentiles, .init = set_up, .fini = tear_down)
{
    struct moesim_tally t;
    cr_assert_eq(moesim_tally_init(&t, all, none, 2, 0, 5, 4, arena, &err), MOESIM_OK);
    /* layer 0: 1 2 3 4 10; layer 1: undefined but for 7 in step 2 */
    const double values[] = {1, 2, 3, 4, 10};
    for (uint32_t s = 0; s < 5; s++) {
        moesim_tally_set(&t, MOESIM_LOAD_CV, 0, s, values[s]);
        moesim_tally_set(&t, MOESIM_BAD_ROWS, 0, s, values[s]);
        moesim_tally_set(&t, MOESIM_CPU_TIME_ROUTE, 0, s, values[s]);
    }
    moesim_tally_set(&t, MOESIM_LOAD_CV, 1, 2, 7);
    struct moesim_outcome o = {.arena = arena};
    cr_assert_eq(moesim_tally_close(&t, none, false, &o, &err), MOESIM_OK);
    const struct moesim_summary *s = find(&o, MOESIM_LOAD_CV, 0);
    cr_assert(s);
    cr_assert_eq(s->value, 4.0);
    cr_assert_eq(s->mean, 4.0);
    cr_assert_float_eq(s->std, sqrt(10.0), 1e-15); /* population: (9+4+1+0+36)/5 */
    cr_assert_eq(s->min, 1.0);
    cr_assert_eq(s->p50, 3.0);
    cr_assert_float_eq(s->p95, 4 + 0.8 * 6, 1e-12); /* position 3.8 of 0..4 */
    cr_assert_eq(s->max, 10.0);
    cr_assert_eq(s->n, 5);
    cr_assert_eq(find(&o, MOESIM_LOAD_CV, 1)->value, 7.0);
    cr_assert_float_eq(find(&o, MOESIM_LOAD_CV, MOESIM_ALL_LAYERS)->value, 27.0 / 6, 1e-15);
    cr_assert_eq(find(&o, MOESIM_BAD_ROWS, MOESIM_ALL_LAYERS)->value, 20.0, "a total");
    cr_assert_eq(find(&o, MOESIM_CPU_TIME_ROUTE, MOESIM_ALL_LAYERS)->value, 3.0, "a median");
    cr_assert_null(find(&o, MOESIM_TIME_LAYER, MOESIM_ALL_LAYERS), "undefined everywhere: no row");
    cr_assert_eq(o.n_series, 0);
    cr_assert_eq(o.n_windows, 0);
}

Test(tally, measured_and_recorded_metrics_only, .init = set_up, .fini = tear_down)
{
    bool measure[MOESIM_N_METRICS] = {[MOESIM_MAX_VIO] = true, [MOESIM_LOAD_CV] = true};
    bool record[MOESIM_N_METRICS] = {[MOESIM_MAX_VIO] = true, [MOESIM_LOAD_GINI] = true};
    struct moesim_tally t;
    cr_assert_eq(moesim_tally_init(&t, measure, none, 2, 0, 3, 1, arena, &err), MOESIM_OK);
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        for (uint32_t s = 0; s < 3; s++)
            moesim_tally_set(&t, m, 1, s, s + 0.5);
    struct moesim_outcome o = {.arena = arena};
    cr_assert_eq(moesim_tally_close(&t, record, false, &o, &err), MOESIM_OK);
    cr_assert_eq(o.n_summaries, 4); /* two metrics, layer 1 and all layers */
    cr_assert_eq(o.n_series, 3);
    cr_assert_eq(o.series[2].step, 2);
    cr_assert_eq(o.series[2].layer, 1);
    cr_assert_eq(o.series[2].metric, MOESIM_MAX_VIO);
    cr_assert_eq(o.series[2].value, 2.5);
}

Test(tally, windows_cover_every_step_once, .init = set_up, .fini = tear_down)
{
    for (uint32_t steps = 1; steps <= 37; steps++) {
        struct moesim_tally t;
        cr_assert_eq(moesim_tally_init(&t, all, none, 1, 0, steps, 3, arena, &err), MOESIM_OK);
        const uint64_t assigned[] = {1, 2, 0}, kept[] = {1, 1, 0};
        for (uint32_t s = 0; s < steps; s++)
            moesim_tally_loads(&t, 0, s, assigned, kept);
        struct moesim_outcome o = {.arena = arena};
        cr_assert_eq(moesim_tally_close(&t, none, true, &o, &err), MOESIM_OK);
        cr_assert_eq(o.n_windows, steps < 10 ? steps : 10);
        uint32_t next = 0;
        uint64_t total = 0;
        for (uint64_t w = 0; w < o.n_windows; w++) {
            cr_assert_eq(o.window[w].first_step, next);
            cr_assert_eq(o.window[w].assigned[1], 2 * (uint64_t)o.window[w].n_steps);
            next += o.window[w].n_steps;
            total += o.window[w].kept[0];
        }
        cr_assert_eq(next, steps);
        cr_assert_eq(total, steps);
        const struct moesim_summary *dead = find(&o, MOESIM_DEAD_EXPERTS, MOESIM_ALL_LAYERS);
        cr_assert_eq(dead->n, o.n_windows, "one value a window");
        cr_assert_eq(dead->value, 1.0);
    }
}

/* An expert that works in one step of a window is alive in it. */
Test(tally, dead_means_dead_over_a_window, .init = set_up, .fini = tear_down)
{
    struct moesim_tally t;
    cr_assert_eq(moesim_tally_init(&t, all, none, 1, 0, 20, 2, arena, &err), MOESIM_OK); /* 10 windows of 2 steps */
    const uint64_t both[] = {1, 1}, first[] = {2, 0};
    for (uint32_t s = 0; s < 20; s++)
        moesim_tally_loads(&t, 0, s, s % 4 == 0 ? both : first, first);
    struct moesim_outcome o = {.arena = arena};
    cr_assert_eq(moesim_tally_close(&t, none, false, &o, &err), MOESIM_OK);
    const struct moesim_summary *dead = find(&o, MOESIM_DEAD_EXPERTS, 0);
    cr_assert_eq(dead->value, 0.5);
    cr_assert_eq(dead->min, 0.0);
    cr_assert_eq(dead->max, 1.0);
}

Test(tally, an_outcome_survives_packing, .init = set_up, .fini = tear_down)
{
    struct moesim_summary summary[] = {{.layer = -1,
                                        .metric = 3,
                                        .value = 0.1,
                                        .mean = 1.0 / 3,
                                        .std = NAN,
                                        .min = -5e-324,
                                        .p50 = 1e308,
                                        .p95 = 0x1.fffffffffffffp+3,
                                        .max = 7,
                                        .n = 12345678901}};
    struct moesim_sample series[] = {{.step = 4, .layer = 2, .metric = 1, .value = M_PI}};
    uint64_t assigned[] = {1, UINT64_C(1) << 53, 3}, kept[] = {0, 2, 1};
    struct moesim_load_window window[] = {
        {.window = 9, .layer = 1, .first_step = 90, .n_steps = 10, .n_experts = 3, .assigned = assigned, .kept = kept}};
    struct moesim_traffic traffic[] = {{.source = 1, .target = 7, .bytes = 1e15 + 1, .link = MOESIM_LINK_LEAF_DOWN}};
    char domain[] = "code", token[] = "\u2423the";
    struct moesim_domain_loss loss[] = {{.step = 40, .domain = domain, .tokens = 1u << 20, .bits_per_byte = 1.0 / 7}};
    struct moesim_specialisation special[] = {{.layer = 3,
                                               .kind = MOESIM_SUBJECT_TOKEN,
                                               .subject = token,
                                               .tokens = 99,
                                               .n_experts = 3,
                                               .assigned = assigned}};
    const struct moesim_outcome o = {.arena = arena,
                                     .domain_loss = loss,
                                     .n_domain_losses = 1,
                                     .specialisation = special,
                                     .n_specialisations = 1,
                                     .summary = summary,
                                     .n_summaries = 1,
                                     .series = series,
                                     .n_series = 1,
                                     .window = window,
                                     .n_windows = 1,
                                     .traffic = traffic,
                                     .n_traffic = 1,
                                     .workload_provenance = "3 files, \"quoted\"\n",
                                     .kernel_path = "openblas Haswell",
                                     .note = "two \"odd\" things",
                                     .seconds = 1.25};
    size_t size;
    char *bytes = moesim_outcome_pack(&o, &size);
    cr_assert(bytes);
    struct moesim_outcome back;
    cr_assert_eq(moesim_outcome_unpack(bytes, size, arena, &back, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(back.n_summaries, 1);
    cr_assert(isnan(back.summary[0].std));
    back.summary[0].std = summary[0].std;
    cr_assert_eq(memcmp(&back.summary[0].value, &summary[0].value, 7 * sizeof(double)), 0);
    cr_assert_eq(back.summary[0].n, summary[0].n);
    cr_assert_eq(back.summary[0].layer, -1);
    cr_assert_eq(back.series[0].value, M_PI);
    cr_assert_eq(back.window[0].assigned[1], UINT64_C(1) << 53);
    cr_assert_eq(back.window[0].n_experts, 3);
    cr_assert_eq(back.window[0].first_step, 90);
    cr_assert_eq(back.traffic[0].bytes, 1e15 + 1);
    cr_assert(back.traffic[0].link == MOESIM_LINK_LEAF_DOWN && back.traffic[0].target == 7);
    cr_assert(back.n_domain_losses == 1 && back.domain_loss[0].step == 40 && back.domain_loss[0].tokens == 1u << 20);
    cr_assert_str_eq(back.domain_loss[0].domain, "code");
    cr_assert_eq(back.domain_loss[0].bits_per_byte, 1.0 / 7);
    cr_assert(back.n_specialisations == 1 && back.specialisation[0].layer == 3 && back.specialisation[0].tokens == 99);
    cr_assert(back.specialisation[0].kind == MOESIM_SUBJECT_TOKEN && back.specialisation[0].n_experts == 3);
    cr_assert_str_eq(back.specialisation[0].subject, token);
    cr_assert_eq(back.specialisation[0].assigned[1], UINT64_C(1) << 53);
    cr_assert_str_eq(back.workload_provenance, o.workload_provenance);
    cr_assert_str_eq(back.kernel_path, "openblas Haswell");
    cr_assert_str_eq(back.note, o.note);
    cr_assert_eq(back.seconds, 1.25);
    for (size_t n = 0; n < size; n++) { /* in memory of its own, so that reading past it is found */
        char *part = malloc(n ? n : 1);
        memcpy(part, bytes, n);
        cr_assert_eq(moesim_outcome_unpack(part, n, arena, &back, &err), MOESIM_EBROKEN);
        free(part);
    }
    for (size_t i = 0; i < size; i++) { /* what is no outcome, or another one, is no crash */
        const char before = bytes[i];
        bytes[i] = (char)0xff;
        (void)!moesim_outcome_unpack(bytes, size, arena, &back, &err);
        bytes[i] = before;
    }
    summary[0].metric = MOESIM_N_METRICS;
    free(bytes);
    bytes = moesim_outcome_pack(&o, &size);
    cr_assert_eq(moesim_outcome_unpack(bytes, size, arena, &back, &err), MOESIM_EBROKEN);
    free(bytes);
}

/* ---- more steps than are kept ---- */

/* A load between 1 and 2, in an order of its own. */
static double load_of(uint32_t layer, uint32_t step)
{
    return 1 + (double)(step * 7919u % 100003u + layer) / 100004;
}

static void fill_long(struct moesim_tally *t, const bool *record, uint32_t n_steps)
{
    cr_assert_eq(moesim_tally_init(t, all, record, 2, 0, n_steps, 1, arena, &err), MOESIM_OK);
    for (uint32_t s = 0; s < n_steps; s++)
        for (uint32_t l = 0; l < 2; l++) {
            moesim_tally_set(t, MOESIM_LOAD_CV, l, s, load_of(l, s));
            moesim_tally_set(t, MOESIM_BAD_ROWS, l, s, s % 3);
            moesim_tally_set(t, MOESIM_AUX_LOSS, l, s, s % 2 ? NAN : -load_of(l, s));
            moesim_tally_set(t, MOESIM_CPU_TIME_ROUTE, l, s, load_of(l, s) * (s % 100 == 0 ? 1e-3 : 1e-6));
        }
}

/* A long run in bins beside the same kept one by one: equal but for percentiles of many values, which are within the
 * half of a bin; values that are few are exact. */
Test(tally, long_runs_are_counted_in_bins, .init = set_up, .fini = tear_down)
{
    enum { STEPS = 60000 };
    static struct moesim_tally t;
    struct moesim_outcome kept = {.arena = arena}, binned = {.arena = arena};
    fill_long(&t, all, STEPS);
    cr_assert_eq(moesim_tally_close(&t, none, false, &kept, &err), MOESIM_OK);
    const size_t before = moesim_arena_used(arena);
    fill_long(&t, none, STEPS);
    cr_assert_lt(moesim_arena_used(arena) - before, 2u * MOESIM_N_METRICS * 33000);
    cr_assert_eq(moesim_tally_close(&t, none, false, &binned, &err), MOESIM_OK);
    cr_assert_eq(binned.n_summaries, kept.n_summaries);
    for (uint64_t i = 0; i < kept.n_summaries; i++) {
        const struct moesim_summary *a = &kept.summary[i], *b = &binned.summary[i];
        const double near = a->metric == MOESIM_CPU_TIME_ROUTE ? 1. / 150 : 1. / 2000, size = fabs(a->p95);
        cr_assert(a->metric == b->metric && a->layer == b->layer && a->n == b->n && a->min == b->min &&
                  a->max == b->max);
        cr_assert_float_eq(b->mean, a->mean, 1e-12 * size);
        cr_assert_float_eq(b->std, a->std, 1e-9 * (a->std + size));
        cr_assert_float_eq(b->p50, a->p50, near * size);
        cr_assert_float_eq(b->p95, a->p95, near * size);
        if (a->metric == MOESIM_BAD_ROWS)
            cr_assert(b->p50 == a->p50 && b->p95 == a->p95 && b->value == a->value);
    }
}

/* As many steps as are kept: every value counts exactly. */
Test(tally, shorter_runs_are_exact, .init = set_up, .fini = tear_down)
{
    static struct moesim_tally t;
    fill_long(&t, none, MOESIM_EXACT_STEPS);
    cr_assert(t.value[MOESIM_LOAD_CV] && !t.bins[MOESIM_LOAD_CV]);
    fill_long(&t, none, MOESIM_EXACT_STEPS + 1);
    cr_assert(!t.value[MOESIM_LOAD_CV] && t.bins[MOESIM_LOAD_CV]);
    cr_assert_eq(moesim_tally_bytes(all, none, 1, MOESIM_EXACT_STEPS + 1, 1),
                 moesim_tally_bytes(all, none, 1, 1000000, 1));
}

Test(tally, bins_by_hand, .init = set_up, .fini = tear_down)
{
    struct moesim_bins a, b;
    cr_assert(moesim_bins_init(&a, arena) && moesim_bins_init(&b, arena));
    for (int i = 0; i < 4; i++)
        moesim_bins_add(i % 2 ? &a : &b, (double[]){-2, 4, 0, 1}[i]);
    moesim_bins_merge(&a, &b);
    cr_assert(a.n == 4 && a.sum == 3 && a.min == -2 && a.max == 4 && a.n_bins == 4 && a.shift == 0);
    cr_assert_float_eq(a.square, 21 - 9 / 4., 1e-12); /* sum of squares less (sum)^2 / 4 */
    cr_assert(moesim_bins_percentile(&a, 0) == -2 && moesim_bins_percentile(&a, 1) == 4);
    cr_assert_eq(moesim_bins_percentile(&a, 0.5), 0.5); /* between 0 and 1 */
    for (int i = 0; i < 3 * MOESIM_MOST_BINS; i++)
        moesim_bins_add(&b, i);
    cr_assert(b.n == 3 * MOESIM_MOST_BINS + 2 && b.n_bins <= MOESIM_MOST_BINS && b.shift > 0);
    uint64_t n = 0;
    for (uint32_t i = 0; i < b.n_bins; i++) {
        n += b.count[i];
        cr_assert(i == 0 || b.key[i] > b.key[i - 1]);
    }
    cr_assert_eq(n, b.n);
    moesim_bins_merge(&a, &b); /* the finer one becomes as coarse */
    cr_assert(a.shift >= b.shift && a.n == b.n + 4);
}

/* The last value of each layer, however many steps there are; layers without one are left out of the mean. */
Test(tally, metrics_of_the_last_value, .init = set_up, .fini = tear_down)
{
    enum { STEPS = MOESIM_EXACT_STEPS + 500 };
    static struct moesim_tally t;
    static bool last[MOESIM_N_METRICS];
    struct moesim_outcome o = {.arena = arena};
    last[MOESIM_MAX_VIO_GLOBAL] = true;
    cr_assert_eq(moesim_tally_init(&t, last, none, 3, 0, STEPS, 1, arena, &err), MOESIM_OK);
    moesim_tally_set(&t, MOESIM_MAX_VIO_GLOBAL, 0, 9, 8);
    moesim_tally_set(&t, MOESIM_MAX_VIO_GLOBAL, 0, STEPS - 2, 2);
    moesim_tally_set(&t, MOESIM_MAX_VIO_GLOBAL, 2, 7, 5);
    moesim_tally_set(&t, MOESIM_MAX_VIO_GLOBAL, 2, 8, NAN);
    cr_assert_eq(moesim_tally_close(&t, none, false, &o, &err), MOESIM_OK);
    cr_assert_eq(o.n_summaries, 3);
    cr_assert(o.summary[0].layer == MOESIM_ALL_LAYERS && o.summary[0].value == 3.5 && o.summary[0].n == 3);
    cr_assert(o.summary[1].layer == 0 && o.summary[1].value == 2 && o.summary[1].mean == 5);
    cr_assert(o.summary[2].layer == 2 && o.summary[2].value == 5);
}
