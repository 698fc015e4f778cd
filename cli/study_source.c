/* From the user's words to resolved points. */
#include "cli/study_source.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/file.h"
#include "cli/message.h"

#define MAX_STUDY_BYTES (1u << 20)

static const char *nearest_study(const char *name)
{
    const char *names[64];
    uint32_t n = 0;
    for (const struct moesim_builtin_study *s = moesim_builtin_studies; s->name && n < 63; s++)
        names[n++] = s->name;
    names[n] = NULL;
    return cli_nearest(name, names);
}

enum moesim_status study_source_open(struct study_source *source, const char *file, struct moesim_error *err)
{
    *source = (struct study_source){.name = file ? file : "quickstart"};
    const char *builtin = moesim_study_builtin(source->name);
    if (builtin && (!file || access(file, F_OK) != 0)) {
        source->builtin = true;
        source->text = strdup(builtin);
        source->size = strlen(builtin);
        return source->text ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    }
    enum moesim_status status = cli_file_read(source->name, MAX_STUDY_BYTES, &source->text, &source->size, err);
    const char *near = status && access(source->name, F_OK) != 0 ? nearest_study(source->name) : NULL;
    if (near)
        return moesim_fail(err, MOESIM_EINVAL, "%s: no such file; did you mean the built-in study '%s'?", source->name,
                           near);
    return status;
}

void study_source_close(struct study_source *source)
{
    free(source->text);
    source->text = NULL;
}

/* ---- to a worker and back ---- */

static json_t *list_json(const struct cli_list *list)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < list->n; i++)
        json_array_append_new(array, json_string(list->item[i]));
    return array;
}

char *study_source_to_json(const struct study_source *source)
{
    json_t *root = json_pack("{s:s, s:b, s:s%, s:s?, s:o, s:o, s:o, s:o}", "name", source->name, "builtin",
                             (int)source->builtin, "text", source->text, source->size, "record", source->record, "set",
                             list_json(&source->set), "router", list_json(&source->router), "workload",
                             list_json(&source->workload), "plugin", list_json(&source->plugin));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return text;
}

static bool list_from(const json_t *root, const char *key, struct moesim_arena *arena, struct cli_list *list)
{
    size_t i;
    json_t *value, *array = json_object_get(root, key);
    json_array_foreach(array, i, value)
    {
        const char *text = json_is_string(value) ? moesim_strdup(arena, json_string_value(value)) : NULL;
        if (!text || list->n == CLI_LIST_MAX)
            return false;
        list->item[list->n++] = text;
    }
    return true;
}

enum moesim_status study_source_from_json(const char *text, struct moesim_arena *arena, struct study_source *source,
                                          struct moesim_error *err)
{
    json_error_t where;
    json_t *root = json_loads(text, JSON_ALLOW_NUL, &where);
    const json_t *yaml = json_object_get(root, "text");
    const char *name = json_string_value(json_object_get(root, "name"));
    const char *record = json_string_value(json_object_get(root, "record"));
    *source = (struct study_source){.builtin = json_is_true(json_object_get(root, "builtin"))};
    bool good = name && yaml && (source->name = moesim_strdup(arena, name)) != NULL;
    good = good && (!record || (source->record = moesim_strdup(arena, record)) != NULL);
    if (good) {
        source->size = json_string_length(yaml);
        source->text = malloc(source->size + 1);
        good = source->text != NULL;
    }
    if (good)
        memcpy(source->text, json_string_value(yaml), source->size + 1);
    good = good && list_from(root, "set", arena, &source->set) && list_from(root, "router", arena, &source->router) &&
           list_from(root, "workload", arena, &source->workload) && list_from(root, "plugin", arena, &source->plugin);
    json_decref(root);
    return good ? MOESIM_OK : moesim_fail(err, MOESIM_EBROKEN, "the worker's study is not whole");
}

/* ---- resolving ---- */

