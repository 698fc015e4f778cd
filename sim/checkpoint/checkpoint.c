#include "sim/checkpoint/checkpoint.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/checkpoint/fields.h"
#include "sim/checkpoint/safetensors.h"
#include "sim/train/params.h"
#include "sim/train/training_state.h"

#define FORMAT "moesim-checkpoint-1"

/* ---- the tensors of a training ---- */

/* Row i over all parts, out of the panels or into them. */
static void copy_row(const void *owner, float *values, uint64_t i, bool out, float *row)
{
    const struct moesim_tensor *t = owner;
    const uint32_t part = (uint32_t)(i / t->rows), r = (uint32_t)(i % t->rows);
    for (uint32_t c = 0; c < t->columns; c += t->width) {
        const uint32_t n = t->columns - c < t->width ? t->columns - c : t->width;
        float *place = values + moesim_tensor_place(t, part, r, c);
        if (out)
            memcpy(row + c, place, n * sizeof *row);
        else
            memcpy(place, row + c, n * sizeof *row);
    }
}

static struct moesim_stored_tensor store(const struct moesim_tensor *t, const char *prefix, float *values)
{
    struct moesim_stored_tensor s = {.owner = t, .values = values, .copy_row = copy_row};
    snprintf(s.name, sizeof s.name, "%s%s", prefix, t->name);
    if (t->n_parts > 1)
        s.shape[s.n_dimensions++] = t->n_parts;
    if (t->n_parts > 1 || t->rows > 1)
        s.shape[s.n_dimensions++] = t->rows;
    s.shape[s.n_dimensions++] = t->columns;
    return s;
}

/* Everything that a file holds. */
struct contents {
    struct moesim_stored_tensor *tensor;
    struct moesim_tensor *memory; /* [n_moe] stand for the routers' */
    uint32_t n;
};

static void add_memory(struct contents *c, const struct moesim_transformer *model)
{
    for (uint32_t i = 0; i < model->n_moe; i++) {
        struct moesim_tensor *t = &c->memory[i];
        const uint32_t n = (uint32_t)model->shape.n_memory;
        *t = (struct moesim_tensor){.n_parts = 1, .rows = 1, .columns = n, .width = n};
        snprintf(t->name, sizeof t->name, "blocks.%u.router.memory", (i + 1) * model->config.moe_every - 1);
        if (n > 0)
            c->tensor[c->n++] = store(t, "", model->moe[i].memory);
    }
}

/* Weights and router memory and, unless `adamw` is NULL, the moments. */
static enum moesim_status list(struct contents *c, const struct moesim_transformer *model,
                               const struct moesim_adamw *adamw, struct moesim_error *err)
{
    c->n = 0;
    c->tensor = calloc(3 * (size_t)model->n_tensors + model->n_moe + 1, sizeof *c->tensor); /* and the figures */
    c->memory = calloc((size_t)model->n_moe + 1, sizeof *c->memory);
    if (!c->tensor || !c->memory)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a checkpoint");
    for (uint32_t i = 0; i < model->n_tensors; i++)
        c->tensor[c->n++] = store(&model->tensor[i], "", model->tensor[i].value);
    add_memory(c, model);
    for (uint32_t i = 0; adamw && i < model->n_tensors; i++) {
        c->tensor[c->n++] = store(&model->tensor[i], "optimizer.first.", adamw->first[i]);
        c->tensor[c->n++] = store(&model->tensor[i], "optimizer.second.", adamw->second[i]);
    }
    return MOESIM_OK;
}

/* The caller's bits, which are one row. */
static void copy_bits(const void *owner, float *values, uint64_t i, bool out, float *row)
{
    const uint64_t *n = owner;
    (void)i;
    if (out)
        memcpy(row, values, *n * sizeof *row);
    else
        memcpy(values, row, *n * sizeof *row);
}

static void add_figures(struct contents *c, const struct moesim_checkpoint_figures *figures)
{
    if (figures && figures->n)
        c->tensor[c->n++] = (struct moesim_stored_tensor){.name = "figures",
                                                          .n_dimensions = 1,
                                                          .shape = {figures->n},
                                                          .owner = &figures->n,
                                                          .values = figures->bits,
                                                          .copy_row = copy_bits};
}

static void forget(struct contents *c)
{
    free(c->tensor);
    free(c->memory);
}

/* ---- saving ---- */

