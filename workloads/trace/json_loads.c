/*
 * Loads in JSON, one layer at a time.
 */
#include "workloads/trace/json_loads.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of one layer. */
struct numbers {
    double *value;
    uint32_t n, room;
};

static enum moesim_status put(struct numbers *s, uint32_t i, double add, struct moesim_error *err)
{
    if (i >= TRACE_MAX_EXPERTS)
        return moesim_fail(err, MOESIM_EIO, "a layer has loads of more than %u experts", TRACE_MAX_EXPERTS);
    if (i >= s->room) {
        const uint32_t room = i + i / 2 + 64;
        double *more = realloc(s->value, room * sizeof *more);
        if (!more)
            return moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted while a trace is read");
        s->value = more;
        s->room = room;
    }
    for (; s->n <= i; s->n++)
        s->value[s->n] = 0;
    s->value[i] += add;
    return MOESIM_OK;
}

static enum moesim_status give(struct scan *j, const struct scan *from, struct numbers *s, uint32_t layer,
                               uint32_t step, struct trace_rows *rows)
{
    const enum moesim_status status = trace_rows_load(rows, layer, step, s->value, s->n, j->err);
    if (status)
        moesim_error_prefix(j->err, "%.300s: byte %zu", j->path, (size_t)(from->at - from->start));
    return status;
}

static enum moesim_status read_layer(struct scan *j, struct numbers *s, uint32_t layer, uint32_t step,
                                     struct trace_rows *rows)
{
    struct scan_walk walk;
    scan_peek(j);
    const struct scan from = *j;
    s->n = 0;
    enum moesim_status status = scan_open(j, SCAN_ARRAY, &walk);
    while (!status && !(status = scan_element(j, &walk)) && walk.more) {
        double load = 0;
        status = scan_number(j, &load);
        if (!status)
            status = put(s, s->n, load, j->err);
    }
    if (!status && s->n == 0)
        return scan_wrong(&from, "a layer has no loads");
    return status ? status : give(j, &from, s, layer, step, rows);
}

static enum moesim_status read_level(struct scan *j, uint32_t depth, struct numbers *s, uint32_t layer, uint32_t step,
                                     struct trace_rows *rows)
{
    struct scan_walk walk;
    if (depth == 1)
        return read_layer(j, s, layer, step, rows);
    enum moesim_status status = scan_open(j, SCAN_ARRAY, &walk);
    while (!status && !(status = scan_element(j, &walk)) && walk.more) {
        status = read_level(j, depth - 1, s, layer, step, rows);
        if (depth == 2)
            layer++;
        else
            step++;
    }
    return status;
}

enum moesim_status json_loads_read(struct scan *j, struct trace_rows *rows)
{
    struct numbers s = {0};
    const uint32_t depth = scan_array_depth(*j);
    if (depth < 1 || depth > 3)
        return scan_wrong(j, "loads should be [experts], [layers][experts] or [steps][layers][experts]");
    const enum moesim_status status = read_level(j, depth, &s, 0, 0, rows);
    free(s.value);
    return status;
}

/* ---- physical slots ---- */

/* The largest expert of a map [layers][slots], + 1. */
static enum moesim_status count_experts(struct scan j, uint32_t *n)
{
    struct scan_walk layers, slots;
    *n = 0;
    enum moesim_status status = scan_open(&j, SCAN_ARRAY, &layers);
    while (!status && !(status = scan_element(&j, &layers)) && layers.more) {
        status = scan_open(&j, SCAN_ARRAY, &slots);
        while (!status && !(status = scan_element(&j, &slots)) && slots.more) {
            int64_t e = 0;
            status = scan_whole(&j, "a slot's expert", &e);
            if (!status && (e < 0 || e >= TRACE_MAX_EXPERTS))
                status = scan_wrong(&j, "before this: a slot's expert is out of range");
            if (!status && e >= *n)
                *n = (uint32_t)e + 1;
        }
    }
    return status ? status : *n ? MOESIM_OK : scan_wrong(&j, "before this: a map of slots without a slot");
}

/* One layer: the map's slots, and their counts where `counts` is there (else each counts 1). */
static enum moesim_status add_slots(struct scan *map, struct scan *counts, struct numbers *s)
{
    struct scan_walk slots, beside = {.more = true};
    enum moesim_status status = scan_open(map, SCAN_ARRAY, &slots);
    if (!status && counts)
        status = scan_open(counts, SCAN_ARRAY, &beside);
    while (!status && !(status = scan_element(map, &slots))) {
        int64_t e = 0;
        double load = 1;
        if (counts && (status = scan_element(counts, &beside)))
            break;
        if (counts && beside.more != slots.more)
            return scan_wrong(counts, "there should be as many counts as slots in the map");
        if (!slots.more)
            break;
        status = scan_whole(map, "a slot's expert", &e);
        if (!status && counts)
            status = scan_number(counts, &load);
        if (!status)
            status = put(s, (uint32_t)e, load, map->err);
    }
    return status;
}

static enum moesim_status read_slots(struct scan map, struct scan *counts, struct trace_rows *rows, struct numbers *s)
{
    struct scan_walk layers, beside = {.more = true};
    uint32_t n_experts, layer = 0;
    const struct scan from = map;
    enum moesim_status status = count_experts(map, &n_experts);
    if (!status)
        status = scan_open(&map, SCAN_ARRAY, &layers);
    if (!status && counts)
        status = scan_open(counts, SCAN_ARRAY, &beside);
    while (!status && !(status = scan_element(&map, &layers))) {
        if (counts && (status = scan_element(counts, &beside)))
            break;
        if (counts && beside.more != layers.more)
            return scan_wrong(counts, "there should be as many layers of counts as of the map");
        if (!layers.more)
            break;
        s->n = 0;
        status = put(s, n_experts - 1, 0, map.err);
        if (!status)
            status = add_slots(&map, counts, s);
        if (!status)
            status = give(&map, &from, s, layer++, 0, rows);
    }
    return status;
}

enum moesim_status json_loads_record(const struct json_record *record, struct trace_rows *rows)
{
    struct scan values = record->value[KEY_LOGICAL_COUNT], counts = record->value[KEY_PHYSICAL_COUNT];
    struct numbers s = {0};
    if (values.at)
        return json_loads_read(&values, rows);
    if (!json_record_has(record, KEY_PHYSICAL_MAP))
        return scan_wrong(&record->start, "counts of physical slots need physical_to_logical_map beside them");
    const enum moesim_status status = read_slots(record->value[KEY_PHYSICAL_MAP], counts.at ? &counts : NULL, rows, &s);
    free(s.value);
    return status;
}
