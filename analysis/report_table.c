/*
 * The tables of the page.
 */
#include <math.h>
#include <string.h>

#include "analysis/report_page.h"

#define MAX_COLUMNS 5u /* that stand beside each other on a screen; the table of all metrics has the rest */

/* How the values of a metric are shown. */
struct scale {
    double factor;
    const char *unit;
};

static struct scale scale_of(const struct report_data *data, uint32_t metric)
{
    const char *unit = moesim_metrics[metric].unit;
    double largest = 0.0;
    for (uint32_t i = 0; i < data->n_runs; i++)
        if (isfinite(data->run[i].value[metric]))
            largest = fmax(largest, fabs(data->run[i].value[metric]));
    if (metric == MOESIM_DROPPED_FRACTION || metric == MOESIM_DROPPED_TOKENS || metric == MOESIM_PADDING_FRACTION)
        return (struct scale){100.0, "%"};
    if (!strcmp(unit, "s")) {
        struct scale scale;
        scale.unit = figure_seconds(largest, &scale.factor);
        return scale;
    }
    static const struct {
        const char *unit, *scaled[3]; /* thousand, million, thousand million */
    } large[] = {{"B", {"kB", "MB", "GB"}},
                 {"FLOP", {"kFLOP", "MFLOP", "GFLOP"}},
                 {"FLOP/s", {"kFLOP/s", "MFLOP/s", "GFLOP/s"}},
                 {"1/s", {"thousand/s", "million/s", "thousand million/s"}}};
    for (uint32_t i = 0; i < sizeof large / sizeof *large; i++)
        if (!strcmp(unit, large[i].unit) && largest >= 1e4) {
            const uint32_t power = largest >= 1e9 ? 3 : largest >= 1e6 ? 2 : 1;
            return (struct scale){pow(1e-3, power), large[i].scaled[power - 1]};
        }
    return (struct scale){1.0, unit};
}

/* With a minus sign that is as wide as a plus. */
static void put_signed(FILE *out, double value, int decimals, bool plus)
{
    char text[48];
    snprintf(text, sizeof text, "%.*f", decimals, fabs(value));
    const bool zero = !text[strspn(text, "0.")];
    fprintf(out, "%s%s", zero ? "" : value < 0.0 ? "\u2212" : plus ? "+" : "", text);
}

/* Decimals that show three digits of a value, and two digits of a half-width when it is given tenfold. */
static int decimals_for(double value)
{
    if (!(value > 0.0))
        return 0;
    const int decimals = 2 - (int)floor(log10(value));
    return decimals < 0 ? 0 : decimals > 6 ? 6 : decimals;
}

static const struct analysis_difference *find(const struct analysis_comparison *comparison, uint32_t metric,
                                              const char *router, const char *workload)
{
    for (uint32_t i = 0; i < comparison->n_differences; i++) {
        const struct analysis_difference *d = &comparison->difference[i];
        if (d->metric == metric && !strcmp(d->router, router) && !strcmp(d->workload, workload))
            return d;
    }
    return NULL;
}

static void put_difference(FILE *out, const struct analysis_difference *d, struct scale scale)
{
    static const char *const class[] = {[ANALYSIS_BETTER] = "better",
                                        [ANALYSIS_WORSE] = "worse",
                                        [ANALYSIS_NO_DIFFERENCE] = "same",
                                        [ANALYSIS_NEITHER] = "differs",
                                        [ANALYSIS_TOO_FEW] = "few"};
    const double low = d->low * scale.factor, high = d->high * scale.factor, mean = d->difference * scale.factor;
    const bool interval = isfinite(low) && isfinite(high);
    const int own = decimals_for(fabs(mean)) + 1, wide = decimals_for(5.0 * (high - low));
    const int decimals = !interval || !(high > low) ? own - 1 : own > 1 && own < wide ? own : wide;
    fputs("<small>", out);
    put_signed(out, mean, decimals, true);
    if (interval) {
        fputs(" [", out);
        put_signed(out, low, decimals, false);
        fputs(", ", out);
        put_signed(out, high, decimals, false);
        fputc(']', out);
    }
    fprintf(out, " <span class=\"%s\">%s</span></small>", class[d->verdict], analysis_verdict_word(d->verdict));
}

static const char *better_word(uint32_t metric)
{
    static const char *const word[] = {[MOESIM_LOWER] = "lower is better",
                                       [MOESIM_HIGHER] = "higher is better",
                                       [MOESIM_NEITHER] = "neither side is better"};
    return word[moesim_metrics[metric].better];
}

static const char *kind_word(uint32_t metric)
{
    static const char *const word[] = {
        [MOESIM_COUNTED] = "counted", [MOESIM_MODELLED] = "modelled", [MOESIM_MEASURED] = "measured here"};
    return word[moesim_metrics[metric].kind];
}

