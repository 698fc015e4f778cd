/*
 * replay: what route writes comes back bit for bit; what a file cannot mean is refused with its line.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <moesim/kernels.h>

#include "tests/routers/bed.h"

TestSuite(replay, .timeout = 60);

static char path[64], spec[128];

static FILE *open_csv(const char *more)
{
    snprintf(path, sizeof path, "/tmp/moesim-replay-%ld.csv", (long)getpid());
    snprintf(spec, sizeof spec, "replay:file=%s%s", path, more);
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fputs("layer,token,choice,expert,weight,kept,slot\n", f);
    return f;
}

/* As cli/route.c writes it. */
static void write_layer(FILE *f, const struct moesim_plan *p, uint32_t layer)
{
    for (uint32_t t = 0; t < p->n_tokens; t++)
        for (uint32_t i = p->first[t]; i < p->first[t + 1]; i++)
            if (p->expert[i] != MOESIM_NO_EXPERT)
                fprintf(f, "%u,%u,%u,%u,%.9g,%d,%d\n", layer, t, i - p->first[t], p->expert[i], (double)p->weight[i],
                        p->fate[i] == MOESIM_KEPT, p->slot[i]);
}

static void expect_equal(const struct moesim_plan *a, const struct moesim_plan *b)
{
    cr_assert_eq(a->n_pairs, b->n_pairs);
    cr_assert_arr_eq(a->first, b->first, (a->n_tokens + 1) * sizeof *a->first);
    cr_assert_arr_eq(a->expert, b->expert, a->n_pairs * sizeof *a->expert);
    cr_assert_arr_eq(a->weight, b->weight, a->n_pairs * sizeof *a->weight);
    cr_assert_arr_eq(a->slot, b->slot, a->n_pairs * sizeof *a->slot);
    cr_assert_arr_eq(a->fate, b->fate, a->n_pairs * sizeof *a->fate);
}

/* Two layers, refused pairs, groups. */
Test(replay, bit_for_bit)
{
    static const char *const routers[] = {"softmax-topk:k=3,capacity_factor=0.7", "expert-choice:capacity_factor=3",
                                          "switch:min_capacity=1"};
    for (int i = 0; i < 3; i++) {
        struct bed recorded[2], again;
        FILE *f = open_csv("");
        for (uint32_t layer = 0; layer < 2; layer++) {
            struct bed *bed = &recorded[layer];
            cr_assert_eq(bed_open(bed, routers[i], 50, 8, MOESIM_TRAIN), MOESIM_OK);
            bed_fill(bed, 10 + layer, bed->shape.n_columns, 1);
            bed->columns[49 * bed->batch.stride] = 9; /* somebody takes the last token */
            bed->batch.n_groups = 2;
            bed->group_start[1] = 21;
            bed->group_start[2] = 50;
            bed_route(bed);
            write_layer(f, &bed->plan, layer);
        }
        fclose(f);
        for (uint32_t layer = 0; layer < 2; layer++) {
            cr_assert_eq(bed_open(&again, spec, 50, 8, MOESIM_EVAL), MOESIM_OK, "%s", again.err.text);
            again.env.n_layers = 2;
            again.env.layer = layer;
            cr_assert_eq(again.router->init(again.state, again.params, &again.env, &again.err), MOESIM_OK);
            again.batch.n_groups = 2;
            again.group_start[1] = 21;
            again.group_start[2] = 50;
            again.batch.step = 3;
            bed_route(&again);
            expect_equal(&again.plan, &recorded[layer].plan);
            cr_assert_eq(again.plan.n_wanted, again.plan.n_pairs);
            bed_close(&again);
            bed_close(&recorded[layer]);
        }
        unlink(path);
    }
}

/* The recording's groups had a slot 0 each; in one group they collide. */
Test(replay, groups_have_to_fit)
{
    struct bed bed;
    FILE *f = open_csv("");
    fputs("0,0,0,1,0.5,1,0\n0,1,0,1,0.5,1,0\n", f);
    fclose(f);
    cr_assert_eq(bed_open(&bed, spec, 2, 4, MOESIM_TRAIN), MOESIM_OK, "%s", bed.err.text);
    moesim_plan_reset(&bed.plan, &bed.batch);
    cr_assert_eq(bed.router->route(bed.state, &bed.batch, &bed.plan, &bed.err), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, "does not fit this batch and group") && strstr(bed.err.text, "has this slot"), "%s",
              bed.err.text);
    bed.batch.n_groups = 2;
    bed.group_start[1] = 1;
    bed.group_start[2] = 2;
    bed_route(&bed);
    bed_close(&bed);
    unlink(path);
}

