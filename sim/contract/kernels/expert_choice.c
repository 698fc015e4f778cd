/* SPDX-License-Identifier: MIT
 *
 * Expert choice: every expert takes the best tokens of each group, up to its capacity.
 *
 * No matrix of scores is kept. A sample of the rows tells for each expert a logit, relative to the row's ln sum exp for
 * softmax, that somewhat more tokens pass than it can take; only those are scored and put in order. One pass over the
 * rows finds both what softmax divides by and the logits that pass. Where the sample was wrong, all of the group's
 * tokens are put in order.
 */
#include <assert.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include <moesim/kernels.h>

#include "sim/contract/kernels/orders.h"
#include "sim/contract/kernels/rows.h"
#include "sim/contract/kernels/token_choice.h"
#include "sim/contract/kernels/topk.h"

#define SAMPLE_FROM 1024 /* tokens of a group; a smaller one is taken as a whole */
#define SAMPLE_LEAST 256
#define SAMPLE_SHARE 32   /* one row in so many is looked at */
#define HEAP_CAPACITY 256 /* up to here the best are kept in a heap, beyond it everything is sorted */
#define SHIFT_MOST 1e3f   /* a softmax whose ln sum exp is larger is too coarse to be compared by it */
#define CUT_MARGIN 1e-3f  /* more than the rounding of such a comparison */
#define MAX_PARTS 8       /* of a group's rows, and threads that share the work */
#define ROOM_LEAST 512    /* candidates of a part */
#define NO_RANK UINT32_MAX

/* An expert's chosen tokens, by rising token. */
struct chosen {
    uint32_t token, rank;
    float score;
};

/* What one thread works in. */
struct worker {
    float *all_values;        /* [max_tokens] one column of all tokens */
    uint32_t *all_tokens;     /* [max_tokens] */
    struct order_item *order; /* [2][max_tokens] */
    uint32_t *rank, *best;    /* [max_tokens] */
};

/* The caller's scratch, cut up. */
struct lists {
    uint64_t *start;          /* [n_groups + 1] of a group in chosen */
    uint32_t *length;         /* [n_groups][E] */
    uint32_t *cursor;         /* [n_tokens] where a token's next pair goes */
    float *shift;             /* [n_tokens] of struct rows_scan */
    struct rows_norm *norm;   /* [n_tokens] */
    struct chosen *chosen;    /* [start[n_groups]] by group, expert */
    float *cut;               /* [MAX_PARTS][E] */
    uint32_t *count;          /* [MAX_PARTS][E] candidates */
    uint32_t *found, *column; /* [MAX_PARTS][room] candidates by row: tokens, experts */
    float *found_value;       /* [MAX_PARTS][room] and scores */
    float *value;             /* [MAX_PARTS][room] the scores by expert, then token */
    uint32_t *token;          /* [MAX_PARTS][room] the same */
    char *workers;            /* [MAX_PARTS][worker_size] */
};

/* What the steps of one call share. */
struct call {
    enum moesim_score score;
    const struct moesim_batch *batch;
    const float *columns;
    size_t stride;
    const uint32_t *capacity; /* [n_groups] */
    size_t room;
    struct lists lists;
    struct moesim_plan *plan;
};

/* One group: by all threads, its rows in MAX_PARTS parts, or by one thread as one part. */
struct group {
    const struct call *call;
    uint32_t index, first, last, wanted;
    uint32_t slice, n_parts; /* where its parts begin in arrays of MAX_PARTS, and how many they are */
    int n_threads;
    bool sampled;                /* cuts are known */
    uint32_t n_found[MAX_PARTS]; /* candidates of each part; more than there is room for, and none are used */
};

/* Candidates that a part has room for: a group that is a part by itself has no more than an eighth of the pairs. Of few
 * tokens there are none. */
static size_t room_of(uint32_t max_tokens, uint64_t max_pairs)
{
    return max_tokens < SAMPLE_FROM ? 0 : (size_t)max_pairs * 3 / 8 + ROOM_LEAST;
}

/* What of that a scan fills. */
static uint32_t scan_room(const struct call *c)
{
    return (uint32_t)c->room - ROWS_SCAN_SPARE;
}

static size_t worker_size(uint32_t max_tokens)
{
    return max_tokens * (sizeof(float) + 3 * sizeof(uint32_t) + 2 * sizeof(struct order_item));
}

