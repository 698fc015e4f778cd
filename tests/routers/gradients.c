/*
 * backward() of every router that has one, against central differences at 200 random points each: random cases and
 * settings, all inputs moved along one random direction. The loss is a random linear function of the pair weights and
 * of dispatch and combine, plus the auxiliary losses.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/hash.h>

#include "routers/table.h"
#include "tests/routers/random_case.h"

#define N_POINTS 200
#define TOLERANCE 1e-3
#define D_MODEL 16 /* of the trials */
#define LOSS_SCALE 3.0f
#define STEP (1.0 / 64)

TestSuite(gradients, .timeout = 120);

/* One kind of input: what is differentiated by, its direction and the gradient that backward() adds to. */
struct input {
    float *value, *start, *direction, *gradient;
    size_t n;
};

struct point {
    struct trial *trial;
    struct input input[3]; /* columns, hidden states, weights */
    float *of_pair;        /* [n_tokens][n_experts] coefficients of the weights */
    float *of_slot;        /* [2][n_tokens][n_slots] of dispatch and combine */
    float *d_weight;       /* [max_pairs] */
    char what[400];
};

static float *normals(struct draw *d, size_t n)
{
    float *x = calloc(n + 1, sizeof *x);
    d->random.step++;
    moesim_random_normals(&d->random, 0, n, x);
    return x;
}

/* `size` is how large the values are, so that a step is small beside them. */
static void input_init(struct input *in, const float *value, size_t n, float size, struct draw *d)
{
    in->value = (float *)value; /* memory of the trial */
    in->n = value ? n : 0;
    in->start = calloc(in->n + 1, sizeof *in->start);
    in->gradient = calloc(in->n + 1, sizeof *in->gradient);
    in->direction = normals(d, in->n);
    for (size_t i = 0; i < in->n; i++)
        in->direction[i] *= size;
    if (in->n > 0)
        memcpy(in->start, value, in->n * sizeof *value);
}

static void point_init(struct point *p, struct trial *t, struct draw *d)
{
    const size_t n = t->batch.n_tokens, pairs = n * t->shape.n_experts;
    p->trial = t;
    input_init(&p->input[0], t->columns, n * t->batch.stride, 1, d);
    input_init(&p->input[1], t->batch.hidden, n * D_MODEL, 1, d);
    input_init(&p->input[2], t->env.weights, t->shape.n_weights, t->shape.weight_std, d);
    p->of_pair = normals(d, pairs);
    p->of_slot = normals(d, 2 * n * t->shape.n_slots);
    p->d_weight = calloc(t->shape.max_pairs + 1, sizeof *p->d_weight);
}

static void point_finish(struct point *p)
{
    for (int i = 0; i < 3; i++) {
        free(p->input[i].start);
        free(p->input[i].direction);
        free(p->input[i].gradient);
    }
    free(p->of_pair);
    free(p->of_slot);
    free(p->d_weight);
}

/* The decisions without their order: a change of rank alone changes no loss. */
static uint64_t decisions(const struct moesim_plan *p)
{
    uint64_t sum = 0;
    for (uint32_t t = 0; t < p->n_tokens; t++)
        for (uint32_t i = p->first[t]; i < p->first[t + 1]; i++) {
            const uint32_t pair[] = {t, p->expert[i], p->fate[i]};
            sum += moesim_hash(MOESIM_HASH_START, pair, sizeof pair);
        }
    return sum;
}

/* The loss `distance` along the direction; *decided tells decisions apart. */
static double loss(struct point *p, double distance, uint64_t *decided)
{
    struct trial *t = p->trial;
    const struct moesim_plan *plan = &t->plan;
    struct moesim_error err;
    for (int i = 0; i < 3; i++)
        for (size_t j = 0; j < p->input[i].n; j++)
            p->input[i].value[j] = p->input[i].start[j] + (float)distance * p->input[i].direction[j];
    cr_assert_eq(trial_route(t, &err), MOESIM_OK, "%s: %s", p->what, err.text);
    double sum = (double)LOSS_SCALE * moesim_plan_aux_loss(plan);
    for (uint32_t token = 0; token < plan->n_tokens; token++)
        for (uint32_t i = plan->first[token]; i < plan->first[token + 1]; i++) {
            const bool named = plan->expert[i] < plan->n_experts;
            p->d_weight[i] = named ? p->of_pair[(size_t)token * plan->n_experts + plan->expert[i]] : 0;
            sum += (double)p->d_weight[i] * plan->weight[i];
        }
    const size_t cells = (size_t)plan->n_tokens * plan->n_slots;
    for (size_t i = 0; i < cells; i++)
        sum += (double)p->of_slot[i] * plan->dispatch[i] + (double)p->of_slot[cells + i] * plan->combine[i];
    *decided = decisions(plan);
    return sum;
}

/* Five-point central difference along the direction; NAN where a decision changes within the step, or where the middle
 * is not between its neighbours. */
