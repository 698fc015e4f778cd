#include "tests/sim/train/twin.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/transformer/naive.h"

void twin_init(struct twin *twin, const struct moesim_transformer *model, const struct twin_router *router)
{
    memset(twin, 0, sizeof *twin);
    twin->model = model;
    twin->router = *router;
    twin->moved_tensor = UINT32_MAX;
    tape_init(&twin->tape);
    twin->leaf = calloc(model->n_tensors, sizeof *twin->leaf);
    for (uint32_t i = 0; i < model->n_tensors; i++)
        twin->leaf[i] = calloc(moesim_tensor_count(&model->tensor[i]), sizeof(node));
}

void twin_finish(struct twin *twin)
{
    for (uint32_t i = 0; i < twin->model->n_tensors; i++)
        free(twin->leaf[i]);
    free(twin->leaf);
    tape_finish(&twin->tape);
}

size_t twin_place(const struct moesim_tensor *t, size_t i)
{
    const size_t part = (size_t)t->rows * t->columns;
    return moesim_tensor_place(t, (uint32_t)(i / part), (uint32_t)(i % part / t->columns), (uint32_t)(i % t->columns));
}

static void make_leaves(struct twin *w)
{
    for (uint32_t i = 0; i < w->model->n_tensors; i++) {
        const struct moesim_tensor *t = &w->model->tensor[i];
        for (size_t j = 0; j < moesim_tensor_count(t); j++) {
            const double moved = i == w->moved_tensor && j == w->moved_element ? w->by : 0;
            w->leaf[i][j] = tape_leaf(&w->tape, t->value[twin_place(t, j)] + moved);
        }
    }
}

/* The leaves of a tensor by its name, or NULL. */
static const node *find(const struct twin *w, uint32_t block, const char *name)
{
    char full[64];
    if (block == UINT32_MAX)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blocks.%u.%s", block, name);
    for (uint32_t i = 0; i < w->model->n_tensors; i++)
        if (!strcmp(w->model->tensor[i].name, full))
            return w->leaf[i];
    return NULL;
}

static node *nodes(size_t n)
{
    node *x = calloc(n, sizeof *x);
    cr_assert(x);
    return x;
}

/* ---- the MoE layer ---- */

static void score(struct twin *w, const node *logit, uint32_t n, node *s)
{
    struct tape *t = &w->tape;
    if (w->router.score == MOESIM_SOFTMAX) {
        naive_softmax(t, logit, n, s);
        return;
    }
    const node one = tape_leaf(t, 1);
    for (uint32_t e = 0; e < n; e++)
        s[e] = w->router.score == MOESIM_RELU
                   ? tape_relu(t, logit[e])
                   : tape_divide(t, one, tape_add(t, one, tape_exp(t, tape_scale(t, logit[e], -1))));
}

static void run_expert(struct twin *w, const char *const names[3], uint32_t block, uint32_t part, uint32_t d_ff,
                       const node *x, node *out)
{
    const uint32_t d = w->model->config.d_model;
    const size_t at = (size_t)part * d * d_ff;
    const node *in = find(w, block, names[0]), *gate = find(w, block, names[1]), *back = find(w, block, names[2]);
    naive_expert(&w->tape, (enum moesim_activation)w->model->config.activation, x, in + at, gate ? gate + at : NULL,
                 back + at, d, d_ff, out);
}

static void add_to(struct tape *t, uint32_t n, node weight, const node *x, node *sum)
{
    for (uint32_t i = 0; i < n; i++)
        sum[i] = weight ? tape_multiply_add(t, weight, x[i], sum[i]) : tape_add(t, x[i], sum[i]);
}

