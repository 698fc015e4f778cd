/*
 * One reference for every router that is a point on the axes of token choice: noise, bias, groups of experts, random
 * second choice, capacity, weights, auxiliary losses. A router without some parameter has that axis switched off.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"

static double optional(const struct expected *x, const char *key, double otherwise)
{
    return has_parameter(x, key) ? number(x, key) : otherwise;
}

/* ---- groups of experts ---- */

/* The sum of the `n` largest of values[size]. */
static double sum_of_best(const double *values, uint32_t size, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < size; i++) {
        uint32_t before = 0;
        for (uint32_t j = 0; j < size; j++)
            before += values[j] > values[i] || (values[j] == values[i] && j < i);
        sum += before < n ? values[i] : 0;
    }
    return sum;
}

/* Experts outside the token's best topk_groups groups are out of reach. */
static void mask_groups(struct expected *x, struct choice *c)
{
    const uint32_t G = (uint32_t)optional(x, "n_groups", 1), M = (uint32_t)optional(x, "topk_groups", 0);
    const uint32_t size = c->n / (G ? G : 1);
    const uint32_t best = is(x, "group_score", "max") ? 1 : is(x, "group_score", "top2") ? 2 : c->k / (M ? M : 1);
    if (G <= 1 || M == 0 || M == G)
        return;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        double *select = c->select + (size_t)t * c->n, *group = calloc(G, sizeof *group);
        bool lost = false;
        for (uint32_t e = 0; e < c->n; e++)
            lost |= isnan(select[e]);
        if (lost && !is_padding(x, t)) { /* what a lost number is worth to its group is not defined */
            x->ambiguous = true;
        }
        for (uint32_t g = 0; g < G; g++)
            group[g] = sum_of_best(select + g * size, size, best);
        for (uint32_t g = 0; g < G; g++) {
            uint32_t before = 0;
            for (uint32_t h = 0; h < G; h++)
                before += h != g && (larger(x, group[h], group[g]) || (group[h] == group[g] && h < g));
            for (uint32_t e = g * size; before >= M && e < (g + 1) * size; e++)
                select[e] = NAN;
        }
        free(group);
    }
}

/* The same number of experts from each group: k / n_groups of them, best first over all. */
static void choose_from_each_group(struct expected *x, const struct choice *c, uint32_t G)
{
    const uint32_t size = c->n / G, each = c->k / G;
    double *masked = calloc((size_t)x->n_tokens * c->n + 1, sizeof *masked);
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < c->n; e++) {
            const double *group = c->select + (size_t)t * c->n + e / size * size;
            uint32_t before = 0;
            for (uint32_t j = 0; j < size; j++)
                before +=
                    j != e % size && (group[j] > group[e % size] || (group[j] == group[e % size] && j < e % size));
            masked[(size_t)t * c->n + e] = before < each ? group[e % size] : NAN;
        }
    struct choice reached = *c;
    reached.select = masked;
    choose(x, &reached);
    free(masked);
}

/* ---- losses ---- */

/* How many experts a token's list has: its k choices, and in rounds as many as it may try. */
static uint32_t listed(struct expected *x, uint32_t k)
{
    const uint32_t G = (uint32_t)optional(x, "n_groups", 1), M = (uint32_t)optional(x, "topk_groups", 0);
    const double within = G > 1 && M > 0 ? (double)x->n_experts / G * M : x->n_experts;
    const double rounds = is(x, "overflow", "reroute") ? optional(x, "rounds", 0) : 0;
    return (uint32_t)fmax(k, fmin(rounds, within));
}

struct shares {
    double *score; /* [n_tokens][n] of the losses: sigmoid and sqrt-softplus over their sum */
    double *count; /* [n_tokens][n] 1 where the pair is counted */
    uint32_t n, k; /* k = choices that can be counted */
};

/* How many experts token t compares as better than e. */
static uint32_t n_better(struct expected *x, const struct choice *c, uint32_t t, uint32_t e)
{
    const double *select = c->select + (size_t)t * c->n;
    uint32_t n = 0;
    for (uint32_t j = 0; j < c->n; j++)
        n += select[j] == select[e]         ? j < e
             : c->exact || isnan(select[j]) ? select[j] > select[e]
                                            : larger(x, select[j], select[e]);
    return n;
}

