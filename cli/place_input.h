/*
 * What `moesim place` places by: loads, or the decisions of a trace.
 */
#ifndef MOESIM_CLI_PLACE_INPUT_H
#define MOESIM_CLI_PLACE_INPUT_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/placement/placement.h"

struct place_input {
    struct moesim_placement_stats stats;
    uint32_t n_tokens, top_k;
    const uint32_t *decision; /* [n_tokens][n_layers][top_k], by rank; NULL = loads only */
};

/* Reads loads [E] or [L,E], or decisions [T,k] or [T,L,k] of n_experts (0 = as many as the greatest id says), from
 * .npy; one of the two names is NULL. `wants`: what the rule looks at; EINVAL when the file does not have it. */
MOESIM_MUST_CHECK enum moesim_status place_input_read(struct place_input *input, const char *loads, const char *trace,
                                                      uint32_t n_experts, const struct moesim_placement_rule *rule,
                                                      struct moesim_arena *arena, struct moesim_error *err);

#endif
