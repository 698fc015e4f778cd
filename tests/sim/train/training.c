/*
 * The optimizer, and whole steps.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/models/model.h"
#include "sim/train/training.h"
#include "sim/train/training_state.h"
#include "tests/sim/train/bed.h"

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

/* ---- the optimizer ---- */

Test(optimizer, schedule_rises_and_falls)
{
    const struct moesim_optimizer_config c = {
        .learning_rate = 0.4, .min_learning_rate = 0.1, .warm_up = 4, .steps = 12};
    static const double expected[] = {0.1, 0.2, 0.3, 0.4, 0.4};
    for (uint32_t i = 0; i < 5; i++)
        cr_assert_float_eq(moesim_learning_rate(&c, i), expected[i], 1e-12, "step %u", i);
    cr_assert_float_eq(moesim_learning_rate(&c, 8), 0.25, 1e-12);
    cr_assert_float_eq(moesim_learning_rate(&c, 12), 0.1, 1e-12);
    cr_assert_float_eq(moesim_learning_rate(&c, 100), 0.1, 1e-12);
    const struct moesim_optimizer_config flat = {.learning_rate = 0.4, .min_learning_rate = 0.4, .steps = 3};
    cr_assert_float_eq(moesim_learning_rate(&flat, 2), 0.4, 1e-12);
}

/* Kingma and Ba 2015 with decoupled decay, in double precision. */
static void naive_step(const struct moesim_optimizer_config *c, uint32_t step, const float *gradient, double scale,
                       bool decays, uint32_t n, double *m, double *v, double *w)
{
    const double rate = moesim_learning_rate(c, step);
    for (uint32_t i = 0; i < n; i++) {
        const double g = scale * (double)gradient[i];
        m[i] = c->beta1 * m[i] + (1 - c->beta1) * g;
        v[i] = c->beta2 * v[i] + (1 - c->beta2) * g * g;
        const double by =
            m[i] / (1 - pow(c->beta1, step + 1)) / (sqrt(v[i] / (1 - pow(c->beta2, step + 1))) + c->epsilon);
        w[i] -= rate * (by + (decays ? c->weight_decay * w[i] : 0));
    }
}

