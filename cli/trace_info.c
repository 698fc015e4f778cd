/* moesim trace info: shape, figures and warnings. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/message.h"
#include "cli/options.h"
#include "cli/print_table.h"
#include "cli/trace.h"
#include "workloads/trace/measure.h"

static json_t *number_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static const char *label_names[] = {"sequences", "token_ids", "domains"};

/* ---- JSON ---- */

static void add_figures(json_t *to, const double *value)
{
    for (uint32_t f = 0; f < TRACE_N_FIGURES; f++)
        json_object_set_new(to, trace_figures[f].name, number_or_null(value[f]));
}

static json_t *make_json(const struct trace *trace, const struct trace_measures *m)
{
    const struct trace_shape *s = trace_shape(trace);
    json_t *root = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "file", trace_path(trace), "format",
                             trace_format(trace), "kind", trace_kind_name(s->kind), "n_layers", (json_int_t)s->n_layers,
                             "n_tokens", (json_int_t)s->n_tokens, "n_experts", (json_int_t)s->n_experts, "top_k",
                             (json_int_t)s->top_k, "n_steps", (json_int_t)s->n_steps, "has_weights", s->has_weights);
    json_t *layers = json_array(), *warnings = json_array(), *labels = json_array();
    if (!root)
        return NULL;
    json_object_set_new(root, "n_sequences", json_integer((json_int_t)m->n_sequences));
    json_object_set_new(root, "n_domains", json_integer(m->n_domains));
    json_object_set_new(root, "cache_experts", json_integer(m->cache_experts));
    json_object_set_new(root, "bad_rows", json_integer((json_int_t)m->n_bad_rows));
    add_figures(root, m->mean);
    for (uint32_t i = 0; i < TRACE_N_LABELS; i++)
        if (s->has_label[i])
            json_array_append_new(labels, json_string(label_names[i]));
    for (uint32_t i = 0; i < m->n_warnings; i++)
        json_array_append_new(warnings, json_string(m->warning[i]));
    for (uint32_t l = 0; l < m->n_layers; l++) {
        json_t *layer = json_pack("{s:I}", "layer", (json_int_t)trace_layer_id(trace, l));
        add_figures(layer, m->value + (size_t)l * TRACE_N_FIGURES);
        json_array_append_new(layers, layer);
    }
    json_object_set_new(root, "labels", labels);
    json_object_set_new(root, "warnings", warnings);
    json_object_set_new(root, "layers", layers);
    return root;
}

static bool print_json(const struct trace *trace, const struct trace_measures *m)
{
    json_t *root = make_json(trace, m);
    char *text = root ? json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    if (text)
        puts(text);
    free(text);
    json_decref(root);
    return text != NULL;
}

/* ---- for people ---- */

static void print_shape(const struct trace *trace, const struct trace_measures *m)
{
    const struct trace_shape *s = trace_shape(trace);
    char path[512];
    printf("%s: %s (%s)\n", cli_printable(trace_path(trace), path, sizeof path), trace_kind_name(s->kind),
           trace_format(trace));
    if (s->kind == TRACE_LOADS)
        printf("%" PRIu32 " step%s of %" PRIu32 " layer%s, %" PRIu32 " experts\n", s->n_steps,
               s->n_steps == 1 ? "" : "s", s->n_layers, s->n_layers == 1 ? "" : "s", s->n_experts);
    else
        printf("%" PRIu64 " tokens, %" PRIu32 " layer%s, %" PRIu32 " experts", s->n_tokens, s->n_layers,
               s->n_layers == 1 ? "" : "s", s->n_experts);
    if (s->kind == TRACE_DECISIONS)
        printf(", up to %" PRIu32 " a token, %s", s->top_k, s->has_weights ? "with weights" : "no weights");
    if (m->n_sequences)
        printf(", %" PRIu64 " sequences", m->n_sequences);
    if (m->n_domains && s->kind != TRACE_LOADS)
        printf(", %" PRIu32 " domains", m->n_domains);
    puts(s->kind == TRACE_LOADS ? "" : "\n");
}

static bool is_defined(const struct trace_measures *m, uint32_t figure)
{
    return !isnan(m->mean[figure]);
}

static void print_cell(struct print_table *table, double x)
{
    char text[24];
    snprintf(text, sizeof text, isnan(x) ? "-" : fabs(x) < 100 ? "%.3f" : "%.4g", x);
    print_number(table, x, text);
}

static void print_row(struct print_table *table, const struct trace_measures *m, const char *name, const double *value)
{
    print_text(table, name);
    for (uint32_t f = 0; f < TRACE_N_FIGURES; f++)
        if (is_defined(m, f))
            print_cell(table, value[f]);
}

static bool print_figures(const struct trace *trace, const struct trace_measures *m)
{
    struct print_column head[TRACE_N_FIGURES + 1] = {{.title = "layer", .right = true}};
    uint32_t n = 1;
    for (uint32_t f = 0; f < TRACE_N_FIGURES; f++)
        if (is_defined(m, f))
            head[n++] = (struct print_column){.title = trace_figures[f].title, .right = true};
    struct print_table *table = print_table_create(head, n);
    for (uint32_t l = 0; table && l < m->n_layers; l++) {
        char name[16];
        snprintf(name, sizeof name, "%" PRIu32, trace_layer_id(trace, l));
        print_row(table, m, name, m->value + (size_t)l * TRACE_N_FIGURES);
    }
    if (table)
        print_row(table, m, "mean", m->mean);
    const bool good = table && print_table(table, PRINT_TABLE);
    print_table_destroy(table);
    return good;
}

static void print_legend(const struct trace_measures *m)
{
    puts("");
    for (uint32_t f = 0; f < TRACE_N_FIGURES; f++)
        if (is_defined(m, f)) {
            printf("%-9s ", trace_figures[f].title);
            cli_print_wrapped(stdout, trace_figures[f].meaning, 10, 10);
        }
}

int cli_trace_info(const struct trace_call *o, const char *const *args)
{
    struct trace *trace;
    struct trace_measures m = {.value = NULL};
    struct moesim_error err;
    bool good = true;
    enum moesim_status status = cli_trace_open(o, args[0], &trace, &err);
    if (!status)
        status = trace_measure(trace, &m, &err);
    if (!status && o->json) {
        good = print_json(trace, &m);
    } else if (!status) {
        print_shape(trace, &m);
        good = print_figures(trace, &m);
        print_legend(&m);
    }
    for (uint32_t i = 0; !status && i < m.n_warnings; i++)
        cli_note("warning: %s", m.warning[i]);
    trace_measures_free(&m);
    trace_close(trace);
    if (status)
        return cli_fail_status(status, &err);
    return good ? CLI_DONE : cli_fail(CLI_SOME_FAILED, "memory is exhausted");
}
