/*
 * The gate's matrix product in a fixed order: every element is one chain of additions over d_model, so that its bits do
 * not depend on threads, rows, columns or vector width. No FMA anywhere: the AVX2 copy of the kernel and the baseline
 * agree.
 */
#include "sim/gate/gate.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* A tile's sums stay in registers; a panel of a chunk of the weights (16 kB) stays in the first-level cache. */
#define TILE_ROWS 6
#define LANES 8
#define LINE 16 /* floats of a cache line */
#define PANEL 2 /* vectors of columns */
#define CHUNK 256
#define BLOCK_ROWS 96    /* whole tiles */
#define BACKWARD_ROWS 48 /* likewise */
#define PACKED_ROWS 16   /* fewer rows are not worth packing a panel for */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

/* `n_rows` rows of input, `n_terms` of each, times the weights' rows of the same terms; rows of each are a stride
 * apart, columns come by eight. */
struct product {
    const float *input, *weight;
    float *sums;
    size_t input_stride, weight_stride, sums_stride;
    uint32_t n_rows, n_terms, n_columns;
};

/* `rows` rows from `row` on times a panel of `vectors` vectors of columns. */
static inline __attribute__((always_inline)) void add_tile(const struct product *p, const int rows, const int vectors,
                                                           uint32_t row, const float *panel, size_t panel_stride,
                                                           uint32_t column)
{
    const float *input = p->input + row * p->input_stride;
    float *sums = p->sums + row * p->sums_stride + column;
    lanes sum[TILE_ROWS][PANEL];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            sum[r][v] = *(const lanes *)(sums + r * p->sums_stride + v * LANES);
    for (uint32_t i = 0, end; i < p->n_terms; i = end) {
        end = p->n_terms - i > LINE ? i + LINE : p->n_terms;
        for (int r = 0; r < rows; r++)
            __builtin_prefetch(input + (r + rows) * p->input_stride + i); /* the next tile's */
        for (; i < end; i++)
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < vectors; v++)
                    sum[r][v] +=
                        input[r * p->input_stride + i] * *(const lanes *)(panel + i * panel_stride + v * LANES);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++)
            *(lanes *)(sums + r * p->sums_stride + v * LANES) = sum[r][v];
}

/* All rows times one panel; its rows are far apart in the weights and would share few sets of the cache. */
static inline __attribute__((always_inline)) void add_panel(const struct product *p, const int vectors, uint32_t column)
{
    float packed[CHUNK * PANEL * LANES];
    const float *panel = p->weight + column;
    size_t stride = p->weight_stride;
    uint32_t row = 0;
    if (p->n_rows >= PACKED_ROWS) {
        for (uint32_t i = 0; i < p->n_terms; i++)
            memcpy(packed + i * (size_t)vectors * LANES, panel + i * stride, (size_t)vectors * LANES * sizeof *packed);
        panel = packed;
        stride = (size_t)vectors * LANES;
    }
    for (; row + TILE_ROWS <= p->n_rows; row += TILE_ROWS)
        add_tile(p, TILE_ROWS, vectors, row, panel, stride, column);
    for (; row + 2 <= p->n_rows; row += 2)
        add_tile(p, 2, vectors, row, panel, stride, column);
    if (row < p->n_rows)
        add_tile(p, 1, vectors, row, panel, stride, column);
}

static inline __attribute__((always_inline)) void add_block(const struct product *p)
{
    uint32_t column = 0;
    for (; column + PANEL * LANES <= p->n_columns; column += PANEL * LANES)
        add_panel(p, PANEL, column);
    for (; column < p->n_columns; column += LANES)
        add_panel(p, 1, column);
}

static void add_block_baseline(const struct product *p)
{
    add_block(p);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void add_block_avx2(const struct product *p)
{
    add_block(p);
}
#endif

static void add_product(const struct product *p)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) {
        add_block_avx2(p);
        return;
    }
#endif
    add_block_baseline(p);
}

/* Fills column `c` of the weights from element c * d_model on of a normal sequence. */
static void draw_column(struct moesim_gate *gate, const struct moesim_random *random, uint64_t first, uint32_t c,
                        float std)
{
    float chunk[CHUNK];
    for (uint32_t i = 0; i < gate->d_model; i += CHUNK) {
        const uint32_t n = gate->d_model - i < CHUNK ? gate->d_model - i : CHUNK;
        moesim_random_normals(random, first + i, n, chunk);
        for (uint32_t j = 0; j < n; j++)
            gate->weight[(size_t)(i + j) * gate->stride + c] = chunk[j] * std;
    }
}

