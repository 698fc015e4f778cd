/*
 * The loop: ours, its limit and its rivals in turns, as often as asked for.
 */
#include "bench/bench.h"

#include <math.h>
#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/machine.h"
#include "bench/peer.h"

#define SAMPLE_S 0.02 /* shorter work is done several times in a repeat */
#define BURST_S 0.01

void bench_stop(const char *format, ...)
{
    va_list arguments;
    fflush(stdout);
    fputs("moesim-bench: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

bool bench_wants(struct bench *bench, const char *part, const char *name)
{
    const char *only = bench->options.only;
    if (only && strncmp(name, only, strlen(only)) != 0)
        return false;
    if (bench->options.list)
        printf("%-10s %s\n", part, name);
    return !bench->options.list;
}

struct bench_runner bench_ours(void (*run)(void *), void *state)
{
    return (struct bench_runner){.name = "moesim", .run = run, .state = state};
}

struct bench_rival *bench_add(struct bench_figure *figure, const char *name, void (*run)(void *), void *state,
                              enum bench_sense sense, struct bench_bound bound)
{
    if (figure->n_rivals == BENCH_MOST_RIVALS)
        bench_stop("%s has too many rivals", figure->name);
    struct bench_rival *rival = &figure->rival[figure->n_rivals++];
    *rival = (struct bench_rival){.runner = {.run = run, .state = state}, .sense = sense, .bound = bound};
    snprintf(rival->runner.name, sizeof rival->runner.name, "%s", name);
    return rival;
}

/* Seconds of one of `times` runs. */
static struct machine_time time_runner(const struct bench_runner *runner, uint32_t times)
{
    struct machine_time span;
    if (runner->peer)
        span = peer_run(runner->peer, runner->order, times);
    else {
        const struct machine_time start = machine_now();
        for (uint32_t i = 0; i < times; i++)
            runner->run(runner->state);
        span = machine_since(start);
    }
    const double threads = runner->single ? 1 : omp_get_max_threads();
    return (struct machine_time){span.clock_s / times, span.cpu_s / threads / times};
}

static uint32_t times_for(const struct bench_runner *runner)
{
    time_runner(runner, 1); /* touches memory */
    const double once = time_runner(runner, 1).clock_s;
    return once > 0 && once < SAMPLE_S ? (uint32_t)fmin(ceil(SAMPLE_S / once), 100000) : 1;
}

static struct machine_rate limit_now(const struct bench_figure *figure)
{
    if (figure->limit == BENCH_PEAK)
        return machine_peak(BURST_S);
    const struct machine_time start = machine_now();
    const double bytes = machine_read(figure->memory, figure->memory_size);
    const struct machine_time span = machine_since(start);
    return (struct machine_rate){bytes / span.clock_s, bytes / span.cpu_s * omp_get_max_threads()};
}

/* How busy others kept the processors since `load`, beyond this process and its peers. */
static bool others_were_quiet(const struct machine_load *load, double own_s)
{
    struct machine_load now;
    if (!machine_load(&now))
        return false;
    return now.busy_s - load->busy_s - own_s < 0.06 * (now.all_s - load->all_s) + 0.02;
}

static double cpu_of_all(const struct bench_figure *figure)
{
    double seconds = machine_now().cpu_s;
    for (uint32_t r = 0; r < figure->n_rivals; r++)
        if (figure->rival[r].runner.peer)
            seconds += peer_cpu(figure->rival[r].runner.peer);
    return seconds;
}

static void repeat(const struct bench_figure *figure, const uint32_t *times, struct bench_result *result, uint32_t i)
{
    struct machine_load load = {0};
    machine_load(&load);
    const double own = cpu_of_all(figure);
    machine_peak(BURST_S); /* wakes the cores up */
    struct machine_rate before = {NAN, NAN}, after = {NAN, NAN};
    if (figure->limit != BENCH_NO_LIMIT)
        before = limit_now(figure);
    const struct machine_time ours = time_runner(&figure->ours, times[0]);
    if (figure->limit != BENCH_NO_LIMIT)
        after = limit_now(figure);
    result->ours.clock_s[i] = ours.clock_s;
    result->ours.cpu_s[i] = ours.cpu_s;
    result->limit_clock[i] = (before.by_clock + after.by_clock) / 2;
    result->limit_cpu[i] = (before.by_cpu + after.by_cpu) / 2;
    for (uint32_t r = 0; r < figure->n_rivals; r++) {
        const struct machine_time theirs = time_runner(&figure->rival[r].runner, times[1 + r]);
        result->rival[r].clock_s[i] = theirs.clock_s;
        result->rival[r].cpu_s[i] = theirs.cpu_s;
    }
    result->quiet[i] = others_were_quiet(&load, cpu_of_all(figure) - own);
    result->n_quiet += result->quiet[i];
}

static void repeat_all(const struct bench *bench, const struct bench_figure *figure, struct bench_result *result)
{
    uint32_t times[1 + BENCH_MOST_RIVALS] = {times_for(&figure->ours)}, n = bench->options.repeats;
    for (uint32_t r = 0; r < figure->n_rivals; r++)
        times[1 + r] = times_for(&figure->rival[r].runner);
    if (figure->most_repeats && figure->most_repeats < n)
        n = figure->most_repeats;
    for (; result->n < n; result->n++) {
        machine_wait_quiet(bench->options.wait_s);
        repeat(figure, times, result, result->n);
    }
}

const struct bench_result *bench_measure(struct bench *bench, const struct bench_figure *figure)
{
    const uint32_t n = bench->n_results;
    if ((n & (n - 1)) == 0) /* full at 0, 1, 2, 4, ... */
        bench->result = realloc(bench->result, (n ? 2 * n : 1) * sizeof(struct bench_result *));
    struct bench_result *result = bench->result ? calloc(1, sizeof *result) : NULL;
    if (!result)
        bench_stop("memory is exhausted");
    result->figure = *figure;
    if (figure->ours.run)
        repeat_all(bench, figure, result);
    bench->result[bench->n_results++] = result;
    if (!figure->quiet_table)
        bench_print_result(bench, result);
    return result;
}

/* Least squares on the logarithms. */
static double slope(const struct bench_curve *curve)
{
    double x = 0, y = 0, xx = 0, xy = 0;
    for (uint32_t i = 0; i < curve->n; i++) {
        const double u = log(curve->x[i]), v = log(curve->seconds[i]);
        x += u;
        y += v;
        xx += u * u;
        xy += u * v;
    }
    return (curve->n * xy - x * y) / (curve->n * xx - x * x);
}

void bench_fit(struct bench *bench, const char *axis, double expected, struct bench_bound bound)
{
    struct bench_curve curve = {.axis = axis, .expected = expected, .bound = bound};
    for (uint32_t i = 0; i < bench->n_results && curve.n < sizeof curve.x / sizeof *curve.x; i++) {
        const struct bench_result *r = bench->result[i];
        if (!r->figure.curve || strcmp(r->figure.curve, axis) != 0)
            continue;
        curve.x[curve.n] = r->figure.x;
        curve.seconds[curve.n++] = bench_median(r->ours.cpu_s, r->n);
    }
    if (curve.n < 2 || bench->n_curves == sizeof bench->curve / sizeof *bench->curve)
        return;
    curve.exponent = slope(&curve);
    bench->curve[bench->n_curves++] = curve;
    bench_print_curve(bench, &curve);
}
