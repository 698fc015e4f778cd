/*
 * Matrix products over panels of WIDTH columns. One source for three builds, AVX-512, AVX2 with FMA, and portable: a
 * tile of up to MOST_ROWS x WIDTH sums stays in registers while it runs through its terms (Goto and van de Geijn 2008;
 * Van Zee and van de Geijn 2015). Every element is one chain of additions in the order of its terms; few rows, whose
 * chains would leave the processor waiting, take two or four chains side by side. Neither depends on how work is split
 * between threads.
 */
#include "sim/layer/products.h"

#include <string.h>

#ifdef __FMA__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define WIDTH (2 * LANES)
#define STEP 16                                   /* terms that are unrolled */
#define LINE 64                                   /* bytes of a cache line */
#define TERM_LINES (WIDTH * sizeof(float) / LINE) /* lines of b that a term takes */
/* Terms that one pass takes: a panel of b stays in the first-level cache and leaves room for a tile's rows of a, those
 * of a block of rows stay in the second. */
#define PASS_TERMS 256
/* Rows whose sums fit the registers, and those of which two panels' sums do. */
#if defined(__AVX512F__)
#define MOST_ROWS 12
#define PAIR_ROWS 6
#elif defined(__AVX2__) || !defined(__x86_64__)
#define MOST_ROWS 6
#define PAIR_ROWS 3
#else
#define MOST_ROWS 3
#define PAIR_ROWS 1
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
#ifdef __AVX512F__
    return (lanes)_mm512_set1_ps(x);
#else
    return (lanes){x, x, x, x, x, x, x, x};
#endif
}

INLINE lanes add_product(lanes a, lanes b, lanes sum)
{
#ifdef __AVX512F__
    return (lanes)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (lanes)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#else
    return a * b + sum;
#endif
}

INLINE lanes load(const float *x)
{
    return *(const lanes *)x;
}

/* Where a tile's terms are: term k of row r is a[(k / WIDTH) * a_chunk + r * a_row + (k % WIDTH) * a_term], its WIDTH
 * factors are b[WIDTH k]. A tile of two panels takes the other one's `b_apart` further on, and puts its sums
 * `out_apart` further on. */
struct terms {
    const float *a, *b;
    size_t a_chunk, b_apart, out_apart;
    uint32_t n;
    const float *next; /* where b goes on after these terms, to be read ahead */
};

/* What comes next and is in no cache yet: some lines of it are asked for with every chunk of WIDTH terms. */
struct ahead {
    uintptr_t next; /* may lie behind the end of an array: it is never read */
    uint32_t lines;
};

INLINE void read_ahead(struct ahead *ahead)
{
    for (uint32_t i = 0; i < ahead->lines; i++, ahead->next += LINE)
        __builtin_prefetch((const void *)ahead->next, 0, 2);
}

/* What a tile's kernel is made for: rows, panels, and ways, of which way w takes the terms k with k % ways = w. */
struct shape {
    int rows, panels, ways;
    size_t a_row, a_term;
    uint32_t ahead; /* terms that b's lines are asked for before their use, 0 = not */
};

/* Term k; what comes `ahead` of it is asked for at `soon`. */
INLINE void add_term(const struct shape shape, const int k, const float *a, const float *b, uintptr_t soon,
                     size_t b_apart, lanes sum[][2])
{
    lanes(*const way)[2] = sum + k % shape.ways * shape.rows * shape.panels;
    lanes factor[2][2];
    UNROLL
    for (int p = 0; p < shape.panels; p++) {
        const size_t place = (size_t)p * b_apart + (size_t)k * WIDTH;
        for (uintptr_t line = 0; shape.ahead && line < TERM_LINES; line++)
            __builtin_prefetch((const void *)(soon + place * sizeof(float) + line * LINE), 0, 3);
        factor[p][0] = load(b + place);
        factor[p][1] = load(b + place + LANES);
    }
    UNROLL
    for (int r = 0; r < shape.rows; r++) {
        const lanes x = splat(a[(size_t)r * shape.a_row + (size_t)k * shape.a_term]);
        UNROLL
        for (int i = 0; i < 2 * shape.panels; i++) {
            lanes *const own = &way[shape.panels * r + i / 2][i % 2];
            *own = add_product(x, factor[i / 2][i % 2], *own);
        }
    }
}

