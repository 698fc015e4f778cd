/*
 * Presets and schemas.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "sim/models/model.h"

TestSuite(models, .timeout = 60);

static const struct moesim_schema model_schema = {moesim_model_params, sizeof(struct moesim_param)};

/* Routed experts hold nearly all parameters of these models, whose totals are their published ones. */
Test(models, presets)
{
    const struct {
        const char *name;
        double total;
    } published[] = {
        {"switch-base-128", 7.4e9}, {"gshard-600b", 600e9},  {"glam-64b", 1162e9},      {"mixtral-8x7b", 46.7e9},
        {"olmoe-1b-7b", 6.9e9},     {"qwen1.5-moe", 14.3e9}, {"qwen3-30b-a3b", 30.5e9}, {"qwen3-235b-a22b", 235e9},
        {"deepseek-v2", 236e9},     {"deepseek-v3", 671e9},  {"glm-5.2", 744e9},        {"gpt-oss-20b", 20.9e9},
        {"gpt-oss-120b", 116.8e9},
    };
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        const struct moesim_model_preset *p = moesim_model_find(published[i].name);
        cr_assert_not_null(p, "%s", published[i].name);
        const struct moesim_model *m = &p->model;
        const double routed = (double)m->layers * m->experts * moesim_model_expert_bytes(m) / m->weight_bytes;
        cr_assert(routed > 0.86 * published[i].total && routed < 1.04 * published[i].total, "%s: %g", m->name, routed);
        /* With the dense weights the total is right to the digits published (GShard: "600B"). */
        const double all = routed + m->layers * moesim_model_device_dense(m, m->experts, 1),
                     published_total = published[i].total;
        cr_assert_float_eq(all, published_total, (i == 1 ? 0.04 : 0.005) * published_total, "%s: %g", m->name, all);
        cr_assert(p->summary && p->reference && m->top_k >= 1 && m->top_k <= m->experts);
    }
    size_t n = 0;
    while (moesim_model_presets[n].model.name)
        n++;
    cr_assert_eq(n, sizeof published / sizeof *published);
    cr_assert_null(moesim_model_find("gpt-5"));

    const struct moesim_model *mixtral = &moesim_model_find("mixtral-8x7b")->model;
    cr_assert_eq(moesim_model_flop_per_pair(mixtral), 6. * 4096 * 14336);
    cr_assert_eq(moesim_model_flop_per_pair(&moesim_model_find("switch-base-128")->model), 4. * 768 * 3072);
    /* DeepEP: 7392 bytes a token in FP8 with scales, 14336 in BF16. */
    const struct moesim_model *v3 = &moesim_model_find("deepseek-v3")->model;
    cr_assert_eq(moesim_model_token_bytes(v3, v3->dispatch_bytes), 7392);
    cr_assert_eq(moesim_model_token_bytes(v3, v3->combine_bytes), 14336);
}

Test(models, schema)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_model m;
    cr_assert_eq(moesim_params_default(model_schema, 2, &m, arena, &err), MOESIM_OK, "%s", err.text);
    cr_assert(m.layers == 0 && m.experts == 0 && m.activation == MOESIM_SWIGLU && m.weight_bytes == 2);
    cr_assert_eq(moesim_param_set(moesim_schema_find(model_schema, "activation"), "relu", &m, arena, &err), MOESIM_OK);
    cr_assert_eq(m.activation, MOESIM_RELU_MLP);
    moesim_arena_destroy(arena);
}
