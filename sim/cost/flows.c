/*
 * Progressive filling: of all links the one with the least to share for each of its flows is full first; its flows have
 * their rate, and the rest is shared on.
 */
#include "sim/cost/flows.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A link that is not full yet. */
struct share {
    double rate; /* for each flow, when it was put on the heap; it has only grown since */
    uint32_t link;
};

struct filling {
    const struct moesim_flow *flow;
    const double *capacity; /* [n_links] */
    size_t n_flows;
    uint32_t n_links;

    double *left;   /* [n_flows] bytes */
    double *rate;   /* [n_flows] 0 = not decided yet */
    uint32_t *live; /* [n_live] flows that have not ended */
    size_t n_live;

    uint32_t *first; /* [n_links + 1] the link's flows in `of_link` */
    uint32_t *n_of;  /* [n_links] of them, those that have not ended */
    uint32_t *of_link;
    double *free_rate; /* [n_links] not given away yet */
    uint32_t *open;    /* [n_links] flows without a rate */
    struct share *heap;
    uint32_t n_heap;
};

/* ---- the heap of open links, the least share on top ---- */

static bool before(struct share a, struct share b)
{
    return a.rate < b.rate || (a.rate == b.rate && a.link < b.link);
}

static void sink(struct filling *f, uint32_t i)
{
    const struct share moved = f->heap[i];
    for (uint32_t child; (child = 2 * i + 1) < f->n_heap; i = child) {
        if (child + 1 < f->n_heap && before(f->heap[child + 1], f->heap[child]))
            child++;
        if (!before(f->heap[child], moved))
            break;
        f->heap[i] = f->heap[child];
    }
    f->heap[i] = moved;
}

static void pop(struct filling *f)
{
    f->heap[0] = f->heap[--f->n_heap];
    if (f->n_heap)
        sink(f, 0);
}

/* ---- one filling ---- */

static void start_filling(struct filling *f)
{
    f->n_heap = 0;
    for (uint32_t l = 0; l < f->n_links; l++) {
        f->free_rate[l] = f->capacity[l];
        f->open[l] = f->n_of[l];
        if (f->n_of[l])
            f->heap[f->n_heap++] = (struct share){f->capacity[l] / f->n_of[l], l};
    }
    for (size_t i = 0; i < f->n_live; i++)
        f->rate[f->live[i]] = 0;
    for (uint32_t i = f->n_heap / 2; i-- > 0;)
        sink(f, i);
}

/* The link is full: its open flows get its share, which they take from their other links too. */
static void fill_link(struct filling *f, uint32_t link, double share)
{
    const uint32_t *list = f->of_link + f->first[link];
    for (uint32_t i = 0; i < f->n_of[link]; i++) {
        if (f->rate[list[i]] > 0)
            continue;
        const struct moesim_flow *flow = &f->flow[list[i]];
        f->rate[list[i]] = share;
        for (uint32_t j = 0; j < flow->n_links; j++) {
            f->free_rate[flow->link[j]] -= share;
            f->open[flow->link[j]]--;
        }
    }
}

static void fill(struct filling *f)
{
    start_filling(f);
    while (f->n_heap) {
        const struct share top = f->heap[0];
        if (f->open[top.link] == 0) {
            pop(f);
            continue;
        }
        const double share = fmax(f->free_rate[top.link], 0) / f->open[top.link];
        if (share > top.rate * (1 + 1e-12)) {
            f->heap[0].rate = share; /* grown since: back to its place */
            sink(f, 0);
            continue;
        }
        pop(f);
        fill_link(f, top.link, top.rate);
    }
}

/* ---- events ---- */

/* Takes the flows out of their links' lists that have nothing left. */
static void drop_ended(struct filling *f)
{
    for (uint32_t l = 0; l < f->n_links; l++) {
        uint32_t *list = f->of_link + f->first[l], n = 0;
        for (uint32_t i = 0; i < f->n_of[l]; i++)
            if (f->left[list[i]] > 0)
                list[n++] = list[i];
        f->n_of[l] = n;
    }
}

/* Goes on to the end of the next flow and of those that end within the resolution after it. */
static double advance(struct filling *f, double now_s, double resolution_s, double *end_s)
{
    double next_s = INFINITY, last_s = 0;
    for (size_t i = 0; i < f->n_live; i++)
        next_s = fmin(next_s, f->left[f->live[i]] / f->rate[f->live[i]]);
    const double horizon_s = next_s * (1 + 1e-12) + resolution_s;
    size_t n = 0;
    for (size_t i = 0; i < f->n_live; i++) {
        const uint32_t flow = f->live[i];
        const double takes_s = f->left[flow] / f->rate[flow];
        if (takes_s > horizon_s) {
            f->live[n++] = flow;
            continue;
        }
        f->left[flow] = 0;
        end_s[flow] = now_s + takes_s;
        last_s = fmax(last_s, takes_s);
    }
    f->n_live = n;
    for (size_t i = 0; i < n; i++)
        f->left[f->live[i]] -= f->rate[f->live[i]] * last_s;
    return now_s + last_s;
}

static void list_flows(struct filling *f)
{
    for (size_t i = 0; i < f->n_flows; i++)
        for (uint32_t j = 0; j < f->flow[i].n_links; j++)
            f->first[f->flow[i].link[j] + 1]++;
    for (uint32_t l = 0; l < f->n_links; l++)
        f->first[l + 1] += f->first[l];
    for (size_t i = 0; i < f->n_flows; i++) {
        f->left[i] = f->flow[i].bytes;
        f->live[i] = (uint32_t)i;
        for (uint32_t j = 0; j < f->flow[i].n_links; j++) {
            const uint32_t link = f->flow[i].link[j];
            f->of_link[f->first[link] + f->n_of[link]++] = (uint32_t)i;
        }
    }
    f->n_live = f->n_flows;
}

enum moesim_status moesim_flows_run(const struct moesim_flow *flow, size_t n_flows, const double *rate,
                                    uint32_t n_links, double resolution_s, double *end_s, struct moesim_error *err)
{
    struct filling f = {.flow = flow, .capacity = rate, .n_flows = n_flows, .n_links = n_links};
    struct moesim_arena *arena = moesim_arena_create(0);
    if (arena) {
        f.left = moesim_alloc(arena, n_flows, sizeof *f.left);
        f.rate = moesim_alloc(arena, n_flows, sizeof *f.rate);
        f.live = moesim_alloc(arena, n_flows, sizeof *f.live);
        f.first = moesim_alloc(arena, (size_t)n_links + 1, sizeof *f.first);
        f.n_of = moesim_alloc(arena, n_links, sizeof *f.n_of);
        f.of_link = moesim_alloc(arena, MOESIM_MAX_FLOW_LINKS * n_flows, sizeof *f.of_link);
        f.free_rate = moesim_alloc(arena, n_links, sizeof *f.free_rate);
        f.open = moesim_alloc(arena, n_links, sizeof *f.open);
        f.heap = moesim_alloc(arena, n_links, sizeof *f.heap);
    }
    const bool memory =
        arena && f.left && f.rate && f.live && f.first && f.n_of && f.of_link && f.free_rate && f.open && f.heap;
    if (memory) {
        list_flows(&f);
        for (double now_s = 0; f.n_live;) {
            fill(&f);
            now_s = advance(&f, now_s, resolution_s, end_s);
            drop_ended(&f);
        }
    }
    moesim_arena_destroy(arena);
    return memory ? MOESIM_OK : moesim_fail(err, MOESIM_ENOMEM, "no memory for %zu flows", n_flows);
}
