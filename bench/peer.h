/*
 * The same work in Python's libraries, in a process of its own that waits while others are measured: bench/peer.py.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/machine.h"

struct peer;

/* What a peer is asked to do; the fields that its task does not know stay 0. */
struct peer_task {
    const char *library; /* "torch" or "numpy" */
    const char *task;    /* "route" or "layer" */
    const char *blas;    /* NULL, or the folder below /usr/lib/x86_64-linux-gnu of the BLAS that it loads */
    uint32_t n_tokens, n_experts, k, capacity, d_model, d_ff, threads;
    const void *data; /* what it reads: float32 logits [n_tokens][n_experts], or uint32 choices [n_tokens][k] */
    size_t size;
};

/* Starts it; NULL where the library is missing, which is remembered, or the BLAS. */
struct peer *peer_open(const struct peer_task *task);
void peer_close(struct peer *peer);

/* "PyTorch", and "PyTorch 1.13.0" of each library that was used, joined by ", ". */
const char *peer_name(const struct peer *peer);
const char *peer_versions(void);

/* Obeys an order `times` times; seconds of all of them, NaN when the peer is gone. */
struct machine_time peer_run(struct peer *peer, const char *order, uint32_t times);

/* What the last order found, by which equal work is known. */
double peer_found(const struct peer *peer);

/* Seconds that it has kept processors busy in all, as of its last answer. */
double peer_cpu(const struct peer *peer);

#endif
