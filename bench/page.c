/*
 * The page: the drawings and the table in one file that asks the network for nothing.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/file.h"
#include "analysis/gnuplot.h"
#include "analysis/report_page.h"
#include "analysis/svg.h"
#include "bench/drawing.h"
#include "bench/output.h"

#include "canvas.gp.h"
#include "job.gp.h"
#include "page.css.h"
#include "panel.gp.h"
#include "style.gp.h"
#include "text.gp.h"

enum { N_DRAWINGS = 4, N_FILES = 11 };

struct page {
    struct figure figure[N_DRAWINGS];
    struct gnuplot_file file[N_DRAWINGS][N_FILES];
    struct gnuplot_job job[N_DRAWINGS];
    uint32_t figure_of_job[N_DRAWINGS], n_jobs;
};

static void lay_out(struct page *page, const struct bench *bench)
{
    static void (*const draw[N_DRAWINGS])(struct figure *, const struct bench *) = {drawing_limits, drawing_rivals,
                                                                                    drawing_costs, drawing_curves};
    for (uint32_t i = 0; i < N_DRAWINGS; i++) {
        struct figure *figure = &page->figure[i];
        draw[i](figure, bench);
        if (figure->failed)
            bench_stop("memory is exhausted");
        if (figure->no_data)
            continue;
        const struct gnuplot_file file[N_FILES] = {{"job.gp", job_gp},
                                                   {"style.gp", style_gp},
                                                   {"canvas.gp", canvas_gp},
                                                   {"panel.gp", panel_gp},
                                                   {"text.gp", text_gp},
                                                   {"body.gp", figure->script},
                                                   {"settings.gp", figure->file[FIGURE_SETTINGS]},
                                                   {"text.tsv", figure->file[FIGURE_TEXT]},
                                                   {"plain.tsv", figure->file[FIGURE_PLAIN_TEXT]},
                                                   {"marks.tsv", figure->file[FIGURE_MARKS]},
                                                   {"points.tsv", figure->file[FIGURE_POINTS]}};
        memcpy(page->file[page->n_jobs], file, sizeof file);
        page->job[page->n_jobs] = (struct gnuplot_job){.file = page->file[page->n_jobs], .n_files = N_FILES};
        page->figure_of_job[page->n_jobs++] = i;
    }
}

static enum moesim_status draw(struct page *page, struct moesim_error *err)
{
    bool missing;
    enum moesim_status status = gnuplot_draw(page->job, page->n_jobs, &missing, err);
    if (!status && missing)
        status = moesim_fail(err, MOESIM_EINVAL, "there is no gnuplot: install gnuplot-nox");
    for (uint32_t j = 0; j < page->n_jobs && !status; j++)
        if (!page->job[j].svg)
            status = moesim_fail(err, MOESIM_EIO, "the drawing '%s' failed: %s",
                                 page->figure[page->figure_of_job[j]].id, page->job[j].problem);
    return status;
}

/* ---- the page ---- */

static void put_number(FILE *out, double value)
{
    char text[24] = "";
    if (!isnan(value))
        figure_number(text, value);
    fprintf(out, "<td>%s</td>", text);
}

/* The cells behind a figure's name and value. */
static void put_ratio(FILE *out, const char *against, struct bench_ratio ratio, struct bench_bound bound)
{
    static const char *const words[] = {[BENCH_NOT_ASKED] = "",
                                        [BENCH_HOLDS] = "<span class=\"better\">yes</span>",
                                        [BENCH_MISSES] = "<span class=\"worse\">no</span>"};
    char low[24], high[24];
    figure_number(low, ratio.low);
    figure_number(high, ratio.high);
    fputs("<td>", out);
    report_html(out, against);
    fputs("</td>", out);
    put_number(out, ratio.by_clock);
    put_number(out, ratio.by_cpu);
    if (isnan(ratio.low))
        fputs("<td></td><td>", out);
    else
        fprintf(out, "<td>%s \u2013 %s</td><td>", low, high);
    if (bound.value > 0)
        fprintf(out, "%s %g", bound.at_most ? "\u2264" : "\u2265", bound.value);
    fprintf(out, "</td><td>%s</td></tr>\n", words[bench_judge(bound, ratio.counts)]);
}

static void put_name(FILE *out, const struct bench_result *r, double shown, const char *unit)
{
    fputs("<tr><th scope=\"row\" class=\"long\">", out);
    report_html(out, r->figure.name);
    fputs("</th>", out);
    put_number(out, shown);
    fprintf(out, "<td class=\"name\">%s</td>", unit);
}

