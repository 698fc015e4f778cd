/*
 * The parts of a logit that do not change from token to token.
 */
#include "workloads/calibrated/effects.h"

#include <math.h>

#include <moesim/kernels.h>

#include "workloads/gumbel.h"

#define GUMBEL_VARIANCE 1.6449340668482264 /* pi^2 / 6 */
#define LOGISTIC_SCALE 0.5513288954217920  /* sqrt(3) / pi: of a logistic law with deviation 1 */

/* ---- popularity ---- */

/* Skewness of (x + c (x^2 - 1)) / sqrt(1 + 2 c^2), x standard normal. */
static double skewness(double c)
{
    const double variance = 1 + 2 * c * c;
    return c * (6 + 8 * c * c) / (variance * sqrt(variance));
}

/* It rises with c up to 2 sqrt 2 at infinity. */
static double curvature_for(double skew)
{
    double low = 0, high = 16;
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2;
        if (skewness(middle) < fabs(skew))
            low = middle;
        else
            high = middle;
    }
    return skew < 0 ? -low : low;
}

void effects_popularity(const struct moesim_random *random, double deviation, double skew, uint32_t n, float *b)
{
    const double c = curvature_for(skew);
    double sum = 0, squares = 0;
    moesim_random_normals(random, 0, n, b);
    for (uint32_t e = 0; e < n; e++) {
        const double x = (double)b[e];
        b[e] = (float)(x + c * (x * x - 1));
        sum += (double)b[e];
    }
    const double mean = sum / n;
    for (uint32_t e = 0; e < n; e++)
        squares += ((double)b[e] - mean) * ((double)b[e] - mean);
    const double scale = squares > 0 ? deviation / sqrt(squares / n) : 0;
    for (uint32_t e = 0; e < n; e++)
        b[e] = (float)(scale * ((double)b[e] - mean));
}

/* ---- domains ---- */

/* |x|^p of a standard normal x; a zero stays one. */
static double power(double x, double p)
{
    return x > 0 ? (double)moesim_expf((float)(p * gumbel_ln(x))) : 0;
}

/* sqrt of the mean of |x|^(2 p) over a standard normal x, by the trapezium rule, which converges fast here. */
static double tail_deviation(double p)
{
    const double h = 1.0 / 32;
    double sum = 0;
    for (int i = 1; i < 16 * 32; i++) {
        const double x = i * h;
        sum += power(x, 2 * p) * (double)moesim_expf((float)(-x * x / 2));
    }
    return sqrt(2 * h * sum / 2.5066282746310002);
}

void effects_domain(const struct moesim_random *random, uint64_t first, double deviation, double tail, uint32_t n,
                    float *effect)
{
    moesim_random_normals(random, first, n, effect);
    const double scale = tail != 1 ? deviation / tail_deviation(tail) : deviation;
    for (uint32_t e = 0; e < n; e++) {
        const double x = (double)effect[e];
        effect[e] = (float)(scale * (tail != 1 ? (x < 0 ? -power(-x, tail) : power(x, tail)) : x));
    }
}

/* ---- a profile of loads ---- */

enum { GRID = 96, TRIES = 40 };

/* Mean and mean square over experts of the probability to be chosen: an expert of popularity x * deviation is chosen
 * where its luck passes the threshold. */
static void chances(double deviation, double luck, double threshold, double *mean, double *square)
{
    const double h = 8.0 / GRID;
    double weights = 0;
    *mean = *square = 0;
    for (int i = 0; i <= GRID; i++) {
        const double x = -4 + h * i, weight = (double)moesim_expf((float)(-x * x / 2));
        const double over = (threshold - deviation * x) / (luck * LOGISTIC_SCALE);
        const double p = 1 / (1 + (double)moesim_expf((float)fmin(fmax(over, -80), 80)));
        weights += weight;
        *mean += weight * p;
        *square += weight * p * p;
    }
    *mean /= weights;
    *square /= weights;
}

/* Coefficient of variation of the loads when `share` of the experts are chosen. */
static double variation(double deviation, double luck, double share)
{
    double low = -6 * (deviation + luck) - 40, high = -low, mean, square;
    for (int i = 0; i < TRIES; i++) {
        const double middle = (low + high) / 2;
        chances(deviation, luck, middle, &mean, &square);
        if (mean > share)
            low = middle;
        else
            high = middle;
    }
    chances(deviation, luck, low, &mean, &square);
    return sqrt(fmax(square - mean * mean, 0)) / mean;
}

/* Coefficient of variation with popularity and domains times `factor`. What domains and token types add is shared by
 * all tokens only as far as its mean over them goes; the rest is luck. */
static double variation_at(const struct effects *e, const struct effects_mix *mix, double factor)
{
    const double b2 = e->popularity * e->popularity, d2 = e->domain_effect * e->domain_effect;
    const double one = 1.0 / mix->n_domains, v = e->token_effect, v2 = v * v * (1 + e->token_echo * e->token_echo);
    const double shared_v = v * (1 + e->token_echo), shared_v2 = shared_v * shared_v * mix->same_type;
    const double common = factor * factor * (b2 + d2 * one) + shared_v2;
    const double luck = factor * factor * d2 * (1 - one) + fmax(v2 - shared_v2, 0) +
                        e->sequence_effect * e->sequence_effect + e->slow_effect * e->slow_effect +
                        e->fast_effect * e->fast_effect + GUMBEL_VARIANCE;
    return variation(sqrt(common), sqrt(luck), mix->share);
}

/* Regula falsi with halved ends (Illinois): the variation rises with the factor. */
double effects_factor(const struct effects *effects, const struct effects_mix *mix, double ratio)
{
    if (ratio == 1 || mix->share >= 1 || (effects->popularity == 0 && effects->domain_effect == 0))
        return 1;
    const double wanted = ratio * variation_at(effects, mix, 1), close = 1e-9 * wanted;
    double low = 0, high = 16, below = variation_at(effects, mix, low) - wanted;
    double above = variation_at(effects, mix, high) - wanted, x = 0;
    if (below >= 0 || above <= 0)
        return below >= 0 ? low : high;
    for (int i = 0, side = 0; i < 60; i++) {
        x = (low * above - high * below) / (above - below);
        const double miss = variation_at(effects, mix, x) - wanted;
        if (fabs(miss) <= close)
            break;
        if (miss > 0) {
            high = x;
            above = miss;
            below = side > 0 ? below / 2 : below;
            side = 1;
        } else {
            low = x;
            below = miss;
            above = side < 0 ? above / 2 : above;
            side = -1;
        }
    }
    return x;
}