/* Files that could not be read are no mistakes of the configuration, if there are no others. */
static int report_mistakes(const char *name, const struct moesim_mistakes *mistakes)
{
    char text[512], file[512];
    bool more = false; /* the list was too short */
    cli_printable(name, file, sizeof file);
    for (uint32_t i = 0; i < mistakes->n; i++) {
        cli_printable(mistakes->item[i].text, text, sizeof text);
        more |= mistakes->item[i].line == UINT32_MAX;
        if (mistakes->item[i].line && mistakes->item[i].line != UINT32_MAX)
            fprintf(stderr, "%s:%u:%u: error: %s\n", file, mistakes->item[i].line, mistakes->item[i].column, text);
        else
            fprintf(stderr, "moesim: error: %s\n", text);
    }
    uint32_t n = mistakes->n - more;
    fprintf(stderr, "%s%u problem%s; nothing was run\n", more ? "more than " : "", n, n == 1 ? "" : "s");
    return mistakes->n_files >= mistakes->n ? CLI_DISK : CLI_USAGE;
}

static int load_plugins(const struct study_source *source, bool isolated, struct loaded_study *loaded)
{
    struct moesim_error err;
    enum moesim_status status = catalogue_init(&loaded->catalogue, &err);
    for (uint32_t i = 0; !status && i < source->plugin.n; i++)
        status = catalogue_add(&loaded->catalogue, source->plugin.item[i], true, isolated, &err);
    uint32_t n = 0;
    const char *const *paths = status ? NULL : moesim_study_plugin_paths(loaded->study, &n);
    for (uint32_t i = 0; !status && i < n; i++)
        status = catalogue_add(&loaded->catalogue, paths[i], false, isolated, &err);
    return status ? cli_fail_status(status, &err) : CLI_DONE;
}

/* A built-in study's sizes suit its own workloads; recorded ones bring the number of their experts and layers, trained
 * models their width too. */
static void make_room_for_recordings(const struct study_source *source, struct moesim_study *study)
{
    static const char *const kinds[] = {"logits:", "trace:", "loads:"};
    bool recorded = false, trained = false;
    for (uint32_t i = 0; i < source->workload.n; i++) {
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            recorded |= strncmp(source->workload.item[i], kinds[k], strlen(kinds[k])) == 0;
        trained |= strstr(source->workload.item[i], "checkpoint=") != NULL;
    }
    if (source->builtin && (recorded || trained)) {
        moesim_study_drop(study, "model", "experts");
        moesim_study_drop(study, "model", "layers");
        moesim_study_drop(study, "model", "top_k");
    }
    if (source->builtin && trained) {
        moesim_study_drop(study, "model", "d_model");
        moesim_study_drop(study, "model", "d_ff");
    }
}

/* Parses and applies what the command line changes; mistakes are collected. */
static void read_study(const struct study_source *source, struct loaded_study *loaded, struct moesim_mistakes *mistakes)
{
    loaded->study = moesim_study_parse(source->name, source->text, source->size, loaded->arena, mistakes);
    if (!loaded->study)
        return;
    make_room_for_recordings(source, loaded->study);
    if (source->router.n)
        moesim_study_replace(loaded->study, "router", source->router.item, source->router.n, mistakes);
    if (source->workload.n)
        moesim_study_replace(loaded->study, "workload", source->workload.item, source->workload.n, mistakes);
    for (uint32_t i = 0; i < source->set.n; i++)
        moesim_study_set(loaded->study, source->set.item[i], mistakes);
}

int study_load(const struct study_source *source, bool isolated, struct loaded_study *loaded)
{
    *loaded = (struct loaded_study){.arena = moesim_arena_create(0)};
    struct moesim_mistakes *mistakes = calloc(1, sizeof *mistakes);
    int exit = loaded->arena && mistakes ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
    if (!exit) {
        read_study(source, loaded, mistakes);
        if (!loaded->study)
            exit = report_mistakes(source->name, mistakes);
    }
    if (!exit)
        exit = load_plugins(source, isolated, loaded);
    if (!exit && (!moesim_study_resolve(loaded->study, &loaded->catalogue.registry, &loaded->points, &loaded->n_points,
                                        mistakes) ||
                  mistakes->n))
        exit = report_mistakes(source->name, mistakes);
    free(mistakes);
    return exit;
}

void study_unload(struct loaded_study *loaded)
{
    catalogue_finish(&loaded->catalogue);
    moesim_arena_destroy(loaded->arena);
    *loaded = (struct loaded_study){.arena = NULL};
}
