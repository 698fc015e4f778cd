/*
 * The tally of one run: the values of every metric by layer, and expert loads by window, closed into an outcome. Up to
 * MOESIM_EXACT_STEPS steps, and where a metric is recorded, values are kept one by one; else they are counted in bins,
 * so that a run of any number of steps takes the same memory.
 */
#ifndef MOESIM_SIM_TALLY_H
#define MOESIM_SIM_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/metric.h>
#include <moesim/outcome.h>
#include <moesim/status.h>

#include "sim/experiment/bins.h"
#include "sim/experiment/state_bytes.h"

/* As many doubles as bins take, which hold a key and a count each. */
enum { MOESIM_EXACT_STEPS = 2 * MOESIM_MOST_BINS };

struct moesim_tally {
    uint32_t n_layers, n_experts, n_windows;
    uint32_t first_step, n_steps;    /* steps that count: those before, the warm-up, are left out of everything */
    const bool *measure;             /* [MOESIM_N_METRICS] */
    double *value[MOESIM_N_METRICS]; /* [n_layers][n_steps] from first_step on; NaN = undefined there; or NULL */
    struct moesim_bins *bins[MOESIM_N_METRICS]; /* [n_layers]; or NULL, as is the other for a metric not measured */
    uint64_t *assigned, *kept;                  /* [n_windows][n_layers][n_experts] */
};

/* Room for the steps first_step .. last_step - 1; loads are kept over at most MOESIM_MAX_WINDOWS windows of equal
 * length. */
MOESIM_MUST_CHECK enum moesim_status moesim_tally_init(struct moesim_tally *tally, const bool *measure,
                                                       const bool *record, uint32_t n_layers, uint32_t first_step,
                                                       uint32_t last_step, uint32_t n_experts,
                                                       struct moesim_arena *arena, struct moesim_error *err);

/* The window that holds `step`, which is not before the first. */
uint32_t moesim_tally_window(const struct moesim_tally *tally, uint32_t step);

/* Notes a value; ignored for a metric that is not measured and for a step of the warm-up. */
void moesim_tally_set(struct moesim_tally *tally, uint32_t metric, uint32_t layer, uint32_t step, double value);

/* Adds counts [n_experts] to the step's window; when the step is the window's last, notes dead_experts. */
void moesim_tally_loads(struct moesim_tally *tally, uint32_t layer, uint32_t step, const uint64_t *assigned,
                        const uint64_t *kept);

/* Writes summaries, the series of `record`ed metrics and, if asked, the load windows into `outcome` (memory from its
 * arena). */
MOESIM_MUST_CHECK enum moesim_status moesim_tally_close(const struct moesim_tally *tally, const bool *record,
                                                        bool record_loads, struct moesim_outcome *outcome,
                                                        struct moesim_error *err);

/* Passes all that it holds. */
void moesim_tally_pass(struct moesim_tally *tally, struct moesim_state_bytes *state);

/* Memory of a tally in bytes. */
uint64_t moesim_tally_bytes(const bool *measure, const bool *record, uint32_t n_layers, uint32_t n_steps,
                            uint32_t n_experts);

#endif