/* Weight of a pair from the scores of its token. */
static node weight_of(struct twin *w, const struct moesim_plan *plan, uint32_t token, uint32_t pair, const node *s)
{
    struct tape *t = &w->tape;
    node sum = 0;
    for (uint32_t i = plan->first[token]; i < plan->first[token + 1]; i++)
        sum = tape_add(t, sum, s[plan->expert[i]]);
    const node weight = s[plan->expert[pair]];
    return tape_scale(t, w->router.is_normed ? tape_divide(t, weight, sum) : weight, w->router.scale);
}

/* coef E sum_e f_e P_e, f over all choices; coef mean (ln sum e^l)^2. */
static node losses(struct twin *w, const struct moesim_moe *moe, const node *logit, const node *s)
{
    struct tape *t = &w->tape;
    const struct moesim_plan *plan = &moe->plan;
    const uint32_t n_experts = moe->shape.n_experts;
    node total = 0, *p = nodes(n_experts);
    for (uint32_t e = 0; w->router.aux_coef > 0 && e < n_experts; e++) {
        double n = 0;
        node sum = 0;
        for (uint64_t i = 0; i < plan->n_pairs; i++)
            n += plan->expert[i] == e;
        for (size_t i = 0; i < plan->n_tokens; i++)
            sum = tape_add(t, sum, s[i * n_experts + e]);
        const double f = n / (double)plan->n_pairs;
        total = tape_add(t, total, tape_scale(t, sum, w->router.aux_coef * n_experts * f / plan->n_tokens));
    }
    for (size_t i = 0; w->router.z_coef > 0 && i < plan->n_tokens; i++) {
        const node z = naive_softmax(t, logit + i * n_experts, n_experts, p);
        total = tape_add(t, total, tape_scale(t, tape_multiply(t, z, z), w->router.z_coef / plan->n_tokens));
    }
    free(p);
    return total;
}

/* out += what the layer makes of x [n][d]; returns its auxiliary losses. */
static node run_moe(struct twin *w, const struct moesim_moe *moe, uint32_t block, const node *x, node *out)
{
    static const char *const names[] = {"experts.in", "experts.gate", "experts.out"};
    struct tape *t = &w->tape;
    const struct moesim_transformer_config *c = &w->model->config;
    const struct moesim_plan *plan = &moe->plan;
    const uint32_t d = c->d_model, n_experts = moe->shape.n_experts;
    node *logit = nodes((size_t)plan->n_tokens * n_experts), *s = nodes((size_t)plan->n_tokens * n_experts);
    node *made = nodes(d);
    const node *bias = find(w, block, "gate.bias");
    naive_linear(t, x, find(w, block, "gate.weight"), plan->n_tokens, d, n_experts, logit);
    for (size_t token = 0; token < plan->n_tokens; token++) {
        node *row = logit + token * n_experts;
        for (uint32_t e = 0; bias && e < n_experts; e++)
            row[e] = tape_add(t, row[e], bias[e]);
        score(w, row, n_experts, s + token * n_experts);
        for (uint32_t i = plan->first[token]; i < plan->first[token + 1]; i++) {
            if (plan->fate[i] != MOESIM_KEPT)
                continue;
            run_expert(w, names, block, plan->expert[i], c->d_ff, x + token * d, made);
            add_to(t, d, weight_of(w, plan, (uint32_t)token, i, s + token * n_experts), made, out + token * d);
        }
        for (uint32_t i = 0; i < c->n_shared; i++) {
            run_expert(w, names, block, n_experts + i, c->d_ff, x + token * d, made);
            add_to(t, d, 0, made, out + token * d);
        }
    }
    const node aux = losses(w, moe, logit, s);
    free(logit);
    free(s);
    free(made);
    return aux;
}

/* out[i][j] = x[i][j] / sqrt(sum of squares + 1e-6), of rows or, with stride 1 between rows, of columns. */
static void make_unit(struct tape *t, const node *x, uint32_t n, size_t stride, node *out)
{
    node sum = tape_leaf(t, 1e-6);
    for (size_t i = 0; i < n; i++)
        sum = tape_multiply_add(t, x[i * stride], x[i * stride], sum);
    const node root = tape_sqrt(t, sum);
    for (size_t i = 0; i < n; i++)
        out[i * stride] = tape_divide(t, x[i * stride], root);
}