enum moesim_status moesim_checkpoint_save(const struct moesim_training *training, const char *path, const char *label,
                                          const struct moesim_checkpoint_figures *figures, struct moesim_error *err)
{
    const struct moesim_training *t = training;
    char step[16], seed[32], micro_batches[16], vocabulary[32];
    struct contents c = {0};
    assert(t->micro_batch == 0);
    snprintf(step, sizeof step, "%u", t->step);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)t->config.seed);
    snprintf(micro_batches, sizeof micro_batches, "%u", t->config.micro_batches);
    snprintf(vocabulary, sizeof vocabulary, "%llu", (unsigned long long)t->config.vocabulary_hash);
    char *model = moesim_fields_write(moesim_transformer_params, &t->config.model);
    char *optimizer = moesim_fields_write(moesim_optimizer_params, &t->config.optimizer);
    enum moesim_status status = model && optimizer ? list(&c, &t->model, &t->adamw, err)
                                                   : moesim_fail(err, MOESIM_ENOMEM, "no memory for a checkpoint");
    const struct moesim_metadata metadata[] = {{"format", FORMAT},
                                               {"step", step},
                                               {"seed", seed},
                                               {"micro_batches", micro_batches},
                                               {"vocabulary_hash", vocabulary},
                                               {"model", model},
                                               {"optimizer", optimizer},
                                               {"router", t->model.n_moe ? t->config.choice.spec : ""},
                                               {"label", label ? label : ""}};
    if (status == MOESIM_OK)
        add_figures(&c, figures);
    if (status == MOESIM_OK)
        status = moesim_safetensors_write(path, metadata, sizeof metadata / sizeof *metadata, c.tensor, c.n, err);
    forget(&c);
    free(model);
    free(optimizer);
    return status;
}

/* ---- what a file says of itself ---- */

static enum moesim_status lacks(const char *path, const char *what, struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EINVAL, "%s: is no checkpoint of a training: it lacks its %s", path, what);
}

static bool parse_number(const char *text, uint64_t most, uint64_t *n)
{
    char *end;
    errno = 0;
    if (!text || *text < '0' || *text > '9')
        return false;
    *n = strtoull(text, &end, 10);
    return !errno && !*end && *n <= most;
}

/* The texts are the file's. */
struct header {
    struct moesim_checkpoint_info info;
    struct moesim_optimizer_config optimizer;
    uint32_t micro_batches;
};

static enum moesim_status read_header(const struct moesim_safetensors *file, const char *path, struct header *h,
                                      struct moesim_error *err)
{
    const char *format = moesim_safetensors_metadata(file, "format");
    uint64_t step, micro_batches;
    *h = (struct header){0};
    if (!format || strcmp(format, FORMAT))
        return lacks(path, "format " FORMAT, err);
    if (!parse_number(moesim_safetensors_metadata(file, "step"), UINT32_MAX, &step))
        return lacks(path, "step", err);
    if (!parse_number(moesim_safetensors_metadata(file, "seed"), UINT64_MAX, &h->info.seed))
        return lacks(path, "seed", err);
    if (!parse_number(moesim_safetensors_metadata(file, "micro_batches"), UINT32_MAX, &micro_batches))
        return lacks(path, "micro_batches", err);
    if (!parse_number(moesim_safetensors_metadata(file, "vocabulary_hash"), UINT64_MAX, &h->info.vocabulary_hash))
        return lacks(path, "vocabulary_hash", err);
    if (!moesim_fields_read(moesim_transformer_params, moesim_safetensors_metadata(file, "model"), &h->info.model))
        return lacks(path, "model", err);
    if (!moesim_fields_read(moesim_optimizer_params, moesim_safetensors_metadata(file, "optimizer"), &h->optimizer))
        return lacks(path, "optimizer", err);
    h->info.router = moesim_safetensors_metadata(file, "router");
    h->info.label = moesim_safetensors_metadata(file, "label");
    if (!h->info.router || !h->info.label)
        return lacks(path, "router or label", err);
    h->info.step = (uint32_t)step;
    h->micro_batches = (uint32_t)micro_batches;
    return MOESIM_OK;
}

/* A caller makes room for the model by what the header says: as many blocks as that has, the file must have. */
static enum moesim_status check_blocks(const struct moesim_safetensors *file, const char *path,
                                       const struct moesim_transformer_config *model, struct moesim_error *err)
{
    const struct moesim_stored_tensor embedding = {
        .name = "embedding", .n_dimensions = 2, .shape = {model->d_model, model->vocabulary}};
    if (moesim_safetensors_count(file) < model->n_blocks)
        return lacks(path, "blocks", err);
    return moesim_safetensors_check(file, &embedding, err);
}

