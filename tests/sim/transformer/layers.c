/*
 * Every layer beside its twin in double precision: results, and gradients of a random sum of them.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include <moesim/random.h>

#include "sim/transformer/attention.h"
#include "sim/transformer/embedding.h"
#include "sim/transformer/head.h"
#include "sim/transformer/linear.h"
#include "sim/transformer/norm.h"
#include "tests/sim/transformer/naive.h"

/* A matrix of the layer, of its gradient, and of the twin. */
struct matrix {
    uint32_t rows, columns;
    float *x, *d;
    node *twin;
};

static struct moesim_arena *arena;
static struct tape tape;
static uint64_t drawn;

static void open_bed(void)
{
    arena = moesim_arena_create(0);
    drawn = 0;
    tape_init(&tape);
}

static void close_bed(void)
{
    tape_finish(&tape);
    moesim_arena_destroy(arena);
}

static struct matrix matrix(uint32_t rows, uint32_t columns)
{
    const size_t n = (size_t)rows * columns;
    return (struct matrix){rows, columns, moesim_alloc(arena, n, sizeof(float)), moesim_alloc(arena, n, sizeof(float)),
                           moesim_alloc(arena, n, sizeof(node))};
}

static struct matrix drawn_matrix(uint32_t rows, uint32_t columns, double std)
{
    struct matrix m = matrix(rows, columns);
    const struct moesim_random random = {.seed = 5, .stream = MOESIM_STREAM_TEST};
    moesim_random_normals(&random, drawn, (size_t)rows * columns, m.x);
    drawn += (size_t)rows * columns;
    for (size_t i = 0; i < (size_t)rows * columns; i++) {
        m.x[i] *= (float)std;
        m.twin[i] = tape_leaf(&tape, m.x[i]);
    }
    return m;
}

/* d of the results is drawn; the twin's gradient of sum d * result is made. */
static void differentiate(struct matrix *out)
{
    const struct moesim_random random = {.seed = 6, .stream = MOESIM_STREAM_TEST};
    node sum = 0;
    moesim_random_normals(&random, 0, (size_t)out->rows * out->columns, out->d);
    for (size_t i = 0; i < (size_t)out->rows * out->columns; i++)
        sum = tape_add(&tape, sum, tape_scale(&tape, out->twin[i], out->d[i]));
    tape_differentiate(&tape, sum);
}

/* Largest distance of a row, relative to the largest norm of the twin's rows. */
static double distance(const struct matrix *m, const float *x, const double *of)
{
    double worst = 0, largest = 0;
    for (size_t r = 0; r < m->rows; r++) {
        double error = 0, norm = 0;
        for (size_t c = r * m->columns; c < (r + 1) * m->columns; c++) {
            error += pow(x[c] - of[m->twin[c]], 2);
            norm += pow(of[m->twin[c]], 2);
        }
        worst = fmax(worst, sqrt(error));
        largest = fmax(largest, sqrt(norm));
    }
    return worst / largest;
}

static void check(const struct matrix *m, bool gradient, const char *what)
{
    const double error = distance(m, gradient ? m->d : m->x, gradient ? tape.gradient : tape.value);
    cr_assert_lt(error, 2e-5, "%s%s is off by %g", gradient ? "gradient of " : "", what, error);
}

static const char *const products_names[] = {"avx512", "avx2-fma", "portable", "openblas"};

/* A row-major matrix into panels and back. */
static float *to_panels(const struct moesim_products *p, const struct matrix *m)
{
    float *panels = moesim_alloc(arena, m->rows, moesim_panel_columns(p, m->columns) * sizeof(float));
    moesim_panels_gather(p, m->x, m->columns, m->rows, m->columns, 1, panels);
    return panels;
}

Test(layers, linear_as_its_twin, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    for (int i = 0; i < 4; i++) {
        const struct moesim_products *p = moesim_products_find(products_names[i]);
        struct moesim_linear_work work;
        struct moesim_error err;
        if (!p)
            continue;
        tape_clear(&tape);
        struct matrix x = drawn_matrix(150, 37, 1), w = drawn_matrix(37, 150, 0.2), base = drawn_matrix(150, 150, 1);
        struct matrix out = matrix(150, 150);
        struct moesim_linear linear = {.n_in = 37, .n_out = 150, .w = to_panels(p, &w)};
        linear.d_w = moesim_alloc(arena, 37, moesim_panel_columns(p, 150) * sizeof(float));
        cr_assert_eq(moesim_linear_work_init(&work, 150, 37, 150, p, arena, &err), MOESIM_OK);
        naive_linear(&tape, x.twin, w.twin, 150, 37, 150, out.twin);
        for (size_t j = 0; j < (size_t)150 * 150; j++)
            out.twin[j] = tape_add(&tape, out.twin[j], base.twin[j]);
        differentiate(&out);
        moesim_linear_forward(&linear, &work, x.x, 150, base.x, out.x);
        for (int add = 0; add < 2; add++)
            moesim_linear_backward(&linear, &work, x.x, out.d, 150, add, x.d);
        moesim_panels_put(p, linear.d_w, 37, 150, 0.5f, false, 150, w.d);
        check(&out, false, products_names[i]);
        check(&x, true, "x");
        check(&w, true, "w");
    }
}

