/*
 * Running counts over decisions.
 */
#include "workloads/trace/tally.h"

#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>

#define MOST_CELLS (UINT64_C(1) << 23)  /* layers x experts: 64 MiB of counts */
#define MOST_TABLE (UINT64_C(1) << 24)  /* elements of the tables of predictability: 64 MiB */
#define MOST_SCORED (UINT64_C(1) << 17) /* tokens whose next layer is predicted */

static const uint32_t lags[TALLY_LAGS] = {1, TALLY_HISTORY};

static bool allocate_layers(struct tally *t)
{
    const size_t n = t->shape->n_experts;
    const uint64_t tables = (uint64_t)(t->shape->n_layers - 1) * n * n;
    for (uint32_t l = 0; l < t->shape->n_layers; l++) {
        struct tally_layer *layer = &t->layer[l];
        layer->count = calloc(n, sizeof *layer->count);
        layer->cache.expert = calloc((size_t)t->cache_experts + 1, sizeof *layer->cache.expert);
        if (t->n_domains)
            layer->domain = calloc((size_t)t->n_domains * n, sizeof *layer->domain);
        if (tables && tables <= MOST_TABLE && l + 1 < t->shape->n_layers)
            layer->next = calloc(n * n, sizeof *layer->next);
        layer->leaving = calloc(n, sizeof *layer->leaving);
        if (!layer->leaving || !layer->count || !layer->cache.expert || (t->n_domains && !layer->domain))
            return false;
    }
    return true;
}

enum moesim_status tally_init(struct tally *t, const struct trace_shape *shape, uint32_t n_domains, uint32_t piece,
                              struct moesim_error *err)
{
    const uint64_t cells = (uint64_t)shape->n_layers * shape->n_experts;
    *t = (struct tally){.shape = shape,
                        .n_domains = n_domains <= TALLY_MOST_DOMAINS && cells * n_domains <= MOST_CELLS ? n_domains : 0,
                        .cache_experts = 2 * shape->top_k < shape->n_experts ? 2 * shape->top_k : shape->n_experts};
    if (cells > MOST_CELLS)
        return moesim_fail(err, MOESIM_EINVAL, "%u layers of %u experts are too many to be counted", shape->n_layers,
                           shape->n_experts);
    t->layer = calloc(shape->n_layers, sizeof *t->layer);
    t->stamp = calloc(shape->n_experts, sizeof *t->stamp);
    t->score = calloc(shape->n_experts, sizeof *t->score);
    t->same = calloc(piece, 1);
    if (t->layer && t->stamp && t->score && t->same && allocate_layers(t))
        return MOESIM_OK;
    tally_finish(t);
    return moesim_fail(err, MOESIM_ENOMEM, "no memory to count %u layers of %u experts", shape->n_layers,
                       shape->n_experts);
}

void tally_finish(struct tally *t)
{
    for (uint32_t l = 0; t->layer && l < t->shape->n_layers; l++) {
        free(t->layer[l].count);
        free(t->layer[l].domain);
        free(t->layer[l].next);
        free(t->layer[l].leaving);
        free(t->layer[l].cache.expert);
    }
    free(t->layer);
    free(t->stamp);
    free(t->score);
    free(t->same);
    t->layer = NULL;
}

/* The experts of the i-th token of a piece, history included. */
static uint32_t experts(const struct tally_piece *p, uint32_t i, const uint32_t **expert)
{
    *expert = p->pairs.expert + p->pairs.first[i];
    return p->pairs.first[i + 1] - p->pairs.first[i];
}

/* ---- loads, and tokens that name an expert twice ---- */

static void add_loads(struct tally *t, struct tally_layer *layer, const struct tally_piece *p)
{
    for (uint32_t i = p->history; i < p->history + p->n; i++) {
        const uint32_t *expert;
        const uint32_t k = experts(p, i, &expert);
        uint64_t *domain = layer->domain ? layer->domain + (size_t)p->domain[i] * t->shape->n_experts : NULL;
        bool repeated = false;
        t->stamps++;
        for (uint32_t j = 0; j < k; j++) {
            if (expert[j] == MOESIM_NO_EXPERT)
                continue;
            layer->count[expert[j]]++;
            if (domain)
                domain[expert[j]]++;
            repeated |= t->stamp[expert[j]] == t->stamps;
            t->stamp[expert[j]] = t->stamps;
        }
        if (repeated && t->n_repeated++ == 0)
            t->first_repeated = p->first + i - p->history;
    }
}

/* ---- lags ---- */

/* |E_i intersect E_(i - lag)| / |E_i|; false without an expert. */
static bool overlap(struct tally *t, const struct tally_piece *p, uint32_t i, uint32_t lag, double *share)
{
    const uint32_t *expert;
    uint32_t n = 0, shared = 0, k = experts(p, i - lag, &expert);
    t->stamps++;
    for (uint32_t j = 0; j < k; j++)
        if (expert[j] != MOESIM_NO_EXPERT)
            t->stamp[expert[j]] = t->stamps;
    k = experts(p, i, &expert);
    for (uint32_t j = 0; j < k; j++)
        if (expert[j] != MOESIM_NO_EXPERT) {
            n++;
            shared += t->stamp[expert[j]] == t->stamps;
        }
    *share = n ? (double)shared / n : 0;
    return n > 0;
}

static void add_lags(struct tally *t, struct tally_layer *layer, const struct tally_piece *p)
{
    for (uint32_t g = 0; g < TALLY_LAGS; g++)
        for (uint32_t i = p->history; i < p->history + p->n; i++) {
            double share;
            if (i < lags[g] || (p->sequence && p->sequence[i] != p->sequence[i - lags[g]]))
                continue;
            if (overlap(t, p, i, lags[g], &share)) {
                layer->lag_sum[g] += share;
                layer->lag_n[g]++;
            }
        }
}

