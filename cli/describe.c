/* moesim describe: one name with its parameters, their ranges and its source. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/metric.h>

#include "cli/catalogue.h"
#include "cli/kinds.h"
#include "cli/message.h"
#include "cli/recipe.h"
#include "cli/verbs.h"
#include "sim/study/study.h"

struct describe_options {
    bool json;
};

static const struct cli_option options[] = {
    CLI_OPTION(struct describe_options, json, "json", NULL, "as a JSON object"),
    CLI_OPTION_END,
};

static const char *type_word(const struct moesim_param *row)
{
    static const char *const words[] = {"whole number", "whole number", "number", "true|false",
                                        "text",         "choice",       "file"};
    return words[row->type];
}

/* "1 .. 65536", the choices, or what kind of value it is. */
static void format_range(const struct moesim_param *row, char *text, size_t size)
{
    if (row->type == MOESIM_TYPE_CHOICE)
        snprintf(text, size, "%s", row->choices);
    else if (row->type <= MOESIM_TYPE_REAL)
        snprintf(text, size, "%.9g .. %.9g", row->min, row->max);
    else
        snprintf(text, size, "%s", type_word(row));
}

/* A preset's own value, else the default. */
static void format_default(const struct kind_item *item, const struct moesim_param *row, char *text, size_t size)
{
    if (item->values)
        moesim_param_format(row, item->values, text, size);
    else
        snprintf(text, size, "%s", row->def && *row->def ? row->def : "-");
}

/* The vendor's figure beside the realistic one, where there is one. */
static bool has_peak(const struct kind_item *item, const struct moesim_param *row)
{
    return item->peak && row->type == MOESIM_TYPE_REAL && *(const double *)((const char *)item->peak + row->offset) > 0;
}

/* "a|b" as "a | b", so that it can be broken. */
static void space_choices(const char *choices, char *text, size_t size)
{
    size_t n = 0;
    for (; *choices && n + 4 < size; choices++) {
        if (*choices == '|')
            text[n++] = ' ';
        text[n++] = *choices;
        if (*choices == '|')
            text[n++] = ' ';
    }
    text[n] = '\0';
}

/* "  key = default   range", and the meaning on the next lines. */
static void print_params(const struct kind_item *item)
{
    const struct moesim_param *row;
    puts(item->values ? "Parameters and their values here:" : "Parameters and their defaults:");
    for (uint32_t i = 0; (row = moesim_schema_row(item->schema, i)); i++) {
        char range[512], value[256], left[400], safe[1024];
        if (row->type == MOESIM_TYPE_CHOICE)
            space_choices(row->choices, range, sizeof range);
        else
            format_range(row, range, sizeof range);
        format_default(item, row, value, sizeof value);
        snprintf(left, sizeof left, "  %s = %s", row->key, value);
        if (has_peak(item, row)) {
            moesim_param_format(row, item->peak, value, sizeof value);
            snprintf(range + strlen(range), sizeof range - strlen(range), "; peak %s", value);
        }
        printf("%-30s  ", cli_printable(left, safe, sizeof safe));
        cli_print_wrapped(stdout, cli_printable(range, safe, sizeof safe), 32, 32);
        fputs("      ", stdout);
        cli_print_wrapped(stdout, cli_printable(row->help ? row->help : "", safe, sizeof safe), 6, 6);
    }
}

/* "head: text", wrapped. */
static void print_line(const char *head, const char *text)
{
    char safe[1024];
    const size_t n = (size_t)printf("%s:", cli_printable(head, safe, sizeof safe));
    cli_print_wrapped(stdout, cli_printable(text, safe, sizeof safe), n, 2);
}

static void print_plain(const struct kind_item *item)
{
    char safe[1024];
    if (item->summary && *item->summary)
        print_line(item->name, item->summary);
    else
        puts(cli_printable(item->name, safe, sizeof safe));
    const struct moesim_metric *m = item->metric;
    static const char *const kinds[] = {"counted", "modelled", "measured"};
    static const char *const betters[] = {"lower is better", "higher is better", "neither side is better"};
    static const char *const folds[] = {"mean over steps and layers", "total over steps and layers",
                                        "median over steps and layers", "last value, mean over layers"};
    if (m)
        printf("\nformula: %s\nunit:    %s\nkind:    %s; %s\nof a run: %s\ndefined: %s\n", m->formula, m->unit,
               kinds[m->kind], betters[m->better], folds[m->fold], m->defined);
    if (item->router)
        printf("its own router: %s\n", item->router);
    if (item->reference && *item->reference)
        print_line("reference", item->reference);
    char *recipe = recipe_of(item->hooks);
    if (recipe)
        printf("the same as:\n  %s\n", recipe);
    free(recipe);
    if (item->text)
        printf("\n%s", item->text);
    if (item->schema.rows && moesim_schema_row(item->schema, 0)) {
        puts("");
        print_params(item);
    }
}

