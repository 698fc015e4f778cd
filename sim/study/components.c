/*
 * Each variant of a component on its own: is its name known, are its keys and values right, what do its files say.
 */
#include "sim/study/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "sim/placement/loads.h"
#include "sim/study/spec.h"

enum { MAX_VALUE = 4000, MAX_TOKENS = 1 << 26 };

/* Keys of the host beside those of the schema. */
static bool host_key(enum moesim_component component, const char *key)
{
    return component == MOESIM_WORKLOAD && !strcmp(key, "tokens");
}

static void unknown_key(struct moesim_resolver *r, enum moesim_component component,
                        const struct moesim_variant *variant, struct moesim_schema schema,
                        const struct moesim_setting *setting)
{
    struct moesim_guess guess = moesim_guess_of(setting->key);
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)); i++)
        moesim_guess_try(&guess, row->key);
    if (component == MOESIM_WORKLOAD)
        moesim_guess_try(&guess, "tokens");
    if (variant->name[0])
        moesim_mistake(r->mistakes, setting->key_line, setting->key_column, "unknown key '%.60s' of %s %.60s%s",
                       setting->key, moesim_component_names[component], variant->name, moesim_guess_text(&guess));
    else
        moesim_mistake(r->mistakes, setting->key_line, setting->key_column, "unknown key '%.60s' of %s%s", setting->key,
                       moesim_component_names[component], moesim_guess_text(&guess));
}

bool moesim_settings_apply(struct moesim_resolver *r, enum moesim_component component,
                           const struct moesim_variant *variant, struct moesim_schema schema, void *params, bool note)
{
    bool right = true;
    for (uint32_t i = 0; i < variant->n_settings; i++) {
        const struct moesim_setting *s = &variant->settings[i];
        if (host_key(component, s->key))
            continue;
        const struct moesim_param *row = strcmp(s->key, "name") ? moesim_schema_find(schema, s->key) : NULL;
        struct moesim_error err;
        struct moesim_guess guess;
        if (!row && note)
            unknown_key(r, component, variant, schema, s);
        if (row && strlen(s->text) > MAX_VALUE) {
            if (note)
                moesim_mistake(r->mistakes, s->line, s->column, "%s.%s: a value of %zu bytes; at most %d are allowed",
                               moesim_component_names[component], s->key, strlen(s->text), MAX_VALUE);
            row = NULL;
        }
        if (row && moesim_value_set(row, s->text, params, r->arena, &err) == MOESIM_OK)
            continue;
        if (row && note)
            moesim_mistake(r->mistakes, s->line, s->column, "%s.%s%s", moesim_component_names[component], err.text,
                           moesim_choice_guess(row, s->text, &guess));
        right = false;
    }
    return right;
}

/* At the setting that the sentence speaks of, else at the name. */
static void note(struct moesim_resolver *r, const struct moesim_variant *variant, const struct moesim_error *err)
{
    const struct moesim_setting *s = moesim_setting_blamed(variant, err->text);
    moesim_mistake(r->mistakes, s ? s->line : variant->line, s ? s->column : variant->column, "%s", err->text);
}

static void unknown_name(struct moesim_resolver *r, enum moesim_component component,
                         const struct moesim_variant *variant, struct moesim_guess *guess)
{
    const char *hint = moesim_guess_text(guess);
    if (!*hint && strchr(variant->name, '='))
        hint = "; a SPEC with commas inside a list needs quotes";
    moesim_mistake(r->mistakes, variant->line, variant->column, "unknown %s '%.60s'%s",
                   moesim_component_names[component], variant->name, hint);
}

/* Params of the variant, as a copy of `preset` or from the schema's defaults, then its own settings. */
static void read_params(struct moesim_resolver *r, enum moesim_component component, const void *preset,
                        struct moesim_choice *choice)
{
    struct moesim_error err;
    choice->params = moesim_mistake_alloc(r->mistakes, r->arena, 1, choice->params_size);
    if (!choice->params) {
        choice->known = false;
        return;
    }
    if (preset) {
        memcpy(choice->params, preset, choice->params_size);
    } else if (moesim_params_default(choice->schema, 2, choice->params, r->arena, &err) != MOESIM_OK) {
        choice->known = false;
        moesim_mistake(r->mistakes, choice->variant->line, choice->variant->column, "%s %.60s: %s",
                       moesim_component_names[component], choice->variant->name, err.text);
        return;
    }
    choice->whole = moesim_settings_apply(r, component, choice->variant, choice->schema, choice->params, true);
}

