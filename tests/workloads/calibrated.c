/*
 * calibrated: against a slow statement of its law, the same bits however it is drawn, figures near the measured ones.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/workloads/instance.h"
#include "workloads/calibrated/sample.h"

TestSuite(calibrated, .timeout = 100);

static struct moesim_workload_env make_env(uint32_t n_tokens, uint32_t n_experts, uint32_t n_columns)
{
    return (struct moesim_workload_env){.seed = 5,
                                        .n_layers = 4,
                                        .n_experts = n_experts,
                                        .n_columns = n_columns,
                                        .top_k = 2,
                                        .n_tokens = n_tokens,
                                        .n_devices = 1};
}

static void open_instance(struct instance *w, const char *name, const char *const *settings,
                          struct moesim_workload_env env)
{
    instance_create(w, name, settings);
    cr_assert_eq(instance_init(w, env), MOESIM_OK, "%s", w->error.text);
}

/* ---- the law, number by number ---- */

enum { E = 12, SEQUENCE = 7, DOMAINS = 3, TOKENS = 40, TYPES = 9 };

static const struct effects law = {.popularity = 0.8,
                                   .popularity_skew = 0.6,
                                   .domain_effect = 0.7,
                                   .domain_tail = 2,
                                   .sequence_effect = 0.9,
                                   .slow_effect = 1.1,
                                   .slow_rho = 0.95,
                                   .fast_effect = 0.5,
                                   .fast_rho = 0.25,
                                   .token_effect = 1.3,
                                   .token_echo = 0.3};

static double normal(uint32_t stream, uint32_t layer, uint32_t step, uint64_t index)
{
    const struct moesim_random random = {5, stream, layer, step};
    return (double)moesim_random_normal(&random, index);
}

/* x + c (x^2 - 1) has skewness c (6 + 8 c^2) / (1 + 2 c^2)^1.5: c = 0.1017167 gives 0.6. */
static double popularity(uint32_t layer, uint32_t e)
{
    const double c = 0.101716701;
    double x[E], mean = 0, variance = 0;
    for (uint32_t i = 0; i < E; i++) {
        const double z = normal(EFFECTS_POPULARITY, layer, 0, i);
        x[i] = z + c * (z * z - 1);
        mean += x[i] / E;
    }
    for (uint32_t i = 0; i < E; i++)
        variance += (x[i] - mean) * (x[i] - mean) / E;
    return law.popularity * (x[e] - mean) / sqrt(variance);
}

/* z |z| has mean square E z^4 = 3. */
static double domain_effect(uint32_t layer, uint32_t d, uint32_t e)
{
    const double z = normal(EFFECTS_DOMAIN, layer, 0, d * E + e);
    return law.domain_effect * z * fabs(z) / sqrt(3);
}

/* Type w where the bits, over 2^32, pass the sum of 1 / r up to w, over that of all. */
static uint32_t token_type(uint32_t step, uint32_t t)
{
    const struct moesim_random random = {5, EFFECTS_TOKEN_ID, 0, step};
    const double u = moesim_random_bits(&random, t) / 4294967296.0;
    double all = 0, sum = 0;
    for (uint32_t r = 1; r <= TYPES; r++)
        all += 1.0 / r;
    for (uint32_t w = 0; w < TYPES; w++)
        if (u < (sum += 1.0 / (w + 1.0)) / all)
            return w;
    return TYPES - 1;
}

/* The process at token t of a sequence that begins at `first`. */
static double lasting(uint32_t stream, double deviation, double rho, uint32_t layer, uint32_t step, uint32_t first,
                      uint32_t t, uint32_t e)
{
    double x = deviation * normal(stream, layer, step, first * E + e);
    for (uint32_t i = first + 1; i <= t; i++)
        x = rho * x + deviation * sqrt(1 - rho * rho) * normal(stream, layer, step, i * E + e);
    return x;
}