static double difference(struct point *p, double step)
{
    static const double at[] = {-2, -1, 1, 2}, by[] = {1, -8, 8, -1}, of_middle[] = {-1, 4, 4, -1};
    uint64_t here, there;
    double sum = 0, expected = 0;
    const double middle = loss(p, 0, &here);
    for (int i = 0; i < 4; i++) {
        const double value = loss(p, at[i] * step, &there);
        sum += by[i] * value;
        expected += of_middle[i] * value / 6;
        if (there != here)
            return NAN;
    }
    return fabs(expected - middle) > 3e-5 * (1 + fabs(middle)) ? NAN : sum / (12 * step);
}

/* backward() along the direction; *norm is the length of the gradient. */
static double along(struct point *p, double *norm)
{
    struct trial *t = p->trial;
    struct moesim_error err;
    uint64_t decided;
    struct moesim_grad grad = {.struct_size = sizeof grad,
                               .loss_scale = LOSS_SCALE,
                               .d_weight = p->d_weight,
                               .d_dispatch = p->of_slot,
                               .d_combine = p->of_slot + (size_t)t->batch.n_tokens * t->shape.n_slots,
                               .d_columns = p->input[0].gradient,
                               .d_hidden = p->input[1].n ? p->input[1].gradient : NULL,
                               .d_weights = p->input[2].n ? p->input[2].gradient : NULL};
    loss(p, 0, &decided);
    for (int i = 0; i < 3; i++)
        for (size_t j = 0; j < p->input[i].n; j++)
            p->input[i].gradient[j] = .25f; /* added to, not overwritten */
    cr_assert_eq(t->router->backward(t->state, &t->batch, &t->plan, &grad, &err), MOESIM_OK, "%s", err.text);
    double sum = 0, squares = 0;
    for (int i = 0; i < 3; i++)
        for (size_t j = 0; j < p->input[i].n; j++) {
            const double g = (double)p->input[i].gradient[j] - .25;
            sum += g * p->input[i].direction[j];
            squares += g * g;
        }
    *norm = sqrt(squares);
    return sum;
}

enum outcome { AGREES, FLAT, REDRAWN };

/* Redrawn: a decision or a kink within the step, so that the differences have no limit there. Flat: no gradient. */
static enum outcome check_point(struct point *p)
{
    const double wide = difference(p, STEP), narrow = difference(p, STEP / 2);
    double norm;
    if (isnan(wide) || isnan(narrow))
        return REDRAWN;
    const double analytic = along(p, &norm), scale = fmax(fmax(fabs(narrow), fabs(analytic)), .1 * norm);
    if (fabs(wide - narrow) > .3 * TOLERANCE * scale + 1e-6)
        return REDRAWN;
    cr_assert(fabs(analytic - narrow) <= TOLERANCE * scale + 2e-5, "%s: gradient %.9g, differences %.9g", p->what,
              analytic, narrow);
    return scale > 1e-3 ? AGREES : FLAT;
}

/* The published estimator of sparsemixer is no gradient of what is drawn in training. */
static bool is_estimator(const struct moesim_router *router)
{
    return strcmp(router->name, "sparsemixer") == 0;
}

static enum outcome run_point(const struct moesim_router *router, uint64_t seed)
{
    struct draw d = draw_start(seed, 11);
    struct trial_case c = random_case(&d, 12, 10, seed);
    struct settings s;
    struct trial t;
    struct point p;
    struct moesim_error err;
    enum outcome outcome = REDRAWN;
    c.n_steps = 1;
    if (is_estimator(router))
        c.phase = MOESIM_EVAL;
    cr_assert_eq(settings_init(&s, router, c.top_k, &err), MOESIM_OK, "%s", err.text);
    random_settings(&s, router, &c, &d);
    if (c.n_tokens > 0 && trial_init(&t, router, &c, s.params, NULL, &err) == MOESIM_OK) {
        snprintf(p.what, sizeof p.what, "%s:%s (T=%u E=%u k=%u %s seed=%llu)", router->name, s.text, c.n_tokens,
                 c.n_experts, c.top_k, c.phase == MOESIM_TRAIN ? "train" : "eval", (unsigned long long)seed);
        trial_take(&t, 0);
        point_init(&p, &t, &d);
        outcome = check_point(&p);
        point_finish(&p);
        trial_finish(&t);
    } else if (c.n_tokens > 0) {
        trial_finish(&t);
    }
    settings_finish(&s);
    return outcome;
}

ParameterizedTestParameters(gradients, two_hundred_points)
{
    static size_t index[256];
    size_t n = 0;
    for (size_t i = 0; routers_table[i]; i++)
        if (routers_table[i]->backward)
            index[n++] = i;
    return cr_make_param_array(size_t, index, n);
}

ParameterizedTest(size_t *index, gradients, two_hundred_points)
{
    const struct moesim_router *router = routers_table[*index];
    uint32_t n[3] = {0};
    for (uint64_t seed = 1; n[AGREES] < N_POINTS && seed < 100 * N_POINTS; seed++)
        n[run_point(router, seed)]++;
    cr_assert_eq(n[AGREES], N_POINTS, "%s: only %u points, %u without a gradient, %u drawn again", router->name,
                 n[AGREES], n[FLAT], n[REDRAWN]);
}
