#include "sim/transformer/head.h"

#define MOST_LOGITS ((size_t)1 << 24) /* floats held at once */

static uint32_t rows_of(uint32_t vocabulary, uint32_t max_rows)
{
    const size_t rows = MOST_LOGITS / vocabulary / LINEAR_BLOCK_ROWS * LINEAR_BLOCK_ROWS;
    const size_t some = rows > LINEAR_BLOCK_ROWS ? rows : LINEAR_BLOCK_ROWS;
    return some < max_rows ? (uint32_t)some : max_rows;
}

enum moesim_status moesim_head_init(struct moesim_head *head, uint32_t d_model, uint32_t vocabulary, uint32_t max_rows,
                                    const struct moesim_products *products, struct moesim_arena *arena,
                                    struct moesim_error *err)
{
    *head = (struct moesim_head){.linear = {.n_in = d_model, .n_out = vocabulary},
                                 .rows = moesim_rows_find(),
                                 .block_rows = rows_of(vocabulary, max_rows)};
    head->logits = moesim_alloc(arena, head->block_rows, vocabulary * sizeof(float));
    if (!head->logits)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the logits of %u tokens over %u words", head->block_rows,
                           vocabulary);
    return moesim_linear_work_init(&head->work, head->block_rows, d_model, vocabulary, products, arena, err);
}

uint64_t moesim_head_bytes(uint32_t d_model, uint32_t vocabulary, uint32_t max_rows, uint32_t n_threads)
{
    const uint32_t rows = rows_of(vocabulary, max_rows);
    return (uint64_t)rows * vocabulary * sizeof(float) + moesim_linear_work_bytes(rows, d_model, vocabulary, n_threads);
}

/* One row of logits becomes the gradient of scale * its loss, which is returned. */
static float run_row(const struct moesim_head *head, uint32_t target, float scale, float *logits)
{
    const uint32_t n = head->linear.n_out;
    if (target == MOESIM_NO_TARGET) {
        for (uint32_t i = 0; i < n; i++)
            logits[i] = 0;
        return 0;
    }
    const float own = logits[target], loss = head->rows->softmax(logits, n) - own;
    logits[target] -= 1;
    for (uint32_t i = 0; i < n; i++)
        logits[i] *= scale;
    return loss;
}

void moesim_head_run(const struct moesim_head *head, const float *x, const uint32_t *target, uint32_t n_rows,
                     float scale, bool add, float *token_loss, float *d_x)
{
    const size_t d = head->linear.n_in, n = head->linear.n_out;
    for (uint32_t first = 0; first < n_rows; first += head->block_rows) {
        const uint32_t rows = n_rows - first < head->block_rows ? n_rows - first : head->block_rows;
        moesim_linear_forward(&head->linear, &head->work, x + first * d, rows, NULL, head->logits);
#pragma omp parallel for schedule(static)
        for (uint32_t r = 0; r < rows; r++)
            token_loss[first + r] = run_row(head, target[first + r], scale, head->logits + r * n);
        if (d_x)
            moesim_linear_backward(&head->linear, &head->work, x + first * d, head->logits, rows, add || first > 0,
                                   d_x + first * d);
    }
}
