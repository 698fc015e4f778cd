/* SPDX-License-Identifier: MIT
 *
 * The token-choice family: every token chooses its k best experts.
 */
#include "sim/contract/kernels/token_choice.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/contract/confidence.h"

enum moesim_status moesim_token_choice_init(const struct moesim_token_choice *p, const struct moesim_env *env,
                                            struct moesim_token_choice_scratch **scratch, struct moesim_error *err)
{
    struct moesim_arena *arena = env->arena;
    struct moesim_token_choice_scratch *s = moesim_alloc(arena, 1, sizeof *s);
    if (!s)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a router's scratch");
    const size_t n_experts = env->n_experts, n_pairs = (size_t)env->max_tokens * p->k;
    const uint32_t max_groups = env->max_groups > 0 ? env->max_groups : 1;
    const bool ordered = p->priority != MOESIM_PRIORITY_TOKEN, reroute = p->overflow == MOESIM_REROUTE;
    s->n_experts = env->n_experts;
    s->n_threads = (uint32_t)omp_get_max_threads();
    s->max_chunks = env->max_tokens / CHUNK_TOKENS + max_groups;
    s->row_size = rows_scratch(env->n_experts, p->n_groups > 1 ? p->n_groups : 0) + ROWS_LANES * n_experts;
    bool ok = true;
#define ROOM(field, n) ((s->field = moesim_alloc(arena, (n), sizeof *s->field)) != NULL)
    ok = ok && ROOM(chunk, s->max_chunks) && ROOM(count, s->max_chunks * n_experts);
    ok = ok && ROOM(run, env->max_tokens / CHUNK_TOKENS + 2);
    ok = ok && ROOM(row, s->n_threads * s->row_size) && ROOM(taken, max_groups * n_experts);
    if (p->second == MOESIM_SECOND_RANDOM)
        ok = ok && ROOM(withdrawn, env->max_tokens);
    if (p->priority == MOESIM_PRIORITY_BPR)
        ok = ok && ROOM(item, env->max_tokens) && ROOM(item_room, env->max_tokens);
    if (ordered)
        ok = ok && ROOM(key, n_pairs) && ROOM(order, n_pairs) && ROOM(picked, n_pairs);
    if (token_choice_listed(p, env->n_experts) > p->k) {
        s->n_listed = token_choice_listed(p, env->n_experts);
        const size_t n_listed = (size_t)env->max_tokens * s->n_listed;
        ok = ok && ROOM(list, n_listed) && ROOM(list_score, n_listed);
    }
    if (reroute)
        ok = ok && ROOM(refused, n_pairs) && ROOM(served, n_pairs) && ROOM(slot, n_pairs) && ROOM(score, n_pairs);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory to route %u tokens to %u experts", env->max_tokens,
                           env->n_experts);
    *scratch = s;
    return MOESIM_OK;
}

static uint32_t runs_of(const struct token_choice *c)
{
    return c->batch->n_tokens / CHUNK_TOKENS + (c->batch->n_tokens % CHUNK_TOKENS > 0);
}

static void cut_into_chunks(struct token_choice *c)
{
    struct moesim_token_choice_scratch *s = c->scratch;
    s->n_chunks = 0;
    for (uint32_t g = 0; g < c->batch->n_groups; g++) {
        const uint32_t last = c->batch->group_start[g + 1];
        for (uint32_t t = c->batch->group_start[g]; t < last; t = s->chunk[s->n_chunks++].last) {
            assert(s->n_chunks < s->max_chunks);
            const uint32_t rest = CHUNK_TOKENS - t % CHUNK_TOKENS, end = last - t > rest ? t + rest : last;
            s->chunk[s->n_chunks] = (struct chunk){.first = t, .last = end, .group = g};
            if (t % CHUNK_TOKENS == 0)
                s->run[t / CHUNK_TOKENS] = s->n_chunks;
        }
    }
    s->run[runs_of(c)] = s->n_chunks;
}

/* The first k of the token's list are its choices. */
static void take_from_list(const struct token_choice *c, uint32_t token)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const size_t from = (size_t)token * s->n_listed, to = c->plan->first[token];
    memcpy(c->plan->expert + to, s->list + from, c->p->k * sizeof *s->list);
    memcpy(c->plan->weight + to, s->list_score + from, c->p->k * sizeof *s->list_score);
}

