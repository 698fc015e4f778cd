#include "bench/machine.h"

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct machine_time machine_now(void)
{
    return (struct machine_time){seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
}

struct machine_time machine_since(struct machine_time start)
{
    const struct machine_time now = machine_now();
    return (struct machine_time){now.wall_s - start.wall_s, (now.cpu_s - start.cpu_s) / omp_get_max_threads()};
}

/* ---- who else is there ---- */

/* Jiffies of all processors: in all, and not idle. */
static int read_jiffies(double *all, double *busy)
{
    double v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    const int n =
        f ? fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) : 0;
    if (f)
        fclose(f);
    *all = *busy = 0;
    for (int i = 0; i < 8; i++) {
        *all += v[i];
        *busy += i == 3 || i == 4 ? 0 : v[i];
    }
    return n == 8;
}

int machine_wait_quiet(double limit_s)
{
    const struct timespec pause = {0, 120000000};
    double all, busy, then_all, then_busy;
    for (double start = seconds_of(CLOCK_MONOTONIC); read_jiffies(&then_all, &then_busy);) {
        nanosleep(&pause, NULL);
        read_jiffies(&all, &busy);
        if (busy - then_busy < 0.06 * (all - then_all) + 1)
            return 1;
        if (seconds_of(CLOCK_MONOTONIC) - start > limit_s)
            return 0;
    }
    return 0;
}

/* ---- the peak ---- */

#define CHAINS 10 /* hide the latency of 4 at 2 operations a cycle */

#ifdef __x86_64__
/* Each chain begins elsewhere: the optimizer would merge equal ones. */
__attribute__((target("avx2,fma"))) static float fused_chains(uint32_t n)
{
    __m256 sum[CHAINS], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm256_set1_ps(1 + 0.01f * (float)i);
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < CHAINS; j++)
            sum[j] = _mm256_fmadd_ps(sum[j], x, y);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm256_add_ps(sum[0], sum[i]);
    return _mm256_cvtss_f32(sum[0]);
}
#endif

/* The same by multiplications and additions, eight lanes a chain. */
static float plain_chains(uint32_t n)
{
    float sum[CHAINS][8], total = 0;
    for (int i = 0; i < 8 * CHAINS; i++)
        sum[i / 8][i % 8] = 1 + 0.01f * (float)i;
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < CHAINS; j++)
            for (int l = 0; l < 8; l++)
                sum[j][l] = sum[j][l] * 0.999f + 1e-3f;
    for (int i = 0; i < 8 * CHAINS; i++)
        total += sum[i / 8][i % 8];
    return total;
}

static float chains(uint32_t n)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return fused_chains(n);
#endif
    return plain_chains(n);
}

struct machine_rate machine_peak(double seconds)
{
    static volatile float sink;
    const uint32_t part = 20000;
    double flop = 0, by_cpu = 0;
    const double start = seconds_of(CLOCK_MONOTONIC);
#pragma omp parallel reduction(+ : flop, by_cpu)
    {
        const double own = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        float sum = 0;
        do {
            sum += chains(part);
            flop += (double)part * CHAINS * 8 * 2;
        } while (seconds_of(CLOCK_MONOTONIC) - start < seconds);
        by_cpu = flop / (seconds_of(CLOCK_THREAD_CPUTIME_ID) - own);
        sink = sum;
    }
    (void)sink;
    return (struct machine_rate){flop / (seconds_of(CLOCK_MONOTONIC) - start), by_cpu};
}

/* ---- bandwidth ---- */

struct machine_rate machine_read(const void *memory, size_t n)
{
    static volatile uint64_t sink;
    const uint64_t *words = memory;
    const size_t chunk = (size_t)1 << 17, count = n / sizeof *words / chunk;
    uint64_t total = 0;
    const struct machine_time start = machine_now();
#pragma omp parallel for schedule(static) reduction(^ : total)
    for (size_t c = 0; c < count; c++) {
        uint64_t lane[16] = {0};
        for (size_t i = c * chunk; i < (c + 1) * chunk; i += 16)
            for (int l = 0; l < 16; l++)
                lane[l] ^= words[i + l];
        for (int l = 0; l < 16; l++)
            total ^= lane[l];
    }
    const struct machine_time span = machine_since(start);
    const double bytes = (double)(count * chunk * sizeof *words);
    sink = total;
    (void)sink;
    return (struct machine_rate){bytes / span.wall_s, bytes / span.cpu_s};
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double machine_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_size);
    return n == 0 ? NAN : n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}
