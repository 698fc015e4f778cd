/*
 * When a placement is made, from which steps' loads, and what its moves cost: a rule that notes what it was shown.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/experiment/placing.h"

TestSuite(placing, .timeout = 60);

enum { EXPERTS = 4, DEVICES = 2, LAYERS = 2, TOKENS = 6, CHOICES = 2 };

static struct moesim_arena *arena;
static struct moesim_error err;

struct witness_params {
    struct moesim_placement_fit fit;
};

/* What the rule saw last, and how often it was asked. */
static struct {
    uint32_t n, n_layers, n_experts;
    double load[LAYERS][EXPERTS], together[LAYERS][EXPERTS][EXPERTS], next[EXPERTS][EXPERTS];
} seen;

/* [rows][n] into [rows][EXPERTS]. */
static void keep(double *to, const double *from, size_t rows, size_t n)
{
    for (size_t i = 0; from && i < rows; i++)
        memcpy(to + i * EXPERTS, from + i * n, n * sizeof *to);
}

/* The busier half of layer 0's experts on device 0. */
static enum moesim_status witness_place(const void *params, const struct moesim_placement_stats *stats, uint64_t seed,
                                        const struct moesim_cluster *cluster, struct moesim_placement *placement,
                                        struct moesim_error *e)
{
    (void)params, (void)seed, (void)cluster, (void)e;
    seen.n++;
    seen.n_layers = stats->n_layers;
    const uint32_t n = seen.n_experts = stats->n_experts;
    memset(seen.load, 0, sizeof seen.load);
    keep(seen.load[0], stats->load, stats->n_layers, n);
    for (uint32_t l = 0; stats->together && l < stats->n_layers; l++)
        keep(seen.together[l][0], stats->together + (size_t)l * n * n, n, n);
    keep(seen.next[0], stats->next, n, n);
    for (uint32_t l = 0; l < stats->n_layers; l++) {
        for (uint32_t x = 0; x < n; x++) {
            uint32_t before = 0;
            for (uint32_t y = 0; y < n; y++)
                before += stats->load[y] > stats->load[x] || (stats->load[y] == stats->load[x] && y < x);
            placement[l].primary[x] = before >= n / 2;
        }
        moesim_placement_single(&placement[l]);
    }
    return MOESIM_OK;
}

static struct moesim_placement_rule rule = {.name = "witness", .place = witness_place};
static struct witness_params params;
static struct moesim_point point;
static struct moesim_placing placing;
static struct moesim_plan plan;
static uint64_t kept[EXPERTS];

static void set_up(void)
{
    arena = moesim_arena_create(0);
    memset(&seen, 0, sizeof seen);
    rule.wants = MOESIM_WANTS_LOAD;
    params = (struct witness_params){{.from = "warm-up", .fit_steps = 2}};
    point = (struct moesim_point){.seed = 1,
                                  .steps = 12,
                                  .warm_up = 3,
                                  .n_tokens = TOKENS,
                                  .has_cluster = true,
                                  .cluster = moesim_cluster_find("h100-dgx")->cluster,
                                  .placement = &rule,
                                  .placement_params = &params,
                                  .placement_spec = "witness"};
    point.cluster.devices_per_node = DEVICES;
    point.model = moesim_model_find("mixtral-8x7b")->model;
    point.model.layers = LAYERS;
    point.model.experts = EXPERTS;
    cr_assert_eq(moesim_plan_init(&plan, TOKENS, EXPERTS, 1, TOKENS * CHOICES, 0, arena, &err), MOESIM_OK);
    plan.n_tokens = TOKENS;
    plan.n_pairs = TOKENS * CHOICES;
}

static void tear_down(void)
{
    moesim_arena_destroy(arena);
}

/* A plan in which token t of layer l takes experts (step + l) and (step + l + 1), both mod 4; the second pair of token
 * 0 is refused. */
static void route(uint32_t step, uint32_t layer)
{
    memset(kept, 0, sizeof kept);
    for (uint32_t i = 0; i < plan.n_pairs; i++) {
        plan.first[i / CHOICES] = i / CHOICES * CHOICES;
        plan.expert[i] = (step + layer + i % CHOICES) % EXPERTS;
        plan.fate[i] = i == 1 ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
        kept[plan.expert[i]] += plan.fate[i] == MOESIM_KEPT;
    }
    plan.first[TOKENS] = TOKENS * CHOICES;
}

/* Steps [0, n): [i] of the result is how often the rule had been asked before step i was priced; *moves counts moves.
 */
static void run(uint32_t n, uint32_t *asked, uint32_t *moves)
{
    *moves = 0;
    for (uint32_t s = 0; s < n; s++) {
        bool moved;
        cr_assert_eq(moesim_placing_begin(&placing, s, &moved, &err), MOESIM_OK);
        *moves += moved;
        asked[s] = seen.n;
        const struct moesim_batch batch = {.step = s, .n_tokens = TOKENS, .n_experts = EXPERTS};
        for (uint32_t l = 0; l < LAYERS; l++) {
            route(s, l);
            cr_assert_eq(moesim_placing_layer(&placing, s, l, &plan, &batch, kept, &err), MOESIM_OK);
        }
    }
}

static void expect_load(uint32_t layer, const double *load)
{
    for (uint32_t x = 0; x < EXPERTS; x++)
        cr_assert_eq(seen.load[layer][x], load[x], "layer %u, expert %u: load %g, not %g", layer, x,
                     seen.load[layer][x], load[x]);
}

