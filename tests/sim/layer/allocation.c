/*
 * A layer's passes and the gate's allocate nothing once they are set up.
 */
#include <criterion/criterion.h>

#include "sim/gate/gate.h"
#include "tests/allocations.h"
#include "tests/sim/layer/bed.h"

Test(layer_allocation, no_pass_allocates, .init = allocations_init, .timeout = 60)
{
    static const char *const products[] = {"avx512", "avx2-fma", "portable"};
    static const struct shape shape = {48, 40, 300, 1, 700, 3, false}; /* more experts than a sort has on the stack */
    for (int i = 0; i < 3; i++) {
        struct bed b;
        if (!moesim_products_find(products[i]))
            continue;
        bed_init(&b, 1, MOESIM_SWIGLU, &shape, moesim_products_find(products[i]));
        allocations_watch(true);
        moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
        for (int add = 0; add < 2; add++)
            moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, add, b.d_hidden, b.d_weight);
        allocations_watch(false);
        cr_assert_eq(allocations_counted(), 0, "%s allocates %u times", products[i], allocations_counted());
        bed_finish(&b);
    }
}

Test(layer_allocation, no_gate_allocates, .init = allocations_init, .timeout = 60)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_gate gate;
    struct moesim_error err;
    const uint32_t d = 96, n = 200;
    cr_assert_eq(moesim_gate_init(&gate, 1, 0, d, 64, 64, n, 1, arena, &err), MOESIM_OK);
    cr_assert_eq(moesim_gate_init_backward(&gate, arena, &err), MOESIM_OK);
    float *hidden = moesim_alloc(arena, (size_t)n * d, sizeof *hidden);
    float *d_hidden = moesim_alloc(arena, (size_t)n * d, sizeof *d_hidden);
    float *d_weight = moesim_alloc(arena, (size_t)d * gate.stride, sizeof *d_weight);
    allocations_watch(true);
    moesim_gate_forward(&gate, hidden, n, 0, NULL);
    moesim_gate_backward(&gate, hidden, n, 0, NULL, gate.columns, false, d_weight, d_hidden);
    allocations_watch(false);
    cr_assert_eq(allocations_counted(), 0, "%u", allocations_counted());
    moesim_arena_destroy(arena);
}
