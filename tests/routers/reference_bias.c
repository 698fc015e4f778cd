/*
 * The rules by which the bias of a router on the axes of token choice follows a global batch.
 */
#include <math.h>
#include <stdlib.h>

#include "tests/routers/expected.h"
#include "tests/routers/reference_routers.h"

static double sign(double v)
{
    return (v > 0) - (v < 0);
}

/* The rank-th largest (from 1) of `values`. */
static double nth_of(const double *values, uint32_t n, uint32_t rank)
{
    for (uint32_t i = 0; i < n; i++) {
        uint32_t before = 0;
        for (uint32_t j = 0; j < n; j++)
            before += values[j] > values[i] || (values[j] == values[i] && j < i);
        if (before == rank - 1)
            return values[i];
    }
    return NAN;
}

static bool all_finite(const double *v, uint32_t n)
{
    bool finite = true;
    for (uint32_t e = 0; e < n; e++)
        finite = finite && isfinite(v[e]);
    return finite;
}

/* Quantile balancing: alpha_t = the (k + 1)-th largest of token t's values + bias, beta_e = the (m k / n + 1)-th
 * largest over the m tokens of value - alpha_t, b = -(beta - mean beta). Tokens that lack a number take no part. */
static void quantile_rule(struct expected *x, const double *values, double *memory)
{
    const uint32_t n = x->n_experts, k = count(x, "k");
    double *margin = calloc((size_t)x->n_tokens + 1, sizeof *margin), *alpha = calloc(x->n_tokens + 1, sizeof *alpha);
    double *beta = calloc(n, sizeof *beta), *row = calloc(n, sizeof *row), mean = 0;
    uint32_t m = 0;
    for (uint32_t t = 0; t < x->n_tokens; t++) {
        alpha[t] = NAN;
        if (!is_good(x, t) || !all_finite(values + (size_t)t * n, n))
            continue;
        for (uint32_t e = 0; e < n; e++)
            row[e] = values[(size_t)t * n + e] + memory[e];
        alpha[t] = nth_of(row, n, k + 1);
        m++;
    }
    for (uint32_t e = 0; e < n && m > 0; e++) {
        uint32_t i = 0;
        for (uint32_t t = 0; t < x->n_tokens; t++)
            if (!isnan(alpha[t]))
                margin[i++] = values[(size_t)t * n + e] - alpha[t];
        beta[e] = nth_of(margin, m, m * k / n + 1);
        mean += beta[e] / n;
    }
    for (uint32_t e = 0; e < n; e++)
        memory[e] = mean - beta[e];
    free(margin);
    free(alpha);
    free(beta);
    free(row);
}

void update_axes(struct expected *x, double *memory)
{
    const uint32_t n = x->n_experts;
    if (!has_parameter(x, "bias_update") || is(x, "bias_update", "none"))
        return;
    x->compare_memory = true;
    if (is(x, "bias_update", "quantile")) {
        struct choice scores = choice_start(x, NULL, n, count(x, "k"));
        quantile_rule(x, is(x, "bias_on", "logits") ? scores.logit : scores.score, memory);
        choice_end(&scores);
        return;
    }
    double *c = calloc(n, sizeof *c), *step = calloc(n, sizeof *step), mean = 0, drift = 0;
    count_wanted(x, 0, x->n_tokens, x->width, c); /* those that serve a refused pair included */
    for (uint32_t e = 0; e < n; e++)
        mean += c[e] / n;
    for (uint32_t e = 0; e < n; e++) {
        if (c[e] != mean && fabs(c[e] - mean) < 1e-9)
            c[e] = mean; /* the sign of a rounding error */
        step[e] = number(x, "gamma") * sign(mean - c[e]);
        if (is(x, "bias_update", "proportional"))
            step[e] = mean > 0 ? number(x, "gamma") * (mean - c[e]) / mean : 0;
        drift += step[e] / n;
    }
    for (uint32_t e = 0; e < n; e++)
        memory[e] += step[e] - (is(x, "bias_update", "sign-centred") ? drift : 0);
    free(c);
    free(step);
}
