/* SPDX-License-Identifier: MIT
 *
 * Load metrics of expert counts.
 */
#include <moesim/metric.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static double total(const double *c, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += c[i];
    return sum;
}

double moesim_load_cv(const double *c, uint32_t n)
{
    const double sum = total(c, n);
    if (!(sum > 0))
        return NAN;
    const double mean = sum / n;
    double squares = 0;
    for (uint32_t i = 0; i < n; i++)
        squares += (c[i] - mean) * (c[i] - mean);
    return sqrt(squares / n) / mean;
}

double moesim_max_vio(const double *c, uint32_t n)
{
    const double sum = total(c, n);
    if (!(sum > 0))
        return NAN;
    double largest = c[0];
    for (uint32_t i = 1; i < n; i++)
        largest = c[i] > largest ? c[i] : largest;
    return (largest - sum / n) / (sum / n);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double moesim_load_gini(const double *c, uint32_t n, double *scratch)
{
    const double sum = total(c, n);
    if (!(sum > 0))
        return NAN;
    memcpy(scratch, c, n * sizeof *c);
    qsort(scratch, n, sizeof *scratch, ascending);
    double ranked = 0;
    for (uint32_t i = 0; i < n; i++)
        ranked += (i + 1.0) * scratch[i];
    return (2 * ranked - (n + 1.0) * sum) / (n * sum);
}

double moesim_load_entropy(const double *c, uint32_t n)
{
    const double sum = total(c, n);
    if (!(sum > 0))
        return NAN;
    if (n == 1)
        return 1;
    double entropy = 0;
    for (uint32_t i = 0; i < n; i++)
        if (c[i] > 0)
            entropy -= c[i] / sum * log(c[i] / sum);
    return entropy / log(n);
}

double moesim_load_churn(const double *now, const double *before, uint32_t n)
{
    const double sum = total(now, n), sum_before = total(before, n);
    if (!(sum > 0) || !(sum_before > 0))
        return NAN;
    double moved = 0;
    for (uint32_t i = 0; i < n; i++)
        moved += fabs(now[i] / sum - before[i] / sum_before);
    return moved / 2;
}