/* What the losses count: chosen, kept, or the best k of the plain scores; all ranks or the first. Or the token's whole
 * list, tried or not. */
static struct shares loss_shares(struct expected *x, const struct choice *plain, const struct choice *chosen,
                                 bool first_only, bool as_chosen)
{
    const uint32_t n = plain->n;
    const bool unbiased = !as_chosen && is(x, "aux_count", "unbiased");
    const bool whole = !first_only && is(x, "aux_choices", "listed") && !is(x, "aux_count", "after-drop");
    struct shares s = {.n = n, .k = first_only ? 1 : whole ? listed(x, plain->k) : plain->k};
    s.score = calloc((size_t)x->n_tokens * n + 1, sizeof *s.score);
    s.count = calloc((size_t)x->n_tokens * n + 1, sizeof *s.count);
    const bool normalise =
        has_parameter(x, "aux_form") && (is(x, "score", "sigmoid") || is(x, "score", "sqrt-softplus"));
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        const struct choice *by = unbiased ? plain : chosen;
        const double *p = plain->score + (size_t)t * n, *select = by->select + (size_t)t * n;
        const uint32_t ranks = s.k, own = whole ? plain->k : ranks; /* own choices come first in the list */
        double sum = 0;
        for (uint32_t e = 0; e < n; e++)
            sum += isnan(p[e]) ? 0 : p[e];
        for (uint32_t e = 0; e < n && is_good(x, t); e++) {
            s.score[t * n + e] = isnan(p[e]) ? 0 : p[e] / (normalise ? sum + 1e-20 : 1);
            if ((unbiased || ranks > own) && !isnan(select[e])) {
                const uint32_t rank = n_better(x, by, t, e);
                s.count[t * n + e] = rank < ranks && (unbiased || rank >= own);
            }
        }
        for (uint32_t c = 0; c < x->n[t] && is_good(x, t); c++) {
            const struct expected_pair *q = pair_of(x, t, c);
            const bool kept = q->fate == MOESIM_KEPT, after = !as_chosen && is(x, "aux_count", "after-drop");
            if (!unbiased && q->fate != MOESIM_BAD_ROW && (after || c < own))
                s.count[t * n + q->expert] = after ? kept && c < (first_only ? 1 : x->width) : 1;
        }
    }
    return s;
}

/* scale * sum_d f_d P_d over rows [first, last), experts taken together in `n_sets` runs; times the choices. */
static double product_loss(struct expected *x, const struct shares *s, uint32_t first, uint32_t last, uint32_t n_sets,
                           double *n_counted)
{
    const uint32_t size = s->n / n_sets;
    double loss = 0, rows = 0, all = 0;
    for (uint32_t t = first; t < last; t++) {
        rows += is_good(x, t);
        for (uint32_t e = 0; e < s->n; e++)
            all += s->count[t * s->n + e];
    }
    for (uint32_t d = 0; d < n_sets; d++) {
        double f = 0, P = 0;
        for (uint32_t t = first; t < last; t++)
            for (uint32_t e = d * size; e < (d + 1) * size; e++) {
                f += s->count[t * s->n + e];
                P += s->score[t * s->n + e];
            }
        loss += rows > 0 && all > 0 ? n_sets * f / all * P / rows : 0;
    }
    *n_counted = all;
    return loss * (is(x, "aux_divide", "none") ? s->k : 1);
}

/* D / (M T) sum_d (tokens sent to d) P_d. */
static double communication_loss(struct expected *x, const struct shares *s, uint32_t first, uint32_t last, uint32_t D,
                                 uint32_t M)
{
    const uint32_t size = s->n / D;
    double loss = 0, rows = 0;
    for (uint32_t t = first; t < last; t++)
        rows += is_good(x, t);
    for (uint32_t d = 0; d < D; d++) {
        double sent = 0, P = 0;
        for (uint32_t t = first; t < last; t++) {
            bool here = false;
            for (uint32_t e = d * size; e < (d + 1) * size; e++) {
                here |= s->count[t * s->n + e] > 0;
                P += s->score[t * s->n + e];
            }
            sent += here;
        }
        loss += rows > 0 ? D / (M * rows) * sent * P / rows : 0;
    }
    return loss;
}