/* Up to ROWS_LANES tokens that choose side by side. */
struct block {
    uint32_t n;
    uint32_t token[ROWS_LANES];
    const float *row[ROWS_LANES];
    uint32_t *expert[ROWS_LANES];
    float *score[ROWS_LANES];
};

static void add_token(const struct token_choice *c, struct block *b, uint32_t token, bool is_followed)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const uint32_t l = b->n++, n_experts = c->batch->n_experts;
    b->token[l] = token;
    if (c->rows) {
        float *row = token_choice_made(c) + (size_t)l * n_experts;
        c->rows->make(c->rows->context, token, MOESIM_SLOTS * (uint32_t)omp_get_thread_num() + l, row);
        b->row[l] = row;
    } else {
        b->row[l] = c->logits + token * c->stride;
        if (is_followed)
            rows_prefetch(b->row[l] + 2 * ROWS_LANES * c->stride, n_experts);
    }
    b->expert[l] = s->list ? s->list + (size_t)token * s->n_listed : c->plan->expert + c->plan->first[token];
    b->score[l] = s->list ? s->list_score + (size_t)token * s->n_listed : c->plan->weight + c->plan->first[token];
}

/* Keeps the logits of what was chosen, and tells who has made the rows. */
static void tell_chosen(const struct token_choice *c, const struct block *b)
{
    const struct moesim_logit_rows *rows = c->rows;
    const uint32_t k = c->p->k;
    for (uint32_t l = 0; l < b->n; l++) {
        float *logit = rows->logit + (size_t)b->token[l] * k;
        for (uint32_t j = 0; j < k; j++)
            logit[j] = b->expert[l][j] == MOESIM_NO_EXPERT ? NAN : b->row[l][b->expert[l][j]];
        if (rows->chosen)
            rows->chosen(rows->context, b->token[l], MOESIM_SLOTS * (uint32_t)omp_get_thread_num() + l, b->row[l],
                         b->expert[l], c->p->weight == MOESIM_WEIGHT_SOFTMAX ? NULL : b->score[l]);
    }
}

static void choose_block(const struct token_choice *c, const struct rows_select *select, float *values, struct block *b)
{
    for (uint32_t l = b->n; l < ROWS_LANES; l++) { /* spare lanes repeat the last row */
        b->row[l] = b->row[l - 1];
        b->expert[l] = b->expert[l - 1];
        b->score[l] = b->score[l - 1];
    }
    moesim_rows()->select(select, b->row, values, b->expert, b->score);
    if (select->confidence)
        confidence_add(&c->plan->confidence[b->token[0] / CHUNK_TOKENS], b->token, b->n, select->confidence);
    if (c->rows)
        tell_chosen(c, b);
    b->n = 0;
}

/* Chooses for tokens [first, last), eight at a time: experts and raw scores into the plan, or into the list. */
static void choose_tokens(const struct token_choice *c, const struct rows_select *select, uint32_t first, uint32_t last)
{
    const uint8_t *padding = c->batch->padding;
    struct block b = {.n = 0};
    for (uint32_t t = first; t < last; t++) {
        if (!(padding && padding[t]))
            add_token(c, &b, t, last - t > 2 * ROWS_LANES);
        if (b.n == ROWS_LANES || (b.n > 0 && t + 1 == last))
            choose_block(c, select, token_choice_row(c), &b);
    }
    for (uint32_t t = first; c->scratch->list && t < last; t++)
        if (!(padding && padding[t]))
            take_from_list(c, t);
}

/* Chooses for a chunk's tokens; segment by segment where their scores are added up. */
static void choose_chunk(const struct token_choice *c, struct rows_select select, const struct chunk *chunk)
{
    struct moesim_score_sums *sums = c->scratch->sums;
    if (!sums || !sums->is_added) {
        choose_tokens(c, &select, chunk->first, chunk->last);
        return;
    }
    for (uint32_t i = score_sums_find(sums, chunk->first); i < sums->n && sums->segment[i].first < chunk->last; i++) {
        select.sum = sums->sum + (size_t)i * sums->n_experts;
        select.squares = select.score == MOESIM_SOFTMAX ? &sums->segment[i].squares : NULL;
        choose_tokens(c, &select, sums->segment[i].first, sums->segment[i].last);
    }
}

