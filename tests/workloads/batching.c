/*
 * Batching: every kind against what it promises, counted token by token.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "workloads/batching.h"
#include "workloads/permutation.h"

TestSuite(batching, .timeout = 60);

static struct moesim_arena *arena;

static struct batching *make(struct batching_params p, struct batching_source source, uint64_t seed, uint32_t n_tokens)
{
    struct batching *b;
    struct moesim_error err = {""};
    if (!arena)
        arena = moesim_arena_create(0);
    cr_assert_eq(batching_create(&p, &source, seed, n_tokens, arena, &b, &err), MOESIM_OK, "%s", err.text);
    return b;
}

static struct batching_params kind(enum batching_kind batching)
{
    return (struct batching_params){
        .batching = batching, .demand = 0.8, .burst_factor = 4, .burst_steps = 16, .prompt = 0.5, .chunk = 512};
}

/* Sequences of 1, 5, 2, 30, 7 and 3 tokens. */
static const uint64_t start[] = {0, 1, 6, 8, 38, 45, 48};
enum { N_SEQUENCES = 6, N_ROWS = 48 };
static const struct batching_source finite = {.n_sequences = N_SEQUENCES, .start = start};

Test(batching, permutations_are_one_to_one)
{
    for (uint64_t n = 1; n < 300; n += n < 70 ? 1 : 37)
        for (uint32_t round = 0; round < 3; round++) {
            const struct permutation p = {n, 7, MOESIM_STREAM_TEST, round};
            uint8_t seen[300] = {0};
            uint64_t in_place = 0;
            for (uint64_t i = 0; i < n; i++) {
                const uint64_t to = permutation_at(&p, i);
                cr_assert(to < n && !seen[to]);
                seen[to] = 1;
                in_place += to == i;
            }
            cr_assert(n < 16 || in_place < n / 2);
        }
    const struct permutation large = {(1ull << 40) + 1, 7, MOESIM_STREAM_TEST, 0};
    for (uint64_t i = 0; i < 100; i++)
        cr_assert_lt(permutation_at(&large, large.n - 1 - i), large.n);
}

Test(batching, contiguous_takes_one_after_the_other)
{
    struct batching *b = make(kind(BATCHING_CONTIGUOUS), finite, 1, 20);
    for (uint32_t step = 0; step < 7; step++) {
        const struct batching_step s = batching_step(b, step);
        cr_assert(!s.padding);
        for (uint32_t t = 0; t < 20; t++)
            cr_assert_eq(start[s.sequence[t]] + s.position[t], (step * 20 + t) % N_ROWS);
    }
    b = make(kind(BATCHING_CONTIGUOUS), (struct batching_source){.length = 8}, 1, 20);
    const struct batching_step s = batching_step(b, 5); /* three sequences a step, the last one cut */
    for (uint32_t t = 0; t < 20; t++)
        cr_assert(s.sequence[t] == 15 + t / 8 && s.position[t] == t % 8);
}

/* Each row once before any comes again, and neighbours from different sequences. */
Test(batching, shuffled_gives_every_token_once)
{
    struct batching *b = make(kind(BATCHING_SHUFFLED), finite, 3, 7);
    uint32_t count[N_ROWS] = {0}, token = 0, follows = 0;
    for (uint32_t step = 0; token < 5 * N_ROWS; step++) {
        const struct batching_step s = batching_step(b, step);
        for (uint32_t t = 0; t < 7; t++, token++) {
            cr_assert_lt(s.position[t], start[s.sequence[t] + 1] - start[s.sequence[t]]);
            if (token < 5 * N_ROWS)
                cr_assert_eq(count[start[s.sequence[t]] + s.position[t]]++, token / N_ROWS);
            follows += t && s.sequence[t] == s.sequence[t - 1] && s.position[t] == s.position[t - 1] + 1;
        }
    }
    cr_assert_lt(follows, 5 * N_ROWS / 8);
    b = make(kind(BATCHING_SHUFFLED), (struct batching_source){.length = 64}, 3, 1000);
    const struct batching_step s = batching_step(b, 2);
    double mean = 0;
    for (uint32_t t = 0; t < 1000; t++) {
        cr_assert(s.sequence[t] == 2000 + t && s.position[t] < 64);
        mean += (double)s.position[t] / 1000;
    }
    cr_assert(mean > 29.5 && mean < 33.5, "%g of 31.5 +- 5 * 18.5 / sqrt(1000)", mean);
}