/* out [rows][WIDTH] of each panel (+)= the tile's sum of products. */
INLINE void add_tile(const struct shape shape, const struct terms *terms, struct ahead *ahead, const bool add,
                     float *out)
{
    const int n = shape.rows * shape.panels;
    lanes sum[12][2];
    UNROLL
    for (int i = 0; i < n * shape.ways; i++) {
        const float *const from = out + (size_t)(i % shape.panels) * terms->out_apart + i / shape.panels * WIDTH;
        sum[i][0] = add && i < n ? load(from) : splat(0);
        sum[i][1] = add && i < n ? load(from + LANES) : splat(0);
    }
    const float *a = terms->a, *b = terms->b;
    uint32_t left = terms->n;
    for (; left >= WIDTH; left -= WIDTH, a += terms->a_chunk, b += WIDTH * WIDTH) {
        const uintptr_t soon = left > shape.ahead ? (uintptr_t)(b + shape.ahead * WIDTH)
                                                  : (uintptr_t)terms->next + (shape.ahead - left) * TERM_LINES * LINE;
        read_ahead(ahead);
        for (size_t step = 0; step < WIDTH; step += STEP) {
            UNROLL
            for (int k = 0; k < STEP; k++)
                add_term(shape, k, a + step * shape.a_term, b + step * WIDTH, soon + step * TERM_LINES * LINE,
                         terms->b_apart, sum);
        }
    }
    const struct shape last = {shape.rows, shape.panels, shape.ways, shape.a_row, shape.a_term, 0};
    for (uint32_t k = 0; k < left; k++)
        add_term(last, 0, a + k * shape.a_term, b + (size_t)k * WIDTH, 0, terms->b_apart, sum);
    UNROLL
    for (int i = 0; i < n; i++)
        for (int half = 0; half < 2; half++) {
            lanes total = sum[i][half];
            for (int w = 1; w < shape.ways; w++)
                total += sum[w * n + i][half];
            float *const to = out + (size_t)(i % shape.panels) * terms->out_apart + i / shape.panels * WIDTH;
            *(lanes *)(to + half * LANES) = total;
        }
}

/* ---- a times b ---- */

/* Rows of a lie WIDTH floats apart, terms side by side. */
#define CASE(n_rows, n_panels, n_ways, terms_ahead)                                                                    \
    case n_rows:                                                                                                       \
        add_tile((struct shape){n_rows, n_panels, n_ways, WIDTH, 1, terms_ahead}, terms, ahead, add, out);             \
        break;

/* ---- few rows: they pass over b once, as fast as it comes from memory ---- */

/* Terms that a line is asked for ahead, all the way into the first-level cache: 8 KB, of a pair 4 KB each. */
#define STREAM_AHEAD (2048 / WIDTH)
#define PAIR_AHEAD (1024 / WIDTH)

static void stream_panel(uint32_t n_rows, const struct terms *terms, bool add, float *out)
{
    struct ahead *const ahead = &(struct ahead){0};
    switch (n_rows) {
        CASE(1, 1, 2, STREAM_AHEAD)
        CASE(2, 1, 1, STREAM_AHEAD)
        CASE(3, 1, 1, STREAM_AHEAD)
#if MOST_ROWS >= 6
        CASE(4, 1, 1, STREAM_AHEAD)
        CASE(5, 1, 1, STREAM_AHEAD)
        CASE(6, 1, 1, STREAM_AHEAD)
#endif
#if MOST_ROWS == 12
        CASE(7, 1, 1, STREAM_AHEAD)
        CASE(8, 1, 1, STREAM_AHEAD)
        CASE(9, 1, 1, STREAM_AHEAD)
        CASE(10, 1, 1, STREAM_AHEAD)
        CASE(11, 1, 1, STREAM_AHEAD)
        CASE(12, 1, 1, STREAM_AHEAD)
#endif
    }
}

