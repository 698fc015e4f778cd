/*
 * A registry of small routers and workloads that only have what a study looks at, and helpers that resolve a text.
 */
#ifndef MOESIM_TESTS_STUDY_FAKES_H
#define MOESIM_TESTS_STUDY_FAKES_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/study/study.h"

struct fake_params {
    uint32_t k;
    double capacity_factor, jitter;
    const char *group;
    bool renorm;
};

static const struct moesim_param fake_rows[] = {
    MOESIM_PARAM(struct fake_params, k, "top_k", 1, 65536, "experts per token"),
    MOESIM_PARAM(struct fake_params, capacity_factor, "0", 0, 65536, "slots"),
    MOESIM_PARAM(struct fake_params, jitter, "0", 0, 0.999, "jitter"),
    MOESIM_PARAM(struct fake_params, group, "device", 0, 0, "group"),
    MOESIM_PARAM(struct fake_params, renorm, "false", 0, 0, "renorm"),
    MOESIM_PARAM_END,
};

static inline enum moesim_status fake_shape(const void *params, const struct moesim_env *env,
                                            struct moesim_shape *shape, struct moesim_error *err)
{
    const struct fake_params *p = params;
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts", p->k, env->n_experts);
    if (!strcmp(p->group, "sequence")) {
        shape->needs |= MOESIM_NEEDS_SEQUENCES;
        shape->group = MOESIM_GROUP_SEQUENCE;
    }
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

/* Twice the columns, half of them optional only for the noisy one. */
static inline enum moesim_status wide_shape(const void *params, const struct moesim_env *env,
                                            struct moesim_shape *shape, struct moesim_error *err)
{
    shape->n_columns = 2 * env->n_experts;
    return fake_shape(params, env, shape, err);
}

static inline enum moesim_status noisy_shape(const void *params, const struct moesim_env *env,
                                             struct moesim_shape *shape, struct moesim_error *err)
{
    shape->n_optional_columns = env->n_experts;
    return wide_shape(params, env, shape, err);
}

static inline enum moesim_status plugin_shape(const void *params, const struct moesim_env *env,
                                              struct moesim_shape *shape, struct moesim_error *err)
{
    (void)params, (void)env, (void)shape;
    return moesim_fail(err, MOESIM_EBROKEN, "the hook of a plugin was called in the host");
}

#define FAKE_ROUTER(name_, needs_, shape_)                                                                             \
    {                                                                                                                  \
        MOESIM_ROUTER_HEAD, .needs = (needs_), .name = (name_), .params = fake_rows,                                   \
                            .params_size = sizeof(struct fake_params), .shape = (shape_)                               \
    }

static const struct moesim_router fake_topk = FAKE_ROUTER("softmax-topk", MOESIM_NEEDS_COLUMNS, fake_shape);
static const struct moesim_router fake_switch = FAKE_ROUTER("switch", MOESIM_NEEDS_COLUMNS, fake_shape);
static const struct moesim_router fake_hash = FAKE_ROUTER("hash", MOESIM_NEEDS_TOKEN_IDS, fake_shape);
static const struct moesim_router fake_wide = FAKE_ROUTER("wide", MOESIM_NEEDS_COLUMNS, wide_shape);
static const struct moesim_router fake_noisy = FAKE_ROUTER("noisy-topk", MOESIM_NEEDS_COLUMNS, noisy_shape);
static const struct moesim_router fake_null = {MOESIM_ROUTER_HEAD, .name = "null"};
static const struct moesim_router fake_plugin = FAKE_ROUTER("mine", MOESIM_NEEDS_HIDDEN, plugin_shape);

struct fake_source {
    double sigma;
    const char *file;
};

static const struct moesim_param source_rows[] = {
    MOESIM_PARAM(struct fake_source, sigma, "1", 0, 100, "spread"),
    MOESIM_PARAM(struct fake_source, file, "", 0, 0, "file"),
    MOESIM_PARAM_END,
};

/* A file of 2 layers, 100 tokens and 8 columns, unless it is missing. */
static inline enum moesim_status logits_shape(const void *params, struct moesim_workload_shape *shape,
                                              struct moesim_error *err)
{
    const struct fake_source *p = params;
    if (strcmp(p->file, "eight.npy") != 0)
        return moesim_fail(err, MOESIM_EIO, "%s cannot be opened: No such file or directory", p->file);
    shape->n_layers = 2;
    shape->n_experts = shape->n_columns = 8;
    shape->n_tokens = 100;
    return MOESIM_OK;
}

static inline enum moesim_status trace_shape(const void *params, struct moesim_workload_shape *shape,
                                             struct moesim_error *err)
{
    (void)params, (void)err;
    shape->n_experts = 16;
    shape->d_model = 48;
    return MOESIM_OK;
}

#define FAKE_WORKLOAD(name_, provides_, shape_)                                                                        \
    {                                                                                                                  \
        MOESIM_WORKLOAD_HEAD, .provides = (provides_), .name = (name_), .params = source_rows,                         \
                              .params_size = sizeof(struct fake_source), .shape = (shape_)                             \
    }

static const struct moesim_workload fake_gaussian = FAKE_WORKLOAD("gaussian", MOESIM_NEEDS_COLUMNS, NULL);
static const struct moesim_workload fake_zipf = FAKE_WORKLOAD("zipf", MOESIM_NEEDS_COLUMNS, NULL);
static const struct moesim_workload fake_lognormal = FAKE_WORKLOAD("lognormal", MOESIM_NEEDS_COLUMNS, NULL);
static const struct moesim_workload fake_text =
    FAKE_WORKLOAD("text", MOESIM_NEEDS_HIDDEN | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES, NULL);
static inline enum moesim_status book_shape(const void *params, struct moesim_workload_shape *shape,
                                            struct moesim_error *err)
{
    (void)params, (void)err;
    shape->vocabulary = 256;
    shape->sequence = 32;
    shape->held_out = 0.1;
    return MOESIM_OK;
}

static const struct moesim_workload fake_book =
    FAKE_WORKLOAD("book", MOESIM_NEEDS_HIDDEN | MOESIM_NEEDS_TOKEN_IDS | MOESIM_NEEDS_SEQUENCES, book_shape);
static const struct moesim_workload fake_logits = FAKE_WORKLOAD("logits", MOESIM_NEEDS_COLUMNS, logits_shape);
static const struct moesim_workload fake_trace = FAKE_WORKLOAD("trace", MOESIM_NEEDS_DECISIONS, trace_shape);

static const struct moesim_router_entry fake_routers[] = {
    {"softmax-topk", &fake_topk, false, 0}, {"switch", &fake_switch, false, 0},    {"hash", &fake_hash, false, 0},
    {"wide", &fake_wide, false, 0},         {"noisy-topk", &fake_noisy, false, 0}, {"null", &fake_null, false, 0},
    {"./mine.so", &fake_plugin, true, 77},
};
static const struct moesim_workload *const fake_workloads[] = {&fake_gaussian, &fake_zipf,  &fake_lognormal, &fake_text,
                                                               &fake_logits,   &fake_trace, &fake_book};
static const struct moesim_registry fake_registry = {fake_routers,
                                                     sizeof fake_routers / sizeof *fake_routers,
                                                     fake_workloads,
                                                     sizeof fake_workloads / sizeof *fake_workloads,
                                                     NULL,
                                                     NULL,
                                                     NULL};

/* A study from text to points, with what was wrong on the way. */
struct resolved {
    struct moesim_arena *arena;
    struct moesim_study *study; /* NULL when it did not parse */
    bool ok;
    const struct moesim_point *const *points;
    uint32_t n;
    struct moesim_mistakes mistakes;
};

static inline struct resolved *begin_study(const char *text)
{
    struct resolved *r = calloc(1, sizeof *r);
    r->arena = moesim_arena_create(0);
    r->study = moesim_study_parse("some/file.yaml", text, strlen(text), r->arena, &r->mistakes);
    return r;
}

static inline struct resolved *finish_study(struct resolved *r)
{
    r->ok = r->study && moesim_study_resolve(r->study, &fake_registry, &r->points, &r->n, &r->mistakes);
    return r;
}

static inline struct resolved *resolve_text(const char *text)
{
    return finish_study(begin_study(text));
}

static inline void release(struct resolved *r)
{
    moesim_arena_destroy(r->arena);
    free(r);
}

/* All mistakes as "line:column: sentence\n", to compare and to show. */
static inline const char *mistakes_text(const struct moesim_mistakes *mistakes)
{
    static char text[MOESIM_MAX_MISTAKES * 440];
    size_t n = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < mistakes->n; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%u:%u: %s\n", mistakes->item[i].line,
                              mistakes->item[i].column, mistakes->item[i].text);
    return text;
}

/* The label's value, or "(none)". */
static inline const char *label_of(const struct moesim_point *p, const char *path)
{
    for (uint32_t i = 0; i < p->n_labels; i++)
        if (!strcmp(p->labels[i].path, path))
            return p->labels[i].value;
    return "(none)";
}

#endif
