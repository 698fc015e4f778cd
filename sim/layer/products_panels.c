/*
 * Matrix products over panels of 16 columns. One source for two builds, AVX2 with FMA and portable: a tile of up to
 * MOST_ROWS x 16 sums stays in registers while it runs through its terms (Goto and van de Geijn 2008; Van Zee and van
 * de Geijn 2015). Every element is one chain of additions in the order of its terms; few rows, whose chains would leave
 * the processor waiting, take two or four chains side by side. Neither depends on how work is split between threads.
 */
#include "sim/layer/products.h"

#include <string.h>

#ifdef __FMA__
#include <immintrin.h>
#endif

#define WIDTH 16
#define LANES 8
#define LINE 64 /* bytes of a cache line */
/* Terms that one pass takes: `a` of a block of rows stays in the second-level cache, a panel of b in the first. */
#define PASS_TERMS 512
/* Up to so many rows take the weights as fast as they come from memory: they pass over them once, and leave reading
 * ahead to the processor, which follows a stream best when it is alone. */
#define STREAM_ROWS 4
/* Rows whose sums fit the registers. */
#if defined(__AVX2__) || !defined(__x86_64__)
#define MOST_ROWS 6
#else
#define MOST_ROWS 3
#endif

#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));
#define INLINE static inline __attribute__((always_inline))

INLINE lanes splat(float x)
{
    return (lanes){x, x, x, x, x, x, x, x};
}

