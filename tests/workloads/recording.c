#include "tests/workloads/recording.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/plan.h>
#include <moesim/random.h>

#include "tests/workloads/instance.h"

void recording_fill(struct recording *r, uint64_t seed)
{
    r->n_layers = RECORDING_LAYERS;
    r->n_tokens = RECORDING_TOKENS;
    r->n_experts = RECORDING_EXPERTS;
    r->k = RECORDING_K;
    for (uint32_t l = 0; l < r->n_layers; l++) {
        const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST, .layer = l};
        for (uint32_t t = 0; t < r->n_tokens; t++) {
            const uint32_t start = moesim_random_below(&random, t, r->n_experts);
            for (uint32_t i = 0; i < r->k; i++) {
                r->expert[l][t][i] = (start + i * (1 + t % 4)) % r->n_experts;
                r->weight[l][t][i] = (float)(1 + moesim_random_below(&random, 1000 + 3 * t + i, 100)) / 128;
            }
        }
    }
    for (uint32_t t = 0; t < r->n_tokens; t++) {
        r->sequence[t] = t < 90 ? 0 : t < 91 ? 1 : 2;
        r->token_id[t] = (t * 37) % 1000;
    }
}

struct trace *recording_open(const char *path, struct trace_options options)
{
    struct trace *trace;
    struct moesim_error err = {""};
    cr_assert_eq(trace_open(path, &options, &trace, &err), MOESIM_OK, "%s: %s", path, err.text);
    return trace;
}

void recording_expect(const struct recording *r, struct trace *trace, uint32_t piece)
{
    const struct trace_shape *s = trace_shape(trace);
    struct moesim_error err = {""};
    cr_assert_eq(s->kind, TRACE_DECISIONS);
    cr_assert(s->n_layers == r->n_layers && s->n_tokens == r->n_tokens && s->top_k == r->k,
              "%u layers, %llu tokens, %u", s->n_layers, (unsigned long long)s->n_tokens, s->top_k);
    struct trace_pairs p = {.first = malloc((piece + 1) * sizeof(uint32_t)),
                            .expert = malloc((size_t)piece * s->top_k * sizeof(uint32_t)),
                            .weight = malloc((size_t)piece * s->top_k * sizeof(float)),
                            .fate = malloc((size_t)piece * s->top_k),
                            .slot = malloc((size_t)piece * s->top_k * sizeof(int32_t))};
    for (uint32_t l = 0; l < r->n_layers; l++)
        for (uint32_t at = 0; at < r->n_tokens; at += piece) {
            const uint32_t n = r->n_tokens - at < piece ? r->n_tokens - at : piece;
            cr_assert_eq(trace_read_pairs(trace, l, at, n, &p, &err), MOESIM_OK, "%s", err.text);
            for (uint32_t t = 0; t < n; t++) {
                cr_assert_eq(p.first[t + 1] - p.first[t], r->k);
                for (uint32_t i = 0; i < r->k; i++) {
                    const uint32_t pair = p.first[t] + i;
                    cr_assert_eq(p.expert[pair], r->expert[l][at + t][i], "layer %u token %u choice %u", l, at + t, i);
                    cr_assert_eq(p.weight[pair], s->has_weights ? r->weight[l][at + t][i] : 1 / (float)r->k);
                    cr_assert_eq(p.fate[pair], MOESIM_KEPT);
                    cr_assert(p.slot[pair] == MOESIM_SLOT_BY_ORDER || p.slot[pair] >= 0);
                }
            }
        }
    free(p.first);
    free(p.expert);
    free(p.weight);
    free(p.fate);
    free(p.slot);
}

size_t compose_npy(uint8_t *bytes, const char *descr, const char *shape, const void *data, size_t n_data)
{
    const int n =
        snprintf((char *)bytes + 10, 200, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }\n", descr, shape);
    memcpy(bytes, "\x93NUMPY\x01\x00", 8);
    bytes[8] = (uint8_t)n;
    bytes[9] = 0;
    if (n_data)
        memcpy(bytes + 10 + n, data, n_data);
    return 10 + (size_t)n + n_data;
}

size_t compose_safetensors(uint8_t *bytes, const char *header, const void *data, size_t n_data)
{
    const uint64_t n = strlen(header);
    memcpy(bytes, &n, sizeof n);
    memcpy(bytes + 8, header, n);
    if (n_data)
        memcpy(bytes + 8 + n, data, n_data);
    return 8 + n + n_data;
}

const char *recording_write_ids(const struct recording *r, const char *name)
{
    static uint8_t ids[RECORDING_TOKENS][RECORDING_LAYERS][RECORDING_K], bytes[sizeof ids + 512];
    for (uint32_t t = 0; t < r->n_tokens; t++)
        for (uint32_t l = 0; l < r->n_layers; l++)
            for (uint32_t i = 0; i < r->k; i++)
                ids[t][l][i] = (uint8_t)r->expert[l][t][i];
    return folder_write(name, bytes, compose_npy(bytes, "|u1", "(200, 3, 3)", ids, sizeof ids));
}

const char *recording_write_weights(const struct recording *r, const char *name)
{
    static float weights[RECORDING_TOKENS][RECORDING_LAYERS][RECORDING_K];
    static uint8_t bytes[sizeof weights + 512];
    for (uint32_t t = 0; t < r->n_tokens; t++)
        for (uint32_t l = 0; l < r->n_layers; l++)
            for (uint32_t i = 0; i < r->k; i++)
                weights[t][l][i] = r->weight[l][t][i];
    return folder_write(name, bytes, compose_npy(bytes, "<f4", "(200, 3, 3)", weights, sizeof weights));
}
