/*
 * The gate's fixed-order product against a plain loop, bit for bit.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/gate/gate.h"

TestSuite(gate, .timeout = 60);

#define MAX_TOKENS 150

static const struct moesim_random jitter_random = {.seed = 5, .stream = MOESIM_STREAM_JITTER, .layer = 1, .step = 9};

static void init(struct moesim_gate *gate, uint32_t d_model, uint32_t n_experts, uint32_t n_columns,
                 struct moesim_arena *arena)
{
    struct moesim_error err;
    cr_assert_eq(moesim_gate_init(gate, 42, 3, d_model, n_experts, n_columns, MAX_TOKENS, 2, arena, &err), MOESIM_OK);
}

static float *make_hidden(uint32_t d_model, struct moesim_arena *arena)
{
    const struct moesim_random random = {.seed = 1, .stream = MOESIM_STREAM_TEST};
    float *hidden = moesim_alloc(arena, (size_t)MAX_TOKENS * d_model, sizeof *hidden);
    moesim_random_normals(&random, 0, (size_t)MAX_TOKENS * d_model, hidden);
    return hidden;
}

/* One chain of float additions over d_model, as the header promises. */
static float slow(const struct moesim_gate *gate, const float *hidden, uint32_t t, uint32_t c, float jitter)
{
    float sum = 0;
    for (uint32_t i = 0; i < gate->d_model; i++) {
        const uint64_t index = (uint64_t)t * gate->d_model + i;
        float x = hidden[index];
        if (jitter > 0)
            x = x * (1 + jitter * (2 * moesim_random_uniform(&jitter_random, index) - 1));
        sum += x * gate->weight[(size_t)i * gate->stride + c];
    }
    return sum;
}

Test(gate, equals_the_plain_loop)
{
    const struct {
        uint32_t d_model, n_columns, n_tokens;
        float jitter;
    } cases[] = {{1, 1, 1, 0},      {7, 3, 5, 0},         {64, 8, 63, 0},      {255, 9, 64, 0.1f}, {256, 64, 65, 0},
                 {257, 17, 127, 0}, {300, 40, 150, 0.5f}, {513, 2, 3, 0.999f}, {96, 33, 0, 0}};
    struct moesim_arena *arena = moesim_arena_create(0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moesim_gate gate;
        init(&gate, cases[i].d_model, cases[i].n_columns, cases[i].n_columns, arena);
        cr_assert(gate.stride % 8 == 0 && gate.stride >= gate.n_columns);
        const float *hidden = make_hidden(cases[i].d_model, arena);
        moesim_gate_forward(&gate, hidden, cases[i].n_tokens, cases[i].jitter, &jitter_random);
        for (uint32_t t = 0; t < cases[i].n_tokens; t++)
            for (uint32_t c = 0; c < gate.n_columns; c++)
                cr_assert_eq(gate.columns[t * gate.stride + c], slow(&gate, hidden, t, c, cases[i].jitter),
                             "case %zu, token %u, column %u", i, t, c);
    }
    moesim_arena_destroy(arena);
}

/* d loss / d weight [i][c] and d loss / d hidden [t][i] by their definitions, in double. */
static void check_backward(const struct moesim_gate *gate, const float *hidden, const float *d_columns,
                           uint32_t n_tokens, float jitter, const float *d_weight, const float *d_hidden)
{
    const uint32_t d = gate->d_model;
    for (uint32_t i = 0; i < d; i++)
        for (uint32_t c = 0; c < gate->n_columns; c++) {
            double sum = 0, squares = 0;
            for (uint32_t t = 0; t < n_tokens; t++) {
                const uint64_t index = (uint64_t)t * d + i;
                const double u = jitter > 0 ? moesim_random_uniform(&jitter_random, index) : 0.5;
                const double term = hidden[index] * (1 + jitter * (2 * u - 1)) * d_columns[t * gate->stride + c];
                sum += term;
                squares += term * term;
            }
            cr_assert_float_eq(d_weight[(size_t)i * gate->stride + c], sum, 2e-6 * sqrt(n_tokens * squares) + 1e-30);
        }
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t i = 0; i < d; i++) {
            const uint64_t index = (uint64_t)t * d + i;
            const double u = jitter > 0 ? moesim_random_uniform(&jitter_random, index) : 0.5;
            double sum = 0, squares = 0;
            for (uint32_t c = 0; c < gate->n_columns; c++) {
                const double term =
                    (double)gate->weight[(size_t)i * gate->stride + c] * d_columns[t * gate->stride + c];
                sum += term;
                squares += term * term;
            }
            cr_assert_float_eq(d_hidden[index], 1 + sum * (1 + jitter * (2 * u - 1)),
                               2e-6 * (1 + sqrt(gate->n_columns * squares)));
        }
}