/* Dispatch weights [n_slots][n] and combine weights [n][n_slots] of x [n][d] (Puigcerver et al. 2024). */
static void mix(struct twin *w, const node *mu, uint32_t n_slots, const node *x, uint32_t n, node *dispatch,
                node *combine)
{
    struct tape *t = &w->tape;
    const uint32_t d = w->model->config.d_model;
    node *unit_x = nodes((size_t)n * d), *unit_mu = nodes((size_t)d * n_slots), *logit = nodes((size_t)n * n_slots);
    node *column = nodes(n);
    for (size_t i = 0; i < n; i++)
        make_unit(t, x + i * d, d, 1, unit_x + i * d);
    for (uint32_t s = 0; s < n_slots; s++)
        make_unit(t, mu + s, d, n_slots, unit_mu + s);
    naive_linear(t, unit_x, unit_mu, n, d, n_slots, logit);
    const node scale = tape_add(t, mu[(size_t)d * n_slots], tape_leaf(t, w->router.scale));
    for (size_t i = 0; i < (size_t)n * n_slots; i++)
        logit[i] = tape_multiply(t, logit[i], scale);
    for (size_t i = 0; i < n; i++)
        naive_softmax(t, logit + i * n_slots, n_slots, combine + i * n_slots);
    for (uint32_t s = 0; s < n_slots; s++) {
        for (size_t i = 0; i < n; i++)
            column[i] = logit[i * n_slots + s];
        naive_softmax(t, column, n, dispatch + (size_t)s * n);
    }
    free(unit_x);
    free(unit_mu);
    free(logit);
    free(column);
}

/* out [n][d] += C experts(D^T x). */
static void run_soft(struct twin *w, const struct moesim_moe *moe, uint32_t block, const node *x, node *out)
{
    static const char *const names[] = {"experts.in", "experts.gate", "experts.out"};
    struct tape *t = &w->tape;
    const uint32_t d = w->model->config.d_model, n = moe->plan.n_tokens, n_slots = moe->shape.n_slots;
    node *dispatch = nodes((size_t)n_slots * n), *combine = nodes((size_t)n * n_slots);
    node *slots = nodes((size_t)n_slots * d), *made = nodes((size_t)n_slots * d), *back = nodes((size_t)n * d);
    mix(w, find(w, block, "router.weights"), n_slots, x, n, dispatch, combine);
    naive_linear(t, dispatch, x, n_slots, n, d, slots);
    for (uint32_t s = 0; s < n_slots; s++)
        run_expert(w, names, block, s / (n_slots / moe->shape.n_experts), w->model->config.d_ff, slots + (size_t)s * d,
                   made + (size_t)s * d);
    naive_linear(t, combine, made, n, n_slots, d, back);
    for (size_t i = 0; i < (size_t)n * d; i++)
        out[i] = tape_add(t, out[i], back[i]);
    free(dispatch);
    free(combine);
    free(slots);
    free(made);
    free(back);
}

/* ---- the model ---- */

static void run_attention(struct twin *w, uint32_t block, uint32_t n_sequences, node *x)
{
    struct tape *t = &w->tape;
    const struct moesim_transformer_config *c = &w->model->config;
    const uint32_t d = c->d_model, n = n_sequences * c->sequence;
    node *normed = nodes((size_t)n * d), *qkv = nodes((size_t)n * 3 * d), *out = nodes((size_t)n * d);
    naive_norm(t, x, find(w, block, "norm1.gain"), n, d, normed);
    naive_linear(t, normed, find(w, block, "attention.qkv"), n, d, 3 * d, qkv);
    if (c->positions == MOESIM_ROTARY)
        naive_rotate(t, n_sequences, c->sequence, d, c->n_heads, qkv);
    naive_attention(t, qkv, n_sequences, c->sequence, d, c->n_heads, normed);
    naive_linear(t, normed, find(w, block, "attention.out"), n, d, d, out);
    for (size_t i = 0; i < (size_t)n * d; i++)
        x[i] = tape_add(t, x[i], out[i]);
    free(normed);
    free(qkv);
    free(out);
}

