/*
 * The bench: figures, each something of ours that is timed in turns with what it is measured against (a limit of the
 * machine, another program, another way), and one loop that repeats them all.
 *
 * Two times of everything are kept: by the clock, and by processor time of the threads, which other jobs on the machine
 * stretch little. The ratio that counts for a repeat is that by the clock while others left the processors idle, and
 * that by processor time otherwise.
 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

enum { BENCH_MOST_REPEATS = 64, BENCH_MOST_RIVALS = 8, BENCH_NAME = 80, BENCH_RIVAL_NAME = 40 };

struct peer;
struct ggml;

/* Something that does the work of a figure: a function of this process, or a process that is told when. */
struct bench_runner {
    char name[BENCH_RIVAL_NAME];
    void (*run)(void *state);
    void *state;
    struct peer *peer; /* then `run` is NULL */
    const char *order; /* the word it is told */
    bool single;       /* on one thread: its processor time is its time */
};

/* What the project asks of a ratio or a value; 0 = nothing. */
struct bench_bound {
    double value;
    bool at_most;                 /* else at least */
    double slow_rate, slow_value; /* beside a rival slower than slow_rate (units of work a second): this bound */
};

/* How a ratio is taken. */
enum bench_sense {
    BENCH_FASTER, /* their time by ours */
    BENCH_COST,   /* our time by theirs */
    BENCH_SHARE,  /* their time by ours, where they do a part of our work */
};

struct bench_rival {
    struct bench_runner runner;
    enum bench_sense sense;
    struct bench_bound bound;
};

enum bench_limit { BENCH_NO_LIMIT, BENCH_PEAK, BENCH_READ };

struct bench_figure {
    const char *part;
    char name[BENCH_NAME];
    struct bench_runner ours;
    double work;      /* of one run, in units */
    const char *unit; /* shown are units a second, e.g. "Mtoken/s"; or with `as_time` time a unit of work: "ms" */
    double as_time;   /* 0, or the units of time in a second */
    double value;     /* without `ours`: a figure that is not timed */
    struct bench_bound bound; /* of what is shown */
    enum bench_limit limit;
    double limit_work;  /* flop or bytes of one run */
    const void *memory; /* [memory_size] what is read to find the limit */
    size_t memory_size;
    struct bench_bound limit_bound;
    struct bench_rival rival[BENCH_MOST_RIVALS];
    uint32_t n_rivals;
    uint32_t most_repeats; /* 0 = as many as asked for */
    bool quiet_table;      /* one of a curve: not in the table */
    const char *curve;     /* NULL, or the axis that `x` is a place on */
    double x;
};

/* Seconds of one run in each repeat; processor time is that of the mean thread. */
struct bench_times {
    double clock_s[BENCH_MOST_REPEATS], cpu_s[BENCH_MOST_REPEATS];
};

struct bench_result {
    struct bench_figure figure; /* its runners' states are gone */
    uint32_t n, n_quiet;
    bool quiet[BENCH_MOST_REPEATS];
    struct bench_times ours, rival[BENCH_MOST_RIVALS];
    double limit_clock[BENCH_MOST_REPEATS], limit_cpu[BENCH_MOST_REPEATS]; /* rates a second beside ours */
};

/* A growth curve: how the time of its points grows with x. */
struct bench_curve {
    const char *axis;
    uint32_t n;
    double x[16], seconds[16]; /* medians by processor time */
    double exponent, expected;
    struct bench_bound bound;
};

struct bench_options {
    const char *const *part;
    uint32_t n_parts;
    const char *only, *products, *ggml, *label, *program;
    uint32_t repeats, threads;
    double wait_s;
    bool quick, list;
};

struct bench {
    struct bench_options options;
    struct ggml *ggml;            /* NULL: none was named */
    struct bench_result **result; /* [n_results] in the order they were taken */
    uint32_t n_results;
    struct bench_curve curve[8];
    uint32_t n_curves;
    const char *heading; /* of the part that the table is in */
};

struct bench_part {
    const char *name, *summary;
    void (*measure)(struct bench *bench);
};
extern const struct bench_part bench_parts[]; /* ended by name NULL */

/* Whether a figure is asked for; with --list it is named and not. */
bool bench_wants(struct bench *bench, const char *part, const char *name);

/* Measures a figure, keeps the result and prints its rows. Returns it; it lives as long as the bench. */
const struct bench_result *bench_measure(struct bench *bench, const struct bench_figure *figure);

/* Fits an exponent to the results of an axis, keeps and prints it. */
void bench_fit(struct bench *bench, const char *axis, double expected, struct bench_bound bound);

/* Adds a rival to a figure and returns it. */
struct bench_rival *bench_add(struct bench_figure *figure, const char *name, void (*run)(void *), void *state,
                              enum bench_sense sense, struct bench_bound bound);

/* The runner of a figure's own work. */
struct bench_runner bench_ours(void (*run)(void *), void *state);

#define BENCH_AT_LEAST(value_) ((struct bench_bound){.value = (value_)})
#define BENCH_AT_MOST(value_) ((struct bench_bound){.value = (value_), .at_most = true})
#define BENCH_UNBOUND ((struct bench_bound){.value = 0})

/* ---- what the results say ---- */

/* A ratio over the repeats; NaN without any. */
struct bench_ratio {
    double by_clock, by_cpu, counts; /* medians; `counts` of those that count */
    double low, high;                /* quartiles of those that count */
};
struct bench_ratio bench_limit_ratio(const struct bench_result *result);
struct bench_ratio bench_rival_ratio(const struct bench_result *result, uint32_t rival);

/* Median seconds of a run, of those that count. */
double bench_seconds(const struct bench_result *result, const struct bench_times *times);
/* Work a second. */
double bench_rate(const struct bench_result *result, const struct bench_times *times);
/* What is shown of a runner's times: a rate, or time a unit. */
double bench_shown(const struct bench_result *result, const struct bench_times *times);

enum bench_verdict { BENCH_NOT_ASKED, BENCH_HOLDS, BENCH_MISSES };
enum bench_verdict bench_judge(struct bench_bound bound, double value);
/* The bound that holds beside a rival of this rate. */
struct bench_bound bench_bound_beside(struct bench_bound bound, double rate);

double bench_quantile(const double *values, uint32_t n, double share);
static inline double bench_median(const double *values, uint32_t n)
{
    return bench_quantile(values, n, 0.5);
}

/* Says on stderr what went wrong, and ends the program. */
_Noreturn void bench_stop(const char *format, ...) MOESIM_PRINTF(1, 2);

/* ---- where they go ---- */

void bench_print_result(struct bench *bench, const struct bench_result *result);
void bench_print_curve(struct bench *bench, const struct bench_curve *curve);

#endif
