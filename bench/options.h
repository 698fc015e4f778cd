/*
 * The command line of moesim-bench.
 */
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "bench/bench.h"

enum { OPTIONS_MOST_PARTS = 32 };

struct options {
    struct bench_options bench;
    const char *part[OPTIONS_MOST_PARTS];
    const char *db, *json, *plot;
};

/* Reads them; ends the program after --help, or with a sentence and status 2. */
void options_read(struct options *options, int argc, char **argv);

#endif
