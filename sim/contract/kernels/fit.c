/* SPDX-License-Identifier: MIT
 *
 * Fits chosen pairs into capacity: who gets a slot, in which order, and which slot.
 */
#include <string.h>

#include <moesim/random.h>

#include "sim/contract/kernels/token_choice.h"
#include "sim/contract/kernels/topk.h"

static uint32_t group_tokens(const struct moesim_batch *batch, uint32_t group)
{
    const uint32_t first = batch->group_start[group], last = batch->group_start[group + 1];
    uint32_t n = last - first;
    for (uint32_t t = first; batch->padding && t < last; t++)
        n -= batch->padding[t] != 0;
    return n;
}

void token_choice_capacity(struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    const uint32_t n_experts = c->batch->n_experts;
    for (uint32_t g = 0; g < c->batch->n_groups; g++) {
        const uint32_t slots = moesim_capacity(p->capacity_rule, group_tokens(c->batch, g), n_experts, p->k,
                                               p->capacity_factor, p->min_capacity);
        for (uint32_t e = 0; e < n_experts; e++)
            c->plan->capacity[(size_t)g * n_experts + e] = slots;
    }
}

/* Fates of bad pairs, and each pair's place among the chunk's pairs of its expert. */
void token_choice_count(struct token_choice *c, struct chunk *chunk)
{
    struct moesim_plan *plan = c->plan;
    const uint32_t n_experts = c->scratch->n_experts;
    uint32_t *count = c->scratch->count + (size_t)(chunk - c->scratch->chunk) * n_experts;
    memset(count, 0, n_experts * sizeof *count);
    const uint32_t begin = plan->first[chunk->first], end = plan->first[chunk->last];
    chunk->n_wanted = end - begin;
    for (uint32_t i = begin; i < end; i++) {
        const uint32_t e = plan->expert[i];
        if (e == MOESIM_NO_EXPERT) {
            plan->fate[i] = MOESIM_BAD_ROW;
            plan->slot[i] = -1;
            chunk->n_wanted--;
            chunk->n_bad_rows += (i - begin) % c->p->k == 0; /* not even a first choice */
        } else {
            plan->fate[i] = MOESIM_KEPT;
            plan->slot[i] = (int32_t)count[e]++;
        }
    }
}

/* Each kept pair's place among the chunk's kept pairs of its expert. */
static void count_kept(const struct token_choice *c, uint32_t i)
{
    const struct chunk *chunk = &c->scratch->chunk[i];
    struct moesim_plan *plan = c->plan;
    uint32_t *count = c->scratch->count + i * (size_t)c->scratch->n_experts;
    memset(count, 0, c->scratch->n_experts * sizeof *count);
    for (uint32_t j = plan->first[chunk->first]; j < plan->first[chunk->last]; j++)
        if (plan->fate[j] == MOESIM_KEPT)
            plan->slot[j] = (int32_t)count[plan->expert[j]]++;
}

static void refuse(struct moesim_plan *plan, uint32_t pair)
{
    plan->slot[pair] = -1;
    plan->fate[pair] = MOESIM_OVER_CAPACITY;
}

/* Chunks [first, last) of one group: their counts become sums over those before, sum[E] that of all. */
static void sum_counts(const struct token_choice *c, uint32_t first, uint32_t last, uint32_t *sum)
{
    const size_t n_experts = c->scratch->n_experts;
    memset(sum, 0, n_experts * sizeof *sum);
    for (uint32_t i = first; i < last; i++) {
        uint32_t *count = c->scratch->count + i * n_experts;
        for (uint32_t e = 0; e < n_experts; e++) {
            const uint32_t n = count[e];
            count[e] = sum[e];
            sum[e] += n;
        }
    }
}

/* Token order: a pair's slot is its place in the chunk after the slots of the group's earlier chunks. */
static void admit_chunk(const struct token_choice *c, uint32_t i)
{
    struct moesim_plan *plan = c->plan;
    const struct chunk *chunk = &c->scratch->chunk[i];
    const size_t n_experts = c->scratch->n_experts;
    const uint32_t *before = c->scratch->count + i * n_experts;
    const uint32_t *capacity = plan->capacity + chunk->group * n_experts;
    const uint32_t begin = plan->first[chunk->first], n_pairs = plan->first[chunk->last] - begin;
    if (c->p->capacity_factor <= 0 && chunk->n_wanted == n_pairs) { /* all are kept */
        moesim_rows()->move_slots(plan->expert + begin, n_pairs, before, c->scratch->n_experts, plan->slot + begin);
        return;
    }
    for (uint32_t j = plan->first[chunk->first]; j < plan->first[chunk->last]; j++) {
        const uint32_t e = plan->expert[j];
        if (plan->fate[j] != MOESIM_KEPT)
            continue;
        const uint32_t slot = (uint32_t)plan->slot[j] + before[e];
        if (slot < capacity[e])
            plan->slot[j] = (int32_t)slot;
        else
            refuse(plan, j);
    }
}

