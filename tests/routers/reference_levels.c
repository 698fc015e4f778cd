/*
 * References of the routers with more than one kind of expert or gate: zero-expert, hierarchical.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"

/* Slots in token order, token by token, up to the capacity of the group. */
static void seat_up_to_capacity(struct expected *x, uint32_t g)
{
    uint32_t *taken = calloc(x->n_experts, sizeof *taken);
    for (uint32_t t = x->batch->group_start[g]; t < x->batch->group_start[g + 1]; t++)
        for (uint32_t c = 0; c < x->n[t]; c++) {
            struct expected_pair *p = pair_of(x, t, c);
            if (p->fate == MOESIM_BAD_ROW || p->slot == -2)
                continue;
            if (taken[p->expert] < x->capacity[(size_t)g * x->n_experts + p->expert]) {
                p->fate = MOESIM_KEPT;
                p->slot = (int32_t)taken[p->expert]++;
            }
        }
    for (uint32_t t = x->batch->group_start[g]; t < x->batch->group_start[g + 1]; t++)
        for (uint32_t c = 0; c < x->n[t]; c++)
            if (pair_of(x, t, c)->fate != MOESIM_KEPT) {
                pair_of(x, t, c)->slot = -1;
                pair_of(x, t, c)->weight = 0;
            }
    free(taken);
}

/* ---- zero, copy, constant and null experts (MoE++, LongCat-Flash, AdaMoE) ---- */

struct kinds {
    uint32_t n_ffn, n_constant, n_copy, n_zero, n_null, n;
};

static bool gives_nothing(const struct kinds *z, uint32_t e)
{
    return e >= z->n_ffn + z->n_constant + z->n_copy;
}

/* Logits with the previous layer's columns times a learned matrix. */
static double *residual_logits(const struct expected *x, uint32_t n)
{
    double *logit = calloc((size_t)x->n_tokens * n + 1, sizeof *logit);
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < n; e++) {
            double *l = &logit[(size_t)t * n + e];
            *l = column(x, t, e);
            for (uint32_t i = 0; flag(x, "gating_residual") && i < n; i++)
                *l += (double)x->batch->previous_logits[(size_t)t * x->batch->n_columns + i] *
                      x->batch->weights[(size_t)i * n + e];
        }
    return logit;
}

/* aux_coef sum_i eta_i f_i P_i over one group; f sums to k. */
static double eta_loss(struct expected *x, const struct kinds *z, const double *score, uint32_t g)
{
    const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
    double *n = calloc(z->n, sizeof *n), nulls = 0, T = 0, loss = 0;
    count_wanted(x, first, last, x->width, n);
    for (uint32_t e = z->n - z->n_null; e < z->n; e++)
        nulls += n[e] / z->n_null;
    for (uint32_t e = z->n - z->n_null; e < z->n; e++)
        n[e] = nulls;
    for (uint32_t t = first; t < last; t++)
        if (is_good(x, t)) {
            T++;
            for (uint32_t e = 0; e < z->n; e++)
                if (!isnan(score[(size_t)t * z->n + e]))
                    loss += (e < z->n_ffn ? 1 : number(x, "tau")) * n[e] * score[(size_t)t * z->n + e];
        }
    free(n);
    return T > 0 ? number(x, "aux_coef") * loss / T : 0; /* times the group's tokens */
}