Test(layers, norm_as_its_twin, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    const uint32_t n = 150, d = 37;
    struct matrix x = drawn_matrix(n, d, 3), gain = drawn_matrix(1, d, 1), out = matrix(n, d);
    float *r = moesim_alloc(arena, n, sizeof *r), *parts = moesim_alloc(arena, 3 * d, sizeof *parts);
    const struct moesim_norm norm = {.d = d, .rows = moesim_rows_find(), .gain = gain.x, .d_gain = gain.d};
    naive_norm(&tape, x.twin, gain.twin, n, d, out.twin);
    differentiate(&out);
    moesim_norm_forward(&norm, x.x, n, r, out.x);
    moesim_norm_backward(&norm, x.x, r, out.d, n, false, parts, x.d);
    check(&out, false, "y");
    check(&x, true, "x");
    check(&gain, true, "the gain");
}

static void check_attention(const struct moesim_products *p, uint32_t n_sequences, uint32_t sequence, uint32_t d,
                            uint32_t n_heads, bool rotary)
{
    struct moesim_attention attention;
    struct moesim_error err;
    tape_clear(&tape);
    struct matrix qkv = drawn_matrix(n_sequences * sequence, 3 * d, 1), out = matrix(n_sequences * sequence, d);
    struct matrix turned = matrix(n_sequences * sequence, 3 * d);
    float *log_sum = moesim_alloc(arena, (size_t)n_sequences * n_heads * sequence, sizeof *log_sum);
    const size_t n = (size_t)n_sequences * sequence * 3 * d;
    cr_assert_eq(moesim_attention_init(&attention, d, n_heads, sequence, rotary, p, arena, &err), MOESIM_OK);
    memcpy(turned.twin, qkv.twin, n * sizeof(node));
    if (rotary)
        naive_rotate(&tape, n_sequences, sequence, d, n_heads, turned.twin);
    naive_attention(&tape, turned.twin, n_sequences, sequence, d, n_heads, out.twin);
    differentiate(&out);
    memcpy(turned.x, qkv.x, n * sizeof(float));
    moesim_attention_rotate(&attention, n_sequences, false, turned.x);
    check(&turned, false, "what is turned");
    moesim_attention_forward(&attention, n_sequences, turned.x, log_sum, out.x);
    moesim_attention_backward(&attention, n_sequences, turned.x, log_sum, out.x, out.d, qkv.d);
    moesim_attention_rotate(&attention, n_sequences, true, qkv.d);
    check(&out, false, "attention");
    check(&qkv, true, "queries, keys and values");
}

Test(layers, attention_as_its_twin, .init = open_bed, .fini = close_bed, .timeout = 120)
{
    for (int i = 0; i < 4; i++) {
        const struct moesim_products *p = moesim_products_find(products_names[i]);
        if (!p)
            continue;
        check_attention(p, 1, 150, 24, 1, true);
        check_attention(p, 2, 37, 36, 3, false);
        check_attention(p, 3, 64, 32, 2, true);
        check_attention(p, 2, 1, 8, 2, true);
    }
}