Test(optimizer, adamw_as_its_twin, .init = open_bed, .fini = close_bed)
{
    enum { N = 70 };
    static float value[2][N], gradient[2][N];
    static double m[2][N], v[2][N], w[2][N];
    struct moesim_tensor tensor[2];
    const struct moesim_random random = {.seed = 2, .stream = MOESIM_STREAM_TEST};
    const struct moesim_optimizer_config c = {.learning_rate = 0.05,
                                              .min_learning_rate = 0.01,
                                              .warm_up = 2,
                                              .steps = 6,
                                              .beta1 = 0.9,
                                              .beta2 = 0.95,
                                              .epsilon = 1e-8,
                                              .weight_decay = 0.1,
                                              .clip = 5};
    struct moesim_adamw adamw;
    for (int i = 0; i < 2; i++) {
        moesim_random_normals(&random, (uint64_t)i * N, N, value[i]);
        for (int j = 0; j < N; j++)
            w[i][j] = value[i][j];
        tensor[i] = (struct moesim_tensor){.n_parts = 1,
                                           .rows = 1,
                                           .columns = N,
                                           .width = N,
                                           .decays = i == 0,
                                           .is_gate = i == 1,
                                           .value = value[i],
                                           .gradient = gradient[i]};
    }
    cr_assert_eq(moesim_adamw_init(&adamw, &c, tensor, 2, arena, &err), MOESIM_OK);
    for (uint32_t step = 0; step < 6; step++) {
        double square[2] = {0};
        for (int i = 0; i < 2; i++) {
            moesim_random_normals(&random, 1000 * (step + 1) + (uint64_t)i * N, N, gradient[i]);
            for (int j = 0; j < N; j++)
                square[i] += pow(gradient[i][j] *= step == 3 ? 0.1f : 1, 2);
        }
        const struct moesim_gradient_norm norm = moesim_gradient_norm(&adamw);
        const double all = sqrt(square[0] + square[1]);
        cr_assert_float_eq(norm.all, all, 1e-5 * all);
        cr_assert_float_eq(norm.gates, sqrt(square[1]), 1e-5 * all);
        moesim_adamw_step(&adamw, step, norm.all);
        for (int i = 0; i < 2; i++)
            naive_step(&c, step, gradient[i], all > 5 ? 5 / all : 1, i == 0, N, m[i], v[i], w[i]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < N; j++)
            cr_assert_float_eq(value[i][j], w[i][j], 2e-6, "%g beside %g", (double)value[i][j], w[i][j]);
}

/* ---- steps ---- */

static struct moesim_training_config config_with(const char *spec)
{
    const struct moesim_training_config config = {.model = {.vocabulary = 40,
                                                            .n_blocks = 2,
                                                            .d_model = 24,
                                                            .n_heads = 2,
                                                            .sequence = 16,
                                                            .n_sequences = 4,
                                                            .moe_every = 1,
                                                            .n_experts = 4,
                                                            .top_k = 2,
                                                            .d_ff = 20,
                                                            .activation = MOESIM_SWIGLU,
                                                            .tied_head = true},
                                                  .choice = bed_router(spec, 2, arena),
                                                  .optimizer = {.learning_rate = 0.01,
                                                                .warm_up = 2,
                                                                .steps = 8,
                                                                .beta1 = 0.9,
                                                                .beta2 = 0.95,
                                                                .epsilon = 1e-8,
                                                                .weight_decay = 0.1,
                                                                .clip = 1},
                                                  .micro_batches = 2,
                                                  .seed = 4};
    return config;
}

static struct moesim_training *create(const struct moesim_training_config *config)
{
    struct moesim_training *training;
    cr_assert_eq(moesim_training_create(config, 0, &training, &err), MOESIM_OK, "%s", err.text);
    return training;
}

/* n steps of seeded samples, from where the training stands; returns the last figures. */
static struct moesim_training_figures run(struct moesim_training *training, uint32_t n)
{
    struct moesim_training_figures figures = {0};
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t m = 0; m < training->config.micro_batches; m++) {
            const struct moesim_sequences sample = bed_sample(&training->config.model, 100 * training->step + m, arena);
            cr_assert_eq(moesim_training_step(training, &sample, &figures, &err), MOESIM_OK, "%s", err.text);
            cr_assert_eq(figures.updated, m + 1 == training->config.micro_batches);
        }
    return figures;
}

static void check_equal(const struct moesim_training *a, const struct moesim_training *b, const char *what)
{
    for (uint32_t i = 0; i < a->model.n_tensors; i++)
        cr_assert_arr_eq(a->model.tensor[i].value, b->model.tensor[i].value,
                         moesim_tensor_size(&a->model.tensor[i]) * sizeof(float), "%s: %s", what,
                         a->model.tensor[i].name);
    for (uint32_t i = 0; i < a->model.n_moe; i++)
        cr_assert_arr_eq(a->model.moe[i].memory, b->model.moe[i].memory, a->model.shape.n_memory * sizeof(float));
}

Test(training, same_bits_on_any_threads, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    const struct moesim_training_config config =
        config_with("softmax-topk:aux_form=global-batch,bias_update=sign,noise=0.5,jitter=0.1");
    struct moesim_training *first = create(&config);
    run(first, 3);
    for (int threads = 1; threads <= 4; threads++) {
        omp_set_num_threads(threads);
        struct moesim_training *again = create(&config);
        run(again, 3);
        check_equal(first, again, "threads");
        moesim_training_destroy(again);
    }
    moesim_training_destroy(first);
}

