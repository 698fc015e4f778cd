/*
 * The same layer in PyTorch, in a process of its own that waits while we are measured: bench/layer_peer.py.
 */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "bench/machine.h"

struct peer {
    FILE *to, *from;
    pid_t process;
    char name[128]; /* version, threads */
};

/* Starts it for a SwiGLU layer and these choices [n_tokens][k]; false where there is no PyTorch. */
bool peer_open(struct peer *peer, const char *script, uint32_t n_experts, uint32_t k, uint32_t d_model, uint32_t d_ff,
               uint32_t n_tokens, const uint32_t *expert);

/* Runs it once, forward or also backward. */
struct machine_time peer_run(struct peer *peer, bool backward);

void peer_close(struct peer *peer);

#endif
