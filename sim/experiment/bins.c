/*
 * A double's bits, with the sign turned around, are whole numbers in the order of the doubles; a bin's key are the
 * upper ones. Mean and squares are updated as by Welford (1962), and joined as by Chan, Golub and LeVeque (1979).
 */
#include "sim/experiment/bins.h"

#include <string.h>

#define SIGN (UINT64_C(1) << 63)

static uint64_t order_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & SIGN ? ~bits : bits | SIGN;
}

static double value_of(uint64_t order)
{
    const uint64_t bits = order & SIGN ? order & ~SIGN : ~order;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

uint64_t moesim_bins_bytes(void)
{
    return sizeof(struct moesim_bins) + 2 * MOESIM_MOST_BINS * sizeof(uint64_t);
}

bool moesim_bins_init(struct moesim_bins *bins, struct moesim_arena *arena)
{
    *bins = (struct moesim_bins){.key = moesim_alloc(arena, MOESIM_MOST_BINS, sizeof *bins->key),
                                 .count = moesim_alloc(arena, MOESIM_MOST_BINS, sizeof *bins->count)};
    return bins->key && bins->count;
}

void moesim_bins_clear(struct moesim_bins *bins)
{
    *bins = (struct moesim_bins){.key = bins->key, .count = bins->count};
}

/* Neighbours that differ in the last bit of their keys become one. */
static void coarsen(struct moesim_bins *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_bins; i++) {
        const uint64_t key = b->key[i] >> 1, count = b->count[i];
        if (n > 0 && b->key[n - 1] == key) {
            b->count[n - 1] += count;
        } else {
            b->key[n] = key;
            b->count[n++] = count;
        }
    }
    b->n_bins = n;
    b->shift++;
}

/* The first bin whose key is not below. */
static uint32_t find(const struct moesim_bins *b, uint64_t key)
{
    uint32_t low = 0, high = b->n_bins;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (b->key[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void count(struct moesim_bins *b, uint64_t order, uint64_t n)
{
    uint32_t at = find(b, order >> b->shift);
    if (at < b->n_bins && b->key[at] == order >> b->shift) {
        b->count[at] += n;
        return;
    }
    if (b->n_bins == MOESIM_MOST_BINS) {
        while (b->n_bins == MOESIM_MOST_BINS)
            coarsen(b);
        count(b, order, n);
        return;
    }
    memmove(b->key + at + 1, b->key + at, (b->n_bins - at) * sizeof *b->key);
    memmove(b->count + at + 1, b->count + at, (b->n_bins - at) * sizeof *b->count);
    b->key[at] = order >> b->shift;
    b->count[at] = n;
    b->n_bins++;
}

void moesim_bins_add(struct moesim_bins *b, double value)
{
    const double ahead = value - b->mean;
    b->min = b->n == 0 || value < b->min ? value : b->min;
    b->max = b->n == 0 || value > b->max ? value : b->max;
    b->n++;
    b->sum += value;
    b->mean += ahead / (double)b->n;
    b->square += ahead * (value - b->mean);
    count(b, order_of(value), 1);
}

void moesim_bins_merge(struct moesim_bins *b, const struct moesim_bins *other)
{
    if (other->n == 0)
        return;
    const double n = (double)b->n, m = (double)other->n, ahead = other->mean - b->mean;
    b->min = b->n == 0 || other->min < b->min ? other->min : b->min;
    b->max = b->n == 0 || other->max > b->max ? other->max : b->max;
    b->n += other->n;
    b->sum += other->sum;
    b->mean += ahead * m / (n + m);
    b->square += other->square + ahead * ahead * n * m / (n + m);
    while (b->shift < other->shift)
        coarsen(b);
    for (uint32_t i = 0; i < other->n_bins; i++)
        count(b, other->key[i] << other->shift, other->count[i]);
}

/* The value of that rank: the middle of its bin, within the values there are. */
static double value_at(const struct moesim_bins *b, uint64_t rank)
{
    uint32_t i = 0;
    for (uint64_t before = b->count[0]; before <= rank; before += b->count[i])
        i++;
    const double x = value_of(b->key[i] << b->shift | (b->shift ? UINT64_C(1) << (b->shift - 1) : 0));
    return x < b->min ? b->min : x > b->max ? b->max : x;
}

double moesim_bins_percentile(const struct moesim_bins *b, double q)
{
    const double at = q * (double)(b->n - 1);
    const uint64_t i = (uint64_t)at;
    const double low = value_at(b, i);
    return i + 1 < b->n ? low + (at - (double)i) * (value_at(b, i + 1) - low) : low;
}
