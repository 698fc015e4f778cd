/*
 * Counts every call of malloc and its kin while it is told to watch. What the OpenMP runtime and the dynamic linker
 * take for their threads is theirs and does not count.
 */
#ifndef TESTS_ALLOCATIONS_H
#define TESTS_ALLOCATIONS_H

#include <stdbool.h>

/* Starts the OpenMP runtime, which reads files and variables once, and finds its code: before the first watch. */
void allocations_init(void);
void allocations_watch(bool on);
unsigned allocations_counted(void);

#endif
