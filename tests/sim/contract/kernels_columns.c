/*
 * What looks at the columns of a batch: expert choice and ranks within columns, against sorting whole columns of
 * scores.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

TestSuite(kernels_columns, .timeout = 120);

enum { T = 4200, E = 18, STRIDE = 21 };

static float x[T * STRIDE], scores[T * E];
static uint8_t padding[T];

static const float *sorted_column;

/* By falling score, then rising token. */
static int by_score(const void *a, const void *b)
{
    const uint32_t s = *(const uint32_t *)a, t = *(const uint32_t *)b;
    const float u = sorted_column[(size_t)s * E], v = sorted_column[(size_t)t * E];
    return u > v ? -1 : u < v ? 1 : s < t ? -1 : s > t;
}

/* order[0 .. result): tokens [first, last) with a score for the expert, best first. */
static uint32_t sort_column(uint32_t expert, uint32_t first, uint32_t last, uint32_t *order)
{
    uint32_t n = 0;
    for (uint32_t t = first; t < last; t++)
        if (!padding[t] && !isnan(scores[t * E + expert]))
            order[n++] = t;
    sorted_column = scores + expert;
    qsort(order, n, sizeof *order, by_score);
    return n;
}

static void set_scores(enum moesim_score score)
{
    if (score != MOESIM_IDENTITY)
        moesim_scores(score, x, STRIDE, T, E, scores);
    for (uint32_t t = 0; score == MOESIM_IDENTITY && t < T; t++) {
        bool any = false;
        for (uint32_t e = 0; e < E; e++)
            any |= isfinite(x[t * STRIDE + e]) != 0;
        for (uint32_t e = 0; e < E; e++)
            scores[t * E + e] = any ? x[t * STRIDE + e] : NAN;
    }
}

/* Normals, and what makes samples and comparisons by logit useless. */
enum kind { NORMAL, TIES, EQUAL, RISING, PERIODIC, HUGE_LOGITS, SATURATED, ODD, N_KINDS };

static void fill(enum kind kind)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f};
    const struct moesim_random d = {.seed = kind, .stream = MOESIM_STREAM_TEST};
    moesim_random_normals(&d, 0, T * STRIDE, x);
    for (uint32_t i = 0; i < T * STRIDE; i++) {
        const uint32_t t = i / STRIDE;
        x[i] = kind == TIES          ? rintf(x[i])
               : kind == EQUAL       ? 1
               : kind == RISING      ? x[i] / 10 + (float)t / 500 * (float)(i % STRIDE)
               : kind == PERIODIC    ? x[i] + (t % 32 == 0 ? 0 : 5) * (float)(i % 3)
               : kind == HUGE_LOGITS ? x[i] * 1e4f
               : kind == SATURATED   ? x[i] * 20 + 20
               : kind == ODD && moesim_random_below(&d, T * STRIDE + i, 30) == 0 ? odd[i % 5]
                                                                                 : x[i];
    }
    for (uint32_t t = 0; t < T; t++) {
        padding[t] = t % 97 == 13;
        for (uint32_t e = 0; kind == ODD && t % 50 == 7 && e < E; e++)
            x[t * STRIDE + e] = e % 2 ? INFINITY : NAN; /* a bad row */
    }
}