Test(training, evaluation_changes_nothing, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    const struct moesim_training_config config =
        config_with("softmax-topk:aux_form=global-batch,bias_update=sign,noise=0.5,jitter=0.1");
    struct moesim_training *plain = create(&config), *watched = create(&config);
    const struct moesim_sequences sample = bed_sample(&config.model, 9999, arena);
    struct moesim_training_figures once, twice;
    for (int i = 0; i < 3; i++) {
        run(plain, 1);
        run(watched, 1);
        cr_assert_eq(moesim_training_evaluate(watched, &sample, &once, &err), MOESIM_OK);
        const double loss = once.loss;
        cr_assert_eq(moesim_training_evaluate(watched, &sample, &twice, &err), MOESIM_OK);
        cr_assert_eq(twice.loss, loss, "noise in evaluation");
    }
    check_equal(plain, watched, "evaluation");
    bool moved = false;
    for (uint32_t e = 0; e < 4; e++)
        moved = moved || plain->model.moe[0].memory[e] != 0;
    cr_assert(moved, "the bias was never updated");
    moesim_training_destroy(plain);
    moesim_training_destroy(watched);
}

Test(training, micro_batches_are_one_batch, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    struct moesim_training_config config = config_with("softmax-topk");
    struct moesim_training_figures whole, part;
    config.micro_batches = 1;
    struct moesim_training *a = create(&config);
    config.micro_batches = 4;
    struct moesim_training *b = create(&config);
    struct moesim_sequences sample = bed_sample(&config.model, 1, arena);
    uint32_t *target = moesim_alloc(arena, 64, sizeof *target);
    for (uint32_t t = 0; t < 64; t++)
        target[t] = sample.token[t + 1];
    sample.target = target;
    cr_assert_eq(moesim_training_step(a, &sample, &whole, &err), MOESIM_OK);
    for (uint32_t m = 0; m < 4; m++) {
        const struct moesim_sequences one = {1, sample.token + m * 16, target + m * 16, NULL};
        cr_assert_eq(moesim_training_step(b, &one, &part, &err), MOESIM_OK);
        cr_assert_eq(part.updated, m == 3);
    }
    cr_assert_float_eq(part.step_loss, whole.loss, 1e-5);
    cr_assert_float_eq(part.gradient_norm, whole.gradient_norm, 1e-4 * whole.gradient_norm);
    cr_assert_float_eq(part.gate_norm, whole.gate_norm, 1e-4 * whole.gate_norm);
    for (uint32_t e = 0; e < 4; e++)
        cr_assert_eq(part.layer[0].global_assigned[e], whole.layer[0].global_assigned[e]);
    moesim_training_destroy(a);
    moesim_training_destroy(b);
}

Test(training, counts_are_what_is_there, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    static const char *const specs[] = {"softmax-topk", "noisy-topk", "expert-choice",
                                        "soft:slots=4", "relu",       "cosine"};
    for (int i = 0; i < 6; i++) {
        struct moesim_training_config config = config_with(specs[i]);
        struct moesim_transformer_counts counts;
        uint64_t n = 0;
        config.model.moe_every = 2;
        config.model.n_sequences = 40;
        config.model.tied_head = i % 2;
        config.model.gate_bias = i == 0;
        config.model.positions = i == 3 ? MOESIM_LEARNED : MOESIM_ROTARY;
        cr_assert_eq(moesim_training_count(&config, &counts, &err), MOESIM_OK, "%s", err.text);
        struct moesim_training *t = create(&config);
        for (uint32_t j = 0; j < t->model.n_tensors; j++)
            n += moesim_tensor_count(&t->model.tensor[j]);
        const double used = (double)moesim_arena_used(t->arena), estimate = (double)counts.memory_bytes;
        cr_assert_eq(counts.n_parameters, n, "%s: %llu weights counted, %llu there", specs[i],
                     (unsigned long long)counts.n_parameters, (unsigned long long)n);
        cr_assert(used < 1.2 * estimate && estimate < 1.2 * used, "%s: %g bytes estimated, %g used", specs[i], estimate,
                  used);
        moesim_training_destroy(t);
    }
}

Test(training, tells_where_it_diverged, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    static const char *const specs[] = {"softmax-topk:z_coef=0.1", "expert-choice", "relu", "soft", "switch"};
    for (int i = 0; i < 5; i++) {
        struct moesim_training_config config = config_with(specs[i]);
        config.micro_batches = 1;
        struct moesim_training *t = create(&config);
        const struct moesim_sequences sample = bed_sample(&config.model, 1, arena);
        struct moesim_training_figures figures;
        run(t, 2);
        t->model.block[1].qkv.w[5] = INFINITY;
        const enum moesim_status status = moesim_training_step(t, &sample, &figures, &err);
        cr_assert_eq(status, MOESIM_EDIVERGED, "%s: %s", specs[i], err.text);
        cr_assert(strstr(err.text, "step 2") && strstr(err.text, "block 1"), "%s: %s", specs[i], err.text);
        moesim_training_destroy(t);
    }
}

