/* SPDX-License-Identifier: MIT */
#include "sim/contract/overlap.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "sim/contract/kernels/rows.h"

static bool same_sequence(const uint32_t *sequence, uint32_t t, uint32_t lag)
{
    return t >= lag && (!sequence || sequence[t] == sequence[t - lag]);
}

/* Whether all of tokens [first, last), first >= lag, are of the same sequence as those `lag` before them. */
static bool all_same_sequence(const uint32_t *sequence, uint32_t first, uint32_t last, uint32_t lag)
{
    return !sequence || memcmp(sequence + first, sequence + first - lag, (last - first) * sizeof *sequence) == 0;
}

void overlap_add_even(struct overlap *overlap, const struct moesim_plan *plan, const uint32_t *sequence_id, int lag,
                      uint32_t first, uint32_t last, uint32_t k, const uint64_t *word)
{
    const struct rows_kernels *rows = moesim_rows();
    const uint32_t back = overlap_lags[lag];
    uint32_t t = first < back ? back : first;
    const bool all = t < last && all_same_sequence(sequence_id, t, last, back);
    for (; t < last; t++) {
        const uint32_t begin = t;
        while (t < last && (all || same_sequence(sequence_id, t, back)))
            t = all ? last : t + 1;
        if (t == begin)
            continue;
        overlap->n += t - begin;
        overlap->shared[k] += word ? rows->shared_words(word + (begin - first), t - begin, back)
                                   : rows->shared(plan->expert + plan->first[begin], t - begin, k, back);
    }
}

/* Names the experts of tokens [first, last) in the history, without counting. */
static void remember(const struct moesim_plan *plan, struct overlap_history *history, uint32_t first, uint32_t last,
                     uint64_t now)
{
    for (uint32_t t = first; t < last; t++, now++) {
        for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
            if (plan->expert[i] == MOESIM_NO_EXPERT)
                continue;
            struct overlap_history *h = &history[plan->expert[i]];
            const uint64_t ago = now - h->last;
            h->before = ago == 0 ? h->before : ago > OVERLAP_FAR ? 1 : h->before << (ago - 1) << 1 | 1;
            h->last = now;
        }
    }
}

/* What a token's experts, n of them, share with the tokens before. */
struct shares {
    uint32_t n, with[OVERLAP_LAGS];
};

static struct shares shares_of(const struct moesim_plan *plan, struct overlap_history *history, uint64_t now,
                               uint32_t t)
{
    struct shares of = {0};
    for (uint32_t i = plan->first[t]; i < plan->first[t + 1]; i++) {
        if (plan->expert[i] == MOESIM_NO_EXPERT)
            continue;
        struct overlap_history *h = &history[plan->expert[i]];
        const uint64_t ago = now - h->last;
        if (ago == 0) /* named twice */
            continue;
        const uint64_t before = ago > OVERLAP_FAR ? 0 : h->before << (ago - 1);
        of.n++;
        of.with[0] += before & 1;
        of.with[1] += (uint32_t)(before >> (OVERLAP_FAR - 1));
        h->before = before << 1 | 1;
        h->last = now;
    }
    return of;
}

void overlap_add(struct overlap overlap[OVERLAP_LAGS], const struct moesim_plan *plan, const uint32_t *sequence_id,
                 uint32_t first, uint32_t last, struct overlap_history *history, uint64_t now, bool anew,
                 double share[OVERLAP_LAGS])
{
    const uint32_t back = first < OVERLAP_FAR ? first : OVERLAP_FAR;
    if (anew)
        remember(plan, history, first - back, first, now - back);
    for (uint32_t t = first; t < last; t++, now++) {
        const struct shares of = shares_of(plan, history, now, t);
        for (int i = 0; of.n > 0 && i < OVERLAP_LAGS; i++) {
            if (!same_sequence(sequence_id, t, overlap_lags[i]))
                continue;
            overlap[i].n++;
            if (of.n <= OVERLAP_COUNTED)
                overlap[i].shared[of.n] += of.with[i];
            else
                share[i] += (double)of.with[i] / of.n;
        }
    }
}

void overlap_merge(struct overlap *sum, const struct overlap *overlap)
{
    sum->n += overlap->n;
    for (uint32_t n = 0; n <= OVERLAP_COUNTED; n++)
        sum->shared[n] += overlap->shared[n];
}

double overlap_mean(const struct overlap *overlap, double share)
{
    double sum = 0;
    for (uint32_t n = 1; n <= OVERLAP_COUNTED; n++)
        sum += (double)overlap->shared[n] / n;
    return overlap->n ? (sum + share) / (double)overlap->n : (double)NAN;
}
