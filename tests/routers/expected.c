/*
 * The tools of the slow references.
 */
#include "tests/routers/expected.h"

#include <criterion/criterion.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters ---- */

static const struct moesim_param *row_of(const struct expected *x, const char *key)
{
    return moesim_schema_find(moesim_router_schema(x->trial->router), key);
}

bool has_parameter(const struct expected *x, const char *key)
{
    return row_of(x, key) != NULL;
}

double number(const struct expected *x, const char *key)
{
    const struct moesim_param *row = row_of(x, key);
    cr_assert(row, "router %s has no parameter %s", x->trial->router->name, key);
    const void *field = (const char *)x->trial->params + row->offset;
    switch (row->type) {
    case MOESIM_TYPE_REAL:
        return *(const double *)field;
    case MOESIM_TYPE_SIZE:
        return (double)*(const uint64_t *)field;
    case MOESIM_TYPE_BOOL:
        return *(const bool *)field;
    default:
        return *(const uint32_t *)field;
    }
}

uint32_t count(const struct expected *x, const char *key)
{
    return (uint32_t)number(x, key);
}

bool flag(const struct expected *x, const char *key)
{
    return number(x, key) != 0;
}

bool is(const struct expected *x, const char *key, const char *word)
{
    const struct moesim_param *row = row_of(x, key);
    char text[100];
    if (!row)
        return false;
    moesim_param_format(row, x->trial->params, text, sizeof text);
    return strcmp(text, word) == 0;
}

/* ---- numbers ---- */

double softplus(double x)
{
    return x > 30 ? x + exp(-x) : log1p(exp(x));
}

double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

double cv2(const double *v, uint32_t n)
{
    double mean = 0, variance = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += v[i] / n;
    for (uint32_t i = 0; i < n; i++)
        variance += (v[i] - mean) * (v[i] - mean) / n;
    return variance / (mean * mean + 1e-10);
}

double column(const struct expected *x, uint32_t t, uint32_t e)
{
    return x->batch->columns[(size_t)t * x->batch->stride + e];
}

bool is_padding(const struct expected *x, uint32_t t)
{
    return x->batch->padding && x->batch->padding[t];
}

static void doubt_rounding(struct expected *x, double v)
{
    if (v != rint(v) && fabs(v - rint(v)) < 1e-9)
        x->ambiguous = true;
}

double round_up(struct expected *x, double v)
{
    doubt_rounding(x, v);
    return ceil(v);
}

double round_down(struct expected *x, double v)
{
    doubt_rounding(x, v);
    return floor(v);
}

uint32_t n_tokens_of(const struct expected *x, uint32_t first, uint32_t last)
{
    uint32_t n = 0;
    for (uint32_t t = first; t < last; t++)
        n += !is_padding(x, t);
    return n;
}

bool is_bad_row(const struct expected *x, uint32_t t, uint32_t n)
{
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(column(x, t, e)))
            return false;
    return true;
}

bool larger(struct expected *x, double a, double b)
{
    if (a != b && fabs(a - b) <= x->doubt * fmax(x->unit, fmax(fabs(a), fabs(b))) + 1e-30)
        x->ambiguous = true;
    return a > b;
}

void score_row(const char *function, const double *logit, uint32_t n, double *score)
{
    double most = -INFINITY, sum = 0;
    for (uint32_t e = 0; e < n; e++)
        if (isfinite(logit[e]))
            most = fmax(most, logit[e]);
    for (uint32_t e = 0; e < n; e++)
        sum += isnan(logit[e]) ? 0 : exp(logit[e] - most);
    for (uint32_t e = 0; e < n; e++) {
        if (isinf(most) || isnan(logit[e]))
            score[e] = NAN;
        else if (strcmp(function, "softmax") == 0)
            score[e] = exp(logit[e] - most) / sum;
        else if (strcmp(function, "sigmoid") == 0)
            score[e] = sigmoid(logit[e]);
        else if (strcmp(function, "sqrt-softplus") == 0)
            score[e] = sqrt(softplus(logit[e]));
        else
            score[e] = fmax(logit[e], 0);
    }
}

const char *score_name(const struct expected *x)
{
    static const char *const names[] = {"sigmoid", "sqrt-softplus", "relu"};
    for (int i = 0; i < 3; i++)
        if (is(x, "score", names[i]))
            return names[i];
    return "softmax";
}

/* ---- pairs ---- */

struct expected_pair *pair_of(struct expected *x, uint32_t t, uint32_t c)
{
    return &x->pair[(size_t)t * x->width + c];
}

bool is_good(struct expected *x, uint32_t t)
{
    return x->n[t] > 0 && pair_of(x, t, 0)->fate != MOESIM_BAD_ROW;
}

struct expected_pair *want(struct expected *x, uint32_t t, uint32_t expert, double score)
{
    cr_assert_lt(x->n[t], x->width);
    struct expected_pair *p = pair_of(x, t, x->n[t]++);
    *p = (struct expected_pair){.expert = expert, .slot = -1, .fate = MOESIM_OVER_CAPACITY, .score = score};
    if (expert == MOESIM_NO_EXPERT)
        p->fate = MOESIM_BAD_ROW;
    else
        x->n_wanted++;
    return p;
}

bool uses(struct expected *x, uint32_t t, uint32_t expert)
{
    for (uint32_t c = 0; c < x->n[t]; c++)
        if (pair_of(x, t, c)->expert == expert)
            return true;
    return false;
}

void seat(struct expected *x)
{
    uint32_t *taken = calloc(x->n_experts, sizeof *taken);
    for (uint32_t g = 0; g < x->batch->n_groups; g++) {
        memset(taken, 0, x->n_experts * sizeof *taken);
        for (uint32_t t = x->batch->group_start[g]; t < x->batch->group_start[g + 1]; t++)
            for (uint32_t c = 0; c < x->n[t]; c++) {
                struct expected_pair *p = pair_of(x, t, c);
                if (p->fate == MOESIM_BAD_ROW)
                    continue;
                p->fate = MOESIM_KEPT;
                p->slot = (int32_t)taken[p->expert]++;
            }
    }
    free(taken);
}
