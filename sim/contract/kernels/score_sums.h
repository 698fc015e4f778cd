/* SPDX-License-Identifier: MIT
 *
 * Inside the sums of scores: they are kept for segments, parts of a run of tokens that lie in one group and, where
 * asked, in one sequence. There is room for a few segments more than a batch of long groups has; where that is
 * not enough, runs of segments are worked out one after the other.
 */
#ifndef MOESIM_KERNELS_SCORE_SUMS_H
#define MOESIM_KERNELS_SCORE_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/batch.h>
#include <moesim/kernels.h>

#define CHUNK_TOKENS MOESIM_RUN_TOKENS

/* The group that holds the token. */
static inline uint32_t batch_group_of(const struct moesim_batch *batch, uint32_t token)
{
    uint32_t low = 0, high = batch->n_groups; /* group_start[low] <= token < group_start[high] */
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (batch->group_start[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

struct segment {
    uint32_t first, last; /* tokens */
    double squares;       /* sum of (ln sum exp logit)^2, for softmax, where the choice adds them up */
};

struct moesim_score_sums {
    enum moesim_score score;
    uint32_t n_experts, n_threads, run_tokens;
    bool by_sequence;

    const struct moesim_batch *batch;
    const float *logits; /* [n_tokens][stride] what scores are of */
    size_t stride;

    bool is_added;           /* the segments at hand are the whole batch, and the router adds to them as it goes */
    uint32_t n, max;         /* segments at hand, at most */
    struct segment *segment; /* [max] by rising token */
    double *sum;             /* [max][E] */
    float *values;           /* [n_threads][ROWS_LANES][E] */
};

/* The segment at hand that holds the token. */
uint32_t score_sums_find(const struct moesim_score_sums *s, uint32_t token);

/* The sum of `squares` over the batch; only while is_added. */
double score_sums_squares(const struct moesim_score_sums *s);

#endif
