/* SPDX-License-Identifier: MIT
 *
 * Tokens are cut into parts that threads go through side by side. Where every pair follows the one before it on the
 * same expert, slots are distinct and only the ends of the parts have to be fitted together. Where they come in another
 * order, each part marks its slots in a map of all that there are; they are distinct if the maps together have as many
 * marks as there are kept pairs.
 */
#include "sim/contract/plan_screen.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/contract/kernels/rows.h"

#define BLOCK_TOKENS 256     /* looked at in bulk before one by one */
#define PARALLEL_TOKENS 4096 /* fewer are not worth waking a second thread */

/* An expert of which a part has kept no pair yet; no slot is so high. */
#define UNSEEN 0x80000000u

/* Tokens first .. last - 1 of one group, and what a part keeps by expert. */
struct part {
    const struct moesim_plan *plan;
    const uint8_t *padding;
    const uint32_t *sequence_id;
    uint32_t first, last;
    uint32_t *token;          /* [E] the last token that was looked at on its own and has the expert, + 1; 0 = none */
    uint32_t *start;          /* [E] the first slot or UNSEEN; with a map, the expert's first place in it */
    uint32_t *next;           /* [E] the slot after the last or UNSEEN */
    uint32_t *was;            /* [E] the same before a block */
    uint32_t *map;            /* [n_bits] a bit for each slot of the group's capacities; NULL = pairs have to follow */
    const uint32_t *capacity; /* [E] of the group */
    struct plan_totals totals;
    bool holds;

    uint32_t wants;                       /* lags of a survey */
    uint32_t k;                           /* kept pairs of every token so far, none refused; 0 = they differ */
    struct overlap overlap[OVERLAP_LAGS]; /* of such tokens with tokens of the part */
};

/* Experts as bits, of the tokens before a block and of the block. */
struct words {
    uint64_t of[OVERLAP_FAR + BLOCK_TOKENS];
};

/* How parts are gone through. */
struct screen {
    const struct moesim_plan *plan;
    const struct moesim_batch *batch;
    uint32_t n_threads;
    uint32_t n_parts;           /* of a group */
    uint32_t *words;            /* [n_threads][part_words] */
    uint64_t n_bits;            /* of a part's map; 0 = none, pairs have to follow */
    struct plan_counts *counts; /* NULL = not wanted */
};

/* Words that a part keeps. */
static size_t part_words(uint32_t n_experts, uint64_t n_bits)
{
    return 4 * (size_t)n_experts + (size_t)(n_bits / 32 + (n_bits > 0));
}

size_t plan_screen_words(uint32_t n_experts, uint32_t n_threads)
{
    return part_words(n_experts, 0) * n_threads;
}

/* Whether the tokens' offsets rise, as they do by k > 0 unless they wrap, and end within the plan. */
static bool offsets_rise(const struct moesim_plan *plan, uint32_t first, uint32_t last, uint32_t k)
{
    uint32_t falls = 0;
    for (uint32_t t = first; k == 0 && t < last; t++)
        falls |= plan->first[t] > plan->first[t + 1];
    return !falls && plan->first[first] <= plan->first[last] && plan->first[last] <= plan->n_pairs;
}

/* The same where slots come in any order: whether the token has it once and the slot is one of the expert's. */
static inline bool mark(struct part *p, uint32_t token, uint32_t expert, uint32_t slot)
{
    const bool fits = slot < p->capacity[expert] && p->token[expert] != token + 1;
    const uint32_t place = p->start[expert] + slot;
    p->token[expert] = token + 1;
    if (fits)
        p->map[place / 32] |= 1u << place % 32;
    return fits;
}

/* A kept pair of an expert there is: whether the token has it once and the slot follows the last one's. */
static inline bool take(struct part *p, uint32_t token, uint32_t expert, uint32_t slot)
{
    if (p->map)
        return mark(p, token, expert, slot);
    if (p->next[expert] == UNSEEN)
        p->start[expert] = p->next[expert] = slot;
    const bool follows = p->next[expert] == slot && p->token[expert] != token + 1 && slot < UNSEEN;
    p->token[expert] = token + 1;
    p->next[expert] = slot + 1;
    return follows;
}

