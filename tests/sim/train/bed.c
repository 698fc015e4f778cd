#include "tests/sim/train/bed.h"

#include <criterion/criterion.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/checkpoint/checkpoint.h"
#include "sim/models/model.h"
#include "sim/study/spec.h"

struct moesim_router_choice bed_router(const char *spec, uint32_t top_k, struct moesim_arena *arena)
{
    struct moesim_error err = {"memory is exhausted"};
    struct moesim_spec cut;
    cr_assert_eq(moesim_spec_cut(spec, arena, &cut, &err), MOESIM_OK, "%s", err.text);
    const struct moesim_router *router = NULL;
    for (size_t i = 0; routers_table[i]; i++)
        if (!strcmp(routers_table[i]->name, cut.name))
            router = routers_table[i];
    cr_assert(router, "%s", spec);
    void *params = moesim_alloc(arena, 1, router->params_size);
    const struct moesim_schema schema = moesim_router_schema(router);
    cr_assert_eq(moesim_params_default(schema, top_k, params, arena, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t i = 0; i < cut.n_pairs; i++) {
        const struct moesim_param *row = moesim_schema_find(schema, cut.pairs[i].key);
        cr_assert(row, "%s", spec);
        cr_assert_eq(moesim_param_set(row, cut.pairs[i].value, params, arena, &err), MOESIM_OK, "%s", err.text);
    }
    return (struct moesim_router_choice){.router = router, .params = params, .spec = spec};
}

struct moesim_sequences bed_sample(const struct moesim_transformer_config *config, uint32_t seed,
                                   struct moesim_arena *arena)
{
    const uint32_t n = moesim_transformer_tokens(config);
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    uint32_t *token = moesim_alloc(arena, n + 1, sizeof *token), *target = moesim_alloc(arena, n, sizeof *target);
    for (uint32_t t = 0; t <= n; t++)
        token[t] = moesim_random_below(&random, t, config->vocabulary);
    for (uint32_t t = 0; t < n; t++)
        target[t] = t % 7 == 5 ? MOESIM_NO_TARGET : token[t + 1];
    return (struct moesim_sequences){.n_sequences = config->n_sequences, .token = token, .target = target};
}

static void set_defaults(struct moesim_transformer_config *c)
{
    const struct {
        uint32_t *size, value;
    } sizes[] = {{&c->vocabulary, 256}, {&c->n_blocks, 2}, {&c->d_model, 16},  {&c->n_heads, 2},    {&c->n_experts, 8},
                 {&c->top_k, 2},        {&c->d_ff, 12},    {&c->sequence, 16}, {&c->n_sequences, 4}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!*sizes[i].size)
            *sizes[i].size = sizes[i].value;
}

void bed_keep(const char *spec, const char *name, const struct moesim_transformer_config *model, const char *path)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_training *t;
    struct moesim_training_figures figures;
    struct moesim_training_config config = {.model = *model,
                                            .optimizer = {.learning_rate = 0.01,
                                                          .min_learning_rate = 0.01,
                                                          .steps = 8,
                                                          .beta1 = 0.9,
                                                          .beta2 = 0.95,
                                                          .epsilon = 1e-8},
                                            .micro_batches = 1,
                                            .seed = 7};
    set_defaults(&config.model);
    config.choice = bed_router(spec, config.model.top_k, arena);
    if (name)
        config.choice.spec = name;
    cr_assert_eq(moesim_training_create(&config, 0, &t, &err), MOESIM_OK, "%s", err.text);
    while (!moesim_training_done(t)) {
        const struct moesim_sequences sample = bed_sample(&config.model, moesim_training_steps_done(t), arena);
        cr_assert_eq(moesim_training_step(t, &sample, &figures, &err), MOESIM_OK, "%s: %s", spec, err.text);
    }
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK, "%s", err.text);
    moesim_training_destroy(t);
    moesim_arena_destroy(arena);
}
