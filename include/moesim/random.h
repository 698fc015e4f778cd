/* SPDX-License-Identifier: MIT
 *
 * Random numbers as a pure function of (seed, stream, layer, step, index): Philox4x32-10 (Salmon et al.,
 * "Parallel random numbers: as easy as 1, 2, 3", SC 2011). No state, so that any thread may draw any
 * element and a run can start anywhere.
 */
#ifndef MOESIM_RANDOM_H
#define MOESIM_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include <moesim/status.h>

/* Who draws. Two users of one stream would see equal numbers, so each has its own. A plugin uses
 * MOESIM_STREAM_ROUTER + n, n below 250 (the token-choice family has the next six); a workload
 * MOESIM_STREAM_WORKLOAD + n, n below 256. */
enum moesim_stream {
    MOESIM_STREAM_GATE = 1,          /* the first E gate columns' weights */
    MOESIM_STREAM_GATE_EXTRA = 2,    /* further gate columns' weights */
    MOESIM_STREAM_COLUMNS = 3,       /* synthetic gate columns, the first E */
    MOESIM_STREAM_COLUMNS_EXTRA = 4, /* synthetic gate columns past E */
    MOESIM_STREAM_HIDDEN = 5,        /* hidden states of a workload that has none */
    MOESIM_STREAM_EXPERT = 6,        /* expert weights */
    MOESIM_STREAM_ROUTER_WEIGHT = 7, /* weights a router learns beyond the gate */
    MOESIM_STREAM_JITTER = 8,        /* the gate's input jitter */
    MOESIM_STREAM_PLACEMENT = 9,     /* random placement */
    MOESIM_STREAM_REPLICA = 10,      /* replica choice */
    MOESIM_STREAM_FIDELITY = 11,     /* the benchmarks of published tables */
    MOESIM_STREAM_TRANSFORMER = 12,  /* first weights of a language model, outside gates and experts */
    MOESIM_STREAM_CORPUS = 13,       /* which pieces of its texts it is trained on */
    MOESIM_STREAM_WORKLOAD = 0x100,
    MOESIM_STREAM_ROUTER = 0x200,
    MOESIM_STREAM_TEST = 0x300,
};

/* The name of a sequence of numbers; `index` counts within it. */
struct moesim_random {
    uint64_t seed;
    uint32_t stream;
    uint32_t layer; /* below 65536 */
    uint32_t step;
};

/* The bare generator: 10 rounds over a counter and a key, as in Random123's known answers. */
MOESIM_API void moesim_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Element `index` (below 2^48) of the sequence as 32 random bits. */
MOESIM_API uint32_t moesim_random_bits(const struct moesim_random *r, uint64_t index);

/* Element `index` uniform in [0, 1), with 24 random bits. */
MOESIM_API float moesim_random_uniform(const struct moesim_random *r, uint64_t index);

/* Element `index` as a whole number below n (n > 0), without modulo bias beyond 2^-32. */
MOESIM_API uint32_t moesim_random_below(const struct moesim_random *r, uint64_t index, uint32_t n);

/* Element `index` of the standard normal sequence: the same value moesim_random_normals gives there. */
MOESIM_API float moesim_random_normal(const struct moesim_random *r, uint64_t index);

/* Elements [first, first + n) in bulk; equal bits on every processor, compiler and number of threads
 * (one thread is used: parallel callers split the range). Normals are Box-Muller over our own log, sine and cosine. */
MOESIM_API void moesim_random_uniforms(const struct moesim_random *r, uint64_t first, size_t n, float *out);
MOESIM_API void moesim_random_normals(const struct moesim_random *r, uint64_t first, size_t n, float *out);

#endif