/* How many pairs every token has; 0 where they differ. */
static uint32_t pairs_of_each(const struct moesim_plan *plan, uint32_t first, uint32_t last)
{
    const uint32_t *at = plan->first, k = at[first + 1] - at[first];
    uint32_t odd = 0;
    for (uint32_t t = first; t < last; t++)
        odd |= (at[t + 1] - at[t]) ^ k;
    return odd == 0 && k <= plan->n_experts ? k : 0;
}

static bool any_padding(const struct part *p, uint32_t first, uint32_t last)
{
    uint8_t any = 0;
    for (uint32_t t = first; p->padding && t < last; t++)
        any |= p->padding[t];
    return any != 0;
}

/* The words of a block whose tokens have k plain pairs each; NULL where they are none, or not worth it. */
static const uint64_t *make_words(const struct part *p, uint32_t first, uint32_t last, uint32_t k, struct words *words)
{
    const struct moesim_plan *plan = p->plan;
    uint64_t *word = words->of + OVERLAP_FAR;
    if (k <= 2 || plan->n_experts > ROWS_WORD_EXPERTS)
        return NULL;
    if (first > p->first)
        memmove(words->of, words->of + BLOCK_TOKENS, OVERLAP_FAR * sizeof *word);
    moesim_rows()->words(plan->expert + plan->first[first], last - first, k, word);
    return word;
}

/* Tokens with k pairs each in one go. False where they do not follow, or an expert is met for the first time: they are
 * to be looked at one by one. */
static bool take_block(struct part *p, uint32_t first, uint32_t last, uint32_t k, const uint64_t *word)
{
    const struct moesim_plan *plan = p->plan;
    const uint32_t i = plan->first[first], n_experts = plan->n_experts;
    if (p->map || k == 0 || !(word || rows_can_follow(k)) || any_padding(p, first, last))
        return false;
    memcpy(p->was, p->next, n_experts * sizeof *p->was);
    if (moesim_rows()->follow(plan->expert + i, plan->slot + i, word, k * (last - first), k, n_experts, p->next))
        return true;
    memcpy(p->next, p->was, n_experts * sizeof *p->was);
    return false;
}

static bool take_plain_tokens(struct part *p, uint32_t first, uint32_t last, uint32_t k, const uint64_t *word)
{
    const struct moesim_plan *plan = p->plan;
    uint32_t i = plan->first[first];
    bool holds = true;
    p->totals.n_kept += plan->first[last] - i;
    if (take_block(p, first, last, k, word))
        return true;
    for (uint32_t t = first; t < last; t++) {
        holds &= !(p->padding && p->padding[t] && i < plan->first[t + 1]);
        for (const uint32_t end = plan->first[t + 1]; i < end; i++)
            holds &= take(p, t, plan->expert[i], (uint32_t)plan->slot[i]);
    }
    return holds;
}

static bool is_refused(const struct moesim_plan *plan, uint32_t i)
{
    const bool is_bad = plan->fate[i] == MOESIM_BAD_ROW;
    return plan->fate[i] <= MOESIM_BAD_ROW && plan->weight[i] == 0 && plan->slot[i] == -1 &&
           (is_bad ? plan->expert[i] == MOESIM_NO_EXPERT : plan->expert[i] < plan->n_experts);
}

