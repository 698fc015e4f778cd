/*
 * The layer, with each of its products, against a naive one in double precision, over random plans.
 */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <omp.h>
#include <string.h>

#include <cblas.h>

#include <moesim/random.h>
#include <moesim/router.h>

#include "sim/layer/layer.h"
#include "tests/sim/layer/bed.h"

TestSuite(layer, .timeout = 60);

static const char *const all_products[] = {"avx512", "avx2-fma", "portable", "openblas"};

#define EACH_PRODUCTS(p)                                                                                               \
    const struct moesim_products *p;                                                                                   \
    for (size_t i_products = 0; i_products < 4; i_products++)                                                          \
        if ((p = moesim_products_find(all_products[i_products])) != NULL)

/* Relative, of sums of `depth` products in float32. */
static double tolerance(uint32_t depth)
{
    return 2e-6 * sqrt(depth);
}

static void check_forward_and_backward(struct bed *b, const char *name)
{
    const struct moesim_layer *l = &b->layer;
    const uint32_t d = l->d_model, n = b->plan.n_tokens;
    struct naive naive;
    naive_init(&naive, b);
    moesim_layer_forward(&b->layer, &b->plan, b->hidden, b->output);
    cr_assert_leq(worst_row(b->output, naive.output, n, d), tolerance(d + l->d_ff), "%s: outputs", name);
    moesim_layer_backward(&b->layer, &b->plan, b->hidden, b->d_output, false, b->d_hidden, b->d_weight);
    cr_assert_leq(worst_row(b->d_hidden, naive.d_hidden, n, d), tolerance(d + l->d_ff), "%s: d_hidden", name);
    cr_assert_leq(worst_row(b->d_weight, naive.d_weight, 1, (uint32_t)b->plan.n_pairs), tolerance(d + l->d_ff),
                  "%s: d_weight", name);
    for (int m = MOESIM_W_IN; m <= MOESIM_W_OUT; m++)
        if (m != MOESIM_W_GATE || l->w_gate)
            cr_assert_leq(worst_gradient(b, &naive, (enum moesim_layer_matrix)m), tolerance(d + l->d_ff + n),
                          "%s: matrix %d", name, m);
}

Test(layer, equals_the_naive_layer)
{
    static const struct shape cases[] = {
        {16, 24, 4, 0, 50, 2, false},  {8, 8, 1, 0, 20, 1, false},    {32, 16, 8, 2, 40, 3, false},
        {12, 20, 6, 1, 300, 2, true},  {64, 48, 3, 0, 260, 1, false}, {5, 3, 9, 0, 33, 9, true},
        {16, 8, 40, 1, 30, 2, false},  {70, 130, 2, 0, 7, 1, false},  {17, 33, 3, 1, 1, 2, false},
        {96, 80, 2, 0, 450, 1, false}, {20, 600, 3, 0, 9, 2, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int a = MOESIM_GELU; a <= MOESIM_SWIGLU; a++) {
            EACH_PRODUCTS(products)
            {
                struct bed b;
                char name[80];
                snprintf(name, sizeof name, "case %zu, activation %d, %s", i, a, products->name);
                bed_init(&b, (uint32_t)(10 * i) + (uint32_t)a, (enum moesim_activation)a, &cases[i], products);
                check_forward_and_backward(&b, name);
                cr_assert_gt(fabs((double)b.output[0]), 0);
                bed_finish(&b);
            }
        }
}

static const struct shape small = {16, 16, 4, 0, 40, 2, false};

Test(layer, tokens_without_a_pair_pass_through)
{
    struct bed b;
    bed_init(&b, 3, MOESIM_SWIGLU, &small, moesim_products_find(NULL));
    for (uint32_t i = b.plan.first[10]; i < b.plan.first[20]; i++)
        b.plan.fate[i] = MOESIM_OVER_CAPACITY;
    moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
    cr_assert_arr_eq(b.output + 10 * 16, b.hidden + 10 * 16, 10 * 16 * sizeof(float));
    cr_assert_arr_neq(b.output + 20 * 16, b.hidden + 20 * 16, 20 * 16 * sizeof(float));
    moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, false, b.d_hidden, b.d_weight);
    cr_assert_arr_eq(b.d_hidden + 10 * 16, b.d_output + 10 * 16, 10 * 16 * sizeof(float));
    for (uint64_t i = 0; i < b.plan.n_pairs; i++)
        b.plan.fate[i] = MOESIM_OVER_CAPACITY; /* a capacity that keeps nothing */
    moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
    cr_assert_arr_eq(b.output, b.hidden, 40 * 16 * sizeof(float));
    moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, false, b.d_hidden, b.d_weight);
    for (size_t i = 0; i < 4 * moesim_layer_matrix_size(&b.layer, MOESIM_W_IN); i++)
        cr_assert(b.layer.d_in[i] == 0 && b.layer.d_gate[i] == 0 && b.layer.d_out[i] == 0);
    bed_finish(&b);

    const struct shape none = {16, 16, 4, 1, 0, 2, false};
    bed_init(&b, 3, MOESIM_GELU, &none, moesim_products_find(NULL));
    b.layer.d_in[4 * 256] = 1; /* of the shared expert */
    moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
    moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, false, b.d_hidden, b.d_weight);
    cr_assert_eq(b.layer.d_in[4 * 256], 0);
    bed_finish(&b);
}

