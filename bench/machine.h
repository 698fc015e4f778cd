/*
 * What this machine can do at most, measured beside whatever is compared with it: other jobs may share its cores, so a
 * rate means little by itself and its ratio to a limit taken a moment before and after means much.
 */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stddef.h>

/* Seconds since some moment, of the clock and of all this process's threads on their processors. */
struct machine_time {
    double wall_s, cpu_s;
};
struct machine_time machine_now(void);

/* A span's seconds; `cpu_s` is per thread. */
struct machine_time machine_since(struct machine_time start);

/* Waits until others leave at least 94 % of the processors idle for 0.1 s, at most `limit_s`; returns whether they do.
 */
int machine_wait_quiet(double limit_s);

/* Multiply-adds of float32 out of registers on all threads for about `seconds`: flop a second, by either clock. */
struct machine_rate {
    double by_wall, by_cpu;
};
struct machine_rate machine_peak(double seconds);

/* Bytes a second of all threads reading `n` bytes once. */
struct machine_rate machine_read(const void *memory, size_t n);

/* The middle of n values, which are put in order. */
double machine_median(double *values, size_t n);

#endif
