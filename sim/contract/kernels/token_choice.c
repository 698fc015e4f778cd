/* SPDX-License-Identifier: MIT
 *
 * The token-choice family: every token chooses its k best experts.
 */
#include "sim/contract/kernels/token_choice.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

enum moesim_status moesim_group_parse(const char *text, struct moesim_shape *shape, struct moesim_error *err)
{
    static const char *const names[] = {
        [MOESIM_GROUP_DEVICE] = "device", [MOESIM_GROUP_BATCH] = "batch", [MOESIM_GROUP_SEQUENCE] = "sequence"};
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            shape->group = i;
            if (i == MOESIM_GROUP_SEQUENCE)
                shape->needs |= MOESIM_NEEDS_SEQUENCES;
            return MOESIM_OK;
        }
    char *end = NULL;
    errno = 0;
    const unsigned long n = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    if (n == 0 || *end != '\0' || errno != 0 || n > UINT32_MAX)
        return moesim_fail(err, MOESIM_EINVAL,
                           "group = \"%s\" should be device, batch, sequence or a number of tokens above 0", text);
    shape->group = MOESIM_GROUP_TOKENS;
    shape->group_tokens = (uint32_t)n;
    return MOESIM_OK;
}

/* Whether the groups of experts can give a token its k. */
static enum moesim_status check_groups(const struct moesim_token_choice *p, uint32_t n_experts,
                                       struct moesim_error *err)
{
    const uint32_t n = p->n_groups, kept = p->topk_groups;
    if (n <= 1 && kept <= 1)
        return MOESIM_OK;
    if (n == 0 || n_experts % n != 0)
        return moesim_fail(err, MOESIM_EINVAL, "n_groups = %u does not divide the %u experts into equal groups", n,
                           n_experts);
    if (kept > n)
        return moesim_fail(err, MOESIM_EINVAL, "topk_groups = %u exceeds n_groups = %u", kept, n);
    if (kept == 0 && p->k % n != 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "k = %u is no multiple of n_groups = %u: topk_groups = 0 takes k / n_groups experts from "
                           "every group",
                           p->k, n);
    if (kept > 0 && (uint64_t)kept * (n_experts / n) < p->k)
        return moesim_fail(err, MOESIM_EINVAL, "topk_groups = %u groups of %u experts cannot hold k = %u", kept,
                           n_experts / n, p->k);
    if (kept > 0 && p->group_score == MOESIM_GROUP_TOPK && p->k < kept)
        return moesim_fail(err, MOESIM_EINVAL,
                           "group_score = topk adds up a group's k / topk_groups best scores, which is none with "
                           "k = %u and topk_groups = %u",
                           p->k, kept);
    return MOESIM_OK;
}

enum moesim_status moesim_token_choice_shape(const struct moesim_token_choice *p, const struct moesim_env *env,
                                             struct moesim_shape *shape, struct moesim_error *err)
{
    if (p->k > env->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "k = %u exceeds the %u experts", p->k, env->n_experts);
    if (p->weight == MOESIM_WEIGHT_SOFTMAX && p->k == 1 && env->n_experts > 1)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "weight = softmax with k = 1 gives every token the constant weight 1: use weight = none or a "
            "larger k");
    if (p->second == MOESIM_SECOND_RANDOM && p->k != 2)
        return moesim_fail(err, MOESIM_EINVAL,
                           "second = random withdraws the second of two choices: it needs k = 2, not %u", p->k);
    if (p->overflow == MOESIM_REROUTE && p->rounds > 0 && p->n_groups > 1 && p->topk_groups == 0)
        return moesim_fail(err, MOESIM_EINVAL,
                           "rounds = %u goes by one list of a token's best experts, but topk_groups = 0 has one for "
                           "each of n_groups = %u: rounds should be 0",
                           p->rounds, p->n_groups);
    enum moesim_status status = check_groups(p, env->n_experts, err);
    if (!status)
        status = moesim_group_parse(p->group, shape, err);
    if (status)
        return status;
    shape->max_pairs = (uint64_t)env->max_tokens * p->k * (p->overflow == MOESIM_REROUTE ? 2 : 1);
    shape->input_jitter = (float)p->jitter;
    return MOESIM_OK;
}

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
    s->row_size = rows_scratch(env->n_experts, p->n_groups > 1 ? p->n_groups : 0);
    bool ok = true;
