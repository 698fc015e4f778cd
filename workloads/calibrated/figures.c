/*
 * Counting decisions into figures.
 */
#include "workloads/calibrated/figures.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/metric.h>

#include "workloads/trace/measure.h"

enum {
    HISTORY = 256,      /* tokens: the longest lag */
    N_LAGS = 5,         /* CALIBRATED_LAG1 and on */
    WINDOW = 128,       /* tokens of a window */
    MOST_WINDOWS = 512, /* of tokens from all over */
    MOST_DOMAINS = 256,
    RANKS_MOST = 1 << 16,
    OFTEN = 50, /* times that a token type must occur to tell */
};

static const uint32_t lags[N_LAGS] = {1, 2, 8, 64, 256};

const struct calibrated_figure_info calibrated_figures[CALIBRATED_N_FIGURES] = {
    [CALIBRATED_LOAD_CV] = {"load_cv", "standard deviation of the expert loads over their mean"},
    [CALIBRATED_MAX_MEAN] = {"max_over_mean", "the busiest expert's load over the mean"},
    [CALIBRATED_GINI] = {"load_gini", "Gini coefficient of the loads"},
    [CALIBRATED_LOG_SIGMA] = {"log_load_sigma", "standard deviation of ln load"},
    [CALIBRATED_DOMAIN_CV] = {"domain_cv", "load_cv of one domain, mean over domains"},
    [CALIBRATED_DOMAIN_MAX] = {"domain_max_over_mean", "max_over_mean of one domain, mean over domains"},
    [CALIBRATED_DIVERGENCE] = {"domain_divergence", "Jensen-Shannon divergence of two domains' loads, bits"},
    [CALIBRATED_RANKS] = {"domain_rank_correlation", "Spearman's correlation of two domains' loads"},
    [CALIBRATED_LAG1] = {"lag1_overlap", "share of a token's experts that the one before has too"},
    [CALIBRATED_LAG2] = {"lag2_overlap", "the same, two tokens back"},
    [CALIBRATED_LAG8] = {"lag8_overlap", "eight back"},
    [CALIBRATED_LAG64] = {"lag64_overlap", "64 back"},
    [CALIBRATED_LAG256] = {"lag256_overlap", "256 back"},
    [CALIBRATED_FIRST_AGAIN] = {"first_again", "tokens whose best expert is the one before's best"},
    [CALIBRATED_ANY_AGAIN] = {"any_again", "tokens that share an expert with the one before"},
    [CALIBRATED_WINDOW_MAX] = {"window_max_over_mean", "max_over_mean of 128 tokens in a row of one sequence"},
    [CALIBRATED_MIXED_MAX] = {"mixed_max_over_mean", "max_over_mean of 128 tokens from all over"},
    [CALIBRATED_TOKEN_BITS] = {"token_bits", "bits that a token's type tells of its experts, of types seen 50 times"},
};

struct figures {
    struct figures_shape shape;
    uint64_t n_seen, in_sequence; /* tokens; of the running sequence */
    uint32_t sequence;
    uint64_t *load;   /* [n_experts] */
    uint64_t *domain; /* [n_domains][n_experts] or NULL */
    uint32_t *type;   /* [vocabulary][n_experts] or NULL */
    uint32_t *past;   /* [HISTORY][top_k] experts of the last tokens, a ring */
    uint32_t *n_past; /* [HISTORY] */
    double lag_sum[N_LAGS];
    uint64_t lag_n[N_LAGS], first_again, any_again;
    uint32_t *window; /* [n_experts] the running window of one sequence */
    uint32_t in_window, window_max, window_pairs;
    double window_sum;
    uint64_t n_windows;
    uint32_t *mixed; /* [n_mixed][n_experts] */
    uint32_t n_mixed;
    uint64_t mixed_apart; /* tokens from one that is taken to the next */
};

static void *zeros(uint64_t n, uint64_t size)
{
    return calloc(n ? n : 1, size);
}

struct figures *figures_create(const struct figures_shape *shape)
{
    struct figures *f = zeros(1, sizeof *f);
    if (!f)
        return NULL;
    f->shape = *shape;
    if (shape->n_domains < 2 || shape->n_domains > MOST_DOMAINS)
        f->shape.n_domains = 0;
    if ((uint64_t)shape->vocabulary * shape->n_experts > UINT64_C(1) << 26)
        f->shape.vocabulary = 0;
    const uint64_t n_windows = shape->n_tokens / WINDOW, n = shape->n_experts;
    f->n_mixed = n_windows < MOST_WINDOWS ? (uint32_t)n_windows : MOST_WINDOWS;
    f->mixed_apart = f->n_mixed ? shape->n_tokens / ((uint64_t)f->n_mixed * WINDOW) : 1;
    f->load = zeros(n, sizeof *f->load);
    f->domain = zeros(f->shape.n_domains * n, sizeof *f->domain);
    f->type = zeros(f->shape.vocabulary * n, sizeof *f->type);
    f->past = zeros((uint64_t)HISTORY * shape->top_k, sizeof *f->past);
    f->n_past = zeros(HISTORY, sizeof *f->n_past);
    f->window = zeros(n, sizeof *f->window);
    f->mixed = zeros(f->n_mixed * n, sizeof *f->mixed);
    if (f->load && f->domain && f->type && f->past && f->n_past && f->window && f->mixed)
        return f;
    figures_destroy(f);
    return NULL;
}

