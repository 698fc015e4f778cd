/*
 * Points: every cell with every seed, those of one routing side by side, with hashes and JSON.
 */
#include "sim/study/resolve.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "sim/study/study_state.h"

/* Changes when the same parameters give other figures than before, so that old runs are not taken for new ones. */
static const char engine[] = "moesim engine 1";

struct points {
    struct moesim_resolver *r;
    const struct moesim_selection *selection;
    struct moesim_point *item;
    uint32_t n;
    char **json; /* [n_json] of each cell, without seed */
    uint32_t n_json;
};

static uint64_t hash_text(uint64_t hash, const char *text)
{
    return moesim_hash(hash, text, strlen(text) + 1);
}

static uint64_t hash_number(uint64_t hash, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    return hash_text(hash, text);
}

/* What the points of a cell share. */
struct cell_texts {
    const struct moesim_label *labels;
    uint32_t n_labels;
    char *json; /* without seed */
    uint64_t routing_hash, files_hash;
};

/* What the files of these components hold. */
static uint64_t hash_files(uint64_t hash, const struct moesim_cell *cell, bool of_routing)
{
    for (uint32_t c = 0; c < MOESIM_N_COMPONENTS; c++)
        if (cell->chosen[c]->files_hash && !(of_routing && (c == MOESIM_CLUSTER || c == MOESIM_PLACEMENT)))
            hash = hash_number(hash, cell->chosen[c]->files_hash);
    return hash;
}

/* The counted results depend on the parameters, on files, on a plugin's code and on the engine. */
static uint64_t hash_of(const struct moesim_point *p, uint64_t seed, const struct cell_texts *texts)
{
    uint64_t hash = hash_text(texts->files_hash, engine);
    hash = hash_number(hash, seed);
    hash = hash_number(hash, p->router->file_hash);
    return hash_text(hash, texts->json);
}

/* Home devices, and with them groups and what is priced, follow the number of devices. What else a plugin looks at
 * is not known, so it shares its routing with nobody. */
static uint64_t route_hash_of(const struct moesim_point *p, uint64_t seed, uint64_t labels_hash)
{
    uint64_t hash = hash_number(labels_hash, seed);
    hash = hash_number(hash, p->router->plugin ? p->hash : 0);
    return hash_number(hash, p->has_cluster ? moesim_cluster_devices(&p->cluster) : 1);
}

static bool add_point(struct points *points, const struct cell_texts *texts, const struct moesim_point *point,
                      uint64_t seed)
{
    struct moesim_arena *arena = points->r->arena;
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, seed);
    struct moesim_label *own = moesim_alloc(arena, texts->n_labels, sizeof *own);
    const size_t size = strlen(texts->json) + (size_t)length + sizeof "{\"seed\":,";
    char *text = moesim_alloc(arena, size, 1), *seed_text = moesim_strdup(arena, digits);
    if (!own || !text || !seed_text)
        return false;
    memcpy(own, texts->labels, texts->n_labels * sizeof *own);
    for (uint32_t i = 0; i < texts->n_labels; i++)
        if (!strcmp(own[i].path, "seed")) {
            own[i].value = seed_text;
            own[i].number = (double)seed;
        }
    snprintf(text, size, "{\"seed\":%s,%s", digits, texts->json + 1);

    struct moesim_point *p = &points->item[points->n++];
    *p = *point;
    p->seed = seed;
    p->labels = own;
    p->n_labels = texts->n_labels;
    p->json = text;
    p->hash = hash_of(p, seed, texts);
    p->route_hash = route_hash_of(p, seed, texts->routing_hash);
    return true;
}

