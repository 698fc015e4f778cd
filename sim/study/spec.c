/*
 * Cutting SPECs, for studies and for verbs that take one router or cluster.
 */
#include "sim/study/spec.h"

#include <string.h>

#include "sim/cluster/cluster.h"
#include "sim/study/mistakes.h"
#include "sim/study/study.h"

enum { MAX_PAIRS = 256 };

bool moesim_spec_is_path(const char *spec)
{
    const size_t n = strcspn(spec, ":");
    return memchr(spec, '/', n) || (n >= 3 && !memcmp(spec + n - 3, ".so", 3));
}

/* The comma before the next key=value, or NULL; a comma with no '=' behind it belongs to the value (files=a.txt,b.txt).
 */
static char *pair_end(char *pair)
{
    char *comma = strchr(pair, ',');
    while (comma && comma[1 + strcspn(comma + 1, ",=")] != '=')
        comma = strchr(comma + 1, ',');
    return comma;
}

enum moesim_status moesim_spec_cut(const char *text, struct moesim_arena *arena, struct moesim_spec *spec,
                                   struct moesim_error *err)
{
    char *copy = moesim_strdup(arena, text);
    if (!copy)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for '%.60s'", text);
    *spec = (struct moesim_spec){.name = copy};
    char *rest = strchr(copy, ':');
    if (rest)
        *rest++ = '\0';
    if (!*copy)
        return moesim_fail(err, MOESIM_EINVAL, "'%.60s' has no name; write name or name:key=value,key=value", text);
    if (!rest)
        return MOESIM_OK;

    size_t room = 1;
    for (const char *c = rest; *c; c++)
        room += *c == ',';
    if (room > MAX_PAIRS)
        return moesim_fail(err, MOESIM_EINVAL, "'%.60s...' has %zu parts after its name; at most %d are allowed", text,
                           room, MAX_PAIRS);
    struct moesim_spec_pair *pairs = moesim_alloc(arena, room, sizeof *pairs);
    if (!pairs)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for '%.60s'", text);
    spec->pairs = pairs;
    for (char *pair = rest, *next; pair; pair = next) {
        next = pair_end(pair);
        if (next)
            *next++ = '\0';
        char *equals = strchr(pair, '=');
        if (!equals || equals == pair || !equals[1])
            return moesim_fail(err, MOESIM_EINVAL,
                               "'%.60s' after the name in '%.80s' is not key=value; write name:key=value,key=value",
                               pair, text);
        *equals = '\0';
        pairs[spec->n_pairs++] = (struct moesim_spec_pair){pair, equals + 1};
    }
    return MOESIM_OK;
}

