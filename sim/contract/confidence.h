/* SPDX-License-Identifier: MIT
 *
 * Adding up how sure rows are, for who has them eight at a time.
 */
#ifndef MOESIM_CONTRACT_CONFIDENCE_H
#define MOESIM_CONTRACT_CONFIDENCE_H

#include <moesim/kernels.h>
#include <moesim/metric.h>

#include "sim/contract/kernels/rows.h"

/* Adds the rows of eight tokens, the first of which is a multiple of eight; none of them is NaN. */
static inline void confidence_add_eight(struct moesim_confidence_run *run, const struct rows_confidence *of)
{
    for (int l = 0; l < 8; l++)
        run->entropy[l] += (double)of->entropy[l];
    for (int l = 0; l < 8; l++)
        run->square[l] += (double)of->size[l] * (double)of->size[l];
    run->n_rows += 8;
}

/* Adds the rows of n tokens of one run, by rising token. */
static inline void confidence_add(struct moesim_confidence_run *run, const uint32_t *token, uint32_t n,
                                  const struct rows_confidence *of)
{
    bool plain = n == 8 && token[0] % 8 == 0 && token[7] == token[0] + 7;
    for (int l = 0; plain && l < 8; l++)
        plain &= of->entropy[l] == of->entropy[l];
    if (plain) {
        confidence_add_eight(run, of);
        return;
    }
    for (uint32_t l = 0; l < n; l++)
        if (of->entropy[l] == of->entropy[l]) {
            run->entropy[token[l] % 8] += (double)of->entropy[l];
            run->square[token[l] % 8] += (double)of->size[l] * (double)of->size[l];
            run->n_rows++;
        }
}

/* Sets the sums of tokens [first, last) of one run; padding (NULL = none) is left out. */
void confidence_of_run(const float *logits, size_t stride, uint32_t n_experts, const uint8_t *padding, uint32_t first,
                       uint32_t last, struct moesim_confidence_run *run);

/* The means, from the sums of the runs in order. */
struct moesim_confidence confidence_of_runs(const struct moesim_confidence_run *run, uint32_t n_runs);

#endif
