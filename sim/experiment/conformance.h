/*
 * The conformance suite: what every router promises, tried on random and hostile batches.
 */
#ifndef MOESIM_SIM_CONFORMANCE_H
#define MOESIM_SIM_CONFORMANCE_H

#include <stdint.h>

#include <moesim/router.h>
#include <moesim/status.h>

struct moesim_conformance {
    uint32_t n_shapes;  /* tried */
    uint32_t n_refused; /* by status, which a router may do */
    uint32_t n_checks;  /* single promises verified */
    uint32_t n_failed;
    char failure[20][400]; /* the first ones, each with the shape and seed that show it */
    uint32_t n_failures_kept;
};

/* Tries `router` on n_shapes seeded shapes (T 0..4096, E 1..512, k 1..E, capacity 0.01..E, log-uniform; of those with
 * more than 2^17 tokens x experts a share of 2^17 / (T E) is kept, the others are drawn again) and on hostile columns
 * (NaN, infinities, all equal, denormals, -0, 1e38, empty): the plan is valid, tokens are conserved, nothing is
 * allocated from the arena after init, the bits are equal on 1, 2 and 4 threads and for a batch that comes back, and
 * every documented parameter changes some decision, weight or loss. */
MOESIM_MUST_CHECK enum moesim_status moesim_conformance_run(const struct moesim_router *router, uint32_t n_shapes,
                                                            uint64_t seed, struct moesim_conformance *result,
                                                            struct moesim_error *err);

#endif
