/*
 * adversarial: the counts of the k largest columns against a statement of each pattern in words of its definition.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/workloads/instance.h"

TestSuite(adversarial, .timeout = 60);

enum { MOST_EXPERTS = 64, MOST_TOKENS = 1024, MOST_DEVICES = 8 };

static const struct shape {
    uint32_t tokens, experts, k, devices;
} shapes[] = {{1000, 64, 8, 8}, {997, 60, 4, 8}, {64, 8, 2, 4}, {17, 10, 3, 3}, {512, 24, 1, 3}};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

static void open_pattern(struct instance *w, const struct shape *s, uint64_t seed, const char *const *settings)
{
    const struct moesim_workload_env env = {.seed = seed,
                                            .n_layers = 3,
                                            .n_experts = s->experts,
                                            .n_columns = s->experts,
                                            .top_k = s->k,
                                            .n_tokens = s->tokens,
                                            .n_devices = s->devices};
    instance_create(w, "adversarial", settings);
    cr_assert_eq(instance_init(w, env), MOESIM_OK, "%s", w->error.text);
}

/* What a router that takes the k best makes of a step. */
static struct moesim_batch count(struct instance *w, const struct shape *s, uint32_t step, uint32_t layer,
                                 uint32_t *load)
{
    static uint32_t expert[MOST_TOKENS * 8];
    const struct moesim_batch b = instance_step(w, step, layer);
    moesim_topk(b.columns, b.stride, b.n_tokens, s->experts, s->k, expert);
    memset(load, 0, MOST_EXPERTS * sizeof *load);
    for (uint32_t i = 0; i < b.n_tokens * s->k; i++)
        load[expert[i]]++;
    return b;
}

static uint32_t home(const struct shape *s, uint32_t expert)
{
    return expert * s->devices / s->experts;
}

/* The experts with `in` set share `sum` evenly: none has more than one more than another. */
static void expect_even(const char *what, const struct shape *s, const uint32_t *load, const bool *in, bool wanted,
                        uint64_t sum)
{
    uint32_t least = UINT32_MAX, most = 0;
    uint64_t got = 0;
    for (uint32_t e = 0; e < s->experts; e++)
        if (in[e] == wanted) {
            least = load[e] < least ? load[e] : least;
            most = load[e] > most ? load[e] : most;
            got += load[e];
        }
    cr_assert_eq(got, sum, "%s: %lu, not %lu", what, (unsigned long)got, (unsigned long)sum);
    cr_assert(got == 0 || most - least <= 1, "%s: %u to %u", what, least, most);
}

/* The choices that `n_hot` experts get of all: half of them, but each at most one a token, and what the others cannot
 * take. */
static uint64_t hot_sum(const struct shape *s, uint32_t n_hot)
{
    uint64_t sum = ((uint64_t)s->tokens * s->k + 1) / 2;
    if (sum > (uint64_t)n_hot * s->tokens)
        sum = (uint64_t)n_hot * s->tokens;
    while ((uint64_t)s->tokens * s->k - sum > (uint64_t)(s->experts - n_hot) * s->tokens)
        sum++;
    return sum;
}

/* The `n_hot` busiest experts. */
static void find_hot(const struct shape *s, const uint32_t *load, uint32_t n_hot, bool *hot)
{
    memset(hot, 0, MOST_EXPERTS * sizeof *hot);
    for (uint32_t i = 0; i < n_hot; i++) {
        uint32_t best = UINT32_MAX;
        for (uint32_t e = 0; e < s->experts; e++)
            if (!hot[e] && (best == UINT32_MAX || load[e] > load[best]))
                best = e;
        hot[best] = true;
    }
}

Test(adversarial, w0_is_balanced)
{
    const bool all[MOST_EXPERTS] = {false};
    uint32_t load[MOST_EXPERTS];
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        struct instance w;
        open_pattern(&w, &shapes[i], 1, SETTINGS("pattern", "W0"));
        for (uint32_t step = 0; step < 3; step++) {
            cr_assert_eq(count(&w, &shapes[i], step, step, load).n_tokens, shapes[i].tokens);
            expect_even("W0", &shapes[i], load, all, false, shapes[i].tokens * shapes[i].k);
        }
        instance_destroy(&w);
    }
}

Test(adversarial, w1_heats_a_drawn_set)
{
    uint32_t load[MOST_EXPERTS];
    bool hot[MOST_EXPERTS], others[MOST_EXPERTS];
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        const uint32_t n_hot = s->experts / s->devices;
        struct instance w, other;
        open_pattern(&w, s, 1, SETTINGS("pattern", "W1"));
        open_pattern(&other, s, 2, SETTINGS("pattern", "W1"));
        uint32_t n_same = 0;
        for (uint32_t layer = 0; layer < 3; layer++) {
            count(&w, s, 0, layer, load);
            find_hot(s, load, n_hot, hot);
            expect_even("hot", s, load, hot, true, hot_sum(s, n_hot));
            expect_even("cold", s, load, hot, false, s->tokens * s->k - hot_sum(s, n_hot));
            count(&w, s, 5, layer, load); /* the same set in another step */
            expect_even("hot", s, load, hot, true, hot_sum(s, n_hot));
            count(&other, s, 0, layer, load);
            find_hot(s, load, n_hot, others);
            n_same += memcmp(hot, others, sizeof hot) == 0;
        }
        cr_assert_lt(n_same, 3, "the seed draws the set");
        instance_destroy(&w);
        instance_destroy(&other);
    }
}

