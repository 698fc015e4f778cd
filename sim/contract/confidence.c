/* SPDX-License-Identifier: MIT
 *
 * Entropy and size of the router's scores. With d_e = l_e - l_max and S = sum e^d, a row's entropy is ln S - sum e^d d
 * / S and its size ln sum e^l = l_max + ln S. Rows are summed in chunks of a fixed length and the chunks in order, so
 * that the result has the same bits on any number of threads.
 */
#include <moesim/kernels.h>
#include <moesim/metric.h>

#include <math.h>

#include "sim/contract/logarithm.h"
#include "sim/contract/kernels/rows.h"

#define CHUNKS 64u
#define TILE 64u /* rows whose logarithms are taken together */

struct chunk_sum {
    double entropy, z;
    uint32_t n_rows;
};

/* -p ln(p + 1e-9), less than which p ln p is off by 1e-9 for every p well above that. */
#define FLOOR 1e-9

/* A row with NaN or +inf: NaN carries no probability, the +inf share it, and its size is that of its finite logits. */
static void add_odd_row(const float *row, uint32_t n, struct chunk_sum *chunk)
{
    double largest = -INFINITY, sum = 0, dot = 0;
    uint32_t n_infinite = 0;
    for (uint32_t e = 0; e < n; e++) {
        n_infinite += row[e] == INFINITY;
        largest = isfinite(row[e]) && row[e] > largest ? row[e] : largest;
    }
    if (largest == -INFINITY)
        return;
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(row[e])) {
            sum += exp(row[e] - largest);
            dot += exp(row[e] - largest) * (row[e] - largest);
        }
    chunk->entropy += n_infinite > 0 ? log(n_infinite) : log(sum) - dot / sum;
    chunk->z += (largest + log(sum)) * (largest + log(sum));
    chunk->n_rows++;
}

static void add_rows(const float *logits, size_t stride, uint32_t n_rows, uint32_t n, struct chunk_sum *chunk)
{
    struct rows_moments row[TILE];
    float log_sum[TILE];
    for (uint32_t t = 0; t < n_rows; t++)
        row[t] = moesim_rows()->moments(logits + t * stride, n);
    for (uint32_t t = 0; t < n_rows; t++)
        log_sum[t] = moesim_ln(row[t].sum);
    for (uint32_t t = 0; t < n_rows; t++) {
        const double size = (double)row[t].max + log_sum[t];
        if (row[t].sum != row[t].sum) {
            add_odd_row(logits + t * stride, n, chunk);
            continue;
        }
        chunk->entropy += log_sum[t] - (double)row[t].dot / row[t].sum - FLOOR * row[t].n_above;
        chunk->z += size * size;
        chunk->n_rows++;
    }
}

struct moesim_confidence moesim_router_confidence(const float *logits, size_t stride, uint32_t n_tokens,
                                                  uint32_t n_experts)
{
    struct chunk_sum chunk[CHUNKS] = {{0}};
#pragma omp parallel for schedule(static) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t c = 0; c < CHUNKS; c++) {
        const uint32_t last = (uint32_t)((uint64_t)n_tokens * (c + 1) / CHUNKS);
        for (uint32_t t = (uint32_t)((uint64_t)n_tokens * c / CHUNKS); t < last; t += TILE)
            add_rows(logits + t * stride, stride, last - t < TILE ? last - t : TILE, n_experts, &chunk[c]);
    }
    struct chunk_sum all = {0};
    for (uint32_t c = 0; c < CHUNKS; c++) {
        all.entropy += chunk[c].entropy;
        all.z += chunk[c].z;
        all.n_rows += chunk[c].n_rows;
    }
    if (all.n_rows == 0)
        return (struct moesim_confidence){NAN, NAN};
    return (struct moesim_confidence){all.entropy / all.n_rows, all.z / all.n_rows};
}