/* ---- cache ---- */

static void use(struct tally_cache *c, uint32_t size, uint32_t expert)
{
    uint32_t i = 0;
    while (i < c->n && c->expert[i] != expert)
        i++;
    c->lookups++;
    c->hits += i < c->n;
    if (i == c->n && c->n < size)
        c->n++;
    if (i == size)
        i--; /* the one that was used longest ago goes */
    memmove(c->expert + 1, c->expert, i * sizeof *c->expert);
    c->expert[0] = expert;
}

static void add_cache(struct tally *t, struct tally_layer *layer, const struct tally_piece *p)
{
    for (uint32_t i = p->history; i < p->history + p->n; i++) {
        const uint32_t *expert;
        const uint32_t k = experts(p, i, &expert);
        if (p->sequence && i > 0 && p->sequence[i] != p->sequence[i - 1])
            layer->cache.n = 0;
        for (uint32_t j = 0; j < k; j++)
            if (expert[j] != MOESIM_NO_EXPERT)
                use(&layer->cache, t->cache_experts, expert[j]);
    }
}

/* ---- predictability ---- */

/* How many of the token's experts are among the k largest scores, equal ones by lower id; those found lose theirs. */
static uint32_t count_predicted(struct tally *t, const uint32_t *expert, uint32_t k)
{
    uint32_t found = 0;
    for (uint32_t rank = 0; rank < k; rank++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < t->shape->n_experts; e++)
            best = t->score[e] > t->score[best] ? e : best;
        if (!(t->score[best] > 0))
            break;
        for (uint32_t j = 0; j < k; j++)
            found += expert[j] == best;
        t->score[best] = 0;
    }
    return found;
}

/* The sum of what each expert before makes likely here: shares of its row. */
static void predict(struct tally *t, const struct tally_layer *from, struct tally_layer *to, const uint32_t *before,
                    uint32_t n_before, const uint32_t *expert, uint32_t k)
{
    const size_t n = t->shape->n_experts;
    memset(t->score, 0, n * sizeof *t->score);
    for (uint32_t j = 0; j < n_before; j++) {
        if (before[j] == MOESIM_NO_EXPERT || from->leaving[before[j]] == 0)
            continue;
        const uint32_t *row = from->next + before[j] * n;
        const double share = 1 / (double)from->leaving[before[j]];
        for (size_t e = 0; e < n; e++)
            t->score[e] += row[e] * share;
    }
    if (k) {
        to->predicted += (double)count_predicted(t, expert, k) / k;
        to->n_predicted++;
    }
}

/* A token of the first half. */
static void count_transitions(struct tally_layer *from, size_t n_experts, const uint32_t *before, uint32_t n_before,
                              const uint32_t *expert, uint32_t k)
{
    for (uint32_t j = 0; j < n_before; j++)
        for (uint32_t m = 0; m < k; m++)
            if (before[j] != MOESIM_NO_EXPERT && expert[m] != MOESIM_NO_EXPERT) {
                from->next[before[j] * n_experts + expert[m]]++;
                from->leaving[before[j]]++;
            }
}

/* The first half of the trace is counted, the second predicted: every token of it, or as many as matter. */
static void add_transitions(struct tally *t, uint32_t l, const struct tally_piece *p, const struct tally_piece *before)
{
    struct tally_layer *from = &t->layer[l - 1], *to = &t->layer[l];
    const uint64_t half = t->shape->n_tokens / 2, apart = (t->shape->n_tokens - half) / MOST_SCORED + 1;
    if (!from->next)
        return;
    for (uint32_t i = p->history; i < p->history + p->n; i++) {
        const uint64_t token = p->first + i - p->history;
        const uint32_t *expert, *earlier;
        const uint32_t k = experts(p, i, &expert), n = experts(before, i, &earlier);
        if (token >= half && (token - half) % apart == 0)
            predict(t, from, to, earlier, n, expert, k);
        else if (token < half)
            count_transitions(from, t->shape->n_experts, earlier, n, expert, k);
    }
}

/* ---- constant runs ---- */

static void add_sameness(struct tally *t, uint32_t l, const struct tally_piece *p)
{
    for (uint32_t i = p->history; i < p->history + p->n; i++) {
        uint8_t *same = &t->same[i - p->history];
        const uint32_t *expert, *earlier;
        if (l == 0)
            *same = i > 0;
        if (!*same)
            continue;
        const uint32_t k = experts(p, i, &expert);
        *same = k == experts(p, i - 1, &earlier) && memcmp(expert, earlier, k * sizeof *expert) == 0;
    }
}

void tally_add(struct tally *t, uint32_t l, const struct tally_piece *piece, const struct tally_piece *before)
{
    struct tally_layer *layer = &t->layer[l];
    add_loads(t, layer, piece);
    add_lags(t, layer, piece);
    add_cache(t, layer, piece);
    add_sameness(t, l, piece);
    if (before)
        add_transitions(t, l, piece, before);
}

/* A run ended before token `end`. */
static void end_run(struct tally_runs *r, uint64_t end)
{
    const uint64_t n = end - r->start;
    if (n >= TALLY_RUN) {
        r->total += n;
        if (n > r->longest) {
            r->longest = n;
            r->longest_start = r->start;
        }
    }
    r->start = end;
}

void tally_end_piece(struct tally *t, const struct tally_piece *piece, bool last)
{
    for (uint32_t i = 0; i < piece->n; i++)
        if (!t->same[i])
            end_run(&t->runs, piece->first + i);
    if (last)
        end_run(&t->runs, piece->first + piece->n);
}
