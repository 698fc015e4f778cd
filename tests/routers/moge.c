/*
 * moge: the same number of experts from each group, whatever the logits are.
 */
#include <criterion/criterion.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/routers/bed.h"
#include "tests/vectors.h"

TestSuite(moge, .timeout = 60);

/* By hand from softmax_pre of the 8 x 4 vectors: experts 0 and 1 are one group, 2 and 3 the other; token 0 (1.2, .3,
 * -.5, .1) takes 0 and 3, which are not its two best. */
Test(moge, one_of_each_group)
{
    static const uint32_t expert[8][2] = {{0, 3}, {1, 2}, {0, 3}, {0, 2}, {0, 2}, {2, 1}, {0, 3}, {1, 3}};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "moge:k=2,n_groups=2", 8, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
    for (int t = 0; t < 8; t++)
        memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(&bed);
    for (uint32_t t = 0; t < 8; t++) {
        float score[4];
        moesim_score_row(MOESIM_SOFTMAX, logits_8x4[t], 4, score);
        bed_expect(&bed, t, 2, expert[t], NULL, (double[]){score[expert[t][0]], score[expert[t][1]]}, 1e-7);
    }
    bed_close(&bed);
}

/* The promise of the paper: every group serves T k / M pairs, here with all tokens alike. */
Test(moge, groups_are_even)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "moge", 50, 64, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
    for (uint32_t t = 0; t < 50; t++)
        for (uint32_t e = 0; e < 64; e++)
            bed.columns[t * bed.batch.stride + e] = -.1f * (float)e;
    bed_route(&bed);
    uint32_t n[8] = {0};
    for (uint64_t i = 0; i < bed.plan.n_pairs; i++)
        n[bed.plan.expert[i] / 8]++;
    for (int g = 0; g < 8; g++)
        cr_assert_eq(n[g], 50);
    bed_close(&bed);
}

Test(moge, refuses_what_does_not_divide)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "moge:k=3,n_groups=2", 8, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, "k = 3"), "%s", bed.err.text);
}
