/*
 * Max-min fair sharing: how long flows take that share links.
 */
#ifndef MOESIM_SIM_COST_FLOWS_H
#define MOESIM_SIM_COST_FLOWS_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

enum { MOESIM_MAX_FLOW_LINKS = 4 };

/* A flow over its links, all of which it holds at one rate until its last byte is through. */
struct moesim_flow {
    uint32_t link[MOESIM_MAX_FLOW_LINKS];
    uint32_t n_links; /* at least 1 */
    double bytes;     /* above 0 */
};

/* Runs all flows from time 0 and writes when each ends into end_s [n_flows]. Rates are max-min fair (progressive
 * filling: Bertsekas and Gallager, Data Networks, section 6.5.2) over links of `rate` [n_links] bytes per second,
 * worked out anew whenever flows end. Flows that end within `resolution_s` of each other count as one event, in which
 * what the first ones leave stays idle for that long; 0 is exact. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status moesim_flows_run(const struct moesim_flow *flow, size_t n_flows,
                                                      const double *rate, uint32_t n_links, double resolution_s,
                                                      double *end_s, struct moesim_error *err);

#endif
