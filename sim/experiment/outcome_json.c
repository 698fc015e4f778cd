/*
 * An outcome as JSON and back, for worker processes. Numbers carry 17 digits, so that every double keeps its bits.
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "sim/experiment/experiment.h"

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *counts(const uint64_t *c, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer((json_int_t)c[i]));
    return array;
}

static json_t *summaries(const struct moesim_outcome *o)
{
    json_t *rows = json_array();
    for (uint64_t i = 0; i < o->n_summaries; i++) {
        const struct moesim_summary *s = &o->summary[i];
        json_array_append_new(rows, json_pack("[i, i, o, o, o, o, o, o, o, I]", (int)s->layer, (int)s->metric,
                                              real(s->value), real(s->mean), real(s->std), real(s->min), real(s->p50),
                                              real(s->p95), real(s->max), (json_int_t)s->n));
    }
    return rows;
}

static json_t *series(const struct moesim_outcome *o)
{
    json_t *rows = json_array();
    for (uint64_t i = 0; i < o->n_series; i++)
        json_array_append_new(rows,
                              json_pack("[I, I, I, o]", (json_int_t)o->series[i].step, (json_int_t)o->series[i].layer,
                                        (json_int_t)o->series[i].metric, real(o->series[i].value)));
    return rows;
}

static json_t *windows(const struct moesim_outcome *o)
{
    json_t *rows = json_array();
    for (uint64_t i = 0; i < o->n_windows; i++) {
        const struct moesim_load_window *w = &o->window[i];
        json_array_append_new(rows, json_pack("[I, I, I, I, o, o]", (json_int_t)w->window, (json_int_t)w->layer,
                                              (json_int_t)w->first_step, (json_int_t)w->n_steps,
                                              counts(w->assigned, w->n_experts), counts(w->kept, w->n_experts)));
    }
    return rows;
}

static json_t *traffic(const struct moesim_outcome *o)
{
    json_t *rows = json_array();
    for (uint64_t i = 0; i < o->n_traffic; i++)
        json_array_append_new(rows, json_pack("[I, I, o, I]", (json_int_t)o->traffic[i].source,
                                              (json_int_t)o->traffic[i].target, real(o->traffic[i].bytes),
                                              (json_int_t)o->traffic[i].link));
    return rows;
}

char *moesim_outcome_to_json(const struct moesim_outcome *o)
{
    json_t *root =
        json_pack("{s:o, s:o, s:o, s:o, s:s, s:s, s:s, s:o}", "summary", summaries(o), "series", series(o), "window",
                  windows(o), "traffic", traffic(o), "workload", o->workload_provenance, "kernel_path", o->kernel_path,
                  "note", o->note ? o->note : "", "seconds", real(o->seconds));
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return text;
}

/* ---- and back ---- */

