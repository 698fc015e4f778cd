/*
 * What one pass over a plan counts, beside the plainest loops that say the same; how sure logits are, beside one row
 * and one lane at a time: equal bits, on any number of threads, whoever has added them up.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/metric.h>
#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/contract/kernels/rows.h"
#include "sim/contract/logarithm.h"

TestSuite(kernels_survey, .timeout = 60);

enum { TOKENS = 5000, EXPERTS = 100, MOST = 90, ALL = 7 };

static struct moesim_arena *arena;
static struct moesim_error err;
static struct moesim_plan plan;
static struct moesim_batch batch;
static uint32_t sequence[TOKENS];
static uint8_t padding[TOKENS];

static void set_up(void)
{
    arena = moesim_arena_create(0);
    cr_assert_eq(moesim_plan_init(&plan, TOKENS, EXPERTS, 1, TOKENS * MOST, 0, arena, &err), MOESIM_OK);
    plan.n_tokens = TOKENS;
    batch = (struct moesim_batch){.struct_size = sizeof batch, .n_tokens = TOKENS, .n_experts = EXPERTS};
}

static void tear_down(void)
{
    moesim_arena_destroy(arena);
}

/* ---- the plainest loops ---- */

static bool names(uint32_t t, uint32_t expert)
{
    for (uint32_t i = plan.first[t]; i < plan.first[t + 1]; i++)
        if (plan.expert[i] == expert)
            return true;
    return false;
}

/* Shares of tokens with equally many experts, up to 64, are counted in whole numbers; those of others are added up run
 * by run. */
static double naive_overlap(uint32_t lag)
{
    uint64_t shared[65] = {0}, n_tokens = 0;
    double wide = 0, sum = 0;
    for (uint32_t first = 0; first < plan.n_tokens; first += MOESIM_RUN_TOKENS) {
        double of_run = 0;
        for (uint32_t t = first; t < plan.n_tokens && t < first + MOESIM_RUN_TOKENS; t++) {
            uint32_t n = 0, both = 0;
            if (t < lag || (batch.sequence_id && batch.sequence_id[t] != batch.sequence_id[t - lag]))
                continue;
            for (uint32_t e = 0; e < plan.n_experts; e++) {
                n += names(t, e);
                both += names(t, e) && names(t - lag, e);
            }
            n_tokens += n > 0;
            if (n <= 64)
                shared[n] += both;
            else
                of_run += (double)both / n;
        }
        wide += of_run;
    }
    for (uint32_t n = 1; n <= 64; n++)
        sum += (double)shared[n] / n;
    return n_tokens ? (sum + wide) / (double)n_tokens : NAN;
}

static bool same(double a, double b)
{
    return a == b || (isnan(a) && isnan(b));
}

static void check(struct moesim_survey *survey, uint32_t wants, unsigned which)
{
    uint64_t assigned[EXPERTS], kept[EXPERTS];
    uint32_t n_tokens = 0, n_served = 0;
    struct moesim_survey_result r;
    moesim_survey_pass(survey, &plan, &batch, wants, &r);
    moesim_plan_count(&plan, assigned, kept);
    uint64_t n_kept = 0;
    for (uint32_t t = 0; t < plan.n_tokens; t++) {
        uint32_t n = 0;
        for (uint32_t i = plan.first[t]; i < plan.first[t + 1]; i++)
            n += plan.fate[i] == MOESIM_KEPT;
        n_kept += n;
        n_served += n > 0;
        n_tokens += !(batch.padding && batch.padding[t]);
    }
    cr_assert_arr_eq(r.assigned, assigned, plan.n_experts * sizeof *assigned, "plan %u", which);
    cr_assert_arr_eq(r.kept, kept, plan.n_experts * sizeof *kept, "plan %u", which);
    cr_assert(r.n_kept == n_kept && r.n_served == n_served && r.n_tokens == n_tokens, "plan %u", which);
    const double lag1 = wants & MOESIM_SURVEY_LAG1 ? naive_overlap(1) : NAN;
    const double lag64 = wants & MOESIM_SURVEY_LAG64 ? naive_overlap(64) : NAN;
    cr_assert(same(r.lag1_overlap, lag1), "plan %u: %.17g, not %.17g", which, r.lag1_overlap, lag1);
    cr_assert(same(r.lag64_overlap, lag64), "plan %u: %.17g, not %.17g", which, r.lag64_overlap, lag64);
}

