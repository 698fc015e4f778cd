/*
 * The whole model beside its twin in double precision, which central differences check.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/models/model.h"
#include "tests/sim/train/bed.h"
#include "tests/sim/train/twin.h"

static struct moesim_arena *arena;
static struct moesim_error err;

static void open_bed(void)
{
    arena = moesim_arena_create(0);
    strcpy(err.text, "memory is exhausted");
}

static void close_bed(void)
{
    moesim_arena_destroy(arena);
}

static const struct moesim_transformer_config small = {.vocabulary = 21,
                                                       .n_blocks = 2,
                                                       .d_model = 12,
                                                       .n_heads = 2,
                                                       .sequence = 9,
                                                       .n_sequences = 2,
                                                       .moe_every = 2,
                                                       .n_experts = 4,
                                                       .top_k = 2,
                                                       .n_shared = 1,
                                                       .d_ff = 10,
                                                       .activation = MOESIM_SWIGLU,
                                                       .gate_bias = true,
                                                       .gate_std = 1};

/* ---- beside the twin ---- */

struct trial {
    const char *spec;
    struct twin_router router;
    uint32_t activation, positions, moe_every, n_shared;
    bool tied, gate_bias;
};

static const struct trial trials[] = {
    {"softmax-topk:aux_form=switch,aux_coef=0.3,z_coef=0.05",
     {MOESIM_SOFTMAX, false, 1, 0.3, 0.05, false},
     MOESIM_SWIGLU,
     MOESIM_ROTARY,
     2,
     1,
     false,
     true},
    {"softmax-topk:weight=sum", {MOESIM_SOFTMAX, true, 1, 0, 0, false}, MOESIM_GELU, MOESIM_LEARNED, 1, 0, true, false},
    {"softmax-topk:score=sigmoid,weight=sum,scale=2.5,k=3",
     {MOESIM_SIGMOID, true, 2.5, 0, 0, false},
     MOESIM_RELU_MLP,
     MOESIM_ROTARY,
     1,
     2,
     true,
     true},
    {"switch:capacity_factor=0.5,aux_coef=0.2,min_capacity=1",
     {MOESIM_SOFTMAX, false, 1, 0.2, 0, false},
     MOESIM_SWIGLU,
     MOESIM_ROTARY,
     1,
     0,
     false,
     false},
    {"expert-choice:capacity_factor=1.5",
     {MOESIM_SOFTMAX, false, 1, 0, 0, false},
     MOESIM_GELU,
     MOESIM_ROTARY,
     2,
     0,
     true,
     true},
    {"relu", {MOESIM_RELU, false, 1, 0, 0, false}, MOESIM_SWIGLU, MOESIM_LEARNED, 1, 0, false, false},
    {"softmax-topk:weight=softmax",
     {MOESIM_SOFTMAX, true, 1, 0, 0, false},
     MOESIM_GELU,
     MOESIM_ROTARY,
     2,
     0,
     false,
     false},
    {"soft:slots=2,scale=3", {.scale = 3, .is_soft = true}, MOESIM_SWIGLU, MOESIM_ROTARY, 2, 0, true, false},
};
#define N_TRIALS (sizeof trials / sizeof *trials)

static struct moesim_transformer_config config_of(const struct trial *trial)
{
    struct moesim_transformer_config config = small;
    config.activation = trial->activation;
    config.positions = trial->positions;
    config.moe_every = trial->moe_every;
    config.n_shared = trial->n_shared;
    config.tied_head = trial->tied;
    config.gate_bias = trial->gate_bias;
    return config;
}

/* Gains and biases that are no 1 and 0, so that a forgotten one shows. */
static void stir(struct moesim_transformer *model)
{
    const struct moesim_random random = {.seed = 11, .stream = MOESIM_STREAM_TEST};
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct moesim_tensor *t = &model->tensor[i];
        for (size_t j = 0; t->rows == 1 && j < moesim_tensor_count(t); j++)
            t->value[j] += 0.2f * moesim_random_normal(&random, (uint64_t)i * 1000 + j);
        for (size_t j = 0; strstr(t->name, "embedding") && j < moesim_tensor_size(t); j++)
            t->value[j] *= 20;
    }
}

