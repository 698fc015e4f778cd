/*
 * The time of an exchange: of dispatch, and of combine, its transpose.
 */
#ifndef MOESIM_SIM_COST_EXCHANGE_H
#define MOESIM_SIM_COST_EXCHANGE_H

#include "sim/cost/cost.h"

/* What the copies counted in `work` take on the transport that runs the form: by the port bound, or as max-min fair
 * flows where leaf switches are oversubscribed. ENOMEM. */
MOESIM_MUST_CHECK enum moesim_status moesim_exchange_set(const struct moesim_cluster *cluster,
                                                         enum moesim_dispatch dispatch, struct moesim_cost_work *work,
                                                         struct moesim_error *err);

/* Seconds when a copy has that many bytes; 0 when nothing moves. */
double moesim_exchange_time(const struct moesim_exchange *exchange, double copy_bytes);

/* The port that the exchange waits for, with copies of that many bytes. */
struct moesim_bound moesim_exchange_bound(const struct moesim_exchange *exchange, double copy_bytes);

#endif