void reference_zero_expert(struct expected *x)
{
    struct kinds z = {.n_constant = count(x, "n_constant"),
                      .n_copy = count(x, "n_copy"),
                      .n_zero = count(x, "n_zero"),
                      .n_null = count(x, "n_null"),
                      .n = x->n_experts};
    z.n_ffn = z.n - z.n_constant - z.n_copy - z.n_zero - z.n_null;
    const double factor = number(x, "capacity_factor"), tau = number(x, "tau"), k = number(x, "k"), Z = z.n - z.n_ffn;
    double *logit = residual_logits(x, z.n), loss = 0, all = 0;
    struct choice c = choice_start(x, logit, z.n, count(x, "k"));
    if (number(x, "gamma") > 0) {
        float bias[256] = {0};
        for (uint32_t e = 0; e < z.n_ffn; e++)
            bias[e] = (float)x->own[e];
        choice_bias(&c, x, bias);
    }
    c.exact = c.exact && !flag(x, "gating_residual");
    choose(x, &c);
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        double sum = 0;
        for (uint32_t i = 0; i < x->n[t]; i++)
            sum += gives_nothing(&z, pair_of(x, t, i)->expert) ? 0 : pair_of(x, t, i)->score;
        for (uint32_t i = 0; i < x->n[t]; i++) {
            struct expected_pair *p = pair_of(x, t, i);
            p->weight = number(x, "scale") * p->score;
            if (is(x, "weight", "sum"))
                p->weight = gives_nothing(&z, p->expert) || sum == 0 ? 0 : p->weight / sum;
        }
    }
    for (uint32_t g = 0; g < x->batch->n_groups; g++) {
        const double T = n_tokens_of(x, x->batch->group_start[g], x->batch->group_start[g + 1]);
        for (uint32_t e = 0; e < z.n; e++)
            x->capacity[(size_t)g * z.n + e] =
                factor == 0 ? MOESIM_UNLIMITED
                            : (uint32_t)round_up(x, factor * (e < z.n_ffn ? tau : 1) * k * T / (tau * z.n_ffn + Z));
        seat_up_to_capacity(x, g);
        loss += eta_loss(x, &z, c.score, g);
        for (uint32_t t = x->batch->group_start[g]; t < x->batch->group_start[g + 1]; t++)
            all += is_good(x, t);
    }
    x->aux = all > 0 ? loss / all : 0;
    choice_end(&c);
    free(logit);
}

/* b_i += gamma (target / (k E) - n_i / (k T)) for the FFN experts. */
void update_zero_expert(struct expected *x, double *memory)
{
    (void)memory;
    const uint32_t Z = count(x, "n_constant") + count(x, "n_copy") + count(x, "n_zero") + count(x, "n_null");
    const double E = x->n_experts - Z, k = number(x, "k");
    const double target = number(x, "target") > 0 ? number(x, "target") : k * E / (E + Z);
    double *n = calloc(x->n_experts, sizeof *n);
    count_wanted(x, 0, x->n_tokens, x->width, n);
    for (uint32_t e = 0; e < (uint32_t)E && x->n_tokens > 0; e++)
        x->own[e] += number(x, "gamma") * (target / (k * E) - n[e] / (k * x->n_tokens));
    free(n);
}

/* ---- two levels of gates ---- */

struct levels {
    uint32_t E, G, size, top, inner_k;
    double *outer, *inner; /* [n_tokens][G] and [n_tokens][E] probabilities */
};

static uint32_t nth_best(const double *p, uint32_t n, uint32_t rank)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t before = 0;
        for (uint32_t j = 0; j < n; j++)
            before += p[j] > p[i] || (p[j] == p[i] && j < i);
        if (before == rank)
            return i;
    }
    return n;
}

/* E f P over the tokens that have `of` as first group (all groups' gate where of = G), times their number. */
static double level_loss(struct expected *x, const struct levels *l, uint32_t first, uint32_t last, uint32_t of,
                         double *n_rows)
{
    const uint32_t n = of == l->G ? l->G : l->size;
    double *f = calloc(n, sizeof *f), *P = calloc(n, sizeof *P), loss = 0;
    *n_rows = 0;
    for (uint32_t t = first; t < last; t++) {
        if (x->n[t] == 0 || pair_of(x, t, 0)->fate == MOESIM_BAD_ROW)
            continue;
        const uint32_t expert = pair_of(x, t, 0)->expert;
        if (of < l->G && expert / l->size != of)
            continue;
        ++*n_rows;
        f[of == l->G ? expert / l->size : expert % l->size]++;
        for (uint32_t i = 0; i < n; i++)
            P[i] += of == l->G ? l->outer[t * l->G + i] : l->inner[t * l->E + of * l->size + i];
    }
    for (uint32_t i = 0; i<n && * n_rows> 0; i++)
        loss += n * f[i] / *n_rows * P[i] / *n_rows;
    free(f);
    free(P);
    return loss;
}