static double logit(uint32_t step, uint32_t layer, uint32_t t, uint32_t e)
{
    const uint32_t q = t / SEQUENCE, d = (step * ((TOKENS + SEQUENCE - 1) / SEQUENCE) + q) % DOMAINS;
    const struct moesim_random luck = {5, MOESIM_STREAM_COLUMNS, layer, step};
    const double u = (double)moesim_random_uniform(&luck, t * E + e) + 0x1p-25;
    return popularity(layer, e) + domain_effect(layer, d, e) +
           law.sequence_effect * normal(EFFECTS_SEQUENCE, layer, step, q * E + e) +
           lasting(EFFECTS_SLOW, law.slow_effect, law.slow_rho, layer, step, q * SEQUENCE, t, e) +
           lasting(EFFECTS_FAST, law.fast_effect, law.fast_rho, layer, step, q * SEQUENCE, t, e) +
           law.token_effect * normal(EFFECTS_TOKEN, layer, 0, token_type(step, t) * E + e) +
           (t % SEQUENCE
                ? law.token_echo * law.token_effect * normal(EFFECTS_TOKEN, layer, 0, token_type(step, t - 1) * E + e)
                : 0) -
           log(-log(u));
}

static const char *const law_settings[] = {"preset",
                                           "none",
                                           "popularity",
                                           "0.8",
                                           "popularity_skew",
                                           "0.6",
                                           "domain_effect",
                                           "0.7",
                                           "domain_tail",
                                           "2",
                                           "sequence_effect",
                                           "0.9",
                                           "slow_effect",
                                           "1.1",
                                           "slow_rho",
                                           "0.95",
                                           "fast_effect",
                                           "0.5",
                                           "fast_rho",
                                           "0.25",
                                           "token_effect",
                                           "1.3",
                                           "token_echo",
                                           "0.3",
                                           "sequence",
                                           "7",
                                           "domains",
                                           "3",
                                           "vocabulary",
                                           "9",
                                           NULL};

Test(calibrated, logits_follow_the_law)
{
    struct instance w;
    open_instance(&w, "calibrated", law_settings, make_env(TOKENS, E, E));
    for (uint32_t step = 0; step < 3; step++)
        for (uint32_t layer = 0; layer < 3; layer++) {
            const struct moesim_batch b = instance_step(&w, step, layer);
            cr_assert(b.n_tokens == TOKENS && b.n_columns == E);
            for (uint32_t t = 0; t < TOKENS; t++) {
                cr_assert_eq(b.sequence_id[t], t / SEQUENCE);
                cr_assert_eq(b.domain[t], (step * 6 + t / SEQUENCE) % DOMAINS);
                cr_assert_eq(b.token_id[t], token_type(step, t));
                for (uint32_t e = 0; e < E; e++)
                    cr_assert_float_eq((double)b.columns[t * b.stride + e], logit(step, layer, t, e), 2e-5,
                                       "step %u, layer %u, token %u, expert %u: %g, not %g", step, layer, t, e,
                                       (double)b.columns[t * b.stride + e], logit(step, layer, t, e));
            }
        }
    instance_destroy(&w);
}

Test(calibrated, is_a_function_of_seed_step_and_layer)
{
    enum { T = 700, N = 40, C = 44 };
    static const char *const presets[] = {"olmoe-1b-7b", "gpt-oss-20b", "qwen1.5-moe"};
    for (size_t i = 0; i < 3; i++) {
        struct instance wide, narrow;
        const char *const *settings = SETTINGS("preset", presets[i], "sequence", "90");
        open_instance(&wide, "calibrated", settings, make_env(T, N, C));
        open_instance(&narrow, "calibrated", settings, make_env(T, N, N));
        for (int threads = 1; threads <= 4; threads *= 2) {
            const struct moesim_batch a = instance_step(&wide, 4, 1);
            omp_set_num_threads(threads);
            instance_step(&narrow, 9, 3); /* history must not matter */
            const struct moesim_batch b = instance_step(&narrow, 4, 1);
            cr_assert(a.n_columns == C && a.stride >= C && b.n_columns == N);
            for (uint32_t t = 0; t < T; t++)
                cr_assert_arr_eq(a.columns + t * a.stride, b.columns + t * b.stride, N * sizeof(float));
            cr_assert_arr_eq(a.token_id, b.token_id, T * sizeof *a.token_id);
            cr_assert_arr_eq(a.domain, b.domain, T * sizeof *a.domain);
        }
        const struct moesim_batch a = instance_step(&wide, 4, 1);
        cr_assert(memcmp(a.columns, instance_step(&narrow, 5, 1).columns, N * sizeof(float)));
        cr_assert(memcmp(a.columns, instance_step(&narrow, 4, 2).columns, N * sizeof(float)));
        cr_assert_neq(a.columns[0], a.columns[N]);
        instance_destroy(&wide);
        instance_destroy(&narrow);
    }
}