/* The metrics of training are measured in it alone, and the curves that it is judged by are recorded. */
static void select_training(struct moesim_point *p)
{
    for (uint32_t m = MOESIM_TRAIN_LOSS; m <= MOESIM_TIME_STEP; m++)
        p->measure[m] &= p->mode == MOESIM_MODE_TRAIN;
    static const uint32_t curves[] = {
        MOESIM_TRAIN_LOSS,
        MOESIM_BITS_PER_BYTE,
        MOESIM_GRAD_NORM,
        MOESIM_MAX_VIO,
        MOESIM_MAX_VIO_GLOBAL,
        MOESIM_DEAD_EXPERTS,
        MOESIM_ROUTER_ENTROPY,
        MOESIM_ROUTER_Z,
        MOESIM_ROUTING_FLUCTUATION,
        MOESIM_ROUTER_SATURATION,
        MOESIM_DOMAIN_SPECIALISATION,
        MOESIM_VOCABULARY_SPECIALISATION,
        MOESIM_FLOP_TRAIN,
        MOESIM_TIME_STEP,
    };
    for (size_t i = 0; i < sizeof curves / sizeof *curves && p->mode == MOESIM_MODE_TRAIN; i++)
        p->record[curves[i]] |= p->measure[curves[i]];
}

/* The points of a cell: one for each seed that no rule excludes. */
static bool add_cell(struct points *points, const struct moesim_axes *axes, struct moesim_cell *cell,
                     struct moesim_labels *labels, const bool *excluded)
{
    struct moesim_arena *arena = points->r->arena;
    struct moesim_point *p = &cell->point;
    const struct moesim_selection *selection = points->selection;
    struct cell_texts texts = {.routing_hash = hash_files(moesim_labels_routing_hash(labels), cell, true),
                               .files_hash = hash_files(MOESIM_HASH_START, cell, false)};
    texts.labels = moesim_labels_finish(labels, arena, &texts.n_labels);
    texts.json = moesim_labels_json(labels, arena);
    if (!texts.labels || !texts.json)
        return false;
    p->record_expert_load = selection->expert_load;
    p->record_traffic = selection->traffic;
    memcpy(p->record, selection->record, sizeof p->record);
    memcpy(p->measure, selection->measure, sizeof p->measure);
    select_training(p);
    points->json[points->n_json++] = texts.json;
    for (uint32_t s = 0; s < axes->n_seeds; s++)
        if (!excluded[s] && !add_point(points, &texts, p, axes->seeds[s]))
            return false;
    return true;
}

/* All cells that are not excluded are checked; points are made while nothing is wrong. */
static void make_points(struct points *points, const struct moesim_axes *axes)
{
    struct moesim_resolver *r = points->r;
    const bool wrong = r->mistakes->n > 0;
    struct moesim_labels *labels = moesim_labels_create(r->arena);
    bool *excluded = moesim_alloc(r->arena, axes->n_seeds, sizeof *excluded);
    points->json = moesim_alloc(r->arena, axes->n_cells, sizeof *points->json);
    points->item = moesim_alloc(r->arena, wrong ? 0 : axes->n_cells * axes->n_seeds, sizeof *points->item);
    bool memory = labels && excluded && points->json && points->item;
    for (uint64_t i = 0; memory && i < axes->n_cells; i++) {
        struct moesim_cell cell;
        if (!moesim_cell_build(r, axes, i, &cell, labels) ||
            !moesim_exclude(r->root, labels, axes->seeds, axes->n_seeds, excluded))
            continue;
        moesim_cell_check(r, &cell);
        if (!r->mistakes->n)
            memory = add_cell(points, axes, &cell, labels, excluded);
    }
    if (!memory)
        moesim_mistake(r->mistakes, 0, 0, "there is no memory for the study");
    else if (!r->mistakes->n && !points->n)
        moesim_mistake(r->mistakes, r->root->line, r->root->column, "exclude leaves no point");
}

struct rank {
    uint64_t hash;
    uint32_t index, first; /* in file order; of the first point with this hash */
};

static int by_hash(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    return x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : (x->index > y->index) - (x->index < y->index);
}

static int by_first(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    return x->first != y->first ? (x->first < y->first ? -1 : 1) : (x->index > y->index) - (x->index < y->index);
}