#define ROOM(field, n) ((s->field = moesim_alloc(arena, (n), sizeof *s->field)) != NULL)
    ok = ok && ROOM(chunk, s->max_chunks) && ROOM(count, s->max_chunks * n_experts);
    ok = ok && ROOM(row, s->n_threads * s->row_size) && ROOM(taken, max_groups * n_experts);
    if (p->second == MOESIM_SECOND_RANDOM)
        ok = ok && ROOM(withdrawn, env->max_tokens);
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
        }
    }
}

/* Asks for a row that is needed two blocks later: the rows of a block are read side by side, which hides the stream
 * from the hardware's own prefetcher. */
static void prefetch_row(const float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i += 16)
        __builtin_prefetch(row + i);
}

/* The first k of the token's list are its choices. */
static void take_from_list(const struct token_choice *c, uint32_t token)
{
    const struct moesim_token_choice_scratch *s = c->scratch;
    const size_t from = (size_t)token * s->n_listed, to = c->plan->first[token];
    memcpy(c->plan->expert + to, s->list + from, c->p->k * sizeof *s->list);
    memcpy(c->plan->weight + to, s->list_score + from, c->p->k * sizeof *s->list_score);
}

/* Chooses for tokens [first, last), eight at a time: experts and raw scores into the plan, or into the list. */
static void choose_tokens(const struct token_choice *c, const struct rows_select *select, uint32_t first, uint32_t last)
{
    const struct rows_kernels *rows = moesim_rows();
    const struct moesim_plan *plan = c->plan;
    const struct moesim_token_choice_scratch *s = c->scratch;
    const uint8_t *padding = c->batch->padding;
    float *values = token_choice_row(c);
    const float *row[ROWS_LANES];
    uint32_t *expert[ROWS_LANES];
    float *score[ROWS_LANES];
    uint32_t n = 0;
    for (uint32_t t = first; t < last; t++) {
        if (!(padding && padding[t])) {
            row[n] = c->logits + t * c->stride;
            if (last - t > 2 * ROWS_LANES)
                prefetch_row(row[n] + 2 * ROWS_LANES * c->stride, select->n);
            expert[n] = s->list ? s->list + (size_t)t * s->n_listed : plan->expert + plan->first[t];
            score[n] = s->list ? s->list_score + (size_t)t * s->n_listed : plan->weight + plan->first[t];
            n++;
        }
        if (n == 0 || (n < ROWS_LANES && t + 1 < last))
            continue;
        for (; n < ROWS_LANES; n++) { /* spare lanes repeat the last row */
            row[n] = row[n - 1];
            expert[n] = expert[n - 1];
            score[n] = score[n - 1];
        }
        rows->select(select, row, values, expert, score);
        n = 0;
    }
    for (uint32_t t = first; s->list && t < last; t++)
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

struct rows_select token_choice_select(const struct token_choice *c)
{
    const struct moesim_token_choice *p = c->p;
    const float *shift = token_choice_shift(c);
    const bool by_order = c->priority == MOESIM_PRIORITY_BPR || c->priority == MOESIM_PRIORITY_PROB;
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
    const float *value = c->plan->weight + pair, *logits = c->logits + token * c->stride;
    if (p->weight == MOESIM_WEIGHT_NONE || p->renorm == MOESIM_AFTER_DROP)
        return value[1];
    if (p->weight == MOESIM_WEIGHT_SOFTMAX)
        return 1 / (1 + moesim_expf(logits[c->plan->expert[pair]] - logits[c->plan->expert[pair + 1]]));
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

static void choose(struct token_choice *c)
{
    const struct rows_select select = token_choice_select(c);
    struct moesim_token_choice_scratch *s = c->scratch;
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c))
    for (uint32_t i = 0; i < s->n_chunks; i++) {
        struct rows_select own = select;
        if (c->shift)
            own.shift = c->shift + (size_t)s->chunk[i].group * select.n;
        choose_chunk(c, own, &s->chunk[i]);
        if (s->unbiased)
            token_choice_unbiased(c, &s->chunk[i]);
        if (s->withdrawn)
            withdraw_seconds(c, &s->chunk[i]);
        token_choice_count(c, &s->chunk[i]);
    }
}

