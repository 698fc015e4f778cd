/* SPDX-License-Identifier: MIT
 *
 * The workload contract: a source of tokens, in the router's pattern.
 */
#ifndef MOESIM_WORKLOAD_H
#define MOESIM_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/batch.h>
#include <moesim/param.h>
#include <moesim/status.h>

#define MOESIM_WORKLOAD_ABI 1u

/* What the parameters (and the files they name) fix. The host zeroes it before shape(); 0 leaves the choice to the
 * study. */
struct moesim_workload_shape {
    uint32_t struct_size;
    uint32_t provides; /* enum moesim_needs, beyond the workload's own */
    uint32_t n_layers, n_experts;
    uint32_t n_columns; /* in the data; a router that wants more is refused, unless they are optional */
    uint32_t d_model, vocabulary, n_domains;
    uint32_t n_tokens; /* of a step */
    double gate_std;   /* standard deviation of the logits the host's seeded gate should give; 0 = 1 */
    uint32_t top_k;    /* experts of a token in the data: the model's, where it does not say itself */
    bool more_experts; /* n_experts are those that the data names: the model may have more */
    bool any_model;    /* n_layers, n_experts and top_k are only what the model has where it does not say */
    uint32_t sequence; /* tokens of one sequence, where batches hold one after the other; 0 = they do not */
    double held_out;   /* share of its data that MOESIM_PART_VALIDATION draws from; 0 = it has no parts */
    /* The file of a trained model, which the host runs on the tokens: what its MoE layers see, hidden states and gates,
     * is the batch's, and the workload itself makes no hidden states. NULL = none. */
    const char *checkpoint;
};

/* Which of its data an instance draws from; all but the first only where the shape's held_out is above 0. */
enum moesim_part { MOESIM_PART_ALL, MOESIM_PART_TRAINING, MOESIM_PART_VALIDATION };

/* What an instance is set up for. `n_columns` are the gate columns the router wants; the first n_experts of them
 * must not depend on it. */
struct moesim_workload_env {
    uint32_t struct_size;
    uint32_t phase;
    uint64_t seed;
    uint32_t n_layers, n_experts, n_columns, top_k;
    uint32_t n_tokens; /* of every step */
    uint32_t d_model;  /* 0 = nobody wants hidden states, and a workload that would make them leaves them NULL */
    uint32_t n_devices;
    uint32_t n_optional_columns; /* trailing columns that are 0 where the data lacks them (noisy-topk on a file) */
    struct moesim_arena *arena;
    uint32_t part; /* enum moesim_part */
};

struct moesim_workload {
    uint32_t abi, struct_size;
    uint32_t param_size, provides;
    const char *name, *summary, *reference;
    const struct moesim_param *params;
    size_t params_size, state_size;

    /* What the parameters fix, reading file headers as needed; NULL = nothing. */
    enum moesim_status (*shape)(const void *params, struct moesim_workload_shape *shape, struct moesim_error *err);
    enum moesim_status (*init)(void *state, const void *params, const struct moesim_workload_env *env,
                               struct moesim_error *err);
    /* Fills the batch's arrays for (step, layer), a pure function of (seed, step, layer): pointers to the state's own
     * memory, valid until the next call. Sets n_tokens, stride, columns or hidden, and whatever else it
     * provides; the host has set the rest. */
    enum moesim_status (*step)(void *state, uint32_t step, uint32_t layer, struct moesim_batch *batch,
                               struct moesim_error *err);
    /* One line for the reader of results: which data this is ("3 files, 35 kB: GPL-3, ..."). May be NULL. */
    void (*provenance)(const void *state, char *text, size_t size);
    void (*finish)(void *state); /* may be NULL */
    /* Whether the parameters fit what the instance would be set up for, of which n_columns and arena are not known yet;
     * asked before the first run of a study. NULL = they do, or init() tells. */
    enum moesim_status (*fits)(const void *params, const struct moesim_workload_env *env, struct moesim_error *err);
    /* What training on its tokens needs to know; workloads whose shape has held_out above 0 have all three. A domain's
     * name; the bytes of text that one of its tokens stands for, in the mean over the instance's part of them; the text
     * of a token id, of which at most `size` bytes, whole characters, without a zero at their end; it returns how many.
     */
    const char *(*domain_name)(const void *state, uint32_t domain);
    double (*bytes_per_token)(const void *state, uint32_t domain);
    size_t (*token_text)(const void *state, uint32_t token_id, char *text, size_t size);
};

#define MOESIM_WORKLOAD_HEAD                                                                                           \
    .abi = MOESIM_WORKLOAD_ABI, .struct_size = sizeof(struct moesim_workload), .param_size = sizeof(struct moesim_param)

static inline struct moesim_schema moesim_workload_schema(const struct moesim_workload *workload)
{
    return (struct moesim_schema){workload->params, workload->param_size};
}

#endif