static void admit_by_token(struct token_choice *c)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    for (uint32_t i = 0, last; i < s->n_chunks; i = last) {
        for (last = i; last < s->n_chunks && s->chunk[last].group == s->chunk[i].group;)
            last++;
        sum_counts(c, i, last, s->taken + (size_t)s->chunk[i].group * s->n_experts);
    }
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t i = 0; i < s->n_chunks; i++)
        admit_chunk(c, i);
}

/* One group while its pairs are admitted. */
struct group {
    uint32_t first, last;             /* tokens first .. last - 1 */
    uint32_t first_chunk, last_chunk; /* likewise */
    const uint32_t *capacity;         /* [E] */
    uint32_t *taken;                  /* [E] */
    uint32_t *refused;                /* in the order of priority; NULL when nobody asks */
    uint32_t n_refused;
};

static void admit(struct token_choice *c, struct group *g, uint32_t pair)
{
    const uint32_t e = c->plan->expert[pair];
    if (e == MOESIM_NO_EXPERT)
        return;
    if (g->taken[e] < g->capacity[e]) {
        c->plan->slot[pair] = (int32_t)g->taken[e]++;
    } else {
        refuse(c->plan, pair);
        if (g->refused)
            g->refused[g->n_refused++] = pair;
    }
}

/* All first choices in the order of `token` (NULL = as they come), then all second ones, ... */
static void admit_by_choice(struct token_choice *c, struct group *g, const uint32_t *token, uint32_t n)
{
    const uint32_t *first = c->plan->first;
    for (uint32_t choice = 0; choice < c->p->k; choice++)
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t t = token ? token[j] : g->first + j;
            if (first[t] < first[t + 1])
                admit(c, g, first[t] + choice);
        }
}

static float best_score(const struct moesim_plan *plan, uint32_t token)
{
    float best = -1; /* below every score */
    for (uint32_t i = plan->first[token]; i < plan->first[token + 1]; i++)
        if (plan->expert[i] != MOESIM_NO_EXPERT && plan->weight[i] > best)
            best = plan->weight[i];
    return best;
}

/* Tokens by decreasing best score; a token without a score has no pair to admit. */
static void admit_by_best_score(struct token_choice *c, struct group *g)
{
    const struct moesim_plan *plan = c->plan;
    struct order_item *item = c->scratch->item + g->first;
    uint32_t *token = c->scratch->order + g->first;
    for (uint32_t t = g->first; t < g->last; t++)
        item[t - g->first] = (struct order_item){to_order(best_score(plan, t)), t};
    item = orders_sort(item, g->last - g->first, c->scratch->item_room + g->first);
    for (uint32_t i = 0; i < g->last - g->first; i++)
        token[i] = item[i].index;
    admit_by_choice(c, g, token, g->last - g->first);
}

static void draw_keys(const struct token_choice *c, const struct group *g)
{
    const struct moesim_batch *batch = c->batch;
    const struct moesim_random random = {batch->seed, STREAM_PRIORITY, batch->layer, batch->step};
    for (uint32_t t = g->first; t < g->last; t++) {
        const uint64_t index = ((uint64_t)batch->micro_batch * batch->n_tokens + t) * c->p->k;
        const uint32_t first = c->plan->first[t];
        moesim_random_uniforms(&random, index, c->plan->first[t + 1] - first, c->scratch->key + first);
    }
}

static bool any_over_capacity(const struct token_choice *c, const struct group *g)
{
    for (uint32_t e = 0; e < c->scratch->n_experts; e++)
        if (g->taken[e] > g->capacity[e])
            return true;
    return false;
}

/* The group's pairs by expert, in token order, into scratch->order; taken[e] becomes the end of expert e's pairs. */
static void sort_by_expert(const struct token_choice *c, const struct group *g)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const struct moesim_plan *plan = c->plan;
    const size_t n_experts = s->n_experts;
    uint32_t sum = plan->first[g->first];
    for (uint32_t e = 0; e < n_experts; e++) {
        for (uint32_t i = g->first_chunk; i < g->last_chunk; i++)
            s->count[i * n_experts + e] += sum;
        g->taken[e] = sum += g->taken[e];
    }
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t i = g->first_chunk; i < g->last_chunk; i++)
        for (uint32_t j = plan->first[s->chunk[i].first]; j < plan->first[s->chunk[i].last]; j++)
            if (plan->fate[j] == MOESIM_KEPT)
                s->order[s->count[i * n_experts + plan->expert[j]] + (uint32_t)plan->slot[j]] = j;
}

