/*
 * eplb against its published vectors and against its definition, written out without heaps.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/sim/placement/ruled.h"

/* README of github.com/deepseek-ai/EPLB: two layers of 12 experts in 16 slots, 4 groups, 2 nodes, 8 devices. */
Test(eplb, published_vector)
{
    double load[2][12] = {{90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86},
                          {20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27}};
    const uint32_t expected[2][16] = {{5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1},
                                      {7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1}};
    /* copies of each expert, vLLM's tests/distributed/test_eplb_algo.py */
    const uint32_t copies[2][12] = {{1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1}, {1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1}};
    struct ruled r;
    const struct moesim_placement_stats stats = {.n_layers = 2, .n_experts = 12, .load = load[0]};
    cr_assert_eq(ruled_place(&r, "eplb:redundant=4,n_groups=4", &stats, 2, 4), MOESIM_OK, "%s", r.err.text);
    for (uint32_t l = 0; l < 2; l++) {
        cr_assert_arr_eq(r.placement[l].expert, expected[l], sizeof expected[l]);
        for (uint32_t e = 0; e < 12; e++)
            cr_assert_eq(r.placement[l].first[e + 1] - r.placement[l].first[e], copies[l][e]);
    }
    ruled_close(&r);
}

/* The groups of the model are taken where the SPEC names none. */
Test(eplb, groups_of_the_model)
{
    double load[12] = {90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86};
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = 12, .n_groups = 4, .load = load};
    struct ruled r, s;
    cr_assert_eq(ruled_place(&r, "eplb:redundant=4", &stats, 2, 4), MOESIM_OK);
    cr_assert_eq(ruled_place(&s, "eplb:redundant=4,n_groups=4", &stats, 2, 4), MOESIM_OK);
    cr_assert_arr_eq(r.placement[0].expert, s.placement[0].expert, 16 * sizeof(uint32_t));
    ruled_close(&r);
    ruled_close(&s);
}

/* ---- the definition, choice by choice ---- */

enum { MOST = 128 };

static void reference_pack(const float *w, uint32_t n, uint32_t n_packs, uint32_t *pack, uint32_t *rank)
{
    float sum[MOST] = {0};
    uint32_t items[MOST] = {0};
    bool done[MOST] = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = MOST, p = MOST;
        for (uint32_t j = 0; j < n; j++)
            if (!done[j] && (x == MOST || w[j] > w[x]))
                x = j;
        if (n == n_packs)
            x = p = i;
        for (uint32_t q = 0; q < n_packs && n != n_packs; q++)
            if (items[q] < n / n_packs && (p == MOST || sum[q] < sum[p]))
                p = q;
        done[x] = true;
        pack[x] = p;
        rank[x] = items[p]++;
        sum[p] += w[x];
    }
}

static void reference_eplb(const double *load, uint32_t n, uint32_t m, uint32_t groups, uint32_t nodes,
                           uint32_t devices, uint32_t *slots)
{
    float w[MOST], weight[MOST];
    uint32_t pack[MOST], rank[MOST], member[MOST];
    if (groups % nodes)
        groups = nodes = 1;
    const uint32_t size = n / groups, of_node = n / nodes, slots_of_node = m / nodes;
    for (uint32_t g = 0; g < groups; g++) {
        weight[g] = 0;
        for (uint32_t i = 0; i < size; i++)
            weight[g] += (float)load[g * size + i];
    }
    reference_pack(weight, groups, nodes, pack, rank);
    for (uint32_t g = 0; g < groups; g++)
        for (uint32_t i = 0; i < size; i++)
            member[(pack[g] * (groups / nodes) + rank[g]) * size + i] = g * size + i;
    for (uint32_t node = 0; node < nodes; node++) {
        uint32_t physical[MOST], count[MOST];
        for (uint32_t i = 0; i < of_node; i++) {
            w[i] = (float)load[member[node * of_node + i]];
            physical[i] = i;
            count[i] = 1;
        }
        for (uint32_t i = of_node; i < slots_of_node; i++) {
            uint32_t hot = 0;
            for (uint32_t j = 1; j < of_node; j++)
                if (w[j] / (float)count[j] > w[hot] / (float)count[hot])
                    hot = j;
            physical[i] = hot;
            count[hot]++;
        }
        for (uint32_t i = 0; i < slots_of_node; i++)
            weight[i] = w[physical[i]] / (float)count[physical[i]];
        reference_pack(weight, slots_of_node, devices / nodes, pack, rank);
        for (uint32_t i = 0; i < slots_of_node; i++)
            slots[node * slots_of_node + pack[i] * (m / devices) + rank[i]] = member[node * of_node + physical[i]];
    }
}

Test(eplb, equals_its_definition)
{
    const struct {
        uint32_t n, redundant, groups, nodes, per_node;
    } shapes[] = {{12, 4, 4, 2, 4}, {12, 4, 3, 2, 4}, {16, 0, 1, 1, 4},  {16, 8, 8, 4, 2},
                  {8, 8, 2, 2, 8},  {6, 2, 2, 2, 2},  {64, 32, 8, 4, 8}, {4, 2, 2, 1, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
            double load[MOST];
            for (uint32_t e = 0; e < shapes[i].n; e++) /* many ties; zeros; fractions that float32 rounds */
                load[e] = seed % 2 ? moesim_random_below(&random, e, 5) : moesim_random_below(&random, e, 1000) / 3.0;
            char spec[64];
            snprintf(spec, sizeof spec, "eplb:redundant=%u,n_groups=%u", shapes[i].redundant, shapes[i].groups);
            struct ruled r;
            ruled_layer(&r, spec, load, shapes[i].n, shapes[i].nodes, shapes[i].per_node);
            uint32_t expected[MOST];
            const uint32_t m = shapes[i].n + shapes[i].redundant;
            reference_eplb(load, shapes[i].n, m, shapes[i].groups, shapes[i].nodes,
                           shapes[i].nodes * shapes[i].per_node, expected);
            cr_assert_arr_eq(r.placement[0].expert, expected, m * sizeof *expected, "%s, seed %lu", spec, seed);
            ruled_close(&r);
        }
}

static void expect_refusal(const char *spec, uint32_t n_experts, uint32_t devices, const char *sentence)
{
    double load[64];
    for (uint32_t e = 0; e < n_experts; e++)
        load[e] = e;
    const struct moesim_placement_stats stats = {.n_layers = 1, .n_experts = n_experts, .load = load};
    struct ruled r;
    cr_assert_eq(ruled_place(&r, spec, &stats, 1, devices), MOESIM_EINVAL);
    cr_assert_str_eq(r.err.text, sentence);
    ruled_close(&r);
}

Test(eplb, slots_that_do_not_divide)
{
    expect_refusal(
        "eplb:redundant=3", 12, 8,
        "redundant = 3: 12 experts and 3 further copies are 15 slots, which do not divide by the 8 devices of "
        "an EP group; redundant = 4 would");
    expect_refusal(
        "lpt", 10, 4,
        "redundant = 0: 10 experts and 0 further copies are 10 slots, which do not divide by the 4 devices of "
        "an EP group; redundant = 2 would");
    expect_refusal("eplb:n_groups=5", 12, 4, "n_groups = 5: 12 experts do not divide into so many groups");
}
