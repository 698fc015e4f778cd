/*
 * From a store to a folder with a page and its figures: read, compare, lay out, draw, write.
 */
#include "analysis/report.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "analysis/compare.h"
#include "analysis/figures/figure.h"
#include "analysis/file.h"
#include "analysis/gnuplot.h"
#include "analysis/report_data.h"
#include "analysis/report_page.h"
#include "analysis/svg.h"
#include "analysis/training.h"

#include "canvas.gp.h"
#include "job.gp.h"
#include "panel.gp.h"
#include "style.gp.h"
#include "text.gp.h"

/* The figures of training come first, and only where there was some. */
enum { N_TRAINING = 3, N_FIGURES = N_TRAINING + 7, N_JOB_FILES = 11 };

/* All that a report holds while it is made. */
struct report {
    struct report_data data;
    struct training training;
    const struct training *trained; /* NULL: nothing trained */
    struct analysis_comparison by_workload, overall;
    struct report_drawing drawing[N_FIGURES];
    struct gnuplot_file file[N_FIGURES][N_JOB_FILES];
    struct gnuplot_job job[N_FIGURES]; /* of the figures that have data */
    uint32_t figure_of_job[N_FIGURES], n_jobs;
    bool without_gnuplot;
};

static enum moesim_status no_memory(struct moesim_error *err)
{
    return moesim_fail(err, MOESIM_ENOMEM, "no memory is left for the report");
}

static enum moesim_status read_all(struct report *report, struct results_store *store,
                                   const struct analysis_report_options *options, struct moesim_arena *arena,
                                   struct moesim_error *err)
{
    struct report_data *data = &report->data;
    uint32_t metric[MOESIM_N_METRICS];
    enum moesim_status status = report_load(store, options->study, arena, data, err);
    if (status)
        return status;
    const uint32_t n = report_table_metrics(data, metric);
    status =
        analysis_compare(store, options->study, options->baseline, metric, n, true, arena, &report->by_workload, err);
    if (!status)
        status =
            analysis_compare(store, options->study, options->baseline, metric, n, false, arena, &report->overall, err);
    if (!status && training_any(data)) {
        status = training_load(store, data, &report->training, err);
        report->trained = &report->training;
    }
    for (uint32_t r = 0; !status && r < data->n_routers; r++)
        if (!strcmp(data->router[r], report->overall.baseline))
            data->baseline = r;
    return status;
}

static enum moesim_status lay_out(struct report *report, struct results_store *store, struct moesim_error *err)
{
    const struct figure_source source = {&report->data, &report->by_workload, report->trained};
    figure_loss(&report->drawing[0].figure, &source);
    figure_settling(&report->drawing[1].figure, &source);
    figure_specialisation(&report->drawing[2].figure, &source);
    struct report_drawing *drawing = report->drawing + N_TRAINING;
    figure_imbalance(&drawing[0].figure, &source);
    figure_differences(&drawing[1].figure, &source);
    figure_step_time(&drawing[2].figure, &source);
    figure_balance_cost(&drawing[3].figure, &source);
    figure_heat(&drawing[4].figure, &source, store);
    figure_traffic(&drawing[5].figure, &source, store);
    figure_capacity(&drawing[6].figure, &source);
    for (uint32_t i = 0; i < N_FIGURES; i++)
        if (report->drawing[i].figure.failed)
            return no_memory(err);
    return MOESIM_OK;
}

