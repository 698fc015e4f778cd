/*
 * ntlb: tokens that find an expert full try their next choices round by round.
 */
#include <criterion/criterion.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/routers/bed.h"
#include "tests/vectors.h"

TestSuite(ntlb, .timeout = 60);

static void open_vectors(struct bed *bed, const char *spec)
{
    cr_assert_eq(bed_open(bed, spec, 8, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed->err.text);
    for (int t = 0; t < 8; t++)
        memcpy(bed->columns + t * bed->batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(bed);
}

/* Origin: the softmax of the 8 x 4 vectors by Mesh TensorFlow's definition. Capacity is 4, as for switch; token 6, the
 * fifth of expert 0, is taken by its second choice, expert 3, with that one's probability. The loss counts the list of
 * all four experts, so every f is 1/4 and the loss 1. */
Test(ntlb, published_defaults)
{
    static const uint32_t expert[] = {0, 1, 0, 0, 0, 2, 0, 1};
    static const int32_t slot[] = {0, 0, 1, 2, 3, 0, 0, 1};
    static const double weight[] = {.5202577, .4183052, .5376972, .3627833, .6310182, .4034907, 0, .4720142};
    struct bed bed;
    open_vectors(&bed, "ntlb");
    cr_assert(bed.plan.capacity[0] == 4 && bed.plan.n_wanted == 8 && bed.plan.n_pairs == 9);
    for (uint32_t t = 0; t < 8; t++)
        if (t != 6)
            bed_expect(&bed, t, 1, &expert[t], &slot[t], &weight[t], 2e-6);
    bed_expect(&bed, 6, 2, (uint32_t[]){0, 3}, (int32_t[]){-1, 0}, (double[]){0, .3260808}, 2e-6);
    cr_assert_eq(bed.plan.fate[bed.plan.first[6]], MOESIM_REROUTED);
    cr_assert_str_eq(bed.plan.aux[0].name, "switch");
    cr_assert_float_eq(bed.plan.aux[0].value, .01, 1e-8);
    bed_close(&bed);
}

/* The loss over a list of two is that of the top-2 router: origin aux_softmax_top2 of the vectors. */
Test(ntlb, loss_counts_the_list)
{
    struct bed bed;
    open_vectors(&bed, "ntlb:rounds=2,aux_coef=1");
    cr_assert_float_eq(bed.plan.aux[0].value, 1.1097536, 2e-6);
    bed_close(&bed);
    open_vectors(&bed, "ntlb:rounds=2,aux_coef=1,aux_divide=none");
    cr_assert_float_eq(bed.plan.aux[0].value, 2 * 1.1097536, 4e-6);
    bed_close(&bed);
    open_vectors(&bed, "ntlb:rounds=2,aux_coef=1,aux_choices=all"); /* aux_softmax_top1 */
    cr_assert_float_eq(bed.plan.aux[0].value, 1.2980988, 2e-6);
    bed_close(&bed);
}

/* By hand, capacity 2: tokens 3, 4 and 6 find expert 0 full. Second round: token 3 finds expert 1 full, token 4 takes
 * expert 2, token 6 expert 3. Third round: token 3 finds expert 2 full. Fourth: it takes expert 3. */
Test(ntlb, four_rounds_by_hand)
{
    struct bed bed;
    open_vectors(&bed, "ntlb:capacity_factor=1,min_capacity=1");
    bed_expect(&bed, 3, 2, (uint32_t[]){0, 3}, (int32_t[]){-1, 1}, (double[]){0, .1207590}, 2e-6);
    bed_expect(&bed, 4, 2, (uint32_t[]){0, 2}, (int32_t[]){-1, 1}, (double[]){0, .2440406}, 2e-6);
    bed_expect(&bed, 6, 2, (uint32_t[]){0, 3}, (int32_t[]){-1, 0}, (double[]){0, .3260808}, 2e-6);
    bed_close(&bed);

    open_vectors(&bed, "ntlb:capacity_factor=1,min_capacity=1,rounds=3");
    bed_expect(&bed, 3, 1, (uint32_t[]){0}, (int32_t[]){-1}, (double[]){0}, 0);
    cr_assert(bed.plan.fate[bed.plan.first[3]] == MOESIM_OVER_CAPACITY && bed.plan.n_pairs == 10);
    bed_close(&bed);

    open_vectors(&bed, "ntlb:capacity_factor=1,min_capacity=1,rounds=1"); /* switch */
    cr_assert_eq(bed.plan.n_pairs, 8);
    bed_close(&bed);

    /* without rounds token 3 is served before token 4 is looked at, and takes its place at expert 2 */
    open_vectors(&bed, "ntlb:capacity_factor=1,min_capacity=1,rounds=0");
    bed_expect(&bed, 3, 2, (uint32_t[]){0, 2}, (int32_t[]){-1, 1}, NULL, 0);
    bed_expect(&bed, 4, 2, (uint32_t[]){0, 3}, (int32_t[]){-1, 0}, NULL, 0);
    bed_close(&bed);
}

/* By hand: three tokens that agree, two slots an expert. Token 2 is refused twice and tries one expert in the third
 * round: one of its pairs is served, the other is lost. */
Test(ntlb, two_experts_a_token)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "ntlb:k=2,rounds=3,capacity_factor=2,min_capacity=1", 3, 3, MOESIM_EVAL), MOESIM_OK);
    for (int t = 0; t < 3; t++)
        memcpy(bed.columns + t * bed.batch.stride, (float[]){2, 1, 0}, 3 * sizeof(float));
    bed_route(&bed);
    cr_assert(bed.plan.capacity[0] == 2 && bed.plan.n_wanted == 6 && bed.plan.n_pairs == 7);
    bed_expect(&bed, 1, 2, (uint32_t[]){0, 1}, (int32_t[]){1, 1}, NULL, 0);
    bed_expect(&bed, 2, 3, (uint32_t[]){0, 1, 2}, (int32_t[]){-1, -1, 0}, (double[]){0, 0, .0900306}, 2e-6);
    const uint8_t *fate = bed.plan.fate + bed.plan.first[2];
    cr_assert(fate[0] == MOESIM_REROUTED && fate[1] == MOESIM_OVER_CAPACITY);
    bed_close(&bed);
}

