#include "sim/transformer/linear.h"

#include <omp.h>
#include <string.h>

/* Floats of one task's result; without panels a task has all columns. */
static size_t tile_size(const struct moesim_products *products, uint32_t max_width)
{
    const size_t columns = products->width ? (size_t)LINEAR_TILE_PANELS * products->width : max_width;
    return LINEAR_BLOCK_ROWS * columns;
}

enum moesim_status moesim_linear_work_init(struct moesim_linear_work *work, uint32_t max_rows, uint32_t max_in,
                                           uint32_t max_out, const struct moesim_products *products,
                                           struct moesim_arena *arena, struct moesim_error *err)
{
    const size_t in = moesim_panel_columns(products, max_in), out = moesim_panel_columns(products, max_out);
    const uint32_t widest = max_in > max_out ? max_in : max_out;
    *work = (struct moesim_linear_work){.products = products, .n_threads = (uint32_t)omp_get_max_threads()};
    work->left = moesim_alloc(arena, max_rows, in * sizeof(float));
    work->right = moesim_alloc(arena, max_rows, out * sizeof(float));
    work->turned = moesim_alloc(arena, in, out * sizeof(float));
    work->tile = moesim_alloc(arena, work->n_threads, sizeof *work->tile);
    bool ok = work->left && work->right && work->turned && work->tile;
    for (uint32_t i = 0; ok && i < work->n_threads; i++)
        ok = (work->tile[i] = moesim_alloc(arena, tile_size(products, widest), sizeof(float))) != NULL;
    return ok ? MOESIM_OK
              : moesim_fail(err, MOESIM_ENOMEM, "no memory for dense products of %u rows and up to %u columns",
                            max_rows, widest);
}

uint64_t moesim_linear_work_bytes(uint32_t max_rows, uint32_t max_in, uint32_t max_out, uint32_t n_threads)
{
    const uint64_t in = moesim_panel_columns(&moesim_products_portable, max_in),
                   out = moesim_panel_columns(&moesim_products_portable, max_out);
    return sizeof(float) * ((in + out) * max_rows + in * out + n_threads * tile_size(&moesim_products_portable, 0));
}

/* ---- panels ---- */

void moesim_panels_gather(const struct moesim_products *products, const float *source, size_t stride, uint32_t n_rows,
                          uint32_t n_columns, float scale, float *panels)
{
    const uint32_t width = moesim_panel_width(products, n_columns);
    for (uint32_t c = 0; c < n_columns; c += width) {
        const uint32_t n = n_columns - c < width ? n_columns - c : width;
        for (uint32_t r = 0; r < n_rows; r++, panels += width) {
            const float *from = source + r * stride + c;
            for (uint32_t i = 0; i < n; i++)
                panels[i] = scale * from[i];
            if (n < width)
                memset(panels + n, 0, (width - n) * sizeof *panels);
        }
    }
}

void moesim_panels_put(const struct moesim_products *products, const float *panels, uint32_t n_rows, uint32_t n_columns,
                       float scale, bool add, size_t stride, float *rows)
{
    const uint32_t width = moesim_panel_width(products, n_columns);
    for (uint32_t c = 0; c < n_columns; c += width) {
        const uint32_t n = n_columns - c < width ? n_columns - c : width;
        for (uint32_t r = 0; r < n_rows; r++, panels += width) {
            float *to = rows + r * stride + c;
            for (uint32_t i = 0; i < n; i++)
                to[i] = (add ? to[i] : 0) + scale * panels[i];
        }
    }
}

/* ---- tasks ---- */

struct task {
    uint32_t first_row, n_rows, first_panel, n_panels;
};

static uint32_t n_blocks(uint32_t n_rows)
{
    return (n_rows + LINEAR_BLOCK_ROWS - 1) / LINEAR_BLOCK_ROWS;
}

static uint32_t n_tiles(const struct moesim_products *products, uint32_t n_columns)
{
    return (moesim_panel_count(products, n_columns) + LINEAR_TILE_PANELS - 1) / LINEAR_TILE_PANELS;
}

static struct task task_of(const struct moesim_products *products, uint32_t block, uint32_t tile, uint32_t n_rows,
                           uint32_t n_columns)
{
    const uint32_t row = block * LINEAR_BLOCK_ROWS, panel = tile * LINEAR_TILE_PANELS;
    const uint32_t n_panels = moesim_panel_count(products, n_columns);
    return (struct task){row, n_rows - row < LINEAR_BLOCK_ROWS ? n_rows - row : LINEAR_BLOCK_ROWS, panel,
                         n_panels - panel < LINEAR_TILE_PANELS ? n_panels - panel : LINEAR_TILE_PANELS};
}

static void gather_block(const struct moesim_linear_work *work, const float *x, uint32_t n_columns, uint32_t block,
                         uint32_t n_rows, float *panels)
{
    const struct task t = task_of(work->products, block, 0, n_rows, n_columns);
    moesim_panels_gather(work->products, x + (size_t)t.first_row * n_columns, n_columns, t.n_rows, n_columns, 1,
                         panels + (size_t)t.first_row * moesim_panel_columns(work->products, n_columns));
}

