/*
 * switch: capacity, order, the raw weight and the load-balancing loss.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

#include "tests/routers/bed.h"
#include "tests/routers/reference.h"
#include "tests/vectors.h"

TestSuite(switch_router, .timeout = 60);

/* Origin: softmax top-1 and aux_softmax_top1 of the 8 x 4 vectors; Mesh TensorFlow's capacity int(8 * 1.25 / 4) is
 * below its minimum of 4, so the fifth token of expert 0 is dropped. */
Test(switch_router, published_example)
{
    static const uint32_t expert[] = {0, 1, 0, 0, 0, 2, 0, 1};
    static const int32_t slot[] = {0, 0, 1, 2, 3, 0, -1, 1};
    static const double weight[] = {.5202577, .4183052, .5376972, .3627833, .6310182, .4034907, 0, .4720142};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "switch", 8, 4, MOESIM_TRAIN), MOESIM_OK);
    for (int t = 0; t < 8; t++)
        memcpy(bed.columns + t * bed.batch.stride, logits_8x4[t], sizeof logits_8x4[t]);
    bed_route(&bed);
    cr_assert(bed.plan.capacity[0] == 4 && bed.plan.n_wanted == 8 && bed.plan.n_aux == 1);
    for (uint32_t t = 0; t < 8; t++)
        bed_expect(&bed, t, 1, &expert[t], &slot[t], &weight[t], 2e-6);
    cr_assert_eq(bed.plan.fate[6], MOESIM_OVER_CAPACITY);
    cr_assert_str_eq(bed.plan.aux[0].name, "switch");
    cr_assert_float_eq(bed.plan.aux[0].value, .01 * 1.2980988, 2e-8);
    bed_close(&bed);
}

/* Origin: transformers' test of its Switch router, itself flaxformer's: tokens times W gives the logits; two groups of
 * three tokens, each token's argmax, the load-balancing loss and the z-loss, both without coefficients. */
Test(switch_router, published_router)
{
    static const double token[6][4] = {
        {.6433916, .18188512, .02240455, .563781},   {.5526401, .0958724, .34253013, .03644359},
        {.08744538, .7909105, .35205448, .53364205}, {.02900076, .4168595, .5802449, .91486526},
        {.27414513, .14991808, .9383501, .5209162},  {.51207185, .90618336, .7309413, .95533276}};
    static const double w[4][2] = {
        {.02008116, .00620062}, {-.00811031, -.00031623}, {-.03542127, .02703803}, {.02335377, -.02971946}};
    static const uint32_t best[6] = {0, 1, 0, 0, 1, 0};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "switch:capacity_factor=0,aux_coef=1,z_coef=1", 6, 2, MOESIM_TRAIN), MOESIM_OK);
    for (int t = 0; t < 6; t++)
        for (int e = 0; e < 2; e++) {
            double sum = 0;
            for (int i = 0; i < 4; i++)
                sum += token[t][i] * w[i][e];
            bed.columns[t * bed.batch.stride + e] = (float)sum;
        }
    bed.batch.n_groups = 2;
    bed.group_start[1] = 3;
    bed.group_start[2] = 6;
    bed_route(&bed);
    for (uint32_t t = 0; t < 6; t++)
        cr_assert_eq(bed.plan.expert[t], best[t], "token %u", t);
    cr_assert_float_eq(bed.plan.aux[0].value, 1.00030873, 1e-6, "%.9g", bed.plan.aux[0].value);
    cr_assert_float_eq(bed.plan.aux[1].value, .4789799, 1e-6, "%.9g", bed.plan.aux[1].value);
    bed_close(&bed);
}

/* What P is the mean of: scores that do not add up to 1 over experts are divided by their sum. */
static double share(uint32_t score, const float *row, uint32_t n, uint32_t e)
{
    const double s = reference_score(score, row, n, e);
    double sum = 0;
    if (score == MOESIM_SOFTMAX)
        return s;
    for (uint32_t i = 0; i < n; i++) {
        const double other = reference_score(score, row, n, i);
        sum += isnan(other) ? 0 : other;
    }
    return s / sum;
}