Test(training, refuses_other_input, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    struct moesim_training_config config = config_with("softmax-topk");
    struct moesim_training *t = create(&config), *none;
    struct moesim_sequences sample = bed_sample(&config.model, 1, arena);
    struct moesim_training_figures figures;
    ((uint32_t *)(uintptr_t)sample.token)[3] = 40;
    cr_assert_eq(moesim_training_step(t, &sample, &figures, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "token 3"), "%s", err.text);
    sample.n_sequences = 5;
    cr_assert_eq(moesim_training_evaluate(t, &sample, &figures, &err), MOESIM_EINVAL);
    moesim_training_destroy(t);
    config.optimizer.learning_rate = NAN;
    cr_assert_eq(moesim_training_create(&config, 0, &none, &err), MOESIM_EINVAL);
    config = config_with("softmax-topk");
    cr_assert_eq(moesim_training_create(&config, 100000, &none, &err), MOESIM_ENOMEM);
}

/* ---- learning ---- */

static double bits_of(struct moesim_training *t, const uint32_t *text, uint32_t n)
{
    const uint32_t sequence = t->config.model.sequence;
    double sum = 0;
    for (uint32_t i = 0; i < n; i += sequence) {
        const struct moesim_sequences one = {1, text + i, text + i + 1, NULL};
        struct moesim_training_figures figures;
        cr_assert_eq(moesim_training_evaluate(t, &one, &figures, &err), MOESIM_OK, "%s", err.text);
        sum += figures.loss * sequence / n;
    }
    return sum / log(2);
}

#ifdef __SANITIZE_ADDRESS__
enum { HEART_BYTES = 1024, HEART_STEPS = 900 }; /* a step takes ten times as long */
#else
enum { HEART_BYTES = 4096, HEART_STEPS = 3000 };
#endif

Test(training, learns_a_text_by_heart, .init = open_bed, .fini = close_bed, .timeout = 250)
{
    enum { N = HEART_BYTES, SEQUENCE = 128 };
    static uint32_t text[N + 1];
    char path[512];
    snprintf(path, sizeof path, "%s/LICENSE", getenv("MOESIM_SOURCE"));
    FILE *f = fopen(path, "rb");
    cr_assert(f, "%s", path);
    for (int i = 0; i <= N; i++)
        text[i] = (uint32_t)fgetc(f) & 0xff;
    fclose(f);
    omp_set_num_threads(1); /* matrices are small: a second thread would wait more than it works */
    struct moesim_training_config config = config_with("softmax-topk:k=1");
    config.model.vocabulary = 256;
    config.model.sequence = SEQUENCE;
    config.model.n_sequences = 1;
    config.model.d_model = 64;
    config.model.d_ff = 64;
    config.micro_batches = 1;
    config.optimizer = (struct moesim_optimizer_config){.learning_rate = 5e-3,
                                                        .min_learning_rate = 2.5e-4,
                                                        .warm_up = 20,
                                                        .steps = HEART_STEPS,
                                                        .beta1 = 0.9,
                                                        .beta2 = 0.98,
                                                        .epsilon = 1e-8,
                                                        .clip = 1};
    struct moesim_training *t = create(&config);
    for (uint32_t i = 0; !moesim_training_done(t); i++) {
        const uint32_t at = i * 7 % (N / SEQUENCE) * SEQUENCE;
        const struct moesim_sequences one = {1, text + at, text + at + 1, NULL};
        struct moesim_training_figures figures;
        cr_assert_eq(moesim_training_step(t, &one, &figures, &err), MOESIM_OK, "%s", err.text);
    }
    const double bits = bits_of(t, text, N);
    cr_assert_lt(bits, 0.1, "%g bits a byte", bits);
    moesim_training_destroy(t);
}
