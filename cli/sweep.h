/*
 * The runs of a study that are left to do: grouped by routing, given to workers, written to the store one by one.
 */
#ifndef MOESIM_CLI_SWEEP_H
#define MOESIM_CLI_SWEEP_H

#include <stdbool.h>
#include <stdint.h>

#include "cli/study_source.h"
#include "results/store.h"

struct sweep_options {
    uint32_t jobs, threads;
    double timeout_s;      /* 0 = the default */
    uint64_t memory_bytes; /* 0 = none */
    bool fresh, retry_failed, quiet;
};

/* What became of the points. */
struct sweep_result {
    uint32_t n_before;         /* done by an earlier run */
    uint32_t n_done, n_failed; /* now */
    uint32_t n_noted;          /* done with something that people should know */
    uint32_t n_failed_before;  /* failed earlier and not tried again */
    uint32_t n_left;           /* not reached */
};

/* Runs what is left. Returns 0, or the exit status of what stopped it: a signal, the disk; each finished run is stored
 * by then. Failed runs are told on stderr and counted, no more. */
int sweep_run(const struct study_source *source, const struct loaded_study *loaded, struct results_store *store,
              int64_t study, const struct sweep_options *options, struct sweep_result *result);

/* state [n_points]: what the store knows of each point. */
MOESIM_MUST_CHECK enum moesim_status sweep_states(const struct loaded_study *loaded, struct results_store *store,
                                                  int64_t study, enum results_state *state, struct moesim_error *err);

#endif
