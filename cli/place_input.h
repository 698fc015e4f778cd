/*
 * What `moesim place` places by: loads, or the decisions of a trace.
 */
#ifndef MOESIM_CLI_PLACE_INPUT_H
#define MOESIM_CLI_PLACE_INPUT_H

#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/placement/placement.h"
#include "workloads/trace/trace.h"

struct place_input {
    struct moesim_placement_stats stats; /* of kept pairs */
    uint32_t first_layer;                /* number of the first one in the model: dense ones before it are left out */
    struct trace *trace;                 /* of decisions, open; NULL = loads only */
    uint32_t n_tokens, top_k;
};

/* Reads loads, or decisions about n_experts (0 = as many as the file says), from a file of any format; one of the two
 * names is NULL. EINVAL when the file does not have what the rule looks at. To be closed in any case. */
MOESIM_MUST_CHECK enum moesim_status place_input_read(struct place_input *input, const char *loads, const char *trace,
                                                      uint32_t n_experts, const struct moesim_placement_rule *rule,
                                                      struct moesim_arena *arena, struct moesim_error *err);
void place_input_close(struct place_input *input);

/* All decisions of layer number `layer` of the stats, into arrays for n_tokens * top_k pairs. */
MOESIM_MUST_CHECK enum moesim_status place_input_layer(const struct place_input *input, uint32_t layer,
                                                       struct trace_pairs *pairs, struct moesim_error *err);

#endif