static bool is_by_score(enum moesim_priority priority)
{
    return priority == MOESIM_PRIORITY_BPR || priority == MOESIM_PRIORITY_PROB;
}

struct rows_select token_choice_select(const struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    const float *shift = token_choice_shift(c);
    const bool by_order = is_by_score(c->priority);
    return (struct rows_select){
        .score = p->score,
        .want_score = p->weight != MOESIM_WEIGHT_SOFTMAX || by_order || p->second == MOESIM_SECOND_RANDOM,
        .n = c->batch->n_experts,
        .k = c->scratch->list ? c->scratch->n_listed : p->k,
        .bias = shift ? NULL : c->bias,
        .shift = shift,
        .by_score = !c->shift && token_choice_by_score(c),
        .n_groups = token_choice_groups(p),
        .topk_groups = p->topk_groups,
        .group_score = p->group_score,
        .group_best = p->topk_groups > 0 ? p->k / p->topk_groups : 0,
    };
}

void token_choice_one(const struct rows_select *select, const float *row, float *values, uint32_t *expert)
{
    const float *rows[ROWS_LANES];
    uint32_t *out[ROWS_LANES];
    for (uint32_t l = 0; l < ROWS_LANES; l++) {
        rows[l] = row;
        out[l] = expert;
    }
    moesim_rows()->select(select, rows, values, out, NULL);
}

/* What decides whether a second choice is kept: its weight as if nothing were dropped, or its score where weights are
 * raw or made after the drop. */
static float second_weight(const struct token_choice *c, uint32_t token, uint32_t pair)
{
    const struct moesim_token_choice *p = c->p;
    const float *value = c->plan->weight + pair;
    if (p->weight == MOESIM_WEIGHT_NONE || p->renorm == MOESIM_AFTER_DROP)
        return value[1];
    if (p->weight == MOESIM_WEIGHT_SOFTMAX) {
        const float *made = c->rows ? c->rows->logit + (size_t)token * p->k : NULL;
        const float *row = made ? NULL : c->logits + token * c->stride;
        const uint32_t *expert = c->plan->expert + pair;
        return 1 / (1 + moesim_expf(made ? made[0] - made[1] : row[expert[0]] - row[expert[1]]));
    }
    return (float)(value[1] / ((double)value[0] + value[1] + 1e-20));
}

/* In training a second choice is kept with probability min(1, weight / threshold). What is withdrawn was not wanted:
 * its pair names no expert, but its score still counts in weights made before the drop. */
static void withdraw_seconds(const struct token_choice *c, const struct chunk *chunk)
{
    const struct moesim_batch *batch = c->batch;
    const struct moesim_random random = {batch->seed, STREAM_SECOND, batch->layer, batch->step};
    for (uint32_t t = chunk->first; t < chunk->last; t++) {
        c->scratch->withdrawn[t] = MOESIM_NO_EXPERT;
        const uint32_t pair = c->plan->first[t];
        if (batch->phase != MOESIM_TRAIN || pair == c->plan->first[t + 1] ||
            c->plan->expert[pair + 1] == MOESIM_NO_EXPERT)
            continue;
        const float u = moesim_random_uniform(&random, (uint64_t)batch->micro_batch * batch->n_tokens + t);
        if (!(u * c->p->threshold < second_weight(c, t, pair))) {
            c->scratch->withdrawn[t] = c->plan->expert[pair + 1];
            c->plan->expert[pair + 1] = MOESIM_NO_EXPERT;
        }
    }
}

/* Whether a chunk's tokens choose side by side, right into the plan and counted on the way. */
static bool is_run(const struct token_choice *c, const struct rows_select *select)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    return rows_can_run(select) && !c->rows && !c->batch->padding && !s->list && !s->withdrawn &&
           !(s->sums && s->sums->is_added);
}

