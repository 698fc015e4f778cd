#include "bench/machine.h"

#include <omp.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef __x86_64__
#include <immintrin.h>
#endif

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of the children that have ended. */
static double children_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

struct machine_time machine_now(void)
{
    return (struct machine_time){seconds_of(CLOCK_MONOTONIC), seconds_of(CLOCK_PROCESS_CPUTIME_ID) + children_s()};
}

struct machine_time machine_since(struct machine_time start)
{
    const struct machine_time now = machine_now();
    return (struct machine_time){now.clock_s - start.clock_s, now.cpu_s - start.cpu_s};
}

/* ---- who else is there ---- */

bool machine_load(struct machine_load *load)
{
    double v[8] = {0};
    FILE *f = fopen("/proc/stat", "r");
    const int n =
        f ? fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7) : 0;
    if (f)
        fclose(f);
    const double tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
    load->all_s = load->busy_s = 0;
    for (int i = 0; i < 8; i++) {
        load->all_s += tick * v[i];
        load->busy_s += i == 3 || i == 4 ? 0 : tick * v[i]; /* idle, and waiting for a disk */
    }
    return n == 8;
}

bool machine_wait_quiet(double limit_s)
{
    const struct timespec pause = {0, 120000000};
    struct machine_load then, now;
    for (double start = seconds_of(CLOCK_MONOTONIC); machine_load(&then);) {
        nanosleep(&pause, NULL);
        machine_load(&now);
        if (now.busy_s - then.busy_s < 0.06 * (now.all_s - then.all_s) + 0.01)
            return true;
        if (seconds_of(CLOCK_MONOTONIC) - start > limit_s)
            return false;
    }
    return false;
}

/* ---- the peak ---- */

enum { CHAINS = 10, STEPS = 20000 }; /* chains hide the latency of 4 at 2 operations a cycle */

#ifdef __x86_64__
/* Each chain begins elsewhere, or the optimizer would merge them. */
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

__attribute__((target("avx512f"))) static float wide_chains(uint32_t n)
{
    __m512 sum[CHAINS], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm512_set1_ps(1 + 0.01f * (float)i);
    for (uint32_t i = 0; i < n; i++)
        for (int j = 0; j < CHAINS; j++)
            sum[j] = _mm512_fmadd_ps(sum[j], x, y);
    for (int i = 1; i < CHAINS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    return _mm512_reduce_add_ps(sum[0]);
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

struct chains {
    float (*run)(uint32_t n);
    uint32_t lanes;
};

/* The widest that this processor has. */
static struct chains widest(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f"))
        return (struct chains){wide_chains, 16};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (struct chains){fused_chains, 8};
#endif
    return (struct chains){plain_chains, 8};
}

/* Of one part on one thread. */
static double burn_flop(struct chains chains)
{
    return (double)STEPS * CHAINS * chains.lanes * 2;
}

double machine_burn(uint32_t n)
{
    static volatile float sink;
    static volatile uint32_t steps = STEPS; /* or one call would stand for all */
    const struct chains chains = widest();
    float sum = 0;
#pragma omp parallel reduction(+ : sum)
    for (uint32_t i = 0; i < n; i++)
        sum += chains.run(steps);
    sink = sum;
    (void)sink;
    return burn_flop(chains) * n * omp_get_max_threads();
}

struct machine_rate machine_peak(double seconds)
{
    static volatile float sink;
    const struct chains chains = widest();
    double flop = 0, by_cpu = 0;
    const double start = seconds_of(CLOCK_MONOTONIC);
#pragma omp parallel reduction(+ : flop, by_cpu)
    {
        const double own = seconds_of(CLOCK_THREAD_CPUTIME_ID);
        float sum = 0;
        do {
            sum += chains.run(STEPS);
            flop += burn_flop(chains);
        } while (seconds_of(CLOCK_MONOTONIC) - start < seconds);
        by_cpu = flop / (seconds_of(CLOCK_THREAD_CPUTIME_ID) - own);
        sink = sum;
    }
    (void)sink;
    return (struct machine_rate){flop / (seconds_of(CLOCK_MONOTONIC) - start), by_cpu};
}

/* ---- bandwidth ---- */

double machine_read(const void *memory, size_t n)
{
    static volatile uint64_t sink;
    const uint64_t *words = memory;
    const size_t chunk = (size_t)1 << 17, count = n / sizeof *words / chunk;
    uint64_t total = 0;
#pragma omp parallel for schedule(static) reduction(^ : total)
    for (size_t c = 0; c < count; c++) {
        uint64_t lane[16] = {0};
        for (size_t i = c * chunk; i < (c + 1) * chunk; i += 16)
            for (int l = 0; l < 16; l++)
                lane[l] ^= words[i + l];
        for (int l = 0; l < 16; l++)
            total ^= lane[l];
    }
    sink = total;
    (void)sink;
    return (double)(count * chunk * sizeof *words);
}

void machine_triad(float *a, const float *b, const float *c, size_t n)
{
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] + 3.0f * c[i];
}
