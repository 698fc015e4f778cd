/*
 * A report made into a folder of its own, and what holds for every one.
 */
#ifndef MOESIM_TESTS_ANALYSIS_REPORT_FIXTURE_H
#define MOESIM_TESTS_ANALYSIS_REPORT_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "analysis/report.h"
#include "sample_store.h"

extern char report_folder[64];

/* A store in memory with the sample's runs (NULL = none). */
struct results_store *report_open(const struct sample *made, bool fail);

void report_new_folder(void);
/* Fails when anything but a report's files is left in it. */
void report_remove_folder(void);

/* Reports the store and reads the page; to be freed. */
char *report_read(struct results_store *store, struct analysis_report_result *result);

bool report_have_gnuplot(void);
void report_expect(const char *page, const char *text);

/* Every figure file that is there is whole; returns how many. */
uint32_t report_check_files(void);
/* The inline drawings are well-formed and no id occurs twice. */
void report_check_inline(char *page);
/* Nothing on the page may load anything or run. */
void report_check_contained(const char *page);

#endif
