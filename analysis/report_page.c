/*
 * The page around tables and figures.
 */
#include "analysis/report_page.h"

#include <string.h>

#include "analysis/svg.h"
#include "analysis/utf8.h"

#include "page.css.h"
#include "training.css.h"

void report_html(FILE *out, const char *text)
{
    while (*text) {
        const uint32_t code = utf8_next(&text);
        static const struct {
            uint32_t code;
            const char *entity;
        } special[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}, {'\'', "&#39;"}};
        uint32_t i = 0;
        while (i < sizeof special / sizeof *special && special[i].code != code)
            i++;
        char bytes[4];
        if (i < sizeof special / sizeof *special)
            fputs(special[i].entity, out);
        else
            fwrite(bytes, 1, utf8_put(bytes, code), out);
    }
}

static void put_head(FILE *out, const struct report_content *content)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
          "img-src data:\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
          out);
    report_html(out, content->data->study);
    fputs(" \u00b7 router comparison</title>\n<style>\n", out);
    fputs(page_css, out);
    if (content->training)
        fputs(training_css, out);
    fputs("</style>\n</head>\n<body>\n<main>\n", out);
}

static void put_count(FILE *out, uint32_t n, const char *noun)
{
    fprintf(out, "%u %s%s \u00b7 ", n, noun, n == 1 ? "" : "s");
}

static void put_title(FILE *out, const struct report_content *content)
{
    const struct report_data *data = content->data;
    fputs("<h1>Router comparison: <bdi>", out);
    report_html(out, data->study);
    fputs("</bdi></h1>\n<p class=\"facts\">", out);
    put_count(out, data->n_runs, "run");
    if (data->n_failed)
        fprintf(out, "%u failed \u00b7 ", data->n_failed);
    put_count(out, data->n_routers, "router");
    put_count(out, data->n_workloads, "workload");
    for (uint32_t i = 0; i < data->n_facts; i++) {
        fprintf(out, "%s <bdi>", data->fact[i].name);
        report_html(out, data->fact[i].value);
        fputs("</bdi> \u00b7 ", out);
    }
    fprintf(out, "%u seed%s (%s) \u00b7 baseline <code>", data->n_seeds, data->n_seeds == 1 ? "" : "s",
            data->stamp.seeds);
    report_html(out, data->router[data->baseline]);
    fputs("</code></p>\n", out);
}

static void put_notes(FILE *out, const struct report_content *content)
{
    const struct report_data *data = content->data;
    fputs(
        "<p class=\"note\">Each cell: the mean, and below it the difference from the baseline [95 % t interval over "
        "seeds, "
        "paired by batch] and the verdict; ~ means that no difference is shown. Modelled figures are computed for the "
        "study's cluster, measured ones are times on the machine named below.",
        out);
    if (content->overall->few_seeds && data->n_routers > 1)
        fprintf(out, " Fewer than ten seeds: intervals are wide and rest on normality.");
    if (content->overall->n_unpaired && data->n_routers > 1)
        fprintf(out, " %u run%s without a partner left out of the differences.", content->overall->n_unpaired,
                content->overall->n_unpaired == 1 ? "" : "s");
    if (data->averaged)
        fputs(" Runs that differ in an axis beyond router, workload and seed are averaged.", out);
    fputs("</p>\n", out);
}

static void put_figure(FILE *out, const struct report_drawing *drawing)
{
    const struct figure *figure = &drawing->figure;
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s-", figure->id);
    fprintf(out, "<figure id=\"figure-%s\" aria-label=\"", figure->id);
    report_html(out, figure->title);
    fputs("\">\n", out);
    svg_write(out, drawing->svg, prefix, true);
    fputs("<figcaption>", out);
    report_html(out, figure->caption);
    fprintf(out, " <a href=\"fig-%s.svg\">SVG</a>", figure->id);
    if (drawing->has_png)
        fprintf(out, " <a href=\"fig-%s.png\">PNG</a>", figure->id);
    fputs("</figcaption>\n</figure>\n", out);
}

static void put_figures(FILE *out, const struct report_content *content)
{
    fputs("<div class=\"figures\">\n", out);
    for (uint32_t i = 0; i < content->n_drawings; i++)
        if (content->drawing[i].svg)
            put_figure(out, &content->drawing[i]);
    fputs("</div>\n", out);
}