INLINE lanes add_product(lanes a, lanes b, lanes sum)
{
#ifdef __FMA__
    return (lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return a * b + sum;
#endif
}

INLINE lanes load(const float *x)
{
    return *(const lanes *)x;
}

/* Where a tile's terms are: term k of row r is a[(k / 16) * a_chunk + r * a_row + (k % 16) * a_term], its 16 factors
 * are b[16 k]. */
struct terms {
    const float *a, *b;
    size_t a_chunk;
    uint32_t n;
};

/* What comes next and is in no cache yet: some lines of it are asked for with every chunk of 16 terms. */
struct ahead {
    uintptr_t next; /* may lie behind the end of an array: it is never read */
    uint32_t lines;
};

INLINE void read_ahead(struct ahead *ahead)
{
    for (uint32_t i = 0; i < ahead->lines; i++, ahead->next += LINE)
        __builtin_prefetch((const void *)ahead->next, 0, 2);
}

/* One term; way w of `ways` takes the terms k with k % ways = w. */
INLINE void add_term(const int rows, const int ways, const int k, const size_t a_row, const size_t a_term,
                     const float *a, const float *b, lanes sum[][2])
{
    const lanes low = load(b + k * WIDTH), high = load(b + k * WIDTH + LANES);
    lanes(*const way)[2] = sum + k % ways * rows;
    UNROLL
    for (int r = 0; r < rows; r++) {
        const lanes x = splat(a[(size_t)r * a_row + (size_t)k * a_term]);
        way[r][0] = add_product(x, low, way[r][0]);
        way[r][1] = add_product(x, high, way[r][1]);
    }
}

/* out [rows][16] (+)= the tile's sum of products. */
INLINE void add_tile(const int rows, const int ways, const size_t a_row, const size_t a_term, const struct terms *terms,
                     struct ahead *ahead, const bool add, float *out)
{
    lanes sum[12][2];
    UNROLL
    for (int i = 0; i < rows * ways; i++) {
        const bool kept = add && i < rows;
        sum[i][0] = kept ? load(out + i * WIDTH) : splat(0);
        sum[i][1] = kept ? load(out + i * WIDTH + LANES) : splat(0);
    }
    const float *a = terms->a, *b = terms->b;
    uint32_t left = terms->n;
    for (; left >= WIDTH; left -= WIDTH, a += terms->a_chunk, b += WIDTH * WIDTH) {
        read_ahead(ahead);
        UNROLL
        for (int k = 0; k < WIDTH; k++)
            add_term(rows, ways, k, a_row, a_term, a, b, sum);
    }
    for (uint32_t k = 0; k < left; k++)
        add_term(rows, ways, 0, a_row, a_term, a + k * a_term, b + (size_t)k * WIDTH, sum);
    UNROLL
    for (int r = 0; r < rows; r++)
        for (int half = 0; half < 2; half++) {
            lanes total = sum[r][half];
            for (int w = 1; w < ways; w++)
                total += sum[w * rows + r][half];
            *(lanes *)(out + r * WIDTH + half * LANES) = total;
        }
}

/* ---- a times b ---- */

/* Rows of a lie 16 floats apart, terms side by side. */
static void add_rows(uint32_t n_rows, const struct terms *terms, struct ahead *ahead, bool add, float *out)
{
#define CASE(rows, ways)                                                                                               \
    case rows:                                                                                                         \
        add_tile(rows, ways, WIDTH, 1, terms, ahead, add, out);                                                        \
        break;
    switch (n_rows) {
        CASE(1, 4)
#if MOST_ROWS == 3
        CASE(2, 1)
        CASE(3, 1)
#else
        CASE(2, 2)
        CASE(3, 2)
        CASE(4, 1)
        CASE(5, 1)
        CASE(6, 1)
#endif
    }
}

/* One panel of out over some terms, while the terms of the next one are read ahead. */
static void add_panel(uint32_t n_rows, const struct terms *terms, bool add, uintptr_t next, float *out)
{
    const uint32_t fewest = n_rows <= STREAM_ROWS ? 1 : 2, enough = (n_rows + MOST_ROWS - 1) / MOST_ROWS;
    const uint32_t n_tiles = enough > fewest ? enough : fewest, least = n_rows / n_tiles, more = n_rows % n_tiles;
    const uint32_t chunks = n_tiles * (terms->n / WIDTH);
    struct ahead ahead = {next, next && chunks ? (terms->n + chunks - 1) / chunks : 0};
    struct terms tile = *terms;
    for (uint32_t i = 0; i < n_tiles; i++) {
        const uint32_t rows = least + (i < more);
        add_rows(rows, &tile, &ahead, add, out);
        tile.a += (size_t)rows * WIDTH;
        out += (size_t)rows * WIDTH;
    }
}

/* Where b goes on after terms [k, k + n) of panel p, 0 = nothing to be done about it. */
static uintptr_t next_of(const struct moesim_product *product, uint32_t k, uint32_t n, uint32_t p)
{
    const size_t row = WIDTH * sizeof(float), panel = product->n_terms * row;
    if (product->n_rows <= STREAM_ROWS)
        return 0;
    if (p + 1 < product->n_panels)
        return (uintptr_t)product->b + k * row + (p + 1) * panel;
    return k + n < product->n_terms ? (uintptr_t)product->b + (k + n) * row : (uintptr_t)product->next;
}

/* Terms of a pass: a second tile finds a shorter piece of the panel in the first-level cache. */
static uint32_t pass_of(uint32_t n_rows, uint32_t n_terms)
{
    if (n_rows <= STREAM_ROWS)
        return n_terms;
    return n_rows <= 2 * MOST_ROWS ? PASS_TERMS / 2 : PASS_TERMS;
}

static void multiply(const struct moesim_product *product)
{
    const uint32_t n_terms = product->n_terms, pass = pass_of(product->n_rows, n_terms);
    const size_t a_panel = (size_t)product->n_rows * WIDTH, b_panel = (size_t)n_terms * WIDTH;
    for (uint32_t k = 0; k < n_terms; k += pass) {
        struct terms terms = {.a = product->a + k / WIDTH * a_panel, .a_chunk = a_panel};
        terms.n = n_terms - k < pass ? n_terms - k : pass;
        for (uint32_t p = 0; p < product->n_panels; p++) {
            terms.b = product->b + p * b_panel + (size_t)k * WIDTH;
            add_panel(product->n_rows, &terms, product->add || k > 0, next_of(product, k, terms.n, p),
                      product->out + p * a_panel);
        }
    }
}

/* ---- a transposed times b ---- */

/* `rows` columns of one panel of a; its rows are the terms. */
static void add_columns(uint32_t rows, const struct terms *terms, bool add, float *out)
{
    struct ahead none = {0};
#undef CASE
#define CASE(rows)                                                                                                     \
    case rows:                                                                                                         \
        add_tile(rows, 1, 1, WIDTH, terms, &none, add, out);                                                           \
        break;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
#if MOST_ROWS == 6
        CASE(4)
        CASE(5)
        CASE(6)
#endif
    }
}

