/*
 * Once a model is set up, its passes allocate nothing.
 */
#include <criterion/criterion.h>

#include "sim/models/model.h"
#include "sim/train/training.h"
#include "tests/allocations.h"
#include "tests/sim/train/bed.h"

Test(train_allocation, no_pass_allocates, .init = allocations_init, .timeout = 60)
{
    static const char *const specs[] = {"softmax-topk:aux_form=switch,jitter=0.1,noise=1", "expert-choice", "soft"};
    static const struct moesim_transformer_config config = {.vocabulary = 50,
                                                            .n_blocks = 2,
                                                            .d_model = 32,
                                                            .n_heads = 2,
                                                            .sequence = 40,
                                                            .n_sequences = 3,
                                                            .moe_every = 2,
                                                            .n_experts = 4,
                                                            .top_k = 2,
                                                            .d_ff = 48,
                                                            .activation = MOESIM_SWIGLU};
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_sequences sample = bed_sample(&config, 1, arena);
    float *token_loss = moesim_alloc(arena, moesim_transformer_tokens(&config), sizeof *token_loss);
    for (int i = 0; i < 3; i++) {
        struct moesim_transformer model;
        struct moesim_error err;
        const struct moesim_router_choice choice = bed_router(specs[i], 2, arena);
        cr_assert_eq(moesim_transformer_init(&model, &config, &choice, 3, arena, &err), MOESIM_OK, "%s", err.text);
        allocations_watch(true);
        enum moesim_status status = moesim_transformer_forward(&model, MOESIM_TRAIN, 0, 0, &sample, &err);
        if (status == MOESIM_OK)
            status = moesim_transformer_backward(&model, &sample, 0.1f, 1, false, token_loss, &err);
        allocations_watch(false);
        cr_assert_eq(status, MOESIM_OK, "%s", err.text);
        if (i < 2) /* OpenBLAS, which mixes slots, has buffers of its own */
            cr_assert_eq(allocations_counted(), 0, "%s allocates %u times", specs[i], allocations_counted());
        moesim_transformer_finish(&model);
    }
    moesim_arena_destroy(arena);
}

Test(train_allocation, no_step_allocates, .init = allocations_init, .timeout = 60)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_training_config config = {
        .model = {.vocabulary = 50,
                  .n_blocks = 2,
                  .d_model = 32,
                  .n_heads = 2,
                  .sequence = 40,
                  .n_sequences = 3,
                  .moe_every = 1,
                  .n_experts = 4,
                  .top_k = 2,
                  .d_ff = 48},
        .choice = bed_router("softmax-topk:aux_form=switch,bias_update=sign", 2, arena),
        .optimizer = {.learning_rate = 1e-3, .steps = 5, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .clip = 1},
        .micro_batches = 2,
        .seed = 1};
    const struct moesim_sequences sample = bed_sample(&config.model, 1, arena);
    struct moesim_training *t;
    struct moesim_training_figures figures;
    struct moesim_error err;
    cr_assert_eq(moesim_training_create(&config, 0, &t, &err), MOESIM_OK, "%s", err.text);
    allocations_watch(true);
    enum moesim_status status = MOESIM_OK;
    while (status == MOESIM_OK && !moesim_training_done(t))
        status = moesim_training_step(t, &sample, &figures, &err);
    if (status == MOESIM_OK)
        status = moesim_training_evaluate(t, &sample, &figures, &err);
    allocations_watch(false);
    cr_assert_eq(status, MOESIM_OK, "%s", err.text);
    cr_assert_eq(allocations_counted(), 0, "%u", allocations_counted());
    moesim_training_destroy(t);
    moesim_arena_destroy(arena);
}
