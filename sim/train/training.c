#include "sim/train/training.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/train/training_state.h"

/* ---- set-up ---- */

static enum moesim_status check_optimizer(const struct moesim_training_config *config, struct moesim_error *err)
{
    const struct moesim_optimizer_config *c = &config->optimizer;
    if (c->steps == 0 || config->micro_batches == 0)
        return moesim_fail(err, MOESIM_EINVAL, "a training takes at least one step of one micro-batch");
    if ((uint64_t)c->steps * config->micro_batches > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL, "%u steps of %u micro-batches are more than 2^32", c->steps,
                           config->micro_batches);
    if (!(c->learning_rate > 0) || !(c->min_learning_rate >= 0) || c->min_learning_rate > c->learning_rate)
        return moesim_fail(err, MOESIM_EINVAL, "the learning rate must be above 0 and end no higher than its highest");
    if (!(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1 && c->epsilon > 0))
        return moesim_fail(err, MOESIM_EINVAL, "beta1 and beta2 must be below 1, epsilon above 0");
    return MOESIM_OK;
}

static enum moesim_status create_parts(struct moesim_training *t, struct moesim_error *err)
{
    const uint32_t n_tokens = moesim_transformer_tokens(&t->config.model);
    enum moesim_status status =
        moesim_transformer_init(&t->model, &t->config.model, &t->config.choice, t->config.seed, t->arena, err);
    if (status == MOESIM_OK)
        status = moesim_adamw_init(&t->adamw, &t->config.optimizer, t->model.tensor, t->model.n_tensors, t->arena, err);
    if (status != MOESIM_OK)
        return status;
    t->token_loss = moesim_alloc(t->arena, n_tokens, sizeof *t->token_loss);
    t->layer = moesim_alloc(t->arena, t->model.n_moe, sizeof *t->layer);
    t->mean_assigned = moesim_alloc(t->arena, t->model.shape.n_experts, sizeof *t->mean_assigned);
    t->mean_kept = moesim_alloc(t->arena, t->model.shape.n_experts, sizeof *t->mean_kept);
    if (!t->token_loss || !t->layer || !t->mean_assigned || !t->mean_kept)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the figures of %u tokens", n_tokens);
    return MOESIM_OK;
}

enum moesim_status moesim_training_create(const struct moesim_training_config *config, uint64_t memory_limit_bytes,
                                          struct moesim_training **training, struct moesim_error *err)
{
    *training = NULL;
    enum moesim_status status = check_optimizer(config, err);
    if (status != MOESIM_OK)
        return status;
    struct moesim_arena *arena = moesim_arena_create(memory_limit_bytes);
    struct moesim_training *t = arena ? moesim_alloc(arena, 1, sizeof *t) : NULL;
    if (!t) {
        moesim_arena_destroy(arena);
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a training");
    }
    t->arena = arena;
    t->config = *config;
    status = create_parts(t, err);
    if (status != MOESIM_OK)
        moesim_training_destroy(t);
    else
        *training = t;
    return status;
}

void moesim_training_destroy(struct moesim_training *t)
{
    if (!t)
        return;
    moesim_transformer_finish(&t->model);
    moesim_arena_destroy(t->arena);
}

uint32_t moesim_training_steps_done(const struct moesim_training *t)
{
    return t->step;
}

bool moesim_training_done(const struct moesim_training *t)
{
    return t->step == t->config.optimizer.steps;
}

const struct moesim_transformer *moesim_training_model(const struct moesim_training *t)
{
    return &t->model;
}

/* ---- figures ---- */

static uint32_t n_targets(const struct moesim_sequences *sample, uint32_t n_tokens)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_tokens; i++)
        n += sample->target[i] != MOESIM_NO_TARGET;
    return n;
}

/* The mean of the token losses: in double, in the order of the tokens. */
static double mean_loss(const struct moesim_training *t, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < t->model.n_tokens; i++)
        sum += (double)t->token_loss[i];
    return n > 0 ? sum / n : 0;
}