/* A token with pairs of any fate; a row whose first choice is bad is bad altogether. */
static bool take_token(struct part *p, uint32_t token)
{
    const struct moesim_plan *plan = p->plan;
    const uint32_t begin = plan->first[token], end = plan->first[token + 1];
    uint32_t n_bad = 0;
    bool holds = true;
    for (uint32_t i = begin; i < end && holds; i++) {
        const uint8_t fate = plan->fate[i];
        if (fate == MOESIM_KEPT)
            holds = plan->expert[i] < plan->n_experts && isfinite(plan->weight[i]) &&
                    take(p, token, plan->expert[i], (uint32_t)plan->slot[i]);
        else
            holds = is_refused(plan, i);
        holds = holds && (plan->fate[begin] != MOESIM_BAD_ROW || fate == MOESIM_BAD_ROW);
        p->totals.n_kept += fate == MOESIM_KEPT;
        p->totals.n_over_capacity += fate == MOESIM_OVER_CAPACITY;
        n_bad += fate == MOESIM_BAD_ROW;
    }
    p->totals.n_bad_rows += n_bad > 0 && n_bad == end - begin;
    return holds && !(n_bad < end - begin && p->padding && p->padding[token]);
}

/* Counts on, as long as every token has k kept pairs and no others; 0 = these have not. */
static void count_block(struct part *p, uint32_t first, uint32_t last, uint32_t k, const uint64_t *word)
{
    if (first == p->first)
        p->k = k <= OVERLAP_COUNTED ? k : 0;
    if (k != p->k)
        p->k = 0;
    for (int i = 0; p->k > 0 && i < OVERLAP_LAGS; i++) {
        const uint32_t seam = p->first + overlap_lags[i], begin = first < seam ? seam : first;
        if (overlap_wanted(p->wants, i) && begin < last)
            overlap_add_even(&p->overlap[i], p->plan, p->sequence_id, i, begin, last, k,
                             word ? word + (begin - first) : NULL);
    }
}

static void screen_part(struct part *p)
{
    const struct moesim_plan *plan = p->plan;
    struct words words;
    p->holds = true;
    for (uint32_t t = p->first, end; t < p->last && p->holds; t = end) {
        end = p->last - t > BLOCK_TOKENS ? t + BLOCK_TOKENS : p->last;
        const uint32_t begin = plan->first[t], k = pairs_of_each(plan, t, end);
        p->holds = offsets_rise(plan, t, end, k);
        const bool plain =
            p->holds && moesim_rows()->plain_pairs(plan->expert + begin, plan->weight + begin, plan->fate + begin,
                                                   plan->first[end] - begin, plan->n_experts);
        const uint64_t *word = plain ? make_words(p, t, end, k, &words) : NULL;
        if (plain)
            p->holds = take_plain_tokens(p, t, end, k, word);
        for (uint32_t i = t; !plain && i < end && p->holds; i++)
            p->holds = take_token(p, i);
        if (p->holds)
            count_block(p, t, end, plain ? k : 0, word);
    }
}

/* Whether a group's parts go on where those before them ended, from slot 0 to capacity. */
static bool parts_fit(const struct part *part, uint32_t n_parts, const uint32_t *capacity, uint32_t n_experts)
{
    bool fit = true;
    for (uint32_t e = 0; e < n_experts && fit; e++) {
        uint32_t next = 0;
        for (uint32_t i = 0; i < n_parts; i++) {
            if (part[i].next[e] == UNSEEN)
                continue;
            fit = fit && part[i].start[e] == next;
            next = part[i].next[e];
        }
        fit = fit && next <= capacity[e];
    }
    return fit;
}

static void add_totals(const struct part *p, struct plan_totals *totals)
{
    totals->n_kept += p->totals.n_kept;
    totals->n_over_capacity += p->totals.n_over_capacity;
    totals->n_bad_rows += p->totals.n_bad_rows;
}

#define MOST_PARTS 64

