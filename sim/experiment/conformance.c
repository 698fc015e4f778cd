/*
 * The conformance suite: random shapes here, hostile columns and parameters in their own files.
 */
#include "sim/experiment/conformance.h"

#include <omp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim/experiment/conformance_suite.h"

#define MANY_CELLS (1u << 17) /* tokens x experts: a shape with more is kept with probability MANY_CELLS / cells */
#define N_SETTINGS 32u        /* drawn for a shape until the router takes one */

void suite_check(struct suite *suite, bool holds, const struct trial_case *c, const char *settings, const char *format,
                 ...)
{
    struct moesim_conformance *r = suite->result;
    r->n_checks++;
    if (holds)
        return;
    r->n_failed++;
    if (r->n_failures_kept == sizeof r->failure / sizeof r->failure[0])
        return;
    char sentence[300];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof sentence, format, arguments);
    va_end(arguments);
    snprintf(r->failure[r->n_failures_kept++], sizeof r->failure[0], "%.*s (T=%u E=%u k=%u devices=%u %s seed=%llu %s)",
             200, sentence, c->n_tokens, c->n_experts, c->top_k, c->n_devices,
             c->phase == MOESIM_TRAIN ? "train" : "eval", (unsigned long long)c->seed, settings);
}

/* ---- random shapes ---- */

/* Tokens and experts: log-uniform, but large ones are thinned, or 4 % of the shapes would take most of the time. */
static void draw_sizes(struct trial_case *c, struct draw *d)
{
    double cells;
    do {
        c->n_tokens = (uint32_t)draw_log(d, 1, 4096.999);
        c->n_experts = (uint32_t)draw_log(d, 1, 512.999);
        if (draw_below(d, 4) == 0) /* groups of experts need numbers with divisors */
            c->n_experts = (c->n_experts + 15) / 16 * 16;
        cells = (double)c->n_tokens * c->n_experts;
    } while (draw_uniform(d) * cells > MANY_CELLS);
}

static struct trial_case draw_case(struct suite *suite, uint32_t i, struct draw *d)
{
    static const struct trial_case corners[] = {
        {.n_tokens = 0, .n_experts = 8, .top_k = 2, .n_devices = 1},
        {.n_tokens = 1, .n_experts = 1, .top_k = 1, .n_devices = 1},
        {.n_tokens = 4096, .n_experts = 1, .top_k = 1, .n_devices = 2},
        {.n_tokens = 3, .n_experts = 512, .top_k = 512, .n_devices = 8},
        {.n_tokens = 4096, .n_experts = 512, .top_k = 8, .n_devices = 4},
    };
    struct trial_case c = {0};
    if (i < sizeof corners / sizeof corners[0]) {
        c = corners[i];
    } else {
        draw_sizes(&c, d);
        c.top_k = (uint32_t)draw_log(d, 1, c.n_experts + 0.999);
        c.n_devices = (uint32_t)draw_log(d, 1, 8.999);
        c.has_padding = draw_below(d, 4) == 0;
    }
    c.n_steps = 2;
    c.phase = draw_coin(d) ? MOESIM_TRAIN : MOESIM_EVAL;
    c.seed = suite->seed + i;
    return c;
}

/* All steps by an instance of its own on so many threads; the first batch comes a second time at the end. */
static enum moesim_status run_on(struct suite *suite, int threads, const struct trial_case *c, const struct settings *s,
                                 struct trial_inputs *inputs, uint64_t *hash, struct moesim_error *err)
{
    omp_set_num_threads(threads);
    struct trial t;
    bool same;
    enum moesim_status status = trial_init(&t, suite->router, c, s->params, inputs, err);
    if (status == MOESIM_OK)
        status = trial_steps(&t, hash, err);
    if (status == MOESIM_OK && threads == 1) {
        status = trial_repeat(&t, &same, err);
        if (status == MOESIM_OK)
            suite_check(suite, same, c, s->text, "the same batch is routed differently the second time");
    }
    trial_finish(&t);
    return status;
}

/* The bits are equal on 1, 2 and 4 threads. The first run decides whether the router takes the settings. */
static enum moesim_status check_threads(struct suite *suite, const struct trial_case *c, const struct settings *s,
                                        struct moesim_error *err)
{
    static const int threads[] = {1, 2, 4};
    const int before = omp_get_max_threads();
    struct trial_inputs inputs = {.arena = NULL};
    uint64_t hash[3];
    enum moesim_status status = run_on(suite, threads[0], c, s, &inputs, &hash[0], err);
    for (int i = 1; i < 3 && status == MOESIM_OK; i++) {
        status = run_on(suite, threads[i], c, s, &inputs, &hash[i], err);
        if (is_refusal(status))
            status = moesim_fail(err, MOESIM_EBROKEN, "refused on %d threads, accepted on one", threads[i]);
        if (status == MOESIM_OK)
            suite_check(suite, hash[0] == hash[i], c, s->text, "1 and %d threads give different bits", threads[i]);
    }
    inputs_finish(&inputs);
    omp_set_num_threads(before);
    return status;
}

/* A refusal is counted, a broken promise kept; only what the suite cannot go on after is an error. */
static enum moesim_status take_status(struct suite *suite, enum moesim_status status, const struct trial_case *c,
                                      const struct settings *s, const struct moesim_error *err)
{
    if (status == MOESIM_ENOMEM)
        return status;
    if (is_refusal(status))
        suite->result->n_refused++;
    else
        suite_check(suite, status == MOESIM_OK, c, s->text, "%s", err->text);
    return MOESIM_OK;
}

/* One random setting; *refused asks for another one, unless it is the last. */
static enum moesim_status try_settings(struct suite *suite, const struct trial_case *c, struct draw *d, bool last,
                                       bool *refused, struct moesim_error *err)
{
    struct settings s;
    enum moesim_status status = settings_init(&s, suite->router, c->top_k, err);
    if (status == MOESIM_OK) {
        settings_draw(&s, suite->router, c, NULL, d);
        status = check_threads(suite, c, &s, err);
        *refused = is_refusal(status) && !last;
        status = *refused ? MOESIM_OK : take_status(suite, status, c, &s, err);
    }
    settings_finish(&s);
    return status;
}

static enum moesim_status try_shape(struct suite *suite, uint32_t i, struct moesim_error *err)
{
    struct draw d = draw_start(suite->seed + i, 0);
    const struct trial_case c = draw_case(suite, i, &d);
    enum moesim_status status = MOESIM_OK;
    bool refused = true;
    for (uint32_t n = 1; status == MOESIM_OK && refused; n++)
        status = try_settings(suite, &c, &d, n == N_SETTINGS, &refused, err);
    suite->result->n_shapes++;
    return status;
}

enum moesim_status suite_shapes(struct suite *suite, uint32_t n_shapes, struct moesim_error *err)
{
    for (uint32_t i = 0; i < n_shapes; i++) {
        const enum moesim_status status = try_shape(suite, i, err);
        if (status != MOESIM_OK)
            return status;
    }
    return MOESIM_OK;
}

enum moesim_status moesim_conformance_run(const struct moesim_router *router, uint32_t n_shapes, uint64_t seed,
                                          struct moesim_conformance *result, struct moesim_error *err)
{
    memset(result, 0, sizeof *result);
    struct suite suite = {.router = router, .seed = seed, .result = result};
    enum moesim_status status = suite_shapes(&suite, n_shapes, err);
    if (status == MOESIM_OK)
        status = suite_hostile(&suite, err);
    if (status == MOESIM_OK)
        status = suite_parameters(&suite, err);
    return status;
}
