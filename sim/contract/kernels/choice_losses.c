/* SPDX-License-Identifier: MIT
 *
 * The auxiliary losses of the token-choice family. All but the z-loss are functions of sums over the tokens of a scope
 * (scores, chances to be chosen) and of counts, which carry no gradient; so their gradient by a token's scores is one
 * row for the whole scope, and no matrix of scores is kept.
 */
#include "sim/contract/kernels/choice.h"

#include <math.h>
#include <string.h>

/* ---- set-up ---- */

static bool choices_are_unbiased(const struct moesim_token_choice *p)
{
    return !(p->bias && *p->bias) && p->bias_update == MOESIM_BIAS_FIXED && p->n_groups <= 1 && p->noise == 0 &&
           p->second == MOESIM_SECOND_ALL;
}

enum moesim_status choice_losses_init(const struct moesim_token_choice *p, const struct moesim_env *env,
                                      struct choice_losses *l, struct moesim_error *err)
{
    struct moesim_arena *arena = env->arena;
    const size_t n_experts = env->n_experts, n_chunks = env->max_tokens / CHUNK_TOKENS + 1;
    const enum moesim_status status = losses_parse(p, &l->list, err);
    if (status || l->list.n == 0)
        return status;
    l->n_experts = env->n_experts;
    l->n_choices = p->aux_choices == MOESIM_AUX_LISTED && p->aux_count != MOESIM_AUX_AFTER_DROP
                       ? token_choice_listed(p, env->n_experts)
                       : p->k;
    l->wants_load = losses_have(&l->list, LOSS_LOAD);
    l->last_micro_batch = UINT32_MAX;
    bool ok = true;
#define ROOM(field, n) ((l->field = moesim_alloc(arena, (n), sizeof *l->field)) != NULL)
    ok = ok && ROOM(sum, 2 * n_experts) && ROOM(d_sum, 2 * n_experts);
    if (l->wants_load)
        ok = ok && ROOM(chances, n_chunks * n_experts) && ROOM(width, n_experts);
    for (uint32_t e = 0; ok && l->wants_load && e < env->n_experts; e++)
        l->width[e] = (float)(p->noise / env->n_experts);
    ok = ok && ROOM(count, n_experts) && ROOM(first, n_experts) && ROOM(sent, n_experts);
    ok = ok && ROOM(earlier, n_experts) && ROOM(last, n_experts);
    if (p->aux_count == MOESIM_AUX_UNBIASED && !choices_are_unbiased(p))
        ok = ok && ROOM(unbiased, (size_t)env->max_tokens * l->n_choices);
    if (losses_have(&l->list, LOSS_SEQUENCE))
        ok = ok && ROOM(sequence, (size_t)(env->max_tokens > env->max_groups ? env->max_tokens : env->max_groups) + 1);
#undef ROOM
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the auxiliary losses of %u tokens", env->max_tokens);
    return moesim_score_sums_init(p->score, env->n_experts, 0, losses_have(&l->list, LOSS_SEQUENCE), env, &l->sums,
                                  err);
}

/* ---- counts ---- */

/* The tokens of a scope, and how much its losses weigh. */
struct scope {
    uint32_t first, last;
    double weight;
    uint64_t n_counted;
    uint64_t n_wanted; /* all choices */
    uint64_t n_first;  /* tokens with a choice */
};

/* Whether the token takes part: no padding, and a finite logit. */
static bool is_routed(const struct moesim_plan *plan, uint32_t token)
{
    return plan->first[token] < plan->first[token + 1] && plan->expert[plan->first[token]] != MOESIM_NO_EXPERT;
}

/* The token's j-th counted expert, or MOESIM_NO_EXPERT. */
static uint32_t counted(const struct token_choice *c, const struct choice_losses *l, const struct moesim_plan *plan,
                        uint32_t token, uint32_t j)
{
    const uint32_t i = plan->first[token] + j;
    if (l->unbiased)
        return l->unbiased[(size_t)token * l->n_choices + j];
    if (c->p->aux_count == MOESIM_AUX_AFTER_DROP)
        return plan->fate[i] == MOESIM_KEPT ? plan->expert[i] : MOESIM_NO_EXPERT;
    if (j >= c->p->k)
        return c->scratch->list[(size_t)token * c->scratch->n_listed + j];
    return plan->expert[i];
}

