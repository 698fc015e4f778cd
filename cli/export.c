/* moesim export: one row a run, tidy. */
#include <stdio.h>
#include <string.h>

#include "cli/message.h"
#include "cli/print_table.h"
#include "cli/verbs.h"
#include "results/store.h"

#define ROWS_AT_ONCE 256
#define MAX_COLUMNS 256

struct export_options {
    const char *format, *study, *view;
    bool json;
};

static const struct export_options defaults = {.format = "csv", .view = "runs"};

static const struct cli_option options[] = {
    CLI_OPTION_WITH(struct export_options, format, "format", "F", "csv (default), json, jsonl or md",
                    .choices = "csv|json|jsonl|md"),
    CLI_OPTION_WITH(struct export_options, view, "view", "V",
                    "runs (default), compare, expert_load, domain_loss or specialisation",
                    .choices = "runs|compare|expert_load|domain_loss|specialisation"),
    CLI_OPTION(struct export_options, study, "study", "NAME", "only this study's runs (for runs and compare)"),
    CLI_OPTION(struct export_options, json, "json", NULL, "the same as --format json"),
    CLI_OPTION_END,
};

static void add_row(struct results_query *query, struct print_table *table, uint32_t n)
{
    for (uint32_t c = 0; c < n; c++) {
        if (results_is_number(query, c) || results_is_null(query, c))
            print_number(table, results_number(query, c), NULL);
        else
            print_text(table, results_text(query, c));
    }
}

static enum moesim_status print_rows(struct results_query *query, enum print_format format, struct moesim_error *err)
{
    struct print_column head[MAX_COLUMNS];
    uint32_t n = results_columns(query), rows = 0;
    n = n < MAX_COLUMNS ? n : MAX_COLUMNS;
    for (uint32_t c = 0; c < n; c++)
        head[c] = (struct print_column){.title = results_column_name(query, c)};
    struct print_table *table = print_table_create(head, n);
    bool good = table, more = true, first = true;
    enum moesim_status status = MOESIM_OK;
    while (good && !status && more && !cli_output_lost()) {
        status = results_next(query, &more, err);
        if (!status && more)
            add_row(query, table, n);
        if (format != PRINT_JSON && (!more || ++rows % ROWS_AT_ONCE == 0)) {
            good = print_table_flush(table, format, first);
            first = false;
        }
    }
    if (good && !status && format == PRINT_JSON)
        good = print_table(table, format);
    print_table_destroy(table);
    return good ? status : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
}

static enum moesim_status check_study(struct results_store *store, const char *study, struct moesim_error *err)
{
    struct results_query *query;
    bool row = false;
    enum moesim_status status = results_query(store, "SELECT 1 FROM study WHERE name = ?1", &study, 1, &query, err);
    if (!status)
        status = results_next(query, &row, err);
    results_query_close(query);
    return status || row ? status : moesim_fail(err, MOESIM_EINVAL, "the database has no study '%s'", study);
}

static int export(const struct cli_call *call)
{
    const struct export_options *o = call->options;
    struct results_store *store;
    struct results_query *query = NULL;
    struct moesim_error err;
    if (o->study && strcmp(o->view, "runs") != 0 && strcmp(o->view, "compare") != 0)
        return cli_fail(CLI_USAGE, "export: --study does not go with --view %s, whose rows have the run's id", o->view);
    enum moesim_status status = results_open(call->args[0], RESULTS_READ, &store, &err);
    if (status)
        return cli_fail_status(status, &err);
    char sql[128];
    snprintf(sql, sizeof sql, "SELECT * FROM v_%s%s", o->view, o->study ? " WHERE study = ?1" : "");
    if (o->study)
        status = check_study(store, o->study, &err);
    if (!status)
        status = results_query(store, sql, &o->study, o->study != NULL, &query, &err);
    if (!status)
        status = print_rows(query, o->json ? PRINT_JSON : print_format_of(o->format), &err);
    results_query_close(query);
    results_close(store);
    return status ? cli_fail_status(status, &err) : CLI_DONE;
}

static const struct cli_example examples[] = {
    {"moesim export moesim.db --format csv > runs.csv", "one row a run, one column a parameter and a metric"},
    {"moesim export moesim.db --view expert_load --format jsonl", "loads by run, window, layer and expert"},
    {NULL, NULL},
};

const struct cli_verb cli_export = {
    .name = "export",
    .arguments = "DB",
    .summary = "write results as CSV, JSON, JSON lines or Markdown",
    .examples = examples,
    .options = options,
    .defaults = &defaults,
    .options_size = sizeof(struct export_options),
    .min_args = 1,
    .max_args = 1,
    .run = export,
};
