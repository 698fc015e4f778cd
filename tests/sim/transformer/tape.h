/*
 * Reverse-mode differentiation in double precision: every operation writes its value and its partial derivatives on a
 * tape, and one pass back over the tape gives the gradient of the last value by all of them. A twin written on it
 * states the forward pass only.
 */
#ifndef TESTS_SIM_TRANSFORMER_TAPE_H
#define TESTS_SIM_TRANSFORMER_TAPE_H

#include <stddef.h>
#include <stdint.h>

typedef uint32_t node; /* 0 is the constant 0 */

struct tape_entry {
    node parent[3];
    double slope[3]; /* of the value by the parents' */
};

struct tape {
    double *value, *gradient;
    struct tape_entry *entry;
    size_t n, room;
};

void tape_init(struct tape *t);
void tape_finish(struct tape *t);
void tape_clear(struct tape *t);

node tape_leaf(struct tape *t, double x);
node tape_add(struct tape *t, node a, node b);
node tape_subtract(struct tape *t, node a, node b);
node tape_multiply(struct tape *t, node a, node b);
node tape_divide(struct tape *t, node a, node b);
node tape_multiply_add(struct tape *t, node a, node b, node c); /* a * b + c */
node tape_scale(struct tape *t, node a, double by);
node tape_exp(struct tape *t, node a);
node tape_log(struct tape *t, node a);
node tape_sqrt(struct tape *t, node a);
node tape_tanh(struct tape *t, node a);
node tape_relu(struct tape *t, node a);

/* gradient[i] = d of / d i for every node. */
void tape_differentiate(struct tape *t, node of);

#endif
