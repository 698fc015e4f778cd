#include "tests/sim/transformer/naive.h"

#include <math.h>
#include <stdlib.h>

void naive_linear(struct tape *t, const node *x, const node *w, uint32_t n, uint32_t n_in, uint32_t n_out, node *out)
{
    for (size_t r = 0; r < n; r++)
        for (uint32_t c = 0; c < n_out; c++) {
            node sum = 0;
            for (uint32_t i = 0; i < n_in; i++)
                sum = tape_multiply_add(t, x[r * n_in + i], w[(size_t)i * n_out + c], sum);
            out[r * n_out + c] = sum;
        }
}

void naive_norm(struct tape *t, const node *x, const node *gain, uint32_t n, uint32_t d, node *out)
{
    const node epsilon = tape_leaf(t, 1e-6);
    for (size_t r = 0; r < n; r++) {
        node sum = 0;
        for (uint32_t i = 0; i < d; i++)
            sum = tape_multiply_add(t, x[r * d + i], x[r * d + i], sum);
        const node root = tape_sqrt(t, tape_add(t, tape_scale(t, sum, 1.0 / d), epsilon));
        for (uint32_t i = 0; i < d; i++)
            out[r * d + i] = tape_multiply(t, tape_divide(t, x[r * d + i], root), gain[i]);
    }
}

void naive_rotate(struct tape *t, uint32_t n_sequences, uint32_t sequence, uint32_t d, uint32_t n_heads, node *qkv)
{
    const uint32_t head = d / n_heads, half = head / 2;
    for (size_t token = 0; token < (size_t)n_sequences * sequence; token++)
        for (uint32_t h = 0; h < 2 * n_heads; h++)
            for (uint32_t i = 0; i < half; i++) {
                const double angle = (double)(token % sequence) * pow(10000, -(double)i / half);
                node *a = qkv + token * 3 * d + (size_t)h * head + i, *b = a + half;
                const node x = tape_subtract(t, tape_scale(t, *a, cos(angle)), tape_scale(t, *b, sin(angle)));
                *b = tape_add(t, tape_scale(t, *a, sin(angle)), tape_scale(t, *b, cos(angle)));
                *a = x;
            }
}

node naive_softmax(struct tape *t, const node *x, uint32_t n, node *p)
{
    double most = t->value[x[0]];
    for (uint32_t i = 1; i < n; i++)
        most = fmax(most, t->value[x[i]]);
    const node shift = tape_leaf(t, most); /* a constant: it cancels */
    node sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        p[i] = tape_exp(t, tape_subtract(t, x[i], shift));
        sum = tape_add(t, sum, p[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        p[i] = tape_divide(t, p[i], sum);
    return tape_add(t, tape_log(t, sum), shift);
}

/* One query over the keys up to it. */
static void attend(struct tape *t, const node *qkv, size_t first, size_t token, uint32_t d, uint32_t head,
                   uint32_t column, node *work, node *out)
{
    const uint32_t n = (uint32_t)(token - first) + 1;
    node *p = work + n;
    for (uint32_t j = 0; j < n; j++) {
        node sum = 0;
        for (uint32_t i = 0; i < head; i++)
            sum = tape_multiply_add(t, qkv[token * 3 * d + column + i], qkv[(first + j) * 3 * d + d + column + i], sum);
        work[j] = tape_scale(t, sum, 1 / sqrt(head));
    }
    naive_softmax(t, work, n, p);
    for (uint32_t i = 0; i < head; i++) {
        node sum = 0;
        for (uint32_t j = 0; j < n; j++)
            sum = tape_multiply_add(t, p[j], qkv[(first + j) * 3 * d + 2 * (size_t)d + column + i], sum);
        out[token * d + column + i] = sum;
    }
}

void naive_attention(struct tape *t, const node *qkv, uint32_t n_sequences, uint32_t sequence, uint32_t d,
                     uint32_t n_heads, node *out)
{
    node *work = malloc(2 * sizeof *work * sequence);
    for (size_t s = 0; s < n_sequences; s++)
        for (uint32_t h = 0; h < n_heads; h++)
            for (size_t i = 0; i < sequence; i++)
                attend(t, qkv, s * sequence, s * sequence + i, d, d / n_heads, h * (d / n_heads), work, out);
    free(work);
}

node naive_cross_entropy(struct tape *t, const node *logits, uint32_t n, uint32_t target)
{
    node *p = malloc(sizeof *p * n);
    const node log_sum = naive_softmax(t, logits, n, p);
    free(p);
    return tape_subtract(t, log_sum, logits[target]);
}

static node logistic(struct tape *t, node x)
{
    const node one = tape_leaf(t, 1);
    return tape_divide(t, one, tape_add(t, one, tape_exp(t, tape_scale(t, x, -1))));
}

static node activate(struct tape *t, enum moesim_activation activation, node u, node gate)
{
    if (activation == MOESIM_RELU_MLP)
        return tape_relu(t, u);
    if (activation == MOESIM_SWIGLU)
        return tape_multiply(t, tape_multiply(t, gate, logistic(t, gate)), u);
    const node cube = tape_multiply(t, tape_multiply(t, u, u), u);
    const node inner = tape_scale(t, tape_add(t, u, tape_scale(t, cube, 0.044715)), sqrt(2 / acos(-1)));
    return tape_scale(t, tape_multiply(t, u, tape_add(t, tape_leaf(t, 1), tape_tanh(t, inner))), 0.5);
}

void naive_expert(struct tape *t, enum moesim_activation activation, const node *x, const node *w_in,
                  const node *w_gate, const node *w_out, uint32_t d, uint32_t d_ff, node *out)
{
    node *h = malloc(2 * sizeof *h * d_ff), *gate = h + d_ff;
    naive_linear(t, x, w_in, 1, d, d_ff, h);
    if (w_gate)
        naive_linear(t, x, w_gate, 1, d, d_ff, gate);
    for (uint32_t i = 0; i < d_ff; i++)
        h[i] = activate(t, activation, h[i], w_gate ? gate[i] : 0);
    naive_linear(t, h, w_out, 1, d_ff, d, out);
    free(h);
}