/* ---- plans ---- */

/* n tokens with between `least` and `most` experts each, of which every `refused`th pair is refused. */
static void draw(const struct moesim_random *random, uint32_t n, uint32_t least, uint32_t most, uint32_t refused)
{
    uint64_t at = 0;
    uint32_t pair = 0;
    plan.n_tokens = batch.n_tokens = n;
    for (uint32_t t = 0; t < n; t++) {
        const uint32_t k = least + moesim_random_below(random, at++, most - least + 1);
        const uint32_t from = moesim_random_below(random, at++, plan.n_experts);
        plan.first[t] = pair;
        for (uint32_t c = 0; c < k; c++, pair++) {
            plan.expert[pair] = (from + c * 7) % plan.n_experts; /* which is no multiple of 7 */
            plan.fate[pair] = refused && pair % refused == 0 ? MOESIM_OVER_CAPACITY : MOESIM_KEPT;
            if (plan.fate[pair] != MOESIM_KEPT && pair % 3 == 0)
                plan.expert[pair] = MOESIM_NO_EXPERT;
        }
    }
    plan.first[n] = pair;
    plan.n_pairs = pair;
}

/* Even and uneven plans, in turn by one survey, with sequences that end anywhere and with padding. */
Test(kernels_survey, counts_equal_the_plainest_loops, .init = set_up, .fini = tear_down)
{
    static const struct {
        uint32_t n, least, most, refused;
    } shape[] = {{TOKENS, 2, 2, 0}, {TOKENS, 1, 1, 0}, {TOKENS, 2, 2, 9}, {2500, 8, 8, 0}, {1100, 5, 5, 0},
                 {3000, 2, 2, 0},   {1024, 9, 9, 0},   {2100, 0, 4, 5},   {1500, 4, 4, 0}, {1030, 50, MOST, 0},
                 {1200, 66, 66, 0}, {64, 2, 2, 0},     {65, 3, 3, 0},     {1, 1, 1, 0},    {0, 0, 0, 0}};
    for (int threads = 1; threads <= 3; threads += 2) {
        struct moesim_survey *survey;
        omp_set_num_threads(threads);
        cr_assert_eq(moesim_survey_init(TOKENS, EXPERTS, arena, &survey, &err), MOESIM_OK);
        for (unsigned i = 0; i < 3 * sizeof shape / sizeof *shape; i++) {
            const unsigned s = i % (sizeof shape / sizeof *shape);
            const struct moesim_random random = {.seed = i, .stream = MOESIM_STREAM_TEST};
            draw(&random, shape[s].n, shape[s].least, shape[s].most, shape[s].refused);
            for (uint32_t t = 0; t < plan.n_tokens; t++) {
                sequence[t] = t / 700 * 10 + (t % 301 == 300);
                padding[t] = t % 5 == 1 && plan.first[t] == plan.first[t + 1];
            }
            batch.sequence_id = i % 3 ? sequence : NULL;
            batch.padding = i % 3 == 2 ? padding : NULL;
            check(survey, ALL - (i % 4 == 3), i);
        }
    }
}