/* Two panels: two streams come faster than one. */
static void stream_pair(uint32_t n_rows, const struct terms *terms, bool add, float *out)
{
    struct ahead *const ahead = &(struct ahead){0};
    switch (n_rows) {
        CASE(1, 2, 2, PAIR_AHEAD)
#if PAIR_ROWS >= 3
        CASE(2, 2, 1, PAIR_AHEAD)
        CASE(3, 2, 1, PAIR_AHEAD)
#endif
#if PAIR_ROWS == 6
        CASE(4, 2, 1, PAIR_AHEAD)
        CASE(5, 2, 1, PAIR_AHEAD)
        CASE(6, 2, 1, PAIR_AHEAD)
#endif
    }
}

/* By pairs of neighbours, then what is left of an odd number. */
static void stream(const struct moesim_product *product)
{
    const size_t a_panel = (size_t)product->n_rows * WIDTH, b_panel = (size_t)product->n_terms * WIDTH;
    const uint32_t in_pairs = product->n_rows <= PAIR_ROWS ? product->n_panels / 2 * 2 : 0;
    struct terms terms = {
        .a = product->a, .a_chunk = a_panel, .b_apart = b_panel, .out_apart = a_panel, .n = product->n_terms};
    for (uint32_t p = 0, n; p < product->n_panels; p += n) {
        n = p < in_pairs ? 2 : 1;
        terms.b = product->b + p * b_panel;
        terms.next = p + n < product->n_panels ? terms.b + n * b_panel : product->next;
        if (!terms.next)
            terms.next = terms.b; /* in the cache: asking for it costs least */
        if (n == 2)
            stream_pair(product->n_rows, &terms, product->add, product->out + p * a_panel);
        else
            stream_panel(product->n_rows, &terms, product->add, product->out + p * a_panel);
    }
}

/* ---- more rows ---- */

static void add_rows(uint32_t n_rows, const struct terms *terms, struct ahead *ahead, bool add, float *out)
{
    switch (n_rows) { /* two tiles or more: half of MOST_ROWS and one more, at least */
#if MOST_ROWS == 3
        CASE(2, 1, 1, 0)
        CASE(3, 1, 1, 0)
#elif MOST_ROWS == 6
        CASE(3, 1, 2, 0)
        CASE(4, 1, 1, 0)
        CASE(5, 1, 1, 0)
        CASE(6, 1, 1, 0)
#else
        CASE(6, 1, 1, 0)
        CASE(7, 1, 1, 0)
        CASE(8, 1, 1, 0)
        CASE(9, 1, 1, 0)
        CASE(10, 1, 1, 0)
        CASE(11, 1, 1, 0)
        CASE(12, 1, 1, 0)
#endif
    }
}

/* One panel of out over some terms, while the terms of the next one are read ahead. */
static void add_panel(uint32_t n_rows, const struct terms *terms, bool add, uintptr_t next, float *out)
{
    const uint32_t n_tiles = (n_rows + MOST_ROWS - 1) / MOST_ROWS, least = n_rows / n_tiles, more = n_rows % n_tiles;
    const uint32_t chunks = n_tiles * (terms->n / WIDTH);
    struct ahead ahead = {next, next && chunks ? ((uint32_t)TERM_LINES * terms->n + chunks - 1) / chunks : 0};
    struct terms tile = *terms;
    for (uint32_t i = 0; i < n_tiles; i++) {
        const uint32_t rows = least + (i < more);
        add_rows(rows, &tile, &ahead, add, out);
        tile.a += (size_t)rows * WIDTH;
        out += (size_t)rows * WIDTH;
    }
}

/* Where b goes on after terms [k, k + n) of panel p. */
static uintptr_t next_of(const struct moesim_product *product, uint32_t k, uint32_t n, uint32_t p)
{
    const size_t row = WIDTH * sizeof(float), panel = product->n_terms * row;
    if (p + 1 < product->n_panels)
        return (uintptr_t)product->b + k * row + (p + 1) * panel;
    return k + n < product->n_terms ? (uintptr_t)product->b + (k + n) * row : (uintptr_t)product->next;
}