void figures_destroy(struct figures *f)
{
    if (!f)
        return;
    free(f->load);
    free(f->domain);
    free(f->type);
    free(f->past);
    free(f->n_past);
    free(f->window);
    free(f->mixed);
    free(f);
}

/* ---- counting ---- */

static uint32_t common_experts(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_a; i++)
        for (uint32_t j = 0; j < n_b; j++)
            n += a[i] == b[j];
    return n;
}

static void add_lags(struct figures *f, const uint32_t *expert, uint32_t n)
{
    for (uint32_t i = 0; n && i < N_LAGS && f->in_sequence >= lags[i]; i++) {
        const uint64_t at = (f->n_seen - lags[i]) % HISTORY;
        const uint32_t *past = f->past + at * f->shape.top_k;
        const uint32_t common = common_experts(expert, n, past, f->n_past[at]);
        f->lag_sum[i] += (double)common / n;
        f->lag_n[i]++;
        f->any_again += i == 0 && common > 0;
        f->first_again += i == 0 && f->n_past[at] && past[0] == expert[0];
    }
}

static void start_window(struct figures *f)
{
    memset(f->window, 0, f->shape.n_experts * sizeof *f->window);
    f->in_window = f->window_max = f->window_pairs = 0;
}

static void add_to_window(struct figures *f, const uint32_t *expert, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t count = ++f->window[expert[i]];
        f->window_max = count > f->window_max ? count : f->window_max;
    }
    f->window_pairs += n;
    if (++f->in_window < WINDOW)
        return;
    if (f->window_pairs) {
        f->window_sum += (double)f->window_max * f->shape.n_experts / f->window_pairs;
        f->n_windows++;
    }
    start_window(f);
}

/* Window m takes every n_mixed-th of the tokens that are taken. */
static void add_to_mixed(struct figures *f, const uint32_t *expert, uint32_t n)
{
    const uint64_t taken = f->n_seen / f->mixed_apart;
    if (!f->n_mixed || f->n_seen % f->mixed_apart || taken >= (uint64_t)f->n_mixed * WINDOW)
        return;
    uint32_t *count = f->mixed + taken % f->n_mixed * f->shape.n_experts;
    for (uint32_t i = 0; i < n; i++)
        count[expert[i]]++;
}

static void add_token(struct figures *f, const struct decided *d, uint32_t t, const uint32_t *expert, uint32_t n)
{
    const uint64_t experts = f->shape.n_experts;
    const bool in_domain = d->domain && d->domain[t] < f->shape.n_domains;
    const bool of_type = d->token_id && d->token_id[t] < f->shape.vocabulary;
    if (d->sequence && d->sequence[t] != f->sequence) {
        f->in_sequence = 0;
        start_window(f);
    }
    f->sequence = d->sequence ? d->sequence[t] : 0;
    for (uint32_t i = 0; i < n; i++) {
        f->load[expert[i]]++;
        if (in_domain)
            f->domain[d->domain[t] * experts + expert[i]]++;
        if (of_type)
            f->type[d->token_id[t] * experts + expert[i]]++;
    }
    add_lags(f, expert, n);
    add_to_window(f, expert, n);
    add_to_mixed(f, expert, n);
    f->n_past[f->n_seen % HISTORY] = n;
    memcpy(f->past + f->n_seen % HISTORY * f->shape.top_k, expert, n * sizeof *expert);
    f->n_seen++;
    f->in_sequence++;
}

void figures_add(struct figures *f, const struct decided *d)
{
    for (uint32_t t = 0; t < d->n_tokens; t++)
        add_token(f, d, t, d->expert + d->first[t], d->first[t + 1] - d->first[t]);
}

/* ---- taking stock ---- */

static double largest_over_mean(const double *load, uint32_t n)
{
    return moesim_max_vio(load, n) + 1;
}

static double log_sigma(const double *load, uint32_t n)
{
    double sum = 0, squares = 0, m = 0;
    for (uint32_t e = 0; e < n; e++)
        if (load[e] > 0) {
            const double x = log(load[e]);
            sum += x;
            squares += x * x;
            m++;
        }
    return m > 0 ? sqrt(fmax(squares / m - sum * sum / (m * m), 0)) : NAN;
}

static void take_domains(const double *loads, uint32_t n_loads, uint32_t n, double *value)
{
    double cv = 0, max = 0;
    for (uint32_t d = 0; d < n_loads; d++) {
        cv += moesim_load_cv(loads + (size_t)d * n, n) / n_loads;
        max += largest_over_mean(loads + (size_t)d * n, n) / n_loads;
    }
    value[CALIBRATED_DOMAIN_CV] = cv;
    value[CALIBRATED_DOMAIN_MAX] = max;
    if (n_loads < 2)
        return;
    value[CALIBRATED_DIVERGENCE] = trace_mean_divergence(loads, n_loads, n);
    value[CALIBRATED_RANKS] = n <= RANKS_MOST ? trace_mean_rank_correlation(loads, n_loads, n) : NAN;
}