static void put_head(FILE *out, uint32_t metric, struct scale scale)
{
    fprintf(out, "<th scope=\"col\" title=\"");
    report_html(out, moesim_metrics[metric].meaning);
    fprintf(out, "\">%s%s%s<small>%s, %s</small></th>", moesim_metrics[metric].name, *scale.unit ? ", " : "",
            scale.unit, kind_word(metric), better_word(metric));
}

static bool put_row(FILE *out, const struct report_content *content, const uint32_t *metric, const struct scale *scale,
                    uint32_t n, uint32_t workload, uint32_t router)
{
    const struct report_data *data = content->data;
    const bool all = workload == data->n_workloads;
    fprintf(out, "<tr%s><th scope=\"row\"%s><bdi>", router == data->baseline ? " class=\"baseline\"" : "",
            strlen(data->router[router]) > 40 ? " class=\"long\"" : "");
    report_html(out, data->router[router]);
    fputs("</bdi></th>", out);
    for (uint32_t i = 0; i < n; i++) {
        struct report_cell cell;
        if (!report_cell(data, metric[i], workload, router, &cell))
            return false;
        char number[24];
        figure_number(number, cell.mean * scale[i].factor);
        fprintf(out, "<td>%s", number);
        const struct analysis_difference *d = find(all ? content->overall : content->by_workload, metric[i],
                                                   data->router[router], all ? "" : data->workload[workload]);
        if (d)
            put_difference(out, d, scale[i]);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
    return true;
}

uint32_t report_table_metrics(const struct report_data *data, uint32_t *metric)
{
    static const uint32_t wanted[] = {MOESIM_BITS_PER_BYTE, MOESIM_MAX_VIO,          MOESIM_DROPPED_FRACTION,
                                      MOESIM_TIME_STEP,     MOESIM_DEVICE_IMBALANCE, MOESIM_TIME_LAYER,
                                      MOESIM_CPU_TIME_ROUTE};
    uint32_t n = 0;
    for (uint32_t i = 0; i < sizeof wanted / sizeof *wanted && n < MAX_COLUMNS; i++)
        if (report_has(data, wanted[i]))
            metric[n++] = wanted[i];
    return n;
}

bool report_table(FILE *out, const struct report_content *content, uint32_t first, uint32_t end)
{
    const struct report_data *data = content->data;
    uint32_t metric[MOESIM_N_METRICS];
    struct scale scale[MOESIM_N_METRICS];
    const uint32_t n = report_table_metrics(data, metric);
    fputs("<div class=\"box\"><table>\n<thead><tr><th scope=\"col\">router</th>", out);
    for (uint32_t i = 0; i < n; i++) {
        scale[i] = scale_of(data, metric[i]);
        put_head(out, metric[i], scale[i]);
    }
    fputs("</tr></thead>\n", out);
    for (uint32_t w = first; w < end; w++) {
        fprintf(out, "<tbody><tr><th scope=\"rowgroup\" colspan=\"%u\"><bdi>", n + 1);
        report_html(out, w < data->n_workloads ? data->workload[w] : "all workloads");
        fputs("</bdi></th></tr>\n", out);
        for (uint32_t r = 0; r < data->n_routers; r++)
            if (!put_row(out, content, metric, scale, n, w, r))
                return false;
        fputs("</tbody>\n", out);
    }
    fputs("</table></div>\n", out);
    return true;
}

bool report_all_metrics(FILE *out, const struct report_data *data)
{
    uint32_t metric[MOESIM_N_METRICS], n = 0;
    struct scale scale[MOESIM_N_METRICS];
    for (uint32_t m = 0; m < MOESIM_N_METRICS; m++)
        if (report_has(data, m)) {
            scale[n] = scale_of(data, m);
            metric[n++] = m;
        }
    fputs(
        "<details><summary>All metrics</summary>\n<div class=\"box\"><table>\n<thead><tr><th scope=\"col\">router</th>"
        "<th scope=\"col\">workload</th>",
        out);
    for (uint32_t i = 0; i < n; i++)
        put_head(out, metric[i], scale[i]);
    fputs("</tr></thead>\n<tbody>\n", out);
    for (uint32_t w = 0; w < data->n_workloads; w++)
        for (uint32_t r = 0; r < data->n_routers; r++) {
            fputs("<tr><th scope=\"row\"><bdi>", out);
            report_html(out, data->router[r]);
            fputs("</bdi></th><td class=\"name\"><bdi>", out);
            report_html(out, data->workload[w]);
            fputs("</bdi></td>", out);
            for (uint32_t i = 0; i < n; i++) {
                struct report_cell cell;
                if (!report_cell(data, metric[i], w, r, &cell))
                    return false;
                char number[24], half[24];
                figure_number(number, cell.mean * scale[i].factor);
                figure_number(half, cell.half * scale[i].factor);
                fprintf(out, "<td>%s%s%s</td>", number, isfinite(cell.half) ? " \u00b1 " : "",
                        isfinite(cell.half) ? half : "");
            }
            fputs("</tr>\n", out);
        }
    fputs("</tbody></table></div>\n</details>\n", out);
    return true;
}
