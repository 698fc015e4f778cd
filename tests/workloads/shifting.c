/*
 * bursty and drift: what they add to calibrated, token by token.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "workloads/calibrated/source.h"

TestSuite(shifting, .timeout = 100);

enum { E = 24 };

static struct moesim_workload_env make_env(uint32_t n_tokens)
{
    return (struct moesim_workload_env){
        .seed = 9, .n_layers = 2, .n_experts = E, .n_columns = E, .top_k = 2, .n_tokens = n_tokens, .n_devices = 1};
}

static void open_instance(struct instance *w, const char *name, const char *const *settings, uint32_t n_tokens)
{
    instance_create(w, name, settings);
    cr_assert_eq(instance_init(w, make_env(n_tokens)), MOESIM_OK, "%s", w->error.text);
}

/* ---- bursty ---- */

/* The chain from its definition: bursts of 20 tokens that take 0.4 of all, so that a quiet spell has 30. */
static void make_bursts(uint32_t n_tokens, uint32_t sequence, uint32_t step, bool *burst)
{
    const struct moesim_random random = {9, EFFECTS_STATE, 0, step};
    for (uint32_t t = 0; t < n_tokens; t++) {
        const double u = (double)moesim_random_uniform(&random, t);
        if (t % sequence == 0)
            burst[t] = u < 0.4;
        else if (burst[t - 1])
            burst[t] = u >= 1.0 / 20;
        else
            burst[t] = u < 1.0 / 30;
    }
}

/* In a burst, twice the sequence's effect again, which is 1.5 times a normal value of sequence and expert. */
Test(shifting, bursts_raise_what_the_sequence_adds)
{
    enum { T = 1000, SEQUENCE = 150 };
    static bool burst[T];
    struct instance bursty, calm;
    open_instance(&bursty, "bursty",
                  SETTINGS("burst_length", "20", "burst_share", "0.4", "burst_factor", "3", "sequence_effect", "1.5",
                           "sequence", "150"),
                  T);
    open_instance(&calm, "calibrated", SETTINGS("preset", "gpt-oss-20b", "sequence_effect", "1.5", "sequence", "150"),
                  T);
    for (int threads = 1; threads <= 4; threads *= 2)
        for (uint32_t step = 3; step > 0; step--) {
            omp_set_num_threads(threads);
            const struct moesim_batch a = instance_step(&bursty, step, 1), b = instance_step(&calm, step, 1);
            const struct moesim_random random = {9, EFFECTS_SEQUENCE, 1, step};
            make_bursts(T, SEQUENCE, step, burst);
            for (uint32_t i = 0; i < T * E; i++) {
                const double s = 1.5 * (double)moesim_random_normal(&random, i / E / SEQUENCE * E + i % E);
                const double more = (double)a.columns[i] - (double)b.columns[i];
                cr_assert_float_eq(more, burst[i / E] ? 2 * s : 0, 2e-5, "token %u: %g", i / E, more);
            }
            cr_assert_arr_eq(a.token_id, b.token_id, T * sizeof *a.token_id);
        }
    instance_destroy(&bursty);
    instance_destroy(&calm);
}

static double own(const struct moesim_random *random, uint32_t t, uint32_t e)
{
    return 100 * (double)moesim_random_normal(random, t / 1000 * E + e);
}

/* Shares and lengths of bursts in 200 sequences of 1000 tokens. */
Test(shifting, bursts_have_the_share_and_length_asked_for)
{
    enum { T = 200000 };
    struct instance bursty;
    open_instance(&bursty, "bursty",
                  SETTINGS("burst_length", "50", "burst_share", "0.25", "sequence", "1000", "preset", "none",
                           "sequence_effect", "100"),
                  T);
    const struct moesim_batch b = instance_step(&bursty, 0, 0);
    const struct moesim_random random = {9, EFFECTS_SEQUENCE, 0, 0};
    uint32_t n = 0, ends = 0;
    bool before = false;
    for (uint32_t t = 0; t < T; t++) {
        uint32_t e = 0; /* whom the sequence tells most about */
        for (uint32_t i = 1; i < E; i++)
            if (fabs(own(&random, t, i)) > fabs(own(&random, t, e)))
                e = i;
        const double x = (double)b.columns[t * E + e], s = own(&random, t, e);
        const bool now = fabs(x - 2.2 * s) < fabs(x - s);
        ends += t % 1000 && before && !now;
        n += now;
        before = now;
    }
    cr_assert_float_eq(n / (double)T, 0.25, 0.03, "%g", n / (double)T); /* about 1000 bursts: 5 deviations */
    cr_assert_float_eq(n / (double)ends, 50, 8, "%g", n / (double)ends);
    instance_destroy(&bursty);
}

Test(shifting, bursty_refuses_a_chain_that_cannot_be)
{
    static const char *const bad[][2] = {{"1", "0.6"}, {"4", "0.81"}, {"1000", "0.9999"}};
    static const char *const good[][2] = {{"1", "0.5"}, {"4", "0.8"}, {"1", "1"}, {"1000", "0"}};
    for (size_t i = 0; i < 3; i++) {
        struct instance w;
        instance_create(&w, "bursty", SETTINGS("burst_length", bad[i][0], "burst_share", bad[i][1]));
        cr_assert_eq(instance_init(&w, make_env(10)), MOESIM_EINVAL);
        cr_assert(strstr(w.error.text, "bursty: burst_share = "), "%s", w.error.text);
        moesim_arena_destroy(w.arena);
    }
    for (size_t i = 0; i < 4; i++) {
        struct instance w;
        open_instance(&w, "bursty", SETTINGS("burst_length", good[i][0], "burst_share", good[i][1]), 10);
        instance_step(&w, 0, 0);
        instance_destroy(&w);
    }
}