static double number(const json_t *row, size_t i)
{
    const json_t *value = json_array_get(row, i);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static uint32_t whole(const json_t *row, size_t i)
{
    return (uint32_t)json_integer_value(json_array_get(row, i));
}

static uint64_t *counts_of(const json_t *array, struct moesim_arena *arena)
{
    const size_t n = json_array_size(array);
    uint64_t *c = moesim_alloc(arena, n, sizeof *c);
    for (size_t i = 0; c && i < n; i++)
        c[i] = (uint64_t)json_integer_value(json_array_get(array, i));
    return c;
}

static bool read_summaries(const json_t *rows, struct moesim_outcome *o)
{
    o->n_summaries = json_array_size(rows);
    o->summary = moesim_alloc(o->arena, o->n_summaries, sizeof *o->summary);
    for (size_t i = 0; o->summary && i < o->n_summaries; i++) {
        const json_t *r = json_array_get(rows, i);
        o->summary[i] = (struct moesim_summary){.layer = (int32_t)json_integer_value(json_array_get(r, 0)),
                                                .metric = whole(r, 1),
                                                .value = number(r, 2),
                                                .mean = number(r, 3),
                                                .std = number(r, 4),
                                                .min = number(r, 5),
                                                .p50 = number(r, 6),
                                                .p95 = number(r, 7),
                                                .max = number(r, 8),
                                                .n = (uint64_t)json_integer_value(json_array_get(r, 9))};
        if (o->summary[i].metric >= MOESIM_N_METRICS)
            return false;
    }
    return o->summary != NULL;
}

static bool read_series(const json_t *rows, struct moesim_outcome *o)
{
    o->n_series = json_array_size(rows);
    o->series = moesim_alloc(o->arena, o->n_series, sizeof *o->series);
    for (size_t i = 0; o->series && i < o->n_series; i++) {
        const json_t *r = json_array_get(rows, i);
        o->series[i] = (struct moesim_sample){
            .step = whole(r, 0), .layer = whole(r, 1), .metric = whole(r, 2), .value = number(r, 3)};
        if (o->series[i].metric >= MOESIM_N_METRICS)
            return false;
    }
    return o->series != NULL;
}

static bool read_windows(const json_t *rows, struct moesim_outcome *o)
{
    o->n_windows = json_array_size(rows);
    o->window = moesim_alloc(o->arena, o->n_windows, sizeof *o->window);
    for (size_t i = 0; o->window && i < o->n_windows; i++) {
        const json_t *r = json_array_get(rows, i);
        struct moesim_load_window *w = &o->window[i];
        *w = (struct moesim_load_window){.window = whole(r, 0),
                                         .layer = whole(r, 1),
                                         .first_step = whole(r, 2),
                                         .n_steps = whole(r, 3),
                                         .n_experts = (uint32_t)json_array_size(json_array_get(r, 4)),
                                         .assigned = counts_of(json_array_get(r, 4), o->arena),
                                         .kept = counts_of(json_array_get(r, 5), o->arena)};
        if (!w->assigned || !w->kept || json_array_size(json_array_get(r, 5)) != w->n_experts)
            return false;
    }
    return o->window != NULL;
}

static bool read_traffic(const json_t *rows, struct moesim_outcome *o)
{
    o->n_traffic = json_array_size(rows);
    o->traffic = moesim_alloc(o->arena, o->n_traffic, sizeof *o->traffic);
    for (size_t i = 0; o->traffic && i < o->n_traffic; i++) {
        const json_t *r = json_array_get(rows, i);
        o->traffic[i] = (struct moesim_traffic){
            .source = whole(r, 0), .target = whole(r, 1), .bytes = number(r, 2), .link = whole(r, 3)};
        if (o->traffic[i].link >= MOESIM_N_LINKS)
            return false;
    }
    return o->traffic != NULL;
}

static char *text_of(const json_t *root, const char *key, struct moesim_arena *arena)
{
    const char *text = json_string_value(json_object_get(root, key));
    return moesim_strdup(arena, text ? text : "");
}

enum moesim_status moesim_outcome_from_json(const char *text, struct moesim_arena *arena,
                                            struct moesim_outcome *outcome, struct moesim_error *err)
{
    json_error_t where;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    *outcome = (struct moesim_outcome){.arena = arena};
    static const char *const parts[] = {"summary", "series", "window", "traffic"};
    bool whole_text = root != NULL;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        whole_text = whole_text && json_is_array(json_object_get(root, parts[i]));
    whole_text = whole_text && read_summaries(json_object_get(root, "summary"), outcome) &&
                 read_series(json_object_get(root, "series"), outcome) &&
                 read_windows(json_object_get(root, "window"), outcome) &&
                 read_traffic(json_object_get(root, "traffic"), outcome);
    if (whole_text) {
        outcome->workload_provenance = text_of(root, "workload", arena);
        outcome->kernel_path = text_of(root, "kernel_path", arena);
        outcome->note = text_of(root, "note", arena);
        outcome->seconds = json_number_value(json_object_get(root, "seconds"));
        whole_text = outcome->workload_provenance && outcome->kernel_path && outcome->note;
    }
    json_decref(root);
    return whole_text ? MOESIM_OK
                      : moesim_fail(err, MOESIM_EBROKEN, "a worker's result is not whole: %s",
                                    root ? "a part is missing or memory ran out" : where.text);
}