/* A large expert count goes through the generator in pieces, one expert and one token are the least. */
Test(calibrated, shapes)
{
    static const uint32_t shapes[][2] = {{1, 1}, {3, 5000}, {513, 1}, {1, 64}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct instance w;
        struct moesim_workload_env env = make_env(shapes[i][0], shapes[i][1], shapes[i][1]);
        env.top_k = 1;
        open_instance(&w, "calibrated", SETTINGS("sequence", "2"), env);
        const struct moesim_batch b = instance_step(&w, 1, 2);
        for (uint32_t n = 0; n < shapes[i][0] * shapes[i][1]; n++)
            cr_assert(isfinite(b.columns[n]) && fabsf(b.columns[n]) < 100);
        instance_destroy(&w);
    }
}

Test(calibrated, one_domain_only)
{
    struct instance w;
    open_instance(&w, "calibrated", SETTINGS("domain", "3", "sequence", "10"), make_env(100, 8, 8));
    for (uint32_t step = 0; step < 3; step++) {
        const struct moesim_batch b = instance_step(&w, step, 0);
        for (uint32_t t = 0; t < 100; t++)
            cr_assert_eq(b.domain[t], 2);
    }
    instance_destroy(&w);
}

/* ---- statistics ---- */

static struct source_params params_of(const char *preset, const char *profile)
{
    struct source_params p = {.sequence = 512,
                              .vocabulary = 1500,
                              .zipf = 1,
                              .effects = {-1, SOURCE_NO_SKEW, -1, -1, -1, -1, -1, -1, -1, -1, -1},
                              .profile = profile};
    while (strcmp(calibrated_presets[p.preset].name, preset) != 0)
        p.preset++;
    return p;
}

/* Layers whose profile says 1 : 2 : 3 : 4 differ so in their loads, on average over seeds. */
Test(calibrated, loads_follow_the_profile)
{
    enum { SEEDS = 6, LAYERS = 4 };
    double cv[LAYERS] = {0}, sum = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct source_params p = params_of("deepseek-v3", "0.2 0.4\t0.6 0.8");
        p.domains = 4;
        const struct sample_plan plan = {
            .n_experts = 128, .top_k = 4, .n_layers = LAYERS, .sequences_each = 16, .seed = seed};
        double value[LAYERS][CALIBRATED_N_FIGURES], mean[CALIBRATED_N_FIGURES];
        struct moesim_error err;
        cr_assert_eq(sample_take(&p, &plan, value[0], mean, &err), MOESIM_OK, "%s", err.text);
        for (uint32_t l = 0; l < LAYERS; l++) {
            cv[l] += value[l][CALIBRATED_LOAD_CV] / SEEDS;
            sum += value[l][CALIBRATED_LOAD_CV] / SEEDS;
        }
    }
    for (uint32_t l = 0; l < LAYERS; l++)
        cr_assert_float_eq(cv[l] / sum, 0.1 * (l + 1), 0.03, "layer %u: %g of %g", l, cv[l], sum);
}

/* Without effects every expert is alike: 96 windows of 128 tokens with 2 of 16 experts. */
Test(calibrated, nothing_is_even)
{
    struct source_params p = params_of("none", "");
    p.domains = 6;
    const struct sample_plan plan = {.n_experts = 16, .top_k = 2, .n_layers = 1, .sequences_each = 4, .seed = 3};
    double value[CALIBRATED_N_FIGURES];
    struct moesim_error err;
    cr_assert_eq(sample_take(&p, &plan, NULL, value, &err), MOESIM_OK, "%s", err.text);
    cr_assert_lt(value[CALIBRATED_LOAD_CV], 0.05);
    cr_assert_lt(value[CALIBRATED_DIVERGENCE], 0.002);
    const double lags[] = {value[CALIBRATED_LAG1], value[CALIBRATED_LAG2], value[CALIBRATED_LAG64]};
    for (int i = 0; i < 3; i++)
        cr_assert_float_eq(lags[i], 0.125, 0.008, "%g", lags[i]); /* k / E; 12288 pairs of deviation 0.22 */
    cr_assert_float_eq(value[CALIBRATED_FIRST_AGAIN], 1.0 / 16, 0.011);
    cr_assert_float_eq(value[CALIBRATED_ANY_AGAIN], 1 - 91.0 / 120, 0.02); /* 1 - C(14, 2) / C(16, 2) */
}