Test(adversarial, w2_heats_a_device_and_w3_spreads_it)
{
    uint32_t load[MOST_EXPERTS];
    bool hot[MOST_EXPERTS];
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct instance w;
        open_pattern(&w, s, 1, SETTINGS("pattern", "W2"));
        for (uint32_t layer = 0; layer < 3; layer++) {
            uint32_t busiest = 0, n_hot = 0;
            count(&w, s, 2, layer, load);
            for (uint32_t e = 1; e < s->experts; e++)
                busiest = load[e] > load[busiest] ? e : busiest;
            for (uint32_t e = 0; e < s->experts; e++)
                n_hot += hot[e] = home(s, e) == home(s, busiest);
            expect_even("hot device", s, load, hot, true, hot_sum(s, n_hot));
            expect_even("other devices", s, load, hot, false, s->tokens * s->k - hot_sum(s, n_hot));
        }
        instance_destroy(&w);
        open_pattern(&w, s, 1, SETTINGS("pattern", "W3"));
        for (uint32_t layer = 0; layer < 3; layer++) {
            uint32_t on[MOST_DEVICES] = {0}, least = UINT32_MAX, most = 0;
            const uint32_t n_hot = s->experts / s->devices;
            count(&w, s, 2, layer, load);
            find_hot(s, load, n_hot, hot);
            expect_even("spread heat", s, load, hot, true, hot_sum(s, n_hot));
            expect_even("the rest", s, load, hot, false, s->tokens * s->k - hot_sum(s, n_hot));
            for (uint32_t e = 0; e < s->experts; e++)
                on[home(s, e)] += hot[e];
            for (uint32_t d = 0; d < s->devices; d++) {
                least = on[d] < least ? on[d] : least;
                most = on[d] > most ? on[d] : most;
            }
            cr_assert(most - least <= 1, "%u to %u hot experts on a device", least, most);
        }
        instance_destroy(&w);
    }
}

Test(adversarial, w4_has_ragged_sources)
{
    uint32_t load[MOST_EXPERTS];
    const bool all[MOST_EXPERTS] = {false};
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct instance w;
        uint32_t sent[MOST_DEVICES] = {0};
        bool found[MOST_DEVICES] = {false};
        open_pattern(&w, s, 1, SETTINGS("pattern", "W4", "ragged", "1.5"));
        const struct moesim_batch b = count(&w, s, 1, 1, load);
        expect_even("W4", s, load, all, false, s->tokens * s->k);
        for (uint32_t t = 0; t < b.n_tokens; t++) {
            cr_assert(b.device[t] < s->devices && (t == 0 || b.device[t] >= b.device[t - 1]));
            sent[b.device[t]]++;
        }
        for (uint32_t j = 0; j < s->devices; j++) { /* from 1.5 times the mean down to half of it, evenly */
            const double wanted = s->tokens * (1.5 - j / (s->devices - 1.0)) / s->devices;
            bool any = false;
            for (uint32_t d = 0; d < s->devices && !any; d++)
                if (!found[d] && fabs(sent[d] - wanted) <= 1)
                    found[d] = any = true;
            cr_assert(any, "no device has %g tokens", wanted);
        }
        instance_destroy(&w);
    }
}

Test(adversarial, w5_leaves_a_device_idle)
{
    uint32_t load[MOST_EXPERTS];
    bool idle[MOST_EXPERTS];
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct instance w;
        open_pattern(&w, s, 1, SETTINGS("pattern", "W5"));
        for (uint32_t layer = 0; layer < 3; layer++) {
            uint32_t one = UINT32_MAX;
            count(&w, s, 4, layer, load);
            for (uint32_t e = 0; e < s->experts; e++)
                one = load[e] == 0 ? e : one;
            cr_assert_neq(one, UINT32_MAX, "no expert is idle");
            for (uint32_t e = 0; e < s->experts; e++)
                idle[e] = home(s, e) == home(s, one);
            expect_even("idle device", s, load, idle, true, 0);
            expect_even("the others", s, load, idle, false, s->tokens * s->k);
        }
        instance_destroy(&w);
    }
}