static void put_rows(FILE *out, const struct bench_result *r)
{
    const struct bench_figure *f = &r->figure;
    const double shown = bench_shown(r, &r->ours);
    const bool limited = f->limit != BENCH_NO_LIMIT;
    if (limited || !f->n_rivals || f->bound.value > 0) {
        put_name(out, r, shown, f->unit);
        const struct bench_ratio none = {NAN, NAN, shown, NAN, NAN};
        if (limited)
            put_ratio(out, f->limit == BENCH_PEAK ? "multiply-adds" : "reading", bench_limit_ratio(r), f->limit_bound);
        else
            put_ratio(out, "", none, f->bound);
    }
    for (uint32_t i = 0; i < f->n_rivals; i++) {
        if (i == 0 && !limited && !(f->bound.value > 0))
            put_name(out, r, shown, f->unit);
        else
            fputs("<tr><th></th><td></td><td></td>", out);
        put_ratio(out, f->rival[i].runner.name, bench_rival_ratio(r, i),
                  bench_bound_beside(f->rival[i].bound, bench_rate(r, &r->rival[i])));
    }
}

static void put_table(FILE *out, const struct bench *bench)
{
    const char *part = "";
    fputs("<div class=\"box\"><table>\n<thead><tr><th>figure</th><th>moesim</th><th></th><th>against</th><th>by "
          "clock</th><th>by CPU</th><th>quartiles</th><th>asked</th><th>reached</th></tr></thead>\n<tbody>\n",
          out);
    for (uint32_t i = 0; i < bench->n_results; i++) {
        const struct bench_result *r = bench->result[i];
        if (r->figure.quiet_table)
            continue;
        if (strcmp(part, r->figure.part) != 0)
            fprintf(out, "<tr><th scope=\"rowgroup\" colspan=\"9\">%s</th></tr>\n", r->figure.part);
        part = r->figure.part;
        put_rows(out, r);
    }
    fputs("</tbody></table></div>\n", out);
}

static void put_page(FILE *out, const struct bench *bench, const struct page *page)
{
    char stamp[512];
    output_stamp(bench, stamp, sizeof stamp);
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
          "img-src data:\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>moesim on this machine</title>\n<style>\n",
          out);
    fputs(page_css, out);
    fputs("</style>\n</head>\n<body><main>\n<h1>moesim on this machine</h1>\n<p class=\"facts\">", out);
    report_html(out, stamp);
    fputs("</p>\n<div class=\"figures\">\n", out);
    for (uint32_t j = 0; j < page->n_jobs; j++) {
        fputs("<figure>", out);
        svg_write(out, page->job[j].svg, page->figure[page->figure_of_job[j]].id, true);
        fputs("</figure>\n", out);
    }
    fputs("</div>\n<h2>All figures</h2>\n<p class=\"note\">Medians. A ratio counts by the clock in repeats in which "
          "others left the processors idle, and by processor time of the mean thread in the others; quartiles are of "
          "what counts.</p>\n",
          out);
    put_table(out, bench);
    fputs("</main></body></html>\n", out);
}

/* All drawings below each other. */
static void put_drawing(FILE *out, const struct page *page)
{
    double height = 0, y = 0;
    for (uint32_t j = 0; j < page->n_jobs; j++)
        height += page->figure[page->figure_of_job[j]].height;
    fprintf(out,
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" "
            "xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\">\n",
            FIGURE_WIDTH, height, FIGURE_WIDTH, height);
    fprintf(out, "<rect width=\"%.0f\" height=\"%.0f\" fill=\"#ffffff\"/>\n", FIGURE_WIDTH, height);
    for (uint32_t j = 0; j < page->n_jobs; j++) {
        const struct figure *figure = &page->figure[page->figure_of_job[j]];
        fprintf(out, "<g transform=\"translate(0 %.0f)\">", y);
        svg_write(out, page->job[j].svg, figure->id, true);
        fputs("</g>\n", out);
        y += figure->height;
    }
    fputs("</svg>\n", out);
}

static bool is_html(const char *path)
{
    const char *suffix = strrchr(path, '.');
    return suffix && strcmp(suffix, ".html") == 0;
}

enum moesim_status output_page(const struct bench *bench, const char *path, struct moesim_error *err)
{
    static struct page page;
    char *text = NULL;
    size_t size = 0;
    lay_out(&page, bench);
    enum moesim_status status = draw(&page, err);
    FILE *out = status ? NULL : open_memstream(&text, &size);
    if (out && is_html(path))
        put_page(out, bench, &page);
    else if (out)
        put_drawing(out, &page);
    if (!status)
        status = out && fclose(out) == 0 ? file_write(path, text, size, err)
                                         : moesim_fail(err, MOESIM_ENOMEM, "memory is exhausted");
    free(text);
    for (uint32_t i = 0; i < N_DRAWINGS; i++)
        figure_finish(&page.figure[i]);
    for (uint32_t j = 0; j < page.n_jobs; j++) {
        free(page.job[j].svg);
        free(page.job[j].png);
    }
    return status;
}
