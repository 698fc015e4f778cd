/* SPDX-License-Identifier: MIT
 *
 * A batch: what a router sees of one layer in one step.
 */
#ifndef MOESIM_BATCH_H
#define MOESIM_BATCH_H

#include <stdint.h>

/* What a router may need of a batch and a workload may provide. */
enum moesim_needs {
    MOESIM_NEEDS_HIDDEN = 1u << 0,
    MOESIM_NEEDS_TOKEN_IDS = 1u << 1,
    MOESIM_NEEDS_SEQUENCES = 1u << 2,
    MOESIM_NEEDS_PREVIOUS_LOGITS = 1u << 3,
    MOESIM_NEEDS_DECISIONS = 1u << 4,
    MOESIM_NEEDS_COLUMNS = 1u << 5, /* gate columns; a workload without them has hidden states, which the host gates */
};

enum moesim_phase {
    MOESIM_TRAIN = 0, /* noise, jitter, random second choice, solvers and bias updates are on */
    MOESIM_EVAL = 1,
};

/* A recorded slot that follows from the order of the tokens, as moesim_seat gives it. */
#define MOESIM_SLOT_BY_ORDER INT32_MIN

/* Recorded decisions: pairs by token, then rank, as in a plan. */
struct moesim_decisions {
    const uint32_t *first;  /* [n_tokens + 1] */
    const uint32_t *expert; /* [first[n_tokens]] */
    const float *weight;    /* [first[n_tokens]], or NULL: not recorded */
    const uint8_t *fate;    /* [first[n_tokens]] enum moesim_fate, or NULL: all kept */
    const int32_t *slot;    /* [first[n_tokens]], or NULL: all MOESIM_SLOT_BY_ORDER */
};

/* One layer of one step over all devices. Everything is borrowed for the call; arrays a workload does
 * not have are NULL. The host may grow this struct at its end: test struct_size before a newer field. */
struct moesim_batch {
    uint32_t struct_size;
    uint32_t phase; /* enum moesim_phase */
    uint64_t seed;
    uint32_t step, layer, micro_batch;

    uint32_t n_tokens, n_experts;
    uint32_t n_columns;   /* gate columns of this router */
    uint32_t stride;      /* floats from one row of `columns` to the next, >= n_columns */
    const float *columns; /* [n_tokens][stride] gate output; the first n_experts are the logits of most routers */
    const float *previous_logits; /* [n_tokens][n_columns] the previous layer's columns; NULL on layer 0 */

    uint32_t d_model;
    const float *hidden;         /* [n_tokens][d_model] */
    const uint32_t *token_id;    /* [n_tokens] */
    const uint32_t *sequence_id; /* [n_tokens] */
    const uint32_t *domain;      /* [n_tokens] label for metrics only */
    const uint8_t *padding;      /* [n_tokens], 1 = padding: routed nowhere, not counted */
    const struct moesim_decisions *decisions;

    uint32_t n_groups;
    const uint32_t *group_start; /* [n_groups + 1] groups are runs of tokens; capacity and priority work inside one */
    uint32_t n_devices;
    const uint32_t *device; /* [n_tokens] home device */

    const float *weights; /* [n_weights] what the router learns beyond the gate; the host owns it */
    float *memory;        /* [n_memory] kept between steps; the host owns and checkpoints it */
};

#endif
