/*
 * From what a study writes for a component to its variants: SPECs are cut, lists multiply in file order.
 */
#include "sim/study/resolve.h"

#include <ctype.h>
#include <string.h>

#include "sim/study/spec.h"

const char *const moesim_component_names[MOESIM_N_COMPONENTS] = {"router",  "workload",  "model",
                                                                 "cluster", "placement", "train"};

/* Of all variants of a component together; keeps a small hostile file small in memory. */
enum { MAX_SETTINGS = 200000 };

struct expansion {
    struct moesim_resolver *r;
    const char *what; /* the component's name */
    const struct moesim_node *at;
    bool name_optional, may_be_text;
    uint32_t n, room;
    struct moesim_variant *item;
    uint64_t n_settings;
};

static void append(struct expansion *x, const struct moesim_variant *variant)
{
    if (x->n == x->room) {
        const uint32_t room = x->room ? 2 * x->room : 8;
        struct moesim_variant *item = moesim_mistake_alloc(x->r->mistakes, x->r->arena, room, sizeof *item);
        if (!item)
            return;
        if (x->n)
            memcpy(item, x->item, x->n * sizeof *item);
        x->item = item;
        x->room = room;
    }
    x->item[x->n++] = *variant;
}

/* The name's SPEC and the mapping's keys as one list of settings; a key in both is a mistake. */
static void add_variant(struct expansion *x, const struct moesim_node *name, const struct moesim_setting *given,
                        uint32_t n_given, const struct moesim_node *at)
{
    struct moesim_resolver *r = x->r;
    if (x->n >= MOESIM_MAX_POINTS) {
        moesim_mistake(r->mistakes, x->at->line, x->at->column, "%s: more than %d variants", x->what,
                       MOESIM_MAX_POINTS);
        return;
    }
    struct moesim_error err;
    struct moesim_spec spec = {.name = ""};
    if (name && x->may_be_text && moesim_cluster_is_text(name->text)) {
        spec.name = name->text;
    } else if (name && moesim_spec_cut(name->text, r->arena, &spec, &err) != MOESIM_OK) {
        moesim_mistake(r->mistakes, name->line, name->column, "%s: %s", x->what, err.text);
        return;
    }
    const struct moesim_node *place = name ? name : at;
    const uint32_t room = spec.n_pairs + n_given;
    struct moesim_setting *settings = moesim_mistake_alloc(r->mistakes, r->arena, room, sizeof *settings);
    if (!settings)
        return;
    uint32_t n = 0;
    for (uint32_t i = 0; i < room; i++) {
        const struct moesim_setting s =
            i < spec.n_pairs ? (struct moesim_setting){spec.pairs[i].key, spec.pairs[i].value, place->line,
                                                       place->column,     place->line,         place->column}
                             : given[i - spec.n_pairs];
        bool repeated = false;
        for (uint32_t j = 0; j < n; j++)
            repeated |= !strcmp(settings[j].key, s.key);
        if (repeated)
            moesim_mistake(r->mistakes, s.line, s.column, "%s: '%.60s' is given twice", x->what, s.key);
        else
            settings[n++] = s;
    }
    append(x, &(struct moesim_variant){spec.name, place->line, place->column, n, settings});
}

/* One key of a mapping with the values it takes in turn. */
struct key_values {
    const struct moesim_node *key;
    const struct moesim_node **value;
    uint32_t n; /* 0 = noted as wrong */
};

static bool read_values(struct expansion *x, const struct moesim_node *key, struct key_values *values)
{
    struct moesim_mistakes *mistakes = x->r->mistakes;
    const bool list = key->kind == MOESIM_NODE_SEQUENCE;
    *values = (struct key_values){.key = key};
    if (key->kind == MOESIM_NODE_MAPPING)
        moesim_mistake(mistakes, key->line, key->column, "%s.%.60s is a mapping; write a value or a list of values",
                       x->what, key->key);
    else if (list && !key->n)
        moesim_mistake(mistakes, key->line, key->column, "%s.%.60s is an empty list", x->what, key->key);
    else
        values->value = moesim_mistake_alloc(x->r->mistakes, x->r->arena, list ? key->n : 1, sizeof *values->value);
    if (!values->value)
        return false;
    for (const struct moesim_node *value = list ? key->first : key; value; value = list ? value->next : NULL) {
        if (value->kind != MOESIM_NODE_SCALAR) {
            moesim_mistake(mistakes, value->line, value->column,
                           "%s.%.60s: a list of values holds another list or mapping", x->what, key->key);
            return false;
        }
        values->value[values->n++] = value;
    }
    return true;
}

