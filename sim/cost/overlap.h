/*
 * Overlap: a layer in chunks, whose exchanges run while the experts compute other chunks.
 */
#ifndef MOESIM_SIM_COST_OVERLAP_H
#define MOESIM_SIM_COST_OVERLAP_H

#include <stdint.h>

/* Seconds of r chunks, each taking those times, on two streams, one of exchanges and one of experts: the first
 * chunk's dispatch, r - 1 times what takes longer, the last chunk's experts and combine (FSMoE's pipeline; exact for
 * one chunk). */
static inline double moesim_overlap_time(uint32_t r, double dispatch_s, double experts_s, double combine_s)
{
    const double exchange_s = dispatch_s + combine_s;
    return dispatch_s + (r - 1) * (exchange_s > experts_s ? exchange_s : experts_s) + experts_s + combine_s;
}

#endif