/* How many experts of a token may count: all choices or the first; after the drop also what rerouting has added. */
static uint32_t n_counted(const struct token_choice *c, const struct choice_losses *l, const struct moesim_plan *plan,
                          uint32_t token)
{
    if (c->p->aux_choices == MOESIM_AUX_FIRST)
        return 1;
    return c->p->aux_count == MOESIM_AUX_AFTER_DROP ? plan->first[token + 1] - plan->first[token] : l->n_choices;
}

static bool seen_before(const uint32_t *group, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (group[i] == group[n])
            return true;
    return false;
}

/* l->sent: tokens by group of experts, each once however many of its experts it uses. */
static void count_sent(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                       const struct scope *s)
{
    const uint32_t size = l->n_experts / c->p->n_groups;
    uint32_t *group = (uint32_t *)token_choice_row(c);
    memset(l->sent, 0, l->n_experts * sizeof *l->sent);
    for (uint32_t t = s->first; t < s->last; t++) {
        uint32_t n = 0;
        for (uint32_t j = 0; is_routed(plan, t) && j < n_counted(c, l, plan, t); j++) {
            const uint32_t e = counted(c, l, plan, t, j);
            if (e == MOESIM_NO_EXPERT)
                continue;
            group[n] = e / size;
            if (!seen_before(group, n))
                l->sent[group[n++]]++;
        }
    }
}

static void count_scope(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                        struct scope *s)
{
    memset(l->count, 0, l->n_experts * sizeof *l->count);
    memset(l->first, 0, l->n_experts * sizeof *l->first);
    s->n_counted = s->n_wanted = s->n_first = 0;
    for (uint32_t t = s->first; t < s->last; t++) {
        if (!is_routed(plan, t))
            continue;
        const uint32_t first = plan->first[t], n = n_counted(c, l, plan, t);
        s->n_first++;
        l->first[plan->expert[first]]++;
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t e = counted(c, l, plan, t, j);
            if (e != MOESIM_NO_EXPERT) {
                l->count[e]++;
                s->n_counted++;
            }
        }
        for (uint32_t j = 0; j < c->p->k; j++)
            s->n_wanted += plan->expert[first + j] != MOESIM_NO_EXPERT;
    }
}

/* Counts of the global batch so far. A micro-batch that is routed again replaces its own. */
static void count_global_batch(const struct token_choice *c, struct choice_losses *l, struct scope *s)
{
    const uint32_t micro_batch = c->batch->micro_batch;
    s->n_counted = 0;
    for (uint32_t e = 0; e < l->n_experts; e++) {
        if (micro_batch == 0)
            l->earlier[e] = 0;
        else if (micro_batch != l->last_micro_batch)
            l->earlier[e] += l->last[e];
        l->last[e] = l->count[e];
        l->count[e] += l->earlier[e];
        s->n_counted += l->count[e];
    }
    l->last_micro_batch = micro_batch;
}

/* ---- chances to be chosen ---- */

/* The expert whose noisy logit is the one to beat: the token's last choice. */
static uint32_t rival(const struct token_choice *c, const struct moesim_plan *plan, uint32_t token)
{
    const uint32_t pair = plan->first[token] + c->p->k - 1;
    const uint32_t withdrawn = c->scratch->withdrawn ? c->scratch->withdrawn[token] : MOESIM_NO_EXPERT;
    return plan->expert[pair] == MOESIM_NO_EXPERT ? withdrawn : plan->expert[pair];
}

/* The noisy logit to beat. */
static float threshold_of(const struct token_choice *c, uint32_t token)
{
    return c->rows->logit[(size_t)token * c->p->k + c->p->k - 1];
}

/* Nothing for a token with fewer than k numbers, or infinite ones. */
static void add_chances(const struct token_choice *c, const struct choice_losses *l, const struct moesim_plan *plan,
                        uint32_t token, double *sum)
{
    const float *clean = c->batch->columns + (size_t)token * c->batch->stride;
    const float threshold = threshold_of(c, token);
    if (rival(c, plan, token) != MOESIM_NO_EXPERT && isfinite(threshold))
        moesim_add_chances(clean, clean, threshold, threshold, l->width, l->n_experts, sum);
}

/* sum[E] of the scope's chances: chunks in parallel, then chunk after chunk. */
static void sum_chances(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                        const struct scope *s, double *sum)
{
    const size_t n = l->n_experts;
    const uint32_t n_chunks = (s->last - s->first + CHUNK_TOKENS - 1) / CHUNK_TOKENS;
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c)) if (n_chunks > 1)
    for (uint32_t i = 0; i < n_chunks; i++) {
        const uint32_t first = s->first + i * CHUNK_TOKENS;
        const uint32_t last = s->last - first > CHUNK_TOKENS ? first + CHUNK_TOKENS : s->last;
        double *own = l->chances + n * i;
        memset(own, 0, n * sizeof *own);
        for (uint32_t t = first; t < last; t++)
            if (is_routed(plan, t))
                add_chances(c, l, plan, t, own);
    }
    for (uint32_t i = 0; i < n_chunks; i++)
        for (size_t e = 0; e < n; e++)
            sum[e] += l->chances[n * i + e];
}

