/*
 * Many values in bounded memory: counted in bins, exact while they differ little in number, and with percentiles within
 * a stated distance beyond.
 */
#ifndef MOESIM_SIM_BINS_H
#define MOESIM_SIM_BINS_H

#include <stdbool.h>
#include <stdint.h>

#include <moesim/arena.h>

enum { MOESIM_MOST_BINS = 2048 };

/* Finite values. A bin holds those that agree in sign, exponent and all but the last `shift` bits of the mantissa, 0 at
 * first, so that its middle is within 2^(shift - 53) of each of them, relatively; when there are too many bins, pairs
 * of neighbours become one. 2048 bins of values within a factor of 2^r of each other are within about r / 2048. */
struct moesim_bins {
    uint64_t n;
    double sum, mean, square, min, max; /* square = sum of (x - mean)^2 */
    uint32_t n_bins, shift;
    uint64_t *key, *count; /* [MOESIM_MOST_BINS] by rising value */
};

/* False without memory. */
bool moesim_bins_init(struct moesim_bins *bins, struct moesim_arena *arena);
uint64_t moesim_bins_bytes(void);

void moesim_bins_clear(struct moesim_bins *bins);
void moesim_bins_add(struct moesim_bins *bins, double value);
/* Adds all values of `other`. */
void moesim_bins_merge(struct moesim_bins *bins, const struct moesim_bins *other);

/* The percentile of at least one value as that of sorted values, by the middles of their bins. */
double moesim_bins_percentile(const struct moesim_bins *bins, double q);

#endif
