/* SPDX-License-Identifier: MIT
 *
 * Expert choice: every expert takes the best tokens of each group, up to its capacity.
 *
 * No matrix of scores is kept. A sample of the rows tells for each expert a logit, relative to the row's ln sum exp for
 * softmax, that somewhat more tokens pass than it can take; only those are scored and put in order. Where the sample
 * was wrong, all of the group's tokens are.
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
#define MAX_THREADS 8     /* that share the columns */
#define NO_RANK UINT32_MAX

/* An expert's chosen tokens, by rising token. */
struct chosen {
    uint32_t token, rank;
    float score;
};

/* What one thread works in. */
struct worker {
    float *value;             /* [n_together][room] candidates */
    uint32_t *token;          /* [n_together][room] */
    float *all_values;        /* [max_tokens] the same for one column and all tokens */
    uint32_t *all_tokens;     /* [max_tokens] */
    struct order_item *order; /* [2][max_tokens] */
    uint32_t *rank, *best;    /* [max_tokens] */
};

/* The caller's scratch, cut up. */
struct lists {
    uint64_t *start;        /* [n_groups + 1] of a group in chosen */
    uint32_t *length;       /* [n_groups][E] */
    uint32_t *cursor;       /* [n_tokens] where a token's next pair goes */
    float *shift;           /* [n_tokens] of struct rows_scan */
    struct rows_norm *norm; /* [n_tokens] */
    struct chosen *chosen;  /* [start[n_groups]] by group, expert */
    char *workers;          /* [MAX_THREADS][worker_size] */
};

/* What the steps of one call share. */
struct call {
    enum moesim_score score;
    const struct moesim_batch *batch;
    const float *columns;
    size_t stride;
    const uint32_t *capacity; /* [n_groups] */
    uint32_t room;
    struct lists lists;
    struct moesim_plan *plan;
};

static uint32_t room_of(uint32_t max_tokens, uint32_t n_experts, uint64_t max_pairs)
{
    const uint64_t room = 2 * max_pairs / n_experts + SAMPLE_FROM;
    return room < max_tokens ? (uint32_t)room : max_tokens;
}

/* Experts that one worker takes together. */
static uint32_t n_together(uint32_t n_experts)
{
    return n_experts < ROWS_COLUMNS ? n_experts : ROWS_COLUMNS;
}

static size_t worker_size(uint32_t max_tokens, uint32_t n_experts, uint32_t room)
{
    const size_t each = sizeof(float) + sizeof(uint32_t);
    return n_together(n_experts) * (size_t)room * each +
           max_tokens * (each + 2 * sizeof(struct order_item) + 2 * sizeof(uint32_t));
}

size_t moesim_expert_choice_scratch(uint32_t max_tokens, uint32_t n_experts, uint32_t max_groups, uint64_t max_pairs)
{
    const size_t n_tokens = max_tokens, n_groups = max_groups;
    return (n_groups + 1) * sizeof(uint64_t) + n_groups * n_experts * sizeof(uint32_t) + sizeof(uint64_t) +
           n_tokens * (sizeof(uint32_t) + sizeof(float) + sizeof(struct rows_norm)) +
           max_pairs * sizeof(struct chosen) +
           MAX_THREADS * worker_size(max_tokens, n_experts, room_of(max_tokens, n_experts, max_pairs));
}

static void cut_scratch(struct call *c, void *scratch)
{
    const size_t n_tokens = c->batch->n_tokens, n_groups = c->batch->n_groups, n_experts = c->batch->n_experts;
    struct lists *l = &c->lists;
    l->start = scratch;
    l->start[0] = 0;
    for (size_t g = 0; g < n_groups; g++)
        l->start[g + 1] = l->start[g] + n_experts * c->capacity[g];
    l->length = (uint32_t *)(l->start + n_groups + 1);
    l->cursor = l->length + n_groups * n_experts;
    l->shift = (float *)(l->cursor + n_tokens);
    l->norm = (struct rows_norm *)(l->shift + n_tokens);
    l->chosen = (struct chosen *)(l->norm + n_tokens);
    l->workers = (char *)(l->chosen + l->start[n_groups]);
    c->room = room_of(c->batch->n_tokens, c->batch->n_experts, l->start[n_groups]);
}

