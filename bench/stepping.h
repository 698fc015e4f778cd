/*
 * An experiment of one point on a workload that hands out one prepared batch, so that no tokens are made in its steps.
 */
#ifndef BENCH_STEPPING_H
#define BENCH_STEPPING_H

#include "bench/setting.h"
#include "sim/experiment/experiment.h"

/* The router's `setting` beside it is the routing alone, on the same batch. */
struct stepping {
    struct setting setting;
    struct moesim_arena *arena;
    struct moesim_router_entry entry;
    struct moesim_experiment *experiment;
};

/* `extra` is more of the study's text; ends the program with a sentence when that fails. One at a time. */
void stepping_open(struct stepping *s, const char *spec, struct setting_shape shape, uint32_t n_layers,
                   const char *extra);

/* Routes once; takes one step of the experiment. `stepping` is a struct stepping. */
void stepping_route(void *stepping);
void stepping_step(void *stepping);

void stepping_close(struct stepping *s);

#endif
