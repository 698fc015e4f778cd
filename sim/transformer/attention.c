#include "sim/transformer/attention.h"

#include <math.h>
#include <omp.h>
#include <string.h>

#include "sim/transformer/linear.h"

#define QUERY_ROWS 64 /* of a block: its scores against 512 keys stay in the second-level cache */
#define ROTARY_BASE 10000.0
#define MOST_FILL 64 /* floats behind a row that a panel may have */

/* One thread's memory, as matrices in panels. */
struct work {
    float *keys_turned, *values_turned;       /* [d_head][sequence] */
    float *keys, *values, *d_keys, *d_values; /* [sequence][d_head] */
    float *queries, *d_out, *result;          /* [QUERY_ROWS][d_head] */
    float *scores, *d_scores;                 /* [QUERY_ROWS][sequence] */
    float *row, *d_row;                       /* [sequence] */
};

static uint32_t d_head(const struct moesim_attention *a)
{
    return a->d_model / a->n_heads;
}

/* Sets the pieces of a thread's memory up, and returns how many floats they take. */
static size_t lay_out(const struct moesim_attention *a, float *memory, struct work *w)
{
    const size_t keys = moesim_panel_columns(a->products, a->sequence),
                 head = moesim_panel_columns(a->products, d_head(a));
    const size_t turned = d_head(a) * keys, straight = a->sequence * head;
    const struct {
        float **place;
        size_t size;
    } pieces[] = {
        {&w->keys_turned, turned},
        {&w->values_turned, turned},
        {&w->keys, straight},
        {&w->values, straight},
        {&w->d_keys, straight},
        {&w->d_values, straight},
        {&w->queries, QUERY_ROWS * head},
        {&w->d_out, QUERY_ROWS * head},
        {&w->result, QUERY_ROWS * head},
        {&w->scores, QUERY_ROWS * keys},
        {&w->d_scores, QUERY_ROWS * keys},
        {&w->row, keys + MOST_FILL},
        {&w->d_row, keys + MOST_FILL},
    };
    size_t size = 0;
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        *pieces[i].place = memory ? memory + size : NULL;
        size += (pieces[i].size + 15) / 16 * 16;
    }
    return size;
}

static void fill_table(struct moesim_attention *a)
{
    const uint32_t half = d_head(a) / 2;
    for (uint32_t t = 0; t < a->sequence; t++)
        for (uint32_t i = 0; i < half; i++) {
            const double angle = t * pow(ROTARY_BASE, -(double)i / half);
            a->cos[(size_t)t * half + i] = (float)cos(angle);
            a->sin[(size_t)t * half + i] = (float)sin(angle);
        }
}

enum moesim_status moesim_attention_init(struct moesim_attention *attention, uint32_t d_model, uint32_t n_heads,
                                         uint32_t sequence, bool rotary, const struct moesim_products *products,
                                         struct moesim_arena *arena, struct moesim_error *err)
{
    struct moesim_attention *a = attention;
    struct work w;
    *a = (struct moesim_attention){.d_model = d_model,
                                   .n_heads = n_heads,
                                   .sequence = sequence,
                                   .products = products,
                                   .rows = moesim_rows_find(),
                                   .n_threads = (uint32_t)omp_get_max_threads()};
    const size_t size = lay_out(a, NULL, &w), table = (size_t)sequence * (d_head(a) / 2);
    a->work = moesim_alloc(arena, a->n_threads, sizeof *a->work);
    bool ok = a->work != NULL;
    for (uint32_t i = 0; ok && i < a->n_threads; i++)
        ok = (a->work[i] = moesim_alloc(arena, size, sizeof(float))) != NULL;
    if (ok && rotary) {
        a->cos = moesim_alloc(arena, table, sizeof(float));
        a->sin = moesim_alloc(arena, table, sizeof(float));
        ok = a->cos && a->sin;
    }
    if (!ok)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for attention over %u tokens", sequence);
    if (rotary)
        fill_table(a);
    return MOESIM_OK;
}

