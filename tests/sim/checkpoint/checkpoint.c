/*
 * Checkpoints: what goes on has the bits of what was never stopped; other and damaged files are refused.
 */
#include <criterion/criterion.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <moesim/random.h>

#include "sim/checkpoint/checkpoint.h"
#include "sim/checkpoint/safetensors.h"
#include "sim/models/model.h"
#include "sim/train/params.h"
#include "sim/train/training_state.h"
#include "tests/sim/train/bed.h"

static struct moesim_arena *arena;
static struct moesim_error err;
static char folder[] = "/tmp/moesim-checkpoint-XXXXXX", path[64], other[64];

static void open_bed(void)
{
    arena = moesim_arena_create(0);
    omp_set_num_threads(1); /* matrices are tiny */
    cr_assert(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    snprintf(other, sizeof other, "%s/b.safetensors", folder);
}

static void close_bed(void)
{
    unlink(path);
    unlink(other);
    cr_assert_eq(rmdir(folder), 0, "something else was left behind");
    moesim_arena_destroy(arena);
}

static struct moesim_training_config config_with(const char *spec)
{
    struct moesim_training_config config = {
        .choice = bed_router(spec, 2, arena), .micro_batches = 2, .seed = UINT64_MAX - 3};
    cr_assert_eq(moesim_params_default((struct moesim_schema){moesim_transformer_params, sizeof(struct moesim_param)},
                                       2, &config.model, arena, &err),
                 MOESIM_OK);
    cr_assert_eq(moesim_params_default((struct moesim_schema){moesim_optimizer_params, sizeof(struct moesim_param)}, 2,
                                       &config.optimizer, arena, &err),
                 MOESIM_OK);
    config.model.vocabulary = 35;
    config.model.n_blocks = 2;
    config.model.d_model = 20;
    config.model.n_heads = 2;
    config.model.sequence = 8;
    config.model.n_sequences = 2;
    config.model.n_experts = 4;
    config.model.d_ff = 18;
    config.optimizer.warm_up = 2;
    config.optimizer.steps = 9;
    return config;
}

static struct moesim_training *create(const struct moesim_training_config *config)
{
    struct moesim_training *t;
    cr_assert_eq(moesim_training_create(config, 0, &t, &err), MOESIM_OK, "%s", err.text);
    return t;
}

static void run(struct moesim_training *t, uint32_t n)
{
    struct moesim_training_figures figures;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t m = 0; m < 2; m++) {
            const struct moesim_sequences sample = bed_sample(&t->config.model, 10 * t->step + m, arena);
            cr_assert_eq(moesim_training_step(t, &sample, &figures, &err), MOESIM_OK, "%s", err.text);
        }
}

static void check_equal(const struct moesim_training *a, const struct moesim_training *b, const char *spec)
{
    cr_assert_eq(a->step, b->step);
    for (uint32_t i = 0; i < a->model.n_tensors; i++) {
        const size_t n = moesim_tensor_size(&a->model.tensor[i]) * sizeof(float);
        cr_assert_arr_eq(a->model.tensor[i].value, b->model.tensor[i].value, n, "%s: %s", spec,
                         a->model.tensor[i].name);
        cr_assert_arr_eq(a->adamw.first[i], b->adamw.first[i], n, "%s: %s", spec, a->model.tensor[i].name);
        cr_assert_arr_eq(a->adamw.second[i], b->adamw.second[i], n, "%s: %s", spec, a->model.tensor[i].name);
    }
    for (uint32_t i = 0; i < a->model.n_moe; i++)
        cr_assert_arr_eq(a->model.moe[i].memory, b->model.moe[i].memory, a->model.shape.n_memory * sizeof(float),
                         "%s: memory", spec);
}

