/*
 * Mode train: setting up, and one batch. Validations are in validation.c.
 */
#include "sim/experiment/training.h"

#include <math.h>
#include <string.h>

#include "sim/experiment/experiment.h"
#include "sim/experiment/experiment_state.h"
#include "sim/experiment/trained.h"

static uint32_t validate_every(const struct moesim_point *p)
{
    const uint32_t twentieth = p->steps / 20 ? p->steps / 20 : 1;
    return p->train.validate_every ? p->train.validate_every : twentieth;
}

static uint32_t most_validations(const struct moesim_point *p)
{
    return p->steps / validate_every(p) + 1; /* and one at the end */
}

struct moesim_training_config experiment_training_config(const struct moesim_point *p, uint32_t n_devices)
{
    const struct moesim_train_options *o = &p->train;
    const uint32_t sequence = p->workload_shape.sequence, steps = p->steps / p->micro_batches;
    return (struct moesim_training_config){
        .model = {.vocabulary = p->workload_shape.vocabulary,
                  .n_blocks = p->model.layers * (o->moe_every ? o->moe_every : 1),
                  .d_model = p->model.d_model,
                  .n_heads = o->heads,
                  .sequence = sequence,
                  .n_sequences = p->n_tokens / sequence,
                  .moe_every = o->moe_every,
                  .n_experts = p->model.experts,
                  .top_k = p->model.top_k,
                  .n_shared = p->model.shared_experts,
                  .d_ff = p->model.d_ff,
                  .activation = p->model.activation,
                  .positions = o->positions,
                  .tied_head = o->tied_head,
                  .gate_bias = o->gate_bias,
                  .n_devices = n_devices},
        .choice = {.router = p->router->router,
                   .params = p->router_params,
                   .spec = p->router_spec,
                   .files = p->router_files,
                   .n_files = p->n_router_files},
        .optimizer = {.learning_rate = o->learning_rate,
                      .min_learning_rate = o->learning_rate * o->final_rate,
                      .warm_up = o->rate_warm_up,
                      .steps = steps ? steps : 1,
                      .beta1 = o->beta1,
                      .beta2 = o->beta2,
                      .epsilon = 1e-8,
                      .weight_decay = o->weight_decay,
                      .clip = o->clip},
        .micro_batches = p->micro_batches,
        .seed = p->seed,
    };
}

static struct moesim_observation_shape observation_shape(const struct moesim_point *p)
{
    return (struct moesim_observation_shape){.n_layers = p->train.moe_every ? p->model.layers : 0,
                                             .n_experts = p->model.experts,
                                             .n_domains = p->workload_shape.n_domains,
                                             .vocabulary = p->workload_shape.vocabulary,
                                             .n_tokens = p->n_tokens * p->train.validation_batches,
                                             .n_validations = most_validations(p)};
}

/* ---- before it begins ---- */

enum moesim_status moesim_experiment_count(const struct moesim_point *p, struct moesim_transformer_counts *counts,
                                           struct moesim_error *err)
{
    const uint32_t n_devices = p->has_cluster ? moesim_cluster_devices(&p->cluster) : 1;
    const struct moesim_training_config config = experiment_training_config(p, n_devices);
    const struct moesim_shape as_top_k = {.struct_size = sizeof as_top_k,
                                          .n_experts = p->model.experts,
                                          .n_columns = p->model.experts,
                                          .max_pairs = (uint64_t)p->n_tokens * p->model.top_k};
    if (!p->router->plugin)
        return moesim_training_count(&config, counts, err);
    moesim_transformer_count(&config.model, &as_top_k, counts);
    return MOESIM_OK;
}

uint64_t experiment_training_bytes(const struct moesim_point *p)
{
    struct moesim_transformer_counts counts = {0};
    struct moesim_error ignored;
    const struct moesim_observation_shape shape = observation_shape(p);
    if (moesim_experiment_count(p, &counts, &ignored) != MOESIM_OK)
        return 0; /* the run will say why */
    return counts.memory_bytes + moesim_observation_bytes(&shape);
}

/* ---- setting up ---- */

/* FLOP of a token outside the routed experts, whose number may differ from token to token, and outside whatever the
 * cost of an MoE layer covers. */
static void count_flop(struct moesim_experiment *e, const struct moesim_transformer_counts *counts)
{
    const struct moesim_point *p = e->first;
    const double layers = p->train.moe_every ? p->model.layers : 0, pair = moesim_model_flop_per_pair(&p->model);
    const double gate = 2.0 * p->model.d_model * e->shape.n_columns;
    e->training->flop_outside = counts->flop_per_token - layers * p->model.top_k * pair;
    e->training->flop_dense = e->training->flop_outside - layers * (gate + p->model.shared_experts * pair);
}

static enum moesim_status allocate(struct moesim_experiment *e, struct moesim_error *err)
{
    struct experiment_training *t = e->training;
    const struct moesim_point *p = e->first;
    const uint32_t n_domains = p->workload_shape.n_domains;
    struct moesim_observation_shape shape = observation_shape(p);
    shape.n_experts = e->shape.n_experts;
    t->most_validations = shape.n_validations;
    const uint64_t by_domain = (uint64_t)t->most_validations * n_domains;
    t->target = moesim_alloc(e->arena, p->n_tokens, sizeof *t->target);
    t->validated_after = moesim_alloc(e->arena, t->most_validations, sizeof *t->validated_after);
    t->nats = moesim_alloc(e->arena, n_domains, sizeof *t->nats);
    t->bits_per_byte = moesim_alloc(e->arena, by_domain, sizeof *t->bits_per_byte);
    t->predicted = moesim_alloc(e->arena, by_domain, sizeof *t->predicted);
    t->held_out = moesim_alloc(e->arena, 1, p->workload->state_size);
    if (!t->target || !t->validated_after || !t->nats || !t->bits_per_byte || !t->predicted || !t->held_out)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the figures of %u validations", t->most_validations);
    return moesim_observation_init(&t->observation, &shape, e->arena, err);
}