/* E * sum f P in plain loops, group by group. */
static double balance_loss(const struct bed *bed, const struct reference *r, uint32_t score)
{
    const struct moesim_batch *b = &bed->batch;
    double loss = 0, n_all = 0;
    for (uint32_t g = 0; g < b->n_groups; g++) {
        double sum = 0, n_choices = 0;
        for (uint32_t e = 0; e < b->n_experts; e++) {
            double n = 0, mean = 0, n_rows = 0;
            for (uint32_t t = b->group_start[g]; t < b->group_start[g + 1]; t++) {
                const struct reference_pair *q = &r->pair[(size_t)t * 2 * r->k];
                if (r->n[t] == 0 || q->fate == MOESIM_BAD_ROW)
                    continue;
                n_rows++;
                for (uint32_t c = 0; c < r->k; c++)
                    n += q[c].expert == e;
                const double s = share(score, b->columns + (size_t)t * b->stride, b->n_experts, e);
                mean += isnan(s) ? 0 : s;
            }
            n_choices += n;
            sum += n_rows > 0 ? n * mean / n_rows : 0;
        }
        loss += sum * b->n_experts; /* E * sum (n / N_g) P, weighted by N_g / N */
        n_all += n_choices;
    }
    return n_all > 0 ? loss / n_all : 0;
}

Test(switch_router, thousand_random_cases)
{
    static const char *const specs[] = {
        "switch", "switch:aux_coef=1", "switch:k=2,aux_coef=1,overflow=reroute,capacity_factor=0.5,min_capacity=1",
        "switch:score=sigmoid,aux_coef=1,capacity_factor=0.7,priority=prob,min_capacity=1",
        "switch:k=3,weight=sum,renorm=after-drop,aux_coef=2,min_capacity=2"};
    static const double coef[] = {.01, 1, 1, 1, 2};
    for (uint32_t i = 0; i < 1000; i++) {
        const struct moesim_random d = {.seed = i, .stream = MOESIM_STREAM_TEST + 1};
        const uint32_t n_tokens = moesim_random_below(&d, 0, 60), n_experts = 3 + moesim_random_below(&d, 1, 10);
        const uint32_t kind = i % 5;
        char what[64];
        struct bed bed;
        snprintf(what, sizeof what, "case %u", i);
        cr_assert_eq(bed_open(&bed, specs[kind], n_tokens, n_experts, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
        bed_fill(&bed, i, n_experts, 1.5f);
        if (n_tokens > 9) {
            bed.columns[9 * bed.batch.stride + 1] = NAN;
            for (uint32_t e = 0; e < n_experts; e++)
                bed.columns[4 * bed.batch.stride + e] = i % 2 ? NAN : -INFINITY;
            bed.batch.n_groups = 2;
            bed.group_start[1] = 1 + moesim_random_below(&d, 2, n_tokens - 1);
            bed.group_start[2] = n_tokens;
            bed.batch.padding = bed.padding;
            bed.padding[7] = 1;
        }
        bed_route(&bed);
        const struct moesim_token_choice *p = bed.params; /* the first member */
        struct reference r = reference_route(p, &bed.batch, bed.columns, bed.batch.stride);
        reference_compare(&r, &bed.plan, 1e-6, what);
        cr_assert_float_eq(bed.plan.aux[0].value, coef[kind] * balance_loss(&bed, &r, p->score), 2e-6, "%s: %g not %g",
                           what, bed.plan.aux[0].value, coef[kind] * balance_loss(&bed, &r, p->score));
        reference_free(&r);
        bed_close(&bed);
    }
}

Test(switch_router, gradient)
{
    static const char *const specs[] = {"switch:aux_coef=1", "switch:score=sigmoid,aux_coef=2",
                                        "switch:k=2,aux_coef=1,capacity_factor=0.5,min_capacity=1,overflow=reroute"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        struct bed bed;
        cr_assert_eq(bed_open(&bed, specs[i], 9, 5, MOESIM_TRAIN), MOESIM_OK);
        bed_fill(&bed, 21 + i, 5, 1);
        bed.batch.n_groups = 2;
        bed.group_start[1] = 4;
        bed.group_start[2] = 9;
        bed_check_gradient(&bed, 1.0f / 512, 2e-3);
        bed_close(&bed);
    }
}