static void choose_levels(struct expected *x, const struct levels *l, uint32_t t)
{
    const double *outer = l->outer + (size_t)t * l->G;
    double outer_sum = 0;
    for (uint32_t i = 0; i < l->top; i++)
        outer_sum += outer[nth_best(outer, l->G, i)];
    for (uint32_t i = 0; i < l->top; i++) {
        const uint32_t d = nth_best(outer, l->G, i);
        const double *inner = l->inner + (size_t)t * l->E + d * l->size;
        double inner_sum = 0;
        for (uint32_t j = 0; j < l->inner_k; j++)
            inner_sum += inner[nth_best(inner, l->size, j)];
        for (uint32_t j = 0; j < l->inner_k; j++) {
            const uint32_t e = nth_best(inner, l->size, j);
            want(x, t, d * l->size + e, 0)->weight =
                number(x, "scale") * outer[d] * inner[e] / (is(x, "weight", "sum") ? outer_sum * inner_sum : 1);
        }
    }
}

/* A group takes ceil(g topk_groups T / n_groups) tokens; the pairs of refused ones ask no expert. */
static void refuse_by_group(struct expected *x, const struct levels *l, uint32_t g)
{
    const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
    const double factor = number(x, "group_capacity_factor");
    const double places = round_up(x, factor * l->top * n_tokens_of(x, first, last) / l->G);
    for (uint32_t d = 0; d < l->G && factor > 0; d++) {
        double taken = 0;
        for (uint32_t t = first; t < last; t++) {
            bool asks = false;
            for (uint32_t c = 0; c < x->n[t]; c++)
                if (pair_of(x, t, c)->fate != MOESIM_BAD_ROW && pair_of(x, t, c)->expert / l->size == d) {
                    asks = true;
                    if (taken >= places)
                        pair_of(x, t, c)->slot = -2; /* no slot to look for */
                }
            taken += asks;
        }
    }
}

void reference_hierarchical(struct expected *x)
{
    const uint32_t k = count(x, "k");
    struct levels l = {.E = x->n_experts, .G = count(x, "n_groups"), .top = count(x, "topk_groups")};
    for (uint32_t d = 1; count(x, "n_groups") == 0 && d * d <= l.E; d++) /* the largest divisor up to the root */
        l.G = l.E % d == 0 ? d : l.G;
    if (l.top == 0)
        l.top = k % 2 != 0 || l.G == 1 ? 1 : 2;
    double loss = 0, all = 0;
    for (uint32_t n = 1; count(x, "n_groups") == 0 && n * n <= l.E; n++) /* 0 = the divisor of E next below its root */
        l.G = l.E % n == 0 ? n : l.G;
    if (l.top == 0)
        l.top = l.G > 1 && count(x, "k") % 2 == 0 ? 2 : 1;
    l.size = l.E / l.G;
    l.inner_k = k / l.top;
    l.outer = calloc((size_t)x->n_tokens * l.G + 1, sizeof *l.outer);
    l.inner = calloc((size_t)x->n_tokens * l.E + 1, sizeof *l.inner);
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        double row[256];
        bool doubt = false;
        for (uint32_t i = 0; i < l.E + l.G; i++) {
            row[i] = column(x, t, i);
            doubt |= isnan(row[i]);
        }
        if (is_padding(x, t))
            continue;
        if (doubt) { /* which of its gates a token may do without is not defined; conformance sees that it is served */
            x->ambiguous = x->ambiguous || !is_bad_row(x, t, l.E);
            want(x, t, MOESIM_NO_EXPERT, 0);
            continue;
        }
        score_row("softmax", row + l.E, l.G, l.outer + (size_t)t * l.G);
        for (uint32_t d = 0; d < l.G; d++)
            score_row("softmax", row + d * l.size, l.size, l.inner + (size_t)t * l.E + d * l.size);
        choose_levels(x, &l, t);
    }
    for (uint32_t g = 0; g < x->batch->n_groups; g++) {
        const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
        const uint32_t slots = slots_per_expert(x, n_tokens_of(x, first, last), k);
        for (uint32_t e = 0; e < l.E; e++)
            x->capacity[(size_t)g * l.E + e] = slots;
        double n_rows, n_inner, here = level_loss(x, &l, first, last, l.G, &n_rows);
        for (uint32_t d = 0; d < l.G; d++)
            here += level_loss(x, &l, first, last, d, &n_inner) / l.G;
        loss += here * n_rows;
        all += n_rows;
        refuse_by_group(x, &l, g);
        seat_up_to_capacity(x, g);
    }
    x->aux = all > 0 ? number(x, "aux_coef") * loss / all : 0;
    free(l.outer);
    free(l.inner);
}
