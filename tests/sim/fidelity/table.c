/*
 * Errors and verdicts by hand.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/fidelity/table.h"

TestSuite(fidelity_table, .timeout = 60);

static void make(struct moesim_fidelity_table *t, struct moesim_arena *arena, struct moesim_fidelity_part part,
                 bool absolute, uint32_t n, const double *published, const double *predicted)
{
    struct moesim_error err;
    *t = (struct moesim_fidelity_table){.name = "t", .absolute = absolute};
    cr_assert_eq(fidelity_open(t, arena, n, &part, 1, 0, &err), MOESIM_OK);
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(fidelity_add(t, arena, 0, published[i], predicted[i], &err, "row %u", i), MOESIM_OK);
    cr_assert_eq(fidelity_judge(t, arena, &err), MOESIM_OK);
}

#define NEAR(value, expected) cr_assert_float_eq(value, expected, 1e-12, #value " is %.17g", (double)(value))

Test(fidelity_table, statistics_by_hand)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_fidelity_table t;
    const double published[] = {10, 10, 10, 10}, predicted[] = {11, 8, 10, 13};
    make(&t, arena, (struct moesim_fidelity_part){.rows = "all"}, false, 4, published, predicted);
    const struct moesim_fidelity_part *p = t.part;
    NEAR(p->error[MOESIM_MEAN_ERROR], 0.15);
    NEAR(p->error[MOESIM_MEDIAN_ERROR], 0.15);
    NEAR(p->error[MOESIM_P90_ERROR], 0.3);
    NEAR(p->error[MOESIM_MAX_ERROR], 0.3);
    NEAR(p->bias, 0.05);
    cr_assert_eq(p->error[MOESIM_DISORDER], 3); /* equal figures have no order to keep */
    cr_assert(p->n == 4 && p->verdict == MOESIM_REPORTED);
    NEAR(moesim_fidelity_error(&t, &t.point[1]), -0.2);
    make(&t, arena, (struct moesim_fidelity_part){.rows = "all"}, true, 4, published, predicted);
    NEAR(t.part->error[MOESIM_MAX_ERROR], 3);
    NEAR(moesim_fidelity_error(&t, &t.point[1]), -2);
    make(&t, arena, (struct moesim_fidelity_part){.rows = "none", .bound = {{MOESIM_MAX_ERROR, 1, false}}}, true, 0,
         published, predicted);
    cr_assert_eq(t.part->verdict, MOESIM_MISSED, "nothing that was looked at holds nothing");
    moesim_arena_destroy(arena);
}

Test(fidelity_table, verdicts)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_fidelity_table t;
    const double published[] = {1, 0.9, 0.8}, falls[] = {1, 0.5, 0.4}, rises[] = {1, 0.5, 0.6};
    const struct moesim_fidelity_bound half = {MOESIM_MAX_ERROR, 0.5, false}, least = {MOESIM_MAX_ERROR, 0.5, true},
                                       order = {MOESIM_DISORDER, 0, false}, tight = {MOESIM_MEAN_ERROR, 0.1, false};
    const struct {
        struct moesim_fidelity_part part;
        const double *predicted;
        enum moesim_fidelity_verdict verdict;
    } cases[] = {
        {{.bound = {half}}, falls, MOESIM_HOLDS},
        {{.bound = {half, tight}}, falls, MOESIM_MISSED},
        {{.bound = {least}}, falls, MOESIM_HOLDS},
        {{.bound = {least}}, published, MOESIM_MISSED},
        {{.bound = {order}}, falls, MOESIM_HOLDS},
        {{.bound = {order}}, rises, MOESIM_MISSED},
        {{.bound = {tight}, .known = "why"}, falls, MOESIM_KNOWN_FAILURE},
        {{.bound = {tight}, .known = "why"}, published, MOESIM_HOLDS_NOW},
        {{.rows = ""}, falls, MOESIM_REPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make(&t, arena, cases[i].part, false, 3, published, cases[i].predicted);
        cr_assert_eq(t.part->verdict, cases[i].verdict, "%zu", i);
    }
    moesim_arena_destroy(arena);
}