/* Makes the plan that was drawn a valid one of n_groups groups, with slots in the order of tokens. */
static void seat(uint32_t n_groups, uint32_t *group_start)
{
    static uint32_t taken[EXPERTS];
    const uint32_t n = plan.n_tokens;
    plan.n_groups = batch.n_groups = n_groups;
    for (uint32_t g = 0; g <= n_groups; g++)
        group_start[g] = (uint32_t)((uint64_t)n * g * g / n_groups / n_groups);
    batch.group_start = group_start;
    for (uint32_t g = 0; g < n_groups; g++) {
        memset(taken, 0, sizeof taken);
        for (uint32_t i = plan.first[group_start[g]]; i < plan.first[group_start[g + 1]]; i++) {
            const bool kept = plan.fate[i] == MOESIM_KEPT;
            plan.expert[i] = plan.expert[i] == MOESIM_NO_EXPERT ? 0 : plan.expert[i];
            plan.weight[i] = kept ? 0.5f : 0;
            plan.slot[i] = kept ? (int32_t)taken[plan.expert[i]]++ : -1;
        }
    }
    memset(plan.capacity, 0xff, (size_t)n_groups * plan.n_experts * sizeof *plan.capacity);
}

static void check_beside_pass(struct moesim_survey *survey, uint32_t wants, void *scratch, unsigned which)
{
    static uint64_t kept[EXPERTS], assigned[EXPERTS];
    const size_t size = plan.n_experts * sizeof *kept;
    struct moesim_survey_result own, beside;
    moesim_survey_pass(survey, &plan, &batch, wants, &own);
    memcpy(kept, own.kept, size);
    memcpy(assigned, own.assigned, size);
    cr_assert_eq(moesim_survey_check(survey, &plan, &batch, wants, "mine", scratch, &beside, &err), MOESIM_OK,
                 "plan %u: %s", which, err.text);
    cr_assert_arr_eq(kept, beside.kept, size, "plan %u", which);
    cr_assert_arr_eq(assigned, beside.assigned, size, "plan %u", which);
    cr_assert(own.n_kept == beside.n_kept && own.n_tokens == beside.n_tokens && own.n_served == beside.n_served &&
                  same(own.lag1_overlap, beside.lag1_overlap) && same(own.lag64_overlap, beside.lag64_overlap),
              "plan %u", which);
}

/* Even plans are counted by validation, others after it: both as by a pass of their own. */
Test(kernels_survey, validation_counts_what_a_pass_does, .init = set_up, .fini = tear_down)
{
    static const struct {
        uint32_t n, least, most, refused, n_experts, n_groups;
    } shape[] = {{TOKENS, 2, 2, 0, 100, 1}, {TOKENS, 8, 8, 0, 60, 1}, {TOKENS, 8, 8, 0, 60, 3},
                 {TOKENS, 6, 6, 0, 64, 2},  {TOKENS, 3, 3, 0, 5, 4},  {TOKENS, 1, 1, 0, 8, 9},
                 {TOKENS, 2, 2, 7, 100, 2}, {TOKENS, 1, 3, 0, 20, 1}, {TOKENS, 66, 66, 0, 100, 1},
                 {TOKENS, 4, 4, 0, 64, 40}, {300, 4, 4, 0, 64, 1},    {1, 2, 2, 0, 9, 1}};
    uint32_t group_start[41];
    for (int threads = 1; threads <= 4; threads++)
        for (unsigned i = 0; i < sizeof shape / sizeof *shape; i++) {
            const struct moesim_random random = {.seed = i, .stream = MOESIM_STREAM_TEST + 1};
            struct moesim_survey *survey;
            omp_set_num_threads(threads);
            cr_assert_eq(moesim_plan_init(&plan, TOKENS, shape[i].n_experts, 40, TOKENS * MOST, 0, arena, &err), 0);
            cr_assert_eq(moesim_survey_init(TOKENS, shape[i].n_experts, arena, &survey, &err), MOESIM_OK);
            void *scratch = moesim_alloc(arena, moesim_plan_check_scratch(shape[i].n_experts, plan.max_pairs), 1);
            draw(&random, shape[i].n, shape[i].least, shape[i].most, shape[i].refused);
            seat(shape[i].n_groups, group_start);
            plan.n_wanted = 0;
            for (uint32_t t = 0; t < plan.n_tokens; t++)
                sequence[t] = t / 700 * 10 + (t % 301 == 300);
            batch.n_experts = shape[i].n_experts;
            batch.sequence_id = i % 4 ? sequence : NULL;
            const uint32_t wants = i % 5 == 4 ? MOESIM_SURVEY_LAG64 : ALL;
            check_beside_pass(survey, wants, scratch, i);
            const uint32_t last = (uint32_t)plan.n_pairs - 1;
            if (plan.fate[last] == MOESIM_KEPT) { /* a slot that does not follow, but is the expert's own */
                plan.slot[last] += 5;
                check_beside_pass(survey, wants, scratch, i);
            }
            struct moesim_survey_result r;
            plan.expert[last] = plan.n_experts;
            cr_assert_eq(moesim_survey_check(survey, &plan, &batch, wants, "mine", scratch, &r, &err), MOESIM_EBROKEN);
        }
}

