/*
 * Tokens of sequences with their logits by effects.h: what calibrated, bursty and drift share.
 */
#ifndef MOESIM_WORKLOADS_CALIBRATED_SOURCE_H
#define MOESIM_WORKLOADS_CALIBRATED_SOURCE_H

#include <moesim/workload.h>

#include "workloads/calibrated/effects.h"
#include "workloads/calibrated/presets.h"

/* Numbers that are not given are negative, or 0 for whole ones: the preset's. */
struct source_params {
    uint32_t preset; /* index into calibrated_presets */
    uint32_t sequence, domains, vocabulary;
    double zipf;
    struct effects effects;
    const char *profile;
};

#define SOURCE_MOST_LOGITS 1000.0
#define SOURCE_NO_SKEW (-9.0)

#define SOURCE_EFFECT(T, m, field, max, help) MOESIM_PARAM_IN(T, m.effects, field, "-1", -1, max, help)

/* Schema rows for the member `m` of params struct `T`. */
#define SOURCE_PARAMS(T, m, preset_)                                                                                   \
    MOESIM_CHOICE_IN(T, m, preset, preset_, CALIBRATED_PRESET_CHOICES,                                                 \
                     "the model whose measured routing the numbers below come from; none = all 0"),                    \
        MOESIM_PARAM_IN(T, m, sequence, "512", 1, 1 << 24, "tokens of one sequence"),                                  \
        MOESIM_PARAM_IN(T, m, domains, "0", 0, 65536, "domains; 0 = the preset's"),                                    \
        SOURCE_EFFECT(T, m, popularity, SOURCE_MOST_LOGITS,                                                            \
                      "deviation over experts of the logits, mean over layers; -1 = the preset's, here and below"),    \
        MOESIM_PARAM_IN(T, m.effects, popularity_skew, "-9", -9, EFFECTS_MOST_SKEW,                                    \
                        "skewness of that, from -2.5 on: below 0 a cold tail; -9 = the preset's"),                     \
        SOURCE_EFFECT(T, m, domain_effect, SOURCE_MOST_LOGITS, "deviation of what a domain adds to it"),               \
        SOURCE_EFFECT(T, m, domain_tail, 4,                                                                            \
                      "exponent that a domain's normal values are raised to: 1 = normal, 2 = heavy tails"),            \
        SOURCE_EFFECT(T, m, sequence_effect, SOURCE_MOST_LOGITS, "deviation of what a sequence adds"),                 \
        SOURCE_EFFECT(T, m, slow_effect, SOURCE_MOST_LOGITS, "deviation of what lasts for some tokens"),               \
        SOURCE_EFFECT(T, m, slow_rho, 1, "its correlation from token to token"),                                       \
        SOURCE_EFFECT(T, m, fast_effect, SOURCE_MOST_LOGITS, "deviation of what lasts for few tokens"),                \
        SOURCE_EFFECT(T, m, fast_rho, 1, "its correlation from token to token"),                                       \
        SOURCE_EFFECT(T, m, token_effect, SOURCE_MOST_LOGITS, "deviation of what the token's type adds"),              \
        SOURCE_EFFECT(T, m, token_echo, 4, "part of that which the next token gets too"),                              \
        MOESIM_PARAM_IN(T, m, vocabulary, "1500", 1, 1 << 20, "token types"),                                          \
        MOESIM_PARAM_IN(T, m, zipf, "1", 0, 20, "the type of rank r comes up as r^-zipf"),                             \
        MOESIM_PARAM_IN(T, m, profile, "", 0, 0,                                                                       \
                        "how uneven the layers' loads are, by depth: numbers with blanks between, of which only "      \
                        "ratios count; empty = the preset's, flat = all layers alike")

struct source {
    struct effects effects;
    uint64_t seed;
    uint32_t n_tokens, n_experts, n_columns, n_layers, n_domains, vocabulary;
    uint32_t sequence, n_sequences;
    uint32_t stride;                           /* the larger of n_experts and n_columns */
    double *factor;                            /* [n_layers] on popularity and domain_effect */
    uint32_t *law;                             /* [vocabulary] token types by 2^32 times their cumulated law */
    uint32_t *token_id, *sequence_id, *domain; /* [n_tokens] */
    uint32_t label_step;                       /* the step of the labels; UINT32_MAX = none yet */
    float *b;                                  /* [n_experts] */
    float *token_effect; /* [vocabulary][n_experts] of layer token_layer, where has_token is set */
    uint8_t *has_token;
    uint32_t token_layer;
    float *state;  /* [n_sequences][4][n_experts] */
    float *values; /* [n_tokens][stride] */
    uint8_t *loud; /* [n_tokens] or NULL: tokens whose sequence's own effect is multiplied */
    double loud_factor;
};

/* What parameters fix: a preset's experts, top_k and layers, where the study does not say otherwise. */
MOESIM_MUST_CHECK enum moesim_status source_shape(const struct source_params *params,
                                                  struct moesim_workload_shape *shape, struct moesim_error *err);

/* `name` is the workload's, for messages. */
MOESIM_MUST_CHECK enum moesim_status source_init(struct source *source, const char *name,
                                                 const struct source_params *params,
                                                 const struct moesim_workload_env *env, struct moesim_error *err);

/* MOESIM_EINVAL for a number below 0 that does not stand for the preset's. */
MOESIM_MUST_CHECK enum moesim_status source_check(const struct source_params *params, struct moesim_error *err);

/* The numbers of the profile in use, into number[PROFILE_MOST] unless that is NULL, and how many there are; 0 = flat.
 */
MOESIM_MUST_CHECK enum moesim_status source_profile(const struct source_params *params, double *number, uint32_t *n,
                                                    struct moesim_error *err);

/* The parameters with the preset's in place of those that are not given. */
struct effects source_effects(const struct source_params *params);
uint32_t source_domains(const struct source_params *params);

/* Sequence and token ids of a step, and domains in turn. True when they are new: then a caller may change domains, the
 * same for all tokens of a sequence. */
bool source_label(struct source *source, uint32_t step);

/* All tokens of the one domain. */
void source_set_domain(struct source *source, uint32_t domain);

/* The logits of one layer into the batch, with its labels. */
void source_draw(struct source *source, uint32_t step, uint32_t layer, struct moesim_batch *batch);

#endif
