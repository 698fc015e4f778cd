/*
 * W0 to W7 as integers.
 */
#include "workloads/patterns.h"

#include <stdbool.h>

#include <moesim/random.h>

#include "workloads/calibrated/effects.h"

/* Index of what is drawn once a layer, beyond those of shuffles. */
#define DEVICE_INDEX (UINT64_C(1) << 40)

enum moesim_status pattern_check(const struct pattern_setting *s, struct moesim_error *err)
{
    const uint32_t n_here = s->n_experts / s->n_devices + (s->n_experts % s->n_devices != 0);
    const bool by_device = s->pattern == PATTERN_HOT_DEVICE || s->pattern == PATTERN_SPREAD_HEAT ||
                           s->pattern == PATTERN_IDLE_DEVICE || s->pattern == PATTERN_RAGGED;
    if (by_device && s->n_devices < 2)
        return moesim_fail(
            err, MOESIM_EINVAL,
            "adversarial: pattern W%u is about devices, and there is one: give a cluster, or set devices", s->pattern);
    if (by_device && s->pattern != PATTERN_RAGGED && s->n_devices > s->n_experts)
        return moesim_fail(err, MOESIM_EINVAL,
                           "adversarial: pattern W%u with %u devices for %u experts: no more than "
                           "experts",
                           s->pattern, s->n_devices, s->n_experts);
    if (s->pattern == PATTERN_IDLE_DEVICE && s->n_experts - n_here < s->top_k)
        return moesim_fail(err, MOESIM_EINVAL,
                           "adversarial: pattern W5 leaves %u experts, too few for %u a token: use more devices",
                           s->n_experts - n_here, s->top_k);
    if (s->n_hot > s->n_experts)
        return moesim_fail(err, MOESIM_EINVAL, "adversarial: hot = %u, but there are %u experts", s->n_hot,
                           s->n_experts);
    return MOESIM_OK;
}

uint32_t pattern_tokens(const struct pattern_setting *s, uint32_t step)
{
    if (s->pattern != PATTERN_BURST || step % s->every == s->every - 1)
        return s->n_tokens;
    const uint32_t quiet = (uint32_t)(s->n_tokens / s->factor);
    return quiet ? quiet : 1;
}

/* A drawn order of 0 .. n - 1 (Fisher-Yates). */
static void shuffle(const struct moesim_random *random, uint32_t n, uint32_t *order)
{
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t other = moesim_random_below(random, i, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
}

static uint32_t device_of(const struct pattern_setting *s, uint32_t expert)
{
    return (uint32_t)((uint64_t)expert * s->n_devices / s->n_experts);
}

/* Puts the experts of the device first, all keeping their order otherwise; returns how many it has. */
static uint32_t part_device(const struct pattern_setting *s, uint32_t device, uint32_t *order)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_experts; i++)
        if (device_of(s, order[i]) == device) {
            const uint32_t expert = order[i];
            for (uint32_t j = i; j > n; j--)
                order[j] = order[j - 1];
            order[n++] = expert;
        }
    return n;
}

/* Puts `n_hot` experts first, taken from the devices in turn, each device's in their order. */
static void part_in_turn(const struct pattern_setting *s, uint32_t n_hot, uint32_t *order)
{
    uint32_t device = 0;
    for (uint32_t n = 0; n < n_hot; device = (device + 1) % s->n_devices) {
        uint32_t i = n;
        while (i < s->n_experts && device_of(s, order[i]) != device)
            i++;
        if (i == s->n_experts)
            continue; /* that one has no more */
        const uint32_t expert = order[i];
        for (; i > n; i--)
            order[i] = order[i - 1];
        order[n++] = expert;
    }
}

/* Deals `sum` out to experts order[0 .. n), evenly, the first ones getting what is left over. */
static void deal(uint64_t sum, const uint32_t *order, uint32_t n, uint32_t *load)
{
    for (uint32_t i = 0; i < n; i++)
        load[order[i]] = (uint32_t)(sum / n + (i < sum % n));
}

static void deal_hot(const struct pattern_setting *s, uint32_t n_tokens, uint32_t n_hot, const uint32_t *order,
                     uint32_t *load)
{
    const uint64_t all = (uint64_t)n_tokens * s->top_k, most = (uint64_t)n_hot * n_tokens;
    const uint64_t others = (uint64_t)(s->n_experts - n_hot) * n_tokens;
    uint64_t hot = (uint64_t)(s->heat * (double)all + 0.5);
    hot = hot > most ? most : hot;
    hot = all - hot > others ? all - others : hot;
    deal(hot, order, n_hot, load);
    deal(all - hot, order + n_hot, s->n_experts - n_hot, load);
}

/* `first` experts go to the end. */
static void rotate(uint32_t first, uint32_t n, uint32_t *order)
{
    const struct {
        uint32_t from, to;
    } turned[] = {{0, first}, {first, n}, {0, n}};
    for (int i = 0; i < 3; i++)
        for (uint32_t a = turned[i].from, b = turned[i].to; b > a + 1; a++, b--) {
            const uint32_t expert = order[a];
            order[a] = order[b - 1];
            order[b - 1] = expert;
        }
}

void pattern_loads(const struct pattern_setting *s, uint32_t step, uint32_t layer, uint32_t *load, uint32_t *order)
{
    const struct moesim_random random = {s->seed, EFFECTS_PATTERN, layer, 0};
    const uint32_t n = s->n_experts, n_tokens = pattern_tokens(s, step);
    const uint64_t all = (uint64_t)n_tokens * s->top_k;
    const uint32_t device = moesim_random_below(&random, DEVICE_INDEX, s->n_devices);
    uint32_t n_device;
    shuffle(&random, n, order);
    switch ((enum pattern)s->pattern) {
    case PATTERN_BALANCED:
    case PATTERN_RAGGED:
    case PATTERN_BURST:
        deal(all, order, n, load);
        break;
    case PATTERN_ROTATING:
        rotate((uint32_t)((uint64_t)(step / s->every) * s->n_hot % n), n, order);
        deal_hot(s, n_tokens, s->n_hot, order, load);
        break;
    case PATTERN_HOT_EXPERTS:
        deal_hot(s, n_tokens, s->n_hot, order, load);
        break;
    case PATTERN_HOT_DEVICE:
        deal_hot(s, n_tokens, part_device(s, device, order), order, load);
        break;
    case PATTERN_SPREAD_HEAT:
        part_in_turn(s, s->n_hot, order);
        deal_hot(s, n_tokens, s->n_hot, order, load);
        break;
    case PATTERN_IDLE_DEVICE:
        n_device = part_device(s, device, order);
        deal(0, order, n_device, load);
        deal(all, order + n_device, n - n_device, load);
        break;
    }
}

void pattern_sources(const struct pattern_setting *s, uint32_t *sent, uint32_t *order)
{
    const struct moesim_random random = {s->seed, EFFECTS_PATTERN, 0, 1};
    const uint32_t n = s->n_devices;
    uint64_t before = 0;
    double weight = 0;
    shuffle(&random, n, order);
    for (uint32_t i = 0; i < n; i++) {
        weight += 1 + (s->ragged - 1) * (1 - 2.0 * i / (n - 1));
        const uint64_t end = i + 1 < n ? (uint64_t)(s->n_tokens * weight / n + 0.5) : s->n_tokens;
        sent[order[i]] = (uint32_t)(end - before);
        before = end;
    }
}
