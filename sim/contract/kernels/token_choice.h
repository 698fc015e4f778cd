/* SPDX-License-Identifier: MIT
 *
 * Inside the token-choice family: chunks of tokens are chosen, counted and finished in parallel; what depends on an
 * order is done group by group. A chunk lies in one group and is the same on any number of threads.
 */
#ifndef MOESIM_KERNELS_TOKEN_CHOICE_H
#define MOESIM_KERNELS_TOKEN_CHOICE_H

#include <omp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/kernels.h>
#include <moesim/random.h>

#include "sim/contract/kernels/orders.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/score_sums.h"

/* The kernels' own random numbers; routers count their streams from MOESIM_STREAM_ROUTER upwards. */
enum { STREAM_NOISE = MOESIM_STREAM_ROUTER + 253, STREAM_SECOND, STREAM_PRIORITY };

struct chunk {
    uint32_t first, last; /* tokens */
    uint32_t group;
    uint32_t n_bad_rows;
    uint64_t n_wanted;
};

struct moesim_token_choice_scratch {
    uint32_t n_experts, n_threads;
    uint32_t n_chunks, max_chunks;
    struct chunk *chunk; /* [max_chunks] */
    uint32_t *count;     /* [max_chunks][E] a chunk's pairs by expert, then the slots taken before it */
    uint32_t *run;       /* [max_tokens / CHUNK_TOKENS + 2] the first chunk of each run of CHUNK_TOKENS tokens */
    float *row;          /* [n_threads][row_size] */
    size_t row_size;     /* rows_scratch() and ROWS_LANES rows of E after it, for logits that are made */
    uint32_t *taken;     /* [max_groups][E] slots handed out */

    struct moesim_score_sums *sums; /* what the next route() adds its logits' scores to; NULL = nothing */

    uint32_t n_unbiased;
    uint32_t *unbiased; /* [max_tokens * n_unbiased] the best of the batch's own columns, for who asks; else NULL */

    uint32_t *withdrawn; /* [max_tokens] a second choice that was not kept, or MOESIM_NO_EXPERT; NULL = all are kept */

    /* for orders other than by token, and for rerouting; NULL when not needed */
    float *key;                          /* [max_tokens * k] draws of pairs */
    uint32_t *order;                     /* [max_tokens * k] tokens by priority, or pairs by expert */
    uint32_t *picked;                    /* [max_tokens * k] an expert's best pairs */
    struct order_item *item, *item_room; /* [max_tokens] to sort tokens by score; NULL when not needed */

    /* for rerouting in rounds; 0 and NULL when not needed */
    uint32_t n_listed;
    uint32_t *list;    /* [max_tokens * n_listed] a token's best experts, the k chosen ones first */
    float *list_score; /* [max_tokens * n_listed] */

    /* for rerouting, by refused pair; NULL when not needed */
    uint32_t *refused; /* [max_tokens * k] pairs of a group in order of priority */
    uint32_t *served;  /* [max_tokens * k] the expert that took the pair's token, or MOESIM_NO_EXPERT */
    int32_t *slot;     /* [max_tokens * k] its slot there */
    float *score;      /* [max_tokens * k] its score there */
};

/* Everything that the steps of one route() share. */
struct token_choice {
    const struct moesim_token_choice *p;
    const struct moesim_batch *batch;
    const float *logits; /* NULL for fixed choices, and with `rows` */
    size_t stride;
    const struct moesim_logit_rows *rows; /* logits that are made; NULL = they are at hand */
    const float *bias;
    const float *shift; /* [n_groups][E] added to logits for selection; NULL = none */
    struct moesim_token_choice_scratch *scratch;
    struct moesim_plan *plan;
    enum moesim_priority priority; /* the one in force: it may not matter in this phase or without a capacity */
    bool tells_confidence;         /* how sure rows are comes out of choosing */
    bool weighs_at_once;           /* weights are made run by run, while rows are in the cache */
};

