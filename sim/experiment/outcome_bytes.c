/*
 * An outcome as bytes and back, for worker processes, which are the same program on the same machine: numbers as they
 * lie in memory, so that packing a run of thousands of figures costs less than spelling one of them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/experiment/experiment.h"

/* In front of everything else. */
struct head {
    uint64_t n_summaries, n_series, n_windows, n_traffic, n_domain_losses, n_specialisations;
    double seconds;
};

_Static_assert(sizeof(struct moesim_summary) == 2 * sizeof(uint32_t) + 8 * sizeof(double),
               "a summary is packed as it is: it has no gaps");

/* ---- packing ---- */

/* With `at` NULL bytes are only counted. */
struct packer {
    char *at;
    size_t n;
};

static void put(struct packer *to, const void *bytes, size_t n)
{
    if (to->at && n)
        memcpy(to->at + to->n, bytes, n);
    to->n += n;
}

static void put_text(struct packer *to, const char *text)
{
    const char *whole = text ? text : "";
    put(to, whole, strlen(whole) + 1);
}

static void put_windows(struct packer *to, const struct moesim_outcome *o)
{
    for (uint64_t i = 0; i < o->n_windows; i++) {
        const struct moesim_load_window *w = &o->window[i];
        const uint32_t head[] = {w->window, w->layer, w->first_step, w->n_steps, w->n_experts};
        put(to, head, sizeof head);
        put(to, w->assigned, w->n_experts * sizeof *w->assigned);
        put(to, w->kept, w->n_experts * sizeof *w->kept);
    }
}

static void put_validations(struct packer *to, const struct moesim_outcome *o)
{
    for (uint64_t i = 0; i < o->n_domain_losses; i++) {
        const struct moesim_domain_loss *l = &o->domain_loss[i];
        put(to, &l->step, sizeof l->step);
        put(to, &l->tokens, sizeof l->tokens);
        put(to, &l->bits_per_byte, sizeof l->bits_per_byte);
        put_text(to, l->domain);
    }
    for (uint64_t i = 0; i < o->n_specialisations; i++) {
        const struct moesim_specialisation *s = &o->specialisation[i];
        const uint32_t head[] = {s->layer, s->kind, s->n_experts};
        put(to, head, sizeof head);
        put(to, &s->tokens, sizeof s->tokens);
        put(to, s->assigned, s->n_experts * sizeof *s->assigned);
        put_text(to, s->subject);
    }
}

static void put_outcome(struct packer *to, const struct moesim_outcome *o)
{
    const struct head head = {o->n_summaries,     o->n_series,          o->n_windows, o->n_traffic,
                              o->n_domain_losses, o->n_specialisations, o->seconds};
    put(to, &head, sizeof head);
    put_text(to, o->workload_provenance);
    put_text(to, o->kernel_path);
    put_text(to, o->note);
    put(to, o->summary, o->n_summaries * sizeof *o->summary);
    for (uint64_t i = 0; i < o->n_series; i++) {
        const struct moesim_sample *s = &o->series[i];
        const uint32_t place[] = {s->step, s->layer, s->metric};
        put(to, place, sizeof place);
        put(to, &s->value, sizeof s->value);
    }
    put_windows(to, o);
    for (uint64_t i = 0; i < o->n_traffic; i++) {
        const struct moesim_traffic *t = &o->traffic[i];
        const uint32_t place[] = {t->source, t->target, t->link};
        put(to, place, sizeof place);
        put(to, &t->bytes, sizeof t->bytes);
    }
    put_validations(to, o);
}

char *moesim_outcome_pack(const struct moesim_outcome *outcome, size_t *size)
{
    struct packer to = {.at = NULL};
    put_outcome(&to, outcome);
    to = (struct packer){.at = malloc(to.n)};
    if (to.at)
        put_outcome(&to, outcome);
    *size = to.n;
    return to.at;
}

/* ---- and back ---- */

/* Bytes that are left; none once something was missing. */
struct unpacker {
    const char *at;
    size_t left;
    bool whole;
};

static void take(struct unpacker *from, void *bytes, size_t n)
{
    if (!from->whole || n > from->left) {
        from->whole = false;
        memset(bytes, 0, n);
        return;
    }
    memcpy(bytes, from->at, n);
    from->at += n;
    from->left -= n;
}

static double take_number(struct unpacker *from)
{
    double x;
    take(from, &x, sizeof x);
    return isfinite(x) ? x : (double)NAN;
}

/* Memory for n rows that take at least `bytes` each; nothing when there cannot be so many. */
static void *rows(struct unpacker *from, struct moesim_arena *arena, uint64_t n, size_t bytes, size_t size)
{
    void *memory = from->whole && n <= from->left / bytes ? moesim_alloc(arena, n, size) : NULL;
    from->whole = memory != NULL;
    return memory;
}

static char *take_text(struct unpacker *from, struct moesim_arena *arena)
{
    const char *end = from->whole ? memchr(from->at, '\0', from->left) : NULL;
    const size_t n = end ? (size_t)(end - from->at) + 1 : 0;
    char *text = n ? moesim_alloc(arena, n, 1) : NULL;
    from->whole = text != NULL;
    if (text)
        take(from, text, n);
    return text;
}