static void make_jobs(struct report *report)
{
    for (uint32_t i = 0; i < N_FIGURES; i++) {
        const struct figure *figure = &report->drawing[i].figure;
        if (figure->no_data)
            continue;
        const struct gnuplot_file file[N_JOB_FILES] = {{"job.gp", job_gp},
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
        memcpy(report->file[i], file, sizeof file);
        report->job[report->n_jobs] = (struct gnuplot_job){.file = report->file[i], .n_files = N_JOB_FILES};
        report->figure_of_job[report->n_jobs++] = i;
    }
}

static enum moesim_status draw(struct report *report, struct moesim_error *err)
{
    make_jobs(report);
    const enum moesim_status status = gnuplot_draw(report->job, report->n_jobs, &report->without_gnuplot, err);
    for (uint32_t j = 0; j < report->n_jobs; j++) {
        struct report_drawing *drawing = &report->drawing[report->figure_of_job[j]];
        drawing->svg = report->job[j].svg;
        drawing->has_png = report->job[j].png != NULL;
        drawing->problem = report->job[j].problem;
    }
    return status;
}

static void figure_path(char path[4096], const char *directory, const char *id, const char *suffix)
{
    snprintf(path, 4096, "%.4000s/fig-%.60s.%s", directory, id, suffix);
}

/* A figure that is not drawn must not stay from an earlier report. */
static void remove_stale(const struct report *report, const char *directory)
{
    for (uint32_t i = 0; i < N_FIGURES; i++) {
        char path[4096];
        const struct report_drawing *drawing = &report->drawing[i];
        figure_path(path, directory, drawing->figure.id, "svg");
        if (!drawing->svg)
            unlink(path);
        figure_path(path, directory, drawing->figure.id, "png");
        if (!drawing->has_png)
            unlink(path);
    }
}

static enum moesim_status write_figures(const struct report *report, const char *directory, struct moesim_error *err)
{
    enum moesim_status status = MOESIM_OK;
    for (uint32_t j = 0; j < report->n_jobs && !status; j++) {
        const struct gnuplot_job *job = &report->job[j];
        const char *id = report->drawing[report->figure_of_job[j]].figure.id;
        char path[4096], *text = NULL;
        size_t size = 0;
        if (!job->svg)
            continue;
        FILE *out = open_memstream(&text, &size);
        if (out)
            svg_write(out, job->svg, "", false);
        if (!out || fclose(out))
            status = no_memory(err);
        figure_path(path, directory, id, "svg");
        if (!status)
            status = file_write(path, text, size, err);
        free(text);
        figure_path(path, directory, id, "png");
        if (!status && job->png)
            status = file_write(path, job->png, job->png_size, err);
    }
    return status;
}

static enum moesim_status write_page(const struct report *report, const struct analysis_report_options *options,
                                     const char *path, struct moesim_error *err)
{
    const struct report_content content = {.data = &report->data,
                                           .by_workload = &report->by_workload,
                                           .overall = &report->overall,
                                           .training = report->trained,
                                           .drawing = report->drawing + (report->trained ? 0 : N_TRAINING),
                                           .n_drawings = N_FIGURES - (report->trained ? 0 : N_TRAINING),
                                           .without_gnuplot = report->without_gnuplot,
                                           .version = options->version ? options->version : ""};
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    bool good = out && report_page(out, &content);
    if (out)
        good = fclose(out) == 0 && good;
    const enum moesim_status status = good ? file_write(path, text, size, err) : no_memory(err);
    free(text);
    return status;
}

static enum moesim_status make(struct report *report, struct results_store *store,
                               const struct analysis_report_options *options, struct moesim_arena *arena,
                               struct analysis_report_result *result, struct moesim_error *err)
{
    const int length = snprintf(result->page, sizeof result->page, "%s/report.html", options->directory);
    if (length < 0 || (size_t)length >= sizeof result->page - 64)
        return moesim_fail(err, MOESIM_EIO, "the folder's name is too long: '%.200s...'", options->directory);
    enum moesim_status status = read_all(report, store, options, arena, err);
    if (!status)
        status = file_make_folder(options->directory, err);
    if (!status)
        status = lay_out(report, store, err);
    if (!status)
        status = draw(report, err);
    if (!status)
        status = write_figures(report, options->directory, err);
    if (!status)
        status = write_page(report, options, result->page, err);
    if (!status)
        remove_stale(report, options->directory);
    for (uint32_t i = 0; i < N_FIGURES; i++)
        result->n_figures += report->drawing[i].svg != NULL;
    result->without_gnuplot = report->without_gnuplot;
    return status;
}

enum moesim_status analysis_report(struct results_store *store, const struct analysis_report_options *options,
                                   struct analysis_report_result *result, struct moesim_error *err)
{
    *result = (struct analysis_report_result){0};
    struct report *report = calloc(1, sizeof *report);
    struct moesim_arena *arena = moesim_arena_create(0);
    const enum moesim_status status =
        report && arena ? make(report, store, options, arena, result, err) : no_memory(err);
    for (uint32_t i = 0; report && i < N_FIGURES; i++) {
        figure_finish(&report->drawing[i].figure);
        free(report->job[i].svg);
        free(report->job[i].png);
    }
    moesim_arena_destroy(arena);
    free(report);
    return status;
}
