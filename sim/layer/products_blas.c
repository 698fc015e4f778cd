/*
 * The products by OpenBLAS, over row-major matrices: for processors without AVX2 and FMA.
 */
#include "sim/layer/products.h"

#include <stdio.h>

#include <cblas.h>

static void start(void)
{
    /* One thread a product, since the parallel loops are ours. The OpenMP flavour hands this number on to
     * omp_set_num_threads; inside a parallel region it uses one thread without being told. */
    if (openblas_get_parallel() == OPENBLAS_THREAD)
        openblas_set_num_threads(1);
}

static void multiply(const struct moesim_product *p)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (blasint)p->n_rows, (blasint)p->width, (blasint)p->n_terms,
                1, p->a, (blasint)p->n_terms, p->b, (blasint)p->width, p->add ? 1 : 0, p->out, (blasint)p->width);
}

static void multiply_transposed(const struct moesim_product *p)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (blasint)p->n_rows, (blasint)p->width, (blasint)p->n_terms, 1,
                p->a, (blasint)p->n_rows, p->b, (blasint)p->width, p->add ? 1 : 0, p->out, (blasint)p->width);
}

/* By squares that stay in the first-level cache. */
static void transpose(uint32_t n_rows, uint32_t n_columns, const float *w, uint32_t first, uint32_t n_panels,
                      float *out)
{
    const uint32_t square = 32;
    (void)first;
    (void)n_panels;
    for (uint32_t row = 0; row < n_rows; row += square)
        for (uint32_t column = 0; column < n_columns; column += square)
            for (uint32_t c = column; c < n_columns && c < column + square; c++)
                for (uint32_t r = row; r < n_rows && r < row + square; r++)
                    out[(size_t)c * n_rows + r] = w[(size_t)r * n_columns + c];
}

const struct moesim_products moesim_products_openblas = {
    .name = "openblas",
    .width = 0,
    .start = start,
    .multiply = multiply,
    .multiply_transposed = multiply_transposed,
    .transpose = transpose,
};

const char *moesim_products_path(const struct moesim_products *products)
{
    static char path[64];
    if (products != &moesim_products_openblas)
        return products->name;
    snprintf(path, sizeof path, "%s %s", products->name, openblas_get_corename());
    return path;
}
