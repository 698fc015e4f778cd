/*
 * Arrivals are points of a Poisson process on a clock that runs at the rate of arrival: gaps between points are
 * -ln u, or 1. A burst is a state of a two-state Markov chain, from whose stationary law the first step is drawn.
 */
#include "workloads/serving.h"

#include "workloads/gumbel.h"

enum { LAYER_GAP, LAYER_BURST }; /* of the random numbers */

struct running {
    uint64_t sequence, position, prompt, length;
};

struct serving {
    struct serving_params p;
    struct running *running; /* [n_tokens] in the order of arrival */
    uint64_t *sequence, *position;
    uint32_t n_running, n_taken;
    uint64_t next_step, n_arrived, n_admitted;
    double clock, next_arrival;
    bool burst;
};

static float uniform(const struct serving *s, uint32_t layer, uint64_t i)
{
    struct moesim_random random = s->p.random;
    random.layer = layer;
    return moesim_random_uniform(&random, i);
}

static double gap(const struct serving *s, uint64_t i)
{
    return s->p.steady ? 1 : -gumbel_ln(1 - (double)uniform(s, LAYER_GAP, i));
}

static void start(struct serving *s)
{
    s->n_running = s->n_taken = 0;
    s->next_step = s->n_arrived = s->n_admitted = 0;
    s->clock = 0;
    s->next_arrival = gap(s, 0);
}

enum moesim_status serving_create(const struct serving_params *params, struct moesim_arena *arena,
                                  struct serving **serving, struct moesim_error *err)
{
    const uint32_t n = params->n_tokens;
    struct serving *s = *serving = moesim_alloc(arena, 1, sizeof *s);
    if (s) {
        *s = (struct serving){.p = *params};
        s->running = moesim_alloc(arena, n, sizeof *s->running);
        s->sequence = moesim_alloc(arena, n, sizeof *s->sequence);
        s->position = moesim_alloc(arena, n, sizeof *s->position);
    }
    if (!s || !s->running || !s->sequence || !s->position)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for %u running sequences", n);
    start(s);
    return MOESIM_OK;
}

/* Whether this step is in a burst, which takes 1 / burst_factor of the time. */
static bool next_burst(const struct serving *s)
{
    const double factor = s->p.burst_factor, u = (double)uniform(s, LAYER_BURST, s->next_step);
    if (factor <= 1)
        return true;
    if (s->next_step == 0)
        return u * factor < 1;
    return s->burst ? u * s->p.burst_steps >= 1 : u * s->p.burst_steps * (factor - 1) < 1;
}

static void arrive(struct serving *s)
{
    s->burst = next_burst(s);
    if (s->burst)
        s->clock += s->p.rate * s->p.burst_factor;
    while (s->next_arrival <= s->clock)
        s->next_arrival += gap(s, ++s->n_arrived);
}

static void take(struct serving *s, struct running *r, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        s->sequence[s->n_taken] = r->sequence;
        s->position[s->n_taken++] = r->position++;
    }
}

static void take_prompt(struct serving *s, struct running *r)
{
    const uint64_t left = r->prompt - r->position, room = s->p.n_tokens - s->n_taken;
    const uint64_t most = left < s->p.chunk ? left : s->p.chunk;
    take(s, r, most < room ? most : room);
}

static void admit(struct serving *s)
{
    while (s->n_admitted < s->n_arrived && s->n_running < s->p.n_tokens && s->n_taken < s->p.n_tokens) {
        struct running *r = &s->running[s->n_running++];
        r->sequence = s->p.arriving(s->p.source, s->n_admitted++, &r->length);
        r->position = 0;
        r->prompt = (uint64_t)(s->p.prompt * (double)r->length);
        if (r->prompt == 0)
            r->prompt = 1;
        take_prompt(s, r);
    }
}

static void leave(struct serving *s)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i].position < s->running[i].length)
            s->running[n++] = s->running[i];
    s->n_running = n;
}

static void advance(struct serving *s)
{
    const uint32_t n = s->n_running;
    s->n_taken = 0;
    arrive(s);
    for (uint32_t i = 0; i < n; i++) /* n_running <= n_tokens: there is room for one each */
        if (s->running[i].position >= s->running[i].prompt)
            take(s, &s->running[i], 1);
    for (uint32_t i = 0; i < n; i++)
        if (s->running[i].position < s->running[i].prompt)
            take_prompt(s, &s->running[i]);
    admit(s);
    leave(s);
    s->next_step++;
}

struct serving_tokens serving_step(struct serving *s, uint32_t step)
{
    if (step + 1ull < s->next_step)
        start(s);
    while (s->next_step <= step)
        advance(s);
    return (struct serving_tokens){s->n_taken, s->sequence, s->position};
}