size_t moesim_expert_choice_scratch(uint32_t max_tokens, uint32_t n_experts, uint32_t max_groups, uint64_t max_pairs)
{
    const size_t n_tokens = max_tokens, n_groups = max_groups;
    const size_t of_part = n_experts * (sizeof(float) + sizeof(uint32_t)) +
                           room_of(max_tokens, max_pairs) * (2 * sizeof(float) + 3 * sizeof(uint32_t));
    return (n_groups + 1) * sizeof(uint64_t) + n_groups * n_experts * sizeof(uint32_t) + sizeof(uint64_t) +
           n_tokens * (sizeof(uint32_t) + sizeof(float) + sizeof(struct rows_norm)) +
           max_pairs * sizeof(struct chosen) + MAX_PARTS * (of_part + worker_size(max_tokens));
}

static void cut_scratch(struct call *c, void *scratch)
{
    const size_t n_tokens = c->batch->n_tokens, n_groups = c->batch->n_groups, n_experts = c->batch->n_experts;
    struct lists *l = &c->lists;
    l->start = scratch;
    l->start[0] = 0;
    for (size_t g = 0; g < n_groups; g++)
        l->start[g + 1] = l->start[g] + n_experts * c->capacity[g];
    c->room = room_of(c->batch->n_tokens, l->start[n_groups]);
    l->length = (uint32_t *)(l->start + n_groups + 1);
    l->cursor = l->length + n_groups * n_experts;
    l->shift = (float *)(l->cursor + n_tokens);
    l->norm = (struct rows_norm *)(l->shift + n_tokens);
    l->chosen = (struct chosen *)(l->norm + n_tokens);
    l->cut = (float *)(l->chosen + l->start[n_groups]);
    l->count = (uint32_t *)(l->cut + MAX_PARTS * n_experts);
    l->found = l->count + MAX_PARTS * n_experts;
    l->column = l->found + MAX_PARTS * c->room;
    l->found_value = (float *)(l->column + MAX_PARTS * c->room);
    l->value = l->found_value + MAX_PARTS * c->room;
    l->token = (uint32_t *)(l->value + MAX_PARTS * c->room);
    l->workers = (char *)(l->token + MAX_PARTS * c->room);
}

/* The worker of the thread that runs this. */
static struct worker own_worker(const struct group *g)
{
    const size_t n = g->call->batch->n_tokens, which = g->n_threads > 1 ? (size_t)omp_get_thread_num() : g->slice;
    struct worker w;
    w.all_values = (float *)(g->call->lists.workers + which * worker_size(g->call->batch->n_tokens));
    w.all_tokens = (uint32_t *)(w.all_values + n);
    w.order = (struct order_item *)(w.all_tokens + n);
    w.rank = (uint32_t *)(w.order + 2 * n);
    w.best = w.rank + n;
    return w;
}

/* ---- rows ---- */

/* What is subtracted from the row's logits so that those of all rows compare as their scores do: NaN = no score of the
 * row is a number; -inf = they do not compare so. */
static float shift_of(enum moesim_score score, const struct rows_norm *norm, float size)
{
    if (norm->sum != norm->sum)
        return NAN;
    if (score != MOESIM_SOFTMAX)
        return 0;
    return norm->odd || !(fabsf(size) <= SHIFT_MOST) ? -INFINITY : size;
}

/* Of up to eight tokens; returns how many have no score. */
static uint32_t find_eight(const struct call *c, const uint32_t *token, uint32_t n)
{
    struct rows_norm norm[ROWS_LANES];
    const float *row[ROWS_LANES];
    float size[ROWS_LANES];
    uint32_t n_bad = 0;
    for (uint32_t l = 0; l < ROWS_LANES; l++)
        row[l] = c->columns + token[l < n ? l : n - 1] * c->stride;
    moesim_rows()->norms(c->score, row, c->batch->n_experts, norm, size);
    for (uint32_t l = 0; l < n; l++) {
        c->lists.norm[token[l]] = norm[l];
        c->lists.shift[token[l]] = shift_of(c->score, &norm[l], size[l]);
        n_bad += norm[l].sum != norm[l].sum;
    }
    return n_bad;
}