static void init_model(struct moesim_transformer *model, const struct moesim_transformer_config *config,
                       const char *spec)
{
    const struct moesim_router_choice choice = bed_router(spec, config->top_k, arena);
    cr_assert_eq(moesim_transformer_init(model, config, &choice, 3, arena, &err), MOESIM_OK, "%s: %s", spec, err.text);
    stir(model);
}

/* Largest distance of the twin's gradient of some elements from central differences, relative to the tensor's largest
 * gradient. */
static double worst_difference(struct twin *twin, const struct moesim_sequences *sample, uint32_t tensor, double scale)
{
    const struct moesim_tensor *t = &twin->model->tensor[tensor];
    const struct moesim_random random = {.seed = 12, .stream = MOESIM_STREAM_TEST, .step = tensor};
    const double step = 1e-5;
    double most = 0, worst = 0, expected[3];
    size_t element[3];
    twin->by = 0;
    twin_run(twin, sample, scale, 1);
    tape_differentiate(&twin->tape, twin->loss);
    for (size_t j = 0; j < moesim_tensor_count(t); j++)
        most = fmax(most, fabs(twin->tape.gradient[twin->leaf[tensor][j]]));
    for (int i = 0; i < 3; i++) {
        element[i] = moesim_random_below(&random, (uint64_t)i, (uint32_t)moesim_tensor_count(t));
        expected[i] = twin->tape.gradient[twin->leaf[tensor][element[i]]];
    }
    twin->moved_tensor = tensor;
    for (int i = 0; i < 3; i++) {
        double at[2];
        twin->moved_element = element[i];
        for (int side = 0; side < 2; side++) {
            twin->by = side ? -step : step;
            twin_run(twin, sample, scale, 1);
            at[side] = twin->tape.value[twin->loss];
        }
        worst = fmax(worst, fabs((at[0] - at[1]) / (2 * step) - expected[i]));
    }
    twin->moved_tensor = UINT32_MAX;
    return most > 0 ? worst / most : worst;
}

static double distance(const struct twin *twin, uint32_t tensor)
{
    const struct moesim_tensor *t = &twin->model->tensor[tensor];
    double error = 0, norm = 0;
    for (size_t j = 0; j < moesim_tensor_count(t); j++) {
        const double expected = twin->tape.gradient[twin->leaf[tensor][j]];
        error += pow(t->gradient[twin_place(t, j)] - expected, 2);
        norm += expected * expected;
    }
    return sqrt(error / (norm + 1e-30));
}

