/* Target against got, for people and as JSON. */
#include "cli/trace_targets.h"

#include <math.h>
#include <stdio.h>

#include "cli/print_table.h"

static double off_by(const struct calibrated_target *target, const double *value)
{
    return value[target->figure] / target->value - 1;
}

static bool is_missed(const struct calibrated_target *target, const double *value)
{
    return !(fabs(off_by(target, value)) <= TRACE_MISSED);
}

static void print_figure(struct print_table *table, double x)
{
    char text[24];
    snprintf(text, sizeof text, isnan(x) ? "-" : "%.3g", x);
    print_number(table, x, text);
}

bool trace_targets_print(const struct calibrated_target *target, uint32_t n, const double *value)
{
    static const struct print_column head[] = {{.title = "figure"},
                                               {.title = "target", .right = true},
                                               {.title = "got", .right = true},
                                               {.title = "off", .right = true},
                                               {.title = ""},
                                               {.title = "meaning", .wrap = true}};
    struct print_table *table = print_table_create(head, sizeof head / sizeof *head);
    for (uint32_t i = 0; table && i < n; i++) {
        char off[24];
        const double x = off_by(&target[i], value);
        snprintf(off, sizeof off, isnan(x) ? "-" : "%+.1f %%", 100 * x);
        print_text(table, calibrated_figures[target[i].figure].name);
        print_figure(table, target[i].value);
        print_figure(table, value[target[i].figure]);
        print_number(table, x, off);
        print_text(table, is_missed(&target[i], value) ? "missed" : "");
        print_text(table, calibrated_figures[target[i].figure].meaning);
    }
    const bool good = table && print_table(table, PRINT_TABLE);
    print_table_destroy(table);
    return good;
}

void trace_targets_comment(const struct calibrated_target *target, uint32_t n, const double *value)
{
    printf("# %-24s %8s %8s %9s\n", "figure", "target", "got", "off");
    for (uint32_t i = 0; i < n; i++) {
        const double got = value[target[i].figure];
        printf("# %-24s %8.3g ", calibrated_figures[target[i].figure].name, target[i].value);
        if (isnan(got))
            printf("%8s %9s  missed\n", "-", "-");
        else
            printf("%8.3g %+7.1f %%%s\n", got, 100 * off_by(&target[i], value),
                   is_missed(&target[i], value) ? "  missed" : "");
    }
}

json_t *trace_targets_json(const struct calibrated_target *target, uint32_t n, const double *value)
{
    json_t *rows = json_array();
    for (uint32_t i = 0; rows && i < n; i++) {
        const double got = value[target[i].figure], x = off_by(&target[i], value);
        json_t *row = json_pack("{s:s, s:f, s:o, s:o, s:b}", "figure", calibrated_figures[target[i].figure].name,
                                "target", target[i].value, "got", isfinite(got) ? json_real(got) : json_null(), "off",
                                isfinite(x) ? json_real(x) : json_null(), "missed", is_missed(&target[i], value));
        json_array_append_new(rows, row);
    }
    return rows;
}
