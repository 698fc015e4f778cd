/*
 * A study's text, and what the command line changes in it.
 */
#include "sim/study/study_state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include <moesim/hash.h>

#include "sim/study/resolve.h"
#include "sim/study/spec.h"

/* The file's base name without suffix, as far as its characters are those of names. */
static void name_after_file(struct moesim_study *study, const char *file_name)
{
    const char *slash = strrchr(file_name, '/'), *base = slash ? slash + 1 : file_name;
    const char *dot = strrchr(base, '.');
    const size_t length = dot && dot != base ? (size_t)(dot - base) : strlen(base);
    size_t n = 0;
    for (size_t i = 0; i < length && n < sizeof study->name - 1; i++) {
        const char c = base[i];
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        study->name[n++] = plain || c == '_' || c == '-' || c == '.' ? c : '-';
    }
    if (n == 0)
        snprintf(study->name, sizeof study->name, "study");
}

struct moesim_study *moesim_study_parse(const char *file_name, const char *text, size_t size,
                                        struct moesim_arena *arena, struct moesim_mistakes *mistakes)
{
    struct moesim_study *study = moesim_alloc(arena, 1, sizeof *study);
    if (!study) {
        moesim_mistake(mistakes, 0, 0, "there is no memory for the study");
        return NULL;
    }
    study->arena = arena;
    study->root = moesim_yaml_parse(text, size, arena, &study->noted);
    if (study->root && study->root->kind != MOESIM_NODE_MAPPING) {
        moesim_mistake(&study->noted, study->root->line, study->root->column,
                       "a study is a mapping of keys such as 'workload:' and 'router:'");
        study->root = NULL;
    }
    if (!study->root) {
        moesim_mistakes_add(mistakes, &study->noted);
        return NULL;
    }
    name_after_file(study, file_name);
    study->named = moesim_node_find(study->root, "study") != NULL;
    return study;
}

const char *moesim_study_name(const struct moesim_study *study)
{
    const struct moesim_node *node = moesim_node_find(study->root, "study");
    return node && node->kind == MOESIM_NODE_SCALAR ? node->text : study->name;
}

const char *moesim_study_json(const struct moesim_study *study)
{
    assert(study->json);
    return study->json;
}

uint64_t moesim_study_hash(const struct moesim_study *study)
{
    assert(study->json);
    return moesim_hash(MOESIM_HASH_START, study->json, strlen(study->json));
}

static char *copy_text(struct moesim_study *study, const char *text, struct moesim_mistakes *mistakes)
{
    const size_t n = strlen(text) + 1;
    char *copy = moesim_mistake_alloc(mistakes, study->arena, n, 1);
    return copy ? memcpy(copy, text, n) : NULL;
}

static struct moesim_node *new_scalar(struct moesim_study *study, const char *text, struct moesim_mistakes *mistakes)
{
    char *copy = copy_text(study, text, mistakes);
    struct moesim_node *node = copy ? moesim_node_scalar(copy, study->arena) : NULL;
    if (copy && !node)
        moesim_mistake(mistakes, 0, 0, "there is no memory for the study");
    return node;
}

/* ---- changes from the command line: their nodes stand on line 0 ---- */

static void forget_places(struct moesim_node *node)
{
    node->line = node->column = node->key_line = node->key_column = 0;
    for (struct moesim_node *child = node->first; child; child = child->next)
        forget_places(child);
}

/* The YAML after the '=' of an assignment; NULL with a mistake. */
static struct moesim_node *read_value(struct moesim_study *study, const char *assignment, const char *value,
                                      struct moesim_mistakes *mistakes)
{
    struct moesim_mistakes found = {0};
    struct moesim_node *node = moesim_yaml_parse(value, strlen(value), study->arena, &found);
    for (uint32_t i = 0; i < found.n; i++)
        moesim_mistake(mistakes, 0, 0, "--set %.80s: %s", assignment, found.item[i].text);
    if (found.n || !node)
        return NULL;
    forget_places(node);
    return node;
}

/* Turns a SPEC into the mapping that means the same, so that a key can be set in it. */
static bool make_mapping(struct moesim_study *study, const char *component, struct moesim_node *node,
                         struct moesim_mistakes *mistakes)
{
    struct moesim_spec spec = {.name = node->text}; /* a cluster text is a name of its own */
    struct moesim_error err;
    if (node->kind != MOESIM_NODE_SCALAR)
        return node->kind == MOESIM_NODE_MAPPING;
    const bool is_text = !strcmp(component, "cluster") && moesim_cluster_is_text(node->text);
    if (!is_text && moesim_spec_cut(node->text, study->arena, &spec, &err) != MOESIM_OK) {
        moesim_mistake(mistakes, node->line, node->column, "%s", err.text);
        return false;
    }
    node->kind = MOESIM_NODE_MAPPING;
    for (uint32_t i = 0; i <= spec.n_pairs; i++) {
        struct moesim_node *value = new_scalar(study, i ? spec.pairs[i - 1].value : spec.name, mistakes);
        if (!value)
            return false;
        value->line = node->line;
        value->column = node->column;
        moesim_node_put(node, i ? spec.pairs[i - 1].key : "name", value);
    }
    return true;
}