/* CV^2 or squared distances of the experts' summed scores. */
static double sum_loss(struct expected *x, const struct shares *s, uint32_t first, uint32_t last, bool square)
{
    double *L = calloc(s->n, sizeof *L), mean = 0, loss = 0;
    for (uint32_t t = first; t < last; t++)
        for (uint32_t e = 0; e < s->n; e++)
            L[e] += is_good(x, t) ? s->score[t * s->n + e] : 0;
    for (uint32_t e = 0; e < s->n; e++)
        mean += L[e] / s->n;
    for (uint32_t e = 0; e < s->n; e++)
        loss += (L[e] - mean) * (L[e] - mean);
    if (!square)
        loss = cv2(L, s->n);
    free(L);
    return loss;
}

void reference_add_chances(const double *clean, const double *noisy, uint32_t n, uint32_t k, double width, double *load)
{
    double last_in = NAN;
    for (uint32_t e = 0; e < n; e++) {
        uint32_t before = 0;
        for (uint32_t j = 0; j < n; j++)
            before += noisy[j] > noisy[e] || (noisy[j] == noisy[e] && j < e);
        if (before == k - 1)
            last_in = noisy[e];
    }
    for (uint32_t e = 0; e < n; e++)
        load[e] += .5 * erfc((last_in - clean[e]) / width / sqrt(2));
}

/* CV^2 of the expected loads. */
static double load_loss(struct expected *x, const struct choice *noisy, uint32_t first, uint32_t last)
{
    const uint32_t n = noisy->n;
    double *load = calloc(n, sizeof *load), *clean = calloc(n, sizeof *clean);
    for (uint32_t t = first; t < last; t++) {
        for (uint32_t e = 0; e < n; e++) {
            clean[e] = column(x, t, e);
            x->ambiguous |= isnan(clean[e]);
        }
        if (is_good(x, t))
            reference_add_chances(clean, noisy->logit + (size_t)t * n, n, noisy->k, optional(x, "noise", 0) / n, load);
    }
    const double loss = cv2(load, n);
    free(load);
    free(clean);
    return loss;
}

static double z_loss(struct expected *x)
{
    double sum = 0, rows = 0;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        double most = -INFINITY, total = 0;
        if (!is_good(x, t))
            continue;
        for (uint32_t e = 0; e < x->n_experts; e++)
            if (!isnan(column(x, t, e)))
                most = fmax(most, column(x, t, e));
        for (uint32_t e = 0; e < x->n_experts; e++)
            total += isnan(column(x, t, e)) ? 0 : exp(column(x, t, e) - most);
        sum += pow(most + log(total), 2);
        rows++;
    }
    return rows > 0 ? sum / rows : 0;
}

/* Where a run of equal sequence ids from token t ends; without ids, its group. */
static uint32_t sequence_end(const struct expected *x, uint32_t t)
{
    uint32_t end = t;
    for (uint32_t g = 0; !x->batch->sequence_id && g < x->batch->n_groups; g++)
        if (x->batch->group_start[g + 1] > t)
            return x->batch->group_start[g + 1];
    while (end < x->n_tokens && x->batch->sequence_id[end] == x->batch->sequence_id[t])
        end++;
    return end;
}

/* What groups weigh in the mean over them: choices before the drop. */
static double choices_of(struct expected *x, uint32_t first, uint32_t last, uint32_t k)
{
    double n = 0;
    for (uint32_t t = first; t < last; t++)
        for (uint32_t c = 0; c < x->n[t] && c < k; c++)
            n += pair_of(x, t, c)->fate != MOESIM_BAD_ROW;
    return n;
}

