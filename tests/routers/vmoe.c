/*
 * vmoe: published losses, noise in training only, Batch Prioritized Routing.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/routers/bed.h"
#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"
#include "tests/vectors.h"

TestSuite(vmoe, .timeout = 60);

/* Origin: google-research/vmoe, vmoe/nn/routing_test.py: noise of deviation 0.1 drawn beforehand, k = 2. It holds the
 * reference that vmoe's own loss is compared with, whose noise is its own. */
Test(vmoe, published_load_loss)
{
    static const double clean[3][3] = {{.9, .06, .04}, {.7, .18, .12}, {.85, .05, .1}};
    static const double drawn[3][3] = {{-.037, .026, -.018}, {-.074, .045, -.015}, {-.067, -.059, .073}};
    double load[3] = {0};
    for (int t = 0; t < 3; t++) {
        double noisy[3];
        for (int e = 0; e < 3; e++)
            noisy[e] = clean[t][e] + drawn[t][e];
        reference_add_chances(clean[t], noisy, 3, 2, .1, load);
    }
    cr_assert_float_eq(load[0] / 3, 1, 1e-4);
    cr_assert_float_eq(load[1] / 3, .2777, 1e-4);
    cr_assert_float_eq(load[2] / 3, .2341, 1e-4);
    cr_assert_float_eq(cv2(load, 3), .485738645, 1e-6);
}

/* Origin: the same file: CV^2 of summed gates is 0.03874999; the gates are softmax of their logarithms. */
Test(vmoe, published_importance_loss)
{
    static const float gates[4][3] = {{.5f, .4f, .1f}, {.3f, .3f, .4f}, {.1f, .2f, .7f}, {.8f, .2f, 1e-30f}};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "vmoe:aux_form=importance,aux_coef=1", 4, 3, MOESIM_EVAL), MOESIM_OK);
    for (int t = 0; t < 4; t++)
        for (int e = 0; e < 3; e++)
            bed.columns[t * bed.batch.stride + e] = logf(gates[t][e]);
    bed_route(&bed);
    cr_assert_float_eq(bed.plan.aux[0].value, .03874999, 1e-6);
    bed_close(&bed);
}

/* In evaluation the weights are the raw probabilities (softmax_pre_top2 of the 8 x 4 vectors), the load loss is off;
 * in training the k best are those of logit + normal / E. */
Test(vmoe, noise_belongs_to_training)
{
    static const double pre[8][2] = {{.5202577, .211521},  {.4183052, .3424793}, {.5376972, .2038319},
                                     {.3627833, .3450901}, {.6310182, .2440406}, {.4034907, .2704679},
                                     {.3788518, .3260808}, {.4720142, .246413}};
    static const uint32_t top2[8][2] = {{0, 1}, {1, 0}, {0, 3}, {0, 1}, {0, 2}, {2, 1}, {0, 3}, {1, 3}};
    struct bed bed;
    for (int phase = MOESIM_TRAIN; phase <= MOESIM_EVAL; phase++) {
        cr_assert_eq(bed_open(&bed, "vmoe:capacity_factor=0,noise=8", 8, 4, phase), MOESIM_OK);
        for (int t = 0; t < 8; t++)
            memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
        bed_route(&bed);
        uint32_t n_other = 0;
        for (uint32_t t = 0; t < 8; t++)
            n_other += bed.plan.expert[2 * t] != top2[t][0] || bed.plan.expert[2 * t + 1] != top2[t][1];
        cr_assert_eq(bed.plan.n_aux, phase == MOESIM_TRAIN ? 2 : 1);
        if (phase == MOESIM_TRAIN)
            cr_assert_gt(n_other, 0);
        for (uint32_t t = 0; t < 8 && phase == MOESIM_EVAL; t++)
            bed_expect(&bed, t, 2, top2[t], NULL, pre[t], 2e-6);
        bed_close(&bed);
    }
}

/* Origin: Tutel's batch-prioritised locations on the 8 x 4 logits; its capacity is k int(0.5 ceil(8 / 4)) = 2. */
Test(vmoe, batch_prioritized)
{
    static const uint32_t expert[2][8] = {{0, 1, 0, 0, 0, 2, 0, 1}, {1, 0, 3, 1, 2, 1, 3, 3}};
    static const uint32_t location[2][8] = {{2, 1, 1, 4, 0, 0, 3, 0}, {2, 5, 0, 4, 1, 3, 2, 1}};
    struct bed bed;
    cr_assert_eq(
        bed_open(&bed, "vmoe:priority=bpr,capacity_rule=tutel,capacity_factor=0.5,weight=sum", 8, 4, MOESIM_EVAL),
        MOESIM_OK);
    for (int t = 0; t < 8; t++)
        memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(&bed);
    cr_assert_eq(bed.plan.capacity[0], 2);
    for (uint32_t t = 0; t < 8; t++)
        for (uint32_t c = 0; c < 2; c++) {
            cr_assert_eq(bed.plan.expert[2 * t + c], expert[c][t]);
            const int32_t slot = location[c][t] < 2 ? (int32_t)location[c][t] : -1;
            cr_assert_eq(bed.plan.slot[2 * t + c], slot, "token %u, choice %u: slot %d, not %d", t, c,
                         bed.plan.slot[2 * t + c], slot);
        }
    bed_close(&bed);
}

/* V-MoE's capacity: ceil(S k 1.05 / E) up to a multiple of 4: 100 tokens, 8 experts, k = 2 give 27 -> 28. */
Test(vmoe, capacity_of_its_authors)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "vmoe", 100, 8, MOESIM_EVAL), MOESIM_OK);
    bed_route(&bed);
    cr_assert_eq(bed.plan.capacity[0], 28);
    bed_close(&bed);
}