static void fill_figures(struct moesim_training *t, uint32_t targets, struct moesim_training_figures *f)
{
    *f = (struct moesim_training_figures){.step = t->step,
                                          .micro_batch = t->micro_batch,
                                          .n_tokens = t->model.n_tokens,
                                          .n_targets = targets,
                                          .loss = mean_loss(t, targets),
                                          .token_loss = t->token_loss,
                                          .n_layers = t->model.n_moe,
                                          .layer = t->layer};
    for (uint32_t i = 0; i < t->model.n_moe; i++) {
        const struct moesim_moe *moe = &t->model.moe[i];
        t->layer[i] = (struct moesim_training_layer){.block = (i + 1) * t->config.model.moe_every - 1,
                                                     .batch = &moe->batch,
                                                     .plan = &moe->plan,
                                                     .aux_loss = moesim_plan_aux_loss(&moe->plan),
                                                     .assigned = moe->assigned,
                                                     .kept = moe->kept,
                                                     .global_assigned = moe->global_assigned,
                                                     .global_kept = moe->global_kept};
        f->aux_loss += t->layer[i].aux_loss;
    }
}

/* ---- the update ---- */

static void mean_over_layers(struct moesim_training *t)
{
    for (uint32_t e = 0; e < t->model.shape.n_experts; e++) {
        uint64_t assigned = 0, kept = 0;
        for (uint32_t i = 0; i < t->model.n_moe; i++) {
            assigned += t->model.moe[i].global_assigned[e];
            kept += t->model.moe[i].global_kept[e];
        }
        t->mean_assigned[e] = (double)assigned / t->model.n_moe;
        t->mean_kept[e] = (double)kept / t->model.n_moe;
    }
}

static enum moesim_status update_routers(struct moesim_training *t, struct moesim_error *err)
{
    mean_over_layers(t);
    for (uint32_t i = 0; i < t->model.n_moe; i++) {
        struct moesim_moe *moe = &t->model.moe[i];
        const struct moesim_feedback feedback = {.struct_size = sizeof feedback,
                                                 .layer = i,
                                                 .n_layers = t->model.n_moe,
                                                 .n_experts = t->model.shape.n_experts,
                                                 .n_tokens = moe->global_tokens,
                                                 .assigned = moe->global_assigned,
                                                 .kept = moe->global_kept,
                                                 .mean_assigned = t->mean_assigned,
                                                 .mean_kept = t->mean_kept,
                                                 .memory = moe->memory};
        const enum moesim_status status = moesim_router_update(t->config.choice.router, moe->state, &feedback, err);
        if (status != MOESIM_OK) {
            moesim_error_prefix(err, "router %s, update after step %u, layer %u", t->config.choice.spec, t->step, i);
            return status;
        }
    }
    return MOESIM_OK;
}

/* Norm of the gradient of each MoE layer's gate and router. */
static void note_gate_norms(struct moesim_training *t)
{
    for (uint32_t i = 0; i < t->model.n_moe; i++) {
        double square = 0;
        for (uint32_t j = 0; j < t->model.n_tensors; j++)
            if (t->model.tensor[j].is_gate && t->model.tensor[j].block == t->layer[i].block)
                square += t->adamw.square[j];
        t->layer[i].gate_norm = sqrt(square);
    }
}

static enum moesim_status diverged_gradient(const struct moesim_training *t, struct moesim_error *err)
{
    const char *name = "a tensor";
    for (uint32_t i = t->model.n_tensors; i-- > 0;)
        if (!isfinite(t->adamw.square[i]))
            name = t->model.tensor[i].name;
    return moesim_fail(
        err, MOESIM_EDIVERGED,
        "step %u: the gradient of %s is no finite number; a lower learning rate or a larger warm-up helps", t->step,
        name);
}

/* What the step had added up is dropped: the model is that of the step before. */
static enum moesim_status abandon(struct moesim_training *t, enum moesim_status status)
{
    t->loss_sum = t->aux_sum = 0;
    t->micro_batch = 0;
    return status;
}

static enum moesim_status update(struct moesim_training *t, struct moesim_training_figures *f, struct moesim_error *err)
{
    const struct moesim_gradient_norm norm = moesim_gradient_norm(&t->adamw);
    if (!isfinite(norm.all))
        return abandon(t, diverged_gradient(t, err));
    note_gate_norms(t);
    moesim_adamw_step(&t->adamw, t->step, norm.all);
    const enum moesim_status status = update_routers(t, err);
    f->updated = true;
    f->step_loss = t->loss_sum / t->config.micro_batches;
    f->step_aux_loss = t->aux_sum / t->config.micro_batches;
    f->gradient_norm = norm.all;
    f->gate_norm = norm.gates;
    f->learning_rate = moesim_learning_rate(&t->config.optimizer, t->step);
    t->loss_sum = t->aux_sum = 0;
    t->micro_batch = 0;
    t->step++;
    return status;
}

