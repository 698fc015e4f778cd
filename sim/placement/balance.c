/*
 * The linear program of replica choice `lp` (LPLB, deepseek-ai): shares x >= 0 of each expert's tokens among its
 * replicas that make the greatest device load M the least,
 *
 *     min M   subject to   sum of x over the replicas of e = demand of e,   base load of d + sum of x on d <= M.
 *
 * It is solved as the convex problem of the least sum of squared loads, whose optimum is an optimum of this one too:
 * the possible loads form the base polytope of a submodular function, in which the point nearest to zero has the least
 * maximum (Fujishige, "Submodular Functions and Optimization", 2005, section 9). One expert alone is balanced exactly
 * by pouring its tokens onto its least loaded devices; doing so for one after the other descends to the optimum.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "sim/placement/replica.h"

#define MOST_SWEEPS (1 << 14)
#define TOLERANCE 1e-6 /* of the least possible maximum */

struct device_load {
    double load;
    uint32_t device;
};

struct solver {
    struct device_load *sorted; /* [n_devices] */
    double *load;               /* [n_devices] */
    double *confined;           /* [n_devices] demand that can go to the fullest devices only */
    uint32_t *rank;             /* [n_devices] place in `sorted` */
};

size_t moesim_balance_scratch(uint32_t n_devices)
{
    return n_devices * (sizeof(struct device_load) + 2 * sizeof(double) + sizeof(uint32_t));
}

static void open_solver(struct solver *s, uint32_t n_devices, void *scratch)
{
    s->sorted = scratch;
    s->load = (double *)(s->sorted + n_devices);
    s->confined = s->load + n_devices;
    s->rank = (uint32_t *)(s->confined + n_devices);
}

static int fuller_first(const void *a, const void *b)
{
    const struct device_load *x = a, *y = b;
    return x->load != y->load ? (x->load < y->load) - (x->load > y->load)
                              : (x->device > y->device) - (x->device < y->device);
}

/* Whether the maximum is as low as it can be: for some k, the demand that only the k fullest devices can serve fills
 * them, evenly spread, to the maximum. */
static bool is_least(const struct moesim_placement *p, const double *demand, struct solver *s)
{
    const uint32_t n = p->n_devices;
    for (uint32_t d = 0; d < n; d++)
        s->sorted[d] = (struct device_load){s->load[d], d};
    qsort(s->sorted, n, sizeof *s->sorted, fuller_first);
    for (uint32_t i = 0; i < n; i++) {
        s->rank[s->sorted[i].device] = i;
        s->confined[i] = 0;
    }
    for (uint32_t e = 0; e < p->n_experts; e++) {
        uint32_t emptiest = 0;
        for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++)
            emptiest = s->rank[p->replica[r]] > emptiest ? s->rank[p->replica[r]] : emptiest;
        s->confined[emptiest] += demand[e];
    }
    double sum = 0, bound = 0;
    for (uint32_t k = 0; k < n; k++) {
        sum += s->confined[k];
        bound = sum / (k + 1) > bound ? sum / (k + 1) : bound;
    }
    return s->sorted[0].load <= bound * (1 + TOLERANCE);
}

/* Whether no replica before r, of those of one expert, is on the same device: of several there, the first serves. */
static bool is_first_there(const uint32_t *device, uint32_t r)
{
    for (uint32_t i = 0; i < r; i++)
        if (device[i] == device[r])
            return false;
    return true;
}

/* Pours x onto the emptiest of n devices (their loads in `sorted`, in rising order) and gives the level reached. */
static double fill(const struct device_load *sorted, uint32_t n, double x)
{
    double sum = x;
    for (uint32_t under = 1;; under++) {
        sum += sorted[under - 1].load;
        const double level = sum / under;
        if (under == n || level <= sorted[under].load)
            return level;
    }
}

/* Shares one expert's demand anew, the others' being as they are. */
static void pour(struct solver *s, const uint32_t *device, uint32_t n, double demand, double *share)
{
    uint32_t n_distinct = 0;
    for (uint32_t r = 0; r < n; r++)
        s->load[device[r]] -= share[r];
    for (uint32_t r = 0; r < n; r++) {
        if (!is_first_there(device, r))
            continue;
        const struct device_load one = {s->load[device[r]], device[r]};
        uint32_t at = n_distinct++;
        for (; at > 0 && s->sorted[at - 1].load > one.load; at--)
            s->sorted[at] = s->sorted[at - 1];
        s->sorted[at] = one;
    }
    const double level = fill(s->sorted, n_distinct, demand);
    for (uint32_t r = 0; r < n; r++) {
        const double room = level - s->load[device[r]];
        share[r] = room > 0 && is_first_there(device, r) ? room : 0;
    }
    for (uint32_t r = 0; r < n; r++)
        s->load[device[r]] += share[r];
}

static bool is_power_of_two(uint32_t n)
{
    return (n & (n - 1)) == 0;
}

void moesim_balance_solve(const struct moesim_placement *p, const double *demand, double *share, void *scratch)
{
    struct solver s;
    open_solver(&s, p->n_devices, scratch);
    memset(s.load, 0, p->n_devices * sizeof *s.load);
    for (uint32_t e = 0; e < p->n_experts; e++)
        for (uint32_t r = p->first[e]; r < p->first[e + 1]; r++) {
            share[r] = demand[e] / (p->first[e + 1] - p->first[e]);
            s.load[p->replica[r]] += share[r];
        }
    for (uint32_t sweep = 1; sweep <= MOST_SWEEPS; sweep++) {
        for (uint32_t e = 0; e < p->n_experts; e++)
            if (p->first[e + 1] - p->first[e] > 1)
                pour(&s, p->replica + p->first[e], p->first[e + 1] - p->first[e], demand[e], share + p->first[e]);
        if (is_power_of_two(sweep) && is_least(p, demand, &s))
            return;
    }
}
