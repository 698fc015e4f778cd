#include "tests/sim/layer/bed.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <moesim/random.h>
#include <moesim/router.h>

static void fill_plan(struct bed *b, uint32_t n_tokens, uint32_t k, const struct moesim_random *random)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < n_tokens; t++) {
        b->plan.first[t] = (uint32_t)n;
        const uint32_t first = moesim_random_below(random, 7 * t, b->plan.n_experts);
        for (uint32_t c = 0; c < k; c++, n++) {
            const bool kept = moesim_random_below(random, n + 1000000, 4) > 0;
            b->plan.expert[n] = (first * (t % 3 ? 1 : 0) + c) % b->plan.n_experts;
            b->plan.fate[n] = kept ? MOESIM_KEPT : MOESIM_OVER_CAPACITY;
            b->plan.weight[n] = kept ? moesim_random_uniform(random, n + 2000000) : 0;
            b->plan.slot[n] = kept ? 0 : -1;
        }
    }
    b->plan.first[n_tokens] = (uint32_t)n;
    b->plan.n_pairs = n;
}

void bed_init(struct bed *b, uint32_t seed, enum moesim_activation activation, const struct shape *shape,
              const struct moesim_products *products)
{
    struct moesim_error err;
    const struct moesim_random random = {.seed = seed, .stream = MOESIM_STREAM_TEST};
    const size_t n = (size_t)shape->n_tokens * shape->d_model;
    const uint64_t pairs = (uint64_t)shape->n_tokens * shape->k;
    memset(b, 0, sizeof *b);
    b->arena = moesim_arena_create(0);
    b->model = (struct moesim_model){
        .d_model = shape->d_model, .d_ff = shape->d_ff, .activation = activation, .shared_experts = shape->shared};
    b->kind = moesim_alloc(b->arena, shape->n_experts, 1);
    for (uint32_t e = 0; shape->kinds && e < shape->n_experts; e++)
        b->kind[e] = (uint8_t)(e % 3); /* FFN, zero, copy */
    b->group_start = moesim_alloc(b->arena, 2, sizeof *b->group_start);
    b->group_start[1] = shape->n_tokens;
    const struct moesim_batch batch = {.struct_size = sizeof batch,
                                       .n_tokens = shape->n_tokens,
                                       .n_experts = shape->n_experts,
                                       .n_groups = 1,
                                       .group_start = b->group_start};
    cr_assert_eq(moesim_plan_init(&b->plan, shape->n_tokens, shape->n_experts, 1, pairs, 0, b->arena, &err), MOESIM_OK);
    moesim_plan_reset(&b->plan, &batch);
    fill_plan(b, shape->n_tokens, shape->k, &random);
    cr_assert_eq(moesim_layer_init(&b->layer, seed, 2, &b->model, shape->n_experts, shape->kinds ? b->kind : NULL,
                                   shape->n_tokens, pairs, true, products, b->arena, &err),
                 MOESIM_OK, "%s", err.text);
    float **const states[] = {&b->hidden, &b->d_output, &b->output, &b->d_hidden};
    for (uint32_t i = 0; i < 4; i++)
        *states[i] = moesim_alloc(b->arena, n, sizeof(float));
    b->d_weight = moesim_alloc(b->arena, pairs, sizeof *b->d_weight);
    moesim_random_normals(&random, 5000000, n, b->hidden);
    moesim_random_normals(&random, 6000000, n, b->d_output);
}

void bed_finish(struct bed *b)
{
    moesim_arena_destroy(b->arena);
}

/* ---- the naive layer ---- */

static double weight(const struct moesim_layer *l, enum moesim_layer_matrix m, uint32_t e, uint32_t row,
                     uint32_t column)
{
    const float *const weights[] = {l->w_in, l->w_gate, l->w_out};
    return weights[m][moesim_layer_place(l, m, e, row, column)];
}

/* f(u) or silu(g) * u, and its derivatives. */
static double activation(const struct moesim_layer *l, double u, double g, double *by_u, double *by_g)
{
    *by_g = 0;
    if (l->activation == MOESIM_RELU_MLP) {
        *by_u = u > 0;
        return u > 0 ? u : 0;
    }
    if (l->activation == MOESIM_GELU) {
        const double a = sqrt(2 / M_PI), t = tanh(a * (u + 0.044715 * u * u * u));
        *by_u = 0.5 * (1 + t) + 0.5 * u * (1 - t * t) * a * (1 + 3 * 0.044715 * u * u);
        return 0.5 * u * (1 + t);
    }
    const double s = 1 / (1 + exp(-g));
    *by_u = g * s;
    *by_g = u * (s + g * s * (1 - s));
    return u * g * s;
}

