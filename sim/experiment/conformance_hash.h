/*
 * Fingerprints of what an instance decided and computed: equal bits, equal hash.
 */
#ifndef MOESIM_SIM_CONFORMANCE_HASH_H
#define MOESIM_SIM_CONFORMANCE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/plan.h>
#include <moesim/router.h>

/* Continues `hash` with n bytes, for arrays of megabytes; every single changed bit changes the result. */
uint64_t hash_array(uint64_t hash, const void *bytes, size_t n);

/* What a router asked of its host, but for the sizes of arrays: those alone make no difference that anybody sees. */
uint64_t hash_shape(const struct moesim_shape *shape);

/* Everything in a plan; `decisions` leaves out weights, capacity, counts, losses and soft matrices. */
uint64_t hash_plan(const struct moesim_plan *plan, bool decisions);

#endif