/* ---- the forms: value of a scope, and its gradient by the sums ---- */

/* coef * sum_e share_e * P_e, where expert e belongs to one of n_parts equal runs and share_d = n_d / of. */
static double dot(const struct choice_losses *l, const struct scope *s, const uint64_t *n, uint32_t n_parts,
                  double coef, double *d_sum)
{
    const uint32_t size = l->n_experts / n_parts;
    double value = 0;
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const double d = coef * (double)n[e / size] / (double)s->n_first;
        value += d * l->sum[e];
        d_sum[e] += d;
    }
    return value;
}

static double square(const struct choice_losses *l, double coef, double *d_sum)
{
    double mean = 0, value = 0;
    for (uint32_t e = 0; e < l->n_experts; e++)
        mean += l->sum[e] / l->n_experts;
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const double above = l->sum[e] - mean;
        value += above * above;
        d_sum[e] += coef * 2 * above;
    }
    return coef * value;
}

/* Counts by group of experts, where l->sent is free for it. */
static const uint64_t *by_group(struct choice_losses *l, uint32_t n_groups)
{
    memset(l->sent, 0, l->n_experts * sizeof *l->sent);
    for (uint32_t e = 0; e < l->n_experts; e++)
        l->sent[e / (l->n_experts / n_groups)] += l->count[e];
    return l->sent;
}

static double evaluate(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                       const struct scope *s, enum loss_form form, double coef)
{
    const struct moesim_token_choice *p = c->p;
    const uint32_t n_experts = l->n_experts;
    const bool divided = p->aux_divide == MOESIM_AUX_BY_K || p->aux_choices == MOESIM_AUX_FIRST;
    const double undivided = divided ? 1 : l->n_choices;
    const double share = s->n_counted > 0 ? undivided / (double)s->n_counted : 0;
    switch (form) {
    case LOSS_SWITCH:
    case LOSS_SEQUENCE:
    case LOSS_GLOBAL_BATCH:
        return dot(l, s, l->count, n_experts, coef * n_experts * share, l->d_sum);
    case LOSS_GSHARD:
        return dot(l, s, l->first, n_experts, coef * n_experts / (double)s->n_first, l->d_sum);
    case LOSS_DEVICE:
        return dot(l, s, by_group(l, p->n_groups), p->n_groups, coef * p->n_groups * share, l->d_sum);
    case LOSS_COMMUNICATION:
        count_sent(c, l, plan, s);
        return dot(l, s, l->sent, p->n_groups,
                   coef * p->n_groups / (double)s->n_first / (p->topk_groups > 0 ? p->topk_groups : p->n_groups),
                   l->d_sum);
    case LOSS_SQUARE:
        return square(l, coef, l->d_sum);
    case LOSS_IMPORTANCE:
        return moesim_aux_cv2(l->sum, n_experts, coef, l->d_sum);
    case LOSS_LOAD:
        return moesim_aux_cv2(l->sum + n_experts, n_experts, coef, l->d_sum + n_experts);
    case LOSS_Z:
    case N_LOSS_FORMS:
        break;
    }
    return 0;
}

/* ---- gradient of a scope ---- */

static bool is_shared_out(enum moesim_score score)
{
    return score == MOESIM_SIGMOID || score == MOESIM_SQRT_SOFTPLUS;
}

/* The row's scores; for functions of one logit that do not add up to 1, their sum over experts. */
static double score_row(const struct token_choice *c, uint32_t token, float *scores)
{
    const uint32_t n = c->batch->n_experts;
    double sum = 1e-20;
    moesim_rows()->scores(c->p->score, c->batch->columns + (size_t)token * c->batch->stride, n, scores);
    if (!is_shared_out(c->p->score))
        return 1;
    for (uint32_t e = 0; e < n; e++)
        sum += scores[e] == scores[e] ? (double)scores[e] : 0;
    return sum;
}

