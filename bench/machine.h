/*
 * What this machine can do at most, measured beside whatever is compared with it: other jobs may share its cores, so a
 * rate means little by itself and its ratio to a limit taken a moment before and after means much.
 */
#ifndef BENCH_MACHINE_H
#define BENCH_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Seconds since some moment, of the clock and of all this process's threads on their processors together, with those of
 * the processes that it has started and that have ended. */
struct machine_time {
    double clock_s, cpu_s;
};
struct machine_time machine_now(void);
struct machine_time machine_since(struct machine_time start);

/* What all processors have been busy with since the machine was started, in seconds; false where nobody tells. */
struct machine_load {
    double all_s, busy_s;
};
bool machine_load(struct machine_load *load);

/* Waits until others leave at least 94 % of the processors idle for 0.12 s, at most `limit_s`; returns whether they
 * do. */
bool machine_wait_quiet(double limit_s);

/* Multiply-adds of float32 out of registers, `n` times 20,000 steps of ten chains of the widest vectors on each thread;
 * returns the flop. */
double machine_burn(uint32_t n);

/* A rate a second, by the clock and by processor time (of the mean thread). */
struct machine_rate {
    double by_clock, by_cpu;
};

/* All threads' rate of multiply-adds over about `seconds`. */
struct machine_rate machine_peak(double seconds);

/* All threads read `n` bytes once; returns how many they were, in whole chunks. */
double machine_read(const void *memory, size_t n);

/* a = b + 3 c over n floats each, past the caches. */
void machine_triad(float *a, const float *b, const float *c, size_t n);

#endif