/* ---- steps ---- */

static enum moesim_status check_sample(const struct moesim_training *t, const struct moesim_sequences *sample,
                                       struct moesim_error *err)
{
    const struct moesim_transformer_config *c = &t->config.model;
    if (sample->n_sequences == 0 || sample->n_sequences > c->n_sequences)
        return moesim_fail(err, MOESIM_EINVAL, "a micro-batch of %u sequences, but there is room for 1 to %u",
                           sample->n_sequences, c->n_sequences);
    for (uint32_t i = 0; i < sample->n_sequences * c->sequence; i++) {
        const uint32_t word = sample->token[i], target = sample->target[i];
        if (word >= c->vocabulary || (target >= c->vocabulary && target != MOESIM_NO_TARGET))
            return moesim_fail(err, MOESIM_EINVAL, "token %u is word %u and predicts %u of a vocabulary of %u", i, word,
                               target, c->vocabulary);
    }
    return MOESIM_OK;
}

static enum moesim_status diverged_loss(const struct moesim_training *t, struct moesim_error *err)
{
    char where[96];
    moesim_transformer_blame(&t->model, where, sizeof where);
    return moesim_fail(err, MOESIM_EDIVERGED,
                       "step %u: the loss is no finite number, from %s on; a lower learning rate or a larger warm-up "
                       "helps",
                       t->step, where);
}

enum moesim_status moesim_training_step(struct moesim_training *training, const struct moesim_sequences *sample,
                                        struct moesim_training_figures *figures, struct moesim_error *err)
{
    struct moesim_training *t = training;
    assert(!moesim_training_done(t));
    enum moesim_status status = check_sample(t, sample, err);
    if (status != MOESIM_OK)
        return status;
    const uint32_t m = t->config.micro_batches,
                   targets = n_targets(sample, sample->n_sequences * t->config.model.sequence);
    const float loss_scale = targets > 0 ? 1 / ((float)targets * (float)m) : 0;
    status =
        moesim_transformer_forward(&t->model, MOESIM_TRAIN, t->step * m + t->micro_batch, t->micro_batch, sample, err);
    if (status == MOESIM_OK)
        status = moesim_transformer_backward(&t->model, sample, loss_scale, 1 / (float)m, t->micro_batch > 0,
                                             t->token_loss, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "step %u", t->step);
        return status;
    }
    fill_figures(t, targets, figures);
    if (!isfinite(figures->loss) || !isfinite(figures->aux_loss))
        return abandon(t, diverged_loss(t, err));
    t->loss_sum += figures->loss;
    t->aux_sum += figures->aux_loss;
    return ++t->micro_batch == m ? update(t, figures, err) : MOESIM_OK;
}

enum moesim_status moesim_training_evaluate(struct moesim_training *training, const struct moesim_sequences *sample,
                                            struct moesim_training_figures *figures, struct moesim_error *err)
{
    struct moesim_training *t = training;
    assert(t->micro_batch == 0);
    enum moesim_status status = check_sample(t, sample, err);
    if (status == MOESIM_OK)
        status = moesim_transformer_forward(&t->model, MOESIM_EVAL, t->step * t->config.micro_batches, 0, sample, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "evaluation after step %u", t->step);
        return status;
    }
    moesim_transformer_losses(&t->model, sample, t->token_loss);
    fill_figures(t, n_targets(sample, t->model.n_tokens), figures);
    return isfinite(figures->loss) ? MOESIM_OK : diverged_loss(t, err);
}

enum moesim_status moesim_training_count(const struct moesim_training_config *config,
                                         struct moesim_transformer_counts *counts, struct moesim_error *err)
{
    struct moesim_shape shape = {.struct_size = sizeof shape};
    struct moesim_arena *arena = moesim_arena_create(0);
    if (!arena)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a router's shape");
    enum moesim_status status = moesim_transformer_check(&config->model, err);
    if (status == MOESIM_OK && moesim_transformer_n_moe(&config->model) > 0)
        status = moesim_transformer_shape(&config->model, &config->choice, config->seed, arena, &shape, err);
    if (status == MOESIM_OK)
        moesim_transformer_count(&config->model, &shape, counts);
    moesim_arena_destroy(arena);
    return status;
}
