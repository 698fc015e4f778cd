/* SPDX-License-Identifier: MIT
 *
 * The inner loops over rows of gate columns. One source, rows.c, is compiled twice (baseline and AVX2, both without
 * FMA), so that both give the same bits; moesim_rows() picks one when the program runs.
 */
#ifndef MOESIM_KERNELS_ROWS_H
#define MOESIM_KERNELS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/kernels.h>

#define ROWS_LANES 8       /* rows that one select() call takes */
#define ROWS_PARALLEL 1024 /* fewer rows are not worth waking a second thread */

/* What to choose from each row. */
struct rows_select {
    enum moesim_score score;
    bool want_score;    /* fill the selected scores, else only the experts */
    uint32_t n, k;      /* columns, and how many of them are chosen */
    const float *bias;  /* [n] added to the scores for selection only; NULL = none */
    bool by_score;      /* compare float32 scores (plus bias); else logits */
    const float *shift; /* [n] added to the logits for selection only, not with by_score; NULL = none */

    /* what the rows add to, unless NULL and not with a shift; a lane that repeats the one before adds nothing */
    double *sum;     /* [n] += the scores, divided by their sum over experts if they do not add up to 1 by themselves */
    double *squares; /* += (ln sum exp logit)^2, for softmax */

    /* groups of experts, by score only; n_groups 0 or 1 = none */
    uint32_t n_groups, topk_groups; /* topk_groups 0 = k / n_groups experts from each group */
    enum moesim_group_score group_score;
    uint32_t group_best; /* how many of a group's best scores topk adds up */
};

/* Floats of scratch that select() uses for its eight rows when it compares by score or adds up. */
static inline size_t rows_scratch(uint32_t n, uint32_t n_groups)
{
    return ROWS_LANES * ((size_t)n + 2 * (size_t)n_groups) + n;
}

/* Floats of scratch that keep_groups() uses. */
static inline size_t rows_groups_scratch(uint32_t n, uint32_t n_groups)
{
    return ROWS_LANES * (size_t)n_groups + n;
}

struct rows_kernels {
    const char *name;
    float (*exp)(float x);
    float (*sum)(const float *x, size_t n);
    void (*softplus)(const float *x, size_t n, float *out);
    void (*normal_cdf)(const float *x, size_t n, float *out);
    /* out[n] = the scores of one row. */
    void (*scores)(enum moesim_score score, const float *row, uint32_t n, float *out);
    /* sum[n] += one row of such scores, as rows_select.sum. */
    void (*add_scores)(enum moesim_score score, const float *scores, uint32_t n, double *sum);
    /* ln sum exp l over the row's finite logits; NaN where there are none. */
    double (*size)(const float *row, uint32_t n);
    /* For each of eight rows the k best experts, best first, into expert[lane][k] and score[lane][k]. `values`
     * ([rows_scratch]) is used when by_score, with a shift or a sum. */
    void (*select)(const struct rows_select *s, const float *const row[ROWS_LANES], float *values,
                   uint32_t *const expert[ROWS_LANES], float *const score[ROWS_LANES]);
    /* The kept groups of one row of values, by rising id; MOESIM_NO_EXPERT where there are fewer. kept is
     * [topk_groups], `scratch` [rows_groups_scratch]. */
    void (*keep_groups)(const struct rows_select *s, const float *values, float *scratch, uint32_t *kept);
};

extern const struct rows_kernels moesim_rows_baseline, moesim_rows_avx2;

/* The fastest that this processor runs. */
const struct rows_kernels *moesim_rows(void);

/* Whether the row has a finite value. */
static inline bool rows_any_finite(const float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (row[i] - row[i] == 0)
            return true;
    return false;
}

#endif