static void refused(const char *rows, uint32_t n_tokens, const char *why)
{
    struct bed bed;
    char expected[256];
    FILE *f = open_csv("");
    fputs(rows, f);
    fclose(f);
    cr_assert_eq(bed_open(&bed, spec, n_tokens, 4, MOESIM_TRAIN), MOESIM_EINVAL, "accepted: %s", rows);
    snprintf(expected, sizeof expected, "%s%s", path, why);
    cr_assert_str_eq(bed.err.text, expected);
    bed_close(&bed);
    unlink(path);
}

Test(replay, mistakes_name_file_and_line)
{
    struct bed bed;
    refused("0,0,0,4,1,1,0\n", 1, ":2: there is no such expert");
    refused("0,0,0,1,1,1,0\n0,0,2,2,1,1,0\n", 1, ":3: a token's choices should count from 0");
    refused("0,1,0,1,1,1,0\n0,0,0,2,1,1,0\n", 2, ":3: rows should be sorted by layer, then token");
    refused("1,1,0,1,1,1,0\n0,0,0,2,1,1,0\n", 2, ":3: rows should be sorted by layer, then token");
    refused("0,0,0,1,1,2,0\n", 1, ":2: kept should be 0 or 1");
    refused("0,0,0,1,0,0,3\n", 1, ":2: slot should be 0 or more where kept is 1, and -1 where it is 0");
    refused("0,0,0,1,0.5,0,-1\n", 1, ":2: weight should be 0 where kept is 0");
    static const char *const broken[] = {"0,0,0,1,1,1\n",      "0,0,0,1,nan,1,0\n",
                                         "0,0,0,1,1,1,0,0\n",  "-1,0,0,1,1,1,0\n",
                                         "0,0,0,1,,1,0\n",     "\n",
                                         "0,0,0,1,1e40,1,0\n", "0,0,0,99999999999,1,1,0\n",
                                         "0,0,0,1,1,1,-2\n",   "0, 0,0,1,1,1,0\n"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        refused(broken[i], 1, ":2: a row should hold seven numbers: layer,token,choice,expert,weight,kept,slot");
    refused("0,0,0,1,1,1,0\n0,1,0,1,1,1,1\n", 3, " holds decisions for 2 tokens, the workload has 3");
    refused("0,0,0,1,1,1,0\n0,1,0,1,1,1,1\n", 1, " holds decisions for 2 tokens, the workload has 1");

    FILE *f = open_csv("");
    fclose(f);
    f = fopen(path, "w");
    fputs("token,expert\n", f);
    fclose(f);
    cr_assert_eq(bed_open(&bed, spec, 1, 4, MOESIM_TRAIN), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, ":1: the header should be layer,token,"), "%s", bed.err.text);
    bed_close(&bed);
    unlink(path);
    cr_assert_eq(bed_open(&bed, spec, 1, 4, MOESIM_TRAIN), MOESIM_EIO);
    cr_assert(strstr(bed.err.text, "No such file"), "%s", bed.err.text);
    bed_close(&bed);

    f = open_csv("");
    fputs("0,0,0,1,1,1,0\n", f);
    fclose(f);
    cr_assert_eq(bed_open(&bed, spec, 1, 4, MOESIM_TRAIN), MOESIM_OK);
    bed.env.n_layers = 2;
    cr_assert_eq(bed.router->shape(bed.params, &bed.env, &bed.shape, &bed.err), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, "of 1 layers, the model has 2"), "%s", bed.err.text);
    bed_close(&bed);
    unlink(path);
}

/* The workload's own record: the first k experts, weights where there are some. */
Test(replay, record)
{
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "replay:k=2", 30, 5, MOESIM_TRAIN), MOESIM_OK);
    cr_assert_eq(bed.shape.needs, MOESIM_NEEDS_DECISIONS);
    bed.batch.padding = bed.padding;
    bed.padding[4] = 1;
    bed_route(&bed);
    cr_assert(bed.plan.n_pairs == 58 && bed.plan.n_wanted == 58 && bed.plan.first[4] == bed.plan.first[5]);
    for (uint32_t i = 0; i < 8; i++)
        cr_assert(bed.plan.expert[i] == bed.decisions.expert[i] && bed.plan.weight[i] == .5f);
    bed_close(&bed);

    cr_assert_eq(bed_open(&bed, "replay:k=1", 30, 5, MOESIM_TRAIN), MOESIM_OK);
    float weight[60];
    for (int i = 0; i < 60; i++)
        weight[i] = (float)i;
    bed.decisions.weight = weight;
    bed_route(&bed);
    cr_assert_eq(bed.plan.n_pairs, 30);
    for (uint32_t t = 0; t < 30; t++)
        cr_assert(bed.plan.expert[t] == bed.decisions.expert[2 * t] && bed.plan.weight[t] == (float)(2 * t));
    ((uint32_t *)bed.decisions.expert)[6] = 5;
    moesim_plan_reset(&bed.plan, &bed.batch);
    cr_assert_eq(bed.router->route(bed.state, &bed.batch, &bed.plan, &bed.err), MOESIM_EINVAL);
    cr_assert_str_eq(bed.err.text, "replay: token 3, choice 0: expert 5 is not one of the 5");
    bed_close(&bed);
}

