/*
 * deepseek-v2 and deepseek-v3: groups of experts, the bias that only selects, weights, losses and the bias rule.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tests/routers/bed.h"
#include "tests/vectors.h"

TestSuite(deepseek, .timeout = 60);

#define V3_SMALL "deepseek-v3:k=4,n_groups=4,topk_groups=2"

/* logits of group_limited_v3 in the published vectors. */
static const float grouped[2][16] = {
    {.2f, .1f, .05f, .11f, .12f, .6f, .3f, .13f, .8f, .01f, .02f, .03f, .05f, .81f, .21f, .09f},
    {.68f, .2f, .06f, .03f, .32f, .1f, .05f, .02f, .65f, .21f, .04f, .01f, .33f, .11f, .07f, .025f}};

static void route_rows(struct bed *bed, const char *spec, const float (*rows)[16], const float *bias)
{
    cr_assert_eq(bed_open(bed, spec, 2, 16, MOESIM_TRAIN), MOESIM_OK, "%s", bed->err.text);
    for (int t = 0; t < 2; t++)
        memcpy(bed->columns + t * bed->batch.stride, rows[t], sizeof rows[t]);
    for (int e = 0; e < 16 && bias; e++)
        bed->env.memory[e] = bias[e];
    bed_route(bed);
}

/* Origin: DeepSeek-V3's published inference gate: 4 groups of 4, sum of the best 2, 2 kept, k = 4, scale 2.5. */
Test(deepseek, v3_published_example)
{
    static const float bias[16] = {0, -.05f, .02f, .01f, 0, -.1f, .03f, 0, -.2f, .05f, 0, .01f, .02f, -.03f, 0, .04f};
    struct bed bed;
    route_rows(&bed, V3_SMALL, grouped, bias);
    bed_expect(&bed, 0, 4, (uint32_t[]){13, 6, 15, 14}, NULL, (double[]){.7390087, .6133682, .5578897, .5897337}, 2e-6);
    bed_expect(&bed, 1, 4, (uint32_t[]){0, 12, 15, 2}, NULL, (double[]){.73204, .6416247, .5583448, .5679906}, 2e-6);
    bed_close(&bed);
}

/* Origin: the same with every bias at -1.5: a mask of 0 instead of minus infinity would choose from the lost groups. */
Test(deepseek, v3_mask_is_minus_infinity)
{
    float bias[16];
    struct bed bed;
    for (int e = 0; e < 16; e++)
        bias[e] = -1.5f;
    route_rows(&bed, V3_SMALL, grouped, bias);
    bed_expect(&bed, 0, 4, (uint32_t[]){13, 5, 6, 14}, NULL, (double[]){.7020744, .6549524, .5827133, .56026}, 2e-6);
    bed_expect(&bed, 1, 4, (uint32_t[]){0, 8, 9, 1}, NULL, (double[]){.6848623, .6779199, .5698852, .5673326}, 2e-6);
    bed_close(&bed);
}

/* Origin: MaxText's DeepSeekRoutingTest, whose inputs are scores; here logits with those sigmoids. Scores .20 of
 * experts 1 and 9 tie: the lower id goes first. */
Test(deepseek, v3_of_maxtext)
{
    static const float score[2][16] = {
        {.20f, .10f, .05f, .10f, .10f, .60f, .30f, .10f, .80f, .01f, .01f, .01f, .05f, .80f, .20f, .10f},
        {.68f, .20f, .06f, .03f, .32f, .10f, .05f, .02f, .65f, .20f, .04f, .01f, .32f, .10f, .05f, .02f}};
    float rows[2][16];
    struct bed bed;
    for (int t = 0; t < 2; t++)
        for (int e = 0; e < 16; e++)
            rows[t][e] = logf(score[t][e] / (1 - score[t][e]));
    route_rows(&bed, V3_SMALL ",weight=none,scale=1", (const float(*)[16])rows, NULL);
    bed_expect(&bed, 0, 4, (uint32_t[]){13, 5, 6, 14}, NULL, (double[]){.8, .6, .3, .2}, 2e-6);
    bed_expect(&bed, 1, 4, (uint32_t[]){0, 8, 1, 9}, NULL, (double[]){.68, .65, .2, .2}, 2e-6);
    bed_close(&bed);
}

/* Wang et al.: counts 9, 3, 3, 1 have the mean 4: -1, +1, +1, +1 times gamma (Megatron-LM), less the mean of the change
 * for sign-centred: -1.5, .5, .5, .5 (torchtitan). Proportional: gamma (4 - c) / 4, by hand. */