/* Gradients of two micro-batches add up. */
Test(layer, gradients_are_added_to)
{
    struct bed b;
    bed_init(&b, 6, MOESIM_SWIGLU, &small, moesim_products_find(NULL));
    const size_t n = 4 * moesim_layer_matrix_size(&b.layer, MOESIM_W_IN);
    float *once = moesim_alloc(b.arena, n, sizeof *once);
    for (int i = 0; i < 2; i++) {
        moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
        moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, i > 0, b.d_hidden, b.d_weight);
        if (i == 0)
            memcpy(once, b.layer.d_gate, n * sizeof *once);
    }
    for (size_t i = 0; i < n; i++)
        cr_assert_float_eq(b.layer.d_gate[i], 2 * once[i], 1e-5 * (1 + fabs((double)once[i])));
    bed_finish(&b);
}

/* An optimizer may walk through the arrays from end to end: the columns that fill panels up stay zero. */
Test(layer, what_fills_panels_up_has_no_gradient)
{
    static const struct shape shape = {12, 20, 4, 1, 60, 2, false};
    EACH_PRODUCTS(products)
    {
        struct bed b;
        bed_init(&b, 9, MOESIM_SWIGLU, &shape, products);
        moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
        moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, false, b.d_hidden, b.d_weight);
        const float *const weights[] = {b.layer.w_in, b.layer.w_gate, b.layer.w_out};
        const float *const gradients[] = {b.layer.d_in, b.layer.d_gate, b.layer.d_out};
        for (int m = MOESIM_W_IN; m <= MOESIM_W_OUT; m++) {
            const enum moesim_layer_matrix matrix = (enum moesim_layer_matrix)m;
            const uint32_t n_rows = m == MOESIM_W_OUT ? 20 : 12, n_columns = m == MOESIM_W_OUT ? 12 : 20;
            const size_t n = 5 * moesim_layer_matrix_size(&b.layer, matrix);
            bool *element = moesim_alloc(b.arena, n, sizeof *element);
            for (uint32_t e = 0; e < 5; e++)
                for (uint32_t i = 0; i < n_rows * n_columns; i++)
                    element[moesim_layer_place(&b.layer, matrix, e, i / n_columns, i % n_columns)] = true;
            for (size_t i = 0; i < n; i++)
                cr_assert(element[i] || (weights[m][i] == 0 && gradients[m][i] == 0), "%s", products->name);
        }
        bed_finish(&b);
    }
}

Test(layer, same_bits_on_any_threads)
{
    static const struct shape shape = {64, 96, 6, 1, 400, 3, false};
    omp_set_num_threads(4);
    EACH_PRODUCTS(products)
    {
        struct bed b;
        bed_init(&b, 8, MOESIM_SWIGLU, &shape, products);
        const size_t n = 400 * 64, matrices = 7 * moesim_layer_matrix_size(&b.layer, MOESIM_W_IN);
        float *first = moesim_alloc(b.arena, n, sizeof *first), *d_first = moesim_alloc(b.arena, n, sizeof *d_first);
        float *d_in = moesim_alloc(b.arena, matrices, sizeof *d_in);
        for (int threads = 1; threads <= 8; threads *= 2) { /* 8: more than the scratch was made for */
            omp_set_num_threads(threads);
            memset(b.output, 0xff, n * sizeof *b.output);
            moesim_layer_forward(&b.layer, &b.plan, b.hidden, b.output);
            moesim_layer_backward(&b.layer, &b.plan, b.hidden, b.d_output, false, b.d_hidden, b.d_weight);
            if (threads == 1) {
                memcpy(first, b.output, n * sizeof *first);
                memcpy(d_first, b.d_hidden, n * sizeof *first);
                memcpy(d_in, b.layer.d_in, matrices * sizeof *d_in);
            }
            cr_assert_arr_eq(b.output, first, n * sizeof *first, "%d threads", threads);
            cr_assert_arr_eq(b.d_hidden, d_first, n * sizeof *first, "%d threads", threads);
            cr_assert_arr_eq(b.layer.d_in, d_in, matrices * sizeof *d_in, "%d threads", threads);
        }
        bed_finish(&b);
        omp_set_num_threads(4);
    }
}