static struct part part_of(const struct screen *s, uint32_t group, uint32_t first, uint32_t last, uint32_t table)
{
    const uint32_t n_experts = s->plan->n_experts;
    struct part p = {.plan = s->plan,
                     .padding = s->batch->padding,
                     .sequence_id = s->batch->sequence_id,
                     .first = first,
                     .last = last,
                     .wants = s->counts ? s->counts->wants : 0};
    p.token = s->words + table * part_words(n_experts, s->n_bits);
    p.start = p.token + n_experts;
    p.next = p.start + n_experts;
    p.was = p.next + n_experts;
    p.capacity = s->plan->capacity + (size_t)group * n_experts;
    memset(p.token, 0, n_experts * sizeof *p.token);
    for (uint32_t e = 0; e < n_experts; e++)
        p.start[e] = p.next[e] = first == s->batch->group_start[group] ? 0 : UNSEEN;
    if (!s->n_bits)
        return p;
    uint32_t sum = 0;
    p.map = p.was + n_experts;
    memset(p.map, 0, (s->n_bits / 32 + 1) * sizeof *p.map);
    for (uint32_t e = 0; e < n_experts; e++) {
        p.start[e] = sum;
        sum += p.capacity[e];
    }
    return p;
}

/* Whether the parts' maps together have a mark for every kept pair. */
static bool are_distinct(const struct screen *s, const struct part *part, uint32_t n_parts)
{
    uint64_t n_kept = 0, n_marks = 0;
    for (uint32_t i = 0; i < n_parts; i++)
        n_kept += part[i].totals.n_kept;
    for (uint64_t w = 0; w <= s->n_bits / 32; w++) {
        uint32_t marks = 0;
        for (uint32_t i = 0; i < n_parts; i++)
            marks |= part[i].map[w];
        n_marks += (uint32_t)__builtin_popcount(marks);
    }
    return n_marks == n_kept;
}

static bool fit_together(const struct screen *s, const struct part *part, uint32_t n_parts)
{
    return s->n_bits ? are_distinct(s, part, n_parts) : parts_fit(part, n_parts, part[0].capacity, s->plan->n_experts);
}

/* Adds what a part has counted, unless tokens turn out to have different numbers of kept pairs. */
static void count_part(const struct screen *s, const struct part *p)
{
    struct plan_counts *counts = s->counts;
    if (!counts || p->first == p->last)
        return;
    if (p->k != counts->k || s->n_bits)
        counts->k = 0;
    for (uint32_t e = 0; counts->k > 0 && e < s->plan->n_experts; e++)
        counts->kept[e] += p->next[e] - p->start[e];
    for (int l = 0; counts->k > 0 && l < OVERLAP_LAGS; l++)
        overlap_merge(&counts->overlap[l], &p->overlap[l]);
}

/* The first token of part i of a group. */
static uint32_t part_first(const struct screen *s, uint32_t group, uint32_t i)
{
    const uint32_t *start = s->batch->group_start + group;
    return start[0] + (uint32_t)((uint64_t)(start[1] - start[0]) * i / s->n_parts);
}

/* What the first tokens of parts share with those of the parts before. */
static void count_seams(const struct screen *s)
{
    struct plan_counts *counts = s->counts;
    for (uint32_t i = 1; counts->k > 0 && i < s->plan->n_groups * s->n_parts; i++) {
        const uint32_t first = part_first(s, i / s->n_parts, i % s->n_parts);
        const uint32_t last = part_first(s, i / s->n_parts, i % s->n_parts + 1);
        for (int l = 0; l < OVERLAP_LAGS; l++)
            if (overlap_wanted(counts->wants, l))
                overlap_add_even(&counts->overlap[l], s->plan, s->batch->sequence_id, l, first,
                                 last - first < overlap_lags[l] ? last : first + overlap_lags[l], counts->k, NULL);
    }
}

/* One group, cut into parts. */
static bool screen_group(const struct screen *s, uint32_t group, struct plan_totals *totals)
{
    struct part part[MOST_PARTS];
    bool holds = true;
#pragma omp parallel for schedule(static, 1) num_threads((int)s->n_parts) if (s->n_parts > 1)
    for (uint32_t i = 0; i < s->n_parts; i++) {
        part[i] = part_of(s, group, part_first(s, group, i), part_first(s, group, i + 1), i);
        screen_part(&part[i]);
    }
    for (uint32_t i = 0; i < s->n_parts; i++) {
        holds = holds && part[i].holds;
        add_totals(&part[i], totals);
        count_part(s, &part[i]);
    }
    return holds && fit_together(s, part, s->n_parts);
}