/* With as many rounds as experts and slots for all, nobody is left behind, however skewed the columns are. */
Test(ntlb, nobody_is_left_behind)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "ntlb:rounds=16,capacity_factor=1", 4096, 16, MOESIM_TRAIN), MOESIM_OK);
    bed_fill(&bed, 3, 16, 1);
    for (uint32_t t = 0; t < 4096; t++)
        for (uint32_t e = 0; e < 16; e++)
            bed.columns[t * bed.batch.stride + e] -= .5f * (float)e;
    bed_route(&bed);
    uint64_t kept[16];
    moesim_plan_count(&bed.plan, NULL, kept);
    for (int e = 0; e < 16; e++)
        cr_assert_eq(kept[e], 256);
    bed_close(&bed);
}

Test(ntlb, refusals)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "ntlb:k=2,n_groups=2,topk_groups=0", 8, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, "rounds = 4 goes by one list of a token's best experts, but topk_groups = 0 has one "
                                   "for each of n_groups = 2: rounds should be 0");
    cr_assert_eq(bed_open(&bed, "ntlb:k=5", 8, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, "k = 5 exceeds the 4 experts");
}

Test(ntlb, gradient)
{
    static const char *const specs[] = {
        "ntlb:capacity_factor=0.6,min_capacity=1,aux_coef=1",
        "ntlb:k=2,weight=sum,renorm=after-drop,capacity_factor=0.8,min_capacity=1,score=sigmoid",
        "ntlb:k=2,weight=softmax,capacity_factor=0.8,min_capacity=1,aux_divide=none"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct bed bed;
        cr_assert_eq(bed_open(&bed, specs[i], 12, 5, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
        bed_fill(&bed, 31 + i, 5, 1);
        bed.batch.n_groups = 2;
        bed.group_start[1] = 5;
        bed.group_start[2] = 12;
        bed_check_gradient(&bed, 1.0f / 512, 2e-3);
        bed_close(&bed);
    }
}