/* From the loss by a row's scores (shared out over experts where the function asks for it) to its logits. */
static void row_backward(const struct token_choice *c, const struct choice_losses *l, uint32_t token, float *work,
                         float *d_logits)
{
    const uint32_t n = l->n_experts;
    float *scores = work, *d_scores = work + n;
    const double total = score_row(c, token, scores);
    double mean = 0;
    for (uint32_t e = 0; is_shared_out(c->p->score) && e < n; e++)
        mean += scores[e] == scores[e] ? l->d_sum[e] * scores[e] / total : 0;
    for (uint32_t e = 0; e < n; e++)
        d_scores[e] = (float)((l->d_sum[e] - mean) / total);
    moesim_score_row_backward(c->p->score, c->batch->columns + (size_t)token * c->batch->stride, scores, d_scores, n,
                              d_logits);
}

/* The chance of e grows with its clean logit and falls with the rival's noisy one. */
static void chance_backward(const struct token_choice *c, const struct choice_losses *l, const struct moesim_plan *plan,
                            uint32_t token, float *d_logits)
{
    const double *d_chance = l->d_sum + l->n_experts;
    const float *clean = c->batch->columns + (size_t)token * c->batch->stride, threshold = threshold_of(c, token);
    const uint32_t last = rival(c, plan, token);
    bool finite = last != MOESIM_NO_EXPERT && isfinite(threshold);
    for (uint32_t e = 0; e < l->n_experts; e++)
        finite = finite && isfinite(clean[e]);
    for (uint32_t e = 0; finite && e < l->n_experts; e++) {
        const double x = (clean[e] - threshold) / l->width[e];
        const double by_logit = d_chance[e] * exp(-x * x / 2) * 0.3989422804014327 / l->width[e];
        d_logits[e] += (float)by_logit;
        d_logits[last] -= (float)by_logit;
    }
}

static void scope_backward(const struct token_choice *c, const struct choice_losses *l, const struct moesim_plan *plan,
                           const struct scope *s, bool load, float *d_columns)
{
#pragma omp parallel for schedule(static) num_threads(token_choice_threads(c)) if (s->last - s->first > CHUNK_TOKENS)
    for (uint32_t t = s->first; t < s->last; t++) {
        if (!is_routed(plan, t))
            continue;
        float *d_logits = d_columns + (size_t)t * c->batch->stride;
        row_backward(c, l, t, token_choice_row(c), d_logits);
        if (load)
            chance_backward(c, l, plan, t, d_logits);
    }
}

/* ---- all scopes ---- */

/* One pass over the losses: values are added up by loss, or gradients into d_columns. */
struct pass {
    const struct token_choice *c;
    struct choice_losses *l;
    const struct moesim_plan *plan;
    double value[MOESIM_MAX_AUX];
    double scale;          /* on every coefficient */
    float *d_columns;      /* NULL = values only */
    const double *squares; /* sum over tokens of (ln sum exp logit)^2, where the choice has worked it out; else NULL */
};

enum scope_kind { SCOPE_GROUP, SCOPE_SEQUENCE, SCOPE_BATCH, SCOPE_NONE };

static enum scope_kind kind_of(enum loss_form form)
{
    return form == LOSS_SEQUENCE       ? SCOPE_SEQUENCE
           : form == LOSS_GLOBAL_BATCH ? SCOPE_BATCH
           : form == LOSS_Z            ? SCOPE_NONE
                                       : SCOPE_GROUP;
}

static bool have_kind(const struct losses *list, enum scope_kind kind)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (kind_of(list->item[i].form) == kind)
            return true;
    return false;
}

static bool has_noise(const struct token_choice *c)
{
    return c->p->noise > 0 && c->batch->phase == MOESIM_TRAIN;
}

static void do_scope(struct pass *pass, enum scope_kind kind, struct scope s)
{
    struct choice_losses *l = pass->l;
    const bool load = l->wants_load && kind == SCOPE_GROUP && has_noise(pass->c);
    count_scope(pass->c, l, pass->plan, &s);
    if (s.n_first == 0)
        return;
    if (kind == SCOPE_GROUP)
        s.weight = (double)s.n_wanted / (double)pass->plan->n_wanted;
    if (kind == SCOPE_BATCH)
        count_global_batch(pass->c, l, &s);
    moesim_score_sums_of(l->sums, s.first, s.last, l->sum);
    memset(l->sum + l->n_experts, 0, l->n_experts * sizeof *l->sum);
    if (load)
        sum_chances(pass->c, l, pass->plan, &s, l->sum + l->n_experts);
    memset(l->d_sum, 0, 2 * (size_t)l->n_experts * sizeof *l->d_sum);
    for (uint32_t i = 0; i < l->list.n; i++) {
        const struct loss *loss = &l->list.item[i];
        if (kind_of(loss->form) == kind && (loss->form != LOSS_LOAD || load))
            pass->value[i] += evaluate(pass->c, l, pass->plan, &s, loss->form, s.weight * pass->scale * loss->coef);
    }
    if (pass->d_columns)
        scope_backward(pass->c, l, pass->plan, &s, load, pass->d_columns);
}