void moesim_router_resolve(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    choice->router = moesim_registry_router(r->registry, v->name);
    if (!choice->router) {
        struct moesim_guess guess = moesim_guess_of(v->name);
        for (uint32_t i = 0; i < r->registry->n_routers; i++)
            moesim_guess_try(&guess, r->registry->routers[i].router->name);
        unknown_name(r, MOESIM_ROUTER, v, &guess);
        return;
    }
    const struct moesim_router *router = choice->router->router;
    choice->known = true;
    choice->schema = moesim_router_schema(router);
    choice->params_size = router->params_size;
    read_params(r, MOESIM_ROUTER, NULL, choice);
    if (!choice->whole)
        return;
    struct moesim_error err;
    const enum moesim_status status = moesim_files_read(choice->schema, choice->params, r->registry->read_array,
                                                        r->arena, &choice->files, &choice->n_files, &err);
    if (status == MOESIM_OK)
        return;
    choice->known = false; /* its shape() would miss the file */
    r->mistakes->n_files += status == MOESIM_EIO;
    moesim_error_prefix(&err, "router %s", v->name);
    note(r, v, &err);
}

/* `tokens`, the host's own key, by the parser of all numbers. */
static void read_tokens(struct moesim_resolver *r, struct moesim_choice *choice)
{
    struct host {
        uint32_t tokens;
    } host = {0};
    const struct moesim_param row =
        MOESIM_PARAM(struct host, tokens, "0", 1, MAX_TOKENS, "tokens of a step over all devices");
    for (uint32_t i = 0; i < choice->variant->n_settings; i++) {
        const struct moesim_setting *s = &choice->variant->settings[i];
        struct moesim_error err;
        if (!host_key(MOESIM_WORKLOAD, s->key))
            continue;
        if (moesim_value_set(&row, s->text, &host, r->arena, &err) != MOESIM_OK) {
            moesim_mistake(r->mistakes, s->line, s->column, "workload.%s", err.text);
            choice->whole = false;
        }
    }
    choice->n_tokens = host.tokens;
}

static void resolve_workload(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    choice->workload = moesim_registry_workload(r->registry, v->name);
    if (!choice->workload) {
        struct moesim_guess guess = moesim_guess_of(v->name);
        for (uint32_t i = 0; i < r->registry->n_workloads; i++)
            moesim_guess_try(&guess, r->registry->workloads[i]->name);
        unknown_name(r, MOESIM_WORKLOAD, v, &guess);
        return;
    }
    choice->known = true;
    choice->schema = moesim_workload_schema(choice->workload);
    choice->params_size = choice->workload->params_size;
    read_params(r, MOESIM_WORKLOAD, NULL, choice);
    if (!choice->known)
        return;
    read_tokens(r, choice);

    struct moesim_error err;
    choice->shape.struct_size = sizeof choice->shape;
    choice->known = choice->whole; /* with wrong settings its files cannot be asked */
    if (!choice->whole || !choice->workload->shape)
        return;
    const enum moesim_status status = choice->workload->shape(choice->params, &choice->shape, &err);
    if (status == MOESIM_OK) {
        choice->known = !choice->shape.checkpoint || moesim_trained_resolve(r, choice);
        return;
    }
    choice->known = false;
    r->mistakes->n_files += status == MOESIM_EIO;
    if (strncmp(err.text, v->name, strlen(v->name)) != 0)
        moesim_error_prefix(&err, "workload %s", v->name);
    note(r, v, &err);
}

/* 0 means "not given" inside a model, so a study may not write it. */
static void check_sizes(struct moesim_resolver *r, struct moesim_choice *choice)
{
    static const char *const sizes[] = {"layers", "experts", "top_k", "d_model", "d_ff"};
    for (uint32_t i = 0; i < choice->variant->n_settings; i++) {
        const struct moesim_setting *s = &choice->variant->settings[i];
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            if (strcmp(s->key, sizes[j]) != 0 || strcmp(s->text + strspn(s->text, "+-"), "0") != 0)
                continue;
            moesim_mistake(r->mistakes, s->line, s->column, "model.%s = %.20s: it must be at least 1", s->key, s->text);
            choice->whole = false;
        }
    }
}

static void resolve_model(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    const struct moesim_model_preset *preset = v->name[0] ? moesim_model_find(v->name) : NULL;
    choice->schema = (struct moesim_schema){moesim_model_params, sizeof(struct moesim_param)};
    choice->params_size = sizeof(struct moesim_model);
    choice->known = preset || !v->name[0];
    if (!choice->known) {
        struct moesim_guess guess = moesim_guess_of(v->name);
        for (const struct moesim_model_preset *p = moesim_model_presets; p->model.name; p++)
            moesim_guess_try(&guess, p->model.name);
        unknown_name(r, MOESIM_MODEL, v, &guess);
        return;
    }
    read_params(r, MOESIM_MODEL, preset ? &preset->model : NULL, choice);
    check_sizes(r, choice);
}