static struct worker own_worker(const struct call *c)
{
    const size_t n = c->batch->n_tokens, n_listed = (size_t)n_together(c->batch->n_experts) * c->room;
    const size_t size = worker_size(c->batch->n_tokens, c->batch->n_experts, c->room);
    struct worker w;
    w.value = (float *)(c->lists.workers + (size_t)omp_get_thread_num() * size);
    w.token = (uint32_t *)(w.value + n_listed);
    w.all_values = (float *)(w.token + n_listed);
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
static uint32_t find_eight(struct call *c, const uint32_t *token, uint32_t n)
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

#define NORM_TOKENS 64 /* a thread goes through at a time */

static void find_norms(struct call *c)
{
    const uint8_t *padding = c->batch->padding;
    const uint32_t n_tokens = c->batch->n_tokens;
    uint32_t n_bad_rows = 0;
#pragma omp parallel for schedule(static) reduction(+ : n_bad_rows) if (n_tokens >= ROWS_PARALLEL)
    for (uint32_t first = 0; first < n_tokens; first += NORM_TOKENS) {
        const uint32_t last = n_tokens - first < NORM_TOKENS ? n_tokens : first + NORM_TOKENS;
        uint32_t token[ROWS_LANES], n = 0;
        for (uint32_t t = first; t < last; t++) {
            if (padding && padding[t]) {
                c->lists.norm[t] = (struct rows_norm){.sum = NAN};
                c->lists.shift[t] = NAN;
            } else {
                token[n++] = t;
            }
            if (n == ROWS_LANES || (n > 0 && t + 1 == last)) {
                n_bad_rows += find_eight(c, token, n);
                n = 0;
            }
        }
    }
    c->plan->n_bad_rows = n_bad_rows;
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

/* Sets the scan's cuts so that somewhat more than `wanted` of the group's rows pass; NaN, which all pass, where there
 * is nothing to gain. */
static void set_cuts(const struct call *c, struct rows_scan *scan, uint32_t wanted, uint32_t *order)
{
    const uint32_t n = scan->last - scan->first;
    const uint32_t n_sample = n / SAMPLE_SHARE > SAMPLE_LEAST ? n / SAMPLE_SHARE : SAMPLE_LEAST;
    const double mean = (double)wanted * n_sample / n;
    const uint32_t rank = (uint32_t)(mean + 3 * sqrt(mean) + 2);
    for (uint32_t j = 0; j < ROWS_COLUMNS; j++)
        scan->cut[j] = NAN;
    for (uint32_t j = 0; n >= SAMPLE_FROM && j < scan->n_columns; j++) {
        uint32_t n_there = 0;
        for (uint32_t i = 0; i < n_sample; i++) {
            const uint32_t t = scan->first + (uint32_t)((uint64_t)i * n / n_sample);
            if (c->lists.shift[t] == c->lists.shift[t])
                order[n_there++] = to_order(scan->logits[t * scan->stride + j] - c->lists.shift[t]);
        }
        if (rank < n_there)
            scan->cut[j] = from_order(orders_nth_largest(order, n_there, rank)) - CUT_MARGIN;
    }
}

/* ---- the best of the candidates ---- */

/* Candidates of one column, by rising token; value: logits, then scores. */
struct candidates {
    uint32_t n;
    float *value;
    uint32_t *token;
};

/* Scores the candidates; those without a score drop out. */
static void score_candidates(const struct call *c, struct candidates *x)
{
    uint32_t n = 0;
    moesim_rows()->scores_at(c->score, c->lists.norm, x->token, x->n, x->value);
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
    score_candidates(c, x);
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
static void choose_from_all(const struct call *c, const struct rows_scan *few, uint32_t column, uint32_t wanted,
                            const struct worker *w, struct chosen *chosen, uint32_t *length)
{
    struct rows_scan scan = {.logits = few->logits + column,
                             .stride = few->stride,
                             .first = few->first,
                             .last = few->last,
                             .n_columns = 1,
                             .shift = few->shift,
                             .cut = {NAN},
                             .room = few->last - few->first,
                             .value = w->all_values,
                             .token = w->all_tokens};
    moesim_rows()->scan(&scan);
    struct candidates all = {scan.count[0], w->all_values, w->all_tokens};
    choose_candidates(c, &all, wanted, NAN, w, chosen, length);
}

/* The lists of up to ROWS_COLUMNS experts of a group. */
static void choose_block(const struct call *c, uint32_t group, uint32_t first)
{
    const struct moesim_batch *batch = c->batch;
    const uint32_t wanted = c->capacity[group], rest = batch->n_experts - first;
    const struct worker w = own_worker(c);
    struct rows_scan scan = {.logits = c->columns + first,
                             .stride = c->stride,
                             .first = batch->group_start[group],
                             .last = batch->group_start[group + 1],
                             .n_columns = rest < ROWS_COLUMNS ? rest : ROWS_COLUMNS,
                             .shift = c->lists.shift,
                             .room = c->room,
                             .value = w.value,
                             .token = w.token};
    set_cuts(c, &scan, wanted, w.rank);
    moesim_rows()->scan(&scan);
    for (uint32_t j = 0; j < scan.n_columns; j++) {
        struct chosen *chosen = c->lists.chosen + c->lists.start[group] + (size_t)(first + j) * wanted;
        uint32_t *length = c->lists.length + (size_t)group * batch->n_experts + first + j;
        struct candidates few = {scan.count[j], scan.value + (size_t)j * scan.room, scan.token + (size_t)j * scan.room};
        *length = 0;
        if (wanted > 0 && (few.n > scan.room || !choose_candidates(c, &few, wanted, scan.cut[j], &w, chosen, length)))
            choose_from_all(c, &scan, j, wanted, &w, chosen, length);
    }
}

/* ---- the plan ---- */

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
    for (uint32_t run = 0; run < n_tokens; run += CHUNK_TOKENS) {
        const uint32_t end = n_tokens - run < CHUNK_TOKENS ? n_tokens : run + CHUNK_TOKENS;
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
    const uint32_t n_experts = batch->n_experts, n_blocks = (n_experts + ROWS_COLUMNS - 1) / ROWS_COLUMNS;
    cut_scratch(&c, scratch);
    assert(c.lists.start[batch->n_groups] <= plan->max_pairs);
    for (uint32_t g = 0; g < batch->n_groups; g++)
        for (uint32_t e = 0; e < n_experts; e++)
            plan->capacity[(size_t)g * n_experts + e] = capacity[g];
    find_norms(&c);
    const int n_threads = omp_get_max_threads() < MAX_THREADS ? omp_get_max_threads() : MAX_THREADS;
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads) if (batch->n_tokens >= ROWS_PARALLEL)
    for (uint64_t i = 0; i < (uint64_t)batch->n_groups * n_blocks; i++)
        choose_block(&c, (uint32_t)(i / n_blocks), (uint32_t)(i % n_blocks) * ROWS_COLUMNS);
    fill_plan(&c);
    plan->n_wanted = 0;
}
