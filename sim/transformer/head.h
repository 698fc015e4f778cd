/*
 * The head: logits over the vocabulary, softmax cross-entropy and its gradient in one pass over blocks of rows, so that
 * the logits of all tokens are never held at once.
 */
#ifndef MOESIM_SIM_HEAD_H
#define MOESIM_SIM_HEAD_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>
#include <moesim/status.h>

#include "sim/transformer/linear.h"
#include "sim/transformer/rows.h"

#define MOESIM_NO_TARGET UINT32_MAX /* this token has no loss */

struct moesim_head {
    struct moesim_linear linear; /* [d_model][vocabulary] */
    struct moesim_linear_work work;
    const struct moesim_rows *rows;
    uint32_t block_rows; /* whose logits are held at once */
    float *logits;       /* [block_rows][vocabulary] */
};

/* The weight and its gradient are the caller's: of the head's own or, tied, of the embedding. */
MOESIM_MUST_CHECK enum moesim_status moesim_head_init(struct moesim_head *head, uint32_t d_model, uint32_t vocabulary,
                                                      uint32_t max_rows, const struct moesim_products *products,
                                                      struct moesim_arena *arena, struct moesim_error *err);

/* Bytes of the above. */
uint64_t moesim_head_bytes(uint32_t d_model, uint32_t vocabulary, uint32_t max_rows, uint32_t n_threads);

/* token_loss [n_rows] = -ln p(target) of x [n_rows][d_model], 0 without target. With `d_x`, the gradients of
 * scale * sum of them: d_x [n_rows][d_model] is overwritten, the weight's overwritten or, with `add`, added to. */
void moesim_head_run(const struct moesim_head *head, const float *x, const uint32_t *target, uint32_t n_rows,
                     float scale, bool add, float *token_loss, float *d_x);

#endif