enum moesim_status moesim_gate_init(struct moesim_gate *gate, uint64_t seed, uint32_t layer, uint32_t d_model,
                                    uint32_t n_experts, uint32_t n_columns, uint32_t max_tokens, double logit_std,
                                    struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t stride = (n_columns + LANES - 1) / LANES * LANES;
    *gate = (struct moesim_gate){
        .d_model = d_model,
        .n_columns = n_columns,
        .stride = stride,
        .weight = moesim_alloc(arena, (size_t)d_model * stride, sizeof(float)),
        .columns = moesim_alloc(arena, (size_t)max_tokens * stride, sizeof(float)),
    };
    if (!gate->weight || !gate->columns)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for a gate of %u columns over d_model %u and %u tokens",
                           n_columns, d_model, max_tokens);
    const struct moesim_random first = {.seed = seed, .stream = MOESIM_STREAM_GATE, .layer = layer};
    const struct moesim_random extra = {.seed = seed, .stream = MOESIM_STREAM_GATE_EXTRA, .layer = layer};
    const float std = (float)(logit_std / sqrt(d_model));
    for (uint32_t c = 0; c < n_columns; c++) {
        const bool shared = c < n_experts;
        draw_column(gate, shared ? &first : &extra, (uint64_t)(shared ? c : c - n_experts) * d_model, c, std);
    }
    return MOESIM_OK;
}

/* Copies terms [first, first + n_terms) of some rows into `out` ([n_rows][CHUNK]), each times its U(1 - jitter, 1 +
 * jitter). */
static void jitter_terms(const float *hidden, uint32_t d_model, uint64_t row, uint32_t n_rows, uint32_t first,
                         uint32_t n_terms, float jitter, const struct moesim_random *random, float *out)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint64_t index = (row + r) * d_model + first;
        float *terms = out + (size_t)r * CHUNK;
        moesim_random_uniforms(random, index, n_terms, terms);
        for (uint32_t i = 0; i < n_terms; i++)
            terms[i] = hidden[index + i] * (1 + jitter * (2 * terms[i] - 1));
    }
}

static void forward_block(struct moesim_gate *gate, const float *hidden, uint32_t row, uint32_t n_rows, float jitter,
                          const struct moesim_random *random)
{
    float jittered[BLOCK_ROWS * CHUNK];
    struct product p = {
        .sums = gate->columns + (size_t)row * gate->stride,
        .input_stride = jitter > 0 ? CHUNK : gate->d_model,
        .weight_stride = gate->stride,
        .sums_stride = gate->stride,
        .n_rows = n_rows,
        .n_columns = gate->stride,
    };
    memset(p.sums, 0, (size_t)n_rows * gate->stride * sizeof *p.sums);
    for (uint32_t first = 0; first < gate->d_model; first += CHUNK) {
        p.n_terms = gate->d_model - first < CHUNK ? gate->d_model - first : CHUNK;
        p.input = hidden + (size_t)row * gate->d_model + first;
        p.weight = gate->weight + (size_t)first * gate->stride;
        if (jitter > 0) {
            jitter_terms(hidden, gate->d_model, row, n_rows, first, p.n_terms, jitter, random, jittered);
            p.input = jittered;
        }
        add_product(&p);
    }
}

void moesim_gate_forward(struct moesim_gate *gate, const float *hidden, uint32_t n_tokens, float jitter,
                         const struct moesim_random *random)
{
#pragma omp parallel for schedule(static)
    for (uint32_t row = 0; row < n_tokens; row += BLOCK_ROWS)
        forward_block(gate, hidden, row, n_tokens - row < BLOCK_ROWS ? n_tokens - row : BLOCK_ROWS, jitter, random);
}

void moesim_gate_add_bias(struct moesim_gate *gate, const float *bias, uint32_t n_tokens)
{
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t c = 0; c < gate->n_columns; c++)
            gate->columns[(size_t)t * gate->stride + c] += bias[c];
}

/* ---- backward ---- */