Test(checkpoint, what_goes_on_has_the_same_bits, .init = open_bed, .fini = close_bed, .timeout = 120)
{
    static const char *const specs[] = {"softmax-topk:aux_form=global-batch,bias_update=sign,noise=1,jitter=0.1",
                                        "noisy-topk",
                                        "relu",
                                        "top-p",
                                        "expert-threshold",
                                        "quantile",
                                        "sinkhorn",
                                        "soft",
                                        "cosine",
                                        "random",
                                        "zero-expert:n_constant=0",
                                        "hash"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        const struct moesim_training_config config = config_with(specs[i]);
        struct moesim_training *whole = create(&config), *half = create(&config), *rest = create(&config);
        run(whole, 7);
        run(half, 4);
        cr_assert_eq(moesim_checkpoint_save(half, path, "", NULL, &err), MOESIM_OK, "%s", err.text);
        cr_assert_eq(moesim_checkpoint_load(rest, path, NULL, &err), MOESIM_OK, "%s: %s", specs[i], err.text);
        check_equal(half, rest, specs[i]);
        run(rest, 3);
        check_equal(whole, rest, specs[i]);
        moesim_training_destroy(whole);
        moesim_training_destroy(half);
        moesim_training_destroy(rest);
    }
}

Test(checkpoint, says_what_it_is, .init = open_bed, .fini = close_bed)
{
    struct moesim_training_config config = config_with("switch");
    config.model.positions = MOESIM_LEARNED;
    config.model.gate_std = 0.1 + 0.2;
    config.vocabulary_hash = UINT64_MAX - 1;
    struct moesim_training *t = create(&config);
    struct moesim_checkpoint_info info;
    run(t, 1);
    cr_assert_eq(moesim_checkpoint_save(t, path, "{\"study\": \"\xc3\xa4\"}", NULL, &err), MOESIM_OK, "%s", err.text);
    cr_assert_eq(moesim_checkpoint_info(path, arena, &info, &err), MOESIM_OK, "%s", err.text);
    cr_assert_arr_eq(&info.model, &config.model, sizeof info.model);
    cr_assert_str_eq(info.label, "{\"study\": \"\xc3\xa4\"}");
    cr_assert_str_eq(info.router, "switch");
    cr_assert_eq(info.seed, config.seed);
    cr_assert_eq(info.step, 1);
    cr_assert_eq(info.vocabulary_hash, UINT64_MAX - 1);
    moesim_training_destroy(t);
}

/* Another program finds every tensor row-major where the header says. */
Test(checkpoint, is_row_major, .init = open_bed, .fini = close_bed)
{
    const struct moesim_training_config config = config_with("switch");
    struct moesim_training *t = create(&config);
    run(t, 1);
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK, "%s", err.text);
    static char bytes[1 << 20];
    FILE *f = fopen(path, "rb");
    const size_t n = fread(bytes, 1, sizeof bytes - 1, f);
    fclose(f);
    uint64_t header;
    memcpy(&header, bytes, 8);
    cr_assert(header % 8 == 0 && header + 8 < n);
    unsigned long long begin, end;
    const char *entry = strstr(bytes + 8, "\"blocks.1.experts.out\":");
    cr_assert(entry && sscanf(strstr(entry, "data_offsets"), "data_offsets\":[%llu,%llu]", &begin, &end) == 2);
    cr_assert(strstr(entry, "\"shape\":[4,18,20]") && end - begin == 4 * 18 * 20 * 4);
    for (uint32_t i = 0; i < t->model.n_tensors; i++) {
        const struct moesim_tensor *tensor = &t->model.tensor[i];
        if (strcmp(tensor->name, "blocks.1.experts.out"))
            continue;
        for (uint32_t e = 0; e < 4; e++)
            for (uint32_t r = 0; r < 18; r++)
                for (uint32_t c = 0; c < 20; c++) {
                    float x;
                    memcpy(&x, bytes + 8 + header + begin + 4 * ((e * 18 + r) * 20 + c), 4);
                    cr_assert_eq(x, tensor->value[moesim_tensor_place(tensor, e, r, c)]);
                }
    }
    moesim_training_destroy(t);
}