/* Groups side by side, each by one thread. */
static bool screen_groups(const struct screen *s, struct plan_totals *totals)
{
    bool holds = true;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)s->n_threads) reduction(&& : holds)
    for (uint32_t g = 0; g < s->plan->n_groups; g++) {
        struct part part =
            part_of(s, g, s->batch->group_start[g], s->batch->group_start[g + 1], (uint32_t)omp_get_thread_num());
        screen_part(&part);
        holds = holds && part.holds && fit_together(s, &part, 1);
#pragma omp critical(moesim_plan_screen)
        {
            add_totals(&part, totals);
            count_part(s, &part);
        }
    }
    return holds;
}

/* Nothing counted yet. Of small groups, whose seams would be most of them, nothing is. */
static void start_counts(const struct moesim_plan *plan, struct plan_counts *counts)
{
    const bool worth = plan->n_tokens > 0 && plan->n_tokens / BLOCK_TOKENS >= plan->n_groups;
    counts->k = worth && plan->first[1] <= OVERLAP_COUNTED ? plan->first[1] : 0;
    memset(counts->kept, 0, plan->n_experts * sizeof *counts->kept);
    memset(counts->overlap, 0, sizeof counts->overlap);
}

static bool screen(struct screen *s, struct plan_totals *totals)
{
    const bool side_by_side = s->n_threads > 1 && s->plan->n_groups >= s->n_threads;
    bool holds = true;
    *totals = (struct plan_totals){0};
    s->n_parts = side_by_side ? 1 : s->n_threads;
    if (s->counts)
        start_counts(s->plan, s->counts);
    if (side_by_side)
        holds = screen_groups(s, totals);
    for (uint32_t g = 0; !side_by_side && g < s->plan->n_groups && holds; g++)
        holds = screen_group(s, g, totals);
    if (holds && s->counts)
        count_seams(s);
    else if (s->counts)
        s->counts->k = 0;
    return holds;
}

/* Threads for which there is room; 0 = not even for one. */
static uint32_t threads_for(const struct moesim_plan *plan, uint64_t n_bits, size_t n_words)
{
    const size_t room = n_words / part_words(plan->n_experts, n_bits);
    uint32_t n_threads = plan->n_tokens < PARALLEL_TOKENS ? 1 : (uint32_t)omp_get_max_threads();
    if (n_threads > room)
        n_threads = (uint32_t)room;
    return n_threads < MOST_PARTS ? n_threads : MOST_PARTS;
}

/* Slots of the group that has most; UINT64_MAX where a capacity is unlimited. */
static uint64_t most_slots(const struct moesim_plan *plan)
{
    uint64_t most = 0;
    for (uint32_t g = 0; g < plan->n_groups; g++) {
        const uint32_t *capacity = plan->capacity + (size_t)g * plan->n_experts;
        uint64_t sum = 0;
        for (uint32_t e = 0; e < plan->n_experts; e++) {
            if (capacity[e] == MOESIM_UNLIMITED)
                return UINT64_MAX;
            sum += capacity[e];
        }
        most = sum > most ? sum : most;
    }
    return most;
}

bool plan_screen(const struct moesim_plan *plan, const struct moesim_batch *batch, uint32_t *words, size_t n_words,
                 struct plan_totals *totals, struct plan_counts *counts)
{
    struct screen s = {.plan = plan, .batch = batch, .words = words, .counts = counts};
    if (plan->first[0] != 0 || plan->first[plan->n_tokens] != plan->n_pairs)
        return false;
    s.n_threads = threads_for(plan, 0, n_words);
    if (screen(&s, totals))
        return true;
    const uint64_t n_bits = most_slots(plan);
    if (n_bits == 0 || n_bits > UINT32_MAX || (s.n_threads = threads_for(plan, n_bits, n_words)) == 0)
        return false;
    s.n_bits = n_bits;
    return screen(&s, totals);
}