/* Threads for a loop over chunks: no more than there is scratch for, one for a small batch. */
static inline int token_choice_threads(const struct token_choice *c)
{
    const int most = omp_get_max_threads(), own = (int)c->scratch->n_threads;
    return c->batch->n_tokens < ROWS_PARALLEL ? 1 : most < own ? most : own;
}

/* This thread's rows_scratch(), at least eight rows of E floats. */
static inline float *token_choice_row(const struct token_choice *c)
{
    return c->scratch->row + (size_t)omp_get_thread_num() * c->scratch->row_size;
}

/* This thread's ROWS_LANES rows for logits that are made. */
static inline float *token_choice_made(const struct token_choice *c)
{
    return token_choice_row(c) + c->scratch->row_size - ROWS_LANES * (size_t)c->scratch->n_experts;
}

/* A token's row of logits, at hand or made once more. */
static inline const float *token_choice_logits(const struct token_choice *c, uint32_t token)
{
    if (!c->rows)
        return c->logits + token * c->stride;
    float *row = token_choice_made(c);
    c->rows->make(c->rows->context, token, MOESIM_SLOTS * (uint32_t)omp_get_thread_num(), row);
    return row;
}

/* Groups of experts that limit a token's choice; 1 = none, also where all are kept. */
static inline uint32_t token_choice_groups(const struct moesim_token_choice *p)
{
    return p->n_groups > 1 && p->topk_groups != p->n_groups ? p->n_groups : 1;
}

/* What is added to the logits by which experts are compared; NULL = nothing. */
static inline const float *token_choice_shift(const struct token_choice *c)
{
    return c->p->bias_on == MOESIM_BIAS_ON_LOGITS ? c->bias : NULL;
}

/* Whether experts are compared by float32 scores, not by logits: relu makes equals of all negative logits. */
static inline bool token_choice_by_score(const struct token_choice *c)
{
    if (token_choice_shift(c))
        return false;
    return c->bias != NULL || c->p->score == MOESIM_RELU || token_choice_groups(c->p) > 1;
}

/* How many experts a token may try: its k choices, and with rounds its list as far as there are experts. */
static inline uint32_t token_choice_listed(const struct moesim_token_choice *p, uint32_t n_experts)
{
    const uint32_t most = token_choice_groups(p) > 1 ? p->topk_groups * (n_experts / p->n_groups) : n_experts;
    const uint32_t rounds = p->overflow == MOESIM_REROUTE ? p->rounds : 0, n = rounds < most ? rounds : most;
    return n > p->k ? n : p->k;
}

/* token_choice.c: how experts are chosen. */
struct rows_select token_choice_select(const struct token_choice *c);
/* The k best of one row alone; `values` is [rows_scratch]. */
void token_choice_one(const struct rows_select *select, const float *row, float *values, uint32_t *expert);

/* unbiased.c: the best clean scores of the chunk's tokens, of which the choices are known, into scratch->unbiased. */
void token_choice_unbiased(const struct token_choice *c, const struct chunk *chunk);

/* fit.c: capacity per group; then slots and fates of all pairs whose expert is set. */
void token_choice_capacity(struct token_choice *c);
void token_choice_count(struct token_choice *c, struct chunk *chunk);
void token_choice_admit(struct token_choice *c);

/* reroute.c: serves refused pairs of a group in the order of refused[0 .. n), which it uses up; then puts the served
 * pairs in their places in the plan. */
void token_choice_reroute(struct token_choice *c, uint32_t group, uint32_t *refused, uint32_t n);
void token_choice_insert_served(struct token_choice *c);

/* weights.c: turns the raw scores in plan->weight into gate weights, of tokens [first, last) and of all. */
void token_choice_weigh(const struct token_choice *c, uint32_t first, uint32_t last);
void token_choice_weights(const struct token_choice *c);
/* The gradient of moesim_token_choice_backward() into rows of d_stride floats. */
void token_choice_backward(const struct token_choice *c, const struct moesim_plan *plan, const float *d_weight,
                           float *d_logits, size_t d_stride);

#endif
