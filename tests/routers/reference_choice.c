/*
 * Token choice: the k best experts of every token, what fits into their capacity, the weights.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/routers/expected.h"

/* ---- scores and choice ---- */

struct choice choice_start(struct expected *x, const double *logit, uint32_t n, uint32_t k)
{
    const size_t cells = (size_t)x->n_tokens * n;
    struct choice c = {.n = n, .k = k, .exact = true};
    double *own = calloc(cells + 1, sizeof *own);
    c.score = calloc(cells + 1, sizeof *c.score);
    c.select = calloc(cells + 1, sizeof *c.select);
    c.logit = own;
    const bool relu = strcmp(score_name(x), "relu") == 0;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        for (uint32_t e = 0; e < n; e++)
            own[t * n + e] = logit ? logit[t * n + e] : column(x, t, e);
        score_row(score_name(x), own + t * n, n, c.score + t * n);
        for (uint32_t e = 0; e < n; e++) { /* increasing score functions compare as logits */
            const double l = own[t * n + e];
            c.select[t * n + e] = isnan(c.score[t * n + e]) ? NAN : relu ? fmax(l, 0) : l;
        }
    }
    return c;
}

void choice_bias_on_logits(struct choice *c, const struct expected *x, const float *bias)
{
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < c->n; e++) {
            const double score = c->score[(size_t)t * c->n + e];
            const float logit = (float)c->logit[(size_t)t * c->n + e];
            c->select[(size_t)t * c->n + e] = isnan(score) ? NAN : (double)(float)(logit + bias[e]);
        }
}

void choice_bias(struct choice *c, const struct expected *x, const float *bias)
{
    c->exact = false;
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < c->n; e++)
            c->select[t * c->n + e] = c->score[t * c->n + e] + (bias ? (double)bias[e] : 0);
}

void choice_end(struct choice *c)
{
    free((double *)c->logit);
    free(c->score);
    free(c->select);
}

static bool beats(struct expected *x, const struct choice *c, double a, double b)
{
    return c->exact ? a > b : larger(x, a, b);
}

void choose(struct expected *x, const struct choice *c)
{
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t rank = 0; rank < c->k && !is_padding(x, t); rank++) {
            const double *select = c->select + (size_t)t * c->n;
            uint32_t best = MOESIM_NO_EXPERT;
            for (uint32_t e = 0; e < c->n; e++)
                if (!isnan(select[e]) && !uses(x, t, e) &&
                    (best == MOESIM_NO_EXPERT || beats(x, c, select[e], select[best])))
                    best = e;
            want(x, t, best, best == MOESIM_NO_EXPERT ? 0 : c->score[(size_t)t * c->n + best]);
        }
}

/* ---- capacity ---- */

static double multiple_of_4(double c)
{
    return ceil(c / 4) * 4;
}

static double formula(struct expected *x, double s, double n, double k, double f, double *least)
{
    const double even = ceil(s / n);
    *least = 0;
    if (is(x, "capacity_rule", "tutel"))
        return k * round_down(x, f * even);
    if (is(x, "capacity_rule", "deepspeed"))
        return *least = 4, round_up(x, s / n * f * k);
    if (is(x, "capacity_rule", "megablocks"))
        return round_down(x, f * k * s / n);
    if (is(x, "capacity_rule", "mesh"))
        return *least = 4, fmin(s, round_down(x, s * f / n));
    if (is(x, "capacity_rule", "flaxformer")) {
        round_down(x, f * s / n + .5); /* halves are in doubt */
        return *least = 4, rint(f * s / n);
    }
    if (is(x, "capacity_rule", "gshard"))
        return multiple_of_4(fmax(round_down(x, s * f / n), 1));
    if (is(x, "capacity_rule", "vmoe"))
        return multiple_of_4(round_up(x, s * k * f / n));
    if (is(x, "capacity_rule", "fastmoe"))
        return k == 1 ? round_up(x, f * s / n) : floor(round_up(x, f * s) * k / n);
    if (is(x, "capacity_rule", "torchscale"))
        return k == 1 ? round_down(x, f * even) : k * even;
    if (is(x, "capacity_rule", "torchscale-eval"))
        return round_up(x, f * s);
    if (is(x, "capacity_rule", "maxtext"))
        return round_down(x, fmax(ceil(s * k / n) * f, f));
    if (is(x, "capacity_rule", "axlearn"))
        return *least = 1, round_down(x, s * f / n);
    return round_up(x, s * k / n * f); /* megatron */
}

