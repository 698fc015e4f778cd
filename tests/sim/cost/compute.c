/*
 * Both passes of the experts, counted by hand.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "tests/sim/cost/scene.h"

TestSuite(compute, .timeout = 60);

#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-12 + 1e-12 * fabs((double)(expected)), #value " is %.17g", (double)(value))

/* Token t lives on device t, expert e on device e, as in cost.c. */
static const uint32_t four_tokens[] = {0, 1, 2, 3, 2, 0, 3, 1};

/* Gradients take two products where the forward takes one, and the same exchanges. */
Test(compute, backward_by_hand)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, 0);
    struct scene s;
    scene_init(&s, &cluster, 4, 4, 2, four_tokens);
    s.model.shared_experts = 2;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    const struct moesim_cost forward = s.cost;
    s.options.backward = true;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    NEAR(s.cost.time_gate_s, 3 * forward.time_gate_s);
    NEAR(s.cost.time_dispatch_s, 2 * forward.time_dispatch_s);
    NEAR(s.cost.time_combine_s, 2 * forward.time_combine_s);
    NEAR(s.cost.bytes_dispatch, 2 * forward.bytes_dispatch);
    NEAR(s.cost.bytes_combine, 2 * forward.bytes_combine);
    NEAR(s.cost.bytes_inter_node, 2 * forward.bytes_inter_node);
    NEAR(s.cost.bytes_intra_node, 2 * forward.bytes_intra_node);
    NEAR(s.cost.flop_expert, 3 * forward.flop_expert);
    NEAR(s.cost.flop_padded, 3 * forward.flop_padded);
    NEAR(s.cost.flop_router, 3 * forward.flop_router);
    cr_assert_eq(s.cost.padding_fraction, forward.padding_fraction);
    cr_assert_eq(s.cost.device_fanout, forward.device_fanout);
    double traffic = 0;
    const double *counted = scene_traffic(&s, 4);
    for (int i = 0; i < 16; i++)
        traffic += counted[i];
    NEAR(traffic, s.cost.bytes_dispatch + s.cost.bytes_combine);

    /* Two rows of one expert and one token of two shared ones (cost.c), launched, multiplied and permuted. */
    const double routed = 0.125 + (6000 + 2 * 920) / 1e5, permuted = 2 * (2 + 2) * 400 / 1e5;
    const double shared = 0.125 + (2 * 6000 + (200 + 3 * 20) * 4) / 1e5;
    NEAR(forward.time_compute_s, routed + permuted + shared);
    NEAR(s.cost.time_compute_s, 3 * (routed + shared) + 2 * permuted);
    NEAR(s.cost.time_layer_s,
         s.cost.time_gate_s + s.cost.time_dispatch_s + s.cost.time_compute_s + s.cost.time_combine_s);
    scene_finish(&s);
}

Test(compute, no_tokens_no_backward)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, 0);
    const uint32_t nothing[] = {MOESIM_NO_EXPERT};
    struct scene s;
    scene_init(&s, &cluster, 4, 1, 1, nothing);
    s.options.backward = true;
    scene_price(&s, MOESIM_PADDING_NONE, NULL);
    cr_assert(s.cost.time_compute_s == 0 && s.cost.time_dispatch_s == 0 && s.cost.flop_expert == 0);
    scene_finish(&s);
}
