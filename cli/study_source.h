/*
 * A study as the user gave it: a file or a built-in one, and what the command line changes. A worker gets the same
 * source and resolves it to the same points.
 */
#ifndef MOESIM_CLI_STUDY_SOURCE_H
#define MOESIM_CLI_STUDY_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "cli/catalogue.h"
#include "cli/options.h"
#include "sim/study/study.h"

struct study_source {
    const char *name; /* the file as given, or the built-in study */
    bool builtin;
    char *text; /* malloc'd */
    size_t size;
    struct cli_list set, router, workload, plugin;
    const char *record; /* the file that a worker writes the decisions to, or NULL */
};

/* Reads the file, or the built-in study of that name when no such file exists; NULL is "quickstart". */
MOESIM_MUST_CHECK enum moesim_status study_source_open(struct study_source *source, const char *file,
                                                       struct moesim_error *err);
void study_source_close(struct study_source *source);

/* For the pipe to a worker: JSON text (malloc'd; NULL without memory) and back, with texts in `arena`. */
char *study_source_to_json(const struct study_source *source);
MOESIM_MUST_CHECK enum moesim_status study_source_from_json(const char *text, struct moesim_arena *arena,
                                                            struct study_source *source, struct moesim_error *err);

/* A study resolved into points. */
struct loaded_study {
    struct moesim_arena *arena;
    struct catalogue catalogue;
    struct moesim_study *study;
    const struct moesim_point *const *points;
    uint32_t n_points;
};

/* Loads plugins and resolves; prints every mistake as file:line:column and returns the exit status. `isolated`: this is
 * a worker, plugins were probed already. The caller finishes `loaded` in any case. */
int study_load(const struct study_source *source, bool isolated, struct loaded_study *loaded);
void study_unload(struct loaded_study *loaded);

#endif