enum moesim_status moesim_value_set(const struct moesim_param *row, const char *text, void *params,
                                    struct moesim_arena *arena, struct moesim_error *err)
{
    const char *digits = text + (*text == '-' || *text == '+');
    if (row->type <= MOESIM_TYPE_REAL && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9')
        return moesim_fail(err, MOESIM_EINVAL, "%s = '%.80s' begins with 0, which some read as octal; write it without",
                           row->key, text);
    return moesim_param_set(row, text, params, arena, err);
}

enum moesim_status moesim_spec_name(const char *spec, char name[64], struct moesim_error *err)
{
    const size_t n = strcspn(spec, ":");
    if (n == 0)
        return moesim_fail(err, MOESIM_EINVAL, "'%.60s' has no name; write name or name:key=value,key=value", spec);
    if (n > 63)
        return moesim_fail(err, MOESIM_EINVAL, "the name '%.40s...' has %zu bytes; at most 63 are allowed", spec, n);
    memcpy(name, spec, n);
    name[n] = '\0';
    return MOESIM_OK;
}

/* The preset of that name or the cluster of that text, before keys are set. */
static enum moesim_status cluster_base(const char *name, struct moesim_arena *arena, struct moesim_cluster *cluster,
                                       struct moesim_error *err)
{
    if (moesim_cluster_is_text(name))
        return moesim_cluster_read(name, arena, cluster, err);
    const struct moesim_cluster_preset *preset = moesim_cluster_find(name);
    if (preset) {
        *cluster = preset->cluster;
        return MOESIM_OK;
    }
    struct moesim_guess guess = moesim_guess_of(name);
    for (const struct moesim_cluster_preset *p = moesim_cluster_presets; p->cluster.name; p++)
        moesim_guess_try(&guess, p->cluster.name);
    return moesim_fail(err, MOESIM_EINVAL, "unknown cluster '%.60s'%s", name, moesim_guess_text(&guess));
}

enum moesim_status moesim_spec_cluster(const char *spec, struct moesim_arena *arena, struct moesim_cluster *cluster,
                                       struct moesim_error *err)
{
    struct moesim_spec cut = {.name = spec};
    enum moesim_status status = moesim_cluster_is_text(spec) ? MOESIM_OK : moesim_spec_cut(spec, arena, &cut, err);
    if (status == MOESIM_OK)
        status = cluster_base(cut.name, arena, cluster, err);
    if (status != MOESIM_OK || cut.n_pairs == 0)
        return status;
    for (uint32_t i = 0; i < cut.n_pairs; i++)
        moesim_cluster_override(cluster, cut.pairs[i].key);
    const struct moesim_schema schema = {moesim_cluster_params, sizeof(struct moesim_param)};
    return moesim_spec_params(spec, schema, cluster, arena, err);
}

enum moesim_status moesim_spec_placement(const char *spec, struct moesim_arena *arena,
                                         const struct moesim_placement_rule **rule, void **params,
                                         struct moesim_error *err)
{
    struct moesim_spec cut;
    enum moesim_status status = moesim_spec_cut(spec, arena, &cut, err);
    if (status != MOESIM_OK)
        return status;
    *rule = moesim_placement_find(cut.name);
    if (!*rule) {
        struct moesim_guess guess = moesim_guess_of(cut.name);
        for (const struct moesim_placement_rule *const *p = moesim_placement_rules; *p; p++)
            moesim_guess_try(&guess, (*p)->name);
        return moesim_fail(err, MOESIM_EINVAL, "unknown placement '%.60s'%s", cut.name, moesim_guess_text(&guess));
    }
    const struct moesim_schema schema = {(*rule)->params, sizeof(struct moesim_param)};
    *params = moesim_alloc(arena, 1, (*rule)->params_size);
    if (!*params)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for '%.60s'", spec);
    status = moesim_params_default(schema, 2, *params, arena, err);
    if (status == MOESIM_OK)
        status = moesim_placement_named(*rule, cut.name, *params, arena, err);
    return status == MOESIM_OK ? moesim_spec_params(spec, schema, *params, arena, err) : status;
}

enum moesim_status moesim_spec_params(const char *spec, struct moesim_schema schema, void *params,
                                      struct moesim_arena *arena, struct moesim_error *err)
{
    struct moesim_spec cut;
    enum moesim_status status = moesim_spec_cut(spec, arena, &cut, err);
    for (uint32_t i = 0; status == MOESIM_OK && i < cut.n_pairs; i++) {
        const char *key = cut.pairs[i].key;
        for (uint32_t j = 0; j < i; j++)
            if (!strcmp(cut.pairs[j].key, key))
                return moesim_fail(err, MOESIM_EINVAL, "'%.60s' is given twice in '%.120s'", key, spec);
        const struct moesim_param *row = moesim_schema_find(schema, key);
        if (!row) {
            struct moesim_guess guess = moesim_guess_of(key);
            const struct moesim_param *known;
            for (uint32_t j = 0; (known = moesim_schema_row(schema, j)); j++)
                moesim_guess_try(&guess, known->key);
            return moesim_fail(err, MOESIM_EINVAL, "unknown key '%.60s' in '%.120s'%s", key, spec,
                               moesim_guess_text(&guess));
        }
        status = moesim_value_set(row, cut.pairs[i].value, params, arena, err);
    }
    return status;
}
