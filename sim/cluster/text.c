/*
 * The text form of a cluster: words with values, in any order.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cluster/cluster.h"

enum { MAX_PARTS = 3 };

/* The short words. A word with several keys takes several values, of which the later ones may be left out. */
static const struct word {
    const char *name, *key[MAX_PARTS];
} words[] = {
    {"node", {"nodes"}},
    {"gpu", {"devices_per_node"}},
    {"nvlink", {"nvlink_bytes_per_s"}},
    {"nic", {"nic_bytes_per_s"}},
    {"leaf", {"leaf_nodes", "leaf_oversubscription"}},
    {"flop", {"flop_per_s"}},
    {"hbm", {"memory_bytes_per_s"}},
    {"memory", {"memory_bytes"}},
    {"latency", {"latency_intra_s", "latency_inter_s", "latency_leaf_s"}},
    {"launch", {"launch_s"}},
    {"tile", {"tile_rows"}},
};
enum { N_WORDS = sizeof words / sizeof *words };

static const struct moesim_schema schema = {moesim_cluster_params, sizeof(struct moesim_param)};

/* What a text that names nothing would be. */
static const struct moesim_cluster plain = {.tp = 1, .leaf_oversubscription = 1, .tile_rows = 1};

bool moesim_cluster_is_text(const char *spec)
{
    return strncmp(spec, "node:", 5) == 0;
}

static const struct word *find_word(const char *name)
{
    for (size_t i = 0; i < N_WORDS; i++)
        if (strcmp(words[i].name, name) == 0)
            return &words[i];
    return NULL;
}

static enum moesim_status unknown_word(const char *name, struct moesim_error *err)
{
    const char *near = moesim_schema_nearest(schema, name);
    uint32_t least = near ? moesim_edit_distance(name, near, 2) : 3;
    for (size_t i = 0; i < N_WORDS; i++) {
        const uint32_t distance = moesim_edit_distance(name, words[i].name, 2);
        if (distance < least) {
            least = distance;
            near = words[i].name;
        }
    }
    if (near)
        return moesim_fail(err, MOESIM_EINVAL, "unknown word '%.40s' in a cluster text; did you mean '%s'?", name,
                           near);
    return moesim_fail(err, MOESIM_EINVAL,
                       "unknown word '%.40s' in a cluster text; it knows node, gpu, nvlink, nic, leaf, flop, hbm, "
                       "memory, latency, launch, tile and the keys of 'moesim describe cluster h100-dgx'",
                       name);
}

/* "word:value[:value]" into the cluster; `piece` is cut up. `seen` has a mark for each row of the schema. */
static enum moesim_status read_piece(char *piece, struct moesim_arena *arena, struct moesim_cluster *cluster,
                                     bool *seen, struct moesim_error *err)
{
    char *value = strchr(piece, ':');
    if (!value || value == piece || !value[1])
        return moesim_fail(err, MOESIM_EINVAL, "'%.60s' in a cluster text is not word:value; write node:4 gpu:8 ...",
                           piece);
    *value++ = '\0';
    const struct word *word = find_word(piece);
    const struct word key_alone = {piece, {piece}};
    if (!word && !moesim_schema_find(schema, piece))
        return unknown_word(piece, err);
    word = word ? word : &key_alone;
    for (uint32_t i = 0; value; i++) {
        char *next = strchr(value, ':');
        if (next)
            *next++ = '\0';
        if (i == MAX_PARTS || !word->key[i])
            return moesim_fail(err, MOESIM_EINVAL, "'%s' in a cluster text has too many values at ':%.40s'", piece,
                               value);
        const struct moesim_param *row = moesim_schema_find(schema, word->key[i]);
        const size_t at = (size_t)(row - moesim_cluster_params);
        if (seen[at])
            return moesim_fail(err, MOESIM_EINVAL, "'%s' is given twice in a cluster text", piece);
        seen[at] = true;
        const enum moesim_status status = moesim_param_set(row, value, cluster, arena, err);
        if (status != MOESIM_OK) {
            moesim_error_prefix(err, "'%s' in a cluster text", piece);
            return status;
        }
        value = next;
    }
    return MOESIM_OK;
}

