/* SPDX-License-Identifier: MIT
 *
 * Top-k along rows (each token's experts) and along columns (each expert's tokens).
 */
#include "sim/contract/kernels/topk.h"

#include <stdbool.h>
#include <omp.h>

#include <moesim/kernels.h>

#include "sim/contract/kernels/rows.h"

void moesim_topk(const float *values, size_t stride, uint32_t n_tokens, uint32_t n, uint32_t k, uint32_t *expert)
{
    const struct rows_kernels *rows = moesim_rows();
    const struct rows_select select = {.n = n, .k = k};
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t block = 0; block < n_tokens / ROWS_LANES + (n_tokens % ROWS_LANES > 0); block++) {
        const uint32_t t = block * ROWS_LANES;
        const float *row[ROWS_LANES];
        uint32_t *out[ROWS_LANES];
        for (uint32_t l = 0; l < ROWS_LANES; l++) {
            const uint32_t token = t + l < n_tokens ? t + l : n_tokens - 1; /* spare lanes repeat the last row */
            row[l] = values + token * stride;
            out[l] = expert + (size_t)token * k;
        }
        rows->select(&select, row, NULL, out, NULL);
    }
}

void moesim_topk_rows(const float *const *row, uint32_t n_rows, uint32_t n, uint32_t k, uint32_t *const *expert)
{
    const struct rows_select select = {.n = n, .k = k};
    for (uint32_t i = 0; i < n_rows; i += ROWS_LANES) {
        const float *some[ROWS_LANES];
        uint32_t *out[ROWS_LANES];
        for (uint32_t l = 0; l < ROWS_LANES; l++) {
            some[l] = row[i + l < n_rows ? i + l : n_rows - 1]; /* spare lanes repeat the last row */
            out[l] = expert[i + l < n_rows ? i + l : n_rows - 1];
        }
        moesim_rows()->select(&select, some, NULL, out, NULL);
    }
}

/* Whether item a ranks before item b. */
static bool before(const struct topk_heap *heap, uint32_t a, uint32_t b)
{
    const float x = heap->value[a * heap->stride], y = heap->value[b * heap->stride];
    return x > y || (x == y && a < b);
}

static void sift_down(struct topk_heap *heap, uint32_t hole, uint32_t n, uint32_t item)
{
    for (uint32_t child = 2 * hole + 1; child < n; child = 2 * hole + 1) {
        if (child + 1 < n && before(heap, heap->item[child], heap->item[child + 1]))
            child++;
        if (!before(heap, item, heap->item[child]))
            break;
        heap->item[hole] = heap->item[child];
        hole = child;
    }
    heap->item[hole] = item;
}

void moesim_heap_offer(struct topk_heap *heap, uint32_t item)
{
    if (heap->n < heap->limit) {
        uint32_t hole = heap->n++;
        for (; hole > 0 && before(heap, heap->item[(hole - 1) / 2], item); hole = (hole - 1) / 2)
            heap->item[hole] = heap->item[(hole - 1) / 2];
        heap->item[hole] = item;
    } else if (heap->n > 0 && before(heap, item, heap->item[0])) {
        sift_down(heap, 0, heap->n, item);
    }
}

void moesim_heap_sort(struct topk_heap *heap)
{
    for (uint32_t n = heap->n; n > 1; n--) {
        const uint32_t worst = heap->item[0], last = heap->item[n - 1];
        sift_down(heap, 0, n - 1, last);
        heap->item[n - 1] = worst;
    }
}

uint32_t moesim_rank_above(const float *values, uint32_t n, float cut, uint32_t *expert)
{
    const uint32_t count = moesim_rows()->rank_above(values, n, cut, expert);
    if (count <= ROWS_RANKED)
        return count;
    struct topk_heap heap = {.value = values, .stride = 1, .item = expert, .limit = count};
    for (uint32_t e = 0; e < n; e++)
        if (values[e] > cut)
            moesim_heap_offer(&heap, e);
    moesim_heap_sort(&heap);
    return count;
}

float moesim_cut_by_mass(const float *values, const float *mass, uint32_t n, float enough)
{
    return moesim_rows()->cut_by_mass(values, mass, n, enough);
}

uint32_t moesim_topk_column(const float *values, size_t stride, uint32_t first, uint32_t last, uint32_t column,
                            uint32_t count, const uint8_t *skip, uint32_t *row)
{
    struct topk_heap heap = {.value = values + column, .stride = stride, .item = row, .limit = count};
    for (uint32_t r = first; r < last; r++) {
        const float x = values[r * stride + column];
        if (x == x && !(skip && skip[r]))
            moesim_heap_offer(&heap, r);
    }
    moesim_heap_sort(&heap);
    return heap.n;
}