Test(adversarial, w6_rotates)
{
    uint32_t load[MOST_EXPERTS];
    bool hot[MOST_EXPERTS], before[MOST_EXPERTS] = {false}, ever[MOST_EXPERTS] = {false};
    const struct shape *s = &shapes[0];
    struct instance w;
    open_pattern(&w, s, 1, SETTINGS("pattern", "W6", "every", "5", "hot", "16", "heat", "0.75"));
    for (uint32_t step = 0; step < 40; step++) {
        count(&w, s, step, 2, load);
        find_hot(s, load, 16, hot);
        expect_even("hot", s, load, hot, true, s->tokens * s->k * 3 / 4);
        for (uint32_t e = 0; e < s->experts; e++) {
            cr_assert(step == 0 || (step % 5 ? hot[e] == before[e] : !hot[e] || !before[e]), "step %u", step);
            ever[e] |= hot[e];
        }
        memcpy(before, hot, sizeof hot);
        for (uint32_t e = 0; step == 19 && e < s->experts; e++)
            cr_assert(ever[e], "four sets of 16 are all 64 experts");
    }
    instance_destroy(&w);
}

Test(adversarial, w7_bursts)
{
    uint32_t load[MOST_EXPERTS];
    const bool all[MOST_EXPERTS] = {false};
    for (uint32_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct instance w;
        open_pattern(&w, s, 1, SETTINGS("pattern", "W7", "every", "4", "factor", "3"));
        for (uint32_t step = 0; step < 12; step++) {
            const uint32_t wanted = step == 3 || step == 7 || step == 11 ? s->tokens : s->tokens / 3;
            cr_assert_eq(count(&w, s, step, 0, load).n_tokens, wanted, "step %u", step);
            expect_even("W7", s, load, all, false, wanted * s->k);
        }
        instance_destroy(&w);
    }
}

Test(adversarial, is_a_function_of_seed_step_and_layer)
{
    static const char *const patterns[] = {"W0", "W1", "W2", "W3", "W4", "W5", "W6", "W7"};
    const struct shape *s = &shapes[1];
    for (size_t i = 0; i < 8; i++) {
        struct instance a, b;
        open_pattern(&a, s, 1, SETTINGS("pattern", patterns[i]));
        open_pattern(&b, s, 1, SETTINGS("pattern", patterns[i]));
        const struct moesim_batch x = instance_step(&a, 9, 1);
        for (int threads = 1; threads <= 4; threads *= 2) {
            omp_set_num_threads(threads);
            instance_step(&b, 3, 2);
            cr_assert_arr_eq(x.columns, instance_step(&b, 9, 1).columns, x.n_tokens * s->experts * sizeof(float));
        }
        cr_assert(memcmp(x.columns, instance_step(&b, 8, 1).columns, s->experts * sizeof(float)));
        instance_destroy(&a);
        instance_destroy(&b);
    }
}

Test(adversarial, refuses)
{
    static const struct {
        const char *pattern, *key, *value, *says;
        struct shape shape;
    } cases[] = {
        {"W2", "heat", "0.5", "pattern W2 is about devices, and there is one", {100, 8, 2, 1}},
        {"W5", "heat", "0.5", "pattern W5 is about devices, and there is one", {100, 8, 2, 1}},
        {"W3", "devices", "9", "pattern W3 with 9 devices for 8 experts", {100, 8, 2, 1}},
        {"W5", "devices", "2", "leaves 4 experts, too few for 5 a token", {100, 8, 5, 1}},
        {"W4", "devices", "4", "in pattern W4 they are the study's 2", {100, 8, 2, 2}},
        {"W1", "hot", "9", "hot = 9, but there are 8 experts", {100, 8, 2, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct instance w;
        const struct shape *s = &cases[i].shape;
        const struct moesim_workload_env env = {.n_layers = 1,
                                                .n_experts = s->experts,
                                                .n_columns = s->experts,
                                                .top_k = s->k,
                                                .n_tokens = s->tokens,
                                                .n_devices = s->devices};
        instance_create(&w, "adversarial", SETTINGS("pattern", cases[i].pattern, cases[i].key, cases[i].value));
        cr_assert_eq(instance_init(&w, env), MOESIM_EINVAL, "%s", cases[i].says);
        cr_assert(strstr(w.error.text, cases[i].says), "%s", w.error.text);
        moesim_arena_destroy(w.arena);
    }
}

/* The heat's ends, all experts hot, every expert chosen, one token. */
Test(adversarial, extremes)
{
    static const char *const settings[][5] = {{"heat", "0"},
                                              {"heat", "1"},
                                              {"hot", "8", "heat", "1"},
                                              {"hot", "7", "heat", "0"},
                                              {"pattern", "W7", "factor", "1000000"}};
    static const struct shape s[] = {{50, 8, 8, 1}, {1, 8, 1, 1}, {50, 8, 3, 1}};
    uint32_t load[MOST_EXPERTS];
    for (size_t i = 0; i < 5; i++)
        for (size_t j = 0; j < 3; j++) {
            struct instance w;
            open_pattern(&w, &s[j], 1, settings[i]);
            const struct moesim_batch b = count(&w, &s[j], 0, 0, load);
            uint32_t sum = 0;
            for (uint32_t e = 0; e < 8; e++) {
                cr_assert_leq(load[e], b.n_tokens);
                sum += load[e];
            }
            cr_assert_eq(sum, b.n_tokens * s[j].k);
            instance_destroy(&w);
        }
}
