/* Folding stored runs into rows. */
#include "cli/figures.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

struct key {
    uint64_t hash;
    uint32_t row;
};

#define NO_ROW UINT32_MAX

/* Rows by their texts, by open addressing. */
struct row_index {
    uint32_t *row; /* [mask + 1], NO_ROW = free; at most half of it is used */
    uint32_t mask;
};

static int by_hash(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    return x->hash < y->hash ? -1 : x->hash > y->hash;
}

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* Axes that have a place of their own in the table, and SPECs that repeat what their keys say. */
static bool is_said_elsewhere(const char *path)
{
    static const char *const axis[] = {"router", "workload", "cluster", "placement", "seed"};
    if (strcmp(path, "model") == 0 || strcmp(path, "train") == 0)
        return true;
    for (uint32_t i = 0; i < sizeof axis / sizeof *axis; i++) {
        size_t n = strlen(axis[i]);
        if (strncmp(path, axis[i], n) == 0 && (path[n] == '\0' || path[n] == '.'))
            return true;
    }
    return false;
}

static const struct moesim_label *label_of(const struct moesim_point *point, const char *path, uint32_t guess)
{
    if (guess < point->n_labels && strcmp(point->labels[guess].path, path) == 0)
        return &point->labels[guess];
    for (uint32_t i = 0; i < point->n_labels; i++)
        if (strcmp(point->labels[i].path, path) == 0)
            return &point->labels[i];
    return NULL;
}

/* varies[i]: label i of `reference` differs at some point of the same workload. */
static void find_varying(const struct loaded_study *loaded, const struct moesim_point *reference, bool *varies)
{
    for (uint32_t p = 0; p < loaded->n_points; p++) {
        const struct moesim_point *point = loaded->points[p];
        if (point->labels == reference->labels || strcmp(point->workload_spec, reference->workload_spec) != 0)
            continue;
        for (uint32_t i = 0; i < reference->n_labels; i++) {
            const struct moesim_label *label = &reference->labels[i];
            const struct moesim_label *other = varies[i] ? NULL : label_of(point, label->path, i);
            varies[i] |= other && other->value != label->value && strcmp(other->value, label->value) != 0;
        }
    }
    for (uint32_t i = 0; i < reference->n_labels; i++)
        varies[i] = varies[i] && !is_said_elsewhere(reference->labels[i].path);
}

static const char *settings_of(const struct moesim_point *point, const struct moesim_point *reference,
                               const bool *varies, struct moesim_arena *arena)
{
    char text[1024] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < reference->n_labels && used < sizeof text; i++) {
        const struct moesim_label *label = varies[i] ? label_of(point, reference->labels[i].path, i) : NULL;
        if (label)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s=%s", used ? " " : "", label->path,
                                     label->value);
    }
    return moesim_strdup(arena, text);
}

static bool create_index(struct row_index *index, uint32_t n_points, struct moesim_arena *arena)
{
    index->mask = 1;
    while (index->mask / 2 < n_points)
        index->mask = index->mask * 2 + 1;
    index->row = moesim_alloc(arena, (size_t)index->mask + 1, sizeof *index->row);
    for (uint32_t i = 0; index->row && i <= index->mask; i++)
        index->row[i] = NO_ROW;
    return index->row != NULL;
}

static struct figures_row *find_row(struct figures *figures, const struct row_index *index,
                                    const struct moesim_point *point, const char *settings)
{
    const char *const texts[] = {point->workload_spec, point->router_spec, or_empty(point->cluster_spec),
                                 or_empty(point->placement_spec), settings};
    uint64_t hash = MOESIM_HASH_START;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        hash = moesim_hash(hash, texts[i], strlen(texts[i]) + 1);
    uint32_t at = (uint32_t)hash & index->mask;
    for (; index->row[at] != NO_ROW; at = (at + 1) & index->mask) {
        struct figures_row *row = &figures->row[index->row[at]];
        if (strcmp(row->workload, texts[0]) == 0 && strcmp(row->router, texts[1]) == 0 &&
            strcmp(row->cluster, texts[2]) == 0 && strcmp(row->placement, texts[3]) == 0 &&
            strcmp(row->settings, texts[4]) == 0)
            return row;
    }
    index->row[at] = figures->n_rows;
    struct figures_row *row = &figures->row[figures->n_rows++];
    *row = (struct figures_row){.workload = point->workload_spec,
                                .router = point->router_spec,
                                .cluster = or_empty(point->cluster_spec),
                                .placement = or_empty(point->placement_spec),
                                .settings = settings,
                                .point = point};
    return row;
}

/* Rows and keys of the points of one workload, in order. */
static bool add_workload(const struct loaded_study *loaded, uint32_t first, struct moesim_arena *arena,
                         struct figures *figures, const struct row_index *index, struct key *key)
{
    const struct moesim_point *reference = loaded->points[first];
    bool *varies = moesim_alloc(arena, reference->n_labels, sizeof *varies);
    if (!varies)
        return false;
    find_varying(loaded, reference, varies);
    for (uint32_t p = first; p < loaded->n_points; p++) {
        const struct moesim_point *point = loaded->points[p];
        if (strcmp(point->workload_spec, reference->workload_spec) != 0)
            continue;
        const char *settings = settings_of(point, reference, varies, arena);
        if (!settings)
            return false;
        struct figures_row *row = find_row(figures, index, point, settings);
        row->n_points++;
        key[p] = (struct key){point->hash, (uint32_t)(row - figures->row)};
        figures->many_clusters |= strcmp(row->cluster, figures->row[0].cluster) != 0;
        figures->many_placements |= strcmp(row->placement, figures->row[0].placement) != 0;
        figures->has_settings |= *settings != '\0';
    }
    return true;
}

