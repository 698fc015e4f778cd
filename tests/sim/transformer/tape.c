#include "tests/sim/transformer/tape.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static node push(struct tape *t, double value, struct tape_entry entry)
{
    if (t->n == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->value = realloc(t->value, t->room * sizeof *t->value);
        t->gradient = realloc(t->gradient, t->room * sizeof *t->gradient);
        t->entry = realloc(t->entry, t->room * sizeof *t->entry);
        cr_assert(t->value && t->gradient && t->entry);
    }
    t->value[t->n] = value;
    t->entry[t->n] = entry;
    return (node)t->n++;
}

void tape_init(struct tape *t)
{
    memset(t, 0, sizeof *t);
    tape_clear(t);
}

void tape_finish(struct tape *t)
{
    free(t->value);
    free(t->gradient);
    free(t->entry);
}

void tape_clear(struct tape *t)
{
    t->n = 0;
    tape_leaf(t, 0);
}

node tape_leaf(struct tape *t, double x)
{
    return push(t, x, (struct tape_entry){0});
}

/* f(a) with slope f'(a). */
static node one(struct tape *t, double value, node a, double slope)
{
    return push(t, value, (struct tape_entry){{a}, {slope}});
}

static node two(struct tape *t, double value, node a, double by_a, node b, double by_b)
{
    return push(t, value, (struct tape_entry){{a, b}, {by_a, by_b}});
}

node tape_add(struct tape *t, node a, node b)
{
    return two(t, t->value[a] + t->value[b], a, 1, b, 1);
}

node tape_subtract(struct tape *t, node a, node b)
{
    return two(t, t->value[a] - t->value[b], a, 1, b, -1);
}

node tape_multiply(struct tape *t, node a, node b)
{
    return two(t, t->value[a] * t->value[b], a, t->value[b], b, t->value[a]);
}

node tape_divide(struct tape *t, node a, node b)
{
    const double x = t->value[a], y = t->value[b];
    return two(t, x / y, a, 1 / y, b, -x / (y * y));
}

node tape_multiply_add(struct tape *t, node a, node b, node c)
{
    return push(t, t->value[a] * t->value[b] + t->value[c],
                (struct tape_entry){{a, b, c}, {t->value[b], t->value[a], 1}});
}

node tape_scale(struct tape *t, node a, double by)
{
    return one(t, t->value[a] * by, a, by);
}

node tape_exp(struct tape *t, node a)
{
    const double y = exp(t->value[a]);
    return one(t, y, a, y);
}

node tape_log(struct tape *t, node a)
{
    return one(t, log(t->value[a]), a, 1 / t->value[a]);
}

node tape_sqrt(struct tape *t, node a)
{
    const double y = sqrt(t->value[a]);
    return one(t, y, a, 0.5 / y);
}

node tape_tanh(struct tape *t, node a)
{
    const double y = tanh(t->value[a]);
    return one(t, y, a, 1 - y * y);
}

node tape_relu(struct tape *t, node a)
{
    const double x = t->value[a];
    return one(t, x > 0 ? x : 0, a, x > 0);
}

void tape_differentiate(struct tape *t, node of)
{
    memset(t->gradient, 0, t->n * sizeof *t->gradient);
    t->gradient[of] = 1;
    for (size_t i = of + (size_t)1; i-- > 1;)
        for (int p = 0; p < 3; p++)
            t->gradient[t->entry[i].parent[p]] += t->gradient[i] * t->entry[i].slope[p];
}
