/*
 * Each matrix product against the loop that defines it, in double precision, over every number of rows.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>

#include <moesim/random.h>

#include "sim/layer/products.h"

TestSuite(products, .timeout = 60);

static const char *const all_products[] = {"avx512", "avx2-fma", "portable", "openblas"};
#define N_PRODUCTS (sizeof all_products / sizeof *all_products)

/* A random matrix in panels; the columns that fill the last one up are zero. */
struct matrix {
    uint32_t n_rows, n_columns, width, n_panels;
    float *at;
};

static float *element(const struct matrix *m, uint32_t row, uint32_t column)
{
    return m->at + (size_t)column / m->width * m->n_rows * m->width + (size_t)row * m->width + column % m->width;
}

static struct matrix make(const struct moesim_products *products, uint32_t n_rows, uint32_t n_columns, uint32_t seed)
{
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    struct matrix m = {n_rows, n_columns, moesim_panel_width(products, n_columns),
                       moesim_panel_count(products, n_columns), NULL};
    m.at = calloc((size_t)n_rows * m.n_panels * m.width, sizeof *m.at);
    for (uint32_t r = 0; r < n_rows; r++)
        for (uint32_t c = 0; c < n_columns; c++)
            moesim_random_normals(&random, (uint64_t)r * n_columns + c, 1, element(&m, r, c));
    return m;
}

/* Whether out is (base +) a b or (base +) a^T b within 2e-6 sqrt(depth) of the products' root mean square sum. */
static void check(const struct matrix *a, const struct matrix *b, bool transposed, const struct matrix *base,
                  const struct matrix *out, const char *name)
{
    const uint32_t depth = b->n_rows;
    for (uint32_t r = 0; r < out->n_rows; r++)
        for (uint32_t c = 0; c < out->n_columns; c++) {
            double sum = base ? *element(base, r, c) : 0, squares = sum * sum;
            for (uint32_t k = 0; k < depth; k++) {
                const double term = (double)(transposed ? *element(a, k, r) : *element(a, r, k)) * *element(b, k, c);
                sum += term;
                squares += term * term;
            }
            cr_assert_float_eq(*element(out, r, c), sum, 2e-6 * sqrt(depth) * sqrt(squares) + 1e-30,
                               "%s: [%u][%u] of %u terms, %s: %g, not %g", name, r, c, depth,
                               transposed ? "transposed" : "plain", (double)*element(out, r, c), sum);
        }
}

static void try(const struct moesim_products *p, uint32_t n_rows, uint32_t n_terms, uint32_t n_columns, bool transposed)
{
    struct matrix a = transposed ? make(p, n_terms, n_rows, 1) : make(p, n_rows, n_terms, 1);
    struct matrix b = make(p, n_terms, n_columns, 2), base = make(p, n_rows, n_columns, 3);
    struct matrix out = make(p, n_rows, n_columns, 3), sum = make(p, n_rows, n_columns, 3);
    struct moesim_product product = {n_rows, n_terms, b.n_panels, b.width, a.at, b.at, NULL, false, out.at};
    void (*const multiply)(const struct moesim_product *) = transposed ? p->multiply_transposed : p->multiply;
    multiply(&product);
    check(&a, &b, transposed, NULL, &out, p->name);
    product.add = true;
    product.next = b.at;
    product.out = sum.at;
    multiply(&product);
    check(&a, &b, transposed, &base, &sum, p->name);
    float *const all[] = {a.at, b.at, base.at, out.at, sum.at};
    for (int i = 0; i < 5; i++)
        free(all[i]);
}

Test(products, equal_their_definition)
{
    static const uint32_t terms[] = {1, 7, 16, 37, 64, 531, 1100}, columns[] = {1, 16, 40, 70, 128};
    for (size_t i = 0; i < N_PRODUCTS; i++) {
        const struct moesim_products *p = moesim_products_find(all_products[i]);
        for (uint32_t n_rows = 1; p && n_rows <= 40; n_rows++)
            for (uint32_t t = 0; t < sizeof terms / sizeof *terms; t++)
                for (uint32_t transposed = 0; transposed < 2; transposed++)
                    try(p, n_rows, terms[t], columns[(n_rows + t) % 5], transposed);
        for (uint32_t transposed = 0; p && transposed < 2; transposed++) {
            try(p, 192, 48, 33, transposed);
            try(p, 100, 1025, 64, transposed);
        }
    }
}

Test(products, transposes)
{
    static const uint32_t sizes[] = {1, 5, 8, 16, 17, 31, 48, 100};
    for (size_t i = 0; i < N_PRODUCTS; i++) {
        const struct moesim_products *p = moesim_products_find(all_products[i]);
        for (uint32_t r = 0; p && r < 8; r++)
            for (uint32_t c = 0; c < 8; c++) {
                struct matrix w = make(p, sizes[r], sizes[c], 4), out = make(p, sizes[c], sizes[r], 5);
                const size_t panel = (size_t)out.n_rows * out.width, last = out.n_panels - 1;
                p->transpose(w.n_rows, w.n_columns, w.at, 0, (uint32_t)last, out.at);
                p->transpose(w.n_rows, w.n_columns, w.at, (uint32_t)last, 1, out.at + last * panel);
                for (uint32_t y = 0; y < w.n_columns; y++)
                    for (uint32_t x = 0; x < out.n_panels * out.width; x++)
                        cr_assert_eq(*element(&out, y, x), x < w.n_rows ? *element(&w, x, y) : 0);
                free(w.at);
                free(out.at);
            }
    }
}