static uint32_t count_seeds(const struct loaded_study *loaded)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < loaded->n_points && n < 1000; i++) {
        bool seen = false;
        for (uint32_t j = 0; !seen && j < i; j++)
            seen = loaded->points[j]->seed == loaded->points[i]->seed;
        n += !seen;
    }
    return n;
}

static bool make_rows(const struct loaded_study *loaded, struct moesim_arena *arena, struct figures *figures,
                      struct key *key)
{
    struct row_index index;
    if (!create_index(&index, loaded->n_points, arena))
        return false;
    for (uint32_t p = 0; p < loaded->n_points; p++)
        key[p].row = NO_ROW;
    for (uint32_t p = 0; p < loaded->n_points; p++)
        if (key[p].row == NO_ROW && !add_workload(loaded, p, arena, figures, &index, key))
            return false;
    figures->n_seeds = count_seeds(loaded);
    qsort(key, loaded->n_points, sizeof *key, by_hash);
    return true;
}

static struct figures_row *row_of(const struct figures *figures, const struct key *key, uint32_t n, const char *hash)
{
    struct key wanted = {.hash = strtoull(hash, NULL, 16)};
    const struct key *found = bsearch(&wanted, key, n, sizeof *key, by_hash);
    return found ? &figures->row[found->row] : NULL;
}

/* Sums in the order of the runs' ids: by point, so that the mean does not depend on which worker was first. */
static enum moesim_status read_means(struct results_store *store, const char *study, struct figures *figures,
                                     const struct key *key, uint32_t n, struct moesim_error *err)
{
    struct results_query *query;
    enum moesim_status status =
        results_query(store,
                      "SELECT r.hash, m.name, s.value FROM run r JOIN summary s ON s.run = r.id AND s.layer IS NULL "
                      "JOIN metric m ON m.id = s.metric WHERE r.study = CAST(?1 AS INTEGER) AND r.state = 'done' "
                      "ORDER BY r.point, r.id",
                      &study, 1, &query, err);
    bool more = false;
    while (!status && !(status = results_next(query, &more, err)) && more) {
        struct figures_row *row = row_of(figures, key, n, results_text(query, 0));
        int metric = moesim_metric_find(results_text(query, 1));
        if (!row || metric < 0 || results_is_null(query, 2))
            continue;
        row->mean[metric] += results_number(query, 2);
        row->n[metric]++;
    }
    results_query_close(query);
    for (uint32_t i = 0; i < figures->n_rows; i++)
        for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
            figures->row[i].mean[m] =
                figures->row[i].n[m] ? figures->row[i].mean[m] / figures->row[i].n[m] : (double)NAN;
    return status;
}

static enum moesim_status count_done(struct results_store *store, const char *study, struct figures *figures,
                                     const struct key *key, uint32_t n, struct moesim_error *err)
{
    struct results_query *query;
    enum moesim_status status = results_query(
        store, "SELECT hash FROM run WHERE study = CAST(?1 AS INTEGER) AND state = 'done'", &study, 1, &query, err);
    bool more = false;
    while (!status && !(status = results_next(query, &more, err)) && more) {
        struct figures_row *row = row_of(figures, key, n, results_text(query, 0));
        if (row)
            row->n_done++;
    }
    results_query_close(query);
    return status;
}

static enum moesim_status read_sources(struct results_store *store, const char *study, struct moesim_arena *arena,
                                       struct figures *figures, struct moesim_error *err)
{
    struct results_query *query;
    enum moesim_status status =
        results_query(store,
                      "SELECT DISTINCT p.value, r.workload FROM run r JOIN run_param p ON p.run = r.id AND "
                      "p.path = 'workload' WHERE r.study = CAST(?1 AS INTEGER) AND r.workload <> '' ORDER BY r.point",
                      &study, 1, &query, err);
    bool more = false;
    while (!status && !(status = results_next(query, &more, err)) && more && figures->n_sources < figures->n_rows) {
        const char *workload = moesim_strdup(arena, results_text(query, 0));
        const char *data = moesim_strdup(arena, results_text(query, 1));
        if (!workload || !data)
            status = moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
        figures->source[figures->n_sources].workload = workload;
        figures->source[figures->n_sources++].data = data;
    }
    results_query_close(query);
    return status;
}

enum moesim_status figures_read(const struct loaded_study *loaded, struct results_store *store, int64_t study,
                                struct moesim_arena *arena, struct figures *figures, struct moesim_error *err)
{
    *figures = (struct figures){.row = moesim_alloc(arena, loaded->n_points, sizeof *figures->row),
                                .source = moesim_alloc(arena, loaded->n_points, sizeof *figures->source)};
    struct key *key = moesim_alloc(arena, loaded->n_points, sizeof *key);
    if (!figures->row || !figures->source || !key || !make_rows(loaded, arena, figures, key))
        return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    char id[24];
    snprintf(id, sizeof id, "%" PRId64, study);
    enum moesim_status status = read_means(store, id, figures, key, loaded->n_points, err);
    if (!status)
        status = count_done(store, id, figures, key, loaded->n_points, err);
    return status ? status : read_sources(store, id, arena, figures, err);
}
