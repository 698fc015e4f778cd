/*
 * The page: one HTML file that asks the network for nothing.
 */
#ifndef MOESIM_ANALYSIS_REPORT_PAGE_H
#define MOESIM_ANALYSIS_REPORT_PAGE_H

#include <stdio.h>

#include "analysis/compare.h"
#include "analysis/figures/figure.h"
#include "analysis/report.h"
#include "analysis/report_data.h"
#include "analysis/training.h"

/* A figure and what became of it. */
struct report_drawing {
    struct figure figure;
    const char *svg; /* NULL: not drawn */
    bool has_png;
    const char *problem; /* why not, when data was there */
};

struct report_content {
    const struct report_data *data;
    const struct analysis_comparison *by_workload, *overall;
    const struct training *training; /* NULL: nothing trained */
    const struct report_drawing *drawing;
    uint32_t n_drawings;
    bool without_gnuplot;
    const char *version; /* of the program that reports */
};

/* Text from the database as HTML text. */
void report_html(FILE *out, const char *text);

/* False when out of memory. */
bool report_page(FILE *out, const struct report_content *content);

/* The comparison on workloads first .. end - 1, one row a router; n_workloads stands for all of them together. False
 * when out of memory. */
bool report_table(FILE *out, const struct report_content *content, uint32_t first, uint32_t end);
/* Held-out text by domain; what each expert takes. Nothing where nothing is known; false when out of memory. */
bool report_domains(FILE *out, const struct report_content *content);
bool report_takers(FILE *out, const struct report_content *content);
/* Every metric there is. False when out of memory. */
bool report_all_metrics(FILE *out, const struct report_data *data);

/* The metrics of the comparison that some run has; returns how many of `metric` [MOESIM_N_METRICS] are set. */
uint32_t report_table_metrics(const struct report_data *data, uint32_t *metric);

#endif