Test(kernels_survey, overlap_of_tokens_by_hand, .init = set_up, .fini = tear_down)
{
    /* tokens: {0,1} {1,2} {} {2} {bad row} {2,3} (3 refused) */
    uint32_t first[] = {0, 2, 4, 4, 5, 7, 9};
    uint32_t expert[] = {0, 1, 1, 2, 2, MOESIM_NO_EXPERT, MOESIM_NO_EXPERT, 2, 3};
    uint8_t fate[] = {0, 0, 0, 0, 0, MOESIM_BAD_ROW, MOESIM_BAD_ROW, 0, MOESIM_OVER_CAPACITY};
    const struct moesim_plan hand = {
        .n_tokens = 6, .n_experts = 4, .n_pairs = 9, .first = first, .expert = expert, .fate = fate};
    struct moesim_survey *survey;
    struct moesim_survey_result r;
    cr_assert_eq(moesim_survey_init(6, 4, arena, &survey, &err), MOESIM_OK);
    moesim_survey_pass(survey, &hand, &batch, ALL, &r);
    /* token 1 shares 1 of 2, token 3 shares 0 of 1, token 5 shares 0 of 2; tokens 2 and 4 have none */
    cr_assert_float_eq(r.lag1_overlap, (.5 + 0 + 0) / 3, 1e-15);
    cr_assert(isnan(r.lag64_overlap) && isnan(r.confidence.entropy) && isnan(r.confidence.z));
    cr_assert(r.n_kept == 6 && r.n_served == 4 && r.n_tokens == 6 && r.assigned[3] == 1 && r.kept[3] == 0);
    moesim_survey_pass(survey, &hand, &batch, 0, &r);
    cr_assert(isnan(r.lag1_overlap) && r.n_kept == 6);
}

/* ---- how sure logits are ---- */

static void add(float x[8], const float *row, uint32_t n, float max, bool times_d)
{
    for (uint32_t i = 0; i < 8; i++)
        x[i] = 0;
    for (uint32_t i = 0; i < n; i++) {
        const float d = row[i] - max;
        x[i % 8] += times_d ? moesim_expf(d) * (d < -88 ? -88 : d) : moesim_expf(d);
    }
}

static float tree(const float x[8])
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

static void naive_row(const float *row, uint32_t n, float *entropy, float *size)
{
    float max = row[0], sum[8], dot[8];
    for (uint32_t i = 1; i < n; i++)
        max = row[i] > max ? row[i] : max;
    add(sum, row, n, max, false);
    add(dot, row, n, max, true);
    *entropy = moesim_ln(tree(sum)) - tree(dot) / tree(sum);
    *size = max + moesim_ln(tree(sum));
}

