/*
 * The formulas called capacity factor, against figures from the libraries themselves.
 */
#include <criterion/criterion.h>

#include <moesim/kernels.h>

TestSuite(kernels_capacity, .timeout = 60);

/* Origin: each library's own function, run on S tokens, E experts, k choices, factor; tutel with alignment 1, fastmoe's
 * GShard formula at k = 2 and its Switch formula at k = 1, torchscale's top-2 and top-1. */
Test(kernels_capacity, compared_between_libraries)
{
    static const enum moesim_capacity_rule rule[] = {
        MOESIM_CAPACITY_TUTEL,   MOESIM_CAPACITY_DEEPSPEED,  MOESIM_CAPACITY_MEGATRON, MOESIM_CAPACITY_MEGABLOCKS,
        MOESIM_CAPACITY_MESH,    MOESIM_CAPACITY_FLAXFORMER, MOESIM_CAPACITY_VMOE,     MOESIM_CAPACITY_GSHARD,
        MOESIM_CAPACITY_FASTMOE, MOESIM_CAPACITY_TORCHSCALE};
    static const struct {
        uint32_t s, e, k;
        double factor;
        uint32_t slots[10];
    } cases[] = {
        {8, 4, 2, 1.0, {4, 4, 4, 4, 4, 4, 4, 4, 4, 4}},
        {10, 4, 2, 1.0, {6, 5, 5, 5, 4, 4, 8, 4, 5, 6}},
        {10, 4, 2, 1.25, {6, 7, 7, 6, 4, 4, 8, 4, 6, 6}},
        {100, 8, 2, 1.25, {32, 32, 32, 31, 15, 16, 32, 16, 31, 26}},
        {100, 8, 1, 1.25, {16, 16, 16, 15, 15, 16, 16, 16, 16, 16}},
        {7, 4, 2, 1.5, {6, 6, 6, 5, 4, 4, 8, 4, 5, 4}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int r = 0; r < 10; r++)
            cr_assert_eq(moesim_capacity(rule[r], cases[i].s, cases[i].e, cases[i].k, cases[i].factor, 0),
                         cases[i].slots[r], "case %zu, rule %d", i, rule[r]);
    /* 2048 tokens, 64 experts, k = 8, factor 1 */
    static const uint32_t large[] = {256, 256, 256, 256, 32, 32, 256, 32};
    for (int r = 0; r < 8; r++)
        cr_assert_eq(moesim_capacity(rule[r], 2048, 64, 8, 1, 0), large[r]);
    /* fastmoe's Switch gate and torchscale's top-1, k = 1 */
    static const uint32_t top1[][4] = {{8, 4, 2, 2}, {10, 4, 3, 3}, {2048, 64, 32, 32}};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_FASTMOE, top1[i][0], top1[i][1], 1, 1, 0), top1[i][2]);
        cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_TORCHSCALE, top1[i][0], top1[i][1], 1, 1, 0), top1[i][3]);
    }
}

/* Origin: axlearn's expert_capacity; DeepSpeed's test_moe.py:371-413; MaxText's int(max(ceil(S k / E) f, f)). */
Test(kernels_capacity, further_figures)
{
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_AXLEARN, 50, 40, 2, 40, 0), 50);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_AXLEARN, 50, 40, 2, 2.5, 0), 3);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_AXLEARN, 8192, 40, 2, 2.5, 0), 512);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_AXLEARN, 8192, 40, 2, 40, 0), 8192);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_AXLEARN, 8, 40, 2, 1, 0), 1);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_DEEPSPEED, 8, 2, 2, 2, 0), 16);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_DEEPSPEED, 8, 2, 1, 4, 0), 16);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_DEEPSPEED, 3, 4, 1, 8, 0), 6);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_DEEPSPEED, 4, 4, 2, 1, 8), 8);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_MAXTEXT, 10, 4, 2, 1.5, 0), 7);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_TORCHSCALE_EVAL, 10, 4, 2, 0.25, 0), 3, "ceil(0.25 * 10)");
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_TORCHSCALE_EVAL, 2048, 64, 1, 0.25, 0), 512);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_MAXTEXT, 0, 4, 2, 1.5, 0), 1);
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_FLAXFORMER, 50, 4, 2, 1, 0), 12, "12.5 rounds to even");
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_FLAXFORMER, 54, 4, 2, 1, 0), 14, "13.5 rounds to even");
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_MESH, 6, 4, 1, 40, 0), 6, "no more than the group");
}

Test(kernels_capacity, limits)
{
    for (int r = MOESIM_CAPACITY_MEGATRON; r <= MOESIM_CAPACITY_AXLEARN; r++) {
        cr_assert_eq(moesim_capacity((enum moesim_capacity_rule)r, 100, 8, 2, 0, 7), MOESIM_UNLIMITED, "dropless");
        cr_assert_eq(moesim_capacity((enum moesim_capacity_rule)r, 8, 64, 1, 0.01, 100), 100, "rule %d", r);
    }
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_MEGABLOCKS, 8, 64, 1, 1, 0), 0, "nothing is kept");
    cr_assert_eq(moesim_capacity(MOESIM_CAPACITY_MEGATRON, UINT32_MAX, 1, 64, 65536, 0), MOESIM_UNLIMITED - 1);
}
