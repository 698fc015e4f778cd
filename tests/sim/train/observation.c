/*
 * What validations show of the routing, against figures worked out by hand.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/train/observation.h"

TestSuite(observation, .timeout = 30);

enum { T = 4, E = 70, K = 2, MANY = 64 }; /* experts of more than one word */

struct bed {
    struct moesim_arena *arena;
    struct moesim_observation observation;
    struct moesim_plan plan;
    struct moesim_batch batch;
};

static void open_bed(struct bed *b, uint32_t n_tokens)
{
    struct moesim_error err;
    const struct moesim_observation_shape shape = {
        .n_layers = 2, .n_experts = E, .n_domains = 2, .vocabulary = 5, .n_tokens = n_tokens, .n_validations = 3};
    *b = (struct bed){.arena = moesim_arena_create(0)};
    cr_assert_eq(moesim_observation_init(&b->observation, &shape, b->arena, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_plan_init(&b->plan, T, E, 1, T * K, 0, b->arena, &err), MOESIM_OK, "%s", err.text);
}

/* A batch of T tokens, each with K experts. */
static void add(struct bed *b, uint32_t layer, uint32_t first_token, const uint32_t *id, const uint32_t *domain,
                const uint32_t expert[T][K])
{
    b->batch = (struct moesim_batch){.n_tokens = T, .token_id = id, .domain = domain};
    b->plan.n_tokens = T;
    b->plan.n_pairs = T * K;
    for (uint32_t t = 0; t < T; t++) {
        b->plan.first[t + 1] = (t + 1) * K;
        for (uint32_t c = 0; c < K; c++)
            b->plan.expert[t * K + c] = expert[t][c];
    }
    moesim_observation_add(&b->observation, layer, first_token, &b->batch, &b->plan);
}

static const uint32_t ids[T] = {1, 1, 3, 1}, domains[T] = {0, 0, 1, 1};

Test(observation, figures_by_hand)
{
    struct bed b;
    open_bed(&b, T);
    const uint32_t then[T][K] = {{0, 69}, {0, 1}, {2, 3}, {69, 3}}, now[T][K] = {{69, 0}, {0, 2}, {2, 3}, {4, 5}};
    moesim_observation_begin(&b.observation);
    add(&b, 0, 0, ids, domains, then);
    add(&b, 1, 0, ids, domains, now);
    struct moesim_observed f = moesim_observation_figures(&b.observation, 0);
    cr_assert(isnan(f.fluctuation), "there is none before");
    cr_assert(isnan(f.of_vocabulary), "no id was seen often");
    cr_assert_float_eq(f.of_domains, 1, 1e-12); /* expert 0 has both tokens of the first, 3 of the second */
    cr_assert_float_eq(f.max_vio, (2 - 8.0 / E) / (8.0 / E), 1e-9);
    f = moesim_observation_figures(&b.observation, 1);
    cr_assert_float_eq(f.of_domains, (1 + 0.5) / 2, 1e-12);

    moesim_observation_begin(&b.observation);
    add(&b, 0, 0, ids, domains, now);
    add(&b, 1, 0, ids, domains, now);
    f = moesim_observation_figures(&b.observation, 0);
    cr_assert_float_eq(f.fluctuation, 2.0 / 4, 1e-12); /* order does not matter: tokens 1 and 3 moved */
    cr_assert_float_eq(moesim_observation_figures(&b.observation, 1).fluctuation, 0, 0);
    cr_assert_float_eq(moesim_observation_saturation(&b.observation, 0, 0), (1 + 0.5 + 1 + 0) / 4, 1e-12);
    cr_assert_float_eq(moesim_observation_saturation(&b.observation, 1, 0), 1, 0);
    uint32_t id[3];
    cr_assert_eq(moesim_observation_frequent(&b.observation, 3, id), 2);
    cr_assert(id[0] == 1 && id[1] == 3);
    cr_assert_eq(moesim_observation_frequent(&b.observation, 1, id), 1);
    cr_assert_eq(id[0], 1);
    moesim_arena_destroy(b.arena);
}

/* Batches of one validation add up; ids count from MOESIM_SEEN_OFTEN appearances on; a bad row has no expert. */
Test(observation, batches_add_up)
{
    struct bed b;
    open_bed(&b, T * MANY);
    moesim_observation_begin(&b.observation);
    for (uint32_t i = 0; i < MANY; i++) {
        const uint32_t other = i % 4 == 0 ? 7 : 8;
        const uint32_t expert[T][K] = {{5, other}, {5, other}, {6, 9}, {MOESIM_NO_EXPERT, MOESIM_NO_EXPERT}};
        const uint32_t id[T] = {0, 2, 4, i % 2 ? 1 : 3};
        add(&b, 0, i * T, id, domains, expert);
    }
    const struct moesim_observed f = moesim_observation_figures(&b.observation, 0);
    cr_assert_float_eq(f.of_domains, (1 + 0.5) / 2, 1e-12); /* 5 has all of the first; 6 half of the second */
    cr_assert_float_eq(f.of_vocabulary, (1 + 1 + 1 + 0 + 0) / 5.0, 1e-12);
    cr_assert_float_eq(moesim_observation_saturation(&b.observation, 0, 0), 1, 0);
    moesim_arena_destroy(b.arena);
}

Test(observation, memory_is_counted)
{
    const struct moesim_observation_shape shape = {
        .n_layers = 4, .n_experts = 16, .n_domains = 6, .vocabulary = 256, .n_tokens = 8192, .n_validations = 20};
    struct moesim_observation observation;
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(moesim_observation_bytes(&shape) + 4096);
    cr_assert_eq(moesim_observation_init(&observation, &shape, arena, &err), MOESIM_OK, "%s", err.text);
    moesim_arena_destroy(arena);
    arena = moesim_arena_create(moesim_observation_bytes(&shape) / 2);
    cr_assert_eq(moesim_observation_init(&observation, &shape, arena, &err), MOESIM_ENOMEM);
    moesim_arena_destroy(arena);
}