uint32_t slots_per_expert(struct expected *x, uint32_t n_tokens, uint32_t k)
{
    double least;
    const double factor = number(x, "capacity_factor");
    if (factor == 0)
        return MOESIM_UNLIMITED;
    double slots = formula(x, n_tokens, x->batch->n_experts, k, factor, &least);
    if (has_parameter(x, "min_capacity") && number(x, "min_capacity") > 0)
        least = number(x, "min_capacity");
    return (uint32_t)fmax(slots, least);
}

/* ---- who gets a slot ---- */

/* A pair and its place in the queue: smaller `turn` first, then larger `value`, then token, then choice. */
struct entry {
    uint32_t token, choice, expert;
    double turn, value;
};

static double best_score(struct expected *x, uint32_t t, uint32_t k)
{
    double best = 0;
    for (uint32_t c = 0; c < k && c < x->n[t]; c++)
        if (pair_of(x, t, c)->fate != MOESIM_BAD_ROW)
            best = fmax(best, pair_of(x, t, c)->score);
    return best;
}

static struct entry place(struct expected *x, uint32_t k, uint32_t t, uint32_t c)
{
    const struct moesim_batch *b = x->batch;
    const struct moesim_random random = {b->seed, MOESIM_STREAM_ROUTER + 255, b->layer, b->step};
    struct entry entry = {.token = t, .choice = c, .expert = pair_of(x, t, c)->expert};
    if (is(x, "priority", "choice") || is(x, "priority", "bpr"))
        entry.turn = c;
    if (is(x, "priority", "bpr"))
        entry.value = best_score(x, t, k);
    if (is(x, "priority", "prob"))
        entry.value = pair_of(x, t, c)->score;
    if (is(x, "priority", "random") && b->phase == MOESIM_TRAIN)
        entry.value = moesim_random_uniform(&random, (uint64_t)t * k + c);
    return entry;
}

static bool goes_first(const struct entry *a, const struct entry *b)
{
    if (a->turn != b->turn)
        return a->turn < b->turn;
    if (a->value != b->value)
        return a->value > b->value;
    return a->token != b->token ? a->token < b->token : a->choice < b->choice;
}

static int by_place(const void *a, const void *b)
{
    return goes_first(a, b) ? -1 : goes_first(b, a);
}

/* Is there a pair of scores, for slots of one expert, that float32 may order otherwise? */
static void doubt_order(struct expected *x, const struct entry *entry, uint32_t n)
{
    if (is(x, "priority", "random"))
        return;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i + 1; j < n; j++)
            if (entry[i].expert == entry[j].expert && entry[i].turn == entry[j].turn)
                larger(x, entry[i].value, entry[j].value);
}

static void serve(struct expected *x, const struct choice *c, const struct entry *q, uint32_t e, uint32_t *taken)
{
    pair_of(x, q->token, q->choice)->fate = MOESIM_REROUTED;
    struct expected_pair *p = want(x, q->token, e, c->score[(size_t)q->token * c->n + e]);
    x->n_wanted--; /* it serves what was wanted already */
    p->fate = MOESIM_KEPT;
    p->slot = (int32_t)taken[e]++;
    p->weight = q->choice; /* orders the added pairs until they are weighed */
}

/* The refused pair's token goes to its best expert with a free slot that it does not name yet. */
static void reroute(struct expected *x, const struct choice *c, struct entry q, uint32_t slots, uint32_t *taken)
{
    const double *select = c->select + (size_t)q.token * c->n;
    const uint32_t first = c->within ? q.expert / c->within * c->within : 0,
                   last = c->within ? first + c->within : c->n;
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t e = first; e < last; e++)
        if (!isnan(select[e]) && select[e] > -HUGE_VAL && taken[e] < slots && !uses(x, q.token, e) &&
            (best == MOESIM_NO_EXPERT || beats(x, c, select[e], select[best])))
            best = e;
    if (best != MOESIM_NO_EXPERT)
        serve(x, c, &q, best, taken);
}