void moesim_token_choice_sums(struct moesim_token_choice_scratch *scratch, struct moesim_score_sums *sums)
{
    scratch->sums = sums;
}

void moesim_plan_choices(struct moesim_plan *plan, const struct moesim_batch *batch, uint32_t k)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < batch->n_tokens; t++) {
        plan->first[t] = (uint32_t)n;
        n += batch->padding && batch->padding[t] ? 0 : k;
    }
    assert(n <= plan->max_pairs);
    plan->first[batch->n_tokens] = (uint32_t)n;
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

static struct token_choice set_up(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                  struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan)
{
    struct token_choice c = {.p = p, .batch = batch, .scratch = scratch, .plan = plan, .priority = p->priority};
    const bool drawn = p->priority == MOESIM_PRIORITY_RANDOM, best = p->priority == MOESIM_PRIORITY_PROB;
    if ((drawn && batch->phase == MOESIM_EVAL) || ((drawn || best) && p->capacity_factor <= 0))
        c.priority = MOESIM_PRIORITY_TOKEN;
    cut_into_chunks(&c);
    token_choice_capacity(&c);
    return c;
}

enum moesim_status moesim_token_choice_route(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                             const float *logits, size_t stride, const float *bias,
                                             struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan,
                                             struct moesim_error *err)
{
    const uint64_t most = (uint64_t)batch->n_tokens * p->k * (p->overflow == MOESIM_REROUTE ? 2 : 1);
    if (most > plan->max_pairs)
        return moesim_fail(err, MOESIM_EBROKEN, "a plan of %llu pairs is too small for %u tokens with k = %u",
                           (unsigned long long)plan->max_pairs, batch->n_tokens, p->k);
    struct token_choice c = set_up(p, batch, scratch, plan);
    c.logits = logits;
    c.stride = stride;
    c.bias = bias;
    if (scratch->sums)
        moesim_score_sums_begin(scratch->sums, batch, logits, stride, true);
    moesim_plan_choices(plan, batch, p->k);
    choose(&c);
    sum_chunks(&c);
    token_choice_admit(&c);
    if (p->overflow == MOESIM_REROUTE)
        token_choice_insert_served(&c);
    token_choice_weights(&c);
    return MOESIM_OK;
}

void moesim_token_choice_choose(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                                const float *logits, size_t stride, const float *shift,
                                struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan)
{
    struct moesim_token_choice raw = *p;
    raw.weight = MOESIM_WEIGHT_NONE; /* so that scores are filled in */
    struct token_choice c = set_up(&raw, batch, scratch, plan);
    c.logits = logits;
    c.stride = stride;
    c.shift = shift;
    moesim_plan_choices(plan, batch, p->k);
    choose(&c);
}

void moesim_token_choice_fit(const struct moesim_token_choice *p, const struct moesim_batch *batch,
                             struct moesim_token_choice_scratch *scratch, struct moesim_plan *plan)
{
    assert(p->overflow == MOESIM_DROP); /* there are no scores to reroute by */
    struct token_choice c = set_up(p, batch, scratch, plan);
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(&c))
    for (uint32_t i = 0; i < scratch->n_chunks; i++)
        token_choice_count(&c, &scratch->chunk[i]);
    sum_chunks(&c);
    token_choice_admit(&c);
    for (uint64_t i = 0; i < plan->n_pairs; i++)
        if (plan->fate[i] != MOESIM_KEPT)
            plan->weight[i] = 0;
}