/* ranks[i].first = the first index with an equal hash; sorted by hash, then index. */
static void find_firsts(struct rank *ranks, uint32_t n)
{
    qsort(ranks, n, sizeof *ranks, by_hash);
    for (uint32_t i = 0; i < n; i++)
        ranks[i].first = i && ranks[i].hash == ranks[i - 1].hash ? ranks[i - 1].first : ranks[i].index;
}

/* File order, but a point follows the first one of its routing; points that say the same in other words are one. */
static bool order_points(struct points *points, const struct moesim_point *const **out, uint32_t *n)
{
    struct moesim_arena *arena = points->r->arena;
    struct rank *ranks = moesim_alloc(arena, points->n, sizeof *ranks);
    const struct moesim_point **list = moesim_alloc(arena, points->n, sizeof *list);
    if (!ranks || !list)
        return false;
    uint32_t n_kept = 0;
    for (uint32_t i = 0; i < points->n; i++)
        ranks[i] = (struct rank){points->item[i].hash, i, 0};
    find_firsts(ranks, points->n);
    for (uint32_t i = 0; i < points->n; i++)
        if (ranks[i].first == ranks[i].index)
            ranks[n_kept++] = (struct rank){points->item[ranks[i].index].route_hash, ranks[i].index, 0};
    find_firsts(ranks, n_kept);
    qsort(ranks, n_kept, sizeof *ranks, by_first);
    for (uint32_t i = 0; i < n_kept; i++)
        list[i] = &points->item[ranks[i].index];
    *out = list;
    *n = n_kept;
    return true;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void write_marks(FILE *out, const char *key, const bool *marks, const char *extra)
{
    fprintf(out, "\"%s\":[%s", key, extra);
    const char *comma = *extra ? "," : "";
    for (int i = 0; i < MOESIM_N_METRICS; i++) {
        if (!marks[i])
            continue;
        fprintf(out, "%s\"%s\"", comma, moesim_metrics[i].name);
        comma = ",";
    }
    fputs("],", out);
}

/* Sorted, so that the order in which a file names things does not matter. */
static char *study_json(struct moesim_study *study, struct points *points)
{
    const struct moesim_selection *selection = points->selection;
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    qsort(points->json, points->n_json, sizeof *points->json, by_text);
    fputc('{', out);
    write_marks(out, "metrics", selection->measure, "");
    const char *extra = selection->expert_load && selection->traffic ? "\"expert_load\",\"traffic\""
                        : selection->expert_load                     ? "\"expert_load\""
                        : selection->traffic                         ? "\"traffic\""
                                                                     : "";
    write_marks(out, "record", selection->record, extra);
    if (study->named)
        fprintf(out, "\"study\":\"%s\",", moesim_study_name(study));
    fputs("\"points\":[", out);
    const char *last = "", *comma = "";
    for (uint32_t i = 0; i < points->n_json; i++) {
        if (strcmp(points->json[i], last) != 0) {
            fprintf(out, "%s%s", comma, points->json[i]);
            comma = ",";
        }
        last = points->json[i];
    }
    fputs("]}", out);
    char *copy = fclose(out) == 0 ? moesim_strdup(study->arena, text) : NULL;
    free(text);
    return copy;
}

bool moesim_study_resolve(struct moesim_study *study, const struct moesim_registry *registry,
                          const struct moesim_point *const **points_out, uint32_t *n, struct moesim_mistakes *mistakes)
{
    struct moesim_resolver r = {study->arena, mistakes, registry, study->root, NULL};
    struct moesim_selection selection;
    struct moesim_axes axes;
    struct points points = {.r = &r, .selection = &selection};
    moesim_mistakes_add(mistakes, &study->noted);
    moesim_keys_check(&r);
    moesim_selection_read(&r, &selection);
    moesim_exclude_check(&r);
    if (moesim_axes_read(&r, &axes))
        make_points(&points, &axes);
    if (!mistakes->n && (!(study->json = study_json(study, &points)) || !order_points(&points, points_out, n)))
        moesim_mistake(mistakes, 0, 0, "there is no memory for the study");
    moesim_mistakes_sort(mistakes);
    return mistakes->n == 0;
}
