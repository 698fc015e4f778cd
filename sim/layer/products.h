/*
 * The three matrix products behind the experts, in one layout, so that another kernel can take their place.
 *
 * Panels: a matrix [rows][columns] is stored as ceil(columns / width) panels [rows][width], one after the other; the
 * columns that fill the last one up are zero. With width 0 the whole matrix is one panel, row-major.
 */
#ifndef MOESIM_SIM_LAYER_PRODUCTS_H
#define MOESIM_SIM_LAYER_PRODUCTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out [n_rows][n_panels panels] (+)= a times b [n_terms][n_panels panels], all in panels. */
struct moesim_product {
    uint32_t n_rows, n_terms, n_panels, width;
    const float *a, *b;
    const float *next; /* b of the product that comes after this one, worth reading ahead; NULL = unknown */
    bool add;          /* to out */
    float *out;
};

struct moesim_products {
    const char *name;
    uint32_t width;      /* columns of a panel, 0 = all */
    void (*start)(void); /* before the first product; NULL = nothing to do */

    /* a is [n_rows][n_terms]. */
    void (*multiply)(const struct moesim_product *product);

    /* a is [n_terms][n_rows], and taken transposed. */
    void (*multiply_transposed)(const struct moesim_product *product);

    /* Panels [first, first + n_panels) of the transposed of w [n_rows][n_columns]. */
    void (*transpose)(uint32_t n_rows, uint32_t n_columns, const float *w, uint32_t first, uint32_t n_panels,
                      float *out);
};

/* The products of that name ("avx512", "avx2-fma", "portable", "openblas"), NULL where this build or processor has
 * none. NULL names the fastest of this processor: ours with AVX-512 or with AVX2 and FMA, else OpenBLAS. */
const struct moesim_products *moesim_products_find(const char *name);

/* For the record: the name, for OpenBLAS with its processor core ("openblas Haswell"). */
const char *moesim_products_path(const struct moesim_products *products);

static inline uint32_t moesim_panel_width(const struct moesim_products *products, uint32_t n_columns)
{
    return products->width ? products->width : n_columns;
}

static inline uint32_t moesim_panel_count(const struct moesim_products *products, uint32_t n_columns)
{
    return products->width ? (n_columns + products->width - 1) / products->width : 1;
}

/* n_columns with what fills the last panel up. */
static inline uint32_t moesim_panel_columns(const struct moesim_products *products, uint32_t n_columns)
{
    return moesim_panel_width(products, n_columns) * moesim_panel_count(products, n_columns);
}

extern const struct moesim_products moesim_products_avx512, moesim_products_avx2_fma, moesim_products_portable,
    moesim_products_openblas;

#endif
