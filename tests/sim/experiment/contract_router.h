/*
 * A router that uses what the contract carries beyond gate logits: hidden states, 2 E gate columns, weights of its own
 * and memory between steps; and the same router with one promise broken at a time.
 */
#ifndef MOESIM_TESTS_CONTRACT_ROUTER_H
#define MOESIM_TESTS_CONTRACT_ROUTER_H

#include <moesim/router.h>

extern const struct moesim_router contract_router;

/* Each token takes its largest logit: no parameters, no shape(), no init(). */
extern const struct moesim_router argmax_router;

/* Which promise the router breaks; read by route() and update(). */
enum contract_fault {
    FAULT_NONE,
    FAULT_DUPLICATE,    /* an expert twice */
    FAULT_THREADS,      /* bits by the number of threads */
    FAULT_FORGETFUL,    /* another plan for the same batch */
    FAULT_DEAD_PARAM,   /* mix is documented but not used */
    FAULT_TIES,         /* the highest id wins a tie */
    FAULT_NAN,          /* NaN is a large number */
    FAULT_BAD_GRADIENT, /* a gradient is not a number */
};
extern enum contract_fault contract_fault;

#endif
