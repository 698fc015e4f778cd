/*
 * Ratios over the repeats of a figure, and whether they are what is asked for.
 */
#include "bench/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between two values in proportion; those that are none do not count. */
double bench_quantile(const double *values, uint32_t n, double share)
{
    double sorted[BENCH_MOST_REPEATS];
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (isfinite(values[i]))
            sorted[m++] = values[i];
    if (!m)
        return NAN;
    qsort(sorted, m, sizeof *sorted, by_size);
    const double at = share * (m - 1);
    const uint32_t low = (uint32_t)at;
    return low + 1 < m ? sorted[low] + (at - low) * (sorted[low + 1] - sorted[low]) : sorted[low];
}

static struct bench_ratio summarise(const struct bench_result *r, const double *clock, const double *cpu)
{
    double counts[BENCH_MOST_REPEATS];
    for (uint32_t i = 0; i < r->n; i++)
        counts[i] = r->quiet[i] ? clock[i] : cpu[i];
    return (struct bench_ratio){.by_clock = bench_median(clock, r->n),
                                .by_cpu = bench_median(cpu, r->n),
                                .counts = bench_median(counts, r->n),
                                .low = bench_quantile(counts, r->n, 0.25),
                                .high = bench_quantile(counts, r->n, 0.75)};
}

struct bench_ratio bench_limit_ratio(const struct bench_result *r)
{
    double clock[BENCH_MOST_REPEATS], cpu[BENCH_MOST_REPEATS];
    for (uint32_t i = 0; i < r->n; i++) {
        clock[i] = r->figure.limit_work / r->ours.clock_s[i] / r->limit_clock[i];
        cpu[i] = r->figure.limit_work / r->ours.cpu_s[i] / r->limit_cpu[i];
    }
    return summarise(r, clock, cpu);
}

struct bench_ratio bench_rival_ratio(const struct bench_result *r, uint32_t rival)
{
    const struct bench_times *theirs = &r->rival[rival];
    const bool cost = r->figure.rival[rival].sense == BENCH_COST;
    double clock[BENCH_MOST_REPEATS], cpu[BENCH_MOST_REPEATS];
    for (uint32_t i = 0; i < r->n; i++) {
        clock[i] = theirs->clock_s[i] / r->ours.clock_s[i];
        cpu[i] = theirs->cpu_s[i] / r->ours.cpu_s[i];
        if (cost) {
            clock[i] = 1 / clock[i];
            cpu[i] = 1 / cpu[i];
        }
    }
    return summarise(r, clock, cpu);
}

double bench_seconds(const struct bench_result *r, const struct bench_times *times)
{
    double counts[BENCH_MOST_REPEATS];
    for (uint32_t i = 0; i < r->n; i++)
        counts[i] = r->quiet[i] ? times->clock_s[i] : times->cpu_s[i];
    return bench_median(counts, r->n);
}

double bench_rate(const struct bench_result *r, const struct bench_times *times)
{
    return r->figure.work / bench_seconds(r, times);
}

double bench_shown(const struct bench_result *r, const struct bench_times *times)
{
    if (!r->figure.ours.run)
        return r->figure.value;
    return r->figure.as_time > 0 ? r->figure.as_time / bench_rate(r, times) : bench_rate(r, times);
}

enum bench_verdict bench_judge(struct bench_bound bound, double value)
{
    if (!(bound.value > 0) || isnan(value))
        return BENCH_NOT_ASKED;
    return (bound.at_most ? value <= bound.value : value >= bound.value) ? BENCH_HOLDS : BENCH_MISSES;
}

struct bench_bound bench_bound_beside(struct bench_bound bound, double rate)
{
    if (bound.slow_rate > 0 && rate < bound.slow_rate)
        bound.value = bound.slow_value;
    return bound;
}