static void run_model(struct moesim_transformer *model, const struct moesim_sequences *sample, float scale, bool add,
                      float *token_loss)
{
    cr_assert_eq(moesim_transformer_forward(model, MOESIM_TRAIN, 0, 0, sample, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_transformer_backward(model, sample, scale, 1, add, token_loss, &err), MOESIM_OK, "%s",
                 err.text);
}

static void check_beside_twin(const struct trial *trial)
{
    struct moesim_transformer model;
    struct twin twin;
    const struct moesim_transformer_config config = config_of(trial);
    const struct moesim_sequences sample = bed_sample(&config, 7, arena);
    const uint32_t n = moesim_transformer_tokens(&config);
    float *token_loss = moesim_alloc(arena, n, sizeof *token_loss);
    double sum = 0, aux = 0;
    init_model(&model, &config, trial->spec);
    run_model(&model, &sample, 1.0f / (float)n, false, token_loss);
    twin_init(&twin, &model, &trial->router);
    twin_run(&twin, &sample, 1.0 / n, 1);
    tape_differentiate(&twin.tape, twin.loss);
    for (uint32_t t = 0; t < n; t++)
        sum += token_loss[t];
    for (uint32_t i = 0; i < model.n_moe; i++)
        aux += moesim_plan_aux_loss(&model.moe[i].plan);
    cr_assert_float_eq(sum, twin.token_loss, 1e-5 * sum, "%s: loss %g, twin %g", trial->spec, sum, twin.token_loss);
    cr_assert_float_eq(aux, twin.aux_loss, 1e-5 * aux + 1e-5, "%s: aux %g, twin %g", trial->spec, aux, twin.aux_loss);
    for (uint32_t i = 0; i < model.n_tensors; i++)
        cr_assert_lt(distance(&twin, i), 1e-3, "%s: gradient of %s is off by %g", trial->spec, model.tensor[i].name,
                     distance(&twin, i));
    for (uint32_t i = 0; i < model.n_tensors; i++) {
        const double worst = worst_difference(&twin, &sample, i, 1.0 / n);
        cr_assert_lt(worst, 1e-6, "%s: the twin's gradient of %s is off by %g", trial->spec, model.tensor[i].name,
                     worst);
    }
    twin_finish(&twin);
    moesim_transformer_finish(&model);
}

Test(model, is_its_twin, .init = open_bed, .fini = close_bed, .timeout = 300)
{
    for (size_t i = 0; i < N_TRIALS; i++)
        check_beside_twin(&trials[i]);
}

/* ---- gradients add up, and do not depend on threads ---- */

static float **copy_gradients(const struct moesim_transformer *model)
{
    float **copy = moesim_alloc(arena, model->n_tensors, sizeof *copy);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const size_t n = moesim_tensor_size(&model->tensor[i]);
        copy[i] = moesim_alloc(arena, n, sizeof(float));
        memcpy(copy[i], model->tensor[i].gradient, n * sizeof(float));
    }
    return copy;
}

Test(model, gradients_add_up, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    for (size_t k = 0; k < N_TRIALS; k++) {
        struct moesim_transformer model;
        const struct moesim_transformer_config config = config_of(&trials[k]);
        const struct moesim_sequences sample = bed_sample(&config, 7, arena);
        float *token_loss = moesim_alloc(arena, moesim_transformer_tokens(&config), sizeof *token_loss);
        init_model(&model, &config, trials[k].spec);
        run_model(&model, &sample, 0.125f, false, token_loss);
        float **once = copy_gradients(&model);
        run_model(&model, &sample, 0.125f, true, token_loss);
        for (uint32_t i = 0; i < model.n_tensors; i++) {
            const struct moesim_tensor *t = &model.tensor[i];
            double error = 0, norm = 0;
            for (size_t j = 0; j < moesim_tensor_size(t); j++) {
                error += pow(t->gradient[j] - 2.0 * once[i][j], 2);
                norm += pow(once[i][j], 2);
            }
            cr_assert_leq(error, 1e-10 * norm, "%s: %s", trials[k].spec, t->name);
        }
        moesim_transformer_finish(&model);
    }
}

Test(model, the_same_bits_on_any_threads, .init = open_bed, .fini = close_bed, .timeout = 120)
{
    struct moesim_transformer_config config = {.vocabulary = 300,
                                               .n_blocks = 2,
                                               .d_model = 48,
                                               .n_heads = 3,
                                               .sequence = 100,
                                               .n_sequences = 5,
                                               .moe_every = 2,
                                               .n_experts = 6,
                                               .top_k = 2,
                                               .n_shared = 1,
                                               .d_ff = 70,
                                               .activation = MOESIM_SWIGLU};
    const struct moesim_sequences sample = bed_sample(&config, 7, arena);
    float *token_loss = moesim_alloc(arena, moesim_transformer_tokens(&config), sizeof *token_loss);
    float **first = NULL, first_loss = 0;
    for (int threads = 1; threads <= 4; threads++) {
        struct moesim_transformer model;
        omp_set_num_threads(threads);
        init_model(&model, &config, "softmax-topk:aux_form=switch,jitter=0.1,noise=1");
        run_model(&model, &sample, 0.01f, false, token_loss);
        if (!first) {
            first = copy_gradients(&model);
            first_loss = token_loss[123];
        }
        cr_assert_eq(token_loss[123], first_loss);
        for (uint32_t i = 0; i < model.n_tensors; i++)
            cr_assert_arr_eq(model.tensor[i].gradient, first[i], moesim_tensor_size(&model.tensor[i]) * sizeof(float),
                             "%s with %d threads", model.tensor[i].name, threads);
        moesim_transformer_finish(&model);
    }
}

