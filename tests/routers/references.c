/*
 * Every router against a slow, separately written reference: 1,000 random cases each through the contract, with random
 * shapes, parameters, groups, padding and phases. Decisions are equal, weights and losses within 1e-6.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <moesim/random.h>

#include "routers/table.h"
#include "tests/routers/expected.h"
#include "tests/routers/random_case.h"

#ifdef __SANITIZE_ADDRESS__
#define N_CASES 200 /* the sanitizers look for faults of memory, which the first cases show */
#else
#define N_CASES 1000
#endif
#define TOLERANCE 1e-6

TestSuite(references, .timeout = 300);

/* ---- the reference's side ---- */

static void expect(struct expected *x, const struct trial *t, const float *memory, double *own)
{
    const struct moesim_batch *b = &t->batch;
    *x =
        (struct expected){.trial = t, .batch = b, .memory = memory, .own = own, .doubt = 1e-6, .n_tokens = b->n_tokens};
    x->n_experts = t->shape.n_experts;
    x->width = 2 * x->n_experts + 2;
    x->n = calloc((size_t)x->n_tokens + 1, sizeof *x->n);
    x->pair = calloc((size_t)x->n_tokens * x->width + 1, sizeof *x->pair);
    x->capacity = malloc(((size_t)b->n_groups * x->n_experts + 1) * sizeof *x->capacity);
    memset(x->capacity, 0xff, (size_t)b->n_groups * x->n_experts * sizeof *x->capacity); /* unlimited */
    x->dispatch = calloc((size_t)x->n_tokens * t->shape.n_slots + 1, sizeof *x->dispatch);
    x->combine = calloc((size_t)x->n_tokens * t->shape.n_slots + 1, sizeof *x->combine);
}

static void forget(struct expected *x)
{
    free(x->n);
    free(x->pair);
    free(x->capacity);
    free(x->dispatch);
    free(x->combine);
}

/* ---- comparison ---- */

static char what[600]; /* names the case in a failure */

static bool near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1, fmax(fabs(a), fabs(b)));
}

static const struct expected_pair *find(struct expected *x, uint32_t t, uint32_t expert, uint32_t rank)
{
    for (uint32_t c = 0; c < x->n[t]; c++)
        if (x->by_weight ? pair_of(x, t, c)->expert == expert : c == rank)
            return pair_of(x, t, c);
    cr_assert_fail("%s: token %u does not want expert %u", what, t, expert);
    return NULL;
}

static void compare_token(struct expected *x, const struct moesim_plan *p, uint32_t t)
{
    const uint32_t first = p->first[t];
    if (x->n[t] == 1 && pair_of(x, t, 0)->fate == MOESIM_BAD_ROW) { /* as many empty pairs as the router likes */
        for (uint32_t i = first; i < p->first[t + 1]; i++)
            cr_assert_eq(p->fate[i], MOESIM_BAD_ROW, "%s: token %u has no number but fate %u", what, t, p->fate[i]);
        return;
    }
    cr_assert_eq(p->first[t + 1] - first, x->n[t], "%s: token %u has %u pairs, not %u", what, t,
                 p->first[t + 1] - first, x->n[t]);
    for (uint32_t c = 0; c < x->n[t]; c++) {
        const uint32_t i = first + c;
        const struct expected_pair *q = find(x, t, p->expert[i], c);
        cr_assert(p->expert[i] == q->expert && p->slot[i] == q->slot && p->fate[i] == q->fate,
                  "%s: token %u, pair %u: expert %d slot %d fate %u, not expert %d slot %d fate %u", what, t, c,
                  (int)p->expert[i], p->slot[i], p->fate[i], (int)q->expert, q->slot, q->fate);
        cr_assert(near(p->weight[i], q->weight, TOLERANCE), "%s: token %u, pair %u: weight %.9g, not %.9g", what, t, c,
                  p->weight[i], q->weight);
    }
}

static void compare(struct expected *x, const struct moesim_plan *p)
{
    for (uint32_t t = 0; t < x->n_tokens; t++)
        compare_token(x, p, t);
    for (uint32_t i = 0; i < p->n_groups * x->n_experts; i++)
        cr_assert_eq(p->capacity[i], x->capacity[i], "%s: capacity[%u] is %u, not %u", what, i, p->capacity[i],
                     x->capacity[i]);
    cr_assert_eq(p->n_wanted, x->n_wanted, "%s: %llu wanted, not %llu", what, (unsigned long long)p->n_wanted,
                 (unsigned long long)x->n_wanted);
    char names[200] = "";
    for (uint32_t i = 0; i < p->n_aux; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), " %s", p->aux[i].name);
    cr_assert(near(moesim_plan_aux_loss(p), x->aux, 10 * TOLERANCE), "%s: auxiliary losses%s are %.9g, not %.9g", what,
              names, moesim_plan_aux_loss(p), x->aux);
    for (size_t i = 0; i < (size_t)p->n_tokens * p->n_slots; i++) {
        cr_assert(near(p->dispatch[i], x->dispatch[i], TOLERANCE), "%s: dispatch[%zu] is %.9g, not %.9g", what, i,
                  p->dispatch[i], x->dispatch[i]);
        cr_assert(near(p->combine[i], x->combine[i], TOLERANCE), "%s: combine[%zu] is %.9g, not %.9g", what, i,
                  p->combine[i], x->combine[i]);
    }
}