/* Of all tokens [first, last); returns how many have no score, padding apart. */
static uint32_t find_norms(const struct call *c, uint32_t first, uint32_t last)
{
    const uint8_t *padding = c->batch->padding;
    uint32_t token[ROWS_LANES], n = 0, n_bad = 0;
    for (uint32_t t = first; t < last; t++) {
        if (padding && padding[t]) {
            c->lists.norm[t] = (struct rows_norm){.sum = NAN};
            c->lists.shift[t] = NAN;
        } else {
            token[n++] = t;
        }
        if (t + 2 * ROWS_LANES < c->batch->n_tokens)
            rows_prefetch(c->columns + (t + 2 * ROWS_LANES) * c->stride, c->batch->n_experts);
        if (n == ROWS_LANES || (n > 0 && t + 1 == last)) {
            n_bad += find_eight(c, token, n);
            n = 0;
        }
    }
    return n_bad;
}

/* ---- candidates ---- */

/* The score that no logit at or below the cut has passed. */
static float most_below(enum moesim_score score, float cut)
{
    float most = cut;
    if (score == MOESIM_SOFTMAX)
        return moesim_expf(cut) * (1 + CUT_MARGIN);
    if (score != MOESIM_IDENTITY)
        moesim_rows()->scores(score, &cut, 1, &most);
    return score == MOESIM_IDENTITY ? most : most * (1 + 1e-5f);
}

#define SAMPLED_COLUMNS 16 /* that are looked at together: a cache line */

static uint32_t sample_size(const struct group *g)
{
    const uint32_t n = g->last - g->first;
    return n / SAMPLE_SHARE > SAMPLE_LEAST ? n / SAMPLE_SHARE : SAMPLE_LEAST;
}

static uint32_t sampled_token(const struct group *g, uint32_t i)
{
    return g->first + (uint32_t)((uint64_t)i * (g->last - g->first) / sample_size(g));
}

/* Norms of tokens [first, first + ROWS_LANES) of the sample. */
static void find_sampled_norms(const struct group *g, uint32_t first)
{
    const uint8_t *padding = g->call->batch->padding;
    const uint32_t n_sample = sample_size(g);
    uint32_t token[ROWS_LANES], n = 0;
    for (uint32_t i = first; i < n_sample && i < first + ROWS_LANES; i++) {
        const uint32_t t = sampled_token(g, i);
        if (padding && padding[t])
            g->call->lists.shift[t] = NAN;
        else
            token[n++] = t;
    }
    if (n > 0)
        find_eight(g->call, token, n);
}

/* Sets the cuts of columns [first, last) so that somewhat more than wanted of the group's rows pass; +inf, which tells
 * nothing, where there are too few rows or numbers. */
static void set_cuts(const struct group *g, uint32_t first, uint32_t last)
{
    const struct call *c = g->call;
    const uint32_t n = g->last - g->first, n_sample = sample_size(g);
    const double mean = (double)g->wanted * n_sample / n;
    const uint32_t rank = (uint32_t)(mean + 3 * sqrt(mean) + 2);
    uint32_t *order = (uint32_t *)own_worker(g).order, n_there = 0;
    for (uint32_t i = 0; i < n_sample; i++) {
        const uint32_t t = sampled_token(g, i);
        const float shift = c->lists.shift[t];
        if (shift != shift)
            continue;
        for (uint32_t e = first; e < last; e++)
            order[(e - first) * n_sample + n_there] = to_order(c->columns[t * c->stride + e] - shift);
        n_there++;
    }
    for (uint32_t e = first; e < last; e++) {
        float *cut = &c->lists.cut[(size_t)g->slice * c->batch->n_experts + e];
        *cut = INFINITY;
        const float nth =
            rank < n_there ? from_order(orders_nth_largest(order + (e - first) * n_sample, n_there, rank)) : NAN;
        if (nth == nth)
            *cut = nth - CUT_MARGIN;
    }
}

/* The first token of a part. */
static uint32_t part_first(const struct group *g, uint32_t part)
{
    return g->first + (uint32_t)((uint64_t)(g->last - g->first) * part / g->n_parts);
}

#define TILE_TOKENS 64 /* whose rows are looked through while they are in the cache */

/* What passes the cuts, with its score. */
static void scan_and_score(const struct call *c, struct rows_scan *scan)
{
    const uint32_t was = scan->n_found;
    moesim_rows()->scan(scan);
    if (scan->n_found <= scan->room)
        moesim_rows()->scores_at(c->score, c->lists.norm, scan->token + was, scan->n_found - was, scan->value + was);
}