/* A place goes on in its sequence, begins the next one where it ends, and has been everywhere after all steps. */
Test(batching, decode_goes_on_where_it_was)
{
    enum { T = 5 };
    struct batching *b = make(kind(BATCHING_DECODE), finite, 3, T);
    uint64_t sequence[T], position[T];
    uint32_t count[T][N_ROWS] = {{0}};
    for (uint32_t step = 0; step < N_ROWS; step++) {
        const struct batching_step s = batching_step(b, step);
        for (uint32_t t = 0; t < T; t++) {
            const uint64_t row = start[s.sequence[t]] + s.position[t];
            cr_assert_eq(count[t][row]++, 0);
            if (step && position[t] + 1 < start[sequence[t] + 1] - start[sequence[t]])
                cr_assert(s.sequence[t] == sequence[t] && s.position[t] == position[t] + 1);
            else if (step)
                cr_assert(s.sequence[t] != sequence[t] && s.position[t] == 0);
            sequence[t] = s.sequence[t];
            position[t] = s.position[t];
        }
    }
    b = make(kind(BATCHING_DECODE), (struct batching_source){.length = 10}, 3, T);
    for (uint32_t step = 0; step < 25; step++) {
        const struct batching_step s = batching_step(b, step);
        for (uint32_t t = 0; t < T; t++) {
            if (step && position[t] < 9)
                cr_assert(s.sequence[t] == sequence[t] && s.position[t] == position[t] + 1);
            else if (step)
                cr_assert(s.sequence[t] == sequence[t] + T && s.position[t] == 0);
            sequence[t] = s.sequence[t];
            position[t] = s.position[t];
        }
    }
}

/* ---- serving ---- */

enum { MOST = 16384, STEPS = 400 };

/* What a run of steps has shown of each sequence that arrived. */
struct seen {
    uint64_t next[MOST]; /* position that comes next */
    uint32_t prompt_left[MOST];
    double mean, square; /* of the tokens of a step */
};

static void watch(struct batching_params p, uint32_t length, uint32_t n_tokens, struct seen *seen)
{
    struct batching *b = make(p, (struct batching_source){.length = length}, 5, n_tokens);
    uint64_t prompt = (uint64_t)(p.prompt * length), last_admitted = 0;
    prompt = prompt ? prompt : 1;
    memset(seen, 0, sizeof *seen);
    for (uint32_t step = 0; step < STEPS; step++) {
        const struct batching_step s = batching_step(b, step);
        static uint32_t taken[MOST];
        static uint64_t before[MOST];
        memset(taken, 0, sizeof taken);
        memcpy(before, seen->next, sizeof before);
        uint32_t n = 0;
        for (uint32_t t = 0; t < n_tokens; t++) {
            if (s.padding[t])
                continue;
            const uint64_t q = s.sequence[t];
            cr_assert_lt(q, MOST);
            cr_assert_eq(s.position[t], seen->next[q]++, "sequence %llu, step %u", (unsigned long long)q, step);
            last_admitted = q > last_admitted ? q : last_admitted;
            taken[q]++;
            n++;
        }
        for (uint64_t q = 0; q <= last_admitted; q++) {
            cr_assert(seen->next[q] <= length && (q == 0 || before[q - 1] || !before[q]), "first come, first served");
            if (before[q] >= prompt && before[q] < length)
                cr_assert_eq(taken[q], 1, "a running sequence gets one token");
            else if (taken[q])
                cr_assert(taken[q] <= p.chunk && before[q] + taken[q] <= prompt);
        }
        if (step >= STEPS / 4) {
            seen->mean += (double)n / (STEPS - STEPS / 4);
            seen->square += (double)n * n / (STEPS - STEPS / 4);
        }
    }
    moesim_arena_destroy(arena);
    arena = NULL;
}

Test(batching, serving_keeps_its_promises)
{
    static struct seen seen;
    struct batching_params p = kind(BATCHING_SERVING);
    p.chunk = 16;
    watch(p, 40, 256, &seen);
    cr_assert(seen.mean > 0.74 * 256 && seen.mean < 0.86 * 256, "80 %% of the places are taken: %g", seen.mean / 256);
    p.demand = 3;
    watch(p, 40, 256, &seen);
    cr_assert_float_eq(seen.mean, 256, 1e-9, "an overloaded server is full");
    p.demand = 0.8;
    p.prompt = 0;
    watch(p, 3, 64, &seen);
    p.prompt = 1;
    watch(p, 50, 64, &seen);
}

