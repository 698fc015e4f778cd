/*
 * gshard: who keeps a second choice, who is seated first, and the loss of first choices.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/routers/bed.h"
#include "tests/vectors.h"

TestSuite(gshard, .timeout = 60);

static void open_vectors(struct bed *bed, const char *spec, uint32_t phase)
{
    cr_assert_eq(bed_open(bed, spec, 8, 4, phase), MOESIM_OK, "%s", bed->err.text);
    for (int t = 0; t < 8; t++)
        memcpy(bed->columns + t * bed->batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(bed);
}

static const uint32_t top2[8][2] = {{0, 1}, {1, 0}, {0, 3}, {0, 1}, {0, 2}, {2, 1}, {0, 3}, {1, 3}};

/* Origin: DeepSpeed's top2gating (no sampling, min_capacity 1, C = 2) on the 8 x 4 logits, for who is kept and the
 * loss; a weight is divided before the drop here, so it is the softmax of the two logits whether or not both stay. */
Test(gshard, published_example)
{
    static const int32_t slot[8][2] = {{0, -1}, {0, -1}, {1, 0}, {-1, -1}, {-1, 1}, {0, -1}, {-1, 1}, {1, -1}};
    static const double share[8][2] = {{.7109495, .2890505}, {.549834, .450166},   {.7251195, .2748805},
                                       {.5124974, .4875026}, {.7211152, .2788848}, {.5986876, .4013123},
                                       {.5374298, .4625701}, {.6570104, .3429895}};
    struct bed bed;
    open_vectors(&bed, "gshard:capacity_rule=deepspeed,capacity_factor=0.5,min_capacity=1", MOESIM_EVAL);
    cr_assert(bed.plan.capacity[0] == 2 && bed.plan.n_wanted == 16);
    for (uint32_t t = 0; t < 8; t++) {
        double weight[2];
        for (int c = 0; c < 2; c++)
            weight[c] = slot[t][c] < 0 ? 0 : share[t][c];
        bed_expect(&bed, t, 2, top2[t], slot[t], weight, 2e-6);
    }
    cr_assert_float_eq(bed.plan.aux[0].value, .01 * 1.2980988, 2e-8);
    bed_close(&bed);
}

/* By hand: with a threshold far above every weight no second choice stays in training, with one far below all do; what
 * is withdrawn was not wanted, and the first choice keeps its share of both. */
Test(gshard, second_choice_is_drawn)
{
    static const double first[8] = {.7109495, .549834, .7251195, .5124974, .7211152, .5986876, .5374298, .6570104};
    struct bed bed;
    open_vectors(&bed, "gshard:capacity_factor=0,threshold=1e9", MOESIM_TRAIN);
    cr_assert_eq(bed.plan.n_wanted, 8);
    for (uint32_t t = 0; t < 8; t++)
        bed_expect(&bed, t, 2, (uint32_t[]){top2[t][0], MOESIM_NO_EXPERT}, NULL, (double[]){first[t], 0}, 2e-6);
    cr_assert_eq(bed.plan.n_bad_rows, 0);
    bed_close(&bed);
    open_vectors(&bed, "gshard:capacity_factor=0,threshold=1e-9", MOESIM_TRAIN);
    cr_assert_eq(bed.plan.n_wanted, 16);
    bed_close(&bed);
}

/* By hand: equal logits make g2 = 1/2, which algorithm 1 keeps with probability min(1, 2 g2) = 1; with the two logits
 * ln 9 apart g2 = 0.1 stays in one of five. Binomial(20000, 0.2) is within 5 standard deviations, 283, of 4000. */
Test(gshard, second_choice_is_kept_by_twice_its_weight)
{
    enum { N = 20000 };
    struct bed bed;
    for (int apart = 0; apart < 2; apart++) {
        cr_assert_eq(bed_open(&bed, "gshard:capacity_factor=0", N, 2, MOESIM_TRAIN), MOESIM_OK);
        for (uint32_t t = 0; t < N; t++)
            bed.columns[t * bed.batch.stride] = apart ? 2.1972246f : 0;
        bed_route(&bed);
        const double seconds = (double)bed.plan.n_wanted - N;
        if (apart)
            cr_assert(seconds > 3717 && seconds < 4283, "%g second choices", seconds);
        else
            cr_assert_eq(seconds, N);
        bed_close(&bed);
    }
}

/* Lingvo's capacity int(2 S / E), up to a multiple of 4: 100 tokens on 8 experts get 28 slots (25 rounded up). */
Test(gshard, capacity_of_its_authors)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "gshard", 100, 8, MOESIM_EVAL), MOESIM_OK);
    bed_route(&bed);
    cr_assert_eq(bed.plan.capacity[0], 28);
    bed_close(&bed);
}

Test(gshard, refusals)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "gshard:k=1", 8, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, "k = 2"), "%s", bed.err.text);
    cr_assert_eq(bed_open(&bed, "gshard", 8, 1, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_eq(bed_open(&bed, "gshard:k=1,second=all", 8, 4, MOESIM_TRAIN), MOESIM_OK);
    bed_close(&bed);
}