/* One form over the whole batch, without its coefficient. */
static double form_loss(struct expected *x, const char *form, const struct choice *plain, const struct choice *noisy)
{
    const bool gshard = strcmp(form, "gshard") == 0;
    const uint32_t D = (uint32_t)optional(x, "n_groups", 1), kept = (uint32_t)optional(x, "topk_groups", 1);
    const uint32_t M = kept > 0 ? kept : D;
    struct shares s = loss_shares(x, plain, noisy, gshard || is(x, "aux_choices", "first"), gshard);
    double loss = 0, all = 0, counted = 0;
    if (strcmp(form, "z") == 0) {
        loss = z_loss(x);
        all = 1;
    } else if (strcmp(form, "sequence") == 0) {
        for (uint32_t t = 0, end; t < x->n_tokens; t = end) {
            end = sequence_end(x, t);
            loss += product_loss(x, &s, t, end, s.n, &counted);
            all += choices_of(x, t, end, plain->k) > 0;
        }
    } else if (strcmp(form, "global-batch") == 0) {
        loss = product_loss(x, &s, 0, x->n_tokens, s.n, &counted);
        all = 1;
    } else {
        for (uint32_t g = 0; g < x->batch->n_groups; g++) {
            const uint32_t first = x->batch->group_start[g], last = x->batch->group_start[g + 1];
            double here = product_loss(x, &s, first, last, strcmp(form, "device") == 0 ? D : s.n, &counted);
            if (strcmp(form, "importance") == 0 || strcmp(form, "square") == 0)
                here = sum_loss(x, &s, first, last, form[0] == 's');
            if (strcmp(form, "load") == 0)
                here = x->batch->phase == MOESIM_TRAIN ? load_loss(x, noisy, first, last) : 0;
            if (strcmp(form, "communication") == 0)
                here = communication_loss(x, &s, first, last, D, M);
            loss += here * choices_of(x, first, last, plain->k);
            all += choices_of(x, first, last, plain->k);
        }
    }
    free(s.score);
    free(s.count);
    return all > 0 ? loss / all : 0;
}

static double losses(struct expected *x, const struct choice *plain, const struct choice *noisy)
{
    double sum = optional(x, "z_coef", 0) > 0 ? number(x, "z_coef") * z_loss(x) : 0;
    char text[200] = "switch", *rest = text; /* the form of a router without a choice of forms */
    const struct moesim_param *row = moesim_schema_find(moesim_router_schema(x->trial->router), "aux_form");
    if (row)
        moesim_param_format(row, x->trial->params, text, sizeof text);
    for (const char *form = strsep(&rest, "+"); form; form = strsep(&rest, "+")) {
        double factor = 1;
        const char *star = strchr(form, '*');
        if (star)
            factor = strtod(form, NULL);
        if (*form && strcmp(form, "none") != 0 && has_parameter(x, "aux_coef"))
            sum += number(x, "aux_coef") * factor * form_loss(x, star ? star + 1 : form, plain, noisy);
    }
    return sum;
}

/* ---- routing ---- */

static struct choice noisy_choice(struct expected *x, uint32_t k)
{
    const struct moesim_batch *b = x->batch;
    const struct moesim_random random = {b->seed, MOESIM_STREAM_ROUTER + 253, b->layer, b->step};
    const double width = b->phase == MOESIM_TRAIN ? optional(x, "noise", 0) / x->n_experts : 0;
    double *logit = calloc((size_t)x->n_tokens * x->n_experts + 1, sizeof *logit);
    for (uint32_t t = 0; t < x->n_tokens; t++)
        for (uint32_t e = 0; e < x->n_experts; e++) {
            const size_t i = (size_t)t * x->n_experts + e;
            logit[i] = column(x, t, e) + (width > 0 ? width * (double)moesim_random_normal(&random, i) : 0);
        }
    struct choice c = choice_start(x, logit, x->n_experts, k);
    c.exact = width == 0;
    free(logit);
    return c;
}

/* What the weights are made of: score, or e^logit less `most`. */
static double weight_value(struct expected *x, const struct choice *c, uint32_t t, uint32_t e, double most)
{
    return is(x, "weight", "softmax") ? exp(c->logit[(size_t)t * c->n + e] - most) : c->score[(size_t)t * c->n + e];
}