/* ---- running ---- */

/* After the global batch: the memory that the reference expects, where it is the bias of each expert. */
static void compare_update(const struct reference_entry *entry, struct expected *x, struct trial *t,
                           const float *before)
{
    const size_t n = (size_t)t->shape.n_memory;
    double *expected = calloc(n + 1, sizeof *expected);
    struct moesim_error err;
    cr_assert_eq(trial_learn(t, &err), MOESIM_OK, "%s: %s", what, err.text);
    for (size_t i = 0; i < n; i++)
        expected[i] = before[i];
    if (t->c.phase == MOESIM_TRAIN)
        entry->update(x, expected);
    for (size_t i = 0; i < n && x->compare_memory && !x->ambiguous; i++)
        cr_assert(near(t->env.memory[i], expected[i], TOLERANCE), "%s: memory[%zu] is %.9g after the update, not %.9g",
                  what, i, t->env.memory[i], expected[i]);
    free(expected);
}

/* One step; false when float32 cannot tell two of its numbers apart. */
static bool run_step(const struct reference_entry *entry, struct trial *t, struct draw *d, double *own, uint32_t step)
{
    struct expected x;
    struct moesim_error err;
    random_fill(t, d, step);
    float *memory = malloc((size_t)t->shape.n_memory * sizeof *memory + 1);
    memcpy(memory, t->env.memory, (size_t)t->shape.n_memory * sizeof *memory);
    cr_assert_eq(trial_route(t, &err), MOESIM_OK, "%s: %s", what, err.text);
    expect(&x, t, memory, own);
    entry->route(&x);
    if (!x.ambiguous)
        compare(&x, &t->plan);
    if (!x.ambiguous && entry->update)
        compare_update(entry, &x, t, memory);
    const bool certain = !x.ambiguous;
    forget(&x);
    free(memory);
    return certain;
}

enum outcome { COMPARED, REFUSED, DOUBTFUL };

static enum outcome run_case(const struct reference_entry *entry, const struct moesim_router *router, uint64_t seed)
{
    struct draw d = draw_start(seed, 7);
    const struct trial_case c = random_case(&d, 64, 300, seed);
    struct settings s;
    struct trial t;
    struct moesim_error err;
    enum outcome outcome = COMPARED;
    double own[64] = {0};
    cr_assert_eq(settings_init(&s, router, c.top_k, &err), MOESIM_OK, "%s", err.text);
    random_settings(&s, router, &c, &d);
    snprintf(what, sizeof what, "%s:%s (T=%u E=%u k=%u devices=%u %s seed=%llu)", router->name, s.text, c.n_tokens,
             c.n_experts, c.top_k, c.n_devices, c.phase == MOESIM_TRAIN ? "train" : "eval", (unsigned long long)seed);
    const enum moesim_status status = trial_init(&t, router, &c, s.params, NULL, &err);
    cr_assert(status == MOESIM_OK || is_refusal(status), "%s: %s", what, err.text);
    if (status != MOESIM_OK)
        outcome = REFUSED;
    for (uint32_t step = 0; step < c.n_steps && outcome == COMPARED; step++)
        if (!run_step(entry, &t, &d, own, step))
            outcome = DOUBTFUL;
    trial_finish(&t);
    settings_finish(&s);
    return outcome;
}

static const struct reference_entry *entry_of(const char *router)
{
    for (size_t i = 0; reference_table[i].router; i++)
        if (strcmp(reference_table[i].router, router) == 0)
            return &reference_table[i];
    cr_assert_fail("router %s has no reference in tests/routers", router);
    return NULL;
}

ParameterizedTestParameters(references, thousand_random_cases)
{
    static size_t index[256];
    size_t n = 0;
    for (; routers_table[n]; n++)
        index[n] = n;
    return cr_make_param_array(size_t, index, n);
}

ParameterizedTest(size_t *index, references, thousand_random_cases)
{
    const struct moesim_router *router = routers_table[*index];
    const struct reference_entry *entry = entry_of(router->name);
    uint32_t n[3] = {0};
    for (uint64_t seed = 1; n[COMPARED] < N_CASES && seed < 20 * N_CASES; seed++)
        n[run_case(entry, router, seed)]++;
    cr_assert_eq(n[COMPARED], N_CASES, "%s: only %u cases, %u refused, %u doubtful", router->name, n[COMPARED],
                 n[REFUSED], n[DOUBTFUL]);
}