/* The last two of the three warm-up steps: 1 and 2. Six tokens keep their first expert, five their second. */
Test(placing, warm_up, .init = set_up, .fini = tear_down)
{
    uint32_t asked[6], moves;
    cr_assert_eq(moesim_placing_init(&placing, &point, EXPERTS, NULL, TOKENS * CHOICES, arena, &err), MOESIM_OK, "%s",
                 err.text);
    expect_load(0, (double[]){1, 1, 1, 1}); /* even loads to begin with */
    run(6, asked, &moves);
    cr_assert(moves == 0 && asked[2] == 1 && asked[3] == 2 && asked[5] == 2 && seen.n_layers == LAYERS);
    expect_load(0, (double[]){0, 6, 5 + 6, 5});
    expect_load(1, (double[]){5, 0, 6, 5 + 6});
    cr_assert(placing.placement[0].primary[2] == 0 && placing.placement[0].primary[0] == 1);
}

/* Every two steps from the one before: at 5 from step 4, at 7 from step 6. Expert weights move between two devices. */
Test(placing, every_and_window, .init = set_up, .fini = tear_down)
{
    uint32_t asked[6], moves;
    params.fit.every = 2;
    params.fit.window = 1;
    cr_assert_eq(moesim_placing_init(&placing, &point, EXPERTS, NULL, TOKENS * CHOICES, arena, &err), MOESIM_OK);
    run(6, asked, &moves);
    cr_assert(asked[3] == 2 && asked[4] == 2 && asked[5] == 3 && moves == 1);
    expect_load(0, (double[]){6, 5, 0, 0}); /* step 4 */
    /* From the fit on steps 1 and 2 (experts 2, 1 on device 0) to 0, 1: expert 0 and 2 change places, on both layers.
     */
    cr_assert_float_eq(placing.migration.bytes, 4 * moesim_model_expert_bytes(&point.model), 1);
}

/* At every step the layer's own loads, whatever was before; a file's loads once. */
Test(placing, oracle_and_file, .init = set_up, .fini = tear_down)
{
    uint32_t asked[4], moves;
    static const float file[EXPERTS] = {1, 2, 3, 4};
    params.fit.from = "oracle";
    rule.wants = MOESIM_WANTS_LOAD | MOESIM_WANTS_TOGETHER;
    cr_assert_eq(moesim_placing_init(&placing, &point, EXPERTS, NULL, TOKENS * CHOICES, arena, &err), MOESIM_OK);
    run(4, asked, &moves);
    cr_assert(moves == 0 && seen.n == 1 + 4 * LAYERS && seen.n_layers == 1);
    expect_load(0, (double[]){6, 5, 0, 0}); /* layer 1 of step 3 */
    cr_assert(seen.together[0][0][1] == 5 && seen.together[0][1][0] == 5 && seen.together[0][0][2] == 0);

    params.fit.from = "loads.npy";
    rule.wants = MOESIM_WANTS_LOAD;
    point.placement_loads = (struct moesim_file_array){.values = file, .n = EXPERTS, .n_dimensions = 1, .shape = {4}};
    cr_assert_eq(moesim_placing_init(&placing, &point, EXPERTS, NULL, TOKENS * CHOICES, arena, &err), MOESIM_OK);
    expect_load(1, (double[]){1, 2, 3, 4});
    const uint32_t before = seen.n;
    run(4, asked, &moves);
    cr_assert(seen.n == before && moves == 0);
    point.placement_loads = (struct moesim_file_array){0};
}

/* First choices from layer to layer: expert s to s + 1 for six tokens a step. Zero-computation experts have no load,
 * and behind the others no place. */
Test(placing, next_choices_and_kinds, .init = set_up, .fini = tear_down)
{
    uint32_t asked[4], moves;
    static const uint8_t kind[EXPERTS] = {[3] = MOESIM_EXPERT_ZERO};
    rule.wants = MOESIM_WANTS_LOAD | MOESIM_WANTS_NEXT;
    cr_assert_eq(moesim_placing_init(&placing, &point, EXPERTS, kind, TOKENS * CHOICES, arena, &err), MOESIM_OK);
    run(4, asked, &moves);
    cr_assert_eq(seen.n_experts, 3);
    cr_assert_eq(seen.next[1][2], 6); /* step 1 */
    /* step 2: expert 3 is no load, so the second choice, 0, counts, which token 0 was refused */
    cr_assert(seen.next[2][0] == 5 && seen.next[2][3] == 0);
    expect_load(0, (double[]){0, 6, 5 + 6, 0});
}

Test(placing, contradictions)
{
    struct moesim_placement_rule r = {.name = "affine", .wants = MOESIM_WANTS_LOAD | MOESIM_WANTS_NEXT};
    static const struct {
        struct moesim_placement_fit fit;
        const char *word;
    } cases[] = {
        {{.from = "warm-up", .fit_steps = 11}, "fit_steps = 11"},
        {{.from = "oracle", .fit_steps = 1}, "looks from layer to layer"},
        {{.from = "a.npy", .fit_steps = 1}, "a file has loads"},
        {{.from = "warm-up", .fit_steps = 1, .every = 2, .window = 3}, "window = 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(moesim_placement_fit_check(&r, &cases[i].fit, 10, &err), MOESIM_EINVAL);
        cr_assert(strstr(err.text, cases[i].word), "%s", err.text);
    }
    r.wants = MOESIM_WANTS_LOAD;
    cr_assert_eq(moesim_placement_fit_check(&r, &(struct moesim_placement_fit){.from = "oracle", .every = 1}, 0, &err),
                 MOESIM_EINVAL);
    cr_assert_eq(moesim_placement_fit_check(&r, &(struct moesim_placement_fit){.from = "oracle"}, 0, &err), MOESIM_OK);
}