/* ---- every router ---- */

static bool all_finite(const struct moesim_transformer *model)
{
    for (uint32_t i = 0; i < model->n_tensors; i++)
        for (size_t j = 0; j < moesim_tensor_size(&model->tensor[i]); j++)
            if (!isfinite(model->tensor[i].gradient[j]))
                return false;
    return true;
}

/* A SPEC that eight experts can serve. */
static const char *spec_of(const char *name)
{
    static const char *const specs[] = {"deepseek-v2:k=2,n_groups=4,topk_groups=2",
                                        "deepseek-v3:k=2,n_groups=4,topk_groups=2", "zero-expert:n_constant=0"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        if (!strncmp(specs[i], name, strlen(name)))
            return specs[i];
    return name;
}

Test(model, runs_with_every_router_but_replay, .init = open_bed, .fini = close_bed, .timeout = 120)
{
    struct moesim_transformer_config config = small;
    config.moe_every = 1;
    config.n_shared = 0;
    config.n_experts = 8;
    config.sequence = 8;
    const struct moesim_sequences sample = bed_sample(&config, 7, arena);
    float *token_loss = moesim_alloc(arena, moesim_transformer_tokens(&config), sizeof *token_loss);
    for (size_t i = 0; routers_table[i]; i++) {
        struct moesim_transformer model;
        const struct moesim_router_choice choice = bed_router(spec_of(routers_table[i]->name), 2, arena);
        const enum moesim_status status = moesim_transformer_init(&model, &config, &choice, 3, arena, &err);
        if (!strcmp(choice.router->name, "replay")) {
            cr_assert_eq(status, MOESIM_EREFUSE);
            continue;
        }
        cr_assert_eq(status, MOESIM_OK, "%s: %s", choice.spec, err.text);
        run_model(&model, &sample, 0.05f, false, token_loss);
        run_model(&model, &sample, 0.05f, true, token_loss);
        cr_assert(all_finite(&model), "%s", choice.spec);
        cr_assert_eq(moesim_transformer_forward(&model, MOESIM_EVAL, 0, 0, &sample, &err), MOESIM_OK, "%s", err.text);
        moesim_transformer_losses(&model, &sample, token_loss);
        moesim_transformer_finish(&model);
    }
}

Test(model, refuses_what_it_cannot_train, .init = open_bed, .fini = close_bed)
{
    struct moesim_transformer model;
    const struct moesim_router_choice constant = bed_router("zero-expert", 2, arena),
                                      soft = bed_router("soft", 2, arena);
    cr_assert_eq(moesim_transformer_init(&model, &small, &constant, 3, arena, &err), MOESIM_EREFUSE);
    cr_assert(strstr(err.text, "constant experts"), "%s", err.text);
    cr_assert_eq(moesim_transformer_init(&model, &small, &soft, 3, arena, &err), MOESIM_EREFUSE);
    cr_assert(strstr(err.text, "shared"), "%s", err.text);
    struct moesim_transformer_config config = small;
    config.n_heads = 5;
    cr_assert_eq(moesim_transformer_init(&model, &config, &soft, 3, arena, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "n_heads = 5"), "%s", err.text);
}
