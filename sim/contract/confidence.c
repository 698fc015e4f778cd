/* SPDX-License-Identifier: MIT
 *
 * Entropy and size of the router's scores: rows eight at a time, runs of rows side by side.
 */
#include "sim/contract/confidence.h"

#include <math.h>
#include <string.h>

#define AT_ONCE 64u /* runs whose sums are kept */

void confidence_of_run(const float *logits, size_t stride, uint32_t n_experts, const uint8_t *padding, uint32_t first,
                       uint32_t last, struct moesim_confidence_run *run)
{
    const float *row[ROWS_LANES];
    uint32_t token[ROWS_LANES], n = 0;
    struct rows_confidence of;
    memset(run, 0, sizeof *run);
    for (uint32_t t = first; t < last; t++) {
        if (!(padding && padding[t])) {
            token[n] = t;
            row[n++] = logits + t * stride;
        }
        if (n == 0 || (n < ROWS_LANES && t + 1 < last))
            continue;
        for (uint32_t l = n; l < ROWS_LANES; l++)
            row[l] = row[n - 1];
        moesim_rows()->confidence(row, n_experts, &of);
        confidence_add(run, token, n, &of);
        n = 0;
    }
}

/* The fixed tree of a sum of eight. */
static double sum_of_lanes(const double x[8])
{
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

struct sums {
    double entropy, square;
    uint64_t n_rows;
};

static void add_runs(struct sums *all, const struct moesim_confidence_run *run, uint32_t n_runs)
{
    for (uint32_t i = 0; i < n_runs; i++) {
        all->entropy += sum_of_lanes(run[i].entropy);
        all->square += sum_of_lanes(run[i].square);
        all->n_rows += run[i].n_rows;
    }
}

static struct moesim_confidence mean(const struct sums *all)
{
    if (all->n_rows == 0)
        return (struct moesim_confidence){NAN, NAN};
    return (struct moesim_confidence){all->entropy / (double)all->n_rows, all->square / (double)all->n_rows};
}

struct moesim_confidence confidence_of_runs(const struct moesim_confidence_run *run, uint32_t n_runs)
{
    struct sums all = {0};
    add_runs(&all, run, n_runs);
    return mean(&all);
}

struct moesim_confidence moesim_router_confidence(const float *logits, size_t stride, uint32_t n_tokens,
                                                  uint32_t n_experts)
{
    const uint32_t n_runs = n_tokens / MOESIM_RUN_TOKENS + (n_tokens % MOESIM_RUN_TOKENS > 0);
    struct moesim_confidence_run run[AT_ONCE];
    struct sums all = {0};
    for (uint32_t from = 0; from < n_runs; from += AT_ONCE) {
        const uint32_t n = n_runs - from < AT_ONCE ? n_runs - from : AT_ONCE;
#pragma omp parallel for schedule(static) if (n > 1)
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t first = (from + i) * MOESIM_RUN_TOKENS, rest = n_tokens - first;
            confidence_of_run(logits, stride, n_experts, NULL, first,
                              rest < MOESIM_RUN_TOKENS ? n_tokens : first + MOESIM_RUN_TOKENS, &run[i]);
        }
        add_runs(&all, run, n);
    }
    return mean(&all);
}