/* The token's expert of that rank (from 0) by what experts are compared by; MOESIM_NO_EXPERT past the last number. */
static uint32_t nth_choice(struct expected *x, const struct choice *c, uint32_t t, uint32_t rank)
{
    const double *select = c->select + (size_t)t * c->n;
    bool *gone = calloc(c->n, sizeof *gone);
    uint32_t best = MOESIM_NO_EXPERT;
    for (uint32_t i = 0; i <= rank; i++) {
        best = MOESIM_NO_EXPERT;
        for (uint32_t e = 0; e < c->n; e++)
            if (!gone[e] && !isnan(select[e]) && (best == MOESIM_NO_EXPERT || beats(x, c, select[e], select[best])))
                best = e;
        if (best == MOESIM_NO_EXPERT)
            break;
        gone[best] = true;
    }
    free(gone);
    return best;
}

/* No token left behind: in round i every token still short of an expert tries its i-th choice, in the order of the
 * queue; the first k rounds were the admission. */
static void reroute_in_rounds(struct expected *x, const struct choice *c, const struct entry *entry, uint32_t n,
                              uint32_t k, uint32_t slots, uint32_t *taken)
{
    const uint32_t rounds = count(x, "rounds");
    bool *served = calloc(x->n_tokens + 1, sizeof *served); /* in this round */
    for (uint32_t rank = k; rank < rounds; rank++) {
        memset(served, 0, x->n_tokens * sizeof *served);
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t t = entry[i].token;
            if (pair_of(x, t, entry[i].choice)->fate != MOESIM_OVER_CAPACITY || served[t])
                continue;
            const uint32_t e = nth_choice(x, c, t, rank);
            if (e != MOESIM_NO_EXPERT && taken[e] < slots) {
                serve(x, c, &entry[i], e, taken);
                served[t] = true;
            }
        }
    }
    free(served);
}

static void sort_added(struct expected *x, uint32_t t, uint32_t k)
{
    for (uint32_t i = k + 1; i < x->n[t]; i++)
        for (uint32_t j = i; j > k && pair_of(x, t, j)->weight < pair_of(x, t, j - 1)->weight; j--) {
            const struct expected_pair kept = *pair_of(x, t, j);
            *pair_of(x, t, j) = *pair_of(x, t, j - 1);
            *pair_of(x, t, j - 1) = kept;
        }
}

/* Slots by token where experts take the best pairs of all. */
static void slots_in_token_order(struct expected *x, uint32_t first, uint32_t last)
{
    for (uint32_t e = 0; e < x->n_experts; e++) {
        int32_t slot = 0;
        for (uint32_t t = first; t < last; t++)
            for (uint32_t c = 0; c < x->n[t]; c++)
                if (pair_of(x, t, c)->expert == e && pair_of(x, t, c)->fate == MOESIM_KEPT)
                    pair_of(x, t, c)->slot = slot++;
    }
}

static void fit_group(struct expected *x, const struct choice *c, uint32_t k, uint32_t g)
{
    const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
    struct entry *entry = calloc((size_t)(last - first) * k + 1, sizeof *entry);
    uint32_t *taken = calloc(x->n_experts, sizeof *taken), n = 0, n_tokens = 0;
    for (uint32_t t = first; t < last; t++) {
        n_tokens += !is_padding(x, t);
        for (uint32_t i = 0; i < x->n[t]; i++)
            if (pair_of(x, t, i)->fate != MOESIM_BAD_ROW)
                entry[n++] = place(x, k, t, i);
    }
    const uint32_t slots = slots_per_expert(x, n_tokens, k);
    for (uint32_t e = 0; e < x->n_experts; e++)
        x->capacity[(size_t)g * x->n_experts + e] = slots;
    qsort(entry, n, sizeof *entry, by_place);
    doubt_order(x, entry, n);
    for (uint32_t i = 0; i < n; i++) {
        struct expected_pair *p = pair_of(x, entry[i].token, entry[i].choice);
        if (taken[p->expert] < slots) {
            p->slot = (int32_t)taken[p->expert]++;
            p->fate = MOESIM_KEPT;
        }
    }
    if (is(x, "priority", "prob") || is(x, "priority", "random"))
        slots_in_token_order(x, first, last);
    const bool reroutes = c && is(x, "overflow", "reroute"), by_round = has_parameter(x, "rounds");
    if (reroutes && by_round && number(x, "rounds") > 0)
        reroute_in_rounds(x, c, entry, n, k, slots, taken);
    else
        for (uint32_t i = 0; reroutes && i < n; i++)
            if (pair_of(x, entry[i].token, entry[i].choice)->fate == MOESIM_OVER_CAPACITY)
                reroute(x, c, entry[i], slots, taken);
    for (uint32_t t = first; t < last; t++)
        sort_added(x, t, k);
    free(entry);
    free(taken);
}