/* `moesim trace presets` has every figure of every model within a tenth of the measured one, over all layers. Here are
 * fewer layers, so that chance gets some room: 20 %. */
static void expect_figures(const char *name, uint32_t n_layers)
{
    struct source_params p = params_of(name, "");
    const struct calibrated_preset *preset = &calibrated_presets[p.preset];
    p.domains = preset->n_domains > 12 ? 12 : preset->n_domains;
    const struct sample_plan plan = {
        .n_experts = preset->n_experts, .top_k = preset->top_k, .n_layers = n_layers, .sequences_each = 8, .seed = 3};
    double value[CALIBRATED_N_FIGURES];
    struct moesim_error err;
    cr_assert_eq(sample_take(&p, &plan, NULL, value, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t i = 0; i < preset->n_targets; i++) {
        const double target = preset->target[i].value, got = value[preset->target[i].figure];
        cr_expect(fabs(got / target - 1) < 0.2, "%s, %s: %g, not %g", name,
                  calibrated_figures[preset->target[i].figure].name, got, target);
    }
}

Test(calibrated, figures_of_small_models)
{
    expect_figures("olmoe-1b-7b", 8);
    expect_figures("gpt-oss-20b", 8);
    expect_figures("mixtral-8x7b", 8);
    expect_figures("qwen1.5-moe", 8);
}

Test(calibrated, figures_of_glm)
{
    expect_figures("glm-5.2", 12);
}

Test(calibrated, figures_of_deepseek)
{
    expect_figures("deepseek-v3", 14);
}

Test(calibrated, figures_of_deepseek_prefill)
{
    expect_figures("deepseek-v3-prefill", 14);
}

/* ---- figures ---- */

/* Six tokens of two sequences, two experts each, by hand. */
Test(calibrated, figures_by_hand)
{
    const uint32_t first[] = {0, 2, 4, 6, 8, 10, 12}, expert[] = {0, 1, 0, 2, 1, 0, /**/ 3, 2, 2, 3, 2, 0};
    const uint32_t sequence[] = {0, 0, 0, 1, 1, 1}, domain[] = {0, 0, 0, 1, 1, 1};
    const struct figures_shape shape = {.n_experts = 4, .top_k = 2, .n_domains = 2, .n_tokens = 6};
    struct figures *f = figures_create(&shape);
    double value[CALIBRATED_N_FIGURES];
    cr_assert(f);
    for (uint32_t at = 0; at < 6; at += 2) { /* in pieces: the law of the sum must not see them */
        const uint32_t piece[] = {0, 2, 4};
        const struct decided d = {2, piece, expert + first[at], sequence + at, domain + at, NULL};
        figures_add(f, &d);
    }
    figures_take(f, value);
    figures_destroy(f);
    /* loads 4 2 4 2: mean 3, deviation 1 */
    cr_assert_float_eq(value[CALIBRATED_LOAD_CV], 1.0 / 3, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_MAX_MEAN], 4.0 / 3, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_LOG_SIGMA], log(2) / 2, 1e-12);
    /* domain loads 3 2 1 0 and 1 0 3 2, of mean 1.5 */
    cr_assert_float_eq(value[CALIBRATED_DOMAIN_MAX], 2, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_DOMAIN_CV], sqrt(1.25) / 1.5, 1e-12);
    /* ranks 3 2 1 0 and 1 0 3 2: 1 - 6 (4 + 4 + 4 + 4) / (4 * 15) */
    cr_assert_float_eq(value[CALIBRATED_RANKS], -0.6, 1e-12);
    /* bits: sum p log2 (p / m) / 2, m = 4 2 4 2 over 12 */
    const double js = 0.5 * (0.5 * log2(1.5) + 1 / 3.0 + log2(0.5) / 6) * 2;
    cr_assert_float_eq(value[CALIBRATED_DIVERGENCE], js, 1e-12, "%g, not %g", value[CALIBRATED_DIVERGENCE], js);
    /* shared with the one before: {0}, {0}; {2 3}, {2}: 1/2 + 1/2 + 1 + 1/2 over 4 */
    cr_assert_float_eq(value[CALIBRATED_LAG1], 2.5 / 4, 1e-12);
    /* two back: {0 1} all, {2} half */
    cr_assert_float_eq(value[CALIBRATED_LAG2], 1.5 / 2, 1e-12);
    cr_assert(isnan(value[CALIBRATED_LAG8]) && isnan(value[CALIBRATED_WINDOW_MAX]));
    cr_assert_float_eq(value[CALIBRATED_FIRST_AGAIN], 2.0 / 4, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_ANY_AGAIN], 1, 1e-12);
    cr_assert(isnan(value[CALIBRATED_TOKEN_BITS]));
}