uint64_t moesim_attention_bytes(uint32_t d_model, uint32_t n_heads, uint32_t sequence, uint32_t n_threads)
{
    const struct moesim_attention a = {
        .d_model = d_model, .n_heads = n_heads, .sequence = sequence, .products = &moesim_products_portable};
    struct work w;
    return sizeof(float) * (n_threads * (uint64_t)lay_out(&a, NULL, &w) + (uint64_t)sequence * (d_model / n_heads));
}

/* ---- rotary positions ---- */

/* Elements i and i + half of a head turn together. */
static void rotate_head(const float *cos, const float *sin, uint32_t half, float way, float *x)
{
    for (uint32_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half], s = way * sin[i];
        x[i] = a * cos[i] - b * s;
        x[i + half] = a * s + b * cos[i];
    }
}

void moesim_attention_rotate(const struct moesim_attention *attention, uint32_t n_sequences, bool back, float *qkv)
{
    const struct moesim_attention *a = attention;
    const uint32_t half = d_head(a) / 2, n_tokens = n_sequences * a->sequence;
    if (!a->cos)
        return;
#pragma omp parallel for schedule(static)
    for (uint32_t t = 0; t < n_tokens; t++) {
        const size_t angle = (size_t)(t % a->sequence) * half;
        for (uint32_t h = 0; h < 2 * a->n_heads; h++) /* queries, then keys */
            rotate_head(a->cos + angle, a->sin + angle, half, back ? -1 : 1,
                        qkv + (size_t)t * 3 * a->d_model + (size_t)h * d_head(a));
    }
}

/* ---- panels ---- */

/* Rows of `source` become columns: a matrix [n_columns][n_rows] in panels. */
static void gather_turned(const struct moesim_products *products, const float *source, size_t stride, uint32_t n_rows,
                          uint32_t n_columns, float *panels)
{
    const uint32_t width = moesim_panel_width(products, n_rows);
    for (uint32_t r = 0; r < n_rows; r += width, panels += (size_t)n_columns * width) {
        const uint32_t n = n_rows - r < width ? n_rows - r : width;
        for (uint32_t j = 0; j < n; j++)
            for (uint32_t c = 0; c < n_columns; c++)
                panels[(size_t)c * width + j] = source[(r + j) * stride + c];
        for (uint32_t j = n; j < width; j++)
            for (uint32_t c = 0; c < n_columns; c++)
                panels[(size_t)c * width + j] = 0;
    }
}

/* The first n elements of row r of panels [n_rows][...]. */
static void take_row(const float *panels, uint32_t n_rows, uint32_t width, uint32_t r, uint32_t n, float *row)
{
    for (uint32_t c = 0; c < n; c += width)
        memcpy(row + c, panels + (size_t)c * n_rows + (size_t)r * width, (n - c < width ? n - c : width) * sizeof *row);
}

/* Puts them back, with zeros behind them up to `columns`. */
static void put_row(float *panels, uint32_t n_rows, uint32_t width, uint32_t r, uint32_t n, uint32_t columns,
                    float *row)
{
    memset(row + n, 0, (columns - n) * sizeof *row);
    for (uint32_t c = 0; c < columns; c += width)
        memcpy(panels + (size_t)c * n_rows + (size_t)r * width, row + c, width * sizeof *row);
}

/* ---- one head ---- */

/* A block of queries of one head, and the keys that it sees. */
struct block {
    uint32_t first, n_rows, n_keys, n_panels, width;
};

static struct block block_of(const struct moesim_attention *a, uint32_t first)
{
    struct block b = {.first = first, .width = moesim_panel_width(a->products, a->sequence)};
    b.n_rows = a->sequence - first < QUERY_ROWS ? a->sequence - first : QUERY_ROWS;
    b.n_keys = a->products->width ? first + b.n_rows : a->sequence;
    b.n_panels = (b.n_keys + b.width - 1) / b.width;
    return b;
}

