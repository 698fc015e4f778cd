/*
 * How unlike loads are, by pairs.
 */
#include <math.h>
#include <stdlib.h>

#include "workloads/trace/measure.h"

/* Jensen-Shannon divergence in bits of two loads; NaN where one is empty. */
static double divergence(const double *a, const double *b, uint32_t n)
{
    double sum_a = 0, sum_b = 0, bits = 0;
    for (uint32_t e = 0; e < n; e++) {
        sum_a += a[e];
        sum_b += b[e];
    }
    if (!(sum_a > 0) || !(sum_b > 0))
        return NAN;
    for (uint32_t e = 0; e < n; e++) {
        const double p = a[e] / sum_a, q = b[e] / sum_b, middle = (p + q) / 2;
        bits += (p > 0 ? p * log2(p / middle) : 0) + (q > 0 ? q * log2(q / middle) : 0);
    }
    return bits / 2;
}

/* Pearson's correlation; NaN where one does not vary. */
static double correlation(const double *a, const double *b, uint32_t n)
{
    double mean_a = 0, mean_b = 0, aa = 0, bb = 0, ab = 0;
    for (uint32_t e = 0; e < n; e++) {
        mean_a += a[e] / n;
        mean_b += b[e] / n;
    }
    for (uint32_t e = 0; e < n; e++) {
        aa += (a[e] - mean_a) * (a[e] - mean_a);
        bb += (b[e] - mean_b) * (b[e] - mean_b);
        ab += (a[e] - mean_a) * (b[e] - mean_b);
    }
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : NAN;
}

static double mean_over_pairs(const double *loads, uint32_t n_loads, uint32_t n,
                              double (*of)(const double *a, const double *b, uint32_t n))
{
    double sum = 0;
    uint64_t pairs = 0;
    for (uint32_t i = 0; i < n_loads; i++)
        for (uint32_t j = 0; j < i; j++) {
            const double x = of(loads + (size_t)i * n, loads + (size_t)j * n, n);
            if (isnan(x))
                continue;
            sum += x;
            pairs++;
        }
    return pairs ? sum / (double)pairs : NAN;
}

double trace_mean_divergence(const double *loads, uint32_t n_loads, uint32_t n)
{
    return mean_over_pairs(loads, n_loads, n, divergence);
}

static int by_load(const void *a, const void *b, void *load)
{
    const double *x = load;
    const uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    return x[i] != x[j] ? (x[i] > x[j]) - (x[i] < x[j]) : (i > j) - (i < j);
}

/* Ranks of a load; equal ones share the mean of theirs. `order` has room for n. */
static void make_ranks(const double *load, uint32_t n, uint32_t *order, double *rank)
{
    for (uint32_t e = 0; e < n; e++)
        order[e] = e;
    qsort_r(order, n, sizeof *order, by_load, (void *)(uintptr_t)load);
    for (uint32_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && load[order[end]] == load[order[i]]; end++)
            ;
        for (uint32_t j = i; j < end; j++)
            rank[order[j]] = (i + end - 1) / 2.0;
    }
}

double trace_mean_rank_correlation(const double *loads, uint32_t n_loads, uint32_t n)
{
    double *rank = malloc((size_t)n_loads * n * sizeof *rank), mean = NAN;
    uint32_t *order = malloc(n * sizeof *order);
    for (uint32_t i = 0; rank && order && i < n_loads; i++)
        make_ranks(loads + (size_t)i * n, n, order, rank + (size_t)i * n);
    if (rank && order)
        mean = mean_over_pairs(rank, n_loads, n, correlation);
    free(rank);
    free(order);
    return mean;
}