/* 16 columns of a, or the last ones, by one panel of b. */
static void add_square(uint32_t n_rows, struct terms terms, bool add, float *out)
{
    const uint32_t n_tiles = (n_rows + MOST_ROWS - 1) / MOST_ROWS, least = n_rows / n_tiles, more = n_rows % n_tiles;
    for (uint32_t i = 0; i < WIDTH; i++) /* where the panel goes on, to be written */
        __builtin_prefetch((const void *)((uintptr_t)out + (WIDTH + i) * LINE), 1, 2);
    for (uint32_t i = 0; i < n_tiles; i++) {
        const uint32_t n = least + (i < more);
        add_columns(n, &terms, add, out);
        terms.a += n;
        out += (size_t)n * WIDTH;
    }
}

static void multiply_transposed(const struct moesim_product *product)
{
    const size_t panel = (size_t)product->n_terms * WIDTH, out_panel = (size_t)product->n_rows * WIDTH;
    const float *a = product->a;
    for (uint32_t row = 0; row < product->n_rows; row += WIDTH, a += panel)
        for (uint32_t p = 0; p < product->n_panels; p++) {
            const struct terms terms = {
                .a = a, .b = product->b + p * panel, .a_chunk = WIDTH * WIDTH, .n = product->n_terms};
            add_square(product->n_rows - row < WIDTH ? product->n_rows - row : WIDTH, terms, product->add,
                       product->out + p * out_panel + (size_t)row * WIDTH);
        }
}

/* ---- transposition ---- */

typedef int places __attribute__((vector_size(LANES * sizeof(int))));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* out[16 c + r] = in[16 r + c] of eight rows and columns: pairs, fours, halves. */
INLINE void transpose_8(const float *in, float *out)
{
    lanes r[8], s[8];
    for (int i = 0; i < 8; i++)
        r[i] = load(in + i * WIDTH);
    for (int i = 0; i < 8; i += 2) {
        s[i] = SHUFFLE(r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        s[i + 1] = SHUFFLE(r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = SHUFFLE(s[i + j], s[i + j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
            r[i + 2 * j + 1] = SHUFFLE(s[i + j], s[i + j + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        }
    for (int i = 0; i < 4; i++) {
        *(lanes *)(out + i * WIDTH) = SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(lanes *)(out + (i + 4) * WIDTH) = SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Rows [row, row + n) of one panel of w become columns of n_columns rows of out. */
static void transpose_part(const float *panel, uint32_t n, uint32_t n_columns, float *out)
{
    if (n == WIDTH && n_columns == WIDTH) {
        for (int i = 0; i < WIDTH; i += LANES)
            for (int j = 0; j < WIDTH; j += LANES)
                transpose_8(panel + i * WIDTH + j, out + j * WIDTH + i);
        return;
    }
    for (uint32_t c = 0; c < n_columns; c++)
        for (uint32_t r = 0; r < WIDTH; r++)
            out[c * WIDTH + r] = r < n ? panel[r * WIDTH + c] : 0;
}

/* w's panels one after the other, so that it is read in long pieces. */
static void transpose(uint32_t n_rows, uint32_t n_columns, const float *w, uint32_t first, uint32_t n_panels,
                      float *out)
{
    for (uint32_t c = 0; c < n_columns; c += WIDTH)
        for (uint32_t p = 0; p < n_panels; p++) {
            const uint32_t row = (first + p) * WIDTH, n = n_rows - row < WIDTH ? n_rows - row : WIDTH;
            const float *panel = w + (size_t)c * n_rows + (size_t)row * WIDTH;
            for (uint32_t i = 0; i < WIDTH; i++)
                __builtin_prefetch((const void *)((uintptr_t)panel + ((size_t)2 * n_rows + i) * LINE), 0, 2);
            transpose_part(panel, n, n_columns - c < WIDTH ? n_columns - c : WIDTH,
                           out + ((size_t)p * n_columns + c) * WIDTH);
        }
}

const struct moesim_products PRODUCTS = {
    .name = PRODUCTS_NAME,
    .width = WIDTH,
    .multiply = multiply,
    .multiply_transposed = multiply_transposed,
    .transpose = transpose,
};
