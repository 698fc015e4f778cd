/*
 * The parts of the bench: each goes through its table of figures, sets one up, has it measured and takes it down.
 */
#ifndef BENCH_PARTS_H
#define BENCH_PARTS_H

#include "bench/bench.h"

void part_machine(struct bench *bench);
void part_route(struct bench *bench);
void part_routers(struct bench *bench);
void part_gate(struct bench *bench);
void part_layer(struct bench *bench);
void part_placement(struct bench *bench);
void part_cost(struct bench *bench);
void part_trace(struct bench *bench);
void part_train(struct bench *bench);
void part_workload(struct bench *bench);
void part_step(struct bench *bench);
void part_store(struct bench *bench);
void part_study(struct bench *bench);
void part_growth(struct bench *bench);

/* The hidden first argument with which this program starts the program behind it and prints how many kilobytes that
 * needed at most: a child that is started directly inherits its parent's most. Returns the exit status. */
#define PART_STUDY_MEMORY "__memory"
int part_study_memory(char **arguments);

#endif