Test(checkpoint, weights_alone_go_into_another_model, .init = open_bed, .fini = close_bed)
{
    struct moesim_training_config config = config_with("softmax-topk:bias_update=sign");
    struct moesim_training *t = create(&config);
    struct moesim_transformer model;
    run(t, 2);
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK, "%s", err.text);
    config.model.n_sequences = 5; /* of no tensor's shape */
    cr_assert_eq(moesim_transformer_init(&model, &config.model, &config.choice, 1, arena, &err), MOESIM_OK);
    cr_assert_eq(moesim_checkpoint_load_model(&model, path, &err), MOESIM_OK, "%s", err.text);
    for (uint32_t i = 0; i < model.n_tensors; i++)
        cr_assert_arr_eq(model.tensor[i].value, t->model.tensor[i].value,
                         moesim_tensor_size(&model.tensor[i]) * sizeof(float));
    cr_assert_arr_eq(model.moe[1].memory, t->model.moe[1].memory, 4 * sizeof(float));
    moesim_transformer_finish(&model);
    moesim_training_destroy(t);
}

/* ---- refusals ---- */

static void check_refused(const struct moesim_training_config *config, enum moesim_status expected, const char *words)
{
    struct moesim_training *t = create(config);
    struct moesim_training *same = create(config);
    cr_assert_eq(moesim_checkpoint_load(t, path, NULL, &err), expected, "%s expected", words);
    cr_assert(strstr(err.text, words), "'%s' should say '%s'", err.text, words);
    check_equal(t, same, "a refusal changed something");
    moesim_training_destroy(t);
    moesim_training_destroy(same);
}

Test(checkpoint, refuses_another_training, .init = open_bed, .fini = close_bed)
{
    const struct moesim_training_config config = config_with("switch");
    struct moesim_training *t = create(&config);
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK);
    moesim_training_destroy(t);
    struct moesim_training_config c = config;
    c.model.d_model = 24;
    check_refused(&c, MOESIM_EINVAL, "embedding should be [24, 35] and is [20, 35]");
    c = config;
    c.model.n_experts = 5;
    check_refused(&c, MOESIM_EINVAL, "blocks.0.gate.weight should be [20, 5] and is [20, 4]");
    c = config;
    c.model.tied_head = false;
    check_refused(&c, MOESIM_EINVAL, "has no tensor head, which should be [20, 35]");
    c = config;
    c.model.n_heads = 1;
    check_refused(&c, MOESIM_EINVAL, "its n_heads is 2, this one's 1");
    c = config;
    c.optimizer.learning_rate = 0.25;
    check_refused(&c, MOESIM_EINVAL, "its learning_rate is 0.003, this one's 0.25");
    c = config;
    c.seed = 5;
    check_refused(&c, MOESIM_EINVAL, "its seed is");
    c = config;
    c.choice = bed_router("switch:aux_coef=0.5", 2, arena);
    check_refused(&c, MOESIM_EINVAL, "its router is switch, this one's switch:aux_coef=0.5");
}

static void write_bytes(const char *name, const char *bytes, size_t n)
{
    FILE *f = fopen(name, "wb");
    cr_assert(f && fwrite(bytes, 1, n, f) == n && !fclose(f));
}