static void resolve_training(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    choice->schema = (struct moesim_schema){moesim_train_params, sizeof(struct moesim_param)};
    choice->params_size = sizeof(struct moesim_train_options);
    choice->known = !v->name[0];
    if (choice->known)
        read_params(r, MOESIM_TRAINING, NULL, choice);
    else
        moesim_mistake(r->mistakes, v->line, v->column,
                       "train: '%.60s' is no mapping; write keys and values, such as {heads: 4, learning_rate: 0.002}",
                       v->name);
}

static void resolve_cluster(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    const bool is_text = choice->is_text = moesim_cluster_is_text(v->name);
    const struct moesim_cluster_preset *preset = moesim_cluster_find(v->name);
    struct moesim_cluster base;
    struct moesim_error err;
    if (is_text && moesim_cluster_read(v->name, r->arena, &base, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, v->line, v->column, "cluster: %s", err.text);
        return;
    }
    if (!is_text && !preset) {
        struct moesim_guess guess = moesim_guess_of(v->name);
        for (const struct moesim_cluster_preset *p = moesim_cluster_presets; p->cluster.name; p++)
            moesim_guess_try(&guess, p->cluster.name);
        unknown_name(r, MOESIM_CLUSTER, v, &guess);
        return;
    }
    if (preset)
        base = preset->cluster;
    choice->known = true;
    for (uint32_t i = 0; i < v->n_settings; i++)
        moesim_cluster_override(&base, v->settings[i].key);
    choice->schema = (struct moesim_schema){moesim_cluster_params, sizeof(struct moesim_param)};
    choice->params_size = sizeof(struct moesim_cluster);
    read_params(r, MOESIM_CLUSTER, &base, choice);
    choice->known = choice->whole;
    if (!choice->whole)
        return;
    enum moesim_status status = is_text ? moesim_cluster_rename(choice->params, r->arena, &err) : MOESIM_OK;
    if (status == MOESIM_OK)
        status = moesim_cluster_check(choice->params, &err);
    if (status != MOESIM_OK)
        note(r, v, &err);
    choice->known = status == MOESIM_OK;
}

/* The numbers of a load-aware placement's file, where `from` names one. */
static void read_loads(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_placement_fit *fit = moesim_placement_fit(choice->placement, choice->params);
    struct moesim_error err;
    if (!fit || moesim_placement_source(fit) != MOESIM_FROM_FILE)
        return;
    enum moesim_status status = MOESIM_EINVAL;
    if (r->registry->read_loads)
        status = r->registry->read_loads(fit->from, r->arena, &choice->loads, &err);
    else
        moesim_fail(&err, status, "no file can be read here");
    if (status == MOESIM_OK) {
        moesim_loads_skip_dense(&choice->loads);
        return;
    }
    choice->known = false;
    r->mistakes->n_files += status == MOESIM_EIO;
    moesim_error_prefix(&err, "placement %s: from", choice->variant->name);
    note(r, choice->variant, &err);
}

static void resolve_placement(struct moesim_resolver *r, struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    choice->placement = moesim_placement_find(v->name);
    if (!choice->placement) {
        struct moesim_guess guess = moesim_guess_of(v->name);
        for (const struct moesim_placement_rule *const *p = moesim_placement_rules; *p; p++)
            moesim_guess_try(&guess, (*p)->name);
        unknown_name(r, MOESIM_PLACEMENT, v, &guess);
        return;
    }
    choice->known = true;
    choice->schema = (struct moesim_schema){choice->placement->params, sizeof(struct moesim_param)};
    choice->params_size = choice->placement->params_size;
    read_params(r, MOESIM_PLACEMENT, NULL, choice);
    struct moesim_error err;
    if (choice->whole && moesim_placement_named(choice->placement, v->name, choice->params, r->arena, &err)) {
        choice->whole = choice->known = false;
        note(r, v, &err);
    }
    if (choice->whole)
        read_loads(r, choice);
}

/* A path and what it holds. */
struct moesim_hashed {
    struct moesim_hashed *next;
    const char *path;
    uint64_t hash;
    bool exists;
};