static bool is_routed_somewhere(const struct moesim_plan *plan, uint32_t first, uint32_t last)
{
    for (uint32_t t = first; t < last; t++)
        if (is_routed(plan, t))
            return true;
    return false;
}

/* start[0 .. result]: where sequences begin and the last one ends. Without sequence ids each group is one sequence. */
static uint32_t find_sequences(const struct moesim_batch *batch, uint32_t *start)
{
    const uint32_t *id = batch->sequence_id;
    uint32_t n = 0;
    if (!id) {
        memcpy(start, batch->group_start, (batch->n_groups + 1) * sizeof *start);
        return batch->n_groups;
    }
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        if (t == 0 || id[t] != id[t - 1])
            start[n++] = t;
    start[n] = batch->n_tokens;
    return n;
}

/* The mean over the sequences that have a token to route. */
static void do_sequences(struct pass *pass)
{
    uint32_t *start = pass->l->sequence, n_used = 0;
    const uint32_t n = find_sequences(pass->c->batch, start);
    for (uint32_t i = 0; i < n; i++)
        n_used += is_routed_somewhere(pass->plan, start[i], start[i + 1]);
    for (uint32_t i = 0; i < n; i++)
        do_scope(pass, SCOPE_SEQUENCE, (struct scope){.first = start[i], .last = start[i + 1], .weight = 1.0 / n_used});
}

static double z_loss(const struct pass *pass, double coef)
{
    const struct moesim_batch *batch = pass->c->batch;
    uint32_t n = 0;
    if (!pass->squares)
        return moesim_aux_z(batch->columns, batch->stride, batch->n_tokens, batch->n_experts, batch->padding, coef,
                            pass->d_columns);
    for (uint32_t t = 0; t < batch->n_tokens; t++)
        n += is_routed(pass->plan, t);
    return n > 0 ? coef * *pass->squares / n : 0;
}

static void do_all(struct pass *pass)
{
    const struct moesim_batch *batch = pass->c->batch;
    const struct losses *list = &pass->l->list;
    for (uint32_t g = 0; have_kind(list, SCOPE_GROUP) && g < batch->n_groups; g++)
        do_scope(pass, SCOPE_GROUP,
                 (struct scope){.first = batch->group_start[g], .last = batch->group_start[g + 1], .weight = 1});
    if (have_kind(list, SCOPE_SEQUENCE))
        do_sequences(pass);
    if (have_kind(list, SCOPE_BATCH))
        do_scope(pass, SCOPE_BATCH, (struct scope){.first = 0, .last = batch->n_tokens, .weight = 1});
    for (uint32_t i = 0; i < list->n; i++)
        if (list->item[i].form == LOSS_Z)
            pass->value[i] = z_loss(pass, pass->scale * list->item[i].coef);
}

void choice_losses_add(const struct token_choice *c, struct choice_losses *l, struct moesim_plan *plan)
{
    struct pass pass = {.c = c, .l = l, .plan = plan, .scale = 1};
    double squares;
    if (l->list.n == 0)
        return;
    if (!c->scratch->sums) /* the choice was made by other logits than these */
        moesim_score_sums_begin(l->sums, c->batch, c->batch->columns, c->batch->stride, false);
    if (l->sums->is_added && c->p->score == MOESIM_SOFTMAX) {
        squares = score_sums_squares(l->sums);
        pass.squares = &squares;
    }
    do_all(&pass);
    for (uint32_t i = 0; i < l->list.n; i++)
        if (l->list.item[i].form != LOSS_LOAD || has_noise(c))
            moesim_plan_add_aux(plan, l->list.item[i].name, pass.value[i]);
}

void choice_losses_backward(const struct token_choice *c, struct choice_losses *l, const struct moesim_plan *plan,
                            struct moesim_grad *grad)
{
    struct pass pass = {.c = c, .l = l, .plan = plan, .scale = grad->loss_scale, .d_columns = grad->d_columns};
    if (l->list.n == 0)
        return;
    moesim_score_sums_begin(l->sums, c->batch, c->batch->columns, c->batch->stride, false);
    do_all(&pass);
}