/* Such a chunk; false where a pair names no expert, and has to be counted again. */
static bool choose_run(const struct token_choice *c, const struct rows_select *select, struct chunk *chunk)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    struct moesim_plan *plan = c->plan;
    const uint32_t begin = plan->first[chunk->first], n_pairs = plan->first[chunk->last] - begin;
    const struct rows_run run = {
        .logits = c->logits + chunk->first * c->stride,
        .stride = c->stride,
        .n_rows = chunk->last - chunk->first,
        .expert = plan->expert + begin,
        .score = select->want_score ? plan->weight + begin : NULL,
        .count = s->count + (size_t)(chunk - s->chunk) * s->n_experts,
        .slot = plan->slot + begin,
        .token = chunk->first,
        .confidence = c->tells_confidence ? &plan->confidence[chunk->first / CHUNK_TOKENS] : NULL,
    };
    memset(run.count, 0, s->n_experts * sizeof *run.count);
    memset(plan->fate + begin, MOESIM_KEPT, n_pairs);
    chunk->n_wanted = n_pairs;
    return moesim_rows()->select_run(select, &run);
}

static void choose_and_count(struct token_choice *c, struct rows_select select, struct chunk *chunk)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    struct rows_confidence confidence;
    if (c->tells_confidence)
        select.confidence = &confidence;
    if (c->shift)
        select.shift = c->shift + (size_t)chunk->group * select.n;
    const bool as_run = is_run(c, &select), is_counted = as_run && choose_run(c, &select, chunk);
    if (!as_run)
        choose_chunk(c, select, chunk);
    if (s->unbiased)
        token_choice_unbiased(c, chunk);
    if (is_counted)
        return;
    if (s->withdrawn)
        withdraw_seconds(c, chunk);
    token_choice_count(c, chunk);
}

/* How sure the rows of run j are, where they are the batch's own logits and the metrics ask for it: out of choosing, or
 * while they are in the cache. */
static void start_confidence(const struct token_choice *c, uint32_t j)
{
    if (c->tells_confidence)
        memset(&c->plan->confidence[j], 0, sizeof *c->plan->confidence);
}

static void end_confidence(const struct token_choice *c, uint32_t j)
{
    const struct moesim_batch *batch = c->batch;
    const uint32_t first = j * CHUNK_TOKENS, rest = batch->n_tokens - first;
    if (c->plan->has_confidence && !c->tells_confidence)
        confidence_of_run(c->logits, c->stride, batch->n_experts, batch->padding, first,
                          first + (rest < CHUNK_TOKENS ? rest : CHUNK_TOKENS), &c->plan->confidence[j]);
}

/* Runs side by side, and in a run one chunk after the other. */
static void choose(struct token_choice *c)
{
    const struct rows_select select = token_choice_select(c);
    struct moesim_token_choice_scratch *s = c->scratch;
    const uint32_t n = runs_of(c);
    c->plan->has_confidence =
        c->plan->confidence && c->logits && c->logits == c->batch->columns && c->stride == c->batch->stride;
    c->tells_confidence =
        c->plan->has_confidence && !c->shift && rows_tells_confidence(&select, s->sums && s->sums->is_added);
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t j = 0; j < n; j++) {
        start_confidence(c, j);
        for (uint32_t i = s->run[j]; i < s->run[j + 1]; i++) {
            choose_and_count(c, select, &s->chunk[i]);
            if (c->weighs_at_once)
                token_choice_weigh(c, s->chunk[i].first, s->chunk[i].last);
        }
        end_confidence(c, j);
    }
}

void moesim_token_choice_sums(struct moesim_token_choice_scratch *scratch, struct moesim_score_sums *sums)
{
    scratch->sums = sums;
}

void moesim_plan_choices(struct moesim_plan *plan, const struct moesim_batch *batch, uint32_t k)
{
    const uint32_t n_tokens = batch->n_tokens;
    const uint8_t *padding = batch->padding;
    uint32_t *first = plan->first;
    uint64_t n = 0;
    for (uint32_t t = 0; padding && t < n_tokens; t++) {
        first[t] = (uint32_t)n;
        n += padding[t] ? 0 : k;
    }
    if (!padding) {
#pragma omp parallel for schedule(static) if (n_tokens >= 16 * ROWS_PARALLEL)
        for (uint32_t t = 0; t < n_tokens; t++)
            first[t] = t * k;
        n = (uint64_t)n_tokens * k;
    }
    assert(n <= plan->max_pairs);
    first[n_tokens] = (uint32_t)n;
    plan->n_pairs = n;
}