/* All combinations of the keys' values, the last key fastest. */
static void expand_product(struct expansion *x, const struct moesim_node *mapping, const struct key_values *keys,
                           uint32_t n_keys, uint64_t n)
{
    struct moesim_setting *settings = moesim_mistake_alloc(x->r->mistakes, x->r->arena, n_keys, sizeof *settings);
    for (uint64_t i = 0; settings && i < n; i++) {
        const struct moesim_node *name = NULL;
        uint32_t first = n_keys;
        uint64_t rest = i;
        for (uint32_t k = n_keys; k-- > 0;) {
            const struct moesim_node *key = keys[k].key, *value = keys[k].value[rest % keys[k].n];
            rest /= keys[k].n;
            if (!strcmp(key->key, "name"))
                name = value;
            else
                settings[--first] = (struct moesim_setting){key->key,        value->text, key->key_line,
                                                            key->key_column, value->line, value->column};
        }
        add_variant(x, name, settings + first, n_keys - first, mapping);
    }
}

static void expand_mapping(struct expansion *x, const struct moesim_node *mapping)
{
    struct moesim_resolver *r = x->r;
    struct key_values *keys = moesim_mistake_alloc(r->mistakes, r->arena, mapping->n, sizeof *keys);
    if (!keys)
        return;
    uint32_t n_keys = 0;
    uint64_t n = 1;
    bool named = false, bad_name = false;
    for (const struct moesim_node *key = mapping->first; key; key = key->next) {
        const bool is_name = !strcmp(key->key, "name"), good = read_values(x, key, &keys[n_keys]);
        named |= is_name;
        bad_name |= is_name && !good;
        if (!good)
            continue; /* noted; the other keys are still looked at */
        n = n > MOESIM_MAX_POINTS ? n : n * keys[n_keys].n;
        n_keys++;
    }
    x->n_settings += n * n_keys;
    if (!named && !x->name_optional)
        moesim_mistake(r->mistakes, mapping->line, mapping->column, "%s: this mapping lacks 'name'", x->what);
    else if (n > MOESIM_MAX_POINTS || x->n_settings > MAX_SETTINGS)
        moesim_mistake(r->mistakes, mapping->line, mapping->column, "%s: its lists multiply to too many variants",
                       x->what);
    else if (!bad_name)
        expand_product(x, mapping, keys, n_keys, n);
}

static void expand_node(struct expansion *x, const struct moesim_node *node)
{
    if (node->kind == MOESIM_NODE_SCALAR && !node->text[0])
        moesim_mistake(x->r->mistakes, node->line, node->column, "%s has no value", x->what);
    else if (node->kind == MOESIM_NODE_SCALAR)
        add_variant(x, node, NULL, 0, node);
    else if (node->kind == MOESIM_NODE_MAPPING)
        expand_mapping(x, node);
    else
        moesim_mistake(x->r->mistakes, node->line, node->column, "%s: a list inside a list", x->what);
}

struct moesim_variants moesim_variants_expand(struct moesim_resolver *r, enum moesim_component component,
                                              const struct moesim_node *node)
{
    struct expansion x = {.r = r,
                          .what = moesim_component_names[component],
                          .at = node,
                          .name_optional = component == MOESIM_MODEL || component == MOESIM_TRAINING,
                          .may_be_text = component == MOESIM_CLUSTER};
    if (node->kind != MOESIM_NODE_SEQUENCE)
        expand_node(&x, node);
    else if (!node->n)
        moesim_mistake(r->mistakes, node->line, node->column, "%s is an empty list", x.what);
    else
        for (const struct moesim_node *child = node->first; child; child = child->next)
            expand_node(&x, child);
    return (struct moesim_variants){x.n, x.item};
}

const struct moesim_setting *moesim_setting_find(const struct moesim_variant *variant, const char *key)
{
    for (uint32_t i = 0; variant && i < variant->n_settings; i++)
        if (!strcmp(variant->settings[i].key, key))
            return &variant->settings[i];
    return NULL;
}

static bool is_word_part(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '-';
}

static bool has_word(const char *sentence, const char *word)
{
    const size_t n = strlen(word);
    for (const char *at = sentence; n && (at = strstr(at, word)) != NULL; at += n)
        if ((at == sentence || !is_word_part(at[-1])) && !is_word_part(at[n]))
            return true;
    return false;
}

const struct moesim_setting *moesim_setting_blamed(const struct moesim_variant *variant, const char *sentence)
{
    for (uint32_t i = 0; i < variant->n_settings; i++)
        if (has_word(sentence, variant->settings[i].key))
            return &variant->settings[i];
    for (uint32_t i = 0; i < variant->n_settings; i++)
        if (strlen(variant->settings[i].text) > 2 && strstr(sentence, variant->settings[i].text))
            return &variant->settings[i]; /* a path */
    return NULL;
}
