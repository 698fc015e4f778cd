/*
 * What a run has found so far, as bytes: parts pass their arrays one after the other, the same way out and back.
 */
#ifndef MOESIM_SIM_STATE_BYTES_H
#define MOESIM_SIM_STATE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct moesim_state_bytes {
    uint8_t *bytes; /* NULL = only count */
    uint64_t n;     /* passed so far */
    bool out;       /* from the arrays into `bytes`; else back */
};

static inline void moesim_state_pass(struct moesim_state_bytes *state, void *array, uint64_t n)
{
    if (state->bytes && n)
        memcpy(state->out ? (void *)(state->bytes + state->n) : array, state->out ? array : state->bytes + state->n, n);
    state->n += n;
}

#endif