/* Norms of a part's tokens, and what passes the cuts. Returns how many tokens have no score. */
static uint32_t find_candidates(struct group *g, uint32_t part)
{
    const struct call *c = g->call;
    const size_t n_experts = c->batch->n_experts, slice = g->slice + part;
    const uint32_t first = part_first(g, part), last = part_first(g, part + 1);
    struct rows_scan scan = {.logits = c->columns,
                             .stride = c->stride,
                             .n_columns = c->batch->n_experts,
                             .shift = c->lists.shift,
                             .cut = c->lists.cut + g->slice * n_experts,
                             .room = scan_room(c),
                             .token = c->lists.found + slice * c->room,
                             .column = c->lists.column + slice * c->room,
                             .value = c->lists.found_value + slice * c->room,
                             .count = c->lists.count + slice * n_experts};
    uint32_t n_bad = 0;
    memset(scan.count, 0, n_experts * sizeof *scan.count);
    for (uint32_t t = first, end; t < last; t = end) {
        end = last - t < TILE_TOKENS ? last : t + TILE_TOKENS;
        n_bad += find_norms(c, t, end);
        scan.first = t;
        scan.last = end;
        if (g->sampled && scan.n_found <= scan.room)
            scan_and_score(c, &scan);
    }
    g->n_found[part] = scan.n_found;
    return n_bad;
}

/* ---- candidates by expert ---- */

static bool all_found(const struct group *g)
{
    for (uint32_t part = 0; g->sampled && part < g->n_parts; part++)
        if (g->n_found[part] > scan_room(g->call))
            return false;
    return g->sampled;
}

/* Counts become places: of an expert's candidates of a part, behind those of other experts and parts before. */
static void place_candidates(const struct group *g)
{
    const size_t n_experts = g->call->batch->n_experts;
    uint32_t *place = g->call->lists.count + g->slice * n_experts, sum = 0;
    for (size_t e = 0; e < n_experts; e++)
        for (size_t i = e; i < g->n_parts * n_experts; i += n_experts) {
            const uint32_t n = place[i];
            place[i] = sum;
            sum += n;
        }
}

/* Puts a part's candidates in their places, which move to their ends. */
static void list_candidates(const struct group *g, uint32_t part)
{
    const struct call *c = g->call;
    const size_t first = (g->slice + part) * c->room;
    const uint32_t *found = c->lists.found + first, *column = c->lists.column + first;
    const float *score = c->lists.found_value + first;
    uint32_t *place = c->lists.count + (g->slice + part) * (size_t)c->batch->n_experts;
    float *value = c->lists.value + g->slice * c->room;
    uint32_t *token = c->lists.token + g->slice * c->room;
    for (uint32_t i = 0; i < g->n_found[part]; i++) {
        const uint32_t at = place[column[i]]++;
        value[at] = score[i];
        token[at] = found[i];
    }
}

/* ---- the best of the candidates ---- */

/* Candidates of one column, by rising token: scores. */
struct candidates {
    uint32_t n;
    float *value;
    uint32_t *token;
};

/* Those without a score drop out. */
static void drop_unscored(struct candidates *x)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        x->value[n] = x->value[i];
        x->token[n] = x->token[i];
        n += x->value[i] == x->value[i];
    }
    x->n = n;
}

/* best[0 .. result): the `wanted` best of the candidates, in order. */
static uint32_t rank_candidates(const struct candidates *x, uint32_t wanted, const struct worker *w)
{
    if (wanted <= HEAP_CAPACITY) {
        struct topk_heap heap = {.value = x->value, .stride = 1, .item = w->best, .limit = wanted};
        for (uint32_t i = 0; i < x->n; i++)
            moesim_heap_offer(&heap, i);
        moesim_heap_sort(&heap);
        return heap.n;
    }
    for (uint32_t i = 0; i < x->n; i++)
        w->order[i] = (struct order_item){to_order(x->value[i]), i};
    const struct order_item *sorted = orders_sort(w->order, x->n, w->order + x->n);
    const uint32_t n = wanted < x->n ? wanted : x->n;
    for (uint32_t i = 0; i < n; i++)
        w->best[i] = sorted[i].index;
    return n;
}

/* Writes the list of one expert; false when a token beyond the candidates might belong to it. */
static bool choose_candidates(const struct call *c, struct candidates *x, uint32_t wanted, float cut,
                              const struct worker *w, struct chosen *chosen, uint32_t *length)
{
    drop_unscored(x);
    const uint32_t n = rank_candidates(x, wanted, w);
    if (cut == cut && (n < wanted || !(x->value[w->best[n - 1]] > most_below(c->score, cut))))
        return false;
    for (uint32_t i = 0; i < x->n; i++)
        w->rank[i] = NO_RANK;
    for (uint32_t i = 0; i < n; i++)
        w->rank[w->best[i]] = i;
    *length = 0;
    for (uint32_t i = 0; i < x->n; i++)
        if (w->rank[i] != NO_RANK)
            chosen[(*length)++] = (struct chosen){x->token[i], w->rank[i], x->value[i]};
    return true;
}