static node run_ffn(struct twin *w, uint32_t block, uint32_t n, node *x)
{
    static const char *const names[] = {"ffn.in", "ffn.gate", "ffn.out"};
    const struct moesim_transformer_config *c = &w->model->config;
    const uint32_t d = c->d_model;
    node *normed = nodes((size_t)n * d), *made = nodes(d), aux = 0;
    naive_norm(&w->tape, x, find(w, block, "norm2.gain"), n, d, normed);
    if (w->model->block[block].moe && w->router.is_soft)
        run_soft(w, w->model->block[block].moe, block, normed, x);
    else if (w->model->block[block].moe)
        aux = run_moe(w, w->model->block[block].moe, block, normed, x);
    for (size_t token = 0; !w->model->block[block].moe && token < n; token++) {
        run_expert(w, names, block, 0, moesim_transformer_dense_d_ff(c), normed + token * d, made);
        add_to(&w->tape, d, 0, made, x + token * d);
    }
    free(normed);
    free(made);
    return aux;
}

static void embed(struct twin *w, const struct moesim_sequences *sample, uint32_t n, node *x)
{
    const struct moesim_transformer_config *c = &w->model->config;
    const node *embedding = find(w, UINT32_MAX, "embedding"), *position = find(w, UINT32_MAX, "position");
    const uint32_t d = c->d_model;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < d; k++) {
            x[i * d + k] = embedding[(size_t)k * c->vocabulary + sample->token[i]];
            if (position)
                x[i * d + k] = tape_add(&w->tape, x[i * d + k], position[i % c->sequence * d + k]);
        }
}

static node run_head(struct twin *w, const struct moesim_sequences *sample, uint32_t n, const node *x)
{
    struct tape *t = &w->tape;
    const struct moesim_transformer_config *c = &w->model->config;
    node *normed = nodes((size_t)n * c->d_model), *logits = nodes((size_t)n * c->vocabulary), sum = 0;
    naive_norm(t, x, find(w, UINT32_MAX, "norm.gain"), n, c->d_model, normed);
    naive_linear(t, normed, find(w, UINT32_MAX, c->tied_head ? "embedding" : "head"), n, c->d_model, c->vocabulary,
                 logits);
    for (size_t i = 0; i < n; i++)
        if (sample->target[i] != MOESIM_NO_TARGET)
            sum =
                tape_add(t, sum, naive_cross_entropy(t, logits + i * c->vocabulary, c->vocabulary, sample->target[i]));
    free(normed);
    free(logits);
    return sum;
}

void twin_run(struct twin *twin, const struct moesim_sequences *sample, double loss_scale, double aux_scale)
{
    struct tape *t = &twin->tape;
    const struct moesim_transformer_config *c = &twin->model->config;
    const uint32_t n = sample->n_sequences * c->sequence;
    node *x = nodes((size_t)n * c->d_model), aux = 0;
    tape_clear(t);
    make_leaves(twin);
    embed(twin, sample, n, x);
    for (uint32_t i = 0; i < c->n_blocks; i++) {
        run_attention(twin, i, sample->n_sequences, x);
        aux = tape_add(t, aux, run_ffn(twin, i, n, x));
    }
    const node losses_of_tokens = run_head(twin, sample, n, x);
    twin->token_loss = t->value[losses_of_tokens];
    twin->aux_loss = t->value[aux];
    twin->loss = tape_add(t, tape_scale(t, losses_of_tokens, loss_scale), tape_scale(t, aux, aux_scale));
    free(x);
}