static struct moesim_confidence naive_confidence(const float *logits, uint32_t n_tokens, uint32_t n,
                                                 const uint8_t *skip)
{
    double entropy = 0, square = 0;
    uint64_t n_rows = 0;
    for (uint32_t first = 0; first < n_tokens; first += MOESIM_RUN_TOKENS) {
        double h[8] = {0}, z[8] = {0};
        for (uint32_t t = first; t < n_tokens && t < first + MOESIM_RUN_TOKENS; t++) {
            float own, size;
            if (skip && skip[t])
                continue;
            naive_row(logits + (size_t)t * n, n, &own, &size);
            h[t % 8] += (double)own;
            z[t % 8] += (double)size * (double)size;
            n_rows++;
        }
        entropy += ((h[0] + h[4]) + (h[2] + h[6])) + ((h[1] + h[5]) + (h[3] + h[7]));
        square += ((z[0] + z[4]) + (z[2] + z[6])) + ((z[1] + z[5]) + (z[3] + z[7]));
    }
    return (struct moesim_confidence){entropy / (double)n_rows, square / (double)n_rows};
}

/* A router's pass that has it at hand, in groups and around padding, and the survey's own. */
Test(kernels_survey, confidence_has_the_bits_of_one_lane_at_a_time, .init = set_up, .fini = tear_down)
{
    static float logits[TOKENS * 19];
    static uint32_t group_start[] = {0, 10, 2000, TOKENS};
    const struct moesim_random random = {.seed = 7, .stream = MOESIM_STREAM_TEST};
    moesim_random_normals(&random, 0, sizeof logits / sizeof *logits, logits);
    for (uint32_t i = 0; i < sizeof logits / sizeof *logits; i++)
        logits[i] *= i % 1000 == 0 ? 100 : 3;
    for (uint32_t t = 0; t < TOKENS; t++)
        padding[t] = t % 11 == 3;
    for (int which = 0; which < 4; which++) {
        const uint32_t n = which % 2 ? 19 : 8;
        const struct moesim_env env = {.n_experts = n, .max_tokens = TOKENS, .max_groups = 3, .arena = arena};
        const struct moesim_token_choice p = {.k = 2, .score = MOESIM_SOFTMAX};
        struct moesim_token_choice_scratch *scratch;
        struct moesim_survey *survey;
        struct moesim_survey_result at_hand, own;
        omp_set_num_threads(1 + which);
        batch = (struct moesim_batch){.struct_size = sizeof batch,
                                      .n_tokens = TOKENS,
                                      .n_experts = n,
                                      .n_columns = n,
                                      .stride = n,
                                      .columns = logits,
                                      .n_groups = 3,
                                      .group_start = group_start,
                                      .padding = which > 1 ? padding : NULL};
        cr_assert_eq(moesim_plan_init(&plan, TOKENS, n, 3, TOKENS * 2, 0, arena, &err), MOESIM_OK);
        cr_assert_eq(moesim_survey_init(TOKENS, n, arena, &survey, &err), MOESIM_OK);
        cr_assert_eq(moesim_token_choice_init(&p, &env, &scratch, &err), MOESIM_OK);
        moesim_plan_reset(&plan, &batch);
        cr_assert_eq(moesim_token_choice_route(&p, &batch, logits, n, NULL, scratch, &plan, &err), MOESIM_OK);
        cr_assert(!plan.has_confidence);
        moesim_survey_pass(survey, &plan, &batch, ALL, &own);
        plan.confidence = moesim_survey_confidence(survey);
        cr_assert_eq(moesim_token_choice_route(&p, &batch, logits, n, NULL, scratch, &plan, &err), MOESIM_OK);
        cr_assert(plan.has_confidence);
        moesim_survey_pass(survey, &plan, &batch, ALL, &at_hand);
        const struct moesim_confidence naive = naive_confidence(logits, TOKENS, n, batch.padding);
        cr_assert(own.confidence.entropy == naive.entropy && own.confidence.z == naive.z, "%d", which);
        cr_assert(at_hand.confidence.entropy == naive.entropy && at_hand.confidence.z == naive.z, "%d", which);
        const struct moesim_confidence all = moesim_router_confidence(logits, n, TOKENS, n);
        cr_assert(which > 1 || (all.entropy == naive.entropy && all.z == naive.z));
    }
}
