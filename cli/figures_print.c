/* The comparison at the end of a run. */
#include "cli/figures.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/message.h"
#include "cli/print_table.h"

/* How a figure is written for people. */
enum style { PLAIN, PERCENT, SECONDS, RATE };

struct shown {
    uint32_t metric;
    enum style style;
    const char *title;
    bool only_without_cluster;
};

static const struct shown shown[] = {
    {MOESIM_BITS_PER_BYTE, PLAIN, "bits/byte", false},  {MOESIM_LOAD_CV, PLAIN, "load_cv", false},
    {MOESIM_MAX_VIO, PLAIN, "max_vio", false},          {MOESIM_DROPPED_FRACTION, PERCENT, "dropped", false},
    {MOESIM_DEAD_EXPERTS, PLAIN, "dead_experts", true}, {MOESIM_DEVICE_IMBALANCE, PLAIN, "dev_imb", false},
    {MOESIM_TIME_LAYER, SECONDS, "t_layer", false},     {MOESIM_TOKENS_PER_SECOND, RATE, "tokens/s", false},
    {MOESIM_CPU_TIME_LAYER, SECONDS, "t_cpu", false},
};
#define N_SHOWN (sizeof shown / sizeof *shown)

static void format_scaled(double x, const char *const *unit, const double *scale, char text[24])
{
    while (*scale > 1e-30 && fabs(x) < *scale && scale[1] > 0) {
        scale++;
        unit++;
    }
    snprintf(text, 24, "%.*f %s", fabs(x) / *scale < 10 ? 2 : fabs(x) / *scale < 100 ? 1 : 0, x / *scale, *unit);
}

static void format_value(double x, enum style style, char text[24])
{
    static const char *const time_unit[] = {"s", "ms", "us", "ns"}, *const rate_unit[] = {"G", "M", "k", ""};
    static const double time_scale[] = {1, 1e-3, 1e-6, 1e-9, 0}, rate_scale[] = {1e9, 1e6, 1e3, 1, 0};
    if (isnan(x))
        snprintf(text, 24, "-");
    else if (style == PERCENT)
        snprintf(text, 24, "%.1f %%", 100 * x);
    else if (style == SECONDS)
        format_scaled(x, time_unit, time_scale, text);
    else if (style == RATE)
        format_scaled(x, rate_unit, rate_scale, text);
    else
        snprintf(text, 24, fabs(x) < 1000 ? "%.3f" : "%.3g", x);
}

/* The routers that take part in "best": the null router serves nobody. */
static bool competes(const struct figures_row *row)
{
    return strcmp(row->point->router->router->name, "null") != 0;
}

/* The best mean of a column among the rows of one workload; NaN when it has no better side or all rows are equal. */
static double best_of(const struct figures *figures, const char *workload, uint32_t metric)
{
    double best = NAN, worst = NAN;
    const bool higher = moesim_metrics[metric].better == MOESIM_HIGHER;
    for (uint32_t i = 0; i < figures->n_rows; i++) {
        const struct figures_row *row = &figures->row[i];
        double x = row->mean[metric];
        if (strcmp(row->workload, workload) != 0 || isnan(x) || !competes(row))
            continue;
        if (isnan(best) || (higher ? x > best : x < best))
            best = x;
        if (isnan(worst) || (higher ? x < worst : x > worst))
            worst = x;
    }
    return moesim_metrics[metric].better == MOESIM_NEITHER || best == worst ? (double)NAN : best;
}

static bool any_value(const struct figures *figures, uint32_t metric)
{
    for (uint32_t i = 0; i < figures->n_rows; i++)
        if (figures->row[i].n[metric])
            return true;
    return false;
}

/* Which of `shown` have values; returns their number. */
static uint32_t choose_columns(const struct figures *figures, const struct shown *column[N_SHOWN])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_SHOWN; i++)
        if (any_value(figures, shown[i].metric) &&
            !(shown[i].only_without_cluster && any_value(figures, MOESIM_TIME_LAYER)))
            column[n++] = &shown[i];
    return n;
}

