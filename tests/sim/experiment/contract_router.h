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

/* Which promise the router breaks; its hooks read it. */
enum contract_fault {
    FAULT_NONE,
    FAULT_DUPLICATE,        /* an expert twice */
    FAULT_NO_EXPERT,        /* an expert past the last */
    FAULT_CAPACITY,         /* a slot past the capacity */
    FAULT_SLOT,             /* a slot twice */
    FAULT_NAN_WEIGHT,       /* a weight is not a number */
    FAULT_LOST_PAIR,        /* a token's pairs are wanted, but not all are there */
    FAULT_PADDING,          /* padding is routed */
    FAULT_THREADS,          /* bits by the number of threads */
    FAULT_THREADS_GRADIENT, /* those of a gradient alone */
    FAULT_FORGETFUL,        /* another plan for the same batch */
    FAULT_LEAK,             /* the plan depends on the batch before */
    FAULT_OWN_MEMORY,       /* what is learned stays in the state, not in the host's memory */
    FAULT_SHAPE,            /* shape() answers differently every time */
    FAULT_ARENA,            /* route() takes memory from the arena */
    FAULT_DEAD_PARAM,       /* mix is documented but not used */
    FAULT_TIES,             /* the highest id wins a tie */
    FAULT_NAN,              /* NaN is a large number */
    FAULT_BAD_GRADIENT,     /* a gradient is not a number */
    FAULT_BAD_HIDDEN,       /* that of the hidden states is infinite */
    FAULT_BAD_WEIGHTS,      /* that of the weights is not a number */
    FAULT_BAD_MEMORY,       /* update() leaves infinity in the memory */
};
extern enum contract_fault contract_fault;

#endif
