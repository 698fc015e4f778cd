/*
 * A recording in memory, to be written into files of any format and compared with what comes back.
 */
#ifndef MOESIM_TESTS_RECORDING_H
#define MOESIM_TESTS_RECORDING_H

#include <stdio.h>

#include "workloads/trace/trace.h"

enum { RECORDING_LAYERS = 3, RECORDING_TOKENS = 200, RECORDING_EXPERTS = 12, RECORDING_K = 3 };

struct recording {
    uint32_t n_layers, n_tokens, n_experts, k;
    uint32_t expert[RECORDING_LAYERS][RECORDING_TOKENS][RECORDING_K];
    float weight[RECORDING_LAYERS][RECORDING_TOKENS][RECORDING_K]; /* exact in float16 */
    uint32_t sequence[RECORDING_TOKENS], token_id[RECORDING_TOKENS];
};

/* Seeded, distinct experts of a token, sequences of different lengths. */
void recording_fill(struct recording *recording, uint64_t seed);

/* Opens a file of the test's folder, which must succeed. */
struct trace *recording_open(const char *path, struct trace_options options);

/* Checks that the trace holds these decisions, read in pieces of `piece` tokens; weights where it has them. */
void recording_expect(const struct recording *recording, struct trace *trace, uint32_t piece);

/* Writes them as NumPy does, [tokens][layers][k], ids of one byte; and weights as float32. */
const char *recording_write_ids(const struct recording *recording, const char *name);
const char *recording_write_weights(const struct recording *recording, const char *name);

/* The bytes of a .npy file: header with this type and shape, then the data. Returns the size. */
size_t compose_npy(uint8_t *bytes, const char *descr, const char *shape, const void *data, size_t n_data);

/* A safetensors file: length, header, data. */
size_t compose_safetensors(uint8_t *bytes, const char *header, const void *data, size_t n_data);

#endif