enum moesim_status experiment_training_create(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_point *p = e->first;
    struct moesim_transformer_counts counts;
    struct experiment_training *t = e->training = moesim_alloc(e->arena, 1, sizeof *t);
    if (!t)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a training");
    t->config = experiment_training_config(p, e->env.n_devices);
    t->config.vocabulary_hash = experiment_vocabulary_hash(e);
    enum moesim_status status = moesim_training_count(&t->config, &counts, err);
    if (status == MOESIM_OK)
        status = allocate(e, err);
    if (status == MOESIM_OK) {
        const struct moesim_workload_env env = experiment_workload_env(e, MOESIM_PART_VALIDATION);
        count_flop(e, &counts);
        status = p->workload->init(t->held_out, p->workload_params, &env, err);
        t->held_out_ready = status == MOESIM_OK;
    }
    return status == MOESIM_OK ? moesim_training_create(&t->config, 0, &t->engine, err) : status;
}

void experiment_training_destroy(struct moesim_experiment *e)
{
    struct experiment_training *t = e->training;
    if (!t)
        return;
    moesim_training_destroy(t->engine);
    if (t->held_out_ready && e->first->workload->finish)
        e->first->workload->finish(t->held_out);
}

/* ---- a batch ---- */

struct moesim_sequences experiment_training_sequences(struct moesim_experiment *e, const struct moesim_batch *batch)
{
    struct experiment_training *t = e->training;
    const uint32_t sequence = t->config.model.sequence;
    for (uint32_t i = 0; i < batch->n_tokens; i++)
        t->target[i] = (i + 1) % sequence ? batch->token_id[i + 1] : MOESIM_NO_TARGET;
    return (struct moesim_sequences){.n_sequences = batch->n_tokens / sequence,
                                     .token = batch->token_id,
                                     .target = t->target,
                                     .domain = batch->domain};
}

enum moesim_status experiment_training_batch(struct moesim_experiment *e, struct moesim_error *err)
{
    struct experiment_training *t = e->training;
    const struct moesim_point *p = e->first;
    struct moesim_batch batch = {.struct_size = sizeof batch, .seed = p->seed, .step = e->step};
    enum moesim_status status = p->workload->step(e->workload_state, e->step, 0, &batch, err);
    if (status != MOESIM_OK) {
        moesim_error_prefix(err, "workload %s, step %u", p->workload_spec, e->step);
        return status;
    }
    const struct moesim_sequences sequences = experiment_training_sequences(e, &batch);
    status = moesim_training_step(t->engine, &sequences, &t->figures, err);
    if (status == MOESIM_EDIVERGED)
        experiment_training_diverged(e, true, err);
    if (status != MOESIM_OK)
        return status;
    t->loss_sum += t->figures.loss * t->figures.n_targets;
    t->n_targets += t->figures.n_targets;
    return MOESIM_OK;
}

bool experiment_training_layer(struct moesim_experiment *e, uint32_t layer)
{
    const struct moesim_training_figures *f = &e->training->figures;
    if (layer >= f->n_layers)
        return false;
    e->batch = *f->layer[layer].batch;
    e->plan = *f->layer[layer].plan;
    return true;
}

/* Three times the forward pass; soft mixtures compute every slot. */
static double batch_flop(const struct moesim_experiment *e)
{
    const struct experiment_training *t = e->training;
    double pairs = 0; /* of a token and an expert with weights */
    for (uint32_t l = 0; l < t->figures.n_layers; l++) {
        const struct moesim_plan *plan = t->figures.layer[l].plan;
        pairs += (double)plan->n_slots * plan->n_groups;
        for (uint32_t i = 0; i < e->shape.n_experts && !plan->n_slots; i++)
            if (!e->shape.expert_kind || e->shape.expert_kind[i] == MOESIM_EXPERT_FFN)
                pairs += (double)t->figures.layer[l].kept[i];
    }
    return 3 * (t->figures.n_tokens * t->flop_outside + pairs * moesim_model_flop_per_pair(&e->first->model));
}

/* The batch's time on each point's cluster: its MoE layers were priced, what is outside the experts is arithmetic that
 * all devices share. That alone would flatter a model without experts, which gets no time. */
static void note_time(struct moesim_experiment *e)
{
    const struct experiment_training *t = e->training;
    for (uint32_t i = 0; i < e->n_points; i++) {
        struct experiment_pricing *pricing = &e->pricing[i];
        if (!pricing->point->has_cluster || !t->figures.n_layers)
            continue;
        const struct moesim_cluster *cluster = &pricing->point->cluster;
        const double dense_s =
            3 * t->figures.n_tokens * t->flop_dense / (moesim_cluster_devices(cluster) * cluster->flop_per_s);
        moesim_tally_set(&pricing->tally, MOESIM_TIME_STEP, 0, e->step, pricing->layers_s + dense_s);
    }
}

enum moesim_status experiment_training_end(struct moesim_experiment *e, struct moesim_error *err)
{
    struct experiment_training *t = e->training;
    const uint32_t every = validate_every(e->first), done = e->step + 1, micro_batches = e->first->micro_batches;
    experiment_note(e, MOESIM_FLOP_TRAIN, 0, batch_flop(e));
    note_time(e);
    if (!t->figures.updated)
        return MOESIM_OK;
    experiment_note(e, MOESIM_GRAD_NORM, 0, t->figures.gradient_norm);
    const bool due = done / every > (done - micro_batches) / every || moesim_training_done(t->engine);
    return due ? experiment_training_validate(e, err) : MOESIM_OK;
}
