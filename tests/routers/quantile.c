/*
 * quantile: the bias is the step that would have balanced the batch, chooses by logit and leaves the weights alone.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/kernels.h>

#include "tests/routers/bed.h"
#include "tests/vectors.h"

TestSuite(quantile, .timeout = 60);

/* Origin: qb of the vectors, Megatron-LM's definition on the 8 x 4 logits with beta = 0: counts 6, 5, 2, 3, local beta
 * .7, .2, 0, 0, which is .475, -.025, -.225, -.225 when centred; the bias is minus that. */
Test(quantile, published_example)
{
    static const uint32_t expert[8][2] = {{0, 1}, {1, 0}, {0, 3}, {0, 1}, {0, 2}, {2, 1}, {0, 3}, {1, 3}};
    static const double weight[8][2] = {{.5202577, .211521},  {.4183052, .3424793}, {.5376972, .2038319},
                                        {.3627833, .3450901}, {.6310182, .2440406}, {.4034907, .2704679},
                                        {.3788518, .3260808}, {.4720142, .246413}};
    static const double beta[] = {.475, -.025, -.225, -.225};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "quantile", 8, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
    for (int t = 0; t < 8; t++)
        memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(&bed);
    for (uint32_t t = 0; t < 8; t++)
        bed_expect(&bed, t, 2, expert[t], NULL, weight[t], 2e-6);
    uint64_t assigned[4];
    moesim_plan_count(&bed.plan, assigned, NULL);
    cr_assert_arr_eq(assigned, ((uint64_t[]){6, 5, 2, 3}), sizeof assigned);
    bed_update(&bed);
    for (int e = 0; e < 4; e++)
        cr_assert_float_eq(bed.env.memory[e], -beta[e], 2e-7);
    bed_close(&bed);
}

/* By hand: k = 1 of 2 experts, so alpha is the lower logit and the bias the third largest of four margins. Expert 0:
 * margins 1, 2, 3, 4, third 2; expert 1: all 0. Centred: -1 and 1. The next batch is chosen by logit + bias: a lead of
 * 1.5 is not enough any more, one of 2.5 is; weights are those of the logits. */
Test(quantile, chooses_by_logit)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "quantile:k=1", 4, 2, MOESIM_TRAIN), MOESIM_OK);
    for (int t = 0; t < 4; t++) {
        bed.columns[t * bed.batch.stride] = (float)(5 * t + t + 1);
        bed.columns[t * bed.batch.stride + 1] = (float)(5 * t);
    }
    bed_route(&bed);
    bed_update(&bed);
    cr_assert(bed.env.memory[0] == -1 && bed.env.memory[1] == 1);
    bed.columns[0] = 1.5f;
    bed.columns[bed.batch.stride] = 7.5f;
    bed_route(&bed);
    bed_expect(&bed, 0, 1, (uint32_t[]){1}, (int32_t[]){0}, (double[]){1 / (1 + exp(1.5))}, 1e-6);
    bed_expect(&bed, 1, 1, (uint32_t[]){0}, (int32_t[]){0}, (double[]){1 / (1 + exp(-2.5))}, 1e-6);
    bed_close(&bed);
}

/* The mean over micro-batches counts each once, however often it is routed; evaluation asks for nothing. */
Test(quantile, micro_batches)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "quantile:k=1", 4, 2, MOESIM_TRAIN), MOESIM_OK);
    for (uint32_t m = 0; m < 2; m++) {
        for (int t = 0; t < 4; t++)
            bed.columns[t * bed.batch.stride] = (float)(t + 1 + 4 * m); /* third margin 2, then 6 */
        bed.batch.micro_batch = m;
        bed_route(&bed);
        bed_route(&bed);
    }
    bed.batch.phase = MOESIM_EVAL;
    for (int t = 0; t < 4; t++)
        bed.columns[t * bed.batch.stride] = 100;
    bed_route(&bed);
    bed_update(&bed);
    cr_assert(bed.env.memory[0] == -2 && bed.env.memory[1] == 2);
    bed_close(&bed);
}

/* Steps on one skewed batch end in a balance that no step improves: an even share up to ties, of which each expert has
 * one of its own. */
Test(quantile, balances)
{
    struct bed bed;
    uint64_t n[16];
    cr_assert_eq(bed_open(&bed, "quantile:k=4", 4096, 16, MOESIM_TRAIN), MOESIM_OK);
    bed_fill(&bed, 8, 16, 1);
    for (uint32_t t = 0; t < 4096; t++)
        for (uint32_t e = 0; e < 16; e++)
            bed.columns[t * bed.batch.stride + e] -= .2f * (float)e;
    bed_route(&bed);
    moesim_plan_count(&bed.plan, n, NULL);
    cr_assert_gt(n[0], 2000);
    for (int step = 0; step < 40; step++) {
        bed_update(&bed);
        bed_route(&bed);
    }
    moesim_plan_count(&bed.plan, n, NULL);
    for (int e = 0; e < 16; e++)
        cr_assert(n[e] > 1000 && n[e] < 1048, "expert %d: %llu", e, (unsigned long long)n[e]);
    bed_close(&bed);
}

/* Padding and rows that lack a number take no part. */
Test(quantile, odd_batches)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "quantile:k=1", 6, 2, MOESIM_TRAIN), MOESIM_OK);
    for (int t = 0; t < 6; t++)
        bed.columns[t * bed.batch.stride] = (float)(t + 1);
    bed.columns[4 * bed.batch.stride + 1] = NAN;
    bed.batch.padding = bed.padding;
    bed.padding[5] = 1;
    bed_route(&bed);
    bed_update(&bed);
    cr_assert(bed.env.memory[0] == -1 && bed.env.memory[1] == 1);
    bed_close(&bed);
}

Test(quantile, refusals)
{
    static const char uneven[] = "bias_update = quantile needs tokens * k divisible by the experts: 7 * 2 is no "
                                 "multiple of 4";
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "quantile", 7, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, uneven);
    cr_assert_eq(bed_open(&bed, "quantile:k=4", 8, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, "bias_update = quantile needs k below the 4 experts, not 4");
    cr_assert_eq(bed_open(&bed, "softmax-topk:bias_update=quantile", 7, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, uneven);
    cr_assert_eq(bed_open(&bed, "softmax-topk:bias_update=sign,bias_on=logits,n_groups=2", 8, 4, MOESIM_TRAIN),
                 MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, "bias_on = logits and n_groups = 2: groups of experts are compared by scores, so "
                                   "bias_on should be scores or n_groups 1");
}

Test(quantile, gradient)
{
    static const char *const specs[] = {"quantile:k=3", "quantile:score=sigmoid,weight=sum",
                                        "quantile:weight=softmax,aux_form=switch,aux_coef=1,noise=0.5"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct bed bed;
        cr_assert_eq(bed_open(&bed, specs[i], 12, 6, MOESIM_TRAIN), MOESIM_OK);
        bed_fill(&bed, 41 + i, 6, 1);
        bed_route(&bed);
        bed_update(&bed);
        bed_fill(&bed, 51 + i, 6, 1); /* no token of which is a quantile itself */
        bed_check_gradient(&bed, 1.0f / 512, 2e-3);
        bed_close(&bed);
    }
}
