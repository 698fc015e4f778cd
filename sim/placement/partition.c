/*
 * Balanced partition by local search. A swap is judged in constant time from the affinity of every expert to every part
 * (Kernighan and Lin 1970, with gains kept up to date).
 */
#include "sim/placement/partition.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define MOST_SWEEPS 1000
#define TOLERANCE 1e-12 /* of all weight or load: less is rounding */

enum moesim_status moesim_partition_init(struct moesim_partition *p, struct moesim_arena *arena,
                                         struct moesim_error *err)
{
#define ROOM(field, size) ((p->field = moesim_alloc(arena, (size), sizeof *p->field)) != NULL)
    const bool ok = ROOM(bin, p->n) && ROOM(bin_load, p->n_bins) && ROOM(bin_items, p->n_bins) &&
                    ROOM(affinity, (size_t)p->n * p->n_parts);
#undef ROOM
    return ok ? MOESIM_OK
              : moesim_fail(err, MOESIM_ENOMEM, "no memory to share %u experts into %u bins", p->n, p->n_bins);
}

static void add_affinity(struct moesim_partition *p, uint32_t expert, uint32_t part, double sign)
{
    const double *weight = p->weight + (size_t)expert * p->n;
    for (uint32_t i = 0; i < p->n; i++)
        if (i != expert)
            p->affinity[(size_t)i * p->n_parts + part] += sign * weight[i];
}

/* ---- the start ---- */

/* Whether expert a comes before b for a bin of that part; both fit. */
static bool is_closer(const struct moesim_partition *p, uint32_t a, uint32_t b, uint32_t part)
{
    const double to_a = p->affinity[(size_t)a * p->n_parts + part], to_b = p->affinity[(size_t)b * p->n_parts + part];
    return to_a != to_b ? to_a > to_b : p->load[a] > p->load[b];
}

static uint32_t next_expert(const struct moesim_partition *p, uint32_t bin)
{
    uint32_t closest = p->n, lightest = p->n;
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->bin[i] < p->n_bins)
            continue;
        if (lightest == p->n || p->load[i] < p->load[lightest])
            lightest = i;
        const bool fits = p->bin_load[bin] + p->load[i] <= p->cap;
        if (fits && (closest == p->n || is_closer(p, i, closest, p->part[bin])))
            closest = i;
    }
    return closest < p->n ? closest : lightest;
}

void moesim_partition_grow(struct moesim_partition *p)
{
    memset(p->affinity, 0, (size_t)p->n * p->n_parts * sizeof *p->affinity);
    memset(p->bin_load, 0, p->n_bins * sizeof *p->bin_load);
    for (uint32_t i = 0; i < p->n; i++)
        p->bin[i] = p->n_bins; /* in none */
    for (uint32_t bin = 0; bin < p->n_bins; bin++)
        for (uint32_t i = 0; i < p->n / p->n_bins; i++) {
            const uint32_t expert = next_expert(p, bin);
            p->bin[expert] = bin;
            p->bin_load[bin] += p->load[expert];
            add_affinity(p, expert, p->part[bin], 1);
        }
}

/* ---- swaps ---- */

struct swap {
    uint32_t with;
    double overload, gain; /* change of either */
};

static double beyond(const struct moesim_partition *p, double load)
{
    return load > p->cap ? load - p->cap : 0;
}

/* What exchanging experts a and b, of different bins, changes. */
static struct swap judge(const struct moesim_partition *p, uint32_t a, uint32_t b)
{
    const uint32_t x = p->bin[a], y = p->bin[b], from = p->part[x], to = p->part[y];
    const double more = p->load[b] - p->load[a], *of_a = p->affinity + (size_t)a * p->n_parts,
                 *of_b = p->affinity + (size_t)b * p->n_parts;
    struct swap swap = {.with = b};
    swap.overload = beyond(p, p->bin_load[x] + more) + beyond(p, p->bin_load[y] - more) - beyond(p, p->bin_load[x]) -
                    beyond(p, p->bin_load[y]);
    if (from != to)
        swap.gain = of_a[to] - of_a[from] + of_b[from] - of_b[to] - 2 * p->weight[(size_t)a * p->n + b];
    return swap;
}

static void exchange(struct moesim_partition *p, uint32_t a, uint32_t b)
{
    const uint32_t x = p->bin[a], y = p->bin[b];
    if (p->part[x] != p->part[y]) {
        add_affinity(p, a, p->part[x], -1);
        add_affinity(p, a, p->part[y], 1);
        add_affinity(p, b, p->part[y], -1);
        add_affinity(p, b, p->part[x], 1);
    }
    p->bin_load[x] += p->load[b] - p->load[a];
    p->bin_load[y] += p->load[a] - p->load[b];
    p->bin[a] = y;
    p->bin[b] = x;
}

/* Affinities, loads, value and overload from `bin`. */
static void measure(struct moesim_partition *p)
{
    memset(p->affinity, 0, (size_t)p->n * p->n_parts * sizeof *p->affinity);
    memset(p->bin_load, 0, p->n_bins * sizeof *p->bin_load);
    for (uint32_t i = 0; i < p->n; i++) {
        add_affinity(p, i, p->part[p->bin[i]], 1);
        p->bin_load[p->bin[i]] += p->load[i];
    }
    p->value = p->overload = 0;
    for (uint32_t i = 0; i < p->n; i++)
        p->value += p->affinity[(size_t)i * p->n_parts + p->part[p->bin[i]]] / 2;
    for (uint32_t bin = 0; bin < p->n_bins; bin++)
        p->overload += beyond(p, p->bin_load[bin]);
}

void moesim_partition_improve(struct moesim_partition *p)
{
    measure(p);
    double least_load = 0, least_weight = 0;
    for (uint32_t i = 0; i < p->n; i++) {
        least_load += TOLERANCE * p->load[i];
        for (uint32_t part = 0; part < p->n_parts; part++)
            least_weight += TOLERANCE * p->affinity[(size_t)i * p->n_parts + part];
    }
    bool changed = true;
    for (uint32_t sweep = 0; sweep < MOST_SWEEPS && changed; sweep++) {
        changed = false;
        for (uint32_t a = 0; a < p->n; a++) {
            struct swap best = {.with = p->n};
            for (uint32_t b = 0; b < p->n; b++) {
                if (p->bin[a] == p->bin[b])
                    continue;
                const struct swap s = judge(p, a, b);
                const double lower = best.overload - s.overload;
                if (lower > least_load || (lower >= -least_load && s.gain > best.gain + least_weight))
                    best = s;
            }
            if (best.with == p->n)
                continue;
            exchange(p, a, best.with);
            changed = true;
        }
    }
    measure(p);
}