Test(deepseek, bias_rules)
{
    static const struct {
        const char *spec;
        double bias[4];
    } cases[] = {
        {"deepseek-v3:k=1,n_groups=1,topk_groups=1", {-.001, .001, .001, .001}},
        {"deepseek-v3:k=1,n_groups=1,topk_groups=1,bias_update=sign-centred", {-.0015, .0005, .0005, .0005}},
        {"deepseek-v3:k=1,n_groups=1,topk_groups=1,bias_update=proportional,gamma=0.1", {-.125, .025, .025, .075}},
    };
    static const uint32_t expert[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bed bed;
        cr_assert_eq(bed_open(&bed, cases[i].spec, 16, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
        for (int t = 0; t < 16; t++)
            for (uint32_t e = 0; e < 4; e++)
                bed.columns[t * bed.batch.stride + e] = e == expert[t] ? 2 : 0;
        bed_route(&bed);
        bed_update(&bed);
        for (int e = 0; e < 4; e++)
            cr_assert_float_eq(bed.env.memory[e], cases[i].bias[e], 1e-8, "%s, expert %d: %g", cases[i].spec, e,
                               (double)bed.env.memory[e]);
        bed_close(&bed);
    }
}

/* Origin: Megatron-LM's losses on the 8 x 4 logits with top 2: sequences of 4 tokens, softmax; one batch, sigmoid. Here
 * token groups stand for sequences, since the bed has no sequence ids. */
Test(deepseek, published_losses)
{
    static const struct {
        const char *spec;
        double loss;
    } cases[] = {
        {"deepseek-v3:k=2,n_groups=1,topk_groups=1,score=softmax,aux_coef=1", 1.176206},
        {"deepseek-v3:k=2,n_groups=1,topk_groups=1,aux_form=switch,aux_coef=1,group=batch", 1.0351577},
    };
    for (size_t i = 0; i < 2; i++) {
        struct bed bed;
        cr_assert_eq(bed_open(&bed, cases[i].spec, 8, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
        for (int t = 0; t < 8; t++)
            memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
        if (i == 0) {
            bed.batch.n_groups = 2;
            bed.group_start[1] = 4;
            bed.group_start[2] = 8;
        }
        bed_route(&bed);
        cr_assert_float_eq(moesim_plan_aux_loss(&bed.plan), cases[i].loss, 2e-6, "%s: %.9g", cases[i].spec,
                           moesim_plan_aux_loss(&bed.plan));
        bed_close(&bed);
    }
}

/* By hand: p = (.4, .1, .2, .3) in two groups of two; the best group holds expert 0, so the two experts are 0 and 1,
 * with weights 16 p. Losses of the paper: experts 4/2 (.4 + .1) = 1, devices 2/2 (.5) 2 = 1, communication
 * 2/(1 1) 1 .5 = 1. */
Test(deepseek, v2_by_hand)
{
    static const float p[4] = {.4f, .1f, .2f, .3f};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "deepseek-v2:k=2,n_groups=2,topk_groups=1", 1, 4, MOESIM_TRAIN), MOESIM_OK, "%s",
                 bed.err.text);
    for (int e = 0; e < 4; e++)
        bed.columns[e] = logf(p[e]);
    bed_route(&bed);
    bed_expect(&bed, 0, 2, (uint32_t[]){0, 1}, NULL, (double[]){6.4, 1.6}, 1e-5);
    cr_assert_eq(bed.plan.n_aux, 3);
    cr_assert_float_eq(bed.plan.aux[0].value, .003, 1e-8);
    cr_assert_float_eq(bed.plan.aux[1].value, .05, 1e-7);
    cr_assert_float_eq(bed.plan.aux[2].value, .02, 1e-7);
    bed_close(&bed);
}

Test(deepseek, refusals)
{
    static const struct {
        const char *spec, *word;
        uint32_t n_experts;
    } cases[] = {
        {"deepseek-v3", "cannot hold k = 8", 8},
        {"deepseek-v3", "does not divide", 12},
        {"deepseek-v2:n_groups=1,topk_groups=1", "n_groups should be above 1", 16},
        {"deepseek-v3:topk_groups=9", "exceeds n_groups", 64},
    };
    struct bed bed;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(bed_open(&bed, cases[i].spec, 4, cases[i].n_experts, MOESIM_TRAIN), MOESIM_EINVAL, "%s",
                     cases[i].spec);
        cr_assert(strstr(bed.err.text, cases[i].word), "%s", bed.err.text);
    }
}
