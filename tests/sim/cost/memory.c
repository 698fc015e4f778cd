/*
 * What a device holds, counted by hand.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/cost/memory.h"
#include "tests/sim/cost/scene.h"

TestSuite(memory, .timeout = 60);

#define NEAR(value, expected)                                                                                          \
    cr_assert_float_eq(value, expected, 1e-12 + 1e-12 * fabs((double)(expected)), #value " is %.17g", (double)(value))

static const uint32_t four_tokens[] = {0, 1, 2, 3, 2, 0, 3, 1};

/* Experts of 3000 weights of 2 bytes; a gate of 400 and 1000 dense weights of 1 byte; two shared experts. */
static void init(struct scene *s, uint32_t ep)
{
    const struct moesim_cluster cluster = scene_cluster(2, 2, ep);
    scene_init(s, &cluster, 4, 4, 2, four_tokens);
    s->model.dense_weights = 1000;
    s->model.dense_bytes = 1;
    s->model.gradient_bytes = 4;
    s->model.optimizer_bytes = 12;
    s->model.shared_experts = 2;
}

Test(memory, weights_by_hand)
{
    struct scene s;
    struct moesim_memory m[4];
    init(&s, 0);
    memset(m, 0, sizeof m);
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, NULL, m);
    for (int d = 0; d < 4; d++) {
        NEAR(m[d].weights, 1000 + 400 + 2 * 6000 + 6000);
        cr_assert(m[d].gradients == 0 && m[d].optimizer == 0 && m[d].activations == 0 && m[d].buffers == 0);
    }
    s.options.backward = true;
    memset(m, 0, sizeof m);
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, NULL, m);
    NEAR(m[2].gradients, 4 * (1400 + 3 * 3000));
    NEAR(m[2].optimizer, 12 * ((1400 + 6000) / 4. + 3000)); /* only the routed expert is on one device alone */
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, NULL, m); /* a second layer */
    NEAR(m[2].weights, 2 * (1400 + 12000 + 6000));
    s.model.optimizer = MOESIM_OPTIMIZER_COPIED;
    s.cluster.tp = 2;
    memset(m, 0, sizeof m);
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, NULL, m);
    NEAR(m[0].weights, 500 + 400 + 12000 + 6000);
    NEAR(m[0].optimizer, 12 * (900 + 9000.));
    NEAR(moesim_memory_total(&m[0]), 18900 + 16 * 9900.);
    scene_finish(&s);
}

/* Two EP groups: two experts a device, each on two devices; a second copy of expert 0 makes device 1 and 3 fuller. */
Test(memory, copies_by_hand)
{
    struct scene s;
    struct moesim_memory m[4];
    init(&s, 2);
    s.options.backward = true;
    const uint32_t first[] = {0, 2, 3, 4, 5}, replica[] = {0, 1, 0, 1, 1};
    memcpy(s.placement.first, first, sizeof first);
    memcpy(s.placement.replica, replica, sizeof replica);
    memset(m, 0, sizeof m);
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, NULL, m);
    for (int d = 0; d < 4; d++) {
        NEAR(m[d].weights, 1400 + 12000 + 6000 * (2 + d % 2));
        NEAR(m[d].optimizer, 12 * (7400 / 4. + 3000 * (d % 2 ? 1 / 4. + 2 / 2. : 1 / 4. + 1 / 2.)));
    }
    cr_assert_eq(moesim_memory_fullest(m, 4), 1);
    const uint8_t kind[4] = {MOESIM_EXPERT_FFN, MOESIM_EXPERT_ZERO, MOESIM_EXPERT_ZERO, MOESIM_EXPERT_ZERO};
    memset(m, 0, sizeof m);
    moesim_memory_add_weights(&s.placement, &s.cluster, &s.model, &s.options, 4, kind, m);
    NEAR(m[3].weights, 1400 + 12000 + 6000);
    scene_finish(&s);
}

/* Mixtral in BF16: 46.7 G weights of 2 bytes on one device; 18 bytes a weight to train, all but 2 + 4 sharded. */
Test(memory, mixtral)
{
    const struct moesim_model *mixtral = &moesim_model_find("mixtral-8x7b")->model;
    const struct moesim_cluster cluster = scene_cluster(1, 1, 0);
    const struct moesim_cost_options training = {.backward = true};
    struct scene s;
    struct moesim_memory m = {0}, t = {0};
    scene_init(&s, &cluster, 8, 1, 1, four_tokens);
    for (uint32_t l = 0; l < mixtral->layers; l++) {
        moesim_memory_add_weights(&s.placement, &cluster, mixtral, &s.options, 8, NULL, &m);
        moesim_memory_add_weights(&s.placement, &cluster, mixtral, &training, 8, NULL, &t);
    }
    cr_assert_float_eq(m.weights, 2 * 46.70e9, 2e-3 * m.weights, "%g", m.weights);
    cr_assert_float_eq(moesim_memory_total(&t), 18 * 46.70e9, 2e-3 * 18 * 46.7e9);
    scene_finish(&s);
}

Test(memory, tokens_by_hand)
{
    struct scene s;
    init(&s, 0);
    struct moesim_memory m = {0};
    /* 5 tokens of 100 inputs and 2 shared experts of 3 x 10 columns, 8 rows of 100 + 100 + 3 x 10, 4 bytes each. */
    const double layer = (5 * (100 + 60) + 8 * 230) * 4;
    moesim_memory_add_tokens(&s.model, &s.options, 5, 6, 8, &m);
    NEAR(m.activations, layer);
    NEAR(m.buffers, 6 * (200 + 400));
    moesim_memory_add_tokens(&s.model, &s.options, 5, 3, 7, &m); /* inference: the largest layer counts */
    NEAR(m.activations, layer);
    NEAR(m.buffers, 6 * (200 + 400));
    s.options.backward = true; /* training: all are kept */
    moesim_memory_add_tokens(&s.model, &s.options, 5, 7, 8, &m);
    NEAR(m.activations, 2 * layer);
    NEAR(m.buffers, 7 * (200 + 400));
    scene_finish(&s);
}