Test(checkpoint, refuses_damaged_files, .init = open_bed, .fini = close_bed, .timeout = 120)
{
    static char bytes[1 << 20];
    const struct moesim_training_config config = config_with("switch");
    struct moesim_training *t = create(&config);
    run(t, 1);
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK);
    FILE *f = fopen(path, "rb");
    const size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    const struct moesim_random random = {.seed = 3, .stream = MOESIM_STREAM_TEST};
    uint64_t header;
    memcpy(&header, bytes, 8);
    for (uint32_t i = 0; i < 400; i++) { /* every other one in the header */
        const size_t most = i % 2 ? n : (size_t)header + 8;
        const size_t at = moesim_random_below(&random, i, (uint32_t)most);
        bytes[at] = (char)(bytes[at] ^ 1 << i % 8);
        write_bytes(path, bytes, n);
        struct moesim_safetensors *file;
        cr_assert_neq(moesim_safetensors_open(path, &file, &err), MOESIM_OK, "bit %u of byte %zu", i % 8, at);
        bytes[at] = (char)(bytes[at] ^ 1 << i % 8);
    }
    for (uint32_t i = 0; i < 60; i++) {
        write_bytes(path, bytes, moesim_random_below(&random, 1000 + i, (uint32_t)(i % 2 ? n : header + 8)));
        cr_assert_eq(moesim_checkpoint_load(t, path, NULL, &err), MOESIM_EIO);
    }
    write_bytes(path, bytes, n - 1);
    check_refused(&config, MOESIM_EIO, "is cut short");
    write_bytes(path, bytes, n + 5);
    check_refused(&config, MOESIM_EIO, "has something behind its end");
    bytes[n - 2] ^= 4;
    write_bytes(path, bytes, n);
    check_refused(&config, MOESIM_EIO, "is damaged: its checksum is");
    unlink(path);
    check_refused(&config, MOESIM_EIO, "No such file");
    moesim_training_destroy(t);
}

Test(checkpoint, leaves_the_last_one_when_it_cannot_write, .init = open_bed, .fini = close_bed)
{
    const struct moesim_training_config config = config_with("switch");
    struct moesim_training *t = create(&config);
    char nowhere[80];
    snprintf(nowhere, sizeof nowhere, "%s/none/c", folder);
    cr_assert_eq(moesim_checkpoint_save(t, path, "first", NULL, &err), MOESIM_OK);
    cr_assert_eq(moesim_checkpoint_save(t, nowhere, "", NULL, &err), MOESIM_EIO);
    cr_assert_eq(moesim_checkpoint_save(t, folder, "", NULL, &err), MOESIM_EIO);
    cr_assert_eq(moesim_checkpoint_save(t, "/dev/full", "", NULL, &err), MOESIM_EIO);
    struct moesim_checkpoint_info info;
    cr_assert_eq(moesim_checkpoint_info(path, arena, &info, &err), MOESIM_OK);
    cr_assert_str_eq(info.label, "first");
    moesim_training_destroy(t);
}

/* A file that another program may have written, with a right checksum. */
Test(checkpoint, refuses_lies_with_a_right_checksum, .init = open_bed, .fini = close_bed)
{
    const struct moesim_training_config config = config_with("switch");
    struct moesim_training *t = create(&config);
    const struct moesim_metadata few[] = {{"format", "moesim-checkpoint-1"}, {"step", "-1"}};
    cr_assert_eq(moesim_safetensors_write(path, few, 2, NULL, 0, &err), MOESIM_OK, "%s", err.text);
    check_refused(&config, MOESIM_EINVAL, "lacks its step");
    cr_assert_eq(moesim_safetensors_write(path, NULL, 0, NULL, 0, &err), MOESIM_OK, "%s", err.text);
    check_refused(&config, MOESIM_EINVAL, "lacks its format");
    /* As many blocks as nobody has room for. */
    const uint32_t n_blocks = t->config.model.n_blocks;
    struct moesim_checkpoint_info info;
    t->config.model.n_blocks = 1 << 24;
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK);
    cr_assert_eq(moesim_checkpoint_info(path, arena, &info, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "lacks its blocks"), "%s", err.text);
    t->config.model.n_blocks = n_blocks;
    t->config.model.d_model *= 2;
    cr_assert_eq(moesim_checkpoint_save(t, path, "", NULL, &err), MOESIM_OK);
    cr_assert_eq(moesim_checkpoint_info(path, arena, &info, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "embedding should be [40, 35] and is [20, 35]"), "%s", err.text);
    moesim_training_destroy(t);
}
