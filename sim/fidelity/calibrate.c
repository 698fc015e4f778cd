/*
 * A pattern search (Hooke, Jeeves 1961) over the logarithms of the constants. Pairs are tried because a rate and its
 * start-up make up for each other along a narrow valley.
 */
#include "sim/fidelity/calibrate.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

enum { MOST_CONSTANTS = 8 };

struct search {
    moesim_misfit *misfit;
    const void *context;
    uint32_t n;
    double *constant;
    const double *most;
    double best;
};

/* Multiplies two constants (or one, up == down) by factors and keeps that when it helps. */
static bool try_factors(struct search *s, uint32_t up, double by_up, uint32_t down, double by_down)
{
    double trial[MOST_CONSTANTS];
    memcpy(trial, s->constant, s->n * sizeof *trial);
    trial[up] *= by_up;
    trial[down] *= by_down;
    for (uint32_t i = 0; s->most && i < s->n; i++)
        if (s->most[i] > 0 && trial[i] > s->most[i])
            return false;
    const double misfit = s->misfit(s->context, trial);
    if (!(misfit < s->best - 1e-12))
        return false;
    s->best = misfit;
    memcpy(s->constant, trial, s->n * sizeof *trial);
    return true;
}

static bool try_all(struct search *s, double factor)
{
    bool better = false;
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t j = 0; j <= i; j++) {
            better |= try_factors(s, i, factor, j, i == j ? 1 : factor);
            better |= try_factors(s, i, 1 / factor, j, i == j ? 1 : 1 / factor);
            if (i == j)
                continue;
            better |= try_factors(s, i, factor, j, 1 / factor);
            better |= try_factors(s, i, 1 / factor, j, factor);
        }
    return better;
}

double moesim_calibrate(moesim_misfit *misfit, const void *context, uint32_t n, double *constant, const double *most)
{
    assert(n > 0 && n <= MOST_CONSTANTS);
    struct search s = {misfit, context, n, constant, most, misfit(context, constant)};
    double before;
    do { /* again from long steps, as long as that leads out of a fold of the misfit */
        before = s.best;
        for (double step = 0.2; step > 1e-4;)
            if (!try_all(&s, 1 + step))
                step /= 2;
    } while (s.best < before - 1e-6);
    return s.best;
}