/* Refuses what an expert cannot take of its pairs order[from .. to): those with the lowest keys. */
static void keep_best(const struct token_choice *c, const float *key, uint32_t from, uint32_t to, uint32_t capacity)
{
    const uint32_t *order = c->scratch->order;
    struct topk_heap best = {.value = key, .stride = 1, .item = c->scratch->picked + from, .limit = capacity};
    if (to - from <= capacity)
        return;
    for (uint32_t j = from; j < to; j++) {
        moesim_heap_offer(&best, order[j]);
        refuse(c->plan, order[j]);
    }
    for (uint32_t j = 0; j < best.n; j++)
        c->plan->fate[best.item[j]] = MOESIM_KEPT;
}

/* The refused pairs by falling key. */
static void list_refused(const struct token_choice *c, struct group *g, const float *key)
{
    const struct moesim_plan *plan = c->plan;
    const uint32_t begin = plan->first[g->first], end = plan->first[g->last];
    struct topk_heap refused = {.value = key, .stride = 1, .item = g->refused, .limit = end - begin};
    for (uint32_t i = begin; i < end; i++)
        if (plan->fate[i] == MOESIM_OVER_CAPACITY)
            moesim_heap_offer(&refused, i);
    moesim_heap_sort(&refused);
    g->n_refused = refused.n;
}

/* Each expert keeps its pairs with the highest keys; slots go by token. */
static void admit_by_key(struct token_choice *c, struct group *g, const float *key)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const int n_threads = token_choice_threads(c);
    sum_counts(c, g->first_chunk, g->last_chunk, g->taken);
    if (any_over_capacity(c, g)) {
        sort_by_expert(c, g);
#pragma omp parallel for schedule(dynamic, 8) num_threads(n_threads)
        for (uint32_t e = 0; e < s->n_experts; e++)
            keep_best(c, key, e > 0 ? g->taken[e - 1] : c->plan->first[g->first], g->taken[e], g->capacity[e]);
#pragma omp parallel for schedule(static) num_threads(n_threads)
        for (uint32_t i = g->first_chunk; i < g->last_chunk; i++)
            count_kept(c, i);
        sum_counts(c, g->first_chunk, g->last_chunk, g->taken);
    }
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (uint32_t i = g->first_chunk; i < g->last_chunk; i++)
        admit_chunk(c, i);
    if (g->refused)
        list_refused(c, g, key);
}

static void find_chunks(const struct moesim_token_choice_scratch *s, uint32_t id, struct group *g)
{
    uint32_t low = 0,
             high = s->n_chunks; /* chunks below low are of groups before, from high on of this and later ones */
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (s->chunk[middle].group < id)
            low = middle + 1;
        else
            high = middle;
    }
    g->first_chunk = g->last_chunk = low;
    while (g->last_chunk < s->n_chunks && s->chunk[g->last_chunk].group == id)
        g->last_chunk++;
}

static void admit_group(struct token_choice *c, uint32_t id)
{
    struct moesim_token_choice_scratch *s = c->scratch;
    struct group g = {
        .first = c->batch->group_start[id],
        .last = c->batch->group_start[id + 1],
        .capacity = c->plan->capacity + (size_t)id * s->n_experts,
        .taken = s->taken + (size_t)id * s->n_experts,
    };
    find_chunks(s, id, &g);
    const uint32_t begin = c->plan->first[g.first];
    g.refused = s->refused ? s->refused + begin : NULL;
    memset(g.taken, 0, s->n_experts * sizeof *g.taken);
    switch (c->priority) {
    case MOESIM_PRIORITY_TOKEN:
        for (uint32_t i = begin; i < c->plan->first[g.last]; i++)
            admit(c, &g, i);
        break;
    case MOESIM_PRIORITY_CHOICE:
        admit_by_choice(c, &g, NULL, g.last - g.first);
        break;
    case MOESIM_PRIORITY_BPR:
        admit_by_best_score(c, &g);
        break;
    case MOESIM_PRIORITY_PROB:
        admit_by_key(c, &g, c->plan->weight);
        break;
    case MOESIM_PRIORITY_RANDOM:
        draw_keys(c, &g);
        admit_by_key(c, &g, s->key);
        break;
    }
    if (s->refused)
        token_choice_reroute(c, id, g.refused, g.n_refused);
}

void token_choice_admit(struct token_choice *c)
{
    if (c->priority == MOESIM_PRIORITY_TOKEN && c->p->overflow == MOESIM_DROP) {
        admit_by_token(c);
        return;
    }
    /* a single group is worked out by all threads, several side by side */
#pragma omp parallel for schedule(dynamic, 1) num_threads(token_choice_threads(c)) if (c->batch->n_groups > 1)
    for (uint32_t g = 0; g < c->batch->n_groups; g++)
        admit_group(c, g);
}