/* A task's tile of rows [n_columns], plus those of `base`. */
static void put_tile(const struct moesim_products *products, const struct task *t, uint32_t n_columns,
                     const float *panels, const float *base, float *out)
{
    const uint32_t width = moesim_panel_width(products, n_columns);
    for (uint32_t p = 0; p < t->n_panels; p++) {
        const uint32_t c = (t->first_panel + p) * width, n = n_columns - c < width ? n_columns - c : width;
        for (uint32_t r = 0; r < t->n_rows; r++, panels += width) {
            const size_t place = (size_t)(t->first_row + r) * n_columns + c;
            for (uint32_t i = 0; i < n; i++)
                out[place + i] = (base ? base[place + i] : 0) + panels[i];
        }
    }
}

/* Rows of one tile of out = left times the matrix b [n_terms][n_columns]. */
static void multiply_tile(const struct moesim_linear_work *work, const struct task *t, const float *left,
                          uint32_t n_terms, const float *b, uint32_t n_columns, const float *base, float *out)
{
    float *tile = work->tile[omp_get_thread_num()];
    const uint32_t width = moesim_panel_width(work->products, n_columns);
    const struct moesim_product product = {.n_rows = t->n_rows,
                                           .n_terms = n_terms,
                                           .n_panels = t->n_panels,
                                           .width = width,
                                           .a = left +
                                                (size_t)t->first_row * moesim_panel_columns(work->products, n_terms),
                                           .b = b + (size_t)t->first_panel * n_terms * width,
                                           .out = tile};
    work->products->multiply(&product);
    put_tile(work->products, t, n_columns, tile, base, out);
}

static int threads(const struct moesim_linear_work *work)
{
    const int most = omp_get_max_threads();
    return most < (int)work->n_threads ? most : (int)work->n_threads;
}

void moesim_linear_forward(const struct moesim_linear *linear, const struct moesim_linear_work *work, const float *x,
                           uint32_t n_rows, const float *base, float *out)
{
    const uint32_t blocks = n_blocks(n_rows), tiles = n_tiles(work->products, linear->n_out);
#pragma omp parallel num_threads(threads(work))
    {
#pragma omp for schedule(static)
        for (uint32_t i = 0; i < blocks; i++)
            gather_block(work, x, linear->n_in, i, n_rows, work->left);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < blocks * tiles; i++) {
            const struct task t = task_of(work->products, i / tiles, i % tiles, n_rows, linear->n_out);
            multiply_tile(work, &t, work->left, linear->n_in, linear->w, linear->n_out, base, out);
        }
    }
}

/* Some panels of x^T d_out: one chain over the blocks for each element. */
static void multiply_gradient(const struct moesim_linear *linear, const struct moesim_linear_work *work,
                              uint32_t n_rows, uint32_t tile, bool add)
{
    const struct moesim_products *products = work->products;
    const uint32_t width = moesim_panel_width(products, linear->n_out);
    const size_t in = moesim_panel_columns(products, linear->n_in), out = moesim_panel_columns(products, linear->n_out);
    for (uint32_t i = 0; i < n_blocks(n_rows); i++) {
        const struct task t = task_of(products, i, tile, n_rows, linear->n_out);
        const struct moesim_product product = {.n_rows = linear->n_in,
                                               .n_terms = t.n_rows,
                                               .n_panels = t.n_panels,
                                               .width = width,
                                               .a = work->left + t.first_row * in,
                                               .b = work->right + t.first_row * out +
                                                    (size_t)t.first_panel * t.n_rows * width,
                                               .add = add || i > 0,
                                               .out = linear->d_w + (size_t)t.first_panel * linear->n_in * width};
        products->multiply_transposed(&product);
    }
}

static void turn_tile(const struct moesim_linear *linear, const struct moesim_linear_work *work, uint32_t tile)
{
    const struct task t = task_of(work->products, 0, tile, 1, linear->n_in);
    work->products->transpose(linear->n_in, linear->n_out, linear->w, t.first_panel, t.n_panels,
                              work->turned + (size_t)t.first_panel * linear->n_out *
                                                 moesim_panel_width(work->products, linear->n_in));
}

void moesim_linear_backward(const struct moesim_linear *linear, const struct moesim_linear_work *work, const float *x,
                            const float *d_out, uint32_t n_rows, bool add, float *d_x)
{
    const uint32_t blocks = n_blocks(n_rows), by_in = n_tiles(work->products, linear->n_in),
                   by_out = n_tiles(work->products, linear->n_out);
#pragma omp parallel num_threads(threads(work))
    {
#pragma omp for schedule(static) nowait
        for (uint32_t i = 0; i < blocks; i++)
            gather_block(work, x, linear->n_in, i, n_rows, work->left);
#pragma omp for schedule(static) nowait
        for (uint32_t i = 0; i < blocks; i++)
            gather_block(work, d_out, linear->n_out, i, n_rows, work->right);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < by_in; i++)
            turn_tile(linear, work, i);
#pragma omp for schedule(dynamic, 1) nowait
        for (uint32_t i = 0; i < by_out; i++)
            multiply_gradient(linear, work, n_rows, i, add);
#pragma omp for schedule(dynamic, 1)
        for (uint32_t i = 0; i < blocks * by_in; i++) {
            const struct task t = task_of(work->products, i / by_in, i % by_in, n_rows, linear->n_in);
            multiply_tile(work, &t, work->right, linear->n_out, work->turned, linear->n_in, NULL, d_x);
        }
    }
}
