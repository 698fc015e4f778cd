/*
 * Steps by closed form, but for serving, whose queue has a past: that is gone through from step 0 once and then kept.
 */
#include "workloads/batching.h"

#include <string.h>

#include "workloads/gumbel.h"
#include "workloads/permutation.h"
#include "workloads/serving.h"

/* Streams of random numbers. */
enum { STREAM_ORDER = MOESIM_STREAM_WORKLOAD + 240, STREAM_PLACE, STREAM_PHASE, STREAM_ARRIVAL };

struct batching {
    struct batching_params p;
    struct batching_source source;
    uint64_t seed, n_rows; /* rows: tokens of a finite source */
    uint32_t n_tokens;
    uint64_t *end; /* [n_sequences] decode: tokens of the sequences up to here, in the order they are taken */
    uint64_t *sequence, *position; /* [n_tokens] */
    uint8_t *padding;              /* [n_tokens] or NULL */
    struct serving *serving;
    uint64_t last; /* step that the arrays hold + 1; 0 = none */
};

static const struct moesim_param rows[] = {
    BATCHING_PARAMS(struct batching, p),
    MOESIM_PARAM_END,
};

enum moesim_status batching_check(const struct batching_params *p, struct moesim_error *err)
{
    static const char *const of_serving[] = {"arrival", "demand", "prompt", "chunk", NULL};
    static const char *const of_bursts[] = {"burst_factor", "burst_steps", NULL};
    const struct moesim_schema schema = {rows, sizeof *rows};
    const struct batching b = {.p = *p};
    enum moesim_status status = MOESIM_OK;
    if (p->batching != BATCHING_SERVING)
        status = moesim_params_unused(schema, &b, of_serving, "without batching=serving", err);
    if (!status && p->arrival != ARRIVAL_BURSTY)
        status = moesim_params_unused(schema, &b, of_bursts, "without arrival=bursty", err);
    return status;
}

/* ---- one kind each ---- */

/* The sequence whose tokens hold place x, from the ends of all: first with end > x. */
static uint32_t find_sequence(const uint64_t *end, uint32_t n, uint64_t x)
{
    uint32_t first = 0, last = n;
    while (first < last) {
        const uint32_t middle = first + (last - first) / 2;
        if (end[middle] <= x)
            first = middle + 1;
        else
            last = middle;
    }
    return first;
}

/* Token t is row `row` of a finite source. */
static void place_row(struct batching *b, uint32_t t, uint64_t row)
{
    const uint32_t q = find_sequence(b->source.start + 1, b->source.n_sequences, row);
    b->sequence[t] = q;
    b->position[t] = row - b->source.start[q];
}

static void take_contiguous(struct batching *b, uint32_t step)
{
    if (b->source.n_sequences) {
        for (uint32_t t = 0; t < b->n_tokens; t++)
            place_row(b, t, ((uint64_t)step * b->n_tokens + t) % b->n_rows);
        return;
    }
    const uint32_t length = b->source.length; /* a step begins with a new sequence */
    const uint64_t first = (uint64_t)step * (b->n_tokens / length + (b->n_tokens % length != 0));
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        b->sequence[t] = first + t / length;
        b->position[t] = t % length;
    }
}

/* A finite source gives each of its tokens once before any comes again. */
static void take_shuffled(struct batching *b, uint32_t step)
{
    const struct moesim_random place = {b->seed, STREAM_PLACE, 0, step};
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        const uint64_t token = (uint64_t)step * b->n_tokens + t;
        if (b->source.n_sequences) {
            const struct permutation order = {b->n_rows, b->seed, STREAM_ORDER, (uint32_t)(token / b->n_rows)};
            place_row(b, t, permutation_at(&order, token % b->n_rows));
        } else {
            b->sequence[t] = token;
            b->position[t] = moesim_random_below(&place, t, b->source.length);
        }
    }
}

/* Running sequence t is somewhere in its first sequence at step 0. Of a finite source all go round one after the other,
 * in shuffled order and evenly spread, so that each token is as likely as any other. */
static void take_decode(struct batching *b, uint32_t step)
{
    const struct moesim_random phase = {b->seed, STREAM_PHASE, 0, 0};
    const uint32_t n = b->source.n_sequences;
    const struct permutation order = {n, b->seed, STREAM_ORDER, 0};
    const uint64_t shift = n ? (uint64_t)((double)moesim_random_bits(&phase, 0) * 0x1p-32 * (double)b->n_rows) : 0;
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        if (n) {
            const uint64_t apart = b->n_rows / b->n_tokens * t + b->n_rows % b->n_tokens * t / b->n_tokens;
            const uint64_t x = (apart + shift + step) % b->n_rows;
            const uint32_t i = find_sequence(b->end, n, x);
            b->sequence[t] = permutation_at(&order, i);
            b->position[t] = x - (i ? b->end[i - 1] : 0);
        } else {
            const uint64_t x = (uint64_t)moesim_random_below(&phase, t, b->source.length) + step;
            b->sequence[t] = x / b->source.length * b->n_tokens + t;
            b->position[t] = x % b->source.length;
        }
    }
}