/* Two types that always take expert 0, or 1, tell all: one bit. A window of 128 tokens of one sequence has one expert.
 * Tokens from all over have both. */
Test(calibrated, figures_of_windows_and_types)
{
    enum { N = 512 };
    uint32_t first[N + 1], expert[N], sequence[N];
    for (uint32_t t = 0; t < N; t++) {
        first[t] = t;
        expert[t] = sequence[t] = t / 128 % 2;
    }
    first[N] = N;
    const struct figures_shape shape = {.n_experts = 2, .top_k = 1, .vocabulary = 2, .n_tokens = N};
    struct figures *f = figures_create(&shape);
    double value[CALIBRATED_N_FIGURES];
    const struct decided d = {N, first, expert, sequence, NULL, expert};
    cr_assert(f);
    figures_add(f, &d);
    figures_take(f, value);
    figures_destroy(f);
    cr_assert_float_eq(value[CALIBRATED_TOKEN_BITS], 1, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_WINDOW_MAX], 2, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_MIXED_MAX], 1, 1e-12);
    cr_assert_float_eq(value[CALIBRATED_LAG64], 1, 1e-12);
    cr_assert(isnan(value[CALIBRATED_DIVERGENCE]) && isnan(value[CALIBRATED_LAG256]));
}

/* ---- what it refuses ---- */

Test(calibrated, refuses)
{
    static const struct {
        const char *key, *value, *says;
    } cases[] = {
        {"popularity", "-0.5", "popularity = -0.5: at least 0, or -1 for the preset's"},
        {"slow_rho", "-0.9", "slow_rho = -0.9"},
        {"popularity_skew", "-3", "popularity_skew = -3: from -2.5 to 2.5, or -9 for the preset's"},
        {"profile", "1 2 x", "profile: number 3 is not above 0"},
        {"profile", "1 -2", "profile: number 2 is not above 0"},
        {"profile", "1,2", "profile: number 1 is not above 0"},
        {"profile", "0", "profile: number 1 is not above 0"},
        {"profile", "nan", "profile: number 1 is not above 0"},
        {"domain", "6", "domain = 6, but domains = 5"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        struct moesim_workload_shape shape = {.struct_size = sizeof shape};
        instance_create(&w, "calibrated", SETTINGS(cases[i].key, cases[i].value));
        cr_assert_eq(w.workload->shape(w.params, &shape, &w.error), MOESIM_EINVAL, "%s", cases[i].says);
        cr_assert(strstr(w.error.text, cases[i].says), "%s", w.error.text);
        moesim_arena_destroy(w.arena);
    }
}

/* The extremes of every parameter give finite logits. */
Test(calibrated, extremes_stay_finite)
{
    static const char *const extremes[][6] = {
        {"popularity", "1000", "popularity_skew", "2.5"},
        {"popularity_skew", "-2.5"},
        {"domain_tail", "0", "domain_effect", "1000"},
        {"domain_tail", "4"},
        {"slow_rho", "1", "fast_rho", "0"},
        {"slow_effect", "0", "fast_effect", "0"},
        {"zipf", "20", "vocabulary", "1"},
        {"zipf", "0", "vocabulary", "100000"},
        {"profile", "1000000 0.000001"},
        {"sequence", "16777216"},
        {"sequence", "1"},
        {"domains", "65536"},
    };
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
        struct instance w;
        open_instance(&w, "calibrated", extremes[i], make_env(50, 20, 20));
        for (uint32_t layer = 0; layer < 4; layer++) {
            const struct moesim_batch b = instance_step(&w, 3, layer);
            for (uint32_t n = 0; n < 50 * 20; n++)
                cr_assert(isfinite(b.columns[n]), "%s = %s", extremes[i][0], extremes[i][1]);
            for (uint32_t t = 0; t < 50; t++)
                cr_assert_lt(b.token_id[t], ((const struct source_params *)w.params)->vocabulary);
        }
        instance_destroy(&w);
    }
}

/* ---- every parameter tells ---- */