/* The figures that are not there, and what would bring them. */
static void put_absent(FILE *out, const struct report_content *content)
{
    bool any = false;
    for (uint32_t i = 0; i < content->n_drawings; i++)
        any |= !content->drawing[i].svg;
    if (!any)
        return;
    fputs("<h2>Not drawn</h2>\n", out);
    if (content->without_gnuplot)
        fputs(
            "<p>There is no gnuplot on this machine: <code>apt-get install gnuplot-nox</code>, then report again, and "
            "the figures appear here.</p>\n",
            out);
    fputs("<dl>\n", out);
    for (uint32_t i = 0; i < content->n_drawings; i++) {
        const struct report_drawing *drawing = &content->drawing[i];
        if (drawing->svg)
            continue;
        fputs("<dt>", out);
        report_html(out, drawing->figure.title);
        fputs("</dt><dd>", out);
        report_html(out, drawing->figure.no_data    ? drawing->figure.no_data
                         : content->without_gnuplot ? "needs gnuplot"
                                                    : drawing->problem);
        fputs("</dd>\n", out);
    }
    fputs("</dl>\n", out);
}

static void put_failures(FILE *out, const struct report_data *data)
{
    if (!data->n_failed)
        return;
    fprintf(out,
            "<details open><summary>%u failed run%s</summary>\n<div class=\"box\"><table>\n<thead><tr><th "
            "scope=\"col\">router</th><th scope=\"col\" class=\"name\">workload</th><th scope=\"col\">seed</th><th "
            "scope=\"col\">reason</th></tr></thead>\n<tbody>\n",
            data->n_failed, data->n_failed == 1 ? "" : "s");
    for (uint32_t i = 0; i < data->n_failures; i++) {
        const struct report_failure *failure = &data->failure[i];
        fputs("<tr><th scope=\"row\"><bdi>", out);
        report_html(out, failure->router);
        fputs("</bdi></th><td class=\"name\"><bdi>", out);
        report_html(out, failure->workload);
        fprintf(out, "</bdi></td><td>%lld</td><td class=\"name reason\">", (long long)failure->seed);
        report_html(out, failure->reason);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    if (data->n_failures < data->n_failed)
        fprintf(out, "<p class=\"note\">The first %u are shown.</p>\n", data->n_failures);
    fputs("</details>\n", out);
}

static void put_item(FILE *out, const char *name, const char *value)
{
    if (!value || !*value)
        return;
    fprintf(out, " \u00b7 %s ", name);
    report_html(out, value);
}

static void put_foot(FILE *out, const struct report_content *content)
{
    const struct report_data *data = content->data;
    const struct report_stamp *stamp = &data->stamp;
    fputs("<footer>moesim ", out);
    report_html(out, *stamp->version ? stamp->version : content->version);
    put_item(out, "revision", stamp->revision);
    put_item(out, "compiler", stamp->compiler);
    put_item(out, "CPU", stamp->cpu);
    put_item(out, "BLAS", stamp->blas);
    put_item(out, "kernels", stamp->kernel_path);
    put_item(out, "threads", stamp->threads);
    fputs(" \u00b7 study <code>", out);
    report_html(out, data->study_hash);
    fputs("</code>", out);
    put_item(out, "seeds", stamp->seeds);
    put_item(out, "run", stamp->first_started);
    if (strcmp(stamp->first_started, stamp->last_started))
        put_item(out, "to", stamp->last_started);
    put_item(out, "reported by moesim", content->version);
    fputs(" \u00b7 <code>moesim report", out);
    if (data->baseline) {
        fputs(" --baseline ", out);
        report_html(out, data->router[data->baseline]);
    }
    fputs("</code></footer>\n</main>\n</body>\n</html>\n", out);
}

bool report_page(FILE *out, const struct report_content *content)
{
    put_head(out, content);
    put_title(out, content);
    const uint32_t n = content->data->n_workloads;
    bool good = report_table(out, content, n > 1 ? n : 0, n > 1 ? n + 1 : 1);
    put_notes(out, content);
    put_figures(out, content);
    if (content->training)
        good = good && report_domains(out, content) && report_takers(out, content);
    put_absent(out, content);
    if (n > 1) {
        fputs("<h2>By workload</h2>\n", out);
        good = good && report_table(out, content, 0, n);
    }
    good = good && report_all_metrics(out, content->data);
    put_failures(out, content->data);
    put_foot(out, content);
    return good;
}