Test(layer, weights)
{
    static const struct shape shape = {64, 32, 5, 1, 1, 1, false};
    struct bed b, other, blas;
    bed_init(&b, 4, MOESIM_SWIGLU, &shape, moesim_products_find("portable"));
    bed_init(&other, 5, MOESIM_SWIGLU, &shape, moesim_products_find("portable"));
    bed_init(&blas, 4, MOESIM_SWIGLU, &shape, moesim_products_find("openblas"));
    const int n = 6 * 64 * 32;
    double in = 0, gate = 0, out = 0;
    for (int i = 0; i < n; i++) {
        in += pow(b.layer.w_in[i], 2);
        gate += pow(b.layer.w_gate[i], 2);
        out += pow(b.layer.w_out[i], 2);
        cr_assert(b.layer.w_in[i] != b.layer.w_gate[i] && b.layer.w_in[i] != other.layer.w_in[i]);
    }
    const double tolerated = 5 * sqrt(2. / n);
    cr_assert_float_eq(in / n * 64, 1, tolerated);
    cr_assert_float_eq(gate / n * 64, 1, tolerated);
    cr_assert_float_eq(out / n * 32, 1, tolerated);
    for (uint32_t i = 0; i < 64; i++) /* one layout or another, the weights are the same */
        for (uint32_t j = 0; j < 32; j++) {
            cr_assert_eq(b.layer.w_in[moesim_layer_place(&b.layer, MOESIM_W_IN, 3, i, j)],
                         blas.layer.w_in[(3 * 64 + i) * 32 + j]);
            cr_assert_eq(b.layer.w_out[moesim_layer_place(&b.layer, MOESIM_W_OUT, 5, j, i)],
                         blas.layer.w_out[(5 * 32 + j) * 64 + i]);
        }
    bed_finish(&b);
    bed_finish(&other);
    bed_finish(&blas);
}

Test(layer, refuses_what_it_cannot_run)
{
    struct moesim_arena *few = moesim_arena_create(200000), *arena = moesim_arena_create(0);
    struct moesim_error err;
    struct moesim_layer layer;
    const struct moesim_products *products = moesim_products_find(NULL);
    const struct moesim_model model = {.d_model = 64, .d_ff = 64, .activation = MOESIM_GELU};
    const uint8_t kind[2] = {MOESIM_EXPERT_FFN, MOESIM_EXPERT_CONSTANT};
    cr_assert_eq(moesim_layer_init(&layer, 1, 0, &model, 2, kind, 4, 8, false, products, arena, &err), MOESIM_EINVAL);
    cr_assert(strstr(err.text, "expert 1"), "%s", err.text);
    for (uint32_t experts = 1; experts < 40; experts++) /* memory ends at every allocation in turn */
        if (moesim_layer_init(&layer, 1, 0, &model, experts, NULL, 4, 8, experts % 2, products, few, &err)) {
            cr_assert(strstr(err.text, "no memory"), "%s", err.text);
            break;
        }
    moesim_arena_destroy(few);
    moesim_arena_destroy(arena);
}

/* libgslcblas, which GSL's own pkg-config file puts first, is 17 times slower. */
Test(layer, blas_is_openblas)
{
    Dl_info info;
    void *address;
    void (*function)(void) = (void (*)(void))cblas_sgemm;
    memcpy(&address, &function, sizeof address);
    cr_assert_neq(dladdr(address, &info), 0);
    cr_assert(strstr(info.dli_fname, "openblas"), "%s", info.dli_fname);
    const char *path = moesim_products_path(moesim_products_find("openblas"));
    cr_assert(strncmp(path, "openblas ", 9) == 0 && strlen(path) > 9);
    cr_assert_str_eq(moesim_products_path(moesim_products_find("portable")), "portable");
    cr_assert_null(moesim_products_find("none"));
}