static void add_row(const struct figures *figures, const struct figures_row *row, struct print_table *table,
                    const struct shown *const *column, uint32_t n)
{
    print_text(table, row->router);
    if (figures->many_clusters)
        print_text(table, row->cluster);
    if (figures->many_placements)
        print_text(table, row->placement);
    if (figures->has_settings)
        print_text(table, row->settings);
    for (uint32_t c = 0; c < n; c++) {
        char text[24], marked[32];
        double x = row->mean[column[c]->metric];
        format_value(x, column[c]->style, text);
        bool best = competes(row) && x == best_of(figures, row->workload, column[c]->metric);
        snprintf(marked, sizeof marked, "%s%s", text, best ? "*" : " ");
        print_number(table, x, marked);
    }
}

static bool print_workload(const struct figures *figures, const char *workload, const struct shown *const *column,
                           uint32_t n)
{
    struct print_column head[N_SHOWN + 4] = {{.title = "router", .wrap = true}};
    uint32_t first = 1;
    if (figures->many_clusters)
        head[first++] = (struct print_column){.title = "cluster"};
    if (figures->many_placements)
        head[first++] = (struct print_column){.title = "placement"};
    if (figures->has_settings)
        head[first++] = (struct print_column){.title = "settings", .wrap = true};
    char title[N_SHOWN][24]; /* a blank where the values may carry a star */
    for (uint32_t c = 0; c < n; c++) {
        snprintf(title[c], sizeof title[c], "%s ", column[c]->title);
        head[first + c] = (struct print_column){.title = title[c], .right = true};
    }
    struct print_table *table = print_table_create(head, first + n);
    if (table)
        print_table_narrow(table);
    for (uint32_t i = 0; table && i < figures->n_rows; i++)
        if (strcmp(figures->row[i].workload, workload) == 0)
            add_row(figures, &figures->row[i], table, column, n);
    bool good = table && print_table(table, PRINT_TABLE);
    print_table_destroy(table);
    return good;
}

bool figures_print(const struct figures *figures)
{
    const struct shown *column[N_SHOWN];
    uint32_t n = choose_columns(figures, column);
    char safe[512];
    bool good = true;
    for (uint32_t i = 0; good && i < figures->n_rows; i++) {
        const char *workload = figures->row[i].workload;
        if (i && strcmp(figures->row[i - 1].workload, workload) == 0)
            continue;
        printf("%s%s", i ? "\n" : "", cli_printable(workload, safe, sizeof safe));
        for (uint32_t s = 0; s < figures->n_sources; s++)
            if (strcmp(figures->source[s].workload, workload) == 0)
                printf(": %s", cli_printable(figures->source[s].data, safe, sizeof safe));
        printf("\n\n");
        good = print_workload(figures, workload, column, n);
    }
    return good;
}

static json_t *row_json(const struct figures_row *row)
{
    json_t *metrics = json_object();
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        if (isfinite(row->mean[m]))
            json_object_set_new(metrics, moesim_metrics[m].name, json_real(row->mean[m]));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:o}", "workload", row->workload, "router", row->router,
                     "cluster", row->cluster, "placement", row->placement, "settings", row->settings, "runs",
                     (int)row->n_points, "done", (int)row->n_done, "mean", metrics);
}

char *figures_json(const struct figures *figures, const char *study, const char *db, uint32_t n_done, uint32_t n_failed,
                   uint32_t n_left)
{
    json_t *rows = json_array(), *data = json_object();
    for (uint32_t i = 0; i < figures->n_rows; i++)
        json_array_append_new(rows, row_json(&figures->row[i]));
    for (uint32_t s = 0; s < figures->n_sources; s++)
        json_object_set_new(data, figures->source[s].workload, json_string(figures->source[s].data));
    json_t *root = json_pack("{s:s, s:s, s:{s:i, s:i, s:i}, s:i, s:o, s:o}", "study", study, "db", db, "runs", "done",
                             (int)n_done, "failed", (int)n_failed, "left", (int)n_left, "seeds", (int)figures->n_seeds,
                             "data", data, "rows", rows);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    return text;
}