static void take_summaries(struct unpacker *from, struct moesim_outcome *o)
{
    o->summary = rows(from, o->arena, o->n_summaries, sizeof *o->summary, sizeof *o->summary);
    for (uint64_t i = 0; from->whole && i < o->n_summaries; i++) {
        struct moesim_summary *s = &o->summary[i];
        take(from, s, sizeof *s);
        double *const figure[] = {&s->value, &s->mean, &s->std, &s->min, &s->p50, &s->p95, &s->max};
        for (size_t j = 0; j < sizeof figure / sizeof *figure; j++)
            *figure[j] = isfinite(*figure[j]) ? *figure[j] : (double)NAN;
        from->whole = from->whole && s->metric < MOESIM_N_METRICS;
    }
}

static void take_series(struct unpacker *from, struct moesim_outcome *o)
{
    uint32_t place[3];
    o->series = rows(from, o->arena, o->n_series, sizeof place + sizeof(double), sizeof *o->series);
    for (uint64_t i = 0; from->whole && i < o->n_series; i++) {
        take(from, place, sizeof place);
        o->series[i] =
            (struct moesim_sample){.step = place[0], .layer = place[1], .metric = place[2], .value = take_number(from)};
        from->whole = from->whole && place[2] < MOESIM_N_METRICS;
    }
}

static void take_windows(struct unpacker *from, struct moesim_outcome *o)
{
    uint32_t head[5];
    o->window = rows(from, o->arena, o->n_windows, sizeof head, sizeof *o->window);
    for (uint64_t i = 0; from->whole && i < o->n_windows; i++) {
        struct moesim_load_window *w = &o->window[i];
        take(from, head, sizeof head);
        *w = (struct moesim_load_window){
            .window = head[0], .layer = head[1], .first_step = head[2], .n_steps = head[3], .n_experts = head[4]};
        const size_t counts = w->n_experts * sizeof *w->assigned;
        w->assigned = rows(from, o->arena, w->n_experts, 2 * sizeof *w->assigned, sizeof *w->assigned);
        w->kept = rows(from, o->arena, w->n_experts, 2 * sizeof *w->kept, sizeof *w->kept);
        if (from->whole) {
            take(from, w->assigned, counts);
            take(from, w->kept, counts);
        }
        from->whole = from->whole && w->window < MOESIM_MAX_WINDOWS;
    }
}

static void take_traffic(struct unpacker *from, struct moesim_outcome *o)
{
    uint32_t place[3];
    o->traffic = rows(from, o->arena, o->n_traffic, sizeof place + sizeof(double), sizeof *o->traffic);
    for (uint64_t i = 0; from->whole && i < o->n_traffic; i++) {
        take(from, place, sizeof place);
        o->traffic[i] = (struct moesim_traffic){
            .source = place[0], .target = place[1], .link = place[2], .bytes = take_number(from)};
        from->whole = from->whole && place[2] < MOESIM_N_LINKS;
    }
}

static void take_domain_losses(struct unpacker *from, struct moesim_outcome *o)
{
    o->domain_loss = rows(from, o->arena, o->n_domain_losses, 21, sizeof *o->domain_loss);
    for (uint64_t i = 0; from->whole && i < o->n_domain_losses; i++) {
        struct moesim_domain_loss *l = &o->domain_loss[i];
        take(from, &l->step, sizeof l->step);
        take(from, &l->tokens, sizeof l->tokens);
        l->bits_per_byte = take_number(from);
        l->domain = take_text(from, o->arena);
    }
}

static void take_specialisations(struct unpacker *from, struct moesim_outcome *o)
{
    uint32_t head[3];
    o->specialisation = rows(from, o->arena, o->n_specialisations, sizeof head + 9, sizeof *o->specialisation);
    for (uint64_t i = 0; from->whole && i < o->n_specialisations; i++) {
        struct moesim_specialisation *s = &o->specialisation[i];
        take(from, head, sizeof head);
        *s = (struct moesim_specialisation){.layer = head[0], .kind = head[1], .n_experts = head[2]};
        take(from, &s->tokens, sizeof s->tokens);
        s->assigned = rows(from, o->arena, s->n_experts, sizeof *s->assigned, sizeof *s->assigned);
        if (from->whole)
            take(from, s->assigned, s->n_experts * sizeof *s->assigned);
        s->subject = take_text(from, o->arena);
        from->whole = from->whole && s->kind < MOESIM_N_SUBJECTS;
    }
}

enum moesim_status moesim_outcome_unpack(const char *bytes, size_t size, struct moesim_arena *arena,
                                         struct moesim_outcome *outcome, struct moesim_error *err)
{
    struct unpacker from = {.at = bytes, .left = size, .whole = true};
    struct head head;
    take(&from, &head, sizeof head);
    *outcome = (struct moesim_outcome){.arena = arena,
                                       .n_summaries = head.n_summaries,
                                       .n_series = head.n_series,
                                       .n_windows = head.n_windows,
                                       .n_traffic = head.n_traffic,
                                       .n_domain_losses = head.n_domain_losses,
                                       .n_specialisations = head.n_specialisations,
                                       .seconds = isfinite(head.seconds) ? head.seconds : (double)NAN};
    outcome->workload_provenance = take_text(&from, arena);
    outcome->kernel_path = take_text(&from, arena);
    outcome->note = take_text(&from, arena);
    take_summaries(&from, outcome);
    take_series(&from, outcome);
    take_windows(&from, outcome);
    take_traffic(&from, outcome);
    take_domain_losses(&from, outcome);
    take_specialisations(&from, outcome);
    return from.whole && from.left == 0
               ? MOESIM_OK
               : moesim_fail(err, MOESIM_EBROKEN,
                             "a worker's result is not whole: a part is missing or memory ran out");
}