/* One column with all of the group's tokens as candidates. */
static void choose_from_all(const struct group *g, uint32_t expert, const struct worker *w, struct chosen *chosen,
                            uint32_t *length)
{
    const struct call *c = g->call;
    struct candidates all = {0, w->all_values, w->all_tokens};
    for (uint32_t t = g->first; t < g->last; t++)
        if (c->lists.shift[t] == c->lists.shift[t]) {
            all.value[all.n] = c->columns[t * c->stride + expert];
            all.token[all.n++] = t;
        }
    moesim_rows()->scores_at(c->score, c->lists.norm, all.token, all.n, all.value);
    choose_candidates(c, &all, g->wanted, NAN, w, chosen, length);
}

/* The list of one expert. */
static void choose_expert(const struct group *g, uint32_t expert, bool has_candidates)
{
    const struct call *c = g->call;
    const size_t n_experts = c->batch->n_experts;
    const uint32_t *end = c->lists.count + (g->slice + g->n_parts - 1) * n_experts;
    const uint32_t begin = expert > 0 ? end[expert - 1] : 0;
    const float cut = c->lists.cut[g->slice * n_experts + expert];
    const struct worker w = own_worker(g);
    struct chosen *chosen = c->lists.chosen + c->lists.start[g->index] + (size_t)expert * g->wanted;
    uint32_t *length = c->lists.length + g->index * n_experts + expert;
    struct candidates few = {end[expert] - begin, c->lists.value + g->slice * c->room + begin,
                             c->lists.token + g->slice * c->room + begin};
    *length = 0;
    if (g->wanted > 0 &&
        !(has_candidates && cut < INFINITY && choose_candidates(c, &few, g->wanted, cut, &w, chosen, length)))
        choose_from_all(g, expert, &w, chosen, length);
}

/* The lists of all experts of a group; returns how many tokens have no score. */
static uint32_t choose_group(struct group *g)
{
    const struct call *c = g->call;
    const uint32_t n_experts = c->batch->n_experts, n_sample = g->sampled ? sample_size(g) : 0;
    const uint32_t n_cut = g->sampled ? n_experts : 0;
    uint32_t n_bad = 0;
#pragma omp parallel num_threads(g->n_threads) if (g->n_threads > 1)
    {
#pragma omp for schedule(static)
        for (uint32_t i = 0; i < n_sample; i += ROWS_LANES)
            find_sampled_norms(g, i);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t e = 0; e < n_cut; e += SAMPLED_COLUMNS)
            set_cuts(g, e, n_cut - e < SAMPLED_COLUMNS ? n_cut : e + SAMPLED_COLUMNS);
#pragma omp for schedule(dynamic, 1) reduction(+ : n_bad)
        for (uint32_t part = 0; part < g->n_parts; part++)
            n_bad += find_candidates(g, part);
        const bool has_candidates = all_found(g);
#pragma omp single
        if (has_candidates)
            place_candidates(g);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t part = 0; part < g->n_parts; part++)
            if (has_candidates)
                list_candidates(g, part);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t e = 0; e < n_experts; e++)
            choose_expert(g, e, has_candidates);
    }
    return n_bad;
}

static struct group group_of(const struct call *c, uint32_t index)
{
    const uint32_t *start = c->batch->group_start + index;
    return (struct group){.call = c,
                          .index = index,
                          .first = start[0],
                          .last = start[1],
                          .wanted = c->capacity[index],
                          .n_parts = 1,
                          .n_threads = 1,
                          .sampled = c->capacity[index] > 0 && start[1] - start[0] >= SAMPLE_FROM};
}

/* A few groups, one after the other by all threads. */
static uint32_t choose_in_turn(const struct call *c, int n_threads)
{
    uint32_t n_bad = 0;
    for (uint32_t i = 0; i < c->batch->n_groups; i++) {
        struct group g = group_of(c, i);
        g.n_parts = MAX_PARTS;
        g.n_threads = n_threads;
        n_bad += choose_group(&g);
    }
    return n_bad;
}