Test(gate, backward_equals_its_definition)
{
    const struct {
        uint32_t d_model, n_columns, n_tokens;
        float jitter;
    } cases[] = {{1, 1, 1, 0}, {7, 3, 5, 0}, {65, 8, 63, 0.2f}, {257, 40, 150, 0}, {96, 300, 9, 0.5f}, {8, 8, 0, 0}};
    struct moesim_arena *arena = moesim_arena_create(0);
    const struct moesim_random random = {.seed = 3, .stream = MOESIM_STREAM_TEST};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct moesim_gate gate;
        struct moesim_error err;
        const uint32_t d = cases[i].d_model, n = cases[i].n_tokens;
        init(&gate, d, cases[i].n_columns, cases[i].n_columns, arena);
        cr_assert_eq(moesim_gate_init_backward(&gate, arena, &err), MOESIM_OK);
        const float *hidden = make_hidden(d, arena);
        float *d_columns = moesim_alloc(arena, (size_t)MAX_TOKENS * gate.stride, sizeof *d_columns), *d_hidden[2];
        moesim_random_normals(&random, 0, (size_t)MAX_TOKENS * gate.stride, d_columns);
        float *d_weight[2];
        for (int run = 0; run < 2; run++) {
            omp_set_num_threads(1 + 2 * run);
            d_weight[run] = moesim_alloc(arena, (size_t)d * gate.stride, sizeof **d_weight);
            d_hidden[run] = moesim_alloc(arena, (size_t)MAX_TOKENS * d, sizeof **d_hidden);
            for (size_t j = 0; j < (size_t)MAX_TOKENS * d; j++)
                d_hidden[run][j] = 1;
            moesim_gate_backward(&gate, hidden, n, cases[i].jitter, &jitter_random, d_columns, false, d_weight[run],
                                 d_hidden[run]);
        }
        check_backward(&gate, hidden, d_columns, n, cases[i].jitter, d_weight[0], d_hidden[0]);
        cr_assert_arr_eq(d_weight[0], d_weight[1], (size_t)d * gate.stride * sizeof(float));
        cr_assert_arr_eq(d_hidden[0], d_hidden[1], (size_t)MAX_TOKENS * d * sizeof(float));
        moesim_gate_backward(&gate, hidden, n, cases[i].jitter, &jitter_random, d_columns, true, d_weight[0], NULL);
        for (size_t j = 0; j < (size_t)d * gate.stride; j++)
            cr_assert_float_eq(d_weight[0][j], 2 * d_weight[1][j], 1e-5 * (1 + fabs((double)d_weight[1][j])));
    }
    moesim_arena_destroy(arena);
}

Test(gate, same_bits_on_any_threads_and_rows)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_gate gate;
    init(&gate, 200, 20, 20, arena);
    const float *hidden = make_hidden(200, arena);
    const size_t n = (size_t)MAX_TOKENS * gate.stride;
    float *first = moesim_alloc(arena, n, sizeof *first);
    omp_set_num_threads(1);
    moesim_gate_forward(&gate, hidden, MAX_TOKENS, 0.25f, &jitter_random);
    memcpy(first, gate.columns, n * sizeof *first);
    for (int threads = 2; threads <= 4; threads += 2) {
        memset(gate.columns, 0xff, n * sizeof *first);
        omp_set_num_threads(threads);
        moesim_gate_forward(&gate, hidden, MAX_TOKENS, 0.25f, &jitter_random);
        cr_assert_arr_eq(gate.columns, first, n * sizeof *first);
    }
    moesim_gate_forward(&gate, hidden, 41, 0.25f, &jitter_random);
    cr_assert_arr_eq(gate.columns, first, 41 * gate.stride * sizeof *first);
    moesim_arena_destroy(arena);
}

Test(gate, weights)
{
    struct moesim_arena *arena = moesim_arena_create(0);
    struct moesim_gate plain, wide, narrow;
    init(&plain, 128, 16, 16, arena);
    init(&wide, 128, 16, 32, arena);
    init(&narrow, 128, 16, 1, arena);
    double square = 0;
    for (uint32_t i = 0; i < 128; i++)
        for (uint32_t c = 0; c < 16; c++) {
            const float w = plain.weight[i * plain.stride + c];
            cr_assert_eq(w, wide.weight[i * wide.stride + c]);
            cr_assert_neq(w, wide.weight[i * wide.stride + 16 + c]);
            square += w * w;
        }
    for (uint32_t i = 0; i < 128; i++)
        cr_assert_eq(plain.weight[i * plain.stride], narrow.weight[i * narrow.stride]);
    struct moesim_gate tall; /* element i of column c is normal number c * d_model + i */
    init(&tall, 600, 3, 3, arena);
    const struct moesim_random random = {.seed = 42, .stream = MOESIM_STREAM_GATE, .layer = 3};
    for (uint32_t c = 0; c < 3; c++)
        for (uint32_t i = 0; i < 600; i += 7)
            cr_assert_eq(tall.weight[i * tall.stride + c],
                         moesim_random_normal(&random, c * 600 + i) * (float)(2 / sqrt(600)));
    /* 2048 normals of standard deviation 2 / sqrt(128): the relative error of the mean square is sqrt(2 / 2048). */
    cr_assert_float_eq(square / 2048 * 128 / 4, 1, 5 * sqrt(2. / 2048));
    moesim_arena_destroy(arena);
}
