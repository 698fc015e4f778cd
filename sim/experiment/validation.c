/*
 * Mode train: validations on held-out text, the same tokens each time, and what they come to together.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/experiment/experiment_state.h"
#include "sim/experiment/training.h"

enum { FREQUENT = 64, TOKEN_TEXT = 32 };

/* ---- one validation ---- */

static void add_batch(struct moesim_experiment *e, uint32_t first_token, const struct moesim_sequences *sequences,
                      const struct moesim_training_figures *f)
{
    struct experiment_training *t = e->training;
    uint64_t *predicted = t->predicted + (size_t)t->n_validations * e->first->workload_shape.n_domains;
    for (uint32_t i = 0; i < f->n_tokens; i++) {
        const uint32_t domain = sequences->domain ? sequences->domain[i] : 0;
        t->nats[domain] += (double)f->token_loss[i];
        predicted[domain] += sequences->target[i] != MOESIM_NO_TARGET;
    }
    for (uint32_t l = 0; l < f->n_layers; l++)
        moesim_observation_add(&t->observation, l, first_token, f->layer[l].batch, f->layer[l].plan);
}

static enum moesim_status evaluate(struct moesim_experiment *e, struct moesim_error *err)
{
    struct experiment_training *t = e->training;
    const struct moesim_point *p = e->first;
    for (uint32_t i = 0; i < p->train.validation_batches; i++) {
        struct moesim_batch batch = {.struct_size = sizeof batch, .seed = p->seed, .step = i};
        struct moesim_training_figures figures;
        enum moesim_status status = p->workload->step(t->held_out, i, 0, &batch, err);
        if (status != MOESIM_OK) {
            moesim_error_prefix(err, "workload %s, validation", p->workload_spec);
            return status;
        }
        const struct moesim_sequences sequences = experiment_training_sequences(e, &batch);
        status = moesim_training_evaluate(t->engine, &sequences, &figures, err);
        if (status != MOESIM_OK)
            return status;
        add_batch(e, i * p->n_tokens, &sequences, &figures);
    }
    return MOESIM_OK;
}

/* Bits by domain and of all. */
static void note_bits(struct moesim_experiment *e)
{
    struct experiment_training *t = e->training;
    const uint32_t n_domains = e->first->workload_shape.n_domains;
    const uint64_t *predicted = t->predicted + (size_t)t->n_validations * n_domains;
    double *bits_per_byte = t->bits_per_byte + (size_t)t->n_validations * n_domains;
    double bits = 0, bytes = 0;
    for (uint32_t d = 0; d < n_domains; d++) {
        const double read = (double)predicted[d] * e->first->workload->bytes_per_token(t->held_out, d);
        bits_per_byte[d] = predicted[d] ? t->nats[d] / M_LN2 / read : 0;
        bits += t->nats[d] / M_LN2;
        bytes += read;
    }
    experiment_note(e, MOESIM_BITS_PER_BYTE, 0, bits / bytes);
}

static void note_routing(struct moesim_experiment *e)
{
    struct experiment_training *t = e->training;
    for (uint32_t l = 0; l < t->observation.shape.n_layers; l++) {
        const struct moesim_observed seen = moesim_observation_figures(&t->observation, l);
        experiment_note(e, MOESIM_MAX_VIO_GLOBAL, l, seen.max_vio);
        experiment_note(e, MOESIM_ROUTING_FLUCTUATION, l, seen.fluctuation);
        experiment_note(e, MOESIM_DOMAIN_SPECIALISATION, l, seen.of_domains);
        experiment_note(e, MOESIM_VOCABULARY_SPECIALISATION, l, seen.of_vocabulary);
    }
}

enum moesim_status experiment_training_validate(struct moesim_experiment *e, struct moesim_error *err)
{
    struct experiment_training *t = e->training;
    memset(t->nats, 0, e->first->workload_shape.n_domains * sizeof *t->nats);
    moesim_observation_begin(&t->observation);
    const enum moesim_status status = evaluate(e, err);
    if (status == MOESIM_EDIVERGED)
        experiment_training_diverged(e, false, err);
    if (status != MOESIM_OK)
        return status;
    note_bits(e);
    note_routing(e);
    experiment_note(e, MOESIM_TRAIN_LOSS, 0, t->n_targets ? t->loss_sum / (double)t->n_targets : (double)NAN);
    t->loss_sum = 0;
    t->n_targets = 0;
    t->validated_after[t->n_validations++] = e->step;
    return MOESIM_OK;
}

/* ---- all together ---- */

void experiment_training_close(struct moesim_experiment *e)
{
    const struct experiment_training *t = e->training;
    for (uint32_t v = 0; v + 1 < t->n_validations; v++)
        for (uint32_t l = 0; l < t->observation.shape.n_layers; l++) {
            const double value = moesim_observation_saturation(&t->observation, v, l);
            for (uint32_t i = 0; i < e->n_points; i++)
                moesim_tally_set(&e->pricing[i].tally, MOESIM_ROUTER_SATURATION, l, t->validated_after[v], value);
        }
}

/* A token's text as people can read it: what is no printable character is written as an escape. */
static void show_token(const char *bytes, size_t n, uint32_t id, char *text, size_t size)
{
    size_t at = 0;
    if (!n)
        snprintf(text, size, "(id %u)", id);
    for (size_t i = 0; i < n && at + 5 < size; i++) {
        const unsigned char c = (unsigned char)bytes[i];
        const bool letter = n > 1 && c >= 0x80; /* of a word, which is UTF-8 */
        if (c == ' ')
            at += (size_t)snprintf(text + at, size - at, "\u2423");
        else if (c == '\n' || c == '\t')
            at += (size_t)snprintf(text + at, size - at, c == '\n' ? "\\n" : "\\t");
        else if (letter || (c > ' ' && c < 0x7f))
            text[at++] = (char)c, text[at] = '\0';
        else
            at += (size_t)snprintf(text + at, size - at, "\\x%02x", c);
    }
}

