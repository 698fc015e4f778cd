/*
 * `exclude`: rules of path and value; a point that has all values of a rule is left out.
 */
#include "sim/study/resolve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 256 };

/* Looks for the key after the dot of a path, and for what it may have meant. */
struct search {
    const char *key;
    struct moesim_guess *guess;
    bool found;
};

static void search_key(struct search *search, const char *key)
{
    moesim_guess_try(search->guess, key);
    search->found |= !strcmp(search->key, key);
}

static void search_schema(struct search *search, struct moesim_schema schema)
{
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)); i++)
        search_key(search, row->key);
}

/* Whether some component of this kind has such a key; the study's own choice does not matter, since --router may
 * replace it. */
static bool component_has(const struct moesim_registry *registry, enum moesim_component component, const char *key,
                          struct moesim_guess *guess)
{
    const uint32_t stride = sizeof(struct moesim_param);
    *guess = moesim_guess_of(key);
    struct search search = {key, guess, false};
    search_key(&search, "name");
    switch (component) {
    case MOESIM_ROUTER:
        for (uint32_t i = 0; i < registry->n_routers; i++)
            search_schema(&search, moesim_router_schema(registry->routers[i].router));
        break;
    case MOESIM_WORKLOAD:
        search_key(&search, "tokens");
        for (uint32_t i = 0; i < registry->n_workloads; i++)
            search_schema(&search, moesim_workload_schema(registry->workloads[i]));
        break;
    case MOESIM_MODEL:
        search_schema(&search, (struct moesim_schema){moesim_model_params, stride});
        break;
    case MOESIM_CLUSTER:
        search_schema(&search, (struct moesim_schema){moesim_cluster_params, stride});
        break;
    case MOESIM_TRAINING:
        search_schema(&search, (struct moesim_schema){moesim_train_params, stride});
        break;
    default:
        for (const struct moesim_placement_rule *const *p = moesim_placement_rules; *p; p++)
            search_schema(&search, (struct moesim_schema){(*p)->params, stride});
        break;
    }
    return search.found;
}

/* A path of a label: "seed", "steps", "router", "router.k". */
static bool path_known(const struct moesim_registry *registry, const char *path, struct moesim_guess *guess)
{
    const char *dot = strchr(path, '.');
    const size_t head = dot ? (size_t)(dot - path) : 0;
    for (uint32_t c = 0; dot && c < MOESIM_N_COMPONENTS; c++)
        if (strlen(moesim_component_names[c]) == head && !strncmp(path, moesim_component_names[c], head))
            return component_has(registry, (enum moesim_component)c, dot + 1, guess);
    *guess = moesim_guess_of(path);
    struct search search = {path, guess, false};
    search_key(&search, "seed");
    for (uint32_t c = 0; c < MOESIM_N_COMPONENTS; c++)
        search_key(&search, moesim_component_names[c]);
    search_schema(&search, (struct moesim_schema){moesim_plain_params, sizeof(struct moesim_param)});
    return search.found;
}

static void check_rule(struct moesim_resolver *r, const struct moesim_node *rule)
{
    if (rule->kind != MOESIM_NODE_MAPPING || !rule->n) {
        moesim_mistake(r->mistakes, rule->line, rule->column,
                       "exclude: a rule is a mapping such as {router.name: switch, model.top_k: 2}");
        return;
    }
    for (const struct moesim_node *value = rule->first; value; value = value->next) {
        struct moesim_guess guess;
        if (!path_known(r->registry, value->key, &guess))
            moesim_mistake(r->mistakes, value->key_line, value->key_column, "exclude: no point has '%.60s'%s",
                           value->key, moesim_guess_text(&guess));
        const struct moesim_node *bad = value->kind == MOESIM_NODE_MAPPING ? value : NULL;
        for (const struct moesim_node *item = value->first; item && !bad; item = item->next)
            if (item->kind != MOESIM_NODE_SCALAR)
                bad = item;
        if (bad)
            moesim_mistake(r->mistakes, bad->line, bad->column, "exclude: %.60s takes a value or a list of values",
                           value->key);
    }
}