Test(layers, head_as_its_twin, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    const struct moesim_products *p = moesim_products_find(NULL);
    const uint32_t n = 150, d = 21, vocabulary = 77;
    struct moesim_head head;
    struct moesim_error err;
    struct matrix x = drawn_matrix(n, d, 1), w = drawn_matrix(d, vocabulary, 1), logits = matrix(n, vocabulary);
    struct matrix loss = matrix(n, 1);
    uint32_t *target = moesim_alloc(arena, n, sizeof *target);
    cr_assert_eq(moesim_head_init(&head, d, vocabulary, n, p, arena, &err), MOESIM_OK);
    head.linear.w = to_panels(p, &w);
    head.linear.d_w = moesim_alloc(arena, d, moesim_panel_columns(p, vocabulary) * sizeof(float));
    naive_linear(&tape, x.twin, w.twin, n, d, vocabulary, logits.twin);
    node sum = 0;
    for (uint32_t t = 0; t < n; t++) {
        target[t] = t % 5 == 3 ? MOESIM_NO_TARGET : t * 7 % vocabulary;
        if (target[t] != MOESIM_NO_TARGET)
            loss.twin[t] = naive_cross_entropy(&tape, logits.twin + (size_t)t * vocabulary, vocabulary, target[t]);
        sum = tape_add(&tape, sum, loss.twin[t]);
    }
    tape_differentiate(&tape, tape_scale(&tape, sum, 0.01));
    moesim_head_run(&head, x.x, target, n, 0.01f, false, loss.x, x.d);
    moesim_panels_put(p, head.linear.d_w, d, vocabulary, 1, false, vocabulary, w.d);
    check(&loss, false, "the loss");
    check(&x, true, "x");
    check(&w, true, "w");
}

Test(layers, embedding_as_its_twin, .init = open_bed, .fini = close_bed, .timeout = 60)
{
    const struct moesim_products *p = moesim_products_find(NULL);
    const uint32_t n = 60, sequence = 20, d = 37, vocabulary = 33;
    struct matrix w = drawn_matrix(d, vocabulary, 1), position = drawn_matrix(sequence, d, 1), out = matrix(n, d);
    uint32_t token[60];
    struct moesim_embedding e = {.vocabulary = vocabulary,
                                 .d_model = d,
                                 .sequence = sequence,
                                 .products = p,
                                 .w = to_panels(p, &w),
                                 .position = position.x,
                                 .d_position = position.d};
    e.d_w = moesim_alloc(arena, d, moesim_panel_columns(p, vocabulary) * sizeof(float));
    for (uint32_t t = 0; t < n; t++) {
        token[t] = t * t % vocabulary;
        for (uint32_t k = 0; k < d; k++)
            out.twin[t * d + k] =
                tape_add(&tape, w.twin[k * vocabulary + token[t]], position.twin[t % sequence * d + k]);
    }
    differentiate(&out);
    moesim_embedding_forward(&e, token, n, out.x);
    moesim_embedding_backward(&e, token, n, out.d, false);
    moesim_panels_put(p, e.d_w, d, vocabulary, 1, false, vocabulary, w.d);
    check(&out, false, "the vectors");
    check(&w, true, "the embedding");
    check(&position, true, "the positions");
}

/* ---- rows ---- */

Test(rows, both_builds_give_the_same_bits)
{
    const struct moesim_rows *const build[] = {moesim_rows_find(), &moesim_transformer_rows_portable};
    const struct moesim_random random = {.seed = 9, .stream = MOESIM_STREAM_TEST};
    float x[2][100], y[2][100], m[2][100], v[2][100], g[100], gain[100];
    const struct moesim_adamw_step step = {0.5f, 0.01f, 0.001f, 0.9f, 0.99f, 1.5f, 1e-8f};
    for (uint32_t n = 1; n <= 100; n += 11) {
        moesim_random_normals(&random, 1000, 100, g);
        moesim_random_normals(&random, 2000, 100, gain);
        float scalar[2][4];
        for (int b = 0; b < 2; b++) {
            moesim_random_normals(&random, 0, 100, x[b]);
            moesim_random_normals(&random, 3000, 100, m[b]);
            memset(v[b], 0, sizeof v[b]);
            memset(y[b], 0, sizeof y[b]);
            scalar[b][0] = build[b]->norm(x[b], gain, n, y[b]);
            build[b]->norm_backward(x[b], gain, scalar[b][0], g, n, m[b], y[b]);
            build[b]->adamw(&step, n, g, m[b], v[b], x[b]);
            scalar[b][1] = (float)build[b]->square_sum(x[b], n);
            scalar[b][2] = build[b]->dot(x[b], y[b], n);
            scalar[b][3] = build[b]->softmax(x[b], n);
        }
        cr_assert_arr_eq(scalar[0], scalar[1], sizeof scalar[0]);
        cr_assert_arr_eq(x[0], x[1], sizeof x[0]);
        cr_assert_arr_eq(y[0], y[1], sizeof y[0]);
        cr_assert_arr_eq(m[0], m[1], sizeof m[0]);
        cr_assert_arr_eq(v[0], v[1], sizeof v[0]);
    }
}