/* Tokens of a step: nearly the same when arrivals are steady, most unlike in bursts. */
Test(batching, arrivals_differ_in_spread)
{
    double deviation[3];
    for (uint32_t arrival = 0; arrival < 3; arrival++) {
        static struct seen seen;
        struct batching_params p = kind(BATCHING_SERVING);
        p.arrival = arrival;
        p.demand = 0.3;
        p.prompt = 1; /* all of a sequence in one step */
        watch(p, 8, 512, &seen);
        deviation[arrival] = seen.square - seen.mean * seen.mean;
        cr_assert(seen.mean > 0.2 * 512 && seen.mean < 0.4 * 512, "%g", seen.mean / 512);
    }
    /* 19.2 arrivals of 8 tokens: Poisson variance 19.2 * 64; a burst's 4 times the rate adds (4 - 1) * 153.6^2 */
    cr_assert_lt(deviation[ARRIVAL_STEADY], 32);
    cr_assert(deviation[ARRIVAL_POISSON] > 800 && deviation[ARRIVAL_POISSON] < 1800, "%g", deviation[ARRIVAL_POISSON]);
    cr_assert(deviation[ARRIVAL_BURSTY] > 30000 && deviation[ARRIVAL_BURSTY] < 110000, "%g", deviation[ARRIVAL_BURSTY]);
}

/* A finite source: all sequences once before any arrives again. */
Test(batching, serving_takes_recorded_sequences_in_turn)
{
    struct batching_params p = kind(BATCHING_SERVING);
    p.demand = 1;
    struct batching *b = make(p, finite, 2, 16);
    uint32_t count[N_ROWS] = {0};
    for (uint32_t step = 0; step < 200; step++) {
        const struct batching_step s = batching_step(b, step);
        for (uint32_t t = 0; t < 16; t++)
            if (!s.padding[t]) {
                cr_assert(s.sequence[t] < N_SEQUENCES &&
                          s.position[t] < start[s.sequence[t] + 1] - start[s.sequence[t]]);
                count[start[s.sequence[t]] + s.position[t]]++;
            }
    }
    for (uint32_t i = 0; i < N_ROWS; i++)
        cr_assert(count[i] > 30 && count[i] < 80, "row %u: %u times", i, count[i]);
}

/* The same step whatever was asked before; other seeds, other steps. */
Test(batching, steps_are_pure_functions)
{
    for (uint32_t k = 0; k < 4; k++)
        for (uint32_t is_finite = 0; is_finite < 2; is_finite++) {
            const struct batching_source source = is_finite ? finite : (struct batching_source){.length = 9};
            struct batching *a = make(kind(k), source, 1, 33), *b = make(kind(k), source, 1, 33);
            struct batching *other = make(kind(k), source, 2, 33);
            bool differs = false;
            for (uint32_t step = 0; step < 40; step++)
                batching_step(a, step);
            for (uint32_t i = 0; i < 40; i++) {
                const uint32_t step = i * 17 % 40;
                const struct batching_step x = batching_step(a, step), y = batching_step(b, step);
                cr_assert_arr_eq(x.sequence, y.sequence, 33 * sizeof *x.sequence);
                cr_assert_arr_eq(x.position, y.position, 33 * sizeof *x.position);
                cr_assert_eq(!x.padding, k != BATCHING_SERVING);
                if (x.padding)
                    cr_assert_arr_eq(x.padding, y.padding, 33);
                const struct batching_step z = batching_step(other, step);
                differs |= memcmp(x.sequence, z.sequence, 33 * sizeof *x.sequence) != 0 ||
                           memcmp(x.position, z.position, 33 * sizeof *x.position) != 0;
            }
            cr_assert_eq(differs, k != BATCHING_CONTIGUOUS, "seeds of kind %u", k);
        }
}

Test(batching, settings_without_effect_are_refused)
{
    struct moesim_error err;
    struct batching_params p = kind(BATCHING_DECODE);
    cr_assert_eq(batching_check(&p, &err), MOESIM_OK);
    p.chunk = 100;
    cr_assert_eq(batching_check(&p, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "chunk has no effect without batching=serving");
    p = kind(BATCHING_SERVING);
    p.burst_steps = 3;
    cr_assert_eq(batching_check(&p, &err), MOESIM_EINVAL);
    cr_assert_str_eq(err.text, "burst_steps has no effect without arrival=bursty");
    p.arrival = ARRIVAL_BURSTY;
    cr_assert_eq(batching_check(&p, &err), MOESIM_OK);
}