static void sum_chunks(struct token_choice *c)
{
    c->plan->n_wanted = 0;
    c->plan->n_bad_rows = 0;
    for (uint32_t i = 0; i < c->scratch->n_chunks; i++) {
        c->plan->n_wanted += c->scratch->chunk[i].n_wanted;
        c->plan->n_bad_rows += c->scratch->chunk[i].n_bad_rows;
    }
}

static void set_up(struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    const bool drawn = p->priority == MOESIM_PRIORITY_RANDOM, best = p->priority == MOESIM_PRIORITY_PROB;
    c->priority = p->priority;
    if ((drawn && c->batch->phase == MOESIM_EVAL) || ((drawn || best) && p->capacity_factor <= 0))
        c->priority = MOESIM_PRIORITY_TOKEN;
    cut_into_chunks(c);
    token_choice_capacity(c);
}

static enum moesim_status route(struct token_choice *c, struct moesim_error *err)
{
    const struct moesim_token_choice *p = c->p;
    struct moesim_plan *plan = c->plan;
    const uint64_t most = (uint64_t)c->batch->n_tokens * p->k * (p->overflow == MOESIM_REROUTE ? 2 : 1);
    if (most > plan->max_pairs)
        return moesim_fail(err, MOESIM_EBROKEN, "a plan of %llu pairs is too small for %u tokens with k = %u",
                           (unsigned long long)plan->max_pairs, c->batch->n_tokens, p->k);
    set_up(c);
    /* Where nothing is refused and slots are not given out by score, nobody asks for raw scores any more. */
    c->weighs_at_once = p->capacity_factor <= 0 && p->overflow == MOESIM_DROP && !is_by_score(c->priority);
    moesim_plan_choices(plan, c->batch, p->k);
    choose(c);
    sum_chunks(c);
    token_choice_admit(c);
    if (p->overflow == MOESIM_REROUTE)
        token_choice_insert_served(c);
    if (!c->weighs_at_once)
        token_choice_weights(c);
    return MOESIM_OK;
}

enum moesim_status moesim_token_choice_route(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                             const float *logits, size_t stride, const float *bias,
                                             struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan,
                                             struct moesim_error *err)
{
    struct token_choice c = {
        .p = p, .batch = batch, .logits = logits, .stride = stride, .bias = bias, .scratch = scratch, .plan = plan};
    if (scratch->sums)
        moesim_score_sums_begin(scratch->sums, batch, logits, stride, true);
    return route(&c, err);
}

enum moesim_status moesim_token_choice_route_rows(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                                  const struct moesim_logit_rows *rows, const float *bias,
                                                  struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan,
                                                  struct moesim_error *err)
{
    struct token_choice c = {.p = p, .batch = batch, .rows = rows, .bias = bias, .scratch = scratch, .plan = plan};
    assert(!scratch->sums); /* they are of logits that are at hand */
    return route(&c, err);
}

void moesim_token_choice_choose(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                const float *logits, size_t stride, const float *shift,
                                struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan)
{
    struct moesim_token_choice raw = *p;
    raw.weight = MOESIM_WEIGHT_NONE; /* so that scores are filled in */
    struct token_choice c = {.p = &raw,
                             .batch = batch,
                             .logits = logits,
                             .stride = stride,
                             .shift = shift,
                             .scratch = scratch,
                             .plan = plan};
    set_up(&c);
    moesim_plan_choices(plan, batch, p->k);
    choose(&c);
}

void moesim_token_choice_fit(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                             struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan)
{
    assert(p->overflow == MOESIM_DROP); /* there are no scores to reroute by */
    struct token_choice c = {.p = p, .batch = batch, .scratch = scratch, .plan = plan};
    set_up(&c);
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(&c))
    for (uint32_t i = 0; i < scratch->n_chunks; i++)
        token_choice_count(&c, &scratch->chunk[i]);
    sum_chunks(&c);
    token_choice_admit(&c);
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        if (plan->fate[i] != MOESIM_KEPT)
            plan->weight[i] = 0;
}