static void multiply_scores(const struct moesim_attention *a, const struct block *b, const float *rows,
                            const float *turned, float *out)
{
    const struct moesim_product product = {.n_rows = b->n_rows,
                                           .n_terms = d_head(a),
                                           .n_panels = b->n_panels,
                                           .width = b->width,
                                           .a = rows,
                                           .b = turned,
                                           .out = out};
    a->products->multiply(&product);
}

/* out [n_rows][d_head] = scores times the first n_keys rows of m [sequence][d_head]: by panel, since m's are longer. */
static void multiply_head(const struct moesim_attention *a, const struct block *b, const float *scores, const float *m,
                          float *out)
{
    const uint32_t width = moesim_panel_width(a->products, d_head(a));
    for (uint32_t p = 0; p < moesim_panel_count(a->products, d_head(a)); p++) {
        const struct moesim_product product = {.n_rows = b->n_rows,
                                               .n_terms = b->n_keys,
                                               .n_panels = 1,
                                               .width = width,
                                               .a = scores,
                                               .b = m + (size_t)p * a->sequence * width,
                                               .out = out + (size_t)p * b->n_rows * width};
        a->products->multiply(&product);
    }
}

/* The first n_keys rows of out [sequence][d_head] += scores^T rows. */
static void add_by_key(const struct moesim_attention *a, const struct block *b, const float *scores, const float *rows,
                       float *out)
{
    const uint32_t width = moesim_panel_width(a->products, d_head(a));
    for (uint32_t p = 0; p < moesim_panel_count(a->products, d_head(a)); p++) {
        const struct moesim_product product = {.n_rows = b->n_keys,
                                               .n_terms = b->n_rows,
                                               .n_panels = 1,
                                               .width = width,
                                               .a = scores,
                                               .b = rows + (size_t)p * b->n_rows * width,
                                               .add = true,
                                               .out = out + (size_t)p * a->sequence * width};
        a->products->multiply_transposed(&product);
    }
}

static void run_head(const struct moesim_attention *a, const struct work *w, const float *qkv, float *log_sum,
                     float *out)
{
    const size_t d = a->d_model, stride = 3 * d;
    const uint32_t head = d_head(a);
    const float scale = 1 / sqrtf((float)head);
    gather_turned(a->products, qkv + d, stride, a->sequence, head, w->keys_turned);
    moesim_panels_gather(a->products, qkv + 2 * d, stride, a->sequence, head, 1, w->values);
    for (uint32_t first = 0; first < a->sequence; first += QUERY_ROWS) {
        const struct block b = block_of(a, first);
        moesim_panels_gather(a->products, qkv + first * stride, stride, b.n_rows, head, scale, w->queries);
        multiply_scores(a, &b, w->queries, w->keys_turned, w->scores);
        for (uint32_t r = 0; r < b.n_rows; r++) {
            const uint32_t n = first + r + 1;
            take_row(w->scores, b.n_rows, b.width, r, n, w->row);
            log_sum[first + r] = a->rows->softmax(w->row, n);
            put_row(w->scores, b.n_rows, b.width, r, n, b.n_panels * b.width, w->row);
        }
        multiply_head(a, &b, w->scores, w->values, w->result);
        moesim_panels_put(a->products, w->result, b.n_rows, head, 1, false, d, out + first * d);
    }
}

/* scores become P, d_scores P * (d P - D) with D = <d out, out> of the row. */
static void differentiate_scores(const struct moesim_attention *a, const struct work *w, const struct block *b,
                                 const float *log_sum, const float *out, const float *d_out)
{
    const uint32_t columns = b->n_panels * b->width;
    for (uint32_t r = 0; r < b->n_rows; r++) {
        const uint32_t t = b->first + r, n = t + 1;
        const size_t place = (size_t)t * a->d_model;
        take_row(w->scores, b->n_rows, b->width, r, n, w->row);
        take_row(w->d_scores, b->n_rows, b->width, r, n, w->d_row);
        a->rows->exponents(w->row, n, log_sum[t]);
        put_row(w->scores, b->n_rows, b->width, r, n, columns, w->row);
        a->rows->softmax_backward(w->d_row, a->rows->dot(out + place, d_out + place, d_head(a)), n, w->row);
        put_row(w->d_scores, b->n_rows, b->width, r, n, columns, w->row);
    }
}