/* ---- drift ---- */

/* How many of a step's 20 sequences have each domain. */
static void count_domains(struct instance *w, uint32_t step, uint32_t *count)
{
    const struct moesim_batch b = instance_step(w, step, 0);
    memset(count, 0, 5 * sizeof *count);
    for (uint32_t t = 0; t < b.n_tokens; t++) {
        cr_assert_lt(b.domain[t], 5);
        cr_assert_eq(b.domain[t], b.domain[t / 10 * 10], "a sequence has one domain");
        count[b.domain[t]] += t % 10 == 0;
    }
}

Test(shifting, drift_goes_from_one_domain_to_the_other)
{
    enum { T = 200 };
    struct instance ramp, wave, jump, mixed;
    uint32_t n[5];
    open_instance(&ramp, "drift", SETTINGS("from", "2", "to", "5", "start", "10", "over", "40", "sequence", "10"), T);
    open_instance(&wave, "drift", SETTINGS("course", "wave", "over", "8", "sequence", "10"), T);
    open_instance(&jump, "drift", SETTINGS("start", "3", "over", "0", "sequence", "10"), T);
    open_instance(&mixed, "drift", SETTINGS("from", "0", "to", "1", "start", "3", "over", "0", "sequence", "10"), T);
    for (uint32_t step = 0; step < 70; step++) {
        const double up = step < 10 ? 0 : step < 50 ? (step - 10) / 40.0 : 1;
        const double to_and_fro[] = {0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25};
        count_domains(&ramp, step, n);
        cr_assert(fabs(n[4] - 20 * up) < 1 && n[1] + n[4] == 20, "step %u: %u", step, n[4]);
        count_domains(&wave, step, n);
        cr_assert(fabs(n[1] - 20 * to_and_fro[step % 8]) < 1 && n[0] + n[1] == 20, "step %u: %u", step, n[1]);
        count_domains(&jump, step, n);
        cr_assert_eq(n[1], step < 3 ? 0 : 20);
        count_domains(&mixed, step, n);
        cr_assert(step < 3 ? n[0] == 4 && n[1] == 4 && n[2] == 4 && n[3] == 4 : n[0] == 20);
    }
    instance_destroy(&ramp);
    instance_destroy(&wave);
    instance_destroy(&jump);
    instance_destroy(&mixed);
}

/* Before and after, the tokens are calibrated's of that one domain; in any order of steps and on any threads. */
Test(shifting, drift_is_calibrated_at_both_ends)
{
    enum { T = 300 };
    struct instance drift, first, last;
    open_instance(&drift, "drift", SETTINGS("from", "3", "to", "4", "over", "10", "sequence", "20"), T);
    open_instance(&first, "calibrated", SETTINGS("domain", "3", "sequence", "20"), T);
    open_instance(&last, "calibrated", SETTINGS("domain", "4", "sequence", "20"), T);
    for (int threads = 1; threads <= 4; threads *= 2) {
        omp_set_num_threads(threads);
        cr_assert_arr_eq(instance_step(&drift, 10, 1).columns, instance_step(&last, 10, 1).columns,
                         T * E * sizeof(float));
        cr_assert_arr_eq(instance_step(&drift, 0, 1).columns, instance_step(&first, 0, 1).columns,
                         T * E * sizeof(float));
    }
    instance_destroy(&drift);
    instance_destroy(&first);
    instance_destroy(&last);
}

Test(shifting, drift_refuses)
{
    static const struct {
        const char *key, *value, *says;
    } cases[] = {{"from", "6", "drift: from = 6, but domains = 5"},
                 {"to", "9", "drift: to = 9, but domains = 5"},
                 {"zipf", "21", NULL},
                 {"popularity", "-3", NULL},
                 {"fast_rho", "-0.5", "fast_rho = -0.5: at least 0"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        instance_create(&w, "drift", NULL);
        const struct moesim_schema schema = moesim_workload_schema(w.workload);
        const struct moesim_param *row = moesim_schema_find(schema, cases[i].key);
        const enum moesim_status set = moesim_param_set(row, cases[i].value, w.params, w.arena, &w.error);
        cr_assert_eq(set == MOESIM_OK, cases[i].says != NULL);
        if (cases[i].says) {
            struct moesim_workload_shape shape = {.struct_size = sizeof shape};
            cr_assert_eq(w.workload->shape(w.params, &shape, &w.error), MOESIM_EINVAL);
            cr_assert(strstr(w.error.text, cases[i].says), "%s", w.error.text);
        }
        moesim_arena_destroy(w.arena);
    }
    struct instance w;
    instance_create(&w, "drift", SETTINGS("course", "wave", "over", "0"));
    cr_assert_eq(instance_init(&w, make_env(10)), MOESIM_EINVAL);
    moesim_arena_destroy(w.arena);
}