/* Spreads the step's tokens over its places in their order, so that padding is everywhere alike, and says which
 * sequence of a finite source each is. */
static void take_serving(struct batching *b, uint32_t step)
{
    const struct serving_tokens taken = serving_step(b->serving, step);
    uint32_t next = 0;
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        const bool is_token = (uint64_t)(t + 1) * taken.n / b->n_tokens > next;
        b->padding[t] = !is_token;
        b->sequence[t] = is_token ? taken.sequence[next] : 0;
        b->position[t] = is_token ? taken.position[next] : 0;
        next += is_token;
    }
}

/* ---- the whole ---- */

/* Sequence `ordinal` to arrive: of a finite source all once in a shuffled order, then all again in another. */
static uint64_t arriving_sequence(const void *batching, uint64_t ordinal, uint64_t *length)
{
    const struct batching *b = batching;
    const uint32_t n = b->source.n_sequences;
    *length = b->source.length;
    if (!n)
        return ordinal;
    const struct permutation order = {n, b->seed, STREAM_ORDER, (uint32_t)(ordinal / n)};
    const uint64_t q = permutation_at(&order, ordinal % n);
    *length = b->source.start[q + 1] - b->source.start[q];
    return q;
}

static enum moesim_status start_serving(struct batching *b, struct moesim_arena *arena, struct moesim_error *err)
{
    const struct batching_params *p = &b->p;
    const uint32_t n = b->source.n_sequences;
    const double mean_length = n ? (double)b->n_rows / n : b->source.length;
    const struct serving_params serving = {
        .random = {b->seed, STREAM_ARRIVAL, 0, 0},
        .steady = p->arrival == ARRIVAL_STEADY,
        .burst_factor = p->arrival == ARRIVAL_BURSTY ? p->burst_factor : 1,
        .burst_steps = p->burst_steps,
        .rate = p->demand * b->n_tokens / mean_length,
        .prompt = p->prompt,
        .chunk = p->chunk,
        .n_tokens = b->n_tokens,
        .arriving = arriving_sequence,
        .source = b,
    };
    return serving_create(&serving, arena, &b->serving, err);
}

/* Where the sequences of a finite source end, in the order in which decode takes them. */
static enum moesim_status order_sequences(struct batching *b, struct moesim_arena *arena, struct moesim_error *err)
{
    const uint32_t n = b->source.n_sequences;
    const struct permutation order = {n, b->seed, STREAM_ORDER, 0};
    uint64_t end = 0;
    b->end = moesim_alloc(arena, n, sizeof *b->end);
    if (!b->end)
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the order of %u sequences", n);
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t q = permutation_at(&order, i);
        b->end[i] = end += b->source.start[q + 1] - b->source.start[q];
    }
    return MOESIM_OK;
}

enum moesim_status batching_create(const struct batching_params *params, const struct batching_source *source,
                                   uint64_t seed, uint32_t n_tokens, struct moesim_arena *arena,
                                   struct batching **batching, struct moesim_error *err)
{
    enum moesim_status status = batching_check(params, err);
    if (status)
        return status;
    struct batching *b = *batching = moesim_alloc(arena, 1, sizeof *b);
    const bool serving = params->batching == BATCHING_SERVING;
    if (b) {
        *b = (struct batching){.p = *params, .source = *source, .seed = seed, .n_tokens = n_tokens};
        b->sequence = moesim_alloc(arena, n_tokens, sizeof *b->sequence);
        b->position = moesim_alloc(arena, n_tokens, sizeof *b->position);
        b->padding = serving ? moesim_alloc(arena, n_tokens, 1) : NULL;
    }
    if (!b || !b->sequence || !b->position || (serving && !b->padding))
        return moesim_fail(err, MOESIM_ENOMEM, "no memory for the places of %u tokens", n_tokens);
    b->n_rows = source->n_sequences ? source->start[source->n_sequences] : 0;
    if (serving)
        status = start_serving(b, arena, err);
    else if (params->batching == BATCHING_DECODE && source->n_sequences)
        status = order_sequences(b, arena, err);
    return status;
}

struct batching_step batching_step(struct batching *b, uint32_t step)
{
    static void (*const take[])(struct batching *, uint32_t) = {take_contiguous, take_shuffled, take_decode,
                                                                take_serving};
    if (b->last != step + 1ull)
        take[b->p.batching](b, step);
    b->last = step + 1ull;
    return (struct batching_step){b->sequence, b->position, b->padding};
}