/* Adds one expert's part, and what flows back through it, for one token; returns the gradient by its weight. */
static double add_expert(const struct bed *b, struct naive *naive, uint32_t e, double scale, uint32_t t)
{
    const struct moesim_layer *l = &b->layer;
    const uint32_t d = l->d_model, ff = l->d_ff;
    const bool gated = l->activation == MOESIM_SWIGLU;
    const float *x = b->hidden + (size_t)t * d, *dy = b->d_output + (size_t)t * d;
    double by_scale = 0;
    for (uint32_t j = 0; j < ff; j++) {
        double u = 0, g = 0, by_u, by_g, dh = 0;
        for (uint32_t i = 0; i < d; i++) {
            u += x[i] * weight(l, MOESIM_W_IN, e, i, j);
            g += gated ? x[i] * weight(l, MOESIM_W_GATE, e, i, j) : 0;
            dh += dy[i] * weight(l, MOESIM_W_OUT, e, j, i);
        }
        const double h = activation(l, u, g, &by_u, &by_g);
        by_scale += h * dh;
        for (uint32_t i = 0; i < d; i++) {
            const size_t in = ((size_t)e * d + i) * ff + j, out = ((size_t)e * ff + j) * d + i;
            naive->output[(size_t)t * d + i] += scale * h * weight(l, MOESIM_W_OUT, e, j, i);
            naive->d_hidden[(size_t)t * d + i] += scale * dh * by_u * weight(l, MOESIM_W_IN, e, i, j);
            naive->d[MOESIM_W_IN][in] += scale * dh * by_u * x[i];
            naive->d[MOESIM_W_OUT][out] += scale * h * dy[i];
            if (gated) {
                naive->d_hidden[(size_t)t * d + i] += scale * dh * by_g * weight(l, MOESIM_W_GATE, e, i, j);
                naive->d[MOESIM_W_GATE][in] += scale * dh * by_g * x[i];
            }
        }
    }
    return by_scale;
}

static void add_pair(const struct bed *b, struct naive *naive, uint32_t t, uint32_t pair)
{
    const uint32_t d = b->layer.d_model, e = b->plan.expert[pair];
    const double w = b->plan.weight[pair];
    if (b->plan.fate[pair] != MOESIM_KEPT)
        return;
    if (b->kind[e] == MOESIM_EXPERT_FFN)
        naive->d_weight[pair] = add_expert(b, naive, e, w, t);
    for (size_t i = (size_t)t * d; b->kind[e] == MOESIM_EXPERT_COPY && i < (size_t)(t + 1) * d; i++) {
        naive->output[i] += w * b->hidden[i];
        naive->d_hidden[i] += w * b->d_output[i];
        naive->d_weight[pair] += (double)b->hidden[i] * b->d_output[i];
    }
}

void naive_init(struct naive *naive, const struct bed *b)
{
    const struct moesim_layer *l = &b->layer;
    const size_t n = (size_t)b->plan.n_tokens * l->d_model;
    const size_t matrices = ((size_t)l->n_experts + l->n_shared) * l->d_model * l->d_ff;
    naive->output = moesim_alloc(b->arena, n, sizeof(double));
    naive->d_hidden = moesim_alloc(b->arena, n, sizeof(double));
    naive->d_weight = moesim_alloc(b->arena, b->plan.n_pairs, sizeof(double));
    for (int m = 0; m < 3; m++)
        naive->d[m] = moesim_alloc(b->arena, matrices, sizeof(double));
    for (uint32_t t = 0; t < b->plan.n_tokens; t++) {
        for (size_t i = (size_t)t * l->d_model; i < (size_t)(t + 1) * l->d_model; i++) {
            naive->output[i] = b->hidden[i];
            naive->d_hidden[i] = b->d_output[i];
        }
        for (uint32_t i = b->plan.first[t]; i < b->plan.first[t + 1]; i++)
            add_pair(b, naive, t, i);
        for (uint32_t i = 0; i < l->n_shared; i++)
            add_expert(b, naive, l->n_experts + i, 1, t);
    }
}

/* ---- distances ---- */

double worst_row(const float *rows, const double *naive, uint32_t n_rows, uint32_t n)
{
    double worst = 0;
    for (size_t r = 0; r < n_rows; r++) {
        double off = 0, norm = 0;
        for (size_t i = r * n; i < (r + 1) * n; i++) {
            off += pow(rows[i] - naive[i], 2);
            norm += pow(naive[i], 2);
        }
        worst = fmax(worst, norm > 0 ? sqrt(off / norm) : sqrt(off));
    }
    return worst;
}

double worst_gradient(const struct bed *b, const struct naive *naive, enum moesim_layer_matrix matrix)
{
    const struct moesim_layer *l = &b->layer;
    const uint32_t d = l->d_model, ff = l->d_ff;
    const uint32_t n_rows = matrix == MOESIM_W_OUT ? ff : d, n_columns = matrix == MOESIM_W_OUT ? d : ff;
    const float *const gradient = matrix == MOESIM_W_IN ? l->d_in : matrix == MOESIM_W_OUT ? l->d_out : l->d_gate;
    double worst = 0;
    for (uint32_t e = 0; e < l->n_experts + l->n_shared; e++) {
        double off = 0, norm = 0;
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t c = 0; c < n_columns; c++) {
                const double should = naive->d[matrix][((size_t)e * n_rows + r) * n_columns + c];
                off += pow(gradient[moesim_layer_place(l, matrix, e, r, c)] - should, 2);
                norm += should * should;
            }
        worst = fmax(worst, norm > 0 ? sqrt(off / norm) : sqrt(off));
    }
    return worst;
}