enum moesim_status moesim_checkpoint_info(const char *path, struct moesim_arena *arena,
                                          struct moesim_checkpoint_info *info, struct moesim_error *err)
{
    struct moesim_safetensors *file;
    struct header h;
    enum moesim_status status = moesim_safetensors_open(path, &file, err);
    if (status == MOESIM_OK)
        status = read_header(file, path, &h, err);
    if (status == MOESIM_OK)
        status = check_blocks(file, path, &h.info.model, err);
    if (status == MOESIM_OK) {
        *info = h.info;
        info->router = moesim_strdup(arena, h.info.router);
        info->label = moesim_strdup(arena, h.info.label);
        if (!info->router || !info->label)
            status = moesim_fail(err, MOESIM_ENOMEM, "no memory for what %s says", path);
    }
    moesim_safetensors_close(file);
    return status;
}

/* ---- loading ---- */

/* Shapes first: their sentence says more than a setting that differs. */
static enum moesim_status check_shapes(const struct moesim_safetensors *file, const struct contents *c,
                                       struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; status == MOESIM_OK && i < c->n; i++)
        status = moesim_safetensors_check(file, &c->tensor[i], err);
    return status;
}

static enum moesim_status read_tensors(const struct moesim_safetensors *file, const struct contents *c,
                                       struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; status == MOESIM_OK && i < c->n; i++)
        status = moesim_safetensors_read(file, &c->tensor[i], err);
    return status;
}

static enum moesim_status differs(const char *path, const char *what, const char *theirs, const char *mine,
                                  struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_EINVAL, "%s: is of another training: its %s is %.100s, this one's %.100s", path,
                       what, theirs, mine);
}

/* What does not decide a tensor's shape but the bits of what follows. */
static enum moesim_status check_settings(const struct moesim_training *t, const char *path, const struct header *h,
                                         struct moesim_error *err)
{
    char mine[MOESIM_FIELD_TEXT], theirs[MOESIM_FIELD_TEXT];
    const char *field = moesim_fields_differ(moesim_transformer_params, &t->config.model, &h->info.model, mine, theirs);
    if (!field)
        field = moesim_fields_differ(moesim_optimizer_params, &t->config.optimizer, &h->optimizer, mine, theirs);
    if (field)
        return differs(path, field, theirs, mine, err);
    if (t->model.n_moe && strcmp(h->info.router, t->config.choice.spec))
        return differs(path, "router", h->info.router, t->config.choice.spec, err);
    snprintf(mine, sizeof mine, "%llu", (unsigned long long)t->config.seed);
    snprintf(theirs, sizeof theirs, "%llu", (unsigned long long)h->info.seed);
    if (h->info.seed != t->config.seed)
        return differs(path, "seed", theirs, mine, err);
    if (h->micro_batches != t->config.micro_batches || h->info.step > t->config.optimizer.steps)
        return moesim_fail(err, MOESIM_EINVAL, "%s: is of another training: step %u of %u micro-batches", path,
                           h->info.step, h->micro_batches);
    return MOESIM_OK;
}

enum moesim_status moesim_checkpoint_load(struct moesim_training *training, const char *path,
                                          const struct moesim_checkpoint_figures *figures, struct moesim_error *err)
{
    struct moesim_training *t = training;
    struct moesim_safetensors *file;
    struct contents c = {0};
    struct header h;
    assert(t->micro_batch == 0);
    enum moesim_status status = moesim_safetensors_open(path, &file, err);
    if (status == MOESIM_OK)
        status = read_header(file, path, &h, err);
    if (status == MOESIM_OK)
        status = list(&c, &t->model, &t->adamw, err);
    if (status == MOESIM_OK)
        add_figures(&c, figures);
    if (status == MOESIM_OK)
        status = check_shapes(file, &c, err);
    if (status == MOESIM_OK)
        status = check_settings(t, path, &h, err);
    if (status == MOESIM_OK)
        status = read_tensors(file, &c, err);
    if (status == MOESIM_OK)
        t->step = h.info.step;
    moesim_safetensors_close(file);
    forget(&c);
    return status;
}

enum moesim_status moesim_checkpoint_load_model(struct moesim_transformer *model, const char *path,
                                                struct moesim_error *err)
{
    struct moesim_safetensors *file;
    struct contents c = {0};
    enum moesim_status status = moesim_safetensors_open(path, &file, err);
    if (status == MOESIM_OK)
        status = list(&c, model, NULL, err);
    if (status == MOESIM_OK)
        status = check_shapes(file, &c, err);
    if (status == MOESIM_OK)
        status = read_tensors(file, &c, err);
    moesim_safetensors_close(file);
    forget(&c);
    return status;
}