void fit(struct expected *x, const struct choice *c, uint32_t k)
{
    for (uint32_t g = 0; g < x->batch->n_groups; g++)
        fit_group(x, c, k, g);
}

/* ---- weights ---- */

void weigh(struct expected *x, const struct choice *c)
{
    const bool after = is(x, "renorm", "after-drop"), softmax = is(x, "weight", "softmax");
    const double scale = has_parameter(x, "scale") ? number(x, "scale") : 1;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        double sum = 0, most = -INFINITY;
        for (uint32_t i = 0; i < x->n[t]; i++)
            if (pair_of(x, t, i)->expert != MOESIM_NO_EXPERT)
                most = fmax(most, c->logit[(size_t)t * c->n + pair_of(x, t, i)->expert]);
        for (uint32_t i = 0; i < x->n[t]; i++) {
            struct expected_pair *p = pair_of(x, t, i);
            if (p->fate == MOESIM_BAD_ROW)
                continue;
            p->weight = softmax ? exp(c->logit[(size_t)t * c->n + p->expert] - most) : p->score;
            if (after ? p->fate == MOESIM_KEPT : i < c->k)
                sum += p->weight;
        }
        for (uint32_t i = 0; i < x->n[t]; i++) {
            struct expected_pair *p = pair_of(x, t, i);
            if (p->fate != MOESIM_KEPT)
                p->weight = 0;
            else
                p->weight *= is(x, "weight", "none") ? scale : sum > 0 ? scale / (sum + 1e-20) : 0;
        }
    }
}

void route_choice(struct expected *x, const struct choice *c)
{
    choose(x, c);
    fit(x, c, c->k);
    weigh(x, c);
}

/* ---- losses ---- */

void count_wanted(struct expected *x, uint32_t first, uint32_t last, uint32_t k, double *n)
{
    memset(n, 0, x->n_experts * sizeof *n);
    for (uint32_t t = first; t < last; t++)
        for (uint32_t c = 0; c < k && c < x->n[t]; c++)
            if (pair_of(x, t, c)->fate != MOESIM_BAD_ROW)
                n[pair_of(x, t, c)->expert]++;
}

double switch_loss(struct expected *x, const double *score, uint32_t ranks, double coef)
{
    const uint32_t n = x->n_experts;
    double *chosen = calloc(n, sizeof *chosen), loss = 0, all = 0;
    for (uint32_t g = 0; g < x->batch->n_groups; g++) {
        const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
        double total = 0, n_rows = 0, sum = 0;
        count_wanted(x, first, last, ranks, chosen);
        for (uint32_t e = 0; e < n; e++)
            total += chosen[e];
        for (uint32_t t = first; t < last; t++)
            n_rows += is_good(x, t);
        for (uint32_t t = first; t < last; t++)
            for (uint32_t e = 0; e < n; e++)
                if (is_good(x, t) && !isnan(score[(size_t)t * n + e]))
                    sum += chosen[e] * score[(size_t)t * n + e];
        if (n_rows > 0)
            loss += coef * n * sum / n_rows; /* = total * E * sum_e f_e P_e */
        all += total;
    }
    free(chosen);
    return all > 0 ? loss / all : 0;
}
