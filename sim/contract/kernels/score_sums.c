/* SPDX-License-Identifier: MIT
 *
 * Sums of scores over tokens, by expert. A segment's tokens are added up by one thread in their order, segments in
 * theirs, so that the bits do not depend on the number of threads.
 */
#include "sim/contract/kernels/score_sums.h"

#include <assert.h>
#include <omp.h>
#include <string.h>

#include <moesim/router.h>

#include "sim/contract/kernels/rows.h"

#define SPARE_SEGMENTS 64

enum moesim_status moesim_score_sums_init(enum moesim_score score, uint32_t n_experts, uint32_t run_tokens,
                                          bool by_sequence, const struct moesim_env *env,
                                          struct moesim_score_sums **sums, struct moesim_error *err)
{
    struct moesim_arena *arena = env->arena;
    struct moesim_score_sums *s = moesim_alloc(arena, 1, sizeof *s);
    bool ok = s != NULL;
    if (ok) {
        *s = (struct moesim_score_sums){.score = score, .n_experts = n_experts, .by_sequence = by_sequence};
        s->n_threads = (uint32_t)omp_get_max_threads();
        s->run_tokens = run_tokens > 0 ? run_tokens : CHUNK_TOKENS;
        s->max = 2 * (env->max_tokens / s->run_tokens) + SPARE_SEGMENTS;
        s->segment = moesim_alloc(arena, s->max, sizeof *s->segment);
        s->sum = moesim_alloc(arena, (size_t)s->max * n_experts, sizeof *s->sum);
        s->values = moesim_alloc(arena, (size_t)s->n_threads * ROWS_LANES * n_experts, sizeof *s->values);
        ok = s->segment && s->sum && s->values;
    }
    *sums = s;
    return ok ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory to add up scores of %u experts", n_experts);
}

/* Where the segment that starts at `token` ends. */
static uint32_t end_of(const struct moesim_score_sums *s, uint32_t token)
{
    const uint32_t end = s->batch->group_start[batch_group_of(s->batch, token) + 1];
    const uint32_t *sequence = s->by_sequence ? s->batch->sequence_id : NULL;
    const uint32_t rest = s->run_tokens - token % s->run_tokens;
    const uint32_t last = end - token < rest ? end : token + rest;
    for (uint32_t t = token + 1; sequence && t < last; t++)
        if (sequence[t] != sequence[t - 1])
            return t;
    return last;
}

/* Takes up as many segments as there is room for, from `first` on, with sums of 0. */
static void cut(struct moesim_score_sums *s, uint32_t first)
{
    s->n = 0;
    for (uint32_t t = first; t < s->batch->n_tokens && s->n < s->max; s->n++) {
        s->segment[s->n] = (struct segment){.first = t, .last = end_of(s, t)};
        t = s->segment[s->n].last;
    }
    memset(s->sum, 0, (size_t)s->n * s->n_experts * sizeof *s->sum);
}

static uint32_t end_at_hand(const struct moesim_score_sums *s)
{
    return s->n > 0 ? s->segment[s->n - 1].last : 0;
}

void moesim_score_sums_begin(struct moesim_score_sums *s, const struct moesim_batch *batch, const float *logits,
                             size_t stride, bool is_added)
{
    s->batch = batch;
    s->logits = logits;
    s->stride = stride;
    s->n = 0;
    if (is_added)
        cut(s, 0);
    s->is_added = is_added && end_at_hand(s) == batch->n_tokens;
    if (!s->is_added)
        s->n = 0;
}

uint32_t score_sums_find(const struct moesim_score_sums *s, uint32_t token)
{
    uint32_t low = 0, high = s->n; /* first of low <= token < first of high */
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (s->segment[middle].first <= token)
            low = middle;
        else
            high = middle;
    }
    return low;
}

void moesim_score_sums_add(struct moesim_score_sums *s, uint32_t token, const float *scores)
{
    if (s->is_added)
        moesim_rows()->add_scores(s->score, scores, s->n_experts,
                                  s->sum + (size_t)score_sums_find(s, token) * s->n_experts);
}

/* Adds up one segment, eight rows at a time. */
static void fill(const struct moesim_score_sums *s, uint32_t i)
{
    const struct rows_kernels *rows = moesim_rows();
    const uint8_t *padding = s->batch->padding;
    float *values = s->values + (size_t)omp_get_thread_num() * ROWS_LANES * s->n_experts;
    const float *row[ROWS_LANES];
    uint32_t n = 0;
    for (uint32_t t = s->segment[i].first; t < s->segment[i].last; t++) {
        if (!(padding && padding[t]))
            row[n++] = s->logits + t * s->stride;
        if (n == 0 || (n < ROWS_LANES && t + 1 < s->segment[i].last))
            continue;
        rows->sum_scores(s->score, row, n, s->n_experts, values, s->sum + (size_t)i * s->n_experts);
        n = 0;
    }
}

/* Works out the segments from `first` on. */
static void take_up(struct moesim_score_sums *s, uint32_t first)
{
    const int most = omp_get_max_threads(), own = (int)s->n_threads;
    cut(s, first);
    s->is_added = false;
#pragma omp parallel for schedule(dynamic, 1)                                                                          \
    num_threads(most < own ? most : own) if (end_at_hand(s) - first >= ROWS_PARALLEL)
    for (uint32_t i = 0; i < s->n; i++)
        fill(s, i);
}

void moesim_score_sums_of(struct moesim_score_sums *s, uint32_t first, uint32_t last, double *sum)
{
    memset(sum, 0, s->n_experts * sizeof *sum);
    for (uint32_t t = first; t < last;) {
        if (s->n == 0 || t < s->segment[0].first || t >= end_at_hand(s))
            take_up(s, t);
        const uint32_t i = score_sums_find(s, t);
        const double *own = s->sum + (size_t)i * s->n_experts;
        assert(s->segment[i].first == t);
        for (uint32_t e = 0; e < s->n_experts; e++)
            sum[e] += own[e];
        t = s->segment[i].last;
    }
}

double score_sums_squares(const struct moesim_score_sums *s)
{
    double sum = 0;
    for (uint32_t i = 0; i < s->n; i++)
        sum += s->segment[i].squares;
    return sum;
}