/* Figures of the load [n] and of the domains' [n_loads][n], of which empty ones are taken out; scratch [n]. */
static void take_loads(const double *load, double *loads, uint32_t n_loads, uint32_t n, double *scratch, double *value)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < CALIBRATED_N_FIGURES; i++)
        value[i] = NAN;
    value[CALIBRATED_LOAD_CV] = moesim_load_cv(load, n);
    value[CALIBRATED_MAX_MEAN] = largest_over_mean(load, n);
    value[CALIBRATED_GINI] = moesim_load_gini(load, n, scratch);
    value[CALIBRATED_LOG_SIGMA] = log_sigma(load, n);
    for (uint32_t d = 0; d < n_loads; d++) {
        double sum = 0;
        for (uint32_t e = 0; e < n; e++)
            sum += loads[(size_t)kept * n + e] = loads[(size_t)d * n + e];
        kept += sum > 0;
    }
    if (kept)
        take_domains(loads, kept, n, value);
}

bool figures_of_loads(const double *loads, uint32_t n_loads, uint32_t n_experts, double *value)
{
    const size_t n = n_experts;
    const uint32_t n_domains = n_loads >= 2 && n_loads <= MOST_DOMAINS ? n_loads : 0;
    double *all = zeros((n_domains + 2) * n, sizeof *all);
    if (!all)
        return false;
    for (size_t i = 0; i < n_loads * n; i++)
        all[i % n] += loads[i];
    memcpy(all + 2 * n, loads, n_domains * n * sizeof *loads);
    take_loads(all, all + 2 * n, n_domains, n_experts, all + n, value);
    free(all);
    return true;
}

/* Bits of entropy of counts [n] that sum to `sum`. */
static double entropy(const double *count, uint32_t n, double sum)
{
    double bits = 0;
    for (uint32_t e = 0; e < n; e++)
        if (count[e] > 0)
            bits -= count[e] / sum * log2(count[e] / sum);
    return bits;
}

/* H(expert) - H(expert | type), both over the types that occur often. `all` and `one` have room for n_experts. */
static double token_bits(const struct figures *f, double *all, double *one)
{
    const uint32_t n = f->shape.n_experts;
    double total = 0, within = 0;
    memset(all, 0, n * sizeof *all);
    for (uint32_t w = 0; w < f->shape.vocabulary; w++) {
        double sum = 0;
        for (uint32_t e = 0; e < n; e++)
            sum += one[e] = f->type[(size_t)w * n + e];
        if (sum < (double)OFTEN * f->shape.top_k)
            continue;
        for (uint32_t e = 0; e < n; e++)
            all[e] += one[e];
        within += sum * entropy(one, n, sum);
        total += sum;
    }
    return total > 0 ? entropy(all, n, total) - within / total : NAN;
}

static double mixed_max(const struct figures *f)
{
    double sum = 0;
    for (uint32_t m = 0; m < f->n_mixed; m++) {
        double max = 0, pairs = 0;
        for (uint32_t e = 0; e < f->shape.n_experts; e++) {
            const double count = f->mixed[(size_t)m * f->shape.n_experts + e];
            max = fmax(max, count);
            pairs += count;
        }
        sum += pairs > 0 ? max * f->shape.n_experts / pairs : 0;
    }
    return f->n_mixed ? sum / f->n_mixed : NAN;
}

static double share(double part, uint64_t of)
{
    return of ? part / (double)of : NAN;
}

void figures_take(const struct figures *f, double *value)
{
    const uint32_t n = f->shape.n_experts;
    double *load = zeros((uint64_t)n * (f->shape.n_domains + 2), sizeof *load);
    for (uint32_t i = 0; i < CALIBRATED_N_FIGURES; i++)
        value[i] = NAN;
    if (!load)
        return;
    double *loads = load + 2 * (size_t)n;
    for (uint32_t e = 0; e < n; e++)
        load[e] = (double)f->load[e];
    for (size_t i = 0; i < (size_t)f->shape.n_domains * n; i++)
        loads[i] = (double)f->domain[i];
    take_loads(load, loads, f->shape.n_domains, n, load + n, value);
    for (uint32_t i = 0; i < N_LAGS; i++)
        value[CALIBRATED_LAG1 + i] = share(f->lag_sum[i], f->lag_n[i]);
    value[CALIBRATED_FIRST_AGAIN] = share((double)f->first_again, f->lag_n[0]);
    value[CALIBRATED_ANY_AGAIN] = share((double)f->any_again, f->lag_n[0]);
    value[CALIBRATED_WINDOW_MAX] = share(f->window_sum, f->n_windows);
    value[CALIBRATED_MIXED_MAX] = mixed_max(f);
    value[CALIBRATED_TOKEN_BITS] = f->shape.vocabulary ? token_bits(f, load, load + n) : NAN;
    free(load);
}