/* Eight tokens of one choice each, two experts, 7 of them on the first: capacity ceil(8 / 2 * factor). */
Test(replay, record_within_capacity)
{
    static const uint32_t first[] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, expert[] = {0, 0, 0, 1, 0, 0, 0, 0};
    static const struct {
        const char *spec;
        uint32_t kept;
    } cases[] = {{"replay:k=1,capacity_factor=1", 5},
                 {"replay:k=1,capacity_factor=1.01", 6},
                 {"replay:k=1,capacity_factor=0.5", 3},
                 {"replay:k=1,capacity_factor=2", 8},
                 {"replay:k=1", 8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bed bed;
        uint32_t kept = 0;
        cr_assert_eq(bed_open(&bed, cases[i].spec, 8, 2, MOESIM_TRAIN), MOESIM_OK);
        bed.decisions = (struct moesim_decisions){.first = first, .expert = expert};
        bed_route(&bed);
        for (uint32_t t = 0; t < 8; t++) {
            kept += bed.plan.fate[t] == MOESIM_KEPT;
            cr_assert_eq(bed.plan.weight[t] > 0, bed.plan.fate[t] == MOESIM_KEPT);
        }
        cr_assert(bed.plan.n_wanted == 8 && kept == cases[i].kept, "%s: %u", cases[i].spec, kept);
        bed_close(&bed);
    }
    static const uint8_t fate[8] = {MOESIM_KEPT};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "replay:k=1,capacity_factor=1", 8, 2, MOESIM_TRAIN), MOESIM_OK);
    bed.decisions = (struct moesim_decisions){first, expert, NULL, fate, NULL};
    moesim_plan_reset(&bed.plan, &bed.batch);
    cr_assert_eq(bed.router->route(bed.state, &bed.batch, &bed.plan, &bed.err), MOESIM_EINVAL);
    cr_assert(strstr(bed.err.text, "the record says what was kept"), "%s", bed.err.text);
    bed_close(&bed);
}

/* Two experts, five tokens: what was refused, served elsewhere or bad stays so, slots are those of the record where
 * they do not follow from the order, and n_wanted counts a rerouted choice once. */
Test(replay, record_with_fates_and_slots)
{
    static const uint32_t first[] = {0, 2, 3, 4, 6, 7}, expert[] = {1, 0, 0, MOESIM_NO_EXPERT, 0, 1, 1};
    static const uint8_t fate[] = {MOESIM_KEPT,     MOESIM_OVER_CAPACITY, MOESIM_KEPT, MOESIM_BAD_ROW,
                                   MOESIM_REROUTED, MOESIM_KEPT,          MOESIM_KEPT};
    static const int32_t slot[] = {2, -1, MOESIM_SLOT_BY_ORDER, -1, -1, 0, 1};
    static const float weight[] = {.5f, 0, .25f, 0, 0, 1, .75f};
    static const int32_t wanted[] = {2, -1, 0, -1, -1, 0, 1};
    struct bed bed;
    cr_assert_eq(bed_open(&bed, "replay:k=2", 5, 2, MOESIM_TRAIN), MOESIM_OK);
    bed.decisions = (struct moesim_decisions){first, expert, weight, fate, slot};
    bed_route(&bed);
    cr_assert(bed.plan.n_pairs == 7 && bed.plan.n_wanted == 5 && bed.plan.n_bad_rows == 1);
    cr_assert_arr_eq(bed.plan.first, first, sizeof first);
    cr_assert_arr_eq(bed.plan.expert, expert, sizeof expert);
    cr_assert_arr_eq(bed.plan.weight, weight, sizeof weight);
    cr_assert_arr_eq(bed.plan.fate, fate, sizeof fate);
    cr_assert_arr_eq(bed.plan.slot, wanted, sizeof wanted);
    bed_close(&bed);
}