static void check_expert_choice(enum moesim_score score, const uint32_t *capacity, const uint32_t *group_start,
                                uint32_t n_groups, const char *what)
{
    static uint32_t order[T];
    uint64_t max_pairs = 0, n_pairs = 0;
    struct moesim_error err;
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_batch batch = {.n_tokens = T, .n_experts = E, .n_groups = n_groups, .group_start = group_start};
    batch.padding = padding;
    for (uint32_t g = 0; g < n_groups; g++)
        max_pairs += (uint64_t)E * capacity[g];
    struct moesim_plan plan;
    void *scratch = moesim_alloc(arena, moesim_expert_choice_scratch(T, E, n_groups, max_pairs), 1);
    cr_assert_eq(moesim_plan_init(&plan, T, E, n_groups, max_pairs, 0, arena, &err), MOESIM_OK);
    moesim_plan_reset(&plan, &batch);
    moesim_expert_choice(score, &batch, x, STRIDE, capacity, scratch, &plan);
    for (uint32_t g = 0; g < n_groups; g++)
        for (uint32_t e = 0; e < E; e++) {
            const uint32_t n = sort_column(e, group_start[g], group_start[g + 1], order);
            for (uint32_t rank = 0; rank < n && rank < capacity[g]; rank++, n_pairs++) {
                const uint32_t t = order[rank];
                uint32_t i = plan.first[t];
                while (i < plan.first[t + 1] && plan.expert[i] != e)
                    i++;
                cr_assert(i < plan.first[t + 1], "%s, score %d: expert %u has not taken token %u", what, score, e, t);
                cr_assert(plan.slot[i] == (int32_t)rank && plan.weight[i] == scores[t * E + e],
                          "%s, score %d: expert %u, token %u: slot %d, weight %g; not %u, %g", what, score, e, t,
                          plan.slot[i], plan.weight[i], rank, scores[t * E + e]);
                cr_assert(i == plan.first[t] || plan.weight[i - 1] > plan.weight[i] ||
                          (plan.weight[i - 1] >= plan.weight[i] && plan.expert[i - 1] < e));
            }
        }
    cr_assert_eq(plan.n_pairs, n_pairs, "%s, score %d", what, score);
    moesim_arena_destroy(arena);
}

Test(kernels_columns, expert_choice_against_sorting)
{
    static const uint32_t whole[] = {0, T}, parts[] = {0, 1500, 1500, 1530, T};
    static const uint32_t side_by_side[] = {0, 1300, 1330, 1330, 1400, 1407, 1460, 1500, 1500, T};
    static const uint32_t few[] = {40}, many[] = {900}, all[] = {T}, own[] = {300, 5, 30, 700};
    static const uint32_t nine[] = {700, 3, 2, 70, 1, 50, 0, 9, 90};
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int f = MOESIM_SOFTMAX; f <= MOESIM_IDENTITY; f++) {
            char what[32];
            snprintf(what, sizeof what, "kind %d", kind);
            fill((enum kind)kind);
            set_scores((enum moesim_score)f);
            check_expert_choice((enum moesim_score)f, (kind + f) % 2 ? few : many, whole, 1, what);
            check_expert_choice((enum moesim_score)f, own, parts, 4, what);
            check_expert_choice((enum moesim_score)f, nine, side_by_side, 9, what);
            if ((kind + f) % 5 == 0)
                check_expert_choice((enum moesim_score)f, all, whole, 1, what);
        }
}

Test(kernels_columns, rank_against_sorting)
{
    static float base[T], column[T];
    static uint32_t order[T];
    static const uint32_t rank[] = {0, 1, 17, 700, 4000};
    float out[E];
    void *work = malloc(moesim_column_rank_work(T));
    for (int kind = 0; kind < N_KINDS; kind++)
        for (int f = MOESIM_SOFTMAX; f <= MOESIM_IDENTITY; f++) {
            fill((enum kind)kind);
            set_scores((enum moesim_score)f);
            for (uint32_t t = 0; t < T; t++)
                base[t] = padding[t] || (kind == ODD && t % 50 == 7) ? NAN : (float)(t % 3) / 4;
            for (size_t r = 0; r < sizeof rank / sizeof *rank; r++) {
                moesim_column_rank((enum moesim_score)f, x, STRIDE, T, E, base, rank[r], work, out);
                for (uint32_t e = 0; e < E; e += 6) {
                    uint32_t n = 0;
                    for (uint32_t t = 0; t < T; t++)
                        column[t] = scores[t * E + e] - base[t];
                    for (uint32_t t = 0; t < T; t++)
                        if (!isnan(column[t]))
                            order[n++] = t;
                    uint32_t n_above = 0, n_equal = 0;
                    for (uint32_t i = 0; i < n; i++) {
                        n_above += column[order[i]] > out[e];
                        n_equal += column[order[i]] == out[e];
                    }
                    cr_assert(rank[r] >= n ? isnan(out[e]) : n_above <= rank[r] && rank[r] < n_above + n_equal,
                              "kind %d, score %d, rank %u, expert %u: %g", kind, f, rank[r], e, out[e]);
                }
            }
        }
    free(work);
}