static enum moesim_status add_row(struct moesim_experiment *e, struct moesim_outcome *outcome, uint32_t layer,
                                  uint32_t kind, const char *subject, uint64_t tokens, struct moesim_error *err)
{
    struct moesim_specialisation *row = &outcome->specialisation[outcome->n_specialisations++];
    *row =
        (struct moesim_specialisation){.layer = layer, .kind = kind, .tokens = tokens, .n_experts = e->shape.n_experts};
    row->subject = moesim_strdup(outcome->arena, subject);
    row->assigned = moesim_alloc(outcome->arena, row->n_experts, sizeof *row->assigned);
    return row->subject && row->assigned
               ? MOESIM_OK
               : moesim_fail(err, MOESIM_ENOMEM, "no memory for the specialisation of %u experts", row->n_experts);
}

static enum moesim_status add_domains(struct moesim_experiment *e, uint32_t l, struct moesim_outcome *outcome,
                                      struct moesim_error *err)
{
    const struct experiment_training *t = e->training;
    const struct moesim_observation *o = &t->observation;
    const uint32_t n = o->shape.n_experts;
    enum moesim_status status = MOESIM_OK;
    for (uint32_t d = 0; status == MOESIM_OK && d < o->shape.n_domains; d++) {
        if (!o->domain_tokens[d])
            continue;
        status = add_row(e, outcome, l, MOESIM_SUBJECT_DOMAIN, e->first->workload->domain_name(t->held_out, d),
                         o->domain_tokens[d], err);
        if (status == MOESIM_OK)
            memcpy(outcome->specialisation[outcome->n_specialisations - 1].assigned,
                   o->domain_load + ((size_t)l * o->shape.n_domains + d) * n, n * sizeof(uint64_t));
    }
    return status;
}

static enum moesim_status add_tokens(struct moesim_experiment *e, uint32_t l, struct moesim_outcome *outcome,
                                     struct moesim_error *err)
{
    const struct experiment_training *t = e->training;
    const struct moesim_observation *o = &t->observation;
    const uint32_t n = o->shape.n_experts;
    uint32_t id[FREQUENT];
    const uint32_t n_ids = moesim_observation_frequent(o, FREQUENT, id);
    enum moesim_status status = MOESIM_OK;
    for (uint32_t i = 0; status == MOESIM_OK && i < n_ids; i++) {
        char bytes[TOKEN_TEXT], text[4 * TOKEN_TEXT];
        const size_t length = e->first->workload->token_text(t->held_out, id[i], bytes, sizeof bytes);
        show_token(bytes, length, id[i], text, sizeof text);
        status = add_row(e, outcome, l, MOESIM_SUBJECT_TOKEN, text, o->seen[id[i]], err);
        const uint32_t *load = o->token_load + ((size_t)l * o->shape.vocabulary + id[i]) * n;
        for (uint32_t x = 0; status == MOESIM_OK && x < n; x++)
            outcome->specialisation[outcome->n_specialisations - 1].assigned[x] = load[x];
    }
    return status;
}

/* The losses of all validations by domain. */
static enum moesim_status add_losses(struct moesim_experiment *e, struct moesim_outcome *outcome,
                                     struct moesim_error *err)
{
    const struct experiment_training *t = e->training;
    const uint32_t n_domains = e->first->workload_shape.n_domains;
    outcome->domain_loss =
        moesim_alloc(outcome->arena, (size_t)t->n_validations * n_domains, sizeof *outcome->domain_loss);
    for (uint32_t i = 0; outcome->domain_loss && i < t->n_validations * n_domains; i++) {
        if (!t->predicted[i])
            continue;
        struct moesim_domain_loss *row = &outcome->domain_loss[outcome->n_domain_losses++];
        const char *name = e->first->workload->domain_name(t->held_out, i % n_domains);
        *row = (struct moesim_domain_loss){.step = t->validated_after[i / n_domains],
                                           .domain = moesim_strdup(outcome->arena, name),
                                           .tokens = t->predicted[i],
                                           .bits_per_byte = t->bits_per_byte[i]};
        if (!row->domain)
            return moesim_fail(err, MOESIM_ENOMEM, "no memory for the losses of %u domains", n_domains);
    }
    return outcome->domain_loss ? MOESIM_OK
                                : moesim_fail(err, MOESIM_ENOMEM, "no memory for the losses of %u domains", n_domains);
}

enum moesim_status experiment_training_outcome(struct moesim_experiment *e, struct moesim_outcome *outcome,
                                               struct moesim_error *err)
{
    const struct experiment_training *t = e->training;
    const struct moesim_observation_shape *s = &t->observation.shape;
    const size_t most = (size_t)s->n_layers * (s->n_domains + FREQUENT);
    enum moesim_status status = add_losses(e, outcome, err);
    if (status != MOESIM_OK)
        return status;
    outcome->specialisation = moesim_alloc(outcome->arena, most, sizeof *outcome->specialisation);
    if (!outcome->specialisation)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the specialisation of %u layers", s->n_layers);
    for (uint32_t l = 0; status == MOESIM_OK && l < s->n_layers; l++) {
        status = add_domains(e, l, outcome, err);
        if (status == MOESIM_OK)
            status = add_tokens(e, l, outcome, err);
    }
    return status;
}