void moesim_exclude_check(struct moesim_resolver *r)
{
    const struct moesim_node *exclude = moesim_node_find(r->root, "exclude");
    if (exclude && exclude->kind != MOESIM_NODE_SEQUENCE)
        moesim_mistake(r->mistakes, exclude->line, exclude->column,
                       "exclude must be a list of mappings such as {router.name: switch, model.top_k: 2}");
    else if (exclude && exclude->n > MAX_RULES)
        moesim_mistake(r->mistakes, exclude->line, exclude->column, "exclude has %u rules; at most %d are allowed",
                       exclude->n, MAX_RULES);
    else if (exclude)
        for (const struct moesim_node *rule = exclude->first; rule; rule = rule->next)
            check_rule(r, rule);
}

/* 2, 2.0 and 2e0 are one value. */
static bool same_value(const char *a, const char *b)
{
    char *end_a, *end_b;
    const double x = strtod(a, &end_a), y = strtod(b, &end_b);
    return !strcmp(a, b) || (end_a != a && end_b != b && !*end_a && !*end_b && x == y);
}

static bool label_is(const struct moesim_labels *labels, const char *path, const char *text)
{
    const char *value = moesim_labels_find(labels, path);
    if (value && same_value(value, text))
        return true;
    /* A component goes by its name as well as by its SPEC. */
    char name[24];
    if (strchr(path, '.') || strlen(path) > 16)
        return false;
    snprintf(name, sizeof name, "%s.name", path);
    value = moesim_labels_find(labels, name);
    return value && !strcmp(value, text);
}

/* The value or the values of one key of a rule, one after the other; NULL after the last. */
static const struct moesim_node *next_value(const struct moesim_node *key, const struct moesim_node *value)
{
    if (key->kind == MOESIM_NODE_SCALAR)
        return value ? NULL : key;
    return value ? value->next : key->first;
}

/* Whether all of the rule but its seeds holds for the cell. */
static bool rule_holds(const struct moesim_node *rule, const struct moesim_labels *labels)
{
    for (const struct moesim_node *key = rule->first; key; key = key->next) {
        bool holds = !strcmp(key->key, "seed");
        for (const struct moesim_node *v = NULL; !holds && (v = next_value(key, v)) != NULL;)
            holds = v->kind == MOESIM_NODE_SCALAR && label_is(labels, key->key, v->text);
        if (!holds)
            return false;
    }
    return rule->kind == MOESIM_NODE_MAPPING && rule->n > 0;
}

static void exclude_seed(uint64_t seed, const uint64_t *seeds, uint32_t n_seeds, bool *excluded)
{
    for (uint32_t s = 0; s < n_seeds; s++)
        excluded[s] |= seeds[s] == seed;
}

uint32_t moesim_exclude(const struct moesim_node *root, const struct moesim_labels *labels, const uint64_t *seeds,
                        uint32_t n_seeds, bool *excluded)
{
    const struct moesim_node *exclude = moesim_node_find(root, "exclude");
    const bool rules = exclude && exclude->kind == MOESIM_NODE_SEQUENCE && exclude->n <= MAX_RULES;
    memset(excluded, 0, n_seeds * sizeof *excluded);
    for (const struct moesim_node *rule = rules ? exclude->first : NULL; rule; rule = rule->next) {
        if (!rule_holds(rule, labels))
            continue;
        const struct moesim_node *seed = moesim_node_find(rule, "seed");
        if (!seed)
            memset(excluded, 1, n_seeds * sizeof *excluded);
        for (const struct moesim_node *v = NULL; seed && (v = next_value(seed, v)) != NULL;)
            if (v->kind == MOESIM_NODE_SCALAR)
                exclude_seed(strtoull(v->text, NULL, 10), seeds, n_seeds, excluded);
    }
    uint32_t n_left = 0;
    for (uint32_t s = 0; s < n_seeds; s++)
        n_left += !excluded[s];
    return n_left;
}
