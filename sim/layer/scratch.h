/*
 * What the layer's passes share: rows, blocks of rows, and the memory they work in.
 *
 * A row is a kept pair, in the order of the expert view, or behind them a token of a shared expert. Blocks are up to
 * BLOCK_ROWS rows of one expert. Rows of d_model or d_ff columns are kept by block, each block in panels of its own.
 */
#ifndef MOESIM_SIM_LAYER_SCRATCH_H
#define MOESIM_SIM_LAYER_SCRATCH_H

#include <moesim/router.h>

#include "sim/layer/layer.h"

#define BLOCK_ROWS 96 /* a pass over them keeps in the second-level cache, and hides the stream of weights */
/* Columns of one task: few enough to share one expert between threads, and for two matrices' panels of so many columns,
 * transposed, to keep in the second-level cache. */
#define TILE_COLUMNS 64

struct layer_block {
    uint32_t expert, n_rows, first;
    const uint32_t *token; /* [n_rows]; NULL: tokens from first_token on */
    uint32_t first_token;
};

/* The blocks of one expert. */
struct layer_group {
    uint32_t first_block, n_blocks;
};

struct moesim_layer_scratch {
    uint32_t n_threads, n_blocks, n_groups;
    size_t max_rows;
    struct layer_block *block;
    struct layer_group *group; /* the largest experts first */
    uint64_t *order;           /* [n_experts] load and, complemented, id: by decreasing load, then id */
    uint32_t *row;             /* [max_pairs] row of a pair */
    float **work;              /* [n_threads] one task's */

    float *input; /* [max_rows][d_model], in panels */
    float *inner; /* [max_rows][d_ff], in panels: activation(x w_in) */
    float
        *output; /* [max_rows][d_model], row-major; the place of `input`, which is done with, without a backward pass */

    /* for the backward pass only */
    float *up, *gate; /* [max_rows][d_ff], in panels: x w_in and x w_gate, then their gradients */
    float *d_output;  /* [max_rows][d_model], in panels */
    float *d_input;   /* [max_rows][d_model], row-major: the place of `output` */
    float *d_weight;  /* [panels of d_ff][max_rows] parts of the gradient of a pair's weight */
};

/* Panels of a whole tile. */
static inline uint32_t layer_whole_tile(const struct moesim_layer *layer, uint32_t n_columns)
{
    const uint32_t width = moesim_panel_width(layer->products, n_columns);
    return width < TILE_COLUMNS ? TILE_COLUMNS / width : 1;
}

/* Panels of the largest task. */
static inline uint32_t layer_tile_panels(const struct moesim_layer *layer, uint32_t n_columns)
{
    const uint32_t n = moesim_panel_count(layer->products, n_columns), whole = layer_whole_tile(layer, n_columns);
    return n < whole ? n : whole;
}

/* Tasks that the columns are split into. */
static inline uint32_t layer_n_tiles(const struct moesim_layer *layer, uint32_t n_columns)
{
    const uint32_t whole = layer_whole_tile(layer, n_columns);
    return (moesim_panel_count(layer->products, n_columns) + whole - 1) / whole;
}

/* The panels of a task, and where they are. */
struct layer_tile {
    uint32_t first, n, width;
};

static inline struct layer_tile layer_tile(const struct moesim_layer *layer, uint32_t n_columns, uint32_t i)
{
    const uint32_t n = moesim_panel_count(layer->products, n_columns), whole = layer_whole_tile(layer, n_columns);
    const uint32_t first = i * whole;
    return (struct layer_tile){first, n - first < whole ? n - first : whole,
                               moesim_panel_width(layer->products, n_columns)};
}

/* Where a block's panels begin in an array of rows of n_columns, from panel `panel` on. */
static inline size_t layer_block_place(const struct moesim_layer *layer, const struct layer_block *block,
                                       uint32_t n_columns, uint32_t panel)
{
    return (size_t)block->first * moesim_panel_columns(layer->products, n_columns) +
           (size_t)panel * block->n_rows * moesim_panel_width(layer->products, n_columns);
}

static inline bool layer_is_ffn(const struct moesim_layer *layer, uint32_t expert)
{
    return !layer->expert_kind || layer->expert_kind[expert] == MOESIM_EXPERT_FFN;
}

/* Row of shared expert i's first token, behind the kept pairs. */
static inline size_t layer_shared_row(const struct moesim_layer *layer, uint32_t i, uint32_t n_tokens)
{
    return layer->view.start[layer->n_experts] + (size_t)i * n_tokens;
}

/* Draws the weights. */
MOESIM_MUST_CHECK enum moesim_status layer_init_weights(struct moesim_layer *layer, uint64_t seed, uint32_t index,
                                                        bool backward, struct moesim_arena *arena,
                                                        struct moesim_error *err);

MOESIM_MUST_CHECK enum moesim_status layer_init_scratch(struct moesim_layer *layer, uint64_t max_pairs, bool backward,
                                                        struct moesim_arena *arena, struct moesim_error *err);

/* Rows, blocks and groups of a plan. */
void layer_split(struct moesim_layer *layer, const struct moesim_plan *plan);

/* The threads to run on. */
int layer_threads(const struct moesim_layer *layer);

/* Tasks that a thread takes at a time: neighbours, whose weights follow each other, but few enough to end together. */
uint32_t layer_share(const struct moesim_layer *layer, uint32_t n_tasks);

/* A block's rows of `source` [n_tokens][d_model] into panels. */
void layer_gather(const struct moesim_layer *layer, const struct layer_block *block, const float *source, float *rows);

/* A task's panels of d_model columns into row-major `rows`. */
void layer_put_rows(const struct moesim_layer *layer, const struct layer_block *block, struct layer_tile tile,
                    const float *panels, float *rows);

/* A token's output from the rows of its experts. */
void layer_combine_token(const struct moesim_layer *layer, const struct moesim_plan *plan, const float *hidden,
                         uint32_t t, float *output);

/* sum[n] += scale * x[n] */
static inline void layer_add_scaled(const float *x, float scale, size_t n, float *sum)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += scale * x[i];
}

#endif
