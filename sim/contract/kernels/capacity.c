/* SPDX-License-Identifier: MIT
 *
 * Slots per expert: the formulas that libraries call "capacity factor".
 */
#include <moesim/kernels.h>

#include <math.h>

/* What a formula is made of: tokens of the group, experts, choices, factor, in double so that it reads as published. */
struct shape {
    double s, e, k, f;
};

static double up_to_multiple_of_4(double c)
{
    return ceil(c / 4) * 4;
}

static double gshard(struct shape x)
{
    const double c = trunc(x.s * x.f / x.e);
    return up_to_multiple_of_4(c > 0 ? c : 4); /* expert_capacity_dim is 0 */
}

static double fastmoe(struct shape x)
{
    return x.k > 1 ? floor(ceil(x.f * x.s) * x.k / x.e) : ceil(x.f * x.s / x.e); /* its Switch gate at k = 1 */
}

static double torchscale(struct shape x)
{
    return x.k > 1 ? x.k * ceil(x.s / x.e) : trunc(x.f * ceil(x.s / x.e)); /* top-2 ignores the factor */
}

static double slots(enum moesim_capacity_rule rule, struct shape x)
{
    switch (rule) {
    case MOESIM_CAPACITY_MEGATRON:
        return ceil(x.s * x.k / x.e * x.f);
    case MOESIM_CAPACITY_TUTEL:
        return x.k * trunc(x.f * ceil(x.s / x.e));
    case MOESIM_CAPACITY_DEEPSPEED:
        return ceil(x.s / x.e * x.f * x.k);
    case MOESIM_CAPACITY_MEGABLOCKS:
        return trunc(x.f * x.k * x.s / x.e);
    case MOESIM_CAPACITY_MESH:
        return fmin(x.s, trunc(x.s * x.f / x.e));
    case MOESIM_CAPACITY_FLAXFORMER:
        return rint(x.f * x.s / x.e); /* half to even, as Python rounds */
    case MOESIM_CAPACITY_GSHARD:
        return gshard(x);
    case MOESIM_CAPACITY_VMOE:
        return up_to_multiple_of_4(ceil(x.s * x.k * x.f / x.e));
    case MOESIM_CAPACITY_FASTMOE:
        return fastmoe(x);
    case MOESIM_CAPACITY_TORCHSCALE:
        return torchscale(x);
    case MOESIM_CAPACITY_TORCHSCALE_EVAL:
        return ceil(x.f * x.s);
    case MOESIM_CAPACITY_MAXTEXT:
        return trunc(fmax(ceil(x.s * x.k / x.e) * x.f, x.f));
    case MOESIM_CAPACITY_AXLEARN:
        return trunc(x.s * x.f / x.e);
    }
    return 0;
}

static uint32_t least_slots(enum moesim_capacity_rule rule)
{
    switch (rule) {
    case MOESIM_CAPACITY_DEEPSPEED:
    case MOESIM_CAPACITY_MESH:
    case MOESIM_CAPACITY_FLAXFORMER:
        return 4;
    case MOESIM_CAPACITY_AXLEARN:
        return 1;
    default:
        return 0;
    }
}

uint32_t moesim_capacity(enum moesim_capacity_rule rule, uint32_t n_tokens, uint32_t n_experts, uint32_t k,
                         double factor, uint32_t min_capacity)
{
    if (factor <= 0)
        return MOESIM_UNLIMITED;
    const double least = min_capacity > 0 ? min_capacity : least_slots(rule);
    const double c = fmax(slots(rule, (struct shape){n_tokens, n_experts, k, factor}), least);
    return c < MOESIM_UNLIMITED - 1 ? (uint32_t)c : MOESIM_UNLIMITED - 1; /* one below: full, not unlimited */
}
