/*
 * Mode train: a run's checkpoints. An unfinished run is kept with all that it has found, so that it goes on with the
 * bits it would have had; a finished one, where the study names a folder, for whoever wants its model.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/checkpoint/checkpoint.h"
#include "sim/experiment/experiment.h"
#include "sim/experiment/experiment_state.h"

#define DEFAULT_FOLDER "checkpoints"

static const char *folder_of(const struct moesim_point *p)
{
    return *p->train.checkpoint ? p->train.checkpoint : DEFAULT_FOLDER;
}

/* "FOLDER/ROUTER-seedN-HASH" and the rest of the name; the router's name without what no file should have. */
static void name_file(const struct moesim_point *p, const char *end, char *path, size_t size)
{
    char router[64];
    snprintf(router, sizeof router, "%s", p->router->router->name);
    for (char *c = router; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", *c))
            *c = '_';
    snprintf(path, size, "%s/%s-seed%" PRIu64 "-%016" PRIx64 "%s.safetensors", folder_of(p), router, p->seed, p->hash,
             end);
}

bool moesim_experiment_unfinished(const struct moesim_point *p, char *path, size_t size)
{
    if (p->mode != MOESIM_MODE_TRAIN)
        return false;
    name_file(p, "-unfinished", path, size);
    return access(path, F_OK) == 0;
}

/* ---- what a run has found so far ---- */

static void pass_observation(struct moesim_observation *o, struct moesim_state_bytes *state)
{
    const struct moesim_observation_shape *s = &o->shape;
    const uint64_t loads = (uint64_t)s->n_layers * s->n_experts;
    const uint64_t sets = (uint64_t)s->n_validations * s->n_layers * s->n_tokens * o->n_words;
    moesim_state_pass(state, &o->n_begun, sizeof o->n_begun);
    moesim_state_pass(state, o->set, sets * sizeof *o->set);
    moesim_state_pass(state, o->domain_load, loads * s->n_domains * sizeof *o->domain_load);
    moesim_state_pass(state, o->token_load, loads * s->vocabulary * sizeof *o->token_load);
    moesim_state_pass(state, o->domain_tokens, s->n_domains * sizeof *o->domain_tokens);
    moesim_state_pass(state, o->seen, s->vocabulary * sizeof *o->seen);
}

static void pass_training(struct moesim_experiment *e, struct moesim_state_bytes *state)
{
    struct experiment_training *t = e->training;
    const uint64_t by_domain = (uint64_t)t->most_validations * e->first->workload_shape.n_domains;
    moesim_state_pass(state, &t->loss_sum, sizeof t->loss_sum);
    moesim_state_pass(state, &t->n_targets, sizeof t->n_targets);
    moesim_state_pass(state, &t->n_validations, sizeof t->n_validations);
    moesim_state_pass(state, t->validated_after, t->most_validations * sizeof *t->validated_after);
    moesim_state_pass(state, t->bits_per_byte, by_domain * sizeof *t->bits_per_byte);
    moesim_state_pass(state, t->predicted, by_domain * sizeof *t->predicted);
    pass_observation(&t->observation, state);
}

static void pass_run(struct moesim_experiment *e, struct moesim_state_bytes *state)
{
    const uint64_t load = e->shape.n_experts * sizeof(double);
    moesim_state_pass(state, &e->step, sizeof e->step);
    moesim_state_pass(state, &e->seconds, sizeof e->seconds);
    for (uint32_t l = 0; l < e->n_layers; l++) {
        moesim_state_pass(state, e->layer[l].load, load);
        moesim_state_pass(state, e->layer[l].previous_load, load);
    }
    for (uint32_t i = 0; i < e->n_points; i++) {
        moesim_tally_pass(&e->pricing[i].tally, state);
        moesim_state_pass(state, &e->pricing[i].fullest, sizeof e->pricing[i].fullest);
    }
    pass_training(e, state);
}

/* Room for it, as whole float32 numbers; false without memory. */
static bool make_room(struct moesim_experiment *e, struct moesim_checkpoint_figures *figures)
{
    struct moesim_state_bytes count = {NULL, 0, true};
    pass_run(e, &count);
    figures->n = (count.n + sizeof(float) - 1) / sizeof(float);
    figures->bits = calloc(figures->n, sizeof *figures->bits);
    return figures->bits != NULL;
}

/* ---- saving and going on ---- */

/* Placements that follow the loads, and what links carried, are state that no checkpoint has. */
static bool can_go_on(const struct moesim_experiment *e)
{
    bool can = true;
    for (uint32_t i = 0; i < e->n_points; i++)
        can &= !e->pricing[i].traffic && !e->pricing[i].placing.fit;
    return can;
}

static enum moesim_status save(struct moesim_experiment *e, const char *path, struct moesim_error *err)
{
    struct moesim_checkpoint_figures figures;
    if (mkdir(folder_of(e->first), 0777) && errno != EEXIST)
        return moesim_fail(err, MOESIM_EIO, "%s: cannot be made: %s; set train.checkpoint to a folder that can",
                           folder_of(e->first), strerror(errno));
    if (!make_room(e, &figures))
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the checkpoint %s", path);
    pass_run(e, &(struct moesim_state_bytes){(uint8_t *)figures.bits, 0, true});
    const enum moesim_status status = moesim_checkpoint_save(e->training->engine, path, e->first->json, &figures, err);
    free(figures.bits);
    return status;
}

enum moesim_status moesim_experiment_save(struct moesim_experiment *e, struct moesim_error *err)
{
    char path[4096];
    name_file(e->first, "-unfinished", path, sizeof path);
    return can_go_on(e) ? save(e, path, err) : MOESIM_OK;
}

bool moesim_experiment_can_save(const struct moesim_experiment *e)
{
    return e->training && e->next_layer == 0 && (e->step == 0 || e->training->figures.updated);
}

enum moesim_status experiment_training_resume(struct moesim_experiment *e, struct moesim_error *err)
{
    struct moesim_checkpoint_figures figures;
    char path[4096];
    if (!moesim_experiment_unfinished(e->first, path, sizeof path) || !can_go_on(e))
        return MOESIM_OK;
    if (!make_room(e, &figures))
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the checkpoint %s", path);
    const enum moesim_status status = moesim_checkpoint_load(e->training->engine, path, &figures, err);
    if (status == MOESIM_OK)
        pass_run(e, &(struct moesim_state_bytes){(uint8_t *)figures.bits, 0, false});
    else
        moesim_error_prefix(err, "the unfinished training cannot go on; remove its file to begin anew");
    e->training->figures.updated = true;
    free(figures.bits);
    return status;
}

void experiment_training_diverged(struct moesim_experiment *e, bool model_is_good, struct moesim_error *err)
{
    char path[4096];
    struct moesim_error why = {"set train.checkpoint_every to keep some"};
    name_file(e->first, "-diverged", path, sizeof path);
    if (model_is_good && save(e, path, &why) == MOESIM_OK)
        moesim_error_prefix(err, "diverged; the model before that is in %s", path);
    else if (!model_is_good && moesim_experiment_unfinished(e->first, path, sizeof path))
        moesim_error_prefix(err, "diverged; the last good model is in %s", path);
    else
        moesim_error_prefix(err, "diverged; no model before that is kept (%s)", why.text);
}

enum moesim_status experiment_training_keep(struct moesim_experiment *e, struct moesim_error *err)
{
    const struct moesim_train_options *o = &e->first->train;
    char path[4096];
    if (!e->training->figures.updated)
        return MOESIM_OK;
    if (!moesim_training_done(e->training->engine)) {
        const uint32_t every = o->checkpoint_every, done = e->step, micro_batches = e->first->micro_batches;
        const bool due = every && done / every > (done - micro_batches) / every;
        return due ? moesim_experiment_save(e, err) : MOESIM_OK;
    }
    name_file(e->first, "", path, sizeof path);
    return *o->checkpoint ? save(e, path, err) : MOESIM_OK;
}