static json_t *params_json(const struct kind_item *item)
{
    json_t *rows = json_array();
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(item->schema, i)); i++) {
        char range[512], value[256];
        format_range(row, range, sizeof range);
        format_default(item, row, value, sizeof value);
        json_t *object =
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "key", row->key, "type", type_word(row),
                      item->values ? "value" : "default", value, "range", range, "meaning", row->help ? row->help : "");
        if (has_peak(item, row)) {
            moesim_param_format(row, item->peak, value, sizeof value);
            json_object_set_new(object, "peak", json_string(value));
        }
        json_array_append_new(rows, object);
    }
    return rows;
}

static bool print_json(const struct kind *kind, const struct kind_item *item)
{
    json_t *root = json_pack("{s:s, s:s, s:s, s:s}", "kind", kind->singular, "name", item->name, "summary",
                             item->summary ? item->summary : "", "reference", item->reference ? item->reference : "");
    const struct moesim_metric *m = item->metric;
    static const char *const kinds[] = {"counted", "modelled", "measured"}, *const betters[] = {"lower", "higher",
                                                                                                "neither"};
    if (m) {
        json_object_set_new(root, "formula", json_string(m->formula));
        json_object_set_new(root, "unit", json_string(m->unit));
        json_object_set_new(root, "measured_as", json_string(kinds[m->kind]));
        json_object_set_new(root, "better", json_string(betters[m->better]));
        json_object_set_new(root, "defined", json_string(m->defined));
    }
    if (item->text)
        json_object_set_new(root, "text", json_string(item->text));
    if (item->router)
        json_object_set_new(root, "router", json_string(item->router));
    char *recipe = recipe_of(item->hooks);
    if (recipe)
        json_object_set_new(root, "same_as", json_string(recipe));
    free(recipe);
    if (item->schema.rows)
        json_object_set_new(root, "parameters", params_json(item));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (text)
        puts(text);
    free(text);
    return text != NULL;
}

static bool print_item(const struct kind *kind, const struct kind_item *item, bool json)
{
    if (json)
        return print_json(kind, item);
    print_plain(item);
    return true;
}

static bool find_item(const struct kind *kind, const char *name, struct kind_item *item)
{
    for (uint32_t i = 0; kind->item(i, item); i++)
        if (strcmp(item->name, name) == 0)
            return true;
    return false;
}

static int unknown_name(const struct kind *kind, const char *name)
{
    const char *names[256];
    uint32_t n = 0;
    struct kind_item item;
    while (n < 255 && kind->item(n, &item))
        names[n++] = item.name;
    names[n] = NULL;
    const char *near = cli_nearest(name, names);
    if (near)
        return cli_fail(CLI_USAGE, "unknown %s '%s'; did you mean '%s'?", kind->singular, name, near);
    return cli_fail(CLI_USAGE, "unknown %s '%s'; 'moesim list %s' names them", kind->singular, name, kind->plural);
}

/* A router out of tree: probed, then opened for its tables only. */
static int describe_plugin(const struct kind *kind, const char *path, bool json)
{
    struct catalogue catalogue;
    const struct moesim_router_entry *entry;
    struct moesim_error err;
    enum moesim_status status = catalogue_init(&catalogue, &err);
    if (!status)
        status = catalogue_router(&catalogue, path, false, &entry, &err);
    bool good = true;
    if (!status) {
        struct kind_item item = {.name = entry->router->name,
                                 .summary = entry->router->summary,
                                 .reference = entry->router->reference,
                                 .schema = moesim_router_schema(entry->router),
                                 .hooks = entry->router};
        good = print_item(kind, &item, json);
    }
    catalogue_finish(&catalogue);
    if (status)
        return cli_fail_status(status, &err);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}

static int describe(const struct cli_call *call)
{
    const struct describe_options *o = call->options;
    const struct kind *kind = kind_find(call->args[0], "describe");
    struct kind_item item;
    if (!kind)
        return CLI_USAGE;
    if (kind == &cli_kinds[0] && moesim_spec_is_path(call->args[1]))
        return describe_plugin(kind, call->args[1], o->json);
    if (!find_item(kind, call->args[1], &item))
        return unknown_name(kind, call->args[1]);
    bool good = print_item(kind, &item, o->json);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}

static const struct cli_example examples[] = {
    {"moesim describe router switch", "its parameters with range, default and meaning, and the paper"},
    {"moesim describe metric max_vio", "formula, unit and when a run has it"},
    {"moesim describe study quickstart > study.yaml", "a study to start from"},
    {NULL, NULL},
};

const struct cli_verb cli_describe = {
    .name = "describe",
    .arguments = "router|workload|placement|cluster|model|metric|study NAME",
    .summary = "show one name: parameters, ranges, defaults, formula, reference",
    .examples = examples,
    .options = options,
    .options_size = sizeof(struct describe_options),
    .min_args = 2,
    .max_args = 2,
    .run = describe,
};