/* Many groups, each by one thread. */
static uint32_t choose_side_by_side(const struct call *c, int n_threads)
{
    uint32_t n_bad = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads) reduction(+ : n_bad)
    for (uint32_t i = 0; i < c->batch->n_groups; i++) {
        struct group g = group_of(c, i);
        g.slice = (uint32_t)omp_get_thread_num();
        n_bad += choose_group(&g);
    }
    return n_bad;
}

/* ---- the plan ---- */

#define PLAN_TOKENS                                                                                                    \
    4096 /* whose pairs are put down together: few searches in the lists, and pairs that stay in the cache */

/* Where in an expert's list its tokens from `token` on start. */
static uint32_t find_token(const struct chosen *list, uint32_t n, uint32_t token)
{
    uint32_t low = 0, high = n; /* all before low are below token, none from high on */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (list[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Adds the pair to its token's, which stay in decreasing order of weight; experts come in rising order. */
static void insert_pair(struct moesim_plan *plan, uint32_t *cursor, const struct chosen *x, uint32_t expert)
{
    uint32_t i = cursor[x->token]++;
    for (; i > plan->first[x->token] && x->score > plan->weight[i - 1]; i--) {
        plan->expert[i] = plan->expert[i - 1];
        plan->weight[i] = plan->weight[i - 1];
        plan->slot[i] = plan->slot[i - 1];
    }
    plan->expert[i] = expert;
    plan->weight[i] = x->score;
    plan->slot[i] = (int32_t)x->rank;
}

/* Counts the pairs of a group's tokens [first, last), or inserts them. */
static void go_through(const struct call *c, uint32_t group, uint32_t first, uint32_t last, bool insert)
{
    const uint32_t n_experts = c->batch->n_experts;
    const struct chosen *list = c->lists.chosen + c->lists.start[group];
    for (uint32_t e = 0; e < n_experts; e++, list += c->capacity[group]) {
        const uint32_t n = c->lists.length[(size_t)group * n_experts + e];
        for (uint32_t i = find_token(list, n, first); i < n && list[i].token < last; i++)
            if (insert)
                insert_pair(c->plan, c->lists.cursor, &list[i], e);
            else
                c->lists.cursor[list[i].token]++;
    }
}

static void go_through_all(const struct call *c, bool insert)
{
    const uint32_t n_tokens = c->batch->n_tokens, *start = c->batch->group_start;
#pragma omp parallel for schedule(dynamic, 1) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t run = 0; run < n_tokens; run += PLAN_TOKENS) {
        const uint32_t end = n_tokens - run < PLAN_TOKENS ? n_tokens : run + PLAN_TOKENS;
        for (uint32_t g = batch_group_of(c->batch, run); g < c->batch->n_groups && start[g] < end; g++)
            go_through(c, g, start[g] < run ? run : start[g], start[g + 1] < end ? start[g + 1] : end, insert);
    }
}

static void fill_plan(const struct call *c)
{
    struct moesim_plan *plan = c->plan;
    uint32_t *cursor = c->lists.cursor, sum = 0;
    memset(cursor, 0, c->batch->n_tokens * sizeof *cursor);
    go_through_all(c, false);
    for (uint32_t t = 0; t < c->batch->n_tokens; t++) {
        plan->first[t] = sum;
        sum += cursor[t];
        cursor[t] = plan->first[t];
    }
    plan->first[c->batch->n_tokens] = sum;
    plan->n_pairs = sum;
    go_through_all(c, true);
    memset(plan->fate, MOESIM_KEPT, sum * sizeof *plan->fate);
}

void moesim_expert_choice(enum moesim_score score, const struct moesim_batch *batch, const float *columns,
                          size_t stride, const uint32_t *capacity, void *scratch, struct moesim_plan *plan)
{
    struct call c = {
        .score = score, .batch = batch, .columns = columns, .stride = stride, .capacity = capacity, .plan = plan};
    const uint32_t n_experts = batch->n_experts;
    cut_scratch(&c, scratch);
    assert(c.lists.start[batch->n_groups] <= plan->max_pairs);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        for (uint32_t e = 0; e < n_experts; e++)
            plan->capacity[(size_t)g * n_experts + e] = capacity[g];
    const int most = omp_get_max_threads() < MAX_PARTS ? omp_get_max_threads() : MAX_PARTS;
    const int n_threads = batch->n_tokens < ROWS_PARALLEL ? 1 : most;
    plan->n_bad_rows = batch->n_groups < MAX_PARTS ? choose_in_turn(&c, n_threads) : choose_side_by_side(&c, n_threads);
    fill_plan(&c);
    plan->n_wanted = 0;
}