static void run_head_backward(const struct moesim_attention *a, const struct work *w, const float *qkv,
                              const float *log_sum, const float *out, const float *d_out, float *d_qkv)
{
    const size_t d = a->d_model, stride = 3 * d;
    const uint32_t head = d_head(a);
    const size_t straight = (size_t)a->sequence * moesim_panel_columns(a->products, head);
    const float scale = 1 / sqrtf((float)head);
    gather_turned(a->products, qkv + d, stride, a->sequence, head, w->keys_turned);
    gather_turned(a->products, qkv + 2 * d, stride, a->sequence, head, w->values_turned);
    moesim_panels_gather(a->products, qkv + d, stride, a->sequence, head, 1, w->keys);
    memset(w->d_keys, 0, straight * sizeof(float));
    memset(w->d_values, 0, straight * sizeof(float));
    for (uint32_t first = 0; first < a->sequence; first += QUERY_ROWS) {
        const struct block b = block_of(a, first);
        moesim_panels_gather(a->products, qkv + first * stride, stride, b.n_rows, head, scale, w->queries);
        moesim_panels_gather(a->products, d_out + first * d, d, b.n_rows, head, 1, w->d_out);
        multiply_scores(a, &b, w->queries, w->keys_turned, w->scores);
        multiply_scores(a, &b, w->d_out, w->values_turned, w->d_scores);
        differentiate_scores(a, w, &b, log_sum, out, d_out);
        add_by_key(a, &b, w->scores, w->d_out, w->d_values);
        add_by_key(a, &b, w->d_scores, w->queries, w->d_keys);
        multiply_head(a, &b, w->d_scores, w->keys, w->result);
        moesim_panels_put(a->products, w->result, b.n_rows, head, scale, false, stride, d_qkv + first * stride);
    }
    moesim_panels_put(a->products, w->d_keys, a->sequence, head, 1, false, stride, d_qkv + d);
    moesim_panels_put(a->products, w->d_values, a->sequence, head, 1, false, stride, d_qkv + 2 * d);
}

/* ---- all heads ---- */

/* Where head i % n_heads of sequence i / n_heads is. */
struct place {
    size_t qkv, out, log_sum;
};

static struct place place_of(const struct moesim_attention *a, uint32_t i)
{
    const size_t token = (size_t)(i / a->n_heads) * a->sequence, column = (size_t)(i % a->n_heads) * d_head(a);
    return (struct place){token * 3 * a->d_model + column, token * a->d_model + column, (size_t)i * a->sequence};
}

static int threads(const struct moesim_attention *a)
{
    const int most = omp_get_max_threads();
    return most < (int)a->n_threads ? most : (int)a->n_threads;
}

void moesim_attention_forward(const struct moesim_attention *attention, uint32_t n_sequences, const float *qkv,
                              float *log_sum, float *out)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads(attention))
    for (uint32_t i = 0; i < n_sequences * attention->n_heads; i++) {
        struct work w;
        const struct place at = place_of(attention, i);
        lay_out(attention, attention->work[omp_get_thread_num()], &w);
        run_head(attention, &w, qkv + at.qkv, log_sum + at.log_sum, out + at.out);
    }
}

void moesim_attention_backward(const struct moesim_attention *attention, uint32_t n_sequences, const float *qkv,
                               const float *log_sum, const float *out, const float *d_out, float *d_qkv)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads(attention))
    for (uint32_t i = 0; i < n_sequences * attention->n_heads; i++) {
        struct work w;
        const struct place at = place_of(attention, i);
        lay_out(attention, attention->work[omp_get_thread_num()], &w);
        run_head_backward(attention, &w, qkv + at.qkv, log_sum + at.log_sum, out + at.out, d_out + at.out,
                          d_qkv + at.qkv);
    }
}