/* Bytes of what three steps and layers hold. */
static uint64_t digest(const char *name, const char *const *settings)
{
    struct instance w;
    uint64_t sum = 14695981039346656037u; /* FNV-1a */
    struct moesim_workload_env env = make_env(600, 16, 16);
    env.n_devices = 4;
    open_instance(&w, name, settings, env);
    for (uint32_t step = 1; step < 30; step += 14)
        for (uint32_t layer = 0; layer < 3; layer++) {
            const struct moesim_batch b = instance_step(&w, step, layer);
            const uint8_t *parts[] = {(const uint8_t *)b.columns, (const uint8_t *)b.token_id,
                                      (const uint8_t *)b.sequence_id, (const uint8_t *)b.domain,
                                      (const uint8_t *)b.device};
            for (uint32_t i = 0; i < 5; i++)
                for (size_t j = 0; parts[i] && j < b.n_tokens * (i ? 4 : 4 * b.stride); j++)
                    sum = (sum ^ parts[i][j]) * 1099511628211u;
        }
    instance_destroy(&w);
    return sum;
}

/* For each row of the schema another value than the default, beside what makes it matter. */
Test(calibrated, every_parameter_tells)
{
    static const struct {
        const char *workload, *key, *value, *with[5];
    } cases[] = {
        {"calibrated", "preset", "glm-5.2", {NULL}},
        {"calibrated", "sequence", "100", {NULL}},
        {"calibrated", "domains", "1", {"sequence", "50"}},
        {"calibrated", "popularity", "3", {NULL}},
        {"calibrated", "popularity_skew", "1", {NULL}},
        {"calibrated", "domain_effect", "0", {NULL}},
        {"calibrated", "domain_tail", "2", {NULL}},
        {"calibrated", "sequence_effect", "0", {NULL}},
        {"calibrated", "slow_effect", "0", {NULL}},
        {"calibrated", "slow_rho", "0.5", {NULL}},
        {"calibrated", "fast_effect", "0", {NULL}},
        {"calibrated", "fast_rho", "0.1", {NULL}},
        {"calibrated", "token_effect", "0", {NULL}},
        {"calibrated", "token_echo", "0.5", {NULL}},
        {"calibrated", "vocabulary", "10", {NULL}},
        {"calibrated", "zipf", "0", {NULL}},
        {"calibrated", "profile", "flat", {NULL}},
        {"calibrated", "domain", "3", {NULL}},
        {"bursty", "burst_length", "9", {NULL}},
        {"bursty", "burst_share", "0.9", {NULL}},
        {"bursty", "burst_factor", "9", {NULL}},
        {"drift", "from", "3", {NULL}},
        {"drift", "to", "4", {"over", "5"}},
        {"drift", "start", "20", {"over", "2"}},
        {"drift", "over", "2", {NULL}},
        {"drift", "course", "wave", {"over", "10"}},
        {"adversarial", "pattern", "W5", {NULL}},
        {"adversarial", "heat", "0.9", {NULL}},
        {"adversarial", "hot", "1", {NULL}},
        {"adversarial", "ragged", "1", {"pattern", "W4"}},
        {"adversarial", "every", "7", {"pattern", "W6"}},
        {"adversarial", "factor", "9", {"pattern", "W7"}},
        {"adversarial", "devices", "8", {"pattern", "W2"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *changed[7] = {NULL};
        memcpy(changed, cases[i].with, 2 * sizeof *changed);
        const uint32_t n = changed[0] ? 2 : 0;
        const uint64_t before = digest(cases[i].workload, changed);
        changed[n] = cases[i].key;
        changed[n + 1] = cases[i].value;
        cr_expect_neq(before, digest(cases[i].workload, changed), "%s: %s = %s changes nothing", cases[i].workload,
                      cases[i].key, cases[i].value);
    }
    for (size_t w = 0; w < 4; w++) { /* no row is left out */
        static const char *const names[] = {"calibrated", "bursty", "drift", "adversarial"};
        struct instance x;
        instance_create(&x, names[w], NULL);
        const struct moesim_param *row;
        for (uint32_t i = 0; (row = moesim_schema_row(moesim_workload_schema(x.workload), i)); i++) {
            bool found = false;
            for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
                found |= !strcmp(cases[c].key, row->key) &&
                         (!strcmp(cases[c].workload, names[w]) || (w < 3 && !strcmp(cases[c].workload, "calibrated")));
            cr_expect(found, "%s: %s is not tried", names[w], row->key);
        }
        moesim_arena_destroy(x.arena);
    }
}