/* The same file serves many variants. */
static const struct moesim_hashed *hash_path(struct moesim_resolver *r, const char *path)
{
    struct moesim_hashed *h = r->hashed;
    while (h && strcmp(h->path, path) != 0)
        h = h->next;
    if (h)
        return h;
    h = moesim_mistake_alloc(r->mistakes, r->arena, 1, sizeof *h);
    if (!h)
        return NULL;
    *h = (struct moesim_hashed){.next = r->hashed, .path = moesim_strdup(r->arena, path)};
    h->exists = h->path && r->registry->hash_path && r->registry->hash_path(path, &h->hash);
    if (h->path)
        r->hashed = h;
    return h;
}

static uint64_t hash_paths(struct moesim_resolver *r, struct moesim_schema schema, const void *params, uint64_t hash)
{
    struct moesim_path_walk walk = {.schema = schema, .params = params};
    while (moesim_path_next(&walk)) {
        const struct moesim_hashed *h = hash_path(r, walk.path);
        if (h && h->exists)
            hash = moesim_hash(hash ? hash : MOESIM_HASH_START, &h->hash, sizeof h->hash);
    }
    return hash;
}

/* Of what is read: the folder that `train:` names is written to, and a model in it does not make another study. */
static uint64_t hash_files(struct moesim_resolver *r, enum moesim_component component,
                           const struct moesim_choice *choice)
{
    if (component == MOESIM_TRAINING)
        return 0;
    const uint64_t hash = hash_paths(r, choice->schema, choice->params, 0);
    const struct moesim_router_choice *router = choice->trained ? &choice->trained->choice : NULL;
    return router ? hash_paths(r, moesim_router_schema(router->router), router->params, hash) : hash;
}

/* The name and the keys the study set, in schema order, values as the parser prints them: one spelling for one meaning.
 */
static const char *canonical_spec(struct moesim_resolver *r, const struct moesim_choice *choice)
{
    const struct moesim_variant *v = choice->variant;
    if (choice->is_text) /* says all its values */
        return ((const struct moesim_cluster *)choice->params)->name;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return "";
    fputs(choice->router ? choice->router->spec : v->name, out);
    const char *separator = v->name[0] ? ":" : ""; /* a model may go without a name */
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(choice->schema, i)); i++) {
        for (uint32_t j = 0; j < v->n_settings; j++) {
            if (strcmp(v->settings[j].key, row->key) != 0)
                continue;
            char value[MAX_VALUE + 1];
            moesim_param_format(row, choice->params, value, sizeof value);
            fprintf(out, "%s%s=%s", separator, row->key, value);
            separator = ",";
        }
    }
    if (choice->n_tokens)
        fprintf(out, "%stokens=%u", separator, choice->n_tokens);
    const bool written = fclose(out) == 0;
    const char *spec = written ? moesim_strdup(r->arena, text) : NULL;
    free(text);
    if (!spec)
        moesim_mistake(r->mistakes, 0, 0, "there is no memory for the study");
    return spec ? spec : "";
}

struct moesim_choices moesim_choices_resolve(struct moesim_resolver *r, enum moesim_component component)
{
    static void (*const resolve[])(struct moesim_resolver *, struct moesim_choice *) = {
        [MOESIM_ROUTER] = moesim_router_resolve, [MOESIM_WORKLOAD] = resolve_workload,
        [MOESIM_MODEL] = resolve_model,          [MOESIM_CLUSTER] = resolve_cluster,
        [MOESIM_PLACEMENT] = resolve_placement,  [MOESIM_TRAINING] = resolve_training,
    };
    const struct moesim_node *node = moesim_node_find(r->root, moesim_component_names[component]);
    const struct moesim_node *cluster = moesim_node_find(r->root, "cluster");
    struct moesim_node contiguous = {.kind = MOESIM_NODE_SCALAR, .text = "contiguous"};
    if (component == MOESIM_PLACEMENT && !node && cluster) {
        contiguous.line = cluster->line;
        contiguous.column = cluster->column;
        node = &contiguous;
    }
    const struct moesim_variants variants =
        node ? moesim_variants_expand(r, component, node) : (struct moesim_variants){0};
    struct moesim_choices choices = {0};
    if (variants.n)
        choices.item = moesim_mistake_alloc(r->mistakes, r->arena, variants.n, sizeof *choices.item);
    for (uint32_t i = 0; choices.item && i < variants.n; i++) {
        struct moesim_choice *choice = &choices.item[choices.n++];
        choice->variant = &variants.item[i];
        choice->spec = "";
        resolve[component](r, choice);
        if (choice->params) {
            choice->spec = canonical_spec(r, choice);
            choice->files_hash = choice->known && choice->whole ? hash_files(r, component, choice) : 0;
        }
    }
    return choices;
}