/* Sets `key` in every variant of a component: in the one that is written, or in each of the list. */
static void set_in_component(struct moesim_study *study, const char *component, const char *key, const char *assignment,
                             const char *value, struct moesim_mistakes *mistakes)
{
    struct moesim_node *node = moesim_node_find(study->root, component);
    if (!node) {
        node = moesim_mistake_alloc(mistakes, study->arena, 1, sizeof *node);
        if (!node)
            return;
        node->kind = MOESIM_NODE_MAPPING;
        moesim_node_put(study->root, component, node);
    }
    const bool list = node->kind == MOESIM_NODE_SEQUENCE;
    for (struct moesim_node *item = list ? node->first : node; item; item = list ? item->next : NULL) {
        struct moesim_node *child = read_value(study, assignment, value, mistakes);
        if (!child)
            return;
        if (make_mapping(study, component, item, mistakes))
            moesim_node_put(item, key, child);
    }
}

void moesim_study_set(struct moesim_study *study, const char *assignment, struct moesim_mistakes *mistakes)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment || !equals[1]) {
        moesim_mistake(mistakes, 0, 0, "--set %.80s: write PATH=VALUE, such as steps=20 or model.experts=[8, 64]",
                       assignment);
        return;
    }
    char *path = copy_text(study, assignment, mistakes);
    if (!path)
        return;
    path[equals - assignment] = '\0';
    char *key = strchr(path, '.');
    if (key)
        *key++ = '\0';

    struct moesim_guess guess = moesim_guess_of(path);
    bool component = false;
    for (int c = 0; c < MOESIM_N_COMPONENTS; c++)
        component |= !strcmp(path, moesim_component_names[c]);
    if (!moesim_key_known(path, &guess)) {
        moesim_mistake(mistakes, 0, 0, "--set %.80s: unknown key '%.60s'%s", assignment, path,
                       moesim_guess_text(&guess));
    } else if (key && (!component || !*key)) {
        moesim_mistake(mistakes, 0, 0, "--set %.80s: '%.60s' has no such part", assignment, path);
    } else if (key) {
        set_in_component(study, path, key, assignment, equals + 1, mistakes);
    } else {
        struct moesim_node *value = read_value(study, assignment, equals + 1, mistakes);
        if (value)
            moesim_node_put(study->root, path, value);
        study->named |= !strcmp(path, "study");
    }
}

void moesim_study_replace(struct moesim_study *study, const char *axis, const char *const *specs, uint32_t n,
                          struct moesim_mistakes *mistakes)
{
    struct moesim_node *list = moesim_mistake_alloc(mistakes, study->arena, 1, sizeof *list);
    if (!list)
        return;
    list->kind = MOESIM_NODE_SEQUENCE;
    for (uint32_t i = 0; i < n; i++) {
        struct moesim_node *item = new_scalar(study, specs[i], mistakes);
        if (!item)
            return;
        if (!moesim_text_is_clean(specs[i], strlen(specs[i])))
            moesim_mistake(mistakes, 0, 0, "--%s '%.80s': a control character or bad UTF-8", axis, specs[i]);
        moesim_node_append(list, item);
    }
    moesim_node_put(study->root, axis, list);
}

void moesim_study_drop(struct moesim_study *study, const char *component, const char *key)
{
    struct moesim_node *mapping = moesim_node_find(study->root, component), *before = NULL;
    if (!mapping || mapping->kind != MOESIM_NODE_MAPPING)
        return;
    for (struct moesim_node *child = mapping->first; child; before = child, child = child->next) {
        if (strcmp(child->key, key) != 0)
            continue;
        *(before ? &before->next : &mapping->first) = child->next;
        if (mapping->last == child)
            mapping->last = before;
        mapping->n--;
        return;
    }
}

/* ---- plugins ---- */

struct paths {
    struct moesim_study *study;
    const char **item; /* [n], room for all scalars of the router key */
    uint32_t n;
};

static void add_path(struct paths *paths, const struct moesim_node *name)
{
    if (name->kind != MOESIM_NODE_SCALAR || !moesim_spec_is_path(name->text))
        return;
    char *path = copy_text(paths->study, name->text, &paths->study->noted);
    if (!path)
        return;
    path[strcspn(path, ":")] = '\0';
    for (uint32_t i = 0; i < paths->n; i++)
        if (!strcmp(paths->item[i], path))
            return;
    paths->item[paths->n++] = path;
}

/* The names under a router node: itself, its `name`, or those of its items. */
static const struct moesim_node *names_of(const struct moesim_node *node)
{
    return node->kind == MOESIM_NODE_MAPPING ? moesim_node_find(node, "name") : node;
}

static uint32_t count_names(const struct moesim_node *node)
{
    node = names_of(node);
    return !node ? 0 : node->kind == MOESIM_NODE_SCALAR ? 1 : node->n;
}

static void add_paths(struct paths *paths, const struct moesim_node *node)
{
    node = names_of(node);
    if (!node)
        return;
    add_path(paths, node);
    if (node->kind == MOESIM_NODE_SEQUENCE)
        for (const struct moesim_node *name = node->first; name; name = name->next)
            add_path(paths, name);
}

const char *const *moesim_study_plugin_paths(struct moesim_study *study, uint32_t *n)
{
    const struct moesim_node *node = moesim_node_find(study->root, "router");
    const bool list = node && node->kind == MOESIM_NODE_SEQUENCE;
    uint32_t room = 0;
    for (const struct moesim_node *item = list ? node->first : node; item; item = list ? item->next : NULL)
        room += count_names(item);
    struct paths paths = {.study = study,
                          .item = moesim_mistake_alloc(&study->noted, study->arena, room, sizeof *paths.item)};
    for (const struct moesim_node *item = list ? node->first : node; paths.item && item;
         item = list ? item->next : NULL)
        add_paths(&paths, item);
    *n = paths.n;
    return paths.item;
}