static uint32_t up_to_lanes(uint32_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

enum moesim_status moesim_gate_init_backward(struct moesim_gate *gate, struct moesim_arena *arena,
                                             struct moesim_error *err)
{
    gate->turned = moesim_alloc(arena, (size_t)gate->n_columns * up_to_lanes(gate->d_model), sizeof *gate->turned);
    return gate->turned ? MOESIM_OK
                        : moesim_fail(err, MOESIM_ENOMEM, "no memory for a gate of %u columns over d_model %u",
                                      gate->n_columns, gate->d_model);
}

/* Rows [first, first + n_rows) of d_weight: one chain of additions over the tokens for each element. */
static void add_weight_rows(const struct moesim_gate *gate, const float *hidden, uint32_t n_tokens, float jitter,
                            const struct moesim_random *random, const float *d_columns, uint32_t first, uint32_t n_rows,
                            float *d_weight)
{
    float terms[BACKWARD_ROWS], turned[BACKWARD_ROWS * CHUNK];
    struct product p = {.input = turned,
                        .sums = d_weight + (size_t)first * gate->stride,
                        .input_stride = CHUNK,
                        .weight_stride = gate->stride,
                        .sums_stride = gate->stride,
                        .n_rows = n_rows,
                        .n_columns = gate->stride};
    for (uint32_t t = 0; t < n_tokens; t += CHUNK) {
        p.n_terms = n_tokens - t < CHUNK ? n_tokens - t : CHUNK;
        p.weight = d_columns + (size_t)t * gate->stride;
        for (uint32_t i = 0; i < p.n_terms; i++) {
            const float *input = hidden + (size_t)(t + i) * gate->d_model + first;
            if (jitter > 0) {
                jitter_terms(hidden, gate->d_model, t + i, 1, first, n_rows, jitter, random, terms);
                input = terms;
            }
            for (uint32_t r = 0; r < n_rows; r++)
                turned[r * CHUNK + i] = input[r];
        }
        add_product(&p);
    }
}

/* Terms [first, first + n_terms) of some tokens' d_hidden. */
static void add_hidden(const struct moesim_gate *gate, uint32_t row, uint32_t n_rows, uint32_t first, uint32_t n_terms,
                       float jitter, const struct moesim_random *random, const float *d_columns, float *d_hidden)
{
    float sums[BACKWARD_ROWS * CHUNK], scale[CHUNK];
    const struct product p = {.input = d_columns + (size_t)row * gate->stride,
                              .weight = gate->turned + first,
                              .sums = sums,
                              .input_stride = gate->stride,
                              .weight_stride = up_to_lanes(gate->d_model),
                              .sums_stride = CHUNK,
                              .n_rows = n_rows,
                              .n_terms = gate->n_columns,
                              .n_columns = up_to_lanes(n_terms)};
    memset(sums, 0, sizeof sums);
    add_product(&p);
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint64_t index = (uint64_t)(row + r) * gate->d_model + first;
        if (jitter > 0)
            moesim_random_uniforms(random, index, n_terms, scale);
        for (uint32_t i = 0; i < n_terms; i++)
            d_hidden[index + i] += sums[r * CHUNK + i] * (jitter > 0 ? 1 + jitter * (2 * scale[i] - 1) : 1);
    }
}

static void turn_weights(struct moesim_gate *gate)
{
    const size_t stride = up_to_lanes(gate->d_model);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < gate->d_model; i++)
        for (uint32_t c = 0; c < gate->n_columns; c++)
            gate->turned[c * stride + i] = gate->weight[(size_t)i * gate->stride + c];
}

void moesim_gate_backward(struct moesim_gate *gate, const float *hidden, uint32_t n_tokens, float jitter,
                          const struct moesim_random *random, const float *d_columns, bool add, float *d_weight,
                          float *d_hidden)
{
    const uint32_t d = gate->d_model;
    if (!add)
        memset(d_weight, 0, (size_t)d * gate->stride * sizeof *d_weight);
#pragma omp parallel for schedule(static)
    for (uint32_t i = 0; i < d; i += BACKWARD_ROWS)
        add_weight_rows(gate, hidden, n_tokens, jitter, random, d_columns, i,
                        d - i < BACKWARD_ROWS ? d - i : BACKWARD_ROWS, d_weight);
    if (!d_hidden)
        return;
    turn_weights(gate);
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_tokens; t += BACKWARD_ROWS)
        for (uint32_t i = 0; i < d; i += CHUNK)
            add_hidden(gate, t, n_tokens - t < BACKWARD_ROWS ? n_tokens - t : BACKWARD_ROWS, i,
                       d - i < CHUNK ? d - i : CHUNK, jitter, random, d_columns, d_hidden);
}