static void multiply(const struct moesim_product *product)
{
    if (product->n_rows <= MOST_ROWS) {
        stream(product);
        return;
    }
    /* two tiles: the second finds a shorter piece of the panel in the first-level cache */
    const uint32_t n_terms = product->n_terms, pass = product->n_rows <= 2 * MOST_ROWS ? PASS_TERMS / 2 : PASS_TERMS;
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
#define CASE(n_rows)                                                                                                   \
    case n_rows:                                                                                                       \
        add_tile((struct shape){n_rows, 1, 1, 1, WIDTH, 0}, terms, &none, add, out);                                   \
        break;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
#if MOST_ROWS >= 6
        CASE(4)
        CASE(5)
        CASE(6)
#endif
#if MOST_ROWS == 12
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
#endif
    }
}

/* WIDTH columns of a, or the last ones, by one panel of b. */
static void add_square(uint32_t n_rows, struct terms terms, bool add, float *out)
{
    const uint32_t n_tiles = (n_rows + MOST_ROWS - 1) / MOST_ROWS, least = n_rows / n_tiles, more = n_rows % n_tiles;
    for (uint32_t i = 0; i < WIDTH * TERM_LINES; i++) /* where the panel goes on, to be written */
        __builtin_prefetch((const void *)((uintptr_t)out + (WIDTH * TERM_LINES + i) * LINE), 1, 2);
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

typedef float eight __attribute__((vector_size(8 * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int places __attribute__((vector_size(8 * sizeof(int))));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

/* out[WIDTH c + r] = in[WIDTH r + c] of eight rows and columns: pairs, fours, halves. */
INLINE void transpose_8(const float *in, float *out)
{
    eight r[8], s[8];
    for (int i = 0; i < 8; i++)
        r[i] = *(const eight *)(in + i * WIDTH);
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
        *(eight *)(out + i * WIDTH) = SHUFFLE(r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(eight *)(out + (i + 4) * WIDTH) = SHUFFLE(r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* WIDTH rows of one panel of w become columns of out; the square at `soon` is asked for by the way. */
static void transpose_square(const float *panel, uintptr_t soon, float *out)
{
    enum { LINES = 64 * sizeof(float) / LINE }; /* of eight by eight */
    for (int i = 0; i < WIDTH; i += 8)
        for (int j = 0; j < WIDTH; j += 8) {
            for (int line = 0; line < LINES; line++, soon += LINE)
                __builtin_prefetch((const void *)soon, 0, 3);
            transpose_8(panel + i * WIDTH + j, out + j * WIDTH + i);
        }
}

/* n rows of one panel of w, or its first n_columns columns. */
static void transpose_part(const float *panel, uint32_t n, uint32_t n_columns, float *out)
{
    for (uint32_t c = 0; c < n_columns; c++)
        for (uint32_t r = 0; r < WIDTH; r++)
            out[c * WIDTH + r] = r < n ? panel[r * WIDTH + c] : 0;
}

/* w's panels one after the other, so that it is read in long pieces. */
static void transpose(uint32_t n_rows, uint32_t n_columns, const float *w, uint32_t first, uint32_t n_panels,
                      float *out)
{
    const size_t square = WIDTH * WIDTH, panel = (size_t)n_rows * WIDTH;
    for (uint32_t c = 0; c < n_columns; c += WIDTH)
        for (uint32_t p = 0; p < n_panels; p++) {
            const uint32_t row = (first + p) * WIDTH, n = n_rows - row < WIDTH ? n_rows - row : WIDTH;
            const float *from = w + c / WIDTH * panel + (size_t)row * WIDTH;
            const size_t soon = p + 2 < n_panels ? 2 * square : panel - (n_panels - 2) * square;
            float *const to = out + ((size_t)p * n_columns + c) * WIDTH;
            if (n == WIDTH && n_columns - c >= WIDTH)
                transpose_square(from, (uintptr_t)from + soon * sizeof(float), to);
            else
                transpose_part(from, n, n_columns - c < WIDTH ? n_columns - c : WIDTH, to);
        }
}

const struct moesim_products PRODUCTS = {
    .name = PRODUCTS_NAME,
    .width = WIDTH,
    .multiply = multiply,
    .multiply_transposed = multiply_transposed,
    .transpose = transpose,
};