enum moesim_status moesim_cluster_read(const char *text, struct moesim_arena *arena, struct moesim_cluster *cluster,
                                       struct moesim_error *err)
{
    bool seen[64] = {false};
    char *copy = moesim_strdup(arena, text), *rest;
    if (!copy)
        return moesim_fail(err, MOESIM_ENOMEM, "there is no memory for '%.60s'", text);
    *cluster = plain;
    for (char *piece = strtok_r(copy, " \t\n", &rest); piece; piece = strtok_r(NULL, " \t\n", &rest)) {
        const enum moesim_status status = read_piece(piece, arena, cluster, seen, err);
        if (status != MOESIM_OK)
            return status;
    }
    if (!cluster->devices_per_node)
        return moesim_fail(err, MOESIM_EINVAL, "the cluster text '%.60s' lacks gpu: (devices of one node)", text);
    return moesim_cluster_rename(cluster, arena, err);
}

/* A text under construction, which may be longer than its room. */
struct output {
    char *text;
    size_t size, used;
};

static void put(struct output *out, const char *text)
{
    const size_t n = strlen(text);
    if (out->used < out->size)
        snprintf(out->text + out->used, out->size - out->used, "%s", text);
    out->used += n;
}

static bool differs(const struct moesim_param *row, const struct moesim_cluster *cluster)
{
    const size_t bytes = row->type == MOESIM_TYPE_UINT ? sizeof(uint32_t) : sizeof(double);
    return memcmp((const char *)cluster + row->offset, (const char *)&plain + row->offset, bytes) != 0;
}

/* "200e9" rather than "200000000000", where it is the same number. */
static void format_value(const struct moesim_param *row, const struct moesim_cluster *cluster, char *text, size_t size)
{
    static const struct {
        double least;
        const char *power;
        double unit;
    } units[] = {{1e15, "e15", 1e15}, {1e12, "e12", 1e12}, {1e9, "e9", 1e9}, {1e-7, "e-6", 1e-6}};
    const double value = row->type == MOESIM_TYPE_REAL ? *(const double *)((const char *)cluster + row->offset) : 0;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (value < units[i].least || (units[i].unit < 1 && value >= 1e-3))
            continue;
        snprintf(text, size, "%.15g%s", value / units[i].unit, units[i].power);
        if (strtod(text, NULL) == value)
            return;
    }
    moesim_param_format(row, cluster, text, size);
}

/* The word with its values up to the last that says something. */
static void put_word(struct output *out, const struct word *word, const struct moesim_cluster *cluster)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < MAX_PARTS && word->key[i]; i++)
        if (differs(moesim_schema_find(schema, word->key[i]), cluster))
            n = i + 1;
    for (uint32_t i = 0; i < n; i++) {
        char value[40];
        format_value(moesim_schema_find(schema, word->key[i]), cluster, value, sizeof value);
        put(out, i ? ":" : out->used ? " " : "");
        if (i == 0) {
            put(out, word->name);
            put(out, ":");
        }
        put(out, value);
    }
}

static bool has_word(const char *key)
{
    for (size_t i = 0; i < N_WORDS; i++)
        for (uint32_t j = 0; j < MAX_PARTS && words[i].key[j]; j++)
            if (strcmp(words[i].key[j], key) == 0)
                return true;
    return false;
}

size_t moesim_cluster_format(const struct moesim_cluster *cluster, char *text, size_t size)
{
    struct output out = {text, size, 0};
    const struct moesim_param *row;
    if (size)
        *text = '\0';
    for (size_t i = 0; i < N_WORDS; i++)
        put_word(&out, &words[i], cluster);
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)); i++)
        if (!has_word(row->key))
            put_word(&out, &(struct word){row->key, {row->key}}, cluster);
    return out.used;
}

enum moesim_status moesim_cluster_rename(struct moesim_cluster *cluster, struct moesim_arena *arena,
                                         struct moesim_error *err)
{
    char text[2048]; /* all keys with all their digits fit */
    moesim_cluster_format(cluster, text, sizeof text);
    cluster->name = moesim_strdup(arena, text);
    return cluster->name ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "there is no memory for '%.60s'", text);
}
