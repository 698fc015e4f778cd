/*
 * Labels of a point, gathered in one reused buffer, and the JSON made of them.
 */
#include "sim/study/resolve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

enum { MAX_LABELS = 512, MAX_TEXT = 1 << 18 };

enum kind { KIND_TEXT, KIND_NUMBER, KIND_BOOL };

struct entry {
    uint32_t path, value; /* offsets into text */
    enum kind kind;
};

struct moesim_labels {
    uint32_t n;
    size_t used;
    bool overflow;
    bool sorted;
    struct entry entry[MAX_LABELS];
    char text[MAX_TEXT];
};

struct moesim_labels *moesim_labels_create(struct moesim_arena *arena)
{
    return moesim_alloc(arena, 1, sizeof(struct moesim_labels));
}

void moesim_labels_clear(struct moesim_labels *labels)
{
    labels->n = 0;
    labels->used = 0;
    labels->overflow = labels->sorted = false;
}

static void add(struct moesim_labels *labels, const char *head, const char *key, const char *value, enum kind kind)
{
    const size_t path_size = strlen(head) + strlen(key) + 2, value_size = strlen(value) + 1;
    if (labels->n == MAX_LABELS || path_size + value_size > MAX_TEXT - labels->used) {
        labels->overflow = true;
        return;
    }
    struct entry *entry = &labels->entry[labels->n++];
    char *path = labels->text + labels->used;
    snprintf(path, path_size, "%s%s%s", head, *head && *key ? "." : "", key);
    memcpy(path + path_size, value, value_size);
    *entry = (struct entry){(uint32_t)labels->used, (uint32_t)(labels->used + path_size), kind};
    labels->used += path_size + value_size;
    labels->sorted = false;
}

void moesim_labels_text(struct moesim_labels *labels, const char *head, const char *key, const char *value)
{
    add(labels, head, key, value, KIND_TEXT);
}

void moesim_labels_count(struct moesim_labels *labels, const char *head, const char *key, uint64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, value);
    add(labels, head, key, text, KIND_NUMBER);
}

void moesim_labels_params(struct moesim_labels *labels, const char *head, struct moesim_schema schema,
                          const void *params)
{
    const struct moesim_param *row;
    for (uint32_t i = 0; (row = moesim_schema_row(schema, i)); i++) {
        if (!strcmp(row->key, "name"))
            continue;
        char text[4096];
        moesim_param_format(row, params, text, sizeof text);
        const enum kind kind = row->type == MOESIM_TYPE_BOOL   ? KIND_BOOL
                               : row->type <= MOESIM_TYPE_REAL ? KIND_NUMBER
                                                               : KIND_TEXT;
        add(labels, head, row->key, text, kind);
    }
}

const char *moesim_labels_find(const struct moesim_labels *labels, const char *path)
{
    for (uint32_t i = 0; i < labels->n; i++)
        if (!strcmp(labels->text + labels->entry[i].path, path))
            return labels->text + labels->entry[i].value;
    return NULL;
}

/* At most a few dozen, nearly sorted. */
static void sort(struct moesim_labels *labels)
{
    for (uint32_t i = 1; !labels->sorted && i < labels->n; i++) {
        const struct entry moved = labels->entry[i];
        uint32_t j = i;
        for (; j > 0 && strcmp(labels->text + labels->entry[j - 1].path, labels->text + moved.path) > 0; j--)
            labels->entry[j] = labels->entry[j - 1];
        labels->entry[j] = moved;
    }
    labels->sorted = true;
}

struct moesim_label *moesim_labels_finish(struct moesim_labels *labels, struct moesim_arena *arena, uint32_t *n)
{
    sort(labels);
    struct moesim_label *out = moesim_alloc(arena, labels->n, sizeof *out);
    char *text = moesim_alloc(arena, labels->used, 1);
    if (labels->overflow || !out || !text)
        return NULL;
    memcpy(text, labels->text, labels->used);
    for (uint32_t i = 0; i < labels->n; i++) {
        const struct entry *entry = &labels->entry[i];
        out[i] = (struct moesim_label){.path = text + entry->path, .value = text + entry->value};
        out[i].is_number = entry->kind == KIND_NUMBER;
        if (out[i].is_number)
            out[i].number = strtod(out[i].value, NULL);
    }
    *n = labels->n;
    return out;
}

static void write_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if ((unsigned char)*c < 0x20)
            fprintf(out, "\\u%04x", (unsigned char)*c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

/* SPECs repeat what their component's keys say; the seed is put in front by whoever knows it. */
static bool left_out(const char *path)
{
    bool out = !strcmp(path, "seed");
    for (int c = 0; c < MOESIM_N_COMPONENTS; c++)
        out |= !strcmp(path, moesim_component_names[c]);
    return out;
}

/* {"mode": ..., "router": {"k": ...}}: paths with one head are neighbours once sorted. */
static void write_json(const struct moesim_labels *labels, FILE *out)
{
    const char *open = NULL; /* head of the open inner object */
    size_t open_length = 0;
    const char *comma = "";
    fputc('{', out);
    for (uint32_t i = 0; i < labels->n; i++) {
        const char *path = labels->text + labels->entry[i].path, *value = labels->text + labels->entry[i].value;
        if (left_out(path))
            continue;
        const char *dot = strchr(path, '.');
        const size_t head = dot ? (size_t)(dot - path) : 0;
        if (open && (head != open_length || strncmp(open, path, head) != 0)) {
            fputc('}', out);
            open = NULL;
            comma = ",";
        }
        if (head && !open) {
            fprintf(out, "%s\"%.*s\":{", comma, (int)head, path);
            open = path;
            open_length = head;
            comma = "";
        }
        fputs(comma, out);
        write_json_string(out, dot ? dot + 1 : path);
        fputc(':', out);
        if (labels->entry[i].kind == KIND_TEXT)
            write_json_string(out, value);
        else
            fputs(value, out);
        comma = ",";
    }
    fputs(open ? "}}" : "}", out);
}

char *moesim_labels_json(struct moesim_labels *labels, struct moesim_arena *arena)
{
    sort(labels);
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    write_json(labels, out);
    const bool failed = ferror(out) || labels->overflow;
    char *copy = fclose(out) == 0 && !failed ? moesim_strdup(arena, text) : NULL;
    free(text);
    return copy;
}

static bool of_cost(const char *path)
{
    bool found = !strncmp(path, "cluster.", 8) || !strncmp(path, "placement.", 10);
    for (uint32_t i = MOESIM_PLAIN_OF_COST; i < MOESIM_N_PLAIN; i++)
        found |= !strcmp(path, moesim_plain_params[i].key);
    return found;
}

uint64_t moesim_labels_routing_hash(struct moesim_labels *labels)
{
    sort(labels);
    uint64_t hash = MOESIM_HASH_START;
    for (uint32_t i = 0; i < labels->n; i++) {
        const char *path = labels->text + labels->entry[i].path, *value = labels->text + labels->entry[i].value;
        if (left_out(path) || of_cost(path))
            continue;
        hash = moesim_hash(hash, path, strlen(path) + 1);
        hash = moesim_hash(hash, value, strlen(value) + 1);
    }
    return hash;
}