static bool is_shared_before_drop(struct expected *x)
{
    return !is(x, "weight", "none") && is(x, "renorm", "before-drop");
}

/* GShard: the second choice stays with probability min(1, g2 / threshold), g2 its share of both where weights are
 * divided before the drop. withdrawn[t] = the expert that it gave up; the pair then names none. */
static void draw_second(struct expected *x, const struct choice *c, uint32_t *withdrawn)
{
    const struct moesim_batch *b = x->batch;
    const struct moesim_random random = {b->seed, MOESIM_STREAM_ROUTER + 254, b->layer, b->step};
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        withdrawn[t] = MOESIM_NO_EXPERT;
        if (!is(x, "second", "random") || b->phase != MOESIM_TRAIN || x->n[t] < 2 ||
            pair_of(x, t, 1)->fate == MOESIM_BAD_ROW)
            continue;
        struct expected_pair *second = pair_of(x, t, 1);
        const double most = c->logit[(size_t)t * c->n + pair_of(x, t, 0)->expert];
        const double v1 = weight_value(x, c, t, pair_of(x, t, 0)->expert, most);
        const double v2 = weight_value(x, c, t, second->expert, most);
        const double g2 = is_shared_before_drop(x) ? v2 / (v1 + v2 + 1e-20) : second->score;
        const double u = moesim_random_uniform(&random, t);
        if (fabs(u * number(x, "threshold") - g2) < 1e-6 * fmax(1, g2))
            x->ambiguous = true;
        if (u * number(x, "threshold") >= g2) {
            withdrawn[t] = second->expert;
            second->expert = MOESIM_NO_EXPERT;
            second->fate = MOESIM_BAD_ROW;
            x->n_wanted--;
        }
    }
}

/* A token's weights before the drop are shares of what it chose, be it withdrawn. */
static void share_with_withdrawn(struct expected *x, const struct choice *c, const uint32_t *withdrawn)
{
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        if (withdrawn[t] == MOESIM_NO_EXPERT || !is_shared_before_drop(x))
            continue;
        const double most = c->logit[(size_t)t * c->n + pair_of(x, t, 0)->expert];
        const double sum =
            weight_value(x, c, t, pair_of(x, t, 0)->expert, most) + weight_value(x, c, t, withdrawn[t], most);
        for (uint32_t i = 0; i < x->n[t]; i++)
            if (pair_of(x, t, i)->fate == MOESIM_KEPT)
                pair_of(x, t, i)->weight =
                    sum > 0 ? number(x, "scale") * weight_value(x, c, t, pair_of(x, t, i)->expert, most) / (sum + 1e-20)
                            : 0;
    }
}

void reference_axes(struct expected *x)
{
    const uint32_t k = count(x, "k"), G = (uint32_t)optional(x, "n_groups", 1);
    struct choice noisy = noisy_choice(x, k), plain = choice_start(x, NULL, x->n_experts, k);
    const float *bias = x->trial->shape.n_memory > 0 ? x->memory : NULL; /* it starts as the file's, else 0 */
    const bool grouped = G > 1 && optional(x, "topk_groups", 0) != G;
    if (bias && is(x, "bias_on", "logits"))
        choice_bias_on_logits(&noisy, x, bias);
    else if (bias || grouped)
        choice_bias(&noisy, x, bias);
    mask_groups(x, &noisy);
    uint32_t *withdrawn = calloc((size_t)x->n_tokens + 1, sizeof *withdrawn);
    if (G > 1 && has_parameter(x, "topk_groups") && number(x, "topk_groups") == 0) {
        choose_from_each_group(x, &noisy, G);
        noisy.within = noisy.n / G;
    } else {
        choose(x, &noisy);
    }
    draw_second(x, &noisy, withdrawn);
    fit(x, &noisy, k);
    weigh(x, &noisy);
    share_with_withdrawn(x, &noisy, withdrawn);
    free(withdrawn);
    x->aux = losses(x, &plain, &noisy);
    choice_end(&noisy);
    choice_end(&plain);
}
